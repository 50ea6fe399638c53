//! The kernel tier: eBPF programs count, the exporter reads.
//!
//! This is the contract; `linux` fulfils it, `unsupported` stands in for it elsewhere. It knows ports and classes of
//! ports, neither metrics nor configuration.
//!
//! What is counted, and where in the way of a packet or a socket:
//!
//! - *attempts*: where a device hands a packet up, before bridges, tc and netfilter, and after the device's own XDP
//!   program. What a bridge takes is counted when it comes out of it for this host; what a bond, VLAN, macvlan or
//!   ipvlan device takes, on the device below. An encapsulated packet counts when it has been unwrapped; what IPsec
//!   decrypts in transport mode does not come by again and is no attempt here. Nor is what reaches a macvlan or ipvlan
//!   device whose lower device is in another network namespace.
//! - *refused*: where the transport finds no socket. *filtered*: where netfilter drops or rejects (`nft reject` answers
//!   and then drops: filtered, for it was the firewall that turned the attempt away). Both only for what would have
//!   been an attempt: a SYN without ACK, a UDP datagram.
//! - *accepted, outbound, outbound failures, listeners*: where the state of a TCP socket changes. An MPTCP connection
//!   is counted by its subflows. A listener that was never bound has no port yet when it begins to listen: it is counted
//!   when it closes.
//! - *UDP listeners*: where bind succeeds, for any process under the host's root control group. A socket that sends
//!   without having been bound is none. When one closes is not told: the socket table shows it.
//!
//! Only the network namespace in which [`Kernel::start`] is called is counted. Nothing is pinned: the programs live as
//! long as the file descriptors that [`Kernel`] holds, so even SIGKILL leaves nothing behind.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::time::SystemTime;

use crate::port::Port;
use crate::privileges::Capability;

mod space;

#[cfg(all(
    target_os = "linux",
    target_endian = "little",
    target_pointer_width = "64"
))]
mod linux;
#[cfg(all(
    target_os = "linux",
    target_endian = "little",
    target_pointer_width = "64"
))]
pub use linux::{Kernel, Reading, Watcher};

#[cfg(not(all(
    target_os = "linux",
    target_endian = "little",
    target_pointer_width = "64"
)))]
mod unsupported;
#[cfg(not(all(
    target_os = "linux",
    target_endian = "little",
    target_pointer_width = "64"
)))]
pub use unsupported::{Kernel, Reading, Watcher};

#[cfg(all(target_os = "linux", any(test, fuzzing)))]
pub(crate) use linux::fuzz;
pub use space::Space;

/// What of the tier is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Whether to look at each received packet. Without it there are no attempts; all else stands.
    pub tap: bool,
    /// Whether the tap may read packets where they lie, which is cheaper, where the kernel can (Linux 6.2). Else, and if
    /// not, it copies their headers first.
    pub in_place: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            tap: true,
            in_place: true,
        }
    }
}

/// What can be missing while the tier stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// Attempts and the time of the last one.
    Attempts,
    /// Refused attempts; with them filtered ones, and all sums of knocks.
    Refused,
    /// Filtered attempts.
    Filtered,
    /// Inbound connections established now.
    Connections,
    /// UDP listeners opened.
    UdpListeners,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Attempts => "attempts",
            Self::Refused => "refused and filtered attempts",
            Self::Filtered => "filtered attempts",
            Self::Connections => "established connections",
            Self::UdpListeners => "UDP listeners opened",
        })
    }
}

/// A part that cannot be had on this host, why, and what would bring it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// What is not counted.
    pub part: Part,
    /// What stands in the way.
    pub why: String,
    /// What the user can do.
    pub cure: String,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} not counted: {}: {}", self.part, self.why, self.cure)
    }
}

/// Why the tier as a whole cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Another operating system, a big-endian or a 32-bit one.
    #[error(
        "the kernel tier needs Linux on a 64-bit little-endian machine: use --collector.tier=netlink or polled"
    )]
    Unsupported,
    /// Things that every part needs are missing; all of them.
    #[error("{}", .0.iter().map(Lack::to_string).collect::<Vec<_>>().join(", and "))]
    Lacks(Vec<Lack>),
    /// The kernel refused the maps or the program without which nothing is left.
    #[error("{step}: {why}: {cure}")]
    Refused {
        /// What was being done.
        step: &'static str,
        /// What the kernel said.
        why: String,
        /// What the user can do.
        cure: String,
    },
    /// Something else the operating system refused.
    #[error("{step}: {source}")]
    Os {
        /// What was being done.
        step: &'static str,
        /// What it said.
        source: io::Error,
    },
}

/// Something that every part of the tier needs and that is missing here. Displayed with its cure.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Lack {
    /// A kernel without ring buffers.
    #[error("this kernel has no ring buffers: the kernel tier needs Linux 5.8 or newer")]
    RingBuffer,
    /// Capabilities are not held.
    #[error(
        "the kernel tier needs {}, which this process does not have: run it as root or grant them \
         (AmbientCapabilities= in a systemd unit, --cap-add for a container)",
        Capability::list(.0)
    )]
    Capabilities(Vec<Capability>),
    /// The kernel does not describe its types.
    #[error(
        "{}: {reason}: the kernel tier needs a kernel built with CONFIG_DEBUG_INFO_BTF, as distributions build them, and \
         /sys in sight",
        path.display()
    )]
    Types {
        /// Where the description is looked for.
        path: PathBuf,
        /// What happened there.
        reason: String,
    },
    /// Not even root may look into the kernel.
    #[error(
        "the kernel is locked down for confidentiality (/sys/kernel/security/lockdown): the kernel tier needs it booted with \
         lockdown=integrity or without"
    )]
    Lockdown,
}

/// Why something could not be done once the tier stood.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The walk over the connections that were there before failed; the gauge of newly watched ports is absent.
    #[error("counting the connections already established: {0}")]
    Seed(String),
}

/// A listener on a watched port came or, for TCP, went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerEvent {
    /// The port.
    pub port: Port,
    /// Whether it opened; else it closed.
    pub opened: bool,
    /// The local address; unspecified where it listens on all.
    pub address: IpAddr,
    /// The kernel's number for the socket, the one the socket table shows. 0 never comes.
    pub cookie: Option<NonZeroU64>,
    /// Process id of the caller, in the initial pid namespace.
    pub pid: u32,
    /// Thread id of the caller, in the initial pid namespace.
    pub thread: u32,
    /// User id of the caller, in the initial user namespace.
    pub uid: u32,
    /// Name of the calling thread; it is the caller's to choose. Bytes that are not UTF-8 are replaced.
    pub command: String,
    /// Id of the caller's version 2 control group.
    pub cgroup: Option<NonZeroU64>,
    /// When it happened.
    pub at: SystemTime,
}
