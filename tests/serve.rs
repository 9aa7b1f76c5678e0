//! The scrape through the whole program: compared with the golden files, in both formats, and over restarts.
//! `UPDATE_GOLDEN=1` writes the golden files anew.

#[path = "support/golden.rs"]
mod golden;
#[path = "support/handmade.rs"]
mod handmade;
#[path = "support/programs.rs"]
mod programs;
mod support;

use std::collections::BTreeSet;
use std::path::Path;
use std::{env, fs};

use golden::{Home, data_block, order, scrape};
use handmade::ODD_NAME;
use programs::{OPEN_METRICS, TEXT, promtool_is_content, samples};

/// What the clock, the machine or the build decides; every value of it becomes 1 in the golden files.
const VOLATILE: [&str; 12] = [
    "process_",
    "cloudtrail_tls_outdated_detected_timestamp_seconds",
    "cloudtrail_tls_exporter_batch_duration_seconds",
    "cloudtrail_tls_exporter_config_last_reload_success_timestamp_seconds",
    "cloudtrail_tls_exporter_batches_total",
    "cloudtrail_tls_exporter_http_",
    "cloudtrail_tls_exporter_last_attempt_timestamp_seconds",
    "cloudtrail_tls_exporter_last_success_timestamp_seconds",
    "cloudtrail_tls_exporter_state_bytes",
    "cloudtrail_tls_exporter_state_last_write_timestamp_seconds",
    "cloudtrail_tls_exporter_watermark_timestamp_seconds",
    "cloudtrail_tls_exporter_build_info",
];

/// A scrape with a 1 for every volatile value, and without the build's version.
fn steady(scrape: &str) -> String {
    let mut steady = String::new();
    for line in scrape.lines() {
        let volatile = VOLATILE.iter().any(|start| line.starts_with(start));
        match line.rsplit_once(' ') {
            Some((series, _)) if line.starts_with("cloudtrail_tls_exporter_build_info") => {
                let labels: Vec<&str> = series.split('"').collect();
                let [before, _, first, _, second, _, after] = labels[..] else {
                    panic!("{line}");
                };
                steady +=
                    &format!("{before}\"REVISION\"{first}\"RUSTC\"{second}\"VERSION\"{after} 1\n");
            }
            Some((series, _)) if volatile => steady += &format!("{series} 1\n"),
            _ => steady += &format!("{line}\n"),
        }
    }
    steady
}

#[test]
fn the_whole_scrape_is_as_the_golden_files_say() {
    let home = Home::new();
    let exporter = home.start_and_count();
    for (format, file) in [
        (TEXT, "metrics.prom"),
        (OPEN_METRICS, "metrics.openmetrics"),
    ] {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/golden")
            .join(file);
        let found = scrape(&exporter, format);
        let steady = steady(&found);
        if env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&golden, &steady).unwrap();
        }
        let expected = fs::read_to_string(&golden).unwrap_or_default();
        let differences: Vec<String> = steady
            .lines()
            .zip(expected.lines().chain(std::iter::repeat("(nothing)")))
            .filter(|(found, expected)| found != expected)
            .map(|(found, expected)| format!("- {expected}\n+ {found}"))
            .take(5)
            .collect();
        assert!(
            steady == expected,
            "{file}: UPDATE_GOLDEN=1 rewrites it\n{}",
            differences.join("\n")
        );
        for text in [&found, &steady] {
            assert!(!samples(format.0, text).is_empty());
        }
        if format == TEXT {
            promtool_is_content(&found);
            promtool_is_content(&steady);
        }
    }
}

#[test]
fn both_formats_carry_the_same_samples() {
    let home = Home::new();
    let exporter = home.start_and_count();
    let [text, open_metrics] =
        [TEXT, OPEN_METRICS].map(|format| samples(format.0, &scrape(&exporter, format)));
    assert_eq!(text.len(), open_metrics.len());
    for (mut one, mut other) in text.iter().cloned().zip(open_metrics) {
        for sample in [&mut one, &mut other] {
            if !sample.is_data() {
                sample.value = 1.0;
            }
            // OpenMetrics writes the bounds of buckets as floats: `1.0` for `1`.
            if let Some(bound) = sample.labels.get_mut("le") {
                *bound = bound.strip_suffix(".0").unwrap_or(bound).to_owned();
            }
        }
        assert_eq!(one, other);
    }

    let names: BTreeSet<&str> = text
        .iter()
        .filter_map(|sample| sample.labels.get("event_name"))
        .map(String::as_str)
        .collect();
    assert!(names.contains(ODD_NAME), "{names:?}");
    let longest = names.iter().max_by_key(|name| name.len()).unwrap();
    assert_eq!(longest.len(), 199, "cut before the é: {longest}");
    for sample in text.iter().filter(|sample| sample.is_data()) {
        assert_eq!(sample.labels["source"], "trail", "{sample:?}");
    }
}

#[test]
fn series_keep_their_order_and_their_values_over_scrapes_and_kills() {
    let home = Home::new();
    let exporter = home.start_and_count();
    let before = scrape(&exporter, TEXT);
    assert_eq!(order(&before), order(&scrape(&exporter, TEXT)));
    exporter.kill();

    let exporter = home.start();
    let first = scrape(&exporter, TEXT);
    assert_eq!(data_block(&first), data_block(&before));
    exporter.wait_for_scans(2);
    let later = scrape(&exporter, TEXT);
    assert_eq!(data_block(&later), data_block(&before));
    assert_eq!(order(&later), order(&before));
    exporter.kill();

    // Nothing can be read any more: what is shown was stored.
    fs::rename(
        home.folder.path().join("trail"),
        home.folder.path().join("away"),
    )
    .unwrap();
    let exporter = home.start();
    let blind = scrape(&exporter, TEXT);
    assert_eq!(data_block(&blind), data_block(&before));
    exporter.scrape_until("the failure", |scrape| {
        let failures = [("reason", "not_found")];
        let found = scrape.sum("cloudtrail_tls_exporter_batch_failures_total", &failures);
        assert_eq!(
            scrape.value("cloudtrail_tls_exporter_source_up", &[]),
            Some(0.0)
        );
        (found >= 2.0).then_some(())
    });
    assert_eq!(
        data_block(&scrape(&exporter, TEXT)),
        data_block(&before),
        "going blind changes no gauge"
    );
}

#[test]
fn the_first_scrape_after_readiness_has_all_of_a_large_store() {
    const MANY: u32 = 20_000;
    let home = Home::new();
    handmade::deliver_many(&home.folder.path().join("trail"), MANY);
    let all = |scrape: &support::Scrape| scrape.sum("cloudtrail_tls_calls_total", &[]);
    let exporter = home.start();
    exporter.scrape_until("all calls", |scrape| {
        (all(scrape) > f64::from(MANY)).then_some(())
    });
    exporter.kill();
    assert!(all(&home.start().scrape()) > f64::from(MANY));
}
