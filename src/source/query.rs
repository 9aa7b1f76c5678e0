//! What every source has in common that asks a query engine of AWS: windows, oldest first, each asked for once;
//! the query's id stored before its answer is awaited; a window split where the answer would not be whole.

mod answer;
mod budget;
mod callers;
mod estimates;
mod flight;
mod leaf;
pub mod numbers;
mod plan;
mod progress;
mod spending;
mod steps;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tracing::debug;
use xxhash_rust::xxh3::xxh3_128;

pub use self::answer::{Answer, CallRow, Members, MetMembers, Rows};
pub use self::budget::{Budget, Budgets, Spending};
use self::budget::{Share, Spent, day_of};
pub use self::callers::{AskCallers, CallerRow, MOST_CALLERS};
pub use self::leaf::{Ask, Leaf, Part};
use self::plan::Plan;
pub use self::plan::{Recount, Settings};
use self::progress::Next;
pub use self::progress::QueryProgress;
use self::spending::spent_change;
use self::steps::{asked, begun_anew, moved_on, passed, prepared};
use crate::aws::{Observer, Quota};
use crate::batch::{Batch, Scanned};
use crate::source::{Reason, Requests, Source, SourceError};
use crate::time::Timestamp;

/// How long a request may take while the process ends.
const FAREWELL: Duration = Duration::from_secs(2);

/// A query engine of AWS.
pub trait Engine: Send + Sync + 'static {
    /// Whether a shorter time is less work: it is not where a query reads whole days, whatever it asks.
    const PARTS_SAVE: bool;
    /// Whether AWS takes a token: the same query and token are one query, however often it is started.
    const TOKENS: bool = false;
    /// The bytes that the least query is billed for.
    const LEAST_BILLED: u64 = 0;

    /// What is asked, whatever the time: the numbers of another question cannot be compared with its.
    fn identity(&self) -> String;

    /// What is counted, however it is asked: with another, history begins anew.
    fn subject(&self) -> String;

    /// Asks for as little as possible, so that AWS's clock is known.
    fn greet(&self) -> impl Future<Output = Result<(), SourceError>> + Send;

    /// Starts a query. Where AWS takes no token, a start is not tried again blindly: it may run, and cost, though its
    /// answer was lost.
    fn start(
        &self,
        query: &Query,
        token: &str,
    ) -> impl Future<Output = Result<Started, SourceError>> + Send;

    /// Looks at a query.
    fn look(
        &self,
        id: &str,
        query: &Query,
    ) -> impl Future<Output = Result<Look, SourceError>> + Send;

    /// Stops a query; one that has ended already is no error worth telling.
    fn stop(&self, id: &str) -> impl Future<Output = Result<(), SourceError>> + Send;

    /// What watches its requests.
    fn observer(&self) -> &Observer;
}

/// What is asked of an engine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Query {
    /// What it asks for.
    pub leaf: Leaf,
    /// Without the key exchange: the table has none.
    pub plain: bool,
}

/// What became of a start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Started {
    /// The query with this id runs.
    Query(String),
    /// AWS holds nothing of that time: it is before the store was made, or its retention is over.
    Nothing,
    /// The table has no key exchange: all else is to be asked.
    Reworded,
}

/// What a query looks like.
#[derive(Debug)]
pub enum Look {
    /// It runs, or waits to.
    Running,
    /// It has ended, and this was scanned for it, where AWS tells.
    Ended(End, Option<Scanned>),
}

/// How a query ended.
#[derive(Debug)]
pub enum End {
    /// Well.
    Complete(Answer),
    /// It was stopped, by this program as it ended or by somebody else.
    Stopped,
    /// It asked for more rows or groups than the engine could hold: the parts are to be asked for.
    TooMuch(SourceError),
    /// It has failed, or is not known any more: the same must be asked anew.
    Failed(SourceError),
    /// The table has no key exchange: all else is to be asked.
    Reworded,
}

impl Look {
    /// A query of which AWS knows nothing.
    pub(super) fn unknown(error: SourceError) -> Self {
        Self::Ended(End::Failed(error), None)
    }

    /// A query that has ended, and what AWS tells of it: of one that was cut short it may tell nothing, which need not
    /// mean that nothing is billed.
    pub(super) fn ended(end: End, told: Scanned) -> Self {
        let whole = matches!(end, End::Complete(_) | End::Reworded);
        let scanned = (whole || told.billed_bytes > 0).then_some(told);
        Self::Ended(end, scanned)
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
    unstored: Option<(Next, String)>,
    /// The token of the next start, if this process made it.
    token: Option<String>,
    /// What is asked, as text that tells one question from another.
    identity: String,
    /// By what credentials and where it is asked, as text.
    reached_by: String,
    /// Whether this process knows that the table has no key exchange.
    plain: bool,
    /// How often in a row an answer could not be read.
    unread: u32,
    /// How often in a row a window could not be counted again.
    not_again: u32,
    /// The query that this process was the first to start.
    own: Option<String>,
    /// How many windows of the longest length went well since one had too many rows.
    went_well: u32,
    /// What is told of a query once its end is in the progress.
    failure: Option<SourceError>,
    /// The longest window, shorter than the schedule's as long as longer ones have too many rows.
    longest: Duration,
    /// Its part of the source's budget.
    share: Share,
    /// Whether AWS refused the start of what is started next.
    refused: bool,
}

impl<E: Engine> QuerySource<E> {
    /// A source that asks `engine`.
    pub fn new(engine: E, settings: Settings, quota: Arc<Quota>) -> Self {
        let asked = (
            engine.identity(),
            settings.schedule.bucket,
            settings.recount,
        );
        Self {
            identity: format!("{:032x}", xxh3_128(format!("{asked:?}").as_bytes())),
            reached_by: String::new(),
            plain: false,
            unread: 0,
            not_again: 0,
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
            share: Share::of(&Arc::new(Budget::new("", None))),
            refused: false,
        }
    }

    /// The same source, which is reached in this way: by another it may be another account's.
    pub fn reached_by(mut self, way: String) -> Self {
        self.reached_by = way;
        self
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
        if let Some((next, id)) = self.unstored.clone() {
            return Ok(Some(asked(&next, id, self.trusted(now))));
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
        let mut leaves = match plan {
            Plan::Nothing => {
                self.share.needs_nothing();
                return Ok(None);
            }
            Plan::Step(batch) => return Ok(Some(*batch)),
            Plan::Ask(leaves) => leaves,
        };
        let Some(leaf) = leaves.last().cloned() else {
            return Ok(None);
        };
        let settle = self.settings.schedule.settle;
        let (held, to) = (leaf.holds_watermark(), leaf.window.to);
        let settled = |now: Timestamp| !held || to.plus(settle) <= now;
        if !settled(self.trusted(now)) {
            return Ok(None);
        }
        let trusted = self.trusted(now);
        let spent = match self.afford(&mut leaves, progress, trusted) {
            Ok(spent) => spent,
            Err(error) => return self.not_afforded(&leaf, progress, trusted, error).map(Some),
        };
        let leaf = leaves.last().cloned().unwrap_or(leaf);
        let next = match &progress.next {
            Some(next)
                if next.query.leaf == leaf
                    && leaves == progress.list_of(&leaf)
                    && !self.may_run(next) =>
            {
                next
            }
            _ => return Ok(Some(self.prepare(&leaves, leaf, progress, spent))),
        };
        if let Some(change) = spent_change(spent, progress) {
            return Ok(Some(moved_on(change)));
        }
        let id = match self.start(next).await {
            Ok(Started::Query(id)) => id,
            Ok(Started::Nothing) => {
                let mut batch = match leaf.asks_callers() {
                    true => self.named(&leaf, progress, &[])?,
                    false => passed(&leaf, progress),
                };
                let given_back = spent_change(spent.reserving(0), progress);
                batch.progress.extend(given_back);
                return Ok(Some(batch));
            }
            Ok(Started::Reworded) => {
                self.plain = true;
                return Ok(Some(self.prepare(&leaves, leaf, progress, spent)));
            }
            Err(error) => {
                let refused = self.not_started(&error);
                let outcome = self.failed_again(&leaf, progress, error);
                return match refused && progress.spent.reserved > 0 {
                    true => self.not_charged(progress, outcome).map(Some),
                    false => outcome.map(Some),
                };
            }
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
            return Ok(Some(self.prepare(
                &leaves,
                leaf,
                progress,
                spent.settled(None),
            )));
        }
        self.unstored = Some((next.clone(), id.clone()));
        // By the token of an earlier life it may be a query that this one stopped as it ended.
        self.own = (self.token.as_ref() == Some(&next.token)).then(|| id.clone());
        Ok(Some(asked(next, id, self.trusted(now))))
    }

    /// A batch that stores what is started next. What is counted again is asked for in the words of the first time.
    fn prepare(
        &mut self,
        leaves: &[Leaf],
        leaf: Leaf,
        progress: &QueryProgress,
        spent: Spent,
    ) -> Batch {
        let plain = self.plain || leaf.recount && progress.plain;
        let next = Next {
            query: Query { leaf, plain },
            token: format!("{:032x}", fastrand::u128(..)),
        };
        let mut batch = prepared(leaves, &next);
        batch.progress.extend(spent_change(spent, progress));
        self.token = Some(next.token);
        batch
    }

    async fn start(&mut self, next: &Next) -> Result<Started, SourceError> {
        if self.starting.is_none() {
            self.place = Some(self.quota.start().await);
            let (engine, next) = (Arc::clone(&self.engine), next.clone());
            let start = async move { engine.start(&next.query, &next.token).await };
            self.starting = Some(tokio::spawn(start));
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
}

impl<E: Engine> Source for QuerySource<E> {
    type Progress = QueryProgress;

    async fn next_batch(
        &mut self,
        progress: &QueryProgress,
        now: Timestamp,
    ) -> Result<Option<Batch>, SourceError> {
        self.tell_spent(progress);
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
        self.engine.observer().tell(now);
        if self.engine.observer().ahead().is_none() {
            self.engine.greet().await?;
        }
        let subject = format!("{} {}", self.engine.subject(), self.reached_by);
        let known = progress.subject.as_ref();
        if progress.identity.as_ref() != Some(&self.identity)
            || known.is_some_and(|known| *known != subject)
        {
            // The query that runs asks another question.
            if let Some(query) = &progress.query {
                self.stop_query(&query.id).await;
            }
            return Ok(Some(begun_anew(progress, &self.identity, &subject)));
        }
        match &progress.query {
            Some(query) => self.finish(query, progress, now).await.map(Some),
            None => self.begin(progress, now).await,
        }
    }

    fn loaded(&mut self, progress: &QueryProgress) {
        self.tell_spent(progress);
    }

    fn spending(&self, now: Timestamp) -> Option<Spending> {
        self.share.spending(day_of(self.trusted(now)))
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
