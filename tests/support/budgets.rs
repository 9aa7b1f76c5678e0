//! What holds for the budget of every query source: each file of tests runs these over its own.
#![allow(unreachable_pub, reason = "each test file uses its own part")]

use std::sync::Arc;
use std::time::Duration;

use cloudtrail_tls_exporter::source::query::{Budget, numbers};
use cloudtrail_tls_exporter::time::Timestamp;
use serde_json::json;

use crate::aws::{self, HOUR, Life, MINUTE, Rig, both_ways, now};
use crate::queries::{
    DAY, Queried, ask_callers, asks_callers, counted, failures, killed_after, queries, reason,
    rig_over_an_hour, start_of_day,
};

/// The calls of a rig's first day.
const CALLS: u64 = 864;

/// A rig at the start of a day on which calls are made, none after it; hourly windows.
fn rig_over_a_day<S: Queried>() -> (Rig<S>, Timestamp) {
    let start = start_of_day();
    let mut rig = Rig::<S>::new(start);
    rig.setup.query.lookback = HOUR;
    rig.setup.query.schedule.interval = HOUR;
    // A dollar a byte.
    rig.setup.price_per_gib = f64::from(1 << 30);
    let mut events = Vec::new();
    let mut time = start;
    while time < start.plus(DAY) {
        events.push((time, aws::record("s3", "GetObject", "TLSv1.1", time)));
        time = time.plus(Duration::from_secs(100));
    }
    rig.double.deliver_all(&rig.place, events);
    (rig, start)
}

fn value<S: Queried>(life: &Life<S>, name: &str) -> f64 {
    let name = format!("cloudtrail_tls_exporter_{name}");
    life.scrape().sum(&name, &[])
}

/// What AWS bills for each query: all of them run to their end.
fn billed<S: Queried>(rig: &Rig<S>) -> Vec<f64> {
    let stats = rig.double.stats();
    let queries = queries(&stats).into_iter();
    // The statement that asked for what the table has not.
    let read = queries.filter(|query| query["status"] != "FAILED");
    read.map(|query| query["bytesScanned"].as_f64().unwrap().max(S::LEAST_BILLED))
        .collect()
}

fn sum(bytes: &[f64]) -> f64 {
    bytes.iter().sum()
}

/// That queries of a day stayed within the budget, but for the last one, which may have been larger than expected.
fn assert_within(day: &[f64], limit: f64) {
    let most = day.iter().copied().fold(0.0, f64::max);
    assert!(sum(day) <= limit + most, "{} of {limit}: {day:?}", sum(day));
    assert!(sum(&day[..day.len().saturating_sub(1)]) <= limit, "{day:?}");
}

/// Ticks every ten minutes until `end`; nothing fails but for the budget.
fn run<S: Queried>(rig: &Rig<S>, life: &mut Life<S>, end: Timestamp) {
    while now() < end {
        tick_at(rig, life, now().plus(10 * MINUTE).min(end));
    }
}

/// Whether all that is due was counted.
fn tick_at<S: Queried>(rig: &Rig<S>, life: &mut Life<S>, time: Timestamp) -> bool {
    rig.set_clocks(time);
    match rig.tick(life) {
        Ok(()) => true,
        outcome => {
            assert_eq!(reason(outcome), "budget");
            false
        }
    }
}

/// What a day takes without a budget.
fn bytes_of_the_day<S: Queried>() -> f64 {
    let (rig, start) = rig_over_a_day::<S>();
    let mut life = rig.start();
    run(&rig, &mut life, start.plus(DAY).minus(MINUTE));
    let scrape = life.scrape();
    assert_eq!(
        scrape.value("cloudtrail_tls_exporter_budget_used_bytes", &[]),
        None
    );
    rig.end(life);
    sum(&billed(&rig))
}

fn set_budget<S: Queried>(rig: &mut Rig<S>, bytes: f64) -> f64 {
    rig.setup.budget = Some(numbers::whole(bytes.floor()));
    bytes.floor()
}

/// Counting comes first; both together stay within it.
pub fn callers_are_asked_for_within_the_budget<S: Queried>() {
    let (mut rig, start) = rig_over_a_day::<S>();
    rig.setup.query.callers = Some(ask_callers::<S>());
    let limit = set_budget(&mut rig, bytes_of_the_day::<S>() * 0.7);
    rig.set_clocks(start);
    let mut life = rig.start();
    let mut before = 0;
    for day in 1..=3 {
        run(&rig, &mut life, start.plus(day * DAY).minus(MINUTE));
        let billed = billed(&rig);
        assert_within(&billed[before..], limit);
        assert_eq!(value(&life, "budget_used_bytes"), sum(&billed[before..]));
        before = billed.len();
    }
    assert_eq!(counted(&life), CALLS);
    assert!(queries(&rig.double.stats()).iter().any(asks_callers));
    rig.end(life);
}

pub fn half_a_budget_counts_in_part_waits_and_goes_on_the_next_day<S: Queried>() {
    both_ways(|| {
        let (mut rig, start) = rig_over_a_day::<S>();
        let limit = set_budget(&mut rig, bytes_of_the_day::<S>() / 2.0);
        rig.set_clocks(start);
        let mut life = rig.start();
        run(&rig, &mut life, start.plus(DAY).minus(MINUTE));

        let first = billed(&rig);
        assert_within(&first, limit);
        let part = counted(&life);
        assert!(part > CALLS / 4 && part < CALLS * 9 / 10, "{part} calls");
        assert_eq!(value(&life, "budget_bytes"), limit);
        assert_eq!(value(&life, "budget_used_bytes"), sum(&first));
        assert_eq!(
            (value(&life, "budget_exhausted"), value(&life, "source_up")),
            (1.0, 0.0)
        );
        assert!(value(&life, "backlog_seconds") > 3.0 * 3600.0);
        assert!(failures(&life, "budget") > 1.0);

        // The first tick of the next day goes on.
        tick_at(&rig, &mut life, start.plus(DAY));
        assert!(counted(&life) > part);
        assert!(value(&life, "budget_used_bytes") <= limit + sum(&first));
        let mut before = first.len();
        for day in 1..3 {
            run(&rig, &mut life, start.plus((day + 1) * DAY).minus(MINUTE));
            let queries = billed(&rig);
            assert_within(&queries[before..], limit);
            before = queries.len();
        }
        let mut ended = now().plus(2 * MINUTE);
        while !tick_at(&rig, &mut life, ended) {
            ended = ended.plus(10 * MINUTE);
            assert!(ended < start.plus(5 * DAY), "it never catches up");
        }
        assert_eq!(counted(&life), CALLS);
        assert_eq!(
            (value(&life, "budget_exhausted"), value(&life, "source_up")),
            (0.0, 1.0)
        );
        assert_eq!(
            (
                value(&life, "backlog_seconds"),
                value(&life, "skipped_seconds_total")
            ),
            (0.0, 0.0)
        );
        rig.double.assert_sound();
        rig.end(life);
    });
}

pub fn no_kill_gives_a_second_budget<S: Queried>() {
    both_ways(|| {
        let (mut rig, start) = rig_over_a_day::<S>();
        let limit = set_budget(&mut rig, bytes_of_the_day::<S>() / 2.0);
        rig.set_clocks(start);
        let mut moments = 0;
        let mut life = rig.start();
        while now() < start.plus(DAY).minus(20 * MINUTE) {
            rig.set_clocks(now().plus(10 * MINUTE));
            moments += 1;
            // Killed at another moment each time, those after the start of a query included.
            if let Some(spared) = killed_after(&rig, life, moments % 37) {
                rig.end(spared);
            }
            life = rig.start();
        }
        tick_at(&rig, &mut life, now());
        let billed = billed(&rig);
        assert_within(&billed, limit);
        assert!(sum(&billed) > limit / 2.0, "{} of {limit}", sum(&billed));
        assert!(counted(&life) < CALLS);
        let used = value(&life, "budget_used_bytes");
        if S::STARTS == 1 {
            // A start that was cut off counts as it was estimated, whether its query ran or not.
            assert!(used >= sum(&billed) * 0.9, "{used}, {billed:?}");
        } else {
            assert_eq!(used, sum(&billed));
        }
        assert_eq!(value(&life, "budget_exhausted"), 1.0);
        rig.end(life);
    });
}

pub fn what_failed_was_stopped_or_is_not_known_any_more_is_spent<S: Queried>() {
    both_ways(|| {
        let (mut rig, _) = rig_over_an_hour::<S>();
        rig.setup.price_per_gib = f64::from(1 << 30);
        rig.setup.query.timeout = Duration::from_secs(1);
        let limit = set_budget(&mut rig, 300.0 * 1024.0 * 1024.0);
        for fate in ["Cancelled", "forever", "vanish"] {
            rig.home = tempfile::tempdir().unwrap();
            let mut life = rig.start();
            let spent = |life: &Life<S>| {
                let told = value(life, "estimated_cost_dollars_total");
                (value(life, "budget_used_bytes"), told)
            };
            rig.double.fault(S::START, 1, json!({"query": fate}));
            rig.tick(&mut life).unwrap_err();
            let (used, told) = spent(&life);
            if told > 0.0 {
                assert_eq!(used, told, "{fate}");
            } else {
                // AWS tells nothing: its share of the budget, as nothing is known of the trail.
                let share = (limit / 288.0).max(S::LEAST_BILLED).floor();
                assert!(used >= share, "{fate}: {used}, {share}");
            }
            rig.tick(&mut life).unwrap();
            assert_eq!(counted(&life), 180, "{fate}");
            let all = spent(&life).0;
            assert!(all > used);
            // So is it after a restart.
            rig.end(life);
            let mut life = rig.start();
            rig.tick(&mut life).unwrap();
            assert_eq!(spent(&life), (all, 0.0), "{fate}");
            rig.end(life);
        }
    });
}

pub fn two_regions_share_one_budget<S: Queried>() {
    both_ways(|| {
        let (mut rig, start) = rig_over_a_day::<S>();
        // Each would take a day's bytes.
        let limit = set_budget(&mut rig, bytes_of_the_day::<S>());
        rig.set_clocks(start);
        let life = rig.start();
        let budget = Arc::new(Budget::new("shared", rig.setup.budget));
        let worker = |region| rig.worker_in("shared", region, &life.store, &life.metrics, &budget);
        let (mut first, mut second) = (worker("eu-west-1"), worker("eu-central-1"));
        let mut waited = [0, 0];
        while now() < start.plus(DAY).minus(MINUTE) {
            rig.set_clocks(now().plus(10 * MINUTE).min(start.plus(DAY).minus(MINUTE)));
            let (one, other) = rig
                .runtime
                .block_on(async { tokio::join!(first.tick(), second.tick()) });
            for (waited, outcome) in waited.iter_mut().zip([one, other]) {
                if outcome.is_err() {
                    assert_eq!(reason(outcome), "budget");
                    *waited += 1;
                }
            }
        }
        let billed = billed(&rig);
        // Both may have a last one.
        let most = billed.iter().copied().fold(0.0, f64::max);
        assert!(
            sum(&billed) <= limit + 2.0 * most,
            "{} of {limit}",
            sum(&billed)
        );
        assert!(sum(&billed) > limit * 0.8, "{} of {limit}", sum(&billed));
        let used = value(&life, "budget_used_bytes");
        assert_eq!(used, sum(&billed));
        assert!(waited[0] > 10 && waited[1] > 10, "{waited:?}");
        drop((first, second));
        rig.end(life);
        // After a restart the first to ask knows what the other has spent.
        let life = rig.start();
        let budget = Arc::new(Budget::new("shared", rig.setup.budget));
        let worker = |region| rig.worker_in("shared", region, &life.store, &life.metrics, &budget);
        let (mut first, second) = (worker("eu-west-1"), worker("eu-central-1"));
        assert_eq!(reason(rig.runtime.block_on(first.tick())), "budget");
        assert_eq!(value(&life, "budget_used_bytes"), used);
        drop((first, second));
        rig.end(life);
    });
}

pub fn what_waits_longer_than_the_catch_up_limit_is_given_up<S: Queried>() {
    let (mut rig, start) = rig_over_a_day::<S>();
    rig.setup.query.catch_up_limit = DAY;
    let mut life = rig.start();
    run(&rig, &mut life, start.plus(3 * HOUR + 10 * MINUTE));
    let (before, queries) = (counted(&life), billed(&rig).len());
    rig.end(life);
    // Less than what was used already.
    set_budget(&mut rig, 1.0);
    let mut life = rig.start();
    run(&rig, &mut life, start.plus(DAY).minus(MINUTE));
    assert_eq!((counted(&life), billed(&rig).len()), (before, queries));
    assert_eq!(value(&life, "skipped_seconds_total"), 0.0);
    let watermark = value(&life, "watermark_timestamp_seconds");
    run(&rig, &mut life, start.plus(DAY + 5 * HOUR));
    let skipped = value(&life, "skipped_seconds_total");
    assert!(skipped > 3600.0, "{skipped}");
    let history = value(&life, "history_start_timestamp_seconds");
    assert!(history > watermark, "{history} {watermark}");
    rig.end(life);
}
