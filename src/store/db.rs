//! The transactions of the store: opening it, registering a worker, committing a batch.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::keys::{self, Keys};
use super::runs::{self, Sightings};
use super::{Committed, Settings, StoreError, WorkerName, WorkerState, schema};
use crate::batch::{Batch, ProgressChange};
use crate::call::{CallKey, Tally};
use crate::time::Timestamp;
use crate::totals::{Change, KeyChange};

const HOUR: Duration = Duration::from_secs(3600);

/// The open database; only the store's thread has it.
pub(super) struct Db {
    connection: Connection,
    settings: Settings,
    keys: Keys,
    workers: HashMap<i64, Worker>,
    changes: Box<dyn Fn(Change) + Send>,
}

/// What is kept in memory of a worker between commits.
#[derive(Clone)]
struct Worker {
    source: Arc<str>,
    watermark: Option<Timestamp>,
    history_start: Option<Timestamp>,
    newest_record: Option<Timestamp>,
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

    pub(super) fn commit(
        &mut self,
        id: i64,
        batch: &Batch,
        now: Timestamp,
    ) -> Result<Committed, StoreError> {
        let unknown = || StoreError::Damaged(format!("worker {id} is not registered"));
        let mut worker = self.workers.get(&id).ok_or_else(unknown)?.clone();
        let old_start = worker
            .watermark
            .map(|watermark| self.window_start(watermark));
        worker.advance(batch);
        let new_start = worker
            .watermark
            .map(|watermark| self.window_start(watermark));
        let transaction = self.connection.transaction()?;
        let (rows, new_keys) = numbered(&transaction, &self.keys, batch)?;

        let mut changes: BTreeMap<u32, KeyChange> = BTreeMap::new();
        if let (Some(old), Some(new)) = (old_start, new_start) {
            for (key, calls) in calls_between(&transaction, id, old, new)? {
                let known = self
                    .keys
                    .key(key)
                    .ok_or_else(|| StoreError::Damaged(format!("no key {key}")))?;
                changes
                    .entry(key)
                    .or_insert_with(|| KeyChange::new(key, known))
                    .window -= calls;
            }
        }
        let mut sightings = Sightings::default();
        for row in &rows {
            add_count(&transaction, id, row)?;
            let change = changes
                .entry(row.key)
                .or_insert_with(|| KeyChange::new(row.key, row.call));
            change.add(row.bucket, row.tally);
            if new_start.is_some_and(|start| row.bucket >= start) {
                change.window += signed(row.tally.calls);
            }
            if row.call.tls_version.outdated(self.settings.minimum_version) {
                sightings.add(row.call, row.bucket);
            }
        }
        for change in changes.values().filter(|change| change.calls > 0) {
            add_total(&transaction, id, change)?;
        }
        let runs = sightings.write(&transaction, id, self.settings.quiet_period, now)?;
        write_progress(&transaction, id, &batch.progress)?;
        write_worker(&transaction, id, &worker)?;
        if let (Some(old), Some(new)) = (old_start, new_start) {
            age(&transaction, id, old, new, worker.watermark, &self.settings)?;
        }
        transaction.commit()?;

        for (number, key) in new_keys {
            self.keys.insert(number, key);
        }
        (self.changes)(Change {
            source: Arc::clone(&worker.source),
            watermark: worker.watermark,
            keys: changes.into_values().collect(),
            runs,
        });
        let committed = Committed {
            watermark: worker.watermark,
            history_start: worker.history_start,
            newest_record: worker.newest_record,
            state_bytes: self.bytes()?,
        };
        self.workers.insert(id, worker);
        Ok(committed)
    }

    /// The first bucket that the gauges cover when all up to `watermark` is counted. The bucket in
    /// which the watermark lies is covered as far as it goes.
    fn window_start(&self, watermark: Timestamp) -> Timestamp {
        let bucket = self.settings.bucket;
        let floor = watermark.floor(bucket);
        let end = if floor == watermark {
            floor
        } else {
            floor.plus(bucket)
        };
        end.minus(self.settings.window)
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
        {
            let mut rows = self
                .connection
                .prepare("SELECT bucket, key FROM counts WHERE worker = ?1")?;
            let mut rows = rows.query([id])?;
            while let Some(row) = rows.next()? {
                let outdated =
                    |key: &&Arc<CallKey>| key.tls_version.outdated(self.settings.minimum_version);
                if let Some(key) = self.keys.key(row.get(1)?).filter(outdated) {
                    sightings.add(key, Timestamp::from_secs(row.get(0)?));
                }
            }
        }
        let transaction = self.connection.transaction()?;
        transaction.execute("DELETE FROM runs WHERE worker = ?1", [id])?;
        sightings.write(&transaction, id, self.settings.quiet_period, now)?;
        write_worker(&transaction, id, worker)?;
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
        if let Some(watermark) = worker.watermark {
            let end = Timestamp::from_secs(i64::MAX);
            for (key, calls) in
                calls_between(&self.connection, id, self.window_start(watermark), end)?
            {
                if let Some(change) = changes.get_mut(&key) {
                    change.window = calls;
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

    fn bytes(&self) -> Result<u64, StoreError> {
        let number = |name| {
            self.connection
                .pragma_query_value(None, name, |row| row.get::<_, u64>(0))
        };
        Ok(number("page_count")? * number("page_size")?)
    }
}

impl Worker {
    fn advance(&mut self, batch: &Batch) {
        if let Some(covered) = batch.covered {
            self.watermark = self.watermark.max(Some(covered.to));
            self.history_start = self.history_start.or(Some(covered.from));
        }
        let newest = batch.counts.iter().map(|(_, _, tally)| tally.last).max();
        self.newest_record = self.newest_record.max(newest);
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

/// One row of a batch's counts, with the number of its key.
struct Row<'b> {
    bucket: Timestamp,
    key: u32,
    call: &'b Arc<CallKey>,
    tally: Tally,
}

/// The batch's counts in the order of the table, and the keys that were new.
#[expect(clippy::type_complexity, reason = "two lists, each plain")]
fn numbered<'b>(
    transaction: &Transaction<'_>,
    keys: &Keys,
    batch: &'b Batch,
) -> Result<(Vec<Row<'b>>, Vec<(u32, Arc<CallKey>)>), StoreError> {
    let mut new: HashMap<&CallKey, u32> = HashMap::new();
    let mut new_keys = Vec::new();
    let mut rows = Vec::new();
    for (bucket, call, tally) in batch.counts.iter() {
        let key = match keys.number(call).or_else(|| new.get(&**call).copied()) {
            Some(key) => key,
            None => {
                let key = keys::write(transaction, call)?;
                new.insert(call, key);
                new_keys.push((key, Arc::clone(call)));
                key
            }
        };
        rows.push(Row {
            bucket,
            key,
            call,
            tally,
        });
    }
    rows.sort_unstable_by_key(|row| (row.bucket, row.key));
    Ok((rows, new_keys))
}

fn calls_between(
    connection: &Connection,
    worker: i64,
    from: Timestamp,
    to: Timestamp,
) -> rusqlite::Result<Vec<(u32, i64)>> {
    let mut select = connection.prepare_cached(
        "SELECT key, sum(calls) FROM counts WHERE worker = ?1 AND bucket >= ?2 AND bucket < ?3 GROUP BY key",
    )?;
    let rows = select.query_map(params![worker, from.secs(), to.secs()], |row| {
        Ok((row.get(0)?, row.get(1)?))
    })?;
    rows.collect()
}

fn add_count(transaction: &Transaction<'_>, worker: i64, row: &Row<'_>) -> rusqlite::Result<()> {
    let mut insert = transaction.prepare_cached(
        "INSERT INTO counts VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT DO UPDATE SET calls = calls + excluded.calls",
    )?;
    insert.execute(params![worker, row.bucket.secs(), row.key, row.tally.calls])?;
    Ok(())
}

fn add_total(
    transaction: &Transaction<'_>,
    worker: i64,
    change: &KeyChange,
) -> rusqlite::Result<()> {
    let mut insert = transaction.prepare_cached(
        "INSERT INTO totals VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT DO UPDATE SET calls = calls + excluded.calls,
             last_call = max(last_call, excluded.last_call), last_bucket = max(last_bucket, excluded.last_bucket)",
    )?;
    let (last_call, last_bucket) = (change.last_call.secs(), change.last_bucket.secs());
    insert.execute(params![
        worker,
        change.number,
        change.calls,
        last_call,
        last_bucket
    ])?;
    Ok(())
}

fn write_progress(
    transaction: &Transaction<'_>,
    worker: i64,
    rows: &[ProgressChange],
) -> rusqlite::Result<()> {
    let mut put =
        transaction.prepare_cached("INSERT OR REPLACE INTO progress VALUES (?1, ?2, ?3)")?;
    let mut remove =
        transaction.prepare_cached("DELETE FROM progress WHERE worker = ?1 AND key = ?2")?;
    for row in rows {
        match &row.value {
            Some(value) => put.execute(params![worker, row.key, value])?,
            None => remove.execute(params![worker, row.key])?,
        };
    }
    Ok(())
}

fn write_worker(transaction: &Transaction<'_>, id: i64, worker: &Worker) -> rusqlite::Result<()> {
    let mut update = transaction.prepare_cached(
        "UPDATE workers SET watermark = ?2, history_start = ?3, newest_record = ?4 WHERE id = ?1",
    )?;
    let secs = |time: Option<Timestamp>| time.map(Timestamp::secs);
    update.execute(params![
        id,
        secs(worker.watermark),
        secs(worker.history_start),
        secs(worker.newest_record)
    ])?;
    Ok(())
}

/// Once an hour of the window's start: buckets that left the window become hours, and hours older than
/// the retention go.
fn age(
    transaction: &Transaction<'_>,
    worker: i64,
    old_start: Timestamp,
    new_start: Timestamp,
    watermark: Option<Timestamp>,
    settings: &Settings,
) -> rusqlite::Result<()> {
    let hour = new_start.floor(HOUR);
    if old_start.floor(HOUR) == hour {
        return Ok(());
    }
    let rolled = params![worker, hour.secs()];
    transaction.execute(
        "INSERT INTO counts SELECT worker, bucket - bucket % 3600, key, sum(calls) FROM counts
         WHERE worker = ?1 AND bucket < ?2 AND bucket % 3600 <> 0 GROUP BY 2, 3
         ON CONFLICT DO UPDATE SET calls = calls + excluded.calls",
        rolled,
    )?;
    transaction.execute(
        "DELETE FROM counts WHERE worker = ?1 AND bucket < ?2 AND bucket % 3600 <> 0",
        rolled,
    )?;
    if let Some(watermark) = watermark {
        let end = watermark.minus(settings.retention);
        transaction.execute(
            "DELETE FROM counts WHERE worker = ?1 AND bucket < ?2",
            params![worker, end.secs()],
        )?;
    }
    Ok(())
}

fn signed(calls: u64) -> i64 {
    i64::try_from(calls).unwrap_or(i64::MAX)
}
