//! The event ids of the records that were read last, so that a record delivered twice counts once.
//!
//! Ids lie in one ring, 16 bytes each, numbered on and on; those of one file are a range of numbers. They
//! come in blocks, each a row of the store, and blocks leave oldest first. `seen_ids` finds an id in it.

use std::collections::VecDeque;
use std::ops::Range;

use crate::source::records::EventId;

/// Ids by number, oldest first.
#[derive(Default)]
pub(super) struct RecentIds {
    ids: VecDeque<EventId>,
    /// The number of the first id in the ring.
    base: u64,
    /// First number and length of each block in the ring.
    blocks: VecDeque<(u64, usize)>,
}

impl RecentIds {
    /// How many ids are kept for one worker: the horizon within which a record counts once. About
    /// 45 MB of memory, index included; the duplicates of two trails on one bucket are minutes apart.
    pub(super) const HORIZON: usize = 1_800_000;

    /// At most so many ids are put into one block.
    pub(super) const BLOCK: usize = 1 << 16;

    /// The number of the next id.
    pub(super) fn next(&self) -> u64 {
        self.base + self.ids.len() as u64
    }

    /// How many ids are in the ring.
    pub(super) fn len(&self) -> usize {
        self.ids.len()
    }

    /// The id with this number, if it is in the ring.
    pub(super) fn at(&self, number: u64) -> Option<EventId> {
        let place = usize::try_from(number.checked_sub(self.base)?).ok()?;
        self.ids.get(place).copied()
    }

    /// The ids with their numbers, oldest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, EventId)> {
        (self.base..).zip(self.ids.iter().copied())
    }

    /// The ids of a range; `None` if not all of it is in the ring any more.
    pub(super) fn range(
        &self,
        range: &Range<u64>,
    ) -> Option<impl Iterator<Item = (u64, EventId)> + use<'_>> {
        let place = |number: u64| usize::try_from(number.checked_sub(self.base)?).ok();
        let (start, end) = (place(range.start)?, place(range.end)?);
        let ids = (start <= end && end <= self.ids.len()).then(|| self.ids.range(start..end))?;
        Some((range.start..).zip(ids.copied()))
    }

    /// The oldest blocks, which must leave for `more` ids to fit into the horizon, each by its numbers.
    pub(super) fn leaving(&self, more: usize) -> Vec<Range<u64>> {
        let mut excess = (self.ids.len() + more).saturating_sub(Self::HORIZON);
        let blocks = self.blocks.iter().map_while(|&(first, length)| {
            let leaves = excess > 0;
            excess = excess.saturating_sub(length);
            leaves.then_some(first..first + length as u64)
        });
        blocks.collect()
    }

    /// Whether a block of so many ids may be added at its number: blocks follow each other without a gap.
    pub(super) fn takes(&self, first: u64, length: usize) -> bool {
        let follows = self.ids.is_empty() || first == self.next();
        follows && first.checked_add(length as u64).is_some()
    }

    /// Adds a block at its number; what lies before it in the ring must be older.
    pub(super) fn push(&mut self, first: u64, ids: impl ExactSizeIterator<Item = EventId>) {
        if self.ids.is_empty() {
            self.base = first;
            // All at once: memory that is not touched costs nothing, and growing would copy the ids.
            self.ids.reserve(Self::HORIZON);
        }
        self.blocks.push_back((self.next(), ids.len()));
        self.ids.extend(ids);
    }

    /// Removes the oldest block, if it starts at `first`.
    pub(super) fn remove(&mut self, first: u64) {
        if let Some((_, length)) = self.blocks.pop_front_if(|(start, _)| *start == first) {
            self.ids.drain(..length);
            self.base += length as u64;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// The reference is a plain list of blocks.
        #[test]
        fn the_ring_holds_what_a_list_of_blocks_holds(
            blocks in prop::collection::vec((prop::collection::vec(0_u128..40, 1..8), any::<bool>()), 1..40),
        ) {
            let mut ring = RecentIds::default();
            let mut list: VecDeque<(u64, Vec<EventId>)> = VecDeque::new();
            let mut next = 7;
            for (block, remove) in blocks {
                ring.push(next, block.iter().copied());
                let length = block.len() as u64;
                list.push_back((next, block));
                next += length;
                if remove {
                    let (first, _) = list.pop_front().unwrap();
                    ring.remove(first);
                    prop_assert!(ring.range(&(first..next)).is_none());
                }
                let base = list.front().map_or(next, |(first, _)| *first);
                let expected: Vec<_> = (base..).zip(list.iter().flat_map(|(_, block)| block.clone())).collect();
                prop_assert_eq!(ring.next(), next);
                prop_assert!(expected.iter().all(|(number, id)| ring.at(*number) == Some(*id)));
                prop_assert_eq!(ring.iter().collect::<Vec<_>>(), expected.clone());
                for from in 0..expected.len() {
                    let range = base + from as u64..next;
                    prop_assert_eq!(ring.range(&range).map(Iterator::collect::<Vec<_>>), Some(expected[from..].to_vec()));
                }
                prop_assert!(ring.range(&(base..next + 1)).is_none());
            }
        }
    }

    #[test]
    fn whole_blocks_leave_when_the_horizon_is_reached() {
        let mut ring = RecentIds::default();
        let block = |from: u128| (from..from + 1000).collect::<Vec<_>>().into_iter();
        ring.push(0, block(0));
        ring.push(1000, block(1000));
        let (first, second) = (0..1000, 1000..2000);
        assert_eq!(ring.leaving(RecentIds::HORIZON - 2000), []);
        assert_eq!(
            ring.leaving(RecentIds::HORIZON - 1999),
            std::slice::from_ref(&first)
        );
        assert_eq!(ring.leaving(RecentIds::HORIZON), [first, second]);
    }
}
