//! The text of a query, in CloudWatch Logs Insights' language.

use std::fmt::Write as _;
use std::time::Duration;

use super::Settings;
use crate::call::CallerLabels;
use crate::source::query::{Ask, Leaf, Part};
use crate::tls::TlsVersion;

/// How the members of a record are reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// By the fields that Logs Insights discovers: the first 200 of an event, in log groups of class Standard.
    #[default]
    Fields,
    /// By parsing each event: for class Infrequent Access, where AWS's pages contradict each other on discovered
    /// fields, and for events of more than 200 fields, whose `tlsDetails` at their end would be missed.
    Json,
}

impl Form {
    fn path(self, member: &str) -> String {
        match self {
            Self::Fields => member.to_owned(),
            Self::Json => format!("record.{member}"),
        }
    }
}

/// The columns of the answer, beside the bucket.
pub(super) mod column {
    pub(in super::super) const CALLS: &str = "calls";
    pub(in super::super) const LAST: &str = "lastEventTime";
    pub(in super::super) const TLS_HOST: &str = "tlsHost";
    pub(in super::super) const EVENT_NAME: &str = "eventName";
    /// The other members of the key, as the record has them.
    pub(in super::super) const KEY: [&str; 6] = [
        "eventSource",
        "tlsDetails.tlsVersion",
        "tlsDetails.cipherSuite",
        "tlsDetails.keyExchange",
        "recipientAccountId",
        "awsRegion",
    ];
    /// The members of a call of which its callers are told.
    pub(in super::super) const CALL: [&str; 4] = [
        "eventName",
        "eventSource",
        "tlsDetails.tlsVersion",
        "recipientAccountId",
    ];
    pub(in super::super) const PRINCIPAL: &str = "principal";
    /// The first of them that a record has is its principal.
    pub(in super::super) const PRINCIPAL_MEMBERS: [&str; 4] = [
        "userIdentity.sessionContext.sessionIssuer.arn",
        "userIdentity.arn",
        "userIdentity.invokedBy",
        "userIdentity.principalId",
    ];
    pub(in super::super) const USER_AGENT: &str = "userAgent";
    pub(in super::super) const SOURCE_IP: &str = "sourceIPAddress";
}

/// The member of the record that a part is.
pub(super) fn member(part: Part) -> &'static str {
    match part {
        Part::Region => "awsRegion",
        Part::Account => "recipientAccountId",
        Part::Service => "eventSource",
    }
}

/// The query of a leaf.
pub(super) fn query(leaf: &Leaf, settings: &Settings) -> String {
    let form = settings.form;
    let mut text = String::new();
    if form == Form::Json {
        text.push_str("fields jsonParse(@message) as record\n| ");
    }
    // Whole milliseconds, half open: neighbours share no event.
    let (from, to) = (leaf.window.from.secs() * 1000, leaf.window.to.secs() * 1000);
    push(
        &mut text,
        format_args!("filter toMillis(@timestamp) >= {from} and toMillis(@timestamp) < {to}"),
    );
    for (part, value) in &leaf.only {
        let member = form.path(member(*part));
        match value {
            Some(value) => push(&mut text, format_args!(" and {member} = {}", quoted(value))),
            None => push(
                &mut text,
                format_args!(" and (not ispresent({member}) or {member} = \"\")"),
            ),
        }
    }
    let version = form.path("tlsDetails.tlsVersion");
    let below = match leaf.ask {
        Ask::Callers { below, .. } => Some(below),
        _ => (settings.outdated_only && !leaf.control).then_some(settings.minimum_version),
    };
    if let Some(below) = below {
        let list: Vec<String> = TlsVersion::labels_below(below).map(quoted).collect();
        // `in` uses a field index, where there is one.
        push(
            &mut text,
            format_args!(" and {version} in [{}]", list.join(", ")),
        );
    }
    if let Ask::Callers { columns, .. } = leaf.ask {
        push_callers(&mut text, columns, settings);
        return text;
    }
    if let Ask::Values(part) = leaf.ask {
        let member = form.path(member(part));
        push(
            &mut text,
            format_args!("\n| stats count(*) as {} by {member}", column::CALLS),
        );
        return text;
    }
    // Whether there are tlsDetails without any of the members that are asked for.
    let host = form.path("tlsDetails.clientProvidedHostHeader");
    push(
        &mut text,
        format_args!("\n| fields ispresent({host}) as {}", column::TLS_HOST),
    );
    let time = form.path("eventTime");
    let (calls, last) = (column::CALLS, column::LAST);
    push(
        &mut text,
        format_args!(
            "\n| stats count(*) as {calls}, sortsLast({time}) as {last} by {}",
            bin(settings.bucket)
        ),
    );
    let event_name = (leaf.ask != Ask::CallsWithoutEventName).then_some(column::EVENT_NAME);
    for member in event_name.into_iter().chain(column::KEY) {
        push(&mut text, format_args!(", {}", form.path(member)));
    }
    push(&mut text, format_args!(", {}", column::TLS_HOST));
    text
}

/// The callers of each bucket, the busiest first. The language ranks nothing within groups: a loud account's callers come
/// before a quiet one's, so the limit is high.
fn push_callers(text: &mut String, columns: CallerLabels, settings: &Settings) {
    let form = settings.form;
    if columns.principal {
        let members = column::PRINCIPAL_MEMBERS.map(|member| form.path(member));
        push(
            text,
            format_args!(
                "\n| fields coalesce({}) as {}",
                members.join(", "),
                column::PRINCIPAL
            ),
        );
    }
    let bin = bin(settings.bucket);
    push(
        text,
        format_args!("\n| stats count(*) as {} by {bin}", column::CALLS),
    );
    for member in column::CALL {
        push(text, format_args!(", {}", form.path(member)));
    }
    let told = [
        (columns.principal, column::PRINCIPAL.to_owned()),
        (columns.user_agent, form.path(column::USER_AGENT)),
        (columns.source_ip, form.path(column::SOURCE_IP)),
    ];
    for (_, member) in told.into_iter().filter(|(asked, _)| *asked) {
        push(text, format_args!(", {member}"));
    }
    push(
        text,
        format_args!(
            "\n| sort {} desc\n| limit {}",
            column::CALLS,
            settings.most_callers()
        ),
    );
}

fn push(text: &mut String, more: std::fmt::Arguments<'_>) {
    text.write_fmt(more).expect("a String takes all text");
}

/// In minutes or hours: AWS silently takes `bin(300s)` for 60 seconds, as it caps seconds at 60.
fn bin(bucket: Duration) -> String {
    let minutes = bucket.as_secs() / 60;
    if minutes.is_multiple_of(60) {
        format!("bin({}h)", minutes / 60)
    } else {
        format!("bin({minutes}m)")
    }
}

fn quoted(value: &str) -> String {
    format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Timestamp;
    use crate::window::Window;

    fn settings(form: Form, outdated_only: bool) -> Settings {
        Settings {
            log_groups: vec!["trail".to_owned()],
            form,
            outdated_only,
            minimum_version: TlsVersion::Tls12,
            bucket: Duration::from_secs(300),
            most_rows: 10,
            page: 7,
        }
    }

    fn leaf() -> Leaf {
        let window = Window {
            from: Timestamp::from_secs(1_780_308_000),
            to: Timestamp::from_secs(1_780_308_300),
        };
        Leaf::calls(window)
    }

    #[test]
    fn a_window_is_asked_for_by_its_whole_key() {
        assert_eq!(
            query(&leaf(), &settings(Form::Fields, false)),
            "filter toMillis(@timestamp) >= 1780308000000 and toMillis(@timestamp) < 1780308300000\n\
             | fields ispresent(tlsDetails.clientProvidedHostHeader) as tlsHost\n\
             | stats count(*) as calls, sortsLast(eventTime) as lastEventTime by bin(5m), eventName, eventSource, \
             tlsDetails.tlsVersion, tlsDetails.cipherSuite, tlsDetails.keyExchange, recipientAccountId, awsRegion, tlsHost"
        );
    }

    #[test]
    fn parsed_records_outdated_versions_and_parts_are_asked_for() {
        let mut leaf = leaf();
        leaf.ask = Ask::CallsWithoutEventName;
        leaf.only = vec![
            (Part::Region, Some("a\"b\\".to_owned())),
            (Part::Account, None),
        ];
        assert_eq!(
            query(&leaf, &settings(Form::Json, true)),
            "fields jsonParse(@message) as record\n\
             | filter toMillis(@timestamp) >= 1780308000000 and toMillis(@timestamp) < 1780308300000 \
             and record.awsRegion = \"a\\\"b\\\\\" and (not ispresent(record.recipientAccountId) or record.recipientAccountId = \"\") \
             and record.tlsDetails.tlsVersion in [\"TLSv1\", \"TLSv1.1\"]\n\
             | fields ispresent(record.tlsDetails.clientProvidedHostHeader) as tlsHost\n\
             | stats count(*) as calls, sortsLast(record.eventTime) as lastEventTime by bin(5m), record.eventSource, \
             record.tlsDetails.tlsVersion, record.tlsDetails.cipherSuite, record.tlsDetails.keyExchange, \
             record.recipientAccountId, record.awsRegion, tlsHost"
        );
    }

    #[test]
    fn the_control_query_asks_for_all_versions_and_values_are_asked_for_alone() {
        let text = query(&Leaf::control(leaf().window), &settings(Form::Fields, true));
        assert!(!text.contains("TLSv1"), "{text}");
        let values = Leaf {
            ask: Ask::Values(Part::Service),
            ..leaf()
        };
        let text = query(&values, &settings(Form::Fields, false));
        assert!(
            text.ends_with("\n| stats count(*) as calls by eventSource"),
            "{text}"
        );
    }

    #[test]
    fn callers_are_asked_for_by_what_is_told_of_them_the_busiest_first() {
        let columns = CallerLabels {
            principal: true,
            user_agent: true,
            source_ip: false,
        };
        let below = TlsVersion::Tls12;
        let callers = Leaf::callers(leaf().window, below, columns);
        assert_eq!(
            query(&callers, &settings(Form::Fields, true)),
            "filter toMillis(@timestamp) >= 1780308000000 and toMillis(@timestamp) < 1780308300000 \
             and tlsDetails.tlsVersion in [\"TLSv1\", \"TLSv1.1\"]\n\
             | fields coalesce(userIdentity.sessionContext.sessionIssuer.arn, userIdentity.arn, \
             userIdentity.invokedBy, userIdentity.principalId) as principal\n\
             | stats count(*) as calls by bin(5m), eventName, eventSource, tlsDetails.tlsVersion, recipientAccountId, \
             principal, userAgent\n\
             | sort calls desc\n\
             | limit 10"
        );
        let columns = CallerLabels {
            principal: false,
            user_agent: false,
            source_ip: true,
        };
        let callers = Leaf::callers(leaf().window, below, columns);
        assert_eq!(
            query(&callers, &settings(Form::Json, false)),
            "fields jsonParse(@message) as record\n\
             | filter toMillis(@timestamp) >= 1780308000000 and toMillis(@timestamp) < 1780308300000 \
             and record.tlsDetails.tlsVersion in [\"TLSv1\", \"TLSv1.1\"]\n\
             | stats count(*) as calls by bin(5m), record.eventName, record.eventSource, \
             record.tlsDetails.tlsVersion, record.recipientAccountId, record.sourceIPAddress\n\
             | sort calls desc\n\
             | limit 10"
        );
    }

    #[test]
    fn bins_are_written_in_minutes_or_hours() {
        let bins = [60, 300, 1800, 3600].map(|secs| bin(Duration::from_secs(secs)));
        assert_eq!(bins, ["bin(1m)", "bin(5m)", "bin(30m)", "bin(1h)"]);
    }
}
