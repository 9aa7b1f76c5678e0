//! What is over leaves the scrape by itself, though nothing is called any more.

mod support;

use std::fs;

use cloudtrail_tls_exporter::time::Timestamp;
use serde_json::json;
use support::{Exporter, config};

#[test]
fn a_run_that_is_over_and_a_series_that_is_idle_leave_a_silent_scrape() {
    let home = tempfile::tempdir().unwrap();
    let trail = home.path().join("trail");
    fs::create_dir(&trail).unwrap();
    let settings =
        "[window]\nlength = \"10s\"\nbucket = \"10s\"\n[regression]\nquiet_period = \"20s\"";
    let config = config(home.path(), &trail, settings);
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replace("9999d", "30s")).unwrap();
    let record = json!({
        "eventTime": Timestamp::now().to_string(),
        "eventSource": "s3.amazonaws.com",
        "eventName": "GetObject",
        "eventID": "the only one",
        "recipientAccountId": "111122223333",
        "tlsDetails": {"tlsVersion": "TLSv1.1"},
    });
    // Without a time in the name, the delivery is the second of the record.
    fs::write(trail.join("one.json"), record.to_string()).unwrap();

    let exporter = Exporter::start(&config);
    let since = "cloudtrail_tls_outdated_since_timestamp_seconds";
    let watermark = |scrape: &support::Scrape| {
        let watermark = "cloudtrail_tls_exporter_watermark_timestamp_seconds";
        scrape.value(watermark, &[]).unwrap()
    };
    let run = exporter.scrape_until("the run", |scrape| scrape.value(since, &[]));
    // Two scans more than the time that is over, for the rendering.
    let over = exporter.scrape_until("the end of the quiet period", |scrape| {
        (watermark(scrape) > run + 22.0).then(|| scrape.clone())
    });
    assert_eq!(over.value(since, &[]), None, "the run is over");
    assert_eq!(over.value("cloudtrail_tls_calls_total", &[]), Some(1.0));
    let over = exporter.scrape_until("the end of the retention", |scrape| {
        (watermark(scrape) > run + 42.0).then(|| scrape.clone())
    });
    assert_eq!(over.value("cloudtrail_tls_calls_total", &[]), None, "idle");
}
