//! The socket table: what listens on this host and what is connected.
//!
//! Three readers answer the same question in the same words. [`netlink`] asks the Linux kernel and has it filter; it costs
//! what is watched. [`portable`] asks netstat2, on Linux, macOS and Windows. [`procfs`] reads the text files of Linux, which are left
//! where a sandbox forbids netlink. The latter two cost what the host is busy with. None knows metrics, configuration or
//! owners.
//!
//! A reader that cannot give the whole table gives an error: a short table would read as silence. And because a reader may
//! not notice, each table is held against what is known to listen, the exporter's own sockets.

#[cfg(target_os = "linux")]
use std::collections::HashSet;
use std::fmt;
#[cfg(target_os = "linux")]
use std::hash::Hash;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU64;

use crate::port::{Port, PortSet};

mod concern;
#[cfg(target_os = "linux")]
pub mod netlink;
pub mod portable;
#[cfg(target_os = "linux")]
pub mod procfs;

use concern::Concern;

/// A socket on which the host listens: TCP in LISTEN, or a bound, unconnected UDP socket.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Listener {
    /// The local port.
    pub port: Port,
    /// The local address; `0.0.0.0` or `::` where it listens on all.
    pub address: IpAddr,
    /// The kernel's number for this socket, never used twice while the host is up. `None` where the reader cannot tell.
    pub cookie: Option<NonZeroU64>,
    /// Inode of the socket in sockfs, as `/proc/PID/fd` shows it; 0 for a socket without a file, such as one the
    /// kernel itself owns. `None` where the reader cannot tell.
    pub inode: Option<u64>,
    /// User id of the socket's creator. `None` where the reader cannot tell.
    pub uid: Option<u32>,
    /// Id of the version 2 control group in which the socket was created. `None` where the reader cannot tell.
    pub cgroup: Option<NonZeroU64>,
}

/// Tells one listening socket from another: the cookie; where the reader knows none, port, address and inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ListenerKey {
    /// The kernel's number.
    Cookie(NonZeroU64),
    /// Port, address and inode, which may come again after the socket has closed.
    Place(Port, IpAddr, Option<u64>),
}

impl Listener {
    /// What tells this socket from another.
    #[must_use]
    pub fn key(&self) -> ListenerKey {
        self.cookie.map_or(
            ListenerKey::Place(self.port, self.address, self.inode),
            ListenerKey::Cookie,
        )
    }
}

/// A TCP connection: any synchronised state but TIME-WAIT, that is ESTABLISHED, FIN-WAIT, CLOSE-WAIT, LAST-ACK, CLOSING.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Connection {
    /// This host's end.
    pub local: SocketAddr,
    /// The other end.
    pub remote: SocketAddr,
    /// Whether it is in ESTABLISHED.
    pub established: bool,
    /// The kernel's number for this socket. `None` where the reader cannot tell.
    pub cookie: Option<NonZeroU64>,
}

/// What the host showed at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SocketTable {
    /// Every listener of the exporter's network namespace, in no order. One entry a socket.
    pub listeners: Vec<Listener>,
    /// The connections that were asked for; empty if none were.
    pub connections: Vec<Connection>,
    /// Entries that could not be understood and are missing above.
    pub skipped: u64,
}

/// Which connections a reader returns. Listeners are always returned, all of them.
#[derive(Clone, Copy, Debug)]
pub enum Wanted<'a> {
    /// None: only listeners.
    Listeners,
    /// Those that concern a watched TCP port: inbound to one (its local port is watched and is, or was, listened on),
    /// or outbound to one (its remote port is watched and its local port is not listened on). A reader may return more.
    Connections {
        /// The watched ports.
        watched: &'a PortSet,
        /// Ports that were listened on earlier and may still have connections; those that are not watched do not matter.
        listened: &'a PortSet,
    },
}

/// Why a table could not be read. Displayed whole, its cause included.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system refused a step.
    #[error("{step}: {error}")]
    Os {
        /// What was being done.
        step: &'static str,
        /// What it said.
        error: std::io::Error,
    },
    /// The answer could not be trusted to be whole.
    #[error("the socket table could not be read whole: {0}")]
    Incomplete(String),
    /// No reader works here.
    #[error("no reader of the socket table works here: {0}")]
    Unavailable(Refusals),
}

/// Readers that do not work here, each with the reason, in the order in which they were tried.
#[derive(Debug, Default)]
pub struct Refusals(pub Vec<(Choice, Error)>);

impl fmt::Display for Refusals {
    /// One clause a reader: `netlink: REASON; netstat2: REASON`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (reader, reason)) in self.0.iter().enumerate() {
            let joint = if index == 0 { "" } else { "; " };
            write!(f, "{joint}{}: {reason}", reader.as_str())?;
        }
        Ok(())
    }
}

/// Which reader is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// The best that works.
    #[default]
    Auto,
    /// sock_diag; Linux only.
    Netlink,
    /// netstat2.
    Netstat2,
    /// `/proc/net`; Linux only.
    Procfs,
}

impl Choice {
    /// All choices.
    pub const ALL: [Self; 4] = [Self::Auto, Self::Netlink, Self::Netstat2, Self::Procfs];

    /// What [`Choice::Auto`] tries. netstat2 asks the same of the kernel as netlink, in a plainer way: it may do where that
    /// one stumbles.
    #[cfg(target_os = "linux")]
    const BEST_FIRST: &'static [Self] = &[Self::Netlink, Self::Netstat2, Self::Procfs];
    #[cfg(not(target_os = "linux"))]
    const BEST_FIRST: &'static [Self] = &[Self::Netstat2];

    /// The name as it stands in the flag.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Netlink => "netlink",
            Self::Netstat2 => "netstat2",
            Self::Procfs => "procfs",
        }
    }
}

/// The reader in use, and what every table of it must show.
#[derive(Debug)]
pub struct Reader {
    source: Source,
    own: Vec<SocketAddr>,
}

impl Reader {
    /// Opens the reader chosen, in the calling thread's network namespace, and reads the listeners once to see that it
    /// works. With [`Choice::Auto`] the second value says which better ones do not; otherwise it is empty.
    ///
    /// `own` are TCP sockets that listen in this namespace as long as the reader is used, such as the exporter's own: a
    /// table without one of them is an error. Without any, a table that ended early may pass for whole.
    ///
    /// # Errors
    /// When the reader chosen does not work here; with [`Choice::Auto`], when none does.
    pub fn open(choice: Choice, own: Vec<SocketAddr>) -> Result<(Self, Refusals), Error> {
        if choice != Choice::Auto {
            return Ok((Self::open_one(choice, own)?, Refusals::default()));
        }
        let mut refusals = Refusals::default();
        for &candidate in Choice::BEST_FIRST {
            match Self::open_one(candidate, own.clone()) {
                Ok(reader) => return Ok((reader, refusals)),
                Err(reason) => refusals.0.push((candidate, reason)),
            }
        }
        Err(Error::Unavailable(refusals))
    }

    fn open_one(choice: Choice, own: Vec<SocketAddr>) -> Result<Self, Error> {
        let mut reader = Self {
            source: Source::open(choice)?,
            own,
        };
        reader.read(Wanted::Listeners)?;
        Ok(reader)
    }

    /// Which reader this is; never [`Choice::Auto`].
    #[must_use]
    pub const fn choice(&self) -> Choice {
        match self.source {
            #[cfg(target_os = "linux")]
            Source::Netlink(_) => Choice::Netlink,
            Source::Portable(_) => Choice::Netstat2,
            #[cfg(target_os = "linux")]
            Source::Procfs(_) => Choice::Procfs,
        }
    }

    /// Reads the table.
    ///
    /// # Errors
    /// When the table cannot be had whole, or lacks a socket that is known to listen.
    pub fn read(&mut self, wanted: Wanted<'_>) -> Result<SocketTable, Error> {
        let table = match &mut self.source {
            #[cfg(target_os = "linux")]
            Source::Netlink(reader) => reader.read(wanted),
            Source::Portable(reader) => reader.read(wanted),
            #[cfg(target_os = "linux")]
            Source::Procfs(reader) => reader.read(wanted),
        }?;
        match missing(&self.own, &table.listeners) {
            None => Ok(table),
            Some(address) => Err(Error::Incomplete(format!(
                "{} does not show the exporter's own listener on {address}",
                self.choice().as_str()
            ))),
        }
    }
}

/// Where a table comes from.
#[derive(Debug)]
enum Source {
    #[cfg(target_os = "linux")]
    Netlink(netlink::Netlink),
    Portable(portable::Portable),
    #[cfg(target_os = "linux")]
    Procfs(procfs::Procfs),
}

impl Source {
    fn open(choice: Choice) -> Result<Self, Error> {
        match choice {
            Choice::Netstat2 => Ok(Self::Portable(portable::Portable)),
            #[cfg(target_os = "linux")]
            Choice::Auto | Choice::Netlink => netlink::Netlink::open().map(Self::Netlink),
            #[cfg(target_os = "linux")]
            Choice::Procfs => Ok(Self::Procfs(procfs::Procfs::own())),
            #[cfg(not(target_os = "linux"))]
            _ => Err(Error::Os {
                step: "open a reader that only Linux has",
                error: std::io::ErrorKind::Unsupported.into(),
            }),
        }
    }
}

/// The first of these addresses on which nothing listens.
fn missing<'a>(own: &'a [SocketAddr], listeners: &[Listener]) -> Option<&'a SocketAddr> {
    own.iter().find(|address| {
        !listeners
            .iter()
            .any(|listener| stands_for(listener, address))
    })
}

/// Whether a listener is the one on this address. Systems differ in whether they show a socket of both families as
/// `0.0.0.0` or `::`.
fn stands_for(listener: &Listener, own: &SocketAddr) -> bool {
    let address = own.ip().to_canonical();
    listener.port == Port::tcp(own.port())
        && (listener.address == address
            || listener.address.is_unspecified() && address.is_unspecified())
}

/// Without the second showing of a socket: the kernel goes on by position between two parts of a list, and a socket that joined
/// the same hash bucket meanwhile moves the others back. What has no key is left as it is.
#[cfg(target_os = "linux")]
fn once_each<T, K: Eq + Hash>(mut found: Vec<T>, key: impl Fn(&T) -> Option<K>) -> Vec<T> {
    let mut seen = HashSet::with_capacity(found.len());
    found.retain(|item| key(item).is_none_or(|key| seen.insert(key)));
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(address: &str, port: Port) -> Listener {
        Listener {
            port,
            address: address.parse().unwrap(),
            cookie: None,
            inode: None,
            uid: None,
            cgroup: None,
        }
    }

    #[test]
    fn each_of_the_own_sockets_must_be_there() {
        let own = ["127.0.0.1:10561", "[::]:10562"].map(|own| own.parse().unwrap());
        let first = shown("127.0.0.1", Port::tcp(10_561));
        let second = shown("::", Port::tcp(10_562));
        assert_eq!(missing(&own, &[first.clone(), second.clone()]), None);
        assert_eq!(missing(&own, &[first]), Some(&own[1]));
        assert_eq!(missing(&own, &[second]), Some(&own[0]));
        assert_eq!(missing(&own, &[]), Some(&own[0]));
        assert_eq!(missing(&[], &[]), None);
    }

    #[test]
    fn an_own_socket_is_known_by_port_protocol_and_address() {
        let own = "127.0.0.1:10561".parse().unwrap();
        let is = |address, port| stands_for(&shown(address, port), &own);
        assert!(is("127.0.0.1", Port::tcp(10_561)));
        assert!(!is("127.0.0.2", Port::tcp(10_561)));
        assert!(!is("127.0.0.1", Port::udp(10_561)));
        assert!(!is("127.0.0.1", Port::tcp(10_562)));
        let everywhere = "[::]:10561".parse().unwrap();
        assert!(stands_for(
            &shown("0.0.0.0", Port::tcp(10_561)),
            &everywhere
        ));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_socket_shown_twice_counts_once() {
        let shown = vec![(1, 'a'), (0, 'b'), (2, 'c'), (1, 'd'), (0, 'e')];
        let left = once_each(shown, |item| NonZeroU64::new(item.0));
        let names: String = left.iter().map(|item| item.1).collect();
        assert_eq!(names, "abce");
    }

    #[test]
    fn every_refusal_is_told_with_its_reason() {
        let why = |what: &str| Error::Incomplete(what.to_owned());
        let refusals = Refusals(vec![
            (Choice::Netlink, why("one")),
            (Choice::Netstat2, why("two")),
        ]);
        assert_eq!(
            refusals.to_string(),
            "netlink: the socket table could not be read whole: one; \
             netstat2: the socket table could not be read whole: two"
        );
    }
}
