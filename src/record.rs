//! CloudTrail records as text: finds every record in a log file's JSON and reads the members that
//! the program counts by.
//!
//! CloudTrail delivers one `{"Records":[…]}` a file. A bare list of records, a bare record, and several
//! of either in a row (JSON lines) are read too: they say the same without the wrapper. What a record
//! must have is `eventTime` and `eventSource`; the first one without them is an error that names it.

mod caller;
mod raw;
mod walk;

use std::borrow::Cow;

pub use self::caller::RawCaller;
use self::raw::{Raw, Text};
pub use self::walk::Unexpected;
use self::walk::Walk;
use crate::time::Timestamp;
use crate::tls::{KeyExchange, TlsVersion};

/// What is counted of one record; texts are borrowed from the file. Absent texts are empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// `eventID`; empty in records older than event ids.
    pub event_id: Cow<'a, str>,
    /// `eventTime`: when the request completed.
    pub event_time: Timestamp,
    /// `eventSource`, such as `s3.amazonaws.com`.
    pub event_source: Cow<'a, str>,
    /// `eventName`.
    pub event_name: Cow<'a, str>,
    /// `awsRegion`.
    pub aws_region: Cow<'a, str>,
    /// `recipientAccountId`.
    pub account_id: Cow<'a, str>,
    /// `tlsDetails.tlsVersion`.
    pub tls_version: TlsVersion,
    /// `tlsDetails.cipherSuite`.
    pub cipher_suite: Cow<'a, str>,
    /// `tlsDetails.keyExchange`.
    pub key_exchange: KeyExchange,
    /// Who made the call.
    pub caller: RawCaller<'a>,
}

/// Why a file's records cannot be counted.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The text is no JSON, or JSON of another shape.
    #[error("not CloudTrail's JSON")]
    Json(#[from] Unexpected),
    /// There is nothing in the text.
    #[error("the file is empty")]
    Empty,
    /// A member that each record must have is missing.
    #[error("record {record} has no `{member}`")]
    Missing {
        /// The record's place in the file, from 1.
        record: u64,
        /// The member's name in the record.
        member: &'static str,
    },
    /// `eventTime` is no time.
    #[error("record {record} has the eventTime {value:?}, which is no RFC 3339 time")]
    Time {
        /// The record's place in the file, from 1.
        record: u64,
        /// The text found.
        value: String,
    },
    /// `eventTime` is later than this host's clock allows.
    #[error("record {record} is from the future: {time}")]
    Future {
        /// The record's place in the file, from 1.
        record: u64,
        /// The record's time.
        time: Timestamp,
    },
}

/// Calls `each` with every API call in `text`, in order, until one fails. A record whose time is
/// after `latest` is an error. Insights events (`eventCategory` is `Insight`) are no calls and are
/// passed over.
pub fn read<'a>(
    text: &'a str,
    latest: Timestamp,
    each: impl FnMut(Record<'a>),
) -> Result<(), RecordError> {
    let mut reader = Reader {
        latest,
        each,
        seen: 0,
    };
    let mut walk = Walk::new(text);
    if walk.peek().is_none() {
        return Err(RecordError::Empty);
    }
    while let Some(first) = walk.peek() {
        match first {
            b'[' => reader.list(&mut walk)?,
            _ => reader.object(&mut walk)?,
        }
    }
    Ok(())
}

struct Reader<F> {
    latest: Timestamp,
    each: F,
    seen: u64,
}

impl<'a, F: FnMut(Record<'a>)> Reader<F> {
    /// Reads an object at the top of the file: what wraps records, or else a record itself.
    fn object(&mut self, walk: &mut Walk<'a>) -> Result<(), RecordError> {
        let start = walk.place();
        let mut wrapper = false;
        walk.members(|walk, name| {
            if name == "Records" {
                wrapper = true;
                self.list(walk)
            } else {
                Ok(walk.skip()?)
            }
        })?;
        if !wrapper {
            walk.back_to(start);
            self.take(Raw::read(walk)?)?;
        }
        Ok(())
    }

    fn list(&mut self, walk: &mut Walk<'a>) -> Result<(), RecordError> {
        walk.elements(|walk| self.take(Raw::read(walk)?))
    }

    fn take(&mut self, raw: Raw<'a>) -> Result<(), RecordError> {
        self.seen += 1;
        let record = self.seen;
        if raw.event_category.is("Insight") {
            return Ok(());
        }
        let required = |text: Text<'a>, member| match text.0 {
            Some(text) if !text.is_empty() => Ok(text),
            _ => Err(RecordError::Missing { record, member }),
        };
        let time = required(raw.event_time, "eventTime")?;
        let event_time = Timestamp::parse(&time).ok_or_else(|| RecordError::Time {
            record,
            value: time.into_owned(),
        })?;
        if event_time > self.latest {
            return Err(RecordError::Future {
                record,
                time: event_time,
            });
        }
        let event_source = required(raw.event_source, "eventSource")?;
        let (tls_version, cipher_suite, key_exchange) = match raw.tls_details {
            None => (TlsVersion::None, Text(None), KeyExchange::None),
            Some(tls) => (
                TlsVersion::from_record(tls.tls_version.0.as_deref()),
                tls.cipher_suite,
                KeyExchange::from_record(tls.key_exchange.0.as_deref()),
            ),
        };
        (self.each)(Record {
            event_id: raw.event_id.or_empty(),
            event_time,
            event_source,
            event_name: raw.event_name.or_empty(),
            aws_region: raw.aws_region.or_empty(),
            account_id: raw.recipient_account_id.or_empty(),
            tls_version,
            cipher_suite: cipher_suite.or_empty(),
            key_exchange,
            caller: raw.caller,
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    const RECORD: &str = r#"{"eventVersion":"1.11","userIdentity":{"type":"IAMUser","eventName":"not this"},
        "eventTime":"2026-06-01T10:00:00Z","eventSource":"s3.amazonaws.com","eventName":"GetObject",
        "awsRegion":"eu-west-1","userAgent": "a\"b" ,"errorCode":null,"requestParameters":{"key":"a\"b\u00e9"},
        "eventID":"6f1c1f9a-8a6c-4a44-9d7e-1d6d3c3f1a11","recipientAccountId":"111122223333",
        "tlsDetails":{"tlsVersion":"TLSv1.3","cipherSuite":"TLS_AES_128_GCM_SHA256","keyExchange":"X25519MLKEM768"}}"#;

    fn records(text: &str) -> Result<Vec<Record<'_>>, String> {
        let mut found = Vec::new();
        let latest = Timestamp::parse("2026-06-02T00:00:00Z").unwrap();
        match read(text, latest, |record| found.push(record)) {
            Ok(()) => Ok(found),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn a_record_is_read_with_all_that_it_is_counted_by() {
        let text = format!(r#"{{"Records":[{RECORD}]}}"#);
        let expected = Record {
            event_id: "6f1c1f9a-8a6c-4a44-9d7e-1d6d3c3f1a11".into(),
            event_time: Timestamp::parse("2026-06-01T10:00:00Z").unwrap(),
            event_source: "s3.amazonaws.com".into(),
            event_name: "GetObject".into(),
            aws_region: "eu-west-1".into(),
            account_id: "111122223333".into(),
            tls_version: TlsVersion::Tls13,
            cipher_suite: "TLS_AES_128_GCM_SHA256".into(),
            key_exchange: KeyExchange::from_record(Some("x25519mlkem768")),
            caller: RawCaller {
                user_identity: r#"{"type":"IAMUser","eventName":"not this"}"#,
                user_agent: r#""a\"b""#,
                source_ip: "",
            },
        };
        assert_eq!(expected.caller.user_agent(), r#"a"b"#);
        assert_eq!(records(&text), Ok(vec![expected]));
    }

    #[test]
    fn records_are_found_whatever_their_wrapper() {
        for (text, expected) in [
            (format!(r#"{{"Records":[{RECORD},{RECORD}]}}"#), 2),
            (
                format!(r#"{{"note":{{"Records":[1]}},"Records":[{RECORD}],"more":1}}"#),
                1,
            ),
            (format!("[{RECORD},{RECORD}]\n"), 2),
            (RECORD.to_owned(), 1),
            (format!("{RECORD}\n{RECORD}\n\n{RECORD}\n"), 3),
            (
                format!(r#"{{"Records":[{RECORD}]}}{{"Records":[{RECORD}]}}"#),
                2,
            ),
            (r#"{"Records":[]}"#.to_owned(), 0),
            ("[]".to_owned(), 0),
        ] {
            assert_eq!(
                records(&text).map(|found| found.len()),
                Ok(expected),
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_missing_or_wrong_is_named_with_its_record() {
        let second = |from: &str, to: &str| {
            format!(r#"{{"Records":[{RECORD},{}]}}"#, RECORD.replace(from, to))
        };
        for (text, expected) in [
            (
                second("eventTime", "@timestamp"),
                "record 2 has no `eventTime`",
            ),
            (
                second(r#""2026-06-01T10:00:00Z""#, "null"),
                "record 2 has no `eventTime`",
            ),
            (
                second("eventSource", "source"),
                "record 2 has no `eventSource`",
            ),
            (
                second("s3.amazonaws.com", ""),
                "record 2 has no `eventSource`",
            ),
            (
                second("2026-06-01T10", "yesterday"),
                r#"record 2 has the eventTime "yesterday:00:00Z", which is no RFC 3339 time"#,
            ),
            (
                second("2026-06-01T10", "2026-06-02T10"),
                "record 2 is from the future: 2026-06-02T10:00:00Z",
            ),
            (
                second(r#""s3.amazonaws.com""#, "7"),
                "not CloudTrail's JSON",
            ),
            (
                r#"{"digestStartTime":"2015-08-20T17:01:31Z"}"#.to_owned(),
                "record 1 has no `eventTime`",
            ),
            (r#"{"Records":7}"#.to_owned(), "not CloudTrail's JSON"),
            (
                format!(r#"{{"Records":[{RECORD}]"#),
                "not CloudTrail's JSON",
            ),
            (
                format!(r#"{{"Records":[{RECORD}]}} and more"#),
                "not CloudTrail's JSON",
            ),
            ("7".to_owned(), "not CloudTrail's JSON"),
            (" \n".to_owned(), "the file is empty"),
        ] {
            assert_eq!(records(&text), Err(expected.to_owned()), "{text}");
        }
    }

    #[test]
    fn partial_or_absent_tls_details_are_told_apart() {
        let told = |details: &str| {
            let text =
                format!(r#"{{"eventTime":"2026-06-01T10:00:00Z","eventSource":"a"{details}}}"#);
            let mut found = records(&text).unwrap();
            let record = found.remove(0);
            (
                record.tls_version.label(),
                record.cipher_suite.into_owned(),
                record.key_exchange.label(),
            )
        };
        let none = ("none", String::new(), "none");
        assert_eq!(told(""), none);
        assert_eq!(told(r#","tlsDetails":null"#), none);
        let host_only =
            r#","tlsDetails":{"clientProvidedHostHeader":"health.us-east-1.amazonaws.com"}"#;
        assert_eq!(told(host_only), ("none", String::new(), "unreported"));
        assert_eq!(
            told(r#","tlsDetails":{"tlsVersion":""}"#),
            ("none", String::new(), "unreported")
        );
        let next = r#","tlsDetails":{"tlsVersion":"TLSv1.4","cipherSuite":"X","keyExchange":"Y"}"#;
        assert_eq!(told(next), ("unknown", "X".to_owned(), "other"));
    }

    #[test]
    fn insights_events_are_no_calls() {
        let text = r#"{"Records":[{"eventTime":"2019-11-14T00:51:00Z","eventCategory":"Insight","insightDetails":{}}]}"#;
        assert_eq!(records(text), Ok(vec![]));
    }

    /// Any JSON value, with the names that the reader looks for in all places.
    fn json() -> impl Strategy<Value = Value> {
        let name = prop::sample::select(vec![
            "eventTime",
            "eventSource",
            "eventName",
            "awsRegion",
            "eventID",
            "recipientAccountId",
            "eventCategory",
            "tlsDetails",
            "tlsVersion",
            "cipherSuite",
            "keyExchange",
            "Records",
            "é\"\\",
        ]);
        let text = prop_oneof![
            Just("2026-06-01T10:00:00Z".to_owned()),
            Just("s3.amazonaws.com".to_owned()),
            Just("TLSv1.3".to_owned()),
            r#"[a"\\{}\[\],:é\n]{0,9}"#,
        ];
        let leaf = prop_oneof![
            4 => text.prop_map(Value::from),
            1 => Just(Value::Null),
            1 => any::<bool>().prop_map(Value::from),
            1 => any::<f64>().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 40, 12, move |inner| {
            prop_oneof![
                1 => prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                3 => prop::collection::btree_map(name.clone().prop_map(str::to_owned), inner, 0..12)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    /// Records that mostly can be counted, between members of any kind.
    fn record() -> impl Strategy<Value = Value> {
        (json(), json(), prop::bool::weighted(0.9)).prop_map(|(more, tls, whole)| {
            let Value::Object(mut members) = more else {
                return more;
            };
            if whole {
                members.insert("eventTime".into(), "2026-06-01T10:00:00Z".into());
                members.insert("eventSource".into(), "s3.amazonaws.com".into());
                members.insert("tlsDetails".into(), tls);
            }
            members.into_iter().collect()
        })
    }

    /// What the reader should find, by serde_json's own reading.
    fn expected(value: &Value) -> Option<Vec<[String; 9]>> {
        let text = |value: Option<&Value>| match value {
            None | Some(Value::Null) => Some(String::new()),
            Some(Value::String(text)) => Some(text.clone()),
            Some(_) => None,
        };
        let list = match value {
            Value::Array(list) => list,
            Value::Object(members) => match members.get("Records") {
                Some(Value::Array(list)) => list,
                Some(_) => return None,
                None => std::slice::from_ref(value),
            },
            _ => return None,
        };
        let mut records = Vec::new();
        for record in list {
            let record = record.as_object()?;
            let member = |name: &str| text(record.get(name));
            let no_tls = serde_json::Map::new();
            let (tls, has_tls) = match record.get("tlsDetails") {
                None | Some(Value::Null) => (&no_tls, false),
                Some(Value::Object(tls)) => (tls, true),
                Some(_) => return None,
            };
            let tls = |name: &str| text(tls.get(name));
            let (version, exchange) = (tls("tlsVersion")?, tls("keyExchange")?);
            let exchange = match has_tls {
                true => KeyExchange::from_record(Some(&exchange)),
                false => KeyExchange::None,
            };
            let found = [
                member("eventID")?,
                member("eventTime")?,
                member("eventSource")?,
                member("eventName")?,
                member("awsRegion")?,
                member("recipientAccountId")?,
                TlsVersion::from_record(Some(&version)).label().to_owned(),
                tls("cipherSuite")?,
                exchange.code().to_owned(),
            ];
            if member("eventCategory")? == "Insight" {
                continue;
            }
            if found[1] != "2026-06-01T10:00:00Z" || found[2].is_empty() {
                return None;
            }
            records.push(found);
        }
        Some(records)
    }

    fn told(text: &str) -> Option<Vec<[String; 9]>> {
        let records = records(text).ok()?;
        let texts = records.into_iter().map(|record| {
            [
                record.event_id.into_owned(),
                record.event_time.to_string(),
                record.event_source.into_owned(),
                record.event_name.into_owned(),
                record.aws_region.into_owned(),
                record.account_id.into_owned(),
                record.tls_version.label().to_owned(),
                record.cipher_suite.into_owned(),
                record.key_exchange.code().to_owned(),
            ]
        });
        Some(texts.collect())
    }

    proptest! {
        #[test]
        fn what_serde_json_reads_is_read_the_same_and_no_beginning_of_it_is(
            list in prop::collection::vec(record(), 0..4),
            wrapper in 0..3,
            pretty in any::<bool>(),
            escaped in any::<bool>(),
        ) {
            let value = match wrapper {
                0 => serde_json::json!({"more": list, "Records": list}),
                1 => Value::from(list),
                _ => list.into_iter().next().unwrap_or_default(),
            };
            let mut text = match pretty {
                true => serde_json::to_string_pretty(&value).unwrap(),
                false => value.to_string(),
            };
            if escaped {
                text = text.replace("Na", r"\u004ea");
            }
            prop_assert_eq!(told(&text), expected(&value), "{}", text);
            // A number alone is whole wherever it is cut; nothing is read of it all the same.
            for cut in (1..text.len()).filter_map(|cut| text.get(..cut)) {
                prop_assert!(records(cut).is_err(), "{}", cut);
            }
        }

        #[test]
        fn no_text_makes_the_reader_fail_but_with_an_error(text in r#"([\[\]{},:"\\ ]|null|1e|é|"Records"|"eventTime"|"tlsDetails"){0,40}"#) {
            if let Ok(records) = records(&text) {
                prop_assert!(records.len() <= text.len());
            }
        }
    }
}
