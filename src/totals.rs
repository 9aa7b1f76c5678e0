//! The numbers behind the scrape, in memory: for each source and key the counter, the window's count and
//! the latest call; for each account and service the run of outdated calls.
//!
//! Only commits change them, by a [`Change`] each. Texts are kept once and told apart by number.

mod callers;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashMap;

pub use self::callers::CallerChange;
use self::callers::Callers;
use crate::call::{CallKey, Name, Tally};
use crate::series::Folds;
use crate::time::Timestamp;
use crate::tls::{KeyExchange, TlsVersion};

/// What a commit changed, or, for a worker just loaded, everything about it.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// The `source` label.
    pub source: Arc<str>,
    /// The worker's number in the store: a source may have several.
    pub worker: i64,
    /// Whether the worker is counted for. One that is gone has counters and no gauges: nobody knows how its accounts fare.
    pub counted: bool,
    /// The worker's watermark after it.
    pub watermark: Option<Timestamp>,
    /// The keys whose numbers changed.
    pub keys: Vec<KeyChange>,
    /// The runs that changed, as they are now.
    pub runs: Vec<(RunKey, Run)>,
    /// The callers whose numbers changed.
    pub callers: Vec<CallerChange>,
    /// Whether the window now begins with another bucket: what is over leaves the scrape by the watermark.
    pub window_moved: bool,
}

impl Change {
    /// Whether a scrape would show it.
    pub fn is_visible(&self) -> bool {
        self.window_moved
            || !self.keys.is_empty()
            || !self.runs.is_empty()
            || !self.callers.is_empty()
    }
}

/// What changed for one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyChange {
    /// The key's number in the store.
    pub number: u32,
    /// The key.
    pub key: Arc<CallKey>,
    /// Calls to add to the counter.
    pub calls: u64,
    /// Calls to add to the window, or to take from it.
    pub window: i64,
    /// The latest call.
    pub last_call: Timestamp,
    /// The latest bucket with a call.
    pub last_bucket: Timestamp,
    /// How far the key's label sets are folded; it never changes.
    pub folds: Folds,
}

impl KeyChange {
    /// No change of `key` yet.
    pub fn new(number: u32, key: &Arc<CallKey>) -> Self {
        let never = Timestamp::from_secs(i64::MIN);
        Self {
            number,
            key: Arc::clone(key),
            calls: 0,
            window: 0,
            last_call: never,
            last_bucket: never,
            folds: Folds::default(),
        }
    }

    /// Adds calls of a bucket to the counter.
    pub fn add(&mut self, bucket: Timestamp, tally: Tally) {
        self.calls += tally.calls;
        self.last_call = self.last_call.max(tally.last);
        self.last_bucket = self.last_bucket.max(bucket);
    }

    /// Adds another change of the same key.
    pub fn merge(&mut self, other: &Self) {
        self.calls += other.calls;
        self.window += other.window;
        self.last_call = self.last_call.max(other.last_call);
        self.last_bucket = self.last_bucket.max(other.last_bucket);
    }
}

/// What a run of outdated calls is a run of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RunKey {
    /// The account called.
    pub account_id: Name,
    /// The service called.
    pub aws_service: Name,
    /// The call; `None` for the service as a whole.
    pub event_name: Option<Name>,
}

/// A run of outdated calls, without a quiet period in it. Times are starts of buckets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// The first outdated call of the run.
    pub since: Timestamp,
    /// The last one so far.
    pub last: Timestamp,
    /// The exporter's clock when the run was committed.
    pub detected: Timestamp,
}

/// A text, by its number in [`Totals`].
pub(crate) type Text = u32;

/// A key's texts by number.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KeyTexts {
    pub(crate) aws_service: Text,
    pub(crate) event_name: Text,
    pub(crate) tls_version: TlsVersion,
    pub(crate) cipher_suite: Text,
    pub(crate) key_exchange: KeyExchange,
    pub(crate) account_id: Text,
    pub(crate) aws_region: Text,
}

/// The numbers of one key of one source.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    pub(crate) texts: KeyTexts,
    pub(crate) calls: u64,
    pub(crate) window: i64,
    pub(crate) last_call: Timestamp,
    pub(crate) last_bucket: Timestamp,
    pub(crate) folds: Folds,
    /// Whether some worker that is counted for has it.
    pub(crate) counted: bool,
}

/// The numbers of one source.
#[derive(Default)]
pub(crate) struct SourceTotals {
    pub(crate) entries: HashMap<u32, Entry>,
    /// The runs by what they are runs of, each by the worker that saw it.
    runs: BTreeMap<RunKey, BTreeMap<i64, Run>>,
    pub(crate) callers: Callers,
    pub(crate) watermark: Option<Timestamp>,
}

impl SourceTotals {
    /// The runs that all workers saw together: two without `quiet` between them are one.
    pub(crate) fn runs(&self, quiet: Duration) -> impl Iterator<Item = (&RunKey, Run)> {
        self.runs.iter().filter_map(move |(key, runs)| {
            let mut runs: Vec<Run> = runs.values().copied().collect();
            runs.sort_unstable_by_key(|run| run.since);
            let together = |run: Run, next: Run| match next.since < run.last.plus(quiet) {
                true => Run {
                    last: run.last.max(next.last),
                    ..run
                },
                false => next,
            };
            Some((key, runs.into_iter().reduce(together)?))
        })
    }
}

/// All numbers that a scrape shows.
#[derive(Default)]
pub struct Totals {
    texts: Vec<Name>,
    numbers: HashMap<Name, Text>,
    sources: BTreeMap<Arc<str>, SourceTotals>,
}

impl Totals {
    /// Takes in what a commit changed.
    pub fn apply(&mut self, change: Change) {
        for change in &change.keys {
            for text in texts_of(&change.key) {
                self.intern(text);
            }
        }
        let Self {
            numbers, sources, ..
        } = self;
        let counted = change.counted;
        let source = sources.entry(change.source).or_default();
        for change in change.keys {
            let entry = source
                .entries
                .entry(change.number)
                .or_insert_with(|| Entry {
                    texts: numbered(numbers, &change.key),
                    calls: 0,
                    window: 0,
                    last_call: change.last_call,
                    last_bucket: change.last_bucket,
                    folds: change.folds,
                    counted: false,
                });
            entry.counted |= counted;
            entry.calls += change.calls;
            entry.window += change.window;
            entry.last_call = entry.last_call.max(change.last_call);
            entry.last_bucket = entry.last_bucket.max(change.last_bucket);
        }
        for (key, run) in change.runs {
            source
                .runs
                .entry(key)
                .or_default()
                .insert(change.worker, run);
        }
        source.callers.apply(change.callers);
        source.watermark = source.watermark.max(change.watermark);
    }

    /// The sources in the order of their names.
    pub(crate) fn sources(&self) -> impl Iterator<Item = (&Arc<str>, &SourceTotals)> {
        self.sources.iter()
    }

    /// Every text, in the order of their numbers.
    pub(crate) fn texts(&self) -> &[Name] {
        &self.texts
    }

    fn intern(&mut self, text: &Name) {
        if !self.numbers.contains_key(text) {
            let number = Text::try_from(self.texts.len())
                .expect("there are fewer than 4 billion label values");
            self.texts.push(text.clone());
            self.numbers.insert(text.clone(), number);
        }
    }
}

fn texts_of(key: &CallKey) -> [&Name; 5] {
    [
        &key.aws_service,
        &key.event_name,
        &key.cipher_suite,
        &key.account_id,
        &key.aws_region,
    ]
}

fn numbered(numbers: &HashMap<Name, Text>, key: &CallKey) -> KeyTexts {
    let [
        aws_service,
        event_name,
        cipher_suite,
        account_id,
        aws_region,
    ] = texts_of(key).map(|text| {
        *numbers
            .get(text)
            .expect("the key's texts were interned just before")
    });
    KeyTexts {
        aws_service,
        event_name,
        tls_version: key.tls_version,
        cipher_suite,
        key_exchange: key.key_exchange,
        account_id,
        aws_region,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 86_400;

    #[test]
    fn runs_of_several_workers_are_one_unless_a_quiet_period_lies_between() {
        let run = |since: i64, last: i64, detected: i64| {
            let day = |day| Timestamp::from_secs(day * DAY);
            Run {
                since: day(since),
                last: day(last),
                detected: day(detected),
            }
        };
        let key = RunKey {
            account_id: Name::new("111122223333"),
            aws_service: Name::new("s3"),
            event_name: None,
        };
        let mut totals = Totals::default();
        let mut saw = |worker, run| {
            totals.apply(Change {
                source: "trail".into(),
                worker,
                counted: true,
                watermark: None,
                keys: Vec::new(),
                runs: vec![(key.clone(), run)],
                callers: Vec::new(),
                window_moved: false,
            });
            let (_, source) = totals.sources().next().unwrap();
            let quiet = Duration::from_secs(7 * 86_400);
            source.runs(quiet).next().unwrap().1
        };
        assert_eq!(saw(1, run(10, 12, 13)), run(10, 12, 13));
        // Another Region, in the same days: the run is older than its own.
        assert_eq!(saw(2, run(11, 15, 16)), run(10, 15, 13));
        assert_eq!(saw(3, run(8, 9, 20)), run(8, 15, 20));
        // After seven quiet days it is a new one, whoever saw it.
        assert_eq!(saw(2, run(22, 22, 23)), run(22, 22, 23));
    }
}
