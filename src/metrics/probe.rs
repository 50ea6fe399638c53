//! The families of `/probe`: a registry of their own for each request.

use super::{Error, Head, Kind, Samples};
use crate::port::{Port, Protocol};
use crate::probe::{Finding, Report, State};

/// A family of a probe. All are gauges.
#[derive(Debug)]
pub struct ProbeFamily {
    /// The metric's name.
    pub name: &'static str,
    /// What it means.
    pub help: &'static str,
    /// Its labels, in the order in which they are written.
    pub labels: &'static [&'static str],
    /// Where its values come from.
    collect: fn(&Report, &mut Samples),
}

impl ProbeFamily {
    fn head(&self) -> Head {
        Head {
            name: self.name,
            kind: Kind::Gauge,
            help: self.help,
            labels: self.labels,
        }
    }
}

/// Every family of a probe, in the order of exposition.
pub static PROBE_FAMILIES: [ProbeFamily; 5] = [
    ProbeFamily {
        name: "probe_success",
        help: "Whether every port was probed in time and is as the module expects.",
        labels: &[],
        collect: |report, samples| samples.push([], f64::from(u8::from(report.is_success()))),
    },
    ProbeFamily {
        name: "probe_duration_seconds",
        help: "How long the probe took, resolving the target's name included.",
        labels: &[],
        collect: |report, samples| samples.push([], report.duration.as_secs_f64()),
    },
    ProbeFamily {
        name: "darkport_probe_open",
        help: "Whether the port is open (1) or not (0), seen over the network, on any address of the target; absent where it \
               was not found out in time. Silence of a UDP port counts as not open.",
        labels: &["port", "protocol"],
        collect: |report, samples| {
            for (port, finding) in found(report) {
                let is_open = finding.state == State::Open;
                let number = port.number.to_string();
                let labels = [number.as_str(), port.protocol.as_str()];
                samples.push(labels, f64::from(u8::from(is_open)));
            }
        },
    },
    ProbeFamily {
        name: "darkport_probe_port_state",
        help: "The state of the port seen over the network, and by what it is known, as labels, with the value 1; of several \
               addresses that which answers most; absent where it was not found out in time.",
        labels: &["port", "protocol", "state", "reason"],
        collect: |report, samples| {
            for (port, finding) in found(report) {
                let number = port.number.to_string();
                let (state, reason) = (finding.state.as_str(), finding.reason.as_str());
                samples.push([&number, port.protocol.as_str(), state, reason], 1.0);
            }
        },
    },
    ProbeFamily {
        name: "darkport_probe_ports",
        help: "Ports of the module found in each state; what was not found out in time is in none.",
        labels: &["protocol", "state"],
        collect: counts,
    },
];

/// The ports of which something was found out in time.
fn found(report: &Report) -> impl Iterator<Item = (Port, Finding)> {
    report
        .ports()
        .filter_map(|(port, finding)| Some((port, finding?)))
}

/// Every state that ports of a protocol can have, 0 included, for the protocols the module asks.
fn counts(report: &Report, samples: &mut Samples) {
    for protocol in Protocol::ALL {
        let of_protocol = || report.ports().filter(|(port, _)| port.protocol == protocol);
        if of_protocol().next().is_none() {
            continue;
        }
        for state in State::ALL {
            if protocol == Protocol::Tcp && state == State::OpenOrFiltered {
                continue;
            }
            let count = of_protocol()
                .filter(|(_, finding)| finding.is_some_and(|finding| finding.state == state))
                .count();
            samples.push([protocol.as_str(), state.as_str()], count as f64);
        }
    }
}

/// Encodes what a probe has found in the text exposition format 0.0.4.
///
/// # Errors
/// When the prometheus crate refuses a family: a defect of this program.
pub fn encode_probe(report: &Report) -> Result<String, Error> {
    let mut text = String::with_capacity(4 * 1024);
    for family in &PROBE_FAMILIES {
        let mut samples = Samples::new(family.head(), text);
        (family.collect)(report, &mut samples);
        text = samples.finish()?;
    }
    Ok(text)
}
