//! The encoding of a snapshot, and the table of families against README.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use darkport_exporter::config::series_per_port;
use darkport_exporter::counts::{ByBlock, ByClass, Knocks, PortCounts, Tier};
use darkport_exporter::metrics::{FAMILIES, Kind, encode, encode_families};
use darkport_exporter::owners::Owner;
use darkport_exporter::port::{Port, Protocol, Range};
use darkport_exporter::refusals::Web;
use darkport_exporter::registry::{Assignment, Class};
use darkport_exporter::snapshot::{
    Audit, Collector, Lights, Lit, Namespaces, Reload, Run, Snapshot, Source, Space, Watched,
};
use darkport_exporter::sockets::Listener;

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(seconds * 1000 + 250)
}

fn watched(port: Port, service_name: &'static str, counts: PortCounts) -> Watched<'static> {
    Watched {
        port,
        watch: "npmp",
        service_name,
        assignment: Assignment::Assigned,
        listening: Some(false),
        unexpected: Some(false),
        counts,
    }
}

fn lit(port: Port, address: IpAddr, expected: Option<bool>) -> Lit<'static> {
    Lit {
        listener: Listener {
            port,
            address,
            cookie: None,
            inode: Some(1),
            uid: Some(0),
            cgroup: None,
        },
        watch: if expected.is_some() { "npmp" } else { "" },
        owner: Arc::new(Owner::Unknown { creator: None }),
        expected,
        netns: Arc::from(""),
    }
}

fn kernel_counts() -> PortCounts {
    PortCounts {
        attempts: Some(9),
        accepted: Some(1),
        refused: Some(5),
        filtered: Some(3),
        outbound: Some(2),
        outbound_failures: Some(1),
        opened: Some(4),
        opened_at: Some(at(1_700_000_000)),
        last_attempt: Some(at(1_700_000_001)),
        connections: Some(1),
    }
}

fn class(range: Range, assignment: Assignment) -> Class {
    Class { range, assignment }
}

fn space() -> Space {
    let mut ports = ByClass::default();
    ports.add(
        Port::tcp(1),
        class(Range::WellKnown, Assignment::Assigned),
        600,
    );
    ports.add(
        Port::udp(1),
        class(Range::Registered, Assignment::Unassigned),
        43_000,
    );
    let mut lights = Lights::default();
    lights.classes.add(
        Port::tcp(1),
        class(Range::WellKnown, Assignment::Assigned),
        2,
    );
    lights.blocks.add(Port::tcp(611), 2);
    let mut knocks = ByClass::default();
    knocks.add(
        Port::tcp(1),
        class(Range::WellKnown, Assignment::Assigned),
        8,
    );
    let mut block_knocks = ByBlock::default();
    block_knocks.add(Port::udp(3476), 8);
    Space {
        ports,
        lit: Some(lights),
        accepted: Some(ByClass::default()),
        knocks: Some(Knocks {
            ports: ByClass::default(),
            knocks,
            blocks: block_knocks,
        }),
    }
}

/// Everything that can be known, in the best tier.
fn full() -> Snapshot<'static> {
    Snapshot {
        tier: Tier::Kernel,
        watched: vec![
            Watched {
                listening: Some(true),
                unexpected: Some(true),
                ..watched(Port::tcp(611), "npmp-gui", kernel_counts())
            },
            watched(
                Port::udp(611),
                "npmp-gui",
                PortCounts {
                    attempts: Some(0),
                    refused: Some(0),
                    filtered: Some(0),
                    opened: Some(0),
                    ..PortCounts::default()
                },
            ),
        ],
        watched_suppressed: [0, 1],
        listeners: Some(vec![
            lit(
                Port::tcp(611),
                IpAddr::V4(Ipv4Addr::UNSPECIFIED),
                Some(false),
            ),
            lit(Port::tcp(22), IpAddr::V6(Ipv6Addr::UNSPECIFIED), None),
        ]),
        listeners_suppressed: Some(7),
        namespaces: Some(Namespaces { seen: 3, read: 2 }),
        space: space(),
        collectors: vec![
            Run {
                collector: Collector::Sockets,
                success: true,
                duration: Duration::from_micros(250),
            },
            Run {
                collector: Collector::Owners,
                success: false,
                duration: Duration::from_millis(2),
            },
        ],
        lost: vec![(Source::Kernel, 0)],
        audit: vec![
            Audit {
                what: "passive_opens",
                host: 12,
                counted: Some(12),
            },
            Audit {
                what: "udp_no_ports",
                host: 3,
                counted: None,
            },
        ],
        reload: Reload {
            successful: true,
            at: at(1_700_000_002),
        },
        web: Web {
            refused: [1, 2, 3, 4, 5],
            config_successful: Some(true),
        },
    }
}

/// The least that can be known: the socket table could not be read.
fn blind() -> Snapshot<'static> {
    let counts = PortCounts {
        accepted: Some(1),
        outbound: Some(0),
        opened: Some(0),
        ..PortCounts::default()
    };
    Snapshot {
        tier: Tier::Polled,
        watched: vec![Watched {
            listening: None,
            unexpected: None,
            ..watched(Port::tcp(611), "npmp-gui", counts)
        }],
        watched_suppressed: [0, 0],
        listeners: None,
        listeners_suppressed: None,
        namespaces: None,
        space: Space {
            lit: None,
            accepted: None,
            knocks: None,
            ..space()
        },
        collectors: vec![Run {
            collector: Collector::Sockets,
            success: false,
            duration: Duration::from_secs(1),
        }],
        lost: vec![],
        audit: vec![],
        reload: Reload {
            successful: false,
            at: at(1_700_000_002),
        },
        web: Web::default(),
    }
}

/// Compares with a golden file; `UPDATE_GOLDEN=1` writes it anew, for the change to be read in the diff.
fn assert_golden(name: &str, text: &str) {
    // What this binary was built from differs from build to build.
    let text: String = text
        .split_inclusive('\n')
        .filter(|line| !line.starts_with("darkport_exporter_build_info{"))
        .collect();
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap();
    assert_eq!(
        text, golden,
        "{name} differs; UPDATE_GOLDEN=1 writes it anew"
    );
}

#[test]
fn the_kernel_tier_with_everything_known() {
    assert_golden("kernel.prom", &encode_families(&full()).unwrap());
}

#[test]
fn the_polled_tier_without_a_socket_table() {
    assert_golden("blind.prom", &encode_families(&blind()).unwrap());
}

#[test]
fn the_same_snapshot_without_the_kernel_has_no_family_of_the_kernel_alone() {
    let text = encode_families(&Snapshot {
        tier: Tier::Netlink,
        ..full()
    })
    .unwrap();
    for family in &FAMILIES {
        let is_there = text.contains(&format!("# TYPE {} ", family.name));
        assert_eq!(
            is_there,
            family.tiers.contains(&Tier::Netlink),
            "{}",
            family.name
        );
    }
}

#[test]
fn a_family_of_many_ports_has_one_head_and_each_series_once() {
    let numbers = [1, 255, 256, 257, 512, 513, 2_000];
    for number in numbers {
        let counts = |port: u16| PortCounts {
            opened: Some(u64::from(port) * 2),
            ..PortCounts::default()
        };
        let ports = (1..=number).map(|port| watched(Port::udp(port), "npmp", counts(port)));
        let text = encode_families(&Snapshot {
            watched: ports.collect(),
            ..blind()
        })
        .unwrap();
        for name in ["darkport_listening", "darkport_listener_opened_total"] {
            let (_, family) = text.split_once(&format!("# HELP {name} ")).unwrap();
            let (head, series) = family.split_once('\n').unwrap();
            assert!(!head.is_empty());
            let mut lines = series.lines();
            assert!(
                lines
                    .next()
                    .unwrap()
                    .starts_with(&format!("# TYPE {name} "))
            );
            for port in 1..=number {
                let value = if name == "darkport_listening" {
                    0
                } else {
                    port * 2
                };
                let expected = format!("{name}{{port=\"{port}\",protocol=\"udp\"}} {value}");
                assert_eq!(lines.next(), Some(expected.as_str()));
            }
            assert!(lines.next().is_none_or(|line| line.starts_with("# HELP ")));
        }
    }
}

#[test]
fn the_process_is_told_of() {
    let text = encode(&full()).unwrap();
    #[cfg(target_os = "linux")]
    for family in [
        "process_cpu_seconds_total",
        "process_resident_memory_bytes",
        "process_open_fds",
    ] {
        assert!(text.contains(&format!("\n{family} ")), "{family}");
    }
    assert!(text.contains("\ndarkport_exporter_build_info{version="));
}

#[test]
fn every_family_keeps_the_conventions() {
    let mut names = HashSet::new();
    for family in &FAMILIES {
        let name = family.name;
        assert!(names.insert(name), "{name} stands twice");
        assert!(name.starts_with("darkport_"), "{name}");
        assert_eq!(
            family.kind == Kind::Counter,
            name.ends_with("_total"),
            "{name}"
        );
        assert!(
            family.help.ends_with('.') && !family.help.contains('\n'),
            "{name}: {}",
            family.help
        );
        assert!(!family.help.contains("  "), "{name}: {}", family.help);
        assert!(!family.tiers.is_empty(), "{name}");
        for label in family.labels {
            assert!(
                label.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'),
                "{name}: {label}"
            );
            assert!(
                !["pid", "peer", "remote", "job", "instance"].contains(label),
                "{name}: {label}"
            );
        }
        let per_port = Protocol::ALL
            .iter()
            .any(|&protocol| family.is_per_port(protocol));
        if per_port && name != "darkport_watched_port_info" {
            let tier_is_told = family.help.contains("ier");
            assert!(tier_is_told, "{name}: HELP says which tiers feed it");
            let counts_by_polling =
                family.kind == Kind::Counter && family.tiers.contains(&Tier::Polled);
            assert_eq!(
                family.help.contains("lower bound"),
                counts_by_polling,
                "{name}"
            );
        }
    }
}

#[test]
fn the_limit_of_series_counts_every_family_of_a_port() {
    for protocol in Protocol::ALL {
        let families = FAMILIES
            .iter()
            .filter(|family| family.is_per_port(protocol));
        assert_eq!(series_per_port(protocol), families.count(), "{protocol}");
    }
}

#[test]
fn a_dense_port_has_a_series_of_each_family_of_its_protocol() {
    let text = encode_families(&full()).unwrap();
    let of = |port: &str| {
        text.lines()
            .filter(|line| line.contains(&format!("{{port=\"611\",protocol=\"{port}\"")))
            .filter(|line| !line.starts_with("darkport_listener_info"))
            .count()
    };
    assert_eq!(of("tcp"), series_per_port(Protocol::Tcp));
    assert!(
        of("udp") < series_per_port(Protocol::Udp),
        "timestamps are absent until there is one"
    );
}

/// README's table, made from the families themselves.
fn readme_table() -> String {
    let mut table =
        String::from("| family | type | labels | tiers | meaning |\n|---|---|---|---|---|\n");
    for family in &FAMILIES {
        let labels: Vec<String> = family
            .labels
            .iter()
            .map(|label| format!("`{label}`"))
            .collect();
        let tiers: Vec<&str> = family.tiers.iter().map(|tier| tier.as_str()).collect();
        let tiers = if tiers.len() == Tier::ALL.len() {
            "all".to_owned()
        } else {
            tiers.join(", ")
        };
        let (name, kind, labels) = (family.name, family.kind.as_str(), labels.join(", "));
        table.push_str(&format!(
            "| `{name}` | {kind} | {labels} | {tiers} | {} |\n",
            family.help
        ));
    }
    table
}

#[test]
fn readme_has_the_table_of_families() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let readme = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = readme
        .split_once("<!-- families -->\n")
        .expect("the mark before the table");
    let (table, after) = rest
        .split_once("<!-- /families -->")
        .expect("the mark behind the table");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        let text = format!(
            "{before}<!-- families -->\n{}<!-- /families -->{after}",
            readme_table()
        );
        std::fs::write(&path, text).unwrap();
        return;
    }
    assert_eq!(table, readme_table(), "UPDATE_GOLDEN=1 writes it anew");
}
