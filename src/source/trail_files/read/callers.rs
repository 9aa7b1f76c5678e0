//! Who made the outdated calls of one file.

use std::sync::Arc;

use hashbrown::{HashMap, HashSet};

use crate::call::{AskedCallers, Caller, busiest};
use crate::record::{RawCaller, Record};
use crate::source::records::caller;

/// At most so many callers are kept of a file; a client may send a new user agent with each call.
const MOST: usize = 200;

/// The callers of one file, record by record: one that was counted before is taken off again.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in super::super) struct FileCallers {
    calls: Vec<(Arc<Caller>, u64)>,
    /// Which records have one of these callers, in their order, and whose they are.
    records: Vec<(usize, u32)>,
}

impl FileCallers {
    /// Takes a record off its caller's calls.
    pub(super) fn take_off(&mut self, record: usize) {
        let place = self.records.binary_search_by_key(&record, |(at, _)| *at);
        let caller = place.ok().and_then(|place| self.records.get(place));
        let caller = caller.map(|(_, caller)| *caller as usize);
        if let Some((_, calls)) = caller.and_then(|caller| self.calls.get_mut(caller)) {
            *calls -= 1;
        }
    }

    /// The callers and their calls.
    pub(in super::super) fn iter(&self) -> impl Iterator<Item = (&Arc<Caller>, u64)> {
        self.calls.iter().map(|(caller, calls)| (caller, *calls))
    }
}

/// The callers met in the file that is being read.
pub(super) struct MetCallers<'a> {
    asked: AskedCallers,
    /// By the number of the record's key, and by what the record says of them, which costs less than reading it.
    met: HashMap<(u32, RawCaller<'a>), u32>,
    callers: HashMap<Arc<Caller>, u32>,
    records: Vec<(usize, u32)>,
}

impl<'a> MetCallers<'a> {
    pub(super) fn new(asked: AskedCallers) -> Self {
        Self {
            asked,
            met: HashMap::new(),
            callers: HashMap::new(),
            records: Vec::new(),
        }
    }

    /// Takes in the record at `place` of the file, if its caller is asked for.
    pub(super) fn add(&mut self, place: usize, key: u32, record: &Record<'a>) {
        if !self.asked.of(record.tls_version) {
            return;
        }
        let Self { met, callers, .. } = self;
        let number = *met.entry((key, record.caller)).or_insert_with(|| {
            let next = u32::try_from(callers.len()).unwrap_or(u32::MAX);
            let caller = Arc::new(caller(record, self.asked.labels));
            *callers.entry(caller).or_insert(next)
        });
        self.records.push((place, number));
    }

    /// What is kept of the file's callers. `all` has those that the reader knows from other files.
    pub(super) fn finish(self, all: &mut HashSet<Arc<Caller>>) -> FileCallers {
        if self.records.is_empty() {
            return FileCallers::default();
        }
        let mut by_number: Vec<u64> = vec![0; self.callers.len()];
        for (_, number) in &self.records {
            if let Some(calls) = by_number.get_mut(*number as usize) {
                *calls += 1;
            }
        }
        let calls_of = |number: u32| by_number.get(number as usize).copied().unwrap_or_default();
        let callers = self.callers.iter();
        let callers = callers.map(|(caller, number)| (Arc::clone(caller), calls_of(*number)));
        let mut kept = busiest(callers.collect(), MOST);
        let mut places = HashMap::new();
        for (place, (caller, _)) in (0_u32..).zip(&mut kept) {
            if let Some(number) = self.callers.get(caller) {
                places.insert(*number, place);
            }
            // Files have the same callers again and again.
            *caller = Arc::clone(all.get_or_insert(Arc::clone(caller)));
        }
        let records = self.records.into_iter();
        let records = records.filter_map(|(record, number)| Some((record, *places.get(&number)?)));
        FileCallers {
            calls: kept,
            records: records.collect(),
        }
    }
}
