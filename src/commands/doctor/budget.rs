//! A source's budget beside what a day takes by the look that was just taken.

use serde_json::Value;

use super::report::{Check, Section, size};
use crate::config::Source;

/// Compares the budget with the cost, where both are known.
pub(super) fn check(source: &Source, section: &mut Section) {
    let mut costs = section.checks.iter().filter(|check| check.name == "cost");
    let day = costs.next().and_then(|cost| cost.facts.get("day_bytes"));
    let (Some(budget), Some(day)) = (source.budget, day.and_then(Value::as_u64)) else {
        return;
    };
    let found = format!("{} a day; about {} are needed", size(budget), size(day));
    let check = match day > budget {
        true => Check::warning("budget", found).hint(
            "raise `budget_bytes_per_day`: the source will fall behind, and give up what is older than `catch_up_limit`",
        ),
        false => Check::ok("budget", found),
    };
    section.push(check.fact("budget_bytes", budget).fact("day_bytes", day));
}
