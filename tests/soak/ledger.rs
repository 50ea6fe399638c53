//! What the generator did: the other side of every counter.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard};

use darkport_exporter::counts::Tier;
use darkport_exporter::port::{Port, Protocol};

/// A counter of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Count {
    Attempts,
    Accepted,
    Refused,
    Filtered,
    Outbound,
    Failed,
    Opened,
}

impl Count {
    pub(crate) const ALL: [Self; 7] = [
        Self::Attempts,
        Self::Accepted,
        Self::Refused,
        Self::Filtered,
        Self::Outbound,
        Self::Failed,
        Self::Opened,
    ];

    pub(crate) const fn family(self) -> &'static str {
        match self {
            Self::Attempts => "darkport_inbound_attempts_total",
            Self::Accepted => "darkport_inbound_accepted_total",
            Self::Refused => "darkport_inbound_refused_total",
            Self::Filtered => "darkport_inbound_filtered_total",
            Self::Outbound => "darkport_outbound_connections_total",
            Self::Failed => "darkport_outbound_failures_total",
            Self::Opened => "darkport_listener_opened_total",
        }
    }

    /// Whether there is such a series; it must be absent where there is none.
    pub(crate) fn exists(self, tier: Tier, protocol: Protocol) -> bool {
        let is_for_udp = !matches!(self, Self::Accepted | Self::Outbound | Self::Failed);
        let is_for_all = matches!(self, Self::Accepted | Self::Outbound | Self::Opened);
        (protocol == Protocol::Tcp || is_for_udp) && (tier == Tier::Kernel || is_for_all)
    }
}

/// Written by whoever does something, at the latest before it lets the gate go.
#[derive(Debug, Default)]
pub(crate) struct Ledger(Mutex<Pages>);

#[derive(Clone, Debug, Default)]
pub(crate) struct Pages {
    counts: BTreeMap<(Port, Count), u64>,
    pub(crate) listening: BTreeSet<Port>,
    pub(crate) connections: BTreeMap<Port, u64>,
    /// What was done, in words, and how often.
    pub(crate) deeds: BTreeMap<&'static str, u64>,
}

impl Ledger {
    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.0.lock().unwrap()
    }

    /// Once more this deed, by which each of these counters of the port goes up by one.
    pub(crate) fn note(&self, deed: &'static str, port: Port, counts: &[Count]) {
        let mut pages = self.pages();
        for &count in counts {
            *pages.counts.entry((port, count)).or_default() += 1;
        }
        *pages.deeds.entry(deed).or_default() += 1;
    }

    /// Something that no counter of a port shows, or that several notes are part of.
    pub(crate) fn did(&self, deed: &'static str) {
        *self.pages().deeds.entry(deed).or_default() += 1;
    }

    pub(crate) fn lit(&self, ports: impl IntoIterator<Item = Port>) {
        self.pages().listening.extend(ports);
    }

    pub(crate) fn connected(&self, port: Port, now: usize) {
        self.pages().connections.insert(port, now as u64);
    }

    /// As it stands.
    pub(crate) fn read(&self) -> Pages {
        self.pages().clone()
    }
}

impl Pages {
    pub(crate) fn count(&self, port: Port, count: Count) -> u64 {
        self.counts.get(&(port, count)).copied().unwrap_or(0)
    }
}
