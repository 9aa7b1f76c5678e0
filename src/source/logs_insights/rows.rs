//! Reads the rows of an answer. What AWS does not document is taken either way: a missing member may be an absent
//! field or an empty one, a number may be written as 12 or 1.2E1, and rows may carry a `@ptr`.

use aws_sdk_cloudwatchlogs::types::ResultField;

use super::text::{column, member};
use crate::source::query::{Ask, CallRow, CallerRow, Leaf, Members, MetMembers, Rows, numbers};
use crate::source::{Reason, SourceError};
use crate::time::Timestamp;

/// Reads the rows of a leaf's answer; one that cannot be read fails them all.
pub(super) fn read(rows: &[Vec<ResultField>], leaf: &Leaf) -> Result<Rows, SourceError> {
    if let Ask::Values(part) = leaf.ask {
        let values = rows.iter().map(|row| Row(row).text(member(part)));
        return Ok(Rows::Values(values.collect()));
    }
    if let Ask::Callers { .. } = leaf.ask {
        let rows = rows.iter().map(|row| caller(Row(row)));
        return rows.collect::<Result<_, _>>().map(Rows::Callers);
    }
    let mut met = MetMembers::default();
    let rows = rows.iter().map(|row| call(Row(row), &mut met));
    rows.collect::<Result<_, _>>().map(Rows::Calls)
}

/// One row: fields and their texts.
#[derive(Clone, Copy)]
struct Row<'r>(&'r [ResultField]);

impl<'r> Row<'r> {
    /// The text of a member that is not empty.
    fn text(self, member: &str) -> Option<String> {
        let field = self.field(|name| name == member)?;
        Some(field.to_owned()).filter(|text| !text.is_empty())
    }

    fn field(self, wanted: impl Fn(&str) -> bool) -> Option<&'r str> {
        let named = |field: &&ResultField| {
            let name = field.field().unwrap_or_default();
            wanted(name.strip_prefix("record.").unwrap_or(name))
        };
        self.0.iter().find(named)?.value()
    }

    /// The start of its bucket.
    fn bucket(self) -> Result<Timestamp, SourceError> {
        let bucket = self.field(|name| name.starts_with("bin(")).and_then(time);
        bucket.ok_or_else(|| self.bad("bucket"))
    }

    fn calls(self) -> Result<u64, SourceError> {
        let calls = self.field(|name| name == column::CALLS);
        let calls = calls.and_then(numbers::count);
        calls.ok_or_else(|| self.bad("count"))
    }

    fn bad(self, what: &str) -> SourceError {
        let message = format!("a row has no readable {what}: {:?}", self.0);
        SourceError::new(Reason::BadAnswer, message)
    }
}

fn caller(row: Row<'_>) -> Result<CallerRow, SourceError> {
    let [event_name, event_source, tls_version, account_id] =
        column::CALL.map(|member| row.text(member));
    Ok(CallerRow {
        bucket: row.bucket()?,
        event_source,
        event_name,
        tls_version,
        account_id,
        principal: row.text(column::PRINCIPAL),
        user_agent: row.text(column::USER_AGENT),
        source_ip: row.text(column::SOURCE_IP),
        calls: row.calls()?,
    })
}

fn call(row: Row<'_>, met: &mut MetMembers) -> Result<CallRow, SourceError> {
    let [
        event_source,
        tls_version,
        cipher_suite,
        key_exchange,
        account_id,
        aws_region,
    ] = column::KEY.map(|member| row.text(member));
    let host = row.field(|name| name == column::TLS_HOST);
    let has_host = matches!(host, Some("1" | "true" | "TRUE"));
    let has_tls =
        has_host || tls_version.is_some() || cipher_suite.is_some() || key_exchange.is_some();
    let calls = row.calls()?;
    Ok(CallRow {
        bucket: row.bucket()?,
        members: met.share(Members {
            event_source,
            event_name: row.text(column::EVENT_NAME),
            tls_version,
            cipher_suite,
            key_exchange,
            has_tls,
            account_id,
            aws_region,
        }),
        calls,
        // Logs Insights counts what was delivered, duplicates included.
        records: calls,
        last: row
            .field(|name| name == column::LAST)
            .and_then(Timestamp::parse),
    })
}

/// The start of a bin, as in `2026-06-01 10:05:00.000`.
fn time(text: &str) -> Option<Timestamp> {
    Timestamp::parse(&format!("{}Z", text.replace(' ', "T")))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use std::sync::Arc;

    use super::*;
    use crate::call::CallerLabels;
    use crate::source::query::Part;
    use crate::tls::TlsVersion;
    use crate::window::Window;

    const COLUMNS: CallerLabels = CallerLabels {
        principal: true,
        user_agent: true,
        source_ip: true,
    };

    fn row(fields: &[(&str, &str)]) -> Vec<ResultField> {
        let field = |(name, value): &(&str, &str)| {
            ResultField::builder().field(*name).value(*value).build()
        };
        fields.iter().map(field).collect()
    }

    fn read_one(fields: &[(&str, &str)]) -> Result<CallRow, String> {
        let window = Window {
            from: Timestamp::from_secs(0),
            to: Timestamp::from_secs(60),
        };
        let leaf = Leaf::calls(window);
        match read(&[row(fields)], &leaf) {
            Ok(Rows::Calls(mut rows)) => Ok(rows.remove(0)),
            Ok(_) => unreachable!("calls were asked for"),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn what_aws_does_not_document_is_read_either_way() {
        let expected = CallRow {
            bucket: Timestamp::parse("2026-06-01T10:05:00Z").unwrap(),
            members: Arc::new(Members {
                event_source: Some("s3.amazonaws.com".to_owned()),
                event_name: Some("GetObject".to_owned()),
                ..Members::default()
            }),
            calls: 12_300_000,
            records: 12_300_000,
            last: Timestamp::parse("2026-06-01T10:04:58Z"),
        };
        let plain = [
            ("bin(5m)", "2026-06-01 10:05:00.000"),
            ("calls", "12300000"),
            ("lastEventTime", "2026-06-01T10:04:58Z"),
            ("eventSource", "s3.amazonaws.com"),
            ("eventName", "GetObject"),
            ("tlsHost", "0"),
        ];
        let odd = [
            ("@ptr", "CmEKJgoi"),
            ("tlsDetails.tlsVersion", ""),
            ("awsRegion", ""),
            ("tlsHost", "false"),
            ("record.eventName", "GetObject"),
            ("record.eventSource", "s3.amazonaws.com"),
            ("lastEventTime", "2026-06-01T10:04:58Z"),
            ("calls", "1.23E7"),
            ("bin(5m)", "2026-06-01 10:05:00.000"),
        ];
        assert_eq!(read_one(&plain), Ok(expected.clone()));
        assert_eq!(read_one(&odd), Ok(expected));
    }

    #[test]
    fn a_caller_is_read_by_what_the_row_has_of_it() {
        let window = Window {
            from: Timestamp::from_secs(0),
            to: Timestamp::from_secs(60),
        };
        let leaf = Leaf::callers(window, TlsVersion::Tls12, COLUMNS);
        let fields = [
            ("bin(5m)", "2026-06-01 10:05:00.000"),
            ("record.eventSource", "s3.amazonaws.com"),
            ("tlsDetails.tlsVersion", "TLSv1.1"),
            ("principal", "arn:aws:iam::111122223333:role/old"),
            ("record.userAgent", ""),
            ("sourceIPAddress", "192.0.2.1"),
            ("calls", "7"),
        ];
        let read = |fields: &[(&str, &str)]| read(&[row(fields)], &leaf);
        let expected = CallerRow {
            bucket: Timestamp::parse("2026-06-01T10:05:00Z").unwrap(),
            event_source: Some("s3.amazonaws.com".to_owned()),
            event_name: None,
            tls_version: Some("TLSv1.1".to_owned()),
            account_id: None,
            principal: Some("arn:aws:iam::111122223333:role/old".to_owned()),
            user_agent: None,
            source_ip: Some("192.0.2.1".to_owned()),
            calls: 7,
        };
        assert_eq!(read(&fields).unwrap(), Rows::Callers(vec![expected]));
        for missing in ["bin(5m)", "calls"] {
            let rest = fields.iter().filter(|field| field.0 != missing);
            let rest: Vec<_> = rest.copied().collect();
            assert!(read(&rest).is_err(), "{missing}");
        }
    }

    #[test]
    fn a_row_without_a_readable_bucket_or_count_is_an_error() {
        let bucket = ("bin(5m)", "2026-06-01 10:05:00.000");
        for fields in [
            &[bucket][..],
            &[("calls", "7")],
            &[bucket, ("calls", "many")],
            &[bucket, ("calls", "-1")],
            &[bucket, ("calls", "NaN")],
            &[("bin(5m)", "yesterday"), ("calls", "7")],
        ] {
            assert!(read_one(fields).is_err(), "{fields:?}");
        }
    }

    /// Fields that the reader looks for and others, their texts like numbers, times and neither; either may be
    /// missing.
    fn field() -> impl Strategy<Value = ResultField> {
        let name = prop_oneof![
            3 => Just("bin(5m)".to_owned()),
            3 => Just("calls".to_owned()),
            3 => "(record.)?(lastEventTime|eventSource|eventName|tlsHost|awsRegion|tlsDetails.tlsVersion)",
            1 => ".{0,9}",
        ];
        let value = prop_oneof![
            3 => "-?[0-9]{1,25}([.][0-9]{1,4})?([eE][+-]?[0-9]{1,3})?",
            3 => "[0-9]{4}-[0-9]{2}-[0-9]{2}[ T][0-9]{2}:[0-9]{2}:[0-9]{2}([.][0-9]{3})?Z?",
            1 => Just(String::new()),
            1 => ".{0,9}",
        ];
        let field = (
            prop::option::weighted(0.95, name),
            prop::option::weighted(0.95, value),
        );
        field.prop_map(|(name, value)| {
            ResultField::builder()
                .set_field(name)
                .set_value(value)
                .build()
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn no_answer_makes_the_reader_fail_but_with_an_error(
            rows in prop::collection::vec(prop::collection::vec(field(), 0..12), 0..8),
            asked in 0..3,
        ) {
            let mut leaf = Leaf::calls(Window { from: Timestamp::from_secs(0), to: Timestamp::from_secs(60) });
            match asked {
                0 => leaf.ask = Ask::Values(Part::Service),
                1 => leaf = Leaf::callers(leaf.window, TlsVersion::Tls12, COLUMNS),
                _ => {}
            }
            match read(&rows, &leaf) {
                Ok(Rows::Calls(read)) => prop_assert!(asked == 2 && read.len() == rows.len()),
                Ok(Rows::Values(read)) => prop_assert!(asked == 0 && read.len() == rows.len()),
                Ok(Rows::Callers(read)) => prop_assert!(asked == 1 && read.len() == rows.len()),
                Ok(Rows::Records(_)) => prop_assert!(false, "records were not asked for"),
                Err(error) => prop_assert_eq!(error.reason, Reason::BadAnswer),
            }
        }
    }
}
