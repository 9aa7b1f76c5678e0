//! What the benchmarks share: the helpers of the tests, what `/proc` tells of a process, a client that
//! costs little, and medians.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each benchmark uses its own part"
)]

#[path = "../../tests/support/mod.rs"]
pub mod program;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{env, fs, thread};

/// Linux tells CPU time to programs in hundredths of a second, whatever its own clock (`USER_HZ`).
const TICK: Duration = Duration::from_millis(10);

/// Where the data of the benchmarks lie; kept between runs.
pub fn data() -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    target.join("bench-data")
}

/// Whether `cargo bench` asked; `cargo test --all-targets` starts benchmarks too.
pub fn asked() -> bool {
    env::args().any(|argument| argument == "--bench")
}

pub fn processors() -> usize {
    thread::available_parallelism().map_or(1, NonZero::get)
}

/// User and system time of a process, ended threads included.
pub fn cpu(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, after_name) = stat.rsplit_once(") ").unwrap();
    let fields = after_name.split(' ').skip(11).take(2);
    let ticks: u32 = fields.map(|field| field.parse::<u32>().unwrap()).sum();
    TICK * ticks
}

/// A line of `/proc/<pid>/status` in MiB, such as `VmRSS` or the peak `VmHWM`.
pub fn memory(pid: u32, line: &str) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let found = status.lines().find_map(|text| text.strip_prefix(line));
    let words = found.and_then(|rest| rest.split_whitespace().nth(1));
    words.unwrap().parse::<f64>().unwrap() / 1024.0
}

/// The CPU time of an exporter, by what its threads do.
#[derive(Clone, Copy, Debug, Default)]
pub struct Work {
    pub total: Duration,
    pub store: Duration,
    pub exposition: Duration,
    /// The runtime: assembling batches, serving, timers.
    pub runtime: Duration,
}

impl Work {
    /// Reader threads end with each batch, so they are what is left of the total, together with the
    /// runtime's pool of blocking threads, which walks the folder and reads files itself. Pool and
    /// workers have the same name; the workers are older.
    pub fn of(pid: u32) -> Self {
        let mut work = Self {
            total: cpu(pid),
            ..Self::default()
        };
        let mut workers = processors().min(4);
        let mut threads: Vec<u32> = fs::read_dir(format!("/proc/{pid}/task"))
            .unwrap()
            .map(|entry| {
                entry
                    .unwrap()
                    .file_name()
                    .to_str()
                    .unwrap()
                    .parse()
                    .unwrap()
            })
            .collect();
        threads.sort_unstable();
        for thread in threads {
            let read = |file| fs::read_to_string(format!("/proc/{pid}/task/{thread}/{file}"));
            let (Ok(name), Ok(times)) = (read("comm"), read("schedstat")) else {
                continue;
            };
            let nanoseconds = times.split(' ').next().unwrap().parse().unwrap();
            let spent = Duration::from_nanos(nanoseconds);
            match name.trim() {
                "store" => work.store += spent,
                "exposition" => work.exposition += spent,
                "tokio-rt-worker" if workers > 0 => {
                    workers -= 1;
                    work.runtime += spent;
                }
                "tokio-rt-worker" => {}
                _ => work.runtime += spent,
            }
        }
        work
    }

    pub fn serial(&self) -> Duration {
        self.store + self.exposition + self.runtime
    }
}

/// A connection that stays open.
pub struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Client {
    pub fn new(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        Self {
            stream,
            buffer: vec![0; 256 << 10],
        }
    }

    /// Asks, reads the answer to its end and tells the length of its body.
    pub fn get(&mut self, head: &str) -> usize {
        self.stream.write_all(head.as_bytes()).unwrap();
        let mut read = 0;
        let end = loop {
            read += self.stream.read(&mut self.buffer[read..]).unwrap();
            let found = self.buffer[..read]
                .windows(4)
                .position(|part| part == b"\r\n\r\n");
            if let Some(end) = found {
                break end + 4;
            }
        };
        let answer = str::from_utf8(&self.buffer[..end]).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        let mut lengths = answer
            .lines()
            .filter_map(|line| line.strip_prefix("content-length: "));
        let body: usize = lengths.next().unwrap().parse().unwrap();
        let mut left = end + body - read;
        while left > 0 {
            let room = left.min(self.buffer.len());
            match self.stream.read(&mut self.buffer[..room]).unwrap() {
                0 => panic!("the body ended early"),
                some => left -= some,
            }
        }
        body
    }
}

/// The value in the middle.
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    quantile(values, 0.5)
}

/// The value that the share `part` of the values does not exceed.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a place in a list"
)]
pub fn quantile(values: impl IntoIterator<Item = f64>, part: f64) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_unstable_by(f64::total_cmp);
    let place = (values.len() as f64 * part) as usize;
    values[place.min(values.len() - 1)]
}
