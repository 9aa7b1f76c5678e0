//! A `[[sources]]` table of `type = "athena"`.

use std::time::Duration;

use super::table::{Queries, Table};
use super::{Kind, Source};
use crate::source::athena::{LEAST_BILLED, Layout, MOST_ROWS, PAGE, Settings};

pub(super) fn source(table: &mut Table<'_>, name: String) -> Source {
    let (interval, terms, query) = table.queries(&Queries {
        interval: "24h",
        settle: "2h",
        recount_after: "off",
        // The files are read whole, whatever is asked.
        check_first: false,
        longest: Duration::from_secs(24 * 3600),
        first_pause: Duration::from_secs(1),
        // 5 dollars for a TB, the price in most Regions.
        price_per_gib: 0.00488,
        apart: true,
        control: false,
    });
    let layouts = [
        ("timestamp", Layout::Timestamp),
        ("year_month_day", Layout::YearMonthDay),
        ("lake", Layout::Lake),
    ];
    let layout = table.choice("layout", &layouts);
    let output_location = table.optional("output_location");
    table.check(
        output_location
            .as_deref()
            .is_none_or(|at| at.starts_with("s3://")),
        "output_location",
        "must begin with s3://",
    );
    let settings = Settings {
        catalog: named(table, "catalog", Some("AwsDataCatalog")),
        database: named(table, "database", Some("default")),
        table: named(table, "table", None),
        workgroup: named(table, "workgroup", Some("primary")),
        output_location,
        layout,
        deduplicate: table.flag("deduplicate", true),
        settle: query.schedule.settle,
        recount_after: query
            .recount
            .map_or(Duration::ZERO, |recount| recount.after),
        bucket: table.shared.bucket,
        most_rows: MOST_ROWS,
        page: PAGE,
    };
    Source {
        name,
        access: table.access(),
        interval,
        terms,
        budget: table.budget(LEAST_BILLED),
        kind: Kind::Athena(query, settings),
    }
}

/// A name in Athena's catalog.
fn named(table: &mut Table<'_>, key: &str, default: Option<&str>) -> String {
    let name = match default {
        Some(default) => table.value(key, default, |text| Ok(text.to_owned())),
        None => table.required(key),
    };
    let plain = name.len() <= 255 && !name.chars().any(char::is_control);
    let plain = plain && (!name.is_empty() || default.is_none());
    table.check(
        plain,
        key,
        "must be 1 to 255 characters, without control characters",
    );
    name
}
