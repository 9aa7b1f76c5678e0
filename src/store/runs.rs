//! The regression memory: since when outdated calls have been seen, by service and by call.

use std::collections::BTreeMap;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Transaction, params};

use crate::call::{CallKey, Name};
use crate::time::Timestamp;
pub(super) use crate::totals::{Run, RunKey};

/// Times of outdated calls to be taken in, by what they are calls of.
#[derive(Default)]
pub(super) struct Sightings(BTreeMap<RunKey, Vec<Timestamp>>);

impl Sightings {
    /// Takes in an outdated call at `time`, for its service and for itself.
    pub(super) fn add(&mut self, key: &CallKey, time: Timestamp) {
        let service = RunKey {
            account_id: key.account_id.clone(),
            aws_service: key.aws_service.clone(),
            event_name: None,
        };
        let call = RunKey {
            event_name: Some(key.event_name.clone()),
            ..service.clone()
        };
        for key in [service, call] {
            self.0.entry(key).or_default().push(time);
        }
    }

    /// Continues the stored runs, or starts new ones; tells those that changed.
    pub(super) fn write(
        self,
        transaction: &Transaction<'_>,
        worker: i64,
        quiet: Duration,
        now: Timestamp,
    ) -> rusqlite::Result<Vec<(RunKey, Run)>> {
        let mut changed = Vec::new();
        for (key, mut times) in self.0 {
            times.sort_unstable();
            let before = read(transaction, worker, &key)?;
            let run = times
                .into_iter()
                .fold(before, |run, time| Some(continued(run, time, quiet, now)));
            let Some(run) = run.filter(|run| Some(*run) != before) else {
                continue;
            };
            write(transaction, worker, &key, run)?;
            changed.push((key, run));
        }
        Ok(changed)
    }
}

/// The run after an outdated call at `time`.
fn continued(run: Option<Run>, time: Timestamp, quiet: Duration, now: Timestamp) -> Run {
    match run {
        // Late news of the time before the run: part of it only if the quiet in between was short.
        Some(run) if time < run.since && run.since.since(time) < quiet => {
            Run { since: time, ..run }
        }
        Some(run) if time < run.last.plus(quiet) => Run {
            last: run.last.max(time),
            ..run
        },
        _ => Run {
            since: time,
            last: time,
            detected: now,
        },
    }
}

fn event_name(key: &RunKey) -> &str {
    key.event_name.as_ref().map_or("", Name::as_str)
}

fn read(transaction: &Transaction<'_>, worker: i64, key: &RunKey) -> rusqlite::Result<Option<Run>> {
    let mut select = transaction.prepare_cached(
        "SELECT since, last, detected FROM runs
         WHERE worker = ?1 AND account_id = ?2 AND aws_service = ?3 AND event_name = ?4",
    )?;
    let key = params![
        worker,
        key.account_id.as_str(),
        key.aws_service.as_str(),
        event_name(key)
    ];
    let run = |row: &rusqlite::Row<'_>| {
        let time = |column| row.get(column).map(Timestamp::from_secs);
        Ok(Run {
            since: time(0)?,
            last: time(1)?,
            detected: time(2)?,
        })
    };
    select.query_row(key, run).optional()
}

fn write(
    transaction: &Transaction<'_>,
    worker: i64,
    key: &RunKey,
    run: Run,
) -> rusqlite::Result<()> {
    let mut insert = transaction
        .prepare_cached("INSERT OR REPLACE INTO runs VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?;
    insert.execute(params![
        worker,
        key.account_id.as_str(),
        key.aws_service.as_str(),
        event_name(key),
        run.since.secs(),
        run.last.secs(),
        run.detected.secs(),
    ])?;
    Ok(())
}

/// All runs of a worker.
pub(super) fn load(connection: &Connection, worker: i64) -> rusqlite::Result<Vec<(RunKey, Run)>> {
    let mut select = connection.prepare(
        "SELECT account_id, aws_service, event_name, since, last, detected FROM runs WHERE worker = ?1",
    )?;
    let runs = select.query_map([worker], |row| {
        let text = |column| row.get::<_, String>(column);
        let time = |column| row.get(column).map(Timestamp::from_secs);
        let event_name = Some(text(2)?).filter(|name| !name.is_empty());
        let key = RunKey {
            account_id: Name::new(&text(0)?),
            aws_service: Name::new(&text(1)?),
            event_name: event_name.as_deref().map(Name::new),
        };
        Ok((
            key,
            Run {
                since: time(3)?,
                last: time(4)?,
                detected: time(5)?,
            },
        ))
    })?;
    runs.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 86_400;

    fn day(number: i64) -> Timestamp {
        Timestamp::from_secs(number * DAY)
    }

    fn run(since: i64, last: i64, detected: i64) -> Option<Run> {
        Some(Run {
            since: day(since),
            last: day(last),
            detected: day(detected),
        })
    }

    #[test]
    fn a_run_goes_on_until_the_quiet_period_is_over() {
        let quiet = Duration::from_secs(7 * 86_400);
        let next = |before, time, now| Some(continued(before, day(time), quiet, day(now)));
        assert_eq!(next(None, 100, 101), run(100, 100, 101));
        assert_eq!(next(run(100, 100, 101), 106, 107), run(100, 106, 101));
        assert_eq!(
            next(run(100, 106, 101), 103, 108),
            run(100, 106, 101),
            "late news inside the run"
        );
        assert_eq!(
            next(run(100, 106, 101), 113, 114),
            run(113, 113, 114),
            "seven quiet days end it"
        );
        assert_eq!(
            next(run(100, 106, 101), 95, 108),
            run(95, 106, 101),
            "late news of just before it"
        );
    }
}
