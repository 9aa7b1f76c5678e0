//! The seam that every source stands behind: stored progress and the time in, the next batch and the
//! progress after it out.

pub mod athena;
pub mod event_history;
pub mod lake;
pub mod logs_insights;
pub mod query;
mod records;
mod sql;
pub mod trail_files;

use std::collections::BTreeMap;
use std::error::Error;
use std::future::Future;
use std::time::Duration;

pub use self::query::Spending;
use crate::batch::{Batch, ProgressChange};
use crate::time::Timestamp;
use crate::window::Schedule;

/// Counts API calls, batch by batch.
pub trait Source: Send + 'static {
    /// What this source remembers between batches and over restarts.
    type Progress: Progress;

    /// The next batch that is due, oldest first; `None` when nothing is due at `now`.
    ///
    /// Asked again with the same progress, a source counts the same calls again: nothing counts until the
    /// store has committed the batch together with its progress. A source may keep what it likes
    /// between calls, but must not rely on a batch it handed out having been committed.
    fn next_batch(
        &mut self,
        progress: &Self::Progress,
        now: Timestamp,
    ) -> impl Future<Output = Result<Option<Batch>, SourceError>> + Send;

    /// What was stored for this source is known now: it is told before any worker of the source asks.
    fn loaded(&mut self, _: &Self::Progress) {}

    /// How much of its budget the source has used, if it has one.
    fn spending(&self, _: Timestamp) -> Option<Spending> {
        None
    }

    /// What was asked of AWS since this was called last.
    fn requests(&mut self) -> Requests {
        Requests::default()
    }

    /// Stops what runs at AWS on this source's behalf: its worker ends.
    fn stop(&mut self, _: &Self::Progress) -> impl Future<Output = ()> + Send {
        async {}
    }
}

/// Requests to AWS, and its clock beside the host's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Requests {
    /// Requests sent, retries included, by operation.
    pub sent: BTreeMap<String, u64>,
    /// Requests that failed after all retries, by operation and reason.
    pub failed: BTreeMap<(String, Reason), u64>,
    /// How far the host's clock is ahead of AWS's in seconds, once there was an answer.
    pub ahead: Option<i64>,
}

/// What a source's numbers are worth.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Terms {
    /// Which windows are due; files are due at once.
    pub schedule: Schedule,
    /// Dollars for a GiB scanned.
    pub price_per_gib: f64,
}

impl Terms {
    /// How much time is due and not yet counted.
    pub fn backlog(self, watermark: Timestamp, now: Timestamp) -> Duration {
        self.schedule.settled(now).since(watermark)
    }

    /// What the scanned bytes cost.
    #[expect(
        clippy::cast_precision_loss,
        reason = "an estimate, far below the sizes that a float has not"
    )]
    pub fn price(self, bytes: u64) -> f64 {
        bytes as f64 / (1_u64 << 30) as f64 * self.price_per_gib
    }
}

/// A source's memory, built from the rows that the store keeps for it.
pub trait Progress: Default + Send + Sync + 'static {
    /// Takes in one change: each stored row after a start, in the order of keys, then the changes of
    /// each batch once it is committed.
    fn apply(&mut self, change: &ProgressChange) -> Result<(), BadProgress>;
}

/// A stored row that the source cannot read: the store was damaged or written by another program.
#[derive(Debug, thiserror::Error)]
#[error(
    "the store is damaged: the progress `{key}` cannot be read; restore it from a copy, or move it away to start anew"
)]
pub struct BadProgress {
    /// The row's key.
    pub key: String,
}

/// Why an attempt, or a part of a batch, failed: the `reason` label, a closed set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// AWS asked for fewer requests.
    Throttled,
    /// Too many queries were running.
    ConcurrencyLimit,
    /// It took longer than the source's `timeout`.
    Timeout,
    /// Not allowed: by IAM, or by the file system's permissions.
    AccessDenied,
    /// No credentials, or expired ones.
    Credentials,
    /// The log group, store, table, bucket or folder does not exist.
    NotFound,
    /// AWS refused the request as it was put.
    Rejected,
    /// An answer was not whole.
    Truncated,
    /// An answer could not be understood.
    BadAnswer,
    /// A file could not be read as CloudTrail's.
    Unreadable,
    /// A file is larger than the limit.
    TooLarge,
    /// The day's budget is used up.
    Budget,
    /// The network failed, or AWS's end of it.
    Connection,
    /// This program failed: its store, or a bug.
    Internal,
}

impl Reason {
    /// Every reason: its series are created at zero.
    pub const ALL: [Self; 14] = [
        Self::Throttled,
        Self::ConcurrencyLimit,
        Self::Timeout,
        Self::AccessDenied,
        Self::Credentials,
        Self::NotFound,
        Self::Rejected,
        Self::Truncated,
        Self::BadAnswer,
        Self::Unreadable,
        Self::TooLarge,
        Self::Budget,
        Self::Connection,
        Self::Internal,
    ];

    /// The value of the `reason` label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Throttled => "throttled",
            Self::ConcurrencyLimit => "concurrency_limit",
            Self::Timeout => "timeout",
            Self::AccessDenied => "access_denied",
            Self::Credentials => "credentials",
            Self::NotFound => "not_found",
            Self::Rejected => "rejected",
            Self::Truncated => "truncated",
            Self::BadAnswer => "bad_answer",
            Self::Unreadable => "unreadable",
            Self::TooLarge => "too_large",
            Self::Budget => "budget",
            Self::Connection => "connection",
            Self::Internal => "internal",
        }
    }
}

/// A failed attempt. What was due stays due: the next tick is the retry.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct SourceError {
    /// The `reason` label.
    pub reason: Reason,
    /// Whether AWS bills for what failed: the same again is paid for again.
    pub paid: bool,
    message: String,
    #[source]
    cause: Option<Box<dyn Error + Send + Sync>>,
}

impl SourceError {
    /// A failure that has no error below it.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            reason,
            paid: false,
            message: message.into(),
            cause: None,
        }
    }

    /// A failure because of `cause`, which the message does not repeat.
    pub fn because(
        reason: Reason,
        message: impl Into<String>,
        cause: impl Error + Send + Sync + 'static,
    ) -> Self {
        Self {
            reason,
            paid: false,
            message: message.into(),
            cause: Some(Box::new(cause)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_reason_has_a_label_of_its_own() {
        let labels = BTreeSet::from(Reason::ALL.map(Reason::label));
        assert_eq!(labels.len(), Reason::ALL.len());
    }
}
