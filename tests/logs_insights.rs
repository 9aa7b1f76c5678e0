//! Logs Insights against the double: exact whatever the engine does, and no byte paid for twice.

#[path = "support/aws.rs"]
mod aws;
#[path = "support/budgets.rs"]
mod budgets;
#[path = "support/handed.rs"]
mod handed;
#[path = "support/programs.rs"]
mod programs;
#[path = "support/queries.rs"]
mod queries;
mod support;

use aws::{FAMILIES, HOUR, MINUTE, Subject as _, both_ways, lines, truth};
use std::time::Duration;

use cloudtrail_tls_exporter::aws::Quota;
use cloudtrail_tls_exporter::source::logs_insights::{Form, Settings};
use cloudtrail_tls_exporter::source::query::Recount;
use cloudtrail_tls_exporter::time::Timestamp;
use queries::{
    DAY, Queried, counted, deliver_every_20_s, folders, rig_over_an_hour, scanned, start_of_day,
};
use serde_json::{Value, json};

type Rig = aws::Rig<Settings>;
type Life = aws::Life<Settings>;

impl Queried for Settings {
    const START: &'static str = "StartQuery";
    const POLL: &'static str = "GetQueryResults";
    const GREET: &'static str = "DescribeLogGroups";
    const STARTS: u32 = 1;
    const PARTS: usize = 2;
    const RANKS: bool = false;
    const GONE: &'static str = "ResourceNotFoundException";
    const REFUSALS: &'static [(&'static str, bool, &'static str)] = &[
        ("LimitExceededException", false, "concurrency_limit"),
        ("ResourceNotFoundException", false, "not_found"),
        ("MalformedQueryException", false, "rejected"),
    ];
    const FATES: &'static [(&'static str, &'static str)] = &[
        ("Failed", "rejected"),
        ("Timeout", "timeout"),
        ("vanish", "not_found"),
        // Somebody stopped it: the next tick asks anew.
        ("Cancelled", "rejected"),
    ];

    fn quota() -> Quota {
        Quota::logs_insights()
    }

    fn set_rows(&mut self, most_rows: usize, page: usize) {
        (self.most_rows, self.page) = (most_rows, page);
    }

    fn set_bucket(&mut self, bucket: Duration) {
        self.bucket = bucket;
    }
}

laws! {
    Settings:
    whatever_goes_wrong_is_told_by_its_reason_and_counts_once_in_the_end,
    a_reply_that_hangs_is_given_up_and_a_lost_start_is_not_paid_for_again_and_again,
    a_body_that_is_cut_off_is_no_answer,
    a_query_that_runs_for_ever_is_stopped_and_asked_for_in_parts_if_that_saves,
    wrong_and_expired_credentials_and_a_missing_permission_have_reasons_of_their_own,
    a_killed_exporter_goes_on_with_the_query_that_it_stored,
    a_kill_at_any_moment_costs_at_most_one_query_and_no_call,
    a_shutdown_stops_the_query_and_the_next_life_asks_anew,
    a_place_that_stops_receiving_looks_blind_and_not_clean,
    a_clock_that_is_ten_minutes_off_loses_nothing_and_is_shown,
    a_host_clock_that_jumps_gives_no_time_up,
    a_second_with_too_many_rows_is_split_by_members_and_at_last_counted_as_other,
    a_query_of_another_configuration_is_not_taken_for_an_answer,
    results_that_are_gone_are_asked_for_anew,
    an_answer_that_cannot_be_read_is_asked_for_anew_after_some_tries,
    a_clean_trail_asks_for_no_callers,
    callers_that_cannot_be_asked_for_hold_up_nothing_and_come_an_hour_later,
    a_query_for_callers_that_runs_for_ever_is_stopped,
    a_kill_at_any_moment_hands_each_buckets_callers_out_once,
    a_shutdown_stops_the_query_for_callers_and_the_next_life_asks_anew,
}

laws! {
    budgets of Settings:
    half_a_budget_counts_in_part_waits_and_goes_on_the_next_day,
    callers_are_asked_for_within_the_budget,
    no_kill_gives_a_second_budget,
    what_failed_was_stopped_or_is_not_known_any_more_is_spent,
    two_regions_share_one_budget,
    what_waits_longer_than_the_catch_up_limit_is_given_up,
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
    let events = rig.deliver_folders(start, start.plus(DAY), 6, &folders, &[]);
    rig.setup.engine.form = form;
    rig.setup.engine.most_rows = 10;
    rig.setup.engine.page = 7;
    let mut life = rig.start();
    rig.tick(&mut life).unwrap();
    rig.run(&mut life, 5 * MINUTE, start.plus(DAY + 10 * MINUTE));

    let scrape = life.scrape();
    let watermark = start.plus(DAY + 5 * MINUTE);
    let expected = truth(&events, start, watermark, watermark.minus(DAY), &[]);
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

#[test]
fn each_byte_is_paid_for_once_whatever_the_interval() {
    both_ways(|| {
        for minutes in [1, 5, 60] {
            let start = start_of_day();
            let mut rig = Rig::new(start);
            let Some(folders) = folders(rig.home.path(), 3000) else {
                return;
            };
            rig.deliver_folders(start, start.plus(DAY), 60, &folders, &[]);
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

/// The bytes of all log groups.
fn held(stats: &Value) -> f64 {
    let groups = stats["bytes_held"].as_array().unwrap();
    groups
        .iter()
        .map(|group| group["bytes"].as_f64().unwrap())
        .sum()
}

#[test]
fn many_workers_of_one_account_stay_within_its_quotas() {
    let stats = queries::three_workers_at_once::<Settings>(
        json!({"starts_per_second": 10, "polls_per_second": 10, "describes_per_second": 10,
        "concurrent_queries": 3}),
        12,
    );
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
        rig.deliver(time, std::slice::from_ref(&message));
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
    let value = |life: &Life, name: &str| life.scrape().value(name, &[]);
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
    Settings::make(&double);
    let hour = Timestamp::now().minus(HOUR).floor(5 * MINUTE);
    double.deliver(
        &Settings::place(),
        hour.plus(MINUTE),
        &queries::called(hour),
    );
    let home = tempfile::tempdir().unwrap();
    let config = home.path().join("config.toml");
    let toml = format!(
        "[state]\npath = '{}/state.db'\n[[sources]]\nname = \"logs\"\ntype = \"logs_insights\"\n\
         log_groups = [\"{}\"]\nendpoint_url = \"{}\"\nlookback = \"2h\"\ninterval = \"1s\"\n\
         budget_bytes_per_day = \"1GiB\"\n",
        home.path().display(),
        aws::GROUP,
        double.endpoint,
    );
    std::fs::write(&config, toml).unwrap();
    let start = || {
        support::Exporter::start_in(
            &["--config.file", config.to_str().unwrap()],
            &aws::ENVIRONMENT,
        )
    };
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
    exporter.wait_for_ready();
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
    let budget = |name: &str| {
        let name = format!("cloudtrail_tls_exporter_budget_{name}");
        scrape.value(&name, &[("source", "logs")]).unwrap()
    };
    assert_eq!(
        (budget("bytes"), budget("exhausted")),
        (f64::from(1 << 30), 0.0)
    );
    assert!(budget("used_bytes") > 0.0);
    exporter.scrape_until("the caller", |scrape| {
        queries::caller_is_named(scrape).then_some(())
    });
    let starts = [("operation", "StartQuery")];
    assert!(scrape.sum("cloudtrail_tls_exporter_aws_api_requests_total", &starts) >= 1.0);
    double.assert_sound();
}

fn recount(after: Duration) -> Recount {
    Recount {
        after,
        reach: 23 * HOUR,
        check_first: false,
    }
}

#[test]
fn a_window_that_is_counted_again_adds_what_came_late_and_takes_nothing_away() {
    both_ways(|| {
        let start = start_of_day();
        let mut rig = Rig::new(start.plus(HOUR));
        rig.setup.query.schedule.settle = 20 * MINUTE;
        rig.setup.query.recount = Some(recount(2 * HOUR));
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
        rig.deliver(start.plus(10 * MINUTE), &[message.clone(), message]);
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
fn a_log_group_that_was_made_anew_is_counted_again_no_more() {
    let (mut rig, start) = rig_over_an_hour::<Settings>();
    rig.setup.query.recount = Some(recount(HOUR));
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

#[test]
fn the_callers_of_a_day_are_the_truth_and_only_buckets_with_outdated_calls_are_paid_for() {
    both_ways(|| {
        for form in [Form::Fields, Form::Json] {
            let mut rig = Rig::new(start_of_day());
            rig.setup.engine.form = form;
            let Some((stats, events, kept)) = queries::callers_of_a_day(&mut rig, 10 * MINUTE)
            else {
                return;
            };
            // The bytes of the buckets that had outdated calls, as they lie there.
            let outdated = kept.outdated();
            let mut held = 0;
            for line in std::fs::read_to_string(events).unwrap().lines() {
                let event: Value = serde_json::from_str(line).unwrap();
                let time = Timestamp::from_secs(event["timestamp"].as_i64().unwrap() / 1000);
                if outdated.contains_key(&time.floor(aws::BUCKET)) {
                    held += event["message"].as_str().unwrap().len();
                }
            }
            let queries = queries::queries(&stats).into_iter();
            let callers = queries.filter(queries::asks_callers);
            let bytes = callers.map(|query| query["bytesScanned"].as_f64().unwrap());
            let ratio = bytes.sum::<f64>() / held as f64;
            support::tell(&format!(
                "callers: bytes scanned / held in their buckets {ratio:.4}"
            ));
            assert!((1.0..1.01).contains(&ratio), "{ratio}");
        }
    });
}

#[test]
fn callers_are_asked_for_beside_outdated_calls_alone_too() {
    let (mut rig, _) = rig_over_an_hour::<Settings>();
    rig.setup.query.control = true;
    rig.setup.engine.outdated_only = true;
    rig.setup.query.callers = Some(queries::ask_callers::<Settings>());
    let mut kept = handed::Kept::default();
    let mut hand = queries::hand(&rig, &kept);
    rig.runtime
        .block_on(hand.tick(&mut kept, aws::now()))
        .unwrap();
    assert_eq!(kept.outdated().values().sum::<u64>(), 45);
    assert_eq!(kept.named(), kept.outdated());
}

#[test]
fn the_busiest_callers_are_named_first() {
    let loud = ["loud00", "loud01", "loud02", "loud03", "loud04"];
    assert_eq!(queries::callers_within_a_limit::<Settings>(), loud);
}
