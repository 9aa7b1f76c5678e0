//! The workgroup and where its results go; the table, its columns and its partitions.

use aws_sdk_athena::Client;
use aws_sdk_athena::types::{TableMetadata, WorkGroup};

use super::super::place::{Aws, hint};
use super::super::report::{Check, Section, size};
use crate::aws;
use crate::source::athena::{Layout, Settings};
use crate::source::{Reason, SourceError};
use crate::worker::chain;

/// What the query reads beside `tlsdetails` and, where duplicates are told, `eventid`.
const COLUMNS: [&str; 5] = [
    "eventtime",
    "eventsource",
    "eventname",
    "awsregion",
    "recipientaccountid",
];
const TLS: [&str; 3] = ["tlsversion", "ciphersuite", "clientprovidedhostheader"];

pub(super) async fn work_group(
    aws: &Aws,
    client: &Client,
    settings: &Settings,
    arn: &str,
) -> Check {
    let name = "work_group";
    let request = client.get_work_group().work_group(&settings.workgroup);
    let group = match request.send().await {
        Ok(answer) => answer.work_group,
        Err(error) => {
            let error = aws::failed(&aws.observer, "GetWorkGroup", error);
            let found = chain(&error);
            return match error.reason {
                // The exporter asks it for AWS's clock alone, and a refusal tells that too.
                Reason::AccessDenied => Check::warning(name, found)
                    .hint(hint(error.reason, &format!("athena:GetWorkGroup on {arn}"))),
                Reason::Rejected | Reason::NotFound => Check::failed(name, found)
                    .hint(format!("look at `workgroup` and `region` ({})", aws.region)),
                reason => Check::failed(name, found).hint(hint(reason, "")),
            };
        }
    };
    match group {
        Some(group) => results(&group, settings),
        None => Check::warning(name, "GetWorkGroup told nothing"),
    }
}

/// Where results go: somewhere, and only one says so.
fn results(group: &WorkGroup, settings: &Settings) -> Check {
    let name = "work_group";
    let configuration = group.configuration();
    let own = configuration
        .and_then(|it| it.result_configuration())
        .and_then(|it| it.output_location());
    let managed = configuration
        .and_then(|it| it.managed_query_results_configuration())
        .is_some_and(|it| it.enabled());
    let enforced = configuration.and_then(|it| it.enforce_work_group_configuration()) == Some(true);
    let cutoff = configuration.and_then(|it| it.bytes_scanned_cutoff_per_query());
    let limit = match cutoff.and_then(|bytes| u64::try_from(bytes).ok()) {
        Some(bytes) => format!("; a query may scan {} at most", size(bytes)),
        None => String::new(),
    };
    let asked = settings.output_location.as_deref();
    let called = group.name();
    let disabled = group
        .state()
        .is_some_and(|state| state.as_str() == "DISABLED");
    let check = if disabled {
        Check::failed(name, format!("{called} is disabled"))
            .hint("enable it, or name another by `workgroup`")
    } else if managed && asked.is_some() {
        Check::failed(name, format!("{called} keeps results itself"))
            .hint("leave `output_location` out: AWS refuses both")
    } else if managed {
        Check::ok(name, format!("{called} keeps results itself{limit}"))
    } else if let (true, Some(own), Some(_)) = (enforced, own, asked.filter(|it| !same(it, own))) {
        Check::warning(
            name,
            format!("{called} enforces that results go to {own}{limit}"),
        )
        .hint("`output_location` has no effect: leave it out, and allow writing there")
    } else if let Some(at) = asked.or(own) {
        Check::ok(name, format!("{called}: results go to {at}{limit}"))
    } else {
        Check::failed(name, format!("{called} says nowhere for results to go"))
            .hint("set `output_location` to a folder in a bucket, or the workgroup's \"query result location\"")
    };
    check
        .fact("output_location", asked.or(own))
        .fact("enforced", enforced)
        .fact("managed", managed)
        .fact("cutoff_bytes", cutoff)
}

fn same(asked: &str, own: Option<&str>) -> bool {
    own.is_some_and(|own| own.trim_end_matches('/') == asked.trim_end_matches('/'))
}

pub(super) async fn table(aws: &Aws, client: &Client, settings: &Settings, section: &mut Section) {
    let request = client
        .get_table_metadata()
        .catalog_name(&settings.catalog)
        .database_name(&settings.database)
        .table_name(&settings.table)
        .work_group(&settings.workgroup);
    let path = format!(
        "{}.{}.{}",
        settings.catalog, settings.database, settings.table
    );
    let table = match request.send().await {
        Ok(answer) => answer.table_metadata,
        Err(error) => {
            let error = aws::failed(&aws.observer, "GetTableMetadata", error);
            return section.push(no_table(aws, settings, &path, &error));
        }
    };
    let Some(table) = table else {
        return section.push(Check::warning("table", "GetTableMetadata told nothing"));
    };
    section.push(Check::ok("table", path.clone()).fact("table", path));
    section.push(columns(&table, settings));
    section.push(partitions(&table, settings.layout));
}

fn no_table(aws: &Aws, settings: &Settings, path: &str, error: &SourceError) -> Check {
    let found = chain(error);
    let catalog = aws.arn("athena", &format!("datacatalog/{}", settings.catalog));
    let region = &aws.region;
    match error.reason {
        // The exporter does not ask it; its query tells whether the table is there.
        Reason::AccessDenied => Check::warning("table", found).hint(hint(
            error.reason,
            &format!("athena:GetTableMetadata on {catalog}, for `doctor` alone, and glue:GetTable on {path}"),
        )),
        Reason::Throttled | Reason::Timeout | Reason::Connection | Reason::Credentials => {
            Check::failed("table", found).hint(hint(error.reason, ""))
        }
        _ => Check::failed("table", found).hint(format!(
            "there is no table {path} in {region}: look at `catalog`, `database`, `table` and `region`"
        )),
    }
}

/// Whether the table has what the query reads.
fn columns(table: &TableMetadata, settings: &Settings) -> Check {
    let name = "columns";
    let has = |name: &str| {
        let mut columns = table.columns().iter();
        columns.find(|column| column.name().eq_ignore_ascii_case(name))
    };
    let id = settings.deduplicate.then_some("eventid");
    let wanted = COLUMNS.into_iter().chain(id).chain(["tlsdetails"]);
    let missing: Vec<&str> = wanted.filter(|name| has(name).is_none()).collect();
    if !missing.is_empty() {
        return Check::failed(name, format!("the table has no {}", missing.join(", ")))
            .hint("make the table as AWS's page says (README: \"By Athena\")");
    }
    let kind = |name| {
        has(name)
            .and_then(|column| column.r#type())
            .unwrap_or_default()
    };
    let time = kind("eventtime").to_ascii_lowercase();
    if time.starts_with("timestamp") != (settings.layout == Layout::Lake) {
        return Check::failed(name, format!("eventtime is a {time}")).hint(
            "`layout = \"lake\"` is for tables whose eventtime is a timestamp, the others for those where it is a string",
        );
    }
    let details = kind("tlsdetails").to_ascii_lowercase();
    let member = |name: &&str| details.contains(&format!("{name}:"));
    let missing: Vec<&str> = TLS.into_iter().filter(|name| !member(name)).collect();
    if !missing.is_empty() {
        return Check::failed(name, format!("tlsdetails has no {}", missing.join(", ")))
            .hint("make the table as AWS's page says (README: \"By Athena\")");
    }
    let has_exchange = member(&"keyexchange");
    let check = match (has_exchange, settings.layout) {
        (true, _) => Check::ok(name, "all are there, the key exchange too"),
        (false, Layout::Lake) => Check::warning(name, "tlsdetails has no keyexchange")
            .hint("key exchanges are `unreported`: the store has none there"),
        (false, _) => Check::warning(name, "tlsdetails has no keyexchange").hint(
            "key exchanges are `unreported`: add keyexchange:STRING to the struct `tlsdetails` of the table",
        ),
    };
    check.fact("key_exchange", has_exchange)
}

/// Whether the table is partitioned as `layout` says: other keys would fail the query, none would read everything.
fn partitions(table: &TableMetadata, layout: Layout) -> Check {
    let name = "partitions";
    let keys: Vec<&str> = table
        .partition_keys()
        .iter()
        .map(|key| key.name())
        .collect();
    let by = match keys.is_empty() {
        true => "none".to_owned(),
        false => keys.join(", "),
    };
    let has = |wanted: &[&str]| wanted.iter().all(|name| keys.contains(name));
    let by_day = has(&["year", "month", "day"]);
    let found = format!("by {by}");
    let check = match layout {
        Layout::Timestamp if has(&["timestamp"]) => Check::ok(name, found),
        Layout::YearMonthDay if by_day => Check::ok(name, found),
        Layout::Lake => Check::ok(name, found),
        Layout::Timestamp if by_day => {
            Check::failed(name, found).hint("set `layout = \"year_month_day\"`")
        }
        Layout::YearMonthDay if has(&["timestamp"]) => {
            Check::failed(name, found).hint("set `layout = \"timestamp\"`")
        }
        _ => Check::failed(name, found).hint(
            "make the table with the partitions of one of AWS's pages (README: \"By Athena\"): without them each query \
             reads every file",
        ),
    };
    check.fact("keys", keys)
}
