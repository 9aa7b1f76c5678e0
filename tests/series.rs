//! The limit of series over a life of calls, restarts and changed limits: no counter ever goes down or is folded once
//! it was exposed, and the sums stay those of the calls.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cloudtrail_tls_exporter::batch::{Batch, ProgressChange};
use cloudtrail_tls_exporter::call::{CallKey, Name, Tally};
use cloudtrail_tls_exporter::exposition::negotiate::Format;
use cloudtrail_tls_exporter::exposition::{self, Publisher};
use cloudtrail_tls_exporter::metrics::Metrics;
use cloudtrail_tls_exporter::series;
use cloudtrail_tls_exporter::store::{self, Store, WorkerName};
use cloudtrail_tls_exporter::time::Timestamp;
use cloudtrail_tls_exporter::tls::{KeyExchange, TlsVersion};
use cloudtrail_tls_exporter::window::Window;
use proptest::prelude::*;

const DAY: Duration = Duration::from_secs(86_400);
const START: i64 = 1_795_000_200;
const BUCKET: i64 = 300;
const CALLS: &str = "cloudtrail_tls_calls_total";
const EXCHANGES: &str = "cloudtrail_tls_key_exchange_calls_total";
const WINDOW: &str = "cloudtrail_tls_window_calls";

/// Calls of one kind, by numbers.
#[derive(Clone, Copy, Debug)]
struct Calls {
    source: usize,
    service: u8,
    event: u8,
    version: usize,
    account: u8,
    calls: u64,
}

impl Calls {
    fn version(self) -> TlsVersion {
        TlsVersion::ALL[self.version]
    }

    fn key(self) -> Arc<CallKey> {
        Arc::new(CallKey {
            aws_service: Name::new(&format!("service{}", self.service)),
            event_name: Name::new(&format!("Event{}", self.event)),
            tls_version: self.version(),
            cipher_suite: Name::new("X"),
            key_exchange: KeyExchange::from_record(Some(
                KeyExchange::NAMES[usize::from(self.event) % 4],
            )),
            account_id: Name::new(&format!("account{}", self.account)),
            aws_region: Name::new("eu-west-1"),
        })
    }
}

#[derive(Clone, Debug)]
enum Step {
    Count(Vec<Calls>),
    /// A restart under another limit, or the same.
    Restart(usize),
    /// A reload of another limit.
    Reload(usize),
}

fn steps(sources: usize) -> impl Strategy<Value = Vec<Step>> {
    let calls = (0..sources, 0..6_u8, 0..40_u8, 0..6_usize, 0..9_u8, 1..9_u64);
    let calls = calls.prop_map(|(source, service, event, version, account, calls)| Calls {
        source,
        service,
        event,
        version,
        account,
        calls,
    });
    let least = series::LEAST * sources;
    prop::collection::vec(
        prop_oneof![
            6 => prop::collection::vec(calls, 1..250).prop_map(Step::Count),
            1 => (least..least * 3).prop_map(Step::Restart),
            1 => (least..least * 3).prop_map(Step::Reload),
        ],
        1..14,
    )
}

/// The samples of a family by their labels.
type Samples = BTreeMap<String, u64>;

/// One life of the program, over a store on the disk.
struct Life {
    store: Store,
    workers: Vec<i64>,
    publisher: Publisher,
    metrics: Metrics,
}

fn settings(path: &Path, limit: usize, accounts: bool) -> (exposition::Settings, store::Settings) {
    let series = series::Settings {
        limit,
        label_account: accounts,
        label_region: false,
    };
    let exposition = exposition::Settings {
        minimum_version: TlsVersion::Tls12,
        window: 10 * DAY,
        retention: 35 * DAY,
        quiet_period: 7 * DAY,
        series: series.clone(),
        callers: Default::default(),
    };
    let store = store::Settings {
        path: Some(path.to_owned()),
        retention: 35 * DAY,
        window: 10 * DAY,
        bucket: Duration::from_secs(300),
        minimum_version: TlsVersion::Tls12,
        quiet_period: 7 * DAY,
        series,
        callers: Default::default(),
    };
    (exposition, store)
}

impl Life {
    async fn begin(path: &Path, limit: usize, sources: usize, accounts: bool) -> Self {
        let metrics = Metrics::new().unwrap();
        let (exposition, settings) = settings(path, limit, accounts);
        let publisher = Publisher::start(exposition, metrics.clone()).unwrap();
        let changes = publisher.clone();
        let store = Store::open(settings, move |change| changes.change(change)).unwrap();
        let mut life = Self {
            store,
            workers: Vec::new(),
            publisher,
            metrics,
        };
        life.take_over(path, limit, sources, accounts).await;
        life
    }

    /// What a start does, and a reload.
    async fn take_over(&mut self, path: &Path, limit: usize, sources: usize, accounts: bool) {
        let (exposition, settings) = settings(path, limit, accounts);
        let name = |number| WorkerName {
            source: format!("source{number}"),
            source_type: "scripted",
            account: String::new(),
            region: String::new(),
        };
        let names = (0..sources).map(name).collect();
        let publisher = self.publisher.clone();
        let publish = move |totals| publisher.show_anew(exposition, totals);
        let now = Timestamp::from_secs(START);
        let states = self.store.take_over(settings, names, now, publish);
        let states = states.await.unwrap();
        self.workers = states.iter().map(|state| state.id).collect();
    }

    async fn count(&self, bucket: i64, calls: &[Calls]) {
        let at = |number: i64| Timestamp::from_secs(START + number * BUCKET);
        for (source, worker) in self.workers.iter().enumerate() {
            let mut batch = Batch {
                covered: Some(Window {
                    from: at(bucket),
                    to: at(bucket + 1),
                }),
                ..Batch::default()
            };
            for calls in calls.iter().filter(|calls| calls.source == source) {
                let tally = Tally {
                    calls: calls.calls,
                    last: at(bucket),
                };
                batch.counts.add(at(bucket), &calls.key(), tally);
            }
            let committed = self.store.commit(*worker, Arc::new(batch), at(bucket + 1));
            committed.await.unwrap();
        }
    }

    fn scrape(&self) -> BTreeMap<String, Samples> {
        self.publisher.settle();
        let body = self.publisher.newest().body(&[], Format::Text, false);
        let text = String::from_utf8(body.concat()).unwrap();
        let mut families: BTreeMap<String, Samples> = BTreeMap::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let (name, rest) = line.split_once('{').unwrap();
            let (labels, value) = rest.rsplit_once("} ").unwrap();
            let before = families
                .entry(name.to_owned())
                .or_default()
                .insert(labels.to_owned(), value.parse().unwrap());
            assert_eq!(before, None, "twice: {line}");
        }
        families
    }

    /// A gauge of the exporter's own about a family.
    fn told(&self, name: &str, family: &str) -> String {
        let name = format!("cloudtrail_tls_exporter_{name}");
        let families = self.metrics.gather();
        let found = families.iter().find(|family| family.name() == name);
        let metrics = found.unwrap().get_metric().iter();
        let mut of_family = metrics.filter(|metric| metric.get_label()[0].value() == family);
        of_family
            .next()
            .unwrap()
            .get_gauge()
            .get_value()
            .to_string()
    }
}

/// The part of a label set after `label="`.
fn value<'l>(labels: &'l str, label: &str) -> &'l str {
    let (_, rest) = labels.split_once(&format!("{label}=\"")).unwrap();
    rest.split_once('"').unwrap().0
}

/// The sums of a family by source and one label more.
fn sums(samples: &Samples, label: &str) -> BTreeMap<(String, String), u64> {
    let mut sums = BTreeMap::new();
    for (labels, calls) in samples.iter().filter(|(_, calls)| **calls > 0) {
        let of = (value(labels, "source"), value(labels, label));
        *sums.entry((of.0.to_owned(), of.1.to_owned())).or_default() += calls;
    }
    sums
}

async fn live(sources: usize, steps: Vec<Step>) -> Result<(), TestCaseError> {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("state.db");
    let mut limit = series::LEAST * sources;
    let mut highest = limit;
    let mut life = Life::begin(&path, limit, sources, true).await;
    let mut seen: BTreeMap<&str, Samples> = BTreeMap::new();
    let mut truth: BTreeMap<(String, String), u64> = BTreeMap::new();
    let mut whole: BTreeSet<(usize, u8, u8, usize, u8)> = BTreeSet::new();
    for (bucket, step) in (0..).zip(steps) {
        match step {
            Step::Count(calls) => {
                life.count(bucket, &calls).await;
                for calls in calls {
                    let version = calls.version().label().to_owned();
                    let of = (format!("source{}", calls.source), version);
                    *truth.entry(of).or_default() += calls.calls;
                    let Calls {
                        source,
                        service,
                        event,
                        version,
                        account,
                        ..
                    } = calls;
                    whole.insert((source, service, event, version, account));
                }
            }
            Step::Restart(new) => {
                limit = new;
                life.store.close().await;
                life = Life::begin(&path, limit, sources, true).await;
            }
            Step::Reload(new) => {
                limit = new;
                life.take_over(&path, limit, sources, true).await;
            }
        }
        highest = highest.max(limit);
        let scrape = life.scrape();
        let empty = Samples::new();
        let family = |name: &str| scrape.get(name).unwrap_or(&empty);
        for name in [CALLS, EXCHANGES] {
            let before = seen.entry(name).or_default();
            for (labels, calls) in before.iter() {
                let now = family(name).get(labels);
                prop_assert!(
                    now >= Some(calls),
                    "{name}{{{labels}}} fell from {calls} to {now:?}"
                );
            }
            before.clone_from(family(name));
            prop_assert!(
                family(name).len() <= highest,
                "{name}: {}",
                family(name).len()
            );
        }
        prop_assert_eq!(&sums(family(CALLS), "tls_version"), &truth);
        let calls: u64 = truth.values().sum();
        prop_assert_eq!(family(EXCHANGES).values().sum::<u64>(), calls);
        prop_assert_eq!(
            &sums(family(WINDOW), "tls_version"),
            &truth,
            "all is in the window"
        );
        for (name, samples) in &scrape {
            let counter = [CALLS, EXCHANGES].contains(&name.as_str());
            prop_assert!(
                counter || samples.len() <= limit,
                "{}: {}",
                name,
                samples.len()
            );
        }
        if calls > 0 {
            for name in [CALLS, WINDOW] {
                prop_assert_eq!(life.told("series_limit", name), limit.to_string());
                prop_assert_eq!(life.told("series", name), family(name).len().to_string());
                let others = family(name)
                    .keys()
                    .filter(|labels| labels.contains("\"other\""))
                    .count();
                let own = family(name).len() - others;
                let folded = life.told("series_folded", name);
                prop_assert_eq!(folded, (whole.len() - own).to_string());
            }
        }
    }
    Ok(())
}

fn runtime() -> tokio::runtime::Runtime {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().build().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn no_counter_falls_and_sums_stay_exact_at_any_limit(
        (sources, steps) in (1..3_usize).prop_flat_map(|sources| (Just(sources), steps(sources))),
    ) {
        runtime().block_on(live(sources, steps))?;
    }
}

/// Calls of so many events on one version.
fn events(version: usize, events: std::ops::Range<u8>) -> Vec<Calls> {
    let calls = events.flat_map(|event| {
        (0..9).map(move |account| Calls {
            source: 0,
            service: 0,
            event,
            version,
            account,
            calls: 1,
        })
    });
    calls.collect()
}

const TLS11: usize = 1;
const TLS13: usize = 3;
const NONE: usize = 4;

#[tokio::test]
async fn outdated_calls_have_series_of_their_own_when_others_have_filled_the_limit() {
    let home = tempfile::tempdir().unwrap();
    let life = Life::begin(&home.path().join("state.db"), 300, 1, true).await;
    for (bucket, version) in [(0, NONE), (1, TLS13), (2, TLS11)] {
        let all = match version {
            TLS11 => events(version, 0..5),
            _ => events(version, 0..40),
        };
        life.count(bucket, &all).await;
    }
    let scrape = life.scrape();
    let of = |version: &str, other: bool| {
        let samples = scrape[CALLS].iter();
        let samples = samples.filter(|(labels, _)| value(labels, "tls_version") == version);
        samples
            .filter(|(labels, _)| labels.contains("\"other\"") == other)
            .count()
    };
    // A fifth of the limit is left to outdated calls, and a twentieth to each of three rungs: 195 for the others, and
    // a twentieth less for those without a version.
    assert_eq!((of("none", false), of("none", true)), (180, 9));
    assert_eq!((of("TLSv1.3", false), of("TLSv1.3", true)), (6, 9));
    assert_eq!((of("TLSv1.1", false), of("TLSv1.1", true)), (45, 0));
}

#[tokio::test]
async fn other_labels_are_other_series_and_the_first_ones_come_back_as_they_were() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("state.db");
    let mut life = Life::begin(&path, 300, 1, true).await;
    life.count(0, &events(TLS13, 0..40)).await;
    let first = life.scrape()[CALLS].clone();
    for (bucket, accounts) in [(1, false), (2, true)] {
        life.store.close().await;
        life = Life::begin(&path, 300, 1, accounts).await;
        life.count(bucket, &events(NONE, 0..3)).await;
        let scrape = life.scrape();
        assert!(scrape[CALLS].len() <= 300);
        assert_eq!(
            scrape[CALLS].values().sum::<u64>(),
            360 + 27 * bucket.unsigned_abs()
        );
        if !accounts {
            assert_eq!(scrape[CALLS].len(), 43, "each call has a series again");
        }
    }
    let last = life.scrape()[CALLS].clone();
    for (labels, calls) in &first {
        assert_eq!(last.get(labels), Some(calls), "{labels}");
    }
}

/// A commit that fails must not leave a decision behind that the store does not know.
#[tokio::test]
async fn what_a_failed_commit_decided_is_decided_anew() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("state.db");
    let life = Life::begin(&path, 300, 1, true).await;
    life.count(0, &events(TLS13, 0..1)).await;
    let blocker = rusqlite::Connection::open(&path).unwrap();
    blocker.execute_batch("DROP TABLE progress").unwrap();
    let bucket = Timestamp::from_secs(START);
    let mut batch = Batch {
        progress: vec![ProgressChange::put("a", "b")],
        ..Batch::default()
    };
    for calls in events(TLS13, 0..40) {
        let tally = Tally {
            calls: 1,
            last: bucket,
        };
        batch.counts.add(bucket, &calls.key(), tally);
    }
    let failed = life
        .store
        .commit(life.workers[0], Arc::new(batch), bucket)
        .await;
    assert!(failed.is_err());
    blocker
        .execute_batch("CREATE TABLE progress (worker INTEGER, key TEXT, value BLOB, PRIMARY KEY (worker, key))")
        .unwrap();
    // Were the 351 of the failed commit still admitted, these would be folded.
    life.count(1, &events(TLS11, 0..20)).await;
    let scrape = life.scrape();
    assert_eq!(scrape[CALLS].len(), 9 + 180);
    assert!(
        !scrape[CALLS]
            .keys()
            .any(|labels| labels.contains("\"other\""))
    );
}
