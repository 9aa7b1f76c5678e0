//! The event history against the double: every management event once, however pages, clocks and kills fall.

#[path = "support/aws.rs"]
mod aws;
#[path = "support/handed.rs"]
mod handed;
#[path = "support/programs.rs"]
mod programs;
#[path = "support/queries.rs"]
mod queries;
mod support;

use std::sync::Arc;

use aws::{FAMILIES, HOUR, MINUTE, Subject as _, both_ways, lines, truth};
use cloudtrail_tls_exporter::aws::Quota;
use cloudtrail_tls_exporter::source::event_history::Settings;
use cloudtrail_tls_exporter::time::Timestamp;
use queries::{
    DAY, counted, deliver_every_20_s, failures, folders, reason, rig_over_an_hour, start_of_day,
    tick_until_done,
};
use serde_json::{Value, json};

type Rig = aws::Rig<Settings>;
type Life = aws::Life<Settings>;

laws! {
    Settings:
    a_place_that_stops_receiving_looks_blind_and_not_clean,
    a_clock_that_is_ten_minutes_off_loses_nothing_and_is_shown,
    a_host_clock_that_jumps_gives_no_time_up,
}

fn late(life: &Life) -> f64 {
    life.scrape()
        .sum("cloudtrail_tls_exporter_late_calls_total", &[])
}

#[test]
fn after_half_a_day_every_label_set_is_the_truth_with_small_pages_and_late_events() {
    both_ways(|| {
        let start = start_of_day();
        let mut rig = Rig::new(start);
        let Some(folders) = folders(rig.home.path(), 1000) else {
            return;
        };
        let half = 12 * HOUR;
        // Every event is there 30 to 600 seconds after its call: later than the settle time at times.
        let more = ["--event-time", "--duplicates", "0.03", "--in-region", "0.9"];
        let events = rig.deliver_folders(start, start.plus(half), 6, &folders, &more);
        rig.setup.engine.page = 7;
        let mut life = rig.start();
        rig.tick(&mut life).unwrap();
        rig.run(&mut life, 5 * MINUTE, start.plus(half + HOUR));

        let scrape = life.scrape();
        let watermark = start.plus(half + 55 * MINUTE);
        let how = ["event", "management", &format!("in={}", aws::REGION)];
        let expected = truth(&events, start, watermark, watermark.minus(DAY), &how);
        assert!(expected.len() > 300, "only {} samples", expected.len());
        assert_eq!(lines(&scrape, &FAMILIES), expected);
        assert!(late(&life) > 20.0, "{} late calls", late(&life));
        let told = scrape.value("cloudtrail_tls_exporter_watermark_timestamp_seconds", &[]);
        assert_eq!(told, Some(watermark.secs() as f64));
        rig.double.assert_sound();
        rig.end(life);
    });
}

#[test]
fn who_made_the_outdated_calls_is_told_once_for_each_event() {
    let (mut rig, start) = rig_over_an_hour::<Settings>();
    rig.setup.engine.page = 2;
    let at = start.plus(20 * MINUTE);
    let by = |user: &str, version: &str| {
        let record = aws::record("iam", "ListUsers", version, at);
        let mut record: Value = serde_json::from_str(&record).unwrap();
        record["userIdentity"] = json!({"arn": format!("arn:aws:iam::111122223333:user/{user}")});
        record["userAgent"] = json!("Boto/2.1");
        record.to_string()
    };
    let [ann, ben] = [by("ann", "TLSv1.1"), by("ben", "TLSv1.2")];
    rig.deliver(at, &[ann.clone(), ann, by("ann", "TLSv1.1"), ben]);
    let mut life = rig.start();
    rig.tick(&mut life).unwrap();
    let callers = "cloudtrail_tls_outdated_caller_window_calls";
    let ann = [
        ("event_name", "ListUsers"),
        ("principal", "arn:aws:iam::111122223333:user/ann"),
        ("user_agent", "Boto/2.1"),
    ];
    let scrape = life.scrape();
    assert_eq!(scrape.value(callers, &ann), Some(2.0));
    assert_eq!(scrape.sum(callers, &[("aws_service", "iam")]), 2.0);
    let outdated = scrape.sum("cloudtrail_tls_outdated_window_calls", &[]);
    assert_eq!(scrape.sum(callers, &[]), outdated);
    assert!(outdated > 2.0);
    rig.end(life);

    // After a restart, and when the bucket is read again, it is as it was.
    let mut life = rig.start();
    rig.tick(&mut life).unwrap();
    assert_eq!(life.scrape().value(callers, &ann), Some(2.0));
    rig.end(life);
}

#[test]
fn late_events_are_counted_once_within_half_an_hour_also_over_a_restart() {
    both_ways(|| {
        let (mut rig, start) = rig_over_an_hour::<Settings>();
        rig.setup.query.schedule.settle = 20 * MINUTE;
        let mut life = rig.start();
        rig.tick(&mut life).unwrap();
        // The watermark is at 12:50.
        assert_eq!((counted(&life), late(&life)), (150, 0.0));
        let record = |minute: u32| {
            let at = start.plus(minute * MINUTE);
            let record = aws::record("s3", "Late", "TLSv1.1", at);
            rig.deliver(at, &[record.clone(), record]);
        };
        record(10);
        record(21);
        record(49);
        rig.end(life);
        let mut life = rig.start();
        rig.tick(&mut life).unwrap();
        // What lies more than half an hour behind is not looked at again.
        assert_eq!((counted(&life), late(&life)), (152, 2.0));
        rig.end(life);
        let mut life = rig.start();
        rig.run(&mut life, 5 * MINUTE, start.plus(2 * HOUR));
        assert_eq!((counted(&life), failures(&life, "truncated")), (182, 0.0));
        rig.end(life);
    });
}

#[test]
fn late_events_are_counted_after_an_outage_and_with_a_long_interval_too() {
    for (interval, outage) in [(5, 5), (5, 25), (5, 40), (5, 300), (30, 30), (60, 60)] {
        let (mut rig, start) = rig_over_an_hour::<Settings>();
        rig.setup.query.schedule.interval = interval * MINUTE;
        rig.set_clocks(start.plus(HOUR + 5 * MINUTE));
        let mut life = rig.start();
        rig.tick(&mut life).unwrap();
        assert_eq!(counted(&life), 180);
        let at = start.plus(57 * MINUTE);
        rig.deliver(at, &[aws::record("s3", "Late", "TLSv1.1", at)]);
        rig.set_clocks(start.plus(HOUR + (5 + outage) * MINUTE));
        rig.tick(&mut life).unwrap();
        let told = (counted(&life), late(&life));
        assert_eq!(told, (181, 1.0), "interval {interval}, outage {outage}");
        rig.end(life);
    }
}

#[test]
fn a_coarser_grid_counts_nothing_again() {
    let (mut rig, start) = rig_over_an_hour::<Settings>();
    let mut life = rig.start();
    rig.tick(&mut life).unwrap();
    assert_eq!(counted(&life), 180);
    rig.end(life);
    rig.setup.query.schedule.bucket = 10 * MINUTE;
    let at = start.plus(52 * MINUTE);
    rig.deliver(at, &[aws::record("s3", "Late", "TLSv1.1", at)]);
    let mut life = rig.start();
    rig.run(&mut life, 5 * MINUTE, start.plus(2 * HOUR));
    assert_eq!((counted(&life), late(&life)), (181, 1.0));
    rig.end(life);
}

#[test]
fn an_account_that_calls_more_than_the_history_gives_is_told() {
    let start = start_of_day();
    let mut rig = Rig::new(start.plus(HOUR + 10 * MINUTE));
    rig.setup.query.lookback = 2 * HOUR;
    deliver_every_20_s(&rig, start, start.plus(HOUR));
    // No page can be read in five minutes, and there is one at least.
    rig.setup.engine.page = 1;
    rig.setup.engine.pages_per_second = 0;
    let mut life = rig.start();
    rig.tick(&mut life).unwrap();
    assert_eq!(counted(&life), 180, "all the same");
    // One for each bucket but the last two, after which no more are due.
    assert_eq!(failures(&life, "truncated"), 21.0);
    rig.end(life);

    // Within what it gives, nothing is told.
    let (quiet, _) = rig_over_an_hour::<Settings>();
    let mut life = quiet.start();
    quiet.tick(&mut life).unwrap();
    assert_eq!(failures(&life, "truncated"), 0.0);
    quiet.end(life);
}

#[test]
fn whatever_goes_wrong_is_told_by_its_reason_and_counts_once_in_the_end() {
    let error = |status: u16, code: &str| json!({"error": {"status": status, "code": code, "message": "a fault"}});
    let faults: Vec<(u32, Value, &[&str])> = vec![
        (2, error(400, "ThrottlingException"), &[]),
        (3, error(400, "ThrottlingException"), &["throttled"]),
        (3, error(500, "InternalFailure"), &["connection"]),
        (3, json!({"reset": "before"}), &["connection"]),
        (1, json!({"garbage": true}), &["bad_answer"]),
        // The SDK sees that its clock is not the double's, and tries it again.
        (3, error(400, "AccessDeniedException"), &["access_denied"]),
        (1, error(400, "ExpiredTokenException"), &["credentials"]),
        (1, error(400, "InvalidTimeRangeException"), &["rejected"]),
    ];
    both_ways(|| {
        for (times, action, expected) in &faults {
            // At the first page, and in the middle of a bucket's pages.
            for skip in [1, 9] {
                let (mut rig, _) = rig_over_an_hour::<Settings>();
                rig.setup.engine.page = 4;
                let mut life = rig.start();
                let fault = json!([{"operation": "LookupEvents", "skip": skip, "times": times, "action": action}]);
                rig.double.post("faults", &fault);
                let reasons = tick_until_done(&rig, &mut life, 10);
                assert_eq!(&reasons, expected, "{action}");
                assert_eq!(counted(&life), 180, "{action}");
                rig.double.assert_sound();
                rig.end(life);
            }
        }
    });
}

#[test]
fn a_kill_at_any_page_loses_and_doubles_nothing() {
    for polls in [1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144] {
        let (mut rig, start) = rig_over_an_hour::<Settings>();
        rig.setup.engine.page = 4;
        let mut life = rig.start();
        if polls % 2 == 0 {
            // What was counted is read again as well.
            rig.tick(&mut life).unwrap();
            rig.set_clocks(start.plus(HOUR + 20 * MINUTE));
            let at = start.plus(HOUR - MINUTE);
            rig.deliver(at, &[aws::record("s3", "Late", "TLSv1.1", at)]);
        }
        let spared = queries::killed_after(&rig, life, polls);
        let mut life = spared.unwrap_or_else(|| rig.start());
        rig.tick(&mut life).unwrap();
        let expected = 180 + u64::from(polls % 2 == 0);
        assert_eq!(counted(&life), expected, "killed after {polls} moments");
        rig.end(life);
    }
}

#[test]
fn an_event_that_cannot_be_read_fails_its_bucket_and_loses_nothing() {
    let (rig, start) = rig_over_an_hour::<Settings>();
    let at = start.plus(32 * MINUTE);
    let mut record: Value = serde_json::from_str(&aws::record("s3", "Odd", "TLSv1.2", at)).unwrap();
    record.as_object_mut().unwrap().remove("eventSource");
    rig.deliver(at, &[record.to_string()]);
    let mut life = rig.start();
    assert_eq!(reason(rig.tick(&mut life)), "bad_answer");
    // All before its bucket is counted, and nothing of it.
    assert_eq!(counted(&life), 90);
    rig.end(life);
}

#[test]
fn two_requests_a_second_are_never_used_up() {
    let start = start_of_day();
    let mut rig = Rig::new(start.plus(20 * MINUTE));
    rig.double.switch(json!({"lookups_per_second": 2}));
    rig.setup.query.lookback = 15 * MINUTE;
    rig.setup.quota = Arc::new(Quota::event_history());
    deliver_every_20_s(&rig, start, start.plus(10 * MINUTE));
    let mut life = rig.start();
    rig.tick(&mut life).unwrap();
    let stats = rig.double.stats();
    let peaks = stats["peaks"]["cloudtrail:LookupEvents"]
        .as_object()
        .unwrap();
    let peak = peaks.values().map(|peak| peak.as_u64().unwrap()).max();
    support::tell(&format!(
        "LookupEvents: at most {} in a second",
        peak.unwrap()
    ));
    assert!(peak <= Some(2) && stats["errors"] == json!({}), "{stats}");
    rig.end(life);
}

#[test]
fn what_is_older_than_the_catch_up_limit_is_a_gap() {
    let (mut rig, start) = rig_over_an_hour::<Settings>();
    rig.setup.query.catch_up_limit = 12 * HOUR;
    let mut life = rig.start();
    rig.tick(&mut life).unwrap();
    assert_eq!(counted(&life), 180);
    rig.set_clocks(start.plus(2 * DAY));
    rig.tick(&mut life).unwrap();
    let scrape = life.scrape();
    let begin = start.plus(2 * DAY).minus(12 * HOUR);
    let history = "cloudtrail_tls_exporter_history_start_timestamp_seconds";
    assert_eq!(scrape.value(history, &[]), Some(begin.secs() as f64));
    let before = start.plus(HOUR + 5 * MINUTE);
    let skipped = "cloudtrail_tls_exporter_skipped_seconds_total";
    assert_eq!(
        scrape.value(skipped, &[]),
        Some(begin.since(before).as_secs() as f64)
    );
    rig.end(life);
}

#[test]
fn the_program_counts_the_history() {
    let double = aws::Double::start();
    double.switch(json!({"lookups_per_second": 100}));
    let at = Timestamp::now().minus(30 * MINUTE);
    let records =
        ["TLSv1.1", "TLSv1.2"].map(|version| aws::record("s3", "PutBucketPolicy", version, at));
    double.deliver(&Settings::place(), at, &records);
    let toml = "[[sources]]\nname = \"history\"\ntype = \"event_history\"\nlookback = \"40m\"\n";
    let scrape = double.scrape_of_the_program(toml, "both calls", |scrape| {
        scrape.sum("cloudtrail_tls_calls_total", &[]) >= 2.0
    });
    let outdated = [("aws_service", "s3"), ("source", "history")];
    assert_eq!(
        scrape.value("cloudtrail_tls_outdated_window_calls", &outdated),
        Some(1.0)
    );
    double.assert_sound();
}
