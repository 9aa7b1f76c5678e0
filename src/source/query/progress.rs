//! What a query source remembers: how far it got, what is left to be asked, the query that is started next or runs,
//! and how many records the buckets had that are to be counted again.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::Query;
use super::budget::Spent;
use super::callers::Outdated;
use super::estimates::Estimates;
use super::leaf::Leaf;
use crate::batch::ProgressChange;
use crate::source::{BadProgress, Progress};
use crate::time::Timestamp;

const WATERMARK: &str = "watermark";
const RECOUNTED: &str = "recounted";
const LEAVES: &str = "leaves";
const AGAIN: &str = "again";
const NEXT: &str = "next";
const QUERY: &str = "query";
const IDENTITY: &str = "identity";
const SUBJECT: &str = "subject";
const PLAIN: &str = "plain";
const SPENT: &str = "spent";
const ESTIMATES: &str = "estimates";
/// One row for each bucket: `records/` and its start.
const RECORDS: &str = "records/";
const CALLERS: &str = "callers";
const CALLERS_ASKED: &str = "callers_asked";
/// One row for each bucket: `outdated/` and its start.
const OUTDATED: &str = "outdated/";

/// The progress of a query source's worker.
#[derive(Debug, Default)]
pub struct QueryProgress {
    /// All before this is counted.
    pub(super) watermark: Option<Timestamp>,
    /// All before this is counted again, or is not to be.
    pub(super) recounted: Option<Timestamp>,
    /// What is still to be asked of the window that is being worked on, the next last.
    pub(super) leaves: Vec<Leaf>,
    /// What is still to be asked of windows that are counted again, the next last.
    pub(super) again: Vec<Leaf>,
    /// The query that is started next.
    pub(super) next: Option<Next>,
    /// The query that runs, or whose answer has not been counted yet.
    pub(super) query: Option<InFlight>,
    /// What was asked so far: numbers of another question cannot be compared with these.
    pub(super) identity: Option<String>,
    /// What is counted, however it is asked.
    pub(super) subject: Option<String>,
    /// Whether the newest calls were asked for without their key exchange, as the table has none.
    pub(super) plain: bool,
    /// The records of each bucket when it was counted, where buckets are compared before they are counted again.
    pub(super) records: BTreeMap<Timestamp, u64>,
    /// What was spent on the day of the latest query.
    pub(super) spent: Spent,
    /// What queries took.
    pub(super) estimates: Estimates,
    /// What is still to be asked of callers in this round, the next last.
    pub(super) callers: Vec<Leaf>,
    /// When the last round of asking for callers began.
    pub(super) callers_asked: Option<Timestamp>,
    /// The buckets that had outdated calls, as long as anybody looks at their callers.
    pub(super) outdated: BTreeMap<Timestamp, Outdated>,
}

impl QueryProgress {
    /// What is left to be asked beside `leaf`, or of its kind.
    pub(super) fn list_of(&self, leaf: &Leaf) -> &[Leaf] {
        match list_key(leaf) {
            AGAIN => &self.again,
            CALLERS => &self.callers,
            _ => &self.leaves,
        }
    }

    /// The buckets within `time` whose callers are to be asked for, and how often that failed.
    pub(super) fn waiting(&self, time: Range<Timestamp>) -> impl Iterator<Item = (Timestamp, u32)> {
        let known = match time.is_empty() {
            true => self.outdated.range(time.start..time.start),
            false => self.outdated.range(time),
        };
        known.filter_map(|(at, known)| match known {
            Outdated::Waiting(tries) => Some((*at, *tries)),
            Outdated::Done => None,
        })
    }
}

/// A query that is about to be started. However often its start is repeated, over kills too, it is put in these words
/// and with this token, by which AWS knows it as one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Next {
    pub(super) query: Query,
    pub(super) token: String,
}

/// A query at AWS.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct InFlight {
    pub(super) id: String,
    pub(super) query: Query,
    pub(super) started: Timestamp,
}

pub(super) fn put_watermark(watermark: Timestamp) -> ProgressChange {
    put(WATERMARK, &watermark)
}

pub(super) fn put_recounted(recounted: Timestamp) -> ProgressChange {
    put(RECOUNTED, &recounted)
}

/// Replaces the list that `leaf` is of.
pub(super) fn put_list_of(leaf: &Leaf, leaves: &[Leaf]) -> ProgressChange {
    put(list_key(leaf), leaves)
}

fn list_key(leaf: &Leaf) -> &'static str {
    match leaf.recount {
        true => AGAIN,
        false if leaf.asks_callers() => CALLERS,
        false => LEAVES,
    }
}

pub(super) fn put_leaves(leaves: &[Leaf]) -> ProgressChange {
    put(LEAVES, leaves)
}

pub(super) fn put_again(leaves: &[Leaf]) -> ProgressChange {
    put(AGAIN, leaves)
}

pub(super) fn put_next(next: &Next) -> ProgressChange {
    put(NEXT, next)
}

pub(super) fn remove_next() -> ProgressChange {
    ProgressChange::remove(NEXT)
}

pub(super) fn put_subject(subject: &str) -> ProgressChange {
    put(SUBJECT, subject)
}

pub(super) fn put_identity(identity: &str) -> ProgressChange {
    put(IDENTITY, identity)
}

pub(super) fn put_plain(plain: bool) -> ProgressChange {
    put(PLAIN, &plain)
}

pub(super) fn put_records(bucket: Timestamp, records: u64) -> ProgressChange {
    put(&format!("{RECORDS}{}", bucket.secs()), &records)
}

pub(super) fn remove_records(bucket: Timestamp) -> ProgressChange {
    ProgressChange::remove(format!("{RECORDS}{}", bucket.secs()))
}

pub(super) fn put_spent(spent: &Spent) -> ProgressChange {
    put(SPENT, spent)
}

pub(super) fn put_estimates(estimates: &Estimates) -> ProgressChange {
    put(ESTIMATES, estimates)
}

pub(super) fn put_callers(leaves: &[Leaf]) -> ProgressChange {
    put(CALLERS, leaves)
}

pub(super) fn put_callers_asked(asked: Timestamp) -> ProgressChange {
    put(CALLERS_ASKED, &asked)
}

pub(super) fn put_outdated(bucket: Timestamp, known: Outdated) -> ProgressChange {
    put(&format!("{OUTDATED}{}", bucket.secs()), &known)
}

pub(super) fn remove_outdated(bucket: Timestamp) -> ProgressChange {
    ProgressChange::remove(format!("{OUTDATED}{}", bucket.secs()))
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
            AGAIN => self.again = read(value).map_err(|_| bad())?.unwrap_or_default(),
            NEXT => self.next = read(value).map_err(|_| bad())?,
            IDENTITY => self.identity = read(value).map_err(|_| bad())?,
            SUBJECT => self.subject = read(value).map_err(|_| bad())?,
            PLAIN => self.plain = read(value).map_err(|_| bad())?.unwrap_or_default(),
            QUERY => self.query = read(value).map_err(|_| bad())?,
            SPENT => self.spent = read(value).map_err(|_| bad())?.unwrap_or_default(),
            ESTIMATES => self.estimates = read(value).map_err(|_| bad())?.unwrap_or_default(),
            CALLERS => self.callers = read(value).map_err(|_| bad())?.unwrap_or_default(),
            CALLERS_ASKED => self.callers_asked = read(value).map_err(|_| bad())?,
            key => {
                let bucket = |secs: &str| secs.parse().map(Timestamp::from_secs).map_err(|_| bad());
                match (key.strip_prefix(RECORDS), key.strip_prefix(OUTDATED)) {
                    (Some(secs), _) => set(&mut self.records, bucket(secs)?, value),
                    (_, Some(secs)) => set(&mut self.outdated, bucket(secs)?, value),
                    _ => return Err(bad()),
                }
                .map_err(|_| bad())?;
            }
        }
        Ok(())
    }
}

/// Takes in the row of one bucket.
fn set<T: DeserializeOwned>(
    known: &mut BTreeMap<Timestamp, T>,
    bucket: Timestamp,
    value: Option<&[u8]>,
) -> Result<(), serde_json::Error> {
    match read(value)? {
        Some(value) => known.insert(bucket, value),
        None => known.remove(&bucket),
    };
    Ok(())
}

fn read<T: DeserializeOwned>(value: Option<&[u8]>) -> Result<Option<T>, serde_json::Error> {
    value.map(serde_json::from_slice).transpose()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::call::CallerLabels;
    use crate::source::query::callers::{AskCallers, not_named};
    use crate::source::query::leaf::{Ask, Part};
    use crate::source::query::steps::{checked, passed};
    use crate::source::query::{Plan, Recount, Settings};
    use crate::source::{Reason, SourceError};
    use crate::tls::TlsVersion;
    use crate::window::{Schedule, Window};

    const COLUMNS: CallerLabels = CallerLabels {
        principal: true,
        user_agent: false,
        source_ip: true,
    };

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
            query: Query {
                leaf: leaf.clone(),
                plain: true,
            },
            started: time(500),
        };
        let again = [Leaf::recount(window)];
        let next = Next {
            query: Query {
                leaf: leaf.clone(),
                plain: false,
            },
            token: "t".to_owned(),
        };
        let spent = Spent {
            day: 20_000,
            bytes: 7,
            reserved: 8,
        };
        let mut estimates = Estimates::default();
        estimates.learn(&leaf, 60, 9, 9, 20_000);
        let mut progress = QueryProgress::default();
        let leaves = [leaf];
        let callers = [Leaf::callers(window, TlsVersion::Tls12, COLUMNS)];
        for change in [
            put_watermark(time(60)),
            put_list_of(&leaves[0], &leaves),
            put_list_of(&again[0], &again),
            put_next(&next),
            put_identity("i"),
            put_subject("s"),
            put_plain(true),
            put_spent(&spent),
            put_estimates(&estimates),
            put_query(&query),
            put_records(time(60), 7),
            put_records(time(120), 8),
            remove_records(time(60)),
            put_outdated(time(60), Outdated::Waiting(2)),
            put_outdated(time(120), Outdated::Done),
            put_outdated(time(180), Outdated::Waiting(0)),
            remove_outdated(time(180)),
            put_list_of(&callers[0], &callers),
            put_callers_asked(time(9)),
        ] {
            progress.apply(&change).unwrap();
        }
        assert_eq!(progress.watermark, Some(time(60)));
        assert_eq!(progress.again, again);
        assert_eq!(progress.next, Some(next));
        assert_eq!(progress.identity.as_deref(), Some("i"));
        assert_eq!(progress.subject.as_deref(), Some("s"));
        assert!(progress.plain);
        assert_eq!((progress.spent, &progress.estimates), (spent, &estimates));
        assert_eq!(progress.records, BTreeMap::from([(time(120), 8)]));
        assert_eq!(progress.leaves, leaves);
        assert_eq!(progress.query, Some(query));
        assert_eq!(progress.callers, callers);
        assert_eq!(progress.callers_asked, Some(time(9)));
        let outdated = [
            (time(60), Outdated::Waiting(2)),
            (time(120), Outdated::Done),
        ];
        assert_eq!(progress.outdated, BTreeMap::from(outdated));
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
            ("spent", "7"),
            ("estimates", "{}"),
            ("records/x", "1"),
            ("records/60", "x"),
            ("outdated/60", "7"),
            ("outdated/x", r#""done""#),
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
            9 => "watermark|recounted|leaves|again|next|query|identity|subject|plain|spent|estimates|callers|callers_asked|(records|outdated)/-?[0-9]{1,20}",
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
            (leaf(), number()).prop_map(|(leaf, at)| {
                let query = format!(r#"{{"leaf":{leaf},"plain":true}}"#);
                format!(r#"{{"id":"q","token":"t","query":{query},"started":{at}}}"#)
            }),
            r#""t""#,
            r#""done""#,
            number().prop_map(|tries| format!(r#"{{"waiting":{tries}}}"#)),
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
                callers: Some(AskCallers {
                    columns: COLUMNS,
                    window: Duration::from_secs(86_400),
                    apart: false,
                }),
            };
            let plan = settings.plan(&progress, settings.schedule.longest, time(now));
            if let Plan::Ask(leaves) = plan {
                for leaf in leaves {
                    leaf.split(settings.schedule.bucket);
                    checked(&leaf, &progress, &[], settings.schedule.bucket);
                    passed(&leaf, &progress);
                    not_named(&leaf, &progress, &SourceError::new(Reason::Internal, ""));
                }
            }
        }
    }
}
