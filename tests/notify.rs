//! What the running program tells a service manager over the socket of `NOTIFY_SOCKET`: this test is the service
//! manager. And what `/-/healthy` says when the store is stuck, which is what the watchdog goes by too.

#[path = "support/programs.rs"]
mod programs;
mod support;

use std::collections::HashMap;
use std::fs;
use std::io::{ErrorKind, Read};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use cloudtrail_tls_exporter::config::Config;
use cloudtrail_tls_exporter::exposition::Publisher;
use cloudtrail_tls_exporter::http::routes::App;
use cloudtrail_tls_exporter::metrics::Metrics;
use cloudtrail_tls_exporter::status::{STORE_LIMIT, Status};
use cloudtrail_tls_exporter::time::Timestamp;
use hyper::Request;
use programs::run_well;
use support::{BINARY, Exporter, PATIENCE, config, request, wait_for};

const READY: &str = "READY=1\nSTATUS=ready\n";
const REFUSED: &str =
    "READY=1\nSTATUS=not reloaded, see the log: the configuration before goes on\n";
const SHUT: &str = "READY=1\nSTATUS=not reloaded, see the log: the configuration before goes on, and nobody is let in \
                    until the web configuration is mended\n";
const STOPPING: &str = "STOPPING=1\nSTATUS=stopping\n";
const WATCHDOG: &str = "WATCHDOG=1\n";

/// The service manager's end of the socket.
struct Manager {
    home: tempfile::TempDir,
    socket: UnixDatagram,
}

impl Manager {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let socket = UnixDatagram::bind(home.path().join("notify")).unwrap();
        Self { home, socket }
    }

    fn path(&self) -> PathBuf {
        self.home.path().join("notify")
    }

    /// Starts the exporter as the service manager does, and waits until it listens.
    fn start(&self, config: &Path, environment: &[(&str, &str)]) -> Exporter {
        self.start_with(config, &[], environment)
    }

    /// With more arguments.
    fn start_with(&self, config: &Path, more: &[&str], environment: &[(&str, &str)]) -> Exporter {
        let socket = self.path();
        let socket = [("NOTIFY_SOCKET", socket.to_str().unwrap())];
        let arguments = ["--config.file", config.to_str().unwrap()];
        Exporter::start_in(
            &[&arguments, more].concat(),
            &[&socket[..], environment].concat(),
        )
    }

    /// The next message, unless there is none for so long.
    fn next_within(&self, limit: Duration) -> Option<String> {
        self.socket.set_read_timeout(Some(limit)).unwrap();
        let mut message = [0; 4096];
        match self.socket.recv(&mut message) {
            Ok(length) => Some(String::from_utf8(message[..length].to_vec()).unwrap()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => None,
            Err(error) => panic!("{error}"),
        }
    }

    fn next(&self) -> String {
        self.next_within(PATIENCE).expect("a message")
    }
}

/// Another program that keeps the database to itself until it is dropped: who opens it waits, for 5 s at most.
struct Holder(Child);

impl Holder {
    fn new(database: &Path) -> Self {
        let hold = "import sqlite3, sys\n\
                    connection = sqlite3.connect(sys.argv[1], isolation_level=None)\n\
                    connection.execute('PRAGMA locking_mode = EXCLUSIVE')\n\
                    connection.execute('BEGIN EXCLUSIVE')\nprint('held', flush=True)\nsys.stdin.read()";
        let mut child = Command::new("python3")
            .args(["-c", hold, database.to_str().unwrap()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut held = [0; 5];
        let stdout = child.stdout.as_mut().unwrap();
        stdout.read_exact(&mut held).unwrap();
        Self(child)
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        self.0.wait().unwrap();
    }
}

/// A program that runs another one, for which each write to the disk at `database` takes `time`.
fn slow_disk(database: &Path, time: Duration) -> Command {
    let mut command = Command::new("strace");
    command.args(["-D", "-I", "2", "-f", "-qq", "-o", "/dev/null"]);
    command.args(["-e", "trace=fsync,fdatasync", "-e"]);
    command.arg(format!(
        "inject=fsync,fdatasync:delay_enter={}",
        time.as_micros()
    ));
    for ending in ["", "-wal"] {
        command.args(["-P", &format!("{}{ending}", database.display())]);
    }
    command
}

fn monotonic_microseconds() -> u128 {
    let print = "import time; print(time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000)";
    let printed = run_well(Command::new("python3").args(["-c", print]), b"");
    printed.trim().parse().unwrap()
}

#[test]
fn it_is_ready_when_the_ready_path_says_so_and_stopping_is_the_last_word() {
    let manager = Manager::new();
    let config = config(manager.home.path(), manager.home.path(), "");
    let exporter = manager.start(&config, &[]);
    assert_eq!(manager.next(), READY);
    assert_eq!(exporter.get("/-/ready", &[]).status, 200);
    // Without a watchdog there is nothing more to say.
    let (status, _, log) = exporter.end_with("TERM");
    assert_eq!(status.code(), Some(0), "{log:#?}");
    assert_eq!(manager.next(), STOPPING);
    assert_eq!(manager.next_within(Duration::from_millis(1)), None);
}

#[test]
fn it_is_not_ready_before_the_store_is_loaded() {
    let manager = Manager::new();
    let config = config(manager.home.path(), manager.home.path(), "");
    drop(Exporter::start(&config));
    let holder = Holder::new(&manager.home.path().join("state.db"));
    let mut child = Command::new(BINARY)
        .args(["--config.file", config.to_str().unwrap()])
        .arg("--web.listen-address=127.0.0.1:0")
        .env("NOTIFY_SOCKET", manager.path())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    assert_eq!(manager.next_within(Duration::from_secs(2)), None);
    drop(holder);
    assert_eq!(manager.next(), READY);
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_reload_begins_and_ends_whoever_asked_and_however_it_went() {
    let manager = Manager::new();
    let config = config(manager.home.path(), manager.home.path(), "");
    let right = fs::read_to_string(&config).unwrap();
    let web = manager.home.path().join("web.yml");
    fs::write(&web, "").unwrap();
    let exporter = manager.start_with(&config, &["--web.config.file", web.to_str().unwrap()], &[]);
    assert_eq!(manager.next(), READY);
    let begins = |before: u128| {
        let message = manager.next();
        let time = message.strip_prefix("RELOADING=1\nMONOTONIC_USEC=");
        let time: u128 = time.expect(&message).trim_end().parse().unwrap();
        let after = monotonic_microseconds();
        assert!(
            (before..=after).contains(&time),
            "{before} {message} {after}"
        );
    };

    let before = monotonic_microseconds();
    exporter.signal("HUP");
    begins(before);
    assert_eq!(manager.next(), READY);

    fs::write(&config, right.clone() + "lookbak = \"1h\"\n").unwrap();
    let answer = request(exporter.address, "POST", "/-/reload", &[]);
    assert_eq!(answer.status, 500);
    begins(before);
    assert_eq!(manager.next(), REFUSED);
    assert_eq!(exporter.get("/-/ready", &[]).status, 200);

    fs::write(&config, right).unwrap();
    exporter.signal("HUP");
    begins(before);
    assert_eq!(manager.next(), READY);

    fs::write(&web, "{").unwrap();
    exporter.signal("HUP");
    begins(before);
    assert_eq!(manager.next(), SHUT);
}

#[test]
fn the_watchdog_is_fed_while_the_store_answers() {
    let manager = Manager::new();
    let config = config(manager.home.path(), manager.home.path(), "");
    let _exporter = manager.start(&config, &[("WATCHDOG_USEC", "1000000")]);
    assert_eq!(manager.next(), READY);
    for _ in 0..10 {
        assert_eq!(manager.next(), WATCHDOG);
    }
}

/// By `strace`, which lets the store wait for its disk.
#[test]
fn the_watchdog_is_not_fed_while_the_store_is_stuck() {
    let stuck = Duration::from_secs(3);
    let manager = Manager::new();
    let config = config(manager.home.path(), manager.home.path(), "");
    drop(Exporter::start(&config));
    let mut command = slow_disk(&manager.home.path().join("state.db"), stuck);
    command.env("NOTIFY_SOCKET", manager.path());
    command.env("WATCHDOG_USEC", "1000000");
    let exporter = Exporter::start_by(command, &config).unwrap();
    assert_eq!(manager.next(), READY);
    // Each scan ends with a commit; between two of them the store answers.
    for _ in 0..2 {
        wait_for("a time without a word", || {
            let word = manager.next_within(stuck * 2 / 3);
            (word.as_deref() != Some(WATCHDOG)).then(|| assert_eq!(word, None))
        });
        // The server goes on meanwhile: what it is asked does not go to the store.
        assert_eq!(exporter.get("/-/healthy", &[]).text(), "healthy\n");
        assert_eq!(manager.next(), WATCHDOG);
    }
}

#[test]
fn a_watchdog_of_another_process_is_left_alone() {
    let manager = Manager::new();
    let config = config(manager.home.path(), manager.home.path(), "");
    let environment = [("WATCHDOG_USEC", "1000"), ("WATCHDOG_PID", "1")];
    let exporter = manager.start(&config, &environment);
    assert_eq!(manager.next(), READY);
    exporter.wait_for_scans(1);
    let (status, ..) = exporter.end_with("INT");
    assert_eq!(status.code(), Some(0));
    assert_eq!(manager.next(), STOPPING);
}

#[test]
fn without_a_listener_the_log_says_so_and_the_program_goes_on() {
    let manager = Manager::new();
    let config = config(manager.home.path(), manager.home.path(), "");
    fs::remove_file(manager.path()).unwrap();
    let exporter = manager.start(&config, &[]);
    exporter.wait_for_ready();
    let told = |line: &String| line.contains("the service manager cannot be told");
    wait_for("the warning", || {
        exporter.log().iter().any(told).then_some(())
    });
}

#[test]
fn it_is_not_healthy_once_the_store_has_not_answered_for_five_minutes() {
    let home = tempfile::tempdir().unwrap();
    let config = config(home.path(), home.path(), "");
    let settings = Config::load(&config, HashMap::new()).unwrap().exposition;
    let metrics = Metrics::new().unwrap();
    let publisher = Publisher::start(settings, metrics.clone()).unwrap();
    let status = Status::default();
    let app = App::new(publisher, metrics, status.clone(), None, 1, Timestamp::now);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let healthy = || {
        let request = Request::get("/healthz").body(()).unwrap();
        runtime.block_on(app.answer(&request)).status().as_u16()
    };
    let ago = |time| Instant::now().checked_sub(time).unwrap();
    assert_eq!(healthy(), 200, "the start may take longer");
    status.store_answered(ago(STORE_LIMIT + Duration::from_secs(1)));
    assert_eq!(healthy(), 503);
    status.store_answered(ago(STORE_LIMIT / 2));
    assert_eq!(healthy(), 200);
}
