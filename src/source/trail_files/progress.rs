//! What the source remembers of a folder: how far it got, each file it has read, and recent event ids.

use std::collections::HashMap;
use std::ops::Range;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::find::Version;
use super::recent_ids::RecentIds;
use crate::batch::ProgressChange;
use crate::source::records::EventId;
use crate::source::{BadProgress, Progress};
use crate::time::Timestamp;

const SCAN: &str = "scan";
const FILE: &str = "file/";
const IDS: &str = "ids/";

/// The progress of a `trail_files` worker.
#[derive(Default)]
pub struct FilesProgress {
    pub(super) scan: Option<ScanState>,
    pub(super) files: HashMap<String, FileState>,
    pub(super) ids: RecentIds,
}

impl FilesProgress {
    /// How many files were read or could not be, and when the newest of them was delivered.
    pub fn files(&self) -> (usize, Option<Timestamp>) {
        let delivered = self.files.values().map(|file| file.delivered);
        (self.files.len(), delivered.max())
    }
}

/// How far the folder has been counted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ScanState {
    /// Files delivered before this are never counted again. Only rises.
    pub(super) floor: Timestamp,
    /// All that was there at this time has been counted.
    pub(super) watermark: Timestamp,
    /// The number of the last batch: tells whether a batch that was handed out was committed.
    pub(super) batch: u64,
    /// The folder.
    pub(super) location: String,
}

/// What became of one version of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FileState {
    #[serde(flatten)]
    pub(super) version: Version,
    pub(super) delivered: Timestamp,
    /// Whether the delivery time is in the file's name, so that the floor tells without this row
    /// that the file is not to be counted again.
    pub(super) named: bool,
    pub(super) outcome: Outcome,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Outcome {
    /// Counted; the numbers of its event ids, and the hash of its bytes.
    Counted { ids: Range<u64>, digest: u64 },
    /// Not counted, to be tried again. `ids` are those of an earlier version that was counted.
    Rejected {
        attempts: u32,
        next: Timestamp,
        ids: Range<u64>,
    },
}

impl FileState {
    /// The numbers of the event ids that were counted from this file; empty if none were.
    pub(super) fn ids(&self) -> Range<u64> {
        match &self.outcome {
            Outcome::Counted { ids, .. } | Outcome::Rejected { ids, .. } => ids.clone(),
        }
    }

    /// Whether what was counted of the file had this hash.
    pub(super) fn is_of(&self, content: u64) -> bool {
        matches!(self.outcome, Outcome::Counted { digest, .. } if digest == content)
    }

    /// Whether the file is one that could not be counted.
    pub(super) fn rejected(&self) -> bool {
        matches!(self.outcome, Outcome::Rejected { .. })
    }

    /// How often this file was tried in vain.
    pub(super) fn attempts(&self) -> u32 {
        match self.outcome {
            Outcome::Counted { .. } => 0,
            Outcome::Rejected { attempts, .. } => attempts,
        }
    }
}

/// Sets how far the folder has been counted.
pub(super) fn put_scan(scan: &ScanState) -> ProgressChange {
    put_json(SCAN.to_owned(), scan)
}

/// Sets what became of a file.
pub(super) fn put_file(name: &str, state: &FileState) -> ProgressChange {
    put_json(format!("{FILE}{name}"), state)
}

/// Forgets a file.
pub(super) fn remove_file(name: &str) -> ProgressChange {
    ProgressChange::remove(format!("{FILE}{name}"))
}

/// Adds a block of event ids.
pub(super) fn put_ids(first: u64, ids: impl Iterator<Item = EventId>) -> ProgressChange {
    let mut bytes = Vec::with_capacity(ids.size_hint().0 * size_of::<EventId>());
    ids.for_each(|id| bytes.extend_from_slice(&id.to_be_bytes()));
    ProgressChange::put(ids_key(first), bytes)
}

/// Removes a block of event ids.
pub(super) fn remove_ids(first: u64) -> ProgressChange {
    ProgressChange::remove(ids_key(first))
}

/// Hexadecimal of fixed width, so that keys sort as numbers do.
fn ids_key(first: u64) -> String {
    format!("{IDS}{first:016x}")
}

fn put_json(key: String, value: &impl Serialize) -> ProgressChange {
    ProgressChange::put(
        key,
        serde_json::to_vec(value).expect("plain structs of numbers and texts serialise"),
    )
}

impl Progress for FilesProgress {
    fn apply(&mut self, change: &ProgressChange) -> Result<(), BadProgress> {
        let bad = || BadProgress {
            key: change.key.clone(),
        };
        let value = change.value.as_deref();
        if change.key == SCAN {
            self.scan = value.map(read_json).transpose().map_err(|_| bad())?;
        } else if let Some(name) = change.key.strip_prefix(FILE) {
            match value {
                Some(value) => self
                    .files
                    .insert(name.to_owned(), read_json(value).map_err(|_| bad())?),
                None => self.files.remove(name),
            };
        } else if let Some(first) = change.key.strip_prefix(IDS) {
            let first = u64::from_str_radix(first, 16).map_err(|_| bad())?;
            match value.map(<[u8]>::as_chunks::<16>) {
                Some((ids, [])) if self.ids.takes(first, ids.len()) => self
                    .ids
                    .push(first, ids.iter().copied().map(EventId::from_be_bytes)),
                Some(_) => return Err(bad()),
                None => self.ids.remove(first),
            }
        } else {
            return Err(bad());
        }
        Ok(())
    }
}

fn read_json<T: DeserializeOwned>(value: &[u8]) -> Result<T, serde_json::Error> {
    serde_json::from_slice(value)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn changes_are_read_back_as_they_were_put() {
        let scan = ScanState {
            floor: Timestamp::from_secs(60),
            watermark: Timestamp::from_secs(120),
            batch: 3,
            location: "/trail".to_owned(),
        };
        let file = FileState {
            version: Version {
                size: 7,
                modified: 8,
            },
            delivered: Timestamp::from_secs(90),
            named: true,
            outcome: Outcome::Rejected {
                attempts: 2,
                next: Timestamp::from_secs(600),
                ids: 4..6,
            },
        };
        let mut progress = FilesProgress::default();
        for change in [
            put_scan(&scan),
            put_file("a/b.json", &file),
            put_ids(4, [1, 2].into_iter()),
        ] {
            progress.apply(&change).unwrap();
        }
        assert_eq!(progress.scan, Some(scan));
        assert_eq!(progress.files.get("a/b.json"), Some(&file));
        assert_eq!(progress.ids.iter().collect::<Vec<_>>(), [(4, 1), (5, 2)]);

        progress.apply(&remove_file("a/b.json")).unwrap();
        progress.apply(&remove_ids(4)).unwrap();
        assert!(progress.files.is_empty() && progress.ids.len() == 0);
    }

    #[test]
    fn a_row_that_is_none_of_ours_is_an_error() {
        let mut progress = FilesProgress::default();
        for (key, value) in [
            ("other", "{}"),
            ("file/a", "{}"),
            ("scan", "x"),
            ("ids/0", "short"),
            ("ids/x", ""),
        ] {
            assert_eq!(
                progress
                    .apply(&ProgressChange::put(key, value))
                    .unwrap_err()
                    .key,
                key
            );
        }
    }

    /// A stored row: of ours or not, its value JSON like ours, or any bytes.
    fn row() -> impl Strategy<Value = ProgressChange> {
        let key = prop_oneof![
            4 => "ids/[0-9a-f]{16}",
            2 => Just(ids_key(u64::MAX - 1)),
            2 => Just(ids_key(0)),
            3 => "scan|file/.{0,9}",
            1 => ".{0,9}",
        ];
        let number = || {
            prop_oneof![
                any::<u64>().prop_map(|number| number.to_string()),
                "-?[0-9]{1,9}"
            ]
        };
        let scan = (number(), number(), number()).prop_map(|(floor, watermark, batch)| {
            format!(
                r#"{{"floor":{floor},"watermark":{watermark},"batch":{batch},"location":"/t"}}"#
            )
        });
        let file = (number(), number(), number(), number()).prop_map(|(a, b, c, d)| {
            format!(
                r#"{{"size":{a},"modified":{b},"delivered":{c},"named":true,"outcome":{{"counted":{{"ids":{{"start":{d},"end":{a}}},"digest":{b}}}}}}}"#
            )
        });
        let value = prop_oneof![
            2 => prop_oneof![scan, file, number()].prop_map(String::into_bytes),
            1 => prop::collection::vec(any::<u8>(), 0..50),
            2 => prop::collection::vec(any::<[u8; 16]>(), 0..4).prop_map(|ids| ids.concat()),
        ];
        (key, value).prop_map(|(key, value)| ProgressChange::put(key, value))
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn no_stored_row_makes_the_source_fail_but_with_an_error(rows in prop::collection::vec(row(), 0..8)) {
            let mut progress = FilesProgress::default();
            for row in &rows {
                if let Err(error) = progress.apply(row) {
                    prop_assert_eq!(&error.key, &row.key);
                }
            }
            let bytes: usize = rows.iter().filter_map(|row| row.value.as_ref()).map(Vec::len).sum();
            prop_assert!(progress.ids.len() <= bytes / size_of::<EventId>());
            prop_assert_eq!(progress.ids.iter().count(), progress.ids.len());
            for file in progress.files.values() {
                if let Some(ids) = progress.ids.range(&file.ids()) {
                    prop_assert!(ids.count() <= progress.ids.len());
                }
            }
        }
    }
}
