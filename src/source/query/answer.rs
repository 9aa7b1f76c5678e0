//! What engines answer with, and how rows become counts.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

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
