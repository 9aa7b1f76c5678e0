//! Makes workers from what the configuration says of them; nothing runs and nothing is asked of AWS yet.

use std::pin::Pin;
use std::sync::Arc;

use crate::aws::{Place, Quota, Quotas, SdkConfig};
use crate::config::{self, Kind};
use crate::shutdown::Shutdown;
use crate::source::athena::Athena;
use crate::source::event_history::EventHistory;
use crate::source::lake::Lake;
use crate::source::logs_insights::LogsInsights;
use crate::source::query::{Budgets, Engine, QuerySource};
use crate::source::trail_files::TrailFiles;
use crate::source::{BadProgress, Source};
use crate::store::{Store, WorkerName, WorkerState};
use crate::time::Timestamp;
use crate::worker::{Pace, Reports, Worker, progress_of};

/// What all workers are made from.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) store: Store,
    pub(super) reports: Reports,
    pub(super) quotas: Quotas,
    pub(super) budgets: Budgets,
}

/// A worker's life, until its stop.
pub(super) type Life = Pin<Box<dyn Future<Output = ()> + Send>>;

type Check = fn(&WorkerState) -> Result<(), BadProgress>;
type Make = Box<dyn FnOnce(&WorkerState, Shutdown) -> Result<Life, BadProgress> + Send>;

/// A worker to be.
pub(super) struct Recruit {
    /// Its source, at its place alone.
    pub(super) source: config::Source,
    pub(super) name: WorkerName,
    check: Check,
    make: Make,
}

impl Recruit {
    /// Whether it can go on from `state`.
    pub(super) fn check(&self, state: &WorkerState) -> Result<(), BadProgress> {
        (self.check)(state)
    }

    /// Whether it asks AWS and does not know where.
    pub(super) fn lacks_region(&self) -> bool {
        self.name.region.is_empty() && !matches!(self.source.kind, Kind::TrailFiles(_))
    }

    /// Its life from `state` on. Its series exist from now on.
    pub(super) fn live(self, state: &WorkerState, stopped: Shutdown) -> Result<Life, BadProgress> {
        (self.make)(state, stopped)
    }
}

impl Parts {
    /// The worker of a source at its one place.
    pub(super) async fn recruit(&self, source: config::Source) -> Recruit {
        match source.kind.clone() {
            Kind::TrailFiles(settings) => {
                let pace = Pace::steady(source.interval);
                self.worker(name(&source, None), source, pace, TrailFiles::new(settings))
            }
            Kind::LogsInsights(query, settings) => {
                let (name, sdk, quota) = self.aws(&source, Quota::logs_insights).await;
                let engine = LogsInsights::new(&sdk, settings, Arc::clone(&quota));
                self.asking(name, source, QuerySource::new(engine, query, quota))
            }
            Kind::Lake(query, settings) => {
                let (name, sdk, quota) = self.aws(&source, Quota::lake).await;
                let engine = Lake::new(&sdk, settings, Arc::clone(&quota));
                self.asking(name, source, QuerySource::new(engine, query, quota))
            }
            Kind::Athena(query, settings) => {
                let (name, sdk, quota) = self.aws(&source, Quota::athena).await;
                let engine = Athena::new(&sdk, settings, Arc::clone(&quota));
                self.asking(name, source, QuerySource::new(engine, query, quota))
            }
            Kind::EventHistory(settings) => {
                let (name, sdk, quota) = self.aws(&source, Quota::event_history).await;
                let pace = Pace::of_windows(source.interval);
                self.worker(name, source, pace, EventHistory::new(&sdk, settings, quota))
            }
        }
    }

    /// The worker of a source that asks a query engine, within the budget of its source.
    fn asking<E: Engine>(
        &self,
        name: WorkerName,
        source: config::Source,
        asked: QuerySource<E>,
    ) -> Recruit {
        let budget = self.budgets.of(&source.name, source.budget);
        let access = &source.access;
        let way = format!("{:?} {:?}", access.profile, access.endpoint_url);
        let pace = Pace::of_windows(source.interval);
        self.worker(name, source, pace, asked.within(&budget).reached_by(way))
    }

    /// A worker's name and AWS configuration, and the quota that it shares with others of its type, account and
    /// Region.
    async fn aws(
        &self,
        source: &config::Source,
        quota: fn() -> Quota,
    ) -> (WorkerName, SdkConfig, Arc<Quota>) {
        let access = &source.access;
        let sdk = access.load(&place(source)).await;
        let name = name(source, sdk.region().map(ToString::to_string));
        let profile = access.profile.as_deref().unwrap_or_default();
        let account = format!("{profile} {}", name.account);
        let quota = self
            .quotas
            .of(name.source_type, &account, &name.region, quota);
        (name, sdk, quota)
    }

    fn worker<S: Source>(
        &self,
        name: WorkerName,
        source: config::Source,
        pace: Pace,
        asked: S,
    ) -> Recruit {
        let (store, reports) = (self.store.clone(), self.reports.clone());
        let (of, terms) = (name.clone(), source.terms);
        let make: Make = Box::new(move |state, stopped| {
            let worker = Worker::new(of, state, asked, store, reports, Timestamp::now)?;
            Ok(Box::pin(worker.on(terms).run(pace, stopped)))
        });
        Recruit {
            source,
            name,
            check: |state| progress_of::<S::Progress>(state).map(drop),
            make,
        }
    }
}

/// The one place of a source that was told apart by place.
fn place(source: &config::Source) -> Place {
    source.access.places().pop().unwrap_or_default()
}

fn name(source: &config::Source, region: Option<String>) -> WorkerName {
    WorkerName {
        source: source.name.clone(),
        source_type: source.kind.type_name(),
        account: place(source).account().to_owned(),
        region: region.unwrap_or_default(),
    }
}
