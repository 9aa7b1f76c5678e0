//! A source without a worker and a store: what it hands out is kept here, each batch whole or not at all.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test file uses its own part"
)]

use std::collections::BTreeMap;

use cloudtrail_tls_exporter::batch::{Batch, Counts, ProgressChange, Scanned};
use cloudtrail_tls_exporter::call::Caller;
use cloudtrail_tls_exporter::source::{Progress, Source, SourceError};
use cloudtrail_tls_exporter::time::Timestamp;
use cloudtrail_tls_exporter::tls::TlsVersion;

/// What a store keeps of a source's batches, and what tests ask of them.
#[derive(Default)]
pub struct Kept {
    rows: BTreeMap<String, Vec<u8>>,
    pub counts: Counts,
    /// Calls by bucket and caller.
    pub callers: BTreeMap<(Timestamp, Caller), u64>,
    /// In how many batches a bucket's callers came.
    pub times: BTreeMap<Timestamp, u32>,
    /// The reasons of what was told and failed no attempt.
    pub rejected: Vec<&'static str>,
    pub watermark: Option<Timestamp>,
    pub scanned: Scanned,
}

impl Kept {
    fn commit(&mut self, batch: &Batch) {
        for change in &batch.progress {
            match &change.value {
                Some(value) => self.rows.insert(change.key.clone(), value.clone()),
                None => self.rows.remove(&change.key),
            };
        }
        if batch.recounted.is_none() {
            self.counts.merge(&batch.counts);
        }
        let mut buckets: Vec<Timestamp> = batch.callers.iter().map(|(at, ..)| at).collect();
        buckets.dedup();
        for bucket in buckets {
            *self.times.entry(bucket).or_default() += 1;
        }
        for (bucket, caller, calls) in batch.callers.iter() {
            let key = (bucket, (**caller).clone());
            *self.callers.entry(key).or_default() += calls;
        }
        let reasons = batch
            .rejected
            .iter()
            .map(|rejected| rejected.reason.label());
        self.rejected.extend(reasons);
        self.watermark = batch.covered.map_or(self.watermark, |it| Some(it.to));
        self.scanned.add(batch.scanned);
    }

    /// Outdated calls by bucket.
    pub fn outdated(&self) -> BTreeMap<Timestamp, u64> {
        let mut outdated = BTreeMap::new();
        for (bucket, key, tally) in self.counts.iter() {
            if key.tls_version.outdated(TlsVersion::Tls12) {
                *outdated.entry(bucket).or_default() += tally.calls;
            }
        }
        outdated
    }

    /// Calls of known callers by bucket.
    pub fn named(&self) -> BTreeMap<Timestamp, u64> {
        let mut named = BTreeMap::new();
        for ((bucket, _), calls) in &self.callers {
            *named.entry(*bucket).or_default() += calls;
        }
        named
    }
}

/// One life of a source over what was kept.
pub struct Hand<S: Source> {
    pub source: S,
    progress: S::Progress,
}

impl<S: Source> Hand<S> {
    /// A new process that goes on where `kept` ends.
    pub fn new(source: S, kept: &Kept) -> Self {
        let mut progress = S::Progress::default();
        for (key, value) in &kept.rows {
            let change = ProgressChange::put(key.clone(), value.clone());
            progress.apply(&change).unwrap();
        }
        Self { source, progress }
    }

    /// Commits every batch that is due at `now`, and stops at the first failure.
    pub async fn tick(&mut self, kept: &mut Kept, now: Timestamp) -> Result<(), SourceError> {
        while let Some(batch) = self.source.next_batch(&self.progress, now).await? {
            // Here a kill loses a batch that was handed out.
            tokio::task::yield_now().await;
            kept.commit(&batch);
            for change in &batch.progress {
                self.progress.apply(change).unwrap();
            }
        }
        Ok(())
    }

    /// As at a shutdown.
    pub async fn stop(&mut self) {
        self.source.stop(&self.progress).await;
    }
}
