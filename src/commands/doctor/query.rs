//! The exporter's own query, run once over little: what AWS allows of it, and what it answers.

use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::place::hint;
use super::report::{Check, size};
use crate::batch::Scanned;
use crate::source::query::{self, CallRow, End, Engine, Leaf, Look, Query, Rows, Started};
use crate::source::{Reason, SourceError};
use crate::worker::chain;

/// The longest pause between two looks.
const LONGEST_PAUSE: Duration = Duration::from_secs(3);

/// An operation that a source calls, and what IAM must allow for it.
#[derive(Clone, Debug)]
pub(super) struct Api {
    /// The name of its check.
    pub(super) check: &'static str,
    pub(super) operation: &'static str,
    /// As it stands in a policy.
    pub(super) action: &'static str,
    pub(super) resource: String,
}

impl Api {
    fn allow(&self) -> String {
        format!("{} on {}", self.action, self.resource)
    }
}

/// What a query answered.
#[derive(Clone, Debug, Default)]
pub(super) struct Asked {
    pub(super) rows: Vec<CallRow>,
    /// Whether there may be more rows.
    pub(super) truncated: bool,
    pub(super) scanned: Scanned,
}

/// Asks for a leaf, then stops the query, which has ended: a refusal of that is told apart. A check for each of
/// `apis`, the last of which stops queries, and one for the query itself; `None` if there is no answer.
pub(super) async fn ask<E: Engine>(
    engine: &E,
    leaf: &Leaf,
    settings: &query::Settings,
    apis: &[Api],
) -> (Vec<Check>, Option<Asked>) {
    let began = Instant::now();
    let mut ids = Vec::new();
    let outcome = answer(engine, leaf, settings, &mut ids).await;
    let requests = engine.observer().take();
    let stopped = match ids.last() {
        Some(id) => Some(engine.stop(id).await),
        None => None,
    };
    let mut checks = Vec::new();
    let Some((stop, asking)) = apis.split_last() else {
        return (checks, None);
    };
    let mut told = false;
    for api in asking {
        let mut failed = requests.failed.keys();
        let failed = failed.find(|(operation, _)| operation == api.operation);
        match (failed, &outcome) {
            (Some((_, reason)), Err(error)) => {
                told = true;
                let hint = hint(*reason, &api.allow());
                checks.push(Check::failed(api.check, chain(error)).hint(hint));
            }
            _ if requests.sent.contains_key(api.operation) => {
                checks.push(Check::ok(api.check, format!("{} is allowed", api.action)));
            }
            _ => {}
        }
    }
    if let Some(stopped) = stopped {
        checks.push(stop_check(stop, stopped));
    }
    match outcome {
        Ok(asked) => {
            let took = humantime::format_duration(Duration::from_secs(began.elapsed().as_secs()));
            let Scanned { bytes, records, .. } = asked.scanned;
            let found = format!("answered in {took}, {} scanned", size(bytes));
            checks.push(
                Check::ok("query", found)
                    .fact("from", leaf.window.from.to_string())
                    .fact("to", leaf.window.to.to_string())
                    .fact("scanned_bytes", bytes)
                    .fact("scanned_records", records),
            );
            (checks, Some(asked))
        }
        Err(error) => {
            if !told {
                checks.push(Check::failed("query", chain(&error)).hint(hint_of_query(&error)));
            }
            (checks, None)
        }
    }
}

fn stop_check(api: &Api, stopped: Result<(), SourceError>) -> Check {
    let action = api.action;
    match stopped {
        Ok(()) => Check::ok(api.check, format!("{action} is allowed")),
        Err(error) => match error.reason {
            Reason::AccessDenied | Reason::Credentials => {
                let hint = hint(error.reason, &api.allow());
                Check::failed(api.check, chain(&error)).hint(hint)
            }
            // The query has ended, and AWS says so: who is not allowed is not told that.
            Reason::Rejected | Reason::NotFound => Check::ok(
                api.check,
                format!("{action} is allowed (the query had ended)"),
            ),
            reason => Check::warning(api.check, chain(&error)).hint(hint(reason, &api.allow())),
        },
    }
}

fn hint_of_query(error: &SourceError) -> String {
    match error.reason {
        Reason::AccessDenied => {
            "allow what the query reads and writes: the table (glue:GetTable, glue:GetPartitions), \
                                 the trail's bucket, the bucket of results, KMS keys"
                .to_owned()
        }
        Reason::TooLarge => {
            "raise the workgroup's limit of bytes for a query above those of a day".to_owned()
        }
        Reason::Timeout => {
            "raise `timeout`, or look at AWS's own console for how long it takes".to_owned()
        }
        reason => hint(reason, ""),
    }
}

async fn answer<E: Engine>(
    engine: &E,
    leaf: &Leaf,
    settings: &query::Settings,
    ids: &mut Vec<String>,
) -> Result<Asked, SourceError> {
    let began = Instant::now();
    let mut scanned = Scanned::default();
    let mut query = Query {
        leaf: leaf.clone(),
        plain: false,
    };
    loop {
        let token = format!("{:032x}", fastrand::u128(..));
        let id = match engine.start(&query, &token).await? {
            Started::Query(id) => id,
            Started::Nothing => {
                return Ok(Asked::default());
            }
            // A statement that is refused costs nothing.
            Started::Reworded if !query.plain => {
                query.plain = true;
                continue;
            }
            Started::Reworded => return Err(not_known()),
        };
        ids.push(id.clone());
        let mut pause = settings.first_pause;
        let (end, more) = loop {
            match engine.look(&id, &query).await? {
                Look::Ended(end, scanned) => break (end, scanned.unwrap_or_default()),
                Look::Running if began.elapsed() >= settings.timeout => {
                    let limit = humantime::format_duration(settings.timeout);
                    let message = format!("the query was stopped after {limit}");
                    return Err(SourceError::new(Reason::Timeout, message));
                }
                Look::Running => sleep(pause).await,
            }
            pause = (pause * 3 / 2).min(LONGEST_PAUSE);
        };
        scanned.add(more);
        return match end {
            End::Complete(answer) => match answer.rows {
                Rows::Calls(rows) => Ok(Asked {
                    rows,
                    truncated: answer.truncated,
                    scanned,
                }),
                _ => Err(SourceError::new(
                    Reason::BadAnswer,
                    "the answer is of another question",
                )),
            },
            End::Stopped => Err(SourceError::new(
                Reason::Rejected,
                "the query was stopped at AWS by somebody else",
            )),
            End::TooMuch(error) | End::Failed(error) => Err(error),
            End::Reworded if !query.plain => {
                query.plain = true;
                continue;
            }
            End::Reworded => Err(not_known()),
        };
    }
}

fn not_known() -> SourceError {
    let message = "a member is not known that was not asked for";
    SourceError::new(Reason::BadAnswer, message)
}
