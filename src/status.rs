//! How each worker is doing, for the landing page, and whether the store is stuck, for whoever would start the program
//! anew.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::store::WorkerName;
use crate::time::Timestamp;

/// One worker's state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WorkerStatus {
    /// Whether the last attempt succeeded; `None` before the first has ended.
    pub up: Option<bool>,
    /// The time up to which all is counted.
    pub watermark: Option<Timestamp>,
    /// What failed last, while it fails.
    pub error: Option<String>,
    /// How many files cannot be read.
    pub unreadable_files: u64,
}

/// How long the store may take to answer: a commit to a slow disk takes its time, and a start anew helps no disk. The
/// systemd unit has the same limit.
pub const STORE_LIMIT: Duration = Duration::from_secs(5 * 60);

/// All workers' states, and when the store answered last; clones share them.
#[derive(Clone, Debug, Default)]
pub struct Status {
    workers: Arc<Mutex<BTreeMap<[String; 3], WorkerStatus>>>,
    store_answered: Arc<Mutex<Option<Instant>>>,
}

impl Status {
    /// Changes the state of `worker`.
    pub fn update(&self, worker: &WorkerName, change: impl FnOnce(&mut WorkerStatus)) {
        let key = [
            worker.source.clone(),
            worker.account.clone(),
            worker.region.clone(),
        ];
        change(
            self.workers
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .entry(key)
                .or_default(),
        );
    }

    /// Forgets a worker that is gone.
    pub fn remove(&self, worker: &WorkerName) {
        let key = [&worker.source, &worker.account, &worker.region].map(String::clone);
        self.workers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&key);
    }

    /// The workers by source, account and region, and their states.
    pub fn all(&self) -> Vec<([String; 3], WorkerStatus)> {
        let workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        workers
            .iter()
            .map(|(key, status)| (key.clone(), status.clone()))
            .collect()
    }

    /// The store has answered.
    pub fn store_answered(&self, at: Instant) {
        *self
            .store_answered
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(at);
    }

    /// Whether the store has not answered for longer than [`STORE_LIMIT`]. Before its first answer the program starts,
    /// which takes what it takes.
    pub fn store_is_stuck(&self, now: Instant) -> bool {
        let answered = *self
            .store_answered
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        answered.is_some_and(|at| now.saturating_duration_since(at) > STORE_LIMIT)
    }
}
