//! Reads what workers remember from a store that an exporter may be using: nothing is written, nobody waits.

use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use super::{StoreError, beside, schema};
use crate::batch::ProgressChange;

/// A worker as it is stored.
#[derive(Clone, Debug)]
pub struct Remembered {
    /// The `source` label.
    pub source: String,
    /// The account of its role, empty where there is none.
    pub account: String,
    /// Its region, empty where there is none.
    pub region: String,
    /// The rows of its progress, in the order of their keys.
    pub progress: Vec<ProgressChange>,
}

/// What the workers of sources of this type remember; nothing where there is no store.
pub fn remembered(path: &Path, source_type: &str) -> Result<Vec<Remembered>, StoreError> {
    if !path.exists() {
        return Ok(Vec::new());
    }
    let connection = open(path)?;
    let application: i32 =
        connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
    if application != schema::APPLICATION_ID {
        return Err(StoreError::Foreign(path.to_owned()));
    }
    let mut workers = connection.prepare(
        "SELECT id, source, account, region FROM workers WHERE source_type = ?1 ORDER BY id",
    )?;
    let mut rows =
        connection.prepare("SELECT key, value FROM progress WHERE worker = ?1 ORDER BY key")?;
    let workers = workers.query_map([source_type], |worker| {
        let id: i64 = worker.get(0)?;
        let progress = rows.query_map([id], |row| {
            let (key, value): (String, Vec<u8>) = (row.get(0)?, row.get(1)?);
            Ok(ProgressChange::put(key, value))
        })?;
        Ok(Remembered {
            source: worker.get(1)?,
            account: worker.get(2)?,
            region: worker.get(3)?,
            progress: progress.collect::<Result<_, _>>()?,
        })
    })?;
    Ok(workers.collect::<Result<_, _>>()?)
}

/// Opens a database for reading. One without a log beside it has no writer: it is read as it lies, so that no file comes
/// into being beside it.
fn open(path: &Path) -> Result<Connection, StoreError> {
    let name = path.to_string_lossy();
    let name = name
        .replace('%', "%25")
        .replace('?', "%3f")
        .replace('#', "%23");
    let how = match beside(path, "-wal").exists() {
        true => "mode=ro",
        false => "mode=ro&immutable=1",
    };
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
    Ok(Connection::open_with_flags(
        format!("file:{name}?{how}"),
        flags,
    )?)
}
