//! Reads CloudTrail's event history by LookupEvents: free and without any set-up, and management events only.
//!
//! It is read bucket by bucket, oldest first, each committed. Once new buckets were read, those of the half hour before
//! them are read again, since calls come late and reading is free; an event id counts once.

mod progress;

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_config::SdkConfig;
use aws_sdk_cloudtrail::Client;
use aws_sdk_cloudtrail::config::Builder;
use aws_sdk_cloudtrail::operation::lookup_events::LookupEventsOutput;
use aws_sdk_cloudtrail::operation::lookup_events::builders::LookupEventsFluentBuilder;
use aws_sdk_cloudtrail::primitives::DateTime;
use aws_sdk_cloudtrail::types::Event;
use tracing::{debug, warn};

pub use self::progress::HistoryProgress;
use super::records::{EventId, call, caller, event_id};
use crate::aws::{self, Observer, Quota};
use crate::batch::{Batch, Rejected, Scanned};
use crate::call::{AskedCallers, CallKey, Caller, Tally};
use crate::record::{self, Record};
use crate::source::{Reason, Requests, Source, SourceError};
use crate::time::Timestamp;
use crate::window::{Schedule, Window};

/// The most events that AWS gives in one page (API reference of LookupEvents).
pub const PAGE: usize = 50;
/// How long AWS keeps the history (API reference of LookupEvents).
pub const KEPT: Duration = Duration::from_secs(90 * 86_400);
/// What is read again each time that new buckets were read.
const AGAIN: Duration = Duration::from_secs(30 * 60);
/// After so long the time is asked for anew: a bucket may have become due meanwhile.
const STALE: Duration = Duration::from_secs(20);
/// At most so many pages of one bucket, lest a token that leads round in circles is followed for ever.
const MOST_PAGES: u64 = 100_000;

/// The settings of one `event_history` source.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Which buckets are due.
    pub schedule: Schedule,
    /// At the first start, this much of the past is counted.
    pub lookback: Duration,
    /// What is older than this when it becomes due is given up.
    pub catch_up_limit: Duration,
    /// Events in a page.
    pub page: usize,
    /// How many pages may be read in a second: what the quota leaves to this source.
    pub pages_per_second: u64,
    /// Whose calls are told.
    pub callers: AskedCallers,
}

/// The event history of one account and Region.
#[derive(Debug)]
pub struct EventHistory {
    client: Client,
    observer: Observer,
    quota: Arc<Quota>,
    settings: Settings,
    /// What is left to be read again.
    again: Option<Window>,
    /// Whether this process has read any bucket yet.
    begun: bool,
}

/// What was found in a bucket.
#[derive(Default)]
struct Found {
    calls: HashMap<EventId, Call>,
    /// Calls without an id: each counts.
    nameless: Vec<Call>,
    events: u64,
    pages: u64,
}

/// One call.
struct Call {
    key: Arc<CallKey>,
    time: Timestamp,
    /// Who made it, if that is asked for.
    caller: Option<Arc<Caller>>,
}

/// What calls of a bucket have in common.
#[derive(Default)]
struct Met {
    keys: HashSet<Arc<CallKey>>,
    callers: HashSet<Arc<Caller>>,
}

impl Met {
    /// The call of a record.
    fn call(&mut self, record: &Record<'_>, asked: AskedCallers) -> Call {
        let asked = asked.of(record.tls_version).then_some(asked.labels);
        Call {
            key: shared(&mut self.keys, call(record)),
            time: record.event_time,
            caller: asked.map(|labels| shared(&mut self.callers, caller(record, labels))),
        }
    }
}

/// The value, held once for all that have it.
fn shared<T: Eq + Hash>(met: &mut HashSet<Arc<T>>, value: T) -> Arc<T> {
    if let Some(known) = met.get(&value) {
        return Arc::clone(known);
    }
    let new = Arc::new(value);
    met.insert(Arc::clone(&new));
    new
}

impl EventHistory {
    /// The event history over an AWS configuration. `quota` is that of its account and Region.
    pub fn new(config: &SdkConfig, settings: Settings, quota: Arc<Quota>) -> Self {
        let observer = Observer::default();
        let config = Builder::from(config).interceptor(observer.clone()).build();
        Self {
            client: Client::from_conf(config),
            observer,
            quota,
            settings,
            again: None,
            begun: false,
        }
    }

    /// Reads a bucket that is due.
    async fn new_bucket(
        &self,
        bucket: Window,
        progress: &HistoryProgress,
        now: Timestamp,
    ) -> Result<Batch, SourceError> {
        let found = self.read(bucket).await?;
        let pages = self.settings.pages_per_second * bucket.length().as_secs();
        let mut batch = self.counted(bucket, &found, progress, now);
        batch.duplicates = found.events - found.nameless.len() as u64 - found.calls.len() as u64;
        batch.covered = Some(bucket);
        batch.progress.push(progress::put_watermark(bucket.to));
        let horizon = bucket.to.minus(AGAIN).floor(self.settings.schedule.bucket);
        // What is still to be read again is known until then.
        let horizon = self.again.map_or(horizon, |again| horizon.min(again.from));
        let left = progress
            .seen
            .range(..horizon)
            .map(|(at, _)| progress::remove_ids(*at));
        batch.progress.extend(left);
        // One such bucket is caught up with; where more are due already, it is the rule.
        let behind = self.settings.schedule.settled(now) > bucket.to.plus(bucket.length());
        if found.pages > pages && behind {
            batch.rejected.push(Rejected {
                name: format!("the pace at {}", bucket.from),
                reason: Reason::Truncated,
                error: format!(
                    "the account makes more calls than the event history gives: {} in {}, of which {} can be read in \
                     that time; counting falls behind, use another source",
                    found.events,
                    humantime::format_duration(bucket.length()),
                    pages * self.settings.page as u64,
                ),
            });
        }
        Ok(batch)
    }

    /// Reads a bucket again; `None` if nothing came late.
    async fn old_bucket(
        &self,
        bucket: Window,
        progress: &HistoryProgress,
        now: Timestamp,
    ) -> Result<Option<Batch>, SourceError> {
        let mut found = self.read(bucket).await?;
        // Without an id nobody can tell whether it was counted.
        found.nameless.clear();
        let mut batch = self.counted(bucket, &found, progress, now);
        batch.late_calls = batch.counts.calls();
        Ok((batch.late_calls > 0).then_some(batch))
    }

    /// A batch of what was not counted before.
    fn counted(
        &self,
        bucket: Window,
        found: &Found,
        progress: &HistoryProgress,
        now: Timestamp,
    ) -> Batch {
        let mut batch = Batch {
            scanned: Scanned {
                records: found.events,
                ..Scanned::default()
            },
            ..Batch::default()
        };
        let at = bucket.from.floor(self.settings.schedule.bucket);
        // Of a finer grid there may be several rows in a bucket.
        let rows = || progress.seen.range(at..bucket.to);
        let mut seen: HashSet<EventId> = rows().flat_map(|(_, ids)| ids).copied().collect();
        let new = found.calls.iter().filter(|(id, _)| seen.insert(**id));
        for call in new.map(|(_, call)| call).chain(&found.nameless) {
            // A record from the future must not make the data look fresh for ever.
            let last = call.time.min(now);
            batch.counts.add(at, &call.key, Tally { calls: 1, last });
            if let Some(caller) = &call.caller {
                batch.callers.add(at, caller, 1);
            }
        }
        let finer = rows().filter(|(row, _)| **row != at);
        batch
            .progress
            .extend(finer.map(|(row, _)| progress::remove_ids(*row)));
        batch.progress.push(progress::put_ids(at, &seen));
        batch
    }

    async fn read(&self, window: Window) -> Result<Found, SourceError> {
        let mut found = Found::default();
        let mut met = Met::default();
        let mut next = None;
        loop {
            let page = self.page(window, next).await?;
            found.pages += 1;
            for event in page.events() {
                self.take(event, window, &mut found, &mut met)?;
            }
            next = page.next_token.filter(|token| !token.is_empty());
            if next.is_none() {
                debug!(from = %window.from, to = %window.to, events = found.events, "read");
                return Ok(found);
            }
            if found.pages >= MOST_PAGES {
                return Err(SourceError::new(Reason::BadAnswer, "the pages have no end"));
            }
        }
    }

    /// Takes in one event; one that cannot be read fails its bucket.
    fn take(
        &self,
        event: &Event,
        window: Window,
        found: &mut Found,
        met: &mut Met,
    ) -> Result<(), SourceError> {
        let id = event.event_id().unwrap_or("without an id");
        let text = event.cloud_trail_event().unwrap_or_default();
        let read = record::read(text, Timestamp::from_secs(i64::MAX), |record| {
            // An answer may hold more than was asked for; it is read with its own bucket.
            if !(window.from..window.to).contains(&record.event_time) {
                return;
            }
            found.events += 1;
            let call = met.call(&record, self.settings.callers);
            match event_id(&record) {
                Some(id) => {
                    found.calls.insert(id, call);
                }
                None => found.nameless.push(call),
            }
        });
        read.map_err(|error| {
            let message = format!("the event {id} cannot be read");
            SourceError::because(Reason::BadAnswer, message, error)
        })
    }

    async fn page(
        &self,
        window: Window,
        token: Option<String>,
    ) -> Result<LookupEventsOutput, SourceError> {
        self.quota.poll().await;
        let request = self
            .lookup(window, self.settings.page)
            .set_next_token(token);
        let failed = |error| aws::failed(&self.observer, "LookupEvents", error);
        request.send().await.map_err(failed)
    }

    fn lookup(&self, window: Window, events: usize) -> LookupEventsFluentBuilder {
        let time = |time: Timestamp| DateTime::from_secs(time.secs());
        let request = self.client.lookup_events();
        request
            .start_time(time(window.from))
            // Both ends are inclusive, and no call has a finer time than a second.
            .end_time(time(window.to.minus(Duration::from_secs(1))))
            .max_results(i32::try_from(events).unwrap_or(i32::MAX))
    }

    async fn greet(&self, now: Timestamp) -> Result<(), SourceError> {
        self.quota.poll().await;
        let window = Window {
            from: now.minus(Duration::from_secs(1)),
            to: now,
        };
        aws::greeted(
            &self.observer,
            "LookupEvents",
            self.lookup(window, 1).send(),
        )
        .await
    }
}

impl Source for EventHistory {
    type Progress = HistoryProgress;

    async fn next_batch(
        &mut self,
        progress: &HistoryProgress,
        now: Timestamp,
    ) -> Result<Option<Batch>, SourceError> {
        let Settings {
            schedule,
            lookback,
            catch_up_limit,
            ..
        } = self.settings;
        self.observer.tell(now);
        if self.observer.ahead().is_none() {
            self.greet(now).await?;
        }
        let mut trusted = self.observer.trusted(now);
        let Some(watermark) = progress.watermark else {
            // Stored, as it must not move on with the clock until the first bucket is due.
            let first = trusted.minus(lookback).floor(schedule.bucket);
            return Ok(Some(Batch {
                progress: vec![progress::put_watermark(first)],
                ..Batch::default()
            }));
        };
        if watermark < trusted.minus(catch_up_limit).floor(schedule.bucket) {
            // What is given up is lost: only AWS's clock of this moment tells that so much time has passed.
            self.greet(now).await?;
            trusted = self.observer.trusted(now);
            let oldest = trusted.minus(catch_up_limit).floor(schedule.bucket);
            if watermark < oldest {
                return Ok(Some(given_up(watermark, oldest, progress)));
            }
        }
        let due = schedule.due(watermark, trusted);
        if self.again.is_none() && (due.is_some() || !self.begun) {
            self.again = Some(Window {
                from: watermark.minus(AGAIN).floor(schedule.bucket),
                to: watermark,
            });
        }
        if let Some(bucket) = due {
            let batch = self.new_bucket(bucket, progress, trusted).await?;
            self.begun = true;
            return Ok(Some(batch));
        }
        self.begun = true;
        let Some(again) = self.again else {
            return Ok(None);
        };
        let began = Instant::now();
        let mut next = again.from;
        while next < again.to {
            if began.elapsed() > STALE {
                return Ok(Some(Batch::default()));
            }
            let from = next;
            next = from.plus(schedule.bucket).min(again.to);
            let bucket = Window { from, to: next };
            // What was never counted is not made up by reading it again.
            let counted = progress.seen.range(from..next).next().is_some();
            let batch = match counted {
                true => self.old_bucket(bucket, progress, trusted).await?,
                false => None,
            };
            self.again = Some(Window {
                from: next,
                ..again
            });
            if batch.is_some() {
                return Ok(batch);
            }
        }
        self.again = None;
        Ok(None)
    }

    fn requests(&mut self) -> Requests {
        self.observer.take()
    }
}

/// A batch that gives up the time from `watermark` to `to`: history begins behind it.
fn given_up(watermark: Timestamp, to: Timestamp, progress: &HistoryProgress) -> Batch {
    warn!(from = %watermark, %to, "given up: older than `catch_up_limit`");
    let mut changes = vec![progress::put_watermark(to)];
    changes.extend(progress.seen.keys().map(|at| progress::remove_ids(*at)));
    Batch {
        progress: changes,
        covered: Some(Window { from: to, to }),
        skipped_seconds: to.since(watermark).as_secs(),
        ..Batch::default()
    }
}
