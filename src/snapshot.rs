//! What was seen at one moment: plain data between the readers and everything that shows it.
//!
//! A test writes one by hand. `None` means "cannot be known, or could not be read this time" and becomes an absent
//! series; a zero means "looked, and there was none".

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::counts::{ByBlock, ByClass, Knocks, PortCounts, Tier};
use crate::owners::Owner;
use crate::port::{Port, PortSet};
use crate::refusals::Web;
use crate::registry::Assignment;
use crate::sockets::Listener;

/// One sample.
#[derive(Clone, Debug)]
pub struct Snapshot<'a> {
    /// How counting is done.
    pub tier: Tier,
    /// The watched ports that have series, ascending.
    pub watched: Vec<Watched<'a>>,
    /// Watched ports left out because of `limits.series`: TCP, UDP.
    pub watched_suppressed: [u64; 2],
    /// Listening sockets, the unexpected first, then the watched, then by port; those that differ in nothing that is shown
    /// stand once. `None` if the socket table could not be read.
    pub listeners: Option<Vec<Lit<'a>>>,
    /// Listening sockets left out because of `limits.listeners`; `None` where there is no list.
    pub listeners_suppressed: Option<u64>,
    /// How much of the host the list of listeners covers.
    pub namespaces: Option<Namespaces>,
    /// The whole port space.
    pub space: Space,
    /// How each collector fared.
    pub collectors: Vec<Run>,
    /// Events known to be lost since start, for each source in use.
    pub lost: Vec<(Source, u64)>,
    /// The host's own counters beside ours.
    pub audit: Vec<Audit>,
    /// The state of the configuration.
    pub reload: Reload,
    /// What the web front turned away.
    pub web: Web,
}

/// A watched port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watched<'a> {
    /// The port.
    pub port: Port,
    /// Name of the watch entry that owns it.
    pub watch: &'a str,
    /// The service's name in the registry; empty if it has none.
    pub service_name: &'a str,
    /// What the registry says.
    pub assignment: Assignment,
    /// Whether something listens now.
    pub listening: Option<bool>,
    /// Whether something listens that no `expect` rule allows.
    pub unexpected: Option<bool>,
    /// What was counted.
    pub counts: PortCounts,
}

/// A listening socket with all that is known of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lit<'a> {
    /// The socket.
    pub listener: Listener,
    /// Name of the watch entry that owns the port; empty if it is not watched.
    pub watch: &'a str,
    /// Whose it is.
    pub owner: Arc<Owner>,
    /// Whether an `expect` rule allows it; `None` if the port is not watched.
    pub expected: Option<bool>,
    /// The network namespace: empty for the exporter's own.
    pub netns: Arc<str>,
}

/// Network namespaces of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Namespaces {
    /// How many there are, the exporter's own included.
    pub seen: u64,
    /// How many of them could be read.
    pub read: u64,
}

/// The whole port space, whatever is watched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Space {
    /// Ports in each class, from the registry.
    pub ports: ByClass,
    /// Ports with a listener now.
    pub lit: Option<Lights>,
    /// Inbound TCP handshakes completed since start, by class; only the TCP half is meant.
    pub accepted: Option<ByClass>,
    /// Attempts on dark ports since start.
    pub knocks: Option<Knocks>,
}

/// Ports with a listener now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lights {
    /// By class.
    pub classes: ByClass,
    /// By block.
    pub blocks: ByBlock,
    /// Each of them.
    pub ports: PortSet,
}

/// A part of the exporter that can fail alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Collector {
    /// The socket table.
    Sockets,
    /// The owners of listeners.
    Owners,
    /// The eBPF programs.
    Kernel,
    /// The socket-destroy events.
    Netlink,
    /// The host's own counters.
    Audit,
}

impl Collector {
    /// The name as it stands in labels.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sockets => "sockets",
            Self::Owners => "owners",
            Self::Kernel => "kernel",
            Self::Netlink => "netlink",
            Self::Audit => "audit",
        }
    }
}

/// How a collector fared in this sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Which.
    pub collector: Collector,
    /// Whether it gave everything it should.
    pub success: bool,
    /// How long it took.
    pub duration: Duration,
}

/// Where events come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// The ring buffer of the eBPF programs.
    Kernel,
    /// The netlink sockets.
    Netlink,
}

impl Source {
    /// The name as it stands in labels.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Netlink => "netlink",
        }
    }
}

/// One of the host's own counters beside ours, both since start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Audit {
    /// Which counter: `passive_opens` or `udp_no_ports`.
    pub what: &'static str,
    /// What the host counted.
    pub host: u64,
    /// What we counted; `None` where the tier does not count it on every port.
    pub counted: Option<u64>,
}

/// The state of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reload {
    /// Whether the last attempt to load it succeeded.
    pub successful: bool,
    /// When it was last loaded with success.
    pub at: SystemTime,
}
