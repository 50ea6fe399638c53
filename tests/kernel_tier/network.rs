//! What is addressed to this host, and what only comes by.

use std::net::{Ipv4Addr, TcpStream, UdpSocket};

use darkport_exporter::port::Port;

use crate::lab::{Lab, Namespace, run, until};
use crate::packets::send_syns;
use crate::{DARK, DARK_UDP, HERE, THERE};

const EAST: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 2);
const WEST: Ipv4Addr = Ipv4Addr::new(10, 2, 0, 2);

/// A namespace of its own behind a veth pair whose other end is `device` here.
fn leaf(name: &str, device: &str, address: &str, gateway: &str) -> Namespace {
    let leaf = Namespace::new(name);
    run(&format!(
        "ip link add {device} type veth peer name uplink netns {}",
        leaf.name
    ));
    run(&format!("ip link set {device} up"));
    leaf.run(&format!("ip addr add {address}/24 dev uplink"));
    leaf.run("ip link set uplink up");
    leaf.run(&format!("ip route add default via {gateway}"));
    leaf
}

/// East hangs on a bridge with another leaf, west on a veth pair. The lab forwards between them.
#[test]
#[ignore = "needs root"]
fn a_router_counts_only_what_is_for_itself() {
    let lab = Lab::new("router");
    run("ip link add bridge type bridge");
    run("ip addr add 10.1.0.1/24 dev bridge");
    run("ip link set bridge up");
    let east = leaf("east", "east", "10.1.0.2", "10.1.0.1");
    let inner = leaf("inner", "inner", "10.1.0.3", "10.1.0.1");
    run("ip link set east master bridge");
    run("ip link set inner master bridge");
    let west = leaf("west", "west", "10.2.0.2", "10.2.0.1");
    run("ip addr add 10.2.0.1/24 dev west");
    std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
    let started = lab.start();

    // Forwarded, bridged, and refused by those they were for.
    east.within(|| {
        for to in [WEST, Ipv4Addr::new(10, 1, 0, 3)] {
            for _ in 0..500 {
                TcpStream::connect((to, DARK.number)).unwrap_err();
            }
        }
    });
    // Forwarded, and dropped by this host's firewall on the way.
    run("nft add table inet t");
    run("nft add chain inet t fw { type filter hook forward priority 0 ; }");
    run("nft add rule inet t fw tcp dport 3476 drop");
    assert_eq!(
        east.within(|| send_syns((EAST, WEST), DARK.number, 500)),
        500
    );
    // For the router itself: by the bridge, by the pair, and by the address on the far side.
    east.within(|| {
        for to in [Ipv4Addr::new(10, 1, 0, 1), Ipv4Addr::new(10, 2, 0, 1)] {
            for _ in 0..100 {
                TcpStream::connect((to, DARK.number)).unwrap_err();
            }
        }
    });
    west.within(|| {
        for _ in 0..100 {
            TcpStream::connect((Ipv4Addr::new(10, 2, 0, 1), DARK.number)).unwrap_err();
        }
    });
    inner.within(|| {
        TcpStream::connect((Ipv4Addr::new(10, 1, 0, 1), DARK.number)).unwrap_err();
    });
    let counts = started.counts(DARK);
    assert_eq!(counts.attempts, Some(301));
    assert_eq!(counts.refused, Some(301));
    assert_eq!(counts.filtered, Some(0));
}

/// Each device on top of another would see the packet again; it is one attempt.
#[test]
#[ignore = "needs root"]
fn a_packet_through_stacked_devices_is_one_attempt() {
    let lab = Lab::new("stacked");
    let neighbour = lab.neighbour();
    run("ip link add link here name upper type macvlan mode bridge");
    run("ip link set upper up");
    run("ip addr add 10.9.0.7/24 dev upper");
    let upper = Ipv4Addr::new(10, 9, 0, 7);
    let started = lab.start();
    neighbour.within(|| {
        for _ in 0..100 {
            TcpStream::connect((upper, DARK.number)).unwrap_err();
        }
    });
    let counts = started.counts(DARK);
    assert_eq!(counts.attempts, Some(100));
    assert_eq!(counts.refused, Some(100));
}

#[test]
#[ignore = "needs root"]
fn broadcast_and_multicast_are_no_attempts() {
    let lab = Lab::new("broadcast");
    let neighbour = lab.neighbour();
    let started = lab.start();
    neighbour.within(|| {
        let socket = UdpSocket::bind((THERE, 0)).unwrap();
        socket.set_broadcast(true).unwrap();
        for to in ["10.9.0.255:3476", "255.255.255.255:3476", "224.0.0.1:3476"] {
            // Without a route the last but one does not leave; that is no failure of what is tested.
            let _ = socket.send_to(b"knock", to);
        }
        socket.send_to(b"knock", (HERE, 4242)).unwrap();
    });
    until("the last packet came", || {
        started.counts(Port::udp(4242)).refused == Some(1)
    });
    let counts = started.counts(DARK_UDP);
    assert_eq!((counts.attempts, counts.refused), (Some(0), Some(0)));
}

/// The neighbour sends without pause to addresses that are the lab's only at times.
#[test]
#[ignore = "needs root"]
fn addresses_are_followed() {
    let lab = Lab::new("addresses");
    let neighbour = lab.neighbour();
    let started = lab.start();
    std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
    neighbour.run("ip route add 10.7.0.0/16 via 10.9.0.1");
    let fresh = Ipv4Addr::new(10, 7, 0, 1);
    let knock = || {
        neighbour.within(|| {
            let socket = UdpSocket::bind((THERE, 0)).unwrap();
            let _ = socket.send_to(b"knock", (fresh, DARK.number));
        });
    };
    let attempts = || started.counts(DARK_UDP).attempts.unwrap();
    let counted_now = || {
        let before = attempts();
        knock();
        attempts() > before
    };
    assert!(!counted_now());
    for (there, gone) in [
        (
            "ip addr add 10.7.0.1/32 dev lo",
            "ip addr del 10.7.0.1/32 dev lo",
        ),
        (
            "ip route add local 10.7.0.0/24 dev lo",
            "ip route del local 10.7.0.0/24 dev lo",
        ),
    ] {
        run(there);
        until("the new address counts", counted_now);
        run(gone);
        until("the old address does not", || !counted_now());
    }
    run("ip link add extra type bridge");
    run("ip addr add 10.7.0.1/24 dev extra");
    run("ip link set extra up");
    until("the address of a new device counts", counted_now);
    run("ip link del extra");
    until("the address of a lost device does not", || !counted_now());
}
