//! What a query source remembers: how far it got, what is left of a window that was split, and the query that
//! runs.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::leaf::Leaf;
use crate::batch::ProgressChange;
use crate::source::{BadProgress, Progress};
use crate::time::Timestamp;

const WATERMARK: &str = "watermark";
const RECOUNTED: &str = "recounted";
const LEAVES: &str = "leaves";
const QUERY: &str = "query";

/// The progress of a query source's worker.
#[derive(Debug, Default)]
pub struct QueryProgress {
    /// All before this is counted.
    pub(super) watermark: Option<Timestamp>,
    /// All before this is counted again, or is not to be.
    pub(super) recounted: Option<Timestamp>,
    /// What is still to be asked of the window that is being worked on, the next last.
    pub(super) leaves: Vec<Leaf>,
    /// The query that runs, or whose answer has not been counted yet.
    pub(super) query: Option<InFlight>,
}

/// A query at AWS.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct InFlight {
    pub(super) id: String,
    pub(super) leaf: Leaf,
    pub(super) started: Timestamp,
}

pub(super) fn put_watermark(watermark: Timestamp) -> ProgressChange {
    put(WATERMARK, &watermark)
}

pub(super) fn put_recounted(recounted: Timestamp) -> ProgressChange {
    put(RECOUNTED, &recounted)
}

pub(super) fn put_leaves(leaves: &[Leaf]) -> ProgressChange {
    put(LEAVES, leaves)
}

pub(super) fn put_query(query: &InFlight) -> ProgressChange {
    put(QUERY, query)
}

pub(super) fn remove_query() -> ProgressChange {
    ProgressChange::remove(QUERY)
}

fn put<T: Serialize + ?Sized>(key: &str, value: &T) -> ProgressChange {
    let value = serde_json::to_vec(value).expect("plain structs of numbers and texts serialise");
    ProgressChange::put(key, value)
}

impl Progress for QueryProgress {
    fn apply(&mut self, change: &ProgressChange) -> Result<(), BadProgress> {
        let bad = || BadProgress {
            key: change.key.clone(),
        };
        let value = change.value.as_deref();
        match change.key.as_str() {
            WATERMARK => self.watermark = read(value).map_err(|_| bad())?,
            RECOUNTED => self.recounted = read(value).map_err(|_| bad())?,
            LEAVES => self.leaves = read(value).map_err(|_| bad())?.unwrap_or_default(),
            QUERY => self.query = read(value).map_err(|_| bad())?,
            _ => return Err(bad()),
        }
        Ok(())
    }
}

fn read<T: DeserializeOwned>(value: Option<&[u8]>) -> Result<Option<T>, serde_json::Error> {
    value.map(serde_json::from_slice).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::query::leaf::{Ask, Part};
    use crate::window::Window;

    #[test]
    fn changes_are_read_back_as_they_were_put() {
        let time = Timestamp::from_secs;
        let window = Window {
            from: time(60),
            to: time(120),
        };
        let mut leaf = Leaf::calls(window);
        leaf.ask = Ask::Values(Part::Service);
        leaf.only = vec![(Part::Region, None), (Part::Account, Some("1".to_owned()))];
        let query = InFlight {
            id: "q".to_owned(),
            leaf: leaf.clone(),
            started: time(500),
        };
        let mut progress = QueryProgress::default();
        let leaves = [leaf];
        for change in [
            put_watermark(time(60)),
            put_leaves(&leaves),
            put_query(&query),
        ] {
            progress.apply(&change).unwrap();
        }
        assert_eq!(progress.watermark, Some(time(60)));
        assert_eq!(progress.leaves, leaves);
        assert_eq!(progress.query, Some(query));
        progress.apply(&remove_query()).unwrap();
        assert_eq!(progress.query, None);
    }

    #[test]
    fn a_row_that_is_none_of_ours_is_an_error() {
        for (key, value) in [
            ("scan", "{}"),
            ("query", "{}"),
            ("leaves", "7"),
            ("watermark", "x"),
        ] {
            let change = ProgressChange::put(key, value);
            assert_eq!(
                QueryProgress::default().apply(&change).unwrap_err().key,
                key
            );
        }
    }
}
