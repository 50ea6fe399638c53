//! What listens on the simulated hosts, and what Prometheus says of a scrape.

use std::collections::BTreeMap;

use darkport_exporter::metrics::FAMILIES;

use super::super::remote_write::Series;
use super::hosts::Host;
use super::recorded::Sample;
use super::{Plan, labelled};

const PROCESSES: [(&str, &str, &str, &str, &str); 6] = [
    ("22", "tcp", "", "sshd", "ssh.service"),
    (
        "5432",
        "tcp",
        "registered",
        "postgres",
        "postgresql.service",
    ),
    ("6379", "tcp", "registered", "redis-server", "redis.service"),
    (
        "9100",
        "tcp",
        "registered",
        "node_exporter",
        "node_exporter.service",
    ),
    ("443", "tcp", "", "nginx", "nginx.service"),
    ("123", "udp", "", "chronyd", "chrony.service"),
];

impl Plan {
    pub(super) fn listeners(&self, host: Host) -> Vec<Series> {
        let mut all = Vec::new();
        let info = |port: &str,
                    protocol: &str,
                    watch: &str,
                    process: &str,
                    user: &str,
                    unit: &str,
                    expected: &str| {
            let labels = labelled([
                ("port", port),
                ("protocol", protocol),
                ("address", "0.0.0.0"),
                ("watch", watch),
                ("process", process),
                ("user", user),
                ("unit", unit),
                ("expected", expected),
            ]);
            self.build(host, "darkport_listener_info", &labels, |time| {
                let lit = host.lit(port, protocol, self.progress(time)).is_some();
                (lit || watch.is_empty()).then_some(1.0)
            })
        };
        for (port, protocol, watch, process, unit) in PROCESSES {
            all.push(info(
                port,
                protocol,
                watch,
                process,
                process,
                unit,
                if watch.is_empty() { "" } else { "true" },
            ));
        }
        for (port, watch, process, user, unit) in [
            ("79", "host-talk", "nc", "www-data", "session-41.scope"),
            ("3476", "nppmp", "python3", "root", "cron.service"),
            ("561", "monitor", "", "", ""),
            ("609", "npmp", "socat", "deploy", "user@1000.service"),
        ] {
            all.push(info(port, "tcp", watch, process, user, unit, "false"));
        }
        all.retain(|series| !series.points.is_empty());
        all
    }

    pub(super) fn about_the_scrape(&self, host: Host, samples: usize) -> Vec<Series> {
        let none = BTreeMap::new();
        let mut series = vec![
            self.build(host, "up", &none, |_| Some(1.0)),
            self.build(host, "scrape_samples_scraped", &none, |_| {
                Some(samples as f64)
            }),
        ];
        // Ports of the registered range that this host uses, as an active entry shows them.
        for (port, protocol, watch, _, _) in PROCESSES
            .into_iter()
            .filter(|(_, _, watch, _, _)| !watch.is_empty())
        {
            let facts = labelled([
                ("port", port),
                ("protocol", protocol),
                ("watch", watch),
                ("service_name", service(port)),
                ("range", "registered"),
                ("assignment", "assigned"),
            ]);
            series.push(self.build(host, "darkport_watched_port_info", &facts, |_| Some(1.0)));
            for family in FAMILIES.iter().filter(|family| {
                family.labels == ["port", "protocol"] && family.tiers.contains(&host.tier)
            }) {
                let sample = Sample {
                    metric: family.name.to_owned(),
                    labels: labelled([("port", port), ("protocol", protocol)]),
                    value: 0.0,
                };
                series.extend(self.series(host, &sample));
            }
        }
        series
    }
}

fn service(port: &str) -> &'static str {
    match port {
        "5432" => "postgresql",
        "6379" => "redis",
        _ => "hp-pdl-datastr",
    }
}
