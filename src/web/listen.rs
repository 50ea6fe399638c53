//! Addresses to listen on, and listening on them.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, ToSocketAddrs as _};

use socket2::{Domain, Protocol, Socket, Type};

use super::address::{Host, ListenAddress};

/// Connections that may wait to be accepted; the kernel caps it at its own limit.
const BACKLOG: i32 = 1024;

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The name has no address.
    #[error("listen address {address}: the name cannot be resolved: {error}")]
    Resolve {
        /// The address.
        address: ListenAddress,
        /// What the resolver said.
        error: io::Error,
    },
    /// Given before, itself or one that includes it.
    #[error(
        "listen address {address} is covered by {earlier}, given before it: leave one of them out"
    )]
    Twice {
        /// The address.
        address: ListenAddress,
        /// The one before it.
        earlier: ListenAddress,
    },
    /// Somebody else listens there.
    #[error(
        "listen address {address} is in use: `ss -lntp 'sport = :{port}'` names the process; end it, or choose another \
         address with --web.listen-address"
    )]
    InUse {
        /// The address.
        address: ListenAddress,
        /// Its port.
        port: u16,
    },
    /// Not an address of this host.
    #[error("listen address {0} is not an address of this host: `ip address` lists those it has")]
    NotLocal(ListenAddress),
    /// Not permitted, as ports below 1024 are without privilege.
    #[error(
        "listen address {0}: permission denied; ports below 1024 need CAP_NET_BIND_SERVICE, or choose a higher port with \
         --web.listen-address"
    )]
    Denied(ListenAddress),
    /// Anything else the system has against it.
    #[error("listen address {address}: {error}")]
    Os {
        /// The address.
        address: ListenAddress,
        /// What the system said.
        error: io::Error,
    },
}

/// Listens on all of the addresses, in their order, with sockets that do not block. Resolving a name does.
///
/// An address without host is listened on by one socket for both IP versions, or by one for IPv4 where the system has no
/// IPv6. Of the addresses of a name the first is taken, IPv4 before IPv6.
///
/// # Errors
/// When one of them cannot be listened on; none is kept then.
pub fn bind(addresses: &[ListenAddress]) -> Result<Vec<TcpListener>, Error> {
    let mut listeners = Vec::with_capacity(addresses.len());
    for (index, address) in addresses.iter().enumerate() {
        let listener =
            listen_on(address).map_err(|error| explain(address, &addresses[..index], error))?;
        listeners.push(listener);
    }
    Ok(listeners)
}

enum Failure {
    Resolve(io::Error),
    Os(io::Error),
}

fn listen_on(address: &ListenAddress) -> Result<TcpListener, Failure> {
    let listener = match &address.host {
        Host::Any => listen_on_all(address.port),
        Host::Address(ip) => listen(SocketAddr::new(*ip, address.port)),
        Host::Name(name) => listen(resolve(name, address.port).map_err(Failure::Resolve)?),
    };
    listener.map_err(Failure::Os)
}

fn listen_on_all(port: u16) -> io::Result<TcpListener> {
    match listen((Ipv6Addr::UNSPECIFIED, port).into()) {
        Err(error) if !is_final(&error) => listen((Ipv4Addr::UNSPECIFIED, port).into()),
        listener => listener,
    }
}

/// Whether IPv4 would fare no better.
fn is_final(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied
    )
}

fn resolve(host: &str, port: u16) -> io::Result<SocketAddr> {
    let addresses: Vec<SocketAddr> = (host, port).to_socket_addrs()?.collect();
    addresses
        .iter()
        .find(|address| address.is_ipv4())
        .or(addresses.first())
        .copied()
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "it has no address"))
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    // So that connections of the run before, in TIME-WAIT, do not keep this one from starting. Elsewhere than on Unix
    // the option would let two processes share a port.
    #[cfg(unix)]
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn explain(address: &ListenAddress, before: &[ListenAddress], failure: Failure) -> Error {
    let address = address.clone();
    let error = match failure {
        Failure::Resolve(error) => return Error::Resolve { address, error },
        Failure::Os(error) => error,
    };
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            match before.iter().find(|earlier| may_cover(earlier, &address)) {
                Some(earlier) => Error::Twice {
                    earlier: earlier.clone(),
                    address,
                },
                None => Error::InUse {
                    port: address.port,
                    address,
                },
            }
        }
        io::ErrorKind::AddrNotAvailable => Error::NotLocal(address),
        io::ErrorKind::PermissionDenied => Error::Denied(address),
        _ => Error::Os { address, error },
    }
}

/// Whether `earlier` is why `address` is in use: the same port, and the same host by whatever name, or all hosts.
fn may_cover(earlier: &ListenAddress, address: &ListenAddress) -> bool {
    let ip = |address: &ListenAddress| match &address.host {
        Host::Any => Some(IpAddr::V6(Ipv6Addr::UNSPECIFIED)),
        Host::Address(ip) => Some(*ip),
        Host::Name(name) => resolve(name, address.port).ok().map(|address| address.ip()),
    };
    earlier.port == address.port
        && match (ip(earlier), ip(address)) {
            (Some(earlier), Some(address)) => {
                earlier == address || earlier.is_unspecified() || address.is_unspecified()
            }
            _ => false,
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_says_is_told_with_the_cure() {
        let address: ListenAddress = "[::1]:80".parse().unwrap();
        let told = |kind| explain(&address, &[], Failure::Os(io::Error::from(kind))).to_string();
        let denied = told(io::ErrorKind::PermissionDenied);
        assert!(
            denied.starts_with("listen address [::1]:80: permission denied")
                && denied.contains("CAP_NET_BIND_SERVICE"),
            "{denied}"
        );
        assert!(told(io::ErrorKind::OutOfMemory).starts_with("listen address [::1]:80: "));
    }
}
