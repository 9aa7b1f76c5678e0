//! What a query source remembers: how far it got, what is left of a window that was split, the query that runs,
//! and how many records the buckets had that are to be counted again.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::leaf::Leaf;
use crate::batch::ProgressChange;
use crate::source::{BadProgress, Progress};
use crate::time::Timestamp;

const WATERMARK: &str = "watermark";
const RECOUNTED: &str = "recounted";
const LEAVES: &str = "leaves";
const TOKEN: &str = "token";
const QUERY: &str = "query";
/// One row for each bucket: `records/` and its start.
const RECORDS: &str = "records/";

/// The progress of a query source's worker.
#[derive(Debug, Default)]
pub struct QueryProgress {
    /// All before this is counted.
    pub(super) watermark: Option<Timestamp>,
    /// All before this is counted again, or is not to be.
    pub(super) recounted: Option<Timestamp>,
    /// What is still to be asked of the window that is being worked on, the next last.
    pub(super) leaves: Vec<Leaf>,
    /// By this AWS knows the next start, however often it is repeated.
    pub(super) token: Option<String>,
    /// The query that runs, or whose answer has not been counted yet.
    pub(super) query: Option<InFlight>,
    /// The records of each bucket when it was counted, where buckets are compared before they are counted again.
    pub(super) records: BTreeMap<Timestamp, u64>,
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

pub(super) fn put_token(token: &str) -> ProgressChange {
    put(TOKEN, token)
}

pub(super) fn remove_token() -> ProgressChange {
    ProgressChange::remove(TOKEN)
}

pub(super) fn put_records(bucket: Timestamp, records: u64) -> ProgressChange {
    put(&format!("{RECORDS}{}", bucket.secs()), &records)
}

pub(super) fn remove_records(bucket: Timestamp) -> ProgressChange {
    ProgressChange::remove(format!("{RECORDS}{}", bucket.secs()))
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
            TOKEN => self.token = read(value).map_err(|_| bad())?,
            QUERY => self.query = read(value).map_err(|_| bad())?,
            key => {
                let bucket = key.strip_prefix(RECORDS).and_then(|secs| secs.parse().ok());
                let bucket = Timestamp::from_secs(bucket.ok_or_else(bad)?);
                match read(value).map_err(|_| bad())? {
                    Some(records) => self.records.insert(bucket, records),
                    None => self.records.remove(&bucket),
                };
            }
        }
        Ok(())
    }
}

fn read<T: DeserializeOwned>(value: Option<&[u8]>) -> Result<Option<T>, serde_json::Error> {
    value.map(serde_json::from_slice).transpose()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::source::query::leaf::{Ask, Part};
    use crate::source::query::steps::{checked, passed};
    use crate::source::query::{Plan, Recount, Settings};
    use crate::tls::TlsVersion;
    use crate::window::{Schedule, Window};

    fn time(secs: i64) -> Timestamp {
        Timestamp::from_secs(secs)
    }

    #[test]
    fn changes_are_read_back_as_they_were_put() {
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
            put_token("t"),
            put_query(&query),
            put_records(time(60), 7),
            put_records(time(120), 8),
            remove_records(time(60)),
        ] {
            progress.apply(&change).unwrap();
        }
        assert_eq!(progress.watermark, Some(time(60)));
        assert_eq!(progress.token.as_deref(), Some("t"));
        assert_eq!(progress.records, BTreeMap::from([(time(120), 8)]));
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
            ("records/x", "1"),
            ("records/60", "x"),
        ] {
            let change = ProgressChange::put(key, value);
            assert_eq!(
                QueryProgress::default().apply(&change).unwrap_err().key,
                key
            );
        }
    }

    /// A stored row: of ours or not, its value JSON like ours, or any bytes.
    fn row() -> impl Strategy<Value = ProgressChange> {
        let key = prop_oneof![
            9 => "watermark|recounted|leaves|token|query|records/-?[0-9]{1,20}",
            1 => ".{0,9}",
        ];
        let number = || {
            prop_oneof![
                any::<i64>().prop_map(|number| number.to_string()),
                "[0-9]{1,4}",
                "-?[0-9]{1,30}"
            ]
        };
        let leaf = || {
            (number(), number(), "calls|records|other", any::<bool>()).prop_map(|(from, to, ask, flag)| {
                let only = if flag { r#"[["region",null],["account","1"]]"# } else { "[]" };
                format!(r#"{{"window":{{"from":{from},"to":{to}}},"only":{only},"ask":"{ask}","control":{flag},"recount":{flag}}}"#)
            })
        };
        let text = prop_oneof![
            number(),
            leaf().prop_map(|leaf| format!("[{leaf}]")),
            (leaf(), number())
                .prop_map(|(leaf, at)| format!(r#"{{"id":"q","leaf":{leaf},"started":{at}}}"#)),
            r#""t""#,
            Just("[".repeat(100_000)),
        ];
        let value = prop_oneof![
            text.prop_map(String::into_bytes),
            prop::collection::vec(any::<u8>(), 0..40),
        ];
        (key, value).prop_map(|(key, value)| ProgressChange::put(key, value))
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn no_stored_row_makes_the_source_fail_but_with_an_error(
            rows in prop::collection::vec(row(), 0..8),
            now in prop_oneof![any::<i64>(), Just(1_780_000_000)],
        ) {
            let mut progress = QueryProgress::default();
            for row in &rows {
                if let Err(error) = progress.apply(row) {
                    prop_assert_eq!(&error.key, &row.key);
                }
            }
            let settings = Settings {
                schedule: Schedule {
                    bucket: Duration::from_secs(300),
                    settle: Duration::from_secs(300),
                    longest: Duration::from_secs(6 * 3600),
                    interval: Duration::from_secs(300),
                },
                lookback: Duration::from_secs(86_400),
                catch_up_limit: Duration::from_secs(7 * 86_400),
                timeout: Duration::from_secs(900),
                first_pause: Duration::from_secs(1),
                recount: Some(Recount {
                    after: Duration::from_secs(3600),
                    reach: Duration::from_secs(86_400),
                    check_first: true,
                }),
                control: true,
                minimum_version: TlsVersion::Tls12,
            };
            let plan = settings.plan(&progress, settings.schedule.longest, time(now));
            if let Plan::Ask(leaves) = plan {
                for leaf in leaves {
                    leaf.split(settings.schedule.bucket);
                    let (rest, bucket) = (progress.leaves.as_slice(), settings.schedule.bucket);
                    checked(&leaf, rest, &progress, &[], bucket);
                    passed(&leaf, rest, &progress);
                }
            }
        }
    }
}
