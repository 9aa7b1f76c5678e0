//! What the event history's worker remembers: how far it got, and the event ids of the buckets that it reads again.

use std::collections::{BTreeMap, HashSet};

use crate::batch::ProgressChange;
use crate::source::records::EventId;
use crate::source::{BadProgress, Progress};
use crate::time::Timestamp;

const WATERMARK: &str = "watermark";
/// One row for each bucket: `ids/` and its start; 16 bytes an id.
const IDS: &str = "ids/";

/// The progress of an event history's worker.
#[derive(Debug, Default)]
pub struct HistoryProgress {
    /// All before this is counted.
    pub(super) watermark: Option<Timestamp>,
    /// The ids that were counted, by bucket.
    pub(super) seen: BTreeMap<Timestamp, HashSet<EventId>>,
}

pub(super) fn put_watermark(watermark: Timestamp) -> ProgressChange {
    ProgressChange::put(WATERMARK, watermark.secs().to_string())
}

pub(super) fn put_ids(bucket: Timestamp, ids: &HashSet<EventId>) -> ProgressChange {
    let mut ids: Vec<EventId> = ids.iter().copied().collect();
    ids.sort_unstable();
    let bytes: Vec<u8> = ids.into_iter().flat_map(EventId::to_be_bytes).collect();
    ProgressChange::put(format!("{IDS}{}", bucket.secs()), bytes)
}

pub(super) fn remove_ids(bucket: Timestamp) -> ProgressChange {
    ProgressChange::remove(format!("{IDS}{}", bucket.secs()))
}

impl Progress for HistoryProgress {
    fn apply(&mut self, change: &ProgressChange) -> Result<(), BadProgress> {
        let bad = || BadProgress {
            key: change.key.clone(),
        };
        let time = |text: &str| text.parse().ok().map(Timestamp::from_secs);
        let value = change.value.as_deref();
        if change.key == WATERMARK {
            let text = value.map(std::str::from_utf8).transpose();
            let text = text.map_err(|_| bad())?;
            self.watermark = text.map(|text| time(text).ok_or_else(bad)).transpose()?;
            return Ok(());
        }
        let bucket = change
            .key
            .strip_prefix(IDS)
            .and_then(time)
            .ok_or_else(bad)?;
        let Some(bytes) = value else {
            self.seen.remove(&bucket);
            return Ok(());
        };
        let (ids, rest) = bytes.as_chunks();
        if !rest.is_empty() {
            return Err(bad());
        }
        let ids = ids.iter().copied().map(EventId::from_be_bytes);
        self.seen.insert(bucket, ids.collect());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn changes_are_read_back_as_they_were_put() {
        let (time, other) = (Timestamp::from_secs(600), Timestamp::from_secs(900));
        let ids = HashSet::from([1, u128::MAX]);
        let mut progress = HistoryProgress::default();
        for change in [
            put_watermark(time),
            put_ids(time, &ids),
            put_ids(other, &HashSet::new()),
            remove_ids(other),
        ] {
            progress.apply(&change).unwrap();
        }
        assert_eq!(progress.watermark, Some(time));
        assert_eq!(progress.seen, BTreeMap::from([(time, ids)]));
    }

    #[test]
    fn a_row_that_is_none_of_ours_is_an_error() {
        for (key, value) in [
            ("watermark", "x"),
            ("ids/600", "short"),
            ("ids/x", ""),
            ("other", ""),
        ] {
            let change = ProgressChange::put(key, value);
            let error = HistoryProgress::default().apply(&change).unwrap_err();
            assert_eq!(error.key, key);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn no_stored_row_makes_the_source_fail_but_with_an_error(
            rows in prop::collection::vec((
                prop_oneof![9 => "watermark|ids/-?[0-9]{1,20}", 1 => ".{0,9}"],
                prop_oneof![
                    "-?[0-9]{1,20}".prop_map(String::into_bytes),
                    prop::collection::vec(any::<u8>(), 0..50),
                    prop::collection::vec(any::<[u8; 16]>(), 0..4).prop_map(|ids| ids.concat()),
                ],
            ), 0..8),
        ) {
            let mut progress = HistoryProgress::default();
            for (key, value) in rows {
                let number = value.len() / size_of::<EventId>();
                match progress.apply(&ProgressChange::put(key.as_str(), value)) {
                    Ok(()) => prop_assert!(progress.seen.values().all(|ids| ids.len() <= number.max(3))),
                    Err(error) => prop_assert_eq!(error.key, key),
                }
            }
        }
    }
}
