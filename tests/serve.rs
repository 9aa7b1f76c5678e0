//! The scrape through the whole program: compared with the golden files, in both formats and all encodings,
//! and over restarts. `UPDATE_GOLDEN=1` writes the golden files anew.

#[path = "support/handmade.rs"]
mod handmade;
#[path = "support/programs.rs"]
mod programs;
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use handmade::{GOLDEN_CALLS, LONG_WINDOW, ODD_NAME};
use programs::{OPEN_METRICS, TEXT, promtool_is_content, python, run_well, samples};
use support::{Exporter, config, wait_for};

/// What the clock, the machine or the build decides; every value of it becomes 1 in the golden files.
const VOLATILE: [&str; 11] = [
    "process_",
    "cloudtrail_tls_outdated_detected_timestamp_seconds",
    "cloudtrail_tls_exporter_batch_duration_seconds",
    "cloudtrail_tls_exporter_batches_total",
    "cloudtrail_tls_exporter_http_",
    "cloudtrail_tls_exporter_last_attempt_timestamp_seconds",
    "cloudtrail_tls_exporter_last_success_timestamp_seconds",
    "cloudtrail_tls_exporter_state_bytes",
    "cloudtrail_tls_exporter_state_last_write_timestamp_seconds",
    "cloudtrail_tls_exporter_watermark_timestamp_seconds",
    "cloudtrail_tls_exporter_build_info",
];

/// The golden trail and its configuration in a folder of their own.
struct Home {
    folder: tempfile::TempDir,
    config: PathBuf,
}

impl Home {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let trail = folder.path().join("trail");
        handmade::deliver_golden(&trail);
        let config = config(folder.path(), &trail, LONG_WINDOW);
        Self { folder, config }
    }

    /// Starts the exporter and asks it for nothing: which paths were asked for is in the scrape.
    fn start(&self) -> Exporter {
        let exporter = Exporter::start_with(&["--config.file", self.config.to_str().unwrap()]);
        wait_for("readiness", || {
            let log = exporter.log();
            log.iter()
                .any(|line| line.contains("message=ready"))
                .then_some(())
        });
        exporter
    }

    fn start_and_count(&self) -> Exporter {
        let exporter = self.start();
        exporter.scrape_until("all calls", |scrape| {
            (scrape.sum("cloudtrail_tls_calls_total", &[]) == GOLDEN_CALLS).then_some(())
        });
        exporter.wait_for_scans(2);
        exporter
    }
}

fn scrape(exporter: &Exporter, (_, accept): (&str, &str)) -> String {
    let answer = exporter.get("/metrics", &[("Accept", accept)]);
    assert_eq!(answer.status, 200);
    answer.text()
}

/// The part of a scrape that is about calls.
fn data_block(scrape: &str) -> &str {
    let (data, _) = scrape
        .split_once("# HELP cloudtrail_tls_exporter_")
        .unwrap();
    assert!(data.contains("cloudtrail_tls_calls"), "{data}");
    data
}

/// Every series of a scrape in its order, without values.
fn order(scrape: &str) -> Vec<&str> {
    let samples = scrape.lines().filter(|line| !line.starts_with('#'));
    let series = samples.map(|line| line.rsplit_once(' ').unwrap().0);
    // Which paths were asked for before is not the same after a restart.
    series.filter(|series| !series.contains("_http_")).collect()
}

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

/// What `urllib` gets: the body read as gzip of any number of members, and as one member alone.
const URLLIB: &str = r#"
import gzip, sys, urllib.request, zlib
request = urllib.request.Request(sys.argv[1], headers={"Accept-Encoding": "gzip", "Accept": sys.argv[2]})
with urllib.request.urlopen(request) as answer:
    assert answer.headers["Content-Encoding"] == "gzip", answer.headers
    body = answer.read()
one = zlib.decompressobj(wbits=31)
text = one.decompress(body)
assert one.eof and not one.unused_data, "not one member"
assert gzip.decompress(body) == text
sys.stdout.buffer.write(text)
"#;

#[test]
fn gzip_is_read_by_curl_and_python_and_is_the_same_text() {
    let home = Home::new();
    // Enough for many blocks of deflate, and more than its window of 32 KiB.
    handmade::deliver_many(&home.folder.path().join("trail"), 2000);
    let exporter = home.start();
    exporter.scrape_until("all calls", |scrape| {
        (scrape.sum("cloudtrail_tls_calls_total", &[]) >= 2000.0).then_some(())
    });
    exporter.wait_for_scans(2);
    let url = format!("http://{}/metrics", exporter.address);
    for format in [TEXT, OPEN_METRICS] {
        let plain = scrape(&exporter, format);
        assert!(plain.len() > 1_000_000, "{}", plain.len());
        let accept = format!("Accept: {}", format.1);
        let curl = ["-fsS", "--compressed", "-H", &accept, &url];
        let by_curl = run_well(Command::new("curl").args(curl), b"");
        let by_python = run_well(python().args(["-c", URLLIB, &url, format.1]), b"");
        for unpacked in [by_curl, by_python] {
            assert!(
                data_block(&unpacked) == data_block(&plain),
                "{}: other data",
                format.0
            );
            assert_eq!(order(&unpacked), order(&plain));
            samples(format.0, &unpacked);
        }
    }
}

#[test]
fn headers_tell_format_encoding_and_length_and_head_sends_no_body() {
    let home = Home::new();
    let exporter = home.start_and_count();
    let headers = |method, encoding| {
        let accept = [("Accept", OPEN_METRICS.1), ("Accept-Encoding", encoding)];
        let answer = support::request(exporter.address, method, "/metrics", &accept);
        assert_eq!(answer.status, 200);
        let length: usize = answer.header("content-length").parse().unwrap();
        match method {
            "HEAD" => assert!(answer.body.is_empty()),
            _ => assert_eq!(answer.body.len(), length),
        }
        let mut headers: BTreeMap<String, String> = answer.headers;
        headers.retain(|name, _| name != "date" && name != "content-length");
        (headers, length)
    };
    for encoding in ["gzip", "identity"] {
        let (of_get, length) = headers("GET", encoding);
        let (of_head, told) = headers("HEAD", encoding);
        assert_eq!(of_get, of_head);
        // The live block is another at each scrape.
        assert!(told.abs_diff(length) < 200, "{told} {length}");
        assert_eq!(of_get["vary"], "Accept, Accept-Encoding");
        assert_eq!(
            of_get["content-type"],
            "application/openmetrics-text; version=1.0.0; charset=utf-8"
        );
        assert_eq!(
            of_get.get("content-encoding").map(String::as_str),
            (encoding == "gzip").then_some("gzip")
        );
    }
    let (_, packed) = headers("GET", "gzip");
    let (_, plain) = headers("GET", "identity");
    assert!(packed * 2 < plain, "{packed} of {plain}");
    for path in ["/-/healthy", "/-/ready", "/nothing"] {
        let of = |method| support::request(exporter.address, method, path, &[]);
        let (get, head) = (of("GET"), of("HEAD"));
        assert_eq!((get.status, head.body.len()), (head.status, 0));
        assert_eq!(
            get.header("content-length"),
            head.header("content-length"),
            "{path}"
        );
        assert_eq!(get.header("content-length"), get.body.len().to_string());
    }
}
