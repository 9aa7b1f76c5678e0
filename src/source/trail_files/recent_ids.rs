//! The event ids of the records that were read last, so that a record delivered twice counts once.
//!
//! Ids lie in one ring, 16 bytes each, in runs: one run for each file read. Beside it a hash table
//! holds positions, 4 bytes each. Runs leave oldest first.

use std::collections::VecDeque;
use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};

/// An event id: a UUID's 16 bytes, or a hash where a record's id is none.
pub(super) type EventId = u128;

/// Ids by run, oldest first.
#[derive(Default)]
pub(super) struct RecentIds {
    ids: VecDeque<EventId>,
    /// The sequence number of the first id in the ring.
    base: u64,
    /// First sequence number and length of each run in the ring.
    runs: VecDeque<(u64, usize)>,
    /// The low 32 bits of the sequence number of an id's latest place in the ring.
    places: HashTable<u32>,
    hasher: DefaultHashBuilder,
}

impl RecentIds {
    /// How many ids are kept for one worker: the horizon within which a record counts once. About
    /// 45 MB of memory; the duplicates of two trails on one bucket are minutes apart.
    pub(super) const HORIZON: usize = 1_800_000;

    /// The sequence number that the next run starts with.
    pub(super) fn next(&self) -> u64 {
        self.base + self.ids.len() as u64
    }

    /// Whether `id` is in the ring.
    pub(super) fn contains(&self, id: EventId) -> bool {
        self.places
            .find(self.hasher.hash_one(id), |&place| self.at(place) == id)
            .is_some()
    }

    /// The ids of the run that starts at `first`; `None` once it has left the ring.
    pub(super) fn run(&self, first: u64) -> Option<impl Iterator<Item = EventId>> {
        let at = self
            .runs
            .binary_search_by_key(&first, |&(start, _)| start)
            .ok()?;
        let (_, length) = self.runs[at];
        let start = usize::try_from(first - self.base).ok()?;
        Some(self.ids.range(start..start + length).copied())
    }

    /// The first sequence numbers of the oldest runs that must leave for `more` ids to fit into the
    /// horizon, and how many ids they hold.
    pub(super) fn leaving(&self, more: usize) -> (Vec<u64>, usize) {
        let mut excess = (self.ids.len() + more).saturating_sub(Self::HORIZON);
        let mut leaving = (Vec::new(), 0);
        for &(first, length) in &self.runs {
            if excess == 0 {
                break;
            }
            excess = excess.saturating_sub(length);
            leaving.0.push(first);
            leaving.1 += length;
        }
        leaving
    }

    /// Adds a run at its sequence number; what lies before it in the ring must be older.
    pub(super) fn push(&mut self, first: u64, run: impl ExactSizeIterator<Item = EventId>) {
        if self.ids.is_empty() {
            self.base = first;
        }
        self.runs.push_back((self.next(), run.len()));
        if self.ids.len() + run.len() > self.places.capacity() {
            self.grow();
        }
        for id in run {
            let place = low_bits(self.next());
            self.ids.push_back(id);
            let Self {
                ids,
                base,
                places,
                hasher,
                ..
            } = self;
            let at = |place: u32| ids[position(place, *base)];
            let hash = hasher.hash_one(id);
            match places.find_mut(hash, |&other| at(other) == id) {
                Some(other) => *other = place,
                None => {
                    places.insert_unique(hash, place, |&other| hasher.hash_one(at(other)));
                }
            }
        }
    }

    /// Makes room for many more ids: to grow often would hash them all often.
    fn grow(&mut self) {
        let Self {
            ids,
            base,
            places,
            hasher,
            ..
        } = self;
        let more = (ids.len() * 3).clamp(1 << 14, Self::HORIZON);
        places.reserve(more, |&place| hasher.hash_one(ids[position(place, *base)]));
    }

    /// Removes the oldest run, if it starts at `first`.
    pub(super) fn remove(&mut self, first: u64) {
        let Some(&(start, length)) = self.runs.front() else {
            return;
        };
        if start != first {
            return;
        }
        self.runs.pop_front();
        for id in self.ids.drain(..length) {
            let place = low_bits(self.base);
            // A place that moved on belongs to the same id in a later run.
            if let Ok(entry) = self
                .places
                .find_entry(self.hasher.hash_one(id), |&other| other == place)
            {
                entry.remove();
            }
            self.base += 1;
        }
    }

    fn at(&self, place: u32) -> EventId {
        self.ids[position(place, self.base)]
    }
}

/// Places are told apart by 32 bits, far more than the ring holds.
#[expect(
    clippy::cast_possible_truncation,
    reason = "the low bits are what is wanted"
)]
fn low_bits(sequence: u64) -> u32 {
    sequence as u32
}

fn position(place: u32, base: u64) -> usize {
    place.wrapping_sub(low_bits(base)) as usize
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// The reference is a plain list of runs; numbers start near the 32-bit border on purpose.
        #[test]
        fn the_ring_holds_what_a_list_of_runs_holds(
            runs in prop::collection::vec((prop::collection::vec(0_u128..40, 1..8), any::<bool>()), 1..40),
        ) {
            let mut ring = RecentIds::default();
            let mut list: VecDeque<(u64, Vec<EventId>)> = VecDeque::new();
            let mut next = u64::from(u32::MAX) - 20;
            for (run, remove) in runs {
                ring.push(next, run.iter().copied());
                let length = run.len() as u64;
                list.push_back((next, run));
                next += length;
                if remove {
                    let (first, _) = list.pop_front().unwrap();
                    ring.remove(first);
                    prop_assert!(ring.run(first).is_none());
                }
                prop_assert_eq!(ring.next(), if list.is_empty() { ring.next() } else { next });
                let held: HashSet<EventId> = list.iter().flat_map(|(_, run)| run.iter().copied()).collect();
                for id in 0..40 {
                    prop_assert_eq!(ring.contains(id), held.contains(&id), "id {}", id);
                }
                for (first, run) in &list {
                    let found: Option<Vec<EventId>> = ring.run(*first).map(Iterator::collect);
                    prop_assert_eq!(found.as_ref(), Some(run));
                }
            }
        }
    }

    #[test]
    fn whole_runs_leave_when_the_horizon_is_reached() {
        let mut ring = RecentIds::default();
        let run = |from: u128| from..from + 1000;
        ring.push(0, run(0).collect::<Vec<_>>().into_iter());
        ring.push(1000, run(1000).collect::<Vec<_>>().into_iter());
        assert_eq!(ring.leaving(RecentIds::HORIZON - 2000), (vec![], 0));
        assert_eq!(ring.leaving(RecentIds::HORIZON - 1999), (vec![0], 1000));
        assert_eq!(ring.leaving(RecentIds::HORIZON), (vec![0, 1000], 2000));
    }
}
