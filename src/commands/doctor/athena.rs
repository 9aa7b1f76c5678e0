//! `athena`: the workgroup, the table and its partitions, and the query over as little of a day as there is.

mod table;

use std::sync::Arc;
use std::time::Duration;

use aws_sdk_athena::Client;
use aws_sdk_athena::config::Builder;

use self::table::{table, work_group};
use super::place::Aws;
use super::query::{Api, ask};
use super::report::Section;
use super::seen::{self, Seen, cost, of_a_day};
use crate::aws::Quota;
use crate::config::Source;
use crate::source::athena::{Athena, Layout, Settings};
use crate::source::query::{self, Leaf};
use crate::time::Timestamp;
use crate::window::Window;

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);
const NOTHING: &str = "does the trail deliver to the bucket that the table names in its LOCATION, for this account and Region? \
                       With manual partitions: are those of today added?";

pub(super) fn checks() -> Vec<&'static str> {
    let mut checks = vec!["work_group", "table", "columns", "partitions", "clock"];
    checks.extend(["start_query_execution", "get_query_execution"]);
    checks.extend(["get_query_results", "stop_query_execution", "query"]);
    checks.extend(seen::CHECKS);
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
    let group_arn = aws.arn("athena", &format!("workgroup/{}", settings.workgroup));
    section.push(work_group(aws, &client, settings, &group_arn).await);
    table(aws, &client, settings, section).await;
    section.checks.extend(aws.clock());
    if section.has_failed() {
        return;
    }
    let window = least(query, aws.now());
    let engine = Athena::new(&aws.sdk, settings.clone(), Arc::new(Quota::athena()));
    let apis = apis(&group_arn);
    let (checks, asked) = ask(&engine, &Leaf::calls(window), query, &apis).await;
    section.checks.extend(checks);
    let Some(asked) = asked else {
        return;
    };
    Seen::in_answer(&asked).check(window, aws.now(), NOTHING, section);
    let (day, how) = match settings.layout {
        Layout::Lake => (of_a_day(asked.scanned.billed_bytes, HOUR), "by this hour"),
        _ => {
            let read = aws.now().since(window.from.floor(DAY));
            let day = of_a_day(asked.scanned.bytes, read);
            (
                of_all_queries(day, source.interval, query),
                "by the files of the day so far",
            )
        }
    };
    section.push(cost(asked.scanned, day, source.terms, how));
}

/// The last hour that has settled, without what lies before midnight where that spares the files of another day.
fn least(query: &query::Settings, now: Timestamp) -> Window {
    let to = now
        .minus(query.schedule.settle)
        .floor(query.schedule.bucket);
    let (from, midnight) = (to.minus(HOUR), now.floor(DAY));
    let from = if to > midnight {
        from.max(midnight)
    } else {
        from
    };
    Window { from, to }
}

/// What the exporter's queries of a day read of the files of a day of so many bytes: each reads those that are there.
fn of_all_queries(day: u64, interval: Duration, query: &query::Settings) -> u64 {
    let interval = interval.min(DAY).as_secs().max(1);
    let queries = DAY.as_secs().div_ceil(interval);
    let settle = day / DAY.as_secs() * query.schedule.settle.as_secs();
    day.saturating_mul(queries + 1) / 2 + settle.saturating_mul(queries)
}

fn apis(group: &str) -> [Api; 4] {
    let api = |check, operation, action| Api {
        check,
        operation,
        action,
        resource: group.to_owned(),
    };
    [
        api(
            "start_query_execution",
            "StartQueryExecution",
            "athena:StartQueryExecution",
        ),
        api(
            "get_query_execution",
            "GetQueryExecution",
            "athena:GetQueryExecution",
        ),
        api(
            "get_query_results",
            "GetQueryResults",
            "athena:GetQueryResults",
        ),
        api(
            "stop_query_execution",
            "StopQueryExecution",
            "athena:StopQueryExecution",
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::TlsVersion;
    use crate::window::Schedule;

    fn settings(settle: Duration) -> query::Settings {
        query::Settings {
            schedule: Schedule {
                bucket: Duration::from_secs(300),
                settle,
                longest: DAY,
                interval: DAY,
            },
            lookback: DAY,
            catch_up_limit: DAY,
            timeout: HOUR,
            first_pause: HOUR,
            recount: None,
            control: false,
            minimum_version: TlsVersion::Tls12,
            callers: None,
        }
    }

    #[test]
    fn the_least_is_an_hour_of_today_where_there_is_one() {
        let least = |now: &str| {
            let window = least(&settings(2 * HOUR), Timestamp::parse(now).unwrap());
            [window.from.to_string(), window.to.to_string()]
        };
        assert_eq!(
            least("2026-06-02T10:03:00Z"),
            ["2026-06-02T07:00:00Z", "2026-06-02T08:00:00Z"]
        );
        // Without the evening before, whose files are another day's.
        assert_eq!(
            least("2026-06-02T02:31:00Z"),
            ["2026-06-02T00:00:00Z", "2026-06-02T00:30:00Z"]
        );
        assert_eq!(
            least("2026-06-02T02:04:00Z"),
            ["2026-06-01T23:00:00Z", "2026-06-02T00:00:00Z"]
        );
    }

    #[test]
    fn each_query_of_a_day_reads_the_files_that_are_there() {
        let day = 86_400;
        let query = settings(2 * HOUR);
        // Once whole, and two hours of the next day's.
        assert_eq!(of_all_queries(day, DAY, &query), day + 7200);
        // At 02:00, 03:00 … 26:00: one hour and two, two hours and two, …
        let hours: u64 = (1..=24).map(|hour| (hour + 2) * 3600).sum();
        assert_eq!(of_all_queries(day, HOUR, &query), hours);
    }
}
