//! What a source hands to the store: counts, the progress after them, and what they cover.

use std::collections::BTreeMap;
use std::sync::Arc;

use hashbrown::HashMap;

use crate::call::{CallKey, Caller, Tally};
use crate::source::Reason;
use crate::time::Timestamp;
use crate::window::Window;

/// The next step of a source. The store commits all of it or nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    /// Calls by the start of their bucket and by key.
    pub counts: Counts,
    /// Who made outdated calls, as far as it is known; more than the counts have, or less, is no error.
    pub callers: Callers,
    /// The source's progress once this batch is committed.
    pub progress: Vec<ProgressChange>,
    /// The time that is counted to its end with this batch: the watermark becomes `to`. `None` when
    /// only the progress changes, as when a query was started.
    pub covered: Option<Window>,
    /// The counts are those of this window's buckets counted again: only what is more than before counts.
    pub recounted: Option<Window>,
    /// From the watermark on something else is counted than before it: history starts there.
    pub begins_anew: bool,
    /// Time that was given up and is never counted, in seconds.
    pub skipped_seconds: u64,
    /// What was read for this batch.
    pub scanned: Scanned,
    /// Calls that came late, into time that was counted before, where the source can tell; those of a window that
    /// is counted again are told by the store.
    pub late_calls: u64,
    /// Records that were passed over because their event id had been counted.
    pub duplicates: u64,
    /// Event ids that left the horizon of duplicates.
    pub evicted: u64,
    /// What could not be read, by name; the rest of the batch is not touched by it.
    pub rejected: Vec<Rejected>,
    /// How many files are unreadable after this batch.
    pub unreadable_files: Option<u64>,
}

/// What was read, and what of it AWS bills.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scanned {
    /// Bytes: of a query, as AWS tells them; of files, as they lie on the disk.
    pub bytes: u64,
    /// Bytes that are billed, minimum included.
    pub billed_bytes: u64,
    /// Records, whether they counted or not.
    pub records: u64,
}

impl Scanned {
    /// Adds `other` to this.
    pub fn add(&mut self, other: Self) {
        self.bytes += other.bytes;
        self.billed_bytes += other.billed_bytes;
        self.records += other.records;
    }

    /// What is billed as it was scanned.
    pub fn billed(bytes: u64, records: u64) -> Self {
        Self {
            bytes,
            billed_bytes: bytes,
            records,
        }
    }
}

/// A file, or another part of a batch, that could not be counted and will be tried again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// Its name, as the user knows it.
    pub name: String,
    /// Its place in the closed set of reasons.
    pub reason: Reason,
    /// What is wrong, in words.
    pub error: String,
}

/// One change of what a source remembers: the rows are the source's own, the store only keeps them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgressChange {
    /// The row's key, unique for the worker.
    pub key: String,
    /// Its new value; `None` removes it.
    pub value: Option<Vec<u8>>,
}

impl ProgressChange {
    /// Sets the row `key`.
    pub fn put(key: impl Into<String>, value: impl Into<Vec<u8>>) -> Self {
        Self {
            key: key.into(),
            value: Some(value.into()),
        }
    }

    /// Removes the row `key`.
    pub fn remove(key: impl Into<String>) -> Self {
        Self {
            key: key.into(),
            value: None,
        }
    }
}

/// Calls counted by bucket and key. Adding is commutative and associative, so batches may be added
/// in any order.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    numbers: HashMap<Arc<CallKey>, u32>,
    keys: Vec<Arc<CallKey>>,
    buckets: BTreeMap<Timestamp, HashMap<u32, Tally>>,
}

impl Counts {
    /// Adds calls of one key to one bucket.
    pub fn add(&mut self, bucket: Timestamp, key: &Arc<CallKey>, tally: Tally) {
        if tally.calls > 0 {
            let number = self.number(key);
            self.add_to(bucket, [(number, tally)].into_iter());
        }
    }

    /// The number of a key in this batch, for [`Counts::add_to`].
    pub fn number(&mut self, key: &Arc<CallKey>) -> u32 {
        let next = u32::try_from(self.keys.len()).expect("a batch has fewer than 4 billion keys");
        *self.numbers.entry_ref(key).or_insert_with(|| {
            self.keys.push(Arc::clone(key));
            next
        })
    }

    /// Adds calls of numbered keys to one bucket.
    pub fn add_to(&mut self, bucket: Timestamp, calls: impl Iterator<Item = (u32, Tally)>) {
        let bucket = self.buckets.entry(bucket).or_default();
        for (number, tally) in calls.filter(|(_, tally)| tally.calls > 0) {
            bucket.entry(number).or_default().add(tally);
        }
    }

    /// Adds all of `other`.
    pub fn merge(&mut self, other: &Self) {
        for (bucket, key, tally) in other.iter() {
            self.add(bucket, key, tally);
        }
    }

    /// The counts, by bucket.
    pub fn iter(&self) -> impl Iterator<Item = (Timestamp, &Arc<CallKey>, Tally)> {
        self.buckets().flat_map(move |(bucket, calls)| {
            calls.filter_map(move |(number, tally)| {
                Some((bucket, self.keys.get(number as usize)?, tally))
            })
        })
    }

    /// The keys; the place of each is its number in this batch.
    pub fn keys(&self) -> &[Arc<CallKey>] {
        &self.keys
    }

    /// The buckets in their order, and the calls of each by the number of their key.
    pub fn buckets(
        &self,
    ) -> impl Iterator<Item = (Timestamp, impl ExactSizeIterator<Item = (u32, Tally)>)> {
        self.buckets.iter().map(|(bucket, calls)| {
            let calls = calls.iter().map(|(number, tally)| (*number, *tally));
            (*bucket, calls)
        })
    }

    /// All calls together.
    pub fn calls(&self) -> u64 {
        self.iter().map(|(_, _, tally)| tally.calls).sum()
    }
}

/// Outdated calls by the start of their bucket and by who made them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Callers(BTreeMap<Timestamp, HashMap<Arc<Caller>, u64>>);

impl Callers {
    /// Adds calls of one caller to one bucket.
    pub fn add(&mut self, bucket: Timestamp, caller: &Arc<Caller>, calls: u64) {
        if calls > 0 {
            let known = self.0.entry(bucket).or_default();
            *known.entry_ref(caller).or_default() += calls;
        }
    }

    /// The calls, by bucket.
    pub fn iter(&self) -> impl Iterator<Item = (Timestamp, &Arc<Caller>, u64)> {
        self.0.iter().flat_map(|(bucket, callers)| {
            callers
                .iter()
                .map(|(caller, calls)| (*bucket, caller, *calls))
        })
    }

    /// Whether nobody is known.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Two counts are equal when they say the same, whatever numbers their keys have.
impl PartialEq for Counts {
    fn eq(&self, other: &Self) -> bool {
        let sorted = |counts: &Self| {
            let mut rows: Vec<_> = counts
                .iter()
                .map(|(bucket, key, tally)| (bucket, Arc::clone(key), tally))
                .collect();
            rows.sort_unstable_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
            rows
        };
        sorted(self) == sorted(other)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::call::tests::call;
    use crate::tls::TlsVersion;

    fn counts() -> impl Strategy<Value = Counts> {
        prop::collection::vec((0_i64..4, 0_usize..4, 0_u64..9, 0_i64..99), 0..20).prop_map(|rows| {
            let mut counts = Counts::default();
            for (bucket, version, calls, last) in rows {
                let key = Arc::new(call(TlsVersion::ALL[version], "s3", "GetObject"));
                counts.add(
                    Timestamp::from_secs(bucket * 60),
                    &key,
                    Tally {
                        calls,
                        last: Timestamp::from_secs(last),
                    },
                );
            }
            counts
        })
    }

    proptest! {
        #[test]
        fn batches_may_be_added_in_any_order(parts in prop::collection::vec(counts(), 0..6), seed in any::<u64>()) {
            let sum = |parts: &[Counts]| parts.iter().cloned().fold(Counts::default(), |mut sum, part| {
                sum.merge(&part);
                sum
            });
            let mut shuffled = parts.clone();
            fastrand::Rng::with_seed(seed).shuffle(&mut shuffled);
            prop_assert_eq!(sum(&parts), sum(&shuffled));
            prop_assert_eq!(sum(&parts).calls(), parts.iter().map(Counts::calls).sum::<u64>());
        }
    }
}
