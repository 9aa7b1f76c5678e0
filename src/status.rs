//! How each worker is doing, for the landing page.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

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

/// All workers' states; clones share them.
#[derive(Clone, Debug, Default)]
pub struct Status(Arc<Mutex<BTreeMap<[String; 3], WorkerStatus>>>);

impl Status {
    /// Changes the state of `worker`.
    pub fn update(&self, worker: &WorkerName, change: impl FnOnce(&mut WorkerStatus)) {
        let key = [
            worker.source.clone(),
            worker.account.clone(),
            worker.region.clone(),
        ];
        change(
            self.0
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .entry(key)
                .or_default(),
        );
    }

    /// Forgets a worker that is gone.
    pub fn remove(&self, worker: &WorkerName) {
        let key = [&worker.source, &worker.account, &worker.region].map(String::clone);
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&key);
    }

    /// The workers by source, account and region, and their states.
    pub fn all(&self) -> Vec<([String; 3], WorkerStatus)> {
        let workers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        workers
            .iter()
            .map(|(key, status)| (key.clone(), status.clone()))
            .collect()
    }
}
