//! The workers that the store counts for: added one by one, or all taken over together by a start and a reload alike.

use std::collections::{BTreeSet, HashMap};

use rusqlite::{Connection, Transaction};

use super::db::{Db, Worker, keep_grid};
use super::{Settings, StoreError, WorkerName, WorkerState};
use crate::time::Timestamp;
use crate::totals::Change;

/// What the store has of some workers: their states in the order of the names, and all that a scrape shows.
struct Loaded {
    states: Vec<WorkerState>,
    workers: HashMap<i64, Worker>,
    totals: Vec<Change>,
}

impl Db {
    /// Adds one worker to those that are counted for, and publishes its totals.
    pub(super) fn worker(
        &mut self,
        name: &WorkerName,
        now: Timestamp,
    ) -> Result<WorkerState, StoreError> {
        let transaction = self.connection.unchecked_transaction()?;
        let (state, worker) = self.load(&transaction, &self.settings, name, now)?;
        let totals = self.totals_of(state.id, &worker, &self.settings)?;
        transaction.commit()?;
        self.workers.insert(state.id, worker);
        (self.changes)(totals);
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
        let loaded = self.load_all(&transaction, &settings, names, now)?;
        drop_old(&transaction, names, now.minus(settings.retention))?;
        transaction.commit()?;
        self.settings = settings;
        self.workers = loaded.workers;
        publish(loaded.totals);
        Ok(loaded.states)
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
        let loaded = self.load_all(&transaction, settings, names, now);
        Ok(loaded.map_err(|error| vec![error])?.states)
    }

    fn load_all(
        &self,
        transaction: &Transaction<'_>,
        settings: &Settings,
        names: &[WorkerName],
        now: Timestamp,
    ) -> Result<Loaded, StoreError> {
        let mut loaded = Loaded {
            states: Vec::new(),
            workers: HashMap::new(),
            totals: Vec::new(),
        };
        for name in names {
            let (state, worker) = self.load(transaction, settings, name, now)?;
            let totals = self.totals_of(state.id, &worker, settings)?;
            loaded.totals.push(totals);
            loaded.workers.insert(state.id, worker);
            loaded.states.push(state);
        }
        let sources: BTreeSet<&String> = names.iter().map(|name| &name.source).collect();
        for source in sources {
            let others = self.others(source, &loaded.workers)?;
            loaded.totals.extend(others);
        }
        Ok(loaded)
    }

    /// A worker as it goes on from here.
    fn load(
        &self,
        transaction: &Transaction<'_>,
        settings: &Settings,
        name: &WorkerName,
        now: Timestamp,
    ) -> Result<(WorkerState, Worker), StoreError> {
        let (id, mut worker) = self.find_worker(name)?;
        self.follow_minimum_version(transaction, settings, (id, &mut worker), now)?;
        let state = WorkerState {
            id,
            watermark: worker.watermark,
            history_start: worker.history_start,
            newest_record: worker.newest_record,
            progress: self.progress(id)?,
        };
        Ok((state, worker))
    }

    /// The counters of a source's workers whose role or Region is gone: other workers count into the same series,
    /// and no counter goes down. The gauges forget them.
    fn others(
        &self,
        source: &str,
        workers: &HashMap<i64, Worker>,
    ) -> Result<Vec<Change>, StoreError> {
        let mut select = self
            .connection
            .prepare("SELECT id FROM workers WHERE source = ?1")?;
        let ids = select.query_map([source], |row| row.get(0))?;
        let ids: Vec<i64> = ids.collect::<Result<_, _>>()?;
        let gone = ids.into_iter().filter(|id| !workers.contains_key(id));
        let counters = gone.map(|id| {
            let keys = self.counters(id)?.into_values().collect();
            Ok(Change {
                source: source.into(),
                worker: id,
                watermark: None,
                keys,
                runs: Vec::new(),
                window_moved: true,
            })
        });
        counters.collect()
    }
}

/// Drops all rows of the sources that are counted for no more and have counted nothing since `oldest`.
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
