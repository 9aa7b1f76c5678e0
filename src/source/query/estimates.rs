//! What a query will be billed for, as far as earlier ones tell, and how much of a leaf a budget has room for.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::leaf::{Ask, Leaf};
use crate::time::Timestamp;

const DAY: u64 = 86_400;

/// What queries took, by what they asked and for about how long: an engine may read more than it was asked for, so that
/// a shorter query need not be a smaller one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Estimates(Vec<Taken>);

/// What a query took.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Taken {
    ask: Ask,
    control: bool,
    recount: bool,
    bytes: u64,
    /// The time that it asked for; 0 where that does not matter.
    seconds: u64,
    /// When, as days since the epoch.
    #[serde(default)]
    day: i64,
}

impl Taken {
    fn is_of(&self, leaf: &Leaf) -> bool {
        (self.ask, self.control, self.recount) == (leaf.ask, leaf.control, leaf.recount)
    }

    /// What a query over `seconds` takes at the same rate.
    fn over(&self, seconds: u64) -> u64 {
        if self.seconds == 0 {
            return self.bytes;
        }
        let bytes = u128::from(self.bytes) * u128::from(seconds);
        u64::try_from(bytes.div_ceil(u128::from(self.seconds))).unwrap_or(u64::MAX)
    }

    /// How unlike the two lengths are, in doublings.
    fn distance(&self, seconds: u64) -> u32 {
        doublings(self.seconds).abs_diff(doublings(seconds))
    }
}

fn doublings(seconds: u64) -> u32 {
    seconds.checked_ilog2().unwrap_or(0)
}

impl Estimates {
    /// What a query for what `leaf` asks is billed for over `seconds`; `None` if nothing is known. What was never
    /// asked is taken for the most costly of what was.
    pub(super) fn of(&self, leaf: &Leaf, seconds: u64) -> Option<u64> {
        let all = || self.0.iter().map(|taken| taken.over(seconds)).max();
        self.of_kind(leaf, seconds).or_else(all)
    }

    /// The same, where this was asked before.
    pub(super) fn of_kind(&self, leaf: &Leaf, seconds: u64) -> Option<u64> {
        let same = self.0.iter().filter(|taken| taken.is_of(leaf));
        let nearest = same.min_by_key(|taken| (taken.distance(seconds), taken.seconds));
        nearest.map(|taken| taken.over(seconds))
    }

    /// The day on which this was asked last.
    pub(super) fn asked_on(&self, leaf: &Leaf) -> Option<i64> {
        let same = self.0.iter().filter(|taken| taken.is_of(leaf));
        same.map(|taken| taken.day).max()
    }

    /// Takes in what a query was billed for, over `seconds`, or 0 if its length does not matter. More is believed at
    /// once, less by and by; but at once too where it was let through for less than it was `expected` to take, because
    /// the estimate was too old to be believed. Without a budget nothing is expected.
    pub(super) fn learn(&mut self, leaf: &Leaf, seconds: u64, bytes: u64, expected: u64, day: i64) {
        let known = self
            .0
            .iter()
            .position(|taken| taken.is_of(leaf) && doublings(taken.seconds) == doublings(seconds));
        let before = known.map(|known| self.0.remove(known).over(seconds));
        let bytes = match before {
            Some(before) if before > bytes && (expected == 0 || expected >= before) => {
                before - (before - bytes) / 4
            }
            Some(before) if before > bytes => {
                self.0.retain(|taken| !taken.is_of(leaf));
                bytes
            }
            _ => bytes,
        };
        self.0.push(Taken {
            ask: leaf.ask,
            control: leaf.control,
            recount: leaf.recount,
            bytes,
            seconds,
            day,
        });
    }
}

/// What decides how much of a leaf is asked.
#[derive(Debug)]
pub(super) struct Offer<'o> {
    pub(super) leaf: &'o Leaf,
    pub(super) estimates: &'o Estimates,
    pub(super) bucket: Duration,
    /// The longest window.
    pub(super) longest: Duration,
    /// Whether a shorter time is less work.
    pub(super) parts_save: bool,
    /// What the least query is billed for.
    pub(super) least: u64,
    /// The budget of a day.
    pub(super) limit: u64,
    /// The days since this was asked last.
    pub(super) idle: u64,
}

impl Offer<'_> {
    /// Up to when the leaf can be asked with `left` bytes, and for how many: as many buckets as fit. If nothing is
    /// known, one bucket, which teaches. If not even the least fits, its estimate may have become too high: from the second
    /// day without a query on, it is halved for each.
    pub(super) fn fitting(&self, left: u64) -> Option<(Timestamp, u64)> {
        let window = self.leaf.window;
        let least = self.least.max(1);
        if left < least {
            return None;
        }
        let whole = window
            .to
            .min(window.from.plus(self.longest.max(self.bucket)));
        let divisible = self.parts_save && !self.leaf.control && !self.leaf.asks_callers();
        let shortest = match divisible {
            true => window.from.floor(self.bucket).plus(self.bucket).min(whole),
            false => window.to,
        };
        let Some(of_shortest) = self.estimate(shortest) else {
            // Taken for a trail that needs just this budget.
            let bytes =
                u128::from(self.limit) * u128::from(self.seconds(shortest)) / u128::from(DAY);
            let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
            return Some((shortest, bytes.clamp(least, left)));
        };
        let mut to = whole.max(shortest);
        while to > shortest {
            let bytes = self.estimate(to)?.max(least);
            if bytes <= left {
                return Some((to, bytes));
            }
            to = to
                .minus(Duration::from_secs(1))
                .floor(self.bucket)
                .max(shortest);
        }
        let halvings = u32::try_from(self.idle.saturating_sub(1)).unwrap_or(u32::MAX);
        let aged = of_shortest.checked_shr(halvings).unwrap_or(0);
        [of_shortest, aged]
            .into_iter()
            .map(|bytes| (shortest, bytes.max(least)))
            .find(|(_, bytes)| *bytes <= left)
    }

    fn estimate(&self, to: Timestamp) -> Option<u64> {
        self.estimates.of(self.leaf, self.seconds(to))
    }

    fn seconds(&self, to: Timestamp) -> u64 {
        to.since(self.leaf.window.from).as_secs()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::source::query::leaf::Part;
    use crate::window::Window;

    const DAY_OF_TEST: i64 = 20_000;
    const BUCKET: Duration = Duration::from_secs(300);

    fn leaf(minutes: i64) -> Leaf {
        let (from, to) = (Timestamp::from_secs(0), Timestamp::from_secs(60 * minutes));
        Leaf::calls(Window { from, to })
    }

    fn learnt(taken: &[(i64, u64)]) -> Estimates {
        let mut estimates = Estimates::default();
        for (minutes, bytes) in taken {
            let leaf = leaf(*minutes);
            estimates.learn(
                &leaf,
                leaf.window.length().as_secs(),
                *bytes,
                u64::MAX,
                DAY_OF_TEST,
            );
        }
        estimates
    }

    /// How many minutes of `leaf` are asked, and for how much.
    fn fitting(leaf: &Leaf, estimates: &Estimates, idle: u64, left: u64) -> Option<(i64, u64)> {
        let offer = Offer {
            leaf,
            estimates,
            bucket: BUCKET,
            longest: Duration::from_secs(6 * 3600),
            parts_save: true,
            least: 0,
            limit: 288_000,
            idle,
        };
        let fitting = offer.fitting(left)?;
        Some((fitting.0.secs() / 60, fitting.1))
    }

    #[test]
    fn a_window_is_cut_to_the_buckets_that_fit() {
        let estimates = learnt(&[(60, 1200)]);
        let fitting = |left| fitting(&leaf(60), &estimates, 0, left);
        assert_eq!(fitting(1200), Some((60, 1200)));
        assert_eq!(fitting(1199), Some((55, 1100)));
        assert_eq!(fitting(100), Some((5, 100)));
        assert_eq!(fitting(99), None);
    }

    #[test]
    fn where_nothing_is_known_one_bucket_is_asked_for_its_share_of_the_budget() {
        let fitting = |left| fitting(&leaf(60), &Estimates::default(), 0, left);
        assert_eq!(fitting(288_000), Some((5, 1000)));
        assert_eq!(fitting(7), Some((5, 7)));
        assert_eq!(fitting(0), None);
    }

    #[test]
    fn a_control_and_what_is_shorter_than_a_bucket_are_not_cut() {
        let estimates = learnt(&[(60, 1200)]);
        let control = Leaf::control(leaf(10).window);
        assert_eq!(fitting(&control, &estimates, 0, 199), None);
        assert_eq!(fitting(&control, &estimates, 0, 200), Some((10, 200)));
        assert_eq!(fitting(&leaf(1), &estimates, 0, 19), None);
        assert_eq!(fitting(&leaf(1), &estimates, 0, 20), Some((1, 20)));
    }

    #[test]
    fn where_a_shorter_query_was_no_smaller_one_it_is_not_cut_again() {
        // Each reads a day, whatever it asks.
        let estimates = learnt(&[(60, 1200), (30, 1200), (15, 1200), (5, 1200)]);
        assert_eq!(fitting(&leaf(60), &estimates, 1, 600), None);
        assert_eq!(fitting(&leaf(60), &estimates, 0, 1200), Some((60, 1200)));
    }

    #[test]
    fn what_was_never_asked_is_taken_for_the_most_costly_of_what_was() {
        let mut estimates = learnt(&[(60, 1200)]);
        let check = Leaf::check(leaf(60).window);
        assert_eq!(estimates.of(&check, 3600), Some(1200));
        estimates.learn(&check, 3600, 100, 1200, DAY_OF_TEST);
        assert_eq!(estimates.of(&check, 3600), Some(100));
        assert_eq!(estimates.of(&leaf(60), 3600), Some(1200));
        let values = Leaf {
            ask: Ask::Values(Part::Region),
            ..leaf(60)
        };
        assert_eq!(estimates.of(&values, 7200), Some(2400));
        assert_eq!(estimates.of_kind(&values, 7200), None);
    }

    #[test]
    fn more_is_believed_at_once_and_less_by_and_by() {
        let mut estimates = learnt(&[(60, 1000)]);
        let mut learn = |bytes, expected| {
            estimates.learn(&leaf(60), 3600, bytes, expected, DAY_OF_TEST);
            estimates.of(&leaf(60), 3600).unwrap()
        };
        assert_eq!(learn(4000, 1000), 4000);
        assert_eq!(learn(2000, 4000), 3500);
        assert_eq!(learn(3100, 0), 3400);
        assert_eq!(learn(3400, 0), 3400);
        // It was let through though 3400 did not fit.
        assert_eq!(learn(2000, 875), 2000);
    }

    #[test]
    fn an_estimate_that_is_above_the_budget_does_not_starve_the_source_for_ever() {
        let mut estimates = learnt(&[(60, 12_000_000), (5, 1_000_000)]);
        let at = |estimates: &Estimates, idle| fitting(&leaf(60), estimates, idle, 288_000);
        assert_eq!(
            (at(&estimates, 0), at(&estimates, 1), at(&estimates, 2)),
            (None, None, None)
        );
        assert_eq!(at(&estimates, 3), Some((5, 250_000)));
        assert_eq!(at(&estimates, u64::MAX), Some((5, 1)));
        // It finds the trail quiet: what was known of longer windows is as old.
        estimates.learn(&leaf(5), 300, 1000, 250_000, DAY_OF_TEST);
        assert_eq!(at(&estimates, 0), Some((60, 12_000)));
        // What fits as it is is not believed to have become less.
        assert_eq!(
            fitting(&leaf(60), &learnt(&[(60, 1200)]), 9, 600),
            Some((30, 600))
        );
    }

    #[test]
    fn where_parts_save_nothing_the_whole_is_asked_or_nothing() {
        let mut estimates = Estimates::default();
        let offer = |estimates: &Estimates, left| {
            let (leaf, bucket) = (&leaf(1440), BUCKET);
            let offer = Offer {
                leaf,
                estimates,
                bucket,
                longest: Duration::from_secs(86_400),
                parts_save: false,
                least: 10,
                limit: 1000,
                idle: 0,
            };
            offer
                .fitting(left)
                .map(|(to, bytes)| (to == leaf.window.to, bytes))
        };
        assert_eq!(offer(&estimates, 400), Some((true, 400)));
        assert_eq!(offer(&estimates, 9), None);
        estimates.learn(&leaf(1440), 0, 700, 0, DAY_OF_TEST);
        assert_eq!(
            (offer(&estimates, 699), offer(&estimates, 700)),
            (None, Some((true, 700)))
        );
        estimates.learn(&leaf(1440), 0, 1, 1, DAY_OF_TEST);
        assert_eq!(
            (offer(&estimates, 9), offer(&estimates, 10)),
            (None, Some((true, 10)))
        );
    }

    proptest! {
        #[test]
        fn no_query_is_begun_whose_estimate_is_more_than_what_is_left(
            taken in prop::collection::vec((1_i64..400, any::<u64>()), 0..6),
            window in (any::<i64>(), any::<i64>()),
            numbers in (any::<u64>(), any::<u64>(), any::<u64>(), any::<u64>()),
            flags in (any::<bool>(), any::<bool>()),
        ) {
            let (left, limit, least, idle) = numbers;
            let leaf = Leaf {
                control: flags.0,
                ..Leaf::calls(Window { from: Timestamp::from_secs(window.0), to: Timestamp::from_secs(window.1) })
            };
            let offer = Offer {
                leaf: &leaf,
                estimates: &learnt(&taken),
                bucket: BUCKET,
                longest: Duration::from_secs(6 * 3600),
                parts_save: flags.1,
                least: least >> 20,
                limit,
                idle,
            };
            if let Some((to, bytes)) = offer.fitting(left) {
                prop_assert!(bytes <= left && bytes >= least >> 20);
                prop_assert!(to <= leaf.window.to || leaf.window.to < leaf.window.from);
            }
        }
    }
}
