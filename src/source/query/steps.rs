//! The batches by which a query source moves on, beside their counts.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tracing::{debug, warn};

use super::estimates::Estimates;
use super::leaf::Leaf;
use super::progress::{self, InFlight, Next, QueryProgress};
use crate::batch::{Batch, ProgressChange, Rejected};
use crate::source::Reason;
use crate::time::Timestamp;
use crate::window::Window;

/// The leaves behind the one that is being asked.
pub(super) fn rest(leaves: &[Leaf]) -> &[Leaf] {
    leaves.split_last().map_or(&[], |(_, rest)| rest)
}

/// A batch after which these leaves are left of the list that `leaf` is of.
pub(super) fn replaced(leaf: &Leaf, leaves: &[Leaf]) -> Batch {
    Batch {
        progress: vec![progress::put_list_of(leaf, leaves)],
        ..Batch::default()
    }
}

/// A batch that stores this alone.
pub(super) fn moved_on(change: ProgressChange) -> Batch {
    Batch {
        progress: vec![change],
        ..Batch::default()
    }
}

/// A batch that stores what is started next, before it is.
pub(super) fn prepared(leaves: &[Leaf], next: &Next) -> Batch {
    let mut batch = replaced(&next.query.leaf, leaves);
    batch.progress.push(progress::put_next(next));
    batch
}

/// A batch that stores a query that was started.
pub(super) fn asked(next: &Next, id: String, started: Timestamp) -> Batch {
    let query = InFlight {
        id,
        query: next.query.clone(),
        started,
    };
    Batch {
        progress: vec![progress::remove_next(), progress::put_query(&query)],
        ..Batch::default()
    }
}

/// A batch after which another question is asked: what was counted by the one before stays, and is not compared with
/// the answers of this one.
pub(super) fn begun_anew(progress: &QueryProgress, identity: &str, subject: &str) -> Batch {
    let leaves = progress.leaves.iter().filter(|leaf| leaf.holds_watermark());
    let leaves: Vec<Leaf> = leaves.cloned().collect();
    let mut batch = Batch {
        begins_anew: progress
            .subject
            .as_deref()
            .is_some_and(|known| known != subject),
        ..Batch::default()
    };
    let changes = [
        progress::put_identity(identity),
        progress::put_subject(subject),
        progress::put_leaves(&leaves),
        progress::remove_next(),
        progress::remove_query(),
        // What other questions took tells nothing of this one. What the query that was stopped took nobody tells.
        progress::put_estimates(&Estimates::default()),
        progress::put_spent(&progress.spent.settled(None)),
        progress::put_callers(&[]),
    ];
    batch.progress.extend(changes);
    let outdated = progress.outdated.keys();
    batch
        .progress
        .extend(outdated.map(|at| progress::remove_outdated(*at)));
    if let Some(watermark) = progress.watermark {
        compare_from(&mut batch, progress, watermark);
    }
    batch
}

/// Nothing before `from` is counted again.
pub(super) fn compare_from(batch: &mut Batch, progress: &QueryProgress, from: Timestamp) {
    batch.progress.push(progress::put_recounted(from));
    batch.progress.push(progress::put_again(&[]));
    let known = progress.records.keys();
    let records = known.map(|at| progress::remove_records(*at));
    batch.progress.extend(records);
}

/// A batch that gives up the time from `watermark` to `to`: history begins behind it.
pub(super) fn given_up(watermark: Timestamp, to: Timestamp) -> Batch {
    warn!(from = %watermark, %to, "given up: older than `catch_up_limit`");
    Batch {
        progress: vec![
            progress::put_watermark(to),
            progress::put_recounted(to),
            progress::put_leaves(&[]),
            progress::put_again(&[]),
        ],
        covered: Some(Window { from: to, to }),
        skipped_seconds: to.since(watermark).as_secs(),
        ..Batch::default()
    }
}

/// A batch that leaves a window as it was counted, since it cannot be counted again.
pub(super) fn not_recounted(
    leaf: &Leaf,
    progress: &QueryProgress,
    reason: Reason,
    why: &str,
) -> Batch {
    let rest = rest(&progress.again);
    let mut batch = replaced(leaf, rest);
    advance(&mut batch, leaf, rest, progress);
    let Window { from, to } = leaf.window;
    batch.rejected.push(Rejected {
        name: format!("{from} to {to}, counted again"),
        reason,
        error: format!("it stays as it was counted: {why}"),
    });
    batch
}

/// A batch that passes over a leaf of which AWS holds nothing: history begins behind it.
pub(super) fn passed(leaf: &Leaf, progress: &QueryProgress) -> Batch {
    let rest = rest(progress.list_of(leaf));
    let mut batch = replaced(leaf, rest);
    advance(&mut batch, leaf, rest, progress);
    if let Some(covered) = &mut batch.covered {
        warn!(from = %covered.from, to = %covered.to, "given up: AWS holds nothing of that time");
        batch.skipped_seconds = covered.length().as_secs();
        covered.from = covered.to;
    }
    batch
}

/// A batch after which the buckets of a window are counted again that have other records now than when they were
/// counted.
pub(super) fn checked(
    leaf: &Leaf,
    progress: &QueryProgress,
    now: &[(Timestamp, u64)],
    bucket: Duration,
) -> Batch {
    let Window { from, to } = leaf.window;
    let now: BTreeMap<Timestamp, u64> = now.iter().copied().collect();
    let known = &progress.records;
    let buckets: BTreeSet<Timestamp> = known
        .range(from..to)
        .chain(&now)
        .map(|(at, _)| *at)
        .collect();
    let mut differ: Vec<Window> = Vec::new();
    for at in buckets {
        if known.get(&at).copied().unwrap_or_default() == now.get(&at).copied().unwrap_or_default()
        {
            continue;
        }
        let (from, to) = (at.max(from), at.plus(bucket).min(to));
        match differ.last_mut() {
            Some(before) if before.to == from => before.to = to,
            _ => differ.push(Window { from, to }),
        }
    }
    debug!(%from, %to, windows = differ.len(), "to be counted again");
    let rest = rest(&progress.again);
    let mut leaves = rest.to_vec();
    leaves.extend(differ.into_iter().rev().map(Leaf::recount));
    let mut batch = replaced(leaf, &leaves);
    let seen = known
        .range(..to)
        .map(|(at, _)| progress::remove_records(*at));
    batch.progress.extend(seen);
    advance(&mut batch, leaf, rest, progress);
    batch
}

/// Moves the progress behind `leaf`: the watermark as far as no leaf that is left holds it.
pub(super) fn advance(batch: &mut Batch, leaf: &Leaf, rest: &[Leaf], progress: &QueryProgress) {
    let before = progress.watermark;
    if leaf.recount && progress.recounted < Some(leaf.window.to) {
        let to = leaf.window.to;
        batch.progress.push(progress::put_recounted(to));
    }
    if !leaf.holds_watermark() {
        return;
    }
    let held = rest.iter().filter(|leaf| leaf.holds_watermark());
    let to = held
        .map(|leaf| leaf.window.from)
        .min()
        .unwrap_or(leaf.window.to);
    let from = before.unwrap_or(leaf.window.from);
    if before.is_none_or(|before| to > before) {
        batch.progress.push(progress::put_watermark(to));
        batch.covered = Some(Window { from, to });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Progress as _;

    const BUCKET: Duration = Duration::from_secs(60);

    fn time(minute: i64) -> Timestamp {
        Timestamp::from_secs(minute * 60)
    }

    fn window(from: i64, to: i64) -> Window {
        Window {
            from: time(from),
            to: time(to),
        }
    }

    /// Progress of which the buckets at these minutes had so many records.
    fn progress(records: &[(i64, u64)]) -> QueryProgress {
        let mut progress = QueryProgress::default();
        for (minute, records) in records {
            progress
                .apply(&progress::put_records(time(*minute), *records))
                .unwrap();
        }
        progress
    }

    #[test]
    fn buckets_that_differ_are_asked_for_again_and_all_are_forgotten() {
        // Bucket 0 lies before, 1 is the same, 2 and 3 have more, 4 has fewer, 5 is new, 6 is gone, 9 lies behind.
        let counted = [(0, 1), (1, 5), (2, 5), (3, 5), (4, 5), (6, 5), (9, 5)];
        let now = [(1, 5), (2, 6), (3, 7), (4, 4), (5, 1)].map(|(at, records)| (time(at), records));
        let mut progress = progress(&counted);
        let check = Leaf::check(window(1, 8));
        let batch = checked(&check, &progress, &now, BUCKET);
        assert_eq!((batch.counts.calls(), batch.covered), (0, None));
        for change in &batch.progress {
            progress.apply(change).unwrap();
        }
        assert_eq!(progress.again, [Leaf::recount(window(2, 7))]);
        assert_eq!(progress.recounted, Some(time(8)));
        assert_eq!(progress.records, BTreeMap::from([(time(9), 5)]));
    }

    #[test]
    fn buckets_apart_are_leaves_of_their_own_the_oldest_next() {
        let now = [(1, 5), (2, 6), (3, 5), (5, 6)].map(|(at, records)| (time(at), records));
        let progress = progress(&[(1, 4), (2, 6), (3, 5), (5, 5)]);
        let batch = checked(&Leaf::check(window(1, 6)), &progress, &now, BUCKET);
        let leaves = [Leaf::recount(window(5, 6)), Leaf::recount(window(1, 2))];
        assert!(batch.progress.contains(&progress::put_again(&leaves)));
    }

    #[test]
    fn another_question_is_not_compared_with_what_was_counted_before() {
        let mut progress = progress(&[(1, 5), (2, 6)]);
        let leaf = Leaf::calls(window(8, 9));
        let changes = [
            progress::put_watermark(time(8)),
            progress::put_leaves(&[Leaf::control(window(6, 7)), leaf.clone()]),
            progress::put_again(&[Leaf::recount(window(2, 3))]),
        ];
        let batch = |progress: &QueryProgress| begun_anew(progress, "new", "store").progress;
        for change in &changes {
            progress.apply(change).unwrap();
        }
        for change in batch(&progress) {
            progress.apply(&change).unwrap();
        }
        assert_eq!(progress.identity.as_deref(), Some("new"));
        assert_eq!((progress.leaves, progress.again), (vec![leaf], vec![]));
        assert_eq!(progress.recounted, Some(time(8)));
        assert_eq!(progress.records, BTreeMap::new());
    }

    #[test]
    fn what_is_counted_again_bucket_by_bucket_does_not_move_back() {
        let mut progress = QueryProgress::default();
        progress.apply(&progress::put_recounted(time(8))).unwrap();
        let mut batch = Batch::default();
        advance(&mut batch, &Leaf::recount(window(2, 3)), &[], &progress);
        assert_eq!(batch, Batch::default());
    }
}
