//! The kernel tier on a real kernel: what is done is what is counted, exactly.
//!
//! Every test makes network namespaces of its own and works in them, so that no traffic but its own is seen.

#![cfg(target_os = "linux")]

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};

use darkport_exporter::counts::PortCounts;
use darkport_exporter::port::Port;

use lab::{Lab, until};

#[path = "kernel_tier/lab.rs"]
mod lab;
#[path = "kernel_tier/packets.rs"]
mod packets;

const DARK: Port = Port::tcp(3476);
const DARK_UDP: Port = Port::udp(3476);

fn local(port: Port) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port.number).into()
}

fn local6(port: Port) -> SocketAddr {
    (Ipv6Addr::LOCALHOST, port.number).into()
}

/// Connects, has it accepted, closes: one end first, then the other.
fn short_connections(listener: &TcpListener, to: SocketAddr, count: usize, client_first: bool) {
    for _ in 0..count {
        let client = TcpStream::connect(to).unwrap();
        let (server, _) = listener.accept().unwrap();
        if client_first {
            drop(client);
            drop(server);
        } else {
            drop(server);
            drop(client);
        }
    }
}

#[test]
#[ignore = "needs root"]
fn accepted_connections_are_counted_exactly() {
    let lab = Lab::new("accepted");
    let started = lab.start();
    let before = lab.snmp("Tcp", "PassiveOpens");
    let v4 = TcpListener::bind(local(DARK)).unwrap();
    let v6 = TcpListener::bind(local6(DARK)).unwrap();
    short_connections(&v4, local(DARK), 10_000, true);
    short_connections(&v6, local6(DARK), 10_000, false);
    let counts = started.counts(DARK);
    assert_eq!(counts.accepted, Some(20_000));
    assert_eq!(counts.outbound, Some(20_000));
    assert_eq!(counts.attempts, Some(20_000));
    assert_eq!(counts.outbound_failures, Some(0));
    assert_eq!(counts.refused, Some(0));
    assert_eq!(counts.filtered, Some(0));
    assert_eq!(counts.opened, Some(2));
    assert_eq!(lab.snmp("Tcp", "PassiveOpens") - before, 20_000);
    assert_eq!(started.kernel.lost(), 0);
}

#[test]
#[ignore = "needs root"]
fn refused_connections_are_counted_exactly() {
    let lab = Lab::new("refused");
    let started = lab.start();
    let before = lab.snmp("Tcp", "OutRsts");
    for _ in 0..10_000 {
        TcpStream::connect(local(DARK)).unwrap_err();
        TcpStream::connect(local6(DARK)).unwrap_err();
    }
    let counts = started.counts(DARK);
    assert_eq!(counts.refused, Some(20_000));
    assert_eq!(counts.attempts, Some(20_000));
    assert_eq!(counts.outbound_failures, Some(20_000));
    assert_eq!(
        (counts.accepted, counts.outbound),
        (Some(0), Some(0)),
        "{counts:?}"
    );
    assert_eq!(lab.snmp("Tcp", "OutRsts") - before, 20_000);
    assert!(counts.last_attempt.is_some());
    assert!(counts.opened_at.is_none());
}

#[test]
#[ignore = "needs root"]
fn datagrams_to_a_dark_port_are_counted_exactly() {
    let lab = Lab::new("udp");
    let started = lab.start();
    let before = lab.snmp("Udp", "NoPorts");
    let v4 = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let v6 = UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).unwrap();
    for _ in 0..10_000 {
        v4.send_to(b"knock", local(DARK_UDP)).unwrap();
        v6.send_to(b"knock", local6(DARK_UDP)).unwrap();
    }
    let refused = || started.counts(DARK_UDP).refused;
    until("all datagrams are refused", || refused() == Some(20_000));
    let counts = started.counts(DARK_UDP);
    assert_eq!(counts.attempts, Some(20_000));
    assert_eq!(counts.accepted, None);
    assert_eq!(started.counts(DARK), PortCounts {
        connections: Some(0),
        ..zero_tcp()
    });
    assert_eq!(lab.snmp("Udp", "NoPorts") - before, 10_000);
    assert_eq!(lab.snmp6("Udp6NoPorts"), 10_000);
}

fn zero_tcp() -> PortCounts {
    PortCounts {
        attempts: Some(0),
        accepted: Some(0),
        refused: Some(0),
        filtered: Some(0),
        outbound: Some(0),
        outbound_failures: Some(0),
        opened: Some(0),
        ..PortCounts::default()
    }
}
