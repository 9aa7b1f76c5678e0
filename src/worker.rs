//! The loop of one source: due batches, oldest first, each committed before the next is asked for.

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::{Instant as Moment, sleep_until};
use tracing::{debug, warn};

use crate::metrics::Metrics;
use crate::shutdown::Shutdown;
use crate::source::{BadProgress, Progress, Reason, Source, SourceError, Terms};
use crate::status::Status;
use crate::store::{Store, StoreError, WorkerName, WorkerState};
use crate::time::Timestamp;

/// Clocks that differ more than this, in seconds, are worth a warning.
const SKEW: i64 = 60;

/// What a worker tells of itself, and to whom.
#[derive(Clone, Debug)]
pub struct Reports {
    /// The exporter's metrics.
    pub metrics: Metrics,
    /// The landing page's state.
    pub status: Status,
}

/// When a worker ticks.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    every: Duration,
    longest_retry: Duration,
    /// After a failure that is billed.
    paid_retry: Duration,
}

impl Pace {
    /// A tick every `every`, whether the last one failed or not.
    pub fn steady(every: Duration) -> Self {
        Self {
            every,
            longest_retry: every,
            paid_retry: every,
        }
    }

    /// For a source whose windows end at multiples of `interval`: looks each minute for what is due, which costs
    /// nothing. After failures in a row it waits a minute, two, four and so on, but not much of the interval; after
    /// one that is billed, the whole of it.
    pub fn of_windows(interval: Duration) -> Self {
        let longest = (interval / 4).clamp(Duration::from_secs(5 * 60), Duration::from_secs(3600));
        let longest_retry = longest.min(interval);
        Self {
            every: longest_retry.min(Duration::from_secs(60)),
            longest_retry,
            paid_retry: interval,
        }
    }

    /// When the next tick begins, after one that took from `began` to `ended` and so many failures in a row.
    fn next(self, began: Moment, ended: Moment, failures: u32, paid: bool) -> Moment {
        let times = 1_u32
            .checked_shl(failures.saturating_sub(1))
            .unwrap_or(u32::MAX);
        let retry = self.every.saturating_mul(times).min(self.longest_retry);
        match (failures, paid) {
            (0, _) => (began + self.every).max(ended),
            (_, false) => ended + retry,
            (_, true) => ended + self.paid_retry,
        }
    }
}

/// Asks one source in turn and commits its batches.
pub struct Worker<S: Source> {
    name: WorkerName,
    id: i64,
    source: S,
    progress: S::Progress,
    watermark: Option<Timestamp>,
    store: Store,
    reports: Reports,
    terms: Terms,
    now: fn() -> Timestamp,
}

/// Why a tick ended early.
#[derive(Debug, thiserror::Error)]
pub enum TickError {
    /// The source failed.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The batch could not be committed.
    #[error("the batch was not committed")]
    Store(#[from] StoreError),
    /// The source handed out progress that it cannot read itself.
    #[error(transparent)]
    Progress(#[from] BadProgress),
}

impl TickError {
    fn reason(&self) -> Reason {
        match self {
            Self::Source(error) => error.reason,
            Self::Store(_) | Self::Progress(_) => Reason::Internal,
        }
    }
}

impl<S: Source> Worker<S> {
    /// A worker over `source` that goes on where `state` ends. Its series exist from now on.
    pub fn new(
        name: WorkerName,
        state: &WorkerState,
        mut source: S,
        store: Store,
        reports: Reports,
        now: fn() -> Timestamp,
    ) -> Result<Self, BadProgress> {
        let progress = progress_of(state)?;
        source.loaded(&progress);
        reports.metrics.worker_loaded(&name, state);
        reports
            .status
            .update(&name, |status| status.watermark = state.watermark);
        Ok(Self {
            name,
            id: state.id,
            source,
            progress,
            watermark: state.watermark,
            store,
            reports,
            terms: Terms::default(),
            now,
        })
    }

    /// The same worker with its source's terms.
    pub fn on(mut self, terms: Terms) -> Self {
        self.terms = terms;
        self
    }

    /// Ticks at its pace until it is asked to stop.
    pub async fn run(mut self, pace: Pace, mut shutdown: Shutdown) {
        let mut next = Moment::now();
        let mut failures = 0;
        while shutdown.unless_stopped(sleep_until(next)).await.is_some() {
            let began = Moment::now();
            let Some(result) = shutdown.unless_stopped(self.tick()).await else {
                break;
            };
            failures = if result.is_ok() { 0 } else { failures + 1 };
            let paid = matches!(&result, Err(TickError::Source(error)) if error.paid);
            next = pace.next(began, Moment::now(), failures, paid);
            match result {
                Ok(()) => {}
                // The log has a line for when it began.
                Err(error) if error.reason() == Reason::Budget => {
                    debug!(source = self.name.source, %error, "waits");
                }
                Err(error) => warn!(
                    source = self.name.source,
                    reason = error.reason().label(),
                    error = chain(&error),
                    "not counted, stays due"
                ),
            }
        }
        self.source.stop(&self.progress).await;
    }

    /// Commits every batch that is due, and stops at the first failure.
    pub async fn tick(&mut self) -> Result<(), TickError> {
        self.reports
            .metrics
            .attempt_started(&self.name, (self.now)());
        let result = self.catch_up().await;
        if let Some(seconds) = self.tell_requests().filter(|ahead| ahead.abs() > SKEW) {
            warn!(
                source = self.name.source,
                seconds, "this host's clock is ahead of AWS's"
            );
        }
        match &result {
            Ok(()) => {
                self.reports
                    .metrics
                    .attempt_succeeded(&self.name, (self.now)());
                self.reports.status.update(&self.name, |status| {
                    status.up = Some(true);
                    status.error = None;
                });
            }
            Err(error) => {
                let backlog = self
                    .watermark
                    .map(|watermark| self.terms.backlog(watermark, (self.now)()));
                self.reports
                    .metrics
                    .attempt_failed(&self.name, error.reason(), backlog);
                self.reports.status.update(&self.name, |status| {
                    status.up = Some(false);
                    status.error = Some(chain(error));
                });
            }
        }
        result
    }

    async fn catch_up(&mut self) -> Result<(), TickError> {
        loop {
            let started = Instant::now();
            let Some(batch) = self.source.next_batch(&self.progress, (self.now)()).await? else {
                return Ok(());
            };
            let batch = Arc::new(batch);
            for rejected in &batch.rejected {
                let reason = rejected.reason.label();
                warn!(
                    source = self.name.source,
                    part = rejected.name,
                    reason,
                    error = rejected.error,
                    "not as it should be"
                );
            }
            let now = (self.now)();
            let committed = self.store.commit(self.id, Arc::clone(&batch), now).await?;
            if committed.recount.gone > 0 {
                let calls = committed.recount.gone;
                warn!(
                    source = self.name.source,
                    calls, "counted before and not found again; they stay counted"
                );
            }
            for change in &batch.progress {
                self.progress.apply(change)?;
            }
            self.reports.metrics.batch_committed(
                &self.name,
                &batch,
                &committed,
                self.terms,
                now,
                started.elapsed(),
            );
            self.tell_requests();
            self.watermark = committed.watermark;
            self.reports.status.update(&self.name, |status| {
                status.watermark = committed.watermark;
                status.unreadable_files = batch.unreadable_files.unwrap_or(status.unreadable_files);
            });
            debug!(
                source = self.name.source,
                calls = batch.counts.calls(),
                duplicates = batch.duplicates,
                "batch committed"
            );
        }
    }

    /// Tells the requests to AWS, and what they spent; returns how far the host's clock is ahead of AWS's.
    fn tell_requests(&mut self) -> Option<i64> {
        let requests = self.source.requests();
        self.reports.metrics.requests_sent(&self.name, &requests);
        if let Some(spending) = self.source.spending((self.now)()) {
            self.reports.metrics.budget_used(&self.name, spending);
        }
        requests.ahead
    }
}

/// What a source remembers of a stored worker.
pub fn progress_of<P: Progress>(state: &WorkerState) -> Result<P, BadProgress> {
    let mut progress = P::default();
    for change in &state.progress {
        progress.apply(change)?;
    }
    Ok(progress)
}

/// An error and what caused it, in one line.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_in_a_row_are_tried_again_ever_later_but_within_the_interval() {
        let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
        let began = Moment::now();
        // A tick of twenty minutes: what failed is tried again after the pause, however long it took.
        let ended = began + minutes(20);
        let pauses = |pace: Pace| {
            [1, 2, 3, 4, 40].map(|failures| pace.next(began, ended, failures, false) - ended)
        };
        let steady = Pace::steady(Duration::from_secs(10));
        assert_eq!(pauses(steady), [Duration::from_secs(10); 5]);
        let logs = Pace::of_windows(minutes(5));
        assert_eq!(pauses(logs), [1, 2, 4, 5, 5].map(minutes));
        let athena = Pace::of_windows(minutes(24 * 60));
        assert_eq!(pauses(athena), [1, 2, 4, 8, 60].map(minutes));
        let often = Pace::of_windows(Duration::from_secs(30));
        assert_eq!(pauses(often), [Duration::from_secs(30); 5]);
        // What is billed is not tried more often than it would be asked anyway.
        assert_eq!(athena.next(began, ended, 1, true) - ended, minutes(24 * 60));
        assert_eq!(logs.next(began, began, 0, false) - began, minutes(1));
        assert_eq!(logs.next(began, ended, 0, false), ended);
    }
}
