//! The statement that asks for callers.

use super::{Table, column, present, quoted};
use crate::call::CallerLabels;
use crate::source::query::MOST_CALLERS;
use crate::tls::TlsVersion;

/// The first of them that a record has is its principal.
const PRINCIPAL_MEMBERS: [&str; 4] = [
    "userIdentity.sessionContext.sessionIssuer.arn",
    "userIdentity.arn",
    "userIdentity.invokedBy",
    "userIdentity.principalId",
];

/// Calls below a version by `bucket` and caller. The busiest of each account and service come first, then the second
/// of each, and so on to the limit: no loud account takes the place of a quiet one.
pub(super) fn statement(
    table: &Table<'_>,
    bucket: &str,
    conditions: &str,
    below: TlsVersion,
    columns: CallerLabels,
) -> String {
    let mut groups = Vec::new();
    // The columns of the most values first, as AWS advises for GROUP BY in Lake.
    if columns.user_agent {
        groups.push(as_text("userAgent", column::USER_AGENT));
    }
    if columns.source_ip {
        groups.push(as_text("sourceIPAddress", column::SOURCE_IP));
    }
    if columns.principal {
        let members = PRINCIPAL_MEMBERS.map(|member| format!("nullif({member}, '')"));
        let members = members.join(", ");
        groups.push(format!("coalesce({members}, '') AS {}", column::PRINCIPAL));
    }
    groups.push(as_text("eventName", column::EVENT_NAME));
    groups.push(as_text("eventSource", column::EVENT_SOURCE));
    groups.push(as_text("tlsDetails.tlsVersion", column::TLS_VERSION));
    groups.push(as_text("recipientAccountId", column::ACCOUNT_ID));
    groups.push(bucket.to_owned());
    let versions: Vec<String> = TlsVersion::labels_below(below).map(quoted).collect();
    let ordinals: Vec<String> = (1..=groups.len()).map(|place| place.to_string()).collect();
    format!(
        "SELECT *, row_number() OVER (PARTITION BY {account}, {service} ORDER BY {calls} DESC) AS place\n\
         FROM (\n\
         SELECT {groups}, {count}\nFROM {table}\nWHERE {conditions}\n  \
         AND tlsDetails.tlsVersion IN ({versions})\nGROUP BY {ordinals}\n\
         )\nORDER BY place, {calls} DESC\nLIMIT {limit}",
        account = column::ACCOUNT_ID,
        service = column::EVENT_SOURCE,
        calls = column::CALLS,
        groups = groups.join(", "),
        count = table.calls(),
        table = table.name,
        versions = versions.join(", "),
        ordinals = ordinals.join(", "),
        limit = MOST_CALLERS.min(table.most_rows),
    )
}

fn as_text(member: &str, name: &str) -> String {
    format!("{} AS {name}", present(member))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_is_told_of_a_caller_is_asked_for_and_ranked_in_its_account_and_service() {
        let table = Table {
            name: "t",
            seconds: "s",
            key_exchange: None,
            deduplicate: false,
            bucket: Duration::from_secs(300),
            most_rows: 10,
        };
        let columns = |user_agent: bool| CallerLabels {
            principal: !user_agent,
            user_agent,
            source_ip: user_agent,
        };
        let text = |user_agent| {
            statement(
                &table,
                "s / 300 * 300 AS bucket",
                "time",
                TlsVersion::Tls12,
                columns(user_agent),
            )
        };
        let call = "coalesce(eventName, '') AS event_name, coalesce(eventSource, '') AS event_source, \
                    coalesce(tlsDetails.tlsVersion, '') AS tls_version, \
                    coalesce(recipientAccountId, '') AS account_id, s / 300 * 300 AS bucket, count(*) AS calls";
        let rank = "SELECT *, row_number() OVER (PARTITION BY account_id, event_source ORDER BY calls DESC) \
                    AS place\nFROM (\n";
        let end = ")\nORDER BY place, calls DESC\nLIMIT 10";
        let principal = "coalesce(nullif(userIdentity.sessionContext.sessionIssuer.arn, ''), \
                         nullif(userIdentity.arn, ''), nullif(userIdentity.invokedBy, ''), \
                         nullif(userIdentity.principalId, ''), '') AS principal";
        assert_eq!(
            text(false),
            format!(
                "{rank}SELECT {principal}, {call}\nFROM t\nWHERE time\n  \
                 AND tlsDetails.tlsVersion IN ('TLSv1', 'TLSv1.1')\nGROUP BY 1, 2, 3, 4, 5, 6\n{end}"
            )
        );
        let agent =
            "coalesce(userAgent, '') AS user_agent, coalesce(sourceIPAddress, '') AS source_ip";
        assert_eq!(
            text(true),
            format!(
                "{rank}SELECT {agent}, {call}\nFROM t\nWHERE time\n  \
                 AND tlsDetails.tlsVersion IN ('TLSv1', 'TLSv1.1')\nGROUP BY 1, 2, 3, 4, 5, 6, 7\n{end}"
            )
        );
    }
}
