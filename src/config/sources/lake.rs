//! A `[[sources]]` table of `type = "lake"`.

use std::time::Duration;

use super::table::{Queries, Table};
use super::{Kind, Source};
use crate::source::lake::{KeyExchange, MOST_ROWS, PAGE, Settings};

pub(super) fn source(table: &mut Table<'_>, name: String) -> Source {
    let (interval, terms, query) = table.queries(&Queries {
        interval: "1h",
        settle: "20m",
        recount_after: "6h",
        // Lake keeps columns: to count records reads few of them.
        check_first: true,
        longest: Duration::from_secs(6 * 3600),
        first_pause: Duration::from_secs(1),
        price_per_gib: 0.005,
        apart: true,
        control: false,
    });
    let event_data_store = table.required("event_data_store");
    table.check(
        event_data_store.is_empty() || is_store(&event_data_store),
        "event_data_store",
        "must be the id of an event data store, or its ARN",
    );
    let owner_account = table.optional("owner_account");
    let account = |id: &str| id.len() == 12 && id.bytes().all(|digit| digit.is_ascii_digit());
    table.check(
        owner_account.as_deref().is_none_or(account),
        "owner_account",
        "must be the 12 digits of an account",
    );
    let key_exchange = [
        ("column", KeyExchange::Column),
        ("event_json", KeyExchange::EventJson),
    ];
    let settings = Settings {
        event_data_store,
        owner_account,
        key_exchange: table.choice("key_exchange", &key_exchange),
        deduplicate: table.flag("deduplicate", true),
        bucket: table.shared.bucket,
        most_rows: MOST_ROWS,
        page: PAGE,
    };
    Source {
        name,
        access: table.access(),
        interval,
        terms,
        budget: table.budget(1),
        kind: Kind::Lake(query, settings),
    }
}

/// Whether a text is a store's id, or an ARN that ends with one. The id goes into SQL as it is.
fn is_store(text: &str) -> bool {
    let id = match text.split_once(":eventdatastore/") {
        Some((arn, id)) if arn.starts_with("arn:") => id,
        _ => text,
    };
    let form = [8, 4, 4, 4, 12];
    let hex = |part: &str| part.bytes().all(|digit| digit.is_ascii_hexdigit());
    id.split('-').map(str::len).eq(form) && id.split('-').all(hex)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_but_an_id_gets_into_the_sql() {
        let id = "01234567-89ab-cdef-0123-456789abcdef";
        assert!(is_store(id));
        assert!(is_store(&format!(
            "arn:aws:cloudtrail:eu-west-1:111122223333:eventdatastore/{id}"
        )));
        for bad in [
            "",
            "store",
            "01234567-89ab-cdef-0123-456789abcde",
            "01234567-89ab-cdef-0123-456789abcdeg",
            "01234567-89ab-cdef-0123-456789abcdef ",
            "x:eventdatastore/01234567-89ab-cdef-0123-456789abcdef",
            "arn:aws:cloudtrail:eu-west-1:1:eventdatastore/01234567-89ab-cdef-0123-456789abcdef/x",
            "01234567-89ab-cdef-0123-456789abcdef; DROP",
        ] {
            assert!(!is_store(bad), "{bad}");
        }
    }
}
