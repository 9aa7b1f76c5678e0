//! The program over the golden trail, and its scrape cut into parts.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test file uses its own part"
)]

use std::path::PathBuf;

use crate::handmade::{self, GOLDEN_CALLS, LONG_WINDOW};
use crate::support::{Exporter, config, wait_for};

/// The golden trail and its configuration in a folder of their own.
pub struct Home {
    pub folder: tempfile::TempDir,
    config: PathBuf,
}

impl Home {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let trail = folder.path().join("trail");
        handmade::deliver_golden(&trail);
        let config = config(folder.path(), &trail, LONG_WINDOW);
        Self { folder, config }
    }

    /// Starts the exporter and asks it for nothing: which paths were asked for is in the scrape.
    pub fn start(&self) -> Exporter {
        let exporter = Exporter::start_with(&["--config.file", self.config.to_str().unwrap()]);
        wait_for("readiness", || {
            let log = exporter.log();
            log.iter()
                .any(|line| line.contains("message=ready"))
                .then_some(())
        });
        exporter
    }

    pub fn start_and_count(&self) -> Exporter {
        let exporter = self.start();
        exporter.scrape_until("all calls", |scrape| {
            (scrape.sum("cloudtrail_tls_calls_total", &[]) == GOLDEN_CALLS).then_some(())
        });
        exporter.wait_for_scans(2);
        exporter
    }
}

pub fn scrape(exporter: &Exporter, (_, accept): (&str, &str)) -> String {
    let answer = exporter.get("/metrics", &[("Accept", accept)]);
    assert_eq!(answer.status, 200);
    answer.text()
}

/// The part of a scrape that is about calls.
pub fn data_block(scrape: &str) -> &str {
    let (data, _) = scrape
        .split_once("# HELP cloudtrail_tls_exporter_")
        .unwrap();
    assert!(data.contains("cloudtrail_tls_calls"), "{data}");
    data
}

/// Every series of a scrape in its order, without values.
pub fn order(scrape: &str) -> Vec<&str> {
    let samples = scrape.lines().filter(|line| !line.starts_with('#'));
    let series = samples.map(|line| line.rsplit_once(' ').unwrap().0);
    // Which paths were asked for before is not the same after a restart.
    series.filter(|series| !series.contains("_http_")).collect()
}
