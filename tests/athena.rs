//! Athena against the double: exact over each of AWS's documented tables, no day read more often than needed, and
//! no query paid for twice.

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

use std::time::Duration;

use aws::{FAMILIES, HOUR, MINUTE, Subject as _, both_ways, lines, truth};
use cloudtrail_tls_exporter::aws::Quota;
use cloudtrail_tls_exporter::source::athena::{Layout, Settings};
use cloudtrail_tls_exporter::source::query::Recount;
use cloudtrail_tls_exporter::time::Timestamp;
use queries::{
    DAY, Queried, counted, failures, folders, reason, rig_over_an_hour, scanned, start_of_day,
    tick_until_done,
};
use serde_json::json;

type Rig = aws::Rig<Settings>;

impl Queried for Settings {
    const START: &'static str = "StartQueryExecution";
    const POLL: &'static str = "GetQueryExecution";
    const GREET: &'static str = "GetWorkGroup";
    const STARTS: u32 = 3;
    const PARTS: usize = 1;
    const LEAST_BILLED: f64 = 10.0 * 1024.0 * 1024.0;
    const RANKS: bool = true;
    const GONE: &'static str = "InvalidRequestException";
    const REFUSALS: &'static [(&'static str, bool, &'static str)] = &[
        ("TooManyRequestsException", true, "throttled"),
        ("InvalidRequestException", false, "rejected"),
    ];
    const FATES: &'static [(&'static str, &'static str)] = &[
        ("Failed", "rejected"),
        ("retryable", "connection"),
        ("Timeout", "timeout"),
        ("exhausted", "timeout"),
        ("vanish", "rejected"),
        // Somebody stopped it: the next tick asks anew.
        ("Cancelled", "rejected"),
    ];

    fn quota() -> Quota {
        Quota::athena()
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

/// Makes the rig's table anew in another layout, with or without key exchanges.
fn lay_out(rig: &mut Rig, layout: Layout, documented: &str, key_exchange: bool) {
    let mut more = json!({"layout": documented, "key_exchange": key_exchange});
    if layout == Layout::Lake {
        (rig.setup.engine.database, rig.setup.engine.table) =
            ("aws:cloudtrail".to_owned(), aws::STORE.to_owned());
        more["database"] = json!("aws:cloudtrail");
        more["table"] = json!(aws::STORE);
        rig.place = json!({"table": format!("aws:cloudtrail.{}", aws::STORE)});
    }
    rig.setup.engine.layout = layout;
    rig.double.table(more);
}

#[test]
fn after_three_days_every_label_set_is_the_truth_over_each_documented_table() {
    both_ways(|| {
        for (layout, documented, key_exchange) in [
            (Layout::Timestamp, "timestamp", true),
            (Layout::Timestamp, "timestamp", false),
            (Layout::YearMonthDay, "year_month_day", true),
            (Layout::YearMonthDay, "organization", true),
            (Layout::Lake, "lake", false),
        ] {
            let start = start_of_day();
            let mut rig = Rig::new(start);
            let Some(folders) = folders(rig.home.path(), 1000) else {
                return;
            };
            lay_out(&mut rig, layout, documented, key_exchange);
            let more = ["--event-time", "--duplicates", "0.03"];
            let events = rig.deliver_folders(start, start.plus(3 * DAY), 6, &folders, &more);
            rig.setup.engine.set_rows(900, 70);
            rig.setup.query.lookback = HOUR;
            rig.setup.query.schedule.settle = 2 * HOUR;
            rig.setup.query.schedule.interval = DAY;
            rig.setup.query.schedule.longest = DAY;
            let mut life = rig.start();
            rig.tick(&mut life).unwrap();
            rig.run(&mut life, HOUR, start.plus(3 * DAY + 3 * HOUR));

            let scrape = life.scrape();
            let watermark = start.plus(3 * DAY);
            let how: &[&str] = match key_exchange {
                true => &["event"],
                false => &["event", "unreported"],
            };
            let expected = truth(&events, start, watermark, watermark.minus(DAY), how);
            assert!(expected.len() > 1000, "only {} samples", expected.len());
            assert_eq!(lines(&scrape, &FAMILIES), expected, "{documented}");
            let told = scrape.value("cloudtrail_tls_exporter_watermark_timestamp_seconds", &[]);
            assert_eq!(told, Some(watermark.secs() as f64));
            rig.double.assert_sound();
            rig.end(life);
        }
    });
}

#[test]
fn a_federated_lake_store_is_counted() {
    both_ways(|| {
        let start = start_of_day();
        let mut rig = Rig::new(start.plus(HOUR));
        lay_out(&mut rig, Layout::Lake, "lake", false);
        let records: Vec<String> = ["TLSv1.1", "TLSv1.3", "none"]
            .map(|version| aws::record("kms", "Decrypt", version, start.plus(20 * MINUTE)))
            .into();
        let place = json!({"table": format!("aws:cloudtrail.{}", aws::STORE)});
        rig.double
            .deliver(&place, start.plus(20 * MINUTE), &records);
        let mut life = rig.start();
        rig.tick(&mut life).unwrap();
        let scrape = life.scrape();
        for version in ["TLSv1.1", "TLSv1.3", "none"] {
            let labels = [("tls_version", version), ("aws_service", "kms")];
            assert_eq!(
                scrape.value("cloudtrail_tls_calls_total", &labels),
                Some(1.0)
            );
        }
        rig.end(life);
    });
}

#[test]
fn a_day_is_read_once_and_once_more_for_the_evening_before() {
    let start = start_of_day();
    let mut rig = Rig::new(start);
    let Some(folders) = folders(rig.home.path(), 3000) else {
        return;
    };
    rig.deliver_folders(start, start.plus(4 * DAY), 60, &folders, &["--event-time"]);
    rig.setup.query.lookback = MINUTE;
    rig.setup.query.schedule.settle = 2 * HOUR;
    rig.setup.query.schedule.interval = DAY;
    rig.setup.query.schedule.longest = DAY;
    rig.setup.price_per_gib = 1024.0;
    let mut life = rig.start();
    rig.tick(&mut life).unwrap();
    rig.run(&mut life, 10 * MINUTE, start.plus(4 * DAY + 3 * HOUR));
    let stats = rig.double.stats();
    let held = stats["held"][0]["bytes"].as_f64().unwrap();
    let queries = queries::queries(&stats).len();
    let ratio = scanned(&stats) / held;
    support::tell(&format!(
        "athena, every day: {queries} queries for 4 days, bytes scanned / held {ratio:.2}"
    ));
    // The first asks for the minute before the first day; the others for a day each, two hours after its end.
    assert_eq!(queries, 5);
    assert!((1.0..1.2).contains(&ratio), "{ratio}");
    let scrape = life.scrape();
    let told = scrape.sum("cloudtrail_tls_exporter_scanned_bytes_total", &[]);
    assert_eq!(told, scanned(&stats), "the exporter's own series");
    // Each query is billed for 10 MiB at least: a hundredth of a GiB, less than these days hold.
    let cost = scrape.sum("cloudtrail_tls_exporter_estimated_cost_dollars_total", &[]);
    assert!((cost - 5.0 * 10.0).abs() < 0.01, "{cost}");
    rig.end(life);
}

#[test]
fn a_kill_pays_for_nothing_twice_where_the_table_has_no_key_exchange_either() {
    for moments in 1.. {
        let (rig, _) = rig_over_an_hour::<Settings>();
        rig.double
            .table(json!({"layout": "timestamp", "key_exchange": false}));
        queries::deliver_every_20_s(
            &rig,
            start_of_day().plus(12 * HOUR),
            start_of_day().plus(13 * HOUR),
        );
        let spared = queries::killed_after(&rig, rig.start(), moments);
        let killed = spared.is_none();
        let mut life = spared.unwrap_or_else(|| rig.start());
        rig.tick(&mut life).unwrap();
        assert_eq!(counted(&life), 180, "killed after {moments} moments");
        let stats = rig.double.stats();
        assert_eq!(
            stats["orphans"],
            json!([]),
            "killed after {moments} moments"
        );
        let paid = queries::queries(&stats)
            .into_iter()
            .filter(|query| query["status"] == "SUCCEEDED");
        assert_eq!(paid.count(), 1, "killed after {moments} moments");
        rig.end(life);
        if !killed {
            assert!(moments > 10, "{moments} moments");
            break;
        }
    }
}

/// A rig over two days of records, asked for by the day, of which the first is counted at 02:00.
fn rig_over_days(start: Timestamp) -> Rig {
    let mut rig = Rig::new(start);
    queries::deliver_every_20_s(&rig, start, start.plus(HOUR));
    rig.setup.query.lookback = MINUTE;
    rig.setup.query.schedule.settle = 2 * HOUR;
    rig.setup.query.schedule.interval = DAY;
    rig.setup.query.schedule.longest = DAY;
    rig.setup.engine.settle = 2 * HOUR;
    rig.setup.window = 3 * DAY;
    rig
}

fn recount(after: Duration) -> Recount {
    Recount {
        after,
        reach: 3 * DAY - HOUR,
        check_first: false,
    }
}

#[test]
fn a_day_that_is_counted_again_adds_what_was_delivered_days_later() {
    both_ways(|| {
        let start = start_of_day();
        let mut rig = rig_over_days(start);
        rig.setup.query.recount = Some(recount(30 * HOUR));
        rig.setup.engine.recount_after = 30 * HOUR;
        let mut life = rig.start();
        rig.tick(&mut life).unwrap();
        // Late calls of the first day, delivered in the evening of the second and in the night to the third.
        for (event, delivered) in [
            ("Evening", start.plus(DAY + 20 * HOUR)),
            ("Night", start.plus(2 * DAY + 3 * HOUR)),
        ] {
            let called = start.plus(30 * MINUTE);
            let message = aws::record("s3", event, "TLSv1.1", called);
            rig.double
                .deliver_at(&rig.place, called, delivered, &message);
        }
        rig.run(&mut life, HOUR, start.plus(DAY + 3 * HOUR));
        assert_eq!(counted(&life), 180);
        rig.run(&mut life, HOUR, start.plus(3 * DAY));
        let late = life
            .scrape()
            .sum("cloudtrail_tls_exporter_late_calls_total", &[]);
        assert_eq!((counted(&life), late), (182, 2.0));
        rig.end(life);
    });
}

/// Delivers a record every 20 seconds, each with a key exchange.
fn deliver_with_exchange(rig: &Rig, from: Timestamp, to: Timestamp) {
    let mut events = Vec::new();
    let mut time = from;
    while time < to {
        let text = aws::record("s3", "GetObject", "TLSv1.3", time);
        let mut record: serde_json::Value = serde_json::from_str(&text).unwrap();
        record["tlsDetails"]["keyExchange"] = json!("X25519MLKEM768");
        events.push((time, record.to_string()));
        time = time.plus(Duration::from_secs(20));
    }
    rig.double.deliver_all(&rig.place, events);
}

#[test]
fn what_was_counted_before_is_not_counted_again_when_the_question_changes() {
    let start = start_of_day();
    // Counted again from now on, with longer gauges: what became hours cannot be compared.
    let mut rig = rig_over_days(start);
    rig.setup.window = DAY;
    let mut life = rig.start();
    rig.tick(&mut life).unwrap();
    rig.run(&mut life, HOUR, start.plus(2 * DAY + 3 * HOUR));
    assert_eq!(counted(&life), 180);
    rig.end(life);
    rig.setup.window = 3 * DAY;
    rig.setup.query.recount = Some(recount(6 * HOUR));
    let mut life = rig.start();
    rig.run(&mut life, HOUR, start.plus(4 * DAY));
    assert_eq!(counted(&life), 180);
    rig.end(life);

    // The table is given its key exchanges between the count and the recount.
    let mut rig = rig_over_days(start.plus(9 * DAY));
    rig.set_clocks(start);
    rig.double
        .table(json!({"layout": "timestamp", "key_exchange": false}));
    deliver_with_exchange(&rig, start, start.plus(HOUR));
    // After the next day was counted.
    rig.setup.query.recount = Some(recount(30 * HOUR));
    let mut life = rig.start();
    rig.tick(&mut life).unwrap();
    rig.run(&mut life, HOUR, start.plus(DAY + 3 * HOUR));
    assert_eq!(counted(&life), 180);
    rig.end(life);
    rig.double
        .table(json!({"layout": "timestamp", "key_exchange": true}));
    deliver_with_exchange(&rig, start, start.plus(HOUR));
    deliver_with_exchange(&rig, start.plus(DAY), start.plus(DAY + HOUR));
    let mut life = rig.start();
    rig.run(&mut life, HOUR, start.plus(3 * DAY));
    assert_eq!(counted(&life), 360);
    let late = life
        .scrape()
        .sum("cloudtrail_tls_exporter_late_calls_total", &[]);
    assert_eq!(late, 0.0);
    rig.end(life);
}

#[test]
fn a_table_that_loses_its_key_exchanges_counts_nothing_again() {
    let start = start_of_day();
    let mut rig = rig_over_days(start.plus(9 * DAY));
    rig.set_clocks(start);
    deliver_with_exchange(&rig, start, start.plus(HOUR));
    rig.setup.query.recount = Some(recount(6 * HOUR));
    let mut life = rig.start();
    rig.tick(&mut life).unwrap();
    rig.run(&mut life, HOUR, start.plus(DAY + 3 * HOUR));
    assert_eq!(counted(&life), 180);
    rig.double
        .table(json!({"layout": "timestamp", "key_exchange": false}));
    deliver_with_exchange(&rig, start, start.plus(HOUR));
    rig.run(&mut life, HOUR, start.plus(DAY + 12 * HOUR));
    assert_eq!((counted(&life), failures(&life, "rejected")), (180, 1.0));
    rig.end(life);
}

#[test]
fn no_name_breaks_out_of_the_sql() {
    let start = start_of_day();
    for name in [
        "cloudtrail logs",
        "a\".\"b",
        "t\" WHERE 1 = 1 -- ",
        "select",
        "t'x",
    ] {
        let mut rig = Rig::new(start.plus(HOUR));
        rig.setup.engine.table = name.to_owned();
        rig.double
            .table(json!({"layout": "timestamp", "table": name}));
        let place = json!({"table": format!("default.{name}")});
        let record = aws::record("s3", "GetObject", "TLSv1.2", start.plus(20 * MINUTE));
        rig.double
            .deliver(&place, start.plus(20 * MINUTE), &[record]);
        let mut life = rig.start();
        rig.tick(&mut life).unwrap();
        assert_eq!(counted(&life), 1, "{name}");
        rig.end(life);
    }
}

#[test]
fn what_is_missing_at_athena_is_told_by_its_reason() {
    let (mut rig, _) = rig_over_an_hour::<Settings>();
    rig.setup.engine.table = "no_such_table".to_owned();
    let mut life = rig.start();
    // The query runs, and fails: it is told by the next look.
    assert_eq!(reason(rig.tick(&mut life)), "not_found");
    rig.end(life);

    let (mut rig, _) = rig_over_an_hour::<Settings>();
    rig.setup.engine.workgroup = "no_such_group".to_owned();
    let mut life = rig.start();
    assert_eq!(reason(rig.tick(&mut life)), "rejected");
    rig.end(life);

    let (mut rig, _) = rig_over_an_hour::<Settings>();
    rig.setup.engine.output_location = None;
    let mut life = rig.start();
    assert_eq!(reason(rig.tick(&mut life)), "rejected");
    let group = |more: &str, value: serde_json::Value| {
        let mut group = json!({"name": "primary", "account": aws::ACCOUNT, "region": aws::REGION});
        group[more] = value;
        json!([group])
    };
    // The workgroup says where results go; or Athena keeps them.
    rig.double.post(
        "workgroups",
        &group("output_location", json!("s3://elsewhere/")),
    );
    rig.tick(&mut life).unwrap();
    assert_eq!(counted(&life), 180);
    rig.end(life);

    let (mut rig, _) = rig_over_an_hour::<Settings>();
    rig.setup.engine.output_location = None;
    rig.double
        .post("workgroups", &group("managed", json!(true)));
    let mut life = rig.start();
    rig.tick(&mut life).unwrap();
    assert_eq!(counted(&life), 180);
    rig.end(life);

    let (rig, _) = rig_over_an_hour::<Settings>();
    rig.double
        .post("workgroups", &group("cutoff_bytes", json!(1000)));
    let mut life = rig.start();
    assert_eq!(reason(rig.tick(&mut life)), "too_large");
    rig.double
        .post("workgroups", &group("cutoff_bytes", json!(null)));
    assert_eq!(tick_until_done(&rig, &mut life, 3), Vec::<&str>::new());
    assert_eq!((counted(&life), failures(&life, "too_large")), (180, 1.0));
    rig.end(life);
}

#[test]
fn too_many_queries_of_the_account_are_not_too_many_requests() {
    let (rig, _) = rig_over_an_hour::<Settings>();
    rig.double.switch(json!({"athena_concurrent_queries": 0}));
    let mut life = rig.start();
    assert_eq!(reason(rig.tick(&mut life)), "concurrency_limit");
    rig.double.switch(json!({"athena_concurrent_queries": 20}));
    rig.tick(&mut life).unwrap();
    assert_eq!(counted(&life), 180);
    rig.end(life);
}

#[test]
fn many_workers_of_one_account_stay_within_its_quotas() {
    let limits = json!({"athena_starts_per_second": 20, "athena_polls_per_second": 100,
        "athena_results_per_second": 100, "athena_concurrent_queries": 20});
    let stats = queries::three_workers_at_once::<Settings>(limits, 12);
    let peak = |operation: &str| {
        let places = stats["peaks"][operation].as_object().unwrap().values();
        places.map(|peak| peak.as_u64().unwrap()).max().unwrap()
    };
    let operations = [
        ("athena:StartQueryExecution", 20),
        ("athena:GetQueryExecution", 100),
        ("athena:GetQueryResults", 100),
    ];
    for (operation, quota) in operations {
        support::tell(&format!("{operation}: {} in a second", peak(operation)));
        assert!(peak(operation) <= quota, "{stats}");
    }
}

#[test]
fn the_program_counts_a_table() {
    let double = aws::Double::start();
    Settings::make(&double);
    let hour = Timestamp::now().minus(4 * HOUR).floor(HOUR);
    let at = hour.plus(MINUTE);
    double.deliver(&Settings::place(), at, &queries::called(at));
    let toml = format!(
        "[[sources]]\nname = \"table\"\ntype = \"athena\"\ntable = \"{}\"\n\
         output_location = \"s3://results/\"\nlookback = \"12h\"\ninterval = \"1h\"\n",
        aws::TABLE,
    );
    let scrape = double.scrape_of_the_program(&toml, "both calls and the caller", |scrape| {
        let calls = scrape.sum("cloudtrail_tls_calls_total", &[]);
        calls >= 2.0 && queries::caller_is_named(scrape)
    });
    let outdated = [("aws_service", "s3"), ("source", "table")];
    assert_eq!(
        scrape.value("cloudtrail_tls_outdated_window_calls", &outdated),
        Some(1.0)
    );
    double.assert_sound();
}

#[test]
fn the_callers_of_a_day_are_the_truth_over_each_documented_table() {
    both_ways(|| {
        for (layout, documented) in [
            (Layout::Timestamp, "timestamp"),
            (Layout::YearMonthDay, "year_month_day"),
            (Layout::YearMonthDay, "organization"),
            (Layout::Lake, "lake"),
        ] {
            let mut rig = Rig::new(start_of_day());
            lay_out(&mut rig, layout, documented, false);
            rig.setup.query.schedule.settle = 2 * HOUR;
            rig.setup.query.schedule.interval = 6 * HOUR;
            rig.setup.engine.settle = 2 * HOUR;
            let Some((stats, ..)) = queries::callers_of_a_day(&mut rig, HOUR) else {
                return;
            };
            // One for each window: it reads whole days, whatever it asks.
            let asked = queries::queries(&stats).into_iter();
            assert_eq!(asked.filter(queries::asks_callers).count(), 4);
        }
    });
}

#[test]
fn a_loud_account_leaves_a_quiet_one_its_callers() {
    both_ways(|| {
        let callers = queries::callers_within_a_limit::<Settings>();
        assert_eq!(callers, ["loud00", "loud01", "loud02", "loud03", "quiet"]);
    });
}
