//! The open database: its settings, its workers, and what a restart loads.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, params};

use super::keys::Keys;
use super::runs::{self, Sightings};
use super::{Settings, StoreError, WorkerName, WorkerState, buckets, schema};
use crate::batch::{Batch, ProgressChange};
use crate::call::Tally;
use crate::time::Timestamp;
use crate::totals::{Change, KeyChange};

/// The open database; only the store's thread has it.
pub(super) struct Db {
    pub(super) connection: Connection,
    pub(super) settings: Settings,
    pub(super) keys: Keys,
    pub(super) workers: HashMap<i64, Worker>,
    /// Called after each commit.
    pub(super) changes: Box<dyn Fn(Change) + Send>,
}

/// What is kept in memory of a worker between commits.
#[derive(Clone)]
pub(super) struct Worker {
    pub(super) source: Arc<str>,
    pub(super) watermark: Option<Timestamp>,
    pub(super) history_start: Option<Timestamp>,
    pub(super) newest_record: Option<Timestamp>,
}

impl Db {
    pub(super) fn open(
        settings: Settings,
        changes: Box<dyn Fn(Change) + Send>,
    ) -> Result<Self, StoreError> {
        let connection = match settings.path.as_deref() {
            Some(path) => open_file(path)?,
            None => prepared(Connection::open_in_memory()?)?,
        };
        let keys = Keys::load(&connection)?;
        keep_grid(&connection, settings.bucket)?;
        Ok(Self {
            connection,
            settings,
            keys,
            workers: HashMap::new(),
            changes,
        })
    }

    pub(super) fn worker(
        &mut self,
        name: &WorkerName,
        now: Timestamp,
    ) -> Result<WorkerState, StoreError> {
        let (id, stored) = self.find_worker(name)?;
        let mut worker = stored;
        if self.minimum_version_changed(id)? {
            worker.history_start = worker.history_start.map(|_| now);
            self.retell_runs(id, &worker, now)?;
        }
        (self.changes)(self.totals_of(id, &worker)?);
        let progress = self.progress(id)?;
        let state = WorkerState {
            id,
            watermark: worker.watermark,
            history_start: worker.history_start,
            newest_record: worker.newest_record,
            progress,
        };
        self.workers.insert(id, worker);
        Ok(state)
    }

    fn find_worker(&self, name: &WorkerName) -> Result<(i64, Worker), StoreError> {
        let mut select = self.connection.prepare(
            "SELECT id, source_type, watermark, history_start, newest_record FROM workers
             WHERE source = ?1 AND account = ?2 AND region = ?3",
        )?;
        let found = select.query_row(params![name.source, name.account, name.region], |row| {
            let time = |column| {
                row.get::<_, Option<i64>>(column)
                    .map(|secs| secs.map(Timestamp::from_secs))
            };
            let worker = Worker {
                source: name.source.as_str().into(),
                watermark: time(2)?,
                history_start: time(3)?,
                newest_record: time(4)?,
            };
            Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?, worker))
        });
        if let Some((id, stored, worker)) = found.optional()? {
            let source_name = name.source.clone();
            let same = stored == name.source_type;
            return if same {
                Ok((id, worker))
            } else {
                Err(StoreError::TypeChanged {
                    source_name,
                    stored,
                })
            };
        }
        self.connection.execute(
            "INSERT INTO workers (source, source_type, account, region) VALUES (?1, ?2, ?3, ?4)",
            params![name.source, name.source_type, name.account, name.region],
        )?;
        let source = name.source.as_str().into();
        let worker = Worker {
            source,
            watermark: None,
            history_start: None,
            newest_record: None,
        };
        Ok((self.connection.last_insert_rowid(), worker))
    }

    /// Whether the worker's runs were told for another `tls.minimum_version`; remembers this one.
    fn minimum_version_changed(&self, id: i64) -> Result<bool, StoreError> {
        let name = format!("minimum_version of worker {id}");
        let label = self.settings.minimum_version.label();
        let before = setting(&self.connection, &name)?;
        put_setting(&self.connection, &name, label)?;
        Ok(before.is_some_and(|before| before != label))
    }

    /// Tells the worker's runs anew from its counts, as far back as they go.
    fn retell_runs(&mut self, id: i64, worker: &Worker, now: Timestamp) -> Result<(), StoreError> {
        let mut sightings = Sightings::default();
        let (from, to) = (
            Timestamp::from_secs(i64::MIN),
            Timestamp::from_secs(i64::MAX),
        );
        buckets::each(&self.connection, id, from, to, |bucket, key, _| {
            let key = self.keys.key(key);
            if let Some(key) =
                key.filter(|key| key.tls_version.outdated(self.settings.minimum_version))
            {
                sightings.add(key, bucket);
            }
        })?;
        let transaction = self.connection.transaction()?;
        transaction.execute("DELETE FROM runs WHERE worker = ?1", [id])?;
        sightings.write(&transaction, id, self.settings.quiet_period, now)?;
        worker.write(&transaction, id)?;
        transaction.commit()?;
        Ok(())
    }

    /// Everything about a worker, as one change to empty totals.
    fn totals_of(&self, id: i64, worker: &Worker) -> Result<Change, StoreError> {
        let mut changes: BTreeMap<u32, KeyChange> = BTreeMap::new();
        let mut rows = self
            .connection
            .prepare("SELECT key, calls, last_call, last_bucket FROM totals WHERE worker = ?1")?;
        let mut rows = rows.query([id])?;
        while let Some(row) = rows.next()? {
            let number: u32 = row.get(0)?;
            let known = self
                .keys
                .key(number)
                .ok_or_else(|| StoreError::Damaged(format!("no key {number}")))?;
            let mut change = KeyChange::new(number, known);
            let tally = Tally {
                calls: row.get(1)?,
                last: Timestamp::from_secs(row.get(2)?),
            };
            change.add(Timestamp::from_secs(row.get(3)?), tally);
            changes.insert(number, change);
        }
        if let Some(start) = worker.window_start(&self.settings) {
            for (key, calls) in
                buckets::sum(&self.connection, id, start, Timestamp::from_secs(i64::MAX))?
            {
                if let Some(change) = changes.get_mut(&key) {
                    change.window = i64::try_from(calls).unwrap_or(i64::MAX);
                }
            }
        }
        Ok(Change {
            source: Arc::clone(&worker.source),
            watermark: worker.watermark,
            keys: changes.into_values().collect(),
            runs: runs::load(&self.connection, id)?,
        })
    }

    fn progress(&self, id: i64) -> Result<Vec<ProgressChange>, StoreError> {
        let mut rows = self
            .connection
            .prepare("SELECT key, value FROM progress WHERE worker = ?1 ORDER BY key")?;
        let rows = rows.query_map([id], |row| {
            Ok(ProgressChange::put(
                row.get::<_, String>(0)?,
                row.get::<_, Vec<u8>>(1)?,
            ))
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    pub(super) fn bytes(&self) -> Result<u64, StoreError> {
        let number = |name| {
            self.connection
                .pragma_query_value(None, name, |row| row.get::<_, u64>(0))
        };
        Ok(number("page_count")? * number("page_size")?)
    }
}

impl Worker {
    /// Takes in what a batch covers.
    pub(super) fn advance(&mut self, batch: &Batch) {
        if let Some(covered) = batch.covered {
            self.watermark = self.watermark.max(Some(covered.to));
            self.history_start = self.history_start.or(Some(covered.from));
        }
        let newest = batch.counts.rows().map(|(_, _, tally)| tally.last).max();
        self.newest_record = self.newest_record.max(newest);
    }

    /// The first bucket that the gauges cover. The bucket in which the watermark lies is covered as far
    /// as it goes.
    pub(super) fn window_start(&self, settings: &Settings) -> Option<Timestamp> {
        let watermark = self.watermark?;
        let floor = watermark.floor(settings.bucket);
        let end = if floor == watermark {
            floor
        } else {
            floor.plus(settings.bucket)
        };
        Some(end.minus(settings.window))
    }

    pub(super) fn write(&self, connection: &Connection, id: i64) -> rusqlite::Result<()> {
        let mut update = connection.prepare_cached(
            "UPDATE workers SET watermark = ?2, history_start = ?3, newest_record = ?4 WHERE id = ?1",
        )?;
        let secs = |time: Option<Timestamp>| time.map(Timestamp::secs);
        update.execute(params![
            id,
            secs(self.watermark),
            secs(self.history_start),
            secs(self.newest_record)
        ])?;
        Ok(())
    }
}

fn open_file(path: &Path) -> Result<Connection, StoreError> {
    let foreign = |error: rusqlite::Error| match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::NotADatabase) => StoreError::Foreign(path.to_owned()),
        Some(rusqlite::ErrorCode::DatabaseCorrupt) => StoreError::Damaged(error.to_string()),
        _ => StoreError::Sql(error),
    };
    let connection = Connection::open(path).map_err(foreign)?;
    connection
        .pragma_update(None, "journal_mode", "WAL")
        .map_err(foreign)?;
    connection
        .pragma_update(None, "synchronous", "FULL")
        .map_err(foreign)?;
    let application: i32 =
        connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let tables: i64 =
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    if tables > 0 && application != schema::APPLICATION_ID {
        return Err(StoreError::Foreign(path.to_owned()));
    }
    prepared(connection)
}

fn prepared(mut connection: Connection) -> Result<Connection, StoreError> {
    connection.set_prepared_statement_cache_capacity(32);
    let (found, known) = (
        connection.pragma_query_value(None, "user_version", |row| row.get(0))?,
        schema::current(),
    );
    if found > known {
        return Err(StoreError::Newer { found, known });
    }
    schema::migrate(&mut connection, found)?;
    Ok(connection)
}

/// Remembers the grid; a coarser one may follow, a finer one may not.
fn keep_grid(connection: &Connection, bucket: Duration) -> Result<(), StoreError> {
    if let Some(stored) = setting(connection, "bucket_seconds")? {
        let stored = stored
            .parse()
            .map_err(|_| StoreError::Damaged(format!("the grid is {stored:?}")))?;
        if bucket.as_secs() < stored {
            return Err(StoreError::FinerGrid {
                stored: Duration::from_secs(stored),
            });
        }
    }
    put_setting(connection, "bucket_seconds", &bucket.as_secs().to_string())
}

fn setting(connection: &Connection, name: &str) -> Result<Option<String>, StoreError> {
    let mut select = connection.prepare("SELECT value FROM settings WHERE name = ?1")?;
    Ok(select.query_row([name], |row| row.get(0)).optional()?)
}

fn put_setting(connection: &Connection, name: &str, value: &str) -> Result<(), StoreError> {
    connection.execute(
        "INSERT OR REPLACE INTO settings VALUES (?1, ?2)",
        [name, value],
    )?;
    Ok(())
}
