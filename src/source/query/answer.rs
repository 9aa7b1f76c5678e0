//! What engines answer with, and how rows become counts.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use super::callers::CallerRow;
use super::leaf::{Ask, Leaf};
use crate::batch::Counts;
use crate::call::{CallKey, Name, Tally};
use crate::source::{Reason, SourceError};
use crate::time::Timestamp;
use crate::tls::{KeyExchange, TlsVersion};

/// The answer of a query that ran to its end.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// What was asked for.
    pub rows: Rows,
    /// Whether there may be more rows than the engine gave.
    pub truncated: bool,
}

/// The rows of an answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Rows {
    /// Calls by key and bucket.
    Calls(Vec<CallRow>),
    /// Records by bucket.
    Records(Vec<(Timestamp, u64)>),
    /// The values of a member.
    Values(Vec<Option<String>>),
    /// Who made the calls of each bucket, the busiest first.
    Callers(Vec<CallerRow>),
}

/// One row: calls of one key in one bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallRow {
    /// The start of the bucket.
    pub bucket: Timestamp,
    /// What the calls have in common; rows of one key share it.
    pub members: Arc<Members>,
    /// How many calls.
    pub calls: u64,
    /// How many records: calls and their duplicates.
    pub records: u64,
    /// The latest `eventTime` among them, where the engine can tell.
    pub last: Option<Timestamp>,
}

/// The members of a record that are counted by. One that the record has not is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Members {
    /// `eventSource`.
    pub event_source: Option<String>,
    /// `eventName`.
    pub event_name: Option<String>,
    /// `tlsDetails.tlsVersion`.
    pub tls_version: Option<String>,
    /// `tlsDetails.cipherSuite`.
    pub cipher_suite: Option<String>,
    /// `tlsDetails.keyExchange`.
    pub key_exchange: Option<String>,
    /// Whether there are `tlsDetails` of any kind.
    pub has_tls: bool,
    /// `recipientAccountId`.
    pub account_id: Option<String>,
    /// `awsRegion`.
    pub aws_region: Option<String>,
}

/// The members met so far in an answer: an answer of a million rows has some thousand.
#[derive(Debug, Default)]
pub struct MetMembers(HashSet<Arc<Members>>);

impl MetMembers {
    /// The shared one that equals `members`.
    pub fn share(&mut self, members: Members) -> Arc<Members> {
        if let Some(met) = self.0.get(&members) {
            return Arc::clone(met);
        }
        let new = Arc::new(members);
        self.0.insert(Arc::clone(&new));
        new
    }
}

/// The records of each bucket.
pub(super) fn records(rows: &[CallRow]) -> BTreeMap<Timestamp, u64> {
    let mut records = BTreeMap::new();
    for row in rows {
        *records.entry(row.bucket).or_default() += row.records;
    }
    records
}

/// The counts of a leaf, and how many records in it are no API calls.
pub(super) fn counts(
    leaf: &Leaf,
    rows: &[CallRow],
    bucket: Duration,
    minimum: TlsVersion,
    now: Timestamp,
) -> Result<(Counts, u64), SourceError> {
    let mut counts = Counts::default();
    let mut no_calls = 0;
    let mut keys: HashMap<*const Members, Arc<CallKey>> = HashMap::new();
    for row in rows {
        check_bucket(leaf, row.bucket, bucket)?;
        // CloudTrail's Insights events and whatever else lies in a log group.
        let Some(event_source) = row.members.event_source.as_deref() else {
            no_calls += row.calls;
            continue;
        };
        let key = keys
            .entry(Arc::as_ptr(&row.members))
            .or_insert_with(|| Arc::new(key(&row.members, event_source, leaf.ask)));
        if leaf.control && key.tls_version.outdated(minimum) {
            continue;
        }
        let tally = Tally {
            calls: row.calls,
            // A record from the future must not make the data look fresh for ever.
            last: row.last.unwrap_or(row.bucket).min(now),
        };
        counts.add(row.bucket, key, tally);
    }
    Ok((counts, no_calls))
}

/// That a row is of a bucket of the leaf.
pub(super) fn check_bucket(
    leaf: &Leaf,
    row: Timestamp,
    bucket: Duration,
) -> Result<(), SourceError> {
    let first = leaf.window.from.floor(bucket);
    if (first..leaf.window.to).contains(&row) && row.floor(bucket) == row {
        return Ok(());
    }
    let message = format!("a row is of the bucket {row}, which was not asked for");
    Err(SourceError::new(Reason::BadAnswer, message))
}

fn key(row: &Members, event_source: &str, ask: Ask) -> CallKey {
    let name = |text: &Option<String>| Name::new(text.as_deref().unwrap_or_default());
    let key_exchange = if row.has_tls {
        KeyExchange::from_record(row.key_exchange.as_deref())
    } else {
        KeyExchange::None
    };
    CallKey {
        aws_service: Name::new(CallKey::service_of(event_source)),
        event_name: match ask {
            Ask::CallsWithoutEventName => Name::new("other"),
            _ => name(&row.event_name),
        },
        tls_version: TlsVersion::from_record(row.tls_version.as_deref()),
        cipher_suite: name(&row.cipher_suite),
        key_exchange,
        account_id: name(&row.account_id),
        aws_region: name(&row.aws_region),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::source::query::numbers;
    use crate::window::Window;

    const BUCKET: Duration = Duration::from_secs(60);

    /// Any time, and often one of a bucket in the first hour.
    fn time() -> impl Strategy<Value = Timestamp> {
        let secs = prop_oneof![
            9 => (0_i64..60).prop_map(|minute| minute * 60),
            1 => any::<i64>(),
        ];
        secs.prop_map(Timestamp::from_secs)
    }

    fn members() -> impl Strategy<Value = Members> {
        let text = || prop::option::of(prop_oneof![".{0,3}", "TLSv1(.[0-4])?", ".{300}"]);
        let texts = (text(), text(), text(), text(), any::<bool>());
        texts.prop_map(
            |(event_source, event_name, tls_version, key_exchange, has_tls)| Members {
                event_source,
                event_name,
                tls_version,
                key_exchange,
                has_tls,
                ..Members::default()
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn rows_of_any_kind_are_counted_whole_or_are_an_error(
            rows in prop::collection::vec((time(), members(), 0_u64..=numbers::MOST, prop::option::of(time())), 0..12),
            window in (time(), time()),
            now in 0..i64::MAX,
        ) {
            let rows: Vec<CallRow> = rows.into_iter().map(|(bucket, members, calls, last)| CallRow {
                bucket,
                members: Arc::new(members),
                calls,
                records: calls,
                last,
            }).collect();
            let leaf = Leaf::calls(Window { from: window.0, to: window.1 });
            let all: u64 = rows.iter().map(|row| row.calls).sum();
            prop_assert_eq!(records(&rows).values().sum::<u64>(), all);
            match counts(&leaf, &rows, BUCKET, TlsVersion::Tls12, Timestamp::from_secs(now)) {
                Ok((counts, no_calls)) => {
                    prop_assert_eq!(counts.calls() + no_calls, all);
                    prop_assert!(counts.iter().all(|(_, _, tally)| tally.last.secs() <= now));
                }
                Err(error) => prop_assert_eq!(error.reason, Reason::BadAnswer),
            }
        }
    }
}
