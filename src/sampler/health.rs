//! How the collectors fare: timed and judged in one place, and told in the log when it changes.

use std::collections::HashSet;
use std::time::Instant;

use crate::log::Chain;
use crate::snapshot::{Collector, Run};

/// The runs of one sample after another.
#[derive(Debug, Default)]
pub(super) struct Health {
    runs: Vec<Run>,
    failing: HashSet<Collector>,
}

impl Health {
    /// Notes how a collector fared that began at `start`; gives what it read.
    pub(super) fn judge<T, E: std::error::Error>(
        &mut self,
        collector: Collector,
        start: Instant,
        result: Result<T, E>,
    ) -> Option<T> {
        self.note(collector, start, result.is_ok());
        result
            .inspect_err(|error| {
                if self.begins_to_fail(collector) {
                    tracing::error!(
                        collector = collector.as_str(),
                        error = %Chain(error),
                        "collector failed; what it tells is absent until it succeeds"
                    );
                }
            })
            .ok()
    }

    /// Notes how a collector fared that began at `start`.
    pub(super) fn note(&mut self, collector: Collector, start: Instant, success: bool) {
        self.runs.push(Run {
            collector,
            success,
            duration: start.elapsed(),
        });
    }

    /// Whether a collector that fails now did not fail in the last sample: then is the time to say why.
    pub(super) fn begins_to_fail(&self, collector: Collector) -> bool {
        !self.failing.contains(&collector)
    }

    /// Ends a sample: its runs. Says which collectors succeed again.
    pub(super) fn take(&mut self) -> Vec<Run> {
        let runs = std::mem::take(&mut self.runs);
        for run in &runs {
            if !run.success {
                self.failing.insert(run.collector);
            } else if self.failing.remove(&run.collector) {
                tracing::info!(
                    collector = run.collector.as_str(),
                    "collector succeeds again"
                );
            }
        }
        runs
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    #[test]
    fn a_failure_begins_once_and_ends_with_a_success() {
        let mut health = Health::default();
        let mut sample = |result: io::Result<()>| {
            let begins = health.begins_to_fail(Collector::Audit);
            let read = health.judge(Collector::Audit, Instant::now(), result);
            let runs = health.take();
            assert_eq!(runs.len(), 1);
            assert_eq!(runs[0].success, read.is_some());
            begins
        };
        assert!(sample(Err(io::ErrorKind::NotFound.into())));
        assert!(!sample(Err(io::ErrorKind::NotFound.into())));
        assert!(!sample(Ok(())));
        assert!(sample(Err(io::ErrorKind::NotFound.into())));
    }
}
