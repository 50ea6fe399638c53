//! The socket table: what listens on this host and what is connected.
//!
//! Two readers answer the same question in the same words: [`netlink`] asks the Linux kernel and has it filter;
//! [`portable`] asks netstat2, works everywhere, and is the fallback. Neither knows metrics, configuration or owners.
//! A reader that cannot give the whole table gives an error: a short table would read as silence.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU64;

use crate::port::{Port, PortSet};

#[cfg(target_os = "linux")]
pub mod netlink;
pub mod portable;

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
        /// Ports that were listened on earlier and may still have connections.
        listened: &'a PortSet,
    },
}

/// Why a table could not be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system refused a step.
    #[error("{step}: {source}")]
    Os {
        /// What was being done.
        step: &'static str,
        /// What it said.
        source: std::io::Error,
    },
    /// The kernel's answer could not be trusted to be whole.
    #[error("the socket table could not be read whole: {0}")]
    Incomplete(String),
}

/// Which reader is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// netlink where it is available, else netstat2.
    #[default]
    Auto,
    /// sock_diag; Linux only.
    Netlink,
    /// netstat2.
    Netstat2,
}

impl Choice {
    /// All choices.
    pub const ALL: [Self; 3] = [Self::Auto, Self::Netlink, Self::Netstat2];

    /// The name as it stands in the flag.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Netlink => "netlink",
            Self::Netstat2 => "netstat2",
        }
    }
}

/// The reader in use.
#[derive(Debug)]
pub enum Reader {
    /// sock_diag.
    #[cfg(target_os = "linux")]
    Netlink(netlink::Netlink),
    /// netstat2.
    Portable(portable::Portable),
}

impl Reader {
    /// Opens the reader chosen, in the calling thread's network namespace. With [`Choice::Auto`] the second value says why the
    /// portable reader stands in for netlink; otherwise it is `None`.
    ///
    /// `sentinels` are listening TCP sockets of this process and namespace; see [`portable::Portable::open`].
    ///
    /// # Errors
    /// When the reader chosen is not available here; with [`Choice::Auto`], when none is.
    pub fn open(
        choice: Choice,
        sentinels: Vec<SocketAddr>,
    ) -> Result<(Self, Option<Error>), Error> {
        match choice {
            Choice::Auto => match Self::open_netlink() {
                Ok(reader) => Ok((reader, None)),
                Err(why) => Ok((Self::open_portable(sentinels)?, Some(why))),
            },
            Choice::Netlink => Ok((Self::open_netlink()?, None)),
            Choice::Netstat2 => Ok((Self::open_portable(sentinels)?, None)),
        }
    }

    #[cfg(target_os = "linux")]
    fn open_netlink() -> Result<Self, Error> {
        netlink::Netlink::open().map(Self::Netlink)
    }

    #[cfg(not(target_os = "linux"))]
    fn open_netlink() -> Result<Self, Error> {
        Err(Error::Os {
            step: "open a netlink socket, which only Linux has",
            source: std::io::ErrorKind::Unsupported.into(),
        })
    }

    fn open_portable(sentinels: Vec<SocketAddr>) -> Result<Self, Error> {
        portable::Portable::open(sentinels).map(Self::Portable)
    }

    /// Which reader this is; never [`Choice::Auto`].
    #[must_use]
    pub const fn choice(&self) -> Choice {
        match self {
            #[cfg(target_os = "linux")]
            Self::Netlink(_) => Choice::Netlink,
            Self::Portable(_) => Choice::Netstat2,
        }
    }

    /// Reads the table.
    ///
    /// # Errors
    /// When the table cannot be had whole.
    pub fn read(&mut self, wanted: Wanted<'_>) -> Result<SocketTable, Error> {
        match self {
            #[cfg(target_os = "linux")]
            Self::Netlink(reader) => reader.read(wanted),
            Self::Portable(reader) => reader.read(wanted),
        }
    }
}

/// Which connections concern a watched port: the definition that stands at [`Wanted::Connections`].
#[derive(Debug)]
struct Concern<'a> {
    watched: &'a PortSet,
    /// The ports listened on, now or earlier.
    open: PortSet,
}

impl<'a> Concern<'a> {
    fn new(watched: &'a PortSet, open: PortSet) -> Self {
        Self { watched, open }
    }

    fn of(watched: &'a PortSet, listened: &PortSet, listeners: &[Listener]) -> Self {
        let mut open = listened.clone();
        open.extend(listeners.iter().map(|listener| listener.port));
        Self::new(watched, open)
    }

    fn is_watched(&self, number: u16) -> bool {
        self.watched.contains(Port::tcp(number))
    }

    fn is_open(&self, number: u16) -> bool {
        self.open.contains(Port::tcp(number))
    }

    /// Whether a connection between these TCP ports does.
    fn includes(&self, local: u16, remote: u16) -> bool {
        if self.is_open(local) {
            self.is_watched(local)
        } else {
            self.is_watched(remote)
        }
    }
}
