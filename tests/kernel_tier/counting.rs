//! Accepted, refused, filtered, outbound: the numbers themselves.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use darkport_exporter::counts::PortCounts;
use darkport_exporter::counts::kernel::Options;
use darkport_exporter::port::Port;
use socket2::{Domain, Protocol, Socket, Type};

use crate::lab::{Lab, run, until};
use crate::{DARK, DARK_UDP, HERE, HERE6, THERE, THERE6, local, local6};

/// Connects, has it accepted, closes: one end first, then the other.
pub(crate) fn short_connections(
    listener: &TcpListener,
    to: SocketAddr,
    count: usize,
    client_first: bool,
) {
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
    assert_eq!(
        started.counts(DARK),
        PortCounts {
            connections: Some(0),
            ..zero_tcp()
        }
    );
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

#[test]
#[ignore = "needs root"]
fn what_a_firewall_drops_is_filtered() {
    let lab = Lab::new("filtered");
    let neighbour = lab.neighbour();
    let started = lab.start();
    run("nft add table inet t");
    run("nft add chain inet t early { type filter hook prerouting priority raw ; }");
    run("nft add chain inet t in { type filter hook input priority 0 ; }");
    run("nft add rule inet t early tcp dport 3477 drop");
    run("nft add rule inet t in tcp dport 3476 drop");
    run("nft add rule inet t in udp dport 3476 drop");
    run("nft add rule inet t in udp dport 3478 reject");
    run("nft add rule inet t in tcp dport 3478 reject with tcp reset");
    neighbour.within(|| {
        let v4 = UdpSocket::bind((THERE, 0)).unwrap();
        let v6 = UdpSocket::bind((THERE6, 0)).unwrap();
        for _ in 0..500 {
            v4.send_to(b"knock", (HERE, 3476)).unwrap();
            v6.send_to(b"knock", (HERE6, 3476)).unwrap();
        }
        // What is rejected is reported to the sender at its next call: that is no failure here.
        for _ in 0..100 {
            let _ = v4.send_to(b"knock", (HERE, 3478));
        }
        for _ in 0..100 {
            TcpStream::connect((HERE, 3478)).unwrap_err();
            TcpStream::connect((HERE6, 3478)).unwrap_err();
        }
    });
    let sent: u64 = neighbour.within(|| crate::packets::send_syns((THERE, HERE), 3476, 1000))
        + neighbour.within(|| crate::packets::send_syns((THERE, HERE), 3477, 1000));
    assert_eq!(sent, 2000);
    let filtered = |port| started.counts(port).filtered.unwrap();
    until("all knocks are filtered", || {
        filtered(DARK) + filtered(tcp(3477)) == 2000 && filtered(DARK_UDP) == 1000
    });
    for (port, count) in [
        (DARK, 1000),
        (tcp(3477), 1000),
        (DARK_UDP, 1000),
        (tcp(3478), 200),
    ] {
        let counts = started.counts(port);
        assert_eq!(counts.filtered, Some(count), "{port}");
        assert_eq!(counts.attempts, Some(count), "{port}");
        assert_eq!(counts.refused, Some(0), "{port}");
    }
    let rejected = started.counts(Port::udp(3478));
    assert_eq!(rejected.filtered, rejected.attempts);
    assert!(rejected.filtered > Some(0));
    assert_eq!(started.kernel.lost(), 0);
}

/// The host's own packets that its own firewall holds back have reached no interface.
#[test]
#[ignore = "needs root"]
fn what_is_dropped_on_the_way_out_is_no_attempt() {
    let lab = Lab::new("output");
    let started = lab.start();
    run("nft add table inet t");
    run("nft add chain inet t out { type filter hook output priority 0 ; }");
    run("nft add rule inet t out udp dport 3476 drop");
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    for _ in 0..10 {
        socket.send_to(b"knock", local(DARK_UDP)).unwrap_err();
    }
    let counts = started.counts(DARK_UDP);
    assert_eq!((counts.attempts, counts.filtered), (Some(0), Some(0)));
}

#[test]
#[ignore = "needs root"]
fn outbound_connections_are_told_by_how_they_end() {
    let lab = Lab::new("outbound");
    let neighbour = lab.neighbour();
    neighbour.run("nft add table inet t");
    neighbour.run("nft add chain inet t in { type filter hook input priority 0 ; }");
    neighbour.run("nft add rule inet t in tcp dport 3478 drop");
    let started = lab.start();
    let listeners = neighbour.within(|| {
        [
            TcpListener::bind((THERE, 3476)).unwrap(),
            TcpListener::bind((THERE6, 3476)).unwrap(),
        ]
    });
    for _ in 0..50 {
        TcpStream::connect((THERE, 3476)).unwrap();
        TcpStream::connect((THERE6, 3476)).unwrap();
        TcpStream::connect((THERE, 3477)).unwrap_err();
        TcpStream::connect((THERE6, 3477)).unwrap_err();
    }
    let silent = SocketAddr::from((THERE, 3478));
    for _ in 0..5 {
        TcpStream::connect_timeout(&silent, Duration::from_millis(20)).unwrap_err();
    }
    drop(listeners);
    let outbound = |number| {
        let counts = started.counts(tcp(number));
        (counts.outbound.unwrap(), counts.outbound_failures.unwrap())
    };
    assert_eq!(outbound(3476), (100, 0));
    assert_eq!(outbound(3477), (0, 100));
    until("those without an answer have failed", || {
        outbound(3478) == (0, 5)
    });
    assert_eq!(started.counts(DARK).attempts, Some(0));
    assert_eq!(started.counts(DARK).accepted, Some(0));
}

/// MPTCP changes state twice, as itself and as TCP.
#[test]
#[ignore = "needs root"]
fn an_mptcp_connection_is_counted_once() {
    const MPTCP: Protocol = Protocol::MPTCP;
    let lab = Lab::new("mptcp");
    let started = lab.start();
    let listener = Socket::new(Domain::IPV4, Type::STREAM, Some(MPTCP)).unwrap();
    listener.bind(&local(DARK).into()).unwrap();
    listener.listen(16).unwrap();
    for _ in 0..100 {
        let client = Socket::new(Domain::IPV4, Type::STREAM, Some(MPTCP)).unwrap();
        client.connect(&local(DARK).into()).unwrap();
        listener.accept().unwrap();
        TcpStream::connect(local(DARK)).unwrap();
        listener.accept().unwrap();
    }
    let counts = started.counts(DARK);
    assert_eq!(counts.opened, Some(1));
    assert_eq!(counts.accepted, Some(200));
    assert_eq!(counts.outbound, Some(200));
    assert_eq!(counts.attempts, Some(200));
    drop(lab);
}

/// A socket that connects to itself goes through SYN_RECV, as an accepted one does, yet nobody called.
#[test]
#[ignore = "needs root"]
fn a_simultaneous_open_is_outbound() {
    let _lab = Lab::new("simultaneous");
    let started = _lab.start();
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&local(DARK).into()).unwrap();
    socket.connect(&local(DARK).into()).unwrap();
    let counts = started.counts(DARK);
    assert_eq!(counts.outbound, Some(1));
    assert_eq!(counts.accepted, Some(0));
    assert_eq!(counts.connections, Some(0));
}

/// With fast open the socket exists, and may be accepted, before the handshake is complete.
#[test]
#[ignore = "needs root"]
fn fast_open_is_counted_as_any_other() {
    const MSG_FASTOPEN: i32 = 0x2000_0000;
    let lab = Lab::new("fastopen");
    // Client, server, no cookie needed, every listener: 1 + 2 + 0x200 + 0x400.
    std::fs::write("/proc/sys/net/ipv4/tcp_fastopen", "1539").unwrap();
    let started = lab.start();
    let listener = TcpListener::bind(local(DARK)).unwrap();
    for _ in 0..100 {
        let client = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        client
            .send_to_with_flags(b"early", &local(DARK).into(), MSG_FASTOPEN)
            .unwrap();
        let (server, _) = listener.accept().unwrap();
        assert_eq!(server.local_addr().unwrap(), local(DARK));
        drop(client);
        drop(server);
    }
    let counts = started.counts(DARK);
    assert_eq!(counts.accepted, Some(100));
    assert_eq!(counts.outbound, Some(100));
    assert_eq!(counts.connections, Some(0));
}

#[test]
#[ignore = "needs root"]
fn without_the_tap_all_else_stands() {
    let lab = Lab::new("no-tap");
    let started = lab.start_with(&Options {
        tap: false,
        ..Options::default()
    });
    TcpStream::connect(local(DARK)).unwrap_err();
    let counts = started.counts(DARK);
    assert_eq!(counts.attempts, None);
    assert_eq!(counts.last_attempt, None);
    assert_eq!(counts.refused, Some(1));
    assert_eq!(counts.filtered, Some(0));
    assert_eq!(counts.outbound_failures, Some(1));
}

fn tcp(number: u16) -> Port {
    Port::tcp(number)
}
