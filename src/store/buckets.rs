//! The counts of each bucket: one row with all its keys, packed.
//!
//! A row a key would cost more than all the rest of counting: a day of one gigabyte is some 200,000 of
//! them. Packed, a bucket is read, merged and written as one value of a few kilobytes.

use std::collections::BTreeMap;
use std::time::Duration;

use hashbrown::HashMap;
use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::{Settings, StoreError};
use crate::time::Timestamp;

const HOUR: Duration = Duration::from_secs(3600);

/// More than this no key has, were it called a million times a second for thirty years: such a number is damage.
pub(super) const MOST: u64 = 1_000_000_000_000_000;

/// Calls by the number of their key.
pub(super) type Calls = Vec<(u32, u64)>;

/// Packs calls in the order of their keys, as differences, so that each pair takes two or three bytes.
/// Calls of the same key are added up.
pub(super) fn pack(mut calls: Calls) -> Vec<u8> {
    calls.sort_unstable_by_key(|(key, _)| *key);
    calls.dedup_by(|(key, number), (kept, sum)| {
        let same = key == kept;
        if same {
            *sum = sum.saturating_add(*number);
        }
        same
    });
    let mut before = 0;
    for (key, _) in &mut calls {
        (before, *key) = (*key, *key - before);
    }
    postcard::to_allocvec(&calls).expect("pairs of numbers serialise")
}

/// Calls `add` for each pair of packed calls.
pub(super) fn unpack(packed: &[u8], mut add: impl FnMut(u32, u64)) -> Result<(), StoreError> {
    let damaged = || StoreError::Damaged("the counts of a bucket cannot be read".to_owned());
    let pairs: Calls = postcard::from_bytes(packed).map_err(|_| damaged())?;
    let mut key: u32 = 0;
    for (difference, calls) in pairs {
        if calls > MOST {
            return Err(damaged());
        }
        key = key.checked_add(difference).ok_or_else(damaged)?;
        add(key, calls);
    }
    Ok(())
}

/// Adds calls to a bucket.
pub(super) fn add(
    transaction: &Transaction<'_>,
    worker: i64,
    bucket: Timestamp,
    mut calls: Calls,
) -> Result<(), StoreError> {
    let mut select =
        transaction.prepare_cached("SELECT calls FROM counts WHERE worker = ?1 AND bucket = ?2")?;
    let before: Option<Vec<u8>> = select
        .query_row(params![worker, bucket.secs()], |row| row.get(0))
        .optional()?;
    if let Some(before) = before {
        unpack(&before, |key, number| calls.push((key, number)))?;
    }
    let mut put =
        transaction.prepare_cached("INSERT OR REPLACE INTO counts VALUES (?1, ?2, ?3)")?;
    put.execute(params![worker, bucket.secs(), pack(calls)])?;
    Ok(())
}

/// Calls each row of a worker's counts from `from` on and before `to`.
pub(super) fn each(
    connection: &Connection,
    worker: i64,
    from: Timestamp,
    to: Timestamp,
    mut row: impl FnMut(Timestamp, u32, u64),
) -> Result<(), StoreError> {
    let mut select = connection.prepare_cached(
        "SELECT bucket, calls FROM counts WHERE worker = ?1 AND bucket >= ?2 AND bucket < ?3",
    )?;
    let mut rows = select.query(params![worker, from.secs(), to.secs()])?;
    while let Some(found) = rows.next()? {
        let bucket = Timestamp::from_secs(found.get(0)?);
        let packed = blob(found)?;
        unpack(packed, |key, calls| row(bucket, key, calls))?;
    }
    Ok(())
}

/// The packed calls of a row `bucket, calls`.
pub(super) fn blob<'r>(row: &'r rusqlite::Row<'_>) -> rusqlite::Result<&'r [u8]> {
    Ok(row.get_ref(1)?.as_blob()?)
}

/// The calls of a span of time, by key.
pub(super) fn sum(
    connection: &Connection,
    worker: i64,
    from: Timestamp,
    to: Timestamp,
) -> Result<HashMap<u32, u64>, StoreError> {
    let mut sum: HashMap<u32, u64> = HashMap::new();
    each(connection, worker, from, to, |_, key, calls| {
        *sum.entry(key).or_default() += calls
    })?;
    Ok(sum)
}

/// Once an hour of the window's start: buckets that left the window become hours, and hours older than
/// the retention go.
pub(super) fn age(
    transaction: &Transaction<'_>,
    worker: i64,
    old_start: Timestamp,
    new_start: Timestamp,
    watermark: Timestamp,
    settings: &Settings,
) -> Result<(), StoreError> {
    let end = new_start.floor(HOUR);
    if old_start.floor(HOUR) == end {
        return Ok(());
    }
    let mut hours: BTreeMap<Timestamp, Calls> = BTreeMap::new();
    let fine = "worker = ?1 AND bucket < ?2 AND bucket % 3600 <> 0";
    {
        let mut select =
            transaction.prepare(&format!("SELECT bucket, calls FROM counts WHERE {fine}"))?;
        let mut rows = select.query(params![worker, end.secs()])?;
        while let Some(row) = rows.next()? {
            let hour = hours
                .entry(Timestamp::from_secs(row.get(0)?).floor(HOUR))
                .or_default();
            unpack(blob(row)?, |key, calls| hour.push((key, calls)))?;
        }
    }
    for (hour, calls) in hours {
        add(transaction, worker, hour, calls)?;
    }
    transaction.execute(
        &format!("DELETE FROM counts WHERE {fine}"),
        params![worker, end.secs()],
    )?;
    let oldest = watermark.minus(settings.retention);
    transaction.execute(
        "DELETE FROM counts WHERE worker = ?1 AND bucket < ?2",
        params![worker, oldest.secs()],
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn packed_calls_read_back_sorted_and_added_up(calls in prop::collection::vec((0_u32..90, 0_u64..u64::from(u32::MAX)), 0..50)) {
            let mut read = Calls::new();
            unpack(&pack(calls.clone()), |key, number| read.push((key, number))).unwrap();
            let mut sum = BTreeMap::new();
            for (key, number) in calls {
                *sum.entry(key).or_insert(0) += number;
            }
            prop_assert_eq!(read, sum.into_iter().collect::<Calls>());
        }

        #[test]
        fn bytes_of_any_kind_are_damage_or_numbers_that_can_be_added_up(
            bytes in prop::collection::vec(any::<u8>(), 0..40),
            number in prop::option::of(0..4_u8),
        ) {
            // The first byte is how many pairs there are: few, and all may be read.
            let bytes: Vec<u8> = number.into_iter().chain(bytes).collect();
            let mut sum = 0_u64;
            match unpack(&bytes, |_, number| sum += number) {
                Ok(()) => prop_assert!(sum <= MOST * 40),
                Err(error) => prop_assert!(matches!(error, StoreError::Damaged(_)), "{}", error),
            }
        }
    }

    #[test]
    fn typical_pairs_take_two_or_three_bytes() {
        let calls: Calls = (0..1000)
            .map(|key| (key * 3, u64::from(key % 200)))
            .collect();
        let number = calls.len();
        assert!(pack(calls).len() < 3 * number);
    }
}
