//! The socket table over sock_diag (sock_diag(7)), which any user may read.
//!
//! The kernel is asked only for what is wanted: TCP sockets in LISTEN, UDP sockets that are connected to nobody, and of
//! the connections those that concern a watched port. What it does not say completely is an error. Knows the kernel's
//! layouts through its modules only: `message` frames, `inet_diag` reads a socket, `filter` compiles ports,
//! `channel` does the talking.
//!
//! A listener opened as Multipath TCP needs nothing of its own. The kernel puts a TCP socket under it, gives that one
//! the inode, the user and the control group of the socket the process holds, and shows it among TCP's; only the cookie is
//! the TCP socket's, which is also the one it names when that socket is destroyed.

mod channel;
mod filter;
mod inet_diag;
mod message;

use self::channel::Channel;
use self::inet_diag::{Entry, Family, Request, States};
use self::message::Broken;
use super::{Concern, Connection, Error, Listener, SocketTable, Wanted, once_each};
use crate::port::{Port, Protocol};

/// Reads the table from the Linux kernel: that of the network namespace in which it was opened, whichever thread reads.
#[derive(Debug)]
pub struct Netlink {
    channel: Channel,
}

impl Netlink {
    /// Opens a socket in the calling thread's network namespace. Whether the kernel answers shows when it is read.
    ///
    /// # Errors
    /// When the socket cannot be had.
    pub fn open() -> Result<Self, Error> {
        let channel = Channel::open()?;
        Ok(Self { channel })
    }

    /// Reads the table.
    ///
    /// # Errors
    /// When the table cannot be had whole, after a few attempts. The reader can be used again.
    pub fn read(&mut self, wanted: Wanted<'_>) -> Result<SocketTable, Error> {
        let mut table = SocketTable::default();
        let listening = Request::Tcp {
            states: States::LISTEN,
            filter: &[],
        };
        self.listeners(Protocol::Tcp, &listening, &mut table)?;
        for family in Family::ALL {
            let bound = Request::Udp {
                family,
                filter: &filter::UNCONNECTED,
            };
            self.listeners(Protocol::Udp, &bound, &mut table)?;
        }
        if let Wanted::Connections { watched, listened } = wanted {
            let concern = Concern::of(watched, listened, &table.listeners);
            self.connections(&concern, &mut table)?;
        }
        Ok(table)
    }

    fn listeners(
        &mut self,
        protocol: Protocol,
        request: &Request<'_>,
        table: &mut SocketTable,
    ) -> Result<(), Error> {
        let found = self.dump(request, |entry| {
            (entry.remote.port() == 0).then(|| listener(protocol, entry))
        })?;
        table.skipped += found.skipped;
        table
            .listeners
            .extend(once_each(found.kept, |listener| listener.cookie));
        Ok(())
    }

    fn connections(&mut self, concern: &Concern<'_>, table: &mut SocketTable) -> Result<(), Error> {
        let Some(program) = filter::compile(concern) else {
            return Ok(());
        };
        let request = Request::Tcp {
            states: States::CONNECTED,
            filter: &program,
        };
        let found = self.dump(&request, |entry| {
            let concerns = concern.includes(entry.local.port(), entry.remote.port());
            (concerns && !entry.is_remnant).then(|| connection(entry))
        })?;
        table.skipped += found.skipped;
        table.connections = once_each(found.kept, |connection| connection.cookie);
        Ok(())
    }

    fn dump<T>(
        &mut self,
        request: &Request<'_>,
        keep: impl Fn(&Entry) -> Option<T>,
    ) -> Result<Found<T>, Error> {
        self.channel.dump(
            request,
            |found: &mut Found<T>, bytes| -> Result<(), Broken> {
                match Entry::parse(bytes)? {
                    Some(entry) => found.kept.extend(keep(&entry)),
                    None => found.skipped += 1,
                }
                Ok(())
            },
        )
    }
}

/// What one dump yielded.
#[derive(Debug)]
struct Found<T> {
    kept: Vec<T>,
    skipped: u64,
}

impl<T> Default for Found<T> {
    fn default() -> Self {
        Self {
            kept: Vec::new(),
            skipped: 0,
        }
    }
}

fn listener(protocol: Protocol, entry: &Entry) -> Listener {
    Listener {
        port: Port {
            number: entry.local.port(),
            protocol,
        },
        address: entry.local.ip(),
        cookie: entry.cookie,
        inode: Some(entry.inode.into()),
        uid: Some(entry.uid),
        cgroup: entry.cgroup,
    }
}

fn connection(entry: &Entry) -> Connection {
    Connection {
        local: entry.local,
        remote: entry.remote,
        established: entry.established,
        cookie: entry.cookie,
    }
}

/// An answer to a dump, in one datagram.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz(bytes: &[u8]) {
    const SEQUENCE: u32 = 1;
    for kind in [18, 20] {
        let mut payloads = 0;
        let progress = message::Dump::new(kind, SEQUENCE).feed(bytes, |payload| {
            payloads += payload.len();
            if let Some(entry) = Entry::parse(payload)? {
                for shown in [entry.local, entry.remote] {
                    assert_eq!(shown.ip(), shown.ip().to_canonical());
                }
            }
            Ok(())
        });
        assert!(payloads <= bytes.len(), "{progress:?}");
    }
}
