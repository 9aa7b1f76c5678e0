//! The families of the data block: names, HELP texts, labels, and where their values come from.

use super::Settings;
use super::fold::Merge;
use crate::series::{Counter, Rung};
use crate::time::Timestamp;
use crate::totals::{Entry, Run};

/// A label of the data block, beside `source`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Label {
    AwsService,
    EventName,
    TlsVersion,
    CipherSuite,
    KeyExchange,
    PostQuantum,
    AccountId,
    AwsRegion,
    Principal,
    UserAgent,
    SourceIp,
}

impl Label {
    /// The label's name.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::AwsService => "aws_service",
            Self::EventName => "event_name",
            Self::TlsVersion => "tls_version",
            Self::CipherSuite => "cipher_suite",
            Self::KeyExchange => "key_exchange",
            Self::PostQuantum => "post_quantum",
            Self::AccountId => "account_id",
            Self::AwsRegion => "aws_region",
            Self::Principal => "principal",
            Self::UserAgent => "user_agent",
            Self::SourceIp => "source_ip",
        }
    }

    /// From which rung on a counter's label is `other`; `None` for the kinds of TLS, which are few, and for what no
    /// counter has.
    pub(super) fn folds_at(self) -> Option<Rung> {
        match self {
            Self::EventName => Some(Rung::Event),
            Self::AwsRegion => Some(Rung::Region),
            Self::AccountId => Some(Rung::Account),
            Self::AwsService => Some(Rung::Service),
            Self::TlsVersion
            | Self::CipherSuite
            | Self::KeyExchange
            | Self::PostQuantum
            | Self::Principal
            | Self::UserAgent
            | Self::SourceIp => None,
        }
    }
}

/// Which series of a family keep their labels at its limit.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kept {
    Largest,
    Smallest,
}

/// A family whose values come from the entries of the totals.
pub(super) struct Spec {
    pub(super) name: &'static str,
    /// Which counters these are; `None` for gauges.
    pub(super) counter: Option<Counter>,
    pub(super) help: &'static str,
    pub(super) labels: Vec<Label>,
    /// How the values of keys that share a label set become one.
    pub(super) merge: Merge,
    pub(super) kept: Kept,
    /// The value of an entry; `None` leaves it out.
    pub(super) value: fn(&Settings, &Entry) -> Option<i64>,
}

/// The families whose values come from entries.
pub(super) fn specs(settings: &Settings) -> Vec<Spec> {
    use Label::{
        AccountId, AwsRegion, AwsService, CipherSuite, EventName, KeyExchange, PostQuantum,
        TlsVersion,
    };
    let mut call_labels = vec![AwsService, TlsVersion, EventName];
    call_labels.extend(settings.series.label_account.then_some(AccountId));
    call_labels.extend(settings.series.label_region.then_some(AwsRegion));
    let gauge = |name, help, labels: &[Label], merge, value| Spec {
        name,
        counter: None,
        help,
        labels: labels.to_vec(),
        merge,
        kept: Kept::Largest,
        value,
    };
    let counter = |name, counter, help, labels: &[Label]| {
        let value: fn(&Settings, &Entry) -> _ = |_, entry| i64::try_from(entry.calls).ok();
        Spec {
            counter: Some(counter),
            ..gauge(name, help, labels, Merge::Sum, value)
        }
    };
    // Where the smallest are what tells of blindness.
    let smallest = |spec| Spec {
        kept: Kept::Smallest,
        ..spec
    };
    vec![
        gauge(
            "cloudtrail_tls_window_calls",
            "API calls in the trailing window, by service, TLS version and call. Counted in the background, as CloudTrail \
             delivers: usually 5 to 15 minutes after the call. Outdated versions stay at 0 once they are gone, others vanish.",
            &call_labels,
            Merge::Sum,
            |settings, entry| {
                (entry.window > 0 || outdated(settings, entry)).then_some(entry.window)
            },
        ),
        counter(
            "cloudtrail_tls_calls_total",
            Counter::Calls,
            "API calls counted since this store began, by service, TLS version and call. Counted in the background, as \
             CloudTrail delivers; continues over restarts.",
            &call_labels,
        ),
        gauge(
            "cloudtrail_tls_account_outdated_window_calls",
            "API calls on outdated TLS in the trailing window, for every account seen: 0 means that calls were counted and \
             none was outdated.",
            &[AccountId],
            Merge::Sum,
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
            Merge::Sum,
            |settings, entry| outdated(settings, entry).then_some(entry.window),
        ),
        gauge(
            "cloudtrail_tls_outdated_last_call_timestamp_seconds",
            "When the latest call on outdated TLS was made (its eventTime).",
            &[AwsService, EventName, TlsVersion, AccountId],
            Merge::Max,
            |settings, entry| outdated(settings, entry).then_some(entry.last_call.secs()),
        ),
        smallest(gauge(
            "cloudtrail_tls_control_window_calls",
            "API calls on TLS 1.2 or newer in the trailing window: the positive control. 0 means that the trail tells nothing, \
             not that nothing is outdated.",
            &[AccountId],
            Merge::Sum,
            |_, entry| {
                Some(if entry.texts.tls_version.control() {
                    entry.window
                } else {
                    0
                })
            },
        )),
        gauge(
            "cloudtrail_tls_cipher_suite_window_calls",
            "API calls in the trailing window, by cipher suite; none where the record does not tell.",
            &[AwsService, TlsVersion, CipherSuite],
            Merge::Sum,
            |settings, entry| {
                (entry.window > 0 || outdated(settings, entry)).then_some(entry.window)
            },
        ),
        gauge(
            "cloudtrail_tls_key_exchange_window_calls",
            "API calls in the trailing window, by key exchange and whether it is post-quantum. The post-quantum share is \
             yes / (yes + no).",
            &[AwsService, AccountId, KeyExchange, PostQuantum],
            Merge::Sum,
            |_, entry| (entry.window > 0).then_some(entry.window),
        ),
        counter(
            "cloudtrail_tls_key_exchange_calls_total",
            Counter::KeyExchanges,
            "API calls counted since this store began, by key exchange and whether it is post-quantum.",
            &[AwsService, AccountId, KeyExchange, PostQuantum],
        ),
        smallest(gauge(
            "cloudtrail_tls_account_newest_record_timestamp_seconds",
            "The newest record counted for the account (its eventTime).",
            &[AccountId],
            Merge::Max,
            |_, entry| Some(entry.last_call.secs()),
        )),
    ]
}

pub(super) fn outdated(settings: &Settings, entry: &Entry) -> bool {
    entry.texts.tls_version.outdated(settings.minimum_version)
}

/// A family whose values come from the runs of outdated calls.
pub(super) struct RunSpec {
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    pub(super) labels: &'static [Label],
    pub(super) of_calls: bool,
    pub(super) value: fn(&Run) -> Timestamp,
}

/// The families whose values come from runs.
pub(super) const RUN_SPECS: [RunSpec; 3] = [
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
