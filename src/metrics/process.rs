//! The standard `process_*` metrics: the `prometheus` crate's, whose CPU time is whole seconds, with its fractions.

use std::time::Duration;

use prometheus::core::{Collector, Desc};
use prometheus::process_collector::ProcessCollector;
use prometheus::proto::{Counter, MetricFamily};
use rustix::time::{ClockId, clock_gettime};

/// Collects the metrics of this process.
pub(super) struct Process(ProcessCollector);

impl Process {
    pub(super) fn of_this() -> Self {
        Self(ProcessCollector::for_self())
    }
}

impl Collector for Process {
    fn desc(&self) -> Vec<&Desc> {
        self.0.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut families = self.0.collect();
        for family in &mut families {
            if family.name() == "process_cpu_seconds_total" {
                for metric in family.mut_metric() {
                    let mut seconds = Counter::default();
                    seconds.set_value(cpu_time().as_secs_f64());
                    metric.set_counter(seconds);
                }
            }
        }
        families
    }
}

/// The CPU time of all threads, in user and system.
fn cpu_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown() -> f64 {
        let families = Process::of_this().collect();
        let mut of_cpu = families
            .iter()
            .filter(|family| family.name() == "process_cpu_seconds_total");
        of_cpu.next().unwrap().get_metric()[0]
            .get_counter()
            .get_value()
    }

    #[test]
    fn cpu_time_has_fractions_of_a_second() {
        let before = shown();
        while cpu_time().as_secs_f64() < before + 0.02 {}
        let after = shown();
        assert!(after >= before + 0.02, "{before} {after}");
    }
}
