//! Listener events as the programs write them into the ring.

use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU64;
use std::time::SystemTime;

use super::clock::Clock;
use crate::counts::kernel::ListenerEvent;
use crate::port::{Port, Protocol};

/// Bytes of `struct event` in `darkport.bpf.c`.
const LENGTH: usize = 72;

/// Understands one event; `None` if it is not one.
pub(super) fn decode(bytes: &[u8], clock: &Clock) -> Option<ListenerEvent> {
    let bytes: &[u8; LENGTH] = bytes.try_into().ok()?;
    let number = u16::from_ne_bytes(field(bytes, 36));
    let port = match bytes[38] {
        6 => Port::tcp(number),
        17 => Port::udp(number),
        _ => return None,
    };
    Some(ListenerEvent {
        port,
        opened: bytes[39] != 0,
        address: address(field(bytes, 40)),
        cookie: NonZeroU64::new(u64::from_ne_bytes(field(bytes, 8))),
        pid: u32::from_ne_bytes(field(bytes, 24)),
        thread: u32::from_ne_bytes(field(bytes, 28)),
        uid: u32::from_ne_bytes(field(bytes, 32)),
        command: command(&field::<16>(bytes, 56)),
        cgroup: NonZeroU64::new(u64::from_ne_bytes(field(bytes, 16))),
        at: clock
            .wall(u64::from_ne_bytes(field(bytes, 0)))
            .unwrap_or(SystemTime::UNIX_EPOCH),
    })
}

fn field<const N: usize>(bytes: &[u8; LENGTH], at: usize) -> [u8; N] {
    let mut field = [0; N];
    field.copy_from_slice(&bytes[at..at + N]);
    field
}

/// IPv4 comes mapped into IPv6.
fn address(bytes: [u8; 16]) -> IpAddr {
    Ipv6Addr::from(bytes).to_canonical()
}

fn command(bytes: &[u8]) -> String {
    let end = bytes
        .iter()
        .position(|&byte| byte == 0)
        .unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

const _: () = assert!(matches!(Protocol::ALL, [Protocol::Tcp, Protocol::Udp]));

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> [u8; LENGTH] {
        let mut bytes = [0; LENGTH];
        bytes[0..8].copy_from_slice(&1_u64.to_ne_bytes());
        bytes[8..16].copy_from_slice(&2_u64.to_ne_bytes());
        bytes[16..24].copy_from_slice(&3_u64.to_ne_bytes());
        bytes[24..28].copy_from_slice(&4_u32.to_ne_bytes());
        bytes[28..32].copy_from_slice(&5_u32.to_ne_bytes());
        bytes[32..36].copy_from_slice(&6_u32.to_ne_bytes());
        bytes[36..38].copy_from_slice(&3476_u16.to_ne_bytes());
        bytes[38] = 17;
        bytes[39] = 1;
        bytes[40..56].copy_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 127, 0, 0, 1]);
        bytes[56..59].copy_from_slice(&[b'n', 0xff, b'c']);
        bytes
    }

    #[test]
    fn an_event_is_read_as_it_was_written() {
        let event = decode(&event(), &Clock::new()).unwrap();
        assert_eq!(event.port, Port::udp(3476));
        assert!(event.opened);
        assert_eq!(event.address, "127.0.0.1".parse::<IpAddr>().unwrap());
        assert_eq!(event.cookie, NonZeroU64::new(2));
        assert_eq!(event.cgroup, NonZeroU64::new(3));
        assert_eq!((event.pid, event.thread, event.uid), (4, 5, 6));
        assert_eq!(event.command, "n\u{fffd}c");
    }

    #[test]
    fn what_is_no_event_is_refused() {
        let mut bytes = event();
        assert!(decode(&bytes[..70], &Clock::new()).is_none());
        bytes[38] = 132;
        assert!(decode(&bytes, &Clock::new()).is_none());
    }
}
