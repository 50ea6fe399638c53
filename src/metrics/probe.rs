//! The families of `/probe`: a registry of their own for each request.

use prometheus::TextEncoder;
use prometheus::proto::Metric;

use super::{Error, Kind, gauge, proto};
use crate::port::{Port, Protocol};
use crate::probe::{Report, State};

/// A family of a probe. All are gauges.
#[derive(Debug)]
pub struct ProbeFamily {
    /// The metric's name.
    pub name: &'static str,
    /// What it means.
    pub help: &'static str,
    /// Its labels, in the order in which they are written.
    pub labels: &'static [&'static str],
    collect: fn(&Report, &'static [&'static str]) -> Vec<Metric>,
}

/// Every family of a probe, in the order of exposition.
pub static PROBE_FAMILIES: [ProbeFamily; 5] = [
    ProbeFamily {
        name: "probe_success",
        help: "Whether every port was probed in time and is as the module expects.",
        labels: &[],
        collect: |report, _| vec![gauge(&[], [], f64::from(u8::from(report.is_success())))],
    },
    ProbeFamily {
        name: "probe_duration_seconds",
        help: "How long the probe took, resolving the target's name included.",
        labels: &[],
        collect: |report, _| vec![gauge(&[], [], report.duration.as_secs_f64())],
    },
    ProbeFamily {
        name: "darkport_probe_open",
        help: "Whether the port is open (1) or not (0), seen over the network, on any address of the target; absent where it \
               was not found out in time. Silence of a UDP port counts as not open.",
        labels: &["port", "protocol"],
        collect: |report, labels| {
            report
                .ports()
                .filter_map(|(port, finding)| {
                    let is_open = finding?.state == State::Open;
                    Some(gauge(labels, of(port), f64::from(u8::from(is_open))))
                })
                .collect()
        },
    },
    ProbeFamily {
        name: "darkport_probe_port_state",
        help: "The state of the port seen over the network, and by what it is known, as labels, with the value 1; of several \
               addresses that which answers most; absent where it was not found out in time.",
        labels: &["port", "protocol", "state", "reason"],
        collect: |report, labels| {
            report
                .ports()
                .filter_map(|(port, finding)| {
                    let finding = finding?;
                    let [number, protocol] = of(port);
                    let state = finding.state.as_str().to_owned();
                    let reason = finding.reason.as_str().to_owned();
                    Some(gauge(labels, [number, protocol, state, reason], 1.0))
                })
                .collect()
        },
    },
    ProbeFamily {
        name: "darkport_probe_ports",
        help: "Ports of the module found in each state; what was not found out in time is in none.",
        labels: &["protocol", "state"],
        collect: counts,
    },
];

fn of(port: Port) -> [String; 2] {
    [port.number.to_string(), port.protocol.to_string()]
}

/// Every state that ports of a protocol can have, 0 included, for the protocols the module asks.
fn counts(report: &Report, labels: &'static [&'static str]) -> Vec<Metric> {
    let mut metrics = Vec::new();
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
            let values = [protocol.to_string(), state.to_string()];
            metrics.push(gauge(labels, values, count as f64));
        }
    }
    metrics
}

/// Encodes what a probe has found in the text exposition format 0.0.4.
///
/// # Errors
/// When the prometheus crate refuses a family: a defect of this program.
pub fn encode_probe(report: &Report) -> Result<String, Error> {
    let encoder = TextEncoder::new();
    let mut text = String::with_capacity(4 * 1024);
    for family in &PROBE_FAMILIES {
        let metrics = (family.collect)(report, family.labels);
        if metrics.is_empty() {
            continue;
        }
        let family_proto = proto(family.name, family.help, Kind::Gauge, metrics);
        encoder
            .encode_utf8(&[family_proto], &mut text)
            .map_err(|source| Error {
                family: family.name,
                source,
            })?;
    }
    Ok(text)
}
