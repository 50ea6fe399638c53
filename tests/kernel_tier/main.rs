//! The kernel tier on a real kernel: what is done is what is counted, exactly.
//!
//! Every test makes network namespaces of its own and works in them, so that no traffic but its own is seen.

#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "in a test, what fails is to fail; the lint's own exception does not cover helpers"
)]

mod connections;
mod counting;
mod lab;
mod life;
mod listeners;
mod network;
mod packets;
#[path = "../support/mod.rs"]
mod support;
mod sweeps;
mod vlan;

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use darkport_exporter::port::Port;

/// The port that most is done to.
const DARK: Port = Port::tcp(3476);
const DARK_UDP: Port = Port::udp(3476);

/// The lab's end and the neighbour's end of the veth pair.
const HERE: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
const HERE6: Ipv6Addr = Ipv6Addr::new(0xfd09, 0, 0, 0, 0, 0, 0, 1);
const THERE: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);
const THERE6: Ipv6Addr = Ipv6Addr::new(0xfd09, 0, 0, 0, 0, 0, 0, 2);

fn local(port: Port) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port.number).into()
}

fn local6(port: Port) -> SocketAddr {
    (Ipv6Addr::LOCALHOST, port.number).into()
}
