//! Asking a TCP port: connect, and hang up.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use socket2::{Protocol, Socket, Type};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::finding::{Finding, Outcome, Reason, State};
use super::icmp;
use super::socket::{self, is_its_own_peer};

/// How often a socket that was given the port it asks is exchanged for another.
const EXCHANGES: usize = 8;

/// A socket whose last connection was refused, to be used again: to make one and to close it costs the system more than to
/// ask. Linux alone promises that it can be.
#[derive(Debug, Default)]
pub(super) struct Spare(Option<Socket>);

impl Spare {
    pub(super) const fn is_there(&self) -> bool {
        self.0.is_some()
    }
}

/// Asks once, and waits `patience` for an answer.
pub(super) async fn ask(address: SocketAddr, patience: Duration, spare: &mut Spare) -> Outcome {
    for _ in 0..EXCHANGES {
        match connect(address, patience, spare).await {
            Ok(Some(outcome)) => return outcome,
            Ok(None) => {}
            Err(error) => return Outcome::NotAsked(error),
        }
    }
    Outcome::NotAsked(io::Error::from(io::ErrorKind::AddrNotAvailable))
}

/// `None` where the socket got itself on the line.
async fn connect(
    address: SocketAddr,
    patience: Duration,
    spare: &mut Spare,
) -> io::Result<Option<Outcome>> {
    let socket = match spare.0.take() {
        Some(socket) => socket,
        None => socket::open(address, Type::STREAM, Protocol::TCP)?,
    };
    match socket.connect(&address.into()) {
        Ok(()) => return Ok(connected(&socket, address)),
        Err(error) if is_under_way(&error) => {}
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            return Ok(Some(refused(socket, error, spare)));
        }
        // Nothing was sent: there is no route, or something here forbids it.
        Err(error) => return Err(error),
    }
    // A host as near as this one has answered by now, and there is nothing to wait for.
    match progress(&socket, address)? {
        Progress::Connected => return Ok(connected(&socket, address)),
        Progress::Refused(error) => return Ok(Some(refused(socket, error, spare))),
        Progress::None => {}
    }
    let stream = TcpStream::from_std(socket.into())?;
    if timeout(patience, stream.writable()).await.is_err() {
        return Ok(Some(Outcome::Silence));
    }
    let socket = Socket::from(stream.into_std()?);
    Ok(match progress(&socket, address)? {
        Progress::Connected => connected(&socket, address),
        Progress::Refused(error) => Some(refused(socket, error, spare)),
        // A message that came while the system was at work with the socket wakes, and ends nothing.
        Progress::None => Some(icmp::read(&socket).map_or(Outcome::Silence, prohibited)),
    })
}

fn is_under_way(error: &io::Error) -> bool {
    // EINPROGRESS and EALREADY have no stable kind; Windows says that it would block.
    #[cfg(unix)]
    if let Some(number) = error.raw_os_error() {
        use nix::errno::Errno;
        return matches!(
            Errno::from_raw(number),
            Errno::EINPROGRESS | Errno::EALREADY
        );
    }
    error.kind() == io::ErrorKind::WouldBlock
}

/// How far a connection is.
enum Progress {
    None,
    Connected,
    Refused(io::Error),
}

/// Asked by a second connect(2), which on Linux also makes a socket that was refused one that can be used again.
#[cfg(target_os = "linux")]
fn progress(socket: &Socket, address: SocketAddr) -> io::Result<Progress> {
    Ok(match socket.connect(&address.into()) {
        Ok(()) => Progress::Connected,
        Err(error) if is_under_way(&error) => Progress::None,
        Err(error) if error.raw_os_error() == Some(nix::errno::Errno::EISCONN as i32) => {
            Progress::Connected
        }
        Err(error) => Progress::Refused(error),
    })
}

#[cfg(not(target_os = "linux"))]
fn progress(socket: &Socket, _: SocketAddr) -> io::Result<Progress> {
    Ok(match socket.take_error()? {
        Some(error) => Progress::Refused(error),
        None if socket.peer_addr().is_ok() => Progress::Connected,
        None => Progress::None,
    })
}

fn connected(socket: &Socket, address: SocketAddr) -> Option<Outcome> {
    // Hangs up with RST: neither side keeps a socket in TIME-WAIT. Where it cannot, the connection ends the ordinary way.
    let _ = socket.set_linger(Some(Duration::ZERO));
    let finding = Finding::new(State::Open, Reason::SynAck);
    (!is_its_own_peer(socket, address)).then_some(Outcome::Answer(finding))
}

const fn prohibited(message: icmp::Message) -> Outcome {
    Outcome::Answer(Finding::new(State::Filtered, message.reason))
}

fn refused(socket: Socket, error: io::Error, spare: &mut Spare) -> Outcome {
    if let Some(message) = icmp::read(&socket) {
        return prohibited(message);
    }
    match error.kind() {
        io::ErrorKind::ConnectionRefused => {
            if cfg!(target_os = "linux") {
                spare.0 = Some(socket);
            }
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
