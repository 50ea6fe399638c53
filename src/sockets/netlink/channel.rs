//! The socket through which the kernel is asked, and what is done when an answer is not whole. Knows no sockets table.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::sockopt::{self, Timeout};
use rustix::net::{self, AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use super::inet_diag::Request;
use super::message::{self, Broken, Dump, Progress};
use crate::sockets::Error;

/// The kernel answers in the call that asks, so this is never waited for unless something is badly wrong.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often a dump is asked for before it is given up.
const ATTEMPTS: u32 = 4;
/// No datagram of a dump is larger: `netlink_recvmsg` makes them as large as what the reader offered, up to 32 KiB.
const BUFFER: usize = 32 * 1024;
/// The kernel's own address on any netlink socket.
const KERNEL: SocketAddrNetlink = SocketAddrNetlink::new(0, 0);

/// A sock_diag socket in the network namespace in which it was opened.
#[derive(Debug)]
pub(super) struct Channel {
    socket: OwnedFd,
    buffer: Box<[u8]>,
    sequence: u32,
    /// A dump was left before its end, and the rest of it is still to come.
    unsettled: bool,
}

impl Channel {
    /// Opens a socket in the calling thread's network namespace.
    pub(super) fn open() -> Result<Self, Error> {
        let os = |errno: Errno| Error::Os {
            step: "open a netlink socket for sock_diag",
            error: errno.into(),
        };
        let socket = net::socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            Some(netlink::SOCK_DIAG),
        )
        .map_err(os)?;
        // Connected to the kernel, the socket takes nothing from other processes.
        net::connect(&socket, &KERNEL).map_err(os)?;
        sockopt::set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE)).map_err(os)?;
        Ok(Self {
            socket,
            buffer: vec![0; BUFFER].into(),
            sequence: 0,
            unsettled: false,
        })
    }

    /// Dumps what `request` asks for. Each entry's bytes go to `take` with what has been gathered so far; an attempt
    /// that failed leaves nothing behind.
    pub(super) fn dump<G: Default>(
        &mut self,
        request: &Request<'_>,
        take: impl Fn(&mut G, &[u8]) -> Result<(), Broken>,
    ) -> Result<G, Error> {
        let body = request.body();
        let mut attempt = 1;
        loop {
            match self.attempt(request.kind(), &body, &take) {
                Ok(gathered) => return Ok(gathered),
                Err(failure) if failure.is_passing() && attempt < ATTEMPTS => attempt += 1,
                Err(failure) => return Err(failure.into_error(request.step())),
            }
        }
    }

    fn attempt<G: Default>(
        &mut self,
        kind: u16,
        body: &[u8],
        take: impl Fn(&mut G, &[u8]) -> Result<(), Broken>,
    ) -> Result<G, Failure> {
        if self.unsettled {
            self.settle()?;
        }
        self.sequence = self.sequence.wrapping_add(1);
        let request = message::dump_request(kind, self.sequence, body);
        net::send(&self.socket, &request, SendFlags::empty())?;
        self.unsettled = true;
        let mut dump = Dump::new(kind, self.sequence);
        let mut gathered = G::default();
        loop {
            let length = self.receive(RecvFlags::empty())?;
            let datagram = self
                .buffer
                .get(..length)
                .ok_or(Broken::Malformed("datagram larger than the buffer"))?;
            match dump.feed(datagram, |payload| take(&mut gathered, payload)) {
                Ok(Progress::More) => {}
                Ok(Progress::Done) => {
                    self.unsettled = false;
                    return Ok(gathered);
                }
                Err(broken) => {
                    // These two stand at the end of a dump: nothing of it is left.
                    self.unsettled = matches!(broken, Broken::Malformed(_));
                    return Err(broken.into());
                }
            }
        }
    }

    /// Takes what is left of a dump out of the socket; the kernel goes on dumping while it is read.
    fn settle(&mut self) -> Result<(), Failure> {
        loop {
            match self.receive(RecvFlags::DONTWAIT) {
                Ok(_) => {}
                Err(Errno::AGAIN) => {
                    self.unsettled = false;
                    return Ok(());
                }
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// Receives a datagram of the kernel; returns how long it was, even if that is more than the buffer took.
    fn receive(&mut self, flags: RecvFlags) -> Result<usize, Errno> {
        loop {
            let received =
                net::recvfrom(&self.socket, &mut self.buffer[..], flags | RecvFlags::TRUNC);
            match received {
                Ok((_, length, Some(sender)))
                    if SocketAddrNetlink::try_from(sender.clone())
                        .is_ok_and(|sender| sender.pid() == KERNEL.pid()) =>
                {
                    return Ok(length);
                }
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
        }
    }
}

/// Why one attempt failed.
#[derive(Debug)]
enum Failure {
    Call(Errno),
    Answer(Broken),
}

impl From<Errno> for Failure {
    fn from(errno: Errno) -> Self {
        Self::Call(errno)
    }
}

impl From<Broken> for Failure {
    fn from(broken: Broken) -> Self {
        Self::Answer(broken)
    }
}

impl Failure {
    /// Whether another attempt may do better.
    fn is_passing(&self) -> bool {
        match self {
            Self::Call(errno) => is_passing(*errno),
            Self::Answer(Broken::Refused(number)) => is_passing(Errno::from_raw_os_error(*number)),
            Self::Answer(Broken::Interrupted | Broken::Malformed(_)) => true,
        }
    }

    fn into_error(self, step: &'static str) -> Error {
        match self {
            Self::Call(Errno::AGAIN) => Error::Incomplete(format!(
                "{step}: no answer from the kernel within {} s",
                PATIENCE.as_secs()
            )),
            Self::Call(errno) => Error::Os {
                step,
                error: errno.into(),
            },
            Self::Answer(Broken::Refused(number)) => Error::Os {
                step,
                error: io::Error::from_raw_os_error(number),
            },
            Self::Answer(Broken::Interrupted) => Error::Incomplete(format!(
                "{step}: it changed while it was read, {ATTEMPTS} times over"
            )),
            Self::Answer(Broken::Malformed(what)) => {
                Error::Incomplete(format!("{step}: {what} in the kernel's answer"))
            }
        }
    }
}

/// Full buffers, memory short for the moment, a dump still running.
fn is_passing(errno: Errno) -> bool {
    matches!(errno, Errno::NOBUFS | Errno::NOMEM | Errno::BUSY)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::net::{Ipv4Addr, TcpListener};

    use super::*;
    use crate::sockets::netlink::inet_diag::{Entry, States};

    const REQUEST: Request<'_> = Request::Tcp {
        states: States::LISTEN,
        filter: &[],
    };

    /// So many that they need several datagrams.
    fn listeners() -> Vec<TcpListener> {
        let bind = |_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        (0..400).map(bind).collect()
    }

    fn assert_shows_all(ports: &[u16], listeners: &[TcpListener]) {
        for listener in listeners {
            assert!(ports.contains(&listener.local_addr().unwrap().port()));
        }
    }

    fn port(bytes: &[u8]) -> Result<u16, Broken> {
        Ok(Entry::parse(bytes)?
            .expect("an internet socket")
            .local
            .port())
    }

    #[test]
    fn a_dump_that_failed_is_asked_for_again() {
        let listeners = listeners();
        let mut channel = Channel::open().unwrap();
        let failures = Cell::new(0);
        let ports = channel
            .dump(&REQUEST, |ports: &mut Vec<u16>, bytes| {
                ports.push(port(bytes)?);
                if ports.len() == 10 && failures.get() < 2 {
                    failures.set(failures.get() + 1);
                    return Err(Broken::Malformed("test"));
                }
                Ok(())
            })
            .unwrap();
        assert_eq!(failures.get(), 2);
        assert_shows_all(&ports, &listeners);
        let mut distinct = ports.clone();
        distinct.sort_unstable();
        distinct.dedup();
        assert!(distinct.len() >= listeners.len());
    }

    #[test]
    fn a_dump_given_up_is_an_error_and_leaves_the_next_one_whole() {
        let listeners = listeners();
        let mut channel = Channel::open().unwrap();
        let attempts = Cell::new(0);
        let refused = channel.dump(&REQUEST, |_: &mut (), _| {
            attempts.set(attempts.get() + 1);
            Err(Broken::Malformed("test"))
        });
        assert!(matches!(refused, Err(Error::Incomplete(_))));
        assert_eq!(attempts.get(), ATTEMPTS);
        assert!(channel.unsettled);
        let ports = channel
            .dump(&REQUEST, |ports: &mut Vec<u16>, bytes| {
                ports.push(port(bytes)?);
                Ok(())
            })
            .unwrap();
        assert_shows_all(&ports, &listeners);
        assert!(!channel.unsettled);
    }

    #[test]
    fn a_datagram_larger_than_the_buffer_is_an_error() {
        let _listeners = listeners();
        let mut channel = Channel::open().unwrap();
        // The kernel makes no datagram smaller than a page, whatever the reader offers.
        channel.buffer = vec![0; 512].into();
        let refused = channel.dump(&REQUEST, |_: &mut (), _| Ok(()));
        let message = refused.unwrap_err().to_string();
        assert!(message.contains("larger than the buffer"), "{message}");
    }

    #[test]
    fn a_filter_the_kernel_does_not_understand_is_an_error() {
        let mut channel = Channel::open().unwrap();
        let request = Request::Tcp {
            states: States::LISTEN,
            filter: &[255, 4, 4, 0],
        };
        let refused = channel.dump(&request, |_: &mut (), _| Ok(()));
        assert!(matches!(refused, Err(Error::Os { .. })), "{refused:?}");
        assert!(channel.dump(&REQUEST, |_: &mut (), _| Ok(())).is_ok());
    }
}
