//! The maps in which the programs count. Shapes as in `darkport.bpf.c`; the two must agree.

use std::io;
use std::os::fd::AsFd;

use aya::Ebpf;
use aya::maps::Map;

use crate::counts::kernel::space;
use crate::memory::Mapping;
use crate::port::{Block, NUMBERS, Port, PortSet, Protocol};

/// 64-bit words of `struct arrival`, and where its fields lie.
const ARRIVALS: usize = 2;
const ATTEMPTS: usize = 0;
const ATTEMPTED_AT: usize = 1;

/// Of `struct knock`.
const KNOCKS: usize = 2;
const REFUSED: usize = 0;
const FILTERED: usize = 1;

/// Of `struct inbound`.
const INBOUND: usize = 2;
const ACCEPTED: usize = 0;
const ESTABLISHED: usize = 1;

/// Of `struct outbound`.
const OUTBOUND: usize = 2;
const CONNECTED: usize = 0;
const FAILED: usize = 1;

/// Of `struct opening`.
const OPENINGS: usize = 3;
const OPENED: usize = 0;
const OPENED_AT: usize = 1;
const COOKIE: usize = 2;

/// Of `struct gauging`, one for 64 ports.
const GAUGING: usize = 2;
const GAUGED: usize = 0;
const SETTLED: usize = 1;

/// Of the map `blocks`: knocks on TCP, knocks on UDP, accepted.
const BLOCKS: usize = 3 * Block::COUNT;
/// Of the map `lost`: events, marks, headers.
const LOST: usize = 3;

/// Of `struct own`.
const OWN: usize = 2;
const OWN_SOCKET: usize = 0;
const OWN_NETNS: usize = 1;

/// What is known to be missing, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Lost {
    /// Listener events for which the ring had no room.
    pub(super) events: u64,
    /// Sockets that could not be marked: the kernel had no memory.
    pub(super) marks: u64,
    /// Dropped packets whose headers lay in pieces.
    pub(super) headers: u64,
}

/// All counters, mapped.
#[derive(Debug)]
pub(super) struct Counters {
    arrivals: Mapping<false>,
    knocks: Mapping<false>,
    inbound: Mapping<false>,
    outbound: Mapping<false>,
    openings: Mapping<false>,
    blocks: Mapping<false>,
    lost: Mapping<false>,
    watched: Mapping<true>,
    gauging: Mapping<true>,
    own: Mapping<true>,
}

impl Counters {
    /// Maps the counters.
    pub(super) fn map(ebpf: &Ebpf) -> io::Result<Self> {
        Ok(Self {
            arrivals: map(ebpf, "arrivals", 2 * NUMBERS * ARRIVALS)?,
            knocks: map(ebpf, "knocks", 2 * NUMBERS * KNOCKS)?,
            inbound: map(ebpf, "inbound", NUMBERS * INBOUND)?,
            outbound: map(ebpf, "outbound", NUMBERS * OUTBOUND)?,
            openings: map(ebpf, "openings", 2 * NUMBERS * OPENINGS)?,
            blocks: map(ebpf, "blocks", BLOCKS)?,
            lost: map(ebpf, "lost", LOST)?,
            watched: map(ebpf, "watched", 2 * NUMBERS / 64)?,
            gauging: map(ebpf, "gauging", NUMBERS / 64 * GAUGING)?,
            own: map(ebpf, "own", OWN)?,
        })
    }

    pub(super) fn attempts(&self, port: Port) -> u64 {
        self.arrivals.load(port.index() * ARRIVALS + ATTEMPTS)
    }

    pub(super) fn attempted_at(&self, port: Port) -> u64 {
        self.arrivals.load(port.index() * ARRIVALS + ATTEMPTED_AT)
    }

    pub(super) fn refused(&self, port: Port) -> u64 {
        self.knocks.load(port.index() * KNOCKS + REFUSED)
    }

    pub(super) fn filtered(&self, port: Port) -> u64 {
        self.knocks.load(port.index() * KNOCKS + FILTERED)
    }

    pub(super) fn accepted(&self, number: u16) -> u64 {
        self.inbound.load(usize::from(number) * INBOUND + ACCEPTED)
    }

    pub(super) fn outbound(&self, number: u16) -> u64 {
        self.outbound
            .load(usize::from(number) * OUTBOUND + CONNECTED)
    }

    pub(super) fn outbound_failures(&self, number: u16) -> u64 {
        self.outbound.load(usize::from(number) * OUTBOUND + FAILED)
    }

    /// `None` where more have left than came: marks were lost, and the number with them.
    pub(super) fn established(&self, number: u16) -> Option<u64> {
        gauge(
            self.inbound
                .load(usize::from(number) * INBOUND + ESTABLISHED),
        )
    }

    pub(super) fn opened(&self, port: Port) -> u64 {
        self.openings.load(port.index() * OPENINGS + OPENED)
    }

    pub(super) fn opened_at(&self, port: Port) -> u64 {
        self.openings.load(port.index() * OPENINGS + OPENED_AT)
    }

    pub(super) fn opened_cookie(&self, port: Port) -> u64 {
        self.openings.load(port.index() * OPENINGS + COOKIE)
    }

    pub(super) fn lost(&self) -> Lost {
        Lost {
            events: self.lost.load(0),
            marks: self.lost.load(1),
            headers: self.lost.load(2),
        }
    }

    /// Tells the programs which ports are watched.
    pub(super) fn watch(&self, ports: &PortSet) {
        for protocol in Protocol::ALL {
            let words = bits(ports, protocol);
            let first = protocol.index() * words.len();
            for (index, word) in words.into_iter().enumerate() {
                self.watched.store(first + index, word);
            }
        }
    }

    /// Has established connections of these TCP ports kept count of too; what came before is not in it yet.
    pub(super) fn gauge(&self, ports: &PortSet) {
        self.add_to_gauging(GAUGED, ports);
    }

    /// Tells the programs that all connections of these TCP ports are in the count.
    pub(super) fn settle(&self, ports: &PortSet) {
        self.add_to_gauging(SETTLED, ports);
    }

    fn add_to_gauging(&self, field: usize, ports: &PortSet) {
        for (index, word) in bits(ports, Protocol::Tcp).into_iter().enumerate() {
            let at = index * GAUGING + field;
            self.gauging.store(at, self.gauging.load(at) | word);
        }
    }

    /// Names a socket of this process, by cookie; when it is closed the programs learn its network namespace.
    pub(super) fn name_own_socket(&self, cookie: u64) {
        self.own.store(OWN_SOCKET, cookie);
    }

    /// Whether the programs have learnt which network namespace is ours.
    pub(super) fn netns_is_known(&self) -> bool {
        self.own.load(OWN_NETNS) != 0
    }
}

impl space::Counters for Counters {
    fn block(&self, slot: usize) -> u64 {
        self.blocks.load(slot)
    }

    fn knocks(&self, port: Port) -> u64 {
        self.refused(port) + self.filtered(port)
    }

    fn accepted(&self, number: u16) -> u64 {
        self.accepted(number)
    }
}

/// One bit a port.
fn bits(ports: &PortSet, protocol: Protocol) -> Vec<u64> {
    let mut words = vec![0_u64; NUMBERS / 64];
    for number in ports.numbers(protocol) {
        words[usize::from(number) / 64] |= 1 << (number % 64);
    }
    words
}

/// A signed word.
fn gauge(word: u64) -> Option<u64> {
    u64::try_from(word.cast_signed()).ok()
}

fn map<const WRITABLE: bool>(
    ebpf: &Ebpf,
    name: &str,
    words: usize,
) -> io::Result<Mapping<WRITABLE>> {
    let Some(Map::Array(data)) = ebpf.map(name) else {
        return Err(io::Error::other(format!(
            "the eBPF object has no array {name}"
        )));
    };
    Mapping::new(data.fd().as_fd(), words)
}

#[cfg(test)]
mod tests {
    use super::gauge;

    #[test]
    fn a_gauge_below_zero_is_unknown() {
        assert_eq!(gauge(3), Some(3));
        assert_eq!(gauge(u64::MAX), None);
    }
}
