//! The `[callers]` table: what is told of those who make outdated calls, and of how many.

use super::keys::Keys;
use crate::call::CallerLabels;
use crate::exposition;
use crate::store::CALLERS;

const LABELS: [&str; 3] = ["principal", "user_agent", "source_ip"];

pub(super) fn callers(keys: &mut Keys) -> exposition::CallerSettings {
    let limit = keys.number("callers.limit", 200, CALLERS);
    let labels = keys.texts("callers.labels", &["principal", "user_agent"]);
    let known = labels.iter().all(|label| LABELS.contains(&label.as_str()));
    keys.check(
        known,
        "callers.labels",
        "may hold `principal`, `user_agent` and `source_ip`",
    );
    let has = |label: &str| labels.iter().filter(|name| *name == label).count();
    keys.check(
        LABELS.iter().all(|label| has(label) <= 1),
        "callers.labels",
        "must not name a label twice",
    );
    let on = limit > 0;
    exposition::CallerSettings {
        limit,
        labels: CallerLabels {
            principal: on && has("principal") > 0,
            user_agent: on && has("user_agent") > 0,
            source_ip: on && has("source_ip") > 0,
        },
    }
}
