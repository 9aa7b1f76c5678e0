//! Makes one batch out of what was read of some files: decides which records count, and keeps the books
//! of files and event ids.

use std::error::Error as _;
use std::ops::Range;
use std::sync::Arc;

use hashbrown::HashMap;

use super::find::Found;
use super::progress::{self, FileState, FilesProgress, Outcome, ScanState};
use super::read::{Answers, FileCounts, FileError};
use super::recent_ids::RecentIds;
use super::seen_ids::SeenIds;
use super::{AHEAD, FIRST_RETRY, LAST_RETRY, Settings, earliest};
use crate::batch::{Batch, Rejected};
use crate::call::CallKey;
use crate::source::records::EventId;
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
    runs: Vec<Vec<EventId>>,
    /// The number that the next id will have.
    next_id: u64,
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
            runs: Vec::new(),
            next_id: progress.ids.next(),
            batch: Batch::default(),
        }
    }

    /// The earliest delivery among the files that were counted.
    pub(super) fn first_delivery(&self) -> Option<Timestamp> {
        self.first_delivery
    }

    /// The earliest delivery among the files that changed while they were read: they wait for the next scan.
    pub(super) fn moved(&self) -> Option<Timestamp> {
        self.moved
    }

    /// Takes in what was read of the files. Records that `seen` knows do not count; `None` counts every
    /// record, but for those of a file as it was read before.
    pub(super) fn take(&mut self, files: Vec<Found>, answers: Answers, seen: Option<&mut SeenIds>) {
        let mut counted = Vec::new();
        for (file, answer) in files.into_iter().zip(answers.files) {
            match answer.and_then(|counts| self.check(&file, counts)) {
                Ok(counts) if self.is_as_before(&file, &counts) => self.touch(&file, &counts),
                Ok(counts) => counted.push((file, counts)),
                // The next scan finds it as it is then, or not at all.
                Err(FileError::Moved) => {
                    self.moved = earliest(self.moved, file.delivered());
                }
                Err(error) => self.reject(file, &error),
            }
        }
        match seen {
            Some(seen) => self.take_off_seen(&mut counted, seen),
            None => self.take_off_own(&mut counted),
        }
        // The numbers that the keys of each reader have in the batch.
        let mut number = |key: &Arc<CallKey>| self.batch.counts.number(key);
        let numbered = answers
            .keys
            .iter()
            .map(|keys| keys.iter().map(&mut number).collect());
        let numbers: Vec<Vec<u32>> = numbered.collect();
        for (file, counts) in counted {
            let numbers = numbers.get(counts.reader).map_or(&[][..], Vec::as_slice);
            self.add(&file, counts, numbers);
        }
    }

    fn check(&self, file: &Found, counts: FileCounts) -> Result<FileCounts, FileError> {
        if let Some(time) = file.named.filter(|time| *time > self.now.plus(AHEAD)) {
            return Err(FileError::Future(time));
        }
        let before = self.ids_before(file);
        let forgotten = !before.is_empty() && self.progress.ids.range(&before).is_none();
        if forgotten && !self.is_as_before(file, &counts) {
            return Err(FileError::ForgottenIds);
        }
        Ok(counts)
    }

    /// Whether the file's bytes are those that were counted; a copy or a `touch` changes the time stamp alone.
    fn is_as_before(&self, file: &Found, counts: &FileCounts) -> bool {
        let before = self.progress.files.get(&file.name);
        before.is_some_and(|before| before.is_of(counts.digest))
    }

    /// Keeps the new time stamp of a file that was counted as it is.
    fn touch(&mut self, file: &Found, counts: &FileCounts) {
        self.batch.scanned.bytes += counts.bytes;
        self.batch.scanned.records += counts.ids.len() as u64;
        self.batch.duplicates += counts.ids.len() as u64;
        if let Some(before) = self.progress.files.get(&file.name) {
            self.put(file, before.delivered, before.outcome.clone());
        }
    }

    /// The numbers of the ids that were counted of an earlier version of the file.
    fn ids_before(&self, file: &Found) -> Range<u64> {
        let before = self.progress.files.get(&file.name);
        before.map(FileState::ids).unwrap_or_default()
    }

    /// Takes off the records whose ids were counted before, in this batch or an earlier one.
    fn take_off_seen(&mut self, counted: &mut [(Found, FileCounts)], seen: &mut SeenIds) {
        let runs: Vec<&[EventId]> = counted
            .iter()
            .map(|(_, counts)| counts.ids.as_slice())
            .collect();
        let known = seen.take_in(&self.progress.ids, &runs);
        self.batch.duplicates += known.len() as u64;
        for (file, record) in known {
            if let Some((_, counts)) = counted.get_mut(file) {
                counts.take_off(record);
            }
        }
    }

    /// Takes off the records that were counted of the same file as it was before.
    fn take_off_own(&mut self, counted: &mut [(Found, FileCounts)]) {
        for (file, counts) in counted {
            let before = self.progress.ids.range(&self.ids_before(file));
            let mut own: HashMap<EventId, u32> = HashMap::new();
            for (_, id) in before.into_iter().flatten() {
                *own.entry(id).or_default() += 1;
            }
            if own.is_empty() {
                continue;
            }
            for record in 0..counts.ids.len() {
                let left = counts.ids.get(record).and_then(|id| own.get_mut(id));
                if let Some(left) = left.filter(|left| **left > 0) {
                    *left -= 1;
                    self.batch.duplicates += 1;
                    counts.take_off(record);
                }
            }
        }
    }

    /// Adds what is left to count of a file.
    fn add(&mut self, file: &Found, counts: FileCounts, numbers: &[u32]) {
        self.batch.scanned.bytes += counts.bytes;
        self.batch.scanned.records += counts.ids.len() as u64;
        let told = file.named.or(counts.newest).unwrap_or(self.now);
        let delivered = told.min(self.now);
        // Files without a time in their name show their age only when they are read.
        if delivered >= self.floor {
            self.first_delivery = earliest(self.first_delivery, delivered);
            let bucket = delivered.floor(self.settings.bucket);
            let numbered = counts.keys.iter().filter_map(|(key, tally)| {
                let number = numbers.get(*key as usize)?;
                Some((*number, *tally))
            });
            self.batch.counts.add_to(bucket, numbered);
            for (caller, calls) in counts.callers.iter() {
                self.batch.callers.add(bucket, caller, calls);
            }
        }
        let first = self.next_id;
        self.next_id += counts.ids.len() as u64;
        self.runs.push(counts.ids);
        // Not cut to the clock: the floor must keep out the same file as it keeps from the walk.
        let ids = first..self.next_id;
        let digest = counts.digest;
        self.put(file, told, Outcome::Counted { ids, digest });
    }

    fn reject(&mut self, file: Found, error: &FileError) {
        let before = self.progress.files.get(&file.name);
        let attempts = before
            .filter(|state| state.version == file.version)
            .map_or(0, FileState::attempts)
            .saturating_add(1);
        let wait = FIRST_RETRY
            .saturating_mul(1 << (attempts - 1).min(20))
            .min(LAST_RETRY);
        let ids = self.ids_before(&file);
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

    /// The batch that covers `covered` and leaves the folder at `scan`.
    pub(super) fn finish(
        mut self,
        scan: &ScanState,
        covered: Window,
        seen: Option<&mut SeenIds>,
    ) -> Batch {
        let number = self.runs.iter().map(Vec::len).sum();
        let leaving = self.progress.ids.leaving(number);
        if let Some(seen) = seen {
            seen.take_out(&self.progress.ids, &leaving);
        }
        for block in leaving {
            self.batch.evicted += block.end - block.start;
            self.batch.progress.push(progress::remove_ids(block.start));
        }
        let mut ids = self.runs.iter().flatten().copied();
        let firsts = (self.progress.ids.next()..self.next_id).step_by(RecentIds::BLOCK);
        for first in firsts {
            let block = ids.by_ref().take(RecentIds::BLOCK);
            self.batch.progress.push(progress::put_ids(first, block));
        }
        self.batch.progress.push(progress::put_scan(scan));
        self.batch.covered = Some(covered);
        self.batch.unreadable_files = Some(self.unreadable);
        self.batch
    }
}
