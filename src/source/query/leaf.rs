//! What one query asks for, and how it is split when its answer would not be whole.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::call::CallerLabels;
use crate::tls::TlsVersion;
use crate::window::Window;

/// A part of the counting that one query answers. A window is one leaf; where that has too many rows it is
/// split, and each part of it is a leaf.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leaf {
    /// The time asked for.
    pub window: Window,
    /// Only calls with these values; `None` is a value too: the record has no such member.
    pub only: Vec<(Part, Option<String>)>,
    /// What is asked.
    pub ask: Ask,
    /// Whether calls of all versions are asked for where the others ask for outdated ones alone: the positive
    /// control. Outdated calls are left out of it.
    pub control: bool,
    /// Whether the window was counted before and is counted again, for calls that came late.
    pub recount: bool,
    /// Only these parts of its time, in their order; all of it where there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub within: Vec<Window>,
}

/// What a leaf asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ask {
    /// Calls by their whole key and bucket.
    Calls,
    /// The same without `event_name`: the last resort.
    CallsWithoutEventName,
    /// Which values a member has, so that each can be asked for on its own.
    Values(Part),
    /// How many records each bucket has: whether any came late.
    Records,
    /// Who made the outdated calls of each bucket, the busiest first: an answer that is full is whole enough.
    Callers {
        /// Calls below are outdated.
        below: TlsVersion,
        /// What is told of a caller.
        columns: CallerLabels,
    },
}

/// A member of the record by which a window of one second is split further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// `awsRegion`.
    Region,
    /// `recipientAccountId`.
    Account,
    /// `eventSource`.
    Service,
}

impl Part {
    /// In the order of splitting: the first ones divide most evenly.
    pub const ALL: [Self; 3] = [Self::Region, Self::Account, Self::Service];
}

impl Leaf {
    /// All calls of a window.
    pub fn calls(window: Window) -> Self {
        Self {
            window,
            only: Vec::new(),
            ask: Ask::Calls,
            control: false,
            recount: false,
            within: Vec::new(),
        }
    }

    /// The positive control of a window.
    pub fn control(window: Window) -> Self {
        Self {
            control: true,
            ..Self::calls(window)
        }
    }

    /// A window that is counted again.
    pub fn recount(window: Window) -> Self {
        Self {
            recount: true,
            ..Self::calls(window)
        }
    }

    /// A window that was counted before: whether it has other records now.
    pub fn check(window: Window) -> Self {
        Self {
            ask: Ask::Records,
            ..Self::recount(window)
        }
    }

    /// Whether the watermark waits for this leaf.
    pub(super) fn holds_watermark(&self) -> bool {
        !self.control && !self.recount && !self.asks_callers()
    }

    /// The leaves to ask instead because the answer had too many rows, the oldest first: halves down to a second,
    /// then one for each Region, account and service, then without `event_name`. `None` if nothing is left to split.
    pub(super) fn split(&self, bucket: Duration) -> Option<Vec<Self>> {
        if let Some(parts) = self.shorter(bucket) {
            return Some(parts);
        }
        let with = |ask| Self {
            ask,
            ..self.clone()
        };
        if self.recount {
            return None;
        }
        let next = Part::ALL
            .into_iter()
            .find(|part| self.only.iter().all(|(known, _)| known != part));
        match (self.ask, next) {
            (Ask::CallsWithoutEventName | Ask::Records | Ask::Callers { .. }, _) => None,
            (Ask::Values(_), _) | (_, None) => Some(vec![with(Ask::CallsWithoutEventName)]),
            (Ask::Calls, Some(part)) => Some(vec![with(Ask::Values(part))]),
        }
    }

    /// The two halves of its time, the older first; `None` where it is as short as it can be.
    pub(super) fn shorter(&self, bucket: Duration) -> Option<Vec<Self>> {
        let (first, second) = match self.recount || self.asks_callers() {
            true => self.bucket_halves(bucket),
            false => self.window.halves(),
        }?;
        let part = |window: Window| {
            let within = self.within.iter();
            let within = within.filter_map(|part| part.overlap(window)).collect();
            Self {
                window,
                ..self.clone()
            }
            .of(within)
        };
        Some(vec![part(first), part(second)])
    }

    /// The same of these parts of its time alone, if there are any.
    pub(super) fn of(mut self, parts: Vec<Window>) -> Self {
        if let (Some(first), Some(last)) = (parts.first(), parts.last()) {
            (self.window.from, self.window.to) = (first.from, last.to);
        }
        let gaps = parts.len() > 1;
        self.within = if gaps { parts } else { Vec::new() };
        self
    }

    /// What is counted again is compared with whole buckets, and a bucket's callers are handed out once.
    fn bucket_halves(&self, bucket: Duration) -> Option<(Window, Window)> {
        let Window { from, to } = self.window;
        let middle = from.plus(self.window.length() / 2).floor(bucket);
        let middle = middle.max(from.floor(bucket).plus(bucket));
        let window = |from, to| Window { from, to };
        (middle < to).then_some((window(from, middle), window(middle, to)))
    }

    /// One leaf for each value that `part` was found to have.
    pub(super) fn by_value(&self, part: Part, values: Vec<Option<String>>) -> Vec<Self> {
        let only = |value| {
            let mut only = self.only.clone();
            only.push((part, value));
            Self {
                only,
                ask: Ask::Calls,
                ..self.clone()
            }
        };
        values.into_iter().map(only).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Timestamp;

    const BUCKET: Duration = Duration::from_secs(60);

    fn leaf(from: i64, to: i64) -> Leaf {
        let (from, to) = (Timestamp::from_secs(from), Timestamp::from_secs(to));
        Leaf::calls(Window { from, to })
    }

    #[test]
    fn a_window_is_halved_down_to_a_second_then_split_by_values_and_at_last_counted_without_event_names()
     {
        assert_eq!(leaf(0, 3).split(BUCKET), Some(vec![leaf(0, 1), leaf(1, 3)]));
        let mut second = leaf(7, 8);
        for part in Part::ALL {
            let asked = second.split(BUCKET).unwrap().remove(0);
            assert_eq!(asked.ask, Ask::Values(part));
            let mut parts = asked.by_value(part, vec![Some("a".to_owned()), None]);
            assert_eq!(parts.len(), 2);
            second = parts.remove(0);
            assert_eq!(second.only.last(), Some(&(part, Some("a".to_owned()))));
        }
        let last = second.split(BUCKET).unwrap().remove(0);
        assert_eq!((last.ask, last.only.len()), (Ask::CallsWithoutEventName, 3));
        assert_eq!(last.split(BUCKET), None);
    }

    #[test]
    fn a_control_stays_one_however_it_is_split() {
        let mut leaf = Leaf::control(leaf(7, 9).window);
        for _ in 0..3 {
            leaf = leaf.split(BUCKET).unwrap().remove(0);
            assert!(leaf.control, "{leaf:?}");
            if let Ask::Values(part) = leaf.ask {
                leaf = leaf.by_value(part, vec![None]).remove(0);
                assert!(leaf.control, "{leaf:?}");
            }
        }
    }

    #[test]
    fn what_is_counted_again_is_split_between_buckets_alone() {
        let window = |from, to| leaf(from, to).window;
        let parts = |from, to| Leaf::recount(window(from, to)).split(BUCKET);
        let recount = |from, to| Leaf::recount(window(from, to));
        assert_eq!(parts(0, 120), Some(vec![recount(0, 60), recount(60, 120)]));
        assert_eq!(parts(0, 180), Some(vec![recount(0, 60), recount(60, 180)]));
        assert_eq!(parts(60, 120), None);
    }

    #[test]
    fn parts_that_lie_apart_are_halved_without_the_gaps_between_them() {
        let window = |from, to| leaf(from, to).window;
        let columns = CallerLabels {
            principal: true,
            user_agent: true,
            source_ip: true,
        };
        let callers = |parts: &[Window]| {
            Leaf::callers(window(0, 0), TlsVersion::Tls12, columns).of(parts.to_vec())
        };
        let all = callers(&[window(0, 60), window(120, 180), window(1200, 1260)]);
        assert_eq!(all.window, window(0, 1260));
        let halves = all.split(BUCKET).unwrap();
        let first = callers(&[window(0, 60), window(120, 180)]);
        assert_eq!(halves, [first.clone(), callers(&[window(1200, 1260)])]);
        let quarters = first.split(BUCKET).unwrap();
        let alone = [window(0, 60), window(120, 180)].map(|part| callers(&[part]));
        assert_eq!(quarters, alone);
        assert_eq!((&alone[1].within, alone[1].split(BUCKET)), (&vec![], None));
    }

    #[test]
    fn too_many_values_are_not_asked_for_one_by_one() {
        let values = leaf(7, 8).split(BUCKET).unwrap().remove(0);
        assert_eq!(
            values.split(BUCKET).unwrap()[0].ask,
            Ask::CallsWithoutEventName
        );
    }
}
