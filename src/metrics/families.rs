//! The table of families. README, dashboards and rules are held against it by tests.

use std::time::{SystemTime, UNIX_EPOCH};

use super::{Family, Kind, Samples, Values};
use crate::build_info as build;
use crate::counts::{ByBlock, ByClass, Tier};
use crate::port::{Block, Protocol};
use crate::refusals::Reason;
use crate::registry::Class;
use crate::snapshot::Snapshot;

const ALL_TIERS: &[Tier] = &Tier::ALL;
const KERNEL: &[Tier] = &[Tier::Kernel];
const BOTH: &[Protocol] = &Protocol::ALL;
const TCP: &[Protocol] = &[Protocol::Tcp];
const PORT: &[&str] = &["port", "protocol"];
const CLASS: &[&str] = &["protocol", "range", "assignment"];
const BLOCK: &[&str] = &["protocol", "block"];

/// Every family there is, but for `process_*`, in the order of exposition.
pub static FAMILIES: [Family; 34] = [
    // Per watched port.
    Family {
        name: "darkport_watched_port_info",
        kind: Kind::Gauge,
        help: "Facts about a watched port as labels; join with * on (instance, port, protocol) group_left.",
        labels: &[
            "port",
            "protocol",
            "watch",
            "service_name",
            "range",
            "assignment",
        ],
        tiers: ALL_TIERS,
        values: Values::PortFacts,
    },
    Family {
        name: "darkport_listening",
        kind: Kind::Gauge,
        help: "Whether something listens on the port now (1) or it is dark (0), in the exporter's network namespace. All tiers.",
        labels: PORT,
        tiers: ALL_TIERS,
        values: Values::Port {
            protocols: BOTH,
            value: |watched| watched.listening.map(claim),
        },
    },
    Family {
        name: "darkport_unexpected_listening",
        kind: Kind::Gauge,
        help: "Whether something listens on the port, in the exporter's network namespace, that no expect rule of its watch \
               entry allows. All tiers.",
        labels: PORT,
        tiers: ALL_TIERS,
        values: Values::Port {
            protocols: BOTH,
            value: |watched| watched.unexpected.map(claim),
        },
    },
    Family {
        name: "darkport_connections",
        kind: Kind::Gauge,
        help: "Inbound TCP connections established on the port now. All tiers.",
        labels: PORT,
        tiers: ALL_TIERS,
        values: Values::Port {
            protocols: TCP,
            value: |watched| watched.counts.connections.map(number),
        },
    },
    Family {
        name: "darkport_inbound_attempts_total",
        kind: Kind::Counter,
        help: "TCP SYNs or UDP datagrams to the port that reached an interface, seen before any firewall. \
               Tier kernel only.",
        labels: PORT,
        tiers: KERNEL,
        values: Values::Port {
            protocols: BOTH,
            value: |watched| watched.counts.attempts.map(number),
        },
    },
    Family {
        name: "darkport_inbound_accepted_total",
        kind: Kind::Counter,
        help: "Inbound TCP handshakes completed on the port. Exact in tiers kernel and netlink; a lower bound in tier \
               polled.",
        labels: PORT,
        tiers: ALL_TIERS,
        values: Values::Port {
            protocols: TCP,
            value: |watched| watched.counts.accepted.map(number),
        },
    },
    Family {
        name: "darkport_inbound_refused_total",
        kind: Kind::Counter,
        help: "Attempts the stack turned away because nothing listens (RST, ICMP unreachable). Tier kernel only.",
        labels: PORT,
        tiers: KERNEL,
        values: Values::Port {
            protocols: BOTH,
            value: |watched| watched.counts.refused.map(number),
        },
    },
    Family {
        name: "darkport_inbound_filtered_total",
        kind: Kind::Counter,
        help: "Attempts a firewall of this host dropped. Tier kernel only.",
        labels: PORT,
        tiers: KERNEL,
        values: Values::Port {
            protocols: BOTH,
            value: |watched| watched.counts.filtered.map(number),
        },
    },
    Family {
        name: "darkport_outbound_connections_total",
        kind: Kind::Counter,
        help: "TCP connections this host opened to the port on another host or on itself. Exact in tier kernel; in tier \
               netlink all but those that this host itself aborted (RST) before a scrape saw them; a lower bound in tier \
               polled, where one that came in by a listener that no scrape saw counts as well.",
        labels: PORT,
        tiers: ALL_TIERS,
        values: Values::Port {
            protocols: TCP,
            value: |watched| watched.counts.outbound.map(number),
        },
    },
    Family {
        name: "darkport_outbound_failures_total",
        kind: Kind::Counter,
        help: "TCP connections this host tried to open to the port that did not come about. Tier kernel only.",
        labels: PORT,
        tiers: KERNEL,
        values: Values::Port {
            protocols: TCP,
            value: |watched| watched.counts.outbound_failures.map(number),
        },
    },
    Family {
        name: "darkport_listener_opened_total",
        kind: Kind::Counter,
        help: "Times something began to listen on the port since the exporter started, however brief. Exact in tier kernel; in \
               tier netlink never too few, but a socket that is bound and closed without listening counts, too; a lower bound \
               in tier polled.",
        labels: PORT,
        tiers: ALL_TIERS,
        values: Values::Port {
            protocols: BOTH,
            value: |watched| watched.counts.opened.map(number),
        },
    },
    Family {
        name: "darkport_listener_opened_timestamp_seconds",
        kind: Kind::Gauge,
        help: "When the newest listener on the port was seen to open, in seconds since 1970; absent until one was. All \
               tiers.",
        labels: PORT,
        tiers: ALL_TIERS,
        values: Values::Port {
            protocols: BOTH,
            value: |watched| watched.counts.opened_at.map(seconds),
        },
    },
    Family {
        name: "darkport_last_attempt_timestamp_seconds",
        kind: Kind::Gauge,
        help: "When the newest attempt on the port came, in seconds since 1970; 0 until one came, because nobody \
               outside may create a series. Tier kernel only.",
        labels: PORT,
        tiers: KERNEL,
        values: Values::Port {
            protocols: BOTH,
            value: |watched| {
                let none_yet = watched.counts.attempts.map(|_| 0.0);
                watched.counts.last_attempt.map(seconds).or(none_yet)
            },
        },
    },
    // Listeners of this host.
    Family {
        name: "darkport_listener_info",
        kind: Kind::Gauge,
        help: "A listening socket of this host, on any port, with its owner as labels; watch and expected are empty for \
               a port that is not watched, an owner part that is not known is empty, process=\"kernel\" is the kernel itself. A UDP \
               socket on an ephemeral port that no dense watch entry names may be a client's, and is listed once it has been \
               there for a minute.",
        labels: &[
            "port", "protocol", "address", "watch", "process", "user", "unit", "expected", "netns",
        ],
        tiers: ALL_TIERS,
        values: Values::Snapshot(listeners),
    },
    Family {
        name: "darkport_network_namespaces",
        kind: Kind::Gauge,
        help: "Network namespaces of this host: seen, and read for listeners. Absent unless the configuration has \
               namespaces: all.",
        labels: &["state"],
        tiers: ALL_TIERS,
        values: Values::Snapshot(|snapshot, samples| {
            if let Some(namespaces) = snapshot.namespaces {
                samples.push(["seen"], namespaces.seen as f64);
                samples.push(["read"], namespaces.read as f64);
            }
        }),
    },
    // The whole port space.
    Family {
        name: "darkport_space_ports",
        kind: Kind::Gauge,
        help: "Ports of each range and assignment, from IANA's registry.",
        labels: CLASS,
        tiers: ALL_TIERS,
        values: Values::Snapshot(|snapshot, samples| {
            classes(snapshot, samples, &snapshot.space.ports);
        }),
    },
    Family {
        name: "darkport_space_lit_ports",
        kind: Kind::Gauge,
        help: "Ports of the class with a listener now. Unwatched UDP ports in the host's ephemeral range count only where \
               an explicit bind was seen (tier kernel), because a client's socket looks the same.",
        labels: CLASS,
        tiers: ALL_TIERS,
        values: Values::Snapshot(|snapshot, samples| {
            if let Some(lit) = &snapshot.space.lit {
                classes(snapshot, samples, &lit.classes);
            }
        }),
    },
    Family {
        name: "darkport_space_knocked_ports",
        kind: Kind::Gauge,
        help: "Distinct ports of the class that have had a knock (an attempt refused or filtered) since the exporter \
               started. Tier kernel only.",
        labels: CLASS,
        tiers: KERNEL,
        values: Values::Snapshot(|snapshot, samples| {
            if let Some(knocks) = &snapshot.space.knocks {
                classes(snapshot, samples, &knocks.ports);
            }
        }),
    },
    Family {
        name: "darkport_space_knocks_total",
        kind: Kind::Counter,
        help: "Knocks (attempts refused or filtered) on ports of the class. Tier kernel only.",
        labels: CLASS,
        tiers: KERNEL,
        values: Values::Snapshot(|snapshot, samples| {
            if let Some(knocks) = &snapshot.space.knocks {
                classes(snapshot, samples, &knocks.knocks);
            }
        }),
    },
    Family {
        name: "darkport_space_accepted_total",
        kind: Kind::Counter,
        help: "Inbound TCP handshakes completed on ports of the class. Tier kernel only: the others follow watched ports.",
        labels: &["range", "assignment"],
        tiers: KERNEL,
        values: Values::Snapshot(space_accepted),
    },
    Family {
        name: "darkport_block_lit_ports",
        kind: Kind::Gauge,
        help: "Ports with a listener now in the block of 1,024 ports that begins with the port in the label; ephemeral UDP \
               ports as in darkport_space_lit_ports.",
        labels: BLOCK,
        tiers: ALL_TIERS,
        values: Values::Snapshot(|snapshot, samples| {
            if let Some(lit) = &snapshot.space.lit {
                blocks(samples, &lit.blocks);
            }
        }),
    },
    Family {
        name: "darkport_block_knocks_total",
        kind: Kind::Counter,
        help: "Knocks (attempts refused or filtered) in the block of 1,024 ports that begins with the port in the label. \
               Tier kernel only.",
        labels: BLOCK,
        tiers: KERNEL,
        values: Values::Snapshot(|snapshot, samples| {
            if let Some(knocks) = &snapshot.space.knocks {
                blocks(samples, &knocks.blocks);
            }
        }),
    },
    // The exporter itself.
    Family {
        name: "darkport_exporter_build_info",
        kind: Kind::Gauge,
        help: "The exporter's version and what it was built from, as labels.",
        labels: &[
            "version",
            "revision",
            "branch",
            "rustversion",
            "goos",
            "goarch",
        ],
        tiers: ALL_TIERS,
        values: Values::Snapshot(|_, samples| {
            samples.push(
                [
                    build::VERSION,
                    build::REVISION,
                    build::BRANCH,
                    build::RUST_VERSION,
                    build::goos(),
                    build::goarch(),
                ],
                1.0,
            );
        }),
    },
    Family {
        name: "darkport_counting_tier",
        kind: Kind::Gauge,
        help: "How counting is done: 1 for the tier in use.",
        labels: &["tier"],
        tiers: ALL_TIERS,
        values: Values::Snapshot(|snapshot, samples| {
            for tier in Tier::ALL {
                samples.push([tier.as_str()], claim(tier == snapshot.tier));
            }
        }),
    },
    Family {
        name: "darkport_collector_success",
        kind: Kind::Gauge,
        help: "Whether the collector gave everything it should in this scrape; what it could not give is absent.",
        labels: &["collector"],
        tiers: ALL_TIERS,
        values: Values::Snapshot(|snapshot, samples| {
            for run in &snapshot.collectors {
                samples.push([run.collector.as_str()], claim(run.success));
            }
        }),
    },
    Family {
        name: "darkport_collector_duration_seconds",
        kind: Kind::Gauge,
        help: "How long the collector took in this scrape.",
        labels: &["collector"],
        tiers: ALL_TIERS,
        values: Values::Snapshot(|snapshot, samples| {
            for run in &snapshot.collectors {
                samples.push([run.collector.as_str()], run.duration.as_secs_f64());
            }
        }),
    },
    Family {
        name: "darkport_events_lost_total",
        kind: Kind::Counter,
        help: "Events the exporter knows it missed, by source. Source netlink: counters may fall short by so many. Source kernel: \
               events left out of the log, sockets that could not be marked, packets that could not be read to the end, and \
               packets, drops and changes of state that came while another was being counted.",
        labels: &["source"],
        tiers: &[Tier::Kernel, Tier::Netlink],
        values: Values::Snapshot(|snapshot, samples| {
            for (source, lost) in &snapshot.lost {
                samples.push([source.as_str()], *lost as f64);
            }
        }),
    },
    Family {
        name: "darkport_series_suppressed",
        kind: Kind::Gauge,
        help: "Series left out of this family because of limits in the configuration.",
        labels: &["family"],
        tiers: ALL_TIERS,
        values: Values::Snapshot(suppressed),
    },
    Family {
        name: "darkport_config_last_reload_successful",
        kind: Kind::Gauge,
        help: "Whether the last attempt to load the configuration succeeded.",
        labels: &[],
        tiers: ALL_TIERS,
        values: Values::Snapshot(|snapshot, samples| {
            samples.push([], claim(snapshot.reload.successful));
        }),
    },
    Family {
        name: "darkport_config_last_reload_success_timestamp_seconds",
        kind: Kind::Gauge,
        help: "When the configuration was last loaded with success, in seconds since 1970.",
        labels: &[],
        tiers: ALL_TIERS,
        values: Values::Snapshot(|snapshot, samples| samples.push([], seconds(snapshot.reload.at))),
    },
    Family {
        name: "darkport_audit_host_total",
        kind: Kind::Counter,
        help: "The host's own counters since the exporter started: TCP PassiveOpens and UDP NoPorts, IPv4 and IPv6.",
        labels: &["what"],
        tiers: ALL_TIERS,
        values: Values::Snapshot(|snapshot, samples| {
            for audit in &snapshot.audit {
                samples.push([audit.what], audit.host as f64);
            }
        }),
    },
    Family {
        name: "darkport_audit_counted_total",
        kind: Kind::Counter,
        help: "What the exporter counted of the same. Equal to darkport_audit_host_total in tier kernel, which counts on \
               every port; never more than it in tier netlink, which counts on watched ports.",
        labels: &["what"],
        tiers: &[Tier::Kernel, Tier::Netlink],
        values: Values::Snapshot(|snapshot, samples| {
            for audit in &snapshot.audit {
                if let Some(counted) = audit.counted {
                    samples.push([audit.what], counted as f64);
                }
            }
        }),
    },
    // The web front.
    Family {
        name: "darkport_web_refused_total",
        kind: Kind::Counter,
        help: "Connections and requests the exporter's own web front turned away: tls (no handshake), client_certificate, \
               basic_auth, rate_limit, overload (more at a time than there is room for).",
        labels: &["reason"],
        tiers: ALL_TIERS,
        values: Values::Snapshot(|snapshot, samples| {
            for (reason, count) in Reason::ALL.into_iter().zip(snapshot.web.refused) {
                samples.push([reason.as_str()], number(count));
            }
        }),
    },
    Family {
        name: "darkport_web_config_last_reload_successful",
        kind: Kind::Gauge,
        help: "Whether the file of --web.config.file, with the certificates and keys it names, is in use as it was last seen; \
               absent without one.",
        labels: &[],
        tiers: ALL_TIERS,
        values: Values::Snapshot(|snapshot, samples| {
            if let Some(successful) = snapshot.web.config_successful {
                samples.push([], claim(successful));
            }
        }),
    },
];

fn claim(holds: bool) -> f64 {
    f64::from(u8::from(holds))
}

fn seconds(time: SystemTime) -> f64 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => after.as_secs_f64(),
        Err(before) => -before.duration().as_secs_f64(),
    }
}

/// Exact up to 2^53, as every number Prometheus holds.
fn number(count: u64) -> f64 {
    count as f64
}

/// Classes without a port, such as assigned ports of the dynamic range, have no series.
fn classes(snapshot: &Snapshot<'_>, samples: &mut Samples, sums: &ByClass) {
    for protocol in Protocol::ALL {
        for class in Class::all() {
            if snapshot.space.ports.of(protocol, class) > 0 {
                samples.push(
                    [
                        protocol.as_str(),
                        class.range.as_str(),
                        class.assignment.as_str(),
                    ],
                    number(sums.of(protocol, class)),
                );
            }
        }
    }
}

fn space_accepted(snapshot: &Snapshot<'_>, samples: &mut Samples) {
    let Some(accepted) = &snapshot.space.accepted else {
        return;
    };
    for class in Class::all() {
        if snapshot.space.ports.of(Protocol::Tcp, class) > 0 {
            samples.push(
                [class.range.as_str(), class.assignment.as_str()],
                number(accepted.of(Protocol::Tcp, class)),
            );
        }
    }
}

fn blocks(samples: &mut Samples, sums: &ByBlock) {
    for protocol in Protocol::ALL {
        for block in Block::all() {
            samples.push(
                [protocol.as_str(), &block.to_string()],
                number(sums.of(protocol, block)),
            );
        }
    }
}

fn listeners(snapshot: &Snapshot<'_>, samples: &mut Samples) {
    for lit in snapshot.listeners.iter().flatten() {
        samples.push(
            [
                &lit.listener.port.number.to_string(),
                lit.listener.port.protocol.as_str(),
                &lit.listener.address.to_string(),
                lit.watch,
                lit.owner.process(),
                lit.owner.user(),
                lit.owner.unit(),
                match lit.expected {
                    Some(true) => "true",
                    Some(false) => "false",
                    None => "",
                },
                &lit.netns,
            ],
            1.0,
        );
    }
}

fn suppressed(snapshot: &Snapshot<'_>, samples: &mut Samples) {
    let per_port = FAMILIES
        .iter()
        .filter(|family| family.tiers.contains(&snapshot.tier))
        .filter(|family| {
            Protocol::ALL
                .iter()
                .any(|&protocol| family.is_per_port(protocol))
        });
    for family in per_port {
        let ports: u64 = Protocol::ALL
            .into_iter()
            .filter(|&protocol| family.is_per_port(protocol))
            .map(|protocol| snapshot.watched_suppressed[protocol.index()])
            .sum();
        samples.push([family.name], number(ports));
    }
    if let Some(listeners) = snapshot.listeners_suppressed {
        samples.push(["darkport_listener_info"], number(listeners));
    }
}
