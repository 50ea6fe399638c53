//! Asking a TCP port: connect, and hang up.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use socket2::{Protocol, SockRef, Socket, Type};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::finding::{Finding, Outcome, Reason, State};
use super::icmp;
use super::socket::{self, is_its_own_peer};

/// How often a socket that was given the port it asks is exchanged for another.
const EXCHANGES: usize = 8;

/// Asks once, and waits `patience` for an answer.
pub(super) async fn ask(address: SocketAddr, patience: Duration) -> Outcome {
    for _ in 0..EXCHANGES {
        match connect(address, patience).await {
            Ok(Some(outcome)) => return outcome,
            Ok(None) => {}
            Err(error) => return Outcome::NotAsked(error),
        }
    }
    Outcome::NotAsked(io::Error::from(io::ErrorKind::AddrNotAvailable))
}

/// `None` where the socket got itself on the line.
async fn connect(address: SocketAddr, patience: Duration) -> io::Result<Option<Outcome>> {
    let socket = socket::open(address, Type::STREAM, Protocol::TCP)?;
    match socket.connect(&address.into()) {
        Ok(()) => return Ok(connected(&socket, address)),
        Err(error) if is_under_way(&error) => {}
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            return Ok(Some(refused(&socket, error)));
        }
        // Nothing was sent: there is no route, or something here forbids it.
        Err(error) => return Err(error),
    }
    // A host as near as this one has answered by now, and there is nothing to wait for.
    if let Some(outcome) = answered(&socket, address)? {
        return Ok(outcome);
    }
    let stream = TcpStream::from_std(socket.into())?;
    if timeout(patience, stream.writable()).await.is_err() {
        return Ok(Some(Outcome::Silence));
    }
    let socket = SockRef::from(&stream);
    answered(&socket, address)?.map_or(Ok(Some(Outcome::Silence)), Ok)
}

fn is_under_way(error: &io::Error) -> bool {
    // EINPROGRESS has no stable kind; Windows says that it would block.
    #[cfg(unix)]
    if error.raw_os_error() == Some(nix::errno::Errno::EINPROGRESS as i32) {
        return true;
    }
    error.kind() == io::ErrorKind::WouldBlock
}

/// What came of a connection, if anything has.
fn answered(socket: &Socket, address: SocketAddr) -> io::Result<Option<Option<Outcome>>> {
    if let Some(error) = socket.take_error()? {
        return Ok(Some(Some(refused(socket, error))));
    }
    Ok(socket
        .peer_addr()
        .is_ok()
        .then(|| connected(socket, address)))
}

fn connected(socket: &Socket, address: SocketAddr) -> Option<Outcome> {
    // Hangs up with RST: neither side keeps a socket in TIME-WAIT. Where it cannot, the connection ends the ordinary way.
    let _ = socket.set_linger(Some(Duration::ZERO));
    let finding = Finding::new(State::Open, Reason::SynAck);
    (!is_its_own_peer(socket, address)).then_some(Outcome::Answer(finding))
}

fn refused(socket: &Socket, error: io::Error) -> Outcome {
    if let Some(message) = icmp::read(socket) {
        return Outcome::Answer(Finding::new(State::Filtered, message.reason));
    }
    match error.kind() {
        io::ErrorKind::ConnectionRefused => {
            Outcome::Answer(Finding::new(State::Closed, Reason::Reset))
        }
        // Between the handshake and the look at it.
        io::ErrorKind::ConnectionReset => {
            Outcome::Answer(Finding::new(State::Open, Reason::SynAck))
        }
        // The system has given up before we did.
        io::ErrorKind::TimedOut => Outcome::Silence,
        _ => match socket::reason_of(&error) {
            Some(reason) => Outcome::Answer(Finding::new(State::Filtered, reason)),
            None => Outcome::NotAsked(error),
        },
    }
}
