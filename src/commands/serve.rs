//! `serve`: builds the parts, starts the workers and the server, reloads the configuration when asked, and ends on a
//! signal.

mod notify;
mod recruit;
mod supervisor;

use std::env;
use std::error::Error;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::runtime::{self, Runtime};
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tracing::{error, info};

use self::recruit::Parts;
use self::supervisor::{NotReloaded, Supervisor};
use super::{Failure, with_flags};
use crate::aws::Quotas;
use crate::cli::{Serve, Web};
use crate::config::{Config, Problems};
use crate::exposition::Publisher;
use crate::http::guard::Guard;
use crate::http::{self, Entrance, reload, routes::App};
use crate::logging::{self, Log};
use crate::metrics::{self, Metrics};
use crate::shutdown::{self, HANGUP, Signals};
use crate::source::query::Budgets;
use crate::status::Status;
use crate::store::Store;
use crate::time::Timestamp;
use crate::worker::Reports;

/// How long work on blocking threads may go on after all else has ended: a read on a hung mount never ends.
const RUNTIME_END: Duration = Duration::from_secs(1);
/// How long the files of the configuration may take to be read, for the same reason.
const READING: Duration = Duration::from_secs(20);

/// Serves until a signal.
pub fn run(flags: &Serve) -> Result<(), Failure> {
    let hint = "--config.file is missing; `demo` needs none, config.example.toml shows every key";
    let path = flags
        .config_file
        .as_deref()
        .ok_or_else(|| Failure::Usage(hint.into()))?;
    let config = read(path, &flags.web).map_err(|problems| Failure::Usage(problems.into()))?;
    let guard = flags.web_config_file.as_deref().map(Guard::new);
    let guard = guard
        .transpose()
        .map_err(|problems| Failure::Usage(problems.into()))?
        .map(Arc::new);
    let log = logging::start(config.log)?;
    let (path, web) = (path.to_owned(), flags.web.clone());
    Program::new()?.run(Plan {
        config,
        scrapes: flags.web.max_requests,
        guard: guard.clone(),
        probe_address: flags.probe_address.clone(),
        reload: Some(Reload {
            read: Arc::new(move || read_all(&path, &web, guard.as_deref())),
            log,
        }),
    })
}

/// The configuration as it is now: the file, the environment over it, and the flags over both.
fn read(path: &Path, flags: &Web) -> Result<Config, Problems> {
    let config = Config::load(path, env::vars().collect())?;
    Ok(with_flags(config, flags))
}

/// The same, if the web configuration is good as well. That is in force already, as it always is.
fn read_all(path: &Path, flags: &Web, guard: Option<&Guard>) -> Result<Config, Refused> {
    let config = read(path, flags);
    let Some(Err(web)) = guard.map(Guard::check) else {
        return Ok(config?);
    };
    let mut problems = config.map_or_else(|problems| problems.0, |_| Vec::new());
    let lines = web.lines.iter();
    problems.extend(lines.map(|line| format!("{}: {line}", web.path)));
    Err(Refused {
        problems: Problems(problems),
        shut: true,
    })
}

/// Why a reload did not come about.
struct Refused {
    problems: Problems,
    /// Whether the web configuration is broken.
    shut: bool,
}

impl From<Problems> for Refused {
    fn from(problems: Problems) -> Self {
        Self {
            problems,
            shut: false,
        }
    }
}

impl Refused {
    /// How the program goes on.
    fn outlook(&self) -> &'static str {
        if self.shut {
            "the configuration before goes on, and nobody is let in until the web configuration is mended"
        } else {
            "the configuration before goes on"
        }
    }
}

/// What the program is to do.
pub(super) struct Plan {
    pub(super) config: Config,
    /// How many scrapes are answered at once.
    pub(super) scrapes: usize,
    /// Who may ask; without it everybody.
    pub(super) guard: Option<Arc<Guard>>,
    /// Where probes are answered, apart from all else.
    pub(super) probe_address: Option<String>,
    /// Without it nothing is ever reloaded.
    pub(super) reload: Option<Reload>,
}

/// How a configuration is reloaded.
pub(super) struct Reload {
    read: Arc<dyn Fn() -> Result<Config, Refused> + Send + Sync>,
    log: Log,
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

    /// Runs the whole program until a signal.
    pub(super) fn run(self, plan: Plan) -> Result<(), Failure> {
        let Self { runtime, signals } = self;
        let outcome = runtime.block_on(until_signalled(plan, signals));
        runtime.shutdown_timeout(RUNTIME_END);
        Ok(outcome?)
    }
}

async fn until_signalled(plan: Plan, mut signals: Signals) -> Result<(), Box<dyn Error>> {
    info!(
        version = metrics::VERSION,
        revision = metrics::REVISION,
        "starting cloudtrail-tls-exporter"
    );
    let Plan {
        config,
        scrapes,
        guard,
        probe_address,
        reload,
    } = plan;
    let metrics = Metrics::new()?;
    let publisher = Publisher::start(config.exposition.clone(), metrics.clone())?;
    let ephemeral = config.store.path.is_none();
    let changes = publisher.clone();
    let store = Store::open(config.store.clone(), move |change| changes.change(change))?;
    metrics.store_opened(ephemeral);

    let (stop, stopped) = shutdown::channel();
    let status = Status::default();
    let (reloader, mut requests) = reload::channel();
    let app = App::new(
        publisher.clone(),
        metrics.clone(),
        status.clone(),
        reload.is_some().then_some(reloader),
        scrapes,
        Timestamp::now,
    );
    let app = Arc::new(app);
    let mut listeners = Vec::new();
    for address in &config.listen_addresses {
        let listener = bind(address).await?;
        info!(address = %listener.local_addr()?, "listening");
        listeners.push(listener);
    }
    let mut probes = Vec::new();
    if let Some(address) = &probe_address {
        let listener = bind(address).await?;
        info!(address = %listener.local_addr()?, "listening for probes");
        probes.push(listener);
    }
    let tls = guard.as_ref().is_some_and(|guard| guard.has_tls());
    info!("TLS is {}", if tls { "enabled" } else { "disabled" });
    let entrance = guard.map_or(Entrance::Open, Entrance::Guarded);
    let answer = |listeners, entrance| {
        let serve = http::serve(listeners, Arc::clone(&app), entrance, stopped.clone());
        tokio::spawn(serve)
    };
    let servers = [
        answer(listeners, entrance),
        // Connections of their own, so that probes are answered however many scrape.
        answer(probes, Entrance::Probes),
    ];

    let mut alive = Box::pin(notify::alive(store.clone(), status.clone()));
    let parts = Parts {
        store,
        reports: Reports {
            metrics: metrics.clone(),
            status,
        },
        quotas: Quotas::default(),
        budgets: Budgets::default(),
    };
    let mut supervisor = Supervisor::start(parts, publisher, config).await?;
    metrics.config_loaded(Timestamp::now());
    app.set_ready();
    notify::ready();
    info!("ready");

    let outcome = loop {
        let request = tokio::select! {
            signal = signals.next() => {
                if signal != HANGUP || reload.is_none() {
                    info!(signal, "stopping");
                    break Ok(());
                }
                None
            }
            Some(request) = requests.recv() => Some(request),
            never = &mut alive => match never {},
            // Whoever supervises starts the program anew.
            () = supervisor.lost() => break Err("a source's worker failed, see above".into()),
        };
        let Some(reload) = &reload else { continue };
        notify::reloading();
        match reload.over(&mut supervisor, &metrics).await {
            Ok(outcome) => {
                match &outcome {
                    Ok(()) => notify::ready(),
                    Err(refused) => notify::not_reloaded(refused.outlook()),
                }
                if let Some(request) = request {
                    request.answer(outcome.map_err(|refused| refused.problems.to_string()));
                }
            }
            Err(error) => break Err(error),
        }
    };
    notify::stopping();
    drop(stop);
    // It has a handle on the store, which closes with the last one.
    drop(alive);
    // Those who still wait for a reload are told that there is none.
    drop(requests);
    supervisor.end().await;
    for server in servers {
        server.await?;
    }
    info!("stopped");
    outcome
}

async fn bind(address: &str) -> Result<TcpListener, String> {
    let listener = http::bind(address).await;
    listener.map_err(|error| format!("cannot listen on {address}: {error}"))
}

impl Reload {
    /// Reloads the configuration; an error ends the program.
    async fn over(
        &self,
        supervisor: &mut Supervisor,
        metrics: &Metrics,
    ) -> Result<Result<(), Refused>, Box<dyn Error>> {
        info!("reloading the configuration");
        let read = Arc::clone(&self.read);
        let reading = timeout(READING, spawn_blocking(move || read()));
        let read = match reading.await {
            Ok(read) => read?,
            Err(_) => Err(Problems(vec!["its files took too long to be read".to_owned()]).into()),
        };
        let outcome = match read {
            Err(refused) => Err(refused),
            Ok(config) => {
                let level = config.log.level;
                match supervisor.reload(config).await {
                    Ok(()) => {
                        self.log.set_level(level);
                        Ok(())
                    }
                    Err(NotReloaded::Refused(problems)) => Err(problems.into()),
                    Err(NotReloaded::Broken(error)) => return Err(error),
                }
            }
        };
        match &outcome {
            Ok(()) => {
                metrics.config_loaded(Timestamp::now());
                info!("reloaded");
            }
            Err(refused) => {
                metrics.config_refused();
                for problem in &refused.problems.0 {
                    error!(problem, "a problem of the configuration");
                }
                error!("not reloaded: {}", refused.outlook());
            }
        }
        Ok(outcome)
    }
}
