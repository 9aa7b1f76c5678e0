//! What every source has in common that asks a query engine of AWS: windows, oldest first, each asked for once;
//! the query's id stored before its answer is awaited; a window split where the answer would not be whole.

mod answer;
mod leaf;
pub mod numbers;
mod plan;
mod progress;
mod steps;

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

pub use self::answer::{Answer, CallRow, Members, MetMembers, Rows};
pub use self::leaf::{Ask, Leaf, Part};
use self::plan::Plan;
pub use self::plan::{Recount, Settings};
use self::progress::InFlight;
pub use self::progress::QueryProgress;
use self::steps::{
    advance, asked, checked, not_recounted, passed, prepared, replaced, rest, without_query,
};
use crate::aws::{Observer, Quota};
use crate::batch::{Batch, Scanned};
use crate::source::{Reason, Requests, Source, SourceError};
use crate::time::Timestamp;

/// The longest pause between two looks at a running query.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// After so many windows of the longest length that went well, longer ones are tried.
const TRY_LONGER: u32 = 8;
/// How long a request may take while the process ends.
const FAREWELL: Duration = Duration::from_secs(2);

/// A query engine of AWS.
pub trait Engine: Send + Sync + 'static {
    /// Asks for as little as possible, so that AWS's clock is known.
    fn greet(&self) -> impl Future<Output = Result<(), SourceError>> + Send;

    /// Starts the query of a leaf. Where AWS takes a token, the same leaf and token are the same query, however
    /// often it is started; elsewhere a start is not tried again blindly: it may run, and cost, though its answer
    /// was lost.
    fn start(
        &self,
        leaf: &Leaf,
        token: &str,
    ) -> impl Future<Output = Result<Started, SourceError>> + Send;

    /// Looks at a query.
    fn look(&self, id: &str, leaf: &Leaf)
    -> impl Future<Output = Result<Look, SourceError>> + Send;

    /// Stops a query; one that has ended already is no error worth telling.
    fn stop(&self, id: &str) -> impl Future<Output = Result<(), SourceError>> + Send;

    /// What watches its requests.
    fn observer(&self) -> &Observer;
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
    /// It has ended, and this was scanned for it.
    Ended(End, Scanned),
}

/// How a query ended.
#[derive(Debug)]
pub enum End {
    /// Well.
    Complete(Answer),
    /// It was stopped, by this program as it ended or by somebody else.
    Stopped,
    /// It asked for more than the engine could do in its time or memory: the parts are to be asked for.
    TooMuch(SourceError),
    /// It has failed, or is not known any more: the same must be asked anew.
    Failed(SourceError),
    /// The engine does not know a member that was asked for, and will not ask for it again: the rest is asked anew.
    Reworded,
}

impl Look {
    /// A query of which AWS knows nothing.
    pub(super) fn unknown(error: SourceError) -> Self {
        Self::Ended(End::Failed(error), Scanned::default())
    }
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
    unstored: Option<(Vec<Leaf>, String)>,
    /// The token of the next start, if this process made it.
    token: Option<String>,
    /// The query that this process was the first to start.
    own: Option<String>,
    /// How many windows of the longest length went well since one had too many rows.
    went_well: u32,
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
            token: None,
            own: None,
            went_well: 0,
            failure: None,
        }
    }

    /// The earlier of the host's clock and AWS's.
    fn trusted(&self, now: Timestamp) -> Timestamp {
        self.engine.observer().trusted(now)
    }

    /// Starts the query that is due.
    async fn begin(
        &mut self,
        progress: &QueryProgress,
        now: Timestamp,
    ) -> Result<Option<Batch>, SourceError> {
        // A query that was handed out and not committed runs all the same: it is not started twice.
        if let Some((leaves, id)) = self.unstored.clone() {
            return Ok(Some(asked(&leaves, id, now)));
        }
        let mut plan = self
            .settings
            .plan(progress, self.longest, self.trusted(now));
        if matches!(&plan, Plan::Step(batch) if batch.skipped_seconds > 0) {
            // What is given up is lost: only AWS's clock of this moment tells that so much time has passed.
            self.engine.greet().await?;
            plan = self
                .settings
                .plan(progress, self.longest, self.trusted(now));
        }
        let leaves = match plan {
            Plan::Nothing => return Ok(None),
            Plan::Step(batch) => return Ok(Some(*batch)),
            Plan::Ask(leaves) => leaves,
        };
        let Some(leaf) = leaves.last().cloned() else {
            return Ok(None);
        };
        let settle = self.settings.schedule.settle;
        let settled =
            |now: Timestamp| !leaf.holds_watermark() || leaf.window.to.plus(settle) <= now;
        if !settled(self.trusted(now)) {
            return Ok(None);
        }
        let token = match &progress.token {
            Some(token) if leaves == progress.leaves => token,
            _ => return Ok(Some(self.prepare(&leaves))),
        };
        let id = match self.start(&leaf, token).await? {
            Started::Query(id) => id,
            Started::Nothing => return Ok(Some(passed(&leaf, rest(&leaves), progress))),
        };
        // The answer told AWS's clock anew: what has not settled by it must not be counted.
        if !settled(self.trusted(now)) {
            debug!(
                query = id,
                "stopped: AWS's clock says that its window has not settled"
            );
            self.stop_query(&id).await;
            self.place = None;
            // By another token, as by this one AWS would give the query that was stopped.
            return Ok(Some(self.prepare(&leaves)));
        }
        self.unstored = Some((leaves.clone(), id.clone()));
        // By the token of an earlier life it may be a query that this one stopped as it ended.
        self.own = (self.token.as_ref() == Some(token)).then(|| id.clone());
        Ok(Some(asked(&leaves, id, now)))
    }

    /// A batch that stores what is asked next.
    fn prepare(&mut self, leaves: &[Leaf]) -> Batch {
        let token = format!("{:032x}", fastrand::u128(..));
        let batch = prepared(leaves, &token);
        self.token = Some(token);
        batch
    }

    async fn start(&mut self, leaf: &Leaf, token: &str) -> Result<Started, SourceError> {
        if self.starting.is_none() {
            self.place = Some(self.quota.start().await);
            let (engine, leaf, token) = (Arc::clone(&self.engine), leaf.clone(), token.to_owned());
            self.starting = Some(tokio::spawn(
                async move { engine.start(&leaf, &token).await },
            ));
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
            if let Look::Ended(end, scanned) = self.engine.look(&query.id, &query.leaf).await? {
                return self.ended(query, progress, now, end, scanned);
            }
            let ran = now.since(query.started) + began.elapsed();
            if ran >= self.settings.timeout {
                self.stop_query(&query.id).await;
                // What it scanned until now is paid for.
                let scanned = match self.engine.look(&query.id, &query.leaf).await {
                    Ok(Look::Ended(_, scanned)) => scanned,
                    _ => Scanned::default(),
                };
                let limit = humantime::format_duration(self.settings.timeout);
                let message = format!("the query was stopped after {limit}");
                let error = SourceError::new(Reason::Timeout, message);
                return self.ended(query, progress, now, End::TooMuch(error), scanned);
            }
            sleep(pause).await;
            pause = (pause * 3 / 2).min(LONGEST_PAUSE.max(self.settings.first_pause));
        }
    }

    /// Takes in how a query ended, and what it cost.
    fn ended(
        &mut self,
        query: &InFlight,
        progress: &QueryProgress,
        now: Timestamp,
        end: End,
        scanned: Scanned,
    ) -> Result<Batch, SourceError> {
        self.place = None;
        let mut batch = match end {
            End::Complete(answer) => {
                self.answered(&query.leaf, progress, self.trusted(now), answer)?
            }
            End::Stopped => {
                if self.own.as_deref() == Some(query.id.as_str()) {
                    let message = "the query was stopped at AWS by somebody else";
                    self.failure = Some(SourceError::new(Reason::Rejected, message));
                }
                Batch::default()
            }
            End::TooMuch(error) => self.in_parts(&query.leaf, progress, error),
            End::Failed(error) => {
                self.failure = Some(error);
                Batch::default()
            }
            End::Reworded => Batch::default(),
        };
        batch.scanned = scanned;
        batch.progress.push(progress::remove_query());
        Ok(batch)
    }

    /// Takes the answer of a leaf in, or splits it.
    fn answered(
        &mut self,
        leaf: &Leaf,
        progress: &QueryProgress,
        now: Timestamp,
        answer: Answer,
    ) -> Result<Batch, SourceError> {
        let rest = rest(&progress.leaves);
        let batch = match (answer.truncated, answer.rows) {
            (true, _) => self.split(leaf, rest, progress)?,
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
                    let mut leaves = rest.to_vec();
                    let parts = leaf.by_value(part, values.into_iter().collect());
                    leaves.extend(parts.into_iter().rev());
                    replaced(&leaves)
                }
            }
            (false, Rows::Records(rows)) => {
                let bucket = self.settings.schedule.bucket;
                for (at, _) in &rows {
                    answer::check_bucket(leaf, *at, bucket)?;
                }
                checked(leaf, rest, progress, &rows, bucket)
            }
            (false, Rows::Calls(rows)) => self.counted(leaf, rest, progress, now, &rows)?,
        };
        Ok(batch)
    }

    fn counted(
        &mut self,
        leaf: &Leaf,
        rest: &[Leaf],
        progress: &QueryProgress,
        now: Timestamp,
        rows: &[CallRow],
    ) -> Result<Batch, SourceError> {
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
        // After some windows that went well in one piece, the next may be longer again: to try costs a scan.
        let whole = leaf.holds_watermark()
            && leaf.only.is_empty()
            && progress.watermark == Some(leaf.window.from);
        if whole && leaf.window.length() >= self.longest {
            self.went_well += 1;
            if self.went_well >= TRY_LONGER {
                self.went_well = 0;
                self.longest = (self.longest * 2).min(self.settings.schedule.longest);
            }
        }
        let mut batch = replaced(rest);
        batch.counts = counts;
        batch.recounted = leaf.recount.then_some(leaf.window);
        if leaf.holds_watermark() && self.settings.recount.is_some_and(|it| it.check_first) {
            for (at, more) in answer::records(rows) {
                let records = progress.records.get(&at).copied().unwrap_or_default() + more;
                batch.progress.push(progress::put_records(at, records));
            }
        }
        advance(&mut batch, leaf, rest, progress);
        Ok(batch)
    }

    /// Asks for the parts of a leaf instead of all of it.
    fn split(
        &mut self,
        leaf: &Leaf,
        rest: &[Leaf],
        progress: &QueryProgress,
    ) -> Result<Batch, SourceError> {
        let Some(parts) = leaf.split(self.settings.schedule.bucket) else {
            if leaf.recount {
                return Ok(not_recounted(leaf, rest, progress));
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
            self.went_well = 0;
        }
        debug!(from = %leaf.window.from, to = %leaf.window.to, ask = ?leaf.ask, "split");
        let mut leaves = rest.to_vec();
        leaves.extend(parts.into_iter().rev());
        Ok(replaced(&leaves))
    }

    /// A query that was too much for its engine: next time for less.
    fn in_parts(&mut self, leaf: &Leaf, progress: &QueryProgress, error: SourceError) -> Batch {
        self.failure = Some(error);
        let halves = leaf.window.halves().is_some();
        let split = halves.then(|| self.split(leaf, rest(&progress.leaves), progress).ok());
        split.flatten().unwrap_or_default()
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
        self.engine.observer().tell(now);
        if self.engine.observer().ahead().is_none() {
            self.engine.greet().await?;
        }
        match &progress.query {
            // Its answer cannot be read, and will not be: what it asked for is given up next.
            Some(query) if now.since(query.started) > self.settings.catch_up_limit => {
                Ok(Some(without_query()))
            }
            Some(query) => self.finish(query, progress, now).await.map(Some),
            None => self.begin(progress, now).await,
        }
    }

    fn requests(&mut self) -> Requests {
        self.engine.observer().take()
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
