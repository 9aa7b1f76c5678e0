//! The data block: every metric about calls, rendered from the totals in a stable order.

mod callers;
mod families;
mod fold;
mod ranks;

use std::fmt::Write as _;
use std::time::Duration;

pub use self::callers::CallerSettings;
use self::families::{Kept, Label, RUN_SPECS, RunSpec, Spec, outdated, specs};
use self::fold::{Class, Merge, Row, fold};
use self::ranks::{Ranks, RowKey};
use super::gzip::Piece;
use super::negotiate::Format;
use super::text::{self, Kind};
use super::{Block, Family};
use crate::series;
use crate::time::Timestamp;
use crate::tls::TlsVersion;
use crate::totals::{Entry, RunKey, SourceTotals, Totals};

/// What the data block shows.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Calls below are outdated.
    pub minimum_version: TlsVersion,
    /// What the gauges cover.
    pub window: Duration,
    /// After this long without calls a series leaves the scrape.
    pub retention: Duration,
    /// A run of outdated calls ends after this long without any.
    pub quiet_period: Duration,
    /// The labels of calls, and how many series a family may have.
    pub series: series::Settings,
    /// What is shown of callers.
    pub callers: CallerSettings,
}

/// How many series a family has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Number {
    /// The family.
    pub family: &'static str,
    /// Its series.
    pub series: usize,
    /// Label sets that have none of their own: they are folded into `other`.
    pub folded: usize,
    /// The most series that it may have, where it has a limit.
    pub limit: Option<usize>,
}

/// Renders every family that has series; tells how many each has.
pub(super) fn render(totals: &Totals, settings: &Settings) -> (Block, Vec<Number>) {
    let callers = callers::rows(totals, settings);
    let names = callers.iter().flat_map(|(texts, _)| texts).copied();
    let ranks = Ranks::new(totals, names);
    let mut block = Block::default();
    let mut numbers = Vec::new();
    let mut add = |name: &'static str, kind, help: &str, labels: &[Label], rows: Vec<Row>| {
        numbers.push(Number {
            family: name,
            series: rows.len(),
            folded: rows.iter().map(|row| row.folded).sum(),
            // The labels beside `source` are what makes a family grow.
            limit: (!labels.is_empty()).then_some(settings.series.limit),
        });
        if !rows.is_empty() {
            block
                .families
                .push(family(name, kind, help, labels, &rows, &ranks));
        }
    };
    let limit = settings.series.limit;
    let other = ranks.other();
    for spec in specs(settings) {
        let mut rows = entry_rows(totals, settings, &ranks, &spec);
        if spec.counter.is_none() {
            rows = fold(rows, limit, &spec.labels, other, spec.merge);
        }
        let kind = spec.counter.map_or(Kind::Gauge, |_| Kind::Counter);
        add(spec.name, kind, spec.help, &spec.labels, rows);
    }
    for spec in RUN_SPECS {
        let rows = run_rows(totals, settings, &ranks, &spec);
        let rows = fold(rows, limit, spec.labels, other, Merge::Heaviest);
        add(spec.name, Kind::Gauge, spec.help, spec.labels, rows);
    }
    let callers = callers
        .into_iter()
        .map(|(texts, value)| Row::new(ranks.key(texts), value));
    let mut callers: Vec<Row> = callers.collect();
    callers.sort_unstable_by_key(|row| row.key);
    let labels = callers::labels(settings.callers.labels);
    let callers = fold(callers, limit, &labels, other, Merge::Sum);
    add(callers::NAME, Kind::Gauge, callers::HELP, &labels, callers);
    let sources = totals
        .sources()
        .filter(|(_, totals)| !totals.entries.is_empty());
    let length = i64::try_from(settings.window.as_secs()).unwrap_or(i64::MAX);
    let window = sources.map(|(source, _)| Row::new(ranks.key([source]), length));
    let help = "The span of time that the window gauges cover, up to their worker's watermark.";
    let name = "cloudtrail_tls_window_seconds";
    add(name, Kind::Gauge, help, &[], window.collect());
    (block, numbers)
}

/// One entry's part of a series.
struct Share {
    /// Its label set.
    whole: RowKey,
    /// The same as far as it is folded.
    key: RowKey,
    value: i64,
    last_bucket: Timestamp,
    class: Class,
}

/// The series of a family. A series leaves the scrape as a whole, when all its entries have been idle for
/// the retention: an entry alone would take its calls from a counter.
fn entry_rows(totals: &Totals, settings: &Settings, ranks: &Ranks<'_>, spec: &Spec) -> Vec<Row> {
    let mut rows = Vec::new();
    for (name, source) in totals.sources() {
        let mut shares = Vec::with_capacity(source.entries.len());
        for entry in source.entries.values() {
            let shown = spec.counter.is_some() || entry.counted;
            if let Some(value) = (spec.value)(settings, entry).filter(|_| shown) {
                shares.push(share(name, entry, value, settings, ranks, spec));
            }
        }
        shares.sort_unstable_by_key(|share| (share.key, share.whole));
        let idle_before = idle_before(source, settings);
        for series in shares.chunk_by(|a, b| a.key == b.key) {
            let values = series.iter().map(|share| share.value);
            let value = match spec.merge {
                Merge::Sum => values.sum(),
                Merge::Max | Merge::Heaviest => values.max().unwrap_or_default(),
            };
            let Some(share) = series.iter().find(|share| share.last_bucket >= idle_before) else {
                continue;
            };
            let sets = series.chunk_by(|a, b| a.whole == b.whole);
            rows.push(Row {
                key: share.key,
                value,
                weight: match spec.kept {
                    Kept::Largest => value,
                    Kept::Smallest => value.saturating_neg(),
                },
                class: share.class,
                folded: sets
                    .filter(|set| set.iter().all(|share| share.whole != share.key))
                    .count(),
            });
        }
    }
    rows
}

fn share(
    source: &str,
    entry: &Entry,
    value: i64,
    settings: &Settings,
    ranks: &Ranks<'_>,
    spec: &Spec,
) -> Share {
    let mut whole = ranks.key([source]);
    for (slot, label) in whole.iter_mut().skip(1).zip(&spec.labels) {
        *slot = ranks.of(entry, *label);
    }
    let mut key = whole;
    if let Some(counter) = spec.counter {
        let rung = entry.folds.of(counter);
        for (slot, label) in key.iter_mut().skip(1).zip(&spec.labels) {
            if label.folds_at().is_some_and(|from| rung >= from) {
                *slot = ranks.other();
            }
        }
    }
    // Without the version among the labels the classes are one.
    let class = match spec.labels.contains(&Label::TlsVersion) {
        true if outdated(settings, entry) => Class::Outdated,
        true if entry.texts.tls_version == TlsVersion::None => Class::None,
        _ => Class::Modern,
    };
    Share {
        whole,
        key,
        value,
        last_bucket: entry.last_bucket,
        class,
    }
}

/// The runs that last. Where several are folded into one, it is the one detected last.
fn run_rows(totals: &Totals, settings: &Settings, ranks: &Ranks<'_>, spec: &RunSpec) -> Vec<Row> {
    let mut rows = Vec::new();
    for (name, source) in totals.sources() {
        let lasts = |last: Timestamp| {
            source
                .watermark
                .is_none_or(|watermark| watermark < last.plus(settings.quiet_period))
        };
        let runs = source
            .runs(settings.quiet_period)
            .filter(|(key, run)| key.event_name.is_some() == spec.of_calls && lasts(run.last));
        for (key, run) in runs {
            let RunKey {
                account_id,
                aws_service,
                event_name,
            } = key;
            let (service, account) = (aws_service.as_str(), account_id.as_str());
            let key = match event_name {
                None => ranks.key([name, service, account]),
                Some(event) => ranks.key([name, service, event.as_str(), account]),
            };
            rows.push(Row {
                key,
                value: (spec.value)(&run).secs(),
                weight: run.detected.secs(),
                class: Class::Outdated,
                folded: 0,
            });
        }
    }
    rows.sort_unstable_by_key(|row| row.key);
    rows
}

/// Keys whose latest bucket is before this have been idle for the retention.
fn idle_before(source: &SourceTotals, settings: &Settings) -> Timestamp {
    source
        .watermark
        .map_or(Timestamp::from_secs(i64::MIN), |watermark| {
            watermark.minus(settings.retention)
        })
}

fn family(
    name: &'static str,
    kind: Kind,
    help: &str,
    labels: &[Label],
    rows: &[Row],
    ranks: &Ranks<'_>,
) -> Family {
    let head = |format| {
        let mut out = String::new();
        text::head(&mut out, name, kind, help, format);
        Piece::new(out)
    };
    let names: Vec<String> = labels
        .iter()
        .map(|label| format!(",{}=\"", label.name()))
        .collect();
    let mut samples = String::new();
    for Row { key, value, .. } in rows {
        let mut values = key.iter().map(|rank| ranks.escaped(*rank));
        samples.extend([name, "{source=\"", values.next().unwrap_or_default(), "\""]);
        for (label, value) in names.iter().zip(values) {
            samples.extend([label, value, "\""]);
        }
        writeln!(samples, "}} {value}").expect("a String takes all text");
    }
    Family {
        text_head: head(Format::Text),
        open_metrics_head: head(Format::OpenMetrics),
        samples: Piece::new(samples),
    }
}
