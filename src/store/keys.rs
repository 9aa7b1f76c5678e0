//! The dictionary of call keys: a small number for each, in the store and in memory.

use std::sync::Arc;

use hashbrown::HashMap;
use rusqlite::{Connection, Transaction, params};

use super::StoreError;
use crate::call::{CallKey, Name};
use crate::tls::{KeyExchange, TlsVersion};

/// Every key that was ever counted, by number and by value.
#[derive(Default)]
pub(super) struct Keys {
    numbers: HashMap<Arc<CallKey>, u32>,
    keys: HashMap<u32, Arc<CallKey>>,
}

impl Keys {
    pub(super) fn load(connection: &Connection) -> Result<Self, StoreError> {
        let mut keys = Self::default();
        let mut rows = connection.prepare(
            "SELECT id, aws_service, event_name, tls_version, cipher_suite, key_exchange, account_id, aws_region
             FROM keys",
        )?;
        let mut rows = rows.query([])?;
        while let Some(row) = rows.next()? {
            let id: u32 = row.get(0)?;
            let text = |column| Ok::<_, rusqlite::Error>(Name::new(row.get_ref(column)?.as_str()?));
            let (version, exchange): (String, String) = (row.get(3)?, row.get(5)?);
            let damaged = || {
                StoreError::Damaged(format!(
                    "key {id} has the TLS values {version:?}, {exchange:?}"
                ))
            };
            let key = CallKey {
                aws_service: text(1)?,
                event_name: text(2)?,
                tls_version: TlsVersion::from_label(&version).ok_or_else(damaged)?,
                cipher_suite: text(4)?,
                key_exchange: KeyExchange::from_code(&exchange).ok_or_else(damaged)?,
                account_id: text(6)?,
                aws_region: text(7)?,
            };
            keys.insert(id, Arc::new(key));
        }
        Ok(keys)
    }

    pub(super) fn key(&self, id: u32) -> Option<&Arc<CallKey>> {
        self.keys.get(&id)
    }

    pub(super) fn insert(&mut self, id: u32, key: Arc<CallKey>) {
        self.numbers.insert(Arc::clone(&key), id);
        self.keys.insert(id, key);
    }

    /// The number of `key`, or `None` if it has none yet.
    pub(super) fn number(&self, key: &CallKey) -> Option<u32> {
        self.numbers.get(key).copied()
    }
}

/// Writes a new key and tells its number.
pub(super) fn write(transaction: &Transaction<'_>, key: &CallKey) -> rusqlite::Result<u32> {
    let mut insert = transaction.prepare_cached(
        "INSERT INTO keys (aws_service, event_name, tls_version, cipher_suite, key_exchange, account_id, aws_region)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?;
    let texts = params![
        key.aws_service.as_str(),
        key.event_name.as_str(),
        key.tls_version.label(),
        key.cipher_suite.as_str(),
        key.key_exchange.code(),
        key.account_id.as_str(),
        key.aws_region.as_str(),
    ];
    let number = insert.insert(texts)?;
    u32::try_from(number).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(0, number))
}
