//! Reads the rows of an answer, page by page, so that no more than a page of texts is held.

use super::column;
use crate::source::query::{Ask, CallRow, CallerRow, Leaf, Members, MetMembers, Rows, numbers};
use crate::source::{Reason, SourceError};
use crate::time::Timestamp;

/// The rows read so far of a leaf's answer. One row that cannot be read fails them all.
pub(in super::super) struct Reader {
    rows: Rows,
    met: MetMembers,
}

impl Reader {
    pub(in super::super) fn new(leaf: &Leaf) -> Self {
        let rows = match leaf.ask {
            Ask::Values(_) => Rows::Values(Vec::new()),
            Ask::Records => Rows::Records(Vec::new()),
            Ask::Callers { .. } => Rows::Callers(Vec::new()),
            Ask::Calls | Ask::CallsWithoutEventName => Rows::Calls(Vec::new()),
        };
        Self {
            rows,
            met: MetMembers::default(),
        }
    }

    /// Reads a row of which `cell` gives the text of a column, if it has one.
    pub(in super::super) fn read<'r>(
        &mut self,
        cell: impl Fn(&str) -> Option<&'r str>,
    ) -> Result<(), SourceError> {
        let text = |name| {
            cell(name)
                .filter(|text| !text.is_empty())
                .map(str::to_owned)
        };
        let number = |name| {
            cell(name).and_then(numbers::count).ok_or_else(|| {
                let message = format!("a row has no readable `{name}`: {:?}", cell(name));
                SourceError::new(Reason::BadAnswer, message)
            })
        };
        let time = |name| number(name).map(|secs| Timestamp::from_secs(secs.cast_signed()));
        match &mut self.rows {
            Rows::Values(values) => values.push(text(column::VALUE)),
            Rows::Records(records) => {
                records.push((time(column::BUCKET)?, number(column::RECORDS)?));
            }
            Rows::Callers(callers) => callers.push(CallerRow {
                bucket: time(column::BUCKET)?,
                event_source: text(column::EVENT_SOURCE),
                event_name: text(column::EVENT_NAME),
                tls_version: text(column::TLS_VERSION),
                account_id: text(column::ACCOUNT_ID),
                principal: text(column::PRINCIPAL),
                user_agent: text(column::USER_AGENT),
                source_ip: text(column::SOURCE_IP),
                calls: number(column::CALLS)?,
            }),
            Rows::Calls(calls) => {
                let tls_version = text(column::TLS_VERSION);
                let cipher_suite = text(column::CIPHER_SUITE);
                let key_exchange = text(column::KEY_EXCHANGE);
                let has_tls = tls_version.is_some()
                    || cipher_suite.is_some()
                    || key_exchange.is_some()
                    || cell(column::TLS_HOST) == Some("yes");
                calls.push(CallRow {
                    bucket: time(column::BUCKET)?,
                    members: self.met.share(Members {
                        event_source: text(column::EVENT_SOURCE),
                        event_name: text(column::EVENT_NAME),
                        tls_version,
                        cipher_suite,
                        key_exchange,
                        has_tls,
                        account_id: text(column::ACCOUNT_ID),
                        aws_region: text(column::AWS_REGION),
                    }),
                    calls: number(column::CALLS)?,
                    records: number(column::RECORDS)?,
                    last: Some(time(column::LAST)?),
                });
            }
        }
        Ok(())
    }

    /// How many rows were read.
    pub(in super::super) fn len(&self) -> usize {
        match &self.rows {
            Rows::Values(rows) => rows.len(),
            Rows::Records(rows) => rows.len(),
            Rows::Callers(rows) => rows.len(),
            Rows::Calls(rows) => rows.len(),
        }
    }

    pub(in super::super) fn rows(self) -> Rows {
        self.rows
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::call::CallerLabels;
    use crate::source::query::Part;
    use crate::tls::TlsVersion;
    use crate::window::Window;

    const ROW: [(&str, &str); 6] = [
        ("bucket", "1780308000"),
        ("calls", "3"),
        ("records", "4"),
        ("last_time", "1.780308001E9"),
        ("event_source", "s3.amazonaws.com"),
        ("tls_host", "no"),
    ];

    const CALLERS: Ask = Ask::Callers {
        below: TlsVersion::Tls12,
        columns: CallerLabels {
            principal: true,
            user_agent: true,
            source_ip: true,
        },
    };

    fn leaf() -> Leaf {
        Leaf::calls(Window {
            from: Timestamp::from_secs(0),
            to: Timestamp::from_secs(60),
        })
    }

    fn read(cells: &[(&str, &'static str)]) -> Result<Rows, SourceError> {
        let mut reader = Reader::new(&leaf());
        reader.read(|name| Some(cells.iter().find(|(known, _)| *known == name)?.1))?;
        Ok(reader.rows())
    }

    #[test]
    fn what_is_missing_and_what_is_empty_are_the_same() {
        let plain = read(&ROW).unwrap();
        let mut more = ROW.to_vec();
        more.extend([("event_name", ""), ("tls_version", ""), ("aws_region", "")]);
        assert_eq!(read(&more).unwrap(), plain);
        let Rows::Calls(rows) = plain else {
            unreachable!("calls were asked for")
        };
        let row = rows.first().unwrap();
        assert_eq!((row.calls, row.records), (3, 4));
        assert_eq!(row.last, Some(Timestamp::from_secs(1_780_308_001)));
        assert_eq!(
            row.members.event_source.as_deref(),
            Some("s3.amazonaws.com")
        );
        assert!(!row.members.has_tls);
    }

    #[test]
    fn a_row_without_a_number_is_an_error_that_names_it() {
        for name in ["bucket", "calls", "records", "last_time"] {
            for bad in [None, Some(""), Some("many"), Some("-1")] {
                let mut row = ROW.to_vec();
                row.retain(|(known, _)| *known != name);
                row.extend(bad.map(|bad| (name, bad)));
                let error = read(&row).unwrap_err();
                assert_eq!(error.reason, Reason::BadAnswer);
                assert!(error.to_string().contains(name), "{error}");
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn no_row_makes_the_reader_fail_but_with_an_error(
            // By column; half of them are there, most as numbers.
            rows in prop::collection::vec(prop::collection::vec(prop::option::weighted(0.9, prop_oneof![
                4 => "[0-9]{1,13}([.][0-9]{1,4})?([eE][0-9])?",
                1 => "-?[0-9]{1,25}([eE][+-]?[0-9]{1,3})?",
                1 => "yes|no|NaN|inf|",
                1 => ".{0,9}",
            ]), 12..13), 0..8),
            ask in prop::sample::select(vec![Ask::Calls, Ask::CallsWithoutEventName, Ask::Records, Ask::Values(Part::Region), CALLERS]),
        ) {
            let columns = [
                column::BUCKET, column::CALLS, column::RECORDS, column::LAST, column::EVENT_SOURCE, column::EVENT_NAME,
                column::TLS_VERSION, column::CIPHER_SUITE, column::KEY_EXCHANGE, column::TLS_HOST, column::VALUE, column::AWS_REGION,
            ];
            let mut reader = Reader::new(&Leaf { ask, ..leaf() });
            let mut read = 0;
            for row in &rows {
                let cell = |name: &str| row.get(columns.iter().position(|known| *known == name)?)?.as_deref();
                match reader.read(cell) {
                    Ok(()) => read += 1,
                    Err(error) => prop_assert_eq!(error.reason, Reason::BadAnswer),
                }
                prop_assert_eq!(reader.len(), read);
            }
        }
    }
}
