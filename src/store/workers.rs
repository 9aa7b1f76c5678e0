//! The workers that the store counts for: added one by one, or all taken over together by a start and a reload alike.

use std::collections::{BTreeSet, HashMap};

use rusqlite::{Connection, Transaction};

use super::callers::{self, Known};
use super::db::{Db, Worker, keep_grid};
use super::{Settings, StoreError, WorkerName, WorkerState, admissions};
use crate::time::Timestamp;
use crate::totals::Change;

/// What the store has of a worker.
struct Loaded {
    state: WorkerState,
    worker: Worker,
    callers: Known,
    /// What a scrape shows of it.
    totals: Change,
}

impl Db {
    /// Adds one worker to those that are counted for, and publishes its totals.
    pub(super) fn worker(
        &mut self,
        name: &WorkerName,
        now: Timestamp,
    ) -> Result<WorkerState, StoreError> {
        let transaction = self.connection.unchecked_transaction()?;
        let Loaded {
            state,
            worker,
            callers,
            totals,
        } = self.load(&transaction, &self.settings, name, now)?;
        let mut totals = [totals];
        let minimum = self.settings.minimum_version;
        admissions::admit_all(&transaction, &mut self.admissions, minimum, &mut totals)?;
        transaction.commit()?;
        self.admissions.keep();
        self.workers.insert(state.id, worker);
        self.callers.insert(state.id, callers);
        totals.into_iter().for_each(&self.changes);
        Ok(state)
    }

    /// From now on counts for these workers and no others, under these settings; all or nothing. `publish` is
    /// given all that a scrape shows.
    pub(super) fn take_over(
        &mut self,
        settings: Settings,
        names: &[WorkerName],
        now: Timestamp,
        publish: impl FnOnce(Vec<Change>),
    ) -> Result<Vec<WorkerState>, StoreError> {
        let transaction = self.connection.unchecked_transaction()?;
        keep_grid(&transaction, settings.bucket)?;
        callers::follow_labels(&transaction, settings.callers)?;
        let loaded = self.load_all(&transaction, &settings, names, now)?;
        let (mut states, mut workers) = (Vec::new(), HashMap::new());
        let (mut known, mut totals) = (HashMap::new(), Vec::new());
        for loaded in loaded {
            workers.insert(loaded.state.id, loaded.worker);
            known.insert(loaded.state.id, loaded.callers);
            totals.push(loaded.totals);
            states.push(loaded.state);
        }
        totals.extend(self.others(names, &workers)?);
        let minimum = settings.minimum_version;
        let mut admissions = admissions::load(&transaction, settings.series.clone())?;
        admissions::admit_all(&transaction, &mut admissions, minimum, &mut totals)?;
        drop_old(&transaction, names, now.minus(settings.retention))?;
        callers::drop_others(&transaction, known.keys().copied())?;
        transaction.commit()?;
        admissions.keep();
        self.admissions = admissions;
        self.settings = settings;
        self.workers = workers;
        self.callers = known;
        publish(totals);
        Ok(states)
    }

    /// Tries [`Db::take_over`] and changes nothing; every reason why it would fail.
    pub(super) fn try_take_over(
        &self,
        settings: &Settings,
        names: &[WorkerName],
        now: Timestamp,
    ) -> Result<Vec<WorkerState>, Vec<StoreError>> {
        let transaction = self.connection.unchecked_transaction();
        let transaction = transaction.map_err(|error| vec![error.into()])?;
        let mut errors = Vec::from_iter(keep_grid(&transaction, settings.bucket).err());
        let mut sources = BTreeSet::new();
        for name in names {
            let refused = self.find_worker(name).err();
            // What is wrong with one worker of a source is wrong with all.
            errors.extend(refused.filter(|_| sources.insert(&name.source)));
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        let loaded = callers::follow_labels(&transaction, settings.callers)
            .and_then(|()| self.load_all(&transaction, settings, names, now));
        let loaded = loaded.map_err(|error| vec![error])?;
        Ok(loaded.into_iter().map(|loaded| loaded.state).collect())
    }

    /// The workers in the order of their names.
    fn load_all(
        &self,
        transaction: &Transaction<'_>,
        settings: &Settings,
        names: &[WorkerName],
        now: Timestamp,
    ) -> Result<Vec<Loaded>, StoreError> {
        let names = names.iter();
        names
            .map(|name| self.load(transaction, settings, name, now))
            .collect()
    }

    /// A worker as it goes on from here.
    fn load(
        &self,
        transaction: &Transaction<'_>,
        settings: &Settings,
        name: &WorkerName,
        now: Timestamp,
    ) -> Result<Loaded, StoreError> {
        let (id, mut worker) = self.find_worker(name)?;
        self.follow_minimum_version(transaction, settings, (id, &mut worker), now)?;
        let state = WorkerState {
            id,
            watermark: worker.watermark,
            history_start: worker.history_start,
            newest_record: worker.newest_record,
            progress: self.progress(id)?,
        };
        let callers = Known::load(transaction, id, worker.window_start(settings))?;
        let totals = Change {
            callers: callers.all(),
            ..self.totals_of(id, &worker, settings)?
        };
        Ok(Loaded {
            state,
            worker,
            callers,
            totals,
        })
    }

    /// The counters of these sources' workers whose role or Region is gone: other workers count into the same series,
    /// and no counter goes down. The gauges forget them.
    fn others(
        &self,
        names: &[WorkerName],
        workers: &HashMap<i64, Worker>,
    ) -> Result<Vec<Change>, StoreError> {
        let sources: BTreeSet<&String> = names.iter().map(|name| &name.source).collect();
        let mut select = self
            .connection
            .prepare("SELECT id FROM workers WHERE source = ?1")?;
        let mut changes = Vec::new();
        for source in sources {
            let ids = select.query_map([source], |row| row.get(0))?;
            let ids: Vec<i64> = ids.collect::<Result<_, _>>()?;
            for id in ids.into_iter().filter(|id| !workers.contains_key(id)) {
                changes.push(Change {
                    source: source.as_str().into(),
                    worker: id,
                    counted: false,
                    watermark: None,
                    keys: self.counters(id)?.into_values().collect(),
                    runs: Vec::new(),
                    callers: Vec::new(),
                    window_moved: true,
                });
            }
        }
        Ok(changes)
    }
}

/// Drops the rows of the sources that are counted for no more and have counted nothing since `oldest`; their callers are
/// dropped with those of every worker that is gone.
fn drop_old(
    connection: &Connection,
    names: &[WorkerName],
    oldest: Timestamp,
) -> Result<(), StoreError> {
    let mut select = connection
        .prepare("SELECT source FROM workers GROUP BY source HAVING max(watermark) < ?1")?;
    let idle = select.query_map([oldest.secs()], |row| row.get(0))?;
    let idle: Vec<String> = idle.collect::<Result<_, _>>()?;
    for source in idle {
        if names.iter().any(|name| name.source == source) {
            continue;
        }
        for table in ["counts", "totals", "runs", "progress"] {
            let of_source = "worker IN (SELECT id FROM workers WHERE source = ?1)";
            connection.execute(&format!("DELETE FROM {table} WHERE {of_source}"), [&source])?;
        }
        // A later worker may get the number of one of these.
        let noted =
            "name IN (SELECT 'minimum_version of worker ' || id FROM workers WHERE source = ?1)";
        connection.execute(&format!("DELETE FROM settings WHERE {noted}"), [&source])?;
        connection.execute("DELETE FROM workers WHERE source = ?1", [&source])?;
    }
    Ok(())
}
