//! What is seen of the simulated hosts from outside.

use super::super::remote_write::Series;
use super::hosts::Host;
use super::{Plan, labelled};

impl Plan {
    /// Finger, probed on every host: one has a firewall before it, another forwards it to somebody else for a while.
    pub(super) fn probes(&self, host: Host) -> Vec<Series> {
        const PORT: &str = "79";
        const PROTOCOL: &str = "tcp";
        let state = |time: i64| {
            let progress = self.progress(time);
            let is_lit = host.lit(PORT, PROTOCOL, progress).is_some();
            match host.number {
                1 if progress > 0.8 => "filtered",
                4 if (0.35..0.5).contains(&progress) => "open",
                _ if is_lit => "open",
                _ => "closed",
            }
        };
        [
            ("open", "syn_ack"),
            ("closed", "reset"),
            ("filtered", "no_response"),
        ]
        .into_iter()
        .map(|(name, reason)| {
            let labels = labelled([
                ("port", PORT),
                ("protocol", PROTOCOL),
                ("state", name),
                ("reason", reason),
            ]);
            self.build(host, "darkport_probe_port_state", &labels, |time| {
                (state(time) == name).then_some(1.0)
            })
        })
        .filter(|series| !series.points.is_empty())
        .collect()
    }
}
