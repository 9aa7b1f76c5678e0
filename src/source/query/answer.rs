//! What engines answer with, and how rows become counts.

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
    /// Bytes scanned, as AWS bills them.
    pub scanned_bytes: u64,
    /// Records scanned.
    pub scanned_records: u64,
}

/// The rows of an answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Rows {
    /// Calls by key and bucket.
    Calls(Vec<CallRow>),
    /// The values of a member.
    Values(Vec<Option<String>>),
}

/// One row: calls of one key in one bucket. A member that the record has not is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CallRow {
    /// The start of the bucket.
    pub bucket: Timestamp,
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
    /// How many calls.
    pub calls: u64,
    /// The latest `eventTime` among them, where the engine can tell.
    pub last: Option<Timestamp>,
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
    let first = leaf.window.from.floor(bucket);
    for row in rows {
        if row.bucket < first
            || row.bucket >= leaf.window.to
            || row.bucket.floor(bucket) != row.bucket
        {
            let message = format!(
                "a row is of the bucket {}, which was not asked for",
                row.bucket
            );
            return Err(SourceError::new(Reason::BadAnswer, message));
        }
        // CloudTrail's Insights events and whatever else lies in a log group.
        let Some(event_source) = row.event_source.as_deref() else {
            no_calls += row.calls;
            continue;
        };
        let key = key(row, event_source, leaf.ask);
        if leaf.control && key.tls_version.outdated(minimum) {
            continue;
        }
        let tally = Tally {
            calls: row.calls,
            // A record from the future must not make the data look fresh for ever.
            last: row.last.unwrap_or(row.bucket).min(now),
        };
        counts.add(row.bucket, &Arc::new(key), tally);
    }
    Ok((counts, no_calls))
}

fn key(row: &CallRow, event_source: &str, ask: Ask) -> CallKey {
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
