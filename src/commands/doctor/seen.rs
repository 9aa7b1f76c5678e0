//! What the records tell: whether any arrive, how late, whether they carry TLS details, and what it costs to ask.

use std::collections::BTreeMap;
use std::time::Duration;

use super::query::Asked;
use super::report::{Check, Section, size};
use crate::batch::{Counts, Scanned};
use crate::source::Terms;
use crate::time::Timestamp;
use crate::tls::{KeyExchange, TlsVersion};
use crate::window::Window;

/// Checks that every source ends with, if it finds anything.
pub(super) const CHECKS: [&str; 4] = [
    "records",
    "newest_record",
    "tls_details",
    "positive_control",
];
/// CloudTrail delivers within 5 minutes on average; what is this old at the end of a window is worth a word.
const LATE: Duration = Duration::from_secs(30 * 60);

/// Calls that were found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) calls: u64,
    /// What lies there and is no call, as it has no `eventSource`.
    pub(super) no_calls: u64,
    with_details: u64,
    pub(super) with_key_exchange: u64,
    versions: BTreeMap<TlsVersion, u64>,
    newest: Option<Timestamp>,
    /// Whether there may be more.
    truncated: bool,
}

impl Seen {
    /// What a query answered.
    pub(super) fn in_answer(answer: &Asked) -> Self {
        let mut seen = Self {
            truncated: answer.truncated,
            ..Self::default()
        };
        for row in &answer.rows {
            let members = &row.members;
            if members.event_source.is_none() {
                seen.no_calls += row.calls;
                continue;
            }
            let version = TlsVersion::from_record(members.tls_version.as_deref());
            let key_exchange = match members.has_tls {
                true => KeyExchange::from_record(members.key_exchange.as_deref()),
                false => KeyExchange::None,
            };
            seen.take(
                row.calls,
                version,
                key_exchange,
                row.last.unwrap_or(row.bucket),
            );
        }
        seen
    }

    /// Adds what a source counted.
    pub(super) fn add(&mut self, counts: &Counts) {
        for (_, key, tally) in counts.iter() {
            self.take(tally.calls, key.tls_version, key.key_exchange, tally.last);
        }
    }

    fn take(&mut self, calls: u64, version: TlsVersion, exchange: KeyExchange, last: Timestamp) {
        self.calls += calls;
        *self.versions.entry(version).or_default() += calls;
        self.newest = self.newest.max(Some(last));
        if exchange != KeyExchange::None {
            self.with_details += calls;
        }
        if exchange != KeyExchange::None && exchange != KeyExchange::Unreported {
            self.with_key_exchange += calls;
        }
    }

    /// The checks of what arrives. `nothing` is the hint where nothing does.
    pub(super) fn check(
        &self,
        window: Window,
        now: Timestamp,
        nothing: &str,
        section: &mut Section,
    ) {
        let Window { from, to } = window;
        let span = format!("{from} to {to}");
        let facts = |check: Check| {
            check
                .fact("from", from.to_string())
                .fact("to", to.to_string())
                .fact("records", self.calls)
        };
        if self.calls == 0 {
            let check = match self.no_calls {
                0 => Check::failed("records", format!("none from {span}")).hint(nothing),
                number => Check::failed(
                    "records",
                    format!("{number} log events from {span}, and no eventSource in any of them"),
                )
                .hint(
                    "is it a trail's log group? In class Infrequent Access set `parse_json = true`",
                ),
            };
            return section.push(facts(check));
        }
        section.push(facts(Check::ok(
            "records",
            format!("{}{} from {span}", self.at_least(), self.calls),
        )));
        if let Some(newest) = self.newest {
            section.push(newest_check(newest, to, now));
        }
        self.check_tls(section);
    }

    fn at_least(&self) -> &'static str {
        match self.truncated {
            true => "at least ",
            false => "",
        }
    }

    fn check_tls(&self, section: &mut Section) {
        let (calls, details) = (self.calls, self.with_details);
        let exchanges = self.with_key_exchange;
        let percent = details * 100 / calls.max(1);
        let found = format!(
            "{details} of {calls} have tlsDetails ({percent} %), {exchanges} with a key exchange"
        );
        let check = match details {
            0 => Check::failed("tls_details", found).hint(
                "calls that AWS services and the console make have none; if yours have none either, the source loses \
                 them: for `logs_insights` try `parse_json = true`, for `athena` look at the table's `tlsdetails`",
            ),
            _ => Check::ok("tls_details", found),
        };
        section.push(
            check
                .fact("records_with_tls_details", details)
                .fact("records_with_key_exchange", exchanges),
        );
        let modern = self
            .versions
            .iter()
            .filter(|(version, _)| version.control());
        let modern: u64 = modern.map(|(_, calls)| calls).sum();
        let each = self.versions.iter();
        let each = each.map(|(version, calls)| format!("{} {calls}", version.label()));
        let found = format!(
            "{modern} on TLS 1.2 or newer ({})",
            each.collect::<Vec<_>>().join(", ")
        );
        let check = match modern {
            0 => Check::failed("positive_control", found).hint(
                "a 0 of outdated calls would prove nothing: make any call with a current SDK, and try again once it \
                 is delivered",
            ),
            _ => Check::ok("positive_control", found),
        };
        let versions = self.versions.iter();
        let versions =
            versions.map(|(version, calls)| (version.label().to_owned(), (*calls).into()));
        let versions = serde_json::Map::from_iter(versions);
        section.push(check.fact("control", modern).fact("versions", versions));
    }
}

/// How old the newest record is, and how long before the end of the window it was.
fn newest_check(newest: Timestamp, end: Timestamp, now: Timestamp) -> Check {
    let (age, before) = (now.since(newest), end.since(newest));
    let found = format!(
        "{newest}, {} ago, {} before the end of that time",
        humantime::format_duration(age),
        humantime::format_duration(before)
    );
    let check = match before > LATE {
        true => Check::warning("newest_record", found).hint(
            "records come late, or few calls are made; the alert on `newest_record_timestamp_seconds` must allow for it",
        ),
        false => Check::ok("newest_record", found),
    };
    check
        .fact("newest", newest.to_string())
        .fact("age_seconds", age.as_secs())
        .fact("before_end_seconds", before.as_secs())
}

/// What this command scanned, and what a day of the exporter costs.
pub(super) fn cost(scanned: Scanned, day: u64, terms: Terms, how: &str) -> Check {
    let (now, price) = (terms.price(scanned.billed_bytes), terms.price(day));
    let found = format!(
        "scanned {} just now ({}); about {} a day ({}), {how}",
        size(scanned.bytes),
        dollars(now),
        size(day),
        dollars(price)
    );
    Check::ok("cost", found)
        .fact("scanned_bytes", scanned.bytes)
        .fact("billed_bytes", scanned.billed_bytes)
        .fact("day_bytes", day)
        .fact("day_dollars", price)
        .fact("price_per_gib", terms.price_per_gib)
}

fn dollars(amount: f64) -> String {
    match amount {
        0.0 => "$0".to_owned(),
        less if less < 0.01 => "less than $0.01".to_owned(),
        amount => format!("${amount:.2}"),
    }
}

/// What `span` of a scan comes to in a day.
pub(super) fn of_a_day(bytes: u64, span: Duration) -> u64 {
    let day = u128::from(bytes) * 86_400 / u128::from(span.as_secs().max(1));
    u64::try_from(day).unwrap_or(u64::MAX)
}
