//! `logs_insights`: the log groups, their class, retention and field index, and the query over an hour.

mod groups;

use std::sync::Arc;
use std::time::Duration;

use aws_sdk_cloudwatchlogs::Client;
use aws_sdk_cloudwatchlogs::config::Builder;
use aws_sdk_cloudwatchlogs::types::LogGroup;

use self::groups::{describe, field_index};
use super::place::Aws;
use super::query::{Api, Asked, ask};
use super::report::{Check, Section, size};
use super::seen::{self, Seen, cost, of_a_day};
use crate::aws::Quota;
use crate::batch::Scanned;
use crate::config::Source;
use crate::source::logs_insights::{LogsInsights, Settings};
use crate::source::query::{self, Leaf};
use crate::time::Timestamp;
use crate::window::Window;

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);
const NOTHING: &str = "does the trail log, and deliver to this log group? Look at \"CloudWatch Logs\" of the trail's page; \
                       or the account was at rest, and any call with a current SDK will show";

pub(super) fn checks(settings: &Settings) -> Vec<&'static str> {
    let index = settings.outdated_only.then_some("field_index");
    let outdated = settings.outdated_only.then_some("outdated_query");
    let before = ["describe_log_groups", "log_group", "retention", "clock"];
    let query = ["start_query", "get_query_results", "stop_query", "query"];
    let mut checks = before.to_vec();
    checks.extend(index);
    checks.extend(query);
    checks.extend(seen::CHECKS);
    checks.extend(outdated);
    checks.push("cost");
    checks
}

pub(super) async fn run(
    aws: &Aws,
    source: &Source,
    query: &query::Settings,
    settings: &Settings,
    section: &mut Section,
) {
    let config = Builder::from(&aws.sdk).interceptor(aws.observer.clone());
    let client = Client::from_conf(config.build());
    let groups = describe(aws, &client, settings, query.catch_up_limit, section).await;
    section.checks.extend(aws.clock());
    if section.has_failed() {
        return;
    }
    if settings.outdated_only {
        section.push(field_index(aws, &client, settings).await);
    }

    let to = aws
        .now()
        .minus(query.schedule.settle)
        .floor(query.schedule.bucket);
    let window = Window {
        from: to.minus(HOUR),
        to,
    };
    let engine = LogsInsights::new(&aws.sdk, settings.clone(), Arc::new(Quota::logs_insights()));
    // With `scope = "outdated"` this is the control, which the exporter asks for one bucket an hour.
    let leaf = match settings.outdated_only {
        true => Leaf::control(window),
        false => Leaf::calls(window),
    };
    let apis = apis(aws, settings);
    let (checks, asked) = ask(&engine, &leaf, query, &apis).await;
    section.checks.extend(checks);
    let Some(asked) = asked else {
        return;
    };
    Seen::in_answer(&asked).check(window, aws.now(), NOTHING, section);
    let outdated = match settings.outdated_only {
        true => outdated(&engine, window, query, &apis, section).await,
        false => None,
    };
    section.push(price(
        source,
        query,
        settings,
        &groups,
        &asked,
        outdated,
        aws.now(),
    ));
}

fn apis(aws: &Aws, settings: &Settings) -> [Api; 3] {
    let arns = settings
        .log_groups
        .iter()
        .map(|group| match group.starts_with("arn:") {
            true => format!("{group}:*"),
            false => aws.arn("logs", &format!("log-group:{group}:*")),
        });
    let groups = arns.collect::<Vec<_>>().join(", ");
    let api = |check, operation, action, resource: &str| Api {
        check,
        operation,
        action,
        resource: resource.to_owned(),
    };
    [
        api("start_query", "StartQuery", "logs:StartQuery", &groups),
        api(
            "get_query_results",
            "GetQueryResults",
            "logs:GetQueryResults",
            &format!("{groups} (if that is not enough, on *)"),
        ),
        api("stop_query", "StopQuery", "logs:StopQuery", "*"),
    ]
}

/// The query that the exporter asks most, which an index makes cheap.
async fn outdated(
    engine: &LogsInsights,
    window: Window,
    query: &query::Settings,
    apis: &[Api],
    section: &mut Section,
) -> Option<Asked> {
    let (checks, asked) = ask(engine, &Leaf::calls(window), query, apis).await;
    let name = "outdated_query";
    let Some(asked) = asked else {
        let failed = checks.into_iter().find(|check| check.hint.is_some());
        section
            .checks
            .extend(failed.map(|check| Check { name, ..check }));
        return None;
    };
    let calls: u64 = asked.rows.iter().map(|row| row.calls).sum();
    let found = format!(
        "{calls} outdated calls, {} scanned",
        size(asked.scanned.bytes)
    );
    section.push(
        Check::ok(name, found)
            .fact("outdated", calls)
            .fact("scanned_bytes", asked.scanned.bytes),
    );
    Some(asked)
}

/// What a day costs: by the bytes of the hour, else by what is stored.
fn price(
    source: &Source,
    query: &query::Settings,
    settings: &Settings,
    groups: &[LogGroup],
    asked: &Asked,
    outdated: Option<Asked>,
    now: Timestamp,
) -> Check {
    let mut scanned = asked.scanned;
    let terms = source.terms;
    if settings.outdated_only {
        let outdated = outdated.map_or_else(Scanned::default, |asked| asked.scanned);
        scanned.add(outdated);
        let bucket = query.schedule.bucket.as_secs();
        let control = asked.scanned.billed_bytes * bucket / HOUR.as_secs();
        let day = of_a_day(outdated.billed_bytes + control, HOUR);
        return cost(scanned, day, terms, "by this hour, the control included");
    }
    if scanned.bytes > 0 {
        let day = of_a_day(scanned.billed_bytes, HOUR);
        return cost(scanned, day, terms, "by this hour");
    }
    let stored = groups.iter().map(|group| {
        let bytes = u64::try_from(group.stored_bytes().unwrap_or(0)).unwrap_or(0);
        let age = now.since(Timestamp::from_secs(
            group.creation_time().unwrap_or(0) / 1000,
        ));
        let kept = group
            .retention_in_days()
            .and_then(|days| u32::try_from(days).ok());
        of_a_day(
            bytes,
            age.min(kept.map_or(Duration::MAX, |days| days * DAY))
                .max(HOUR),
        )
    });
    cost(
        scanned,
        stored.sum(),
        terms,
        "by what is stored, which AWS compresses",
    )
}
