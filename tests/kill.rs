//! SIGKILL at random moments while files arrive: exact counters at the end, and none ever goes down.

mod support;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use cloudtrail_tls_exporter::time::Timestamp;
use support::made::{self, Made};
use support::{Exporter, Scrape, config};

const KILLS: usize = 30;
const RECORDS: usize = 60;

/// Delivers files until it is stopped: new records, and some that an earlier file had.
fn deliver(root: &Path, delivered: &Mutex<Vec<Made>>, stop: &AtomicBool) {
    let mut random = fastrand::Rng::with_seed(7);
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let now = Timestamp::now();
        let mut records: Vec<Made> = (0..RECORDS).map(|_| Made::any(&mut random, now)).collect();
        {
            let mut all = delivered.lock().unwrap();
            if !all.is_empty() {
                records.extend((0..RECORDS / 4).map(|_| all[random.usize(..all.len())].clone()));
            }
            all.extend_from_slice(&records);
        }
        made::deliver(&made::path(root, now, &format!("{number:016}")), &records);
        thread::sleep(Duration::from_millis(random.u64(..20)));
    }
}

/// Every counter of the data block.
fn counters(scrape: &Scrape) -> BTreeMap<(String, BTreeMap<String, String>), f64> {
    let data = |name: &str| {
        let of_calls = name.starts_with("cloudtrail_tls_");
        of_calls && name.ends_with("_total") && !name.starts_with("cloudtrail_tls_exporter_")
    };
    scrape
        .0
        .iter()
        .filter(|((name, _), _)| data(name))
        .map(|(series, value)| (series.clone(), *value))
        .collect()
}

#[test]
fn counters_are_exact_and_never_go_down_however_often_the_exporter_is_killed() {
    let home = tempfile::tempdir().unwrap();
    let trail = home.path().join("trail");
    let config = config(home.path(), &trail, "");
    std::fs::create_dir(&trail).unwrap();
    let (delivered, stop) = (
        Arc::new(Mutex::new(Vec::new())),
        Arc::new(AtomicBool::new(false)),
    );
    let writer = {
        let (delivered, stop) = (Arc::clone(&delivered), Arc::clone(&stop));
        thread::spawn(move || deliver(&trail, &delivered, &stop))
    };

    let seed = fastrand::u64(..);
    let mut random = fastrand::Rng::with_seed(seed);
    let mut seen = BTreeMap::new();
    let mut never_down = |scrape: &Scrape| {
        let now = counters(scrape);
        for (series, before) in &seen {
            let value = now.get(series).copied();
            assert!(
                value >= Some(*before),
                "{series:?} was {before} and is {value:?}, seed {seed}"
            );
        }
        seen = now;
    };
    let mut killed_with_data = 0;
    for _ in 0..KILLS {
        let exporter = Exporter::start(&config);
        // Long enough for two scans now and then, so that kills fall into reading, committing and idling.
        let life = Duration::from_millis(random.u64(..2600));
        let started = std::time::Instant::now();
        while started.elapsed() < life {
            never_down(&exporter.scrape());
            thread::sleep(Duration::from_millis(random.u64(..30)));
        }
        let batches = exporter
            .scrape()
            .sum("cloudtrail_tls_exporter_scanned_records_total", &[]);
        killed_with_data += usize::from(batches > 0.0);
        exporter.kill();
    }
    stop.store(true, Ordering::Relaxed);
    writer.join().unwrap();
    assert!(
        killed_with_data > KILLS / 5,
        "only {killed_with_data} lives counted anything"
    );

    let exporter = Exporter::start(&config);
    let truth = made::truth(delivered.lock().unwrap().iter());
    let all = truth.values().sum::<u64>();
    exporter.scrape_until("all calls", |scrape| {
        never_down(scrape);
        (scrape.calls().values().sum::<u64>() >= all).then_some(())
    });
    exporter.wait_for_scans(3);
    assert_eq!(exporter.scrape().calls(), truth);
}
