//! The batches by which a query source moves on, beside their counts.

use tracing::warn;

use super::leaf::Leaf;
use super::progress::{self, InFlight, QueryProgress};
use crate::batch::{Batch, Rejected};
use crate::source::Reason;
use crate::time::Timestamp;
use crate::window::Window;

/// The leaves behind the one that is being asked.
pub(super) fn rest(leaves: &[Leaf]) -> &[Leaf] {
    leaves.split_last().map_or(&[], |(_, rest)| rest)
}

/// A batch after which these leaves are left.
pub(super) fn replaced(leaves: &[Leaf]) -> Batch {
    Batch {
        progress: vec![progress::put_leaves(leaves)],
        ..Batch::default()
    }
}

/// A batch that stores a query that was started for the last of `leaves`.
pub(super) fn asked(
    progress: &QueryProgress,
    leaves: &[Leaf],
    id: String,
    started: Timestamp,
) -> Batch {
    let mut batch = Batch::default();
    if leaves != progress.leaves {
        batch.progress.push(progress::put_leaves(leaves));
    }
    batch.progress.extend(leaves.last().map(|leaf| {
        progress::put_query(&InFlight {
            id,
            leaf: leaf.clone(),
            started,
        })
    }));
    batch
}

/// A batch after which the query is asked anew.
pub(super) fn without_query() -> Batch {
    Batch {
        progress: vec![progress::remove_query()],
        ..Batch::default()
    }
}

/// A batch that gives up the time from `watermark` to `to`: history begins behind it.
pub(super) fn given_up(watermark: Timestamp, to: Timestamp) -> Batch {
    warn!(from = %watermark, %to, "given up: older than `catch_up_limit`");
    Batch {
        progress: vec![
            progress::put_watermark(to),
            progress::put_recounted(to),
            progress::put_leaves(&[]),
        ],
        covered: Some(Window { from: to, to }),
        skipped_seconds: to.since(watermark).as_secs(),
        ..Batch::default()
    }
}

/// A batch that leaves a bucket as it was counted: it has more rows than an answer holds.
pub(super) fn not_recounted(leaf: &Leaf, rest: &[Leaf]) -> Batch {
    let mut batch = replaced(rest);
    advance(&mut batch, leaf, rest, None);
    batch.rejected.push(Rejected {
        name: format!("the bucket {}", leaf.window.from),
        reason: Reason::Truncated,
        error: "counted again it has more rows than an answer holds; it stays as it is".to_owned(),
    });
    batch
}

/// A batch that passes over a leaf of which AWS holds nothing: history begins behind it.
pub(super) fn passed(leaf: &Leaf, rest: &[Leaf], before: Option<Timestamp>) -> Batch {
    let mut batch = replaced(rest);
    advance(&mut batch, leaf, rest, before);
    if let Some(covered) = &mut batch.covered {
        warn!(from = %covered.from, to = %covered.to, "given up: AWS holds nothing of that time");
        batch.skipped_seconds = covered.length().as_secs();
        covered.from = covered.to;
    }
    batch
}

/// Moves the progress behind `leaf`: the watermark as far as no leaf that is left holds it.
pub(super) fn advance(batch: &mut Batch, leaf: &Leaf, rest: &[Leaf], before: Option<Timestamp>) {
    if leaf.recount {
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
