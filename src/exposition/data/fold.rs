//! The limit of a family of gauges, kept anew at each rendering: what is over it goes into `other`, the least first.

use hashbrown::HashMap;

use super::families::Label;
use super::ranks::RowKey;

/// A series in the making.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) key: RowKey,
    pub(super) value: i64,
    /// Rows of less weight are folded first.
    pub(super) weight: i64,
    pub(super) class: Class,
    /// How many label sets were folded into it.
    pub(super) folded: usize,
}

impl Row {
    /// A row of a family that is not folded.
    pub(super) fn new(key: RowKey, value: i64) -> Self {
        Self {
            key,
            value,
            weight: value,
            class: Class::Modern,
            folded: 0,
        }
    }
}

/// Which rows are folded before others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// Calls without a TLS version: their call is folded before all else.
    None,
    /// Other calls.
    Modern,
    /// Outdated calls, which are folded last.
    Outdated,
}

/// How rows that share a label set become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Merge {
    /// Their values are added up.
    Sum,
    /// The greatest value stands for all.
    Max,
    /// The value of the greatest weight stands for all.
    Heaviest,
}

impl Merge {
    fn merge(self, row: &mut Row, other: Row) {
        let folded = row.folded + other.folded;
        match self {
            Self::Sum => {
                row.value = row.value.saturating_add(other.value);
                row.weight = row.weight.saturating_add(other.weight);
            }
            Self::Max => {
                row.value = row.value.max(other.value);
                row.weight = row.weight.max(other.weight);
            }
            Self::Heaviest if other.weight > row.weight => *row = other,
            Self::Heaviest => {}
        }
        row.folded = folded;
    }
}

/// The labels that are folded, in this order, each with all before it.
const ORDER: [Label; 5] = [
    Label::EventName,
    Label::CipherSuite,
    Label::AwsRegion,
    Label::AccountId,
    Label::AwsService,
];

/// Which rows are folded in how many of these labels: as few as will do.
const STEPS: [(&[Class], usize); 11] = {
    const CLEAN: &[Class] = &[Class::None, Class::Modern];
    const OUTDATED: &[Class] = &[Class::Outdated];
    [
        (&[Class::None], 1),
        (CLEAN, 1),
        (CLEAN, 2),
        (CLEAN, 3),
        (CLEAN, 4),
        (CLEAN, 5),
        (OUTDATED, 1),
        (OUTDATED, 2),
        (OUTDATED, 3),
        (OUTDATED, 4),
        (OUTDATED, 5),
    ]
};

/// Folds the rows of a family until they are no more than `limit`; `labels` are the family's, beside `source`, and
/// `other` the rank of that value. The rows come back in the order of their keys.
///
/// What is left when all is folded, a row for each source and kind of TLS, may be more than a limit that is very low.
pub(super) fn fold(
    mut rows: Vec<Row>,
    limit: usize,
    labels: &[Label],
    other: u32,
    merge: Merge,
) -> Vec<Row> {
    let slots: Vec<usize> = ORDER
        .iter()
        .filter_map(|label| Some(labels.iter().position(|known| known == label)? + 1))
        .collect();
    for (classes, labels) in STEPS {
        let slots = slots.get(..labels.min(slots.len())).unwrap_or_default();
        if rows.len() > limit {
            rows = step(rows, limit, classes, slots, other, merge);
        }
    }
    rows.sort_unstable_by_key(|row| row.key);
    rows
}

/// Folds rows of `classes` in `slots`, one after the other, until no more than `limit` are left.
fn step(
    rows: Vec<Row>,
    limit: usize,
    classes: &[Class],
    slots: &[usize],
    other: u32,
    merge: Merge,
) -> Vec<Row> {
    let is_other = |row: &Row, slot: &usize| row.key.get(*slot) == Some(&other);
    let mut kept = Vec::new();
    let mut whole = Vec::new();
    let mut folded: HashMap<RowKey, Row> = HashMap::new();
    for row in rows {
        // A call may have the name `other` of itself.
        if slots.iter().all(|slot| is_other(&row, slot)) {
            folded.insert(row.key, row);
        } else if classes.contains(&row.class) {
            whole.push(row);
        } else {
            kept.push(row);
        }
    }
    whole.sort_unstable_by_key(|row| (row.weight, row.key));
    let mut whole = whole.into_iter();
    while kept.len() + folded.len() + whole.len() > limit
        && let Some(mut row) = whole.next()
    {
        for slot in slots {
            if let Some(value) = row.key.get_mut(*slot) {
                *value = other;
            }
        }
        row.folded = row.folded.max(1);
        folded
            .entry(row.key)
            .and_modify(|known| merge.merge(known, row))
            .or_insert(row);
    }
    kept.extend(folded.into_values());
    kept.extend(whole);
    kept
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LABELS: [Label; 4] = [
        Label::AwsService,
        Label::TlsVersion,
        Label::EventName,
        Label::AccountId,
    ];
    const OTHER: u32 = 0;
    const CLASSES: [Class; 3] = [Class::None, Class::Modern, Class::Outdated];

    /// Rows of two sources; the class goes by the version, as it does in the families.
    fn rows() -> impl Strategy<Value = Vec<Row>> {
        let row = (1..3_u32, 1..4_u32, 1..4_u32, 0..30_u32, 1..5_u32, 0..50_i64);
        let row = row.prop_map(|(source, service, version, event, account, value)| Row {
            key: [source, service, version, event, account, 9, 9, 9],
            value,
            weight: value,
            class: CLASSES[version as usize - 1],
            folded: 0,
        });
        prop::collection::vec(row, 0..300).prop_map(|mut rows| {
            rows.sort_unstable_by_key(|row| row.key);
            rows.dedup_by_key(|row| row.key);
            rows
        })
    }

    proptest! {
        #[test]
        fn a_family_holds_its_limit_and_its_sums(rows in rows(), limit in 6_usize..400) {
            let sum = |rows: &[Row], source, version| -> i64 {
                let of = |row: &&Row| row.key[0] == source && row.key[2] == version;
                rows.iter().filter(of).map(|row| row.value).sum()
            };
            let folded = fold(rows.clone(), limit, &LABELS, OTHER, Merge::Sum);
            prop_assert!(folded.len() <= limit);
            for (source, version) in [(1, 1), (1, 2), (1, 3), (2, 1), (2, 2), (2, 3)] {
                prop_assert_eq!(sum(&folded, source, version), sum(&rows, source, version));
            }
            let keys: std::collections::BTreeSet<RowKey> = folded.iter().map(|row| row.key).collect();
            prop_assert_eq!(keys.len(), folded.len(), "a label set is there twice");
            let named_so = rows.iter().filter(|row| row.key.contains(&OTHER)).count();
            let whole = folded.iter().filter(|row| row.folded == 0).count();
            let told = whole + folded.iter().map(|row| row.folded).sum::<usize>();
            prop_assert!((rows.len() - named_so..=rows.len()).contains(&told));
            if rows.len() <= limit {
                prop_assert_eq!(&folded, &rows);
            }
            // Outdated calls are whole as long as anything else is.
            let whole = |class| folded.iter().any(|row| row.class == class && row.key[1] != OTHER);
            let outdated = folded.iter().any(|row| row.class == Class::Outdated && row.folded > 0);
            prop_assert!(!outdated || !whole(Class::None) && !whole(Class::Modern));
        }
    }

    #[test]
    fn the_ladder_is_climbed_no_further_than_needed_and_the_least_go_first() {
        let row = |version: u32, event, value| Row {
            key: [1, 1, version, event, 1, 9, 9, 9],
            value,
            weight: value,
            class: CLASSES[version as usize - 1],
            folded: 0,
        };
        let rows: Vec<Row> = (1..=3)
            .flat_map(|version| (1..=10).map(move |event| row(version, event, i64::from(event))))
            .collect();
        let folded = |limit| {
            let rows = fold(rows.clone(), limit, &LABELS, OTHER, Merge::Sum);
            let of = |version| {
                let rows = rows.iter().filter(|row| row.key[2] == version);
                let texts = rows.map(|row| format!("{}={}", row.key[3], row.value));
                texts.collect::<Vec<_>>().join(" ")
            };
            [of(1), of(2), of(3)]
        };
        let whole = "1=1 2=2 3=3 4=4 5=5 6=6 7=7 8=8 9=9 10=10";
        assert_eq!(folded(30), [whole, whole, whole]);
        assert_eq!(
            folded(29),
            ["0=3 3=3 4=4 5=5 6=6 7=7 8=8 9=9 10=10", whole, whole]
        );
        assert_eq!(folded(21), ["0=55", whole, whole]);
        assert_eq!(folded(16), ["0=55", "0=21 7=7 8=8 9=9 10=10", whole]);
        assert_eq!(folded(12), ["0=55", "0=55", whole]);
        assert_eq!(
            folded(10),
            ["0=55", "0=55", "0=6 4=4 5=5 6=6 7=7 8=8 9=9 10=10"]
        );
        assert_eq!(folded(3), ["0=55"; 3]);
    }
}
