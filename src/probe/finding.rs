//! What was found of a port, and by what it is known.

use std::fmt;

/// What a port is, seen from outside. Ordered by how much of it answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// Something on the way keeps the question or the answer back.
    Filtered,
    /// The host says that nobody is there.
    Closed,
    /// UDP: silence, which is what an open port that has nothing to say and a firewall have in common.
    OpenOrFiltered,
    /// Somebody answers.
    Open,
}

impl State {
    /// All of them, in their order.
    pub const ALL: [Self; 4] = [
        Self::Filtered,
        Self::Closed,
        Self::OpenOrFiltered,
        Self::Open,
    ];

    /// The name as it stands in labels.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Filtered => "filtered",
            Self::Closed => "closed",
            Self::OpenOrFiltered => "open_or_filtered",
            Self::Open => "open",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// By what a state is known. The names are those of the ICMP messages (RFC 792, 1812 and 4443), where it was one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// The handshake was completed.
    SynAck,
    /// A datagram came back.
    UdpResponse,
    /// RST.
    Reset,
    /// Nothing came back.
    NoResponse,
    /// ICMP: no such port.
    PortUnreachable,
    /// ICMP: no way to the host.
    HostUnreachable,
    /// ICMP: no way to its network.
    NetUnreachable,
    /// ICMP: the host does not speak the protocol.
    ProtocolUnreachable,
    /// ICMP: a firewall's own code, communication administratively prohibited.
    AdminProhibited,
    /// ICMP: the host is administratively prohibited.
    HostProhibited,
    /// ICMP: its network is administratively prohibited.
    NetProhibited,
    /// ICMPv6: the source address fails a policy, or the route rejects.
    RouteRejected,
    /// An ICMP message that says anything else.
    OtherIcmp,
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::SynAck,
        Self::UdpResponse,
        Self::Reset,
        Self::NoResponse,
        Self::PortUnreachable,
        Self::HostUnreachable,
        Self::NetUnreachable,
        Self::ProtocolUnreachable,
        Self::AdminProhibited,
        Self::HostProhibited,
        Self::NetProhibited,
        Self::RouteRejected,
        Self::OtherIcmp,
    ];

    /// The name as it stands in labels.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SynAck => "syn_ack",
            Self::UdpResponse => "udp_response",
            Self::Reset => "reset",
            Self::NoResponse => "no_response",
            Self::PortUnreachable => "port_unreachable",
            Self::HostUnreachable => "host_unreachable",
            Self::NetUnreachable => "net_unreachable",
            Self::ProtocolUnreachable => "protocol_unreachable",
            Self::AdminProhibited => "admin_prohibited",
            Self::HostProhibited => "host_prohibited",
            Self::NetProhibited => "net_prohibited",
            Self::RouteRejected => "route_rejected",
            Self::OtherIcmp => "other_icmp",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What was found of one port of one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Finding {
    /// What it is.
    pub state: State,
    /// By what that is known.
    pub reason: Reason,
}

impl Finding {
    pub(super) const fn new(state: State, reason: Reason) -> Self {
        Self { state, reason }
    }
}

/// What became of one question.
#[derive(Debug)]
pub(super) enum Outcome {
    /// Something came back.
    Answer(Finding),
    /// Nothing did.
    Silence,
    /// It could not be asked: the system around this, and not the target, is why.
    NotAsked(std::io::Error),
}
