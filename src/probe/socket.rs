//! Sockets to ask with, and what their errors mean.

use std::io;
use std::net::SocketAddr;

use socket2::{Domain, Protocol, Socket, Type};

use super::finding::Reason;
use super::icmp;

/// A socket to ask this address with: it does not block, and keeps ICMP messages.
pub(super) fn open(address: SocketAddr, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    // At once where that can be done, for a probe opens a socket for every port.
    #[cfg(target_os = "linux")]
    let kind = kind.nonblocking();
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
    #[cfg(not(target_os = "linux"))]
    socket.set_nonblocking(true)?;
    icmp::keep(&socket, address.is_ipv6())?;
    Ok(socket)
}

/// Whether the socket has been given the very port it asks, and so talks to itself: the system takes any free port, and
/// what is asked on this host may be free.
pub(super) fn is_its_own_peer(socket: &Socket, address: SocketAddr) -> bool {
    let own = socket.local_addr().ok().and_then(|own| own.as_socket());
    own.is_some_and(|own| own.port() == address.port() && own.ip() == address.ip())
}

/// What an error number says of a host that was asked; `None`: it is about this one.
pub(super) fn reason_of(error: &io::Error) -> Option<Reason> {
    match error.kind() {
        io::ErrorKind::HostUnreachable => Some(Reason::HostUnreachable),
        io::ErrorKind::NetworkUnreachable => Some(Reason::NetUnreachable),
        _ => None,
    }
}

/// Whether the system is short of something that it may have again in a moment: descriptors, memory, ephemeral ports.
pub(super) fn is_shortage(error: &io::Error) -> bool {
    // EMFILE, ENFILE and ENOBUFS have no stable kind.
    #[cfg(unix)]
    if let Some(number) = error.raw_os_error() {
        use nix::errno::Errno;
        return matches!(
            Errno::from_raw(number),
            Errno::EMFILE
                | Errno::ENFILE
                | Errno::ENOBUFS
                | Errno::ENOMEM
                | Errno::EADDRNOTAVAIL
                | Errno::EAGAIN
        );
    }
    matches!(
        error.kind(),
        io::ErrorKind::OutOfMemory | io::ErrorKind::AddrNotAvailable | io::ErrorKind::WouldBlock
    )
}
