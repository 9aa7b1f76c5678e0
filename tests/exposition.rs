//! The data block over a life of changes: what leaves the scrape, and what must not.

use std::sync::Arc;
use std::time::Duration;

use cloudtrail_tls_exporter::call::{CallKey, Name, Tally};
use cloudtrail_tls_exporter::exposition::negotiate::Format;
use cloudtrail_tls_exporter::exposition::{CallerSettings, Publisher, Settings};
use cloudtrail_tls_exporter::metrics::Metrics;
use cloudtrail_tls_exporter::time::Timestamp;
use cloudtrail_tls_exporter::tls::{KeyExchange, TlsVersion};
use cloudtrail_tls_exporter::totals::{Change, KeyChange};

const DAY: i64 = 86_400;

fn publisher() -> Publisher {
    let settings = Settings {
        minimum_version: TlsVersion::Tls12,
        window: Duration::from_secs(86_400),
        retention: Duration::from_secs(35 * 86_400),
        quiet_period: Duration::from_secs(7 * 86_400),
        series: Default::default(),
        callers: CallerSettings::default(),
    };
    Publisher::start(settings, Metrics::new().unwrap()).unwrap()
}

/// Calls of one kind by cipher suite, on a day.
fn calls(number: u32, tls_version: TlsVersion, cipher: &str, calls: u64, day: i64) -> KeyChange {
    let key = CallKey {
        aws_service: Name::new("s3"),
        event_name: Name::new("GetObject"),
        tls_version,
        cipher_suite: Name::new(cipher),
        key_exchange: KeyExchange::Unreported,
        account_id: Name::new("111122223333"),
        aws_region: Name::new("eu-west-1"),
    };
    let mut change = KeyChange::new(number, &Arc::new(key));
    let last = Timestamp::from_secs(day * DAY);
    change.add(last, Tally { calls, last });
    change
}

fn commit(publisher: &Publisher, keys: Vec<KeyChange>, day: i64) {
    publisher.change(Change {
        source: "a".into(),
        worker: 1,
        counted: true,
        watermark: Some(Timestamp::from_secs(day * DAY)),
        keys,
        runs: Vec::new(),
        callers: Vec::new(),
        window_moved: true,
    });
    publisher.settle();
}

/// The samples of a metric, without its name.
fn samples(publisher: &Publisher, name: &str) -> Vec<String> {
    let body = publisher.newest().body(&[], Format::Text, false).concat();
    let text = String::from_utf8(body).unwrap();
    text.lines()
        .filter_map(|line| line.strip_prefix(name))
        .map(str::to_owned)
        .collect()
}

#[test]
fn a_counter_keeps_the_calls_of_parts_that_are_idle_and_leaves_as_a_whole() {
    let publisher = publisher();
    let total = |value: &str| {
        let series = "{source=\"a\",aws_service=\"s3\",tls_version=\"TLSv1.2\",event_name=\"GetObject\",account_id=\"111122223333\"} ";
        vec![format!("{series}{value}")]
    };
    let old = calls(1, TlsVersion::Tls12, "OLD", 1000, 0);
    commit(
        &publisher,
        vec![old, calls(2, TlsVersion::Tls12, "NEW", 5, 0)],
        0,
    );
    assert_eq!(
        samples(&publisher, "cloudtrail_tls_calls_total"),
        total("1005")
    );
    commit(
        &publisher,
        vec![calls(2, TlsVersion::Tls12, "NEW", 1, 40)],
        40,
    );
    assert_eq!(
        samples(&publisher, "cloudtrail_tls_calls_total"),
        total("1006")
    );

    commit(&publisher, Vec::new(), 80);
    assert_eq!(
        samples(&publisher, "cloudtrail_tls_calls_total"),
        Vec::<String>::new()
    );
    commit(
        &publisher,
        vec![calls(1, TlsVersion::Tls12, "OLD", 1, 81)],
        81,
    );
    assert_eq!(
        samples(&publisher, "cloudtrail_tls_calls_total"),
        total("1007"),
        "it comes back at its old value"
    );
}

#[test]
fn outdated_gauges_stay_at_zero_and_modern_ones_vanish() {
    let publisher = publisher();
    let in_window = |mut change: KeyChange, calls| {
        change.window = calls;
        change
    };
    let outdated = calls(1, TlsVersion::Tls11, "X", 2, 0);
    let modern = calls(2, TlsVersion::Tls13, "Y", 3, 0);
    commit(
        &publisher,
        vec![in_window(outdated, 2), in_window(modern, 3)],
        0,
    );
    assert_eq!(samples(&publisher, "cloudtrail_tls_window_calls").len(), 2);

    let gone = |number, version, cipher, calls: i64| {
        let mut change = self::calls(number, version, cipher, 0, 0);
        change.window = -calls;
        change
    };
    let changes = vec![
        gone(1, TlsVersion::Tls11, "X", 2),
        gone(2, TlsVersion::Tls13, "Y", 3),
    ];
    commit(&publisher, changes, 2);
    let left = samples(&publisher, "cloudtrail_tls_window_calls");
    assert_eq!(left.len(), 1);
    assert!(
        left[0].contains("TLSv1.1") && left[0].ends_with(" 0"),
        "{left:?}"
    );
    let account = vec!["{source=\"a\",account_id=\"111122223333\"} 0".to_owned()];
    assert_eq!(
        samples(&publisher, "cloudtrail_tls_account_outdated_window_calls"),
        account
    );
    assert_eq!(
        samples(&publisher, "cloudtrail_tls_control_window_calls"),
        account
    );
}

/// A role or Region that is configured no more: what it counted stays counted, and nothing says that it is clean.
#[test]
fn a_worker_that_is_gone_has_counters_and_no_gauges() {
    let publisher = publisher();
    publisher.change(Change {
        source: "a".into(),
        worker: 2,
        counted: false,
        watermark: None,
        keys: vec![calls(1, TlsVersion::Tls11, "X", 2, 0)],
        runs: Vec::new(),
        callers: Vec::new(),
        window_moved: true,
    });
    commit(&publisher, Vec::new(), 1);
    assert_eq!(samples(&publisher, "cloudtrail_tls_calls_total").len(), 1);
    for gauge in [
        "window_calls",
        "account_outdated_window_calls",
        "outdated_window_calls",
        "control_window_calls",
        "account_newest_record_timestamp_seconds",
    ] {
        let samples = samples(&publisher, &format!("cloudtrail_tls_{gauge}{{"));
        assert_eq!(samples, Vec::<String>::new(), "{gauge}");
    }
}
