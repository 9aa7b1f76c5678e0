//! Counts the records of one file by their keys, and reads their ids.

use std::sync::Arc;

use hashbrown::{HashMap, HashSet};
use xxhash_rust::xxh3::xxh3_128;

use super::super::find::Found;
use super::callers::{FileCallers, MetCallers};
use crate::call::{AskedCallers, CallKey, Caller, Tally};
use crate::record::{self, Record, RecordError};
use crate::source::records::{EventId, call, event_id};
use crate::time::Timestamp;

/// What one file holds, record by record: a record that was counted before is taken off again.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in super::super) struct FileCounts {
    /// Which of the readers read it.
    pub(in super::super) reader: usize,
    /// The keys in the file by their number at the reader, and all its records of each.
    pub(in super::super) keys: Vec<(u32, Tally)>,
    /// The event id of each record …
    pub(in super::super) ids: Vec<EventId>,
    /// … and which of `keys` it counts for.
    pub(in super::super) key_of: Vec<u32>,
    /// Who made the outdated calls.
    pub(in super::super) callers: FileCallers,
    /// The newest `eventTime`.
    pub(in super::super) newest: Option<Timestamp>,
    /// Bytes read from the disk …
    pub(in super::super) bytes: u64,
    /// … and their hash, which tells whether a file with another time stamp is the same.
    pub(in super::super) digest: u64,
}

impl FileCounts {
    /// Takes a record off its key's calls, and off its caller's.
    pub(in super::super) fn take_off(&mut self, record: usize) {
        let key = self.key_of.get(record).map(|key| *key as usize);
        if let Some((_, tally)) = key.and_then(|key| self.keys.get_mut(key)) {
            tally.calls -= 1;
        }
        self.callers.take_off(record);
    }
}

/// The keys that one reader has met, by their text, and the callers.
#[derive(Default)]
pub(super) struct MetKeys {
    met: HashMap<Vec<u8>, Met>,
    callers: HashSet<Arc<Caller>>,
    /// The keys by their number.
    pub(super) keys: Vec<Arc<CallKey>>,
    /// The number of the file that is being read, from 1.
    file: u32,
    buffer: Vec<u8>,
}

/// A key, and where it was met last.
struct Met {
    number: u32,
    file: u32,
    place: u32,
}

/// The key of a record as one text, by which keys met before are found: a look at one place in memory
/// instead of one for each part. 0xff is in no UTF-8 text, so parts cannot run into each other.
fn write_key(key: &mut Vec<u8>, record: &Record<'_>) {
    key.clear();
    let parts = [
        &record.event_name,
        &record.event_source,
        record.tls_version.label(),
        &record.cipher_suite,
        record.key_exchange.code(),
        &record.account_id,
        &record.aws_region,
    ];
    for part in parts {
        key.extend_from_slice(part.as_bytes());
        key.push(0xff);
    }
}

/// Counts the records of one file; `keys` is what its reader has met before.
pub(super) fn count(
    text: &str,
    latest: Timestamp,
    asked: AskedCallers,
    file: &Found,
    keys: &mut MetKeys,
) -> Result<FileCounts, RecordError> {
    // Records take a kilobyte and more, so the lists grow little after this.
    let records = text.len() / 1024;
    let mut counts = FileCounts {
        bytes: file.version.size,
        ids: Vec::with_capacity(records),
        key_of: Vec::with_capacity(records),
        ..FileCounts::default()
    };
    keys.file += 1;
    let MetKeys {
        met,
        callers: all_callers,
        keys: all,
        file: current,
        buffer,
    } = keys;
    let mut callers = MetCallers::new(asked);
    record::read(text, latest, |record| {
        write_key(buffer, &record);
        let next = u32::try_from(counts.keys.len()).unwrap_or(u32::MAX);
        let known = met.entry_ref(buffer.as_slice()).or_insert_with(|| {
            all.push(Arc::new(call(&record)));
            Met {
                number: u32::try_from(all.len() - 1).unwrap_or(u32::MAX),
                file: 0,
                place: 0,
            }
        });
        if known.file != *current {
            (known.file, known.place) = (*current, next);
            counts.keys.push((known.number, Tally::default()));
        }
        if let Some((_, tally)) = counts.keys.get_mut(known.place as usize) {
            tally.calls += 1;
            tally.last = tally.last.max(record.event_time);
        }
        callers.add(counts.ids.len(), known.place, &record);
        counts.newest = counts.newest.max(Some(record.event_time));
        counts.ids.push(id_in(file, &record, counts.ids.len()));
        counts.key_of.push(known.place);
    })?;
    counts.callers = callers.finish(all_callers);
    Ok(counts)
}

/// A record's id. Without an `eventID` it is the record's place in its file, so that the file may be
/// read again.
fn id_in(file: &Found, record: &Record<'_>, place: usize) -> EventId {
    let place = || xxh3_128(format!("{}\n{place}", file.name).as_bytes());
    event_id(record).unwrap_or_else(place)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_differ_in_any_part_have_different_texts() {
        let record = |name: &str, source: &str| {
            format!(
                r#"{{"eventTime":"2026-06-01T10:00:00Z","eventSource":"{source}","eventName":"{name}"}}"#
            )
        };
        let text = [
            record("ab", "c"),
            record("a", "bc"),
            record("ab", "cd"),
            record("ab", "c"),
        ]
        .concat();
        let mut keys = Vec::new();
        let mut key = Vec::new();
        record::read(&text, Timestamp::from_secs(i64::MAX), |record| {
            write_key(&mut key, &record);
            keys.push((key.clone(), call(&record)));
        })
        .unwrap();
        for (text, call) in &keys {
            assert!(
                keys.iter()
                    .all(|(other, of)| (other == text) == (of == call))
            );
        }
        assert_eq!(keys[0], keys[3]);
    }
}
