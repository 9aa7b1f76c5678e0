//! Every metric about the exporter itself. Call sites say what happened; names, labels and buckets stand
//! here and nowhere else.

mod process;
mod removal;

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use prometheus::core::{Collector, MetricVec, MetricVecBuilder};
use prometheus::proto::MetricFamily;
use prometheus::{
    CounterVec, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    Result as MetricResult,
};

use self::process::Process;
use self::removal::Labelled;
use crate::batch::Batch;
use crate::source::{Reason, Requests, Spending, Terms};
use crate::store::{Committed, WorkerName, WorkerState};
use crate::time::Timestamp;

const WORKER: [&str; 3] = ["source", "worker_account", "worker_region"];

/// The exporter's own metrics; clones share them.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Registry,
    /// Every metric that has labels.
    labelled: Arc<[Box<dyn Labelled>]>,
    source_up: IntGaugeVec,
    watermark: IntGaugeVec,
    history_start: IntGaugeVec,
    newest_record: IntGaugeVec,
    last_attempt: IntGaugeVec,
    last_success: IntGaugeVec,
    backlog: IntGaugeVec,
    interval: IntGaugeVec,
    settle: IntGaugeVec,
    batches: IntCounterVec,
    failures: IntCounterVec,
    batch_duration: HistogramVec,
    scanned_bytes: IntCounterVec,
    scanned_records: IntCounterVec,
    cost: CounterVec,
    budget: IntGaugeVec,
    budget_used: IntGaugeVec,
    budget_exhausted: IntGaugeVec,
    skipped: IntCounterVec,
    late: IntCounterVec,
    api_requests: IntCounterVec,
    api_errors: IntCounterVec,
    clock_skew: IntGaugeVec,
    unreadable_files: IntGaugeVec,
    deduplicated: IntCounterVec,
    evicted: IntCounterVec,
    series: IntGaugeVec,
    series_limit: IntGaugeVec,
    series_folded: IntGaugeVec,
    state_last_write: IntGauge,
    state_bytes: IntGauge,
    state_ephemeral: IntGauge,
    reload_successful: IntGauge,
    reload_success: IntGauge,
    requests: IntCounterVec,
    request_duration: HistogramVec,
}

/// Makes and registers metrics under the exporter's prefix.
struct Register<'r> {
    registry: &'r Registry,
    labelled: RefCell<Vec<Box<dyn Labelled>>>,
}

impl Register<'_> {
    fn add<C: Collector + Clone + 'static>(&self, metric: MetricResult<C>) -> MetricResult<C> {
        let metric = metric?;
        self.registry.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    fn add_labelled<T: MetricVecBuilder + 'static>(
        &self,
        metric: MetricResult<MetricVec<T>>,
    ) -> MetricResult<MetricVec<T>> {
        let metric = self.add(metric)?;
        self.labelled.borrow_mut().push(Box::new(metric.clone()));
        Ok(metric)
    }

    fn opts(name: &str, help: &str) -> Opts {
        Opts::new(format!("cloudtrail_tls_exporter_{name}"), help)
    }

    fn gauges(&self, name: &str, labels: &[&str], help: &str) -> MetricResult<IntGaugeVec> {
        self.add_labelled(IntGaugeVec::new(Self::opts(name, help), labels))
    }

    fn gauge(&self, name: &str, help: &str) -> MetricResult<IntGauge> {
        self.add(IntGauge::with_opts(Self::opts(name, help)))
    }

    fn counters(&self, name: &str, labels: &[&str], help: &str) -> MetricResult<IntCounterVec> {
        self.add_labelled(IntCounterVec::new(Self::opts(name, help), labels))
    }

    fn amounts(&self, name: &str, labels: &[&str], help: &str) -> MetricResult<CounterVec> {
        self.add_labelled(CounterVec::new(Self::opts(name, help), labels))
    }

    fn histograms(
        &self,
        name: &str,
        labels: &[&str],
        help: &str,
        buckets: &[f64],
    ) -> MetricResult<HistogramVec> {
        let opts = HistogramOpts {
            common_opts: Self::opts(name, help),
            buckets: buckets.to_vec(),
        };
        self.add_labelled(HistogramVec::new(opts, labels))
    }
}

impl Metrics {
    /// Registers all metrics in a registry of their own.
    pub fn new() -> MetricResult<Self> {
        let registry = Registry::new();
        let of = Register {
            registry: &registry,
            labelled: RefCell::default(),
        };
        let with_reason = ["source", "worker_account", "worker_region", "reason"];
        let build = of.gauges(
            "build_info",
            &["version", "revision", "rustc"],
            "The build that is running; always 1.",
        )?;
        build.with_label_values(&[VERSION, REVISION, RUSTC]).set(1);
        registry.register(Box::new(Process::of_this()))?;
        Ok(Self {
            source_up: of.gauges(
                "source_up",
                &WORKER,
                "1 when the last due attempt succeeded, 0 before the first and after a failure.",
            )?,
            watermark: of.gauges(
                "watermark_timestamp_seconds",
                &WORKER,
                "All up to this time is counted; its age is the age of the data.",
            )?,
            history_start: of.gauges(
                "history_start_timestamp_seconds",
                &WORKER,
                "Since when calls are counted without a gap.",
            )?,
            newest_record: of.gauges(
                "newest_record_timestamp_seconds",
                &WORKER,
                "The newest record counted (its eventTime).",
            )?,
            last_attempt: of.gauges(
                "last_attempt_timestamp_seconds",
                &WORKER,
                "When the source was last asked.",
            )?,
            last_success: of.gauges(
                "last_success_timestamp_seconds",
                &WORKER,
                "When the source last had nothing more that was due.",
            )?,
            backlog: of.gauges(
                "backlog_seconds",
                &WORKER,
                "How much time was due and not yet counted at the last attempt.",
            )?,
            interval: of.gauges(
                "source_interval_seconds",
                &["source"],
                "How long a window of the source is as a rule, or how often its folder is looked through.",
            )?,
            settle: of.gauges(
                "source_settle_seconds",
                &["source"],
                "How long after its end a window is asked for.",
            )?,
            batches: of.counters("batches_total", &WORKER, "Batches committed.")?,
            failures: of.counters(
                "batch_failures_total",
                &with_reason,
                "Attempts and files that failed, by reason: they stay due. `truncated` may also tell of what was counted in part, or late.",
            )?,
            batch_duration: of.histograms(
                "batch_duration_seconds",
                &["source"],
                "Time from asking for a batch to its commit.",
                &[0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0],
            )?,
            scanned_bytes: of.counters(
                "scanned_bytes_total",
                &["source"],
                "Bytes scanned: of files, as they lie on the disk; of queries, as AWS tells.",
            )?,
            scanned_records: of.counters(
                "scanned_records_total",
                &["source"],
                "Records scanned, counted or not.",
            )?,
            cost: of.amounts(
                "estimated_cost_dollars_total",
                &["source"],
                "What the billed bytes cost at the source's `price_per_gib`.",
            )?,
            budget: of.gauges(
                "budget_bytes",
                &["source"],
                "The source's `budget_bytes_per_day`, if it has one.",
            )?,
            budget_used: of.gauges(
                "budget_used_bytes",
                &["source"],
                "Bytes billed for queries that were started on this day (UTC), those before a restart included.",
            )?,
            budget_exhausted: of.gauges(
                "budget_exhausted",
                &["source"],
                "1 while something is due that the day's budget has no room for.",
            )?,
            skipped: of.counters(
                "skipped_seconds_total",
                &WORKER,
                "Time that was given up and is never counted: older than `catch_up_limit`, or of which AWS holds nothing.",
            )?,
            late: of.counters(
                "late_calls_total",
                &WORKER,
                "Calls that were found when a window was counted again.",
            )?,
            api_requests: of.counters(
                "aws_api_requests_total",
                &["source", "operation"],
                "Requests sent to AWS, retries included.",
            )?,
            api_errors: of.counters(
                "aws_api_errors_total",
                &["source", "operation", "reason"],
                "Requests to AWS that failed after all retries.",
            )?,
            clock_skew: of.gauges(
                "clock_skew_seconds",
                &["source"],
                "How far this host's clock is ahead of AWS's.",
            )?,
            unreadable_files: of.gauges(
                "unreadable_files",
                &["source"],
                "Files that could not be read and are tried again; the log names them.",
            )?,
            deduplicated: of.counters(
                "deduplicated_calls_total",
                &["source"],
                "Records passed over because their event id had been counted.",
            )?,
            evicted: of.counters(
                "dedup_evicted_total",
                &["source"],
                "Event ids that left the horizon of duplicates.",
            )?,
            series: of.gauges(
                "series",
                &["family"],
                "Series in the data block, by family.",
            )?,
            series_limit: of.gauges(
                "series_limit",
                &["family"],
                "The most series that the family may have, `series.limit`.",
            )?,
            series_folded: of.gauges(
                "series_folded",
                &["family"],
                "Label sets of the family that have no series of their own: their calls are in those with `other`.",
            )?,
            state_last_write: of.gauge(
                "state_last_write_timestamp_seconds",
                "When the store was last written.",
            )?,
            state_bytes: of.gauge("state_bytes", "The size of the store.")?,
            state_ephemeral: of.gauge(
                "state_ephemeral",
                "1 when the store is in memory and ends with the process.",
            )?,
            reload_successful: of.gauge(
                "config_last_reload_successful",
                "1 when the last reload of the configuration succeeded, 0 when it failed and the one before goes on.",
            )?,
            reload_success: of.gauge(
                "config_last_reload_success_timestamp_seconds",
                "When the configuration that is in force was loaded.",
            )?,
            requests: of.counters(
                "http_requests_total",
                &["path", "code"],
                "HTTP requests answered.",
            )?,
            request_duration: of.histograms(
                "http_request_duration_seconds",
                &["path"],
                "Time to answer an HTTP request, up to the first byte of the body.",
                &[
                    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0,
                ],
            )?,
            labelled: of.labelled.into_inner().into(),
            registry,
        })
    }

    /// All families, for the live block.
    pub fn gather(&self) -> Vec<MetricFamily> {
        self.registry.gather()
    }

    /// A source is configured.
    pub fn source_configured(&self, source: &str, interval: Duration, terms: Terms) {
        self.interval
            .with_label_values(&[source])
            .set(seconds(interval));
        self.settle
            .with_label_values(&[source])
            .set(seconds(terms.schedule.settle));
        self.cost.with_label_values(&[source]);
        self.scanned_bytes.with_label_values(&[source]);
        self.scanned_records.with_label_values(&[source]);
        self.deduplicated.with_label_values(&[source]);
        self.evicted.with_label_values(&[source]);
        self.batch_duration.with_label_values(&[source]);
    }

    /// A worker was loaded: its series exist from now on, failures at zero, so that `rate()` sees the first.
    pub fn worker_loaded(&self, worker: &WorkerName, state: &WorkerState) {
        let labels = labels(worker);
        self.source_up.with_label_values(&labels).set(0);
        self.batches.with_label_values(&labels);
        self.skipped.with_label_values(&labels);
        self.late.with_label_values(&labels);
        self.backlog.with_label_values(&labels);
        for reason in Reason::ALL {
            self.failure_counter(worker, reason);
        }
        self.progressed(
            worker,
            state.watermark,
            state.history_start,
            state.newest_record,
        );
    }

    /// The history of a worker that goes on begins anew.
    pub fn history_began(&self, worker: &WorkerName, history_start: Option<Timestamp>) {
        if let Some(start) = history_start {
            self.history_start
                .with_label_values(&labels(worker))
                .set(start.secs());
        }
    }

    /// A configuration was loaded and is in force.
    pub fn config_loaded(&self, now: Timestamp) {
        self.reload_successful.set(1);
        self.reload_success.set(now.secs());
    }

    /// A configuration was not loaded; the one before goes on.
    pub fn config_refused(&self) {
        self.reload_successful.set(0);
    }

    /// Requests to AWS were sent.
    pub fn requests_sent(&self, worker: &WorkerName, requests: &Requests) {
        let source = worker.source.as_str();
        for (operation, number) in &requests.sent {
            self.api_requests
                .with_label_values(&[source, operation])
                .inc_by(*number);
        }
        for ((operation, reason), number) in &requests.failed {
            self.api_errors
                .with_label_values(&[source, operation, reason.label()])
                .inc_by(*number);
        }
        if let Some(ahead) = requests.ahead {
            self.clock_skew.with_label_values(&[source]).set(ahead);
        }
    }

    /// A worker's source has used so much of its budget.
    pub fn budget_used(&self, worker: &WorkerName, spending: Spending) {
        let source = [worker.source.as_str()];
        let bytes = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        for (gauge, value) in [
            (&self.budget, bytes(spending.limit)),
            (&self.budget_used, bytes(spending.used)),
            (&self.budget_exhausted, i64::from(spending.exhausted)),
        ] {
            gauge.with_label_values(&source).set(value);
        }
    }

    /// A worker starts an attempt.
    pub fn attempt_started(&self, worker: &WorkerName, now: Timestamp) {
        self.last_attempt
            .with_label_values(&labels(worker))
            .set(now.secs());
    }

    /// A batch was committed.
    pub fn batch_committed(
        &self,
        worker: &WorkerName,
        batch: &Batch,
        committed: &Committed,
        terms: Terms,
        now: Timestamp,
        took: Duration,
    ) {
        let source = [worker.source.as_str()];
        self.batches.with_label_values(&labels(worker)).inc();
        self.batch_duration
            .with_label_values(&source)
            .observe(took.as_secs_f64());
        self.scanned_bytes
            .with_label_values(&source)
            .inc_by(batch.scanned.bytes);
        self.cost
            .with_label_values(&source)
            .inc_by(terms.price(batch.scanned.billed_bytes));
        self.skipped
            .with_label_values(&labels(worker))
            .inc_by(batch.skipped_seconds);
        self.late
            .with_label_values(&labels(worker))
            .inc_by(committed.recount.late + batch.late_calls);
        self.scanned_records
            .with_label_values(&source)
            .inc_by(batch.scanned.records);
        self.deduplicated
            .with_label_values(&source)
            .inc_by(batch.duplicates);
        self.evicted
            .with_label_values(&source)
            .inc_by(batch.evicted);
        if let Some(files) = batch.unreadable_files {
            self.unreadable_files
                .with_label_values(&source)
                .set(files.try_into().unwrap_or(i64::MAX));
        }
        for rejected in &batch.rejected {
            self.failure_counter(worker, rejected.reason).inc();
        }
        self.progressed(
            worker,
            committed.watermark,
            committed.history_start,
            committed.newest_record,
        );
        self.state_last_write.set(now.secs());
        self.state_bytes
            .set(committed.state_bytes.try_into().unwrap_or(i64::MAX));
        if let Some(watermark) = committed.watermark {
            self.backlog
                .with_label_values(&labels(worker))
                .set(seconds(terms.backlog(watermark, now)));
        }
    }

    /// An attempt ended with nothing more due.
    pub fn attempt_succeeded(&self, worker: &WorkerName, now: Timestamp) {
        self.source_up.with_label_values(&labels(worker)).set(1);
        self.last_success
            .with_label_values(&labels(worker))
            .set(now.secs());
        self.backlog.with_label_values(&labels(worker)).set(0);
    }

    /// An attempt failed: what was due since the worker's watermark is still due.
    pub fn attempt_failed(&self, worker: &WorkerName, reason: Reason, backlog: Option<Duration>) {
        self.source_up.with_label_values(&labels(worker)).set(0);
        self.failure_counter(worker, reason).inc();
        if let Some(backlog) = backlog {
            self.backlog
                .with_label_values(&labels(worker))
                .set(seconds(backlog));
        }
    }

    /// A family of the data block was rendered: its series, the label sets that have none of their own, and its limit.
    pub fn rendered(&self, family: &str, series: usize, folded: usize, limit: Option<usize>) {
        let numbers = [
            (&self.series, Some(series)),
            (&self.series_folded, Some(folded)),
            (&self.series_limit, limit),
        ];
        for (gauge, number) in numbers {
            if let Some(number) = number {
                let number = i64::try_from(number).unwrap_or(i64::MAX);
                gauge.with_label_values(&[family]).set(number);
            }
        }
    }

    /// The store is open.
    pub fn store_opened(&self, ephemeral: bool) {
        self.state_ephemeral.set(i64::from(ephemeral));
    }

    /// An HTTP request was answered. `path` is one of the server's own, never the client's text.
    pub fn request_answered(&self, path: &str, code: u16, took: Duration) {
        self.requests
            .with_label_values(&[path, &code.to_string()])
            .inc();
        self.request_duration
            .with_label_values(&[path])
            .observe(took.as_secs_f64());
    }

    fn progressed(
        &self,
        worker: &WorkerName,
        watermark: Option<Timestamp>,
        history_start: Option<Timestamp>,
        newest_record: Option<Timestamp>,
    ) {
        let labels = labels(worker);
        for (gauge, time) in [
            (&self.watermark, watermark),
            (&self.history_start, history_start),
            (&self.newest_record, newest_record),
        ] {
            if let Some(time) = time {
                gauge.with_label_values(&labels).set(time.secs());
            }
        }
    }

    fn failure_counter(&self, worker: &WorkerName, reason: Reason) -> prometheus::IntCounter {
        let [source, account, region] = labels(worker);
        self.failures
            .with_label_values(&[source, account, region, reason.label()])
    }
}

/// The version of this build.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The commit it was built from, as far as the build knew.
pub const REVISION: &str = env!("BUILD_REVISION");
/// The compiler that built it.
pub const RUSTC: &str = env!("BUILD_RUSTC");

fn labels(worker: &WorkerName) -> [&str; 3] {
    [&worker.source, &worker.account, &worker.region]
}

fn seconds(span: Duration) -> i64 {
    i64::try_from(span.as_secs()).unwrap_or(i64::MAX)
}
