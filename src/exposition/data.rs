//! The data block: every metric about calls, rendered from the totals in a stable order.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::time::Duration;

use super::negotiate::Format;
use super::text::{self, Kind};
use super::{Block, Family, gzip::Piece};
use crate::time::Timestamp;
use crate::tls::{KeyExchange, TlsVersion};
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
    /// Whether `window_calls` and `calls_total` have the label `account_id`.
    pub label_account: bool,
    /// Whether they have the label `aws_region`.
    pub label_region: bool,
}

/// A label of the data block, beside `source`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Label {
    AwsService,
    EventName,
    TlsVersion,
    CipherSuite,
    KeyExchange,
    PostQuantum,
    AccountId,
    AwsRegion,
}

impl Label {
    fn name(self) -> &'static str {
        match self {
            Self::AwsService => "aws_service",
            Self::EventName => "event_name",
            Self::TlsVersion => "tls_version",
            Self::CipherSuite => "cipher_suite",
            Self::KeyExchange => "key_exchange",
            Self::PostQuantum => "post_quantum",
            Self::AccountId => "account_id",
            Self::AwsRegion => "aws_region",
        }
    }
}

/// How the values of keys that share a label set become one.
#[derive(Clone, Copy)]
enum Fold {
    Sum,
    Max,
}

/// A family whose values come from the entries of the totals.
struct Spec {
    name: &'static str,
    kind: Kind,
    help: &'static str,
    labels: Vec<Label>,
    fold: Fold,
    /// The value of an entry; `None` leaves it out.
    value: fn(&Settings, &Entry) -> Option<i64>,
}

/// Renders every family that has series; tells how many series each has.
pub(super) fn render(totals: &Totals, settings: &Settings) -> (Block, Vec<(&'static str, usize)>) {
    let ranks = Ranks::new(totals);
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

fn specs(settings: &Settings) -> Vec<Spec> {
    use Label::{
        AccountId, AwsRegion, AwsService, CipherSuite, EventName, KeyExchange, PostQuantum,
        TlsVersion,
    };
    let mut call_labels = vec![AwsService, TlsVersion, EventName];
    call_labels.extend(settings.label_account.then_some(AccountId));
    call_labels.extend(settings.label_region.then_some(AwsRegion));
    let gauge = |name, help, labels: &[Label], fold, value| Spec {
        name,
        kind: Kind::Gauge,
        help,
        labels: labels.to_vec(),
        fold,
        value,
    };
    let counter = |name, help, labels: &[Label]| {
        let value: fn(&Settings, &Entry) -> _ = |_, entry| i64::try_from(entry.calls).ok();
        Spec {
            name,
            kind: Kind::Counter,
            help,
            labels: labels.to_vec(),
            fold: Fold::Sum,
            value,
        }
    };
    vec![
        gauge(
            "cloudtrail_tls_window_calls",
            "API calls in the trailing window, by service, TLS version and call. Counted in the background, as CloudTrail \
             delivers: usually 5 to 15 minutes after the call. Outdated versions stay at 0 once they are gone, others vanish.",
            &call_labels,
            Fold::Sum,
            |settings, entry| {
                (entry.window > 0 || outdated(settings, entry)).then_some(entry.window)
            },
        ),
        counter(
            "cloudtrail_tls_calls_total",
            "API calls counted since this store began, by service, TLS version and call. Counted in the background, as \
             CloudTrail delivers; continues over restarts.",
            &call_labels,
        ),
        gauge(
            "cloudtrail_tls_account_outdated_window_calls",
            "API calls on outdated TLS in the trailing window, for every account seen: 0 means that calls were counted and \
             none was outdated.",
            &[AccountId],
            Fold::Sum,
            |settings, entry| {
                Some(if outdated(settings, entry) {
                    entry.window
                } else {
                    0
                })
            },
        ),
        gauge(
            "cloudtrail_tls_outdated_window_calls",
            "API calls on outdated TLS in the trailing window, by service; 0 for services that had some before.",
            &[AwsService, AccountId],
            Fold::Sum,
            |settings, entry| outdated(settings, entry).then_some(entry.window),
        ),
        gauge(
            "cloudtrail_tls_outdated_last_call_timestamp_seconds",
            "When the latest call on outdated TLS was made (its eventTime).",
            &[AwsService, EventName, TlsVersion, AccountId],
            Fold::Max,
            |settings, entry| outdated(settings, entry).then_some(entry.last_call.secs()),
        ),
        gauge(
            "cloudtrail_tls_control_window_calls",
            "API calls on TLS 1.2 or newer in the trailing window: the positive control. 0 means that the trail tells nothing, \
             not that nothing is outdated.",
            &[AccountId],
            Fold::Sum,
            |_, entry| {
                Some(if entry.texts.tls_version.control() {
                    entry.window
                } else {
                    0
                })
            },
        ),
        gauge(
            "cloudtrail_tls_cipher_suite_window_calls",
            "API calls in the trailing window, by cipher suite; none where the record does not tell.",
            &[AwsService, TlsVersion, CipherSuite],
            Fold::Sum,
            |settings, entry| {
                (entry.window > 0 || outdated(settings, entry)).then_some(entry.window)
            },
        ),
        gauge(
            "cloudtrail_tls_key_exchange_window_calls",
            "API calls in the trailing window, by key exchange and whether it is post-quantum. The post-quantum share is \
             yes / (yes + no).",
            &[AwsService, AccountId, KeyExchange, PostQuantum],
            Fold::Sum,
            |_, entry| (entry.window > 0).then_some(entry.window),
        ),
        counter(
            "cloudtrail_tls_key_exchange_calls_total",
            "API calls counted since this store began, by key exchange and whether it is post-quantum.",
            &[AwsService, AccountId, KeyExchange, PostQuantum],
        ),
        gauge(
            "cloudtrail_tls_account_newest_record_timestamp_seconds",
            "The newest record counted for the account (its eventTime).",
            &[AccountId],
            Fold::Max,
            |_, entry| Some(entry.last_call.secs()),
        ),
    ]
}

fn outdated(settings: &Settings, entry: &Entry) -> bool {
    entry.texts.tls_version.outdated(settings.minimum_version)
}

/// A family whose values come from the runs of outdated calls.
struct RunSpec {
    name: &'static str,
    help: &'static str,
    labels: &'static [Label],
    of_calls: bool,
    value: fn(&crate::totals::Run) -> Timestamp,
}

const RUN_SPECS: [RunSpec; 3] = [
    RunSpec {
        name: "cloudtrail_tls_outdated_since_timestamp_seconds",
        help: "When the present run of outdated calls to the service began, to the bucket; only while it lasts.",
        labels: &[Label::AwsService, Label::AccountId],
        of_calls: false,
        value: |run| run.since,
    },
    RunSpec {
        name: "cloudtrail_tls_outdated_detected_timestamp_seconds",
        help: "When this exporter first counted the present run of outdated calls to the service, by its own clock.",
        labels: &[Label::AwsService, Label::AccountId],
        of_calls: false,
        value: |run| run.detected,
    },
    RunSpec {
        name: "cloudtrail_tls_outdated_call_since_timestamp_seconds",
        help: "When the present run of outdated calls of this kind began, to the bucket; only while it lasts.",
        labels: &[Label::AwsService, Label::EventName, Label::AccountId],
        of_calls: true,
        value: |run| run.since,
    },
];

/// The most labels a family has, `source` included.
const WIDTH: usize = 7;

/// A label set as ranks: comparing two compares their texts.
type RowKey = [u32; WIDTH];

#[derive(Default)]
struct Rows(Vec<(RowKey, i64)>);

impl Rows {
    fn push(&mut self, key: RowKey, value: i64) {
        self.0.push((key, value));
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
            .runs
            .iter()
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
            let value = (spec.value)(run).secs();
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

/// The rank of every label value in alphabetical order, and the values escaped.
struct Ranks<'t> {
    by_text: HashMap<&'t str, u32>,
    by_number: Vec<u32>,
    versions: Vec<(TlsVersion, u32)>,
    exchanges: Vec<(KeyExchange, u32, u32)>,
    escaped: Vec<String>,
}

impl<'t> Ranks<'t> {
    fn new(totals: &'t Totals) -> Self {
        let own = TlsVersion::ALL.iter().map(|version| version.label());
        let exchanges =
            KeyExchange::all().flat_map(|exchange| [exchange.label(), exchange.post_quantum()]);
        let sources = totals.sources().map(|(name, _)| &**name);
        let names = totals.texts().iter().map(|name| name.as_str());
        let mut texts: Vec<&'t str> = own.chain(exchanges).chain(sources).chain(names).collect();
        texts.sort_unstable();
        texts.dedup();
        let by_text: HashMap<&str, u32> = texts.iter().copied().zip(0..).collect();
        let rank = |text: &str| by_text.get(text).copied().unwrap_or_default();
        Self {
            by_number: totals
                .texts()
                .iter()
                .map(|name| rank(name.as_str()))
                .collect(),
            versions: TlsVersion::ALL
                .map(|version| (version, rank(version.label())))
                .to_vec(),
            exchanges: KeyExchange::all()
                .map(|exchange| {
                    (
                        exchange,
                        rank(exchange.label()),
                        rank(exchange.post_quantum()),
                    )
                })
                .collect(),
            escaped: texts
                .iter()
                .map(|text| {
                    let mut out = String::new();
                    text::push_escaped(&mut out, text);
                    out
                })
                .collect(),
            by_text,
        }
    }

    /// The rank of an entry's value for a label.
    fn of(&self, entry: &Entry, label: Label) -> u32 {
        let texts = &entry.texts;
        let number = |text: u32| {
            self.by_number
                .get(text as usize)
                .copied()
                .unwrap_or_default()
        };
        let exchange = || {
            self.exchanges
                .iter()
                .find(|(exchange, ..)| *exchange == texts.key_exchange)
        };
        match label {
            Label::AwsService => number(texts.aws_service),
            Label::EventName => number(texts.event_name),
            Label::CipherSuite => number(texts.cipher_suite),
            Label::AccountId => number(texts.account_id),
            Label::AwsRegion => number(texts.aws_region),
            Label::TlsVersion => {
                let found = self
                    .versions
                    .iter()
                    .find(|(version, _)| *version == texts.tls_version);
                found.map_or(0, |(_, rank)| *rank)
            }
            Label::KeyExchange => exchange().map_or(0, |(_, label, _)| *label),
            Label::PostQuantum => exchange().map_or(0, |(.., post_quantum)| *post_quantum),
        }
    }

    fn key<const N: usize>(&self, texts: [&str; N]) -> RowKey {
        let mut key = RowKey::default();
        for (slot, text) in key.iter_mut().zip(texts) {
            *slot = self.by_text.get(text).copied().unwrap_or_default();
        }
        key
    }

    fn escaped(&self, rank: u32) -> &str {
        self.escaped.get(rank as usize).map_or("", String::as_str)
    }
}
