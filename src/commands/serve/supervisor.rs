//! Owns what runs by the configuration: a worker for each place of each source, what the store keeps and what a
//! scrape shows. A start is a reload from nothing.

use std::collections::HashMap;
use std::error::Error;
use std::time::Duration;

use tokio::task::{AbortHandle, Id, JoinSet};
use tokio::time::timeout;
use tracing::{info, warn};

use super::recruit::{Parts, Recruit};
use crate::config::{self, Config, Problems};
use crate::exposition::Publisher;
use crate::shutdown::{self, Stop};
use crate::source::BadProgress;
use crate::store::{StoreError, WorkerName, WorkerState};
use crate::time::Timestamp;
use crate::worker::chain;

/// How long workers may take to end.
const WORKERS_END: Duration = Duration::from_secs(5);

/// What runs, and the configuration that it runs by.
pub(super) struct Supervisor {
    parts: Parts,
    publisher: Publisher,
    config: Config,
    crew: Vec<Running>,
    tasks: JoinSet<()>,
    /// Whether a worker ended that nobody had stopped.
    lost: bool,
}

/// A worker that runs; dropping it asks it to stop.
struct Running {
    /// Its source, at its place alone.
    source: config::Source,
    name: WorkerName,
    task: AbortHandle,
    _stop: Stop,
}

/// Why a reload did not come about.
#[derive(Debug)]
pub(super) enum NotReloaded {
    /// The configuration before goes on.
    Refused(Problems),
    /// Nor does the configuration before.
    Broken(Box<dyn Error>),
}

impl Supervisor {
    /// Starts all that `config` says.
    pub(super) async fn start(
        parts: Parts,
        publisher: Publisher,
        config: Config,
    ) -> Result<Self, Box<dyn Error>> {
        let mut supervisor = Self {
            parts,
            publisher,
            config: config.clone(),
            crew: Vec::new(),
            tasks: JoinSet::new(),
            lost: false,
        };
        let recruits = supervisor.recruits(&config).await;
        supervisor.switch(config, recruits).await?;
        Ok(supervisor)
    }

    /// Goes over to `config`, or stays with the one in force. Workers whose source is told the same go on untouched.
    pub(super) async fn reload(&mut self, config: Config) -> Result<(), NotReloaded> {
        let recruits = self.recruits(&config).await;
        let mut problems = self.config.needs_restart(&config);
        problems.extend(self.problems(&config, &recruits).await);
        if !problems.is_empty() {
            return Err(NotReloaded::Refused(Problems(problems)));
        }
        let before = self.config.clone();
        let Err(error) = self.switch(config, recruits).await else {
            return Ok(());
        };
        // What was stopped for it is started again.
        let recruits = self.recruits(&before).await;
        let again = self.switch(before, recruits).await;
        again.map_err(NotReloaded::Broken)?;
        let problem = chain(error.as_ref());
        Err(NotReloaded::Refused(Problems(vec![problem])))
    }

    /// Waits until a worker has ended that nobody stopped: it panicked.
    pub(super) async fn lost(&mut self) {
        if !self.lost {
            self.tasks.join_next().await;
        }
    }

    /// Stops all workers and closes the store.
    pub(super) async fn end(mut self) {
        let crew = std::mem::take(&mut self.crew);
        self.stop(crew).await;
        drop(self.tasks);
        self.parts.store.close().await;
    }

    /// The workers of `config` that do not run yet as it says.
    async fn recruits(&self, config: &Config) -> Vec<Recruit> {
        let mut recruits = Vec::new();
        for source in by_place(config) {
            if !self.crew.iter().any(|running| running.source == source) {
                recruits.push(self.parts.recruit(source).await);
            }
        }
        recruits
    }

    /// Why the store could not serve `config`: every reason.
    async fn problems(&self, config: &Config, recruits: &[Recruit]) -> Vec<String> {
        let wanted = by_place(config);
        let kept = self.crew.iter();
        let kept = kept.filter(|running| wanted.contains(&running.source));
        let new = recruits.iter().map(|recruit| &recruit.name);
        let names = new.chain(kept.map(|running| &running.name)).cloned();
        let (store, settings) = (&self.parts.store, config.store.clone());
        let mut nowhere = recruits.iter().filter(|recruit| recruit.lacks_region());
        if let Some(recruit) = nowhere.next() {
            let source = &recruit.name.source;
            let hint = "no Region is known: set `region`, or AWS_REGION";
            return vec![format!("source `{source}`: {hint}")];
        }
        let tried = store.try_take_over(settings, names.collect(), Timestamp::now());
        match tried.await {
            Err(errors) => errors.iter().map(|error| chain(error)).collect(),
            Ok(states) => {
                let checked = recruits.iter().zip(&states);
                let bad = checked.filter_map(|(recruit, state)| recruit.check(state).err());
                bad.map(|error| chain(&error)).collect()
            }
        }
    }

    /// Stops what `config` does not have, and starts `recruits`, which are what it has more.
    async fn switch(
        &mut self,
        config: Config,
        recruits: Vec<Recruit>,
    ) -> Result<(), Box<dyn Error>> {
        let gone = self.dismiss(&config).await;
        let kept = self.crew.iter().map(|running| &running.name);
        let new = recruits.iter().map(|recruit| &recruit.name);
        let names: Vec<WorkerName> = kept.chain(new).cloned().collect();
        let states = self.take_over(&config, names.clone()).await?;
        let (kept, new) = states.split_at(self.crew.len());
        let started = recruits.len();
        self.hire(recruits, kept, new)?;
        let metrics = &self.parts.reports.metrics;
        for source in &config.sources {
            metrics.source_configured(&source.name, source.interval, source.terms);
            if source.budget.is_none() {
                metrics.budget_removed(&source.name);
            }
        }
        self.forget(&gone, &names, &config);
        self.config = config;
        let (kept, stopped) = (kept.len(), gone.len());
        info!(kept, stopped, started, "workers");
        // Rendering takes a moment, and this thread has others to serve.
        let publisher = self.publisher.clone();
        tokio::task::spawn_blocking(move || publisher.settle()).await?;
        Ok(())
    }

    /// Stops the workers that do not run as `config` says; their names.
    async fn dismiss(&mut self, config: &Config) -> Vec<WorkerName> {
        let wanted = by_place(config);
        let crew = std::mem::take(&mut self.crew).into_iter();
        let (kept, gone) = crew.partition(|running| wanted.contains(&running.source));
        self.crew = kept;
        let gone: Vec<Running> = gone;
        let names = gone.iter().map(|running| running.name.clone()).collect();
        self.stop(gone).await;
        names
    }

    /// The store and the scrape go over to `config`; what is stored of the workers of these names.
    async fn take_over(
        &self,
        config: &Config,
        names: Vec<WorkerName>,
    ) -> Result<Vec<WorkerState>, StoreError> {
        let (publisher, shown) = (self.publisher.clone(), config.exposition.clone());
        let publish = move |totals| publisher.show_anew(shown, totals);
        let store = &self.parts.store;
        store
            .take_over(config.store.clone(), names, Timestamp::now(), publish)
            .await
    }

    /// Starts workers from what is stored of them, all or none; those that run are told what the store changed.
    fn hire(
        &mut self,
        recruits: Vec<Recruit>,
        kept: &[WorkerState],
        new: &[WorkerState],
    ) -> Result<(), BadProgress> {
        let mut lives = Vec::new();
        for (recruit, state) in recruits.into_iter().zip(new) {
            let (stop, stopped) = shutdown::channel();
            let (source, name) = (recruit.source.clone(), recruit.name.clone());
            lives.push((source, name, stop, recruit.live(state, stopped)?));
        }
        let metrics = &self.parts.reports.metrics;
        for (running, state) in self.crew.iter().zip(kept) {
            metrics.history_began(&running.name, state.history_start);
        }
        for (source, name, stop, life) in lives {
            let task = self.tasks.spawn(life);
            self.crew.push(Running {
                source,
                name,
                task,
                _stop: stop,
            });
        }
        Ok(())
    }

    /// The series of workers and sources that are gone for good go with them.
    fn forget(&self, gone: &[WorkerName], names: &[WorkerName], config: &Config) {
        let reports = &self.parts.reports;
        for name in gone.iter().filter(|name| !names.contains(name)) {
            reports.status.remove(name);
            reports.metrics.worker_removed(name);
            if config
                .sources
                .iter()
                .all(|source| source.name != name.source)
            {
                reports.metrics.source_removed(&name.source);
            }
        }
    }

    /// Asks workers to stop and waits for their ends. One that does not end in time is cut off: two workers over one
    /// place would count twice.
    async fn stop(&mut self, gone: Vec<Running>) {
        let tasks = gone.into_iter().map(|running| running.task);
        let mut left: HashMap<Id, AbortHandle> = tasks.map(|task| (task.id(), task)).collect();
        if timeout(WORKERS_END, self.ends(&mut left)).await.is_err() {
            warn!("a source did not end in time");
            left.values().for_each(AbortHandle::abort);
            self.ends(&mut left).await;
        }
    }

    async fn ends(&mut self, left: &mut HashMap<Id, AbortHandle>) {
        while !left.is_empty() {
            let id = match self.tasks.join_next_with_id().await {
                Some(Ok((id, ()))) => id,
                Some(Err(error)) => error.id(),
                None => return,
            };
            self.lost |= left.remove(&id).is_none();
        }
    }
}

/// What each worker is told.
fn by_place(config: &Config) -> Vec<config::Source> {
    let sources = config.sources.iter();
    sources.flat_map(config::Source::by_place).collect()
}
