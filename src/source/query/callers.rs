//! Who made the outdated calls: asked of the buckets that had any, at most once an hour, behind all that counts calls.
//!
//! Each bucket is asked for until its callers were handed out once. What fails is told and holds up nothing: the next
//! hour asks again, and after some tries the bucket's callers stay unnamed.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tracing::debug;

use super::leaf::{Ask, Leaf};
use super::plan::{HOUR, Plan, Settings};
use super::progress::{self, InFlight, QueryProgress};
use super::steps::{replaced, rest};
use super::{Engine, QuerySource, answer};
use crate::batch::{Batch, Callers, Rejected};
use crate::call::{CallKey, Caller, CallerLabels, Name};
use crate::source::{Reason, SourceError};
use crate::time::Timestamp;
use crate::tls::TlsVersion;
use crate::window::Window;

/// The most callers that a query names, the busiest first: a client may send a new user agent with each call.
pub const MOST_CALLERS: usize = 10_000;
/// So often a bucket is asked for in vain.
const TRIES: u32 = 3;
/// So long a query for callers may run though calls are due.
const GRACE: Duration = Duration::from_secs(30);

/// How callers are asked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AskCallers {
    /// What is told of them.
    pub columns: CallerLabels,
    /// Nobody asks for older ones: the window of the gauges, seen from the watermark.
    pub window: Duration,
    /// Whether one query asks for buckets that lie apart: where it may read more than the time that it asks for.
    pub apart: bool,
}

/// One row of an answer: the calls of one caller in one bucket. A member that is missing, or was not asked for, is
/// `None`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallerRow {
    /// The start of the bucket.
    pub bucket: Timestamp,
    /// `eventSource`.
    pub event_source: Option<String>,
    /// `eventName`.
    pub event_name: Option<String>,
    /// `tlsDetails.tlsVersion`.
    pub tls_version: Option<String>,
    /// `recipientAccountId`.
    pub account_id: Option<String>,
    /// See [`Caller::principal`].
    pub principal: Option<String>,
    /// `userAgent`.
    pub user_agent: Option<String>,
    /// `sourceIPAddress`.
    pub source_ip: Option<String>,
    /// How many calls.
    pub calls: u64,
}

/// What is known of a bucket that had outdated calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Outdated {
    /// Its callers are to be asked for; so often that failed.
    Waiting(u32),
    /// They were handed out, or given up.
    Done,
}

impl Settings {
    /// What is to be done about callers at `now`, when no calls are due: the rest of a round of queries, or a new round,
    /// the newest buckets first. A round is due in each hour, or in each longer interval, from when its window settles.
    pub(super) fn callers_due(
        &self,
        progress: &QueryProgress,
        watermark: Timestamp,
        now: Timestamp,
    ) -> Plan {
        let Some(ask) = self.callers else {
            return Plan::Nothing;
        };
        let oldest = watermark.minus(ask.window);
        let waiting = progress.waiting(oldest..watermark).map(|(at, _)| at);
        let whole = |at: &Timestamp| at.plus(self.schedule.bucket) <= watermark;
        let waiting: BTreeSet<Timestamp> = waiting.filter(whole).collect();
        let current = self.ask_for(ask);
        let waits = |leaf: &&Leaf| leaf.ask == current && waiting.iter().any(|at| leaf.holds(*at));
        let left = progress.callers.iter().filter(waits);
        let left: Vec<Leaf> = left.cloned().collect();
        if !left.is_empty() {
            return Plan::Ask(left);
        }
        let round = self.schedule.interval.max(HOUR);
        let round_of = |time: Timestamp| time.minus(self.schedule.settle).floor(round);
        let due = |asked| round_of(now) > round_of(asked);
        if waiting.is_empty() || !progress.callers_asked.is_none_or(due) {
            return Plan::Nothing;
        }
        let leaves = self.leaves_of(&waiting, ask);
        let old = progress.outdated.range(..oldest);
        let mut changes = vec![
            progress::put_callers(&leaves),
            progress::put_callers_asked(now),
        ];
        changes.extend(old.map(|(at, _)| progress::remove_outdated(*at)));
        Plan::Step(Box::new(Batch {
            progress: changes,
            ..Batch::default()
        }))
    }

    /// What is asked with these columns.
    fn ask_for(&self, ask: AskCallers) -> Ask {
        Ask::Callers {
            below: self.minimum_version,
            columns: ask.columns,
        }
    }

    /// Buckets that touch are asked for together, or all of them, at most a longest window at once.
    fn leaves_of(&self, waiting: &BTreeSet<Timestamp>, ask: AskCallers) -> Vec<Leaf> {
        let mut all: Vec<Vec<Window>> = Vec::new();
        for from in waiting.iter().copied() {
            let to = from.plus(self.schedule.bucket);
            let fits = |parts: &&mut Vec<Window>| {
                let first = parts.first().is_some_and(|first| {
                    let length = to.since(first.from);
                    length <= self.schedule.longest
                });
                first && (ask.apart || parts.last().is_some_and(|last| last.to == from))
            };
            match all.last_mut().filter(fits) {
                Some(parts) => match parts.last_mut() {
                    Some(last) if last.to == from => last.to = to,
                    _ => parts.push(Window { from, to }),
                },
                None => all.push(vec![Window { from, to }]),
            }
        }
        let leaf = |parts: Vec<Window>| {
            let whole = parts.first().copied().unwrap_or_default();
            Leaf::callers(whole, self.minimum_version, ask.columns).of(parts)
        };
        all.into_iter().map(leaf).collect()
    }

    /// Remembers the buckets in which a batch counts outdated calls, for their callers to be asked for.
    pub(super) fn remember_outdated(&self, batch: &mut Batch, progress: &QueryProgress) {
        if self.callers.is_none() {
            return;
        }
        let outdated = |key: &CallKey| key.tls_version.outdated(self.minimum_version);
        let counted = batch.counts.iter().filter(|(_, key, _)| outdated(key));
        let buckets: BTreeSet<Timestamp> = counted.map(|(at, ..)| at).collect();
        // Those of a bucket that is counted again are handed out no second time: its late calls have none.
        let new = buckets
            .iter()
            .filter(|at| !progress.outdated.contains_key(at));
        let changes = new.map(|at| progress::put_outdated(*at, Outdated::Waiting(0)));
        batch.progress.extend(changes);
    }
}

impl<E: Engine> QuerySource<E> {
    /// A batch with the callers of a leaf's buckets. What was asked before the settings changed is thrown away: it may
    /// tell what is not to be told, or not all that is.
    pub(super) fn named(
        &self,
        leaf: &Leaf,
        progress: &QueryProgress,
        rows: &[CallerRow],
    ) -> Result<Batch, SourceError> {
        let mut batch = replaced(leaf, rest(&progress.callers));
        let settings = &self.settings;
        let current = settings.callers.map(|ask| settings.ask_for(ask));
        if current != Some(leaf.ask) {
            return Ok(batch);
        }
        batch.callers = self.callers(leaf, progress, rows)?;
        let Window { from, to } = leaf.window;
        let named = progress.waiting(from..to);
        let named = named.filter(|(at, _)| leaf.holds(*at));
        let changes = named.map(|(at, _)| progress::put_outdated(at, Outdated::Done));
        batch.progress.extend(changes);
        debug!(%from, %to, rows = rows.len(), "callers of outdated calls");
        Ok(batch)
    }

    fn callers(
        &self,
        leaf: &Leaf,
        progress: &QueryProgress,
        rows: &[CallerRow],
    ) -> Result<Callers, SourceError> {
        let mut callers = Callers::default();
        for row in rows {
            answer::check_bucket(leaf, row.bucket, self.settings.schedule.bucket)?;
            let tls_version = TlsVersion::from_record(row.tls_version.as_deref());
            let waits = matches!(
                progress.outdated.get(&row.bucket),
                Some(Outdated::Waiting(_))
            );
            let outdated = tls_version.outdated(self.settings.minimum_version);
            let Some(event_source) = row.event_source.as_deref().filter(|_| waits && outdated)
            else {
                continue;
            };
            let name = |text: &Option<String>| Name::new(text.as_deref().unwrap_or_default());
            let caller = Caller {
                aws_service: Name::new(CallKey::service_of(event_source)),
                event_name: name(&row.event_name),
                tls_version,
                account_id: name(&row.account_id),
                principal: name(&row.principal),
                user_agent: name(&row.user_agent),
                source_ip: name(&row.source_ip),
            };
            callers.add(row.bucket, &Arc::new(caller), row.calls);
        }
        Ok(callers)
    }

    /// Whether a query for callers that has run so long is in the way of calls that are due.
    pub(super) fn in_the_way(
        &self,
        flight: &InFlight,
        progress: &QueryProgress,
        ran: Duration,
    ) -> bool {
        let now = flight.started.plus(ran);
        let due = |watermark| self.settings.schedule.due(watermark, now).is_some();
        let asks_callers = flight.query.leaf.asks_callers();
        asks_callers && ran >= GRACE && progress.watermark.is_some_and(due)
    }
}

/// A batch after which a leaf's callers are asked for in the next round, or no more, since the query failed; and with
/// them all that is left of this round, as it would fail as well. What the budget has no room for waits until it has.
pub(super) fn not_named(leaf: &Leaf, progress: &QueryProgress, error: &SourceError) -> Batch {
    let mut batch = replaced(leaf, &[]);
    let Window { from, to } = leaf.window;
    let mut what = "asked for again in the next round";
    let asked = error.reason != Reason::Budget;
    for (at, tries) in progress.waiting(from..to) {
        if !leaf.holds(at) {
            continue;
        }
        let now = match tries.saturating_add(u32::from(asked)) {
            TRIES.. => {
                what = "not asked for any more";
                Outdated::Done
            }
            tries => Outdated::Waiting(tries),
        };
        batch.progress.push(progress::put_outdated(at, now));
    }
    batch.rejected.push(told(leaf, what, error));
    batch
}

/// How a failure is told that fails no attempt: the counts do not need it.
pub(super) fn told(leaf: &Leaf, what: &str, error: &SourceError) -> Rejected {
    let Window { from, to } = leaf.window;
    Rejected {
        name: format!("{from} to {to}, callers of outdated calls"),
        reason: error.reason,
        error: format!("they are {what}: {error}"),
    }
}

impl Leaf {
    /// The callers of a window's outdated calls.
    pub fn callers(window: Window, below: TlsVersion, columns: CallerLabels) -> Self {
        Self {
            ask: Ask::Callers { below, columns },
            ..Self::calls(window)
        }
    }

    /// Whether a bucket lies in what it asks for.
    pub(super) fn holds(&self, bucket: Timestamp) -> bool {
        let holds = |part: &Window| (part.from..part.to).contains(&bucket);
        holds(&self.window) && (self.within.is_empty() || self.within.iter().any(holds))
    }

    pub(super) fn asks_callers(&self) -> bool {
        matches!(self.ask, Ask::Callers { .. })
    }
}
