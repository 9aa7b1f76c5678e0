//! One batch, one transaction: counts, counters, runs, progress and the worker's times, all or nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use hashbrown::HashMap;
use rusqlite::{Connection, Transaction, params};

use super::admissions;
use super::buckets::{self, Calls};
use super::callers::CallerStep;
use super::db::Db;
use super::keys::{self, Keys};
use super::runs::{Run, RunKey, Sightings};
use super::{Committed, Recount, Settings, StoreError};
use crate::batch::{Batch, Counts, ProgressChange};
use crate::call::{CallKey, Tally};
use crate::time::Timestamp;
use crate::totals::{Change, KeyChange};
use crate::window::Window;

/// What a commit changes of each key, by the key's number.
type KeyChanges = BTreeMap<u32, KeyChange>;

impl Db {
    pub(super) fn commit(
        &mut self,
        id: i64,
        batch: &Batch,
        now: Timestamp,
    ) -> Result<Committed, StoreError> {
        let unknown = || StoreError::Damaged(format!("worker {id} is not registered"));
        let mut worker = self.workers.get(&id).ok_or_else(unknown)?.clone();
        let old_start = worker.window_start(&self.settings);
        worker.advance(batch);
        let new_start = worker.window_start(&self.settings);

        let transaction = self.connection.transaction()?;
        let (numbers, new_keys) = numbered(&transaction, &self.keys, batch.counts.keys())?;
        let step = Step {
            transaction: &transaction,
            id,
            settings: &self.settings,
        };
        let mut changes = KeyChanges::new();
        if let (Some(old), Some(new)) = (old_start, new_start) {
            step.leave_window(&self.keys, old, new, &mut changes)?;
        }
        let (difference, recount) = match batch.recounted {
            Some(window) => step.recount(batch, &numbers, window)?,
            None => (None, Recount::default()),
        };
        let counts = difference.as_ref().unwrap_or(&batch.counts);
        let runs = step.add_counts(counts, &numbers, new_start, now, &mut changes)?;
        self.admissions.roll_back();
        for change in changes.values_mut() {
            let minimum = self.settings.minimum_version;
            change.folds = self.admissions.admit(&worker.source, &change.key, minimum);
        }
        admissions::write(&transaction, &self.admissions)?;
        step.add_totals(&changes)?;
        let known = self.callers.entry(id).or_default();
        let caller_step = CallerStep {
            transaction: &transaction,
            worker: id,
            known,
        };
        let callers = caller_step.commit(&batch.callers, new_start)?;
        step.write_progress(&batch.progress)?;
        worker.write(&transaction, id)?;
        if let (Some(old), Some(new), Some(watermark)) = (old_start, new_start, worker.watermark) {
            buckets::age(&transaction, id, old, new, watermark, &self.settings)?;
        }
        // Nothing may fail after the commit: the worker would count the batch again.
        let state_bytes = bytes(&transaction)?;
        transaction.commit()?;

        self.admissions.keep();
        for (number, key) in new_keys {
            self.keys.insert(number, key);
        }
        known.apply(&callers);
        (self.changes)(Change {
            source: Arc::clone(&worker.source),
            worker: id,
            counted: true,
            watermark: worker.watermark,
            keys: changes.into_values().collect(),
            runs,
            callers: callers.into_values().collect(),
            window_moved: old_start != new_start,
        });
        let committed = Committed {
            watermark: worker.watermark,
            history_start: worker.history_start,
            newest_record: worker.newest_record,
            recount,
            state_bytes,
        };
        self.workers.insert(id, worker);
        Ok(committed)
    }
}

/// The size of the database.
fn bytes(connection: &Connection) -> rusqlite::Result<u64> {
    let number = |name| connection.pragma_query_value(None, name, |row| row.get::<_, u64>(0));
    Ok(number("page_count")? * number("page_size")?)
}

/// Keys that are not in the dictionary until the commit, by number.
type NewKeys = Vec<(u32, Arc<CallKey>)>;

/// The store's number of each of a batch's keys, and the keys that were new to it.
fn numbered(
    transaction: &Transaction<'_>,
    known: &Keys,
    keys: &[Arc<CallKey>],
) -> Result<(Vec<u32>, NewKeys), StoreError> {
    let mut new = Vec::new();
    let mut numbers = Vec::with_capacity(keys.len());
    for key in keys {
        let number = match known.number(key) {
            Some(number) => number,
            None => {
                let number = keys::write(transaction, key)?;
                new.push((number, Arc::clone(key)));
                number
            }
        };
        numbers.push(number);
    }
    Ok((numbers, new))
}

/// The statements of one commit.
struct Step<'t> {
    transaction: &'t Transaction<'t>,
    id: i64,
    settings: &'t Settings,
}

impl Step<'_> {
    /// Takes the calls of buckets that the window has left from the gauges.
    fn leave_window(
        &self,
        keys: &Keys,
        old_start: Timestamp,
        new_start: Timestamp,
        changes: &mut KeyChanges,
    ) -> Result<(), StoreError> {
        for (number, calls) in buckets::sum(self.transaction, self.id, old_start, new_start)? {
            let known = keys
                .key(number)
                .ok_or_else(|| StoreError::Damaged(format!("no key {number}")))?;
            changes
                .entry(number)
                .or_insert_with(|| KeyChange::new(number, known))
                .window -= signed(calls);
        }
        Ok(())
    }

    /// What of a batch is more than was counted before in the buckets of `window`, with the batch's numbers of keys.
    fn recount(
        &self,
        batch: &Batch,
        numbers: &[u32],
        window: Window,
    ) -> Result<(Option<Counts>, Recount), StoreError> {
        let mut before: HashMap<(Timestamp, u32), u64> = HashMap::new();
        buckets::each(
            self.transaction,
            self.id,
            window.from,
            window.to,
            |bucket, key, calls| *before.entry((bucket, key)).or_default() += calls,
        )?;
        let mut more = Counts::default();
        for key in batch.counts.keys() {
            more.number(key);
        }
        let mut recount = Recount::default();
        for (bucket, tallies) in batch.counts.buckets() {
            let late = tallies.filter_map(|(place, tally)| {
                let key = (bucket, *numbers.get(place as usize)?);
                let known = before.remove(&key).unwrap_or_default();
                recount.gone += known.saturating_sub(tally.calls);
                let calls = tally.calls.saturating_sub(known);
                recount.late += calls;
                Some((place, Tally { calls, ..tally }))
            });
            more.add_to(bucket, late);
        }
        recount.gone += before.values().sum::<u64>();
        Ok((Some(more), recount))
    }

    /// Adds calls to their buckets; tells the runs that they begin or go on with.
    fn add_counts(
        &self,
        counts: &Counts,
        numbers: &[u32],
        window_start: Option<Timestamp>,
        now: Timestamp,
        changes: &mut KeyChanges,
    ) -> Result<Vec<(RunKey, Run)>, StoreError> {
        let keys = counts.keys();
        let mut sightings = Sightings::default();
        let mut by_place: Vec<_> = keys
            .iter()
            .zip(numbers)
            .map(|(key, number)| KeyChange::new(*number, key))
            .collect();
        for (bucket, tallies) in counts.buckets() {
            let in_window = window_start.is_some_and(|start| bucket >= start);
            let mut calls: Calls = Vec::with_capacity(tallies.len());
            for (place, tally) in tallies {
                let Some(change) = by_place.get_mut(place as usize) else {
                    continue;
                };
                calls.push((change.number, tally.calls));
                change.add(bucket, tally);
                if in_window {
                    change.window += signed(tally.calls);
                }
                if change
                    .key
                    .tls_version
                    .outdated(self.settings.minimum_version)
                {
                    sightings.add(&change.key, bucket);
                }
            }
            buckets::add(self.transaction, self.id, bucket, calls)?;
        }
        for change in by_place {
            changes
                .entry(change.number)
                .and_modify(|known| known.merge(&change))
                .or_insert(change);
        }
        Ok(sightings.write(self.transaction, self.id, self.settings.quiet_period, now)?)
    }

    fn add_totals(&self, changes: &KeyChanges) -> Result<(), StoreError> {
        let mut insert = self.transaction.prepare_cached(
            "INSERT INTO totals VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT DO UPDATE SET calls = calls + excluded.calls,
                 last_call = max(last_call, excluded.last_call), last_bucket = max(last_bucket, excluded.last_bucket)",
        )?;
        for change in changes.values().filter(|change| change.calls > 0) {
            let (last_call, last_bucket) = (change.last_call.secs(), change.last_bucket.secs());
            insert.execute(params![
                self.id,
                change.number,
                change.calls,
                last_call,
                last_bucket
            ])?;
        }
        Ok(())
    }

    fn write_progress(&self, rows: &[ProgressChange]) -> Result<(), StoreError> {
        let mut put = self
            .transaction
            .prepare_cached("INSERT OR REPLACE INTO progress VALUES (?1, ?2, ?3)")?;
        let mut remove = self
            .transaction
            .prepare_cached("DELETE FROM progress WHERE worker = ?1 AND key = ?2")?;
        for row in rows {
            match &row.value {
                Some(value) => put.execute(params![self.id, row.key, value])?,
                None => remove.execute(params![self.id, row.key])?,
            };
        }
        Ok(())
    }
}

fn signed(calls: u64) -> i64 {
    i64::try_from(calls).unwrap_or(i64::MAX)
}
