//! What the tests of the whole program share: the real binary over a folder, and its scrape read back.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test file uses its own part"
)]

pub mod made;

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use cloudtrail_tls_exporter::call::{AskedCallers, CallerLabels};
use cloudtrail_tls_exporter::tls::TlsVersion;

/// How long anything may take that a test waits for. Far more than it needs: a slow machine is no failure.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// What the configuration asks of callers by default.
pub const CALLER_LABELS: CallerLabels = CallerLabels {
    principal: true,
    user_agent: true,
    source_ip: false,
};
/// Whose calls it asks for.
pub const ASKED_CALLERS: AskedCallers = AskedCallers {
    below: TlsVersion::Tls12,
    labels: CALLER_LABELS,
};

/// The program under test.
pub const BINARY: &str = env!("CARGO_BIN_EXE_cloudtrail-tls-exporter");

/// A folder of `../shared`, or `None` after printing why the test is skipped.
pub fn shared(below: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../shared")
        .join(below);
    if path.exists() {
        return Some(path.canonicalize().unwrap());
    }
    tell(&format!("skipped: {} is not here", path.display()));
    None
}

/// Prints a line. `eprintln!` would be kept from sight by the test runner.
pub fn tell(line: &str) {
    let line = format!("{line}\n");
    std::io::stderr().write_all(line.as_bytes()).unwrap();
}

/// A running exporter; killed when it is dropped.
pub struct Exporter {
    child: Child,
    pub address: SocketAddr,
    log: Arc<Mutex<Vec<String>>>,
}

impl Exporter {
    /// Starts `serve` over a configuration, on a port of its own, and waits until it is ready.
    pub fn start(config: &Path) -> Self {
        let exporter = Self::start_with(&["--config.file", config.to_str().unwrap()]);
        exporter.wait_for_ready();
        exporter
    }

    /// Starts the program with `arguments` on a port of its own and waits until it listens.
    pub fn start_with(arguments: &[&str]) -> Self {
        Self::start_in(arguments, &[])
    }

    /// The same with these variables in its environment.
    pub fn start_in(arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut command = Command::new(BINARY);
        command.args(arguments).envs(environment.iter().copied());
        Self::spawn(&mut command, "message=listening")
            .unwrap_or_else(|(_, log)| panic!("ended early: {log:#?}"))
    }

    /// Starts `serve` over a configuration by `command`, which runs the program that its further arguments name, and
    /// waits until it is ready. If it ends before: its exit code and its log.
    pub fn start_by(mut command: Command, config: &Path) -> Result<Self, (Option<i32>, String)> {
        let config = config.to_str().unwrap();
        command.args([BINARY, "--config.file", config]);
        let started = Self::spawn(&mut command, "message=ready");
        started.map_err(|(status, log)| (status.code(), log.join("\n")))
    }

    /// Starts it and waits for a line of the log, or for its end.
    fn spawn(command: &mut Command, line: &str) -> Result<Self, (ExitStatus, Vec<String>)> {
        let mut child = command
            .args(["--web.listen-address=127.0.0.1:0", "--log.level=debug"])
            .env_remove("STATE_DIRECTORY")
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let log = Arc::new(Mutex::new(Vec::new()));
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let kept = Arc::clone(&log);
        let reader = thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                kept.lock().unwrap().push(line);
            }
        });
        let mut exporter = Self {
            child,
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            log,
        };
        let outcome = wait_for(line, || {
            if let Some(status) = exporter.child.try_wait().unwrap() {
                return Some(Err(status));
            }
            let log = exporter.log();
            log.iter().find(|known| known.contains(line))?;
            let line = log.iter().find(|line| line.contains("message=listening"))?;
            let address = line.split("address=").nth(1)?.trim().parse().ok()?;
            Some(Ok(address))
        });
        match outcome {
            Ok(address) => {
                exporter.address = address;
                Ok(exporter)
            }
            Err(status) => {
                reader.join().unwrap();
                Err((status, exporter.log()))
            }
        }
    }

    pub fn wait_for_ready(&self) {
        wait_for("readiness", || {
            (self.get("/-/ready", &[]).status == 200).then_some(())
        });
    }

    /// The log so far.
    pub fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// One GET, with further headers.
    pub fn get(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        request(self.address, "GET", path, headers)
    }

    /// The scrape in the text format.
    pub fn scrape(&self) -> Scrape {
        Scrape::parse(&self.get("/metrics", &[]).text())
    }

    /// Scrapes until `found` finds what it looks for.
    pub fn scrape_until<T>(&self, what: &str, mut found: impl FnMut(&Scrape) -> Option<T>) -> T {
        // Before the first rendering, or beside as many scrapes as are allowed, there is none.
        wait_for(what, || {
            let answer = self.get("/metrics", &[]);
            let scrape = (answer.status == 200).then(|| Scrape::parse(&answer.text()))?;
            found(&scrape)
        })
    }

    /// Scrapes until the source has been asked in vain for more `times` since now.
    pub fn wait_for_scans(&self, times: usize) {
        for _ in 0..times {
            let attempt =
                |scrape: &Scrape| scrape.sum("cloudtrail_tls_exporter_batches_total", &[]);
            let before = attempt(&self.scrape());
            self.scrape_until("another scan", |scrape| {
                (attempt(scrape) > before).then_some(())
            });
        }
    }

    /// Kills it as a crash would.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Sends a signal.
    pub fn signal(&self, signal: &str) {
        let sent = Command::new("kill")
            .args([format!("-{signal}"), self.child.id().to_string()])
            .status();
        assert!(sent.unwrap().success());
    }

    /// Sends a signal and waits for the end.
    pub fn end_with(mut self, signal: &str) -> (ExitStatus, Duration, Vec<String>) {
        let started = Instant::now();
        self.signal(signal);
        let status = wait_for("the end", || self.child.try_wait().unwrap());
        (status, started.elapsed(), self.log())
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Asks again and again until there is an answer.
pub fn wait_for<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(started.elapsed() < PATIENCE, "waited in vain for {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// An HTTP answer as it came.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

/// One request on a connection of its own, byte for byte.
pub fn request(address: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let headers: String = headers
        .iter()
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .collect();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n{headers}\r\n"
    )
    .unwrap();
    let mut raw = Vec::new();
    stream.read_to_end(&mut raw).unwrap();
    let end = raw
        .windows(4)
        .position(|part| part == b"\r\n\r\n")
        .expect("a head");
    let head = String::from_utf8(raw[..end].to_vec()).unwrap();
    let mut lines = head.lines();
    let status = lines
        .next()
        .unwrap()
        .split(' ')
        .nth(1)
        .unwrap()
        .parse()
        .unwrap();
    let headers = lines.filter_map(|line| line.split_once(": "));
    let headers = headers
        .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
        .collect();
    Answer {
        status,
        headers,
        body: raw[end + 4..].to_vec(),
    }
}

/// A scrape, by metric name and labels.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scrape(pub BTreeMap<(String, BTreeMap<String, String>), f64>);

impl Scrape {
    /// Reads the text format; a series that stands twice is an error.
    pub fn parse(text: &str) -> Self {
        let mut samples = BTreeMap::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let (series, value) = line.rsplit_once(' ').unwrap();
            let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
            let labels = labels.strip_suffix('}').unwrap();
            let labels = labels
                .split("\",")
                .filter(|label| !label.is_empty())
                .map(|label| {
                    let (key, value) = label.split_once("=\"").unwrap();
                    (key.to_owned(), value.trim_end_matches('"').to_owned())
                });
            let key = (name.to_owned(), labels.collect());
            assert!(
                samples.insert(key, value.parse().unwrap()).is_none(),
                "twice: {series}"
            );
        }
        Self(samples)
    }

    /// The samples of `name` with these labels, among others.
    pub fn of<'s>(
        &'s self,
        name: &'s str,
        labels: &'s [(&str, &str)],
    ) -> impl Iterator<Item = (&'s BTreeMap<String, String>, f64)> {
        let series = self.0.iter().filter(move |((series, _), _)| series == name);
        series
            .map(|((_, labels), value)| (labels, *value))
            .filter(|(found, _)| {
                labels
                    .iter()
                    .all(|(key, value)| found.get(*key).is_some_and(|found| found == value))
            })
    }

    /// Their sum; 0 if there are none.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.of(name, labels).map(|(_, value)| value).sum()
    }

    /// The one sample of `name` with these labels.
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let mut found = self.of(name, labels);
        let (_, value) = found.next()?;
        assert!(found.next().is_none(), "more than one {name}{labels:?}");
        Some(value)
    }

    /// `calls_total` summed by service, TLS version and event name.
    pub fn calls(&self) -> BTreeMap<[String; 3], u64> {
        let mut calls = BTreeMap::new();
        for (labels, value) in self.of("cloudtrail_tls_calls_total", &[]) {
            let key =
                ["aws_service", "tls_version", "event_name"].map(|label| labels[label].clone());
            *calls.entry(key).or_default() += whole(value);
        }
        calls
    }
}

/// A count as the scrape writes it.
pub fn whole(value: f64) -> u64 {
    value.to_string().parse().expect("a whole number")
}

/// The rows of an `expected.tsv`, in the form of [`Scrape::calls`].
pub fn expected(tsv: &Path) -> BTreeMap<[String; 3], u64> {
    let text = fs::read_to_string(tsv).unwrap();
    let rows = text.lines().skip(1).map(|line| {
        let [source, version, event, count] =
            line.split('\t').collect::<Vec<_>>().try_into().unwrap();
        let version = if version.is_empty() { "none" } else { version };
        let service = source.strip_suffix(".amazonaws.com").unwrap_or(source);
        (
            [service, version, event].map(str::to_owned),
            count.parse().unwrap(),
        )
    });
    rows.collect()
}

/// A configuration over a folder, written into `home` with a store beside it. `more` is added to the
/// source's table.
pub fn config(home: &Path, location: &Path, more: &str) -> PathBuf {
    let path = home.join("config.toml");
    let toml = format!(
        "[state]\npath = '{home}/state.db'\nretention = \"9999d\"\n\
         [[sources]]\nname = \"trail\"\ntype = \"trail_files\"\nlocation = '{location}'\n\
         interval = \"1s\"\nlookback = \"9999d\"\n{more}\n",
        home = home.display(),
        location = location.display(),
    );
    fs::write(&path, toml).unwrap();
    path
}
