//! Packets made by hand: headers as nobody sends them but in anger.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use darkport_exporter::counts::kernel::Options;
use darkport_exporter::port::Port;
use socket2::{Domain, Protocol, Socket, Type};

use crate::lab::{Lab, until};
use crate::{DARK, DARK_UDP, HERE, HERE6, THERE, THERE6};

const TCP: u8 = 6;
const UDP: u8 = 17;
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;
const ECE_CWR: u8 = 0xc0;

const IN_COPIES: Options = Options {
    tap: true,
    in_place: false,
};

/// A socket that sends whole packets, header included.
pub(crate) fn raw(v6: bool) -> Socket {
    let domain = if v6 { Domain::IPV6 } else { Domain::IPV4 };
    Socket::new(domain, Type::RAW, Some(Protocol::from(255))).unwrap()
}

/// Sends SYNs for one port; how many the kernel took.
pub(crate) fn send_syns((from, to): (Ipv4Addr, Ipv4Addr), port: u16, count: u64) -> u64 {
    let socket = raw(false);
    let mut sent = 0;
    for id in 0..count {
        let segment = tcp(from.into(), to.into(), 1024 + id as u16, port, SYN);
        sent += u64::from(send(&socket, &ipv4(from, to, TCP, &[], 0, &segment), to.into()).is_ok());
    }
    sent
}

pub(crate) fn send(socket: &Socket, packet: &[u8], to: IpAddr) -> io::Result<usize> {
    socket.send_to(packet, &SocketAddr::new(to, 0).into())
}

pub(crate) fn tcp(from: IpAddr, to: IpAddr, source: u16, port: u16, flags: u8) -> Vec<u8> {
    let mut bytes = vec![0; 20];
    bytes[0..2].copy_from_slice(&source.to_be_bytes());
    bytes[2..4].copy_from_slice(&port.to_be_bytes());
    bytes[12] = 5 << 4;
    bytes[13] = flags;
    bytes[14..16].copy_from_slice(&1024_u16.to_be_bytes());
    let sum = checksum(from, to, TCP, &bytes);
    bytes[16..18].copy_from_slice(&sum.to_be_bytes());
    bytes
}

pub(crate) fn udp(from: IpAddr, to: IpAddr, port: u16) -> Vec<u8> {
    let mut bytes = vec![0; 16];
    bytes[0..2].copy_from_slice(&4000_u16.to_be_bytes());
    bytes[2..4].copy_from_slice(&port.to_be_bytes());
    bytes[4..6].copy_from_slice(&16_u16.to_be_bytes());
    let sum = checksum(from, to, UDP, &bytes);
    bytes[6..8].copy_from_slice(&sum.to_be_bytes());
    bytes
}

/// `fragment` is the field as it stands in the header: flags and offset. The kernel fills in length and checksum.
pub(crate) fn ipv4(
    from: Ipv4Addr,
    to: Ipv4Addr,
    protocol: u8,
    options: &[u8],
    fragment: u16,
    payload: &[u8],
) -> Vec<u8> {
    assert_eq!(options.len() % 4, 0);
    let mut bytes = vec![0; 20];
    bytes[0] = 0x40 | (5 + options.len() / 4) as u8;
    bytes[4..6].copy_from_slice(&7_u16.to_be_bytes());
    bytes[6..8].copy_from_slice(&fragment.to_be_bytes());
    bytes[8] = 64;
    bytes[9] = protocol;
    bytes[12..16].copy_from_slice(&from.octets());
    bytes[16..20].copy_from_slice(&to.octets());
    bytes.extend(options);
    bytes.extend(payload);
    bytes
}

fn ipv6(from: Ipv6Addr, to: Ipv6Addr, header: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 40];
    bytes[0] = 0x60;
    bytes[4..6].copy_from_slice(&(payload.len() as u16).to_be_bytes());
    bytes[6] = header;
    bytes[7] = 64;
    bytes[8..24].copy_from_slice(&from.octets());
    bytes[24..40].copy_from_slice(&to.octets());
    bytes.extend(payload);
    bytes
}

/// An extension header of `length` bytes in front of `next`, filled with an option that who does not know it skips:
/// padding of that length the kernel would not take.
fn padded(next: u8, length: usize, rest: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; length];
    bytes[0] = next;
    bytes[1] = (length / 8 - 1) as u8;
    bytes[2] = 0x1e;
    bytes[3] = (length - 4) as u8;
    bytes.extend(rest);
    bytes
}

/// Headers of 8 bytes, the last of which says that `rest` is one more.
fn deep(headers: usize, rest: &[u8]) -> Vec<u8> {
    (0..headers).fold(rest.to_vec(), |rest, _| padded(60, 8, &rest))
}

fn fragment6(next: u8, offset: u16, more: bool, rest: &[u8]) -> Vec<u8> {
    let mut bytes = vec![next, 0];
    bytes.extend((offset << 3 | u16::from(more)).to_be_bytes());
    bytes.extend(9_u32.to_be_bytes());
    bytes.extend(rest);
    bytes
}

/// RFC 1071 over the pseudo header and the segment.
fn checksum(from: IpAddr, to: IpAddr, protocol: u8, segment: &[u8]) -> u16 {
    let mut bytes = Vec::new();
    for address in [from, to] {
        match address {
            IpAddr::V4(v4) => bytes.extend(v4.octets()),
            IpAddr::V6(v6) => bytes.extend(v6.octets()),
        }
    }
    bytes.extend([0, protocol]);
    bytes.extend((segment.len() as u16).to_be_bytes());
    bytes.extend(segment);
    let mut sum: u32 = bytes
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)])))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[test]
#[ignore = "needs root"]
fn only_what_is_an_attempt_is_counted() {
    only_what_is_an_attempt_is_counted_with(Options::default());
}

/// As on kernels before 6.2.
#[test]
#[ignore = "needs root"]
fn only_what_is_an_attempt_is_counted_in_copies() {
    only_what_is_an_attempt_is_counted_with(IN_COPIES);
}

fn only_what_is_an_attempt_is_counted_with(options: Options) {
    let lab = Lab::new("headers4");
    let neighbour = lab.neighbour();
    let started = lab.start_with(&options);
    neighbour.within(|| {
        let socket = raw(false);
        let (from, to) = (IpAddr::V4(THERE), IpAddr::V4(HERE));
        let segment = |flags| tcp(from, to, 5000, DARK.number, flags);
        let datagram = udp(from, to, DARK.number);
        let packet = |protocol, options: &[u8], fragment, payload: &[u8]| {
            send(
                &socket,
                &ipv4(THERE, HERE, protocol, options, fragment, payload),
                to,
            )
            .unwrap();
        };
        // Attempts: 3 of TCP.
        packet(TCP, &[], 0, &segment(SYN));
        packet(TCP, &[], 0, &segment(SYN | ECE_CWR));
        packet(TCP, &[1; 8], 0, &segment(SYN));
        // Attempts: 3 more, in fragments, the first of which may end before the flags. Only one is followed by the rest.
        packet(TCP, &[], 0x2000, &segment(SYN)[..8]);
        packet(TCP, &[], 1, &segment(SYN)[8..]);
        packet(TCP, &[1; 40], 0x2000, &segment(SYN)[..8]);
        packet(TCP, &[], 0x2000, &segment(SYN)[..16]);
        // None: other flags, another protocol, and what comes after the first fragment.
        packet(TCP, &[], 0, &segment(SYN | ACK));
        packet(TCP, &[], 0, &segment(ACK));
        packet(TCP, &[], 0, &segment(0));
        packet(132, &[], 0, &segment(SYN));
        packet(TCP, &[], 185, &segment(SYN));
        packet(TCP, &[], 0x2000, &segment(ACK)[..16]);
        // Attempts: 3 of UDP, one of which is a first fragment that is never followed.
        packet(UDP, &[], 0, &datagram);
        packet(UDP, &[1; 40], 0, &datagram);
        packet(UDP, &[], 0x2000, &datagram);
        // None.
        packet(UDP, &[], 1, &datagram);
        packet(UDP, &[], 0, &datagram[..2]);
        // The end: all before it has been seen once this has.
        packet(UDP, &[], 0, &udp(from, to, 4242));
    });
    until("the last packet came", || {
        started.counts(Port::udp(4242)).refused == Some(1)
    });
    let (tcp, udp) = (started.counts(DARK), started.counts(DARK_UDP));
    assert_eq!(tcp.attempts, Some(6));
    assert_eq!(tcp.refused, Some(4));
    assert_eq!(udp.attempts, Some(3));
    assert_eq!(udp.refused, Some(2));
    assert_eq!(started.kernel.lost(), 0);
}

#[test]
#[ignore = "needs root"]
fn ipv6_extension_headers_are_walked() {
    ipv6_extension_headers_are_walked_with(Options::default());
}

/// As on kernels before 6.2.
#[test]
#[ignore = "needs root"]
fn ipv6_extension_headers_are_walked_in_copies() {
    ipv6_extension_headers_are_walked_with(IN_COPIES);
}

fn ipv6_extension_headers_are_walked_with(options: Options) {
    const HOP: u8 = 0;
    const FRAGMENT: u8 = 44;
    const OPTIONS: u8 = 60;
    let lab = Lab::new("headers6");
    let neighbour = lab.neighbour();
    let started = lab.start_with(&options);
    neighbour.within(|| {
        let socket = raw(true);
        let (from, to) = (IpAddr::V6(THERE6), IpAddr::V6(HERE6));
        let syn = tcp(from, to, 5000, DARK.number, SYN);
        let datagram = udp(from, to, DARK.number);
        let packet = |header, payload: &[u8]| {
            send(&socket, &ipv6(THERE6, HERE6, header, payload), to).unwrap();
        };
        // Attempts: 4 of TCP.
        packet(TCP, &syn);
        packet(HOP, &padded(TCP, 8, &syn));
        packet(OPTIONS, &padded(TCP, 24, &syn));
        packet(HOP, &padded(OPTIONS, 8, &padded(TCP, 64, &syn)));
        // Two of UDP: one that is a fragment and whole, one in two fragments.
        packet(FRAGMENT, &fragment6(UDP, 0, false, &datagram));
        packet(FRAGMENT, &fragment6(UDP, 0, true, &datagram));
        packet(FRAGMENT, &fragment6(UDP, 2, false, &datagram));
        // One more of each, behind as many headers as are followed.
        packet(OPTIONS, &deep(15, &padded(UDP, 8, &datagram)));
        packet(OPTIONS, &deep(15, &padded(TCP, 8, &syn)));
        // A first fragment of TCP that ends before the flags.
        packet(FRAGMENT, &fragment6(TCP, 0, true, &syn[..8]));
        // More headers than are followed, a header that ends beyond the packet, nothing after the headers.
        packet(OPTIONS, &deep(16, &padded(UDP, 8, &datagram)));
        packet(OPTIONS, &[UDP, 200, 1, 4, 0, 0, 0, 0]);
        packet(59, &datagram);
        packet(UDP, &udp(from, to, 4242));
    });
    until("the last packet came", || {
        started.counts(Port::udp(4242)).refused == Some(1)
    });
    let (tcp, udp) = (started.counts(DARK), started.counts(DARK_UDP));
    assert_eq!(tcp.attempts, Some(6));
    assert_eq!(tcp.refused, Some(5));
    assert_eq!(udp.attempts, Some(3));
    assert_eq!(udp.refused, Some(3));
    // The one behind too many headers, as it came and as it was refused.
    assert_eq!(started.kernel.lost(), 2);
}

/// The firewall drops before the transport has looked: the headers are found all the same.
#[test]
#[ignore = "needs root"]
fn extension_headers_are_walked_in_what_a_firewall_drops() {
    let lab = Lab::new("headers6-drop");
    let neighbour = lab.neighbour();
    let started = lab.start();
    crate::lab::run("nft add table ip6 t");
    crate::lab::run("nft add chain ip6 t early { type filter hook prerouting priority raw ; }");
    crate::lab::run("nft add rule ip6 t early meta l4proto tcp drop");
    neighbour.within(|| {
        let socket = raw(true);
        let (from, to) = (IpAddr::V6(THERE6), IpAddr::V6(HERE6));
        let syn = tcp(from, to, 5000, DARK.number, SYN);
        for packet in [
            ipv6(THERE6, HERE6, TCP, &syn),
            ipv6(THERE6, HERE6, 60, &padded(TCP, 32, &syn)),
            ipv6(THERE6, HERE6, TCP, &tcp(from, to, 5000, DARK.number, ACK)),
        ] {
            send(&socket, &packet, to).unwrap();
        }
        let end = ipv6(THERE6, HERE6, UDP, &udp(from, to, 4242));
        send(&socket, &end, to).unwrap();
    });
    until("the last packet came", || {
        started.counts(Port::udp(4242)).refused == Some(1)
    });
    let counts = started.counts(DARK);
    assert_eq!(counts.filtered, Some(2));
    assert_eq!(counts.attempts, Some(2));
    assert_eq!(counts.refused, Some(0));
    assert_eq!(started.kernel.lost(), 0);
}
