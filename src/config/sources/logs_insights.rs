//! A `[[sources]]` table of `type = "logs_insights"`.

use std::time::Duration;

use super::{Keys, Kind, Shared, Source, interval, lookback};
use crate::aws::Access;
use crate::source::logs_insights::{Form, MOST_ROWS, PAGE, Settings};
use crate::source::{Terms, query};
use crate::tls::TlsVersion;
use crate::window::Schedule;

/// How long AWS's own console takes at most to show a query's first answer, and more.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// The longest window when catching up.
const LONGEST: Duration = Duration::from_secs(6 * 3600);
/// Buckets that have left the window become hours.
const HOUR: Duration = Duration::from_secs(3600);
/// The most log groups that StartQuery takes.
const MOST_GROUPS: usize = 50;

pub(super) fn source(keys: &mut Keys, place: usize, name: String, shared: &Shared) -> Source {
    let key = |name: &str| format!("sources[{place}].{name}");
    let choice = |keys: &mut Keys, name: &str, [first, second]: [&str; 2]| {
        keys.value(&key(name), first, |text| match text {
            text if text == first => Ok(false),
            text if text == second => Ok(true),
            _ => Err(format!("must be `{first}` or `{second}`")),
        })
    };
    let outdated_only = choice(keys, "scope", ["all", "outdated"]);
    let some_outdated = shared.minimum_version > TlsVersion::Tls10;
    keys.check(
        !outdated_only || some_outdated,
        &key("scope"),
        "asks for nothing: no version is below `tls.minimum_version`",
    );
    let by_event_time = choice(keys, "clock", ["delivery", "event"]);
    let form = if keys.flag(&key("parse_json"), false) {
        Form::Json
    } else {
        Form::Fields
    };
    let settle = keys.duration(&key("settle"), if by_event_time { "20m" } else { "5m" });
    let lookback = lookback(keys, &key("lookback"), shared);
    let catch_up_limit = keys.duration(&key("catch_up_limit"), "7d");
    keys.check(
        catch_up_limit >= lookback,
        &key("catch_up_limit"),
        "must not be shorter than `lookback`",
    );
    let recount_after = keys.value(&key("recount_after"), "off", |text| match text {
        "off" => Ok(None),
        text => humantime::parse_duration(text)
            .map(Some)
            .map_err(|error| format!("must be `off` or a duration such as \"6h\": {error}")),
    });
    keys.check(
        recount_after.is_none() || by_event_time,
        &key("recount_after"),
        "is for `clock = \"event\"`: by time of delivery nothing comes late",
    );
    keys.check(
        recount_after.is_none() || !outdated_only,
        &key("recount_after"),
        "is for `scope = \"all\"`: what was counted for the control alone cannot be compared",
    );
    let recount_reach = shared.window.saturating_sub(HOUR);
    keys.check(
        recount_after.is_none_or(|after| after + settle < recount_reach),
        &key("recount_after"),
        "must be shorter than `window.length` less `settle` and an hour",
    );
    let timeout = keys.duration(&key("timeout"), "15m");
    // AWS ends a query after 60 minutes.
    let bounded = (Duration::from_secs(10)..=Duration::from_secs(3600)).contains(&timeout);
    keys.check(bounded, &key("timeout"), "must be between 10s and 1h");
    let query = query::Settings {
        schedule: Schedule {
            bucket: shared.bucket,
            settle,
            longest: LONGEST,
        },
        lookback,
        catch_up_limit,
        timeout,
        first_pause: FIRST_PAUSE,
        recount_after,
        recount_reach,
        control: outdated_only,
        minimum_version: shared.minimum_version,
    };
    let settings = Settings {
        access: access(keys, place),
        log_groups: log_groups(keys, &key("log_groups")),
        form,
        outdated_only,
        minimum_version: shared.minimum_version,
        bucket: shared.bucket,
        most_rows: MOST_ROWS,
        page: PAGE,
    };
    Source {
        name,
        interval: interval(keys, &key("interval"), "5m"),
        terms: Terms {
            settle,
            price_per_gib: keys.amount(&key("price_per_gib"), 0.005),
        },
        kind: Kind::LogsInsights(query, settings),
    }
}

/// How AWS is reached; the same for every source that asks it.
fn access(keys: &mut Keys, place: usize) -> Access {
    let key = |name: &str| format!("sources[{place}].{name}");
    let endpoint_url = keys.optional(&key("endpoint_url"));
    let url = |url: &str| url.starts_with("http://") || url.starts_with("https://");
    keys.check(
        endpoint_url.as_deref().is_none_or(url),
        &key("endpoint_url"),
        "must begin with http:// or https://",
    );
    let use_fips = keys.flag(&key("use_fips"), false);
    let use_dual_stack = keys.flag(&key("use_dual_stack"), false);
    keys.check(
        endpoint_url.is_none() || !use_fips && !use_dual_stack,
        &key("endpoint_url"),
        "must not be set together with `use_fips` or `use_dual_stack`, which choose AWS's own endpoint",
    );
    Access {
        region: keys.optional(&key("region")),
        profile: keys.optional(&key("profile")),
        endpoint_url,
        use_fips,
        use_dual_stack,
    }
}

fn log_groups(keys: &mut Keys, key: &str) -> Vec<String> {
    let groups = keys.texts(key, &[]);
    let number = (1..=MOST_GROUPS).contains(&groups.len());
    keys.check(number, key, "must name 1 to 50 log groups");
    // What DescribeLogGroups calls `arn` ends so, and StartQuery refuses it.
    let plain = groups
        .iter()
        .all(|group| !group.is_empty() && !group.ends_with('*'));
    keys.check(
        plain,
        key,
        "must be names or ARNs without `:*` at their end",
    );
    groups
}
