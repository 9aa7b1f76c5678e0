//! `serve`: builds the parts, runs a worker for each source and the server, and ends them on a signal.

use std::env;
use std::error::Error;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::runtime::{self, Runtime};
use tokio::task::JoinSet;
use tracing::{info, warn};

use super::{Failure, with_flags};
use crate::aws::{Access, Place, Quota, Quotas, SdkConfig};
use crate::cli::{Serve, Web};
use crate::config::{self, Config, Kind};
use crate::exposition::Publisher;
use crate::http::{self, routes::App};
use crate::metrics::{self, Metrics};
use crate::shutdown::{self, Shutdown, Signals};
use crate::source::athena::Athena;
use crate::source::event_history::EventHistory;
use crate::source::lake::Lake;
use crate::source::logs_insights::LogsInsights;
use crate::source::query::{Budget, QuerySource};
use crate::source::trail_files::TrailFiles;
use crate::source::{Source, Terms};
use crate::status::Status;
use crate::store::{Store, WorkerName};
use crate::time::Timestamp;
use crate::worker::{Pace, Reports, Worker};

/// How long workers may take to end.
const WORKERS_END: Duration = Duration::from_secs(5);

/// How long work on blocking threads may go on after all else has ended: a read on a hung mount never ends.
const RUNTIME_END: Duration = Duration::from_secs(1);

/// Serves until a signal.
pub fn run(flags: &Serve) -> Result<(), Failure> {
    let hint = "--config.file is missing; `demo` needs none, config.example.toml shows every key";
    let path = flags
        .config_file
        .as_deref()
        .ok_or_else(|| Failure::Usage(hint.into()))?;
    let mut config = Config::load(path, env::vars().collect())
        .map_err(|problems| Failure::Usage(problems.into()))?;
    with_flags(&mut config, &flags.web)?;
    Program::new()?.run(config, &flags.web)
}

/// The runtime, with signals caught: one that comes during the start ends the program in good order.
pub(super) struct Program {
    runtime: Runtime,
    signals: Signals,
}

impl Program {
    pub(super) fn new() -> io::Result<Self> {
        let processors = thread::available_parallelism().map_or(1, usize::from);
        let mut runtime = runtime::Builder::new_multi_thread();
        let runtime = runtime
            .worker_threads(processors.min(4))
            .enable_all()
            .build()?;
        let signals = runtime.block_on(async { Signals::catch() })?;
        Ok(Self { runtime, signals })
    }

    /// Runs the whole program over a configuration until a signal.
    pub(super) fn run(self, config: Config, flags: &Web) -> Result<(), Failure> {
        let Self { runtime, signals } = self;
        let outcome = runtime.block_on(until_signalled(config, flags.max_requests, signals));
        runtime.shutdown_timeout(RUNTIME_END);
        Ok(outcome?)
    }
}

async fn until_signalled(
    config: Config,
    scrapes: usize,
    mut signals: Signals,
) -> Result<(), Box<dyn Error>> {
    info!(
        version = metrics::VERSION,
        revision = metrics::REVISION,
        "starting cloudtrail-tls-exporter"
    );
    let metrics = Metrics::new()?;
    let publisher = Publisher::start(config.exposition, metrics.clone())?;
    let ephemeral = config.store.path.is_none();
    let changes = publisher.clone();
    let store = Store::open(config.store, move |change| changes.change(change))?;
    metrics.store_opened(ephemeral);

    let (stop, stopped) = shutdown::channel();
    let status = Status::default();
    let app = App::new(
        publisher.clone(),
        metrics.clone(),
        status.clone(),
        scrapes,
        Timestamp::now,
    );
    let app = Arc::new(app);
    let mut listeners = Vec::new();
    for address in &config.listen_addresses {
        let listener = http::bind(address)
            .await
            .map_err(|error| format!("cannot listen on {address}: {error}"))?;
        info!(address = %listener.local_addr()?, "listening");
        listeners.push(listener);
    }
    let server = tokio::spawn(http::serve(listeners, Arc::clone(&app), stopped.clone()));

    let mut workers = JoinSet::new();
    let parts = Parts {
        store,
        reports: Reports { metrics, status },
        quotas: Quotas::default(),
        stopped,
    };
    for source in config.sources {
        parts.start(source, &mut workers).await?;
    }
    publisher.settle();
    app.set_ready();
    info!("ready");

    let outcome = tokio::select! {
        signal = signals.next() => {
            info!(signal, "stopping");
            Ok(())
        }
        // Workers end only by the stop: this one panicked. Whoever supervises starts the program anew.
        Some(_) = workers.join_next() => Err("a source's worker failed, see above"),
    };
    drop(stop);
    let end = async { while workers.join_next().await.is_some() {} };
    if tokio::time::timeout(WORKERS_END, end).await.is_err() {
        warn!("a source did not end in time");
    }
    drop(workers);
    server.await?;
    parts.store.close().await;
    info!("stopped");
    Ok(outcome?)
}

/// A worker that is ready to run.
type Run = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What all workers are made from.
struct Parts {
    store: Store,
    reports: Reports,
    quotas: Quotas,
    stopped: Shutdown,
}

impl Parts {
    /// Starts the workers of a source: one for each role in each Region.
    async fn start(
        &self,
        source: config::Source,
        workers: &mut JoinSet<()>,
    ) -> Result<(), Box<dyn Error>> {
        let config::Source {
            name,
            access,
            interval,
            terms,
            budget,
            kind,
        } = source;
        let metrics = &self.reports.metrics;
        metrics.source_configured(&name, interval, terms);
        let budget = Arc::new(Budget::new(&name, budget));
        let mut ready = Vec::new();
        for place in access.places() {
            let mut name = WorkerName {
                source: name.clone(),
                source_type: kind.type_name(),
                account: place.account().to_owned(),
                region: String::new(),
            };
            let at = (&access, &place);
            match kind.clone() {
                Kind::TrailFiles(settings) => {
                    let worker = self.load(name, TrailFiles::new(settings)).await?;
                    let pace = Pace::steady(interval);
                    ready.push(Box::pin(worker.on(terms).run(pace, self.stopped.clone())) as Run);
                }
                Kind::LogsInsights(query, settings) => {
                    let (sdk, quota) = self.aws(&mut name, at, Quota::logs_insights).await;
                    let engine = LogsInsights::new(&sdk, settings, Arc::clone(&quota));
                    let source = QuerySource::new(engine, query, quota).within(&budget);
                    ready.push(self.ask(name, source, terms, interval).await?);
                }
                Kind::Lake(query, settings) => {
                    let (sdk, quota) = self.aws(&mut name, at, Quota::lake).await;
                    let engine = Lake::new(&sdk, settings, Arc::clone(&quota));
                    let source = QuerySource::new(engine, query, quota).within(&budget);
                    ready.push(self.ask(name, source, terms, interval).await?);
                }
                Kind::Athena(query, settings) => {
                    let (sdk, quota) = self.aws(&mut name, at, Quota::athena).await;
                    let engine = Athena::new(&sdk, settings, Arc::clone(&quota));
                    let source = QuerySource::new(engine, query, quota).within(&budget);
                    ready.push(self.ask(name, source, terms, interval).await?);
                }
                Kind::EventHistory(settings) => {
                    let (sdk, quota) = self.aws(&mut name, at, Quota::event_history).await;
                    let source = EventHistory::new(&sdk, settings, quota);
                    ready.push(self.ask(name, source, terms, interval).await?);
                }
            }
        }
        // What all of them have spent of their budget is known before any asks.
        for run in ready {
            workers.spawn(run);
        }
        Ok(())
    }

    /// The AWS configuration of a worker, and the quota that it shares with others of its type, account and Region.
    /// The worker is told its Region.
    async fn aws(
        &self,
        name: &mut WorkerName,
        (access, place): (&Access, &Place),
        quota: fn() -> Quota,
    ) -> (SdkConfig, Arc<Quota>) {
        let sdk = access.load(place).await;
        name.region = sdk.region().map(ToString::to_string).unwrap_or_default();
        let profile = access.profile.as_deref().unwrap_or_default();
        let account = format!("{profile} {}", name.account);
        let quota = self
            .quotas
            .of(name.source_type, &account, &name.region, quota);
        (sdk, quota)
    }

    /// The worker of a source that asks AWS.
    async fn ask<S: Source>(
        &self,
        name: WorkerName,
        source: S,
        terms: Terms,
        interval: Duration,
    ) -> Result<Run, Box<dyn Error>> {
        let worker = self.load(name, source).await?.on(terms);
        let pace = Pace::of_windows(interval);
        Ok(Box::pin(worker.run(pace, self.stopped.clone())))
    }

    async fn load<S: Source>(
        &self,
        name: WorkerName,
        source: S,
    ) -> Result<Worker<S>, Box<dyn Error>> {
        let state = self.store.worker(name.clone(), Timestamp::now()).await?;
        Ok(Worker::new(
            name,
            &state,
            source,
            self.store.clone(),
            self.reports.clone(),
            Timestamp::now,
        )?)
    }
}
