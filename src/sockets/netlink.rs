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

use std::collections::HashSet;
use std::num::NonZeroU64;

use self::channel::Channel;
use self::inet_diag::{Entry, Family, Request, States};
use self::message::Broken;
use super::{Concern, Connection, Error, Listener, SocketTable, Wanted};
use crate::port::{Port, Protocol};

/// Reads the table from the Linux kernel: that of the network namespace in which it was opened, whichever thread reads.
#[derive(Debug)]
pub struct Netlink {
    channel: Channel,
}

impl Netlink {
    /// Opens a socket in the calling thread's network namespace and reads the listeners once to see that the kernel
    /// answers.
    ///
    /// # Errors
    /// When the socket cannot be had, or the kernel does not list TCP or UDP sockets.
    pub fn open() -> Result<Self, Error> {
        let mut reader = Self {
            channel: Channel::open()?,
        };
        reader.read(Wanted::Listeners)?;
        Ok(reader)
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
        table
            .connections
            .extend(once_each(found.kept, |connection| connection.cookie));
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

/// Without the second showing of a socket: a dump goes on by position between datagrams, and a socket that joined the same hash
/// bucket meanwhile moves the others back.
fn once_each<T>(
    found: Vec<T>,
    cookie: impl Fn(&T) -> Option<NonZeroU64>,
) -> impl Iterator<Item = T> {
    let mut seen = HashSet::with_capacity(found.len());
    found
        .into_iter()
        .filter(move |item| cookie(item).is_none_or(|cookie| seen.insert(cookie)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_shown_twice_counts_once() {
        let shown = vec![(1, 'a'), (0, 'b'), (2, 'c'), (1, 'd'), (0, 'e')];
        let left: String = once_each(shown, |item| NonZeroU64::new(item.0))
            .map(|item| item.1)
            .collect();
        assert_eq!(left, "abce");
    }
}
