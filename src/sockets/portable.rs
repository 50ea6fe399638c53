//! The socket table through netstat2: the reader for Linux, macOS and Windows, and the only file that names that crate.
//!
//! What it cannot tell: cookies and control groups; off Linux, inodes and users; whether a UDP socket is connected to
//! one peer, except on Linux, where `/proc/net/udp` says so. It reads every socket of the host, so its cost grows with
//! how busy the host is.
//!
//! On Linux, netstat2 0.11 ends its list silently where the kernel reports an error, which would read as "nothing
//! listens". For TCP [`Reader`](super::Reader) notices, by the sockets known to listen; for UDP this one refuses a
//! table that shows none of the sockets that `/proc/net/udp` does. Either guards an address family at a time, because
//! netstat2 reads one at a time, and notices a list that is missing, not one that stops half-way.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};

use netstat2::error::Error as NetstatError;
use netstat2::{
    AddressFamilyFlags, ProtocolFlags, ProtocolSocketInfo, SocketInfo, TcpSocketInfo, TcpState,
    UdpSocketInfo,
};

use super::concern::touches;
use super::{Concern, Connection, Error, Listener, SocketTable, Wanted};
use crate::port::{Port, Protocol};

/// Reads the table through netstat2, of the network namespace of the reading thread.
#[derive(Debug)]
pub struct Portable;

impl Portable {
    /// Reads the table.
    ///
    /// # Errors
    /// When the table cannot be read, or shows no UDP sockets where there are some.
    pub fn read(&mut self, wanted: Wanted<'_>) -> Result<SocketTable, Error> {
        let mut table = SocketTable::default();
        let mut connections = Vec::new();
        let udp_files = udp_files()?;
        for socket in sockets().map_err(error)? {
            let socket = socket.map_err(error)?;
            match &socket.protocol_socket_info {
                ProtocolSocketInfo::Tcp(tcp) if tcp.state == TcpState::Listen => {
                    table.listeners.push(tcp_listener(&socket, tcp));
                }
                ProtocolSocketInfo::Tcp(tcp) => {
                    if let Wanted::Connections { watched, .. } = wanted {
                        connections.extend(connection(tcp).filter(|found| touches(watched, found)));
                    }
                }
                ProtocolSocketInfo::Udp(udp) => {
                    let listener = udp_listener(&socket, udp);
                    if !udp_files.iter().any(|file| file.is_connected(&listener)) {
                        table.listeners.push(listener);
                    }
                }
            }
        }
        check_udp(udp_files, &table.listeners)?;
        if let Wanted::Connections { watched, listened } = wanted {
            let concern = Concern::of(watched, listened, &table.listeners);
            connections.retain(|connection| concern.covers(connection));
            table.connections = connections;
        }
        Ok(table)
    }
}

/// Every TCP and UDP socket, without looking up processes where that can be left out.
fn sockets() -> Result<impl Iterator<Item = Result<SocketInfo, NetstatError>>, NetstatError> {
    #[cfg(not(target_os = "linux"))]
    use netstat2::iterate_sockets_info as iterate;
    #[cfg(target_os = "linux")]
    use netstat2::iterate_sockets_info_without_pids as iterate;

    iterate(AddressFamilyFlags::all(), ProtocolFlags::all())
}

fn tcp_listener(socket: &SocketInfo, tcp: &TcpSocketInfo) -> Listener {
    listener(socket, Protocol::Tcp, tcp.local_addr, tcp.local_port)
}

fn udp_listener(socket: &SocketInfo, udp: &UdpSocketInfo) -> Listener {
    listener(socket, Protocol::Udp, udp.local_addr, udp.local_port)
}

fn listener(socket: &SocketInfo, protocol: Protocol, address: IpAddr, number: u16) -> Listener {
    let (inode, uid) = identity(socket);
    Listener {
        port: Port { number, protocol },
        address: address.to_canonical(),
        cookie: None,
        inode,
        uid,
        cgroup: None,
    }
}

/// The connection in a synchronised state but TIME-WAIT, if it is one.
fn connection(tcp: &TcpSocketInfo) -> Option<Connection> {
    let established = match tcp.state {
        TcpState::Established => true,
        TcpState::FinWait1
        | TcpState::FinWait2
        | TcpState::CloseWait
        | TcpState::LastAck
        | TcpState::Closing => false,
        _ => return None,
    };
    Some(Connection {
        local: SocketAddr::new(tcp.local_addr.to_canonical(), tcp.local_port),
        remote: SocketAddr::new(tcp.remote_addr.to_canonical(), tcp.remote_port),
        established,
        cookie: None,
    })
}

/// Inode and user id.
#[cfg(target_os = "linux")]
fn identity(socket: &SocketInfo) -> (Option<u64>, Option<u32>) {
    (Some(socket.inode.into()), Some(socket.uid))
}

#[cfg(not(target_os = "linux"))]
fn identity(_: &SocketInfo) -> (Option<u64>, Option<u32>) {
    (None, None)
}

/// Inodes of an address family's UDP sockets, from a source that netstat2 does not use.
#[derive(Debug, Default)]
struct UdpFile {
    /// Those with a remote port.
    connected: HashSet<u64>,
    /// Those without.
    bound: HashSet<u64>,
}

impl UdpFile {
    fn is_connected(&self, listener: &Listener) -> bool {
        listener
            .inode
            .is_some_and(|inode| self.connected.contains(&inode))
    }

    /// Whether there are such sockets and not one of them is among the listeners.
    fn is_missing_from(&self, listeners: &[Listener]) -> bool {
        let shown = |listener: &Listener| {
            listener.port.protocol == Protocol::Udp
                && listener
                    .inode
                    .is_some_and(|inode| self.bound.contains(&inode))
        };
        !self.bound.is_empty() && !listeners.iter().any(shown)
    }

    /// Forgets the sockets that a later look does not show as they were: they may have gone before netstat2 came to them.
    fn keep_lasting(&mut self, later: &[Self]) {
        self.bound
            .retain(|inode| later.iter().any(|file| file.bound.contains(inode)));
    }
}

/// Refuses a list of listeners that shows none of a family's UDP sockets. `files` were read before the list.
fn check_udp(mut files: Vec<UdpFile>, listeners: &[Listener]) -> Result<(), Error> {
    files.retain(|file| file.is_missing_from(listeners));
    if files.is_empty() {
        return Ok(());
    }
    let later = udp_files()?;
    for file in &mut files {
        file.keep_lasting(&later);
        if file.is_missing_from(listeners) {
            return Err(Error::Incomplete(format!(
                "netstat2 shows none of {} UDP sockets that /proc/net does (is the kernel module udp_diag missing?)",
                file.bound.len()
            )));
        }
    }
    Ok(())
}

/// `/proc/net/udp` and `/proc/net/udp6`.
#[cfg(target_os = "linux")]
fn udp_files() -> Result<Vec<UdpFile>, Error> {
    let files = super::procfs::Procfs::own().udp_files()?;
    Ok(files.iter().map(|sockets| udp_file(sockets)).collect())
}

#[cfg(target_os = "linux")]
fn udp_file(sockets: &[procfs::net::UdpNetEntry]) -> UdpFile {
    let mut file = UdpFile::default();
    // Sockets of the kernel's own share inode 0.
    for socket in sockets.iter().filter(|socket| socket.inode != 0) {
        match socket.remote_address.port() {
            0 => file.bound.insert(socket.inode),
            _ => file.connected.insert(socket.inode),
        };
    }
    file
}

#[cfg(not(target_os = "linux"))]
fn udp_files() -> Result<Vec<UdpFile>, Error> {
    Ok(Vec::new())
}

fn error(error: NetstatError) -> Error {
    match error {
        NetstatError::OsError(error) => Error::Os {
            step: "list sockets through netstat2",
            error,
        },
        error => Error::Incomplete(format!("netstat2: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(address: &str, port: Port) -> Listener {
        Listener {
            port,
            address: address.parse().unwrap(),
            cookie: None,
            inode: None,
            uid: None,
            cgroup: None,
        }
    }

    #[test]
    fn a_family_of_udp_sockets_that_is_missing_is_noticed() {
        let numbered = |inode, port| Listener {
            inode: Some(inode),
            ..shown("127.0.0.1", port)
        };
        let file = UdpFile {
            connected: HashSet::from([1]),
            bound: HashSet::from([2, 3]),
        };
        assert!(file.is_connected(&numbered(1, Port::udp(53))));
        assert!(!file.is_connected(&numbered(2, Port::udp(53))));
        let others = [numbered(9, Port::udp(1)), numbered(3, Port::tcp(2))];
        assert!(file.is_missing_from(&others));
        assert!(!file.is_missing_from(&[numbered(3, Port::udp(2))]));
        assert!(!UdpFile::default().is_missing_from(&[]));
    }

    #[test]
    fn a_udp_socket_that_went_meanwhile_is_not_missed() {
        let file = |bound: &[u64], connected: &[u64]| UdpFile {
            connected: connected.iter().copied().collect(),
            bound: bound.iter().copied().collect(),
        };
        let mut before = file(&[1, 2], &[]);
        before.keep_lasting(&[file(&[], &[1]), file(&[2, 3], &[])]);
        assert_eq!(before.bound, HashSet::from([2]));
        before.keep_lasting(&[file(&[3], &[2])]);
        assert!(!before.is_missing_from(&[]));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_list_without_udp_is_refused_while_a_udp_socket_is_bound() {
        let _bound = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let error = check_udp(udp_files().unwrap(), &[]).unwrap_err();
        assert!(error.to_string().contains("udp_diag"), "{error}");
    }
}
