//! `lake`: the event data store, and the query over an hour.

use std::sync::Arc;
use std::time::Duration;

use aws_sdk_cloudtrail::Client;
use aws_sdk_cloudtrail::config::Builder;
use aws_sdk_cloudtrail::operation::get_event_data_store::GetEventDataStoreOutput;
use aws_sdk_cloudtrail::types::EventDataStoreStatus;

use super::place::{Aws, hint};
use super::query::{Api, ask};
use super::report::{Check, Section};
use super::seen::{self, Seen, cost, of_a_day};
use crate::aws::{self, Quota};
use crate::config::Source;
use crate::source::Reason;
use crate::source::lake::{KeyExchange, Lake, Settings};
use crate::source::query::{self, Leaf};
use crate::window::Window;
use crate::worker::chain;

const HOUR: Duration = Duration::from_secs(3600);
const NOTHING: &str = "does the store ingest, and which events? Look at its page in CloudTrail; or the account was at rest, \
                       and any call with a current SDK will show";

pub(super) fn checks() -> Vec<&'static str> {
    let mut checks = vec!["event_data_store", "retention", "management_events"];
    checks.extend(["clock", "start_query", "describe_query"]);
    checks.extend(["get_query_results", "cancel_query", "query"]);
    checks.extend(seen::CHECKS);
    checks.extend(["key_exchange", "cost"]);
    checks
}

pub(super) async fn run(
    aws: &Aws,
    source: &Source,
    query: &query::Settings,
    settings: &Settings,
    section: &mut Section,
) {
    let arn = match settings.event_data_store.starts_with("arn:") {
        true => settings.event_data_store.clone(),
        false => aws.arn(
            "cloudtrail",
            &format!("eventdatastore/{}", settings.store_id()),
        ),
    };
    describe(aws, settings, &arn, section).await;
    section.checks.extend(aws.clock());
    if section.has_failed() {
        return;
    }
    let to = aws
        .now()
        .minus(query.schedule.settle)
        .floor(query.schedule.bucket);
    let window = Window {
        from: to.minus(HOUR),
        to,
    };
    let engine = Lake::new(&aws.sdk, settings.clone(), Arc::new(Quota::lake()));
    let leaf = Leaf::calls(window);
    let (checks, asked) = ask(&engine, &leaf, query, &apis(&arn)).await;
    section.checks.extend(checks);
    let Some(asked) = asked else {
        return;
    };
    let seen = Seen::in_answer(&asked);
    seen.check(window, aws.now(), NOTHING, section);
    if !section.has_failed() {
        section.push(key_exchange(&seen, settings));
    }
    // Lake may scan the whole day for an hour of it: then each query of the exporter does too.
    let each = source.interval.min(HOUR);
    let day = of_a_day(asked.scanned.billed_bytes, each);
    let how = match query.recount {
        Some(_) => "by this hour; the look for late calls comes on top",
        None => "by this hour",
    };
    section.push(cost(asked.scanned, day, source.terms, how));
}

fn apis(arn: &str) -> [Api; 4] {
    let api = |check, operation, action| Api {
        check,
        operation,
        action,
        resource: arn.to_owned(),
    };
    [
        api("start_query", "StartQuery", "cloudtrail:StartQuery"),
        api(
            "describe_query",
            "DescribeQuery",
            "cloudtrail:DescribeQuery",
        ),
        api(
            "get_query_results",
            "GetQueryResults",
            "cloudtrail:GetQueryResults",
        ),
        api("cancel_query", "CancelQuery", "cloudtrail:CancelQuery"),
    ]
}

async fn describe(aws: &Aws, settings: &Settings, arn: &str, section: &mut Section) {
    let config = Builder::from(&aws.sdk).interceptor(aws.observer.clone());
    let client = Client::from_conf(config.build());
    let request = client.get_event_data_store();
    let request = request.event_data_store(&settings.event_data_store);
    let name = "event_data_store";
    match request.send().await {
        Ok(store) => {
            section.push(is_enabled(&store));
            section.push(retention(&store));
            section.push(management_events(&store));
        }
        Err(error) => {
            let error = aws::failed(&aws.observer, "GetEventDataStore", error);
            let (found, region) = (chain(&error), &aws.region);
            section.push(match error.reason {
                // A delegated administrator finds it by its ARN alone; the query names the owner.
                Reason::NotFound if settings.owner_account.is_some() => Check::warning(name, found)
                    .hint("as delegated administrator, write the store's ARN as `event_data_store`"),
                Reason::NotFound => Check::failed(name, found).hint(format!(
                    "there is no such store in {region}: look at `event_data_store`, `region` and the account; a \
                     delegated administrator sets `owner_account`"
                )),
                // The exporter asks it for AWS's clock alone, and a refusal tells that too.
                Reason::AccessDenied => Check::warning(name, found).hint(hint(
                    error.reason,
                    &format!("cloudtrail:GetEventDataStore on {arn}"),
                )),
                reason => Check::failed(name, found).hint(hint(reason, "")),
            });
        }
    }
}

fn is_enabled(store: &GetEventDataStoreOutput) -> Check {
    let status = store
        .status()
        .map_or("unknown", EventDataStoreStatus::as_str);
    let regions = match store.multi_region_enabled() {
        Some(true) => "all Regions",
        Some(false) => "one Region",
        None => "Regions unknown",
    };
    let organization = match store.organization_enabled() {
        Some(true) => "the organization",
        _ => "one account",
    };
    let called = store.name().unwrap_or_default();
    let found = format!("{called}: {status}, {regions}, {organization}");
    let name = "event_data_store";
    let check = match status {
        "ENABLED" => Check::ok(name, found),
        "CREATED" | "STARTING_INGESTION" => {
            Check::warning(name, found).hint("events will come once the store is enabled")
        }
        "STOPPING_INGESTION" | "STOPPED_INGESTION" => Check::warning(name, found)
            .hint("nothing new arrives: start ingestion (cloudtrail:StartEventDataStoreIngestion)"),
        "PENDING_DELETION" => Check::failed(name, found).hint(
            "queries fail until it is restored (cloudtrail:RestoreEventDataStore), within 7 days of the deletion",
        ),
        _ => Check::warning(name, found).hint("this build does not know the status"),
    };
    check
        .fact("status", status)
        .fact("multi_region", store.multi_region_enabled())
        .fact("organization", store.organization_enabled())
        .fact("kms_key", store.kms_key_id())
}

fn retention(store: &GetEventDataStoreOutput) -> Check {
    let days = store.retention_period();
    let found = days.map_or("AWS tells none".to_owned(), |days| format!("{days} days"));
    Check::ok("retention", found).fact("days", days)
}

/// Whether the store's selectors take management events, of which most calls are.
fn management_events(store: &GetEventDataStoreOutput) -> Check {
    let selectors = store.advanced_event_selectors();
    let takes = selectors.iter().any(|selector| {
        let mut fields = selector.field_selectors().iter();
        fields.any(|field| {
            field.field() == "eventCategory" && field.equals().iter().any(|it| it == "Management")
        })
    });
    let name = "management_events";
    let number = selectors.len();
    let check = if number == 0 {
        Check::ok(name, "AWS tells no event selectors")
    } else if takes {
        Check::ok(name, format!("one of {number} event selectors takes them"))
    } else {
        Check::warning(name, format!("none of {number} event selectors takes them"))
            .hint("most calls are management events: add them to the store's events")
    };
    check.fact("selectors", number)
}

fn key_exchange(seen: &Seen, settings: &Settings) -> Check {
    let name = "key_exchange";
    let number = seen.with_key_exchange;
    match (number, settings.key_exchange) {
        (0, KeyExchange::Column) => Check::warning(
            name,
            "no record has one: `unreported` in the metrics",
        )
        .hint(
            "`key_exchange = \"event_json\"` reads it out of the whole event, and scans more bytes",
        ),
        (0, KeyExchange::EventJson) => Check::warning(name, "no record has one")
            .hint("the services called tell none, or the store keeps none"),
        _ => Check::ok(name, format!("{number} records have one")),
    }
}
