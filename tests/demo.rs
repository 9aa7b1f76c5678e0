//! `demo`, as the README's first command: the legacy caller is in the scrape, and nothing is left behind.

#[path = "support/programs.rs"]
mod programs;
mod support;

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use support::{BINARY, Scrape, request, wait_for};

const LEGACY: &str = "444455556666";
const DAY: f64 = 86_400.0;

/// A port that nobody had just now. `demo` tells its address before it binds it, so it must be named.
fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

/// Ends the program if a test fails in between.
struct Ended(Child);

impl Ended {
    /// All that it tells at its start.
    fn told(&mut self) -> String {
        let mut told = String::new();
        for line in BufReader::new(self.0.stdout.take().unwrap()).lines() {
            let line = line.unwrap() + "\n";
            told += &line;
            if line.contains("Ctrl-C") {
                return told;
            }
        }
        panic!("it ended: {told}");
    }
}

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

#[test]
fn the_legacy_caller_turns_up_and_control_c_leaves_nothing_behind() {
    let temporary = tempfile::tempdir().unwrap();
    let address = free_address();
    let child = Command::new(BINARY)
        .args(["demo", "--demo.legacy-after=3s", "--log.level=warn"])
        .arg(format!("--web.listen-address={address}"))
        .env("TMPDIR", temporary.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut demo = Ended(child);
    let started = Instant::now();
    let told = demo.told();
    assert!(
        told.contains(&format!("http://{address}/metrics\n")),
        "{told}"
    );
    assert!(told.contains(&format!("http://{address}/\n")), "{told}");
    let folders = || fs::read_dir(temporary.path()).unwrap().count();
    assert_eq!(folders(), 1, "all it has is in one folder");
    assert!(told.contains(temporary.path().to_str().unwrap()), "{told}");

    wait_for("the listener", || {
        std::net::TcpStream::connect(address).ok()
    });
    assert!(started.elapsed() < Duration::from_secs(20));
    // 503 until the stored totals are rendered.
    let scrape = || {
        let answer = wait_for("a scrape", || {
            let answer = request(address, "GET", "/metrics", &[]);
            (answer.status == 200).then_some(answer)
        });
        Scrape::parse(&answer.text())
    };
    let legacy = [
        ("source", "demo"),
        ("aws_service", "s3"),
        ("account_id", LEGACY),
    ];
    let outdated = "cloudtrail_tls_outdated_window_calls";
    let modern = wait_for("modern calls of all accounts", || {
        let scrape = scrape();
        let accounts = scrape.of("cloudtrail_tls_control_window_calls", &[]);
        (accounts.filter(|(_, calls)| *calls > 0.0).count() == 3).then_some(scrape)
    });
    assert!(
        modern.sum(
            "cloudtrail_tls_key_exchange_calls_total",
            &[("post_quantum", "yes")]
        ) > 0.0
    );
    let scrape = wait_for("the legacy caller", || {
        let scrape = scrape();
        scrape.value(outdated, &legacy).is_some().then_some(scrape)
    });

    let calls = scrape.value(outdated, &legacy).unwrap();
    assert!(calls >= 3.0, "{calls}");
    let version = [legacy[1], legacy[2], ("tls_version", "TLSv1.1")];
    assert_eq!(scrape.sum("cloudtrail_tls_window_calls", &version), calls);
    for event in ["GetObject", "PutObject"] {
        let version = [version[0], version[1], version[2], ("event_name", event)];
        assert!(scrape.value("cloudtrail_tls_window_calls", &version) > Some(0.0));
    }
    let callers = "cloudtrail_tls_outdated_caller_window_calls";
    let principal = format!("arn:aws:iam::{LEGACY}:role/payroll-batch");
    let caller = [
        legacy[0],
        legacy[1],
        legacy[2],
        ("principal", principal.as_str()),
    ];
    assert_eq!(scrape.sum(callers, &caller), calls);
    let mut agents = scrape
        .of(callers, &caller)
        .map(|(labels, _)| &labels["user_agent"]);
    assert!(agents.all(|agent| agent.starts_with("aws-sdk-java/1.7.4 ")));
    let accounts = scrape.of("cloudtrail_tls_account_outdated_window_calls", &[]);
    let by_account: Vec<(&str, f64)> = accounts
        .map(|(labels, value)| (labels["account_id"].as_str(), value))
        .collect();
    let expected = [
        ("111122223333", 0.0),
        (LEGACY, calls),
        ("777788889999", 0.0),
    ];
    assert_eq!(by_account, expected);

    let since = scrape
        .value("cloudtrail_tls_outdated_since_timestamp_seconds", &legacy)
        .unwrap();
    let start = scrape
        .value(
            "cloudtrail_tls_exporter_history_start_timestamp_seconds",
            &[],
        )
        .unwrap();
    assert!(since - start >= 7.0 * DAY, "a regression: {since} {start}");

    programs::run_well(
        Command::new("kill").args(["-INT", &demo.0.id().to_string()]),
        b"",
    );
    let stopping = Instant::now();
    let status = wait_for("the end", || demo.0.try_wait().unwrap());
    assert_eq!(status.code(), Some(0));
    assert!(stopping.elapsed() < Duration::from_secs(10));
    assert_eq!(folders(), 0, "the folder is gone");
}

#[test]
fn control_c_during_the_start_leaves_nothing_behind_either() {
    let temporary = tempfile::tempdir().unwrap();
    let mut demo = Ended(
        Command::new(BINARY)
            .args(["demo", "--web.listen-address=127.0.0.1:0"])
            .env("TMPDIR", temporary.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap(),
    );
    let folders = || fs::read_dir(temporary.path()).unwrap().count();
    wait_for("its folder", || (folders() == 1).then_some(()));
    programs::run_well(
        Command::new("kill").args(["-INT", &demo.0.id().to_string()]),
        b"",
    );
    wait_for("the end", || demo.0.try_wait().unwrap());
    assert_eq!(folders(), 0);
}

#[test]
fn the_address_that_it_tells_can_be_asked_as_it_stands() {
    let temporary = tempfile::tempdir().unwrap();
    let port = free_address().port();
    let child = Command::new(BINARY)
        .args(["demo", "--log.level=warn"])
        .arg(format!("--web.listen-address=:{port}"))
        .env("TMPDIR", temporary.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut demo = Ended(child);
    let told = demo.told();
    let url = told
        .lines()
        .find_map(|line| line.strip_prefix("Metrics:"))
        .unwrap()
        .trim();
    // Refused until it listens, 503 until the stored totals are rendered: curl tries again in both cases.
    let curl = [
        "-fsS",
        "--retry",
        "20",
        "--retry-delay",
        "1",
        "--retry-connrefused",
        url,
    ];
    let scrape = programs::run_well(Command::new("curl").args(curl), b"");
    assert!(scrape.contains("cloudtrail_tls_exporter_build_info"));
    programs::run_well(
        Command::new("kill").args(["-INT", &demo.0.id().to_string()]),
        b"",
    );
    wait_for("the end", || demo.0.try_wait().unwrap());
}
