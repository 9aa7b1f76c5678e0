//! The log groups as AWS describes them: their class, their retention and their field index.

use std::time::Duration;

use aws_sdk_cloudwatchlogs::Client;
use aws_sdk_cloudwatchlogs::types::{FieldIndex, IndexCategory, LogGroup, LogGroupClass};

use super::super::place::{Aws, hint};
use super::super::report::{Check, Section, size};
use super::DAY;
use crate::aws;
use crate::source::logs_insights::{Form, Settings};
use crate::source::{Reason, SourceError};
use crate::time::Timestamp;
use crate::worker::chain;

/// The member that the query of outdated calls filters by.
const FIELD: &str = "tlsDetails.tlsVersion";

/// The log groups as AWS describes them.
pub(super) async fn describe(
    aws: &Aws,
    client: &Client,
    settings: &Settings,
    catch_up_limit: Duration,
    section: &mut Section,
) -> Vec<LogGroup> {
    let linked = settings
        .log_groups
        .iter()
        .any(|group| group.starts_with("arn:"));
    let request = client
        .describe_log_groups()
        .set_log_group_identifiers(Some(settings.log_groups.clone()))
        .set_include_linked_accounts(linked.then_some(true));
    let name = "describe_log_groups";
    let found = match request.send().await {
        Ok(answer) => answer.log_groups.unwrap_or_default(),
        Err(error) => {
            let error = aws::failed(&aws.observer, "DescribeLogGroups", error);
            match error.reason {
                Reason::NotFound => Vec::new(),
                Reason::Credentials | Reason::Connection | Reason::Timeout => {
                    let hint = hint(error.reason, "");
                    section.push(Check::failed(name, chain(&error)).hint(hint));
                    return Vec::new();
                }
                // The exporter asks it for AWS's clock alone, and a refusal tells that too.
                _ => {
                    section.push(refused(name, &error, "logs:DescribeLogGroups on *"));
                    return Vec::new();
                }
            }
        }
    };
    section.push(Check::ok(name, "logs:DescribeLogGroups is allowed"));
    for wanted in &settings.log_groups {
        let group = found.iter().find(|group| is(group, wanted));
        section.push(log_group(aws, wanted, group, settings));
    }
    for group in &found {
        section.push(retention(group, catch_up_limit, aws.now()));
    }
    found
}

fn refused(name: &'static str, error: &SourceError, allow: &str) -> Check {
    Check::warning(name, chain(error)).hint(hint(error.reason, allow))
}

fn is(group: &LogGroup, wanted: &str) -> bool {
    group.log_group_name() == Some(wanted) || group.log_group_arn() == Some(wanted)
}

fn log_group(aws: &Aws, wanted: &str, group: Option<&LogGroup>, settings: &Settings) -> Check {
    let name = "log_group";
    let Some(group) = group else {
        let region = &aws.region;
        return Check::failed(name, format!("no log group {wanted} in {region}")).hint(
            "look at `log_groups`, `region` (a trail for all Regions delivers in its home Region) and the account; log \
             groups of other accounts are named by ARN, from a monitoring account",
        );
    };
    let class = group
        .log_group_class()
        .map_or("STANDARD", LogGroupClass::as_str);
    let stored = u64::try_from(group.stored_bytes().unwrap_or(0)).unwrap_or(0);
    let since = group.creation_time().map_or(0, |ms| ms / 1000);
    let since = Timestamp::from_secs(since);
    let key = match group.kms_key_id() {
        Some(key) => format!(", under the KMS key {key}"),
        None => String::new(),
    };
    let found = format!(
        "{wanted}: class {class}, since {since}, {} stored{key}",
        size(stored)
    );
    let check = match class {
        "STANDARD" => Check::ok(name, found),
        "INFREQUENT_ACCESS" if settings.form == Form::Json => Check::ok(name, found),
        "INFREQUENT_ACCESS" => Check::warning(name, found).hint(
            "AWS's pages contradict each other on whether fields are found in class Infrequent Access: set `parse_json = \
             true` if `records` or `tls_details` fails below",
        ),
        _ => Check::failed(name, found)
            .hint("Logs Insights does not read this class: deliver to a log group of class Standard"),
    };
    check
        .fact("log_group", wanted)
        .fact("class", class)
        .fact("created", since.to_string())
        .fact("stored_bytes", stored)
        .fact("kms_key", group.kms_key_id())
}

fn retention(group: &LogGroup, catch_up_limit: Duration, now: Timestamp) -> Check {
    let (name, group_name) = ("retention", group.log_group_name().unwrap_or_default());
    let days = group.retention_in_days();
    let check = match days {
        None => Check::ok(name, format!("{group_name}: events never expire")),
        Some(days) if DAY * u32::try_from(days).unwrap_or(0) < catch_up_limit => {
            Check::warning(name, format!("{group_name}: {days} days")).hint(
                "after an outage of the exporter that is longer, calls are lost: keep them as long as `catch_up_limit`",
            )
        }
        Some(days) => Check::ok(name, format!("{group_name}: {days} days")),
    };
    let created = Timestamp::from_secs(group.creation_time().unwrap_or(0) / 1000);
    check
        .fact("log_group", group_name)
        .fact("days", days)
        .fact("age_days", now.since(created).as_secs() / DAY.as_secs())
}

/// Whether the query of outdated calls is spared most of the bytes.
pub(super) async fn field_index(aws: &Aws, client: &Client, settings: &Settings) -> Check {
    let name = "field_index";
    let request = client
        .describe_field_indexes()
        .set_log_group_identifiers(Some(settings.log_groups.clone()));
    let answer = match request.send().await {
        Ok(answer) => answer,
        Err(error) => {
            let error = aws::failed(&aws.observer, "DescribeFieldIndexes", error);
            let allow = "logs:DescribeFieldIndexes on `*`, or look for yourself";
            return refused(name, &error, allow);
        }
    };
    // What was indexed once and is no more is told as well.
    let active = |index: &&FieldIndex| {
        let category = index.index_category().map(IndexCategory::as_str);
        index.field_index_name() == Some(FIELD) && category != Some("INACTIVE")
    };
    let indexes: Vec<&FieldIndex> = answer.field_indexes().iter().filter(active).collect();
    let of = settings.log_groups.len();
    // A policy of the whole account names no log group.
    let of_account = indexes
        .iter()
        .any(|index| index.log_group_identifier().is_none());
    let has = if of_account { of } else { indexes.len() };
    let check = if has < of {
        Check::warning(name, format!("{FIELD} is indexed in {has} of {of} log groups")).hint(format!(
            "without it every byte is scanned and billed for `scope = \"outdated\"`: logs:PutIndexPolicy with \
             {{\"Fields\": [\"{FIELD}\"]}} (AWS: \"Create field indexes to improve query performance\")"
        ))
    } else {
        let first = indexes
            .iter()
            .filter_map(|index| index.first_event_time())
            .max();
        let since = match first {
            Some(ms) => format!(", from {} on", Timestamp::from_secs(ms / 1000)),
            None => String::new(),
        };
        Check::ok(
            name,
            format!("{FIELD} is indexed in every log group{since}"),
        )
    };
    check.fact("field", FIELD).fact("log_groups", has)
}
