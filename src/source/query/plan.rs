//! What is due: a window, a window to be counted again, or a move of the watermark. No clock, no requests.

use std::time::Duration;

use super::callers::AskCallers;
use super::leaf::Leaf;
use super::progress::{self, QueryProgress};
use super::steps::given_up;
use crate::batch::Batch;
use crate::time::Timestamp;
use crate::tls::TlsVersion;
use crate::window::{Schedule, Window};

/// A control query asks for one bucket of each, and callers are asked for once in each.
pub(super) const HOUR: Duration = Duration::from_secs(3600);

/// The settings that all query sources share.
#[derive(Clone, Debug, PartialEq)]
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
    /// Whether windows are counted again, for calls that came late.
    pub recount: Option<Recount>,
    /// Whether only outdated calls are asked for, and all calls in one bucket an hour.
    pub control: bool,
    /// Calls below are outdated.
    pub minimum_version: TlsVersion,
    /// Whether it is asked who made the outdated calls.
    pub callers: Option<AskCallers>,
}

/// When a window is counted again, and how.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Recount {
    /// So long after it settled …
    pub after: Duration,
    /// … as long as it is not older than this, seen from the watermark: its buckets become hours then.
    pub reach: Duration,
    /// Whether its records are counted by bucket first, and only buckets that differ are asked for again: where
    /// that costs less.
    pub check_first: bool,
}

/// What to do next.
pub(super) enum Plan {
    /// Nothing is due.
    Nothing,
    /// The progress moves on, and no query is needed for it.
    Step(Box<Batch>),
    /// These leaves are to be asked, the last first.
    Ask(Vec<Leaf>),
}

impl Settings {
    /// What to do next at `now`, with windows of at most `longest`.
    pub(super) fn plan(&self, progress: &QueryProgress, longest: Duration, now: Timestamp) -> Plan {
        let bucket = self.schedule.bucket;
        let Some(watermark) = progress.watermark else {
            // Stored, as it must not move on with the clock until the first window is due.
            let first = now.minus(self.lookback).floor(bucket);
            return Plan::Step(Box::new(Batch {
                progress: vec![
                    progress::put_watermark(first),
                    progress::put_recounted(first),
                ],
                ..Batch::default()
            }));
        };
        let oldest = now.minus(self.catch_up_limit).floor(bucket);
        if watermark < oldest {
            return Plan::Step(Box::new(given_up(watermark, oldest)));
        }
        if !progress.leaves.is_empty() {
            return Plan::Ask(progress.leaves.clone());
        }
        let schedule = Schedule {
            longest,
            ..self.schedule
        };
        let again = match progress.again.as_slice() {
            [] => Vec::from_iter(self.due_again(progress, watermark, now)),
            again => again.to_vec(),
        };
        match schedule.due(watermark, now) {
            // What is counted again comes first where this window would bring it out of reach.
            Some(window) if !self.out_of_reach(&again, window.to) => Plan::Ask(self.leaves(window)),
            _ if again.is_empty() => self.callers_due(progress, watermark, now),
            _ => Plan::Ask(again),
        }
    }

    /// Whether some leaf could not be counted again any more with the watermark at `watermark`.
    fn out_of_reach(&self, again: &[Leaf], watermark: Timestamp) -> bool {
        let reach = self.recount.map_or(Duration::MAX, |recount| recount.reach);
        let oldest = watermark.minus(reach);
        again.iter().any(|leaf| leaf.window.from < oldest)
    }

    /// The window that is due to be counted again.
    fn due_again(
        &self,
        progress: &QueryProgress,
        watermark: Timestamp,
        now: Timestamp,
    ) -> Option<Leaf> {
        let recount = self.recount?;
        let bucket = self.schedule.bucket;
        let schedule = Schedule {
            settle: self.schedule.settle + recount.after,
            ..self.schedule
        };
        let reach = watermark.minus(recount.reach);
        let oldest = reach.floor(bucket).plus(bucket);
        let from = progress.recounted?.max(oldest);
        let window = schedule.due(from, now)?;
        let to = window.to.min(watermark.floor(bucket));
        let leaf = match recount.check_first {
            true => Leaf::check,
            false => Leaf::recount,
        };
        (to > from).then(|| leaf(Window { from, to }))
    }

    /// The leaves of a window, the next last.
    fn leaves(&self, window: Window) -> Vec<Leaf> {
        let mut leaves = Vec::new();
        if self.control {
            let mut hour = window.from.floor(HOUR);
            while hour < window.to {
                let to = hour.plus(self.schedule.bucket);
                if hour >= window.from {
                    leaves.push(Leaf::control(Window { from: hour, to }));
                }
                hour = hour.plus(HOUR);
            }
            leaves.reverse();
        }
        leaves.push(Leaf::calls(window));
        leaves
    }
}
