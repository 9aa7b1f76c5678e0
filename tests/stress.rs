//! A store under stress: a disk that is full, read-only or slow, an older copy put back, a second process, a newer
//! schema, damaged files. The exporter says so, goes on serving, loses nothing and recovers; or it does not start.
//!
//! The methods need no privileges. Where one is missing, its test fails and says what to install: a promise that was
//! not tested is none. A full disk is a small tmpfs in a user and mount namespace (`unshare`, `nsenter` of util-linux);
//! a disk that turns read-only or slow is `strace`, which lets the store's own system calls fail or wait.

mod support;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use cloudtrail_tls_exporter::time::Timestamp;
use support::made::{self, Made};
use support::{Exporter, Scrape, config, wait_for};

const UP: &str = "cloudtrail_tls_exporter_source_up";
const LAST_WRITE: &str = "cloudtrail_tls_exporter_state_last_write_timestamp_seconds";

type Calls = BTreeMap<[String; 3], u64>;

/// A trail, and a configuration of an exporter over it whose store lies in a folder of its own.
struct Rig {
    home: tempfile::TempDir,
    config: PathBuf,
    delivered: Vec<Made>,
    files: usize,
}

impl Rig {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let trail = home.path().join("trail");
        fs::create_dir_all(home.path().join("state")).unwrap();
        fs::create_dir_all(&trail).unwrap();
        let config = config(home.path(), &trail, "");
        let text = fs::read_to_string(&config).unwrap();
        fs::write(&config, text.replace("/state.db", "/state/state.db")).unwrap();
        Self {
            home,
            config,
            delivered: Vec::new(),
            files: 0,
        }
    }

    fn state(&self) -> PathBuf {
        self.home.path().join("state")
    }

    /// The database, or with `ending` a file beside it.
    fn database(&self, ending: &str) -> PathBuf {
        self.state().join(format!("state.db{ending}"))
    }

    /// Delivers a file of new records, and of some that earlier files had.
    fn deliver(&mut self, records: usize) {
        let now = Timestamp::now();
        let mut random = fastrand::Rng::with_seed(self.files as u64);
        let mut file: Vec<Made> = (0..records).map(|_| Made::any(&mut random, now)).collect();
        file.extend(self.delivered.iter().take(records / 4).cloned());
        self.files += 1;
        let trail = self.home.path().join("trail");
        let path = made::path(&trail, now, &format!("{:016}", self.files));
        made::deliver(&path, &file);
        self.delivered.extend(file);
    }

    fn truth(&self) -> Calls {
        made::truth(&self.delivered)
    }

    fn start(&self) -> Exporter {
        self.try_start()
            .unwrap_or_else(|log| panic!("ended early: {log}"))
    }

    /// The running exporter, or what it said as it refused to start.
    fn try_start(&self) -> Result<Exporter, String> {
        refusal(Exporter::start_by(Command::new("env"), &self.config))
    }

    /// Waits until all is counted, and sees that it stays so.
    fn counted(&self, exporter: &Exporter) {
        let truth = self.truth();
        exporter.scrape_until("all calls", |scrape| {
            (scrape.calls() == truth).then_some(())
        });
        exporter.wait_for_scans(2);
        assert_eq!(exporter.scrape().calls(), truth);
    }
}

/// An exporter that does not start ends with code 1 and one line that begins with `error: `.
fn refusal(outcome: Result<Exporter, (Option<i32>, String)>) -> Result<Exporter, String> {
    outcome.map_err(|(code, log)| {
        assert_eq!(code, Some(1), "{log}");
        assert!(!log.contains("panicked"), "{log}");
        let errors: Vec<_> = log
            .lines()
            .filter(|line| line.starts_with("error: "))
            .collect();
        assert_eq!(errors.len(), 1, "{log}");
        errors[0].to_owned()
    })
}

fn end(exporter: Exporter) {
    let (status, _, log) = exporter.end_with("TERM");
    assert!(status.success(), "{log:#?}");
}

/// What a scrape must show while the store cannot be written: the numbers as they were, the failure and its reason,
/// and when it was written last. Sees three attempts fail.
fn stuck(exporter: &Exporter, known: &Calls, cause: &str) {
    let failures = |scrape: &Scrape| {
        let labels = [("reason", "internal")];
        scrape.sum("cloudtrail_tls_exporter_batch_failures_total", &labels)
    };
    let before = exporter.scrape();
    let [first, last] = [1.0, 3.0].map(|more| {
        exporter.scrape_until("a failure", |scrape| {
            let failed = failures(scrape) >= failures(&before) + more;
            (failed && scrape.value(UP, &[]) == Some(0.0)).then(|| scrape.clone())
        })
    });
    for scrape in [&first, &last] {
        assert_eq!(&scrape.calls(), known);
        assert_eq!(scrape.value(LAST_WRITE, &[]), first.value(LAST_WRITE, &[]));
    }
    let log = exporter.log();
    let told = |line: &&String| line.contains("not counted, stays due");
    let line = log.iter().rfind(told).expect("a line about the failure");
    for part in ["reason=internal", "the batch was not committed", cause] {
        assert!(line.contains(part), "{line}");
    }
}

/// A small disk: a tmpfs in a namespace of its own, gone with the process that holds it.
struct Disk {
    holder: Child,
    mount: PathBuf,
}

impl Disk {
    fn new(mount: &Path, size: &str) -> Self {
        let script = "mount -t tmpfs -o size=$1 stress \"$2\" && echo mounted && exec cat";
        let mut holder = Command::new("unshare")
            .args(["--user", "--map-root-user", "--mount", "sh", "-c", script])
            .args(["sh", size, mount.to_str().unwrap()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("`unshare`: install util-linux");
        let mut told = String::new();
        let mut output = BufReader::new(holder.stdout.take().unwrap());
        output.read_line(&mut told).unwrap();
        let missing = "no small disk: this test needs a tmpfs in a user and mount namespace (user.max_user_namespaces)";
        assert_eq!(told, "mounted\n", "{missing}");
        Self {
            holder,
            mount: mount.to_owned(),
        }
    }

    /// Runs what its arguments name where the disk is seen.
    fn command(&self) -> Command {
        let mut command = Command::new("nsenter");
        let target = self.holder.id().to_string();
        command.args(["--user", "--mount", "--preserve-credentials", "--target"]);
        command.args([&target, "--"]);
        command
    }

    fn remount(&self, option: &str) {
        let mut command = self.command();
        command.args(["mount", "-o", &format!("remount,{option}")]);
        assert!(command.arg(&self.mount).status().unwrap().success());
    }

    /// The disk's folder as this process sees it.
    fn path(&self) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.holder.id()));
        root.join(self.mount.strip_prefix("/").unwrap())
    }

    /// Writes until nothing fits any more.
    fn fill(&self) {
        let mut filler = File::create(self.path().join("filler")).unwrap();
        for size in [1 << 16, 1 << 12, 1] {
            while filler.write_all(&vec![b'x'; size]).is_ok() {}
        }
    }

    fn make_room(&self) {
        fs::remove_file(self.path().join("filler")).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.holder.kill().ok();
        self.holder.wait().ok();
    }
}

/// Runs what its arguments name under `strace`, which tampers with system calls on the store's files as `injection`
/// says. The program stays this process's child, and goes on untouched once the tracer is gone.
fn tampered(rig: &Rig, injection: &str) -> Command {
    let found = Command::new("strace").arg("--version").output();
    assert!(found.is_ok(), "`strace` is missing: install it");
    let calls = injection.split(':').next().unwrap();
    let mut command = Command::new("strace");
    command.args(["-D", "-I", "2", "-f", "-qq", "-o", "/dev/null"]);
    command.args(["-e", &format!("trace={calls}")]);
    command.args(["-e", &format!("inject={injection}")]);
    for ending in ["", "-wal", "-journal"] {
        command.arg("-P").arg(rig.database(ending));
    }
    command
}

/// Ends the tracer of a program, and with it the tampering.
fn untamper(exporter: &Exporter) {
    let tracer = || {
        let status = fs::read_to_string(format!("/proc/{}/status", exporter.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with("TracerPid:"));
        line.unwrap().split_whitespace().nth(1).unwrap().to_owned()
    };
    assert_ne!(
        tracer(),
        "0",
        "strace may not trace here: ptrace is forbidden"
    );
    let sent = Command::new("kill").args(["-TERM", &tracer()]).status();
    assert!(sent.unwrap().success());
    wait_for("the end of the tracer", || (tracer() == "0").then_some(()));
}

/// By a tmpfs of 4 MB that another file fills.
#[test]
fn with_a_full_disk_the_numbers_stay_and_all_is_counted_once_there_is_room() {
    let mut rig = Rig::new();
    let disk = Disk::new(&rig.state(), "4m");
    rig.deliver(200);
    let start = || refusal(Exporter::start_by(disk.command(), &rig.config));
    let exporter = start().unwrap();
    rig.counted(&exporter);
    let known = rig.truth();

    disk.fill();
    rig.deliver(200);
    stuck(&exporter, &known, "disk is full");
    disk.make_room();
    rig.counted(&exporter);

    // Killed while it is full: it starts with what it had, or says why not.
    let known = rig.truth();
    disk.fill();
    rig.deliver(200);
    stuck(&exporter, &known, "disk is full");
    exporter.kill();
    let start = || refusal(Exporter::start_by(disk.command(), &rig.config));
    match start() {
        Ok(exporter) => assert_eq!(exporter.scrape().calls(), known),
        Err(error) => assert!(error.contains("disk is full"), "{error}"),
    }
    disk.make_room();
    let exporter = start().unwrap();
    rig.counted(&exporter);
    end(exporter);
}

/// By a tmpfs that is filled before there is a store.
#[test]
fn a_first_start_on_a_full_disk_is_refused_and_leaves_nothing_in_the_way() {
    let mut rig = Rig::new();
    let disk = Disk::new(&rig.state(), "1m");
    rig.deliver(10);
    disk.fill();
    let start = || refusal(Exporter::start_by(disk.command(), &rig.config));
    let error = start().err().expect("a refusal");
    assert!(
        error.contains("disk is full") || error.contains("No space left"),
        "{error}"
    );
    disk.make_room();
    let exporter = start().unwrap();
    rig.counted(&exporter);
}

/// By remounting the tmpfs between two starts.
#[test]
fn a_start_on_a_read_only_disk_is_refused() {
    let mut rig = Rig::new();
    let disk = Disk::new(&rig.state(), "16m");
    rig.deliver(10);
    let start = || refusal(Exporter::start_by(disk.command(), &rig.config));
    let exporter = start().unwrap();
    rig.counted(&exporter);
    end(exporter);
    disk.remount("ro");
    let error = start().err().expect("a refusal");
    assert!(error.contains("cannot use the store"), "{error}");
    assert!(error.contains("Read-only file system"), "{error}");
    disk.remount("rw");
    rig.counted(&start().unwrap());
}

/// A file system with files open for writing cannot be remounted; after an error of the device the kernel makes it
/// read-only all the same, and writes fail with EROFS. So do these, until the tracer is ended.
#[test]
fn on_a_disk_that_became_read_only_the_numbers_stay_and_all_is_counted_when_it_is_back() {
    let mut rig = Rig::new();
    rig.deliver(200);
    let exporter = rig.start();
    rig.counted(&exporter);
    let known = rig.truth();
    end(exporter);

    rig.deliver(200);
    let command = tampered(
        &rig,
        "write,pwrite64,pwritev,ftruncate,fallocate:error=EROFS",
    );
    let exporter = refusal(Exporter::start_by(command, &rig.config)).unwrap();
    stuck(&exporter, &known, "disk I/O error");
    untamper(&exporter);
    rig.counted(&exporter);
    end(exporter);
    let exporter = rig.start();
    assert_eq!(exporter.scrape().calls(), rig.truth());
}

/// Each write to the disk that must be waited for takes three seconds longer.
#[test]
fn scrapes_do_not_wait_for_a_slow_disk() {
    const DELAY: Duration = Duration::from_secs(3);
    let mut rig = Rig::new();
    rig.deliver(200);
    let exporter = rig.start();
    rig.counted(&exporter);
    end(exporter);

    let injection = format!("fsync,fdatasync:delay_enter={}", DELAY.as_micros());
    let exporter = refusal(Exporter::start_by(tampered(&rig, &injection), &rig.config)).unwrap();
    rig.deliver(200);
    let truth = rig.truth();
    let mut slowest = Duration::ZERO;
    wait_for("all calls", || {
        let asked = Instant::now();
        let scrape = exporter.scrape();
        slowest = slowest.max(asked.elapsed());
        (scrape.calls() == truth).then_some(())
    });
    assert!(slowest < DELAY / 2, "a scrape took {slowest:?}");
    let scrape = exporter.scrape();
    let commits = "cloudtrail_tls_exporter_batch_duration_seconds";
    let [took, number] =
        ["_sum", "_count"].map(|part| scrape.sum(&format!("{commits}{part}"), &[]));
    assert!(
        took >= number * DELAY.as_secs_f64(),
        "{took} s for {number} batches"
    );
    untamper(&exporter);
    rig.counted(&exporter);
    end(exporter);
}

/// By a copy of the file.
#[test]
fn over_an_older_copy_of_the_store_only_what_it_has_not_is_counted_again() {
    let mut rig = Rig::new();
    rig.deliver(200);
    let exporter = rig.start();
    rig.counted(&exporter);
    end(exporter);
    let older = rig.home.path().join("older.db");
    fs::copy(rig.database(""), &older).unwrap();
    let stored = rig.truth();
    rig.deliver(200);
    let exporter = rig.start();
    rig.counted(&exporter);
    end(exporter);

    assert!(!rig.database("-wal").exists(), "a stop leaves one file");
    fs::copy(&older, rig.database("")).unwrap();
    rig.deliver(200);
    let exporter = rig.start();
    let truth = rig.truth();
    exporter.scrape_until("all calls", |scrape| {
        let calls = scrape.calls();
        let least = stored
            .iter()
            .all(|(key, known)| calls.get(key) >= Some(known));
        assert!(least, "less than the store held: {calls:?}");
        let most = calls.iter().all(|(key, calls)| *calls <= truth[key]);
        assert!(most, "more than was delivered: {calls:?}");
        (calls == truth).then_some(())
    });
    rig.counted(&exporter);
}

#[test]
fn a_second_process_is_refused_and_the_first_goes_on() {
    let mut rig = Rig::new();
    rig.deliver(50);
    let first = rig.start();
    let error = rig.try_start().err().expect("a refusal");
    for part in ["another exporter uses the store", "state.db", "state.path"] {
        assert!(error.contains(part), "{error}");
    }
    rig.deliver(50);
    rig.counted(&first);
    // The lock goes with the process, however it ends.
    first.kill();
    rig.counted(&rig.start());
}

/// By SQLite's own `user_version`.
#[test]
fn a_store_of_a_newer_build_is_refused_and_left_as_it_is() {
    let mut rig = Rig::new();
    rig.deliver(50);
    let exporter = rig.start();
    rig.counted(&exporter);
    end(exporter);
    let set_version = |version: i32| {
        let database = rusqlite::Connection::open(rig.database("")).unwrap();
        database
            .pragma_update(None, "user_version", version)
            .unwrap();
    };
    let version = rusqlite::Connection::open(rig.database(""))
        .and_then(|database| database.pragma_query_value(None, "user_version", |row| row.get(0)))
        .unwrap();
    set_version(99);
    let before = fs::read(rig.database("")).unwrap();
    let error = rig.try_start().err().expect("a refusal");
    assert!(
        error.contains("schema version 99") && error.contains("run the newer build"),
        "{error}"
    );
    assert!(fs::read(rig.database("")).unwrap() == before);
    set_version(version);
    assert_eq!(rig.start().scrape().calls(), rig.truth());
}

/// A way to damage a store, and what must come of it.
struct Damage {
    what: &'static str,
    how: fn(&Rig),
    /// A part of the refusal; `None` where SQLite recovers an earlier state.
    refusal: Option<&'static str>,
}

/// Writes `bytes` into the middle of a file.
fn overwrite(path: &Path, at: u64, bytes: &[u8]) {
    use std::os::unix::fs::FileExt;
    let file = File::options().write(true).open(path).unwrap();
    file.write_all_at(bytes, at).unwrap();
}

fn cut(path: &Path, parts: u64) {
    let file = File::options().write(true).open(path).unwrap();
    let length = file.metadata().unwrap().len();
    file.set_len(length / parts).unwrap();
}

const GARBAGE: [u8; 4096] = [0xa5; 4096];

/// Of a store that was ended in good order: one file.
const OF_A_STOPPED: [Damage; 7] = [
    Damage {
        what: "zero bytes",
        how: |rig| fs::write(rig.database(""), "").unwrap(),
        refusal: Some("is an empty file"),
    },
    Damage {
        what: "cut to half",
        how: |rig| cut(&rig.database(""), 2),
        refusal: Some("the store is damaged"),
    },
    Damage {
        what: "cut within the header",
        how: |rig| {
            let bytes = fs::read(rig.database("")).unwrap();
            fs::write(rig.database(""), &bytes[..60]).unwrap();
        },
        refusal: Some("the store is damaged"),
    },
    Damage {
        what: "a garbage header",
        how: |rig| overwrite(&rig.database(""), 0, &GARBAGE),
        refusal: Some("no store of this program"),
    },
    Damage {
        what: "a page of garbage",
        how: |rig| overwrite(&rig.database(""), 2 * 16384, &GARBAGE),
        refusal: Some("the store is damaged"),
    },
    Damage {
        what: "a table without its rows",
        how: |rig| sql(rig, "DELETE FROM totals"),
        refusal: Some("the store is damaged"),
    },
    Damage {
        what: "progress that is none",
        how: |rig| {
            sql(
                rig,
                "UPDATE progress SET value = x'00ff' WHERE key = 'scan'",
            )
        },
        refusal: Some("the store is damaged"),
    },
];

/// Of a store whose process was killed: the last commits are in the `-wal`.
const OF_A_KILLED: [Damage; 6] = [
    Damage {
        what: "without its -wal",
        how: |rig| fs::remove_file(rig.database("-wal")).unwrap(),
        refusal: None,
    },
    Damage {
        what: "a -wal of garbage",
        how: |rig| overwrite(&rig.database("-wal"), 0, &GARBAGE),
        refusal: None,
    },
    Damage {
        what: "half a -wal",
        how: |rig| cut(&rig.database("-wal"), 2),
        refusal: None,
    },
    Damage {
        what: "a journal that is none",
        how: |rig| fs::write(rig.database("-journal"), GARBAGE).unwrap(),
        refusal: None,
    },
    Damage {
        what: "the -wal alone",
        how: |rig| fs::remove_file(rig.database("")).unwrap(),
        refusal: Some("put them together again"),
    },
    Damage {
        what: "zero bytes and a -wal",
        how: |rig| fs::write(rig.database(""), "").unwrap(),
        refusal: Some("is an empty file"),
    },
];

fn sql(rig: &Rig, statement: &str) {
    let database = rusqlite::Connection::open(rig.database("")).unwrap();
    assert!(database.execute(statement, []).unwrap() > 0);
}

/// Damages copies of the store as it is in each of the ways, and puts it back.
fn damage(rig: &Rig, damages: &[Damage]) {
    let kept: Vec<(PathBuf, Vec<u8>)> = fs::read_dir(rig.state())
        .unwrap()
        .map(|file| file.unwrap().path())
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect();
    let put_back = || {
        fs::remove_dir_all(rig.state()).unwrap();
        fs::create_dir(rig.state()).unwrap();
        for (path, content) in &kept {
            fs::write(path, content).unwrap();
        }
    };
    for Damage { what, how, refusal } in damages {
        put_back();
        how(rig);
        match (rig.try_start(), refusal) {
            (Err(error), Some(part)) => {
                assert!(error.contains(part), "{what}: {error}");
                let hints = ["restore", "move it away", "move that away"];
                assert!(
                    hints.iter().any(|hint| error.contains(hint)),
                    "{what}: {error}"
                );
            }
            // An earlier state: what it has not is counted again.
            (Ok(exporter), None) => rig.counted(&exporter),
            (Ok(exporter), Some(_)) => {
                panic!("{what}: accepted, with {:?}", exporter.scrape().calls())
            }
            (Err(error), None) => panic!("{what}: {error}"),
        }
    }
    put_back();
}

#[test]
fn a_store_with_damaged_files_is_refused_with_a_hint() {
    let mut rig = Rig::new();
    rig.deliver(300);
    let exporter = rig.start();
    rig.counted(&exporter);
    end(exporter);
    damage(&rig, &OF_A_STOPPED);
    assert_eq!(rig.start().scrape().calls(), rig.truth());
}

#[test]
fn what_a_kill_left_is_recovered_or_refused_with_a_hint() {
    let mut rig = Rig::new();
    rig.deliver(300);
    let exporter = rig.start();
    rig.counted(&exporter);
    rig.deliver(300);
    rig.counted(&exporter);
    exporter.kill();
    damage(&rig, &OF_A_KILLED);
    assert_eq!(rig.start().scrape().calls(), rig.truth());
}

/// The configuration passes every check, and only the commit of it fails.
#[test]
fn a_reload_on_a_full_disk_is_undone_and_succeeds_once_there_is_room() {
    const SUCCESSFUL: &str = "cloudtrail_tls_exporter_config_last_reload_successful";
    const INTERVAL: &str = "cloudtrail_tls_exporter_source_interval_seconds";
    let mut rig = Rig::new();
    let disk = Disk::new(&rig.state(), "4m");
    rig.deliver(200);
    let exporter = refusal(Exporter::start_by(disk.command(), &rig.config)).unwrap();
    rig.counted(&exporter);
    let reload = || support::request(exporter.address, "POST", "/-/reload", &[]);

    // The source there is must be stopped, and another one stored.
    let text = fs::read_to_string(&rig.config).unwrap();
    let text = text.replace("interval = \"1s\"", "interval = \"2s\"");
    let empty = rig.home.path().join("empty");
    fs::create_dir(&empty).unwrap();
    let other = "[[sources]]\nname = \"other\"\ntype = \"trail_files\"\nlocation = ";
    fs::write(
        &rig.config,
        format!("{text}\n{other}'{}'\n", empty.display()),
    )
    .unwrap();
    disk.fill();
    let answer = reload();
    assert_eq!(answer.status, 500);
    assert!(answer.text().contains("disk is full"), "{}", answer.text());
    let scrape = exporter.scrape();
    assert_eq!(scrape.value(SUCCESSFUL, &[]), Some(0.0));
    assert_eq!(
        scrape.value(INTERVAL, &[]),
        Some(1.0),
        "one source, as before"
    );
    assert_eq!(scrape.calls(), rig.truth());
    let started = |line: &&String| line.contains("message=workers kept=0 stopped=0 started=1");
    wait_for("the start, and the start after the stop", || {
        (exporter.log().iter().filter(started).count() == 2).then_some(())
    });

    disk.make_room();
    rig.deliver(200);
    rig.counted(&exporter);
    let answer = reload();
    assert_eq!(answer.status, 200, "{}", answer.text());
    rig.deliver(200);
    rig.counted(&exporter);
    let scrape = exporter.scrape();
    assert_eq!(scrape.value(SUCCESSFUL, &[]), Some(1.0));
    assert_eq!(scrape.value(INTERVAL, &[("source", "trail")]), Some(2.0));
    end(exporter);
}
