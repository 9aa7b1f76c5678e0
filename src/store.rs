//! Keeps the counts, the counters and the sources' progress over restarts, in SQLite.
//!
//! One thread owns the connection; a batch and its progress are one transaction, and the
//! [`Change`] that a batch makes to the totals is handed on only after the commit. Scrapes
//! never come here.

mod admissions;
mod buckets;
mod callers;
mod commit;
mod db;
mod keys;
mod read;
mod runs;
mod schema;
mod workers;

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use tokio::sync::{oneshot, watch};

pub use self::callers::CALLERS;
use self::db::Db;
pub use self::read::{Remembered, remembered};
use crate::batch::{Batch, ProgressChange};
use crate::call::CallerLabels;
use crate::series;
use crate::time::Timestamp;
use crate::tls::TlsVersion;
use crate::totals::Change;

/// The settings of the store.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The database; `None` keeps everything in memory and loses it at the end.
    pub path: Option<PathBuf>,
    /// How long counts are kept.
    pub retention: Duration,
    /// What the gauges cover, up to their worker's watermark.
    pub window: Duration,
    /// The grid of time.
    pub bucket: Duration,
    /// Calls below are outdated.
    pub minimum_version: TlsVersion,
    /// A run of outdated calls ends after this long without any.
    pub quiet_period: Duration,
    /// How many series a family may have, and their labels.
    pub series: series::Settings,
    /// What is told of callers; other labels than before, and all callers are forgotten.
    pub callers: CallerLabels,
}

/// Which worker counts are kept for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerName {
    /// The `source` label.
    pub source: String,
    /// The source's `type`; a stored worker of another type refuses to be taken over.
    pub source_type: &'static str,
    /// The account of its role, empty where there is none.
    pub account: String,
    /// Its region, empty where there is none.
    pub region: String,
}

/// A worker as the store knows it.
#[derive(Clone, Debug, Default)]
pub struct WorkerState {
    /// The worker's number in this store.
    pub id: i64,
    /// The time up to which all is counted.
    pub watermark: Option<Timestamp>,
    /// Since when it is counted without a gap.
    pub history_start: Option<Timestamp>,
    /// The newest record counted.
    pub newest_record: Option<Timestamp>,
    /// The rows of its progress, in the order of their keys.
    pub progress: Vec<ProgressChange>,
}

/// What a commit changed about its worker.
#[derive(Clone, Copy, Debug)]
pub struct Committed {
    /// The time up to which all is counted.
    pub watermark: Option<Timestamp>,
    /// Since when it is counted without a gap.
    pub history_start: Option<Timestamp>,
    /// The newest record counted.
    pub newest_record: Option<Timestamp>,
    /// What counting a window again found: calls that were not there before, and calls that are gone.
    pub recount: Recount,
    /// The size of the database.
    pub state_bytes: u64,
}

/// How a window that was counted again differs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recount {
    /// Calls that had come late; they count now.
    pub late: u64,
    /// Calls that were counted and are not found any more; they stay counted.
    pub gone: u64,
}

/// Why the store cannot be opened or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The folder or the lock file cannot be written.
    #[error("cannot use the store {path}")]
    Unwritable {
        /// The database.
        path: PathBuf,
        /// What the system said.
        #[source]
        error: io::Error,
    },
    /// Another process holds the lock.
    #[error(
        "another exporter uses the store {0}: two would count and pay twice; give each its own `state.path`"
    )]
    Locked(PathBuf),
    /// The database is an empty file: this program moves a new store to its place whole.
    #[error(
        "the store {0} is an empty file, so what it held is lost: restore it from a copy, or remove it to start anew"
    )]
    Empty(PathBuf),
    /// The database is gone while what was written to it last is still there.
    #[error(
        "the store {0} is gone, but its `-wal` is there: put them together again, or move that away too"
    )]
    Gone(PathBuf),
    /// The file is no store of this program.
    #[error("{0} is no store of this program; move it away or set `state.path`")]
    Foreign(PathBuf),
    /// The store was written by a newer build.
    #[error(
        "the store has schema version {found}, this build knows {known}: run the newer build, or restore an older store"
    )]
    Newer {
        /// The version in the file.
        found: i32,
        /// The newest version this build reads.
        known: i32,
    },
    /// The grid became finer than what is stored.
    #[error("`window.bucket` is finer than the store's {}: counts cannot be divided; set it back, or start a new store", humantime::format_duration(*stored))]
    FinerGrid {
        /// The store's grid.
        stored: Duration,
    },
    /// A source changed its type under its name.
    #[error(
        "source `{source_name}` is stored with the type `{stored}`: a source of another type needs another `name`"
    )]
    TypeChanged {
        /// The source.
        source_name: String,
        /// Its type as stored.
        stored: String,
    },
    /// A stored key or row cannot be read.
    #[error("the store is damaged: {0}; restore it from a copy, or move it away to start anew")]
    Damaged(String),
    /// SQLite failed.
    #[error("the store failed")]
    Sql(#[source] rusqlite::Error),
    /// The store's thread is gone: it was closed, or has failed before.
    #[error("the store is closed")]
    Closed,
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::Error::{
            FromSqlConversionFailure, IntegralValueOutOfRange, InvalidColumnType, SqlInputError,
            SqliteFailure, Utf8Error,
        };
        use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
        let damaged = match &error {
            // What this program writes, it can read; the statements are its own, so what makes no sense in them is
            // the schema in the file.
            FromSqlConversionFailure(..)
            | IntegralValueOutOfRange(..)
            | InvalidColumnType(..)
            | SqlInputError { .. }
            | Utf8Error(..) => true,
            SqliteFailure(failure, _) => {
                matches!(failure.code, DatabaseCorrupt | NotADatabase)
                    || failure.extended_code == rusqlite::ffi::SQLITE_ERROR
            }
            _ => false,
        };
        if damaged {
            Self::Damaged(error.to_string())
        } else {
            Self::Sql(error)
        }
    }
}

type Job = Box<dyn FnOnce(&mut Db) + Send>;

/// A handle on the store; clones share it. The store closes when the last one is dropped.
#[derive(Clone, Debug)]
pub struct Store {
    jobs: mpsc::Sender<Job>,
    /// Closed when the thread has ended.
    ended: watch::Receiver<()>,
}

impl Store {
    /// Opens or creates the store, and starts its thread. `changes` is called on that thread after
    /// each commit.
    pub fn open(
        settings: Settings,
        changes: impl Fn(Change) + Send + 'static,
    ) -> Result<Self, StoreError> {
        let lock = settings.path.as_deref().map(lock).transpose()?;
        let mut db = Db::open(settings, Box::new(changes))?;
        let (jobs, queue) = mpsc::channel::<Job>();
        let (alive, ended) = watch::channel(());
        let run = move || {
            for job in queue {
                job(&mut db);
            }
            drop(db);
            drop(lock);
            drop(alive);
        };
        thread::Builder::new()
            .name("store".into())
            .spawn(run)
            .map_err(|_| StoreError::Closed)?;
        Ok(Self { jobs, ended })
    }

    /// From now on counts for these workers and no others, under these settings, or fails and changes nothing.
    /// `publish` is called on the store's thread with all that a scrape shows, before any later change; what
    /// the workers knew before is in the answer, in the order of their names.
    pub async fn take_over(
        &self,
        settings: Settings,
        names: Vec<WorkerName>,
        now: Timestamp,
        publish: impl FnOnce(Vec<Change>) + Send + 'static,
    ) -> Result<Vec<WorkerState>, StoreError> {
        self.call(move |db| db.take_over(settings, &names, now, publish))
            .await
    }

    /// Tries [`Store::take_over`] and changes nothing; every reason why it would fail.
    pub async fn try_take_over(
        &self,
        settings: Settings,
        names: Vec<WorkerName>,
        now: Timestamp,
    ) -> Result<Vec<WorkerState>, Vec<StoreError>> {
        let tried = self.call(move |db| Ok(db.try_take_over(&settings, &names, now)));
        tried.await.unwrap_or_else(|error| Err(vec![error]))
    }

    /// Adds a worker to those that are counted for and publishes its totals; what it knew before is in the answer.
    pub async fn worker(
        &self,
        name: WorkerName,
        now: Timestamp,
    ) -> Result<WorkerState, StoreError> {
        self.call(move |db| db.worker(&name, now)).await
    }

    /// Commits a batch of `worker` and its progress, all or nothing, and publishes the new totals.
    pub async fn commit(
        &self,
        worker: i64,
        batch: Arc<Batch>,
        now: Timestamp,
    ) -> Result<Committed, StoreError> {
        self.call(move |db| db.commit(worker, &batch, now)).await
    }

    /// Waits until the store's thread has done what was asked of it so far: it is alive.
    pub async fn answers(&self) -> Result<(), StoreError> {
        self.call(|_| Ok(())).await
    }

    /// Gives up this handle and waits until the store is closed: the others are gone too, all that was
    /// asked for is done, and the lock is free.
    pub async fn close(self) {
        let Self { jobs, mut ended } = self;
        drop(jobs);
        // Nothing is ever sent: the only change is the end.
        ended.changed().await.ok();
    }

    async fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Db) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (answer, answered) = oneshot::channel();
        let job = move |db: &mut Db| {
            // Nobody waits any more when the program is being stopped; the work is done all the same.
            answer.send(work(db)).ok();
        };
        self.jobs
            .send(Box::new(job))
            .map_err(|_| StoreError::Closed)?;
        answered.await.map_err(|_| StoreError::Closed)?
    }
}

/// Creates the store's folder and takes the lock beside it, which the system frees when the process ends.
fn lock(path: &Path) -> Result<File, StoreError> {
    let unwritable = |error| StoreError::Unwritable {
        path: path.to_owned(),
        error,
    };
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(unwritable)?;
    }
    let file = File::options()
        .create(true)
        .append(true)
        .open(beside(path, ".lock"))
        .map_err(unwritable)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreError::Locked(path.to_owned())),
        Err(TryLockError::Error(error)) => Err(unwritable(error)),
    }
}

/// The file beside the database that has this ending more.
fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}
