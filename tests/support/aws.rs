//! The double of AWS's services (`tests/double`), and the exporter's own parts over it with a clock in the test's hands.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test file uses its own part"
)]

use std::cell::Cell;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_smithy_types::timeout::TimeoutConfig;
use cloudtrail_tls_exporter::aws::{Access, Quota};
use cloudtrail_tls_exporter::exposition::negotiate::Format;
use cloudtrail_tls_exporter::exposition::{self, Publisher};
use cloudtrail_tls_exporter::metrics::Metrics;
use cloudtrail_tls_exporter::source::Terms;
use cloudtrail_tls_exporter::source::logs_insights::{self, Form, LogsInsights};
use cloudtrail_tls_exporter::source::query::{self, QuerySource};
use cloudtrail_tls_exporter::status::Status;
use cloudtrail_tls_exporter::store::{self, Store, StoreError, WorkerName};
use cloudtrail_tls_exporter::time::Timestamp;
use cloudtrail_tls_exporter::tls::TlsVersion;
use cloudtrail_tls_exporter::window::Schedule;
use cloudtrail_tls_exporter::worker::{Reports, TickError, Worker};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::programs::{python, run_well};
use crate::support::{Scrape, wait_for};

pub const ACCOUNT: &str = "111122223333";
pub const REGION: &str = "eu-west-1";
pub const GROUP: &str = "trail";
pub const KEY: &str = "AKIADOUBLE";
pub const SECRET: &str = "secret-of-the-double";
pub const MINUTE: Duration = Duration::from_secs(60);
pub const HOUR: Duration = Duration::from_secs(3600);

/// A running double; it ends with its stdin.
pub struct Double {
    child: Child,
    _stdin: ChildStdin,
    pub endpoint: String,
}

impl Double {
    /// Starts a double with one log group and one set of credentials.
    pub fn start() -> Self {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/double/main.py");
        let mut child = python()
            .arg(script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let stdout = child.stdout.take().unwrap();
        BufReader::new(stdout).read_line(&mut line).unwrap();
        let told: Value = serde_json::from_str(&line).unwrap();
        let double = Self {
            _stdin: child.stdin.take().unwrap(),
            child,
            endpoint: told["endpoint"].as_str().unwrap().to_owned(),
        };
        double.post(
            "credentials",
            &json!([{"access_key": KEY, "secret": SECRET, "account": ACCOUNT}]),
        );
        double.group(json!({"creationTime": 0}));
        double
    }

    /// Makes the log group, or makes it anew with other members.
    pub fn group(&self, more: Value) {
        let mut group = json!({"name": GROUP, "account": ACCOUNT, "region": REGION, "class": "STANDARD",
            "creationTime": 0, "retentionInDays": null});
        for (member, value) in more.as_object().unwrap() {
            group[member] = value.clone();
        }
        self.post("groups", &json!([group]));
    }

    pub fn post(&self, control: &str, body: &Value) -> Value {
        let url = format!("{}/control/{control}", self.endpoint);
        let answer = ureq::post(&url)
            .content_type("application/json")
            .send(body.to_string());
        let text = answer.unwrap().body_mut().read_to_string().unwrap();
        serde_json::from_str(&text).unwrap()
    }

    pub fn stats(&self) -> Value {
        let url = format!("{}/control/stats", self.endpoint);
        let text = ureq::get(&url).call().unwrap().body_mut().read_to_string();
        serde_json::from_str(&text.unwrap()).unwrap()
    }

    pub fn switch(&self, switches: Value) {
        self.post("switches", &switches);
    }

    /// The next requests of an operation go wrong.
    pub fn fault(&self, operation: &str, times: u32, action: Value) {
        let fault = json!({"operation": operation, "skip": 0, "times": times, "action": action});
        self.post("faults", &json!([fault]));
    }

    /// Its clock shows `now` and goes on from there.
    pub fn set_clock(&self, now: Timestamp) {
        let real = UNIX_EPOCH.elapsed().unwrap().as_millis();
        let offset = now.secs() * 1000 - i64::try_from(real).unwrap();
        self.post("clock", &json!({"real": true, "offset_ms": offset}));
    }

    /// Delivers events at `timestamp`, queryable at once.
    pub fn deliver(&self, timestamp: Timestamp, messages: &[String]) {
        let ms = timestamp.secs() * 1000;
        let events: Vec<Value> = messages
            .iter()
            .map(|message| json!({"timestamp": ms, "message": message}))
            .collect();
        self.post(
            "events",
            &json!({"log_group": GROUP, "account": ACCOUNT, "region": REGION, "events": events}),
        );
    }

    /// The double itself did not fail.
    pub fn assert_sound(&self) {
        assert_eq!(
            self.stats()["broken"],
            0,
            "the double broke, see its stderr"
        );
    }
}

impl Drop for Double {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// How many times an operation was called at the double.
pub fn calls(stats: &Value, operation: &str) -> u64 {
    stats["calls"][operation].as_u64().unwrap_or(0)
}

/// What nobody could confirm of AWS, all one way …
pub fn one_way() -> Value {
    json!({"missing_key": "absent", "end_inclusive": "millisecond", "ptr_in_rows": false,
        "number_format": "plain", "statistics": "all", "boolean": "1/0", "not_equal_absent": false,
        "ia_discovers_fields": true, "literal_in_coalesce": "ok", "field_order": "as_written"})
}

/// … and all the other.
pub fn the_other_way() -> Value {
    json!({"missing_key": "empty", "end_inclusive": "second", "ptr_in_rows": true,
        "number_format": "scientific", "statistics": "three", "boolean": "true/false", "not_equal_absent": true,
        "ia_discovers_fields": false, "literal_in_coalesce": "refused", "field_order": "shuffled"})
}

/// Runs a test with all that nobody could confirm of AWS one way, and again the other way.
pub fn both_ways(test: impl Fn()) {
    for switches in [one_way(), the_other_way()] {
        SWITCHES.set(Some(switches));
        test();
    }
    SWITCHES.set(None);
}

thread_local! {
    static NOW: Cell<i64> = const { Cell::new(0) };
    /// How the doubles of this thread are switched.
    static SWITCHES: Cell<Option<Value>> = const { Cell::new(None) };
}

/// The host's clock of the test that runs on this thread.
pub fn now() -> Timestamp {
    Timestamp::from_secs(NOW.get())
}

pub fn set_now(now: Timestamp) {
    NOW.set(now.secs());
}

/// The settings of an exporter over the double.
#[derive(Clone)]
pub struct Setup {
    pub query: query::Settings,
    pub engine: logs_insights::Settings,
    pub quota: Arc<Quota>,
    pub credentials: Credentials,
    /// How long one request may take.
    pub patience: Duration,
    /// The window of the gauges.
    pub window: Duration,
}

impl Setup {
    pub fn new() -> Self {
        let bucket = 5 * MINUTE;
        Self {
            query: query::Settings {
                schedule: Schedule {
                    bucket,
                    settle: 5 * MINUTE,
                    longest: 6 * HOUR,
                },
                lookback: HOUR,
                catch_up_limit: 7 * 24 * HOUR,
                timeout: 15 * MINUTE,
                first_pause: Duration::from_millis(1),
                recount_after: None,
                recount_reach: 23 * HOUR,
                control: false,
                minimum_version: TlsVersion::Tls12,
            },
            engine: logs_insights::Settings {
                access: Access::default(),
                log_groups: vec![GROUP.to_owned()],
                form: Form::Fields,
                outdated_only: false,
                minimum_version: TlsVersion::Tls12,
                bucket,
                most_rows: logs_insights::MOST_ROWS,
                page: logs_insights::PAGE,
            },
            // The quotas of most tests are the double's, which let all through.
            quota: Arc::new(Quota::new(1000, 1000, 50)),
            credentials: Credentials::new(KEY, SECRET, None, None, "test"),
            patience: 20 * Duration::from_secs(1),
            window: 24 * HOUR,
        }
    }
}

/// One life of the exporter's parts over the double.
pub struct Life {
    pub worker: Worker<QuerySource<LogsInsights>>,
    publisher: Publisher,
    pub metrics: Metrics,
    pub store: Store,
}

/// The double, a store that outlives the exporter, and a runtime on this thread.
pub struct Rig {
    pub double: Double,
    pub setup: Setup,
    pub home: TempDir,
    pub runtime: Runtime,
}

impl Rig {
    /// A rig whose clocks show `now`.
    pub fn new(now: Timestamp) -> Self {
        let double = Double::start();
        double.switch(json!({
            "polls_scheduled": 0, "polls_running": 1,
            "starts_per_second": 100_000, "polls_per_second": 100_000, "describes_per_second": 100_000,
            // Requests are signed by the real clock.
            "signature_tolerance_seconds": 1_000_000_000_u64,
        }));
        if let Some(switches) = SWITCHES.take() {
            double.switch(switches.clone());
            SWITCHES.set(Some(switches));
        }
        let rig = Self {
            double,
            setup: Setup::new(),
            home: tempfile::tempdir().unwrap(),
            runtime: tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap(),
        };
        rig.set_clocks(now);
        rig
    }

    pub fn set_clocks(&self, now: Timestamp) {
        set_now(now);
        self.double.set_clock(now);
    }

    pub fn sdk(&self) -> SdkConfig {
        let credentials = SharedCredentialsProvider::new(self.setup.credentials.clone());
        SdkConfig::builder()
            .behavior_version(BehaviorVersion::v2026_01_12())
            .region(Region::new(REGION))
            .endpoint_url(&self.double.endpoint)
            .timeout_config(
                TimeoutConfig::builder()
                    .operation_attempt_timeout(self.setup.patience)
                    .build(),
            )
            .credentials_provider(credentials)
            .build()
    }

    /// A new process over the same store.
    pub fn start(&self) -> Life {
        let setup = self.setup.clone();
        let metrics = Metrics::new().unwrap();
        let retention = 35 * 24 * HOUR;
        let exposition = exposition::Settings {
            minimum_version: setup.query.minimum_version,
            window: setup.window,
            retention,
            quiet_period: 7 * 24 * HOUR,
            label_account: true,
            label_region: false,
        };
        let publisher = Publisher::start(exposition, metrics.clone()).unwrap();
        let changes = publisher.clone();
        let store = store::Settings {
            path: Some(self.home.path().join("state.db")),
            retention,
            window: setup.window,
            bucket: setup.query.schedule.bucket,
            minimum_version: setup.query.minimum_version,
            quiet_period: 7 * 24 * HOUR,
        };
        // A program that another test starts holds the lock's file between its fork and its exec.
        let store = wait_for("the store's lock", || {
            let changes = changes.clone();
            match Store::open(store.clone(), move |change| changes.change(change)) {
                Err(StoreError::Locked(_)) => None,
                opened => Some(opened.unwrap()),
            }
        });
        let name = WorkerName {
            source: "logs".into(),
            source_type: "logs_insights",
            account: String::new(),
            region: REGION.into(),
        };
        let worker = self.worker(name, &store, &metrics);
        Life {
            worker,
            publisher,
            metrics,
            store,
        }
    }

    /// A worker of a name over a store.
    pub fn worker(
        &self,
        name: WorkerName,
        store: &Store,
        metrics: &Metrics,
    ) -> Worker<QuerySource<LogsInsights>> {
        let Setup {
            query,
            engine,
            quota,
            ..
        } = self.setup.clone();
        let engine = LogsInsights::new(&self.sdk(), engine, Arc::clone(&quota));
        let terms = Terms {
            settle: query.schedule.settle,
            price_per_gib: 0.005,
        };
        let source = QuerySource::new(engine, query, quota);
        metrics.source_configured(&name.source, 5 * MINUTE, terms);
        let state = self.runtime.block_on(store.worker(name.clone(), now()));
        let reports = Reports {
            metrics: metrics.clone(),
            status: Status::default(),
        };
        let worker = Worker::new(name, &state.unwrap(), source, store.clone(), reports, now);
        worker.unwrap().on(terms)
    }

    pub fn tick(&self, life: &mut Life) -> Result<(), TickError> {
        self.runtime.block_on(life.worker.tick())
    }

    /// Ticks every `every` from now until `end`, with both clocks.
    pub fn run(&self, life: &mut Life, every: Duration, end: Timestamp) {
        while now() < end {
            self.set_clocks(now().plus(every).min(end));
            self.tick(life).unwrap();
        }
    }

    /// Ends a life as kill -9 does: whatever is not committed is gone.
    pub fn end(&self, life: Life) {
        let Life { worker, store, .. } = life;
        drop(worker);
        self.runtime.block_on(store.close());
    }

    /// Delivers the records of trail files over the time from `from` to `to`; returns the file of events.
    pub fn deliver_folders(
        &self,
        from: Timestamp,
        to: Timestamp,
        most: u32,
        folders: &[&Path],
    ) -> PathBuf {
        let out = self
            .home
            .path()
            .join(format!("events-{}.ndjson", from.secs()));
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/double/deliveries.py");
        let (from, to) = (from.secs() * 1000, to.secs() * 1000);
        let mut python = python();
        python.arg(script).arg(&out).args([GROUP, ACCOUNT, REGION]);
        python.args([
            from.to_string(),
            to.to_string(),
            "7".to_owned(),
            most.to_string(),
        ]);
        run_well(python.args(folders), b"");
        self.double.post("events", &json!({"file": out}));
        out
    }
}

impl Life {
    /// What a scrape shows now.
    pub fn scrape(&self) -> Scrape {
        self.publisher.settle();
        let body = self
            .publisher
            .newest()
            .body(&self.metrics.gather(), Format::Text, false);
        let text: Vec<u8> = body.iter().flatten().copied().collect();
        Scrape::parse(&String::from_utf8(text).unwrap())
    }
}

/// A sample without its `source`, as `truth.py` writes it.
pub fn lines(scrape: &Scrape, families: &[&str]) -> Vec<String> {
    let mut lines: Vec<String> = scrape
        .0
        .iter()
        .filter(|((name, _), _)| families.contains(&name.as_str()))
        .map(|((name, labels), value)| {
            let labels: Vec<String> = labels
                .iter()
                .filter(|(label, _)| *label != "source")
                .map(|(label, value)| format!("{label}=\"{value}\""))
                .collect();
            format!("{name}{{{}}} {value}", labels.join(","))
        })
        .collect();
    lines.sort();
    lines
}

/// What DuckDB finds in a file of events: every sample that the scrape must show.
pub fn truth(events: &Path, from: Timestamp, to: Timestamp, window: Timestamp) -> Vec<String> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/double/truth.py");
    let times = [from, to, window].map(|time| (time.secs() * 1000).to_string());
    let text = run_well(python().arg(script).arg(events).args(times), b"");
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

/// The families that `truth` tells of.
pub const FAMILIES: [&str; 9] = [
    "cloudtrail_tls_calls_total",
    "cloudtrail_tls_window_calls",
    "cloudtrail_tls_account_outdated_window_calls",
    "cloudtrail_tls_outdated_window_calls",
    "cloudtrail_tls_control_window_calls",
    "cloudtrail_tls_cipher_suite_window_calls",
    "cloudtrail_tls_key_exchange_calls_total",
    "cloudtrail_tls_account_newest_record_timestamp_seconds",
    "cloudtrail_tls_outdated_last_call_timestamp_seconds",
];

/// A record as CloudTrail writes it.
pub fn record(service: &str, event: &str, version: &str, time: Timestamp) -> String {
    let mut record = json!({
        "eventVersion": "1.11", "eventTime": time.to_string(), "eventSource": format!("{service}.amazonaws.com"),
        "eventName": event, "awsRegion": REGION, "eventID": fastrand::u128(..).to_string(),
        "recipientAccountId": ACCOUNT,
    });
    if version != "none" {
        record["tlsDetails"] = json!({"tlsVersion": version, "cipherSuite": "X",
            "clientProvidedHostHeader": "h"});
    }
    record.to_string()
}
