//! Which partitions of a table can hold a window.

use std::time::Duration;

use super::Layout;
use crate::source::query::Leaf;
use crate::source::sql::{self, quoted};
use crate::window::Window;

const DAY: Duration = Duration::from_secs(86_400);

/// What bounds the time of a window, and the partitions that can hold it: of the days of its calls, and the day
/// after, on which the last of them were delivered, or more days, where it is asked for so `late`. It says nothing of
/// now, so that a start can be repeated.
pub(super) fn conditions(layout: Layout, leaf: &Leaf, late: Duration) -> String {
    let Window { from, to } = leaf.window;
    let time = sql::within(leaf, |time| quoted(&time.to_string()));
    let mut days = Vec::new();
    let mut day = from.floor(DAY);
    while day < to.plus(late.max(DAY)) {
        days.push(day.to_string().chars().take(10).collect::<String>());
        day = day.plus(DAY);
    }
    match layout {
        Layout::Timestamp => {
            let days: Vec<String> = days
                .iter()
                .map(|day| quoted(&day.replace('-', "/")))
                .collect();
            format!("\"timestamp\" IN ({})\n  AND {time}", days.join(", "))
        }
        Layout::YearMonthDay => {
            let parts = days.iter().filter_map(|day| {
                let (year, rest) = day.split_once('-')?;
                let (month, day) = rest.split_once('-')?;
                Some(format!(
                    "(year = '{year}' AND month = '{month}' AND day = '{day}')"
                ))
            });
            let parts: Vec<String> = parts.collect();
            format!("({})\n  AND {time}", parts.join(" OR "))
        }
        Layout::Lake => {
            let time = sql::within(leaf, sql::timestamp);
            format!("{time}\n  AND {}", sql::CALLS_OF_LAKE)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Timestamp;

    fn window(from: &str, to: &str) -> Leaf {
        let time = |text| Timestamp::parse(text).unwrap();
        Leaf::calls(Window {
            from: time(from),
            to: time(to),
        })
    }

    #[test]
    fn only_the_days_that_can_hold_a_window_are_read() {
        let day = window("2026-06-01T00:00:00Z", "2026-06-02T00:00:00Z");
        let time = "eventTime >= '2026-06-01T00:00:00Z' AND eventTime < '2026-06-02T00:00:00Z'";
        assert_eq!(
            conditions(Layout::Timestamp, &day, Duration::ZERO),
            format!("\"timestamp\" IN ('2026/06/01', '2026/06/02')\n  AND {time}")
        );
        assert_eq!(
            conditions(Layout::YearMonthDay, &day, Duration::ZERO),
            format!(
                "((year = '2026' AND month = '06' AND day = '01') OR (year = '2026' AND month = '06' AND day = '02'))\n  \
                 AND {time}"
            )
        );
        assert_eq!(
            conditions(Layout::Lake, &day, Duration::ZERO),
            "eventTime >= timestamp '2026-06-01 00:00:00' AND eventTime < timestamp '2026-06-02 00:00:00'\n  \
             AND coalesce(eventCategory, '') NOT IN ('Insight', 'NetworkActivity')"
        );
        let evening = window("2026-12-31T23:59:59Z", "2027-01-01T00:00:01Z");
        let days = |late| {
            let conditions = conditions(Layout::Timestamp, &evening, late);
            conditions.split_once('\n').unwrap().0.to_owned()
        };
        let three = "\"timestamp\" IN ('2026/12/31', '2027/01/01', '2027/01/02')";
        assert_eq!(days(Duration::ZERO), three);
        assert_eq!(days(2 * DAY), three.replace(')', ", '2027/01/03')"));
    }
}
