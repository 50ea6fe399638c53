//! Addresses to listen on, and listening on them.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs as _};
use std::str::FromStr;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;

/// Connections that may wait to be accepted; the kernel caps it at its own limit.
const BACKLOG: i32 = 1024;

/// Where to listen: `:10561` (all addresses), `host:10561` or `[v6]:10561`. Port 0 lets the system choose.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ListenAddress {
    /// `None`: all addresses of both IP versions.
    host: Option<String>,
    port: u16,
}

/// What is wrong with the text of a listen address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// No port.
    #[error("listen address {0:?} names no port: write :10561, host:10561 or [v6]:10561")]
    NoPort(String),
    /// Not a port.
    #[error("listen address {address:?}: {port:?} is not a port number, 0 to 65535")]
    Port {
        /// The whole address.
        address: String,
        /// The part that should be a port.
        port: String,
    },
    /// An IPv6 address as it stands.
    #[error("listen address {0:?}: write an IPv6 address in brackets, [::1]:10561")]
    NoBrackets(String),
    /// Neither a name nor an address.
    #[error(
        "listen address {0:?}: the host is neither a name nor an address; leave it out to listen on all"
    )]
    Host(String),
}

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

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            None => write!(f, ":{}", self.port),
            Some(host) if host.contains(':') => write!(f, "[{host}]:{}", self.port),
            Some(host) => write!(f, "{host}:{}", self.port),
        }
    }
}

impl FromStr for ListenAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let (host, port) = text
            .rsplit_once(':')
            .filter(|(_, port)| !port.ends_with(']'))
            .ok_or_else(|| AddressError::NoPort(text.to_owned()))?;
        let host = match host.strip_prefix('[').map(|host| host.strip_suffix(']')) {
            Some(Some(host)) if is_ipv6(host) => Some(host),
            None if is_ipv6(host) || is_ipv6(text) => {
                return Err(AddressError::NoBrackets(text.to_owned()));
            }
            None if host.is_empty() => None,
            None if is_name(host) => Some(host),
            _ => return Err(AddressError::Host(text.to_owned())),
        };
        let number = Some(port)
            .filter(|port| port.bytes().all(|byte| byte.is_ascii_digit()))
            .and_then(|port| port.parse().ok())
            .ok_or_else(|| AddressError::Port {
                address: text.to_owned(),
                port: port.to_owned(),
            })?;
        Ok(Self {
            host: host.map(str::to_owned),
            port: number,
        })
    }
}

/// With or without a zone.
fn is_ipv6(host: &str) -> bool {
    let (address, zone) = host.split_once('%').unwrap_or((host, "none"));
    address.parse::<Ipv6Addr>().is_ok() && is_name(zone)
}

fn is_name(host: &str) -> bool {
    !host.is_empty()
        && host
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'))
}

/// Listens on all of the addresses, in their order. Needs a Tokio runtime around it; resolving a name blocks.
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
        None => listen_on_all(address.port),
        Some(host) => listen(resolve(host, address.port).map_err(Failure::Resolve)?),
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
    TcpListener::from_std(socket.into())
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
        None => Some(Ipv6Addr::UNSPECIFIED.into()),
        Some(host) => resolve(host, address.port).ok().map(|address| address.ip()),
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
    fn an_address_is_written_as_it_is_read() {
        for text in [
            ":10561",
            ":0",
            "localhost:10561",
            "127.0.0.1:80",
            "[::1]:10561",
            "[fe80::1%eth0]:10561",
            "host-1.example:65535",
        ] {
            assert_eq!(text.parse::<ListenAddress>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_malformed_address_is_told_what_is_wrong() {
        let message = |text: &str| text.parse::<ListenAddress>().unwrap_err().to_string();
        for (text, expected) in [
            ("", "names no port"),
            ("10561", "names no port"),
            ("localhost", "names no port"),
            ("[::1]", "names no port"),
            ("::1", "in brackets"),
            ("::1:10561", "in brackets"),
            (":", "\"\" is not a port number"),
            (":65536", "\"65536\" is not a port number"),
            (":+1", "\"+1\" is not a port number"),
            (":http", "\"http\" is not a port number"),
            ("*:10561", "leave it out"),
            ("[localhost]:1", "neither a name nor an address"),
            ("[::1:10561", "neither a name nor an address"),
            ("a b:1", "neither a name nor an address"),
            ("http://localhost:1", "neither a name nor an address"),
            ("\u{1b}[2J:1", "neither a name nor an address"),
        ] {
            let message = message(text);
            assert!(message.contains(expected), "{text:?}: {message}");
            assert!(!message.contains('\u{1b}'), "{message}");
        }
    }

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

    proptest::proptest! {
        #[test]
        fn parsing_never_panics(text in "\\PC{0,20}") {
            let _ = text.parse::<ListenAddress>();
        }
    }
}
