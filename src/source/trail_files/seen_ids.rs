//! Finds an event id among the recent ones, and among those of the batch in the making.
//!
//! Hash tables of places, 4 bytes an id; the ids themselves lie in the ring, or in the batch. The tables
//! are many and small: a table fits into a processor's cache, and each processor works on its own.

use std::hash::BuildHasher;
use std::num::NonZero;
use std::ops::Range;
use std::thread;

use hashbrown::hash_table::Entry;
use hashbrown::{DefaultHashBuilder, HashTable};

use super::recent_ids::RecentIds;
use crate::source::records::EventId;

const TABLES: usize = 64;
/// Fewer ids than this are not worth a thread.
const WORTH_A_THREAD: usize = 20_000;

/// An index over the ring of recent ids.
#[derive(Debug)]
pub(super) struct SeenIds {
    /// The low 32 bits of the number of an id's latest place: far more than the ring holds.
    tables: Vec<HashTable<u32>>,
    hasher: DefaultHashBuilder,
}

/// Ids by number: those in the ring, and behind them those of a batch.
struct Numbered<'i> {
    ring: &'i RecentIds,
    batch: &'i [&'i [EventId]],
    /// The number of the first id of each run in the batch.
    starts: Vec<u64>,
}

impl<'i> Numbered<'i> {
    fn new(ring: &'i RecentIds, batch: &'i [&'i [EventId]]) -> Self {
        let mut next = ring.next();
        let starts = batch.iter().map(|run| {
            let start = next;
            next += run.len() as u64;
            start
        });
        Self {
            ring,
            batch,
            starts: starts.collect(),
        }
    }

    /// The run of the batch, and the place in it, that has this number.
    fn place(&self, number: u64) -> Option<(usize, usize)> {
        let run = self
            .starts
            .partition_point(|start| *start <= number)
            .checked_sub(1)?;
        let place = usize::try_from(number - self.starts.get(run)?).ok()?;
        Some((run, place))
    }

    /// The id at a place of the tables.
    fn at(&self, place: u32) -> Option<EventId> {
        // Numbers go on from `base`, as far as their low bits are ahead of its own.
        let base = self.ring.next() - self.ring.len() as u64;
        let number = base + u64::from(place.wrapping_sub(low_bits(base)));
        self.ring.at(number).or_else(|| {
            let (run, place) = self.place(number)?;
            self.batch.get(run)?.get(place).copied()
        })
    }

    fn batch(&self) -> impl Iterator<Item = (u64, EventId)> {
        let runs = self.starts.iter().zip(self.batch);
        runs.flat_map(|(start, run)| (*start..).zip(run.iter().copied()))
    }
}

impl SeenIds {
    /// The index over `ring`.
    pub(super) fn over(ring: &RecentIds) -> Self {
        let mut seen = Self {
            tables: vec![HashTable::new(); TABLES],
            hasher: DefaultHashBuilder::default(),
        };
        let ids = Numbered::new(ring, &[]);
        seen.in_parallel(ring.len(), |mut tables| {
            for (number, id) in ring.iter() {
                tables.put(&ids, number, id);
            }
        });
        seen
    }

    /// Takes in the runs of a batch, which the ring will hold once the batch is committed. Tells the ids that
    /// had been there before, by run and place in it, in order.
    pub(super) fn take_in(
        &mut self,
        ring: &RecentIds,
        batch: &[&[EventId]],
    ) -> Vec<(usize, usize)> {
        let ids = Numbered::new(ring, batch);
        let known = self.in_parallel(batch.iter().map(|run| run.len()).sum(), |mut tables| {
            let mut known = Vec::new();
            for (number, id) in ids.batch() {
                if tables.put(&ids, number, id) {
                    known.push(number);
                }
            }
            known
        });
        let mut known = known.concat();
        known.sort_unstable();
        known
            .into_iter()
            .filter_map(|number| ids.place(number))
            .collect()
    }

    /// Takes out the blocks that leave the ring once the batch taken in last is committed.
    pub(super) fn take_out(&mut self, ring: &RecentIds, blocks: &[Range<u64>]) {
        for (number, id) in blocks
            .iter()
            .filter_map(|block| ring.range(block))
            .flatten()
        {
            let hash = self.hasher.hash_one(id);
            let Some(table) = self.tables.get_mut(table_of(id)) else {
                continue;
            };
            // A place that moved on belongs to the same id further behind.
            if let Ok(entry) = table.find_entry(hash, |place| *place == low_bits(number)) {
                entry.remove();
            }
        }
    }

    /// Hands each processor some of the tables, if there are enough ids to put into them.
    fn in_parallel<T: Send>(
        &mut self,
        ids: usize,
        work: impl Fn(Tables<'_>) -> T + Sync,
    ) -> Vec<T> {
        let processors = thread::available_parallelism().map_or(1, NonZero::get);
        let threads = processors.min(1 + ids / WORTH_A_THREAD);
        let each = TABLES.div_ceil(threads);
        let hasher = &self.hasher;
        let mut parts = self
            .tables
            .chunks_mut(each)
            .enumerate()
            .map(|(part, tables)| Tables {
                first: part * each,
                tables,
                hasher,
            });
        if threads == 1 {
            return parts.next().map(work).into_iter().collect();
        }
        let work = &work;
        thread::scope(|scope| {
            let threads: Vec<_> = parts.map(|part| scope.spawn(move || work(part))).collect();
            let joined = threads.into_iter().map(|thread| {
                thread
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            });
            joined.collect()
        })
    }
}

/// Some of the tables.
struct Tables<'s> {
    first: usize,
    tables: &'s mut [HashTable<u32>],
    hasher: &'s DefaultHashBuilder,
}

impl Tables<'_> {
    /// Puts an id at its place, if it belongs into one of these tables; tells whether it was there.
    fn put(&mut self, ids: &Numbered<'_>, number: u64, id: EventId) -> bool {
        let table = table_of(id).wrapping_sub(self.first);
        let Some(table) = self.tables.get_mut(table) else {
            return false;
        };
        let hash = |id| self.hasher.hash_one(id);
        let same = |place: &u32| ids.at(*place) == Some(id);
        let hash_at = |place: &u32| ids.at(*place).map_or(0, hash);
        match table.entry(hash(id), same, hash_at) {
            Entry::Occupied(mut place) => {
                *place.get_mut() = low_bits(number);
                true
            }
            Entry::Vacant(place) => {
                place.insert(low_bits(number));
                false
            }
        }
    }
}

/// The table of an id, by bits that are random in AWS's ids.
fn table_of(id: EventId) -> usize {
    usize::try_from(id % TABLES as u128).unwrap_or_default()
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "the low bits are what is wanted"
)]
fn low_bits(number: u64) -> u32 {
    number as u32
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    /// Batches of runs, and how many of the oldest batches leave with each.
    fn batches() -> impl Strategy<Value = Vec<(Vec<Vec<EventId>>, usize)>> {
        let run = prop::collection::vec(0_u128..300, 1..9);
        prop::collection::vec((prop::collection::vec(run, 0..5), 0_usize..4), 1..30)
    }

    proptest! {
        /// The reference is a plain list of blocks; numbers start near the 32-bit border on purpose.
        #[test]
        fn ids_are_found_as_in_a_list_of_blocks(batches in batches(), restart in any::<prop::sample::Index>()) {
            let mut ring = RecentIds::default();
            ring.push(u64::from(u32::MAX) - 20, [1000].into_iter());
            let mut list = VecDeque::from([vec![1000]]);
            let mut seen = SeenIds::over(&ring);
            let restart = restart.index(batches.len());
            for (number, (batch, leave)) in batches.into_iter().enumerate() {
                if number == restart {
                    seen = SeenIds::over(&ring);
                }
                let runs: Vec<&[EventId]> = batch.iter().map(Vec::as_slice).collect();
                let mut expected = Vec::new();
                let mut met: Vec<EventId> = list.iter().flatten().copied().collect();
                for (run, ids) in batch.iter().enumerate() {
                    for (place, id) in ids.iter().enumerate() {
                        if met.contains(id) {
                            expected.push((run, place));
                        }
                        met.push(*id);
                    }
                }
                prop_assert_eq!(seen.take_in(&ring, &runs), expected);
                let leaving: Vec<Range<u64>> = list.iter().take(leave).scan(ring.next() - ring.len() as u64, |at, block: &Vec<_>| {
                    let first = *at;
                    *at += block.len() as u64;
                    Some(first..*at)
                }).collect();
                seen.take_out(&ring, &leaving);
                // What the progress does once the batch is committed.
                for block in &leaving {
                    ring.remove(block.start);
                    list.pop_front();
                }
                let block = batch.concat();
                if !block.is_empty() {
                    ring.push(ring.next(), block.iter().copied());
                    list.push_back(block);
                }
            }
        }
    }

    #[test]
    fn many_ids_are_shared_among_processors_and_told_in_order() {
        let ids: Vec<EventId> = (0..50_000_u128)
            .map(|n| n.wrapping_mul(0x9E37_79B9_7F4A_7C15))
            .collect();
        let ring = RecentIds::default();
        let mut seen = SeenIds::over(&ring);
        let known = seen.take_in(&ring, &[&ids, &ids[100..40_000]]);
        assert_eq!(
            known,
            (0..39_900).map(|place| (1, place)).collect::<Vec<_>>()
        );
    }
}
