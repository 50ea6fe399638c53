//! Counting: what came to a port and what was opened on it.
//!
//! The tiers are a closed set; each is a module that keeps counters from its own source of truth. None knows metrics or
//! configuration beyond the watch set.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use crate::port::{Block, NUMBERS, Port, PortSet, Protocol};
use crate::privileges::Capability;
use crate::registry::{Class, Registry};
use crate::snapshot::{Collector, Source};
use crate::sockets::{Listener, SocketTable};

pub mod attached;
pub mod kernel;
mod knocked;
#[cfg(target_os = "linux")]
pub mod netlink;
pub mod polled;

pub use knocked::{KnockedRun, KnockedRuns};

/// How counting is done, from the best to the least.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tier {
    /// eBPF programs count in the kernel: nothing is missed, attempts on dark ports are seen.
    Kernel,
    /// The kernel tells of each socket it destroys: connections and listeners are counted exactly, without privilege.
    Netlink,
    /// The difference of two socket tables: a lower bound.
    Polled,
}

impl Tier {
    /// All tiers, best first.
    pub const ALL: [Self; 3] = [Self::Kernel, Self::Netlink, Self::Polled];

    /// The name as it stands in labels, flags and the log.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Netlink => "netlink",
            Self::Polled => "polled",
        }
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The tier in use. The sampler calls [`before_read`](Self::before_read), reads the socket table, with
/// connections where [`wants_connections`](Self::wants_connections) says so, then calls [`after_read`](Self::after_read),
/// with `None` where it could not be read.
#[derive(Debug)]
pub enum Counts {
    /// eBPF programs.
    Kernel(Box<attached::Attached>),
    /// What the kernel tells of the sockets it destroys.
    #[cfg(target_os = "linux")]
    Netlink(netlink::Netlink),
    /// The difference of two socket tables.
    Polled(polled::Polled),
}

impl Counts {
    /// Which tier this is.
    #[must_use]
    pub const fn tier(&self) -> Tier {
        match self {
            Self::Kernel(_) => Tier::Kernel,
            #[cfg(target_os = "linux")]
            Self::Netlink(_) => Tier::Netlink,
            Self::Polled(_) => Tier::Polled,
        }
    }

    /// Whether [`watch`](Self::watch) needs a table.
    #[must_use]
    pub const fn needs_table_to_watch(&self) -> bool {
        match self {
            Self::Kernel(_) => false,
            #[cfg(target_os = "linux")]
            Self::Netlink(_) => true,
            Self::Polled(_) => false,
        }
    }

    /// Takes up a new watch set. Counters stay as they are. `present` is a table with what concerns the new set, read just
    /// before, where one is needed: what it shows on ports that were not watched is not counted.
    pub fn watch(&mut self, watched: &PortSet, present: &SocketTable) {
        match self {
            Self::Kernel(kernel) => kernel.watch(watched),
            #[cfg(target_os = "linux")]
            Self::Netlink(netlink) => {
                if let Err(error) = netlink.watch(watched, present) {
                    tracing::warn!(%error, "closes of unwatched ports may wake the exporter");
                }
            }
            Self::Polled(polled) => polled.watch(watched),
        }
    }

    /// Says that the socket table is about to be read.
    pub fn before_read(&mut self) {
        match self {
            #[cfg(target_os = "linux")]
            Self::Netlink(netlink) => netlink.before_read(),
            Self::Kernel(_) | Self::Polled(_) => {}
        }
    }

    /// TCP ports that are or were listened on and may have connections.
    #[must_use]
    pub fn listened(&self) -> PortSet {
        match self {
            Self::Kernel(_) => PortSet::new(),
            #[cfg(target_os = "linux")]
            Self::Netlink(netlink) => netlink.ports_listened(),
            Self::Polled(polled) => polled.listened().clone(),
        }
    }

    /// Whether the socket table must have connections for this tier to count.
    #[must_use]
    pub const fn wants_connections(&self) -> bool {
        match self {
            Self::Kernel(_) => false,
            #[cfg(target_os = "linux")]
            Self::Netlink(_) => true,
            Self::Polled(_) => true,
        }
    }

    /// Counts what the table shows; `None` where it could not be read.
    pub fn after_read(&mut self, table: Option<&SocketTable>, now: SystemTime) {
        match (self, table) {
            #[cfg(target_os = "linux")]
            (Self::Netlink(netlink), Some(table)) => netlink.after_read(table, now),
            #[cfg(target_os = "linux")]
            (Self::Netlink(netlink), None) => netlink.after_failed_read(),
            (Self::Polled(polled), Some(table)) => polled.update(table, now),
            (Self::Kernel(_), _) | (Self::Polled(_), None) => {}
        }
    }

    /// What was counted on a watched port. [`PortCounts::connections`] is as old as the last table that was read.
    #[must_use]
    pub fn counts(&self, port: Port) -> PortCounts {
        match self {
            Self::Kernel(kernel) => kernel.counts(port),
            #[cfg(target_os = "linux")]
            Self::Netlink(netlink) => netlink.counts(port),
            Self::Polled(polled) => polled.counts(port),
        }
    }

    /// Watched ports on which this host has listened, accepted or connected since start.
    #[must_use]
    pub fn used(&mut self) -> PortSet {
        match self {
            Self::Kernel(kernel) => kernel.used(),
            #[cfg(target_os = "linux")]
            Self::Netlink(netlink) => netlink.ports_used(),
            Self::Polled(polled) => polled.used().clone(),
        }
    }

    /// Listeners on watched ports that came or went since this was last asked, oldest first, each told with who did it.
    pub fn listener_events(&mut self) -> Vec<kernel::ListenerEvent> {
        match self {
            Self::Kernel(kernel) => kernel.events(),
            #[cfg(target_os = "linux")]
            Self::Netlink(_) => Vec::new(),
            Self::Polled(_) => Vec::new(),
        }
    }

    /// Listeners on watched ports that have closed since this was last asked, and when, oldest first, of which nobody tells
    /// who did it. No table may have shown them.
    pub fn closed_listeners(&mut self) -> Vec<(Listener, SystemTime)> {
        match self {
            #[cfg(target_os = "linux")]
            Self::Netlink(netlink) => netlink.closed_listeners(),
            Self::Kernel(_) | Self::Polled(_) => Vec::new(),
        }
    }

    /// Whether this UDP socket is known to have been bound by a call, and not by sending.
    #[must_use]
    pub fn was_bound(&self, listener: &Listener) -> bool {
        match self {
            Self::Kernel(kernel) => kernel.was_bound(listener),
            #[cfg(target_os = "linux")]
            Self::Netlink(_) => false,
            Self::Polled(_) => false,
        }
    }

    /// What the whole space has seen: connections accepted by class, and knocks; each `None` where the tier cannot know.
    pub fn space(&mut self, registry: &Arc<Registry>) -> (Option<ByClass>, Option<Knocks>) {
        match self {
            Self::Kernel(kernel) => {
                let (accepted, knocks) = kernel.space(registry);
                (Some(accepted), knocks)
            }
            #[cfg(target_os = "linux")]
            Self::Netlink(_) => (None, None),
            Self::Polled(_) => (None, None),
        }
    }

    /// UDP datagrams counted as refused since start, to be held against the host's `NoPorts`.
    #[must_use]
    pub fn udp_refused(&self) -> Option<u64> {
        match self {
            Self::Kernel(kernel) => kernel.udp_refused(),
            #[cfg(target_os = "linux")]
            Self::Netlink(_) => None,
            Self::Polled(_) => None,
        }
    }

    /// The ports that have had a knock since start, with what was counted there; `None` where the tier does not see knocks.
    /// Walks the whole space: for a person who looks at it, not for a scrape.
    #[must_use]
    pub fn knocked(&self) -> Option<KnockedRuns> {
        match self {
            Self::Kernel(kernel) => kernel.knocked(),
            #[cfg(target_os = "linux")]
            Self::Netlink(_) => None,
            Self::Polled(_) => None,
        }
    }

    /// The collector that feeds this tier beside the socket table, and whether it works.
    #[must_use]
    pub fn collector(&self) -> Option<(Collector, bool)> {
        match self {
            Self::Kernel(kernel) => Some((Collector::Kernel, kernel.is_following())),
            #[cfg(target_os = "linux")]
            Self::Netlink(netlink) => Some((Collector::Netlink, netlink.is_reading())),
            Self::Polled(_) => None,
        }
    }

    /// Capabilities that have to be kept while this tier counts.
    #[must_use]
    pub fn needs(&self) -> &'static [Capability] {
        match self {
            Self::Kernel(kernel) => kernel.needs(),
            #[cfg(target_os = "linux")]
            Self::Netlink(_) => &[],
            Self::Polled(_) => &[],
        }
    }

    /// Events known to be lost since start, by source.
    #[must_use]
    pub fn lost(&self) -> Vec<(Source, u64)> {
        match self {
            Self::Kernel(kernel) => vec![(Source::Kernel, kernel.lost())],
            #[cfg(target_os = "linux")]
            Self::Netlink(netlink) => vec![(Source::Netlink, netlink.lost())],
            Self::Polled(_) => Vec::new(),
        }
    }

    /// Inbound TCP handshakes counted since start, to be held against the host's `PassiveOpens`; in the netlink tier those
    /// on watched ports. `accepted` is what [`space`](Self::space) gave.
    #[must_use]
    pub fn accepted(&self, accepted: Option<&ByClass>) -> Option<u64> {
        match self {
            Self::Kernel(_) => Some(accepted?.0[Protocol::Tcp.index()].iter().sum()),
            #[cfg(target_os = "linux")]
            Self::Netlink(netlink) => Some(netlink.accepted()),
            Self::Polled(_) => None,
        }
    }
}

/// Knocks of the whole port space since start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Knocks {
    /// Distinct ports that have had one.
    pub ports: ByClass,
    /// How many there were.
    pub knocks: ByClass,
    /// How many there were.
    pub blocks: ByBlock,
}

/// What was counted on one port since the exporter started. `None`: the tier cannot know, or the protocol has no such
/// thing. Never to be turned into 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortCounts {
    /// Attempts that reached an interface, before any firewall.
    pub attempts: Option<u64>,
    /// Inbound handshakes completed.
    pub accepted: Option<u64>,
    /// Attempts the stack turned away because nothing listens.
    pub refused: Option<u64>,
    /// Attempts a host firewall dropped.
    pub filtered: Option<u64>,
    /// Connections this host opened to this port elsewhere.
    pub outbound: Option<u64>,
    /// Such connections that did not come about.
    pub outbound_failures: Option<u64>,
    /// Times something began to listen.
    pub opened: Option<u64>,
    /// When the newest listener was seen to open; `None` until one was.
    pub opened_at: Option<SystemTime>,
    /// When the newest attempt came; `None` until one did.
    pub last_attempt: Option<SystemTime>,
    /// Inbound connections established now.
    pub connections: Option<u64>,
}

/// One number for every class of ports of a protocol: `of[protocol][class]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ByClass(pub [[u64; Class::COUNT]; 2]);

/// One number for every block of a protocol: `of[protocol][block]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ByBlock(pub [[u64; Block::COUNT]; 2]);

impl Default for ByBlock {
    fn default() -> Self {
        Self([[0; Block::COUNT]; 2])
    }
}

impl ByClass {
    /// The number of a class.
    #[must_use]
    pub const fn of(&self, protocol: Protocol, class: Class) -> u64 {
        self.0[protocol.index()][class.index()]
    }

    /// Adds to the class of a port.
    pub fn add(&mut self, port: Port, class: Class, count: u64) {
        self.0[port.protocol.index()][class.index()] += count;
    }
}

impl ByBlock {
    /// The number of a block.
    #[must_use]
    pub const fn of(&self, protocol: Protocol, block: Block) -> u64 {
        self.0[protocol.index()][block.index()]
    }

    /// Adds to the block of a port.
    pub fn add(&mut self, port: Port, count: u64) {
        self.0[port.protocol.index()][Block::of(port.number).index()] += count;
    }
}

/// What the kernel tier knows of the whole port space.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpaceCounts {
    /// Distinct ports that have had a knock since start.
    pub knocked_ports: ByClass,
    /// Knocks since start.
    pub knocks: ByClass,
    /// Knocks since start.
    pub block_knocks: ByBlock,
    /// Inbound TCP handshakes completed since start; only the TCP half is meant.
    pub accepted: ByClass,
}

const _: () = assert!(NUMBERS == Block::SIZE * Block::COUNT);
