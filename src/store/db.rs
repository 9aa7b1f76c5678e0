//! The open database: its settings, its workers, and what a restart loads.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::callers::{self, Known};
use super::keys::Keys;
use super::runs::{self, Sightings};
use super::{Settings, StoreError, WorkerName, admissions, beside, buckets, schema};
use crate::batch::{Batch, ProgressChange};
use crate::call::Tally;
use crate::series::Admissions;
use crate::time::Timestamp;
use crate::totals::{Change, KeyChange};

/// The page size of a new store in bytes. Most of what is written are packed buckets and blocks of event ids, of
/// kilobytes each: small pages take a third more time.
const PAGE: i64 = 16 << 10;
/// A batch of a busy trail fits, so that none of it is written twice.
const CACHE_KIB: i64 = 16 << 10;

/// The open database; only the store's thread has it.
pub(super) struct Db {
    pub(super) connection: Connection,
    pub(super) settings: Settings,
    pub(super) keys: Keys,
    pub(super) admissions: Admissions,
    pub(super) workers: HashMap<i64, Worker>,
    /// The callers of each worker.
    pub(super) callers: HashMap<i64, Known>,
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
        let mut connection = match settings.path.as_deref() {
            Some(path) => open_file(path)?,
            None => prepared(Connection::open_in_memory()?)?,
        };
        let keys = Keys::load(&connection)?;
        let admissions = admissions::load(&connection, settings.series.clone())?;
        let transaction = connection.transaction()?;
        keep_grid(&transaction, settings.bucket)?;
        callers::follow_labels(&transaction, settings.callers)?;
        transaction.commit()?;
        Ok(Self {
            connection,
            settings,
            keys,
            admissions,
            workers: HashMap::new(),
            callers: HashMap::new(),
            changes,
        })
    }

    /// The stored worker of this name, or a new one.
    pub(super) fn find_worker(&self, name: &WorkerName) -> Result<(i64, Worker), StoreError> {
        // Another type's workers may have other accounts and Regions.
        let mut select = self
            .connection
            .prepare("SELECT source_type FROM workers WHERE source = ?1 AND source_type <> ?2")?;
        let other = select.query_row([&name.source, name.source_type], |row| row.get(0));
        if let Some(stored) = other.optional()? {
            return Err(StoreError::TypeChanged {
                source_name: name.source.clone(),
                stored,
            });
        }
        let mut select = self.connection.prepare(
            "SELECT id, watermark, history_start, newest_record FROM workers
             WHERE source = ?1 AND account = ?2 AND region = ?3",
        )?;
        let found = select.query_row(params![name.source, name.account, name.region], |row| {
            let time = |column| {
                row.get::<_, Option<i64>>(column)
                    .map(|secs| secs.map(Timestamp::from_secs))
            };
            let worker = Worker {
                source: name.source.as_str().into(),
                watermark: time(1)?,
                history_start: time(2)?,
                newest_record: time(3)?,
            };
            Ok((row.get::<_, i64>(0)?, worker))
        });
        if let Some(found) = found.optional()? {
            return Ok(found);
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

    /// Tells the worker's runs anew from its counts, as far back as they go, if they were told for
    /// another `tls.minimum_version`; its history starts at the change.
    pub(super) fn follow_minimum_version(
        &self,
        transaction: &Transaction<'_>,
        settings: &Settings,
        (id, worker): (i64, &mut Worker),
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let name = format!("minimum_version of worker {id}");
        let minimum = settings.minimum_version;
        let before = setting(transaction, &name)?;
        if before.as_deref() == Some(minimum.label()) {
            return Ok(());
        }
        put_setting(transaction, &name, minimum.label())?;
        if before.is_some() {
            let mut sightings = Sightings::default();
            let (from, to) = (
                Timestamp::from_secs(i64::MIN),
                Timestamp::from_secs(i64::MAX),
            );
            buckets::each(transaction, id, from, to, |bucket, key, _| {
                let key = self.keys.key(key);
                if let Some(key) = key.filter(|key| key.tls_version.outdated(minimum)) {
                    sightings.add(key, bucket);
                }
            })?;
            transaction.execute("DELETE FROM runs WHERE worker = ?1", [id])?;
            sightings.write(transaction, id, settings.quiet_period, now)?;
            worker.history_start = worker.history_start.map(|_| now);
            worker.write(transaction, id)?;
        }
        Ok(())
    }

    /// Everything about a worker but its callers, as one change to empty totals.
    pub(super) fn totals_of(
        &self,
        id: i64,
        worker: &Worker,
        settings: &Settings,
    ) -> Result<Change, StoreError> {
        let mut changes = self.counters(id)?;
        if let Some(start) = worker.window_start(settings) {
            for (key, calls) in
                buckets::sum(&self.connection, id, start, Timestamp::from_secs(i64::MAX))?
            {
                let change = changes.get_mut(&key).ok_or_else(|| {
                    StoreError::Damaged(format!("key {key} has calls and no counter"))
                })?;
                change.window = i64::try_from(calls).unwrap_or(i64::MAX);
            }
        }
        Ok(Change {
            source: Arc::clone(&worker.source),
            worker: id,
            counted: true,
            watermark: worker.watermark,
            keys: changes.into_values().collect(),
            runs: runs::load(&self.connection, id)?,
            callers: Vec::new(),
            window_moved: true,
        })
    }

    /// The counters of a worker, by the numbers of their keys.
    pub(super) fn counters(&self, id: i64) -> Result<BTreeMap<u32, KeyChange>, StoreError> {
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
            let calls: u64 = row.get(1)?;
            if calls > buckets::MOST {
                let error = format!("the counter of key {number} is {calls}");
                return Err(StoreError::Damaged(error));
            }
            let tally = Tally {
                calls,
                last: Timestamp::from_secs(row.get(2)?),
            };
            change.add(Timestamp::from_secs(row.get(3)?), tally);
            changes.insert(number, change);
        }
        Ok(changes)
    }

    pub(super) fn progress(&self, id: i64) -> Result<Vec<ProgressChange>, StoreError> {
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
}

impl Worker {
    /// Takes in what a batch covers.
    pub(super) fn advance(&mut self, batch: &Batch) {
        if batch.begins_anew {
            self.history_start = self.watermark;
        }
        if let Some(covered) = batch.covered {
            // What lies between the watermark and a later start was not counted: history begins anew.
            let gap = self
                .watermark
                .is_none_or(|watermark| covered.from > watermark);
            if gap {
                self.history_start = Some(covered.from);
            }
            self.watermark = self.watermark.max(Some(covered.to));
        }
        let newest = batch.counts.iter().map(|(_, _, tally)| tally.last).max();
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

/// Opens a database file; one that is not ours, or not for this build, is left as it is.
fn open_file(path: &Path) -> Result<Connection, StoreError> {
    match fs::metadata(path) {
        // SQLite takes one byte for an empty file too, and would begin anew.
        Ok(file) if file.len() <= 1 => return Err(StoreError::Empty(path.to_owned())),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => create(path)?,
        Err(error) => return Err(unwritable(path, error)),
    }
    let foreign = || StoreError::Foreign(path.to_owned());
    let connection = Connection::open(path)?;
    let tables = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| {
        row.get::<_, i64>(0)
    });
    let tables = tables.map_err(|error| match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::NotADatabase) => foreign(),
        _ => error.into(),
    })?;
    let application: i32 =
        connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
    if tables > 0 && application != schema::APPLICATION_ID {
        return Err(foreign());
    }
    check_version(&connection)?;
    let verdict: String = connection.pragma_query_value(None, "quick_check", |row| row.get(0))?;
    if verdict != "ok" {
        // The first line names the database, the others what is wrong.
        let first = verdict.lines().find(|line| !line.starts_with("***"));
        return Err(StoreError::Damaged(first.unwrap_or(&verdict).to_owned()));
    }
    connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    prepared(connection)
}

/// Makes a new store and moves it to its place whole: a start that was cut short, by a kill or a full disk, leaves
/// nothing there, so that an empty file is never taken for a first start.
fn create(path: &Path) -> Result<(), StoreError> {
    // SQLite would throw it away.
    if beside(path, "-wal").exists() {
        return Err(StoreError::Gone(path.to_owned()));
    }
    let new = beside(path, ".new");
    for left in [&new, &beside(&new, "-journal")] {
        match fs::remove_file(left) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(unwritable(path, error));
            }
            _ => {}
        }
    }
    let connection = Connection::open(&new)?;
    connection.pragma_update(None, "page_size", PAGE)?;
    let connection = prepared(connection)?;
    connection.close().map_err(|(_, error)| error)?;
    fs::rename(&new, path).map_err(|error| unwritable(path, error))
}

fn unwritable(path: &Path, error: io::Error) -> StoreError {
    let path = path.to_owned();
    StoreError::Unwritable { path, error }
}

fn prepared(mut connection: Connection) -> Result<Connection, StoreError> {
    connection.set_prepared_statement_cache_capacity(32);
    let version = check_version(&connection)?;
    schema::migrate(&mut connection, version)?;
    Ok(connection)
}

/// The schema's version, if this build knows it.
fn check_version(connection: &Connection) -> Result<i32, StoreError> {
    let found = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let known = schema::current();
    if found > known {
        Err(StoreError::Newer { found, known })
    } else {
        Ok(found)
    }
}

/// Remembers the grid; a coarser one may follow, a finer one may not.
pub(super) fn keep_grid(connection: &Connection, bucket: Duration) -> Result<(), StoreError> {
    let seconds = bucket.as_secs();
    if let Some(stored) = setting(connection, "bucket_seconds")? {
        let damaged = || StoreError::Damaged(format!("the grid is {stored:?}"));
        let stored: u64 = stored.parse().map_err(|_| damaged())?;
        if seconds < stored {
            return Err(StoreError::FinerGrid {
                stored: Duration::from_secs(stored),
            });
        }
        if seconds == stored {
            return Ok(());
        }
        // Runs are told to the bucket: those of the other grid are none to compare with.
        let history =
            "UPDATE workers SET history_start = watermark WHERE history_start IS NOT NULL";
        connection.execute(history, [])?;
    }
    put_setting(connection, "bucket_seconds", &seconds.to_string())
}

pub(super) fn setting(connection: &Connection, name: &str) -> Result<Option<String>, StoreError> {
    let mut select = connection.prepare("SELECT value FROM settings WHERE name = ?1")?;
    Ok(select.query_row([name], |row| row.get(0)).optional()?)
}

pub(super) fn put_setting(
    connection: &Connection,
    name: &str,
    value: &str,
) -> Result<(), StoreError> {
    connection.execute(
        "INSERT OR REPLACE INTO settings VALUES (?1, ?2)",
        [name, value],
    )?;
    Ok(())
}
