//! The metrics: the one table in which every family is declared, and the encoding of a snapshot by that table.
//!
//! The only room that names the prometheus crate. It knows what a number means, not how it was read. Families are built
//! anew from one [`Snapshot`] at each scrape, one after the other, so that only one is in memory at a time. A probe has a table
//! of its own, and its [`Report`](crate::probe::Report) in place of the snapshot.

use prometheus::TextEncoder;
use prometheus::proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};

use crate::counts::Tier;
use crate::port::Protocol;
use crate::snapshot::{Snapshot, Watched};

mod families;
mod probe;

pub use families::FAMILIES;
pub use probe::{PROBE_FAMILIES, ProbeFamily, encode_probe};

/// A metric family: its place in the contract and where its values come from.
#[derive(Debug)]
pub struct Family {
    /// The metric's name.
    pub name: &'static str,
    /// Counter or gauge.
    pub kind: Kind,
    /// What it means; for a per-port family also which tiers feed it.
    pub help: &'static str,
    /// Its labels, in the order in which they are written.
    pub labels: &'static [&'static str],
    /// The tiers in which it exists.
    pub tiers: &'static [Tier],
    /// Where its values come from.
    pub values: Values,
}

/// The type of a family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only ever rises while the process lives.
    Counter,
    /// A state.
    Gauge,
}

impl Kind {
    /// The name as the exposition format writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
        }
    }
}

/// Where the values of a family come from.
#[derive(Clone, Copy, Debug)]
pub enum Values {
    /// One value a watched port, labelled `port` and `protocol`; absent where there is none.
    Port {
        /// The protocols for which it exists.
        protocols: &'static [Protocol],
        /// The value.
        value: fn(&Watched<'_>) -> Option<f64>,
    },
    /// The facts about every watched port as labels, with the value 1.
    PortFacts,
    /// Any number of values out of the snapshot.
    Snapshot(fn(&Snapshot<'_>, &mut Samples)),
}

impl Family {
    /// Whether every watched port of this protocol may have a series of this family.
    #[must_use]
    pub fn is_per_port(&self, protocol: Protocol) -> bool {
        match self.values {
            Values::Port { protocols, .. } => protocols.contains(&protocol),
            Values::PortFacts => true,
            Values::Snapshot(_) => false,
        }
    }

    fn collect(&'static self, snapshot: &Snapshot<'_>) -> Vec<Metric> {
        let mut samples = Samples {
            family: self,
            metrics: Vec::new(),
        };
        match self.values {
            Values::PortFacts => {
                samples.metrics.reserve_exact(snapshot.watched.len());
                for watched in &snapshot.watched {
                    samples.push_facts(watched);
                }
            }
            Values::Port { protocols, value } => {
                for watched in &snapshot.watched {
                    if protocols.contains(&watched.port.protocol)
                        && let Some(value) = value(watched)
                    {
                        samples.push_port(watched, value);
                    }
                }
            }
            Values::Snapshot(collect) => collect(snapshot, &mut samples),
        }
        samples.metrics
    }
}

/// The series of one family, as they are collected.
#[derive(Debug)]
pub struct Samples {
    family: &'static Family,
    metrics: Vec<Metric>,
}

impl Samples {
    /// Adds a series: one value for each label of the family, in their order, and the number.
    pub fn push<const N: usize>(&mut self, labels: [&str; N], value: f64) {
        debug_assert_eq!(N, self.family.labels.len(), "{}", self.family.name);
        let pairs = self
            .family
            .labels
            .iter()
            .zip(labels)
            .map(|(name, value)| pair(name, value.to_owned()))
            .collect();
        self.add(pairs, value);
    }

    fn push_port(&mut self, watched: &Watched<'_>, value: f64) {
        self.add(port_pairs(watched, 2), value);
    }

    fn push_facts(&mut self, watched: &Watched<'_>) {
        let mut pairs = port_pairs(watched, 6);
        pairs.push(pair("watch", watched.watch.to_owned()));
        pairs.push(pair("service_name", watched.service_name.to_owned()));
        pairs.push(pair("range", watched.port.range().to_string()));
        pairs.push(pair("assignment", watched.assignment.to_string()));
        self.add(pairs, 1.0);
    }

    fn add(&mut self, labels: Vec<LabelPair>, value: f64) {
        let mut metric = Metric::default();
        metric.set_label(labels);
        match self.family.kind {
            Kind::Counter => {
                let mut counter = Counter::default();
                counter.set_value(value);
                metric.set_counter(counter);
            }
            Kind::Gauge => {
                let mut gauge = Gauge::default();
                gauge.set_value(value);
                metric.set_gauge(gauge);
            }
        }
        self.metrics.push(metric);
    }
}

fn pair(name: &str, value: String) -> LabelPair {
    let mut pair = LabelPair::default();
    pair.set_name(name.to_owned());
    pair.set_value(value);
    pair
}

fn port_pairs(watched: &Watched<'_>, capacity: usize) -> Vec<LabelPair> {
    let mut pairs = Vec::with_capacity(capacity);
    pairs.push(pair("port", watched.port.number.to_string()));
    pairs.push(pair("protocol", watched.port.protocol.as_str().to_owned()));
    pairs
}

/// Why a snapshot could not be encoded: a defect of this program, never of its input.
#[derive(Debug, thiserror::Error)]
#[error("family {family} cannot be encoded: {source}")]
pub struct Error {
    family: &'static str,
    source: prometheus::Error,
}

/// Encodes a snapshot in the text exposition format 0.0.4, families of the process included.
///
/// # Errors
/// When the prometheus crate refuses a family.
pub fn encode(snapshot: &Snapshot<'_>) -> Result<String, Error> {
    let mut text = encode_families(snapshot)?;
    append_process(&mut text)?;
    Ok(text)
}

/// Encodes what the table declares: the same text for the same snapshot.
///
/// # Errors
/// As [`encode`].
pub fn encode_families(snapshot: &Snapshot<'_>) -> Result<String, Error> {
    let encoder = TextEncoder::new();
    let mut text = String::with_capacity(16 * 1024);
    for family in &FAMILIES {
        if !family.tiers.contains(&snapshot.tier) {
            continue;
        }
        let metrics = family.collect(snapshot);
        if metrics.is_empty() {
            continue;
        }
        encoder
            .encode_utf8(
                &[proto(family.name, family.help, family.kind, metrics)],
                &mut text,
            )
            .map_err(|source| Error {
                family: family.name,
                source,
            })?;
    }
    Ok(text)
}

fn proto(name: &str, help: &str, kind: Kind, metrics: Vec<Metric>) -> MetricFamily {
    let mut proto = MetricFamily::default();
    proto.set_name(name.to_owned());
    proto.set_help(help.to_owned());
    proto.set_field_type(match kind {
        Kind::Counter => MetricType::COUNTER,
        Kind::Gauge => MetricType::GAUGE,
    });
    proto.set_metric(metrics);
    proto
}

/// One series of a gauge: one value for each label, in their order, and the number.
fn gauge<const N: usize>(labels: &[&str], values: [String; N], value: f64) -> Metric {
    debug_assert_eq!(N, labels.len());
    let mut gauge = Gauge::default();
    gauge.set_value(value);
    let mut metric = Metric::default();
    let pairs = labels.iter().zip(values);
    metric.set_label(pairs.map(|(name, value)| pair(name, value)).collect());
    metric.set_gauge(gauge);
    metric
}

/// `process_*`: processor time, memory, file descriptors, start time; on Linux, where the prometheus crate has them.
#[cfg(target_os = "linux")]
fn append_process(text: &mut String) -> Result<(), Error> {
    use prometheus::core::Collector as _;
    let families = prometheus::process_collector::ProcessCollector::for_self().collect();
    TextEncoder::new()
        .encode_utf8(&families, text)
        .map_err(|source| Error {
            family: "process",
            source,
        })
}

#[cfg(not(target_os = "linux"))]
fn append_process(_text: &mut String) -> Result<(), Error> {
    Ok(())
}
