//! Who made outdated calls in the window. No history: a caller goes when its last bucket leaves the window.
//!
//! The texts of a caller stand in the store once, under a small number; a bucket is one packed row, as with counts.
//! User agents are the clients' own text, so the number of callers is bounded: [`busiest`] says who stays.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use hashbrown::HashMap;
use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::StoreError;
use super::buckets::{self, MOST};
use crate::batch::Callers;
use crate::call::{Caller, CallerLabels, Name, busiest};
use crate::time::Timestamp;
use crate::tls::TlsVersion;
use crate::totals::CallerChange;

/// At most so many callers are known of a worker; the calls of others are nobody's.
pub const CALLERS: usize = 10_000;

/// The callers of one worker that have calls in the window, by number and by value.
#[derive(Default)]
pub(super) struct Known {
    callers: BTreeMap<u32, (Arc<Caller>, u64)>,
    numbers: HashMap<Arc<Caller>, u32>,
}

/// What a commit changes of each caller, by its number.
pub(super) type CallerChanges = BTreeMap<u32, CallerChange>;

impl Known {
    /// Loads the callers of a worker, without those of buckets before `start`, which go.
    pub(super) fn load(
        transaction: &Transaction<'_>,
        worker: i64,
        start: Option<Timestamp>,
    ) -> Result<Self, StoreError> {
        let start = start.map_or(i64::MIN, Timestamp::secs);
        transaction.execute(
            "DELETE FROM caller_counts WHERE worker = ?1 AND bucket < ?2",
            params![worker, start],
        )?;
        let mut calls = calls_by_number(transaction, worker)?;
        let mut known = Self::default();
        let mut gone = Vec::new();
        {
            let mut rows = transaction.prepare(
                "SELECT number, aws_service, event_name, tls_version, account_id, principal, user_agent, source_ip
                 FROM callers WHERE worker = ?1",
            )?;
            let mut rows = rows.query([worker])?;
            while let Some(row) = rows.next()? {
                let number: u32 = row.get(0)?;
                match calls.remove(&number) {
                    Some(calls) => known.insert(number, Arc::new(caller(row)?), calls)?,
                    None => gone.push(number),
                }
            }
        }
        if let Some(number) = calls.keys().next() {
            return Err(StoreError::Damaged(format!("no caller {number}")));
        }
        remove(transaction, worker, &gone)?;
        Ok(known)
    }

    /// All of it, as changes to empty totals.
    pub(super) fn all(&self) -> Vec<CallerChange> {
        let changes = self
            .callers
            .values()
            .map(|(caller, calls)| change(caller, signed(*calls)));
        changes.collect()
    }

    /// Takes in what was committed.
    pub(super) fn apply(&mut self, changes: &CallerChanges) {
        for (number, change) in changes {
            let calls = self.left(*number, changes);
            if calls > 0 {
                let caller = Arc::clone(&change.caller);
                self.numbers.insert(Arc::clone(&caller), *number);
                self.callers.insert(*number, (caller, calls));
            } else {
                self.numbers.remove(&change.caller);
                self.callers.remove(number);
            }
        }
    }

    fn insert(&mut self, number: u32, caller: Arc<Caller>, calls: u64) -> Result<(), StoreError> {
        if self.numbers.insert(Arc::clone(&caller), number).is_some() {
            return Err(StoreError::Damaged(format!(
                "caller {number} is there twice"
            )));
        }
        self.callers.insert(number, (caller, calls));
        Ok(())
    }

    /// The calls of a number after `changes`.
    fn left(&self, number: u32, changes: &CallerChanges) -> u64 {
        let calls = self.callers.get(&number).map_or(0, |(_, calls)| *calls);
        let change = changes.get(&number).map_or(0, |change| change.window);
        calls.saturating_add_signed(change)
    }
}

/// The statements of one commit.
pub(super) struct CallerStep<'t> {
    pub(super) transaction: &'t Transaction<'t>,
    pub(super) worker: i64,
    pub(super) known: &'t Known,
}

impl CallerStep<'_> {
    /// Takes off the callers of buckets that the window has left, and adds those of a batch that lie in it.
    pub(super) fn commit(
        &self,
        batch: &Callers,
        start: Option<Timestamp>,
    ) -> Result<CallerChanges, StoreError> {
        let mut changes = CallerChanges::new();
        let Some(start) = start else {
            return Ok(changes);
        };
        if self.known.callers.is_empty() && batch.is_empty() {
            return Ok(changes);
        }
        self.leave_window(start, &mut changes)?;
        let mut added: Vec<_> = batch
            .iter()
            .filter(|(bucket, ..)| *bucket >= start)
            .collect();
        if let Some(staying) = self.staying(&added, &changes) {
            self.push_out(&staying, &mut changes)?;
            added.retain(|(_, caller, _)| staying.contains_key(*caller));
        }
        self.add(&added, &mut changes)?;
        self.write_names(&changes)?;
        Ok(changes)
    }

    fn leave_window(
        &self,
        start: Timestamp,
        changes: &mut CallerChanges,
    ) -> Result<(), StoreError> {
        let old = "caller_counts WHERE worker = ?1 AND bucket < ?2";
        let mut select = self
            .transaction
            .prepare_cached(&format!("SELECT bucket, calls FROM {old}"))?;
        let mut rows = select.query(params![self.worker, start.secs()])?;
        let mut any = false;
        while let Some(row) = rows.next()? {
            any = true;
            let mut numbers = Vec::new();
            buckets::unpack(buckets::blob(row)?, |number, calls| {
                numbers.push((number, calls));
            })?;
            for (number, calls) in numbers {
                let (caller, _) = self.caller(number)?;
                changes
                    .entry(number)
                    .or_insert_with(|| change(caller, 0))
                    .window -= signed(calls);
            }
        }
        if any {
            let mut delete = self
                .transaction
                .prepare_cached(&format!("DELETE FROM {old}"))?;
            delete.execute(params![self.worker, start.secs()])?;
        }
        Ok(())
    }

    /// Who stays, if not all can.
    fn staying(
        &self,
        added: &[(Timestamp, &Arc<Caller>, u64)],
        changes: &CallerChanges,
    ) -> Option<HashMap<Arc<Caller>, u64>> {
        let mut all: HashMap<Arc<Caller>, u64> = HashMap::new();
        for (number, (caller, _)) in &self.known.callers {
            let left = self.known.left(*number, changes);
            if left > 0 {
                all.insert(Arc::clone(caller), left);
            }
        }
        for (_, caller, calls) in added {
            let sum = all.entry_ref(*caller).or_default();
            *sum = sum.saturating_add(*calls);
        }
        (all.len() > CALLERS).then(|| {
            busiest(all.into_iter().collect(), CALLERS)
                .into_iter()
                .collect()
        })
    }

    /// Takes callers that do not stay out of every bucket.
    fn push_out(
        &self,
        staying: &HashMap<Arc<Caller>, u64>,
        changes: &mut CallerChanges,
    ) -> Result<(), StoreError> {
        let mut out = BTreeSet::new();
        for (number, (caller, calls)) in &self.known.callers {
            if !staying.contains_key(caller) {
                out.insert(*number);
                changes.insert(*number, change(caller, -signed(*calls)));
            }
        }
        if out.is_empty() {
            return Ok(());
        }
        let mut select = self
            .transaction
            .prepare_cached("SELECT bucket, calls FROM caller_counts WHERE worker = ?1")?;
        let mut rows = select.query([self.worker])?;
        let mut changed = Vec::new();
        while let Some(row) = rows.next()? {
            let mut left = Vec::new();
            let mut before = 0;
            buckets::unpack(buckets::blob(row)?, |number, calls| {
                before += 1;
                if !out.contains(&number) {
                    left.push((number, calls));
                }
            })?;
            if left.len() < before {
                changed.push((row.get::<_, i64>(0)?, left));
            }
        }
        for (bucket, left) in changed {
            self.put(bucket, left)?;
        }
        Ok(())
    }

    /// Adds calls to their buckets.
    fn add(
        &self,
        added: &[(Timestamp, &Arc<Caller>, u64)],
        changes: &mut CallerChanges,
    ) -> Result<(), StoreError> {
        let mut new: HashMap<&Arc<Caller>, u32> = HashMap::new();
        // A number that becomes free now may be taken by the next commit.
        let mut free = (0..).filter(|number| !self.known.callers.contains_key(number));
        let mut by_bucket: BTreeMap<i64, buckets::Calls> = BTreeMap::new();
        for (bucket, caller, calls) in added {
            let calls = (*calls).min(MOST);
            let known = self.known.numbers.get(*caller);
            let known = known.or_else(|| new.get(caller)).copied();
            let Some(number) = known.or_else(|| free.next()) else {
                continue;
            };
            if known.is_none() {
                new.insert(caller, number);
            }
            by_bucket
                .entry(bucket.secs())
                .or_default()
                .push((number, calls));
            changes
                .entry(number)
                .or_insert_with(|| change(caller, 0))
                .window += signed(calls);
        }
        for (bucket, mut calls) in by_bucket {
            let mut select = self.transaction.prepare_cached(
                "SELECT calls FROM caller_counts WHERE worker = ?1 AND bucket = ?2",
            )?;
            let before: Option<Vec<u8>> = select
                .query_row(params![self.worker, bucket], |row| row.get(0))
                .optional()?;
            if let Some(before) = before {
                buckets::unpack(&before, |number, known| calls.push((number, known)))?;
            }
            self.put(bucket, calls)?;
        }
        Ok(())
    }

    fn put(&self, bucket: i64, calls: buckets::Calls) -> Result<(), StoreError> {
        let mut put = self
            .transaction
            .prepare_cached("INSERT OR REPLACE INTO caller_counts VALUES (?1, ?2, ?3)")?;
        put.execute(params![self.worker, bucket, buckets::pack(calls)])?;
        Ok(())
    }

    /// Writes the names of callers that are new, and removes those of callers without calls.
    fn write_names(&self, changes: &CallerChanges) -> Result<(), StoreError> {
        let mut gone = Vec::new();
        for (number, change) in changes {
            let was = self.known.callers.contains_key(number);
            let is = self.known.left(*number, changes) > 0;
            match (was, is) {
                (false, true) => write(self.transaction, self.worker, *number, &change.caller)?,
                (true, false) => gone.push(*number),
                _ => {}
            }
        }
        remove(self.transaction, self.worker, &gone)
    }

    fn caller(&self, number: u32) -> Result<&(Arc<Caller>, u64), StoreError> {
        let caller = self.known.callers.get(&number);
        caller.ok_or_else(|| StoreError::Damaged(format!("no caller {number}")))
    }
}

/// Forgets all callers if other labels were asked for before: what is not asked for any more is not kept, and callers
/// of other labels are not comparable.
pub(super) fn follow_labels(
    transaction: &Transaction<'_>,
    labels: CallerLabels,
) -> Result<(), StoreError> {
    let now = format!(
        "principal {}, user_agent {}, source_ip {}",
        labels.principal, labels.user_agent, labels.source_ip
    );
    if super::db::setting(transaction, "caller_labels")?.as_ref() == Some(&now) {
        return Ok(());
    }
    transaction.execute_batch("DELETE FROM callers; DELETE FROM caller_counts;")?;
    super::db::put_setting(transaction, "caller_labels", &now)
}

/// Forgets the callers of all workers but these.
pub(super) fn drop_others(
    transaction: &Transaction<'_>,
    workers: impl Iterator<Item = i64>,
) -> rusqlite::Result<()> {
    let workers: Vec<String> = workers.map(|id| id.to_string()).collect();
    let workers = workers.join(", ");
    for table in ["callers", "caller_counts"] {
        let others = format!("DELETE FROM {table} WHERE worker NOT IN ({workers})");
        transaction.execute(&others, [])?;
    }
    Ok(())
}

fn change(caller: &Arc<Caller>, window: i64) -> CallerChange {
    CallerChange {
        caller: Arc::clone(caller),
        window,
    }
}

/// The calls of all buckets of a worker.
fn calls_by_number(connection: &Connection, worker: i64) -> Result<BTreeMap<u32, u64>, StoreError> {
    let mut sums: BTreeMap<u32, u64> = BTreeMap::new();
    let mut select =
        connection.prepare("SELECT bucket, calls FROM caller_counts WHERE worker = ?1")?;
    let mut rows = select.query([worker])?;
    while let Some(row) = rows.next()? {
        buckets::unpack(buckets::blob(row)?, |number, calls| {
            let sum = sums.entry(number).or_default();
            *sum = sum.saturating_add(calls);
        })?;
    }
    Ok(sums)
}

/// The caller of a row `number, …`.
fn caller(row: &rusqlite::Row<'_>) -> Result<Caller, StoreError> {
    let text = |column| Ok::<_, rusqlite::Error>(Name::new(row.get_ref(column)?.as_str()?));
    let version: String = row.get(3)?;
    let damaged = || StoreError::Damaged(format!("a caller has the TLS version {version:?}"));
    Ok(Caller {
        aws_service: text(1)?,
        event_name: text(2)?,
        tls_version: TlsVersion::from_label(&version).ok_or_else(damaged)?,
        account_id: text(4)?,
        principal: text(5)?,
        user_agent: text(6)?,
        source_ip: text(7)?,
    })
}

fn write(
    transaction: &Transaction<'_>,
    worker: i64,
    number: u32,
    caller: &Caller,
) -> Result<(), StoreError> {
    let mut insert = transaction
        .prepare_cached("INSERT INTO callers VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)")?;
    insert.execute(params![
        worker,
        number,
        caller.aws_service.as_str(),
        caller.event_name.as_str(),
        caller.tls_version.label(),
        caller.account_id.as_str(),
        caller.principal.as_str(),
        caller.user_agent.as_str(),
        caller.source_ip.as_str(),
    ])?;
    Ok(())
}

fn remove(transaction: &Transaction<'_>, worker: i64, numbers: &[u32]) -> Result<(), StoreError> {
    let mut delete =
        transaction.prepare_cached("DELETE FROM callers WHERE worker = ?1 AND number = ?2")?;
    for number in numbers {
        delete.execute(params![worker, number])?;
    }
    Ok(())
}

fn signed(calls: u64) -> i64 {
    i64::try_from(calls).unwrap_or(i64::MAX)
}
