//! Callers in the store: those of the window and no others, over commits in any order, restarts and too many of them.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cloudtrail_tls_exporter::batch::{Batch, Callers};
use cloudtrail_tls_exporter::call::{CallKey, Caller, CallerLabels, Name, Tally};
use cloudtrail_tls_exporter::store::{CALLERS, Settings, Store, StoreError, WorkerName};
use cloudtrail_tls_exporter::time::Timestamp;
use cloudtrail_tls_exporter::tls::{KeyExchange, TlsVersion};
use cloudtrail_tls_exporter::totals::Change;
use cloudtrail_tls_exporter::window::Window;
use proptest::prelude::*;

const BUCKET: Duration = Duration::from_secs(300);
const WINDOW: Duration = Duration::from_secs(3600);
/// Not on the grid, so that the window's start falls inside a bucket.
const START: i64 = 1_795_000_017;
const LABELS: CallerLabels = CallerLabels {
    principal: true,
    user_agent: true,
    source_ip: false,
};

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_secs(START + seconds)
}

fn settings(path: &Path) -> Settings {
    Settings {
        path: Some(path.to_owned()),
        retention: Duration::from_secs(10 * 86_400),
        window: WINDOW,
        bucket: BUCKET,
        minimum_version: TlsVersion::Tls12,
        quiet_period: Duration::from_secs(2 * 86_400),
        series: Default::default(),
        callers: LABELS,
    }
}

fn caller(account: &str, user_agent: &str) -> Arc<Caller> {
    Arc::new(Caller {
        aws_service: Name::new("s3"),
        event_name: Name::new("GetObject"),
        tls_version: TlsVersion::Tls11,
        account_id: Name::new(account),
        principal: Name::new("arn:aws:iam::111122223333:role/batch"),
        user_agent: Name::new(user_agent),
        source_ip: Name::new(""),
    })
}

/// A store, its worker, and every change it has published.
struct Rig {
    store: Store,
    worker: i64,
    changes: Arc<Mutex<Vec<Change>>>,
}

impl Rig {
    async fn open(settings: Settings) -> Result<Self, StoreError> {
        let changes = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&changes);
        let store = Store::open(settings, move |change| kept.lock().unwrap().push(change))?;
        let name = WorkerName {
            source: "a".into(),
            source_type: "scripted",
            account: String::new(),
            region: String::new(),
        };
        let worker = store.worker(name, at(0)).await?.id;
        Ok(Self {
            store,
            worker,
            changes,
        })
    }

    /// Commits calls of callers, each in the bucket of its time.
    async fn commit(&self, calls: &[(i64, Arc<Caller>, u64)], to: i64) -> Result<(), StoreError> {
        let mut callers = Callers::default();
        for (seconds, caller, calls) in calls {
            callers.add(at(*seconds).floor(BUCKET), caller, *calls);
        }
        let batch = Batch {
            callers,
            covered: Some(Window {
                from: at(0),
                to: at(to),
            }),
            ..Batch::default()
        };
        let committed = self.store.commit(self.worker, Arc::new(batch), at(to));
        committed.await.map(|_| ())
    }

    /// What the changes add up to.
    fn callers(&self) -> BTreeMap<Arc<Caller>, i64> {
        let mut callers = BTreeMap::new();
        let changes = self.changes.lock().unwrap();
        for change in changes.iter().flat_map(|change| &change.callers) {
            *callers.entry(Arc::clone(&change.caller)).or_default() += change.window;
        }
        callers.retain(|_, calls| *calls != 0);
        callers
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
}

/// How many rows the two tables have.
fn rows(path: &Path) -> [u64; 2] {
    let database = rusqlite::Connection::open(path).unwrap();
    ["callers", "caller_counts"].map(|table| {
        let count = format!("SELECT count(*) FROM {table}");
        database
            .query_row(&count, [], |row| row.get::<_, u64>(0))
            .unwrap()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn callers_kept_step_by_step_are_those_of_the_window(
        steps in prop::collection::vec((0_i64..2000, prop::collection::vec((0_i64..6000, 0_usize..6, 1_u64..9), 0..8)), 1..25),
        restarts in prop::collection::vec(any::<prop::sample::Index>(), 0..3),
    ) {
        runtime().block_on(async {
            let home = tempfile::tempdir().unwrap();
            let path = home.path().join("state.db");
            let mut rig = Rig::open(settings(&path)).await.unwrap();
            let restarts: Vec<usize> = restarts.iter().map(|at| at.index(steps.len())).collect();
            let mut to = 0;
            let mut kept: Vec<(i64, Arc<Caller>, u64)> = Vec::new();
            for (number, (step, calls)) in steps.iter().enumerate() {
                to += step;
                let calls = calls.iter().map(|(ago, name, calls)| {
                    let user_agent = ["a", "b", "c"][name % 3];
                    (to - ago, caller(["1", "2"][name / 3], user_agent), *calls)
                });
                let calls: Vec<_> = calls.collect();
                rig.commit(&calls, to).await.unwrap();
                kept.extend(calls);
                // What the window has left does not come back.
                let end = at(to + 299).floor(BUCKET);
                let start = end.minus(WINDOW);
                kept.retain(|(seconds, ..)| at(*seconds).floor(BUCKET) >= start);
                let mut truth: BTreeMap<Arc<Caller>, i64> = BTreeMap::new();
                for (_, caller, calls) in &kept {
                    *truth.entry(Arc::clone(caller)).or_default() += i64::try_from(*calls).unwrap();
                }
                prop_assert_eq!(rig.callers(), truth.clone());
                if restarts.contains(&number) {
                    rig.store.close().await;
                    rig = Rig::open(settings(&path)).await.unwrap();
                    prop_assert_eq!(rig.callers(), truth);
                }
            }
            // Two windows later nothing is left, neither shown nor stored.
            rig.commit(&[], to + 7200).await.unwrap();
            prop_assert!(rig.callers().is_empty());
            rig.store.close().await;
            prop_assert_eq!(rows(&path), [0, 0]);
            Ok(())
        })?;
    }
}

#[test]
fn a_client_with_a_new_user_agent_for_each_call_is_bounded_and_pushes_out_none_but_its_own() {
    runtime().block_on(async {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("state.db");
        let mut rig = Rig::open(settings(&path)).await.unwrap();
        let quiet = caller("quiet", "only one");
        rig.commit(&[(0, Arc::clone(&quiet), 1)], 1).await.unwrap();
        for step in 0..3 {
            let mut calls = vec![(step * 300, caller("loud", "steady"), 2)];
            calls.extend((0..6000).map(|number| {
                (
                    step * 300,
                    caller("loud", &format!("{step:09} {number:09}")),
                    1,
                )
            }));
            rig.commit(&calls, step * 300 + 1).await.unwrap();
        }
        let known = rig.callers();
        assert_eq!(known.len(), CALLERS);
        assert_eq!(known.get(&quiet), Some(&1));
        assert_eq!(known.get(&caller("loud", "steady")), Some(&6));
        rig.store.close().await;
        assert_eq!(rows(&path), [CALLERS as u64, 3]);

        rig = Rig::open(settings(&path)).await.unwrap();
        assert_eq!(rig.callers(), known);
        // Their numbers are free again when they have left.
        rig.commit(&[(20_000, quiet, 3)], 20_000).await.unwrap();
        assert_eq!(rig.callers().into_values().collect::<Vec<_>>(), [3]);
        rig.store.close().await;
        assert_eq!(rows(&path), [1, 1]);
    });
}

#[test]
fn with_other_labels_all_callers_are_forgotten() {
    runtime().block_on(async {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("state.db");
        let rig = Rig::open(settings(&path)).await.unwrap();
        let calls = [(0, caller("1", "a"), 1)];
        rig.commit(&calls, 1).await.unwrap();
        rig.store.close().await;
        let rig = Rig::open(settings(&path)).await.unwrap();
        assert_eq!(rig.callers().len(), 1);
        rig.store.close().await;
        let fewer = Settings {
            callers: CallerLabels {
                user_agent: false,
                ..LABELS
            },
            ..settings(&path)
        };
        let rig = Rig::open(fewer).await.unwrap();
        assert_eq!(rig.callers().len(), 0);
        rig.store.close().await;
        assert_eq!(rows(&path), [0, 0]);
    });
}

#[test]
fn a_shorter_window_leaves_out_what_lies_before_it() {
    runtime().block_on(async {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("state.db");
        let rig = Rig::open(settings(&path)).await.unwrap();
        let calls = [(0, caller("1", "old"), 1), (3000, caller("1", "new"), 2)];
        rig.commit(&calls, 3001).await.unwrap();
        assert_eq!(rig.callers().len(), 2);
        rig.store.close().await;
        let shorter = Settings {
            window: BUCKET,
            ..settings(&path)
        };
        let rig = Rig::open(shorter).await.unwrap();
        assert_eq!(rig.callers(), BTreeMap::from([(caller("1", "new"), 2)]));
        rig.commit(&[], 3002).await.unwrap();
        assert_eq!(rig.callers().len(), 1);
        rig.store.close().await;
        assert_eq!(rows(&path), [1, 1]);
    });
}

/// The tables of version 2 are taken away again: what is left is what version 1 wrote.
#[test]
fn a_store_of_version_1_is_carried_on_with_all_its_counts() {
    runtime().block_on(async {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("state.db");
        let rig = Rig::open(settings(&path)).await.unwrap();
        let key = CallKey {
            aws_service: Name::new("s3"),
            event_name: Name::new("GetObject"),
            tls_version: TlsVersion::Tls11,
            cipher_suite: Name::new("X"),
            key_exchange: KeyExchange::Unreported,
            account_id: Name::new("1"),
            aws_region: Name::new("eu-west-1"),
        };
        let mut batch = Batch {
            covered: Some(Window {
                from: at(0),
                to: at(1),
            }),
            ..Batch::default()
        };
        let tally = Tally {
            calls: 5,
            last: at(0),
        };
        batch
            .counts
            .add(at(0).floor(BUCKET), &Arc::new(key), tally);
        rig.store
            .commit(rig.worker, Arc::new(batch), at(1))
            .await
            .unwrap();
        rig.store.close().await;
        let database = rusqlite::Connection::open(&path).unwrap();
        let back = "DROP TABLE admissions; DROP TABLE callers; DROP TABLE caller_counts; DELETE FROM settings WHERE name = 'caller_labels'; \
                    PRAGMA user_version = 1;";
        database.execute_batch(back).unwrap();
        drop(database);

        let rig = Rig::open(settings(&path)).await.unwrap();
        let calls = |rig: &Rig| -> Vec<(u64, i64)> {
            let changes = rig.changes.lock().unwrap();
            let keys = changes.iter().flat_map(|change| &change.keys);
            keys.map(|key| (key.calls, key.window)).collect()
        };
        assert_eq!(calls(&rig), [(5, 5)]);
        rig.commit(&[(0, caller("1", "a"), 3)], 2).await.unwrap();
        assert_eq!(rig.callers(), BTreeMap::from([(caller("1", "a"), 3)]));
        rig.store.close().await;
        let database = rusqlite::Connection::open(&path).unwrap();
        let version = database.pragma_query_value(None, "user_version", |row| row.get::<_, i32>(0));
        assert_eq!(version, Ok(3));
    });
}

#[test]
fn rows_that_contradict_each_other_are_damage() {
    for damage in [
        "UPDATE callers SET number = 7",
        "UPDATE callers SET tls_version = 'TLSv9'",
        "UPDATE caller_counts SET calls = x'01'",
        "INSERT INTO callers SELECT worker, 9, aws_service, event_name, tls_version, account_id, principal, user_agent,
             source_ip FROM callers; UPDATE caller_counts SET calls = x'0200030903'",
    ] {
        runtime().block_on(async {
            let home = tempfile::tempdir().unwrap();
            let path = home.path().join("state.db");
            let rig = Rig::open(settings(&path)).await.unwrap();
            rig.commit(&[(0, caller("1", "a"), 3)], 1).await.unwrap();
            rig.store.close().await;
            let database = rusqlite::Connection::open(&path).unwrap();
            database.execute_batch(damage).unwrap();
            drop(database);
            let opened = Rig::open(settings(&path)).await.map(|_| ());
            assert!(matches!(opened, Err(StoreError::Damaged(_))), "{damage}: {opened:?}");
        });
    }
}
