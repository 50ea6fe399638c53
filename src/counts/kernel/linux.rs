//! The kernel tier on Linux.
//!
//! [`Kernel::start`] loads `darkport.bpf.o` and attaches what can be attached. From then on the kernel counts by itself;
//! [`Reading`] reads mapped memory, and [`Watcher`], on a thread of its own, passes listener events on and keeps the
//! host's addresses current.
//!
//! *Connections.* `established` is counted up and down at changes of state. A port that comes to be watched may have
//! connections already: [`Kernel::watch`] first has new ones counted, each marked, then has the kernel walk its TCP
//! sockets once, each under its lock, and count and mark those that are not yet. So none is counted twice and none
//! missed, whatever opens and closes meanwhile. Once the walk has ended all are counted, and marks, which cost more than
//! all else that is done for a connection, are no longer needed: the port is settled, and stays so when it is no longer
//! watched. (Before Linux 5.15 the walk takes no lock, and a connection closing that moment may stay counted.) No scrape
//! walks the table of connections.

use std::fmt;
use std::io::{self, PipeReader, PipeWriter};
use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use aya::Ebpf;
use aya::maps::{MapData, RingBuf};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tracing::{debug, info, warn};

use super::{Error, ListenerEvent, Missing, Options, Part, Space, StartError};
use crate::counts::{PortCounts, SpaceCounts};
use crate::memory;
use crate::port::{Port, PortSet, Protocol};
use crate::privileges::Capability;

use addresses::Addresses;
use clock::Clock;
use counters::Counters;
use host::Host;
use misses::Misses;
use programs::Refusal;
use start::{
    allow_locked_memory, attach_binds, attach_drops, attach_tap, follow_addresses, load, note, os,
    ring,
};

mod addresses;
mod clock;
mod counters;
mod direct;
mod host;
mod listeners;
mod misses;
mod programs;
mod start;

/// How many listener events are taken in before the addresses are looked after.
const MOST_AT_ONCE: usize = 4096;

/// After what time the addresses are read again that could not be read.
const AGAIN: Timespec = Timespec {
    tv_sec: 1,
    tv_nsec: 0,
};

/// The programs and what they have counted. While it lives they are attached; nothing else keeps them.
pub struct Kernel {
    ebpf: Ebpf,
    counters: Counters,
    misses: Misses,
    clock: Arc<Clock>,
    addresses_are_current: Arc<AtomicBool>,
    parts: Parts,
    /// Ports whose TCP connections are all counted.
    settled: PortSet,
    /// Those of them that are watched.
    gauged: PortSet,
    needs: &'static [Capability],
    /// Its closing ends the [`Watcher`].
    _end: PipeWriter,
}

/// What is in place.
#[derive(Clone, Copy, Debug)]
struct Parts {
    attempts: bool,
    refused: bool,
    filtered: bool,
    connections: bool,
    udp_listeners: bool,
}

/// The counters at one moment. Made for each scrape; reading it takes no system call.
#[derive(Clone, Copy, Debug)]
pub struct Reading<'a> {
    kernel: &'a Kernel,
}

/// Passes listener events on, and keeps the host's addresses current. Belongs on a thread of its own: [`Watcher::run`].
pub struct Watcher {
    ring: RingBuf<MapData>,
    addresses: Addresses,
    /// Whether the programs know the host's addresses as they are.
    is_current: Arc<AtomicBool>,
    clock: Arc<Clock>,
    ended: PipeReader,
}

impl Kernel {
    /// Loads and attaches all that can be, for the network namespace of the calling thread. Call it before other
    /// threads are started and before privileges are given up; afterwards no capability is needed but those
    /// [`Kernel::needs`] names. What is missing comes with the reason and the cure.
    ///
    /// # Errors
    /// When not even the changes of TCP sockets can be followed.
    pub fn start(options: &Options) -> Result<(Self, Watcher, Vec<Missing>), StartError> {
        let host = Host::look().map_err(os("reading capabilities"))?;
        let lacks = host.lacks();
        if !lacks.is_empty() {
            return Err(StartError::Lacks(lacks));
        }
        if host.charges_locked_memory() {
            allow_locked_memory();
        }
        let types = start::types()?;
        let mut ebpf = load(&types)?;
        let counters = Counters::map(&ebpf).map_err(os("mapping counters"))?;
        let ring = ring(&mut ebpf)?;
        // Before any program asks for them.
        let addresses = follow_addresses(&mut ebpf)?;
        let mut missing = Vec::new();
        programs::trace(&mut ebpf, "state", "inet_sock_set_state", &types).map_err(
            |Refusal { why, cure }| StartError::Refused {
                step: "following TCP sockets",
                why,
                cure,
            },
        )?;
        let (refused, filtered) = attach_drops(&mut ebpf, &types, &host, &mut missing);
        let connections = note(
            Part::Connections,
            programs::load_walk(&mut ebpf, "seed", &types),
            &mut missing,
        )
        .is_some();
        let udp_listeners = note(
            Part::UdpListeners,
            attach_binds(&mut ebpf, &counters),
            &mut missing,
        )
        .is_some();

        let attempts = options.tap
            && note(
                Part::Attempts,
                attach_tap(&mut ebpf, &types, options),
                &mut missing,
            )
            .is_some();
        drop(types);
        memory::give_back();
        let clock = Arc::new(Clock::new());
        let is_current = Arc::new(AtomicBool::new(true));
        let (ended, end) = io::pipe().map_err(os("opening a pipe"))?;
        let kernel = Self {
            parts: Parts {
                attempts,
                refused,
                filtered,
                connections,
                udp_listeners,
            },
            misses: Misses::of(&ebpf),
            needs: host.needs_kept(),
            ebpf,
            counters,
            clock: Arc::clone(&clock),
            addresses_are_current: Arc::clone(&is_current),
            settled: PortSet::new(),
            gauged: PortSet::new(),
            _end: end,
        };
        let watcher = Watcher {
            ring,
            addresses,
            is_current,
            clock,
            ended,
        };
        Ok((kernel, watcher, missing))
    }

    /// Says which ports are watched: only for them are listener events told and connections kept count of. All other
    /// counters are kept for every port. Can be called again, and needs no privilege.
    ///
    /// # Errors
    /// When the connections that newly watched ports have already could not be counted; their gauge is then absent,
    /// and all else stands.
    pub fn watch(&mut self, ports: &PortSet) -> Result<(), Error> {
        self.counters.watch(ports);
        let walked = self.settle(ports);
        self.gauged = ports.clone();
        self.gauged.intersect(&self.settled);
        walked
    }

    /// Has the TCP connections of ports counted, those that are there and those that come.
    fn settle(&mut self, ports: &PortSet) -> Result<(), Error> {
        let mut fresh = ports.clone();
        fresh.subtract(&self.settled);
        if !self.parts.connections || fresh.numbers(Protocol::Tcp).next().is_none() {
            return Ok(());
        }
        // New connections first, old ones second: see the module's words.
        self.counters.gauge(&fresh);
        programs::walk(&mut self.ebpf, "seed").map_err(|Refusal { why, .. }| Error::Seed(why))?;
        self.counters.settle(&fresh);
        self.settled.unite(&fresh);
        Ok(())
    }

    /// Whether the programs know the host's addresses as they are, as far as the [`Watcher`] can tell. If not, attempts on new
    /// ones are not counted.
    #[must_use]
    pub fn addresses_are_current(&self) -> bool {
        self.addresses_are_current.load(Ordering::Relaxed)
    }

    /// The counters, for one scrape.
    #[must_use]
    pub fn read(&self) -> Reading<'_> {
        self.clock.refresh();
        Reading { kernel: self }
    }

    /// What is known to have been missed: listener events that found the ring full, sockets that could not be marked,
    /// drops whose headers could not be read, and what came just while a program ran on that processor.
    #[must_use]
    pub fn lost(&self) -> u64 {
        let lost = self.counters.lost();
        lost.events + lost.marks + lost.headers + self.misses.count()
    }

    /// Capabilities that must be kept for as long as this lives.
    #[must_use]
    pub const fn needs(&self) -> &'static [Capability] {
        self.needs
    }
}

impl fmt::Debug for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kernel")
            .field("parts", &self.parts)
            .finish_non_exhaustive()
    }
}

impl Reading<'_> {
    /// What was counted on a port since start. Each number is exact and was so a moment ago; together they are not of
    /// one instant.
    #[must_use]
    pub fn counts(&self, port: Port) -> PortCounts {
        let Kernel {
            counters,
            clock,
            parts,
            ..
        } = self.kernel;
        let tcp = |value: u64| (port.protocol == Protocol::Tcp).then_some(value);
        let openings = port.protocol == Protocol::Tcp || parts.udp_listeners;
        PortCounts {
            attempts: parts.attempts.then(|| counters.attempts(port)),
            accepted: tcp(counters.accepted(port.number)),
            refused: parts.refused.then(|| counters.refused(port)),
            filtered: parts.filtered.then(|| counters.filtered(port)),
            outbound: tcp(counters.outbound(port.number)),
            outbound_failures: tcp(counters.outbound_failures(port.number)),
            opened: openings.then(|| counters.opened(port)),
            opened_at: clock.wall(counters.opened_at(port)).filter(|_| openings),
            last_attempt: clock.wall(counters.attempted_at(port)),
            connections: self
                .kernel
                .gauged
                .contains(port)
                .then(|| counters.established(port.number))
                .flatten()
                .filter(|_| port.protocol == Protocol::Tcp),
        }
    }

    /// The kernel's number for the newest socket that was seen to open on a port: for UDP, that was bound by a call and
    /// not by sending. `None` until one was.
    #[must_use]
    pub fn opened_cookie(&self, port: Port) -> Option<NonZeroU64> {
        NonZeroU64::new(self.kernel.counters.opened_cookie(port))
    }

    /// UDP datagrams refused on all ports. `None` where refusals are not counted.
    #[must_use]
    pub fn udp_refused(&self) -> Option<u64> {
        let Kernel {
            counters, parts, ..
        } = self.kernel;
        let refused = |number| counters.refused(Port::udp(number));
        parts.refused.then(|| (0..=u16::MAX).map(refused).sum())
    }

    /// Whether knocks are counted; without, the knocks of [`Reading::space`] are absent, not 0.
    #[must_use]
    pub fn knocks_are_counted(&self) -> bool {
        self.kernel.parts.refused
    }

    /// The sums over the whole port space.
    #[must_use]
    pub fn space(&self, space: &mut Space) -> SpaceCounts {
        space.read(&self.kernel.counters)
    }

    /// Gives the sums over to others by other classes: what both make of one and the same moment.
    #[must_use]
    pub fn hand_over(&self, from: &mut Space, to: &mut Space) -> (SpaceCounts, SpaceCounts) {
        from.hand_over(to, &self.kernel.counters)
    }
}

impl Watcher {
    /// Takes in what is there, without waiting. Whoever opens listeners without end does not keep it from the addresses.
    pub fn drain(&mut self, mut on_event: impl FnMut(ListenerEvent)) {
        for _ in 0..MOST_AT_ONCE {
            let Some(item) = self.ring.next() else {
                break;
            };
            match listeners::decode(&item, &self.clock) {
                Some(event) => on_event(event),
                None => debug!(bytes = item.len(), "a listener event was not understood"),
            }
        }
        let updated = self.addresses.update();
        let were_current = self.is_current.swap(updated.is_ok(), Ordering::Relaxed);
        match updated {
            Err(error) if were_current => warn!(
                %error,
                "the host's addresses could not be followed; attempts count for those known before, and it is tried again"
            ),
            Ok(()) if !were_current => info!("the host's addresses are followed again"),
            _ => {}
        }
    }

    /// Waits for events and changes of addresses, and takes them in, until the [`Kernel`] is dropped.
    ///
    /// # Errors
    /// When waiting fails.
    pub fn run(mut self, mut on_event: impl FnMut(ListenerEvent)) -> io::Result<()> {
        loop {
            self.drain(&mut on_event);
            if self.wait()? {
                self.drain(&mut on_event);
                return Ok(());
            }
        }
    }

    /// Waits; true when the end has come.
    fn wait(&self) -> io::Result<bool> {
        let mut waiting = [
            PollFd::new(&self.ended, PollFlags::IN),
            PollFd::new(&self.ring, PollFlags::IN),
            PollFd::new(&self.addresses, PollFlags::IN),
        ];
        // What could not be read may be read later, and nobody says when.
        let pause = (!self.is_current.load(Ordering::Relaxed)).then_some(&AGAIN);
        match poll(&mut waiting, pause) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(!waiting[0].revents().is_empty()),
            Err(error) => Err(error.into()),
        }
    }
}

impl fmt::Debug for Watcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watcher")
            .field("addresses", &self.addresses)
            .finish_non_exhaustive()
    }
}

#[cfg(any(test, fuzzing))]
pub(crate) use addresses::fuzz;
