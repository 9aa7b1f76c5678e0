//! The store's promises: totals kept up step by step are the totals of the rows, whatever the order of
//! batches; and a store that must not be used is refused with the reason.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cloudtrail_tls_exporter::batch::{Batch, Counts, ProgressChange};
use cloudtrail_tls_exporter::call::{CallKey, CallerLabels, Name, Tally};
use cloudtrail_tls_exporter::store::{Settings, Store, StoreError, WorkerName, WorkerState};
use cloudtrail_tls_exporter::time::Timestamp;
use cloudtrail_tls_exporter::tls::{KeyExchange, TlsVersion};
use cloudtrail_tls_exporter::totals::{Change, Run, RunKey};
use cloudtrail_tls_exporter::window::Window;
use proptest::prelude::*;

const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;
/// Not on an hour, so that the window's start falls inside one.
const START: i64 = 1_795_000_200;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_secs(START + seconds)
}

fn key(version: TlsVersion) -> Arc<CallKey> {
    Arc::new(CallKey {
        aws_service: Name::new("s3"),
        event_name: Name::new("GetObject"),
        tls_version: version,
        cipher_suite: Name::new("X"),
        key_exchange: KeyExchange::Unreported,
        account_id: Name::new("111122223333"),
        aws_region: Name::new("eu-west-1"),
    })
}

fn settings(path: Option<&Path>) -> Settings {
    Settings {
        path: path.map(Path::to_owned),
        retention: Duration::from_secs(10 * 86_400),
        window: Duration::from_secs(6 * 3600),
        bucket: Duration::from_secs(300),
        minimum_version: TlsVersion::Tls12,
        quiet_period: Duration::from_secs(2 * 86_400),
        series: Default::default(),
        callers: CallerLabels::default(),
    }
}

fn name() -> WorkerName {
    WorkerName {
        source: "a".into(),
        source_type: "scripted",
        account: String::new(),
        region: String::new(),
    }
}

/// A store, and every change it has published.
struct Rig {
    store: Store,
    worker: WorkerState,
    changes: Arc<Mutex<Vec<Change>>>,
}

async fn open(settings: Settings) -> Result<Rig, StoreError> {
    open_at(settings, at(0)).await
}

async fn open_at(settings: Settings, now: Timestamp) -> Result<Rig, StoreError> {
    let changes = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&changes);
    let store = Store::open(settings, move |change| kept.lock().unwrap().push(change))?;
    let worker = store.worker(name(), now).await?;
    Ok(Rig {
        store,
        worker,
        changes,
    })
}

impl Rig {
    async fn commit(&self, counts: Counts, to: i64) {
        let covered = Some(Window {
            from: at(0),
            to: at(to),
        });
        let batch = Batch {
            counts,
            covered,
            ..Batch::default()
        };
        self.store
            .commit(self.worker.id, Arc::new(batch), at(to))
            .await
            .unwrap();
    }

    /// The counters and gauges that the changes add up to.
    fn totals(&self) -> BTreeMap<TlsVersion, (u64, i64)> {
        let mut totals: BTreeMap<TlsVersion, (u64, i64)> = BTreeMap::new();
        for change in self
            .changes
            .lock()
            .unwrap()
            .iter()
            .flat_map(|change| &change.keys)
        {
            let (calls, window) = totals.entry(change.key.tls_version).or_default();
            *calls += change.calls;
            *window += change.window;
        }
        totals
    }

    fn runs(&self) -> BTreeMap<RunKey, Run> {
        self.changes
            .lock()
            .unwrap()
            .iter()
            .flat_map(|change| change.runs.clone())
            .collect()
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
}

fn calls(rows: &[(i64, usize, u64)]) -> Counts {
    let mut counts = Counts::default();
    for &(seconds, version, calls) in rows {
        let bucket = at(seconds).floor(Duration::from_secs(300));
        counts.add(
            bucket,
            &key(TlsVersion::ALL[version]),
            Tally {
                calls,
                last: at(seconds),
            },
        );
    }
    counts
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn totals_kept_step_by_step_are_the_totals_of_the_rows(
        steps in prop::collection::vec((1_i64..9000, prop::collection::vec((0_i64..3 * DAY, 0_usize..5, 1_u64..9), 0..8)), 1..30),
        seed in any::<u64>(),
    ) {
        runtime().block_on(async {
            let home = tempfile::tempdir().unwrap();
            let path = home.path().join("state.db");
            let rig = open(settings(Some(&path))).await.unwrap();
            let mut to = 0;
            for (step, rows) in &steps {
                to += step;
                // Nothing is delivered after the watermark.
                let rows: Vec<_> = rows.iter().map(|&(ago, version, calls)| (to - 1 - ago % to.max(1), version, calls)).collect();
                rig.commit(calls(&rows), to).await;
            }
            let step_by_step = rig.totals();

            let mut truth: BTreeMap<TlsVersion, (u64, i64)> = BTreeMap::new();
            let end = at(to + 299).floor(Duration::from_secs(300)).minus(Duration::from_secs(6 * 3600));
            let mut all = Vec::new();
            let mut reached = 0;
            for (step, rows) in &steps {
                reached += step;
                all.extend(rows.iter().map(|&(ago, version, calls)| (reached - 1 - ago % reached.max(1), version, calls)));
            }
            for (bucket, key, tally) in calls(&all).iter() {
                let (counter, gauge) = truth.entry(key.tls_version).or_default();
                *counter += tally.calls;
                *gauge += if bucket >= end { i64::try_from(tally.calls).unwrap() } else { 0 };
            }
            prop_assert_eq!(&step_by_step, &truth);

            // What a restart loads.
            rig.store.close().await;
            let again = open(settings(Some(&path))).await.unwrap();
            prop_assert_eq!(again.totals(), truth.clone());

            // The same rows in any order, with the watermark already at the end.
            fastrand::Rng::with_seed(seed).shuffle(&mut all);
            let other = open(settings(None)).await.unwrap();
            other.commit(Counts::default(), to).await;
            for row in all {
                other.commit(calls(&[row]), to).await;
            }
            prop_assert_eq!(other.totals(), truth);
            Ok(())
        })?;
    }
}

#[test]
fn a_batch_is_committed_with_its_progress_or_not_at_all() {
    runtime().block_on(async {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("state.db");
        let rig = open(settings(Some(&path))).await.unwrap();
        let batch = Batch {
            counts: calls(&[(0, 1, 5)]),
            progress: vec![
                ProgressChange::put("b", "2"),
                ProgressChange::put("a", "1"),
                ProgressChange::remove("b"),
            ],
            covered: Some(Window {
                from: at(0),
                to: at(300),
            }),
            ..Batch::default()
        };
        let batch = Arc::new(batch);
        rig.store
            .commit(rig.worker.id, Arc::clone(&batch), at(300))
            .await
            .unwrap();
        // More calls than the store's numbers hold: the whole batch fails, its progress too.
        let broken = Batch {
            counts: calls(&[(0, 1, u64::MAX)]),
            progress: vec![ProgressChange::put("c", "3")],
            ..Batch::default()
        };
        assert!(
            rig.store
                .commit(rig.worker.id, Arc::new(broken), at(300))
                .await
                .is_err()
        );
        assert_eq!(rig.totals(), BTreeMap::from([(TlsVersion::Tls11, (5, 5))]));
        rig.store.close().await;

        let again = open(settings(Some(&path))).await.unwrap();
        assert_eq!(again.worker.progress, [ProgressChange::put("a", "1")]);
        assert_eq!(
            (again.worker.watermark, again.worker.history_start),
            (Some(at(300)), Some(at(0)))
        );
        assert_eq!(
            again.totals(),
            BTreeMap::from([(TlsVersion::Tls11, (5, 5))])
        );
    });
}

#[test]
fn runs_of_outdated_calls_end_after_the_quiet_period_and_survive_a_restart() {
    runtime().block_on(async {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("state.db");
        let rig = open(settings(Some(&path))).await.unwrap();
        let service = RunKey {
            account_id: Name::new("111122223333"),
            aws_service: Name::new("s3"),
            event_name: None,
        };
        let floor = |seconds| at(seconds).floor(Duration::from_secs(300));
        rig.commit(calls(&[(0, 1, 1), (0, 2, 9)]), 600).await;
        rig.commit(calls(&[(DAY, 1, 1)]), DAY + 600).await;
        let run = Run {
            since: floor(0),
            last: floor(DAY),
            detected: at(600),
        };
        assert_eq!(rig.runs().get(&service), Some(&run));
        rig.store.close().await;

        let rig = open(settings(Some(&path))).await.unwrap();
        assert_eq!(rig.runs().get(&service), Some(&run));
        rig.commit(calls(&[(4 * DAY, 0, 1)]), 4 * DAY + 600).await;
        let run = Run {
            since: floor(4 * DAY),
            last: floor(4 * DAY),
            detected: at(4 * DAY + 600),
        };
        assert_eq!(rig.runs().get(&service), Some(&run));
        rig.store.close().await;

        // A higher minimum version tells the runs anew, and history starts at the change.
        let higher = Settings {
            minimum_version: TlsVersion::Tls13,
            ..settings(Some(&path))
        };
        let rig = open_at(higher, at(5 * DAY)).await.unwrap();
        assert_eq!(rig.worker.history_start, Some(at(5 * DAY)));
        let calls = RunKey {
            event_name: Some(Name::new("GetObject")),
            ..service.clone()
        };
        assert_eq!(rig.runs().keys().collect::<Vec<_>>(), [&service, &calls]);
    });
}

#[test]
fn a_store_that_must_not_be_used_is_refused_with_the_reason() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("state.db");
    let refusal = |settings: Settings| {
        runtime().block_on(async { open(settings).await.map(|_| ()).unwrap_err() })
    };
    runtime().block_on(async {
        let rig = open(settings(Some(&path))).await.unwrap();
        let second = open(settings(Some(&path))).await.map(|_| ()).unwrap_err();
        assert!(matches!(second, StoreError::Locked(_)), "{second}");
        rig.store.close().await;
    });

    let finer = Settings {
        bucket: Duration::from_secs(60),
        ..settings(Some(&path))
    };
    assert!(
        matches!(refusal(finer), StoreError::FinerGrid { stored } if stored == Duration::from_secs(300))
    );
    runtime().block_on(async {
        let store = Store::open(settings(Some(&path)), |_| {}).unwrap();
        let other = WorkerName {
            source_type: "lake",
            ..name()
        };
        let error = store.worker(other, at(0)).await.map(|_| ()).unwrap_err();
        assert!(matches!(error, StoreError::TypeChanged { .. }), "{error}");
        store.close().await;
    });

    let database = rusqlite::Connection::open(&path).unwrap();
    database.pragma_update(None, "user_version", 99).unwrap();
    drop(database);
    assert!(matches!(
        refusal(settings(Some(&path))),
        StoreError::Newer { found: 99, .. }
    ));

    let foreign = home.path().join("foreign.db");
    rusqlite::Connection::open(&foreign)
        .unwrap()
        .execute_batch("CREATE TABLE t (a)")
        .unwrap();
    assert!(matches!(
        refusal(settings(Some(&foreign))),
        StoreError::Foreign(_)
    ));
    let garbage = home.path().join("garbage.db");
    std::fs::write(
        &garbage,
        "not a database, though long enough to be looked at as one".repeat(99),
    )
    .unwrap();
    assert!(matches!(
        refusal(settings(Some(&garbage))),
        StoreError::Foreign(_)
    ));
    for bytes in ["", "S"] {
        let empty = home.path().join("empty.db");
        std::fs::write(&empty, bytes).unwrap();
        let refusal = refusal(settings(Some(&empty)));
        assert!(matches!(refusal, StoreError::Empty(_)), "{refusal}");
    }
    let unwritable = Path::new("/proc/state/state.db");
    assert!(matches!(
        refusal(settings(Some(unwritable))),
        StoreError::Unwritable { .. }
    ));
}

#[test]
fn another_grid_begins_history_anew() {
    runtime().block_on(async {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("state.db");
        let rig = open(settings(Some(&path))).await.unwrap();
        rig.commit(calls(&[(0, 1, 1)]), 600).await;
        rig.store.close().await;
        for (seconds, start) in [(300, 0), (3600, 600), (3600, 600)] {
            let coarser = Settings {
                bucket: Duration::from_secs(seconds),
                ..settings(Some(&path))
            };
            let rig = open(coarser).await.unwrap();
            assert_eq!(rig.worker.history_start, Some(at(start)));
            rig.store.close().await;
        }
    });
}

#[test]
fn a_gap_begins_history_anew() {
    runtime().block_on(async {
        let rig = open(settings(None)).await.unwrap();
        let commit = async |from: i64, to: i64| {
            let covered = Some(Window {
                from: at(from),
                to: at(to),
            });
            let batch = Batch {
                covered,
                ..Batch::default()
            };
            let committed = rig
                .store
                .commit(rig.worker.id, Arc::new(batch), at(to))
                .await
                .unwrap();
            (committed.history_start, committed.watermark)
        };
        assert_eq!(commit(0, 600).await, (Some(at(0)), Some(at(600))));
        assert_eq!(commit(600, 900).await, (Some(at(0)), Some(at(900))));
        assert_eq!(
            commit(300, 700).await,
            (Some(at(0)), Some(at(900))),
            "late news"
        );
        assert_eq!(commit(1200, 1500).await, (Some(at(1200)), Some(at(1500))));
    });
}

/// What a start or a reload would take over: the states, or every reason why not.
async fn tried(store: &Store, settings: Settings, names: &[WorkerName]) -> Vec<String> {
    let tried = store.try_take_over(settings, names.to_vec(), at(0)).await;
    let errors = tried.err().unwrap_or_default();
    errors.iter().map(ToString::to_string).collect()
}

#[test]
fn workers_are_taken_over_together_or_not_at_all() {
    runtime().block_on(async {
        let rig = open(settings(None)).await.unwrap();
        let mut counts = Counts::default();
        let tally = Tally {
            calls: 3,
            last: at(60),
        };
        counts.add(at(0), &key(TlsVersion::Tls11), tally);
        rig.commit(counts, 600).await;
        let of = |source: &str, source_type, region: &str| WorkerName {
            source: source.into(),
            source_type,
            account: String::new(),
            region: region.into(),
        };
        let take_over = async |settings, names: &[WorkerName]| {
            let shown = Arc::new(Mutex::new(Vec::new()));
            let kept = Arc::clone(&shown);
            let publish = move |totals| *kept.lock().unwrap() = totals;
            let taken = rig.store.take_over(settings, names.to_vec(), at(0), publish);
            let taken = taken.await;
            let shown: Vec<Change> = std::mem::take(&mut shown.lock().unwrap());
            (taken, shown)
        };

        // The second is of another type, though of another Region; the grid is finer as well.
        let wrong = [of("b", "scripted", ""), of("a", "lake", "x"), of("a", "lake", "y")];
        let finer = Settings {
            bucket: Duration::from_secs(60),
            ..settings(None)
        };
        let other_type =
            "source `a` is stored with the type `scripted`: a source of another type needs another `name`";
        assert_eq!(tried(&rig.store, settings(None), &wrong).await, [other_type]);
        let errors = tried(&rig.store, finer.clone(), &wrong).await;
        assert_eq!(errors.len(), 2, "{errors:?}");
        assert!(errors[0].starts_with("`window.bucket` is finer"), "{errors:?}");
        let (taken, shown) = take_over(settings(None), &wrong).await;
        assert!(matches!(taken, Err(StoreError::TypeChanged { .. })));
        assert_eq!(shown, []);
        // Neither left anything behind: the first goes on, and the name of the new one is free for any type.
        rig.commit(Counts::default(), 900).await;
        let (taken, _) = take_over(settings(None), &[name(), of("b", "lake", "")]).await;
        assert_eq!(taken.unwrap()[0].watermark, Some(at(900)));

        // A place that is gone keeps its counters, and has no part in the gauges; a source that is gone has neither.
        let (taken, shown) = take_over(settings(None), &[of("a", "scripted", "x")]).await;
        assert_eq!(taken.unwrap()[0].watermark, None);
        let told: Vec<_> = shown
            .iter()
            .map(|change| {
                let keys = change.keys.iter().map(|key| (key.calls, key.window));
                (&*change.source, change.watermark, keys.collect::<Vec<_>>(), change.runs.len())
            })
            .collect();
        let expected = [("a", None, vec![], 0), ("a", None, vec![(3, 0)], 0)];
        assert_eq!(told, expected);
        let batch = Arc::new(Batch::default());
        let unknown = rig.store.commit(rig.worker.id, batch, at(900)).await;
        assert!(unknown.is_err(), "it is counted for no more");
    });
}

#[test]
fn a_source_that_is_gone_is_dropped_when_all_it_counted_is_older_than_the_retention() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("state.db");
    let rows = || {
        let database = rusqlite::Connection::open(&path).unwrap();
        [
            "workers", "counts", "totals", "runs", "progress", "settings",
        ]
        .map(|table| {
            let select = format!("SELECT count(*) FROM {table}");
            database
                .query_row(&select, [], |row| row.get::<_, i64>(0))
                .unwrap()
        })
    };
    runtime().block_on(async {
        let rig = open(settings(Some(&path))).await.unwrap();
        let mut batch = Batch {
            covered: Some(Window {
                from: at(0),
                to: at(600),
            }),
            progress: vec![ProgressChange::put("seen", vec![1])],
            ..Batch::default()
        };
        let tally = Tally {
            calls: 1,
            last: at(60),
        };
        batch.counts.add(at(0), &key(TlsVersion::Tls11), tally);
        let committed = rig.store.commit(rig.worker.id, Arc::new(batch), at(600));
        committed.await.unwrap();
        let before = rows();
        assert!(before.iter().all(|rows| *rows > 0), "{before:?}");
        let other = WorkerName {
            source: "b".into(),
            source_type: "lake",
            ..name()
        };
        // The retention is ten days; what is configured stays, however old.
        for (names, now, left) in [
            (vec![other.clone()], 9 * DAY, 2),
            (vec![name(), other.clone()], 20 * DAY, 2),
            (vec![other.clone()], 20 * DAY, 1),
        ] {
            let taken = rig.store.take_over(settings(None), names, at(now), |_| {});
            taken.await.unwrap();
            assert_eq!(rows()[0], left);
        }
        assert_eq!(rows()[1..5], [0; 4]);
        // The grid, the labels of callers, and what the other was told by.
        assert_eq!(rows()[5], 3);
        rig.store.close().await;
    });
}
