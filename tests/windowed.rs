//! The seam as a query source uses it: a scripted source that asks for windows, stores its query before it
//! waits for it, fails, splits and is killed, over the real worker and the real store.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use cloudtrail_tls_exporter::batch::{Batch, Counts, ProgressChange};
use cloudtrail_tls_exporter::call::{CallKey, CallerLabels, Name, Tally};
use cloudtrail_tls_exporter::metrics::Metrics;
use cloudtrail_tls_exporter::source::{BadProgress, Progress, Reason, Source, SourceError};
use cloudtrail_tls_exporter::status::Status;
use cloudtrail_tls_exporter::store::{Settings, Store, WorkerName};
use cloudtrail_tls_exporter::time::Timestamp;
use cloudtrail_tls_exporter::tls::{KeyExchange, TlsVersion};
use cloudtrail_tls_exporter::totals::Change;
use cloudtrail_tls_exporter::window::{Schedule, Window};
use cloudtrail_tls_exporter::worker::{Reports, Worker};
use proptest::prelude::*;
use tokio::sync::Notify;

const START: i64 = 1_795_000_000;
const SCHEDULE: Schedule = Schedule {
    bucket: Duration::from_secs(60),
    settle: Duration::from_secs(120),
    longest: Duration::from_secs(600),
    interval: Duration::from_secs(60),
};

/// What the engine does at one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    Answer,
    Fail,
    /// As many rows as the limit: the window must be split.
    Truncate,
    /// The process is killed while it waits.
    Kill,
}

/// The engine: calls with their times, and a script. Counts how often each window was answered.
#[derive(Debug)]
struct Engine {
    calls: Vec<(i64, TlsVersion)>,
    script: Mutex<Vec<Act>>,
    answered: Mutex<Vec<Window>>,
    started: Mutex<BTreeMap<String, Window>>,
    killed: Notify,
}

#[derive(Default)]
struct Memory {
    watermark: Option<Timestamp>,
    query: Option<(String, Window)>,
}

fn number(text: &[u8]) -> Option<i64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

impl Progress for Memory {
    fn apply(&mut self, change: &ProgressChange) -> Result<(), BadProgress> {
        let bad = || BadProgress {
            key: change.key.clone(),
        };
        match (change.key.as_str(), change.value.as_deref()) {
            ("watermark", Some(value)) => {
                self.watermark = Some(Timestamp::from_secs(number(value).ok_or_else(bad)?));
            }
            ("query", None) => self.query = None,
            ("query", Some(value)) => {
                let text = std::str::from_utf8(value).map_err(|_| bad())?;
                let [id, from, to] = text
                    .split(' ')
                    .collect::<Vec<_>>()
                    .try_into()
                    .map_err(|_| bad())?;
                let time = |text: &str| text.parse().map(Timestamp::from_secs).map_err(|_| bad());
                self.query = Some((
                    id.to_owned(),
                    Window {
                        from: time(from)?,
                        to: time(to)?,
                    },
                ));
            }
            _ => return Err(bad()),
        }
        Ok(())
    }
}

/// Asks the engine for windows.
struct Scripted {
    engine: Arc<Engine>,
    /// The parts of a window that was too large; in memory only, as a restart may ask anew.
    parts: Vec<Window>,
}

impl Source for Scripted {
    type Progress = Memory;

    async fn next_batch(
        &mut self,
        progress: &Memory,
        now: Timestamp,
    ) -> Result<Option<Batch>, SourceError> {
        let watermark = progress.watermark.unwrap_or(Timestamp::from_secs(START));
        let Some((id, window)) = progress.query.clone() else {
            let split = self.parts.pop().filter(|part| part.from == watermark);
            let Some(window) = split.or_else(|| SCHEDULE.due(watermark, now)) else {
                return Ok(None);
            };
            return Ok(Some(self.start(window)));
        };
        let act = self
            .engine
            .script
            .lock()
            .unwrap()
            .pop()
            .unwrap_or(Act::Answer);
        match act {
            Act::Answer => Ok(Some(self.answer(&id, window))),
            Act::Fail => Err(SourceError::new(
                Reason::Timeout,
                "the engine took too long",
            )),
            Act::Kill => {
                self.engine.killed.notify_one();
                std::future::pending().await
            }
            Act::Truncate => match window.halves() {
                None => Ok(Some(self.answer(&id, window))),
                Some((first, second)) => {
                    self.parts.extend([second, first]);
                    Ok(Some(Batch {
                        progress: vec![ProgressChange::remove("query")],
                        ..Batch::default()
                    }))
                }
            },
        }
    }
}

impl Scripted {
    /// Starts a query; its id is stored before anybody waits for it.
    fn start(&self, window: Window) -> Batch {
        let mut started = self.engine.started.lock().unwrap();
        let id = format!("q{}", started.len());
        started.insert(id.clone(), window);
        let value = format!("{id} {} {}", window.from.secs(), window.to.secs());
        Batch {
            progress: vec![ProgressChange::put("query", value)],
            ..Batch::default()
        }
    }

    fn answer(&self, id: &str, window: Window) -> Batch {
        assert_eq!(
            self.engine.started.lock().unwrap().get(id),
            Some(&window),
            "a query of another window"
        );
        self.engine.answered.lock().unwrap().push(window);
        let mut counts = Counts::default();
        for &(time, version) in &self.engine.calls {
            let time = Timestamp::from_secs(time);
            if window.from <= time && time < window.to {
                counts.add(
                    time.floor(SCHEDULE.bucket),
                    &Arc::new(call(version)),
                    Tally {
                        calls: 1,
                        last: time,
                    },
                );
            }
        }
        Batch {
            counts,
            progress: vec![
                ProgressChange::put("watermark", window.to.secs().to_string()),
                ProgressChange::remove("query"),
            ],
            covered: Some(window),
            ..Batch::default()
        }
    }
}

fn call(tls_version: TlsVersion) -> CallKey {
    CallKey {
        aws_service: Name::new("s3"),
        event_name: Name::new("GetObject"),
        tls_version,
        cipher_suite: Name::new(""),
        key_exchange: KeyExchange::None,
        account_id: Name::new("111122223333"),
        aws_region: Name::new("eu-west-1"),
    }
}

static NOW: AtomicI64 = AtomicI64::new(0);

fn now() -> Timestamp {
    Timestamp::from_secs(NOW.load(Ordering::SeqCst))
}

fn settings(path: &Path) -> Settings {
    Settings {
        path: Some(path.to_owned()),
        retention: Duration::from_secs(35 * 86_400),
        window: Duration::from_secs(86_400),
        bucket: SCHEDULE.bucket,
        minimum_version: TlsVersion::Tls12,
        quiet_period: Duration::from_secs(7 * 86_400),
        series: Default::default(),
        callers: CallerLabels::default(),
    }
}

fn name() -> WorkerName {
    WorkerName {
        source: "scripted".into(),
        source_type: "scripted",
        account: String::new(),
        region: String::new(),
    }
}

/// One life of the process: ticks until nothing is due, or until it is killed.
async fn live(engine: &Arc<Engine>, store: &Path) {
    let store = Store::open(settings(store), |_| {}).unwrap();
    let state = store.worker(name(), now()).await.unwrap();
    let reports = Reports {
        metrics: Metrics::new().unwrap(),
        status: Status::default(),
    };
    let source = Scripted {
        engine: Arc::clone(engine),
        parts: Vec::new(),
    };
    let mut worker = Worker::new(name(), &state, source, store.clone(), reports, now).unwrap();
    let caught_up = async { while worker.tick().await.is_err() {} };
    tokio::select! {
        () = caught_up => {}
        () = engine.killed.notified() => {}
    }
    drop(worker);
    store.close().await;
}

/// The counters in the store, and the gauges, by version.
fn stored(path: &Path) -> BTreeMap<TlsVersion, (u64, i64)> {
    let (changes, loaded) = mpsc::channel::<Change>();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(async {
        let store =
            Store::open(settings(path), move |change| changes.send(change).unwrap()).unwrap();
        store.worker(name(), now()).await.unwrap();
        store.close().await;
    });
    let change = loaded.recv().unwrap();
    change
        .keys
        .iter()
        .map(|key| (key.key.tls_version, (key.calls, key.window)))
        .collect()
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![3 => Just(Act::Answer), 2 => Just(Act::Fail), 2 => Just(Act::Truncate), 2 => Just(Act::Kill)];
    prop::collection::vec(act, 0..40)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn every_call_counts_once_whatever_the_engine_does(
        calls in prop::collection::vec((0_i64..7200, 0_usize..4), 0..60),
        script in acts(),
    ) {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("state.db");
        NOW.store(START + 7200 + 120, Ordering::SeqCst);
        let calls: Vec<_> = calls.into_iter().map(|(time, version)| (START + time, TlsVersion::ALL[version])).collect();
        let kills = script.iter().filter(|act| **act == Act::Kill).count();
        let engine = Arc::new(Engine {
            calls: calls.clone(),
            script: Mutex::new(script),
            answered: Mutex::default(),
            started: Mutex::default(),
            killed: Notify::new(),
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        for _ in 0..=kills {
            runtime.block_on(live(&engine, &path));
        }

        let end = now().minus(SCHEDULE.settle).floor(SCHEDULE.bucket);
        let mut truth: BTreeMap<TlsVersion, (u64, i64)> = BTreeMap::new();
        for (_, version) in calls.iter().filter(|(time, _)| *time < end.secs()) {
            let (counter, gauge) = truth.entry(*version).or_default();
            *counter += 1;
            *gauge += 1;
        }
        prop_assert_eq!(stored(&path), truth);
        // Committed windows touch and do not overlap; each was answered, and paid for, once.
        let answered = engine.answered.lock().unwrap();
        let mut watermark = Timestamp::from_secs(START);
        for window in answered.iter() {
            prop_assert_eq!(window.from, watermark);
            watermark = window.to;
        }
        prop_assert_eq!(watermark, end);
    }
}
