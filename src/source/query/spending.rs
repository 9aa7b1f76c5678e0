//! How a query source keeps its budget: what is asked is cut to what is left, and what a query cost is stored with
//! its end.

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use bytesize::ByteSize;

use super::budget::{Budget, Share, Spent, day_of};
use super::callers::not_named;
use super::estimates::Offer;
use super::leaf::Leaf;
use super::progress::{self, InFlight, Next, QueryProgress};
use super::steps::not_recounted;
use super::{Engine, QuerySource};
use crate::batch::{Batch, ProgressChange, Scanned};
use crate::source::{Reason, SourceError};
use crate::time::Timestamp;
use crate::window::Window;

const DAY: Duration = Duration::from_secs(86_400);

impl<E: Engine> QuerySource<E> {
    /// The same source within a budget, which all workers of it share.
    pub fn within(mut self, budget: &Arc<Budget>) -> Self {
        self.share = Share::of(budget);
        self
    }

    /// Tells the source's other workers what this one spent and reserved.
    pub(super) fn tell_spent(&self, progress: &QueryProgress) {
        let reserved = match self.refused {
            true => 0,
            false => progress.spent.reserved,
        };
        self.share.tell(progress.spent.reserving(reserved));
    }

    /// Cuts the next of `leaves` to what the budget has room for, and reserves that: it is to be stored before the
    /// query is started.
    pub(super) fn afford(
        &mut self,
        leaves: &mut Vec<Leaf>,
        progress: &QueryProgress,
        now: Timestamp,
    ) -> Result<Spent, SourceError> {
        let today = day_of(now);
        let stored = progress.spent;
        let lost = progress
            .next
            .as_ref()
            .is_some_and(|next| self.may_run(next));
        let prepared = progress.next.as_ref().map(|next| &next.query.leaf);
        if !lost && prepared == leaves.last() && self.share.holds(stored, today) {
            return Ok(stored);
        }
        let spent = match lost {
            true => stored.settled(None),
            false => stored.reserving(0),
        };
        let spent = spent.on(today);
        let (Some(limit), Some(leaf)) = (self.share.limit(), leaves.last().cloned()) else {
            return Ok(spent);
        };
        let asked = progress.estimates.asked_on(&leaf).unwrap_or(stored.day);
        let idle = u64::try_from(today.saturating_sub(asked)).unwrap_or(0);
        let offer = Offer {
            leaf: &leaf,
            estimates: &progress.estimates,
            bucket: self.settings.schedule.bucket,
            longest: self.settings.schedule.longest,
            parts_save: E::PARTS_SAVE,
            least: E::LEAST_BILLED,
            limit,
            idle,
        };
        let kept = self
            .held_up(&leaf, progress, now)
            .and_then(|window| {
                let seconds = window.length().as_secs();
                progress.estimates.of(&Leaf::calls(window), seconds)
            })
            .unwrap_or(0);
        let chosen = self.share.reserve(spent, |left| {
            let left = left.saturating_sub(kept);
            let (to, bytes) = offer.fitting(left)?;
            Some(((to, bytes), bytes))
        });
        let Some((to, bytes)) = chosen else {
            let limit = ByteSize(limit).display().iec();
            let message =
                format!("the day's budget of {limit} has no room for it until the next day (UTC)");
            return Err(SourceError::new(Reason::Budget, message));
        };
        self.refused = false;
        cut(leaves, to);
        Ok(spent.reserving(bytes))
    }

    /// What becomes of a leaf that the budget has no room for. A window that must be counted again before others can
    /// be counted stays as it was, and callers are asked for in a later round.
    pub(super) fn not_afforded(
        &self,
        leaf: &Leaf,
        progress: &QueryProgress,
        now: Timestamp,
        error: SourceError,
    ) -> Result<Batch, SourceError> {
        if leaf.asks_callers() {
            return Ok(not_named(leaf, progress, &error));
        }
        match self.held_up(leaf, progress, now) {
            None => Err(error),
            Some(_) => {
                let why = "the day's budget has no room for it";
                Ok(not_recounted(leaf, progress, error.reason, why))
            }
        }
    }

    /// The window that is due to be counted and waits for `leaf` to be counted again.
    fn held_up(&self, leaf: &Leaf, progress: &QueryProgress, now: Timestamp) -> Option<Window> {
        let watermark = progress.watermark.filter(|_| leaf.recount)?;
        self.settings.schedule.due(watermark, now)
    }

    /// Whether a start may have been carried out though nobody knows of its query: by an earlier process, or because
    /// its answer was lost. With a token the start is repeated, and the query known.
    pub(super) fn may_run(&self, next: &Next) -> bool {
        !E::TOKENS && self.token.as_ref() != Some(&next.token)
    }

    /// Takes in that a start has failed. If its query may run all the same, AWS must answer something before another
    /// is started. Whether AWS refused it.
    pub(super) fn not_started(&mut self, error: &SourceError) -> bool {
        let lost = match error.reason {
            Reason::BadAnswer => true,
            Reason::Timeout | Reason::Connection => error.source().is_some(),
            _ => false,
        };
        if lost && !E::TOKENS {
            self.token = None;
            self.engine.observer().forget_clock();
        }
        if !lost {
            self.refused = true;
            self.share.give_back();
        }
        !lost
    }

    /// What was reserved for a start that AWS refused is given back in the store too: another process would take it for
    /// spent.
    pub(super) fn not_charged(
        &mut self,
        progress: &QueryProgress,
        outcome: Result<Batch, SourceError>,
    ) -> Result<Batch, SourceError> {
        let mut batch = outcome.unwrap_or_else(|error| {
            self.failure = Some(error);
            Batch::default()
        });
        let spent = progress.spent.reserving(0);
        let changes = [progress::remove_next(), progress::put_spent(&spent)];
        batch.progress.extend(changes);
        Ok(batch)
    }

    /// Adds to a batch what the query in flight cost, and what that teaches; `None` where AWS does not tell.
    pub(super) fn book(
        flight: &InFlight,
        progress: &QueryProgress,
        complete: bool,
        scanned: Option<Scanned>,
        batch: &mut Batch,
    ) {
        let billed = scanned.map(|scanned| scanned.billed_bytes);
        let spent = progress.spent.settled(billed);
        batch.progress.push(progress::put_spent(&spent));
        if let (true, Some(bytes)) = (complete, billed) {
            let leaf = &flight.query.leaf;
            let seconds = match E::PARTS_SAVE {
                true => leaf.window.length().as_secs().max(1),
                false => 0,
            };
            let mut estimates = progress.estimates.clone();
            let day = day_of(flight.started);
            estimates.learn(leaf, seconds, bytes, progress.spent.reserved, day);
            batch.progress.push(progress::put_estimates(&estimates));
        }
        batch.scanned = scanned.unwrap_or_default();
    }
}

/// The change that stores `spent`, unless it is stored.
pub(super) fn spent_change(spent: Spent, progress: &QueryProgress) -> Option<ProgressChange> {
    (spent != progress.spent).then(|| progress::put_spent(&spent))
}

/// Cuts the last leaf at `to`: what lies behind is asked for after it.
fn cut(leaves: &mut Vec<Leaf>, to: Timestamp) {
    let Some(leaf) = leaves.pop() else { return };
    let Window { from, to: end } = leaf.window;
    let part = |from, to| Leaf {
        window: Window { from, to },
        ..leaf.clone()
    };
    if to < end {
        leaves.push(part(to, end));
    }
    leaves.push(part(from, to.min(end)));
}

impl QueryProgress {
    /// What the counting of a day takes with windows of `interval`, as far as earlier queries tell.
    pub fn bytes_of_a_day(&self, interval: Duration, bucket: Duration) -> Option<u64> {
        let now = Timestamp::from_secs(0);
        let window = |length| Window {
            from: now,
            to: now.plus(length),
        };
        let times = |leaf: Leaf, times: u64| {
            let seconds = leaf.window.length().as_secs();
            let known = self.estimates.of_kind(&leaf, seconds)?;
            Some(known.saturating_mul(times))
        };
        let length = interval.clamp(bucket, DAY);
        let windows = DAY.as_secs() / length.as_secs().max(1);
        let calls = times(Leaf::calls(window(length)), windows)?;
        let control = times(Leaf::control(window(bucket)), 24).unwrap_or(0);
        Some(calls.saturating_add(control))
    }
}
