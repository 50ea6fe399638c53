//! Asking a UDP port: an empty datagram, and whatever comes back.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use socket2::{Protocol, SockRef, Socket, Type};
use tokio::net::UdpSocket;
use tokio::time::timeout;

use super::finding::{Finding, Outcome, Reason, State};
use super::icmp;
use super::socket::{self, is_its_own_peer};

/// Asks once, and waits `patience` for an answer.
pub(super) async fn ask(address: SocketAddr, patience: Duration) -> Outcome {
    exchange(address, patience)
        .await
        .unwrap_or_else(Outcome::NotAsked)
}

async fn exchange(address: SocketAddr, patience: Duration) -> io::Result<Outcome> {
    let socket = connect(address)?;
    socket.send(&[])?;
    let socket = UdpSocket::from_std(socket.into())?;
    let Ok(received) = timeout(patience, socket.recv(&mut [0])).await else {
        return Ok(Outcome::Silence);
    };
    Ok(match received {
        Ok(_) => Outcome::Answer(Finding::new(State::Open, Reason::UdpResponse)),
        Err(error) => refused(&SockRef::from(&socket), address, error),
    })
}

/// A socket that hears only this address.
fn connect(address: SocketAddr) -> io::Result<Socket> {
    let socket = socket::open(address, Type::DGRAM, Protocol::UDP)?;
    socket.connect(&address.into())?;
    if !is_its_own_peer(&socket, address) {
        return Ok(socket);
    }
    // While it holds the port, another one gets another.
    let other = socket::open(address, Type::DGRAM, Protocol::UDP)?;
    other.connect(&address.into())?;
    Ok(other)
}

fn refused(socket: &Socket, address: SocketAddr, error: io::Error) -> Outcome {
    let finding = match icmp::read(socket) {
        // Only the host itself knows that nobody is there; a firewall may say the same to be rid of us.
        Some(message) if message.reason == Reason::PortUnreachable => {
            let is_own = message.from.is_none_or(|from| from == address.ip());
            let state = if is_own {
                State::Closed
            } else {
                State::Filtered
            };
            Finding::new(state, Reason::PortUnreachable)
        }
        Some(message) => Finding::new(State::Filtered, message.reason),
        None if is_refusal(&error) => Finding::new(State::Closed, Reason::PortUnreachable),
        None => match socket::reason_of(&error) {
            Some(reason) => Finding::new(State::Filtered, reason),
            None => return Outcome::NotAsked(error),
        },
    };
    Outcome::Answer(finding)
}

fn is_refusal(error: &io::Error) -> bool {
    // Windows tells of ICMP's port unreachable by a reset.
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset
    )
}
