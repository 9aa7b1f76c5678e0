//! The data block: every metric about calls, rendered from the totals in a stable order.

mod callers;
mod families;
mod ranks;

use std::fmt::Write as _;
use std::time::Duration;

pub use self::callers::CallerSettings;
use self::families::{Fold, Label, RUN_SPECS, RunSpec, Spec, outdated, specs};
use self::ranks::{Ranks, RowKey};
use super::gzip::Piece;
use super::negotiate::Format;
use super::text::{self, Kind};
use super::{Block, Family};
use crate::time::Timestamp;
use crate::tls::TlsVersion;
use crate::totals::{RunKey, SourceTotals, Totals};

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
    /// Whether `window_calls` and `calls_total` have the label `account_id`.
    pub label_account: bool,
    /// Whether they have the label `aws_region`.
    pub label_region: bool,
    /// What is shown of callers.
    pub callers: CallerSettings,
}

/// Renders every family that has series; tells how many series each has.
pub(super) fn render(totals: &Totals, settings: &Settings) -> (Block, Vec<(&'static str, usize)>) {
    let callers = callers::rows(totals, settings);
    let names = callers.iter().flat_map(|(texts, _)| texts).copied();
    let ranks = Ranks::new(totals, names);
    let mut block = Block::default();
    let mut series = Vec::new();
    let mut add = |name: &'static str, kind, help: &str, labels: &[Label], rows: Rows| {
        series.push((name, rows.0.len()));
        if !rows.0.is_empty() {
            block
                .families
                .push(family(name, kind, help, labels, &rows, &ranks));
        }
    };
    for spec in specs(settings) {
        let rows = entry_rows(totals, settings, &ranks, &spec);
        add(spec.name, spec.kind, spec.help, &spec.labels, rows);
    }
    for spec in RUN_SPECS {
        add(
            spec.name,
            Kind::Gauge,
            spec.help,
            spec.labels,
            run_rows(totals, settings, &ranks, &spec),
        );
    }
    add(
        callers::NAME,
        Kind::Gauge,
        callers::HELP,
        &callers::labels(settings.callers.labels),
        Rows::sorted(callers, &ranks),
    );
    let mut window = Rows::default();
    for (source, _) in totals
        .sources()
        .filter(|(_, totals)| !totals.entries.is_empty())
    {
        window.push(
            ranks.key([source]),
            i64::try_from(settings.window.as_secs()).unwrap_or(i64::MAX),
        );
    }
    let help = "The span of time that the window gauges cover, up to their worker's watermark.";
    add(
        "cloudtrail_tls_window_seconds",
        Kind::Gauge,
        help,
        &[],
        window,
    );
    (block, series)
}

#[derive(Default)]
struct Rows(Vec<(RowKey, i64)>);

impl Rows {
    fn push(&mut self, key: RowKey, value: i64) {
        self.0.push((key, value));
    }

    /// The rows in the order of their labels.
    fn sorted(rows: Vec<callers::Row<'_>>, ranks: &Ranks<'_>) -> Self {
        let rows = rows.into_iter();
        let mut rows: Vec<_> = rows
            .map(|(texts, value)| (ranks.key(texts), value))
            .collect();
        rows.sort_unstable_by_key(|(key, _)| *key);
        Self(rows)
    }
}

/// One entry's part of a series.
struct Share {
    key: RowKey,
    value: i64,
    last_bucket: Timestamp,
}

/// The series of a family. A series leaves the scrape as a whole, when all its entries have been idle for
/// the retention: an entry alone would take its calls from a counter.
fn entry_rows(totals: &Totals, settings: &Settings, ranks: &Ranks<'_>, spec: &Spec) -> Rows {
    let mut rows = Rows::default();
    for (name, source) in totals.sources() {
        let mut shares = Vec::with_capacity(source.entries.len());
        for entry in source.entries.values() {
            if let Some(value) = (spec.value)(settings, entry) {
                let mut key = ranks.key([name]);
                for (slot, label) in key.iter_mut().skip(1).zip(&spec.labels) {
                    *slot = ranks.of(entry, *label);
                }
                shares.push(Share {
                    key,
                    value,
                    last_bucket: entry.last_bucket,
                });
            }
        }
        shares.sort_unstable_by_key(|share| share.key);
        let idle_before = idle_before(source, settings);
        for series in shares.chunk_by(|a, b| a.key == b.key) {
            let values = series.iter().map(|share| share.value);
            let value = match spec.fold {
                Fold::Sum => values.sum(),
                Fold::Max => values.max().unwrap_or_default(),
            };
            if let Some(share) = series.iter().find(|share| share.last_bucket >= idle_before) {
                rows.push(share.key, value);
            }
        }
    }
    rows
}

fn run_rows(totals: &Totals, settings: &Settings, ranks: &Ranks<'_>, spec: &RunSpec) -> Rows {
    let mut rows = Rows::default();
    for (name, source) in totals.sources() {
        let lasts = |last: Timestamp| {
            source
                .watermark
                .is_none_or(|watermark| watermark < last.plus(settings.quiet_period))
        };
        let runs = source
            .runs(settings.quiet_period)
            .filter(|(key, run)| key.event_name.is_some() == spec.of_calls && lasts(run.last));
        for (
            RunKey {
                account_id,
                aws_service,
                event_name,
            },
            run,
        ) in runs
        {
            let value = (spec.value)(&run).secs();
            match event_name {
                None => rows.push(
                    ranks.key([name, aws_service.as_str(), account_id.as_str()]),
                    value,
                ),
                Some(event) => {
                    let texts = [
                        name,
                        aws_service.as_str(),
                        event.as_str(),
                        account_id.as_str(),
                    ];
                    rows.push(ranks.key(texts), value);
                }
            }
        }
    }
    rows.0.sort_unstable_by_key(|(key, _)| *key);
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
    rows: &Rows,
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
    for (key, value) in &rows.0 {
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
