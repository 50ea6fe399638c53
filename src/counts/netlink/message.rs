//! What the kernel says of a socket it destroys, and what can be concluded from it.
//!
//! Pure: octets in, a [`Destroyed`] out. The layouts are those of linux/netlink.h, linux/inet_diag.h and `struct
//! tcp_info` in linux/tcp.h, which only ever grow at their end. One datagram holds one message.
//!
//! # What a destroyed TCP socket still shows
//!
//! Its state is CLOSE whatever it was before. The local port stays. The remote port stays too, unless the socket was
//! disconnected: by close(2) with `SO_LINGER` 0, by a connect(2) that failed while the caller waited, or because it was
//! never accepted when its listener closed. A disconnected socket has lost its counts of octets and segments as well, but
//! keeps the MSS it advertised and the window the peer last offered.
//!
//! | the socket | remote port | advertised MSS | acknowledged octets | round trip, delivered |
//! |---|---|---|---|---|
//! | listened, or was only bound | 0 | 0 | 0 | 0 |
//! | connected, or was accepted | kept | set | 1 more where it opened actively, 1 more for a FIN | set |
//! | was refused or timed out | kept or 0 | set | 0 | 0 |
//! | connected, then disconnected | 0 | set | 0 | 0, but the peer's window is kept |
//!
//! A TCP socket that was bound and closed without listen(2) or connect(2) leaves exactly what a listener leaves.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU64;

use crate::port::{Port, Protocol};

/// Offset of `idiag_sport`, in network order.
pub(super) const LOCAL_PORT: usize = DIAG + 4;
/// Offset of `idiag_dport`, in network order.
pub(super) const REMOTE_PORT: usize = DIAG + 6;
/// Offset of the first attribute.
pub(super) const ATTRIBUTES: usize = DIAG + 72;
/// `struct nlattr`: length and type.
pub(super) const ATTRIBUTE_HEADER: usize = 4;
/// The attribute that holds `struct tcp_info`.
pub(super) const INET_DIAG_INFO: u16 = 2;
/// Offset of `tcpi_advmss` in `struct tcp_info`.
pub(super) const ADVERTISED_MSS: usize = 84;

/// Offset of `struct inet_diag_msg`: the length of `struct nlmsghdr`.
const DIAG: usize = 16;
const LOCAL_ADDRESS: usize = DIAG + 8;
const COOKIE: usize = DIAG + 44;
const WRITE_QUEUE: usize = DIAG + 60;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// A socket the kernel has destroyed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Destroyed {
    /// Its local port, never 0.
    pub(super) port: Port,
    /// Its local address.
    pub(super) address: IpAddr,
    /// The kernel's number for it.
    pub(super) cookie: NonZeroU64,
    /// What it had been.
    pub(super) was: Was,
}

/// What a destroyed socket had been.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Was {
    /// A listener, or bound and never used.
    Listener,
    /// A TCP connection, or an attempt at one.
    Connection {
        /// The remote port; `None` where the socket had been disconnected.
        remote: Option<u16>,
        /// Whether a handshake was completed.
        synchronised: bool,
        /// Who began it.
        origin: Origin,
    },
    /// Of no concern: never bound, or a connected UDP socket.
    Neither,
}

/// Which end opened a connection, as far as the numbers of the destroyed socket prove it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Origin {
    /// This one.
    Active,
    /// The other.
    Passive,
    /// They allow both.
    Unproven,
}

/// A message that is not what the kernel sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unreadable;

impl Destroyed {
    /// Reads one message. `Ok(None)` where the socket is of no concern.
    pub(super) fn parse(bytes: &[u8], protocol: Protocol) -> Result<Option<Self>, Unreadable> {
        let read = || -> Option<(Port, IpAddr, Option<NonZeroU64>, Was)> {
            let length = usize::try_from(native_u32(bytes, 0)?).ok()?;
            if native_u16(bytes, 4)? != SOCK_DIAG_BY_FAMILY || length < ATTRIBUTES {
                return None;
            }
            let bytes = bytes.get(..length)?;
            let port = Port {
                number: network_u16(bytes, LOCAL_PORT)?,
                protocol,
            };
            // Two words, the low one first whatever the byte order.
            let (low, high) = (native_u32(bytes, COOKIE)?, native_u32(bytes, COOKIE + 4)?);
            let cookie = NonZeroU64::new(u64::from(high) << 32 | u64::from(low));
            let was = what_it_was(bytes, port)?;
            Some((port, local_address(bytes)?, cookie, was))
        };
        let (port, address, cookie, was) = read().ok_or(Unreadable)?;
        if was == Was::Neither {
            return Ok(None);
        }
        let cookie = cookie.ok_or(Unreadable)?;
        Ok(Some(Self {
            port,
            address,
            cookie,
            was,
        }))
    }
}

fn what_it_was(bytes: &[u8], local: Port) -> Option<Was> {
    let remote = network_u16(bytes, REMOTE_PORT)?;
    if local.number == 0 {
        return Some(Was::Neither);
    }
    if local.protocol == Protocol::Udp {
        return Some(if remote == 0 {
            Was::Listener
        } else {
            Was::Neither
        });
    }
    let info = TcpInfo(attribute(bytes, INET_DIAG_INFO).unwrap_or_default());
    if remote == 0 && info.advertised_mss().unwrap_or(0) == 0 {
        return Some(Was::Listener);
    }
    if remote == 0 {
        return Some(Was::Connection {
            remote: None,
            synchronised: info.peer_offered_a_window(),
            origin: Origin::Unproven,
        });
    }
    Some(Was::Connection {
        remote: Some(remote),
        synchronised: info.is_synchronised(),
        origin: info.origin(native_u32(bytes, WRITE_QUEUE)?),
    })
}

/// `struct tcp_info`, as much of it as this kernel fills in.
struct TcpInfo<'a>(&'a [u8]);

impl TcpInfo<'_> {
    fn advertised_mss(&self) -> Option<u32> {
        native_u32(self.0, ADVERTISED_MSS)
    }

    fn smoothed_rtt(&self) -> Option<u32> {
        native_u32(self.0, 68)
    }

    /// Since Linux 4.1. Counts the SYN of an active opener and a FIN as an octet each.
    fn bytes_acknowledged(&self) -> Option<u64> {
        native_u64(self.0, 120)
    }

    /// Since Linux 4.6.
    fn not_sent(&self) -> Option<u32> {
        native_u32(self.0, 144)
    }

    /// Since Linux 4.18. Counts the SYN, of either side.
    fn delivered(&self) -> Option<u32> {
        native_u32(self.0, 192)
    }

    /// Since Linux 4.19. Data only.
    fn bytes_sent(&self) -> Option<u64> {
        native_u64(self.0, 200)
    }

    /// Since Linux 4.19.
    fn bytes_retransmitted(&self) -> Option<u64> {
        native_u64(self.0, 208)
    }

    /// Since Linux 5.4.
    fn send_window(&self) -> Option<u32> {
        native_u32(self.0, 228)
    }

    /// Whether a handshake was completed. A kernel that says nothing at all is taken to mean yes.
    fn is_synchronised(&self) -> bool {
        self.0.is_empty()
            || self.delivered().is_some_and(|segments| segments > 0)
            || self.bytes_acknowledged().is_some_and(|octets| octets > 0)
            || self.smoothed_rtt().is_some_and(|rtt| rtt > 0)
    }

    /// Whether a disconnected socket had a peer: a refused one never heard of a window.
    fn peer_offered_a_window(&self) -> bool {
        self.send_window().is_none_or(|window| window > 0)
    }

    /// Who opened the connection. All the socket ever put into its sequence space is what was acknowledged and what
    /// was still queued; take the data away and there remain the active opener's SYN and a FIN. Neither: passive. Both:
    /// active. One of them could be either.
    fn origin(&self, write_queue: u32) -> Origin {
        let flags = || -> Option<u64> {
            let all = self
                .bytes_acknowledged()?
                .wrapping_add(u64::from(write_queue));
            let data = self
                .bytes_sent()?
                .wrapping_sub(self.bytes_retransmitted()?)
                .wrapping_add(u64::from(self.not_sent()?));
            Some(all.wrapping_sub(data))
        };
        match flags() {
            Some(0) => Origin::Passive,
            Some(2) => Origin::Active,
            _ => Origin::Unproven,
        }
    }
}

fn local_address(bytes: &[u8]) -> Option<IpAddr> {
    match *bytes.get(DIAG)? {
        AF_INET => {
            let octets: [u8; 4] = take(bytes, LOCAL_ADDRESS)?;
            Some(Ipv4Addr::from(octets).into())
        }
        AF_INET6 => {
            let octets: [u8; 16] = take(bytes, LOCAL_ADDRESS)?;
            Some(Ipv6Addr::from(octets).to_canonical())
        }
        _ => None,
    }
}

/// The payload of the first attribute of a type.
fn attribute(bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    let mut at = ATTRIBUTES;
    loop {
        let length = usize::from(native_u16(bytes, at)?);
        let kind = native_u16(bytes, at + 2)?;
        let payload = bytes.get(at + ATTRIBUTE_HEADER..at + length)?;
        if kind == wanted {
            return Some(payload);
        }
        at += length.next_multiple_of(4);
    }
}

fn take<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

fn network_u16(bytes: &[u8], at: usize) -> Option<u16> {
    take(bytes, at).map(u16::from_be_bytes)
}

fn native_u16(bytes: &[u8], at: usize) -> Option<u16> {
    take(bytes, at).map(u16::from_ne_bytes)
}

fn native_u32(bytes: &[u8], at: usize) -> Option<u32> {
    take(bytes, at).map(u32::from_ne_bytes)
}

fn native_u64(bytes: &[u8], at: usize) -> Option<u64> {
    take(bytes, at).map(u64::from_ne_bytes)
}

#[cfg(test)]
mod tests;
