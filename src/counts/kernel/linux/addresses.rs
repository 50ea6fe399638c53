//! The host's own addresses, kept current in the map by which the tap tells its own packets from those passing through.
//!
//! Own is what the routing tables deliver locally: the destinations of `RTN_LOCAL` routes (rtnetlink(7)). That covers
//! every address of every device, all of 127.0.0.0/8, prefixes delivered locally on purpose, and VRFs.
//!
//! A change is not applied but looked up: any message about a local route, an address or a device leads to a new dump,
//! and the map is brought to agree with it. So a lost message costs nothing that the next does not mend.

use std::collections::HashSet;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{MapData, MapError};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use socket2::{SockFilter, SockRef};

/// rtnetlink groups (linux/rtnetlink.h): devices; IPv4 addresses and routes; IPv6 addresses and routes.
const GROUPS: [u32; 5] = [1, 5, 7, 9, 11];

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_GETROUTE: u16 = 26;
const NLM_F_REQUEST_DUMP: u16 = 0x301;
const NLM_F_DUMP_INTR: u16 = 0x10;
const RTN_LOCAL: u8 = 2;
const RTA_DST: u16 = 1;

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// Bytes of struct nlmsghdr and of struct rtmsg; where rtm_type lies in the latter.
const HEADER: usize = 16;
const RTMSG: usize = 12;
const RTM_TYPE: usize = 7;

/// How often a dump that was interrupted by a change is begun anew.
const ATTEMPTS: usize = 16;

/// A prefix delivered locally: bits that count, and the address, IPv4 mapped into IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Prefix {
    bits: u32,
    address: [u8; 16],
}

/// The addresses, and what tells of changes to them.
pub(super) struct Addresses {
    changes: Socket,
    map: LpmTrie<MapData, [u8; 16], u8>,
    known: HashSet<Prefix>,
    /// Whether something has changed since the addresses were last taken in.
    is_stale: bool,
}

impl Addresses {
    /// Fills the map with the addresses of now; changes are listened for from before that.
    ///
    /// # Errors
    /// When rtnetlink or the map refuses.
    pub(super) fn follow(map: LpmTrie<MapData, [u8; 16], u8>) -> io::Result<Self> {
        let mut changes = Socket::new(NETLINK_ROUTE)?;
        changes.set_non_blocking(true)?;
        SockRef::from(&changes).attach_filter(&no_foreign_routes())?;
        changes.bind_auto()?;
        for group in GROUPS {
            changes.add_membership(group)?;
        }
        let mut addresses = Self {
            changes,
            map,
            known: HashSet::new(),
            is_stale: true,
        };
        addresses.resynchronise()?;
        Ok(addresses)
    }

    /// Takes in what has changed since; does not wait.
    ///
    /// # Errors
    /// When the addresses could not be read or the map refuses; the map then holds what it held.
    pub(super) fn update(&mut self) -> io::Result<()> {
        let mut buffer = [0_u8; 64];
        loop {
            // Only that something came matters, so the rest of a message may be cut off.
            match self.changes.recv(&mut &mut buffer[..], 0) {
                Ok(_) => self.is_stale = true,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if is_overrun(&error) => self.is_stale = true,
                Err(error) => return Err(error),
            }
        }
        if self.is_stale {
            self.resynchronise()?;
        }
        Ok(())
    }

    fn resynchronise(&mut self) -> io::Result<()> {
        let current = local_prefixes()?;
        for prefix in current.difference(&self.known) {
            self.map.insert(&prefix.key(), 1, 0).map_err(map_error)?;
        }
        for prefix in self.known.difference(&current) {
            match self.map.remove(&prefix.key()) {
                Ok(()) | Err(MapError::KeyNotFound) => {}
                Err(error) => return Err(map_error(error)),
            }
        }
        self.known = current;
        self.is_stale = false;
        Ok(())
    }
}

impl AsFd for Addresses {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.changes.as_fd()
    }
}

impl std::fmt::Debug for Addresses {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Addresses")
            .field("known", &self.known)
            .finish_non_exhaustive()
    }
}

impl Prefix {
    fn key(&self) -> Key<[u8; 16]> {
        Key::new(self.bits, self.address)
    }
}

fn map_error(error: MapError) -> io::Error {
    io::Error::other(format!("writing the host's addresses to the map: {error}"))
}

fn is_overrun(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::NOBUFS.raw_os_error())
}

/// A filter for the socket: everything but routes that are not local. A router's thousands of changes do not wake us.
fn no_foreign_routes() -> [SockFilter; 7] {
    const LOAD_HALF: u16 = 0x28;
    const LOAD_BYTE: u16 = 0x30;
    const JUMP_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    // Loads take numbers to be in network order; netlink's are in the host's.
    let kind = |kind: u16| u32::from(kind.to_be());
    [
        SockFilter::new(LOAD_HALF, 0, 0, 4),
        SockFilter::new(JUMP_EQUAL, 1, 0, kind(RTM_NEWROUTE)),
        SockFilter::new(JUMP_EQUAL, 0, 2, kind(RTM_DELROUTE)),
        SockFilter::new(LOAD_BYTE, 0, 0, (HEADER + RTM_TYPE) as u32),
        SockFilter::new(JUMP_EQUAL, 0, 1, u32::from(RTN_LOCAL)),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
        SockFilter::new(RETURN, 0, 0, 0),
    ]
}

fn local_prefixes() -> io::Result<HashSet<Prefix>> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    // Has the kernel filter by type, since 4.20; without, it sends all, and they are filtered here.
    let _ = socket.set_netlink_get_strict_chk(true);
    let mut prefixes = HashSet::new();
    for family in [AF_INET, AF_INET6] {
        dump(&socket, family, &mut prefixes)?;
    }
    Ok(prefixes)
}

fn dump(socket: &Socket, family: u8, prefixes: &mut HashSet<Prefix>) -> io::Result<()> {
    for _ in 0..ATTEMPTS {
        socket.send_to(&request(family), &SocketAddr::new(0, 0), 0)?;
        let mut interrupted = false;
        let mut whole = Vec::new();
        while !receive(socket, &mut whole, &mut interrupted)? {}
        if !interrupted {
            prefixes.extend(whole);
            return Ok(());
        }
    }
    Err(io::Error::other(
        "the local routes kept changing while they were read",
    ))
}

/// Takes one datagram of an answer; true when it was the last.
fn receive(
    socket: &Socket,
    prefixes: &mut Vec<Prefix>,
    interrupted: &mut bool,
) -> io::Result<bool> {
    let (bytes, _) = socket.recv_from_full()?;
    for message in messages(&bytes) {
        *interrupted |= message.flags & NLM_F_DUMP_INTR != 0;
        match message.kind {
            NLMSG_DONE => return Ok(true),
            NLMSG_ERROR => return Err(error_of(message.body)),
            RTM_NEWROUTE => prefixes.extend(local_prefix(message.body)),
            _ => {}
        }
    }
    Ok(false)
}

fn request(family: u8) -> [u8; HEADER + RTMSG] {
    let mut bytes = [0; HEADER + RTMSG];
    bytes[0..4].copy_from_slice(&((HEADER + RTMSG) as u32).to_ne_bytes());
    bytes[4..6].copy_from_slice(&RTM_GETROUTE.to_ne_bytes());
    bytes[6..8].copy_from_slice(&NLM_F_REQUEST_DUMP.to_ne_bytes());
    bytes[HEADER] = family;
    bytes[HEADER + RTM_TYPE] = RTN_LOCAL;
    bytes
}

struct Message<'a> {
    kind: u16,
    flags: u16,
    body: &'a [u8],
}

/// The messages of a datagram, as far as they are whole.
fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let length = u32::from_ne_bytes(bytes.get(0..4)?.try_into().ok()?) as usize;
        let message = Message {
            kind: u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?),
            flags: u16::from_ne_bytes(bytes.get(6..8)?.try_into().ok()?),
            body: bytes.get(HEADER..length)?,
        };
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}

fn error_of(body: &[u8]) -> io::Error {
    match body.get(0..4).and_then(|bytes| bytes.try_into().ok()) {
        Some(bytes) => io::Error::from_raw_os_error(i32::from_ne_bytes(bytes).saturating_neg()),
        None => io::Error::other("rtnetlink answered with an error it did not name"),
    }
}

/// The prefix of a route message if it is one that is delivered locally.
fn local_prefix(body: &[u8]) -> Option<Prefix> {
    let (&family, &bits) = (body.first()?, body.get(1)?);
    if *body.get(RTM_TYPE)? != RTN_LOCAL {
        return None;
    }
    let destination = attribute(body.get(RTMSG..)?, RTA_DST);
    let mut address = [0; 16];
    match family {
        AF_INET if bits <= 32 => {
            address[10..12].fill(0xff);
            if let Some(destination) = destination {
                address[12..].copy_from_slice(destination.get(0..4)?);
            }
            Some(Prefix {
                bits: 96 + u32::from(bits),
                address,
            })
        }
        AF_INET6 if bits <= 128 => {
            if let Some(destination) = destination {
                address.copy_from_slice(destination.get(0..16)?);
            }
            Some(Prefix {
                bits: u32::from(bits),
                address,
            })
        }
        _ => None,
    }
}

/// The value of the first attribute of a kind.
fn attribute(mut bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let length = usize::from(u16::from_ne_bytes(bytes.get(0..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(bytes.get(2..4)?.try_into().ok()?);
        let value = bytes.get(4..length)?;
        if kind == wanted {
            return Some(value);
        }
        bytes = bytes.get(length.next_multiple_of(4)..)?;
    }
}

/// An answer of rtnetlink.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz(bytes: &[u8]) {
    for message in messages(bytes) {
        let _ = error_of(message.body);
        if let Some(prefix) = local_prefix(message.body) {
            assert!(prefix.bits <= 128, "{prefix:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_among_the_local_prefixes() {
        let prefixes = local_prefixes().unwrap();
        let mut address = [0; 16];
        address[10..12].fill(0xff);
        address[12] = 127;
        assert!(
            prefixes.contains(&Prefix { bits: 104, address }),
            "{prefixes:?}"
        );
    }

    #[test]
    fn broken_messages_end_the_reading() {
        assert_eq!(messages(&[1, 2, 3]).count(), 0);
        let mut bytes = request(AF_INET).to_vec();
        assert_eq!(messages(&bytes).count(), 1);
        bytes[0] = 200;
        assert_eq!(messages(&bytes).count(), 0);
        bytes[0] = 0;
        assert_eq!(messages(&bytes).count(), 0);
        assert_eq!(local_prefix(&[AF_INET, 32]), None);
        let longer_than_an_address = [AF_INET, 33, 0, 0, 0, 0, 0, RTN_LOCAL, 0, 0, 0, 0];
        assert_eq!(local_prefix(&longer_than_an_address), None);
    }

    #[test]
    fn an_error_beyond_all_numbers_is_an_error() {
        let error = error_of(&i32::MIN.to_ne_bytes());
        assert_eq!(error.raw_os_error(), Some(i32::MAX));
    }

    #[test]
    fn attributes_that_overrun_are_none() {
        assert_eq!(
            attribute(&[8, 0, 1, 0, 10, 0, 0, 1], 1),
            Some(&[10, 0, 0, 1][..])
        );
        assert_eq!(attribute(&[9, 0, 1, 0, 10, 0, 0, 1], 1), None);
        assert_eq!(attribute(&[0, 0, 2, 0, 0, 0, 0, 0], 1), None);
    }
}
