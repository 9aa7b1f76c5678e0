//! What holds for every query source, whatever engine it asks: each file of tests runs these over its own.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test file uses its own part"
)]

use std::future::{Future as _, poll_fn};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::Command;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use cloudtrail_tls_exporter::aws::Quota;
use cloudtrail_tls_exporter::call::{Caller, CallerLabels, Name};
use cloudtrail_tls_exporter::shutdown;
use cloudtrail_tls_exporter::source::query::{AskCallers, Budget};
use cloudtrail_tls_exporter::time::Timestamp;
use cloudtrail_tls_exporter::worker::{Pace, TickError};
use serde_json::{Value, json};

use crate::aws::{self, HOUR, Life, MINUTE, Rig, Subject, both_ways, set_now};
use crate::handed::{Hand, Kept};
use crate::{programs, support};

/// Makes a test of each law that holds for a source.
#[macro_export]
macro_rules! laws {
    ($subject:ty: $($law:ident,)+) => {
        laws! { queries of $subject: $($law,)+ }
    };
    ($module:ident of $subject:ty: $($law:ident,)+) => {
        $(
            #[test]
            fn $law() {
                $crate::$module::$law::<$subject>();
            }
        )+
    };
}

pub const DAY: Duration = Duration::from_secs(86_400);

/// A source over a query engine, and what the tests must know of the engine.
pub trait Queried: Subject {
    /// The operation that starts a query …
    const START: &'static str;
    /// … the one that is asked until it has ended …
    const POLL: &'static str;
    /// … and one that need not be allowed.
    const GREET: &'static str;
    /// How often a start is tried in a tick: once where the API has no token.
    const STARTS: u32;
    /// What is asked for instead of a query that took too long: its halves, or the same again.
    const PARTS: usize;
    /// What the least query is billed for.
    const LEAST_BILLED: f64 = 0.0;
    /// Refusals of a start, whether the SDK tries again after them, and what they mean.
    const REFUSALS: &'static [(&'static str, bool, &'static str)];
    /// Ends of a query as the double names them, and what they mean.
    const FATES: &'static [(&'static str, &'static str)];
    /// The quota that the program keeps.
    fn quota() -> Quota;
    fn set_rows(&mut self, most_rows: usize, page: usize);
    fn set_bucket(&mut self, bucket: Duration);
    /// Whether its language ranks rows within groups, and takes times that lie apart.
    const RANKS: bool;
    /// With this code GetQueryResults says that it does not know a query's results.
    const GONE: &'static str;
}

pub fn start_of_day() -> Timestamp {
    Timestamp::parse("2026-06-01T00:00:00Z").unwrap()
}

/// Records of the real trail and of a made one with old versions and key exchanges; `None` where they are not.
pub fn folders(home: &Path, records: u32) -> Option<[PathBuf; 2]> {
    let real = support::shared("data/cloudtrail/AWSLogs")?;
    let made = home.join("made");
    let mut python = Command::new("python3");
    python.arg(support::shared("tools/scale.py")?);
    python
        .arg("--files=10")
        .arg(format!("--records={}", records / 10));
    python.args([
        "--accounts=111122223333,444455556666",
        "--mix=TLSv1.1=0.05,TLSv1=0.02,ABSENT=0.1",
    ]);
    python.args(["--kex=X25519MLKEM768=0.3,x25519=0.5", "--templates"]);
    programs::run_well(
        python
            .arg(support::shared("data/cloudtrail")?)
            .arg("--out")
            .arg(&made),
        b"",
    );
    Some([real, made])
}

/// A rig over an hour of records, one every 20 seconds.
pub fn rig_over_an_hour<S: Subject>() -> (Rig<S>, Timestamp) {
    let start = start_of_day().plus(12 * HOUR);
    let mut rig = Rig::new(start.plus(HOUR + 10 * MINUTE));
    rig.setup.query.lookback = 2 * HOUR;
    deliver_every_20_s(&rig, start, start.plus(HOUR));
    (rig, start)
}

/// Delivers a record every 20 seconds; where they are told by their delivery, the calls were four minutes before.
pub fn deliver_every_20_s<S: Subject>(rig: &Rig<S>, from: Timestamp, to: Timestamp) {
    let mut time = from;
    let mut number = 0;
    let mut events = Vec::new();
    while time < to {
        let version = ["TLSv1.1", "TLSv1.2", "TLSv1.3", "none"][number % 4];
        let service = ["s3", "kms"][number / 4 % 2];
        let called = match S::BY_EVENT_TIME {
            true => time,
            false => time.minus(4 * MINUTE),
        };
        events.push((time, aws::record(service, "Call", version, called)));
        time = time.plus(Duration::from_secs(20));
        number += 1;
    }
    rig.double.deliver_all(&rig.place, events);
}

/// All calls of the scrape.
pub fn counted<S: Subject>(life: &Life<S>) -> u64 {
    life.scrape().calls().values().sum()
}

pub fn failures<S: Subject>(life: &Life<S>, reason: &str) -> f64 {
    let labels = [("reason", reason)];
    life.scrape()
        .sum("cloudtrail_tls_exporter_batch_failures_total", &labels)
}

/// Ticks until all is counted, at most `most` times; tells the reasons of the failures before.
pub fn tick_until_done<S: Subject>(
    rig: &Rig<S>,
    life: &mut Life<S>,
    most: usize,
) -> Vec<&'static str> {
    let mut reasons = Vec::new();
    for _ in 0..most {
        match rig.tick(life) {
            Ok(()) => return reasons,
            Err(error) => reasons.push(reason(Err(error))),
        }
    }
    panic!("not done after {most} ticks: {reasons:?}");
}

pub fn reason(outcome: Result<(), TickError>) -> &'static str {
    match outcome {
        Err(TickError::Source(error)) => error.reason.label(),
        other => panic!("{other:?}"),
    }
}

/// The queries that the double was asked to run.
pub fn queries(stats: &Value) -> Vec<Value> {
    stats["queries"].as_array().unwrap().clone()
}

/// What goes wrong, at which operation, how often, and the reasons that the failures must have.
fn faults<S: Queried>() -> Vec<(&'static str, u32, Value, Vec<&'static str>)> {
    let error = |status: u16, code: &str| json!({"error": {"status": status, "code": code, "message": "a fault"}});
    let poll = S::POLL;
    let one: fn(Value, &'static str) -> _ = |action, reason| (S::START, 1, action, vec![reason]);
    let retried: fn(Value, &'static str) -> _ =
        |action, reason| (S::START, S::STARTS, action, vec![reason]);
    let mut faults = vec![
        // The SDK tries three times what is only looked at, or has a token; other starts are never tried again blindly.
        retried(error(400, "ThrottlingException"), "throttled"),
        retried(error(500, "ServiceUnavailableException"), "connection"),
        // The SDK sees that its clock is not the double's, and tries these again.
        retried(error(400, "AccessDeniedException"), "access_denied"),
        one(error(400, "ExpiredTokenException"), "credentials"),
        one(error(400, "UnrecognizedClientException"), "credentials"),
        one(error(418, "SomethingNewException"), "rejected"),
        retried(json!({"reset": "before"}), "connection"),
        one(json!({"garbage": true}), "bad_answer"),
        (poll, 2, error(400, "ThrottlingException"), vec![]),
        (
            poll,
            3,
            error(400, "ThrottlingException"),
            vec!["throttled"],
        ),
        (poll, 3, error(500, "InternalFailure"), vec!["connection"]),
        (poll, 3, json!({"reset": "before"}), vec!["connection"]),
        (poll, 1, json!({"garbage": true}), vec!["bad_answer"]),
    ];
    for (code, again, reason) in S::REFUSALS {
        let times = if *again { retried } else { one };
        faults.push(times(error(400, code), reason));
    }
    for (fate, reason) in S::FATES {
        faults.push(one(json!({"query": fate}), reason));
    }
    faults
}

pub fn whatever_goes_wrong_is_told_by_its_reason_and_counts_once_in_the_end<S: Queried>() {
    both_ways(|| {
        for (operation, times, action, expected) in faults::<S>() {
            let (rig, _) = rig_over_an_hour::<S>();
            let mut life = rig.start();
            rig.double.fault(operation, times, action.clone());
            let reasons = tick_until_done(&rig, &mut life, 10);
            assert_eq!(reasons, expected, "{operation} {action}");
            assert_eq!(counted(&life), 180, "{operation} {action}");
            for reason in expected {
                assert_eq!(failures(&life, reason), 1.0, "{operation} {action}");
            }
            rig.double.assert_sound();
            rig.end(life);
        }
    });
}

pub fn a_reply_that_hangs_is_given_up_and_a_lost_start_is_not_paid_for_again_and_again<
    S: Queried,
>() {
    let hang = |carried_out| json!({"hang_seconds": 30, "carried_out": carried_out});
    for (operation, times, action, expected) in [
        (S::POLL, 3, hang(false), "timeout"),
        (S::START, S::STARTS, hang(true), "timeout"),
        (S::START, S::STARTS, json!({"reset": "after"}), "connection"),
    ] {
        let (mut rig, _) = rig_over_an_hour::<S>();
        rig.setup.patience = Duration::from_secs(1);
        let mut life = rig.start();
        rig.double.fault(operation, times, action);
        assert_eq!(tick_until_done(&rig, &mut life, 10), [expected]);
        assert_eq!(counted(&life), 180);
        let queries = queries(&rig.double.stats()).len();
        // With a token the query is the same, however often it was started.
        let most = if S::STARTS == 1 { 2 } else { 1 };
        assert!(queries <= most, "{queries} queries");
        rig.end(life);
    }
}

pub fn a_body_that_is_cut_off_is_no_answer<S: Queried>() {
    let (rig, _) = rig_over_an_hour::<S>();
    let mut life = rig.start();
    rig.double.fault(S::POLL, 3, json!({"truncate": true}));
    rig.double
        .fault("GetQueryResults", 3, json!({"truncate": true}));
    let reasons = tick_until_done(&rig, &mut life, 10);
    assert!(reasons.len() <= 2, "{reasons:?}");
    assert_eq!(counted(&life), 180);
    rig.end(life);
}

pub fn a_query_that_runs_for_ever_is_stopped_and_asked_for_in_parts_if_that_saves<S: Queried>() {
    both_ways(|| {
        let (mut rig, _) = rig_over_an_hour::<S>();
        rig.setup.query.timeout = Duration::from_secs(1);
        let mut life = rig.start();
        rig.double.fault(S::START, 1, json!({"query": "forever"}));
        let paid = match rig.tick(&mut life) {
            Err(TickError::Source(error)) if error.reason.label() == "timeout" => error.paid,
            other => panic!("{other:?}"),
        };
        // The same again is paid for again, and waits; halves do not.
        assert_eq!(paid, S::PARTS == 1);
        assert_eq!(tick_until_done(&rig, &mut life, 10), Vec::<&str>::new());
        assert_eq!(counted(&life), 180);
        let stats = rig.double.stats();
        let queries = queries(&stats);
        assert_eq!(queries[0]["stopped"], true, "{queries:?}");
        assert_eq!(stats["orphans"], json!([]));
        let asked = 1 + S::PARTS + reworded(&queries);
        assert_eq!(queries.len(), asked, "{queries:?}");
        rig.end(life);
    });
}

/// How many queries failed because the table has no key exchanges: they are asked anew without.
pub fn reworded(queries: &[Value]) -> usize {
    let failed = queries.iter().filter(|query| query["status"] == "FAILED");
    failed.count()
}

pub fn wrong_and_expired_credentials_and_a_missing_permission_have_reasons_of_their_own<
    S: Queried,
>() {
    let (mut rig, start) = rig_over_an_hour::<S>();
    let right = rig.setup.credentials.clone();
    rig.setup.credentials =
        aws_credential_types::Credentials::new(aws::KEY, "wrong", None, None, "test");
    let mut life = rig.start();
    assert_eq!(reason(rig.tick(&mut life)), "credentials");
    rig.end(life);

    rig.setup.credentials = right;
    let credential = |denied: &[&str], expires: Option<i64>| {
        json!([{"access_key": aws::KEY, "secret": aws::SECRET, "account": aws::ACCOUNT, "denied": denied,
            "expires_ms": expires}])
    };
    let mut life = rig.start();
    rig.double
        .post("credentials", &credential(&[S::POLL], None));
    assert_eq!(reason(rig.tick(&mut life)), "access_denied");
    rig.double
        .post("credentials", &credential(&[], Some(start.secs() * 1000)));
    assert_eq!(reason(rig.tick(&mut life)), "credentials");
    let scrape = life.scrape();
    let errors = |operation: &str, reason: &str| {
        let labels = [("operation", operation), ("reason", reason)];
        scrape.sum("cloudtrail_tls_exporter_aws_api_errors_total", &labels)
    };
    assert_eq!(errors(S::POLL, "access_denied"), 1.0);
    assert_eq!(errors(S::POLL, "credentials"), 1.0);
    // What only tells the time need not be allowed.
    rig.double
        .post("credentials", &credential(&[S::GREET], None));
    rig.end(life);
    let mut life = rig.start();
    rig.tick(&mut life).unwrap();
    assert_eq!(counted(&life), 180);
    let queries = queries(&rig.double.stats());
    let one = 1 + reworded(&queries);
    assert_eq!(queries.len(), one, "the same query was read in the end");
    rig.end(life);
}

pub fn a_killed_exporter_goes_on_with_the_query_that_it_stored<S: Queried>() {
    let (rig, _) = rig_over_an_hour::<S>();
    let mut life = rig.start();
    rig.double.fault(S::POLL, 3, json!({"reset": "before"}));
    rig.tick(&mut life).unwrap_err();
    rig.end(life);
    let mut life = rig.start();
    rig.tick(&mut life).unwrap();
    assert_eq!(counted(&life), 180);
    let stats = rig.double.stats();
    let starts = 1 + reworded(&queries(&stats));
    assert_eq!(queries(&stats).len(), starts);
    rig.end(life);
}

/// Ticks until the tick has gone on `moments` times, then kills the process; a life whose tick ended before goes on.
pub fn killed_after<S: Subject>(rig: &Rig<S>, mut life: Life<S>, moments: u32) -> Option<Life<S>> {
    let mut left = moments;
    let ended = rig.runtime.block_on(async {
        let mut tick = pin!(life.worker.tick());
        poll_fn(|context| {
            if left == 0 {
                return Poll::Ready(None);
            }
            left -= 1;
            tick.as_mut().poll(context).map(Some)
        })
        .await
    });
    if ended.is_some() {
        return Some(life);
    }
    rig.end(life);
    None
}

pub fn a_kill_at_any_moment_costs_at_most_one_query_and_no_call<S: Queried>() {
    both_ways(|| {
        let (mut orphans, mut kills) = (Vec::new(), 0);
        for moments in 1.. {
            let (rig, _) = rig_over_an_hour::<S>();
            let spared = killed_after(&rig, rig.start(), moments);
            let killed = spared.is_none();
            kills += u32::from(killed);
            let mut life = spared.unwrap_or_else(|| rig.start());
            rig.tick(&mut life).unwrap();
            assert_eq!(counted(&life), 180, "killed after {moments} moments");
            let stats = rig.double.stats();
            let left = stats["orphans"].as_array().unwrap().len();
            assert!(left <= 1, "killed after {moments} moments: {stats}");
            orphans.push(left);
            rig.double.assert_sound();
            rig.end(life);
            if !killed {
                break;
            }
        }
        let left: usize = orphans.iter().sum();
        support::tell(&format!(
            "{}: {kills} kills, one at each moment of a tick: {left} orphaned queries",
            S::TYPE
        ));
        // Between the start and the stored id there is a gap, and only there; a token closes it. How many of the moments
        // lie in it goes by the load of the machine.
        assert!(kills > 5);
        let most = if S::STARTS == 1 {
            kills as usize / 3
        } else {
            0
        };
        assert!(left <= most, "{orphans:?}");
    });
}

pub fn a_shutdown_stops_the_query_and_the_next_life_asks_anew<S: Queried>() {
    both_ways(|| {
        let (rig, _) = rig_over_an_hour::<S>();
        let life = rig.start();
        rig.double.fault(S::START, 1, json!({"query": "forever"}));
        let (stop, stopped) = shutdown::channel();
        let Life { worker, store, .. } = life;
        rig.runtime.block_on(async {
            let run = tokio::spawn(worker.run(Pace::of_windows(5 * MINUTE), stopped));
            // It is looked at.
            while aws::calls(&rig.double.stats(), S::POLL) == 0 {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            drop(stop);
            run.await.unwrap();
            store.close().await;
        });
        let queries = rig.double.stats()["queries"].clone();
        assert_eq!(queries[0]["stopped"], true, "{queries}");
        let mut life = rig.start();
        rig.tick(&mut life).unwrap();
        assert_eq!((counted(&life), failures(&life, "rejected")), (180, 0.0));
        rig.end(life);
    });
}

pub fn a_place_that_stops_receiving_looks_blind_and_not_clean<S: Subject>() {
    both_ways(|| {
        let (mut rig, start) = rig_over_an_hour::<S>();
        rig.setup.window = 2 * HOUR;
        let mut life = rig.start();
        rig.tick(&mut life).unwrap();
        let value = |life: &Life<S>, name: &str| life.scrape().value(name, &[]);
        let control = "cloudtrail_tls_control_window_calls";
        assert_eq!(value(&life, control), Some(90.0));
        let newest = "cloudtrail_tls_exporter_newest_record_timestamp_seconds";
        let before = value(&life, newest);
        rig.run(&mut life, 30 * MINUTE, start.plus(6 * HOUR));
        // Successful and empty: up, and the watermark goes on; what tells is that nothing new came.
        assert_eq!(value(&life, "cloudtrail_tls_exporter_source_up"), Some(1.0));
        let watermark = start.plus(6 * HOUR).minus(5 * MINUTE).secs() as f64;
        let told = value(&life, "cloudtrail_tls_exporter_watermark_timestamp_seconds");
        assert_eq!(told, Some(watermark));
        assert_eq!(value(&life, newest), before);
        assert_eq!(value(&life, control), Some(0.0));
        rig.end(life);
    });
}

pub fn a_clock_that_is_ten_minutes_off_loses_nothing_and_is_shown<S: Subject>() {
    both_ways(|| {
        for skew in [-600_i64, 600] {
            let start = start_of_day();
            let rig = Rig::<S>::new(start);
            let mut life = rig.start();
            // Records come late: a window asked for too early would miss them.
            let mut time = start;
            while time < start.plus(HOUR) {
                time = time.plus(5 * MINUTE);
                rig.double.set_clock(time);
                set_now(Timestamp::from_secs(time.secs() + skew));
                deliver_every_20_s(&rig, time.minus(MINUTE), time);
                rig.tick(&mut life).unwrap();
            }
            time = time.plus(30 * MINUTE);
            rig.double.set_clock(time);
            set_now(Timestamp::from_secs(time.secs() + skew));
            rig.tick(&mut life).unwrap();
            assert_eq!(counted(&life), 36, "skew {skew}");
            let told = life
                .scrape()
                .value("cloudtrail_tls_exporter_clock_skew_seconds", &[]);
            assert_eq!(told, Some(skew as f64));
            rig.end(life);
        }
    });
}

pub fn a_host_clock_that_jumps_gives_no_time_up<S: Subject>() {
    let (rig, start) = rig_over_an_hour::<S>();
    let mut life = rig.start();
    rig.tick(&mut life).unwrap();
    // The host's clock goes a month ahead between two ticks, then is mended.
    set_now(start.plus(30 * DAY));
    rig.tick(&mut life).unwrap();
    let time = start.plus(2 * HOUR);
    deliver_every_20_s(&rig, start.plus(HOUR + 15 * MINUTE), time);
    rig.set_clocks(time.plus(10 * MINUTE));
    rig.tick(&mut life).unwrap();
    assert_eq!(counted(&life), 180 + 135);
    let skipped = "cloudtrail_tls_exporter_skipped_seconds_total";
    assert_eq!(life.scrape().sum(skipped, &[]), 0.0);
    rig.end(life);
}

pub fn a_second_with_too_many_rows_is_split_by_members_and_at_last_counted_as_other<S: Queried>() {
    both_ways(|| {
        let start = start_of_day();
        let mut rig = Rig::<S>::new(start.plus(HOUR));
        let time = start.plus(20 * MINUTE);
        let called = time.minus(MINUTE);
        // One delivery of one second: two Regions of two accounts with three services of two calls each …
        let mut messages = Vec::new();
        for number in 0..24 {
            let (region, account, service, event) =
                (number % 2, number / 2 % 2, number / 4 % 3, number / 12);
            let text = aws::record(
                &format!("service{service}"),
                &format!("Call{event}"),
                "TLSv1.1",
                called,
            );
            let mut record: Value = serde_json::from_str(&text).unwrap();
            record["awsRegion"] = json!(format!("region{region}"));
            record["recipientAccountId"] = json!(format!("{account}"));
            if region == 1 && account == 1 {
                // A member that is missing is a value as well.
                record.as_object_mut().unwrap().remove("recipientAccountId");
            }
            messages.push(record.to_string());
        }
        // … and one service with more calls than an answer holds.
        for number in 0..9 {
            messages.push(aws::record(
                "busy",
                &format!("Many{number}"),
                "TLSv1.2",
                called,
            ));
        }
        rig.deliver(time, &messages);
        rig.double.switch(json!({"missing_key": "empty"}));
        rig.setup.engine.set_rows(5, 1000);
        let mut life = rig.start();
        rig.tick(&mut life).unwrap();
        let scrape = life.scrape();
        let calls = |labels: &[(&str, &str)]| scrape.sum("cloudtrail_tls_calls_total", labels);
        assert_eq!(calls(&[]), 33.0);
        for service in ["service0", "service1", "service2"] {
            for event in ["Call0", "Call1"] {
                assert_eq!(
                    calls(&[("aws_service", service), ("event_name", event)]),
                    4.0
                );
            }
        }
        assert_eq!(calls(&[("account_id", "none")]), 6.0);
        assert_eq!(
            calls(&[("aws_service", "busy"), ("event_name", "other")]),
            9.0
        );
        assert_eq!(calls(&[("event_name", "other")]), 9.0);
        rig.end(life);
    });
}

pub fn a_query_of_another_configuration_is_not_taken_for_an_answer<S: Queried>() {
    let (mut rig, _) = rig_over_an_hour::<S>();
    rig.double.switch(json!({"lake_key_exchange": "column"}));
    let mut life = rig.start();
    rig.double
        .fault("GetQueryResults", 3, json!({"reset": "before"}));
    rig.tick(&mut life).unwrap_err();
    rig.end(life);
    // The query has ended, or runs, and its answer would be of five minutes.
    rig.setup.query.schedule.bucket = 10 * MINUTE;
    rig.setup.engine.set_bucket(10 * MINUTE);
    let mut life = rig.start();
    rig.tick(&mut life).unwrap();
    assert_eq!(counted(&life), 180);
    assert_eq!(queries(&rig.double.stats()).len(), 2);
    rig.end(life);
}

pub fn results_that_are_gone_are_asked_for_anew<S: Queried>() {
    let (rig, _) = rig_over_an_hour::<S>();
    rig.double.switch(json!({"lake_key_exchange": "column"}));
    let mut life = rig.start();
    let gone = json!({"error": {"status": 400, "code": S::GONE, "message": "it was not found"}});
    rig.double.fault("GetQueryResults", 1, gone);
    let reasons = tick_until_done(&rig, &mut life, 3);
    assert_eq!(reasons.len(), 1, "{reasons:?}");
    assert_eq!(counted(&life), 180);
    assert_eq!(queries(&rig.double.stats()).len(), 2);
    rig.end(life);
}

pub fn an_answer_that_cannot_be_read_is_asked_for_anew_after_some_tries<S: Queried>() {
    let (rig, _) = rig_over_an_hour::<S>();
    rig.double.switch(json!({"lake_key_exchange": "column"}));
    let mut life = rig.start();
    rig.double
        .fault("GetQueryResults", 3, json!({"garbage": true}));
    assert_eq!(tick_until_done(&rig, &mut life, 5), ["bad_answer"; 3]);
    assert_eq!(counted(&life), 180);
    assert_eq!(queries(&rig.double.stats()).len(), 2);
    rig.end(life);
}

/// Three workers tick at once over two hours in answers of at most `most_rows`; the quotas are the double's `limits`.
/// Returns the double's stats.
pub fn three_workers_at_once<S: Queried>(limits: Value, most_rows: usize) -> Value {
    let start = start_of_day();
    let mut rig = Rig::<S>::new(start.plus(2 * HOUR));
    deliver_every_20_s(&rig, start, start.plus(2 * HOUR));
    rig.double.switch(limits);
    rig.setup.query.lookback = 2 * HOUR;
    rig.setup.engine.set_rows(most_rows, 1000);
    rig.setup.quota = Arc::new(S::quota());
    let life = rig.start();
    let mut workers: Vec<_> = ["first", "second", "third"]
        .map(|name| rig.worker(name, &life.store, &life.metrics))
        .into_iter()
        .collect();
    rig.runtime.block_on(async {
        let [first, second, third] = &mut workers[..] else {
            unreachable!("three were made")
        };
        let (first, second, third) = tokio::join!(first.tick(), second.tick(), third.tick());
        first.unwrap();
        second.unwrap();
        third.unwrap();
    });
    let stats = rig.double.stats();
    assert_eq!(stats["errors"], json!({}));
    drop(workers);
    rig.end(life);
    stats
}

/// What AWS tells that it scanned.
pub fn scanned(stats: &Value) -> f64 {
    queries(stats)
        .iter()
        .map(|query| query["bytesScanned"].as_f64().unwrap())
        .sum()
}

/// Who makes the outdated call of [`called`].
const PRINCIPAL: &str = "arn:aws:iam::111122223333:role/legacy";
const USER_AGENT: &str = "old-sdk/1.0";

/// Two calls, an outdated one by a session of a role.
pub fn called(time: Timestamp) -> [String; 2] {
    ["TLSv1.1", "TLSv1.2"].map(|version| {
        let mut record: Value =
            serde_json::from_str(&aws::record("s3", "GetObject", version, time)).unwrap();
        record["userIdentity"] = json!({
            "type": "AssumedRole",
            "arn": "arn:aws:sts::111122223333:assumed-role/legacy/i-0123456789abcdef0",
            "sessionContext": {"sessionIssuer": {"type": "Role", "arn": PRINCIPAL}},
        });
        record["userAgent"] = json!(USER_AGENT);
        record.to_string()
    })
}

/// Whether a scrape names the caller of [`called`], and nobody else, for the one outdated call.
pub fn caller_is_named(scrape: &support::Scrape) -> bool {
    let family = "cloudtrail_tls_outdated_caller_window_calls";
    let named = [("principal", PRINCIPAL), ("user_agent", USER_AGENT)];
    scrape.value(family, &named) == Some(1.0) && scrape.sum(family, &[]) == 1.0
}

/// How the tests ask for callers: for all that there is of them.
pub fn ask_callers<S: Queried>() -> AskCallers {
    AskCallers {
        columns: CallerLabels {
            principal: true,
            user_agent: true,
            source_ip: true,
        },
        window: DAY,
        apart: S::RANKS,
    }
}

/// A new process of the rig's source, whose batches are kept by the test.
pub fn hand<S: Queried>(rig: &Rig<S>, kept: &Kept) -> Hand<S::Source> {
    let budget = Arc::new(Budget::new("", None));
    Hand::new(S::source(&rig.setup, &rig.sdk(), &budget), kept)
}

/// Ticks every `every` from now until `end`, with both clocks.
pub fn run_hand<S: Queried>(
    rig: &Rig<S>,
    hand: &mut Hand<S::Source>,
    kept: &mut Kept,
    every: Duration,
    end: Timestamp,
) {
    while aws::now() < end {
        rig.set_clocks(aws::now().plus(every).min(end));
        rig.runtime.block_on(hand.tick(kept, aws::now())).unwrap();
    }
}

/// Whether a query that the double was asked to run is for callers.
pub fn asks_callers(query: &Value) -> bool {
    let text = query["queryString"].as_str().unwrap();
    text.contains("principal")
}

/// The callers that were handed out, as `truth.py` writes them.
fn caller_lines(kept: &Kept) -> Vec<String> {
    let line = |((bucket, caller), calls): (&(Timestamp, Caller), &u64)| {
        let Caller {
            aws_service,
            event_name,
            tls_version,
            account_id,
            principal,
            user_agent,
            source_ip,
        } = caller;
        let names = [principal, user_agent, source_ip].map(Name::as_str);
        let call = [aws_service, event_name].map(Name::as_str);
        json!([
            bucket.secs(),
            call[0],
            call[1],
            tls_version.label(),
            account_id.as_str(),
            names[0],
            names[1],
            names[2],
            calls
        ])
        .to_string()
    };
    let mut lines: Vec<String> = kept.callers.iter().map(line).collect();
    lines.sort();
    lines
}

/// A day whose callers are asked for as it goes by: what was handed out is the truth of each bucket. Returns the
/// double's stats, the file of events, and what was kept; `None` where the records are not.
pub fn callers_of_a_day<S: Queried>(
    rig: &mut Rig<S>,
    every: Duration,
) -> Option<(Value, PathBuf, Kept)> {
    let start = start_of_day();
    let folders = folders(rig.home.path(), 1000)?;
    let more: &[&str] = match S::BY_EVENT_TIME {
        true => &["--event-time", "--duplicates", "0.03"],
        false => &[],
    };
    let events = rig.deliver_folders(start, start.plus(DAY), 6, &folders, more);
    rig.setup.query.lookback = MINUTE;
    rig.setup.query.callers = Some(ask_callers::<S>());
    let mut kept = Kept::default();
    let mut hand = hand(rig, &kept);
    rig.runtime
        .block_on(hand.tick(&mut kept, aws::now()))
        .unwrap();
    run_hand(rig, &mut hand, &mut kept, every, start.plus(DAY + 3 * HOUR));
    let grid = format!("callers={}", aws::BUCKET.as_secs());
    let mut words = vec![grid.as_str()];
    words.extend(S::BY_EVENT_TIME.then_some("event"));
    let end = start.plus(DAY + HOUR);
    let canonical = |line: String| serde_json::from_str::<Value>(&line).unwrap().to_string();
    let expected = aws::truth(&events, start, end, start, &words).into_iter();
    let mut expected: Vec<String> = expected.map(canonical).collect();
    expected.sort();
    assert!(expected.len() > 40, "only {} callers", expected.len());
    assert_eq!(caller_lines(&kept), expected);
    assert_eq!(kept.named(), kept.outdated());
    assert!(kept.times.values().all(|times| *times == 1));
    assert_eq!(kept.rejected, Vec::<&str>::new());
    let stats = rig.double.stats();
    let (callers, counts): (Vec<_>, Vec<_>) = queries(&stats).into_iter().partition(asks_callers);
    let scanned = |queries: &[Value]| -> f64 {
        let bytes = queries.iter().map(|query| query["bytesScanned"].as_f64());
        bytes.flatten().sum()
    };
    let (of_callers, of_counts) = (scanned(&callers), scanned(&counts));
    support::tell(&format!(
        "{}: {} queries for callers beside {} of the counts, {:.3} of their bytes; {} of {} buckets had outdated calls",
        S::TYPE,
        callers.len(),
        counts.len(),
        of_callers / of_counts,
        kept.outdated().len(),
        DAY.as_secs() / aws::BUCKET.as_secs(),
    ));
    assert_eq!(kept.scanned.bytes as f64, of_callers + of_counts);
    rig.double.assert_sound();
    Some((stats, events, kept))
}

pub fn a_clean_trail_asks_for_no_callers<S: Queried>() {
    both_ways(|| {
        let start = start_of_day();
        let mut rig = Rig::<S>::new(start);
        rig.setup.query.callers = Some(ask_callers::<S>());
        let record = |version| aws::record("s3", "GetObject", version, start.plus(10 * MINUTE));
        let records = ["TLSv1.2", "TLSv1.3", "none", "SSLv3"].map(record);
        rig.deliver(start.plus(10 * MINUTE), &records);
        let mut kept = Kept::default();
        let mut hand = hand(&rig, &kept);
        run_hand(
            &rig,
            &mut hand,
            &mut kept,
            10 * MINUTE,
            start.plus(3 * HOUR),
        );
        assert_eq!(kept.counts.calls(), 4);
        let stats = rig.double.stats();
        assert!(!queries(&stats).iter().any(asks_callers), "{stats}");
    });
}

pub fn callers_that_cannot_be_asked_for_hold_up_nothing_and_come_an_hour_later<S: Queried>() {
    let error = |code: &str| json!({"error": {"status": 400, "code": code, "message": "a fault"}});
    let fate = |name: &str| {
        let mut fates = S::FATES.iter();
        let (_, reason) = fates.find(|(known, _)| *known == name).unwrap();
        (1, json!({"query": name}), *reason)
    };
    for (times, action, reason) in [
        (S::STARTS, error("AccessDeniedException"), "access_denied"),
        (S::STARTS, error("ThrottlingException"), "throttled"),
        (1, json!({"garbage": true}), "bad_answer"),
        fate("Failed"),
        fate("vanish"),
        fate("Cancelled"),
    ] {
        let (mut rig, start) = rig_over_an_hour::<S>();
        rig.double.switch(json!({"lake_key_exchange": "column"}));
        rig.setup.query.callers = Some(ask_callers::<S>());
        let fault = json!({"operation": S::START, "skip": 1, "times": times, "action": action});
        rig.double.post("faults", &json!([fault]));
        let mut kept = Kept::default();
        let mut hand = hand(&rig, &kept);
        let tick = |hand: &mut Hand<S::Source>, kept: &mut Kept| {
            rig.runtime.block_on(hand.tick(kept, aws::now())).unwrap();
        };
        tick(&mut hand, &mut kept);
        assert_eq!(kept.rejected, [reason], "{action}");
        assert_eq!(
            (kept.counts.calls(), kept.callers.len()),
            (180, 0),
            "{action}"
        );
        let watermark = start.plus(HOUR + 5 * MINUTE);
        assert_eq!(kept.watermark, Some(watermark), "{action}");
        // Not in this hour …
        let before = queries(&rig.double.stats()).len();
        tick(&mut hand, &mut kept);
        assert_eq!(queries(&rig.double.stats()).len(), before, "{action}");
        // … but in the next.
        rig.set_clocks(start.plus(2 * HOUR + 10 * MINUTE));
        tick(&mut hand, &mut kept);
        assert_eq!(
            (kept.counts.calls(), kept.rejected.len()),
            (180, 1),
            "{action}"
        );
        assert_eq!(kept.named(), kept.outdated(), "{action}");
        rig.double.assert_sound();
    }
}

pub fn a_query_for_callers_that_runs_for_ever_is_stopped<S: Queried>() {
    let (mut rig, _) = rig_over_an_hour::<S>();
    rig.double.switch(json!({"lake_key_exchange": "column"}));
    rig.setup.query.callers = Some(ask_callers::<S>());
    rig.setup.query.timeout = Duration::from_secs(1);
    let fault =
        json!({"operation": S::START, "skip": 1, "times": 1, "action": {"query": "forever"}});
    rig.double.post("faults", &json!([fault]));
    let mut kept = Kept::default();
    let mut hand = hand(&rig, &kept);
    rig.runtime
        .block_on(hand.tick(&mut kept, aws::now()))
        .unwrap();
    assert_eq!(kept.counts.calls(), 180);
    assert_eq!(kept.rejected, ["timeout"]);
    let stats = rig.double.stats();
    assert_eq!(queries(&stats)[1]["stopped"], true, "{stats}");
    assert_eq!(stats["orphans"], json!([]));
    // Its halves follow at once where they are less work.
    let named = if S::PARTS == 1 {
        0
    } else {
        kept.outdated().len()
    };
    assert_eq!(kept.named().len(), named);
}

pub fn a_kill_at_any_moment_hands_each_buckets_callers_out_once<S: Queried>() {
    both_ways(|| {
        let mut kills = 0;
        for moments in 1.. {
            let (mut rig, _) = rig_over_an_hour::<S>();
            rig.setup.query.callers = Some(ask_callers::<S>());
            let mut kept = Kept::default();
            let mut first = hand(&rig, &kept);
            let mut left = moments;
            let ended = rig.runtime.block_on(async {
                let mut tick = pin!(first.tick(&mut kept, aws::now()));
                poll_fn(|context| {
                    if left == 0 {
                        return Poll::Ready(None);
                    }
                    left -= 1;
                    tick.as_mut().poll(context).map(Some)
                })
                .await
            });
            drop(first);
            let mut second = hand(&rig, &kept);
            rig.runtime
                .block_on(second.tick(&mut kept, aws::now()))
                .unwrap();
            assert_eq!(kept.counts.calls(), 180, "killed after {moments} moments");
            assert_eq!(
                kept.named(),
                kept.outdated(),
                "killed after {moments} moments"
            );
            assert!(kept.times.values().all(|times| *times == 1));
            let stats = rig.double.stats();
            let left = stats["orphans"].as_array().unwrap().len();
            let most = usize::from(S::STARTS == 1);
            assert!(left <= most, "killed after {moments} moments: {stats}");
            if ended.is_some() {
                break;
            }
            kills += 1;
        }
        support::tell(&format!(
            "{}: {kills} kills of a tick that asks for callers",
            S::TYPE
        ));
        assert!(kills > 15, "{kills}");
    });
}

pub fn a_shutdown_stops_the_query_for_callers_and_the_next_life_asks_anew<S: Queried>() {
    let (mut rig, _) = rig_over_an_hour::<S>();
    rig.double.switch(json!({"lake_key_exchange": "column"}));
    rig.setup.query.callers = Some(ask_callers::<S>());
    let fault =
        json!({"operation": S::START, "skip": 1, "times": 1, "action": {"query": "forever"}});
    rig.double.post("faults", &json!([fault]));
    let mut kept = Kept::default();
    let mut first = hand(&rig, &kept);
    rig.runtime.block_on(async {
        let mut tick = Box::pin(first.tick(&mut kept, aws::now()));
        // Until it is looked at.
        let looked_at = |stats: &Value| {
            let queries = queries(stats);
            queries.get(1).is_some_and(|query| query["polls"] != 0)
        };
        while !looked_at(&rig.double.stats()) {
            let pause = Duration::from_millis(50);
            let ended = tokio::time::timeout(pause, &mut tick).await;
            assert!(ended.is_err(), "{ended:?}");
        }
        drop(tick);
        first.stop().await;
    });
    assert_eq!(queries(&rig.double.stats())[1]["stopped"], true);
    let mut second = hand(&rig, &kept);
    rig.runtime
        .block_on(second.tick(&mut kept, aws::now()))
        .unwrap();
    assert_eq!((kept.counts.calls(), kept.rejected.len()), (180, 0));
    assert_eq!(kept.named(), kept.outdated());
}

/// The callers that a limit of five names of a loud account with a new user agent in each call, and of a quiet one.
pub fn callers_within_a_limit<S: Queried>() -> Vec<String> {
    let start = start_of_day();
    let mut rig = Rig::<S>::new(start.plus(HOUR));
    rig.setup.query.callers = Some(ask_callers::<S>());
    rig.setup.engine.set_rows(5, 1000);
    let time = start.plus(20 * MINUTE);
    let mut messages = Vec::new();
    let mut call = |account: &str, agent: &str, times: usize| {
        let text = aws::record("s3", "GetObject", "TLSv1.1", time);
        for _ in 0..times {
            let mut record: Value = serde_json::from_str(&text).unwrap();
            record["recipientAccountId"] = json!(account);
            record["eventID"] = json!(fastrand::u128(..).to_string());
            record["userAgent"] = json!(agent);
            messages.push(record.to_string());
        }
    };
    for number in 0..30 {
        call("111122223333", &format!("loud{number:02}"), 30 - number);
    }
    call("444455556666", "quiet", 1);
    rig.deliver(time, &messages);
    let mut kept = Kept::default();
    let mut hand = hand(&rig, &kept);
    rig.runtime
        .block_on(hand.tick(&mut kept, aws::now()))
        .unwrap();
    assert_eq!(kept.counts.calls(), 31 * 15 + 1);
    assert!(kept.times.values().all(|times| *times == 1));
    let callers = kept.callers.keys();
    callers
        .map(|(_, caller)| caller.user_agent.as_str().to_owned())
        .collect()
}
