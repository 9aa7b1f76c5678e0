//! The regression memory over scripted weeks: when design's page and warning are on, hour by hour, as a scrape and the
//! committed times tell. Each history is lived twice, the second time with a restart every few hours.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cloudtrail_tls_exporter::batch::Batch;
use cloudtrail_tls_exporter::call::{CallKey, Name, Tally};
use cloudtrail_tls_exporter::exposition::negotiate::Format;
use cloudtrail_tls_exporter::exposition::{self, Publisher};
use cloudtrail_tls_exporter::metrics::Metrics;
use cloudtrail_tls_exporter::store::{self, Store, WorkerName};
use cloudtrail_tls_exporter::time::Timestamp;
use cloudtrail_tls_exporter::tls::{KeyExchange, TlsVersion};
use cloudtrail_tls_exporter::window::Window;

const HOUR: i64 = 3600;
const DAY: i64 = 24;
const QUIET: i64 = 7 * DAY;
const START: i64 = 1_795_003_200;

const TLS10: TlsVersion = TlsVersion::Tls10;
const TLS12: TlsVersion = TlsVersion::Tls12;

fn at(hour: i64) -> Timestamp {
    Timestamp::from_secs(START + hour * HOUR)
}

/// What happens in a history, by the hour.
#[derive(Clone, Debug)]
enum Event {
    /// Calls to a service on a version, once an hour.
    Calls(Range<i64>, &'static str, TlsVersion),
    /// The exporter does not run; what was not counted is counted afterwards.
    Down(Range<i64>),
    /// It does not run for so long that the time is given up.
    Lost(Range<i64>),
    /// `tls.minimum_version` is raised.
    Minimum(i64, TlsVersion),
    /// Something else is asked for from now on.
    BeginsAnew(i64),
}

struct Life {
    store: Store,
    worker: i64,
    publisher: Publisher,
    history_start: Option<Timestamp>,
    watermark: Option<Timestamp>,
}

impl Life {
    async fn begin(path: &Path, minimum_version: TlsVersion, hour: i64) -> Self {
        let (window, hours) = (Duration::from_secs(86_400), 3600);
        let quiet_period = Duration::from_secs(QUIET as u64 * hours);
        let exposition = exposition::Settings {
            minimum_version,
            window,
            retention: 35 * window,
            quiet_period,
            series: Default::default(),
            callers: Default::default(),
        };
        let publisher = Publisher::start(exposition.clone(), Metrics::new().unwrap()).unwrap();
        let settings = store::Settings {
            path: Some(path.to_owned()),
            retention: 35 * window,
            window,
            bucket: Duration::from_secs(300),
            minimum_version,
            quiet_period,
            series: Default::default(),
            callers: Default::default(),
        };
        let changes = publisher.clone();
        let store = Store::open(settings.clone(), move |change| changes.change(change)).unwrap();
        let name = WorkerName {
            source: "a".into(),
            source_type: "scripted",
            account: String::new(),
            region: String::new(),
        };
        let shown = publisher.clone();
        let publish = move |totals| shown.show_anew(exposition, totals);
        let states = store.take_over(settings, vec![name], at(hour), publish);
        let state = states.await.unwrap().remove(0);
        Self {
            store,
            worker: state.id,
            publisher,
            history_start: state.history_start,
            watermark: state.watermark,
        }
    }

    async fn commit(&mut self, batch: Batch, hour: i64) {
        let committed = self.store.commit(self.worker, Arc::new(batch), at(hour));
        let committed = committed.await.unwrap();
        self.history_start = committed.history_start;
        self.watermark = committed.watermark;
    }

    /// A time of the runs by service.
    fn times(&self, name: &str) -> BTreeMap<String, i64> {
        let body = self.publisher.newest().body(&[], Format::Text, false);
        let text = String::from_utf8(body.concat()).unwrap();
        let samples = text
            .lines()
            .filter_map(|line| line.strip_prefix(name)?.strip_prefix('{'));
        let times = samples.map(|sample| {
            let (_, service) = sample.split_once("aws_service=\"").unwrap();
            let (service, rest) = service.split_once('"').unwrap();
            let (_, value) = rest.rsplit_once(' ').unwrap();
            (service.to_owned(), value.parse().unwrap())
        });
        times.collect()
    }
}

/// The hours in which something is on, as ranges.
type Hours = Vec<Range<i64>>;

fn add(hours: &mut Hours, hour: i64) {
    match hours.last_mut() {
        Some(last) if last.end == hour => last.end = hour + 1,
        _ => hours.push(hour..hour + 1),
    }
}

/// When the page and the warning of a service are on, over `end` hours.
async fn lived(history: &[Event], end: i64, restart_every: i64) -> [Hours; 2] {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("state.db");
    let mut minimum = TLS12;
    let mut life = Life::begin(&path, minimum, 0).await;
    let mut on = [Hours::new(), Hours::new()];
    for hour in 1..=end {
        let mut restart = hour % restart_every == 0;
        let mut from = life
            .watermark
            .map_or(hour - 1, |time| (time.secs() - START) / HOUR);
        let mut away = false;
        let mut begins_anew = false;
        for event in history {
            match event {
                Event::Down(hours) | Event::Lost(hours) if hours.contains(&hour) => away = true,
                Event::Lost(hours) if hours.end == hour => from = hour - 1,
                Event::Minimum(when, version) if *when == hour => {
                    (minimum, restart) = (*version, true);
                }
                Event::BeginsAnew(when) if *when == hour => begins_anew = true,
                _ => {}
            }
        }
        if away {
            continue;
        }
        if restart {
            life.store.close().await;
            life = Life::begin(&path, minimum, hour).await;
        }
        if begins_anew {
            let batch = Batch {
                begins_anew,
                ..Batch::default()
            };
            life.commit(batch, hour).await;
        }
        let window = Window {
            from: at(from),
            to: at(hour),
        };
        let mut batch = Batch {
            covered: Some(window),
            ..Batch::default()
        };
        for event in history {
            let Event::Calls(hours, service, version) = event else {
                continue;
            };
            for called in from.max(hours.start)..hour.min(hours.end) {
                let key = CallKey {
                    aws_service: Name::new(service),
                    event_name: Name::new("GetObject"),
                    tls_version: *version,
                    cipher_suite: Name::new("X"),
                    key_exchange: KeyExchange::Unreported,
                    account_id: Name::new("111122223333"),
                    aws_region: Name::new("eu-west-1"),
                };
                let tally = Tally {
                    calls: 1,
                    last: at(called),
                };
                batch.counts.add(at(called), &Arc::new(key), tally);
            }
        }
        life.commit(batch, hour).await;
        life.publisher.settle();
        let since = life.times("cloudtrail_tls_outdated_since_timestamp_seconds");
        let detected = life.times("cloudtrail_tls_outdated_detected_timestamp_seconds");
        assert_eq!(
            since.keys().collect::<Vec<_>>(),
            detected.keys().collect::<Vec<_>>()
        );
        let history_start = life.history_start.unwrap().secs();
        for (service, since) in &since {
            let fresh = at(hour).secs() - detected[service] < DAY * HOUR;
            let clean = (since - history_start) / HOUR;
            if service == "s3" && fresh {
                if clean >= QUIET {
                    add(&mut on[0], hour);
                } else if clean >= DAY {
                    add(&mut on[1], hour);
                }
            }
        }
    }
    life.store.close().await;
    on
}

/// Lives a history with and without restarts: the hours of the page and of the warning, which are the same.
fn live(history: &[Event], days: i64) -> [Hours; 2] {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let [calm, restless] =
        [i64::MAX, 5].map(|every| runtime.block_on(lived(history, days * DAY, every)));
    assert_eq!(calm, restless, "restarts changed it: {history:?}");
    calm
}

fn calls(hours: Range<i64>) -> Event {
    Event::Calls(hours, "s3", TLS10)
}

/// All that the page has to say of a regression detected in this hour.
fn for_a_day(hour: i64) -> Hours {
    std::iter::once(hour..hour + DAY).collect()
}

const NEVER: Hours = Vec::new();

#[test]
fn legacy_traffic_from_the_start_never_pages() {
    assert_eq!(live(&[calls(0..21 * DAY)], 21), [NEVER, NEVER]);
    // Nor if it is first seen within a day.
    assert_eq!(live(&[calls(DAY - 1..21 * DAY)], 21), [NEVER, NEVER]);
}

#[test]
fn a_service_that_was_clean_pages_for_a_day_however_long_the_run() {
    let first = QUIET + 5;
    let paged = [for_a_day(first + 1), NEVER];
    assert_eq!(live(&[calls(first..first + 1)], 12), paged);
    assert_eq!(live(&[calls(first..20 * DAY)], 20), paged);
    // The hour before, history was too short to page: it warns.
    let first = QUIET - 1;
    assert_eq!(
        live(&[calls(first..first + 1)], 12),
        [NEVER, for_a_day(first + 1)]
    );
}

#[test]
fn a_run_ends_after_the_quiet_period_and_the_next_call_pages_again() {
    let legacy = calls(0..3 * DAY);
    let last = 3 * DAY - 1;
    let again = |after: i64| live(&[legacy.clone(), calls(last + after..last + after + 1)], 16);
    assert_eq!(again(QUIET - 1), [NEVER, NEVER], "the same run");
    assert_eq!(again(QUIET), [for_a_day(last + QUIET + 1), NEVER]);
}

#[test]
fn another_service_does_not_hide_it() {
    let first = 9 * DAY;
    let loud = Event::Calls(0..20 * DAY, "ec2", TLS10);
    let paged = [for_a_day(first + 1), NEVER];
    assert_eq!(live(&[loud, calls(first..20 * DAY)], 20), paged);
}

#[test]
fn what_began_while_the_exporter_was_down_pages_when_it_is_counted() {
    let first = 9 * DAY;
    let down = Event::Down(first - 5..first + 3 * DAY);
    let back = first + 3 * DAY;
    assert_eq!(
        live(&[down, calls(first..20 * DAY)], 20),
        [for_a_day(back), NEVER]
    );
}

#[test]
fn after_time_that_was_given_up_history_begins_anew() {
    let lost = |first| {
        let lost = Event::Lost(9 * DAY..11 * DAY);
        live(&[lost, calls(first..first + 1)], 22)
    };
    // From the last hour of it on there is history.
    let start = 11 * DAY - 1;
    assert_eq!(lost(start + 5), [NEVER, NEVER]);
    assert_eq!(
        lost(start + 2 * DAY),
        [NEVER, for_a_day(start + 2 * DAY + 1)]
    );
    assert_eq!(lost(start + QUIET), [for_a_day(start + QUIET + 1), NEVER]);
}

#[test]
fn a_raised_minimum_version_does_not_page_for_what_was_always_there() {
    let (raised, back) = (10 * DAY, 25 * DAY);
    let tls12 = |hours| Event::Calls(hours, "s3", TLS12);
    let history = [
        tls12(0..15 * DAY),
        Event::Minimum(raised, TlsVersion::Tls13),
        tls12(back..back + 1),
    ];
    assert_eq!(live(&history, 28), [for_a_day(back + 1), NEVER]);
}

#[test]
fn another_question_begins_history_anew() {
    let changed = 10 * DAY;
    let first = |after: i64| {
        let calls = calls(changed + after..changed + after + 1);
        live(&[Event::BeginsAnew(changed), calls], 20)
    };
    let start = changed - 1;
    assert_eq!(first(5), [NEVER, NEVER]);
    assert_eq!(first(3 * DAY), [NEVER, for_a_day(start + 3 * DAY + 2)]);
    assert_eq!(first(QUIET), [for_a_day(start + QUIET + 2), NEVER]);
}
