//! Garbage from without, against the program as a whole: files of a trail, rows of the store, and what comes in over
//! HTTP. No panic, no hang, bounded memory; what is right is still counted and served. Answers of AWS, stored progress
//! and the configuration have the same beside their readers.

mod support;

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, Instant};

use cloudtrail_tls_exporter::batch::{Batch, ProgressChange};
use cloudtrail_tls_exporter::call::{CallKey, Caller, Name, Tally};
use cloudtrail_tls_exporter::source::trail_files::{Choice, FilesProgress, Settings, TrailFiles};
use cloudtrail_tls_exporter::source::{Progress, Reason, Source};
use cloudtrail_tls_exporter::store::{self, Store, StoreError, WorkerName};
use cloudtrail_tls_exporter::time::Timestamp;
use cloudtrail_tls_exporter::tls::{KeyExchange, TlsVersion};
use cloudtrail_tls_exporter::window::Window;
use flate2::Compression;
use flate2::write::GzEncoder;
use proptest::prelude::*;
use rusqlite::types::Value;
use support::made::{self, Made};
use support::{ASKED_CALLERS, CALLER_LABELS, Exporter, config};

const NOW: i64 = 1_781_092_800;
const DAY: Duration = Duration::from_secs(86_400);

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
}

fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

/// Bytes, often such as a reader of gzip or JSON goes on with.
fn content() -> impl Strategy<Value = Vec<u8>> {
    let right = made::content(&[Made::new(
        "s3",
        "GetObject",
        "TLSv1.2",
        Timestamp::from_secs(NOW),
    )]);
    let bytes = prop::collection::vec(any::<u8>(), 0..200);
    let json = r#"([\[\]{},:"\\ ]|null|1e|é|"Records"|"eventTime"|"2026-06-01T10:00:00Z"|"eventSource"){0,60}"#;
    let damaged = (
        Just(right.clone()),
        any::<prop::sample::Index>(),
        any::<u8>(),
    );
    prop_oneof![
        bytes.clone(),
        bytes.prop_map(|bytes| [&[0x1f, 0x8b, 8][..], &bytes].concat()),
        json.prop_map(|text| gzip(text.as_bytes())),
        json.prop_map(String::into_bytes),
        damaged.clone().prop_map(|(mut bytes, at, byte)| {
            let at = at.index(bytes.len());
            bytes[at] = byte;
            bytes
        }),
        damaged.prop_map(|(bytes, at, _)| bytes[..at.index(bytes.len())].to_vec()),
        Just([right.clone(), right].concat()),
    ]
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut file = GzEncoder::new(Vec::new(), Compression::fast());
    file.write_all(bytes).unwrap();
    file.finish().unwrap()
}

/// Scans a folder twice, so that all in it is read. The calls counted, and why files were not.
fn scan(folder: &Path) -> (u64, Vec<Reason>) {
    let mut source = TrailFiles::new(Settings {
        location: folder.to_owned(),
        choice: Choice::default(),
        deduplicate: true,
        lookback: DAY,
        retention: 35 * DAY,
        bucket: Duration::from_secs(300),
        callers: ASKED_CALLERS,
    });
    let mut progress = FilesProgress::default();
    let (mut calls, mut reasons) = (0, Vec::new());
    for _ in 0..2 {
        let next = |source: &mut TrailFiles, progress: &FilesProgress| {
            let now = Timestamp::from_secs(NOW);
            runtime()
                .block_on(source.next_batch(progress, now))
                .unwrap()
        };
        while let Some(batch) = next(&mut source, &progress) {
            for change in &batch.progress {
                progress.apply(change).unwrap();
            }
            calls += batch.counts.calls();
            reasons.extend(batch.rejected.iter().map(|rejected| rejected.reason));
        }
    }
    (calls, reasons)
}

proptest! {
    #![proptest_config(cases(200))]
    #[test]
    fn files_of_any_content_are_rejected_or_counted_and_stop_no_other(
        files in prop::collection::vec((content(), any::<bool>()), 1..12),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let path = |unique: &str| made::path(folder.path(), Timestamp::from_secs(NOW - 600), unique);
        let right = Made::new("kms", "Decrypt", "TLSv1.3", Timestamp::from_secs(NOW - 700));
        made::deliver(&path("right"), &[right]);
        for (number, (content, compressed)) in files.iter().enumerate() {
            let path = path(&format!("{number}"));
            let path = if *compressed { path } else { path.with_extension("") };
            fs::write(path, content).unwrap();
        }
        let (calls, reasons) = scan(folder.path());
        prop_assert!(calls >= 1);
        prop_assert!(reasons.len() <= files.len());
        prop_assert!(reasons.iter().all(|reason| *reason == Reason::Unreadable), "{:?}", reasons);
    }
}

/// Of a member that nobody counts by, of `Records`, of the text as a whole.
#[test]
fn depth_and_length_in_json_are_no_matter() {
    let folder = tempfile::tempdir().unwrap();
    let record = |more: &str| {
        format!(
            r#"{{"eventTime":"2026-06-10T11:50:00Z","eventSource":"s3.amazonaws.com",{more}"eventName":"X"}}"#
        )
    };
    let (open, close) = ("[".repeat(100_000), "]".repeat(100_000));
    let objects = format!("{}1{}", r#"{"a":"#.repeat(100_000), "}".repeat(100_000));
    for (unique, text) in [
        (
            "deep",
            record(&format!(r#""requestParameters":{open}{close},"#)),
        ),
        (
            "objects",
            record(&format!(r#""requestParameters":{objects},"#)),
        ),
        (
            "long",
            record(&format!(
                r#""requestParameters":"{}","#,
                "\\\\".repeat(1 << 20)
            )),
        ),
        ("cut", record(&format!(r#""requestParameters":{open},"#))),
        ("lists", format!(r#"{{"Records":{open}{close}}}"#)),
        ("bare", open),
        ("text", format!(r#"{{"{}":"#, "a".repeat(1 << 20))),
    ] {
        let path = made::path(folder.path(), Timestamp::from_secs(NOW - 600), unique);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, gzip(text.as_bytes())).unwrap();
    }
    let started = Instant::now();
    assert_eq!(scan(folder.path()), (3, vec![Reason::Unreadable; 4]));
    assert!(started.elapsed() < Duration::from_secs(20));
}

/// Files of kilobytes that would be 200 MB each, the size that they tell of themselves right, wrong, or hidden behind
/// a second member; read by the program, whose memory is measured.
#[test]
fn files_that_unpack_to_much_more_take_turns_and_no_more_memory_than_one() {
    let home = tempfile::tempdir().unwrap();
    let trail = home.path().join("trail");
    let now = Timestamp::now();
    let mut bomb = GzEncoder::new(Vec::new(), Compression::best());
    for _ in 0..200 {
        bomb.write_all(&[b' '; 1 << 20]).unwrap();
    }
    let bomb = bomb.finish().unwrap();
    let mut lying = bomb.clone();
    let trailer = lying.len() - 4;
    lying[trailer..].copy_from_slice(&1000_u32.to_le_bytes());
    let several = [gzip(b"{}"), bomb.clone(), gzip(b" ")].concat();
    let endless = [several.as_slice(), &bomb, &bomb].concat();
    let path = |unique: &str| made::path(&trail, now, unique);
    made::deliver(
        &path("right"),
        &[Made::new("s3", "GetObject", "TLSv1.2", now)],
    );
    for number in 0..3 {
        for (kind, content) in [
            ("told", &bomb),
            ("lying", &lying),
            ("several", &several),
            ("endless", &endless),
        ] {
            fs::write(path(&format!("{kind}{number}")), content).unwrap();
        }
    }
    let exporter = Exporter::start(&config(home.path(), &trail, ""));
    exporter.scrape_until("the unreadable files", |scrape| {
        let files = scrape.sum("cloudtrail_tls_exporter_unreadable_files", &[]);
        (files == 12.0 && scrape.calls().len() == 1).then_some(())
    });
    let status = fs::read_to_string(format!("/proc/{}/status", exporter.pid())).unwrap();
    let peak = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .unwrap();
    let peak: u64 = peak.trim().strip_suffix(" kB").unwrap().parse().unwrap();
    assert!(peak < 400 << 10, "{} MiB", peak >> 10);
}

fn settings(path: &Path) -> store::Settings {
    store::Settings {
        path: Some(path.to_owned()),
        retention: 35 * DAY,
        window: DAY,
        bucket: Duration::from_secs(300),
        minimum_version: TlsVersion::Tls12,
        quiet_period: 7 * DAY,
        series: Default::default(),
        callers: CALLER_LABELS,
    }
}

/// Calls of three keys in three buckets, from `minutes` before now.
fn batch(minutes: i64) -> Batch {
    let mut batch = Batch {
        progress: vec![ProgressChange::put("scan", "{}")],
        covered: Some(Window {
            from: Timestamp::from_secs(NOW - minutes * 60),
            to: Timestamp::from_secs(NOW - (minutes - 15) * 60),
        }),
        ..Batch::default()
    };
    for number in 0..9 {
        let key = CallKey {
            aws_service: Name::new("s3"),
            event_name: Name::new(["GetObject", "PutObject", "ListBuckets"][number % 3]),
            tls_version: TlsVersion::Tls11,
            cipher_suite: Name::new("X"),
            key_exchange: KeyExchange::None,
            account_id: Name::new("111122223333"),
            aws_region: Name::new("eu-west-1"),
        };
        let bucket = Timestamp::from_secs(NOW - minutes * 60 + 300 * (number as i64 / 3));
        let tally = Tally {
            calls: 7,
            last: bucket,
        };
        let caller = Caller {
            aws_service: key.aws_service.clone(),
            event_name: key.event_name.clone(),
            tls_version: key.tls_version,
            account_id: key.account_id.clone(),
            principal: Name::new("arn:aws:iam::111122223333:role/batch"),
            user_agent: Name::new(["old", "older"][number % 2]),
            source_ip: Name::new(""),
        };
        batch.counts.add(bucket, &Arc::new(key), tally);
        batch.callers.add(bucket, &Arc::new(caller), 7);
    }
    batch
}

/// Opens the store, loads its worker and commits a batch. The calls that the load told of.
fn use_store(path: &Path, batch: Batch) -> Result<u64, StoreError> {
    let told = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&told);
    let name = WorkerName {
        source: "a".into(),
        source_type: "scripted",
        account: String::new(),
        region: String::new(),
    };
    runtime().block_on(async {
        let store = Store::open(settings(path), move |change| {
            kept.lock().unwrap().push(change)
        })?;
        let outcome = async {
            let worker = store.worker(name, Timestamp::from_secs(NOW)).await?;
            let calls = told
                .lock()
                .unwrap()
                .iter()
                .flat_map(|change| &change.keys)
                .map(|key| key.calls)
                .sum();
            store
                .commit(worker.id, Arc::new(batch), Timestamp::from_secs(NOW))
                .await?;
            Ok(calls)
        };
        let outcome = outcome.await;
        store.close().await;
        outcome
    })
}

/// The bytes of a store of two batches.
fn stored() -> Vec<u8> {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("state.db");
    use_store(&path, batch(60)).unwrap();
    use_store(&path, batch(45)).unwrap();
    fs::read(path).unwrap()
}

static STORED: LazyLock<Vec<u8>> = LazyLock::new(stored);

/// What SQLite may hold in any column, whatever was declared.
fn cell() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<i64>().prop_map(Value::Integer),
        (-3_i64..3).prop_map(Value::Integer),
        any::<f64>().prop_map(Value::Real),
        ".{0,9}".prop_map(Value::Text),
        prop::collection::vec(any::<u8>(), 0..40).prop_map(Value::Blob),
        (0..4_u8, prop::collection::vec(any::<u8>(), 0..40))
            .prop_map(|(pairs, bytes)| Value::Blob([vec![pairs], bytes].concat())),
    ]
}

proptest! {
    #![proptest_config(cases(150))]
    #[test]
    fn rows_of_any_kind_are_damage_or_read(
        changes in prop::collection::vec((prop::sample::select(vec![
            ("counts", "calls"), ("counts", "calls"), ("counts", "bucket"), ("totals", "calls"), ("totals", "key"),
            ("totals", "last_call"), ("totals", "last_bucket"), ("workers", "watermark"), ("workers", "history_start"),
            ("keys", "id"), ("keys", "tls_version"), ("keys", "key_exchange"), ("keys", "event_name"), ("runs", "since"),
            ("runs", "last"), ("runs", "event_name"), ("progress", "key"), ("progress", "value"), ("settings", "value"),
            ("admissions", "label_set"), ("admissions", "rung"),
            ("callers", "number"), ("callers", "tls_version"), ("callers", "user_agent"), ("callers", "event_name"),
            ("caller_counts", "bucket"), ("caller_counts", "calls"), ("caller_counts", "calls"),
        ]), cell()), 1..3),
    ) {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("state.db");
        fs::write(&path, &*STORED).unwrap();
        let database = rusqlite::Connection::open(&path).unwrap();
        for ((table, column), value) in &changes {
            // One row of it; SQLite refuses what no file could hold there.
            let limit = format!("SELECT min({column}) FROM {table}");
            let change = format!("UPDATE OR IGNORE {table} SET {column} = ?1 WHERE {column} = ({limit})");
            database.execute(&change, [value]).ok();
        }
        drop(database);
        if let Err(error) = use_store(&path, batch(30)) {
            let grid = matches!(error, StoreError::FinerGrid { .. });
            prop_assert!(matches!(error, StoreError::Damaged(_)) || grid, "{:?}", error);
        }
    }

    /// SQLite has no checksums: what lies within a value is found by what it says. Whatever is accepted is not empty.
    #[test]
    fn files_with_bytes_of_any_kind_are_refused_or_read(
        writes in prop::collection::vec((any::<prop::sample::Index>(), prop::collection::vec(any::<u8>(), 1..64)), 1..4),
        end in prop::option::weighted(0.2, any::<prop::sample::Index>()),
    ) {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("state.db");
        let mut bytes = STORED.clone();
        for (at, written) in &writes {
            let at = at.index(bytes.len());
            let length = written.len().min(bytes.len() - at);
            bytes[at..at + length].copy_from_slice(&written[..length]);
        }
        if let Some(end) = end {
            bytes.truncate(end.index(bytes.len()));
        }
        fs::write(&path, &bytes).unwrap();
        match use_store(&path, batch(30)) {
            Ok(calls) => prop_assert!(calls > 0),
            Err(error) => {
                let told = !matches!(error, StoreError::Sql(_) | StoreError::Closed);
                prop_assert!(told, "{:?}", error);
            }
        }
    }
}

/// What a client sends, in parts; a request now and then, whole or nearly.
fn requests() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let part = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..300),
        Just(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n".to_vec()),
        Just(b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n".to_vec()),
        Just(b"POST /metrics HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n".to_vec()),
        r"(GET|HEAD|PUT|[A-Z]{0,9}) (/metrics|[!-~]{0,30}) HTTP/[0-9][.][0-9]\r\n".prop_map(String::into_bytes),
        "[!-~]{0,30}: .{0,50}\r\n".prop_map(String::into_bytes),
        "Accept(-Encoding)?: [a-z*/;=,.0-9 -]{0,60}\r\n".prop_map(String::into_bytes),
        Just(b"\r\n".to_vec()),
        (1_usize..40_000).prop_map(|length| vec![b'x'; length]),
    ];
    prop::collection::vec(part, 0..8)
}

/// Bounded: 1100 connections, each with a limit.
#[test]
fn bytes_of_any_kind_are_answered_or_cut_off_and_a_scrape_works_after_them() {
    const LIMIT: Duration = Duration::from_secs(30);
    let home = tempfile::tempdir().unwrap();
    let exporter = Exporter::start(&config(home.path(), home.path(), ""));
    let mut slow = Vec::new();
    let mut runner = proptest::test_runner::TestRunner::new(cases(1000));
    let outcome = runner.run(&requests(), |parts| {
        let mut stream = TcpStream::connect(exporter.address).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream.set_write_timeout(Some(LIMIT)).unwrap();
        for part in &parts {
            // The server may have closed before.
            if stream.write_all(part).is_err() {
                break;
            }
        }
        stream.shutdown(Shutdown::Write).ok();
        let started = Instant::now();
        let mut answer = Vec::new();
        let closed = stream.read_to_end(&mut answer);
        prop_assert!(
            started.elapsed() < LIMIT,
            "neither answered nor closed: {:?}",
            closed
        );
        let answered = answer.is_empty() || answer.starts_with(b"HTTP/1.");
        prop_assert!(answered, "{}", String::from_utf8_lossy(&answer));
        Ok(())
    });
    outcome.unwrap();

    // Slow ones, all at once, that are left open: the scrape works beside them.
    for number in 0..100_u8 {
        let mut stream = TcpStream::connect(exporter.address).unwrap();
        stream
            .write_all(&[&b"GET /metrics HTTP/1.1\r\nX: "[..], &[number]].concat())
            .unwrap();
        slow.push(stream);
    }
    for byte in [b'x', 0, 0xff] {
        for stream in &mut slow {
            stream.write_all(&[byte]).ok();
        }
        let answer = exporter.get("/metrics", &[]);
        assert_eq!(answer.status, 200);
        assert!(answer.text().contains("cloudtrail_tls_exporter_build_info"));
    }
    let log = exporter.log();
    assert!(
        !log.iter().any(|line| line.contains("panicked")),
        "{log:#?}"
    );
}
