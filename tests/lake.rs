//! CloudTrail Lake against the double: exact whatever the engine does, late calls counted once, and what it costs.

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

use aws::{FAMILIES, HOUR, MINUTE, Subject as _, both_ways, lines, switched, truth};
use cloudtrail_tls_exporter::aws::Quota;
use cloudtrail_tls_exporter::source::lake::{KeyExchange, Settings};
use cloudtrail_tls_exporter::source::query::{Recount, numbers};
use cloudtrail_tls_exporter::time::Timestamp;
use queries::{
    DAY, Queried, counted, deliver_every_20_s, folders, reason, rig_over_an_hour, scanned,
    start_of_day,
};
use serde_json::{Value, json};

type Rig = aws::Rig<Settings>;
type Life = aws::Life<Settings>;

impl Queried for Settings {
    const START: &'static str = "StartQuery";
    const POLL: &'static str = "DescribeQuery";
    const GREET: &'static str = "GetEventDataStore";
    const STARTS: u32 = 1;
    const PARTS: usize = 2;
    const RANKS: bool = true;
    const GONE: &'static str = "QueryIdNotFoundException";
    const REFUSALS: &'static [(&'static str, bool, &'static str)] = &[
        ("MaxConcurrentQueriesException", false, "concurrency_limit"),
        ("EventDataStoreNotFoundException", false, "not_found"),
        ("InactiveEventDataStoreException", false, "rejected"),
        ("InvalidQueryStatementException", false, "rejected"),
    ];
    const FATES: &'static [(&'static str, &'static str)] = &[
        ("Failed", "rejected"),
        ("Timeout", "timeout"),
        ("exhausted", "timeout"),
        ("vanish", "not_found"),
        // Somebody stopped it: the next tick asks anew.
        ("Cancelled", "rejected"),
    ];

    fn quota() -> Quota {
        Quota::lake()
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

/// As by default, but sooner.
fn recount(after: Duration) -> Recount {
    Recount {
        after,
        reach: 23 * HOUR,
        check_first: true,
    }
}

fn late(life: &Life) -> f64 {
    life.scrape()
        .sum("cloudtrail_tls_exporter_late_calls_total", &[])
}

/// Whether the double's stores know key exchanges.
fn has_key_exchange() -> bool {
    switched("lake_key_exchange") == Some(json!("column"))
}

#[test]
fn after_a_day_every_label_set_is_the_truth_with_duplicates_and_late_deliveries() {
    both_ways(|| {
        for form in [KeyExchange::Column, KeyExchange::EventJson] {
            let start = start_of_day();
            let mut rig = Rig::new(start);
            let Some(folders) = folders(rig.home.path(), 1000) else {
                return;
            };
            let more = ["--event-time", "--late", "0.03", "--duplicates", "0.03"];
            let events = rig.deliver_folders(start, start.plus(DAY), 6, &folders, &more);
            rig.setup.engine.key_exchange = form;
            rig.setup.engine.set_rows(150, 7);
            rig.setup.query.schedule.settle = 20 * MINUTE;
            rig.setup.query.schedule.interval = HOUR;
            rig.setup.query.recount = Some(recount(6 * HOUR));
            let mut life = rig.start();
            rig.tick(&mut life).unwrap();
            // Late calls are counted again six hours later; so many more come into time that was not counted.
            rig.run(&mut life, HOUR, start.plus(DAY + 8 * HOUR));

            let scrape = life.scrape();
            let watermark = start.plus(DAY + 7 * HOUR);
            let mut how = vec!["event"];
            if form == KeyExchange::Column && !has_key_exchange() {
                how.push("unreported");
            }
            let expected = truth(&events, start, watermark, watermark.minus(DAY), &how);
            assert!(expected.len() > 1000, "only {} samples", expected.len());
            assert_eq!(lines(&scrape, &FAMILIES), expected);
            let told = scrape.value("cloudtrail_tls_exporter_watermark_timestamp_seconds", &[]);
            assert_eq!(told, Some(watermark.secs() as f64));
            assert!(late(&life) > 20.0, "{} late calls", late(&life));
            rig.double.assert_sound();
            rig.end(life);
        }
    });
}

#[test]
fn late_calls_are_counted_once_and_only_buckets_that_differ_are_asked_for_again() {
    both_ways(|| {
        let (rig, life, start) = rig_that_counts_again();
        // Two calls turn up in two buckets of their hour, one of them twice; and a call that was counted, once more.
        let record = |at| aws::record("s3", "Late", "TLSv1.1", start.plus(at));
        let (first, second) = (record(11 * MINUTE), record(41 * MINUTE));
        rig.deliver(start.plus(11 * MINUTE), &[first.clone(), first]);
        rig.deliver(start.plus(41 * MINUTE), &[second]);
        rig.end(life);
        let mut life = rig.start();
        let before = queries::queries(&rig.double.stats()).len();
        rig.run(&mut life, 10 * MINUTE, start.plus(3 * HOUR + 30 * MINUTE));
        assert_eq!((counted(&life), late(&life)), (182, 2.0));
        let labels = [("event_name", "Late")];
        assert_eq!(
            life.scrape().sum("cloudtrail_tls_window_calls", &labels),
            2.0
        );
        let stats = rig.double.stats();
        let texts = queries::queries(&stats).split_off(before);
        let texts: Vec<&str> = texts
            .iter()
            .map(|query| query["queryString"].as_str().unwrap())
            .collect();
        let bounds = |minute: u32| {
            let at = start.plus(minute * MINUTE).to_string();
            at.replace('T', " ").replace('Z', "")
        };
        for (from, to) in [(10, 15), (40, 45)] {
            let whole = |text: &&&str| text.contains("event_name") && text.contains(&bounds(from));
            let asked: Vec<_> = texts.iter().filter(whole).collect();
            assert_eq!(
                asked.len(),
                1 + usize::from(asked.len() > 1 && !has_key_exchange()),
                "{texts:?}"
            );
            assert!(asked[0].contains(&bounds(to)), "{asked:?}");
        }
        rig.run(&mut life, 10 * MINUTE, start.plus(6 * HOUR));
        assert_eq!((counted(&life), late(&life)), (182, 2.0), "once");
        rig.end(life);
    });
}

/// A rig whose windows settle after 20 minutes, end at half hours and are counted again after two hours, over an hour
/// of records that is counted.
fn rig_that_counts_again() -> (Rig, Life, Timestamp) {
    rig_that_counts_again_within(23 * HOUR)
}

fn rig_that_counts_again_within(reach: Duration) -> (Rig, Life, Timestamp) {
    let start = start_of_day();
    let mut rig = Rig::new(start.plus(HOUR));
    rig.setup.query.schedule.settle = 20 * MINUTE;
    rig.setup.query.schedule.interval = 30 * MINUTE;
    rig.setup.query.recount = Some(Recount {
        reach,
        ..recount(2 * HOUR)
    });
    rig.setup.query.lookback = 2 * HOUR;
    deliver_every_20_s(&rig, start, start.plus(HOUR));
    let mut life = rig.start();
    rig.run(&mut life, 10 * MINUTE, start.plus(2 * HOUR));
    assert_eq!((counted(&life), late(&life)), (180, 0.0));
    (rig, life, start)
}

/// A call that turns up late.
fn deliver_late(rig: &Rig, at: Timestamp) {
    rig.deliver(at, &[aws::record("s3", "Late", "TLSv1.1", at)]);
}

#[test]
fn a_coarser_grid_counts_nothing_again() {
    both_ways(|| {
        let start = start_of_day();
        let mut rig = Rig::new(start.plus(HOUR));
        rig.setup.query.recount = Some(recount(2 * HOUR));
        rig.setup.query.lookback = 2 * HOUR;
        (rig.setup.query.schedule.bucket, rig.setup.engine.bucket) = (MINUTE, MINUTE);
        deliver_every_20_s(&rig, start, start.plus(HOUR));
        let mut life = rig.start();
        rig.run(&mut life, 10 * MINUTE, start.plus(2 * HOUR));
        assert_eq!(counted(&life), 180);
        rig.end(life);
        (rig.setup.query.schedule.bucket, rig.setup.engine.bucket) = (5 * MINUTE, 5 * MINUTE);
        let mut life = rig.start();
        rig.run(&mut life, 10 * MINUTE, start.plus(6 * HOUR));
        assert_eq!((counted(&life), late(&life)), (180, 0.0));
        rig.end(life);
    });
}

#[test]
fn a_key_exchange_that_becomes_known_counts_nothing_again() {
    let (mut rig, life, start) = rig_that_counts_again();
    rig.end(life);
    // Every bucket differs, as a late call came into each.
    for minute in (2..60).step_by(5) {
        deliver_late(&rig, start.plus(minute * MINUTE));
    }
    rig.setup.engine.key_exchange = KeyExchange::EventJson;
    let mut life = rig.start();
    rig.run(&mut life, 10 * MINUTE, start.plus(6 * HOUR));
    assert_eq!((counted(&life), late(&life)), (180, 0.0));
    rig.end(life);
}

#[test]
fn a_check_that_fails_again_and_again_holds_up_no_new_calls() {
    both_ways(|| {
        let (rig, mut life, start) = rig_that_counts_again();
        deliver_every_20_s(&rig, start.plus(2 * HOUR), start.plus(4 * HOUR));
        // From now on every second query fails: those that count new windows go well, the checks behind them do not.
        let fault = json!({"operation": "StartQuery", "skip": 1, "times": 1, "action": {"query": "Failed"}});
        rig.double.post("faults", &json!(vec![fault; 12]));
        let mut reasons = Vec::new();
        while aws::now() < start.plus(5 * HOUR) {
            rig.set_clocks(aws::now().plus(10 * MINUTE));
            reasons.extend(rig.tick(&mut life).err().map(|error| reason(Err(error))));
        }
        // Told, and given up in the end: what was counted stays as it was.
        assert!(reasons.contains(&"rejected"), "{reasons:?}");
        assert_eq!(counted(&life), 180 + 360);
        let watermark = life
            .scrape()
            .value("cloudtrail_tls_exporter_watermark_timestamp_seconds", &[]);
        let expected = start.plus(4 * HOUR + 30 * MINUTE).secs() as f64;
        assert_eq!(watermark, Some(expected));
        rig.end(life);
    });
}

#[test]
fn late_calls_are_counted_after_a_long_outage_too() {
    both_ways(|| {
        for outage in [8, 20, 26, 40] {
            let (rig, mut life, start) = rig_that_counts_again();
            deliver_late(&rig, start.plus(50 * MINUTE));
            rig.set_clocks(start.plus((2 + outage) * HOUR));
            rig.tick(&mut life).unwrap();
            assert_eq!((counted(&life), late(&life)), (181, 1.0), "{outage} h");
            rig.end(life);
        }
    });
}

#[test]
fn a_recount_takes_no_budget_from_what_was_never_counted() {
    both_ways(|| {
        // After the outage the recount would be out of reach once more is counted, and is due first.
        for (ample, expected) in [(true, 1.0), (false, 0.0)] {
            let (mut rig, life, start) = rig_that_counts_again_within(5 * HOUR);
            rig.end(life);
            deliver_late(&rig, start.plus(50 * MINUTE));
            deliver_every_20_s(&rig, start.plus(2 * HOUR), start.plus(3 * HOUR));
            let queries = queries::queries(&rig.double.stats()).len();
            // As much as was spent before on this day, and hardly more.
            let bytes = numbers::whole(scanned(&rig.double.stats())) + 1;
            rig.setup.budget = Some(if ample { 1 << 40 } else { bytes });
            rig.set_clocks(start.plus(10 * HOUR));
            let mut life = rig.start();
            let outcome = rig.tick(&mut life);
            assert_eq!((outcome.is_ok(), late(&life)), (ample, expected));
            let stats = rig.double.stats();
            let asked = queries::queries(&stats).split_off(queries);
            let text = |query: &Value| query["queryString"].as_str().unwrap().to_owned();
            let checks = asked
                .iter()
                .filter(|query| !text(query).contains("event_name"));
            assert_eq!(checks.count() > 0, ample, "{asked:?}");
            if ample {
                assert_eq!(counted(&life), 361);
            } else {
                assert_eq!(reason(outcome), "budget");
                // The recount that was left out, and what waits.
                assert!(queries::failures(&life, "budget") >= 2.0);
            }
            rig.end(life);
        }
    });
}

#[test]
fn a_kill_at_any_moment_of_counting_again_loses_and_doubles_nothing() {
    both_ways(|| {
        for moments in 1.. {
            let (rig, life, start) = rig_that_counts_again();
            for minute in [11, 41] {
                deliver_late(&rig, start.plus(minute * MINUTE));
            }
            rig.set_clocks(start.plus(3 * HOUR + 30 * MINUTE));
            let spared = queries::killed_after(&rig, life, moments);
            let killed = spared.is_none();
            let mut life = spared.unwrap_or_else(|| rig.start());
            rig.tick(&mut life).unwrap();
            assert_eq!(counted(&life), 182, "killed after {moments} moments");
            rig.end(life);
            if !killed {
                assert!(moments > 20, "{moments} moments");
                break;
            }
        }
    });
}

#[test]
fn a_window_counted_again_that_has_too_many_rows_is_split_between_buckets_or_left() {
    let start = start_of_day();
    let mut rig = Rig::new(start.plus(10 * MINUTE));
    rig.setup.query.schedule.settle = 20 * MINUTE;
    rig.setup.query.recount = Some(recount(2 * HOUR));
    // A bucket has some eight keys: two buckets are too many.
    rig.setup.engine.set_rows(12, 1000);
    deliver_every_20_s(&rig, start, start.plus(HOUR));
    let mut life = rig.start();
    rig.run(&mut life, 10 * MINUTE, start.plus(2 * HOUR));
    assert_eq!((counted(&life), late(&life)), (180, 0.0));
    for minute in [11, 12, 16, 41] {
        deliver_late(&rig, start.plus(minute * MINUTE));
    }
    // And one bucket alone has too many now.
    let at = start.plus(51 * MINUTE);
    let many = |number| aws::record("s3", &format!("Many{number}"), "TLSv1.1", at);
    let many: Vec<String> = (0..9).map(many).collect();
    rig.deliver(at, &many);
    rig.run(&mut life, 10 * MINUTE, start.plus(6 * HOUR));
    assert_eq!((counted(&life), late(&life)), (184, 4.0));
    assert_eq!(queries::failures(&life, "truncated"), 1.0);
    rig.end(life);
}

#[test]
fn what_a_day_scans_is_shown_in_both_ways_of_pruning() {
    both_ways(|| {
        let start = start_of_day();
        let mut rig = Rig::new(start.plus(20 * MINUTE));
        let Some(folders) = folders(rig.home.path(), 3000) else {
            return;
        };
        let more = ["--event-time"];
        rig.deliver_folders(start, start.plus(DAY), 60, &folders, &more);
        rig.setup.query.lookback = 20 * MINUTE;
        rig.setup.query.schedule.settle = 20 * MINUTE;
        rig.setup.query.schedule.interval = HOUR;
        rig.setup.query.recount = Some(recount(6 * HOUR));
        let mut life = rig.start();
        rig.tick(&mut life).unwrap();
        rig.run(&mut life, 10 * MINUTE, start.plus(DAY + 8 * HOUR));
        let stats = rig.double.stats();
        let asked = queries::queries(&stats);
        let (checks, counts): (Vec<_>, Vec<_>) = asked.iter().partition(|query| {
            !query["queryString"]
                .as_str()
                .unwrap()
                .contains("event_name")
        });
        let sum = |queries: &[&Value]| -> f64 {
            queries
                .iter()
                .map(|query| query["bytesScanned"].as_f64().unwrap())
                .sum()
        };
        let held = counts
            .iter()
            .map(|query| query["bytes_held_columns"].as_f64().unwrap())
            .fold(0.0, f64::max);
        let scrape = life.scrape();
        let records = scrape.sum("cloudtrail_tls_exporter_scanned_records_total", &[]);
        let calls = scrape.sum("cloudtrail_tls_calls_total", &[]);
        let prunes = switched("lake_prunes").unwrap();
        support::tell(&format!(
            "lake, pruned by {prunes}, every hour: {} queries, bytes scanned / held {:.2}, with {} counts of records \
             {:.2}; the exporter's own records scanned / calls {:.2}",
            counts.len(),
            sum(&counts) / held,
            checks.len(),
            scanned(&stats) / held,
            records / calls,
        ));
        let told = scrape.sum("cloudtrail_tls_exporter_scanned_bytes_total", &[]);
        assert_eq!(told, scanned(&stats), "the exporter's own series");
        if prunes == "time" {
            assert!((0.99..1.01).contains(&(sum(&counts) / held)), "{stats}");
        }
        assert!(sum(&checks) < sum(&counts) / 2.0, "a check costs less");
        rig.end(life);
    });
}

#[test]
fn many_workers_of_one_account_stay_within_its_quotas() {
    let limits = json!({"lake_starts_per_second": 3, "lake_describes_per_second": 10,
        "lake_results_per_second": 10, "lake_stores_per_second": 10, "lake_concurrent_queries": 10,
        "lake_key_exchange": "column"});
    let stats = queries::three_workers_at_once::<Settings>(limits, 80);
    let peak = |operation: &str| {
        let places = stats["peaks"][operation].as_object().unwrap().values();
        places.map(|peak| peak.as_u64().unwrap()).max().unwrap()
    };
    let operations = [
        ("cloudtrail:StartQuery", 3),
        ("cloudtrail:DescribeQuery", 10),
        ("cloudtrail:GetQueryResults", 10),
    ];
    for (operation, quota) in operations {
        support::tell(&format!("{operation}: {} in a second", peak(operation)));
        assert!(peak(operation) <= quota, "{stats}");
    }
}

#[test]
fn a_delegated_administrator_names_the_owner_of_the_store() {
    let (mut rig, _) = rig_over_an_hour::<Settings>();
    let key = "AKIADELEGATE";
    rig.double.post(
        "credentials",
        &json!([{"access_key": key, "secret": aws::SECRET, "account": "444455556666",
            "delegates_for": [aws::ACCOUNT]}]),
    );
    rig.setup.credentials =
        aws_credential_types::Credentials::new(key, aws::SECRET, None, None, "test");
    let mut life = rig.start();
    assert_eq!(reason(rig.tick(&mut life)), "not_found");
    rig.end(life);
    rig.setup.engine.owner_account = Some(aws::ACCOUNT.to_owned());
    let mut life = rig.start();
    rig.tick(&mut life).unwrap();
    assert_eq!(counted(&life), 180);
    rig.end(life);
}

#[test]
fn without_deduplication_each_record_counts() {
    for (deduplicate, calls) in [(true, 1), (false, 2)] {
        let start = start_of_day();
        let mut rig = Rig::new(start.plus(HOUR));
        rig.setup.engine.deduplicate = deduplicate;
        let record = aws::record("s3", "GetObject", "TLSv1.2", start.plus(20 * MINUTE));
        rig.deliver(start.plus(20 * MINUTE), &[record.clone(), record]);
        let mut life = rig.start();
        rig.tick(&mut life).unwrap();
        assert_eq!(counted(&life), calls);
        rig.end(life);
    }
}

#[test]
fn the_program_counts_a_store() {
    let double = aws::Double::start();
    Settings::make(&double);
    double.switch(json!({"lake_starts_per_second": 100}));
    let hour = Timestamp::now().minus(HOUR).floor(5 * MINUTE);
    let at = hour.plus(MINUTE);
    double.deliver(&Settings::place(), at, &queries::called(at));
    let toml = format!(
        "[[sources]]\nname = \"store\"\ntype = \"lake\"\n\
         event_data_store = \"arn:aws:cloudtrail:{}:{}:eventdatastore/{}\"\nlookback = \"2h\"\ninterval = \"5m\"\n",
        aws::REGION,
        aws::ACCOUNT,
        aws::STORE,
    );
    let scrape = double.scrape_of_the_program(&toml, "both calls and the caller", |scrape| {
        let calls = scrape.sum("cloudtrail_tls_calls_total", &[]);
        calls >= 2.0 && queries::caller_is_named(scrape)
    });
    let outdated = [("aws_service", "s3"), ("source", "store")];
    assert_eq!(
        scrape.value("cloudtrail_tls_outdated_window_calls", &outdated),
        Some(1.0)
    );
    assert!(scrape.sum("cloudtrail_tls_exporter_estimated_cost_dollars_total", &[]) > 0.0);
    double.assert_sound();
}

#[test]
fn the_callers_of_a_day_are_the_truth() {
    both_ways(|| {
        let mut rig = Rig::new(start_of_day());
        rig.setup.query.schedule.settle = 20 * MINUTE;
        rig.setup.query.schedule.interval = HOUR;
        rig.setup.query.recount = Some(recount(2 * HOUR));
        queries::callers_of_a_day(&mut rig, 10 * MINUTE);
    });
}

#[test]
fn a_loud_account_leaves_a_quiet_one_its_callers() {
    both_ways(|| {
        let callers = queries::callers_within_a_limit::<Settings>();
        assert_eq!(callers, ["loud00", "loud01", "loud02", "loud03", "quiet"]);
    });
}
