//! The double of AWS's services (`tests/double`), and the exporter's own parts over it with a clock in the test's hands.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test file uses its own part"
)]

use std::cell::Cell;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_smithy_types::timeout::TimeoutConfig;
use cloudtrail_tls_exporter::aws::Quota;
use cloudtrail_tls_exporter::exposition::negotiate::Format;
use cloudtrail_tls_exporter::exposition::{self, Publisher};
use cloudtrail_tls_exporter::metrics::Metrics;
use cloudtrail_tls_exporter::source::athena::{self, Athena, Layout};
use cloudtrail_tls_exporter::source::event_history::{self, EventHistory};
use cloudtrail_tls_exporter::source::lake::{self, KeyExchange, Lake};
use cloudtrail_tls_exporter::source::logs_insights::{self, Form, LogsInsights};
use cloudtrail_tls_exporter::source::query::{self, Budget, QuerySource};
use cloudtrail_tls_exporter::source::{Source, Terms};
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
use crate::support::{ASKED_CALLERS, CALLER_LABELS, Exporter, Scrape, wait_for};

pub const ACCOUNT: &str = "111122223333";
pub const REGION: &str = "eu-west-1";
pub const GROUP: &str = "trail";
pub const STORE: &str = "01234567-89ab-cdef-0123-456789abcdef";
pub const TABLE: &str = "cloudtrail_logs";
pub const KEY: &str = "AKIADOUBLE";
pub const SECRET: &str = "secret-of-the-double";
pub const MINUTE: Duration = Duration::from_secs(60);
pub const HOUR: Duration = Duration::from_secs(3600);

/// The environment of a program that asks the double.
pub const ENVIRONMENT: [(&str, &str); 4] = [
    ("AWS_ACCESS_KEY_ID", KEY),
    ("AWS_SECRET_ACCESS_KEY", SECRET),
    ("AWS_REGION", REGION),
    ("AWS_EC2_METADATA_DISABLED", "true"),
];

/// A running double.
pub struct Double {
    pub endpoint: String,
}

/// The program that starts doubles, one for all tests of this process; it ends with its stdin, and they with it.
static DOUBLES: LazyLock<Mutex<Doubles>> = LazyLock::new(|| Mutex::new(Doubles::start()));

struct Doubles {
    _process: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Doubles {
    fn start() -> Self {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/double/main.py");
        let mut child = python()
            .arg(script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Self {
            stdin: child.stdin.take().unwrap(),
            stdout: BufReader::new(child.stdout.take().unwrap()),
            _process: child,
        }
    }

    /// Has an order carried out; the endpoint of the double that it was about.
    fn order(order: &str) -> String {
        let mut doubles = DOUBLES.lock().unwrap_or_else(PoisonError::into_inner);
        writeln!(doubles.stdin, "{order}").unwrap();
        let mut line = String::new();
        doubles.stdout.read_line(&mut line).unwrap();
        let told: Value = serde_json::from_str(&line).unwrap();
        told["endpoint"].as_str().unwrap().to_owned()
    }
}

impl Double {
    /// Starts a double with one set of credentials.
    pub fn start() -> Self {
        let double = Self {
            endpoint: Doubles::order("start"),
        };
        double.post(
            "credentials",
            &json!([{"access_key": KEY, "secret": SECRET, "account": ACCOUNT}]),
        );
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

    /// Makes the table, or makes it anew with other members, and a workgroup that says nothing of results.
    pub fn table(&self, more: Value) {
        let mut table = json!({"catalog": "AwsDataCatalog", "database": "default", "table": TABLE,
            "account": ACCOUNT, "region": REGION, "key_exchange": true});
        for (member, value) in more.as_object().unwrap() {
            table[member] = value.clone();
        }
        self.post("tables", &json!([table]));
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

    /// Delivers events at `timestamp` to a place, queryable at once.
    pub fn deliver(&self, place: &Value, timestamp: Timestamp, messages: &[String]) {
        let events = messages.iter().map(|message| (timestamp, message.clone()));
        self.deliver_all(place, events.collect());
    }

    /// Delivers an event that can be queried, and lies in the folder of the day, only from `queryable` on.
    pub fn deliver_at(&self, place: &Value, time: Timestamp, queryable: Timestamp, message: &str) {
        let [timestamp, queryable] = [time, queryable].map(|time| time.secs() * 1000);
        let event = json!({"timestamp": timestamp, "queryable": queryable, "message": message});
        let mut order = json!({"account": ACCOUNT, "region": REGION, "events": [event]});
        for (member, value) in place.as_object().unwrap() {
            order[member] = value.clone();
        }
        self.post("events", &order);
    }

    /// Delivers events, each at its time, queryable at once.
    pub fn deliver_all(&self, place: &Value, events: Vec<(Timestamp, String)>) {
        let event = |(time, message): (Timestamp, String)| {
            let ms = time.secs() * 1000;
            json!({"timestamp": ms, "queryable": ms, "message": message})
        };
        let events: Vec<Value> = events.into_iter().map(event).collect();
        let mut order = json!({"account": ACCOUNT, "region": REGION, "events": events});
        for (member, value) in place.as_object().unwrap() {
            order[member] = value.clone();
        }
        self.post("events", &order);
    }

    /// Runs the program over a configuration of sources, and a store of its own, until a scrape is as it should be.
    pub fn scrape_of_the_program(
        &self,
        sources: &str,
        what: &str,
        fits: impl Fn(&Scrape) -> bool,
    ) -> Scrape {
        let home = tempfile::tempdir().unwrap();
        let config = home.path().join("config.toml");
        let state = home.path().join("state.db");
        let toml = format!(
            "[state]\npath = '{}'\n{sources}endpoint_url = \"{}\"\n",
            state.display(),
            self.endpoint
        );
        std::fs::write(&config, toml).unwrap();
        let flags = ["--config.file", config.to_str().unwrap()];
        let exporter = Exporter::start_in(&flags, &ENVIRONMENT);
        exporter.wait_for_ready();
        exporter.scrape_until(what, |scrape| fits(scrape).then(|| scrape.clone()))
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
        Doubles::order(&format!("end {}", self.endpoint));
    }
}

/// How many times an operation was called at the double, of whatever service.
pub fn calls(stats: &Value, operation: &str) -> u64 {
    let calls = stats["calls"].as_object().unwrap().iter();
    let of_operation = calls.filter(|(name, _)| name.split(':').next_back() == Some(operation));
    of_operation.map(|(_, calls)| calls.as_u64().unwrap()).sum()
}

/// What nobody could confirm of AWS, all one way …
pub fn one_way() -> Value {
    json!({"missing_key": "absent", "end_inclusive": "millisecond", "ptr_in_rows": false,
        "number_format": "plain", "statistics": "all", "boolean": "1/0", "not_equal_absent": false,
        "ia_discovers_fields": true, "literal_in_coalesce": "ok", "field_order": "as_written",
        "lake_columns": "as_written", "lake_null": "absent", "lake_key_exchange": "column",
        "lake_checks_columns": "at_start", "lake_total": true, "lake_prunes": "time",
        "athena_header": true, "athena_syntax": "at_start", "athena_requeues": false, "lookup_duplicates": false, "lookup_empty_pages": false})
}

/// … and all the other.
pub fn the_other_way() -> Value {
    json!({"missing_key": "empty", "end_inclusive": "second", "ptr_in_rows": true,
        "number_format": "scientific", "statistics": "three", "boolean": "true/false", "not_equal_absent": true,
        "ia_discovers_fields": false, "literal_in_coalesce": "refused", "field_order": "shuffled",
        "lake_columns": "lower", "lake_null": "empty", "lake_key_exchange": "absent",
        "lake_checks_columns": "while_running", "lake_total": false, "lake_prunes": "calendarday",
        "athena_header": false, "athena_syntax": "while_running", "athena_requeues": true, "lookup_duplicates": true, "lookup_empty_pages": true})
}

/// Runs a test with all that nobody could confirm of AWS one way, and again the other way.
pub fn both_ways(test: impl Fn()) {
    for switches in [one_way(), the_other_way()] {
        SWITCHES.set(Some(switches));
        test();
    }
    SWITCHES.set(None);
}

/// How a switch stands for the doubles of this test; `None` outside of [`both_ways`].
pub fn switched(name: &str) -> Option<Value> {
    let switches = SWITCHES.take();
    let value = switches.as_ref().map(|switches| switches[name].clone());
    SWITCHES.set(switches);
    value
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

/// A type of source, by its own settings.
pub trait Subject: Clone + 'static {
    type Source: Source;
    /// As in the configuration.
    const TYPE: &'static str;
    /// Whether calls are told by the time at which they were made.
    const BY_EVENT_TIME: bool;
    /// Settings that fit what `make` makes.
    fn settings() -> Self;
    /// Makes what is asked at the double.
    fn make(double: &Double);
    /// Where the double puts events for it.
    fn place() -> Value;
    fn source(setup: &Setup<Self>, sdk: &SdkConfig, budget: &Arc<Budget>) -> Self::Source;
}

impl Subject for logs_insights::Settings {
    type Source = QuerySource<LogsInsights>;
    const TYPE: &'static str = "logs_insights";
    const BY_EVENT_TIME: bool = false;

    fn settings() -> Self {
        Self {
            log_groups: vec![GROUP.to_owned()],
            form: Form::Fields,
            outdated_only: false,
            minimum_version: TlsVersion::Tls12,
            bucket: BUCKET,
            most_rows: logs_insights::MOST_ROWS,
            page: logs_insights::PAGE,
        }
    }

    fn make(double: &Double) {
        double.group(json!({"creationTime": 0}));
    }

    fn place() -> Value {
        json!({"log_group": GROUP})
    }

    fn source(setup: &Setup<Self>, sdk: &SdkConfig, budget: &Arc<Budget>) -> Self::Source {
        let engine = LogsInsights::new(sdk, setup.engine.clone(), Arc::clone(&setup.quota));
        QuerySource::new(engine, setup.query.clone(), Arc::clone(&setup.quota)).within(budget)
    }
}

impl Subject for lake::Settings {
    type Source = QuerySource<Lake>;
    const TYPE: &'static str = "lake";
    const BY_EVENT_TIME: bool = true;

    fn settings() -> Self {
        Self {
            event_data_store: STORE.to_owned(),
            owner_account: None,
            key_exchange: KeyExchange::Column,
            deduplicate: true,
            bucket: BUCKET,
            most_rows: lake::MOST_ROWS,
            page: lake::PAGE,
        }
    }

    fn make(double: &Double) {
        let store = json!([{"id": STORE, "account": ACCOUNT, "region": REGION}]);
        double.post("stores", &store);
    }

    fn place() -> Value {
        json!({"event_data_store": STORE})
    }

    fn source(setup: &Setup<Self>, sdk: &SdkConfig, budget: &Arc<Budget>) -> Self::Source {
        let engine = Lake::new(sdk, setup.engine.clone(), Arc::clone(&setup.quota));
        QuerySource::new(engine, setup.query.clone(), Arc::clone(&setup.quota)).within(budget)
    }
}

impl Subject for athena::Settings {
    type Source = QuerySource<Athena>;
    const TYPE: &'static str = "athena";
    const BY_EVENT_TIME: bool = true;

    fn settings() -> Self {
        Self {
            catalog: "AwsDataCatalog".to_owned(),
            database: "default".to_owned(),
            table: TABLE.to_owned(),
            workgroup: "primary".to_owned(),
            output_location: Some("s3://results/".to_owned()),
            layout: Layout::Timestamp,
            deduplicate: true,
            settle: 5 * MINUTE,
            recount_after: Duration::ZERO,
            bucket: BUCKET,
            most_rows: athena::MOST_ROWS,
            page: athena::PAGE,
        }
    }

    fn make(double: &Double) {
        double.table(json!({"layout": "timestamp"}));
    }

    fn place() -> Value {
        json!({"table": format!("default.{TABLE}")})
    }

    fn source(setup: &Setup<Self>, sdk: &SdkConfig, budget: &Arc<Budget>) -> Self::Source {
        let engine = Athena::new(sdk, setup.engine.clone(), Arc::clone(&setup.quota));
        QuerySource::new(engine, setup.query.clone(), Arc::clone(&setup.quota)).within(budget)
    }
}

impl Subject for event_history::Settings {
    type Source = EventHistory;
    const TYPE: &'static str = "event_history";
    const BY_EVENT_TIME: bool = true;

    fn settings() -> Self {
        Self {
            schedule: schedule(),
            lookback: HOUR,
            catch_up_limit: 7 * 24 * HOUR,
            page: event_history::PAGE,
            pages_per_second: 1,
            callers: ASKED_CALLERS,
        }
    }

    fn make(_: &Double) {}

    fn place() -> Value {
        json!({"event_history": true})
    }

    /// With the windows of the other sources' settings, bucket by bucket.
    fn source(setup: &Setup<Self>, sdk: &SdkConfig, _: &Arc<Budget>) -> Self::Source {
        let query = &setup.query;
        let settings = Self {
            schedule: Schedule {
                longest: query.schedule.bucket,
                ..query.schedule
            },
            lookback: query.lookback,
            catch_up_limit: query.catch_up_limit,
            ..setup.engine.clone()
        };
        EventHistory::new(sdk, settings, Arc::clone(&setup.quota))
    }
}

/// The grid of time.
pub const BUCKET: Duration = Duration::from_secs(300);

fn schedule() -> Schedule {
    Schedule {
        bucket: BUCKET,
        settle: 5 * MINUTE,
        longest: 6 * HOUR,
        interval: 5 * MINUTE,
    }
}

/// The settings of an exporter over the double.
#[derive(Clone)]
pub struct Setup<S> {
    pub query: query::Settings,
    pub engine: S,
    pub quota: Arc<Quota>,
    pub credentials: Credentials,
    /// How long one request may take.
    pub patience: Duration,
    /// The window of the gauges.
    pub window: Duration,
    pub price_per_gib: f64,
    /// The source's budget of a day.
    pub budget: Option<u64>,
}

impl<S: Subject> Setup<S> {
    fn new() -> Self {
        Self {
            query: query::Settings {
                schedule: schedule(),
                lookback: HOUR,
                catch_up_limit: 7 * 24 * HOUR,
                timeout: 15 * MINUTE,
                first_pause: Duration::from_millis(1),
                recount: None,
                control: false,
                minimum_version: TlsVersion::Tls12,
                callers: None,
            },
            engine: S::settings(),
            // The quotas of most tests are the double's, which let all through.
            quota: Arc::new(Quota::new(1000, 1000, 50)),
            credentials: Credentials::new(KEY, SECRET, None, None, "test"),
            patience: 20 * Duration::from_secs(1),
            window: 24 * HOUR,
            price_per_gib: 0.005,
            budget: None,
        }
    }
}

/// One life of the exporter's parts over the double.
pub struct Life<S: Subject> {
    pub worker: Worker<S::Source>,
    publisher: Publisher,
    pub metrics: Metrics,
    pub store: Store,
}

/// The double, a store that outlives the exporter, and a runtime on this thread.
pub struct Rig<S: Subject> {
    pub double: Double,
    pub setup: Setup<S>,
    /// Where events are delivered.
    pub place: Value,
    pub home: TempDir,
    pub runtime: Runtime,
}

impl<S: Subject> Rig<S> {
    /// A rig whose clocks show `now`.
    pub fn new(now: Timestamp) -> Self {
        let double = Double::start();
        S::make(&double);
        double.switch(json!({
            "polls_scheduled": 0, "polls_running": 1,
            "starts_per_second": 100_000, "polls_per_second": 100_000, "describes_per_second": 100_000,
            "lake_starts_per_second": 100_000, "lake_describes_per_second": 100_000,
            "lake_results_per_second": 100_000, "lake_stores_per_second": 100_000, "lake_cancels_per_second": 100_000,
            "athena_starts_per_second": 100_000, "athena_polls_per_second": 100_000,
            "athena_results_per_second": 100_000, "athena_stops_per_second": 100_000, "lookups_per_second": 100_000,
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
            place: S::place(),
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
    pub fn start(&self) -> Life<S> {
        let setup = self.setup.clone();
        let metrics = Metrics::new().unwrap();
        let retention = 35 * 24 * HOUR;
        let exposition = exposition::Settings {
            minimum_version: setup.query.minimum_version,
            window: setup.window,
            retention,
            quiet_period: 7 * 24 * HOUR,
            series: Default::default(),
            callers: exposition::CallerSettings {
                limit: 200,
                labels: CALLER_LABELS,
            },
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
            series: Default::default(),
            callers: CALLER_LABELS,
        };
        // A program that another test starts holds the lock's file between its fork and its exec.
        let store = wait_for("the store's lock", || {
            let changes = changes.clone();
            match Store::open(store.clone(), move |change| changes.change(change)) {
                Err(StoreError::Locked(_)) => None,
                opened => Some(opened.unwrap()),
            }
        });
        let worker = self.worker(S::TYPE, &store, &metrics);
        Life {
            worker,
            publisher,
            metrics,
            store,
        }
    }

    /// A worker over a store, the only one of a source of this name.
    pub fn worker(&self, source: &str, store: &Store, metrics: &Metrics) -> Worker<S::Source> {
        let budget = Arc::new(Budget::new(source, self.setup.budget));
        self.worker_in(source, REGION, store, metrics, &budget)
    }

    /// A worker over a store, of a source of this name that has this budget; it asks as in [`REGION`].
    pub fn worker_in(
        &self,
        source: &str,
        region: &str,
        store: &Store,
        metrics: &Metrics,
        budget: &Arc<Budget>,
    ) -> Worker<S::Source> {
        let name = WorkerName {
            source: source.into(),
            source_type: S::TYPE,
            account: String::new(),
            region: region.into(),
        };
        let terms = Terms {
            schedule: self.setup.query.schedule,
            price_per_gib: self.setup.price_per_gib,
        };
        let source = S::source(&self.setup, &self.sdk(), budget);
        metrics.source_configured(&name.source, 5 * MINUTE, terms);
        let state = self.runtime.block_on(store.worker(name.clone(), now()));
        let reports = Reports {
            metrics: metrics.clone(),
            status: Status::default(),
        };
        let worker = Worker::new(name, &state.unwrap(), source, store.clone(), reports, now);
        worker.unwrap().on(terms)
    }

    pub fn tick(&self, life: &mut Life<S>) -> Result<(), TickError> {
        self.runtime.block_on(life.worker.tick())
    }

    /// Ticks every `every` from now until `end`, with both clocks.
    pub fn run(&self, life: &mut Life<S>, every: Duration, end: Timestamp) {
        while now() < end {
            self.set_clocks(now().plus(every).min(end));
            self.tick(life).unwrap();
        }
    }

    /// Ends a life as kill -9 does: whatever is not committed is gone.
    pub fn end(&self, life: Life<S>) {
        let Life { worker, store, .. } = life;
        drop(worker);
        self.runtime.block_on(store.close());
    }

    /// Delivers events at `timestamp`, queryable at once.
    pub fn deliver(&self, timestamp: Timestamp, messages: &[String]) {
        self.double.deliver(&self.place, timestamp, messages);
    }

    /// Delivers the records of trail files over the time from `from` to `to`, with what the script takes more;
    /// returns the file of events.
    pub fn deliver_folders(
        &self,
        from: Timestamp,
        to: Timestamp,
        most: u32,
        folders: &[PathBuf],
        more: &[&str],
    ) -> PathBuf {
        let out = self
            .home
            .path()
            .join(format!("events-{}.ndjson", from.secs()));
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/double/deliveries.py");
        let (from, to) = (from.secs() * 1000, to.secs() * 1000);
        let mut python = python();
        python.arg(script).args(more);
        python.arg(&out).args([GROUP, ACCOUNT, REGION]);
        python.args([
            from.to_string(),
            to.to_string(),
            "7".to_owned(),
            most.to_string(),
        ]);
        run_well(python.args(folders), b"");
        let mut place = self.place.clone();
        place["account"] = json!(ACCOUNT);
        place["region"] = json!(REGION);
        self.double
            .post("events", &json!({"file": out, "to": [place]}));
        out
    }
}

impl<S: Subject> Life<S> {
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
pub fn truth(
    events: &Path,
    from: Timestamp,
    to: Timestamp,
    window: Timestamp,
    more: &[&str],
) -> Vec<String> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/double/truth.py");
    let times = [from, to, window].map(|time| (time.secs() * 1000).to_string());
    let text = run_well(python().arg(script).arg(events).args(times).args(more), b"");
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
