//! Keeps what was decided of each label set of a counter.

use hashbrown::HashMap;
use rusqlite::{Connection, Transaction, params};

use super::StoreError;
use crate::series::{Admissions, Rung, SetId, Settings};

/// What was decided so far.
pub(super) fn load(connection: &Connection, settings: Settings) -> Result<Admissions, StoreError> {
    let mut stored: HashMap<SetId, Rung> = HashMap::new();
    let mut select = connection.prepare("SELECT label_set, rung FROM admissions")?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        let damaged = || StoreError::Damaged("an admission cannot be read".to_owned());
        let set: [u8; 16] = row.get(0)?;
        let rung = Rung::from_code(row.get(1)?).ok_or_else(damaged)?;
        stored.insert(SetId::from_be_bytes(set), rung);
    }
    Ok(Admissions::new(settings, stored))
}

/// Stores what was decided for this commit.
pub(super) fn write(
    transaction: &Transaction<'_>,
    admissions: &Admissions,
) -> rusqlite::Result<()> {
    let mut insert = transaction.prepare_cached("INSERT INTO admissions VALUES (?1, ?2)")?;
    for (set, rung) in admissions.decided() {
        insert.execute(params![set.to_be_bytes(), rung.code()])?;
    }
    Ok(())
}
