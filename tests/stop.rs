//! How the program ends: on a signal within seconds whatever hangs on it, and at once when its store cannot be
//! used.

#[path = "support/handmade.rs"]
mod handmade;
#[path = "support/programs.rs"]
mod programs;
mod support;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use handmade::LONG_WINDOW;
use programs::{run, run_well};
use support::{BINARY, Exporter, PATIENCE, config};

/// Far more than the limits in the program add up to; what is not bounded takes longer.
const SECONDS: Duration = Duration::from_secs(10);

/// Runs `serve` until it ends by itself; returns its exit code and what it wrote on stderr but for the log.
fn refusal(config: &Path) -> (Option<i32>, String) {
    let mut command = Command::new(BINARY);
    command.args(["--config.file", config.to_str().unwrap()]);
    command.args(["--web.listen-address=127.0.0.1:0", "--log.level=error"]);
    let output = run(&mut command, b"");
    (
        output.status.code(),
        String::from_utf8(output.stderr).unwrap(),
    )
}

fn sqlite(database: &Path, script: &str) -> String {
    let program = "import sqlite3, sys\nconnection = sqlite3.connect(sys.argv[1])\n\
                   rows = connection.execute(sys.argv[2]).fetchall()\nconnection.commit()\nprint(rows)";
    let arguments = ["-c", program, database.to_str().unwrap(), script];
    run_well(Command::new("python3").args(arguments), b"")
}

#[test]
fn both_signals_end_it_within_seconds_whatever_connections_are_open() {
    for signal in ["TERM", "INT"] {
        let home = tempfile::tempdir().unwrap();
        let trail = home.path().join("trail");
        handmade::deliver_many(&trail, 10_000);
        let config = config(home.path(), &trail, LONG_WINDOW);
        let exporter = Exporter::start(&config);
        exporter.scrape_until("all calls", |scrape| {
            (scrape.sum("cloudtrail_tls_calls_total", &[]) >= 10_000.0).then_some(())
        });
        let connect = |request: &str| {
            let mut stream = TcpStream::connect(exporter.address).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.write_all(request.as_bytes()).unwrap();
            stream
        };
        let mut idle = connect("GET /-/healthy HTTP/1.1\r\nHost: test\r\n\r\n");
        let mut stuck = connect("GET /metrics HTTP/1.1\r\nHost: test\r\n\r\n");
        for stream in [&mut idle, &mut stuck] {
            let mut start = [0; 15];
            stream.read_exact(&mut start).unwrap();
            assert_eq!(&start, b"HTTP/1.1 200 OK");
        }
        let half = connect("GET /metrics HTTP/1.1\r\n");
        let silent = connect("");

        let (status, took, log) = exporter.end_with(signal);
        assert_eq!(status.code(), Some(0), "{signal}: {log:#?}");
        assert!(took < SECONDS, "{signal} took {took:?}");
        let told = format!("message=stopping signal=SIG{signal}");
        assert!(log.iter().any(|line| line.contains(&told)), "{log:#?}");
        drop((idle, stuck, half, silent));

        let (status, took, _) = Exporter::start(&config).end_with(signal);
        assert_eq!(status.code(), Some(0));
        assert!(took < SECONDS, "idle, {signal} took {took:?}");
    }
}

/// A log file of 64 MB of JSON with one record; next to nothing as it lies on the disk.
fn deliver_slow_file(folder: &Path) {
    let mut file = GzEncoder::new(Vec::new(), Compression::best());
    let record =
        r#"{"eventTime":"2025-03-03T10:04:00Z","eventSource":"s3.amazonaws.com","padding":[0"#;
    write!(file, r#"{{"Records":[{record}"#).unwrap();
    let zeros = ",0".repeat(1 << 20);
    for _ in 0..32 {
        file.write_all(zeros.as_bytes()).unwrap();
    }
    write!(file, "]}}]}}").unwrap();
    let first = folder.join("0.json.gz");
    fs::write(&first, file.finish().unwrap()).unwrap();
    for number in 1..400 {
        fs::hard_link(&first, folder.join(format!("{number}.json.gz"))).unwrap();
    }
}

#[test]
fn a_signal_ends_it_within_seconds_while_many_files_are_read() {
    let home = tempfile::tempdir().unwrap();
    let trail = home.path().join("trail");
    fs::create_dir(&trail).unwrap();
    deliver_slow_file(&trail);
    let exporter = Exporter::start(&config(home.path(), &trail, LONG_WINDOW));
    // The first scan waits for the files to settle, the second reads them: minutes' worth.
    exporter.scrape_until("the first scan", |scrape| {
        (scrape.sum("cloudtrail_tls_exporter_batches_total", &[]) >= 1.0).then_some(())
    });
    thread::sleep(Duration::from_secs(3));
    let (status, took, log) = exporter.end_with("TERM");
    assert_eq!(status.code(), Some(0), "{log:#?}");
    assert!(took < SECONDS, "took {took:?}");
}

#[test]
fn a_signal_during_the_start_ends_it_in_good_order() {
    let home = tempfile::tempdir().unwrap();
    let config = config(home.path(), home.path(), "");
    drop(Exporter::start(&config));
    // Another program in the store makes the start take two seconds.
    let database = home.path().join("state.db");
    let hold = "import sqlite3, sys, time\nconnection = sqlite3.connect(sys.argv[1], isolation_level=None)\n\
                connection.execute('PRAGMA locking_mode = EXCLUSIVE')\nconnection.execute('BEGIN EXCLUSIVE')\n\
                print('held', flush=True)\ntime.sleep(2)";
    let mut holder = Command::new("python3")
        .args(["-c", hold, database.to_str().unwrap()])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut held = [0; 5];
    holder.stdout.take().unwrap().read_exact(&mut held).unwrap();
    let child = Command::new(BINARY)
        .args(["--config.file", config.to_str().unwrap()])
        .arg("--web.listen-address=127.0.0.1:0")
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    thread::sleep(Duration::from_millis(700));
    run_well(
        Command::new("kill").args(["-TERM", &child.id().to_string()]),
        b"",
    );
    let status = child.wait_with_output().unwrap().status;
    holder.wait().unwrap();
    assert_eq!(status.code(), Some(0), "{status}");
}

#[test]
fn a_second_exporter_on_the_same_store_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let config = config(home.path(), home.path(), "");
    let first = Exporter::start(&config);
    let database = home.path().join("state.db");
    let told = format!(
        "error: another exporter uses the store {}: two would count and pay twice; give each its own `state.path`\n",
        database.display()
    );
    assert_eq!(refusal(&config), (Some(1), told));
    assert_eq!(first.get("/metrics", &[]).status, 200);
    first.kill();
    drop(Exporter::start(&config));
}

/// The program refuses the store with a text that holds `hint`, and does not touch it.
fn refused(config: &Path, database: &Path, hint: &str) {
    let before = fs::read(database).unwrap();
    let (code, told) = refusal(config);
    assert_eq!(code, Some(1), "{hint}: {told}");
    assert!(
        told.starts_with("error: ") && told.contains(hint),
        "{hint}: {told}"
    );
    assert!(
        fs::read(database).unwrap() == before,
        "{hint}: the file was changed"
    );
}

#[test]
fn a_store_that_is_not_ours_stops_the_start_with_a_hint_and_is_left_alone() {
    let home = tempfile::tempdir().unwrap();
    let config = config(home.path(), home.path(), "");
    let database = home.path().join("state.db");
    let hint = "is no store of this program; move it away or set `state.path`";
    fs::write(&database, "garbage ".repeat(1000)).unwrap();
    refused(&config, &database, hint);
    fs::remove_file(&database).unwrap();
    sqlite(&database, "CREATE TABLE songs (name TEXT)");
    refused(&config, &database, hint);
}

#[test]
fn a_damaged_or_newer_store_stops_the_start_with_a_hint_and_is_left_alone() {
    let home = tempfile::tempdir().unwrap();
    let trail = home.path().join("trail");
    handmade::deliver_many(&trail, 2000);
    let config = config(home.path(), &trail, LONG_WINDOW);
    let database = home.path().join("state.db");
    let exporter = Exporter::start(&config);
    exporter.scrape_until("all calls", |scrape| {
        (scrape.sum("cloudtrail_tls_calls_total", &[]) >= 2000.0).then_some(())
    });
    let (status, ..) = exporter.end_with("TERM");
    assert_eq!(status.code(), Some(0));
    let whole = fs::read(&database).unwrap();

    sqlite(&database, "PRAGMA user_version = 99");
    let hint = "the store has schema version 99, this build knows 3: run the newer build";
    refused(&config, &database, hint);

    let hint = "restore it from a copy, or move it away to start anew";
    let mut broken = whole.clone();
    broken[4096..].fill(0xff);
    fs::write(&database, broken).unwrap();
    refused(&config, &database, hint);
    fs::write(&database, &whole[..whole.len() / 2]).unwrap();
    refused(&config, &database, hint);
}
