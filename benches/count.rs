//! What counting a gigabyte costs, against a program that only decompresses the same files: CPU, memory,
//! wall, and the share of work that more processors would not speed up.
//!
//! Needs `../shared` and python3 for the logs. Read the ratios: absolute times vary from run to run.
#![allow(clippy::print_stdout, reason = "a benchmark prints its figures")]

mod support;

use std::collections::BTreeMap;
use std::env;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{self, Command};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use support::program::{self, Exporter};
use support::{Work, cpu, median, memory, processors};

const ROUNDS: usize = 7;
/// How long the exporter is watched when all is counted.
const IDLE: Duration = Duration::from_secs(3);
/// The argument that makes this program the contender.
const DECOMPRESS: &str = "decompress-only";

fn main() {
    let arguments: Vec<String> = env::args().collect();
    if let [_, role, folder] = arguments.as_slice()
        && role == DECOMPRESS
    {
        return decompress_only(Path::new(folder));
    }
    if !support::asked() {
        return;
    }
    let trail = match trail() {
        Ok(trail) => trail,
        Err(why) => return println!("skipped: {why}"),
    };
    let expected = program::expected(&trail.join("expected.tsv"));
    let mut rounds = Vec::new();
    for number in 1..=ROUNDS {
        let limit = run_decompress_only(&trail);
        match count(&trail, &expected) {
            Some(counted) => {
                print_round(number, &limit, &counted);
                rounds.push((limit, counted));
            }
            None => println!("round {number}: void, the counts are wrong"),
        }
    }
    if !rounds.is_empty() {
        print_medians(&rounds);
    }
}

/// The folder of logs, made once.
fn trail() -> Result<PathBuf, String> {
    let (made, part) = (support::data().join("trail"), support::data().join("part"));
    if made.exists() {
        return Ok(made);
    }
    let templates = program::shared("data/cloudtrail").ok_or("no templates")?;
    let script = program::shared("tools/scale.py").ok_or("no scale.py")?;
    fs::remove_dir_all(&part).ok();
    fs::create_dir_all(support::data()).map_err(|error| error.to_string())?;
    let ended = Command::new("python3")
        .arg(script)
        .args(["--files=600", "--records=1080"])
        .args(["--kex=X25519MLKEM768=0.3,x25519=0.5", "--templates"])
        .args([templates.as_path(), Path::new("--out"), &part])
        .status();
    match ended {
        Ok(status) if status.success() => {}
        Ok(status) => return Err(format!("scale.py ended with {status}")),
        Err(error) => return Err(format!("python3: {error}")),
    }
    fs::rename(part, &made).map_err(|error| error.to_string())?;
    Ok(made)
}

/// What a process used, in seconds and MiB.
struct Used {
    cpu: f64,
    wall: f64,
    peak: f64,
}

/// Reads and decompresses every file, on as many threads as the exporter, and prints what that took.
fn decompress_only(folder: &Path) {
    let started = Instant::now();
    let files = walkdir::WalkDir::new(folder).into_iter();
    let files = files.map(|entry| entry.unwrap().into_path());
    let logs: Vec<PathBuf> = files
        .filter(|path| path.extension().is_some_and(|extension| extension == "gz"))
        .collect();
    let queue = Mutex::new(logs.iter());
    let read_some = || {
        let mut inflate = libdeflater::Decompressor::new();
        let (mut stored, mut text) = (Vec::new(), Vec::new());
        while let Some(path) = { queue.lock().unwrap().next() } {
            stored.clear();
            File::open(path).unwrap().read_to_end(&mut stored).unwrap();
            let size = u32::from_le_bytes(*stored.last_chunk().unwrap()) as usize;
            text.resize(size.max(text.len()), 0);
            let length = inflate.gzip_decompress(&stored, &mut text[..size]);
            assert_eq!(length, Ok(size));
        }
    };
    thread::scope(|scope| {
        for _ in 0..processors() {
            scope.spawn(read_some);
        }
    });
    let pid = process::id();
    let (cpu, wall) = (cpu(pid).as_secs_f64(), started.elapsed().as_secs_f64());
    println!("{cpu} {wall} {}", memory(pid, "VmHWM"));
}

fn run_decompress_only(trail: &Path) -> Used {
    let mut contender = Command::new(env::current_exe().unwrap());
    let output = contender.arg(DECOMPRESS).arg(trail).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let mut numbers = text.split_whitespace().map(|word| word.parse().unwrap());
    let mut next = || numbers.next().unwrap();
    Used {
        cpu: next(),
        wall: next(),
        peak: next(),
    }
}

/// One run of the exporter from its start until its scrape shows all records.
struct Counted {
    used: Used,
    start_up: f64,
    work: Work,
    /// CPU a second, with nothing to count and one scan a second.
    idle: f64,
}

fn count(trail: &Path, expected: &BTreeMap<[String; 3], u64>) -> Option<Counted> {
    let home = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let config = program::config(home.path(), trail, "");
    let records: u64 = expected.values().sum();
    let started = Instant::now();
    let exporter = Exporter::start(&config);
    let pid = exporter.pid();
    let start_up = cpu(pid).as_secs_f64();
    // The log tells the end without the cost of scrapes.
    program::wait_for("the last batch", || {
        (logged(&exporter) >= records).then_some(())
    });
    let scrape = exporter.scrape_until("all records", |scrape| {
        (scrape.calls().values().sum::<u64>() >= records).then(|| scrape.clone())
    });
    let scanned = scrape.sum("cloudtrail_tls_exporter_scanned_records_total", &[]);
    let wall = started.elapsed().as_secs_f64();
    let work = Work::of(pid);
    thread::sleep(IDLE);
    let used = Used {
        cpu: work.total.as_secs_f64(),
        wall,
        peak: memory(pid, "VmHWM"),
    };
    let idle = (cpu(pid) - work.total).as_secs_f64() / IDLE.as_secs_f64();
    let (ended, ..) = exporter.end_with("TERM");
    let right = ended.success() && scrape.calls() == *expected && scanned == records as f64;
    right.then_some(Counted {
        used,
        start_up,
        work,
        idle,
    })
}

/// The records in the batches that the log tells of.
fn logged(exporter: &Exporter) -> u64 {
    let log = exporter.log();
    let batches = log.iter().filter(|line| line.contains("batch committed"));
    let words = batches.flat_map(|line| line.split(' '));
    words
        .filter_map(|word| word.strip_prefix("calls=")?.parse::<u64>().ok())
        .sum()
}

fn print_round(number: usize, limit: &Used, counted: &Counted) {
    let Work {
        store,
        exposition,
        runtime,
        ..
    } = counted.work;
    println!(
        "round {number}: decompress {:.2} s; exporter {:.2} s (store {store:.0?}, exposition {exposition:.0?}, \
         runtime {runtime:.0?}), {:.0} MiB; ratio {:.2}",
        limit.cpu,
        counted.used.cpu,
        counted.used.peak,
        counted.used.cpu / limit.cpu,
    );
}

fn print_medians(rounds: &[(Used, Counted)]) {
    let limit = |of: fn(&Used) -> f64| median(rounds.iter().map(|(limit, _)| of(limit)));
    let used = |of: fn(&Used) -> f64| median(rounds.iter().map(|(_, counted)| of(&counted.used)));
    let work = |of: fn(&Counted) -> f64| median(rounds.iter().map(|(_, counted)| of(counted)));
    let paired = rounds
        .iter()
        .map(|(limit, counted)| counted.used.cpu / limit.cpu);
    println!(
        "\n| median of {} | CPU s | wall s | peak MiB |\n|---|---|---|---|",
        rounds.len()
    );
    for (name, of) in [
        (
            "decompress only",
            &limit as &dyn Fn(fn(&Used) -> f64) -> f64,
        ),
        ("exporter", &used),
    ] {
        let (cpu, wall, peak) = (
            of(|used| used.cpu),
            of(|used| used.wall),
            of(|used| used.peak),
        );
        println!("| {name} | {cpu:.2} | {wall:.2} | {peak:.0} |");
    }
    println!("\n| figure | value | target |\n|---|---|---|");
    let ratio = used(|used| used.cpu) / limit(|used| used.cpu);
    println!("| CPU ratio of medians | {ratio:.2} | 3.0 |");
    println!(
        "| CPU ratio, median of pairs | {:.2} | 3.0 |",
        median(paired)
    );
    let share = |of: fn(&Work) -> Duration| {
        let shares = rounds
            .iter()
            .map(|(_, counted)| of(&counted.work).as_secs_f64() / counted.used.cpu);
        100.0 * median(shares)
    };
    println!("| serial share | {:.1} % | 10 % |", share(Work::serial));
    println!("| … store | {:.1} % | |", share(|work| work.store));
    println!(
        "| … exposition | {:.1} % | |",
        share(|work| work.exposition)
    );
    println!("| … runtime | {:.1} % | |", share(|work| work.runtime));
    println!("| peak | {:.0} MiB | 192 MiB |", used(|used| used.peak));
    println!(
        "| start-up CPU, in the above | {:.0} ms | |",
        1000.0 * work(|counted| counted.start_up)
    );
    println!(
        "| idle CPU, not in the above | {:.0} ms/s | |",
        1000.0 * work(|counted| counted.idle)
    );
}
