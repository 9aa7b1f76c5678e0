//! Who makes the outdated calls: the busiest callers by name, and all others together, so that the sums are those of
//! `outdated_window_calls`.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::families::Label;
use super::ranks::WIDTH;
use super::{Settings, outdated};
use crate::call::{Caller, CallerLabels, in_turns};
use crate::series::OTHER;
use crate::totals::Totals;

pub(super) const NAME: &str = "cloudtrail_tls_outdated_caller_window_calls";
pub(super) const HELP: &str = "API calls on outdated TLS in the trailing window, by who makes them: the busiest 5 callers of each account \
     and service by name, as far as callers.limit goes, the rest as other.";

/// How many callers of an account's service are named.
const NAMED: usize = 5;
/// The labels of the calls, before those of the caller.
const CALL_LABELS: [Label; 4] = [
    Label::AwsService,
    Label::EventName,
    Label::TlsVersion,
    Label::AccountId,
];

/// What is shown of callers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CallerSettings {
    /// At most so many series name a caller.
    pub limit: usize,
    /// The labels of a caller.
    pub labels: CallerLabels,
}

/// Source, account and service.
type Group<'t> = [&'t str; 3];
/// The values of the caller's labels; unused ones are empty.
type Told<'t> = [&'t str; 3];

/// Calls of one kind.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Set<'t> {
    group: Group<'t>,
    event_name: &'t str,
    tls_version: &'t str,
}

/// One caller's calls of one kind.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Series<'t> {
    set: Set<'t>,
    told: Told<'t>,
    calls: i64,
}

/// A series: its labels' values in their order, and its value.
pub(super) type Row<'t> = ([&'t str; WIDTH], i64);

/// The labels of the family.
pub(super) fn labels(labels: CallerLabels) -> Vec<Label> {
    let told = [
        (labels.principal, Label::Principal),
        (labels.user_agent, Label::UserAgent),
        (labels.source_ip, Label::SourceIp),
    ];
    let told = told
        .into_iter()
        .filter_map(|(on, label)| on.then_some(label));
    CALL_LABELS.into_iter().chain(told).collect()
}

/// The series of the family, in no order.
pub(super) fn rows<'t>(totals: &'t Totals, settings: &Settings) -> Vec<Row<'t>> {
    let CallerSettings { limit, labels } = settings.callers;
    if limit == 0 || !labels.any() {
        return Vec::new();
    }
    let mut left = outdated_calls(totals, settings);
    let series = capped(callers(totals, labels), &left);
    let of = |series: &Series<'t>| (series.set.group, series.told);
    let calls = |series: &Series<'_>| series.calls.unsigned_abs();
    let mut rows = Vec::new();
    for series in in_turns(series, NAMED, of, calls).into_iter().take(limit) {
        if let Some(left) = left.get_mut(&series.set) {
            *left -= series.calls;
        }
        rows.push((texts(series.set, series.told), series.calls));
    }
    let other = [labels.principal, labels.user_agent, labels.source_ip];
    let other = packed(other.map(|on| on.then_some(OTHER)));
    let rest = left.into_iter().filter(|(_, calls)| *calls > 0);
    rows.extend(rest.map(|(set, calls)| (texts(set, other), calls)));
    rows
}

/// The outdated calls of the window, by kind.
fn outdated_calls<'t>(totals: &'t Totals, settings: &Settings) -> BTreeMap<Set<'t>, i64> {
    let text = |number: u32| {
        totals
            .texts()
            .get(number as usize)
            .map_or("", |name| name.as_str())
    };
    let mut sets: BTreeMap<Set<'t>, i64> = BTreeMap::new();
    for (source, totals) in totals.sources() {
        let entries = totals.entries.values();
        for entry in entries.filter(|entry| entry.window > 0 && outdated(settings, entry)) {
            let texts = &entry.texts;
            let set = Set {
                group: [source, text(texts.account_id), text(texts.aws_service)],
                event_name: text(texts.event_name),
                tls_version: texts.tls_version.label(),
            };
            *sets.entry(set).or_default() += entry.window;
        }
    }
    sets
}

/// The calls of each caller, by the labels that it is told by. One who calls itself `other` is none.
fn callers<'t>(totals: &'t Totals, labels: CallerLabels) -> BTreeMap<(Set<'t>, Told<'t>), i64> {
    let mut callers = BTreeMap::new();
    for (source, totals) in totals.sources() {
        for (caller, calls) in totals.callers.iter() {
            let told = told(caller, labels);
            let named = told.iter().any(|text| !text.is_empty() && *text != OTHER);
            if named {
                let set = Set {
                    group: [
                        source,
                        caller.account_id.as_str(),
                        caller.aws_service.as_str(),
                    ],
                    event_name: caller.event_name.as_str(),
                    tls_version: caller.tls_version.label(),
                };
                *callers.entry((set, told)).or_default() += calls;
            }
        }
    }
    callers
}

/// The callers' calls, as far as there are outdated calls of their kind: a source may tell more callers than it counted
/// calls.
fn capped<'t>(
    callers: BTreeMap<(Set<'t>, Told<'t>), i64>,
    outdated: &BTreeMap<Set<'t>, i64>,
) -> Vec<Series<'t>> {
    let callers = callers.into_iter();
    let mut callers: Vec<Series<'t>> = callers
        .map(|((set, told), calls)| Series { set, told, calls })
        .collect();
    callers.sort_by_key(|series| (series.set, Reverse(series.calls)));
    for of_set in callers.chunk_by_mut(|a, b| a.set == b.set) {
        let set = of_set.first().map(|series| series.set);
        let mut left = set.and_then(|set| outdated.get(&set)).copied().unwrap_or(0);
        for series in of_set {
            series.calls = series.calls.min(left);
            left -= series.calls;
        }
    }
    callers.retain(|series| series.calls > 0);
    callers
}

fn told(caller: &Caller, labels: CallerLabels) -> Told<'_> {
    let on = |on: bool, text| on.then_some(text);
    packed([
        on(labels.principal, caller.principal.as_str()),
        on(labels.user_agent, caller.user_agent.as_str()),
        on(labels.source_ip, caller.source_ip.as_str()),
    ])
}

/// The texts that are there, one after the other.
fn packed(texts: [Option<&str>; 3]) -> Told<'_> {
    let mut texts = texts.into_iter().flatten();
    std::array::from_fn(|_| texts.next().unwrap_or_default())
}

fn texts<'t>(set: Set<'t>, told: Told<'t>) -> [&'t str; WIDTH] {
    let [source, account_id, aws_service] = set.group;
    let [first, second, third] = told;
    let (event_name, tls_version) = (set.event_name, set.tls_version);
    [
        source,
        aws_service,
        event_name,
        tls_version,
        account_id,
        first,
        second,
        third,
    ]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::call::tests::call;
    use crate::call::{CallKey, Name};
    use crate::tls::TlsVersion;
    use crate::totals::{CallerChange, Change, KeyChange};

    fn settings(limit: usize, labels: CallerLabels) -> Settings {
        Settings {
            minimum_version: TlsVersion::Tls12,
            window: Duration::from_secs(86_400),
            retention: Duration::from_secs(35 * 86_400),
            quiet_period: Duration::from_secs(7 * 86_400),
            series: Default::default(),
            callers: CallerSettings { limit, labels },
        }
    }

    /// Account, service, call and version.
    type Kind = (usize, usize, usize, usize);

    fn key((account, service, event, version): Kind) -> CallKey {
        CallKey {
            account_id: Name::new(["loud", "quiet", "third"][account]),
            ..call(
                TlsVersion::ALL[version],
                ["ec2", "s3"][service],
                ["A", "B", "C"][event],
            )
        }
    }

    fn caller(
        kind: Kind,
        [principal, user_agent, source_ip]: [&str; 3],
        window: i64,
    ) -> CallerChange {
        let key = key(kind);
        let caller = Caller {
            aws_service: key.aws_service,
            event_name: key.event_name,
            tls_version: key.tls_version,
            account_id: key.account_id,
            principal: Name::new(principal),
            user_agent: Name::new(user_agent),
            source_ip: Name::new(source_ip),
        };
        CallerChange {
            caller: Arc::new(caller),
            window,
        }
    }

    fn totals(keys: &[(Kind, i64)], callers: Vec<CallerChange>) -> Totals {
        let keys = (0..).zip(keys).map(|(number, (kind, window))| KeyChange {
            window: *window,
            ..KeyChange::new(number, &Arc::new(key(*kind)))
        });
        let mut totals = Totals::default();
        totals.apply(Change {
            counted: true,
            source: "a".into(),
            worker: 1,
            watermark: None,
            keys: keys.collect(),
            runs: Vec::new(),
            callers: Vec::new(),
            window_moved: true,
        });
        // Each by a commit of its own.
        for (worker, caller) in (1..).zip(callers) {
            totals.apply(Change {
                counted: true,
                source: "a".into(),
                worker,
                watermark: None,
                keys: Vec::new(),
                runs: Vec::new(),
                callers: vec![caller],
                window_moved: false,
            });
        }
        totals
    }

    /// The rows as text, without source and version.
    fn shown(totals: &Totals, limit: usize, labels: CallerLabels) -> Vec<String> {
        let rows = rows(totals, &settings(limit, labels));
        let texts = rows.iter().map(|(texts, calls)| {
            let [_, service, event, _, account, told @ ..] = texts;
            format!(
                "{account} {service} {event} {} {calls}",
                told.join(" ").trim_end()
            )
        });
        let mut texts: Vec<String> = texts.collect();
        texts.sort_unstable();
        texts
    }

    const PRINCIPAL: CallerLabels = CallerLabels {
        principal: true,
        user_agent: false,
        source_ip: false,
    };

    #[test]
    fn five_callers_are_named_and_a_busy_one_with_many_calls_hides_no_other() {
        let mut callers = Vec::new();
        for event in 0..3 {
            callers.push(caller((0, 1, event, 0), ["p1", "", ""], 100));
        }
        for (name, calls) in [
            ("p2", 9),
            ("p3", 8),
            ("p4", 7),
            ("p5", 6),
            ("p6", 5),
            ("p7", 5),
        ] {
            callers.push(caller((0, 1, 0, 0), [name, "", ""], calls));
        }
        callers.push(caller((1, 1, 0, 0), ["p8", "", ""], 1));
        let counts = [
            ((0, 1, 0, 0), 150),
            ((0, 1, 1, 0), 100),
            ((0, 1, 2, 0), 100),
            ((1, 1, 0, 0), 1),
        ];
        let totals = totals(&counts, callers);
        assert_eq!(
            shown(&totals, 200, PRINCIPAL),
            [
                "loud s3 A other 20",
                "loud s3 A p1 100",
                "loud s3 A p2 9",
                "loud s3 A p3 8",
                "loud s3 A p4 7",
                "loud s3 A p5 6",
                "loud s3 B p1 100",
                "loud s3 C p1 100",
                "quiet s3 A p8 1",
            ]
        );
        // The quiet account's caller before the second of the loud one's; the second caller before the first one's
        // second call.
        assert_eq!(
            shown(&totals, 3, PRINCIPAL),
            [
                "loud s3 A other 41",
                "loud s3 A p1 100",
                "loud s3 A p2 9",
                "loud s3 B other 100",
                "loud s3 C other 100",
                "quiet s3 A p8 1",
            ]
        );
        assert_eq!(
            shown(&totals, 1, PRINCIPAL).last().unwrap(),
            "quiet s3 A other 1"
        );
        assert_eq!(shown(&totals, 0, PRINCIPAL), Vec::<String>::new());
    }

    #[test]
    fn callers_that_no_label_tells_apart_are_one_and_one_that_calls_itself_other_is_none() {
        let kind = (0, 1, 0, 0);
        let callers = vec![
            caller(kind, ["p", "x", "1"], 3),
            caller(kind, ["p", "y", "1"], 4),
            caller(kind, ["other", "other", "2"], 5),
            // None of these was counted as outdated.
            caller((0, 1, 1, 0), ["p", "x", "1"], 9),
            caller((0, 1, 0, 2), ["p", "x", "1"], 9),
        ];
        let totals = totals(
            &[(kind, 20), ((0, 1, 1, 0), 0), ((0, 1, 0, 2), 50)],
            callers,
        );
        assert_eq!(
            shown(&totals, 9, PRINCIPAL),
            ["loud s3 A other 13", "loud s3 A p 7"]
        );
        let user_agent = CallerLabels {
            user_agent: true,
            ..PRINCIPAL
        };
        assert_eq!(
            shown(&totals, 9, user_agent),
            [
                "loud s3 A other other 13",
                "loud s3 A p x 3",
                "loud s3 A p y 4"
            ]
        );
        assert_eq!(
            shown(&totals, 9, CallerLabels::default()),
            Vec::<String>::new()
        );
    }

    fn kind() -> impl Strategy<Value = Kind> {
        (0_usize..3, 0_usize..2, 0_usize..3, 0_usize..4)
    }

    fn told() -> impl Strategy<Value = [&'static str; 3]> {
        let text = || prop::sample::select(vec!["a", "b", "c", "other", ""]);
        [text(), text(), text()]
    }

    proptest! {
        #[test]
        fn sums_are_those_of_the_outdated_calls_whatever_is_known_and_shown(
            counts in prop::collection::vec((kind(), 0_i64..30), 0..12),
            callers in prop::collection::vec((kind(), told(), 1_i64..20), 0..40),
            limit in 0_usize..30,
            labels in any::<[bool; 3]>(),
            seed in any::<u64>(),
        ) {
            let [principal, user_agent, source_ip] = labels;
            let labels = CallerLabels { principal, user_agent, source_ip };
            let mut callers: Vec<_> = callers.iter().map(|(kind, told, calls)| caller(*kind, *told, *calls)).collect();
            let totals = self::totals(&counts, callers.clone());
            let settings = settings(limit, labels);
            let rows = rows(&totals, &settings);
            if limit == 0 || !labels.any() {
                prop_assert!(rows.is_empty());
                return Ok(());
            }
            let mut sums: BTreeMap<&[&str], i64> = BTreeMap::new();
            for (texts, calls) in &rows {
                prop_assert!(*calls > 0);
                *sums.entry(&texts[1..5]).or_default() += calls;
            }
            let expected = outdated_calls(&totals, &settings);
            let expected: Vec<_> = expected
                .iter()
                .map(|(set, calls)| (vec![set.group[2], set.event_name, set.tls_version, set.group[1]], *calls))
                .collect();
            let mut sums: Vec<_> = sums.into_iter().map(|(set, calls)| (set.to_vec(), calls)).collect();
            sums.sort_unstable();
            let mut expected = expected;
            expected.sort_unstable();
            prop_assert_eq!(sums, expected);

            let distinct: BTreeSet<_> = rows.iter().map(|(texts, _)| texts).collect();
            prop_assert_eq!(distinct.len(), rows.len());
            let is_other = |texts: &[&str; WIDTH]| texts[5..].iter().all(|text| text.is_empty() || *text == OTHER);
            let named: Vec<_> = rows.iter().filter(|(texts, _)| !is_other(texts)).collect();
            prop_assert!(named.len() <= limit);
            for (one, _) in &named {
                let same = |texts: &[&str; WIDTH]| texts[1] == one[1] && texts[4] == one[4];
                let told: BTreeSet<_> = named.iter().filter(|(texts, _)| same(texts)).map(|(texts, _)| &texts[5..]).collect();
                prop_assert!(told.len() <= NAMED);
            }

            fastrand::Rng::with_seed(seed).shuffle(&mut callers);
            let other = self::totals(&counts, callers);
            let sorted = |mut rows: Vec<Row<'_>>| {
                rows.sort_unstable();
                rows.iter().map(|row| format!("{row:?}")).collect::<Vec<_>>()
            };
            prop_assert_eq!(sorted(self::rows(&other, &settings)), sorted(rows));
        }
    }
}
