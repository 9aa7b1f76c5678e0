//! The tables of the store, and how a store of an older version becomes one of this.

use rusqlite::Connection;

/// Marks the file as ours ("CTLS").
pub(super) const APPLICATION_ID: i32 = 0x4354_4c53;

/// One script a version: entry `n` brings a store of version `n` to `n + 1`.
const MIGRATIONS: [&str; 3] = [
    "
CREATE TABLE settings (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL
) WITHOUT ROWID;

-- A source with one role and region; `watermark` and the rest are NULL before its first batch.
CREATE TABLE workers (
    id INTEGER PRIMARY KEY,
    source TEXT NOT NULL,
    source_type TEXT NOT NULL,
    account TEXT NOT NULL,
    region TEXT NOT NULL,
    watermark INTEGER,
    history_start INTEGER,
    newest_record INTEGER,
    UNIQUE (source, account, region)
);

-- The dictionary of call keys.
CREATE TABLE keys (
    id INTEGER PRIMARY KEY,
    aws_service TEXT NOT NULL,
    event_name TEXT NOT NULL,
    tls_version TEXT NOT NULL,
    cipher_suite TEXT NOT NULL,
    key_exchange TEXT NOT NULL,
    account_id TEXT NOT NULL,
    aws_region TEXT NOT NULL
);

-- Calls by worker and start of the bucket, all keys of it packed into one value (buckets.rs). Old
-- buckets are hours.
CREATE TABLE counts (
    worker INTEGER NOT NULL,
    bucket INTEGER NOT NULL,
    calls BLOB NOT NULL,
    PRIMARY KEY (worker, bucket)
);

-- The counters: every call ever counted, and the latest call and bucket of each key.
CREATE TABLE totals (
    worker INTEGER NOT NULL,
    key INTEGER NOT NULL,
    calls INTEGER NOT NULL,
    last_call INTEGER NOT NULL,
    last_bucket INTEGER NOT NULL,
    PRIMARY KEY (worker, key)
) WITHOUT ROWID;

-- Runs of outdated calls, by service (event_name is empty) and by call.
CREATE TABLE runs (
    worker INTEGER NOT NULL,
    account_id TEXT NOT NULL,
    aws_service TEXT NOT NULL,
    event_name TEXT NOT NULL,
    since INTEGER NOT NULL,
    last INTEGER NOT NULL,
    detected INTEGER NOT NULL,
    PRIMARY KEY (worker, account_id, aws_service, event_name)
) WITHOUT ROWID;

-- What each source remembers; the rows are the source's own.
CREATE TABLE progress (
    worker INTEGER NOT NULL,
    key TEXT NOT NULL,
    value BLOB NOT NULL,
    PRIMARY KEY (worker, key)
);
",
    "
-- How far each label set of a counter is folded (series.rs), decided once and for good. `label_set` is a hash.
CREATE TABLE admissions (
    label_set BLOB PRIMARY KEY,
    rung INTEGER NOT NULL
) WITHOUT ROWID;
",
    "
-- Who made outdated calls in the window, by a small number that is free again when a caller goes.
CREATE TABLE callers (
    worker INTEGER NOT NULL,
    number INTEGER NOT NULL,
    aws_service TEXT NOT NULL,
    event_name TEXT NOT NULL,
    tls_version TEXT NOT NULL,
    account_id TEXT NOT NULL,
    principal TEXT NOT NULL,
    user_agent TEXT NOT NULL,
    source_ip TEXT NOT NULL,
    PRIMARY KEY (worker, number)
) WITHOUT ROWID;

-- Their calls, by worker and start of the bucket, packed like `counts`.
CREATE TABLE caller_counts (
    worker INTEGER NOT NULL,
    bucket INTEGER NOT NULL,
    calls BLOB NOT NULL,
    PRIMARY KEY (worker, bucket)
);
",
];

/// The version that this build reads and writes.
pub(super) fn current() -> i32 {
    i32::try_from(MIGRATIONS.len()).unwrap_or(i32::MAX)
}

/// Brings a store of `version` to the current one, each step in a transaction of its own.
pub(super) fn migrate(connection: &mut Connection, version: i32) -> rusqlite::Result<()> {
    let done = usize::try_from(version).unwrap_or(0);
    for (number, script) in (1..).zip(MIGRATIONS).skip(done) {
        let step = connection.transaction()?;
        step.execute_batch(script)?;
        step.pragma_update(None, "user_version", number)?;
        step.pragma_update(None, "application_id", APPLICATION_ID)?;
        step.commit()?;
    }
    Ok(())
}
