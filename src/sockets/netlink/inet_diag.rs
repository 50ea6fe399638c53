//! What sock_diag asks and answers about one internet socket: the layouts of `linux/inet_diag.h`. Bytes only, no socket.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU64;

use super::message::{self, Broken, array_at, u32_at};

/// `TCPDIAG_GETSOCK` of `linux/inet_diag.h`: the type of request and answer that goes back to Linux 2.6.
const TCPDIAG_GETSOCK: u16 = 18;
/// `SOCK_DIAG_BY_FAMILY` of `linux/sock_diag.h`: the type of request and answer for one protocol and address family.
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const IPPROTO_UDP: u8 = 17;

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const INET_DIAG_REQ_BYTECODE: u16 = 1;
const INET_DIAG_CGROUP_ID: u16 = 21;

/// An address family of the internet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    pub(super) const ALL: [Self; 2] = [Self::V4, Self::V6];
}

/// A set of socket states, one bit each as numbered in `net/tcp_states.h`; UDP borrows some of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct States(u32);

const ESTABLISHED: u8 = 1;

/// `idiag_timer` of what is left of a connection in TIME-WAIT, or in FIN-WAIT-2 after close(2).
const TIME_WAIT_TIMER: u8 = 3;

impl States {
    /// LISTEN.
    pub(super) const LISTEN: Self = Self(1 << 10);
    /// The synchronised ones but TIME-WAIT: ESTABLISHED, FIN-WAIT-1, FIN-WAIT-2, CLOSE-WAIT, LAST-ACK, CLOSING.
    pub(super) const CONNECTED: Self =
        Self(1 << ESTABLISHED | 1 << 4 | 1 << 5 | 1 << 8 | 1 << 9 | 1 << 11);
    /// All.
    const ALL: Self = Self(u32::MAX);
}

/// A dump to ask for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Request<'a> {
    /// TCP sockets of both address families.
    ///
    /// Asked for in the old way, because it takes no family: the kernel walks its hash table of all connections
    /// once. In the newer way it walks the table for each family, and the walk is what such a dump costs.
    Tcp {
        /// In these states.
        states: States,
        /// Bytecode that the kernel runs on every connection; empty for none.
        filter: &'a [u8],
    },
    /// UDP sockets of a family.
    Udp {
        family: Family,
        /// Bytecode that the kernel runs on every socket; empty for none.
        filter: &'a [u8],
    },
}

impl Request<'_> {
    /// The type of the request, and of the entries in its answer.
    pub(super) const fn kind(&self) -> u16 {
        match self {
            Self::Tcp { .. } => TCPDIAG_GETSOCK,
            Self::Udp { .. } => SOCK_DIAG_BY_FAMILY,
        }
    }

    /// `struct inet_diag_req` or `inet_diag_req_v2`, and the filter behind it. Ports, addresses, interface and cookie in
    /// there would name one socket; all zero asks for every one.
    pub(super) fn body(&self) -> Vec<u8> {
        let (mut body, filter) = match *self {
            Self::Tcp { states, filter } => {
                let mut body = vec![0; 52];
                body.extend(states.0.to_ne_bytes());
                body.extend([0; 4]);
                (body, filter)
            }
            Self::Udp { family, filter } => {
                let family = match family {
                    Family::V4 => AF_INET,
                    Family::V6 => AF_INET6,
                };
                let mut body = vec![family, IPPROTO_UDP, 0, 0];
                body.extend(States::ALL.0.to_ne_bytes());
                body.extend([0; 48]);
                (body, filter)
            }
        };
        if !filter.is_empty() {
            message::push_attribute(&mut body, INET_DIAG_REQ_BYTECODE, filter);
        }
        body
    }

    /// What is being done, for messages.
    pub(super) const fn step(&self) -> &'static str {
        match self {
            Self::Tcp { .. } => "list TCP sockets (kernel modules inet_diag and tcp_diag)",
            Self::Udp { .. } => "list UDP sockets (kernel modules inet_diag and udp_diag)",
        }
    }
}

/// Length of `struct inet_diag_msg`.
const ENTRY: usize = 72;

/// One socket as the kernel shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) local: SocketAddr,
    pub(super) remote: SocketAddr,
    pub(super) established: bool,
    /// Whether the socket itself is destroyed already and a small stand-in, with a cookie of its own, waits in its place.
    pub(super) is_remnant: bool,
    pub(super) cookie: Option<NonZeroU64>,
    pub(super) uid: u32,
    pub(super) inode: u32,
    /// From Linux 5.7 on.
    pub(super) cgroup: Option<NonZeroU64>,
}

impl Entry {
    /// Reads `struct inet_diag_msg` and its attributes; `None` for a family that is neither IPv4 nor IPv6.
    pub(super) fn parse(bytes: &[u8]) -> Result<Option<Self>, Broken> {
        let (fixed, attributes) = bytes
            .split_at_checked(ENTRY)
            .ok_or(Broken::Malformed("socket entry cut short"))?;
        let mut cgroup = None;
        for attribute in message::attributes(attributes) {
            if let (INET_DIAG_CGROUP_ID, value) = attribute? {
                let id = array_at(value, 0).ok_or(Broken::Malformed("control group cut short"))?;
                cgroup = NonZeroU64::new(u64::from_ne_bytes(id));
            }
        }
        Ok(Self::parse_fixed(fixed, cgroup))
    }

    fn parse_fixed(fixed: &[u8], cgroup: Option<NonZeroU64>) -> Option<Self> {
        let family = *fixed.first()?;
        let state = *fixed.get(1)?;
        let address = |at: usize| -> Option<IpAddr> {
            match family {
                AF_INET => Some(IpAddr::V4(Ipv4Addr::from(array_at::<4>(fixed, at)?))),
                AF_INET6 => Some(Ipv6Addr::from(array_at::<16>(fixed, at)?).to_canonical()),
                _ => None,
            }
        };
        let port = |at: usize| array_at(fixed, at).map(u16::from_be_bytes);
        // The cookie is two words, the low one first whatever the byte order.
        let cookie = u64::from(u32_at(fixed, 44)?) | u64::from(u32_at(fixed, 48)?) << 32;
        Some(Self {
            local: SocketAddr::new(address(8)?, port(4)?),
            remote: SocketAddr::new(address(24)?, port(6)?),
            established: state == ESTABLISHED,
            is_remnant: *fixed.get(2)? == TIME_WAIT_TIMER,
            cookie: NonZeroU64::new(cookie),
            uid: u32_at(fixed, 64)?,
            inode: u32_at(fixed, 68)?,
            cgroup,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// An entry as the kernel lays it out, field by field.
    fn laid_out(family: u8, address: [u8; 16]) -> Vec<u8> {
        let mut bytes = vec![family, 1, 0, 0];
        bytes.extend(3476_u16.to_be_bytes());
        bytes.extend(50_000_u16.to_be_bytes());
        bytes.extend(address);
        bytes.extend([0; 16]);
        bytes.extend(0_u32.to_ne_bytes()); // interface
        bytes.extend(0x11_u32.to_ne_bytes()); // cookie, low
        bytes.extend(0x22_u32.to_ne_bytes()); // cookie, high
        bytes.extend([0; 12]); // expires, rqueue, wqueue
        bytes.extend(1000_u32.to_ne_bytes()); // uid
        bytes.extend(4_000_000_000_u32.to_ne_bytes()); // inode
        message::push_attribute(&mut bytes, 8, &[0; 4]);
        message::push_attribute(&mut bytes, INET_DIAG_CGROUP_ID, &77_u64.to_ne_bytes());
        bytes
    }

    fn v4() -> [u8; 16] {
        let mut address = [0; 16];
        address[..4].copy_from_slice(&[192, 0, 2, 1]);
        address
    }

    #[test]
    fn every_field_is_read_from_its_place() {
        let entry = Entry::parse(&laid_out(AF_INET, v4())).unwrap().unwrap();
        assert_eq!(entry.local, "192.0.2.1:3476".parse().unwrap());
        assert_eq!(entry.remote, "0.0.0.0:50000".parse().unwrap());
        assert!(entry.established);
        assert_eq!(entry.cookie, NonZeroU64::new(0x22_0000_0011));
        assert_eq!(entry.uid, 1000);
        assert_eq!(entry.inode, 4_000_000_000);
        assert_eq!(entry.cgroup, NonZeroU64::new(77));
    }

    #[test]
    fn an_ipv4_address_within_ipv6_is_written_as_ipv4() {
        let mapped = Ipv4Addr::new(192, 0, 2, 1).to_ipv6_mapped().octets();
        let entry = Entry::parse(&laid_out(AF_INET6, mapped)).unwrap().unwrap();
        assert_eq!(entry.local, "192.0.2.1:3476".parse().unwrap());
        assert_eq!(entry.remote, "[::]:50000".parse().unwrap());
    }

    #[test]
    fn an_unknown_family_is_told_apart_from_a_short_entry() {
        assert_eq!(Entry::parse(&laid_out(1, v4())), Ok(None));
        let whole = laid_out(AF_INET, v4());
        assert!(Entry::parse(&whole[..ENTRY]).unwrap().is_some());
        for length in 0..ENTRY {
            assert!(Entry::parse(&whole[..length]).is_err(), "{length} bytes");
        }
        assert!(Entry::parse(&whole[..whole.len() - 1]).is_err());
    }

    #[test]
    fn a_udp_request_has_the_kernel_s_layout() {
        let request = Request::Udp {
            family: Family::V6,
            filter: &[1, 2, 3, 4],
        };
        let body = request.body();
        assert_eq!(body[..4], [10, 17, 0, 0]);
        assert_eq!(u32_at(&body, 4), Some(u32::MAX));
        assert!(body[8..56].iter().all(|&byte| byte == 0));
        assert_eq!(filters(&body[56..]), [(1, vec![1, 2, 3, 4])]);
    }

    #[test]
    fn a_tcp_request_has_the_kernel_s_layout() {
        let request = Request::Tcp {
            states: States::LISTEN,
            filter: &[1, 2, 3, 4],
        };
        let body = request.body();
        assert!(body[..52].iter().all(|&byte| byte == 0));
        assert_eq!(u32_at(&body, 52), Some(0x400));
        assert_eq!(u32_at(&body, 56), Some(0));
        assert_eq!(filters(&body[60..]), [(1, vec![1, 2, 3, 4])]);
    }

    fn filters(attributes: &[u8]) -> Vec<(u16, Vec<u8>)> {
        message::attributes(attributes)
            .map(|attribute| {
                attribute
                    .map(|(kind, value)| (kind, value.to_vec()))
                    .unwrap()
            })
            .collect()
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..160)) {
            let _ = Entry::parse(&bytes);
        }
    }
}
