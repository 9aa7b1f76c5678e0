//! Takes the series of a source or worker that is gone out of the exporter's own metrics.

use std::collections::HashMap;
use std::fmt::Debug;

use prometheus::core::{Collector, MetricVec, MetricVecBuilder};
use prometheus::proto::Metric;

use super::{Metrics, labels};
use crate::store::WorkerName;

/// A metric with labels, whatever its type.
pub(super) trait Labelled: Debug + Send + Sync {
    /// Removes every series that has all of these labels.
    fn remove_all(&self, labels: &[(&str, &str)]);
}

impl<T: MetricVecBuilder> Labelled for MetricVec<T> {
    fn remove_all(&self, labels: &[(&str, &str)]) {
        for family in self.collect() {
            for metric in family.get_metric() {
                let of_metric = labels_of(metric);
                if labels.iter().all(|(k, v)| of_metric.get(k) == Some(v)) {
                    // Only another thread could have removed it, and that is just as well.
                    self.remove(&of_metric).ok();
                }
            }
        }
    }
}

impl Metrics {
    /// A source is configured no more: its series go.
    pub fn source_removed(&self, source: &str) {
        self.remove(&[("source", source)]);
    }

    /// A source has no budget any more.
    pub fn budget_removed(&self, source: &str) {
        for gauge in [&self.budget, &self.budget_used, &self.budget_exhausted] {
            gauge.remove_all(&[("source", source)]);
        }
    }

    /// A worker is gone, and its series with it.
    pub fn worker_removed(&self, worker: &WorkerName) {
        let [source, account, region] = labels(worker);
        self.remove(&[
            ("source", source),
            ("worker_account", account),
            ("worker_region", region),
        ]);
    }

    fn remove(&self, labels: &[(&str, &str)]) {
        for metric in self.labelled.iter() {
            metric.remove_all(labels);
        }
    }
}

fn labels_of(metric: &Metric) -> HashMap<&str, &str> {
    let labels = metric.get_label().iter();
    labels.map(|label| (label.name(), label.value())).collect()
}
