//! A `[[sources]]` table of `type = "logs_insights"`.

use std::time::Duration;

use super::table::{Queries, Table};
use super::{Kind, Source};
use crate::source::logs_insights::{Form, MOST_ROWS, PAGE, Settings};
use crate::tls::TlsVersion;

/// The most log groups that StartQuery takes.
const MOST_GROUPS: usize = 50;

pub(super) fn source(table: &mut Table<'_>, name: String) -> Source {
    let minimum_version = table.shared.minimum_version;
    let outdated_only = table.choice("scope", &[("all", false), ("outdated", true)]);
    table.check(
        !outdated_only || minimum_version > TlsVersion::Tls10,
        "scope",
        "asks for nothing: no version is below `tls.minimum_version`",
    );
    let by_event_time = table.choice("clock", &[("delivery", false), ("event", true)]);
    let form = match table.flag("parse_json", false) {
        true => Form::Json,
        false => Form::Fields,
    };
    let (interval, terms, query) = table.queries(&Queries {
        interval: "5m",
        settle: if by_event_time { "20m" } else { "5m" },
        recount_after: "off",
        // A query is billed by the bytes of its time, whatever it asks.
        check_first: false,
        longest: Duration::from_secs(6 * 3600),
        // AWS's own console takes as long to show a query's first answer, and longer.
        first_pause: Duration::from_millis(500),
        price_per_gib: 0.005,
        apart: false,
        control: outdated_only,
    });
    table.check(
        query.recount.is_none() || by_event_time,
        "recount_after",
        "is for `clock = \"event\"`: by time of delivery nothing comes late",
    );
    table.check(
        query.recount.is_none() || !outdated_only,
        "recount_after",
        "is for `scope = \"all\"`: what was counted for the control alone cannot be compared",
    );
    let settings = Settings {
        log_groups: log_groups(table),
        form,
        outdated_only,
        minimum_version,
        bucket: table.shared.bucket,
        most_rows: MOST_ROWS,
        page: PAGE,
    };
    Source {
        name,
        access: table.access(),
        interval,
        terms,
        budget: table.budget(1),
        kind: Kind::LogsInsights(query, settings),
    }
}

fn log_groups(table: &mut Table<'_>) -> Vec<String> {
    let groups = table.texts("log_groups");
    let number = (1..=MOST_GROUPS).contains(&groups.len());
    table.check(number, "log_groups", "must name 1 to 50 log groups");
    // What DescribeLogGroups calls `arn` ends so, and StartQuery refuses it.
    let plain = groups
        .iter()
        .all(|group| !group.is_empty() && !group.ends_with('*'));
    table.check(
        plain,
        "log_groups",
        "must be names or ARNs without `:*` at their end",
    );
    groups
}
