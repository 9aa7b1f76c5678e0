//! A source that fails: what was counted stays as it was, and the failure is told.

mod support;

use std::fs;

use cloudtrail_tls_exporter::time::Timestamp;
use support::made::{self, Made};
use support::{Exporter, config};

#[test]
fn gauges_keep_their_value_and_the_backlog_grows_until_the_source_is_back() {
    let home = tempfile::tempdir().unwrap();
    let trail = home.path().join("trail");
    let now = Timestamp::now();
    let records = [
        Made::new("s3", "GetObject", "TLSv1.1", now),
        Made::new("s3", "GetObject", "TLSv1.2", now),
    ];
    made::deliver(&made::path(&trail, now, "A"), &records);
    let exporter = Exporter::start(&config(home.path(), &trail, ""));
    let outdated = "cloudtrail_tls_account_outdated_window_calls";
    exporter.scrape_until("the calls", |scrape| {
        (scrape.value(outdated, &[]) == Some(1.0)).then_some(())
    });

    let away = home.path().join("away");
    fs::rename(&trail, &away).unwrap();
    let up = "cloudtrail_tls_exporter_source_up";
    let backlog = "cloudtrail_tls_exporter_backlog_seconds";
    let blind = exporter.scrape_until("the backlog", |scrape| {
        (scrape.value(up, &[]) == Some(0.0) && scrape.value(backlog, &[]) >= Some(3.0))
            .then(|| scrape.clone())
    });
    assert_eq!(blind.value(outdated, &[]), Some(1.0));
    let failures = [("reason", "not_found")];
    assert!(blind.sum("cloudtrail_tls_exporter_batch_failures_total", &failures) >= 3.0);
    let watermark = blind
        .value("cloudtrail_tls_exporter_watermark_timestamp_seconds", &[])
        .unwrap();

    fs::rename(&away, &trail).unwrap();
    let seen = exporter.scrape_until("the source", |scrape| {
        (scrape.value(up, &[]) == Some(1.0)).then(|| scrape.clone())
    });
    assert_eq!(seen.value(backlog, &[]), Some(0.0));
    assert_eq!(seen.value(outdated, &[]), Some(1.0));
    assert!(
        seen.value("cloudtrail_tls_exporter_watermark_timestamp_seconds", &[]) > Some(watermark)
    );
}
