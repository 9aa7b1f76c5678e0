//! Makes one batch out of what was read of some files: decides which records count, and keeps the books
//! of files and event ids.

use std::error::Error as _;
use std::sync::Arc;

use hashbrown::{HashMap, HashSet};

use super::find::Found;
use super::progress::{self, FileState, FilesProgress, Outcome, ScanState};
use super::read::{FileCounts, FileError};
use super::recent_ids::EventId;
use super::{AHEAD, FIRST_RETRY, LAST_RETRY, Settings, earliest};
use crate::batch::{Batch, Rejected};
use crate::call::CallKey;
use crate::time::Timestamp;
use crate::window::Window;

/// A batch in the making.
pub(super) struct Part<'p> {
    settings: &'p Settings,
    progress: &'p FilesProgress,
    floor: Timestamp,
    now: Timestamp,
    unreadable: u64,
    first_delivery: Option<Timestamp>,
    moved: Option<Timestamp>,
    /// Numbers of keys in the batch, by address: the readers hand out the same keys for many files, and
    /// all files of a batch are read before the first is taken.
    numbers: HashMap<*const CallKey, u32>,
    /// Ids in this batch, which are not in the progress yet.
    seen: HashSet<EventId>,
    runs: Vec<Vec<EventId>>,
    batch: Batch,
}

impl<'p> Part<'p> {
    pub(super) fn new(
        settings: &'p Settings,
        progress: &'p FilesProgress,
        floor: Timestamp,
        now: Timestamp,
    ) -> Self {
        let unreadable = progress
            .files
            .values()
            .filter(|state| state.rejected())
            .count() as u64;
        Self {
            settings,
            progress,
            floor,
            now,
            unreadable,
            first_delivery: None,
            moved: None,
            numbers: HashMap::new(),
            seen: HashSet::new(),
            runs: Vec::new(),
            batch: Batch::default(),
        }
    }

    /// Makes room for the ids of so many records.
    pub(super) fn expect_records(&mut self, number: usize) {
        self.seen.reserve(number);
    }

    /// The earliest delivery among the files that were counted.
    pub(super) fn first_delivery(&self) -> Option<Timestamp> {
        self.first_delivery
    }

    /// The earliest delivery among the files that changed while they were read: they wait for the next scan.
    pub(super) fn moved(&self) -> Option<Timestamp> {
        self.moved
    }

    /// Takes in what was read of a file.
    pub(super) fn take(&mut self, file: Found, answer: Result<FileCounts, FileError>) {
        let future = file
            .named
            .filter(|time| *time > self.now.plus(AHEAD))
            .map(FileError::Future);
        match future
            .map_or(answer, Err)
            .and_then(|counts| self.add(&file, counts))
        {
            Ok(()) => {}
            // The next scan finds it as it is then, or not at all.
            Err(FileError::Moved) => {
                self.moved = earliest(self.moved, file.delivered());
            }
            Err(error) => self.reject(file, &error),
        }
    }

    /// Counts the records of a file that were not counted before.
    fn add(&mut self, file: &Found, mut counts: FileCounts) -> Result<(), FileError> {
        self.mark_new(file, &mut counts)?;
        self.batch.scanned_bytes += counts.bytes;
        self.batch.scanned_records += counts.ids.len() as u64;
        let told = file.named.or(counts.newest).unwrap_or(self.now);
        let delivered = told.min(self.now);
        // Files without a time in their name show their age only when they are read.
        if delivered >= self.floor {
            self.first_delivery = earliest(self.first_delivery, delivered);
            let bucket = delivered.floor(self.settings.bucket);
            for (key, tally) in counts.keys {
                let number = self
                    .numbers
                    .entry(Arc::as_ptr(&key))
                    .or_insert_with(|| self.batch.counts.number(&key));
                self.batch.counts.add_to(bucket, *number, tally);
            }
        }
        let ids = (!counts.ids.is_empty()).then(|| self.next_run());
        if ids.is_some() {
            self.runs.push(counts.ids);
        }
        // Not cut to the clock: the floor must keep out the same file as it keeps from the walk.
        self.put(file, told, Outcome::Counted { ids });
        Ok(())
    }

    /// Sets the `calls` of each key to the number of its records that have not been counted.
    fn mark_new(&mut self, file: &Found, counts: &mut FileCounts) -> Result<(), FileError> {
        let before = match self.progress.files.get(&file.name).and_then(FileState::ids) {
            Some(run) => Some(self.progress.ids.run(run).ok_or(FileError::ForgottenIds)?),
            None => None,
        };
        let mut own: HashMap<EventId, u32> = HashMap::new();
        for id in before.into_iter().flatten() {
            *own.entry(id).or_default() += 1;
        }
        for (&id, &key) in counts.ids.iter().zip(&counts.key_of) {
            let counted = if self.settings.deduplicate {
                self.progress.ids.contains(id) | !self.seen.insert(id)
            } else {
                // Every record counts, but for those of this file as it was read before.
                own.get_mut(&id)
                    .filter(|left| **left > 0)
                    .map(|left| *left -= 1)
                    .is_some()
            };
            match counts.keys.get_mut(key as usize) {
                Some((_, tally)) if !counted => tally.calls += 1,
                _ => self.batch.duplicates += 1,
            }
        }
        Ok(())
    }

    fn reject(&mut self, file: Found, error: &FileError) {
        let before = self.progress.files.get(&file.name);
        let attempts = before
            .filter(|state| state.version == file.version)
            .map_or(0, FileState::attempts)
            + 1;
        let wait = FIRST_RETRY
            .saturating_mul(1 << (attempts - 1).min(20))
            .min(LAST_RETRY);
        let ids = before.and_then(FileState::ids);
        let outcome = Outcome::Rejected {
            attempts,
            next: self.now.plus(wait),
            ids,
        };
        self.put(&file, file.delivered(), outcome);
        let cause = error
            .source()
            .map_or(String::new(), |cause| format!(": {cause}"));
        let error_text = format!("{error}{cause}");
        self.batch.rejected.push(Rejected {
            name: file.name,
            reason: error.reason(),
            error: error_text,
        });
    }

    fn put(&mut self, file: &Found, delivered: Timestamp, outcome: Outcome) {
        let state = FileState {
            version: file.version,
            delivered,
            named: file.named.is_some(),
            outcome,
        };
        let before = self
            .progress
            .files
            .get(&file.name)
            .is_some_and(FileState::rejected);
        self.unreadable = self.unreadable + u64::from(state.rejected()) - u64::from(before);
        self.batch
            .progress
            .push(progress::put_file(&file.name, &state));
    }

    /// Takes a file's row out of the progress.
    pub(super) fn forget(&mut self, name: &str) {
        let before = self
            .progress
            .files
            .get(name)
            .is_some_and(FileState::rejected);
        self.unreadable -= u64::from(before);
        self.batch.progress.push(progress::remove_file(name));
    }

    fn next_run(&self) -> u64 {
        self.progress.ids.next() + self.runs.iter().map(|run| run.len() as u64).sum::<u64>()
    }

    /// The batch that covers `covered` and leaves the folder at `scan`.
    pub(super) fn finish(mut self, scan: &ScanState, covered: Window) -> Batch {
        let new = self.runs.iter().map(Vec::len).sum();
        let (leaving, evicted) = self.progress.ids.leaving(new);
        self.batch.evicted = evicted as u64;
        self.batch
            .progress
            .extend(leaving.into_iter().map(progress::remove_ids));
        let mut first = self.progress.ids.next();
        for run in &self.runs {
            self.batch.progress.push(progress::put_ids(first, run));
            first += run.len() as u64;
        }
        self.batch.progress.push(progress::put_scan(scan));
        self.batch.covered = Some(covered);
        self.batch.unreadable_files = Some(self.unreadable);
        self.batch
    }
}
