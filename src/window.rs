//! Half-open windows of time, and which of them are due. Pure functions: no clock, no IO.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// A half-open span of time: `from` is in it, `to` is not, so neighbours share no record.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Window {
    /// The first second in the window.
    pub from: Timestamp,
    /// The first second after it.
    pub to: Timestamp,
}

impl Window {
    /// The length of the window.
    pub fn length(self) -> Duration {
        self.to.since(self.from)
    }

    /// What both windows have of time; `None` for nothing.
    pub fn overlap(self, other: Self) -> Option<Self> {
        let (from, to) = (self.from.max(other.from), self.to.min(other.to));
        (from < to).then_some(Self { from, to })
    }

    /// Cuts the window in two at its middle second; `None` when one second is all there is.
    pub fn halves(self) -> Option<(Self, Self)> {
        let half = self.length() / 2;
        let middle = self.from.plus(half);
        (middle > self.from).then_some((
            Self {
                from: self.from,
                to: middle,
            },
            Self {
                from: middle,
                to: self.to,
            },
        ))
    }
}

/// When a windowed source is asked, and for how much at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Schedule {
    /// The grid of time: a window ends on it.
    pub bucket: Duration,
    /// How long after its end a window may be asked for.
    pub settle: Duration,
    /// The longest window, when catching up. At least one bucket.
    pub longest: Duration,
    /// A window ends at a multiple of this, or at the last bucket before: what settled since is due with the next.
    pub interval: Duration,
}

impl Schedule {
    /// The end of the last window that has settled at `now`.
    pub fn settled(self, now: Timestamp) -> Timestamp {
        let settled = now.minus(self.settle);
        settled.floor(self.interval).floor(self.bucket)
    }

    /// The next window after `watermark` that has settled at `now`: whole buckets, as many as are due
    /// and fit in `longest`. A watermark off the grid (a window was split there) is brought back to it.
    pub fn due(self, watermark: Timestamp, now: Timestamp) -> Option<Window> {
        let reach = watermark.plus(self.longest.max(self.bucket));
        let ends = [
            reach.floor(self.interval).floor(self.bucket),
            reach.floor(self.bucket),
        ];
        let furthest = ends.into_iter().find(|end| *end > watermark);
        let to = self.settled(now).min(furthest.unwrap_or(watermark));
        (to > watermark).then_some(Window {
            from: watermark,
            to,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn schedules() -> impl Strategy<Value = Schedule> {
        let bucket = prop::sample::select(vec![60_u64, 300, 600, 900, 1800, 3600]);
        (bucket, 0_u64..7200, 1_u64..72, 1_u64..100_000).prop_map(
            |(bucket, settle, longest, interval)| Schedule {
                bucket: Duration::from_secs(bucket),
                settle: Duration::from_secs(settle),
                longest: Duration::from_secs(bucket * longest),
                interval: Duration::from_secs(interval),
            },
        )
    }

    proptest! {
        #[test]
        fn windows_touch_never_overlap_and_never_end_inside_the_settle_time(
            schedule in schedules(),
            start in 0_i64..10_000_000,
            steps in prop::collection::vec(0_i64..20_000, 1..40),
        ) {
            let mut watermark = Timestamp::from_secs(start);
            let mut now = watermark;
            for step in steps {
                now = now.plus(Duration::from_secs(u64::try_from(step).unwrap()));
                while let Some(window) = schedule.due(watermark, now) {
                    prop_assert_eq!(window.from, watermark);
                    prop_assert!(window.to > window.from);
                    prop_assert!(window.to.plus(schedule.settle) <= now);
                    prop_assert_eq!(window.to.floor(schedule.bucket), window.to);
                    prop_assert!(window.length() <= schedule.longest);
                    watermark = window.to;
                }
                // Nothing whole is left behind: since the next end of an interval, or of its last bucket, too little
                // time has passed.
                let longest = schedule.interval + schedule.bucket + schedule.settle;
                prop_assert!(watermark.plus(longest) > now);
            }
        }

        #[test]
        fn halves_cover_the_window_and_end_at_a_second(from in 0_i64..1000, length in 1_i64..100_000) {
            let window = Window { from: Timestamp::from_secs(from), to: Timestamp::from_secs(from + length) };
            match window.halves() {
                None => prop_assert_eq!(length, 1),
                Some((first, second)) => {
                    prop_assert_eq!((first.from, first.to, second.to), (window.from, second.from, window.to));
                    prop_assert!(first.from < first.to && second.from < second.to);
                }
            }
        }
    }
}
