//! Logs Insights against the double: exact whatever the engine does, and no byte paid for twice.

#[path = "support/aws.rs"]
mod aws;
#[path = "support/programs.rs"]
mod programs;
mod support;

use std::future::{Future as _, poll_fn};
use std::path::Path;
use std::pin::pin;
use std::process::Command;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use aws::{FAMILIES, HOUR, Life, MINUTE, Rig, both_ways, lines, set_now, truth};
use cloudtrail_tls_exporter::aws::Quota;
use cloudtrail_tls_exporter::shutdown;
use cloudtrail_tls_exporter::source::logs_insights::Form;
use cloudtrail_tls_exporter::store::WorkerName;
use cloudtrail_tls_exporter::time::Timestamp;
use cloudtrail_tls_exporter::worker::TickError;
use serde_json::{Value, json};

const DAY: Duration = Duration::from_secs(86_400);

fn start_of_day() -> Timestamp {
    Timestamp::parse("2026-06-01T00:00:00Z").unwrap()
}

/// Records of the real trail and of a made one with old versions and key exchanges; `None` where they are not.
fn folders(home: &Path, records: u32) -> Option<[std::path::PathBuf; 2]> {
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

/// Runs a day of five-minute ticks and compares every label set of the scrape with the truth.
fn a_day_is_exact(form: Form) {
    let start = start_of_day();
    let mut rig = Rig::new(start);
    let Some(folders) = folders(rig.home.path(), 1000) else {
        return;
    };
    if form == Form::Json {
        // What this form is for.
        rig.double.group(json!({"class": "INFREQUENT_ACCESS"}));
    }
    let events = rig.deliver_folders(start, start.plus(DAY), 6, &[&folders[0], &folders[1]]);
    rig.setup.engine.form = form;
    rig.setup.engine.most_rows = 10;
    rig.setup.engine.page = 7;
    let mut life = rig.start();
    rig.tick(&mut life).unwrap();
    rig.run(&mut life, 5 * MINUTE, start.plus(DAY + 10 * MINUTE));

    let scrape = life.scrape();
    let watermark = start.plus(DAY + 5 * MINUTE);
    let expected = truth(&events, start, watermark, watermark.minus(DAY));
    assert!(expected.len() > 1000, "only {} samples", expected.len());
    assert_eq!(lines(&scrape, &FAMILIES), expected);
    let told = scrape.value("cloudtrail_tls_exporter_watermark_timestamp_seconds", &[]);
    assert_eq!(told, Some(watermark.secs() as f64));
    rig.double.assert_sound();
    rig.end(life);
}

#[test]
fn after_a_day_every_label_set_is_the_truth_with_small_limits_and_late_deliveries() {
    both_ways(|| a_day_is_exact(Form::Fields));
}

#[test]
fn after_a_day_of_parsed_events_every_label_set_is_the_truth() {
    both_ways(|| a_day_is_exact(Form::Json));
}

/// A rig over an hour of records, one every 20 seconds, four minutes old when they are delivered.
fn rig_over_an_hour() -> (Rig, Timestamp) {
    let start = start_of_day().plus(12 * HOUR);
    let mut rig = Rig::new(start.plus(HOUR + 10 * MINUTE));
    rig.setup.query.lookback = 2 * HOUR;
    deliver_every_20_s(&rig, start, start.plus(HOUR));
    (rig, start)
}

fn deliver_every_20_s(rig: &Rig, from: Timestamp, to: Timestamp) {
    let mut time = from;
    let mut number = 0;
    while time < to {
        let version = ["TLSv1.1", "TLSv1.2", "TLSv1.3", "none"][number % 4];
        let service = ["s3", "kms"][number / 4 % 2];
        let message = aws::record(service, "Call", version, time.minus(4 * MINUTE));
        rig.double.deliver(time, &[message]);
        time = time.plus(Duration::from_secs(20));
        number += 1;
    }
}

/// All calls of the scrape.
fn counted(life: &Life) -> u64 {
    life.scrape().calls().values().sum()
}

fn failures(life: &Life, reason: &str) -> f64 {
    let labels = [("reason", reason)];
    life.scrape()
        .sum("cloudtrail_tls_exporter_batch_failures_total", &labels)
}

/// Ticks until all is counted, at most `most` times; tells the reasons of the failures before.
fn tick_until_done(rig: &Rig, life: &mut Life, most: usize) -> Vec<&'static str> {
    let mut reasons = Vec::new();
    for _ in 0..most {
        match rig.tick(life) {
            Ok(()) => return reasons,
            Err(TickError::Source(error)) => reasons.push(error.reason.label()),
            Err(error) => panic!("{error}"),
        }
    }
    panic!("not done after {most} ticks: {reasons:?}");
}

/// What goes wrong, at which operation, and the reasons that the failures must have.
fn faults() -> Vec<(&'static str, u32, Value, &'static [&'static str])> {
    let error = |status: u16, code: &str| json!({"error": {"status": status, "code": code, "message": "a fault"}});
    vec![
        // The SDK tries three times what is only looked at; a start is never tried again blindly.
        (
            "StartQuery",
            1,
            error(400, "ThrottlingException"),
            &["throttled"],
        ),
        (
            "StartQuery",
            1,
            error(400, "LimitExceededException"),
            &["concurrency_limit"],
        ),
        (
            "StartQuery",
            1,
            error(500, "ServiceUnavailableException"),
            &["connection"],
        ),
        (
            "StartQuery",
            1,
            error(400, "AccessDeniedException"),
            &["access_denied"],
        ),
        (
            "StartQuery",
            1,
            error(400, "ExpiredTokenException"),
            &["credentials"],
        ),
        (
            "StartQuery",
            1,
            error(400, "UnrecognizedClientException"),
            &["credentials"],
        ),
        (
            "StartQuery",
            1,
            error(400, "ResourceNotFoundException"),
            &["not_found"],
        ),
        (
            "StartQuery",
            1,
            error(400, "MalformedQueryException"),
            &["rejected"],
        ),
        (
            "StartQuery",
            1,
            error(418, "SomethingNewException"),
            &["rejected"],
        ),
        ("StartQuery", 1, json!({"reset": "before"}), &["connection"]),
        ("StartQuery", 1, json!({"garbage": true}), &["bad_answer"]),
        ("GetQueryResults", 2, error(400, "ThrottlingException"), &[]),
        (
            "GetQueryResults",
            3,
            error(400, "ThrottlingException"),
            &["throttled"],
        ),
        (
            "GetQueryResults",
            3,
            error(500, "InternalFailure"),
            &["connection"],
        ),
        (
            "GetQueryResults",
            3,
            json!({"reset": "before"}),
            &["connection"],
        ),
        (
            "GetQueryResults",
            1,
            json!({"garbage": true}),
            &["bad_answer"],
        ),
        ("StartQuery", 1, json!({"query": "Failed"}), &["rejected"]),
        ("StartQuery", 1, json!({"query": "Timeout"}), &["timeout"]),
        ("StartQuery", 1, json!({"query": "vanish"}), &["not_found"]),
        // Somebody stopped it: the next tick asks anew.
        (
            "StartQuery",
            1,
            json!({"query": "Cancelled"}),
            &["rejected"],
        ),
    ]
}

#[test]
fn whatever_goes_wrong_is_told_by_its_reason_and_counts_once_in_the_end() {
    both_ways(|| {
        for (operation, times, action, expected) in faults() {
            let (rig, _) = rig_over_an_hour();
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

#[test]
fn a_reply_that_hangs_is_given_up_and_a_lost_start_is_not_repeated_at_once() {
    for (operation, action, expected) in [
        (
            "GetQueryResults",
            json!({"hang_seconds": 30, "carried_out": false}),
            &["timeout"][..],
        ),
        (
            "StartQuery",
            json!({"hang_seconds": 30, "carried_out": true}),
            &["timeout"],
        ),
        ("StartQuery", json!({"reset": "after"}), &["connection"]),
    ] {
        let (mut rig, _) = rig_over_an_hour();
        rig.setup.patience = Duration::from_millis(300);
        let mut life = rig.start();
        let times = if operation == "StartQuery" { 1 } else { 3 };
        rig.double.fault(operation, times, action);
        assert_eq!(tick_until_done(&rig, &mut life, 10), expected);
        assert_eq!(counted(&life), 180);
        let queries = rig.double.stats()["queries"].as_array().unwrap().len();
        assert!(queries <= 2, "{queries} queries");
        rig.end(life);
    }
}

#[test]
fn a_body_that_is_cut_off_is_no_answer() {
    let (rig, _) = rig_over_an_hour();
    let mut life = rig.start();
    rig.double
        .fault("GetQueryResults", 3, json!({"truncate": true}));
    let reasons = tick_until_done(&rig, &mut life, 10);
    assert!(reasons.len() <= 1, "{reasons:?}");
    assert_eq!(counted(&life), 180);
    rig.end(life);
}

#[test]
fn a_query_that_runs_for_ever_is_stopped_and_asked_for_in_halves() {
    both_ways(|| {
        let (mut rig, _) = rig_over_an_hour();
        rig.setup.query.timeout = Duration::from_secs(1);
        let mut life = rig.start();
        rig.double
            .fault("StartQuery", 1, json!({"query": "forever"}));
        assert_eq!(tick_until_done(&rig, &mut life, 10), ["timeout"]);
        assert_eq!(counted(&life), 180);
        let stats = rig.double.stats();
        let queries = stats["queries"].as_array().unwrap();
        assert_eq!(queries[0]["stopped"], true, "{queries:?}");
        assert_eq!(queries.len(), 3, "the whole and its halves: {queries:?}");
        assert_eq!(stats["orphans"], json!([]));
        rig.end(life);
    });
}

#[test]
fn wrong_and_expired_credentials_and_a_missing_permission_have_reasons_of_their_own() {
    let (mut rig, start) = rig_over_an_hour();
    let right = rig.setup.credentials.clone();
    rig.setup.credentials =
        aws_credential_types::Credentials::new(aws::KEY, "wrong", None, None, "test");
    let mut life = rig.start();
    let reason = |error| match error {
        Err(TickError::Source(error)) => error.reason.label(),
        other => panic!("{other:?}"),
    };
    assert_eq!(reason(rig.tick(&mut life)), "credentials");
    rig.end(life);

    rig.setup.credentials = right;
    let credential = |denied: &[&str], expires: Option<i64>| {
        json!([{"access_key": aws::KEY, "secret": aws::SECRET, "account": aws::ACCOUNT, "denied": denied,
            "expires_ms": expires}])
    };
    let mut life = rig.start();
    rig.double
        .post("credentials", &credential(&["GetQueryResults"], None));
    assert_eq!(reason(rig.tick(&mut life)), "access_denied");
    rig.double
        .post("credentials", &credential(&[], Some(start.secs() * 1000)));
    assert_eq!(reason(rig.tick(&mut life)), "credentials");
    let scrape = life.scrape();
    let errors = |operation: &str, reason: &str| {
        let labels = [("operation", operation), ("reason", reason)];
        scrape.sum("cloudtrail_tls_exporter_aws_api_errors_total", &labels)
    };
    assert_eq!(errors("GetQueryResults", "access_denied"), 1.0);
    assert_eq!(errors("GetQueryResults", "credentials"), 1.0);
    // DescribeLogGroups only tells the time: it need not be allowed.
    rig.double
        .post("credentials", &credential(&["DescribeLogGroups"], None));
    rig.end(life);
    let mut life = rig.start();
    rig.tick(&mut life).unwrap();
    assert_eq!(counted(&life), 180);
    let stats = rig.double.stats();
    assert_eq!(
        stats["queries"].as_array().unwrap().len(),
        1,
        "the same query was read in the end"
    );
    rig.end(life);
}

#[test]
fn a_killed_exporter_goes_on_with_the_query_that_it_stored() {
    let (rig, _) = rig_over_an_hour();
    let mut life = rig.start();
    rig.double
        .fault("GetQueryResults", 3, json!({"reset": "before"}));
    rig.tick(&mut life).unwrap_err();
    rig.end(life);
    let mut life = rig.start();
    rig.tick(&mut life).unwrap();
    assert_eq!(counted(&life), 180);
    assert_eq!(aws::calls(&rig.double.stats(), "StartQuery"), 1);
    rig.end(life);
}

/// Ticks until the tick has gone on `moments` times, then kills the process; tells whether it was killed.
fn kill_after(rig: &Rig, moments: u32) -> bool {
    let mut life = rig.start();
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
    rig.end(life);
    ended.is_none()
}

#[test]
fn a_kill_at_any_moment_costs_at_most_one_query_and_no_call() {
    both_ways(|| {
        let (mut orphans, mut kills) = (Vec::new(), 0);
        for moments in 1.. {
            let (rig, _) = rig_over_an_hour();
            let killed = kill_after(&rig, moments);
            kills += u32::from(killed);
            let mut life = rig.start();
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
            "{kills} kills, one at each moment of a tick: {left} orphaned queries"
        ));
        // Between the start and the stored id there is a gap, and only there.
        assert!((1..=3).contains(&left), "{orphans:?}");
        assert!(kills > 5);
    });
}

#[test]
fn a_shutdown_stops_the_query_and_the_next_life_asks_anew() {
    both_ways(|| {
        let (rig, _) = rig_over_an_hour();
        let life = rig.start();
        rig.double
            .fault("StartQuery", 1, json!({"query": "forever"}));
        let (stop, stopped) = shutdown::channel();
        let Life { worker, store, .. } = life;
        rig.runtime.block_on(async {
            let run = tokio::spawn(worker.run(5 * MINUTE, stopped));
            tokio::time::sleep(Duration::from_millis(500)).await;
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

#[test]
fn a_log_group_that_stops_receiving_looks_blind_and_not_clean() {
    both_ways(|| {
        let (mut rig, start) = rig_over_an_hour();
        rig.setup.window = 2 * HOUR;
        let mut life = rig.start();
        rig.tick(&mut life).unwrap();
        let value = |life: &Life, name: &str| life.scrape().value(name, &[("source", "logs")]);
        assert_eq!(
            value(&life, "cloudtrail_tls_control_window_calls"),
            Some(90.0)
        );
        let newest = value(
            &life,
            "cloudtrail_tls_exporter_newest_record_timestamp_seconds",
        );
        rig.run(&mut life, 30 * MINUTE, start.plus(6 * HOUR));
        // Successful and empty: up, and the watermark goes on; what tells is that nothing new came.
        assert_eq!(value(&life, "cloudtrail_tls_exporter_source_up"), Some(1.0));
        let watermark = start.plus(6 * HOUR).minus(5 * MINUTE).secs() as f64;
        let told = value(&life, "cloudtrail_tls_exporter_watermark_timestamp_seconds");
        assert_eq!(told, Some(watermark));
        assert_eq!(
            value(
                &life,
                "cloudtrail_tls_exporter_newest_record_timestamp_seconds"
            ),
            newest
        );
        assert_eq!(
            value(&life, "cloudtrail_tls_control_window_calls"),
            Some(0.0)
        );
        rig.end(life);
    });
}

#[test]
fn each_byte_is_paid_for_once_whatever_the_interval() {
    both_ways(|| {
        for minutes in [1, 5, 60] {
            let start = start_of_day();
            let mut rig = Rig::new(start);
            let Some(folders) = folders(rig.home.path(), 3000) else {
                return;
            };
            rig.deliver_folders(start, start.plus(DAY), 60, &[&folders[0], &folders[1]]);
            rig.setup.query.lookback = 5 * MINUTE;
            let mut life = rig.start();
            rig.tick(&mut life).unwrap();
            rig.run(&mut life, minutes * MINUTE, start.plus(DAY + HOUR));
            let stats = rig.double.stats();
            let (scanned, held) = (scanned(&stats), held(&stats));
            let told = life
                .scrape()
                .sum("cloudtrail_tls_exporter_scanned_bytes_total", &[]);
            let queries = stats["queries"].as_array().unwrap().len();
            let ratio = scanned / held;
            support::tell(&format!(
                "every {minutes} minutes: {queries} queries, bytes scanned / held {ratio:.4}"
            ));
            assert_eq!(told, scanned, "the exporter's own series");
            assert!(
                (0.995..1.005).contains(&(scanned / held)),
                "{scanned} of {held}"
            );
            rig.end(life);
        }
    });
}

/// What AWS would bill.
fn scanned(stats: &Value) -> f64 {
    let queries = stats["queries"].as_array().unwrap();
    queries
        .iter()
        .map(|query| query["bytesScanned"].as_f64().unwrap())
        .sum()
}

/// The bytes of all log groups.
fn held(stats: &Value) -> f64 {
    let groups = stats["bytes_held"].as_array().unwrap();
    groups
        .iter()
        .map(|group| group["bytes"].as_f64().unwrap())
        .sum()
}

#[test]
fn a_clock_that_is_ten_minutes_off_loses_nothing_and_is_shown() {
    both_ways(|| {
        for skew in [-600_i64, 600] {
            let start = start_of_day();
            let rig = Rig::new(start);
            let mut life = rig.start();
            // Events come late to the log group: a window asked for too early would miss them.
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

#[test]
fn many_workers_of_one_account_stay_within_its_quotas() {
    let start = start_of_day();
    let mut rig = Rig::new(start.plus(2 * HOUR));
    deliver_every_20_s(&rig, start, start.plus(2 * HOUR));
    rig.double.switch(
        json!({"starts_per_second": 10, "polls_per_second": 10, "describes_per_second": 10,
        "concurrent_queries": 3}),
    );
    rig.setup.query.lookback = 2 * HOUR;
    rig.setup.engine.most_rows = 12;
    rig.setup.quota = Arc::new(Quota::logs_insights());
    let life = rig.start();
    let name = |number: usize| WorkerName {
        source: format!("logs{number}"),
        source_type: "logs_insights",
        account: String::new(),
        region: aws::REGION.into(),
    };
    let mut workers: Vec<_> = (0..3)
        .map(|number| rig.worker(name(number), &life.store, &life.metrics))
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
    let peak = |name: &str| {
        let places = stats[name].as_object().unwrap().values();
        places.map(|peak| peak.as_u64().unwrap()).max().unwrap()
    };
    let (starts, polls) = (
        peak("peak_starts_per_second"),
        peak("peak_polls_per_second"),
    );
    let running = peak("peak_running");
    support::tell(&format!(
        "peaks: {starts} starts and {polls} polls a second, {running} running"
    ));
    assert!(starts <= 10 && polls <= 10 && running <= 3, "{stats}");
    assert!(
        polls >= 5,
        "the workers were not busy: {polls} polls a second"
    );
    assert_eq!(stats["errors"], json!({}));
    drop(workers);
    rig.end(life);
}

#[test]
fn a_second_with_too_many_rows_is_split_by_members_and_at_last_counted_as_other() {
    both_ways(|| {
        let start = start_of_day();
        let mut rig = Rig::new(start.plus(HOUR));
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
        rig.double.deliver(time, &messages);
        rig.double.switch(json!({"missing_key": "empty"}));
        rig.setup.engine.most_rows = 5;
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

#[test]
fn outdated_calls_alone_are_asked_for_beside_an_hourly_control() {
    both_ways(|| {
        let start = start_of_day();
        let mut rig = Rig::new(start.plus(3 * HOUR + 10 * MINUTE));
        deliver_every_20_s(&rig, start, start.plus(3 * HOUR));
        rig.setup.query.lookback = 4 * HOUR;
        rig.setup.query.control = true;
        rig.setup.engine.outdated_only = true;
        let mut life = rig.start();
        rig.tick(&mut life).unwrap();
        let scrape = life.scrape();
        let calls =
            |version: &str| scrape.sum("cloudtrail_tls_calls_total", &[("tls_version", version)]);
        // Every outdated call once; of the others those in the first five minutes of each hour: of 15 calls, 11 to 12.
        assert_eq!(calls("TLSv1.1"), 135.0);
        let control = ["TLSv1.2", "TLSv1.3", "none"].map(calls);
        assert_eq!(control, [12.0, 12.0, 9.0]);
        rig.end(life);
    });
}

#[test]
fn a_member_behind_two_hundred_fields_is_read_by_parsing_the_event() {
    let start = start_of_day();
    let time = start.plus(20 * MINUTE);
    let mut record = aws::record("s3", "GetObject", "none", time.minus(MINUTE));
    // `tlsDetails` stands at the end of a record.
    let many: Vec<String> = (0..200)
        .map(|number| format!("\"f{number:03}\":1"))
        .collect();
    let many = many.join(",");
    record.truncate(record.len() - 1);
    let message = format!(
        "{record},\"requestParameters\":{{{many}}},\"tlsDetails\":{{\"tlsVersion\":\"TLSv1.1\"}}}}"
    );
    for (form, version) in [(Form::Fields, "none"), (Form::Json, "TLSv1.1")] {
        let mut rig = Rig::new(start.plus(HOUR));
        rig.double.deliver(time, std::slice::from_ref(&message));
        rig.setup.engine.form = form;
        let mut life = rig.start();
        rig.tick(&mut life).unwrap();
        let labels = [("tls_version", version), ("aws_service", "s3")];
        let calls = life.scrape().value("cloudtrail_tls_calls_total", &labels);
        assert_eq!(calls, Some(1.0), "{form:?}");
        rig.end(life);
    }
}

#[test]
fn what_aws_never_had_and_what_is_too_old_are_gaps_and_not_zeroes() {
    let start = start_of_day();
    let mut rig = Rig::new(start.plus(10 * HOUR));
    let made = start.plus(6 * HOUR + 10 * MINUTE);
    rig.double
        .group(json!({"creationTime": made.secs() * 1000}));
    deliver_every_20_s(&rig, start.plus(7 * HOUR), start.plus(8 * HOUR));
    rig.setup.query.lookback = 10 * HOUR;
    rig.setup.query.catch_up_limit = 12 * HOUR;
    let value = |life: &Life, name: &str| life.scrape().value(name, &[("source", "logs")]);
    let history = "cloudtrail_tls_exporter_history_start_timestamp_seconds";
    let skipped = "cloudtrail_tls_exporter_skipped_seconds_total";
    let mut life = rig.start();
    rig.tick(&mut life).unwrap();
    assert_eq!(counted(&life), 180);
    // The first window, of six hours, lay before the log group was made.
    let begin = start.plus(6 * HOUR).secs() as f64;
    assert_eq!(value(&life, history), Some(begin));
    assert_eq!(value(&life, skipped), Some(6.0 * 3600.0));

    // Two days without the exporter: more than it catches up with.
    rig.set_clocks(start.plus(58 * HOUR));
    rig.tick(&mut life).unwrap();
    let begin = start.plus(46 * HOUR).secs() as f64;
    assert_eq!(value(&life, history), Some(begin));
    let before = start.plus(10 * HOUR).minus(5 * MINUTE).secs() as f64;
    assert_eq!(value(&life, skipped), Some(6.0 * 3600.0 + begin - before));
    rig.end(life);
}

#[test]
fn the_program_counts_a_log_group_stops_its_query_at_the_end_and_goes_on() {
    let double = aws::Double::start();
    let hour = Timestamp::now().minus(HOUR).floor(5 * MINUTE);
    let records =
        ["TLSv1.1", "TLSv1.2"].map(|version| aws::record("s3", "GetObject", version, hour));
    double.deliver(hour.plus(MINUTE), &records);
    let home = tempfile::tempdir().unwrap();
    let config = home.path().join("config.toml");
    let toml = format!(
        "[state]\npath = '{}/state.db'\n[[sources]]\nname = \"logs\"\ntype = \"logs_insights\"\n\
         log_groups = [\"{}\"]\nendpoint_url = \"{}\"\nlookback = \"2h\"\ninterval = \"1s\"\n",
        home.path().display(),
        aws::GROUP,
        double.endpoint,
    );
    std::fs::write(&config, toml).unwrap();
    let environment = [
        ("AWS_ACCESS_KEY_ID", aws::KEY),
        ("AWS_SECRET_ACCESS_KEY", aws::SECRET),
        ("AWS_REGION", aws::REGION),
        ("AWS_EC2_METADATA_DISABLED", "true"),
    ];
    let start =
        || support::Exporter::start_in(&["--config.file", config.to_str().unwrap()], &environment);
    double.fault("StartQuery", 1, json!({"query": "forever"}));
    let exporter = start();
    let polls = || aws::calls(&double.stats(), "GetQueryResults");
    support::wait_for("a running query", || (polls() >= 1).then_some(()));
    exporter.kill();
    // After kill -9 the same query is looked at, and no other is started.
    let before = polls();
    let exporter = start();
    support::wait_for("the same query", || (polls() > before).then_some(()));
    assert_eq!(aws::calls(&double.stats(), "StartQuery"), 1);
    let (status, ..) = exporter.end_with("TERM");
    assert!(status.success());
    assert_eq!(double.stats()["queries"][0]["stopped"], true);

    let exporter = start();
    let scrape = exporter.scrape_until("both calls and an attempt", |scrape| {
        let counted = scrape.sum("cloudtrail_tls_calls_total", &[]) >= 2.0;
        let up = scrape.value("cloudtrail_tls_exporter_source_up", &[]) == Some(1.0);
        (counted && up).then(|| scrape.clone())
    });
    let worker = [("worker_region", aws::REGION), ("source", "logs")];
    let watermark = scrape.value(
        "cloudtrail_tls_exporter_watermark_timestamp_seconds",
        &worker,
    );
    assert!(watermark.is_some());
    let outdated = scrape.value(
        "cloudtrail_tls_outdated_window_calls",
        &[("aws_service", "s3")],
    );
    assert_eq!(outdated, Some(1.0));
    let starts = [("operation", "StartQuery")];
    assert!(scrape.sum("cloudtrail_tls_exporter_aws_api_requests_total", &starts) >= 1.0);
    double.assert_sound();
}

#[test]
fn a_window_that_is_counted_again_adds_what_came_late_and_takes_nothing_away() {
    both_ways(|| {
        let start = start_of_day();
        let mut rig = Rig::new(start.plus(HOUR));
        rig.setup.query.schedule.settle = 20 * MINUTE;
        rig.setup.query.recount_after = Some(2 * HOUR);
        rig.setup.query.lookback = 2 * HOUR;
        deliver_every_20_s(&rig, start, start.plus(HOUR));
        let mut life = rig.start();
        let late = |life: &Life| {
            life.scrape()
                .sum("cloudtrail_tls_exporter_late_calls_total", &[])
        };
        // A group of event time: calls of the first minutes turn up two hours later.
        rig.run(&mut life, 10 * MINUTE, start.plus(2 * HOUR));
        assert_eq!((counted(&life), late(&life)), (180, 0.0));
        let message = aws::record("s3", "Late", "TLSv1.1", start.plus(10 * MINUTE));
        rig.double
            .deliver(start.plus(10 * MINUTE), &[message.clone(), message]);
        rig.end(life);
        let mut life = rig.start();
        rig.run(&mut life, 10 * MINUTE, start.plus(3 * HOUR));
        assert_eq!((counted(&life), late(&life)), (182, 2.0));
        rig.run(&mut life, 10 * MINUTE, start.plus(5 * HOUR));
        assert_eq!((counted(&life), late(&life)), (182, 2.0), "once");
        let labels = [("event_name", "Late")];
        assert_eq!(
            life.scrape().sum("cloudtrail_tls_window_calls", &labels),
            2.0
        );
        rig.end(life);
    });
}

#[test]
fn a_host_clock_that_jumps_gives_no_time_up() {
    let (rig, start) = rig_over_an_hour();
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

#[test]
fn a_log_group_that_was_made_anew_is_counted_again_no_more() {
    let (mut rig, start) = rig_over_an_hour();
    rig.setup.query.recount_after = Some(HOUR);
    let mut life = rig.start();
    rig.tick(&mut life).unwrap();
    let made = start.plus(HOUR + 10 * MINUTE);
    rig.double
        .group(json!({"creationTime": made.secs() * 1000}));
    rig.run(&mut life, 10 * MINUTE, start.plus(4 * HOUR));
    assert_eq!(counted(&life), 180);
    let starts = aws::calls(&rig.double.stats(), "StartQuery");
    assert!(starts < 60, "{starts} queries");
    rig.end(life);
}
