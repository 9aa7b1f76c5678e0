//! What a scrape costs, with about 10,000 and 100,000 series: latency and throughput over loopback, memory,
//! and how soon a start is healthy and ready.
//!
//! The load comes from threads of this program on the same processors, so latencies hold the client's own
//! reading of the body.
#![allow(clippy::print_stdout, reason = "a benchmark prints its figures")]

mod support;

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use cloudtrail_tls_exporter::time::Timestamp;
use flate2::Compression;
use flate2::write::GzEncoder;
use support::program::{self, BINARY, Exporter};
use support::{Client, median, memory, quantile};
use tempfile::TempDir;

/// Call keys for almost no series, about 10,000 and about 100,000: most keys have two.
const KEYS: [usize; 3] = [10, 4_100, 47_000];
/// Records in a file.
const RECORDS: usize = 5_000;
/// Starts per store.
const STARTS: usize = 9;
/// How long each kind of load goes on at most …
const LOAD: Duration = Duration::from_secs(3);
/// … and how many requests each client makes at most.
const REQUESTS: usize = 5_000;
/// After this long without work an exporter is idle.
const IDLE: Duration = Duration::from_secs(10);

fn main() {
    if !support::asked() {
        return;
    }
    let homes = KEYS.map(Home::counted);
    let measured: Vec<(Memory, Vec<Load>)> = homes.iter().map(measure).collect();
    print_memory(&homes, &measured);
    println!("\n| series | clients | format | encoding | body MB | p50 ms | p99 ms | requests/s |");
    println!("|---|---|---|---|---|---|---|---|");
    for (home, (_, loads)) in homes.iter().zip(&measured) {
        loads.iter().for_each(|load| load.print(home.series));
    }
    println!("\n| start, median of {STARTS} | healthy ms | ready ms |\n|---|---|---|");
    let fresh: Vec<_> = (0..STARTS).map(|_| Home::new(0).start()).collect();
    print_starts("no store yet", &fresh);
    for home in &homes {
        let starts: Vec<_> = (0..STARTS).map(|_| home.start()).collect();
        print_starts(&format!("store of {} series", home.series), &starts);
    }
}

/// A folder of logs with a configuration and a store.
struct Home {
    _folder: TempDir,
    config: PathBuf,
    series: usize,
    /// The memory of the process that counted it, in MiB.
    counted: f64,
}

impl Home {
    /// A home of `keys` call keys with one record each.
    fn new(keys: usize) -> Self {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let trail = folder.path().join("trail");
        let delivered = Timestamp::now().minus(Duration::from_secs(600));
        std::fs::create_dir(&trail).unwrap();
        for first in (0..keys).step_by(RECORDS) {
            let records =
                (first..keys.min(first + RECORDS)).map(|number| record(number, delivered));
            write_log(
                &program::made::path(&trail, delivered, &format!("{first:016}")),
                records,
            );
        }
        Self {
            config: program::config(folder.path(), &trail, ""),
            _folder: folder,
            series: 0,
            counted: 0.0,
        }
    }

    fn counted(keys: usize) -> Self {
        let mut home = Self::new(keys);
        let exporter = Exporter::start(&home.config);
        let scrape = exporter.scrape_until("all keys", |scrape| {
            let calls: u64 = scrape.calls().values().sum();
            (calls == keys as u64).then(|| scrape.clone())
        });
        home.series = scrape.0.len();
        home.counted = memory(exporter.pid(), "VmRSS");
        assert!(exporter.end_with("TERM").0.success());
        home
    }

    /// Starts the exporter and ends it; tells when it was healthy and when ready, in milliseconds.
    fn start(&self) -> [f64; 2] {
        let started = Instant::now();
        let mut command = Command::new(BINARY);
        let flags = ["--web.listen-address=127.0.0.1:0", "--config.file"];
        command.args(flags).arg(&self.config).stderr(Stdio::piped());
        let mut child = Ended(command.spawn().unwrap());
        let mut log = BufReader::new(child.0.stderr.take().unwrap()).lines();
        let mut logged = |what| {
            log.find_map(|line| {
                line.unwrap()
                    .split_once(what)
                    .map(|(_, rest)| rest.to_owned())
            })
        };
        let address = logged("address=").unwrap().trim().parse().unwrap();
        let since = |path| {
            assert_eq!(program::request(address, "GET", path, &[]).status, 200);
            started.elapsed().as_secs_f64() * 1000.0
        };
        let healthy = since("/-/healthy");
        logged("message=ready").unwrap();
        [healthy, since("/-/ready")]
    }
}

/// A process that is killed and waited for at the end of its scope.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn print_starts(name: &str, starts: &[[f64; 2]]) {
    let [healthy, ready] = [0, 1].map(|which| median(starts.iter().map(|start| start[which])));
    println!("| {name} | {healthy:.0} | {ready:.0} |");
}

/// A record of the call key `number`: one in 41 is on an outdated version.
fn record(number: usize, time: Timestamp) -> String {
    let (service, account, event) = (number % 50, number / 50 % 10, number / 500);
    let tls = match number % 41 {
        7 => r#""tlsVersion":"TLSv1.1","cipherSuite":"ECDHE-RSA-AES128-SHA""#,
        _ => {
            r#""tlsVersion":"TLSv1.3","cipherSuite":"TLS_AES_128_GCM_SHA256","keyExchange":"x25519""#
        }
    };
    format!(
        r#"{{"eventTime":"{time}","eventSource":"service-{service:02}.amazonaws.com","eventName":"DescribeBenchedThings{event:03}","awsRegion":"eu-central-1","eventID":"00000000-0000-4000-8000-{number:012}","recipientAccountId":"1111222233{account:02}","tlsDetails":{{{tls}}}}}"#
    )
}

fn write_log(path: &Path, records: impl Iterator<Item = String>) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let records: Vec<String> = records.collect();
    let mut file = GzEncoder::new(std::fs::File::create(path).unwrap(), Compression::fast());
    write!(file, "{{\"Records\":[{}]}}", records.join(",")).unwrap();
    file.finish().unwrap();
}

/// Resident memory in MiB: when all was just counted, after a start from the store, after some time without
/// work, and the most that load made of it.
struct Memory {
    counted: f64,
    reopened: f64,
    idle: f64,
    peak: f64,
}

/// Starts the exporter on its store, lets it idle and puts load on it.
fn measure(home: &Home) -> (Memory, Vec<Load>) {
    let exporter = Exporter::start(&home.config);
    let memory = |line| memory(exporter.pid(), line);
    let reopened = memory("VmRSS");
    thread::sleep(IDLE);
    let idle = memory("VmRSS");
    let mut loads = Vec::new();
    for clients in [1, 4] {
        for format in ["text/plain", "application/openmetrics-text"] {
            for encoding in ["identity", "gzip"] {
                loads.push(Load::run(exporter.address, clients, format, encoding));
            }
        }
    }
    let memory = Memory {
        counted: home.counted,
        reopened,
        idle,
        peak: memory("VmHWM"),
    };
    (memory, loads)
}

fn print_memory(homes: &[Home], measured: &[(Memory, Vec<Load>)]) {
    println!(
        "| series | MiB counted | reopened | idle | peak under load | KiB a series counted | reopened |"
    );
    println!("|---|---|---|---|---|---|---|");
    let (almost_empty, _) = &measured[0];
    for (Home { series, .. }, (memory, _)) in homes.iter().zip(measured) {
        let Memory {
            counted,
            reopened,
            idle,
            peak,
        } = memory;
        let each =
            |of: fn(&Memory) -> f64| (of(memory) - of(almost_empty)) * 1024.0 / *series as f64;
        let (own_counted, own_reopened) = (
            each(|memory| memory.counted),
            each(|memory| memory.reopened),
        );
        println!(
            "| {series} | {counted:.1} | {reopened:.1} | {idle:.1} | {peak:.1} | {own_counted:.2} | {own_reopened:.2} |"
        );
    }
}

/// What clients saw that asked again and again on connections that stay open.
struct Load {
    clients: usize,
    format: &'static str,
    encoding: &'static str,
    body: usize,
    milliseconds: Vec<f64>,
    wall: Duration,
}

impl Load {
    fn run(
        address: SocketAddr,
        clients: usize,
        format: &'static str,
        encoding: &'static str,
    ) -> Self {
        let head = format!(
            "GET /metrics HTTP/1.1\r\nHost: bench\r\nAccept: {format}\r\nAccept-Encoding: {encoding}\r\n\r\n"
        );
        let started = Instant::now();
        let ask = || {
            let mut client = Client::new(address);
            let mut body = client.get(&head);
            let mut took = Vec::new();
            while started.elapsed() < LOAD && took.len() < REQUESTS {
                let asked = Instant::now();
                body = client.get(&head);
                took.push(asked.elapsed().as_secs_f64() * 1000.0);
            }
            (body, took)
        };
        let answers: Vec<(usize, Vec<f64>)> = thread::scope(|scope| {
            let threads: Vec<_> = (0..clients).map(|_| scope.spawn(ask)).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .collect()
        });
        Self {
            clients,
            format,
            encoding,
            body: answers[0].0,
            milliseconds: answers.into_iter().flat_map(|(_, took)| took).collect(),
            wall: started.elapsed(),
        }
    }

    fn print(&self, series: usize) {
        let Self {
            clients,
            format,
            encoding,
            milliseconds,
            ..
        } = self;
        let [p50, p99] = [0.5, 0.99].map(|part| quantile(milliseconds.iter().copied(), part));
        let rate = milliseconds.len() as f64 / self.wall.as_secs_f64();
        let body = self.body as f64 / 1e6;
        println!(
            "| {series} | {clients} | {format} | {encoding} | {body:.3} | {p50:.2} | {p99:.2} | {rate:.0} |"
        );
    }
}
