//! A source's bytes of one UTC day: what its workers spent and reserved, so that together they stay within a budget.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use bytesize::ByteSize;
use serde::{Deserialize, Serialize};
use tracing::{info, warn};

use crate::time::Timestamp;

const DAY: i64 = 86_400;

/// The days since the epoch, UTC.
pub(super) fn day_of(time: Timestamp) -> i64 {
    time.secs().div_euclid(DAY)
}

/// What one worker spent on a day; stored with its progress.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Spent {
    /// The day, as days since the epoch: of the start of the queries, whenever they end.
    pub(super) day: i64,
    /// What AWS billed for queries that have ended.
    pub(super) bytes: u64,
    /// The estimate of the query that is started next, or runs.
    pub(super) reserved: u64,
}

impl Spent {
    /// The same on `day`, on which nothing is spent yet if it is a later one.
    pub(super) fn on(self, day: i64) -> Self {
        let new = Self {
            day,
            ..Self::default()
        };
        if day > self.day { new } else { self }
    }

    /// After the query has ended, or is out of sight, and was billed `bytes`; the estimate, where nobody knows.
    pub(super) fn settled(self, bytes: Option<u64>) -> Self {
        Self {
            bytes: self.bytes.saturating_add(bytes.unwrap_or(self.reserved)),
            reserved: 0,
            ..self
        }
    }

    /// With this reserved, instead of what was.
    pub(super) fn reserving(self, reserved: u64) -> Self {
        Self { reserved, ..self }
    }
}

/// How much of its budget a source has used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spending {
    /// The budget of a day.
    pub limit: u64,
    /// What was billed of queries that were started today.
    pub used: u64,
    /// Whether a query waits for the next day.
    pub exhausted: bool,
}

/// The budget of a source, which its workers share.
#[derive(Debug)]
pub struct Budget {
    source: String,
    limit: Option<u64>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// The latest day that any worker has told.
    day: i64,
    /// The workers' accounts, each under the place that its share has.
    workers: BTreeMap<usize, Account>,
    /// Whether the log says that queries wait.
    told: bool,
}

/// One worker's part of the day.
#[derive(Clone, Copy, Debug, Default)]
struct Account {
    spent: u64,
    reserved: u64,
    waits: bool,
}

impl Budget {
    /// At most `limit` bytes a day for all queries of `source`; `None` is no limit.
    pub fn new(source: &str, limit: Option<u64>) -> Self {
        Self {
            source: source.to_owned(),
            limit,
            state: Mutex::new(State {
                day: i64::MIN,
                workers: BTreeMap::new(),
                told: false,
            }),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Begins a new day; no day comes back.
    fn reach(&mut self, day: i64) {
        if day > self.day {
            self.day = day;
            self.workers
                .values_mut()
                .for_each(|account| *account = Account::default());
        }
    }

    fn spent(&self) -> u64 {
        let spent = self.workers.values().map(|worker| worker.spent);
        spent.fold(0, u64::saturating_add)
    }

    /// What `place` may still spend.
    fn left(&self, limit: u64, place: usize) -> u64 {
        let others = self.workers.iter();
        let others = others.filter(|(other, _)| **other != place);
        let reserved = others.map(|(_, worker)| worker.reserved);
        let taken = reserved.fold(self.spent(), u64::saturating_add);
        limit.saturating_sub(taken)
    }
}

/// One worker's hold on the budget of its source.
#[derive(Debug)]
pub(super) struct Share {
    budget: Arc<Budget>,
    place: usize,
}

impl Share {
    pub(super) fn of(budget: &Arc<Budget>) -> Self {
        let workers = &mut budget.state().workers;
        let last = workers.last_key_value();
        let place = last.map_or(0, |(place, _)| place + 1);
        workers.insert(place, Account::default());
        Self {
            budget: Arc::clone(budget),
            place,
        }
    }

    /// The budget of a day, if there is one.
    pub(super) fn limit(&self) -> Option<u64> {
        self.budget.limit
    }

    /// Tells what this worker spent and reserved, as it is stored.
    pub(super) fn tell(&self, spent: Spent) {
        let mut state = self.budget.state();
        state.reach(spent.day);
        let spent = spent.on(state.day);
        self.account(&mut state, |account| {
            (account.spent, account.reserved) = (spent.bytes, spent.reserved);
        });
    }

    /// Reserves what `choose` takes of that which is left on the day of `spent`, instead of what this worker reserved
    /// before.
    pub(super) fn reserve<T>(
        &self,
        spent: Spent,
        choose: impl FnOnce(u64) -> Option<(T, u64)>,
    ) -> Option<T> {
        let limit = self.budget.limit?;
        self.tell(spent.reserving(0));
        let mut state = self.budget.state();
        let left = state.left(limit, self.place);
        let chosen = choose(left).filter(|(_, bytes)| *bytes <= left);
        self.account(&mut state, |account| {
            account.reserved = chosen.as_ref().map_or(0, |(_, bytes)| *bytes);
            account.waits = chosen.is_none();
        });
        self.tell_log(&mut state, limit);
        chosen.map(|(chosen, _)| chosen)
    }

    /// Whether just this is reserved, and no new day has begun.
    pub(super) fn holds(&self, spent: Spent, day: i64) -> bool {
        let mut state = self.budget.state();
        state.reach(day);
        let reserved = state
            .workers
            .get(&self.place)
            .map(|account| account.reserved);
        state.day == spent.day && reserved == Some(spent.reserved) && spent.reserved > 0
    }

    /// Nothing is due that would wait for the next day.
    pub(super) fn needs_nothing(&self) {
        let mut state = self.budget.state();
        self.account(&mut state, |account| account.waits = false);
        if let Some(limit) = self.budget.limit {
            self.tell_log(&mut state, limit);
        }
    }

    /// How much of the budget is used on a day. A day is reached by what is spent on it alone: this one may be of a
    /// clock that is not trusted.
    pub(super) fn spending(&self, day: i64) -> Option<Spending> {
        let limit = self.budget.limit?;
        let state = self.budget.state();
        let reached = day <= state.day;
        Some(Spending {
            limit,
            used: if reached { state.spent() } else { 0 },
            exhausted: reached && state.workers.values().any(|worker| worker.waits),
        })
    }

    /// Gives back what was reserved: the query did not start.
    pub(super) fn give_back(&self) {
        let mut state = self.budget.state();
        self.account(&mut state, |account| account.reserved = 0);
    }

    fn account(&self, state: &mut State, change: impl FnOnce(&mut Account)) {
        if let Some(account) = state.workers.get_mut(&self.place) {
            change(account);
        }
    }

    /// One line of the log when queries begin to wait, one when they go on.
    fn tell_log(&self, state: &mut State, limit: u64) {
        let waits = state.workers.values().any(|worker| worker.waits);
        if waits == state.told {
            return;
        }
        state.told = waits;
        let source = self.budget.source.as_str();
        let (limit, used) = (
            ByteSize(limit).display().iec(),
            ByteSize(state.spent()).display().iec(),
        );
        match waits {
            true => {
                warn!(source, budget = %limit, %used, "the day's budget is used up: what is due waits for the next day (UTC)")
            }
            false => info!(source, budget = %limit, %used, "the budget lets queries go on"),
        }
    }
}

/// A worker that is gone leaves nothing reserved; one that takes its place tells what is stored.
impl Drop for Share {
    fn drop(&mut self) {
        self.budget.state().workers.remove(&self.place);
    }
}

/// A source and its limit: another limit is another budget.
type Terms = (String, Option<u64>);

/// The budgets of all sources: workers of one source share it, also when they start at different times.
#[derive(Debug, Default)]
pub struct Budgets(Mutex<HashMap<Terms, Weak<Budget>>>);

impl Budgets {
    /// The budget of a source.
    pub fn of(&self, source: &str, limit: Option<u64>) -> Arc<Budget> {
        let mut budgets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        budgets.retain(|_, budget| budget.strong_count() > 0);
        let known = budgets.entry((source.to_owned(), limit)).or_default();
        known.upgrade().unwrap_or_else(|| {
            let budget = Arc::new(Budget::new(source, limit));
            *known = Arc::downgrade(&budget);
            budget
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What a worker of a property test does.
    #[derive(Clone, Debug)]
    enum Act {
        /// It wants this much.
        Reserve(u64),
        /// Its query ends, billed this many per cent of what was reserved; `None` is not known.
        End(Option<u64>),
        /// The whole process is killed and starts again.
        Restart,
        Midnight,
    }

    fn acts() -> impl Strategy<Value = Vec<(usize, Act)>> {
        let act = prop_oneof![
            5 => (0_u64..600).prop_map(Act::Reserve),
            5 => prop::option::of(0_u64..=100).prop_map(Act::End),
            1 => Just(Act::Restart),
            1 => Just(Act::Midnight),
        ];
        prop::collection::vec((0_usize..3, act), 0..60)
    }

    fn shares(stored: &[Spent]) -> Vec<Share> {
        let budget = Arc::new(Budget::new("logs", Some(1000)));
        let shares: Vec<Share> = stored.iter().map(|_| Share::of(&budget)).collect();
        for (share, spent) in shares.iter().zip(stored) {
            share.tell(*spent);
        }
        shares
    }

    proptest! {
        #[test]
        fn workers_together_never_reserve_more_than_a_days_budget_whatever_ends_when(acts in acts()) {
            let mut stored = [Spent::default(); 3];
            let mut shares = shares(&stored);
            let (mut day, mut billed) = (20_000, 0);
            for (worker, act) in acts {
                match act {
                    Act::Reserve(_) if stored[worker].reserved > 0 => {}
                    Act::Reserve(bytes) => {
                        let spent = stored[worker].on(day);
                        let of_day = stored.map(|spent| spent.on(day));
                        let taken: u64 = of_day.iter().map(|spent| spent.bytes + spent.reserved).sum();
                        let got = shares[worker].reserve(spent, |left| {
                            assert_eq!(left, 1000 - taken);
                            Some(((), bytes))
                        });
                        prop_assert_eq!(got.is_some(), taken + bytes <= 1000);
                        if got.is_some() {
                            stored[worker] = spent.reserving(bytes);
                        }
                    }
                    Act::End(percent) => {
                        let bytes = percent.map(|percent| stored[worker].reserved * percent / 100);
                        let before = stored[worker].bytes;
                        stored[worker] = stored[worker].settled(bytes);
                        if stored[worker].day == day {
                            billed += stored[worker].bytes - before;
                        }
                        shares[worker].tell(stored[worker]);
                    }
                    Act::Restart => shares = super::tests::shares(&stored),
                    Act::Midnight => (day, billed) = (day + 1, 0),
                }
                let spending = shares[0].spending(day).unwrap();
                prop_assert_eq!((spending.limit, spending.used), (1000, billed));
                prop_assert!(billed <= 1000);
            }
        }
    }

    #[test]
    fn a_worker_that_takes_anothers_place_does_not_spend_twice() {
        let budgets = Budgets::default();
        let budget = budgets.of("logs", Some(1000));
        let spent = Spent {
            day: 20_000,
            bytes: 300,
            reserved: 100,
        };
        let [before, other] = [(); 2].map(|()| Share::of(&budget));
        before.tell(spent);
        other.tell(spent);
        // As in a reload: made while the one before still runs.
        let after = Share::of(&budgets.of("logs", Some(1000)));
        drop(before);
        after.tell(spent.settled(None));
        assert_eq!(other.spending(20_000).unwrap().used, 700);
        let anothers = budgets.of("logs", Some(2000));
        assert!(!Arc::ptr_eq(&budget, &anothers), "of another limit");
    }

    fn time(text: &str) -> Timestamp {
        Timestamp::parse(text).unwrap()
    }

    #[test]
    fn a_day_begins_at_midnight_utc_and_never_comes_back() {
        let monday = day_of(time("2026-06-01T23:59:59Z"));
        let tuesday = day_of(time("2026-06-02T00:00:00Z"));
        assert_eq!(tuesday, monday + 1);
        let spent = Spent {
            day: monday,
            bytes: 900,
            reserved: 0,
        };
        let [share, other] = &shares(&[spent, spent.on(tuesday)])[..] else {
            panic!("two were made")
        };
        let used = |day| share.spending(day).unwrap().used;
        // The other worker was told Tuesday already.
        assert_eq!((used(monday), used(tuesday)), (0, 0));
        assert_eq!(
            other.reserve(spent.on(tuesday), |left| Some((left, 1))),
            Some(1000)
        );
        share.tell(Spent {
            day: tuesday,
            bytes: 7,
            reserved: 0,
        });
        assert_eq!((used(monday), used(tuesday), used(tuesday + 1)), (7, 7, 0));
    }

    #[test]
    fn it_is_exhausted_while_any_worker_waits() {
        let spent = Spent::default();
        let [first, second] = &shares(&[spent, spent])[..] else {
            panic!("two were made")
        };
        let exhausted = || first.spending(0).unwrap().exhausted;
        let wants = |share: &Share, bytes| share.reserve(spent, |_| Some(((), bytes))).is_some();
        assert!(wants(first, 600) && !exhausted());
        assert!(!wants(second, 600) && exhausted());
        assert!(wants(first, 500) && exhausted());
        assert!(wants(second, 500) && !exhausted());
        assert!(!wants(second, 501) && exhausted());
        second.needs_nothing();
        assert!(!exhausted());
        first.give_back();
        assert!(wants(second, 1000));
    }

    #[test]
    fn what_is_out_of_sight_counts_as_its_estimate() {
        let spent = Spent {
            day: 1,
            bytes: 5,
            reserved: 70,
        };
        assert_eq!(
            spent.settled(None),
            Spent {
                day: 1,
                bytes: 75,
                reserved: 0
            }
        );
        assert_eq!(
            spent.settled(Some(3)),
            Spent {
                day: 1,
                bytes: 8,
                reserved: 0
            }
        );
        assert_eq!(spent.on(0), spent);
        assert_eq!(
            spent.on(2),
            Spent {
                day: 2,
                bytes: 0,
                reserved: 0
            }
        );
    }
}
