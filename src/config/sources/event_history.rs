//! A `[[sources]]` table of `type = "event_history"`.

use super::table::Table;
use super::{Kind, Source};
use crate::aws::Quota;
use crate::source::Terms;
use crate::source::event_history::{KEPT, PAGE, Settings};
use crate::window::Schedule;

pub(super) fn source(table: &mut Table<'_>, name: String) -> Source {
    let interval = table.interval("5m");
    let settle = table.duration("settle", "20m");
    let lookback = table.lookback("1h");
    let catch_up_limit = table.catch_up_limit(lookback);
    table.check(
        catch_up_limit <= KEPT,
        "catch_up_limit",
        "must not be longer than 90d: AWS keeps no more",
    );
    let bucket = table.shared.bucket;
    let schedule = Schedule {
        bucket,
        settle,
        // Bucket by bucket: so much is lost at most when a page fails.
        longest: bucket,
        interval,
    };
    let settings = Settings {
        schedule,
        lookback,
        catch_up_limit,
        page: PAGE,
        pages_per_second: u64::from(Quota::LOOKUPS),
        callers: table.shared.callers,
    };
    Source {
        name,
        access: table.access(),
        interval,
        terms: Terms {
            schedule,
            price_per_gib: 0.0,
        },
        budget: table.no_budget(),
        kind: Kind::EventHistory(settings),
    }
}
