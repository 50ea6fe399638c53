//! The metrics: the one table in which every family is declared, and the encoding of a snapshot by that table; likewise for
//! what a probe found.
//!
//! The only room that names the prometheus crate. It knows what a number means, not how it was read. Series are built
//! anew from one [`Snapshot`] at each scrape. Those of watched ports, of which there may be a million, are written
//! as text straight away, in the crate's own form; all others are the crate's to encode, some at a time and in the same
//! memory, since what they would cost is their allocation.

use prometheus::TextEncoder;
use prometheus::proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};

use crate::counts::Tier;
use crate::port::Protocol;
use crate::snapshot::{Snapshot, Watched};

mod families;
mod lines;
mod probe;

pub use families::FAMILIES;
use lines::Lines;
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

    fn head(&self) -> Head {
        Head {
            name: self.name,
            kind: self.kind,
            help: self.help,
            labels: self.labels,
        }
    }

    /// Writes its series behind the text.
    fn write(&self, snapshot: &Snapshot<'_>, mut text: String) -> Result<String, Error> {
        match self.values {
            Values::PortFacts => {
                let mut lines = Lines::new(self.head(), &mut text);
                for watched in &snapshot.watched {
                    lines.push_facts(watched);
                }
            }
            Values::Port { protocols, value } => {
                let mut lines = Lines::new(self.head(), &mut text);
                for watched in &snapshot.watched {
                    if protocols.contains(&watched.port.protocol)
                        && let Some(value) = value(watched)
                    {
                        lines.push(watched, value);
                    }
                }
            }
            Values::Snapshot(collect) => {
                let mut samples = Samples::new(self.head(), text);
                collect(snapshot, &mut samples);
                text = samples.finish()?;
            }
        }
        Ok(text)
    }
}

/// What all series of a family have in common.
#[derive(Clone, Copy, Debug)]
struct Head {
    name: &'static str,
    kind: Kind,
    help: &'static str,
    labels: &'static [&'static str],
}

/// How many series are built before they are encoded.
const BATCH: usize = 256;

/// The series of one family, encoded as they are collected.
#[derive(Debug)]
pub struct Samples {
    head: Head,
    /// The family with one batch; the metrics behind [`Self::used`] are there to be used again.
    batch: MetricFamily,
    used: usize,
    /// The text of all families so far.
    text: String,
    /// The text of one batch.
    scratch: String,
    /// Whether the text has the family's head.
    headed: bool,
    failure: Option<prometheus::Error>,
}

impl Samples {
    /// Series of this family, to be encoded behind this text.
    fn new(head: Head, text: String) -> Self {
        let mut batch = MetricFamily::default();
        batch.set_name(head.name.to_owned());
        batch.set_help(head.help.to_owned());
        batch.set_field_type(match head.kind {
            Kind::Counter => MetricType::COUNTER,
            Kind::Gauge => MetricType::GAUGE,
        });
        Self {
            head,
            batch,
            used: 0,
            text,
            scratch: String::new(),
            headed: false,
            failure: None,
        }
    }

    /// Adds a series: one value for each label of the family, in their order, and the number.
    pub fn push<const N: usize>(&mut self, labels: [&str; N], value: f64) {
        debug_assert_eq!(N, self.head.labels.len(), "{}", self.head.name);
        if self.used == BATCH {
            self.encode_batch();
        }
        let metrics = self.batch.mut_metric();
        if self.used == metrics.len() {
            metrics.push(unlabelled(self.head));
        }
        let metric = &mut metrics[self.used];
        self.used += 1;
        for (pair, value) in metric.mut_label().iter_mut().zip(labels) {
            pair.set_value(value.to_owned());
        }
        match self.head.kind {
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
    }

    fn encode_batch(&mut self) {
        self.batch.mut_metric().truncate(self.used);
        self.used = 0;
        self.scratch.clear();
        let batch = std::slice::from_ref(&self.batch);
        if let Err(error) = TextEncoder::new().encode_utf8(batch, &mut self.scratch) {
            self.failure.get_or_insert(error);
        }
        // The encoder writes the head of a family each time it is given one.
        let mut lines = self.scratch.as_str();
        while self.headed && lines.starts_with('#') {
            lines = lines.split_once('\n').map_or("", |(_, rest)| rest);
        }
        self.text.push_str(lines);
        self.headed = true;
    }

    /// The text with all series in it; as it was if there were none.
    fn finish(mut self) -> Result<String, Error> {
        if self.used > 0 {
            self.encode_batch();
        }
        match self.failure {
            None => Ok(self.text),
            Some(source) => Err(Error {
                family: self.head.name,
                source,
            }),
        }
    }
}

/// A metric with the names of the family's labels, and no values.
fn unlabelled(head: Head) -> Metric {
    let named = |name: &&str| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair
    };
    Metric::from_label(head.labels.iter().map(named).collect())
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
    let mut text = String::with_capacity(16 * 1024);
    for family in &FAMILIES {
        if family.tiers.contains(&snapshot.tier) {
            text = family.write(snapshot, text)?;
        }
    }
    Ok(text)
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
