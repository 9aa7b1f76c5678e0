//! Other programs as judges of what the exporter says: promtool and Python.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test file uses its own part"
)]

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde::Deserialize;

/// The text format, as nobody asks for anything else.
pub const TEXT: (&str, &str) = ("text", "text/plain;version=0.0.4");
/// OpenMetrics, as Prometheus asks for it.
pub const OPEN_METRICS: (&str, &str) = (
    "openmetrics",
    "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5",
);

const HERE: &str = env!("CARGO_MANIFEST_DIR");

/// Longer than any of them needs.
const LIMIT: Duration = Duration::from_secs(120);

/// Runs a program to its end with `input` on its stdin.
pub fn run(command: &mut Command, input: &[u8]) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    // A program that ends before it has read all says why on stderr.
    let writer = thread::spawn(move || stdin.write_all(&input).ok());
    let stdout = all_of(child.stdout.take().unwrap());
    let stderr = all_of(child.stderr.take().unwrap());
    let started = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if started.elapsed() > LIMIT {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("{command:?} does not end");
        }
        thread::sleep(Duration::from_millis(5));
    };
    writer.join().unwrap();
    Output {
        status,
        stdout: stdout.join().unwrap(),
        stderr: stderr.join().unwrap(),
    }
}

fn all_of(mut pipe: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut all = Vec::new();
        pipe.read_to_end(&mut all).unwrap();
        all
    })
}

/// Runs a program that must succeed, and returns what it wrote.
pub fn run_well(command: &mut Command, input: &[u8]) -> String {
    let Output {
        status,
        stdout,
        stderr,
    } = run(command, input);
    let stderr = String::from_utf8_lossy(&stderr);
    assert!(status.success(), "{command:?}: {status}\n{stderr}");
    String::from_utf8(stdout).unwrap()
}

/// The Python of the tests' own environment, which `tests/run venv` makes if need be.
pub fn python() -> Command {
    static PYTHON: OnceLock<PathBuf> = OnceLock::new();
    let python = PYTHON.get_or_init(|| {
        run_well(Command::new(format!("{HERE}/tests/run")).arg("venv"), b"");
        Path::new(HERE).join("target/venv/bin/python")
    });
    Command::new(python)
}

/// Promtool has nothing to say against `scrape`, be it an error or advice.
pub fn promtool_is_content(scrape: &str) {
    let mut promtool = Command::new("promtool");
    let output = run(promtool.args(["check", "metrics"]), scrape.as_bytes());
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(
        output.status.success() && said.is_empty(),
        "{}: {said}",
        output.status
    );
}

/// A sample as Python's parser reads it.
#[derive(Clone, Debug, Deserialize, PartialEq)]
pub struct Sample {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub value: f64,
    /// The family's type.
    pub kind: String,
    /// The family's help.
    pub help: String,
}

impl Sample {
    /// Whether it is about calls, not about the exporter.
    pub fn is_data(&self) -> bool {
        self.name.starts_with("cloudtrail_tls_")
            && !self.name.starts_with("cloudtrail_tls_exporter_")
    }
}

/// The samples of a scrape in `format`, by Python's parser, in their order; no series may stand twice.
pub fn samples(format: &str, scrape: &str) -> Vec<Sample> {
    let script = format!("{HERE}/tests/support/read_metrics.py");
    let json = run_well(python().args([&script, format]), scrape.as_bytes());
    let samples: Vec<Sample> = serde_json::from_str(&json).unwrap();
    let mut seen = BTreeMap::new();
    for sample in &samples {
        let series = (&sample.name, &sample.labels);
        assert!(
            seen.insert(series, sample.value).is_none(),
            "twice: {series:?}"
        );
    }
    samples
}
