//! What CloudTrail Lake and Athena have in common: both are asked in the SQL of Trino, and answer with texts.

mod callers;
mod rows;

use std::time::Duration;

use tracing::warn;

pub(super) use self::rows::Reader;
use super::query::{Ask, Leaf, Part};
use crate::time::Timestamp;
use crate::window::Window;

/// The most rows of an answer; each takes some 50 bytes here. A window with more is asked for in parts.
pub const MOST_ROWS: usize = 1_000_000;
/// The most rows that AWS gives in one page (API reference of both GetQueryResults).
pub const PAGE: usize = 1000;

/// A table of CloudTrail records.
pub(super) struct Table<'t> {
    /// What stands behind `FROM`.
    pub(super) name: &'t str,
    /// The time of a call in whole seconds since 1970.
    pub(super) seconds: &'t str,
    /// The key exchange of a call; `None` where the table has none.
    pub(super) key_exchange: Option<&'t str>,
    /// Whether records of one event id are one call.
    pub(super) deduplicate: bool,
    /// The grid of time.
    pub(super) bucket: Duration,
    /// The most rows of an answer.
    pub(super) most_rows: usize,
}

impl Table<'_> {
    /// The column that counts calls.
    fn calls(&self) -> String {
        let calls = match self.deduplicate {
            true => "count(DISTINCT eventID) + count_if(eventID IS NULL)",
            false => "count(*)",
        };
        format!("{calls} AS {}", column::CALLS)
    }
}

/// The columns of an answer.
mod column {
    pub(super) const BUCKET: &str = "bucket";
    pub(super) const CALLS: &str = "calls";
    pub(super) const RECORDS: &str = "records";
    pub(super) const LAST: &str = "last_time";
    pub(super) const VALUE: &str = "value";
    pub(super) const EVENT_NAME: &str = "event_name";
    pub(super) const EVENT_SOURCE: &str = "event_source";
    pub(super) const TLS_VERSION: &str = "tls_version";
    pub(super) const CIPHER_SUITE: &str = "cipher_suite";
    pub(super) const KEY_EXCHANGE: &str = "key_exchange";
    pub(super) const ACCOUNT_ID: &str = "account_id";
    pub(super) const AWS_REGION: &str = "aws_region";
    pub(super) const TLS_HOST: &str = "tls_host";
    pub(super) const PRINCIPAL: &str = "principal";
    pub(super) const USER_AGENT: &str = "user_agent";
    pub(super) const SOURCE_IP: &str = "source_ip";
}

/// In Lake's schema: what is no call, or is a call that was told already. Network activity events tell of calls
/// through VPC endpoints, which are recorded by their service too.
pub(super) const CALLS_OF_LAKE: &str =
    "coalesce(eventCategory, '') NOT IN ('Insight', 'NetworkActivity')";

/// The statement of a leaf; `conditions` bound its time.
pub(super) fn statement(leaf: &Leaf, table: &Table<'_>, conditions: &str) -> String {
    let length = table.bucket.as_secs();
    let bucket = format!(
        "{} / {length} * {length} AS {}",
        table.seconds,
        column::BUCKET
    );
    let records = format!("count(*) AS {}", column::RECORDS);
    let (groups, numbers) = match leaf.ask {
        Ask::Values(part) => {
            let value = format!("{} AS {}", present(member(part)), column::VALUE);
            (vec![value], vec![records])
        }
        Ask::Records => (vec![bucket], vec![records]),
        Ask::Callers { below, columns } => {
            return callers::statement(table, &bucket, conditions, below, columns);
        }
        Ask::Calls | Ask::CallsWithoutEventName => {
            let mut groups = Vec::new();
            // The column of the most values first, as AWS advises for GROUP BY in Lake.
            if leaf.ask == Ask::Calls {
                groups.push(format!(
                    "{} AS {}",
                    present("eventName"),
                    column::EVENT_NAME
                ));
            }
            let members = [
                (present("eventSource"), column::EVENT_SOURCE),
                (present("tlsDetails.tlsVersion"), column::TLS_VERSION),
                (present("tlsDetails.cipherSuite"), column::CIPHER_SUITE),
                (
                    table.key_exchange.map_or("''".to_owned(), present),
                    column::KEY_EXCHANGE,
                ),
                (present("recipientAccountId"), column::ACCOUNT_ID),
                (present("awsRegion"), column::AWS_REGION),
            ];
            groups.extend(members.map(|(member, name)| format!("{member} AS {name}")));
            // Whether there are tlsDetails without any of the members that are asked for.
            groups.push(format!(
                "CASE WHEN tlsDetails.clientProvidedHostHeader IS NULL THEN 'no' ELSE 'yes' END AS {}",
                column::TLS_HOST
            ));
            groups.push(bucket);
            let calls = table.calls();
            let last = format!("max({}) AS {}", table.seconds, column::LAST);
            (groups, vec![calls, records, last])
        }
    };
    let ordinals: Vec<String> = (1..=groups.len()).map(|place| place.to_string()).collect();
    let mut text = format!(
        "SELECT {}, {}\nFROM {}\nWHERE {conditions}",
        groups.join(", "),
        numbers.join(", "),
        table.name
    );
    for (part, value) in &leaf.only {
        let value = quoted(value.as_deref().unwrap_or_default());
        text.push_str(&format!("\n  AND {} = {value}", present(member(*part))));
    }
    text.push_str(&format!("\nGROUP BY {}", ordinals.join(", ")));
    text
}

/// A member, or empty text where a record has none: how an engine writes NULL is not to be relied on.
fn present(member: &str) -> String {
    format!("coalesce({member}, '')")
}

fn member(part: Part) -> &'static str {
    match part {
        Part::Region => "awsRegion",
        Part::Account => "recipientAccountId",
        Part::Service => "eventSource",
    }
}

/// A text in SQL.
pub(super) fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// A name in SQL.
pub(super) fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A time in the SQL of tables that know them without a zone, in UTC.
pub(super) fn timestamp(time: Timestamp) -> String {
    let text = time.to_string().replace('T', " ").replace('Z', "");
    format!("timestamp '{text}'")
}

/// What bounds `eventTime` to a leaf's window, and to the parts of it that are asked for.
pub(super) fn within(leaf: &Leaf, write: impl Fn(Timestamp) -> String) -> String {
    let bounds = |window: &Window| {
        let (from, to) = (write(window.from), write(window.to));
        format!("eventTime >= {from} AND eventTime < {to}")
    };
    let parts: Vec<String> = leaf.within.iter().map(bounds).collect();
    match parts.is_empty() {
        true => bounds(&leaf.window),
        false => format!("{}\n  AND ({})", bounds(&leaf.window), parts.join(" OR ")),
    }
}

/// Whether an engine's error says that the table has no key exchange: AWS's own schemas do not name it.
pub(super) fn no_key_exchange(message: &str) -> bool {
    let message = message.to_ascii_lowercase();
    let unknown = message.contains("cannot be resolved") || message.contains("column_not_found");
    let missing = unknown && message.contains("keyexchange");
    if missing {
        warn!(
            error = message,
            "key exchanges are `unreported`: the table does not have them"
        );
    }
    missing
}

/// Whether an error says that the engine cannot hold what was asked for at once (AWS: "Optimize CloudTrail Lake
/// queries" and "Troubleshooting in Athena").
pub(super) fn too_much(message: &str) -> bool {
    let message = message.to_ascii_lowercase();
    message.contains("exhausted resources") || message.contains("response is too large")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(deduplicate: bool) -> Table<'static> {
        Table {
            name: "t",
            seconds: "s",
            key_exchange: Some("tlsDetails.keyExchange"),
            deduplicate,
            bucket: Duration::from_secs(300),
            most_rows: 10,
        }
    }

    fn leaf() -> Leaf {
        Leaf::calls(Window {
            from: Timestamp::from_secs(0),
            to: Timestamp::from_secs(600),
        })
    }

    #[test]
    fn a_window_is_asked_for_by_its_whole_key_and_each_event_id_counts_once() {
        let text = statement(&leaf(), &table(true), "time");
        assert_eq!(
            text,
            "SELECT coalesce(eventName, '') AS event_name, coalesce(eventSource, '') AS event_source, \
             coalesce(tlsDetails.tlsVersion, '') AS tls_version, coalesce(tlsDetails.cipherSuite, '') AS cipher_suite, \
             coalesce(tlsDetails.keyExchange, '') AS key_exchange, coalesce(recipientAccountId, '') AS account_id, \
             coalesce(awsRegion, '') AS aws_region, \
             CASE WHEN tlsDetails.clientProvidedHostHeader IS NULL THEN 'no' ELSE 'yes' END AS tls_host, \
             s / 300 * 300 AS bucket, count(DISTINCT eventID) + count_if(eventID IS NULL) AS calls, \
             count(*) AS records, max(s) AS last_time\n\
             FROM t\nWHERE time\nGROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9"
        );
        let text = statement(&leaf(), &table(false), "time");
        assert!(text.contains("count(*) AS calls"), "{text}");
    }

    #[test]
    fn no_value_breaks_out_of_the_statement() {
        let mut leaf = leaf();
        leaf.ask = Ask::Values(Part::Service);
        leaf.only = vec![
            (Part::Region, Some("' OR ''='".to_owned())),
            (Part::Account, None),
        ];
        assert_eq!(
            statement(&leaf, &table(true), "time"),
            "SELECT coalesce(eventSource, '') AS value, count(*) AS records\nFROM t\nWHERE time\n  \
             AND coalesce(awsRegion, '') = ''' OR ''''='''\n  AND coalesce(recipientAccountId, '') = ''\nGROUP BY 1"
        );
        assert_eq!(identifier("a\".\"b"), "\"a\"\".\"\"b\"");
    }

    #[test]
    fn parts_of_a_window_are_asked_for_alone() {
        let window = |from, to| Window {
            from: Timestamp::from_secs(from),
            to: Timestamp::from_secs(to),
        };
        let mut leaf = leaf();
        let write = |time: Timestamp| time.secs().to_string();
        assert_eq!(within(&leaf, write), "eventTime >= 0 AND eventTime < 600");
        leaf.within = vec![window(0, 300), window(500, 600)];
        assert_eq!(
            within(&leaf, write),
            "eventTime >= 0 AND eventTime < 600\n  \
             AND (eventTime >= 0 AND eventTime < 300 OR eventTime >= 500 AND eventTime < 600)"
        );
    }

    #[test]
    fn times_are_written_without_a_zone() {
        let time = Timestamp::parse("2026-06-01T10:05:00Z").unwrap();
        assert_eq!(timestamp(time), "timestamp '2026-06-01 10:05:00'");
    }

    #[test]
    fn buckets_are_compared_by_their_records_alone() {
        let text = statement(&Leaf::check(leaf().window), &table(true), "time");
        let columns = "SELECT s / 300 * 300 AS bucket, count(*) AS records";
        assert_eq!(text, format!("{columns}\nFROM t\nWHERE time\nGROUP BY 1"));
    }

    #[test]
    fn errors_are_told_apart_by_their_texts() {
        assert!(no_key_exchange(
            "line 1:2: Column 'tlsdetails.keyexchange' cannot be resolved"
        ));
        assert!(!no_key_exchange(
            "Column 'tlsdetails.tlsversion' cannot be resolved"
        ));
        let mismatch = "HIVE_PARTITION_SCHEMA_MISMATCH: struct<keyexchange:string>";
        assert!(!no_key_exchange(mismatch));
        assert!(too_much("Query exhausted resources at this scale factor"));
        assert!(!too_much("Read timed out"));
    }
}
