//! A query in flight: it is looked at until it has ended, then its answer is counted, or asked for in parts.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use super::answer::{self, Answer, CallRow, Rows};
use super::callers::{not_named, told};
use super::leaf::{Ask, Leaf};
use super::progress::{self, InFlight, QueryProgress};
use super::steps::{advance, checked, compare_from, moved_on, not_recounted, replaced, rest};
use super::{End, Engine, FAREWELL, Look, QuerySource};
use crate::batch::{Batch, Scanned};
use crate::source::{Reason, SourceError};
use crate::time::Timestamp;

/// The longest pause between two looks at a running query.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// After so many windows of the longest length that went well, longer ones are tried.
const TRY_LONGER: u32 = 8;
/// So often in a row an answer is read that cannot be read, or a window counted again that cannot be.
const TRIES: u32 = 3;

impl<E: Engine> QuerySource<E> {
    /// Waits for the query in flight, and counts its answer.
    pub(super) async fn finish(
        &mut self,
        flight: &InFlight,
        progress: &QueryProgress,
        now: Timestamp,
    ) -> Result<Batch, SourceError> {
        self.unstored = None;
        if self.place.is_none() {
            self.place = Some(self.quota.running().await);
        }
        let (began, mut pause) = (Instant::now(), self.settings.first_pause);
        loop {
            self.quota.poll().await;
            let looked = self.engine.look(&flight.id, &flight.query).await;
            match looked {
                Ok(Look::Ended(end, scanned)) => {
                    return self.ended(flight, progress, now, end, scanned);
                }
                Ok(Look::Running) => {}
                Err(error) if flight.query.leaf.asks_callers() => {
                    self.stop_query(&flight.id).await;
                    let (end, scanned) = (End::Failed(error), None);
                    return self.ended(flight, progress, now, end, scanned);
                }
                Err(error) => return self.not_read(flight, progress, error),
            }
            let ran = self.trusted(now).since(flight.started) + began.elapsed();
            if let Some(why) = self.too_long(flight, progress, ran) {
                let (end, scanned) = self.time_out(flight, ran, why).await;
                return self.ended(flight, progress, now, end, scanned);
            }
            sleep(pause).await;
            pause = (pause * 3 / 2).min(LONGEST_PAUSE.max(self.settings.first_pause));
        }
    }

    /// Why a query that has run so long is waited for no longer, if so.
    fn too_long(
        &self,
        flight: &InFlight,
        progress: &QueryProgress,
        ran: Duration,
    ) -> Option<&'static str> {
        if ran >= self.settings.timeout {
            return Some("the source's `timeout`");
        }
        let in_the_way = self.in_the_way(flight, progress, ran);
        in_the_way.then_some("as calls are due")
    }

    /// Stops a query that takes too long, unless it has just ended.
    async fn time_out(
        &self,
        flight: &InFlight,
        ran: Duration,
        why: &str,
    ) -> (End, Option<Scanned>) {
        self.stop_query(&flight.id).await;
        let ran = humantime::format_duration(Duration::from_secs(ran.as_secs()));
        let message = format!("the query was stopped after {ran}, {why}");
        let error = SourceError::new(Reason::Timeout, message);
        let end = match E::PARTS_SAVE {
            true => End::TooMuch(error),
            false => End::Failed(error),
        };
        // What it scanned until now is paid for.
        match self.engine.look(&flight.id, &flight.query).await {
            Ok(Look::Ended(End::Complete(answer), scanned)) => (End::Complete(answer), scanned),
            Ok(Look::Ended(_, scanned)) => (end, scanned),
            _ => (end, None),
        }
    }

    /// Keeps the query whose answer could not be read; one that cannot be read again and again is asked anew.
    fn not_read(
        &mut self,
        flight: &InFlight,
        progress: &QueryProgress,
        error: SourceError,
    ) -> Result<Batch, SourceError> {
        self.place = None;
        self.unread += u32::from(error.reason == Reason::BadAnswer);
        if self.unread < TRIES {
            return Err(error);
        }
        self.unread = 0;
        self.failure = Some(error);
        let mut batch = moved_on(progress::remove_query());
        Self::book(flight, progress, false, None, &mut batch);
        Ok(batch)
    }

    /// Takes in how a query ended, and what it cost.
    fn ended(
        &mut self,
        flight: &InFlight,
        progress: &QueryProgress,
        now: Timestamp,
        end: End,
        scanned: Option<Scanned>,
    ) -> Result<Batch, SourceError> {
        let leaf = &flight.query.leaf;
        let paid = |error| SourceError {
            paid: scanned.is_some_and(|scanned| scanned.billed_bytes > 0),
            ..error
        };
        let complete = matches!(end, End::Complete(_));
        let mut batch = match end {
            End::Complete(answer) => {
                match self.answered(flight, progress, self.trusted(now), answer) {
                    Ok(batch) => batch,
                    Err(error) if leaf.asks_callers() => self.failed(leaf, progress, paid(error)),
                    Err(error) => return self.not_read(flight, progress, error),
                }
            }
            End::Stopped => {
                if self.own.as_deref() == Some(flight.id.as_str()) {
                    let message = "the query was stopped at AWS by somebody else";
                    let error = paid(SourceError::new(Reason::Rejected, message));
                    self.failed(leaf, progress, error)
                } else {
                    Batch::default()
                }
            }
            End::TooMuch(error) => self.in_parts(leaf, progress, paid(error)),
            End::Failed(error) => self.failed(leaf, progress, paid(error)),
            End::Reworded => {
                self.plain = true;
                Batch::default()
            }
        };
        self.place = None;
        Self::book(flight, progress, complete, scanned, &mut batch);
        batch.progress.push(progress::remove_query());
        Ok(batch)
    }

    /// What becomes of a failure: a window that cannot be counted again stays as it was after some tries, so that
    /// nothing new waits for it.
    pub(super) fn failed_again(
        &mut self,
        leaf: &Leaf,
        progress: &QueryProgress,
        error: SourceError,
    ) -> Result<Batch, SourceError> {
        if leaf.asks_callers() {
            return Ok(not_named(leaf, progress, &error));
        }
        self.not_again += u32::from(leaf.recount);
        if !leaf.recount || self.not_again < TRIES {
            return Err(error);
        }
        self.not_again = 0;
        Ok(not_recounted(
            leaf,
            progress,
            error.reason,
            &error.to_string(),
        ))
    }

    /// Takes the answer of a leaf in, or splits it.
    fn answered(
        &mut self,
        flight: &InFlight,
        progress: &QueryProgress,
        now: Timestamp,
        answer: Answer,
    ) -> Result<Batch, SourceError> {
        let leaf = &flight.query.leaf;
        let bucket = self.settings.schedule.bucket;
        let batch = match (answer.truncated, answer.rows) {
            // The busiest are in it; the others are not named, on purpose.
            (_, Rows::Callers(rows)) => self.named(leaf, progress, &rows)?,
            (true, _) => self.split(leaf, progress)?,
            (false, Rows::Values(values)) => {
                let Ask::Values(part) = leaf.ask else {
                    let message = "the answer is of another question";
                    return Err(SourceError::new(Reason::BadAnswer, message));
                };
                // A member that is missing and one that is empty are asked for together.
                let values: BTreeSet<Option<String>> = values.into_iter().collect();
                if values.is_empty() {
                    let message = "a window that has too many rows has none";
                    self.failure = Some(SourceError::new(Reason::BadAnswer, message));
                    Batch::default()
                } else {
                    let mut leaves = rest(progress.list_of(leaf)).to_vec();
                    let parts = leaf.by_value(part, values.into_iter().collect());
                    leaves.extend(parts.into_iter().rev());
                    replaced(leaf, &leaves)
                }
            }
            (false, Rows::Records(rows)) => {
                for (at, _) in &rows {
                    answer::check_bucket(leaf, *at, bucket)?;
                }
                checked(leaf, progress, &rows, bucket)
            }
            (false, Rows::Calls(_)) if leaf.recount && flight.query.plain != progress.plain => {
                let why = "the table told key exchanges then, and does not now";
                not_recounted(leaf, progress, Reason::Rejected, why)
            }
            (false, Rows::Calls(rows)) => self.counted(flight, progress, now, &rows)?,
        };
        self.unread = 0;
        if leaf.recount {
            self.not_again = 0;
        }
        Ok(batch)
    }

    fn counted(
        &mut self,
        flight: &InFlight,
        progress: &QueryProgress,
        now: Timestamp,
        rows: &[CallRow],
    ) -> Result<Batch, SourceError> {
        let leaf = &flight.query.leaf;
        let bucket = self.settings.schedule.bucket;
        let minimum = self.settings.minimum_version;
        let (counts, no_calls) = answer::counts(leaf, rows, bucket, minimum, now)?;
        if no_calls > 0 {
            debug!(
                events = no_calls,
                "log events without eventSource are no API calls"
            );
        }
        if leaf.ask == Ask::CallsWithoutEventName {
            let from = leaf.window.from;
            warn!(%from, calls = counts.calls(), "too many calls for one answer: counted without event_name, as `other`");
        }
        let rest = rest(progress.list_of(leaf));
        let mut batch = replaced(leaf, rest);
        batch.counts = counts;
        batch.recounted = leaf.recount.then_some(leaf.window);
        self.settings.remember_outdated(&mut batch, progress);
        if leaf.holds_watermark() {
            self.try_longer(leaf, progress);
            self.remember(flight, progress, rows, &mut batch);
        }
        advance(&mut batch, leaf, rest, progress);
        if let (None, Some(covered)) = (self.settings.recount, batch.covered) {
            // Should it be counted again one day, then what comes from then on.
            batch.progress.push(progress::put_recounted(covered.to));
        }
        Ok(batch)
    }

    /// Remembers how calls were counted, so that they can be compared.
    fn remember(
        &self,
        flight: &InFlight,
        progress: &QueryProgress,
        rows: &[CallRow],
        batch: &mut Batch,
    ) {
        let plain = flight.query.plain;
        let reworded = plain != progress.plain;
        if reworded {
            // With another key exchange a call is another key: it would count as new.
            batch.progress.push(progress::put_plain(plain));
            compare_from(batch, progress, flight.query.leaf.window.from);
        }
        if self
            .settings
            .recount
            .is_some_and(|recount| recount.check_first)
        {
            for (at, more) in answer::records(rows) {
                let known = progress.records.get(&at).filter(|_| !reworded);
                let records = known.copied().unwrap_or_default() + more;
                batch.progress.push(progress::put_records(at, records));
            }
        }
    }

    /// After some windows that went well in one piece, the next may be longer again: to try costs a scan.
    fn try_longer(&mut self, leaf: &Leaf, progress: &QueryProgress) {
        let whole = leaf.only.is_empty() && progress.watermark == Some(leaf.window.from);
        if whole && leaf.window.length() >= self.longest {
            self.went_well += 1;
            if self.went_well >= TRY_LONGER {
                self.went_well = 0;
                self.longest = (self.longest * 2).min(self.settings.schedule.longest);
            }
        }
    }

    /// Asks for the parts of a leaf instead of all of it.
    fn split(&mut self, leaf: &Leaf, progress: &QueryProgress) -> Result<Batch, SourceError> {
        let Some(parts) = leaf.split(self.settings.schedule.bucket) else {
            let why = "more rows than an answer holds, even without event_name";
            if leaf.recount {
                return Ok(not_recounted(leaf, progress, Reason::Truncated, why));
            }
            let message = format!("the second from {} has {why}", leaf.window.from);
            return Err(SourceError::new(Reason::Truncated, message));
        };
        if leaf.holds_watermark() {
            let shorter = (leaf.window.length() / 2).max(self.settings.schedule.bucket);
            self.longest = self.longest.min(shorter);
            self.went_well = 0;
        }
        debug!(from = %leaf.window.from, to = %leaf.window.to, ask = ?leaf.ask, "split");
        let mut leaves = rest(progress.list_of(leaf)).to_vec();
        leaves.extend(parts.into_iter().rev());
        Ok(replaced(leaf, &leaves))
    }

    /// A query that was too much for its engine: next time for less.
    fn in_parts(&mut self, leaf: &Leaf, progress: &QueryProgress, error: SourceError) -> Batch {
        if leaf.shorter(self.settings.schedule.bucket).is_none() {
            return self.failed(leaf, progress, error);
        }
        let mut batch = self.split(leaf, progress).unwrap_or_default();
        match leaf.asks_callers() {
            true => batch
                .rejected
                .push(told(leaf, "asked for in halves", &error)),
            // Its halves are not the same again: they need not wait as what is paid for in vain does.
            false => {
                self.failure = Some(SourceError {
                    paid: false,
                    ..error
                });
            }
        }
        batch
    }

    /// The end of a query that failed, of which is told once that is in the progress.
    fn failed(&mut self, leaf: &Leaf, progress: &QueryProgress, error: SourceError) -> Batch {
        self.failed_again(leaf, progress, error)
            .unwrap_or_else(|error| {
                self.failure = Some(error);
                Batch::default()
            })
    }

    pub(super) async fn stop_query(&self, id: &str) {
        match timeout(FAREWELL, self.engine.stop(id)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => debug!(query = id, %error, "not stopped"),
            Err(_) => warn!(query = id, "not stopped in time; it may run on at AWS"),
        }
    }
}
