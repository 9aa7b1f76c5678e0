//! Asking for callers, over an engine that fails by a script: whatever it does, calls are counted as if nobody asked.

#[path = "support/handed.rs"]
mod handed;

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cloudtrail_tls_exporter::aws::{Observer, Quota};
use cloudtrail_tls_exporter::batch::Scanned;
use cloudtrail_tls_exporter::call::CallerLabels;
use cloudtrail_tls_exporter::source::query::{
    Answer, Ask, AskCallers, CallRow, CallerRow, End, Engine, Leaf, Look, Members, Query,
    QuerySource, Recount, Rows, Settings, Started,
};
use cloudtrail_tls_exporter::source::{Reason, SourceError};
use cloudtrail_tls_exporter::time::Timestamp;
use cloudtrail_tls_exporter::tls::TlsVersion;
use cloudtrail_tls_exporter::window::{Schedule, Window};
use handed::{Hand, Kept};
use proptest::prelude::*;
use tokio::sync::Notify;

/// 2026-11-18 00:00, the start of an hour.
const START: i64 = 1_794_960_000;
const BUCKET: Duration = Duration::from_secs(300);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);
const COLUMNS: CallerLabels = CallerLabels {
    principal: true,
    user_agent: true,
    source_ip: false,
};

fn at(minute: u32) -> Timestamp {
    Timestamp::from_secs(START).plus(minute * MINUTE)
}

/// What the engine does with a query for callers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    Answer,
    /// The start is refused.
    Refuse,
    /// The query fails, and is billed.
    Fail,
    /// The query is too much for the engine.
    Exhaust,
    /// Its state cannot be read.
    Lose,
    /// It answers with a bucket that was not asked for.
    Stray,
    /// Somebody stops it.
    Cancel,
    /// It runs for ever.
    Hang,
    /// The process is killed before the start is answered …
    KillAtStart,
    /// … or while the query is looked at.
    KillAtLook,
}

/// A call: its minute, whether it is outdated, and who made it.
type Call = (u32, bool, u8);

/// The engine's side: what lies there, what was asked, and how the next queries for callers go, the last first.
#[derive(Debug, Default)]
struct World {
    calls: Mutex<Vec<Call>>,
    script: Mutex<Vec<Act>>,
    /// What AWS's clock shows.
    now: Mutex<Timestamp>,
    /// Every query that was started: when, for what, and how it goes.
    started: Mutex<Vec<(Timestamp, Query, Act)>>,
    stopped: Mutex<BTreeSet<String>>,
    killed: Notify,
}

impl World {
    fn act(&self, query: &Query) -> Act {
        let asks_callers = matches!(query.leaf.ask, Ask::Callers { .. });
        let mut script = self.script.lock().unwrap();
        match asks_callers {
            true => script.pop().unwrap_or(Act::Answer),
            false => Act::Answer,
        }
    }

    /// A query that was started; returns its id.
    fn put(&self, query: &Query, act: Act) -> String {
        let now = *self.now.lock().unwrap();
        let mut started = self.started.lock().unwrap();
        started.push((now, query.clone(), act));
        (started.len() - 1).to_string()
    }

    /// The windows that callers were asked for, and when; those that were refused too.
    fn asked(&self) -> Vec<(Timestamp, Window)> {
        let started = self.started.lock().unwrap();
        let callers = started
            .iter()
            .filter(|(_, query, _)| matches!(query.leaf.ask, Ask::Callers { .. }));
        callers
            .map(|(at, query, _)| (*at, query.leaf.window))
            .collect()
    }

    /// The parts of time that callers were asked for.
    fn parts(&self) -> Vec<Window> {
        let started = self.started.lock().unwrap();
        let leaves = started.iter().map(|(_, query, _)| &query.leaf);
        let callers = leaves.filter(|leaf| matches!(leaf.ask, Ask::Callers { .. }));
        callers.flat_map(parts).collect()
    }

    fn rows(&self, query: &Query) -> Rows {
        let parts = parts(&query.leaf);
        let calls = self.calls.lock().unwrap();
        let within = calls
            .iter()
            .filter(|(minute, ..)| is_in(&parts, at(*minute)));
        let version = |outdated| Some(if outdated { "TLSv1.1" } else { "TLSv1.3" }.to_owned());
        match query.leaf.ask {
            Ask::Callers { .. } => {
                let mut rows: BTreeMap<(Timestamp, u8), u64> = BTreeMap::new();
                for (minute, _, who) in within.filter(|(_, outdated, _)| *outdated) {
                    *rows.entry((at(*minute).floor(BUCKET), *who)).or_default() += 1;
                }
                let row = |((bucket, who), calls)| CallerRow {
                    bucket,
                    event_source: Some("s3.amazonaws.com".to_owned()),
                    event_name: Some("GetObject".to_owned()),
                    tls_version: version(true),
                    account_id: Some("111122223333".to_owned()),
                    principal: Some(format!("role{who}")),
                    user_agent: None,
                    source_ip: None,
                    calls,
                };
                Rows::Callers(rows.into_iter().map(row).collect())
            }
            _ => {
                let row = |(minute, outdated, _): &Call| CallRow {
                    bucket: at(*minute).floor(BUCKET),
                    members: Arc::new(Members {
                        event_source: Some("s3.amazonaws.com".to_owned()),
                        tls_version: version(*outdated),
                        ..Members::default()
                    }),
                    calls: 1,
                    records: 1,
                    last: None,
                };
                Rows::Calls(within.map(row).collect())
            }
        }
    }
}

fn parts(leaf: &Leaf) -> Vec<Window> {
    match leaf.within.is_empty() {
        true => vec![leaf.window],
        false => leaf.within.clone(),
    }
}

fn is_in(parts: &[Window], time: Timestamp) -> bool {
    let mut parts = parts.iter();
    parts.any(|part| part.from <= time && time < part.to)
}

struct Scripted<const PARTS_SAVE: bool> {
    world: Arc<World>,
    observer: Observer,
}

impl<const SAVE: bool> Engine for Scripted<SAVE> {
    const PARTS_SAVE: bool = SAVE;

    fn subject(&self) -> String {
        "scripted".to_owned()
    }

    fn identity(&self) -> String {
        String::new()
    }

    async fn greet(&self) -> Result<(), SourceError> {
        Ok(())
    }

    async fn start(&self, query: &Query, _: &str) -> Result<Started, SourceError> {
        let act = self.world.act(query);
        let id = self.world.put(query, act);
        match act {
            Act::Refuse => Err(SourceError::new(Reason::AccessDenied, "refused")),
            Act::KillAtStart => {
                self.world.killed.notify_one();
                std::future::pending().await
            }
            _ => Ok(Started::Query(id)),
        }
    }

    async fn look(&self, id: &str, query: &Query) -> Result<Look, SourceError> {
        let number: usize = id.parse().unwrap();
        let (_, known, act) = self.world.started.lock().unwrap()[number].clone();
        assert_eq!(&known, query, "the query of another leaf");
        let rejected = || SourceError::new(Reason::Rejected, "it failed");
        let scanned = Scanned::billed(10, 1);
        let answer = |rows| {
            // A full answer is whole enough where callers are asked for.
            let truncated = matches!(query.leaf.ask, Ask::Callers { .. });
            Look::Ended(End::Complete(Answer { rows, truncated }), Some(scanned))
        };
        Ok(match act {
            Act::Answer => answer(self.world.rows(query)),
            Act::Fail => Look::Ended(End::Failed(rejected()), Some(scanned)),
            Act::Exhaust => Look::Ended(End::TooMuch(rejected()), Some(scanned)),
            Act::Lose => return Err(SourceError::new(Reason::Connection, "no answer")),
            Act::Stray => {
                let to = query.leaf.window.to;
                let mut rows = self.world.rows(query);
                if let Rows::Callers(rows) = &mut rows
                    && let Some(row) = rows.first_mut()
                {
                    row.bucket = to;
                }
                answer(rows)
            }
            Act::Cancel => Look::Ended(End::Stopped, Some(scanned)),
            Act::Hang if self.world.stopped.lock().unwrap().contains(id) => {
                Look::Ended(End::Stopped, Some(scanned))
            }
            Act::Hang => Look::Running,
            Act::KillAtLook => {
                self.world.started.lock().unwrap()[number].2 = Act::Answer;
                self.world.killed.notify_one();
                return std::future::pending().await;
            }
            Act::Refuse | Act::KillAtStart => unreachable!("it did not start"),
        })
    }

    async fn stop(&self, id: &str) -> Result<(), SourceError> {
        self.world.stopped.lock().unwrap().insert(id.to_owned());
        Ok(())
    }

    fn observer(&self) -> &Observer {
        &self.observer
    }
}

fn settings(interval: Duration, apart: bool) -> Settings {
    Settings {
        schedule: Schedule {
            bucket: BUCKET,
            settle: BUCKET,
            longest: 6 * HOUR,
            interval,
        },
        lookback: 2 * HOUR,
        catch_up_limit: 7 * DAY,
        timeout: Duration::from_millis(1),
        first_pause: Duration::from_millis(2),
        recount: None,
        control: false,
        minimum_version: TlsVersion::Tls12,
        callers: Some(AskCallers {
            columns: COLUMNS,
            window: DAY,
            apart,
        }),
    }
}

/// Lives of a source over one world.
struct Lives {
    world: Arc<World>,
    kept: Kept,
    settings: Settings,
}

impl Lives {
    fn new(settings: Settings, calls: &[Call], script: &[Act]) -> Self {
        let world = World {
            calls: Mutex::new(calls.to_vec()),
            script: Mutex::new(script.iter().rev().copied().collect()),
            ..World::default()
        };
        Self {
            world: Arc::new(world),
            kept: Kept::default(),
            settings,
        }
    }

    fn hand<const SAVE: bool>(&self) -> Hand<QuerySource<Scripted<SAVE>>> {
        let engine = Scripted {
            world: Arc::clone(&self.world),
            observer: Observer::default(),
        };
        let quota = Arc::new(Quota::new(1_000_000, 1_000_000, 1));
        Hand::new(
            QuerySource::new(engine, self.settings.clone(), quota),
            &self.kept,
        )
    }

    /// Ticks every `every` up to `end`; whatever befalls callers fails no tick, and the watermark is where it should be.
    async fn run<const SAVE: bool>(&mut self, from: u32, end: u32, every: u32) {
        let mut hand = self.hand::<SAVE>();
        let mut minute = from;
        while minute <= end {
            let now = at(minute);
            *self.world.now.lock().unwrap() = now;
            let killed = tokio::select! {
                biased;
                ended = hand.tick(&mut self.kept, now) => {
                    ended.unwrap();
                    false
                }
                () = self.world.killed.notified() => true,
            };
            if killed {
                hand = self.hand::<SAVE>();
                continue;
            }
            let settled = self.settings.schedule.settled(now);
            if self.kept.watermark.is_some_and(|it| it != settled) {
                panic!("{:?} at {now}, not {settled}", self.kept.watermark);
            }
            minute += every;
        }
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().build().unwrap().block_on(future)
}

/// The round that a time lies in: each is an hour, or an interval, from when its window settles.
fn round(time: Timestamp, settings: &Settings) -> Timestamp {
    let length = settings.schedule.interval.max(HOUR);
    time.minus(settings.schedule.settle).floor(length)
}

/// What holds whatever the engine does.
fn assert_sound(lives: &Lives) {
    let outdated = lives.kept.outdated();
    let asked = lives.world.asked();
    // One round an hour, all of it at one time.
    let mut rounds: BTreeMap<Timestamp, Timestamp> = BTreeMap::new();
    for (now, _) in &asked {
        let first = rounds.entry(round(*now, &lives.settings)).or_insert(*now);
        assert_eq!(first, now, "a second round in the hour: {asked:?}");
    }
    for (bucket, calls) in &outdated {
        let of_it = asked
            .iter()
            .filter(|(_, window)| window.from <= *bucket && *bucket < window.to);
        match lives.kept.times.get(bucket) {
            Some(times) => {
                assert_eq!(*times, 1, "{bucket}");
                assert_eq!(lives.kept.named()[bucket], *calls, "{bucket}");
            }
            None => assert!(of_it.count() >= 3, "{bucket} was given up: {asked:?}"),
        }
    }
    let named: Vec<_> = lives.kept.named().into_keys().collect();
    assert!(named.iter().all(|bucket| outdated.contains_key(bucket)));
}

/// Only buckets that had outdated calls are asked for.
fn assert_only_outdated(lives: &Lives) {
    let outdated = lives.kept.outdated();
    for Window { from, to } in lives.world.parts() {
        let mut bucket = from;
        while bucket < to {
            assert!(outdated.contains_key(&bucket), "{bucket} has none");
            bucket = bucket.plus(BUCKET);
        }
    }
}

fn calls() -> impl Strategy<Value = Vec<Call>> {
    prop::collection::vec((0_u32..360, prop::bool::weighted(0.4), 0_u8..3), 0..50)
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    use Act::*;
    let all = [
        Answer,
        Answer,
        Refuse,
        Fail,
        Exhaust,
        Lose,
        Stray,
        Cancel,
        Hang,
        KillAtStart,
        KillAtLook,
    ];
    prop::collection::vec(prop::sample::select(all.to_vec()), 0..25)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn each_buckets_callers_come_once_and_calls_are_counted_whatever_the_engine_does(
        calls in calls(),
        script in acts(),
        hourly in any::<bool>(),
    ) {
        let interval = if hourly { HOUR } else { BUCKET };
        let mut lives = Lives::new(settings(interval, false), &calls, &script);
        block_on(lives.run::<true>(60, 30 * 60, 5));
        prop_assert_eq!(lives.kept.counts.calls(), calls.len() as u64);
        assert_sound(&lives);
        assert_only_outdated(&lives);
    }

    #[test]
    fn days_are_asked_for_whole_and_their_callers_come_once(calls in calls(), mut script in acts()) {
        // These two may start a query again in the same round.
        script.retain(|act| !matches!(act, Act::Exhaust | Act::Cancel));
        let mut lives = Lives::new(settings(2 * HOUR, true), &calls, &script);
        block_on(lives.run::<false>(60, 60 * 60, 5));
        prop_assert_eq!(lives.kept.counts.calls(), calls.len() as u64);
        assert_sound(&lives);
        assert_only_outdated(&lives);
        // A query reads whole days: no round needs more than one, as these are shorter than the longest window.
        let mut rounds = BTreeSet::new();
        let kills = script.iter().filter(|act| matches!(act, Act::KillAtStart)).count();
        let again = lives.world.asked().iter().filter(|(now, _)| !rounds.insert(*now)).count();
        prop_assert!(again <= kills, "{:?}", lives.world.asked());
    }
}

/// Calls of minutes, all outdated and of one caller.
fn outdated(minutes: &[u32]) -> Vec<Call> {
    minutes.iter().map(|minute| (*minute, true, 1)).collect()
}

fn windows(lives: &Lives) -> Vec<(Timestamp, Window)> {
    lives.world.asked()
}

fn window(from: u32, to: u32) -> Window {
    Window {
        from: at(from),
        to: at(to),
    }
}

#[test]
fn buckets_that_touch_are_one_query_the_newest_first_and_an_hour_later_come_the_next() {
    // Three runs when it starts, at 01:00.
    let calls = outdated(&[7, 12, 14, 31, 40, 44, 61, 66]);
    let mut lives = Lives::new(settings(BUCKET, false), &calls, &[]);
    block_on(lives.run::<true>(60, 180, 1));
    let expected = [
        (at(60), window(40, 45)),
        (at(60), window(30, 35)),
        (at(60), window(5, 15)),
        // The window up to 01:00 settles at 01:05: what was counted since is the next hour's, as soon as there is any …
        (at(70), window(60, 65)),
        // … and the rest of that hour waits for the one after.
        (at(125), window(65, 70)),
    ];
    assert_eq!(windows(&lives), expected);
    assert_sound(&lives);
}

#[test]
fn a_clean_trail_asks_for_nobody() {
    let calls: Vec<Call> = (0..300).map(|minute| (minute, false, 1)).collect();
    let mut lives = Lives::new(settings(BUCKET, false), &calls, &[]);
    block_on(lives.run::<true>(60, 400, 5));
    assert_eq!(lives.kept.counts.calls(), 300);
    assert_eq!(windows(&lives), []);
}

#[test]
fn what_fails_is_told_once_and_waits_for_the_next_hour_and_is_given_up_after_three() {
    for (act, reason) in [
        (Act::Refuse, "access_denied"),
        (Act::Fail, "rejected"),
        (Act::Lose, "connection"),
        (Act::Stray, "bad_answer"),
        (Act::Cancel, "rejected"),
        (Act::Hang, "timeout"),
    ] {
        let calls = outdated(&[7]);
        let mut lives = Lives::new(settings(BUCKET, false), &calls, &[act; 3]);
        block_on(lives.run::<true>(60, 600, 5));
        assert_eq!(lives.kept.rejected, [reason; 3], "{act:?}");
        let asked: Vec<Timestamp> = windows(&lives).iter().map(|(now, _)| *now).collect();
        assert_eq!(asked, [at(60), at(65), at(125)], "{act:?}");
        assert_eq!(lives.kept.named(), BTreeMap::new(), "{act:?}");

        // What works at the third time is named.
        let mut lives = Lives::new(settings(BUCKET, false), &calls, &[act; 2]);
        block_on(lives.run::<true>(60, 600, 5));
        assert_eq!(lives.kept.rejected, [reason; 2], "{act:?}");
        assert_eq!(lives.kept.named(), BTreeMap::from([(at(5), 1)]), "{act:?}");
    }
}

#[test]
fn one_failure_ends_the_round_and_no_further_query_is_paid_for() {
    let calls = outdated(&[7, 17, 27, 37]);
    let mut lives = Lives::new(settings(BUCKET, false), &calls, &[Act::Answer, Act::Fail]);
    block_on(lives.run::<true>(60, 64, 1));
    assert_eq!(windows(&lives).len(), 2);
    assert_eq!(lives.kept.named(), BTreeMap::from([(at(35), 1)]));
    block_on(lives.run::<true>(65, 600, 1));
    assert_eq!(windows(&lives).len(), 5);
    assert_sound(&lives);
}

#[test]
fn what_is_too_much_is_asked_for_in_halves_between_buckets() {
    let calls = outdated(&[0, 5, 10, 15]);
    let mut lives = Lives::new(settings(BUCKET, false), &calls, &[Act::Exhaust, Act::Hang]);
    block_on(lives.run::<true>(60, 64, 1));
    let asked: Vec<Window> = windows(&lives).iter().map(|(_, window)| *window).collect();
    let expected = [
        window(0, 20),
        window(0, 10),
        window(0, 5),
        window(5, 10),
        window(10, 20),
    ];
    assert_eq!(asked, expected);
    assert_eq!(lives.kept.rejected, ["rejected", "timeout"]);
    assert_sound(&lives);
}

#[test]
fn calls_that_are_due_do_not_wait_for_a_query_that_runs_and_runs() {
    let calls = outdated(&[7, 82]);
    let mut settings = settings(BUCKET, false);
    settings.timeout = HOUR;
    let mut lives = Lives::new(settings, &calls, &[Act::Hang]);
    let now = at(60);
    *lives.world.now.lock().unwrap() = now;
    block_on(async {
        let mut hand = lives.hand::<true>();
        let waited = Duration::from_millis(300);
        let tick = hand.tick(&mut lives.kept, now);
        assert!(
            tokio::time::timeout(waited, tick).await.is_err(),
            "it ended"
        );
    });
    // The process was killed. Half an hour later the query runs still, and is stopped.
    block_on(lives.run::<true>(92, 98, 1));
    assert_eq!(lives.kept.counts.calls(), 2);
    assert_eq!(lives.world.stopped.lock().unwrap().len(), 1);
    assert_eq!(lives.kept.rejected, ["timeout"]);
    block_on(lives.run::<true>(100, 200, 5));
    assert_sound(&lives);
}

#[test]
fn what_was_asked_for_before_the_settings_changed_is_not_told() {
    let calls = outdated(&[7, 12]);
    for off in [false, true] {
        let mut lives = Lives::new(settings(BUCKET, false), &calls, &[Act::KillAtLook]);
        let now = at(60);
        *lives.world.now.lock().unwrap() = now;
        block_on(async {
            let mut hand = lives.hand::<true>();
            tokio::select! {
                ended = hand.tick(&mut lives.kept, now) => panic!("{ended:?}"),
                () = lives.world.killed.notified() => {}
            }
        });
        lives.settings.callers = lives
            .settings
            .callers
            .filter(|_| !off)
            .map(|ask| AskCallers {
                columns: CallerLabels {
                    source_ip: true,
                    ..COLUMNS
                },
                ..ask
            });
        block_on(lives.run::<true>(60, 300, 5));
        // What was asked for with other columns is thrown away; the next round asks with those of now.
        let (asked, named) = if off { (1, 0) } else { (2, 2) };
        assert_eq!(windows(&lives).len(), asked);
        assert_eq!(lives.kept.named().len(), named);
        if !off {
            assert_sound(&lives);
        }
    }
}

#[test]
fn callers_that_nobody_wants_are_not_asked_for_and_their_buckets_not_remembered() {
    let mut lives = Lives::new(settings(BUCKET, false), &outdated(&[7, 12]), &[]);
    let ask = lives.settings.callers.take();
    block_on(lives.run::<true>(60, 120, 5));
    assert_eq!((lives.kept.counts.calls(), windows(&lives).len()), (2, 0));
    lives.settings.callers = ask;
    lives.world.calls.lock().unwrap().push((130, true, 2));
    block_on(lives.run::<true>(125, 300, 5));
    assert_eq!(lives.kept.named(), BTreeMap::from([(at(130), 1)]));
}

#[test]
fn old_buckets_are_asked_for_no_more() {
    let mut settings = settings(BUCKET, false);
    settings.lookback = 5 * DAY;
    // Two days before it starts, and an hour.
    let calls = outdated(&[60, 2 * 1440]);
    let mut lives = Lives::new(settings, &calls, &[]);
    block_on(lives.run::<true>(2 * 1440 + 60, 2 * 1440 + 300, 5));
    assert_eq!(lives.kept.counts.calls(), 2);
    assert_eq!(lives.kept.named(), BTreeMap::from([(at(2 * 1440), 1)]));
}

#[test]
fn callers_of_a_bucket_that_was_clean_when_it_was_counted_first_are_asked_for() {
    let mut settings = settings(BUCKET, false);
    settings.recount = Some(Recount {
        after: HOUR,
        reach: 23 * HOUR,
        check_first: false,
    });
    let mut lives = Lives::new(settings, &[(7, false, 1), (12, true, 1)], &[]);
    block_on(lives.run::<true>(60, 62, 1));
    assert_eq!(lives.kept.named(), BTreeMap::from([(at(10), 1)]));
    // Late: one where there was none, and one where the callers were told already.
    let late = [(8, true, 2), (13, true, 3)];
    lives.world.calls.lock().unwrap().extend(late);
    block_on(lives.run::<true>(65, 600, 5));
    assert_eq!(
        lives.kept.named(),
        BTreeMap::from([(at(5), 1), (at(10), 1)])
    );
}
