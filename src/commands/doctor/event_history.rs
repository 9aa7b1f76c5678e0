//! `event_history`: LookupEvents, and the last bucket that has settled.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::place::{Aws, clock, hint};
use super::report::{Check, Section};
use super::seen::{self, Seen, cost};
use crate::aws::Quota;
use crate::batch::Scanned;
use crate::config;
use crate::source::event_history::{EventHistory, HistoryProgress, Settings};
use crate::source::{Progress, Reason, Source, SourceError};
use crate::time::Timestamp;
use crate::window::Window;
use crate::worker::chain;

/// One bucket first; an hour, where that holds nothing.
const REACHES: [Option<Duration>; 2] = [None, Some(Duration::from_secs(3600))];
/// How long reading may take: a page a second.
const PATIENCE: Duration = Duration::from_secs(60);
const NOTHING: &str = "the history has management events of this Region alone, and those of IAM, CloudFront and the global \
                       STS in us-east-1: look at `region`; or the account was at rest";

pub(super) fn checks() -> Vec<&'static str> {
    let mut checks = vec!["lookup_events", "clock"];
    checks.extend(seen::CHECKS);
    checks.push("cost");
    checks
}

pub(super) async fn run(
    aws: &Aws,
    source: &config::Source,
    settings: &Settings,
    section: &mut Section,
) {
    let name = "lookup_events";
    let (mut found, mut ahead) = (Found::default(), None);
    for reach in REACHES {
        let outcome = timeout(PATIENCE, read(aws, settings, reach, &mut ahead)).await;
        match outcome {
            Ok(Ok(more)) => found = more,
            Ok(Err(error)) => {
                let hint = hint(error.reason, "cloudtrail:LookupEvents on *");
                section.push(Check::failed(name, chain(&error)).hint(hint));
                section.checks.extend(ahead.map(clock));
                return;
            }
            Err(_) => {
                let found = "a bucket could not be read in a minute, at a page of 50 a second";
                section.push(Check::failed(name, found).hint(
                    "the account makes more calls than the event history gives: use another source",
                ));
                return;
            }
        }
        if found.seen.calls > 0 {
            break;
        }
    }
    section.push(Check::ok(name, "cloudtrail:LookupEvents is allowed"));
    section.checks.extend(ahead.map(clock));
    found
        .seen
        .check(found.window, Timestamp::now(), NOTHING, section);
    section.push(cost(
        Scanned::default(),
        0,
        source.terms,
        "as the event history is free",
    ));
}

#[derive(Default)]
struct Found {
    seen: Seen,
    window: Window,
}

/// Reads the last `reach` that has settled by the exporter's own means; `ahead` becomes how far the host's clock is
/// ahead of AWS's.
async fn read(
    aws: &Aws,
    settings: &Settings,
    reach: Option<Duration>,
    ahead: &mut Option<i64>,
) -> Result<Found, SourceError> {
    let mut settings = settings.clone();
    settings.schedule.interval = settings.schedule.bucket;
    let (now, bucket) = (Timestamp::now(), settings.schedule.bucket);
    let to = now.minus(settings.schedule.settle).floor(bucket);
    let window = Window {
        from: to.minus(reach.unwrap_or(bucket)),
        to,
    };
    settings.lookback = now.since(window.from);
    let mut source = EventHistory::new(&aws.sdk, settings, Arc::new(Quota::event_history()));
    let mut progress = HistoryProgress::default();
    let mut found = Found {
        window,
        ..Found::default()
    };
    // AWS's clock may be behind the host's: then less has settled.
    loop {
        let batch = source.next_batch(&progress, Timestamp::now()).await;
        *ahead = source.requests().ahead;
        let Some(batch) = batch? else { break };
        for change in &batch.progress {
            let bad = |error| {
                SourceError::because(Reason::Internal, "the progress is not readable", error)
            };
            progress.apply(change).map_err(bad)?;
        }
        found.seen.add(&batch.counts);
        if batch.covered.is_some_and(|covered| covered.to >= to) {
            break;
        }
    }
    Ok(found)
}
