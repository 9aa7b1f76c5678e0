//! Keeps what was decided of each label set of a counter.

use std::cmp::Reverse;

use hashbrown::HashMap;
use rusqlite::{Connection, Transaction, params};

use super::StoreError;
use crate::series::{Admissions, Rung, SetId, Settings};
use crate::tls::TlsVersion;
use crate::totals::Change;

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

/// Tells how far the label sets of these totals are folded. Those of which nothing was decided yet, as when
/// `series.labels` has changed, are decided now and stored: outdated calls first, then by how many there are.
pub(super) fn admit_all(
    transaction: &Transaction<'_>,
    admissions: &mut Admissions,
    minimum: TlsVersion,
    totals: &mut [Change],
) -> Result<(), StoreError> {
    admissions.roll_back();
    let mut open = Vec::new();
    for Change { source, keys, .. } in totals {
        for change in keys {
            match admissions.known(source, &change.key, minimum) {
                Some(folds) => change.folds = folds,
                None => open.push((&*source, change)),
            }
        }
    }
    open.sort_by_key(|(_, change)| {
        let outdated = change.key.tls_version.outdated(minimum);
        (Reverse(outdated), Reverse(change.calls))
    });
    for (source, change) in open {
        change.folds = admissions.admit(source, &change.key, minimum);
    }
    write(transaction, admissions)?;
    Ok(())
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
