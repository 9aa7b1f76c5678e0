//! What every source has in common that asks a query engine of AWS: windows, oldest first, each asked for once;
//! the query's id stored before its answer is awaited; a window split where the answer would not be whole.

mod answer;
mod leaf;
mod progress;

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

pub use self::answer::{Answer, CallRow, Rows};
pub use self::leaf::{Ask, Leaf, Part};
use self::progress::InFlight;
pub use self::progress::QueryProgress;
use crate::aws::Quota;
use crate::batch::{Batch, Rejected};
use crate::source::{Reason, Requests, Source, SourceError};
use crate::time::Timestamp;
use crate::tls::TlsVersion;
use crate::window::{Schedule, Window};

/// The longest pause between two looks at a running query.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How long a request may take while the process ends.
const FAREWELL: Duration = Duration::from_secs(2);
/// A control query asks for one bucket of each.
const HOUR: Duration = Duration::from_secs(3600);

/// A query engine of AWS.
pub trait Engine: Send + Sync + 'static {
    /// Asks for as little as possible, so that AWS's clock is known.
    fn greet(&self) -> impl Future<Output = Result<(), SourceError>> + Send;

    /// Starts the query of a leaf. Not tried again blindly: it may run, and cost, though its answer was lost.
    fn start(&self, leaf: &Leaf) -> impl Future<Output = Result<Started, SourceError>> + Send;

    /// Looks at a query.
    fn look(&self, id: &str, leaf: &Leaf)
    -> impl Future<Output = Result<Look, SourceError>> + Send;

    /// Stops a query; one that has ended already is no error worth telling.
    fn stop(&self, id: &str) -> impl Future<Output = Result<(), SourceError>> + Send;

    /// The requests since this was called last.
    fn requests(&self) -> Requests;

    /// Tells the host's clock, to which AWS's is compared from now on.
    fn tell(&self, now: Timestamp);

    /// How far the host's clock is ahead of AWS's in seconds; `None` before AWS's first answer.
    fn ahead(&self) -> Option<i64>;
}

/// What became of a start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Started {
    /// The query with this id runs.
    Query(String),
    /// AWS holds nothing of that time: it is before the store was made, or its retention is over.
    Nothing,
}

/// What a query looks like.
#[derive(Debug)]
pub enum Look {
    /// It runs, or waits to.
    Running,
    /// It has ended well.
    Complete(Answer),
    /// It was stopped, by this program as it ended or by somebody else.
    Stopped,
    /// It has failed, or is not known any more: the same must be asked anew.
    Failed(SourceError),
}

/// The settings that all query sources share.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Which windows are due.
    pub schedule: Schedule,
    /// At the first start, this much of the past is counted.
    pub lookback: Duration,
    /// What is older than this when it becomes due is given up.
    pub catch_up_limit: Duration,
    /// How long a query may run.
    pub timeout: Duration,
    /// The pause before a query is looked at first; later ones are longer.
    pub first_pause: Duration,
    /// A window is counted again so long after it settled …
    pub recount_after: Option<Duration>,
    /// … as long as it is not older than this, seen from the watermark: its buckets become hours then.
    pub recount_reach: Duration,
    /// Whether only outdated calls are asked for, and all calls in one bucket an hour.
    pub control: bool,
    /// Calls below are outdated.
    pub minimum_version: TlsVersion,
}

/// A source over a query engine.
#[derive(Debug)]
pub struct QuerySource<E> {
    engine: Arc<E>,
    settings: Settings,
    quota: Arc<Quota>,
    /// The place of the query in flight among those that may run.
    place: Option<OwnedSemaphorePermit>,
    /// A start whose answer is awaited: it goes on when the waiting is given up.
    starting: Option<JoinHandle<Result<Started, SourceError>>>,
    /// A query that was started and handed out, until it is seen in the progress.
    unstored: Option<(Leaf, String)>,
    /// What is told of a query once its end is in the progress.
    failure: Option<SourceError>,
    /// The longest window, shorter than the schedule's as long as longer ones have too many rows.
    longest: Duration,
}

impl<E: Engine> QuerySource<E> {
    /// A source that asks `engine`.
    pub fn new(engine: E, settings: Settings, quota: Arc<Quota>) -> Self {
        Self {
            engine: Arc::new(engine),
            longest: settings.schedule.longest,
            settings,
            quota,
            place: None,
            starting: None,
            unstored: None,
            failure: None,
        }
    }

    /// The earlier of the host's clock and AWS's.
    fn trusted(&self, now: Timestamp) -> Timestamp {
        let ahead = self.engine.ahead().unwrap_or_default();
        now.minus(Duration::from_secs(u64::try_from(ahead).unwrap_or(0)))
    }

    /// The window that is due.
    fn due(&self, watermark: Timestamp, now: Timestamp) -> Option<Window> {
        let schedule = Schedule {
            longest: self.longest,
            ..self.settings.schedule
        };
        schedule.due(watermark, now)
    }

    /// The window that is due to be counted again.
    fn due_again(
        &self,
        progress: &QueryProgress,
        watermark: Timestamp,
        now: Timestamp,
    ) -> Option<Window> {
        let after = self.settings.recount_after?;
        let bucket = self.settings.schedule.bucket;
        let schedule = Schedule {
            settle: self.settings.schedule.settle + after,
            ..self.settings.schedule
        };
        let reach = watermark.minus(self.settings.recount_reach);
        let oldest = reach.floor(bucket).plus(bucket);
        let from = progress.recounted?.max(oldest);
        let window = schedule.due(from, now)?;
        let to = window.to.min(watermark.floor(bucket));
        (to > from).then_some(Window { from, to })
    }

    /// The leaves of a window, the next last.
    fn leaves(&self, window: Window) -> Vec<Leaf> {
        let mut leaves = Vec::new();
        if self.settings.control {
            let bucket = self.settings.schedule.bucket;
            let mut hour = window.from.floor(HOUR);
            while hour < window.to {
                let control = Window {
                    from: hour,
                    to: hour.plus(bucket),
                };
                if hour >= window.from {
                    leaves.push(Leaf::control(control));
                }
                hour = hour.plus(HOUR);
            }
            leaves.reverse();
        }
        leaves.push(Leaf::calls(window));
        leaves
    }

    /// Starts the query that is due.
    async fn begin(
        &mut self,
        progress: &QueryProgress,
        now: Timestamp,
    ) -> Result<Option<Batch>, SourceError> {
        let trusted = self.trusted(now);
        let Settings {
            lookback,
            catch_up_limit,
            schedule,
            ..
        } = self.settings;
        let mut leaves = progress.leaves.clone();
        if leaves.is_empty() {
            let Some(watermark) = progress.watermark else {
                // Stored, as it must not move on with the clock until the first window is due.
                let mut batch = Batch::default();
                let first = trusted.minus(lookback).floor(schedule.bucket);
                batch.progress.push(progress::put_watermark(first));
                batch.progress.push(progress::put_recounted(first));
                return Ok(Some(batch));
            };
            let oldest = trusted.minus(catch_up_limit).floor(schedule.bucket);
            if watermark < oldest {
                return Ok(Some(given_up(watermark, oldest)));
            }
            leaves = match self.due(watermark, trusted) {
                Some(window) => self.leaves(window),
                None => match self.due_again(progress, watermark, trusted) {
                    Some(window) => vec![Leaf::recount(window)],
                    None => return Ok(None),
                },
            };
        }
        let Some(leaf) = leaves.last().cloned() else {
            return Ok(None);
        };
        // A query that was handed out and not committed runs all the same: it is not started twice.
        let known = self.unstored.take_if(|(of, _)| *of == leaf);
        let started = match known {
            Some((_, id)) => Started::Query(id),
            None => self.start(&leaf).await?,
        };
        let id = match started {
            Started::Query(id) => id,
            Started::Nothing => return Ok(Some(self.passed(progress, leaves))),
        };
        // The answer told AWS's clock anew: what has not settled by it must not be counted.
        let settled = leaf.window.to.plus(schedule.settle) <= self.trusted(now);
        if !settled && leaf.holds_watermark() {
            debug!(
                query = id,
                "stopped: AWS's clock says that its window has not settled"
            );
            self.stop_query(&id).await;
            self.place = None;
            return Ok(None);
        }
        self.unstored = Some((leaf.clone(), id.clone()));
        let query = InFlight {
            id,
            leaf,
            started: now,
        };
        let mut batch = Batch::default();
        if leaves != progress.leaves {
            batch.progress.push(progress::put_leaves(&leaves));
        }
        batch.progress.push(progress::put_query(&query));
        Ok(Some(batch))
    }

    async fn start(&mut self, leaf: &Leaf) -> Result<Started, SourceError> {
        if self.starting.is_none() {
            self.place = Some(self.quota.start().await);
            let (engine, leaf) = (Arc::clone(&self.engine), leaf.clone());
            self.starting = Some(tokio::spawn(async move { engine.start(&leaf).await }));
        }
        let outcome = match &mut self.starting {
            Some(starting) => starting.await,
            None => return Ok(Started::Nothing),
        };
        self.starting = None;
        let ended_early =
            |error| SourceError::because(Reason::Internal, "a start ended early", error);
        let started = outcome.map_err(ended_early).flatten();
        if !matches!(started, Ok(Started::Query(_))) {
            self.place = None;
        }
        started
    }

    /// Waits for the query in flight, and counts its answer.
    async fn finish(
        &mut self,
        query: &InFlight,
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
            match self.engine.look(&query.id, &query.leaf).await? {
                Look::Running => {}
                Look::Complete(answer) => {
                    let batch = self.answered(&query.leaf, progress, answer)?;
                    self.place = None;
                    return Ok(batch);
                }
                Look::Stopped => {
                    self.place = None;
                    return Ok(without_query());
                }
                Look::Failed(error) => {
                    self.place = None;
                    self.failure = Some(error);
                    return Ok(without_query());
                }
            }
            let ran = now.since(query.started) + began.elapsed();
            if ran >= self.settings.timeout {
                self.stop_query(&query.id).await;
                self.place = None;
                return Ok(self.timed_out(&query.leaf, progress));
            }
            sleep(pause).await;
            pause = (pause * 3 / 2).min(LONGEST_PAUSE.max(self.settings.first_pause));
        }
    }

    /// Takes the answer of a leaf in, or splits it.
    fn answered(
        &mut self,
        leaf: &Leaf,
        progress: &QueryProgress,
        answer: Answer,
    ) -> Result<Batch, SourceError> {
        let rest = rest(&progress.leaves);
        let mut batch = match (answer.truncated, answer.rows) {
            (true, _) => self.split(leaf, rest)?,
            (false, Rows::Values(values)) => {
                let Ask::Values(part) = leaf.ask else {
                    let message = "the answer is of another question";
                    return Err(SourceError::new(Reason::BadAnswer, message));
                };
                let mut leaves = rest.to_vec();
                leaves.extend(leaf.by_value(part, values).into_iter().rev());
                replaced(&leaves)
            }
            (false, Rows::Calls(rows)) => self.counted(leaf, rest, progress.watermark, &rows)?,
        };
        batch.scanned_bytes = answer.scanned_bytes;
        batch.scanned_records = answer.scanned_records;
        batch.progress.push(progress::remove_query());
        Ok(batch)
    }

    fn counted(
        &mut self,
        leaf: &Leaf,
        rest: &[Leaf],
        before: Option<Timestamp>,
        rows: &[CallRow],
    ) -> Result<Batch, SourceError> {
        let bucket = self.settings.schedule.bucket;
        let minimum = self.settings.minimum_version;
        let (counts, no_calls) = answer::counts(leaf, rows, bucket, minimum)?;
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
        // A window went well in one piece: the next may be longer again.
        if leaf.holds_watermark() && rest.iter().all(|leaf| !leaf.holds_watermark()) {
            self.longest = (self.longest * 2).min(self.settings.schedule.longest);
        }
        let mut batch = replaced(rest);
        batch.counts = counts;
        if leaf.recount {
            batch.recounted = Some(leaf.window);
            batch.progress.push(progress::put_recounted(leaf.window.to));
        }
        advance(&mut batch, leaf, rest, before);
        Ok(batch)
    }

    /// Asks for the parts of a leaf instead of all of it.
    fn split(&mut self, leaf: &Leaf, rest: &[Leaf]) -> Result<Batch, SourceError> {
        let Some(parts) = leaf.split(self.settings.schedule.bucket) else {
            if leaf.recount {
                return Ok(not_recounted(leaf, rest));
            }
            let from = leaf.window.from;
            let message = format!(
                "the second from {from} has more rows than an answer holds, even without event_name"
            );
            return Err(SourceError::new(Reason::Truncated, message));
        };
        if leaf.holds_watermark() {
            let shorter = (leaf.window.length() / 2).max(self.settings.schedule.bucket);
            self.longest = self.longest.min(shorter);
        }
        debug!(from = %leaf.window.from, to = %leaf.window.to, ask = ?leaf.ask, "split");
        let mut leaves = rest.to_vec();
        leaves.extend(parts.into_iter().rev());
        Ok(replaced(&leaves))
    }

    /// A query that took too long: next time for less.
    fn timed_out(&mut self, leaf: &Leaf, progress: &QueryProgress) -> Batch {
        let limit = humantime::format_duration(self.settings.timeout);
        let message = format!("the query was stopped after {limit}");
        self.failure = Some(SourceError::new(Reason::Timeout, message));
        let halves = leaf.window.halves().is_some();
        let split = halves.then(|| self.split(leaf, rest(&progress.leaves)).ok());
        let mut batch = split.flatten().unwrap_or_default();
        batch.progress.push(progress::remove_query());
        batch
    }

    /// The batch that passes over a leaf of which AWS holds nothing: history begins behind it.
    fn passed(&self, progress: &QueryProgress, mut leaves: Vec<Leaf>) -> Batch {
        let leaf = leaves.pop();
        let mut batch = replaced(&leaves);
        if let Some(leaf) = leaf.filter(Leaf::holds_watermark) {
            advance(&mut batch, &leaf, &leaves, progress.watermark);
            if let Some(covered) = &mut batch.covered {
                covered.from = covered.to;
            }
        }
        batch
    }

    async fn stop_query(&self, id: &str) {
        match timeout(FAREWELL, self.engine.stop(id)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => debug!(query = id, %error, "not stopped"),
            Err(_) => warn!(query = id, "not stopped in time; it may run on at AWS"),
        }
    }
}

impl<E: Engine> Source for QuerySource<E> {
    type Progress = QueryProgress;

    async fn next_batch(
        &mut self,
        progress: &QueryProgress,
        now: Timestamp,
    ) -> Result<Option<Batch>, SourceError> {
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
        self.engine.tell(now);
        if self.engine.ahead().is_none() {
            self.engine.greet().await?;
        }
        match &progress.query {
            Some(query) => self.finish(query, progress, now).await.map(Some),
            None => self.begin(progress, now).await,
        }
    }

    fn requests(&mut self) -> Requests {
        self.engine.requests()
    }

    async fn stop(&mut self, progress: &QueryProgress) {
        let mut ids: Vec<String> = progress
            .query
            .iter()
            .map(|query| query.id.clone())
            .collect();
        ids.extend(self.unstored.take().map(|(_, id)| id));
        if let Some(starting) = self.starting.take()
            && let Ok(Ok(Ok(Started::Query(id)))) = timeout(FAREWELL, starting).await
        {
            ids.push(id);
        }
        ids.dedup();
        for id in ids {
            self.stop_query(&id).await;
        }
    }
}

/// The leaves behind the one that is being asked.
fn rest(leaves: &[Leaf]) -> &[Leaf] {
    leaves.split_last().map_or(&[], |(_, rest)| rest)
}

/// A batch after which these leaves are left.
fn replaced(leaves: &[Leaf]) -> Batch {
    Batch {
        progress: vec![progress::put_leaves(leaves)],
        ..Batch::default()
    }
}

/// A batch after which the query is asked anew.
fn without_query() -> Batch {
    Batch {
        progress: vec![progress::remove_query()],
        ..Batch::default()
    }
}

/// A batch that gives up the time from `watermark` to `to`: history begins behind it.
fn given_up(watermark: Timestamp, to: Timestamp) -> Batch {
    warn!(from = %watermark, %to, "given up: older than `catch_up_limit`");
    Batch {
        progress: vec![progress::put_watermark(to), progress::put_recounted(to)],
        covered: Some(Window { from: to, to }),
        skipped_seconds: to.since(watermark).as_secs(),
        ..Batch::default()
    }
}

/// A batch that leaves a bucket as it was counted: it has more rows than an answer holds.
fn not_recounted(leaf: &Leaf, rest: &[Leaf]) -> Batch {
    let mut batch = replaced(rest);
    batch.progress.push(progress::put_recounted(leaf.window.to));
    batch.rejected.push(Rejected {
        name: format!("the bucket {}", leaf.window.from),
        reason: Reason::Truncated,
        error: "counted again it has more rows than an answer holds; it stays as it is".to_owned(),
    });
    batch
}

/// Moves the watermark behind `leaf`, as far as no leaf that is left holds it.
fn advance(batch: &mut Batch, leaf: &Leaf, rest: &[Leaf], before: Option<Timestamp>) {
    if !leaf.holds_watermark() {
        return;
    }
    let held = rest.iter().filter(|leaf| leaf.holds_watermark());
    let to = held
        .map(|leaf| leaf.window.from)
        .min()
        .unwrap_or(leaf.window.to);
    let from = before.unwrap_or(leaf.window.from);
    if before.is_none_or(|before| to > before) {
        batch.progress.push(progress::put_watermark(to));
        batch.covered = Some(Window { from, to });
    }
}
