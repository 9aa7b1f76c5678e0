//! Files to scrape, through the whole program: real trails, made ones, and every odd shape.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use support::{Exporter, Scrape, config, expected, shared};

const UNREADABLE: &str = "cloudtrail_tls_exporter_unreadable_files";
const DUPLICATES: &str = "cloudtrail_tls_exporter_deduplicated_calls_total";

/// The scrape once the folder is counted: nothing new in a whole scan after the files have settled.
fn counted(exporter: &Exporter) -> Scrape {
    exporter.scrape_until("the first success", |scrape| {
        let up = scrape.value("cloudtrail_tls_exporter_source_up", &[]);
        (up == Some(1.0) && scrape.sum("cloudtrail_tls_exporter_scanned_records_total", &[]) > 0.0)
            .then_some(())
    });
    exporter.wait_for_scans(2);
    exporter.scrape()
}

fn count(location: &Path, more: &str) -> Scrape {
    let home = tempfile::tempdir().unwrap();
    counted(&Exporter::start(&config(home.path(), location, more)))
}

#[test]
fn real_records_are_counted_as_jq_and_duckdb_count_them() {
    let Some(data) = shared("data/cloudtrail") else {
        return;
    };
    let scrape = count(&data, "exclude = [\"odd/**\"]");
    assert_eq!(scrape.calls(), expected(&data.join("expected_unique.tsv")));
    assert_eq!(
        scrape.sum("cloudtrail_tls_exporter_scanned_records_total", &[]),
        3159.0
    );
    assert_eq!(scrape.value(UNREADABLE, &[]), Some(0.0));

    let delivered = count(&data, "exclude = [\"odd/**\"]\ndeduplicate = false");
    assert_eq!(delivered.calls(), expected(&data.join("expected.tsv")));
}

#[test]
fn a_made_trail_with_duplicates_is_counted_exactly() {
    let (Some(data), Some(scale)) = (shared("data/cloudtrail"), shared("tools/scale.py")) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let trail = folder.path().join("trail");
    let made = Command::new("python3")
        .arg(scale)
        .args([
            "--templates",
            data.to_str().unwrap(),
            "--out",
            trail.to_str().unwrap(),
        ])
        .args([
            "--files",
            "120",
            "--records",
            "200",
            "--vary",
            "--dup",
            "0.2",
            "--kex",
            "X25519MLKEM768=0.4,x25519=0.4",
        ])
        .output()
        .unwrap();
    assert!(
        made.status.success(),
        "{}",
        String::from_utf8_lossy(&made.stderr)
    );
    let unique = expected(&trail.join("expected_unique.tsv"));
    let delivered = expected(&trail.join("expected.tsv"));
    assert!(unique.values().sum::<u64>() < delivered.values().sum::<u64>());

    let scrape = count(&trail, "");
    assert_eq!(scrape.calls(), unique);
    let duplicates = delivered.values().sum::<u64>() - unique.values().sum::<u64>();
    assert_eq!(scrape.value(DUPLICATES, &[]), Some(duplicates as f64));
    let by_exchange = scrape.sum("cloudtrail_tls_key_exchange_calls_total", &[]);
    assert_eq!(by_exchange, unique.values().sum::<u64>() as f64);
    assert!(
        scrape.sum(
            "cloudtrail_tls_key_exchange_calls_total",
            &[("post_quantum", "yes")]
        ) > 0.0
    );

    assert_eq!(count(&trail, "deduplicate = false").calls(), delivered);
}

/// What each file of `odd/` comes to: its calls (as in `expected_odd.tsv`), or a reason.
#[test]
fn every_odd_shape_is_counted_whole_or_named_with_its_reason() {
    let Some(odd) = shared("data/cloudtrail/odd") else {
        return;
    };
    let home = tempfile::tempdir().unwrap();
    let exporter = Exporter::start(&config(home.path(), &odd, "deduplicate = false"));
    let scrape = counted(&exporter);

    let refused = [
        (
            "json-lines-logstash-no-eventTime.json",
            "record 1 has no `eventTime`",
        ),
        ("made-here/empty-file.json.gz", "the file is empty"),
        (
            "made-here/truncated.json.gz",
            "the gzip data are broken or cut off",
        ),
    ];
    let mut expected: BTreeMap<[String; 3], u64> = BTreeMap::new();
    for line in fs::read_to_string(odd.join("expected_odd.tsv"))
        .unwrap()
        .lines()
        .skip(1)
    {
        let [file, source, version, event, count] =
            line.split('\t').collect::<Vec<_>>().try_into().unwrap();
        if refused.iter().all(|(name, _)| *name != file) {
            let version = if version.is_empty() { "none" } else { version };
            let key = [
                source.strip_suffix(".amazonaws.com").unwrap(),
                version,
                event,
            ]
            .map(str::to_owned);
            *expected.entry(key).or_default() += count.parse::<u64>().unwrap();
        }
    }
    assert_eq!(scrape.calls(), expected);
    assert_eq!(scrape.value(UNREADABLE, &[]), Some(refused.len() as f64));
    let failures = |reason| {
        scrape.sum(
            "cloudtrail_tls_exporter_batch_failures_total",
            &[("reason", reason)],
        )
    };
    assert_eq!(failures("unreadable"), refused.len() as f64);
    let log = exporter.log();
    for (name, reason) in refused {
        let told = |line: &&String| {
            line.contains(name) && line.contains(reason) && line.contains("level=warn")
        };
        assert_eq!(log.iter().filter(told).count(), 1, "{name}: {log:#?}");
    }

    let partial = [("aws_service", "health"), ("key_exchange", "unreported")];
    assert_eq!(
        scrape.sum("cloudtrail_tls_key_exchange_calls_total", &partial),
        1.0
    );
}

#[test]
fn a_file_delivered_twice_counts_once() {
    let Some(odd) = shared("data/cloudtrail/odd/made-here") else {
        return;
    };
    let scrape = count(
        &odd,
        "include = [\"two-gzip-members.json.gz\", \"duplicate-delivery/**\"]",
    );
    assert_eq!(scrape.calls().values().sum::<u64>(), 29);
    assert_eq!(scrape.value(DUPLICATES, &[]), Some(29.0));
}
