//! The exporter: one configuration, one sampler, and the three things HTTP may ask of them.

use crate::counts::Tier;

/// What runs behind the web front.
#[derive(Debug)]
pub struct Exporter {}

impl Exporter {
    /// Samples once and encodes the answer to a scrape in Prometheus' text format 0.0.4. Blocks: call it off the async
    /// threads.
    #[must_use]
    pub fn scrape(&self) -> String {
        String::new()
    }

    /// Whether a first sample was taken.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        false
    }

    /// The tier in use.
    #[must_use]
    pub fn tier(&self) -> Tier {
        Tier::Polled
    }
}
