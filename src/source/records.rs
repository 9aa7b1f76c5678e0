//! What the sources that read records themselves have in common: a record's key, its id and its caller.

use uuid::Uuid;
use xxhash_rust::xxh3::xxh3_128;

use crate::call::{CallKey, Caller, CallerLabels, Name};
use crate::record::Record;

/// An event id: a UUID's 16 bytes, or a hash where a record's id is none.
pub(super) type EventId = u128;

/// The id of a record; `None` for records older than event ids.
pub(super) fn event_id(record: &Record<'_>) -> Option<EventId> {
    let id = record.event_id.as_ref();
    let number = || Uuid::try_parse(id).map_or_else(|_| xxh3_128(id.as_bytes()), |id| id.as_u128());
    (!id.is_empty()).then(number)
}

/// What a record is counted by.
pub(super) fn call(record: &Record<'_>) -> CallKey {
    CallKey {
        aws_service: Name::new(CallKey::service_of(&record.event_source)),
        event_name: Name::new(&record.event_name),
        tls_version: record.tls_version,
        cipher_suite: Name::new(&record.cipher_suite),
        key_exchange: record.key_exchange,
        account_id: Name::new(&record.account_id),
        aws_region: Name::new(&record.aws_region),
    }
}

/// Who made the call, as far as `labels` ask.
pub(super) fn caller(record: &Record<'_>, labels: CallerLabels) -> Caller {
    let told = |asked: bool, text: &dyn Fn() -> Name| match asked {
        true => text(),
        false => Name::new(""),
    };
    Caller {
        aws_service: Name::new(CallKey::service_of(&record.event_source)),
        event_name: Name::new(&record.event_name),
        tls_version: record.tls_version,
        account_id: Name::new(&record.account_id),
        principal: told(labels.principal, &|| Name::new(&record.caller.principal())),
        user_agent: told(labels.user_agent, &|| {
            Name::new(&record.caller.user_agent())
        }),
        source_ip: told(labels.source_ip, &|| Name::new(&record.caller.source_ip())),
    }
}
