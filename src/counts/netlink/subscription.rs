//! One netlink socket that hears of the sockets the kernel destroys.
//!
//! A group of `enum sknetlink_groups` (linux/sock_diag.h) tells of one protocol over one address family. Each has a netlink
//! socket of its own: a message then meets one filter and one buffer, and a burst of one kind does not crowd out the
//! others. Knows no counters.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_SOCK_DIAG;
use nix::libc;
use nix::sys::socket::{getsockopt, sockopt::GetStruct};
use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{RecvFlags, sockopt};
use socket2::{SockFilter, SockRef};

use crate::port::{PortSet, Protocol};

use super::Error;
use super::filter::{self, Instruction, MAX_SPANS, Share};

/// Longer than any message: a kernel that grows `struct tcp_info` many times over still fits.
pub(super) const LONGEST_MESSAGE: usize = 4096;

/// The receive buffer asked for, in octets: 26,000 messages. Memory is taken by waiting messages only, 1,280 octets each.
const RECEIVE_BUFFER: usize = 32 << 20;

/// What the sockets of a TCP group should hold together, in octets. The kernel tells of sockets from a work queue, and where
/// processors are short that waits, and so does the reader: then thousands are told in one go.
const ENOUGH: usize = 32 << 20;

/// Sockets among which a TCP group is shared, at most: each costs every closed socket of the host some 0.1 us.
const MOST_SHARES: usize = 4;

/// A buffer that holds what the kernel can tell within some milliseconds.
const LARGE: usize = 4 << 20;

/// What is heard on a socket: a protocol over one address family.
#[derive(Clone, Copy, Debug)]
pub(super) struct Group {
    pub(super) protocol: Protocol,
    /// The bit of the group in a bind mask: 1 << (number - 1).
    mask: u32,
}

impl Group {
    /// `SKNLGRP_INET_TCP_DESTROY`, `INET_UDP`, `INET6_TCP`, `INET6_UDP`: 1 to 4.
    pub(super) const ALL: [Self; 4] = [
        Self {
            protocol: Protocol::Tcp,
            mask: 1 << 0,
        },
        Self {
            protocol: Protocol::Udp,
            mask: 1 << 1,
        },
        Self {
            protocol: Protocol::Tcp,
            mask: 1 << 2,
        },
        Self {
            protocol: Protocol::Udp,
            mask: 1 << 3,
        },
    ];
}

/// What a receive yielded.
#[derive(Debug)]
pub(super) enum Heard {
    /// A message of this length.
    Message(usize),
    /// Nothing waits.
    Nothing,
}

/// A socket subscribed to one group.
#[derive(Debug)]
pub(super) struct Subscription {
    socket: Socket,
    protocol: Protocol,
    share: Share,
    /// Drops accounted for, as `sk_drops` counts them: modulo 2^32.
    drops: u32,
    /// Whether the buffer holds what comes within a few milliseconds at the highest rate.
    has_large_buffer: bool,
    /// Overruns told of since then, where drops cannot be read.
    overruns: u32,
}

impl Subscription {
    /// Subscribes to a group, filtered from the first message on. One socket does if its buffer is large; where the user
    /// may have a small one only, several share TCP's messages.
    pub(super) fn open(
        group: Group,
        watched: &PortSet,
        receive_buffer: Option<usize>,
    ) -> Result<Vec<Self>, Error> {
        let first = unbound(receive_buffer)?;
        let buffer = sockopt::socket_recv_buffer_size(&first)
            .map_err(Error::os("look at the netlink socket's buffer"))?;
        let shares = match group.protocol {
            Protocol::Tcp => shares(buffer),
            Protocol::Udp => 1,
        };
        let mut subscriptions = Vec::with_capacity(usize::from(shares));
        let mut socket = Some(first);
        for index in 0..shares {
            let socket = match socket.take() {
                Some(first) => first,
                None => unbound(receive_buffer)?,
            };
            let share = Share { index, of: shares };
            subscriptions.push(Self::bind(socket, group, share, watched)?);
        }
        Ok(subscriptions)
    }

    fn bind(socket: Socket, group: Group, share: Share, watched: &PortSet) -> Result<Self, Error> {
        let buffer = sockopt::socket_recv_buffer_size(&socket)
            .map_err(Error::os("look at the netlink socket's buffer"))?;
        let protocol = group.protocol;
        let subscription = Self {
            socket,
            protocol,
            share,
            drops: 0,
            has_large_buffer: buffer >= LARGE,
            overruns: 0,
        };
        subscription.filter(watched)?;
        rustix::net::bind(&subscription.socket, &SocketAddrNetlink::new(0, group.mask))
            .map_err(Error::os("subscribe to destroyed sockets"))?;
        Ok(subscription)
    }

    /// Whether messages may wait some milliseconds.
    pub(super) fn has_large_buffer(&self) -> bool {
        self.has_large_buffer
    }

    /// The protocol heard of.
    pub(super) fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Puts a filter for these ports in place of the old one. No message is lost: each meets the one or the other, or
    /// passes while there is none. On an error there is none.
    pub(super) fn filter(&self, watched: &PortSet) -> Result<(), Error> {
        let socket = SockRef::from(&self.socket);
        let mut spans = MAX_SPANS;
        loop {
            let program: Vec<SockFilter> =
                filter::compile(watched, self.protocol, self.share, spans)
                    .iter()
                    .map(loadable)
                    .collect();
            let Err(refusal) = socket.attach_filter(&program) else {
                return Ok(());
            };
            // The memory a socket may spend on filters (net.core.optmem_max) must hold the old and the new one.
            let has_old = socket.detach_filter().is_ok();
            if !has_old {
                spans /= 2;
            }
            if refusal.raw_os_error() != Some(Errno::NOMEM.raw_os_error()) || spans == 0 {
                return Err(Error::Os {
                    step: "filter the netlink socket",
                    source: refusal,
                });
            }
        }
    }

    /// Receives without waiting.
    pub(super) fn receive(&mut self, buffer: &mut [u8; LONGEST_MESSAGE]) -> io::Result<Heard> {
        loop {
            match rustix::net::recvfrom(&self.socket, &mut buffer[..], RecvFlags::empty()) {
                Ok((length, _, sender)) => {
                    // Only the kernel's word counts: it has port id 0.
                    let sender = sender.and_then(|any| SocketAddrNetlink::try_from(any).ok());
                    if sender.is_some_and(|sender| sender.pid() == 0) {
                        return Ok(Heard::Message(length));
                    }
                }
                Err(Errno::AGAIN) => return Ok(Heard::Nothing),
                Err(Errno::NOBUFS) => self.overruns += 1,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// How many messages were dropped since this was last asked: by the kernel's own count, or where that cannot be read, one
    /// for each time it told of an overrun.
    pub(super) fn newly_dropped(&mut self) -> u32 {
        let overruns = std::mem::take(&mut self.overruns);
        let Some(drops) = drops_of_kernel(&self.socket) else {
            return overruns;
        };
        let fresh = drops.wrapping_sub(self.drops);
        self.drops = drops;
        fresh
    }
}

impl AsFd for Subscription {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn unbound(receive_buffer: Option<usize>) -> Result<Socket, Error> {
    let socket = Socket::new(NETLINK_SOCK_DIAG).map_err(Error::io("open a netlink socket"))?;
    socket
        .set_non_blocking(true)
        .map_err(Error::io("prepare the netlink socket"))?;
    // Else the kernel drops everything from an overrun on until the buffer is empty, not only what does not fit.
    if drops_of_kernel(&socket).is_some() {
        socket
            .set_no_enobufs(true)
            .map_err(Error::io("prepare the netlink socket"))?;
    }
    enlarge(socket.as_fd(), receive_buffer)?;
    Ok(socket)
}

/// How many sockets with a buffer of this size share a TCP group: a power of two.
fn shares(buffer: usize) -> u16 {
    let enough = ENOUGH.div_ceil(buffer.max(1));
    enough.next_power_of_two().min(MOST_SHARES) as u16
}

/// Takes the largest buffer there is to be had: what is asked for with CAP_NET_ADMIN, else up to net.core.rmem_max.
fn enlarge(socket: BorrowedFd<'_>, receive_buffer: Option<usize>) -> Result<(), Error> {
    let step = "enlarge the netlink socket's buffer";
    match receive_buffer {
        Some(octets) => {
            sockopt::set_socket_recv_buffer_size(socket, octets).map_err(Error::os(step))
        }
        None => sockopt::set_socket_recv_buffer_size_force(socket, RECEIVE_BUFFER)
            .or_else(|_| sockopt::set_socket_recv_buffer_size(socket, RECEIVE_BUFFER))
            .map_err(Error::os(step)),
    }
}

fn loadable(instruction: &Instruction) -> SockFilter {
    let Instruction { code, jt, jf, k } = *instruction;
    SockFilter::new(code, jt, jf, k)
}

/// The words of `SO_MEMINFO`, `enum` `SK_MEMINFO_*` of linux/sock_diag.h: all that the first kernel with the option had.
const MEMINFO_WORDS: usize = 9;
/// `SK_MEMINFO_DROPS`.
const MEMINFO_DROPS: usize = 8;

/// The option by which a socket tells of its memory and its drops. Asked of the socket itself, because the list of all netlink
/// sockets, `/proc/net/netlink`, is as long as any user makes it.
#[derive(Clone, Copy)]
struct MemoryInfo;

nix::getsockopt_impl!(
    MemoryInfo,
    libc::SOL_SOCKET,
    libc::SO_MEMINFO,
    [u32; MEMINFO_WORDS],
    GetStruct<[u32; MEMINFO_WORDS]>
);

/// What the kernel says it has dropped on a socket since it was opened; `None` before Linux 4.12.
fn drops_of_kernel(socket: &Socket) -> Option<u32> {
    getsockopt(socket, MemoryInfo)
        .ok()
        .map(|words| words[MEMINFO_DROPS])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subscription_knows_of_its_drops() {
        let watched = PortSet::full();
        for group in Group::ALL {
            for mut subscription in Subscription::open(group, &watched, None).unwrap() {
                assert_eq!(drops_of_kernel(&subscription.socket), Some(0));
                assert_eq!(subscription.newly_dropped(), 0);
            }
        }
    }

    #[test]
    fn a_small_buffer_is_made_up_for_by_more_sockets() {
        assert_eq!(shares(64 << 20), 1);
        assert_eq!(shares(32 << 20), 1);
        assert_eq!(shares(16 << 20), 2);
        assert_eq!(shares(8 << 20), 4);
        assert_eq!(shares(425_984), 4);
        assert_eq!(shares(0), 4);
    }

    #[test]
    fn the_kernel_takes_filters_of_every_size_and_their_replacement() {
        let every_other: PortSet = (0..=u16::MAX)
            .step_by(2)
            .flat_map(|number| Protocol::ALL.map(|protocol| crate::port::Port { number, protocol }))
            .collect();
        for group in Group::ALL {
            let subscriptions = Subscription::open(group, &every_other, None).unwrap();
            for watched in [
                PortSet::new(),
                PortSet::full(),
                every_other.clone(),
                every_other.clone(),
            ] {
                subscriptions[0].filter(&watched).unwrap();
            }
        }
    }
}
