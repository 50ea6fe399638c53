//! The kernel tier on Linux.
//!
//! [`Kernel::start`] loads `darkport.bpf.o` and attaches what can be attached. From then on the kernel counts by itself;
//! [`Reading`] reads mapped memory, and [`Watcher`], on a thread of its own, passes listener events on and keeps the
//! host's addresses current.
//!
//! *Connections.* `established` is counted up and down at changes of state, each socket marked while it is counted. A
//! port that comes to be watched may have connections already: [`Kernel::watch`] first has new ones marked, then has
//! the kernel walk its TCP sockets once, each under its lock, and mark those that are not yet. So none is counted twice
//! and none missed, whatever opens and closes meanwhile. (Before Linux 5.15 the walk takes no lock, and a connection
//! closing that moment may stay counted.) No scrape walks the table of connections.

use std::fmt;
use std::fs;
use std::io::{self, PipeReader, PipeWriter};
use std::num::NonZeroU64;
use std::os::unix::fs::MetadataExt;
use std::panic;
use std::sync::Arc;

use aya::maps::lpm_trie::LpmTrie;
use aya::maps::{Map, MapData, MapError, RingBuf};
use aya::{Btf, Ebpf, EbpfError, EbpfLoader, include_bytes_aligned};
use rustix::event::{PollFd, PollFlags, poll};
use tracing::{debug, warn};

use super::{Error, ListenerEvent, Missing, Options, Part, Space, StartError};
use crate::counts::{PortCounts, SpaceCounts};
use crate::port::{Port, PortSet, Protocol};
use crate::privileges::{Capability, lacking};

use addresses::Addresses;
use clock::Clock;
use counters::Counters;
use programs::Refusal;

mod addresses;
mod clock;
mod counters;
mod listeners;
mod memory;
mod programs;

static OBJECT: &[u8] = include_bytes_aligned!("darkport.bpf.o");

/// Where the kernel describes its types.
const TYPES: &str = "/sys/kernel/btf/vmlinux";

const STRANGE_TYPES: &str =
    "report the kernel's version, and use --collector.tier=netlink or polled";

/// The programs and what they have counted. While it lives they are attached; nothing else keeps them.
pub struct Kernel {
    ebpf: Ebpf,
    counters: Counters,
    clock: Arc<Clock>,
    parts: Parts,
    /// TCP ports whose connections are all marked.
    seeded: PortSet,
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
        let lacked =
            lacking(&[Capability::Bpf, Capability::Perfmon]).map_err(os("reading capabilities"))?;
        if !lacked.is_empty() {
            return Err(StartError::Capabilities(lacked));
        }
        if is_older_than(5, 8) {
            return Err(StartError::TooOld);
        }
        allow_locked_memory();
        let types = Btf::from_sys_fs().map_err(|error| StartError::Types {
            path: TYPES,
            reason: error.to_string(),
        })?;
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
        let (refused, filtered) = attach_drops(&mut ebpf, &types, &mut missing);
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
                programs::trace(&mut ebpf, "tap", "netif_receive_skb", &types),
                &mut missing,
            )
            .is_some();
        drop(types);
        memory::give_back();
        let clock = Arc::new(Clock::new());
        let (ended, end) = io::pipe().map_err(os("opening a pipe"))?;
        let kernel = Self {
            parts: Parts {
                attempts,
                refused,
                filtered,
                connections,
                udp_listeners,
            },
            ebpf,
            counters,
            clock: Arc::clone(&clock),
            seeded: PortSet::new(),
            _end: end,
        };
        let watcher = Watcher {
            ring,
            addresses,
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
        // New connections first, old ones second: see the module's words.
        self.counters.watch(ports);
        self.seeded.intersect(ports);
        if !self.parts.connections || ports.numbers(Protocol::Tcp).next().is_none() {
            return Ok(());
        }
        let mut fresh = ports.clone();
        fresh.subtract(&self.seeded);
        if fresh.numbers(Protocol::Tcp).next().is_some() {
            programs::walk(&mut self.ebpf, "seed")
                .map_err(|Refusal { why, .. }| Error::Seed(why))?;
            self.seeded = ports.clone();
        }
        Ok(())
    }

    /// The counters, for one scrape.
    #[must_use]
    pub fn read(&self) -> Reading<'_> {
        self.clock.refresh();
        Reading { kernel: self }
    }

    /// What is known to have been missed: listener events that found the ring full, sockets that could not be marked,
    /// drops whose headers could not be read.
    #[must_use]
    pub fn lost(&self) -> u64 {
        let lost = self.counters.lost();
        lost.events + lost.marks + lost.headers
    }

    /// Capabilities that must be kept for as long as this lives. Before Linux 5.19, with
    /// `kernel.unprivileged_bpf_disabled` set, even changing a map of one's own takes CAP_BPF.
    #[must_use]
    pub fn needs(&self) -> &'static [Capability] {
        if is_older_than(5, 19) {
            &[Capability::Bpf]
        } else {
            &[]
        }
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
                .seeded
                .contains(port)
                .then(|| counters.established(port.number))
                .filter(|_| port.protocol == Protocol::Tcp),
        }
    }

    /// The kernel's number for the newest socket that was seen to open on a port: for UDP, that was bound by a call and
    /// not by sending. `None` until one was.
    #[must_use]
    pub fn opened_cookie(&self, port: Port) -> Option<NonZeroU64> {
        NonZeroU64::new(self.kernel.counters.opened_cookie(port))
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
}

impl Watcher {
    /// Takes in what is there, without waiting.
    pub fn drain(&mut self, mut on_event: impl FnMut(ListenerEvent)) {
        while let Some(item) = self.ring.next() {
            match listeners::decode(&item, &self.clock) {
                Some(event) => on_event(event),
                None => debug!(bytes = item.len(), "a listener event was not understood"),
            }
        }
        if let Err(error) = self.addresses.update() {
            warn!(%error, "the host's addresses could not be followed; attempts count for those known before");
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
        match poll(&mut waiting, None) {
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

fn load(types: &Btf) -> Result<Ebpf, StartError> {
    let netns = own_netns().map_err(os("reading /proc/thread-self/ns/net"))?;
    let load = || {
        EbpfLoader::new()
            .btf(Some(types))
            .override_global("own_netns", &netns, true)
            .load(OBJECT)
    };
    // The loader panics over some shapes that a kernel's types can have. No kernel may bring the exporter down.
    let loaded =
        panic::catch_unwind(panic::AssertUnwindSafe(load)).map_err(|_| StartError::Refused {
            step: "fitting the programs to this kernel's types",
            why: "the loader does not know one of their shapes".to_owned(),
            cure: STRANGE_TYPES.to_owned(),
        })?;
    loaded.map_err(|error| {
        let cure = match &error {
            EbpfError::MapError(MapError::CreateError { io_error, .. }) => programs::cure(io_error),
            _ => STRANGE_TYPES,
        };
        StartError::Refused {
            step: "making the kernel tier's maps",
            why: chain(&error),
            cure: cure.to_owned(),
        }
    })
}

/// Attaches what tells refused from filtered; whether each is counted.
fn attach_drops(ebpf: &mut Ebpf, types: &Btf, missing: &mut Vec<Missing>) -> (bool, bool) {
    const CURE: &str =
        "Linux 5.17 gives reasons for dropped packets, 5.18 for those a firewall dropped";
    let refused = note(
        Part::Refused,
        programs::trace(ebpf, "dropped", "kfree_skb", types).map_err(|refusal| Refusal {
            cure: if is_older_than(5, 17) {
                CURE.to_owned()
            } else {
                refusal.cure
            },
            ..refusal
        }),
        missing,
    )
    .is_some();
    let filtered = refused && !is_older_than(5, 18);
    if refused && !filtered {
        missing.push(Missing {
            part: Part::Filtered,
            why: "this kernel does not say when a firewall drops a packet".to_owned(),
            cure: CURE.to_owned(),
        });
    }
    (refused, filtered)
}

fn attach_binds(ebpf: &mut Ebpf, counters: &Counters) -> Result<(), Refusal> {
    let group = programs::root_group()?;
    // Only for the moment in which it is needed: it is called for every socket of the host.
    programs::on_group(ebpf, "released", &group)?;
    let named = name_own_netns(counters);
    programs::detach_from_group(ebpf, "released")?;
    named.map_err(|error| {
        Refusal::new(
            format!("naming the own network namespace to the programs: {error}"),
            "this is a defect: report it",
        )
    })?;
    programs::on_group(ebpf, "bound4", &group)?;
    programs::on_group(ebpf, "bound6", &group)
}

/// Closes a socket that the programs know to be ours, so that they learn its network namespace.
fn name_own_netns(counters: &Counters) -> io::Result<()> {
    let socket = rustix::net::socket(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::DGRAM,
        None,
    )?;
    counters.name_own_socket(rustix::net::sockopt::socket_cookie(&socket)?);
    drop(socket);
    if counters.netns_is_known() {
        Ok(())
    } else {
        Err(io::Error::other("they did not see a socket close"))
    }
}

fn follow_addresses(ebpf: &mut Ebpf) -> Result<Addresses, StartError> {
    let step = "reading the host's own addresses";
    let map = ebpf
        .take_map("addresses")
        .ok_or_else(|| io::Error::other("the eBPF object has no map addresses"))
        .and_then(|map| LpmTrie::try_from(map).map_err(io::Error::other))
        .map_err(os(step))?;
    Addresses::follow(map).map_err(os(step))
}

fn ring(ebpf: &mut Ebpf) -> Result<RingBuf<MapData>, StartError> {
    ebpf.take_map("events")
        .ok_or_else(|| io::Error::other("the eBPF object has no map events"))
        .and_then(|map: Map| RingBuf::try_from(map).map_err(io::Error::other))
        .map_err(os("mapping the ring of listener events"))
}

fn note<T>(part: Part, result: Result<T, Refusal>, missing: &mut Vec<Missing>) -> Option<T> {
    result
        .map_err(|refusal| missing.push(refusal.of(part)))
        .ok()
}

fn os(step: &'static str) -> impl Fn(io::Error) -> StartError {
    move |source| StartError::Os { step, source }
}

/// Inode number of the calling thread's network namespace; the kernel's own number for it. 32 bits there.
fn own_netns() -> io::Result<u32> {
    let inode = fs::metadata("/proc/thread-self/ns/net")?.ino();
    u32::try_from(inode).map_err(io::Error::other)
}

/// Before Linux 5.11 maps count as locked memory, of which little is allowed.
fn allow_locked_memory() {
    use rustix::process::{Resource, Rlimit, setrlimit};
    if is_older_than(5, 11) {
        let unlimited = Rlimit {
            current: None,
            maximum: None,
        };
        if let Err(error) = setrlimit(Resource::Memlock, unlimited) {
            debug!(%error, "the limit of locked memory could not be raised");
        }
    }
}

/// Whether the running kernel's version is below this one. A version that cannot be read is taken to be new.
fn is_older_than(major: u32, minor: u32) -> bool {
    let uname = rustix::system::uname();
    let release = uname.release().to_string_lossy();
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map_while(|number| number.parse::<u32>().ok());
    match (numbers.next(), numbers.next()) {
        (Some(running), Some(patch)) => (running, patch) < (major, minor),
        _ => false,
    }
}

/// An error with all that stands behind it.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let more = source.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        next = source.source();
    }
    text
}
