//! The socket table through netstat2: the reader that works everywhere, and the only file that names that crate.
//!
//! What it cannot tell: cookies and control groups; off Linux, inodes and users; whether a UDP socket is connected to
//! one peer, except on Linux, where `/proc/net/udp` says so. It reads every socket of the host, so its cost grows with
//! how busy the host is.
//!
//! On Linux, netstat2 0.11 ends its list silently where the kernel reports an error, which would read as "nothing
//! listens". Therefore the reader takes sentinels, TCP sockets known to listen, and refuses a table that lacks one; and it
//! refuses one that shows none of the UDP sockets that `/proc/net/udp` does. Either guards an address family at a time,
//! because netstat2 reads one at a time, and notices a list that is missing, not one that stops half-way.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};

use netstat2::error::Error as NetstatError;
use netstat2::{
    AddressFamilyFlags, ProtocolFlags, ProtocolSocketInfo, SocketInfo, TcpSocketInfo, TcpState,
    UdpSocketInfo,
};

use super::{Concern, Connection, Error, Listener, SocketTable, Wanted};
use crate::port::{Port, PortSet, Protocol};

/// Reads the table through netstat2, of the network namespace of the reading thread.
#[derive(Debug)]
pub struct Portable {
    sentinels: Vec<SocketAddr>,
}

impl Portable {
    /// Opens the reader and reads the listeners once to see that it can.
    ///
    /// `sentinels` are local addresses of TCP sockets that listen as long as this reader is used, such as the
    /// exporter's own: a table without one of them is an error. Without sentinels, a table that ended early passes
    /// for whole.
    ///
    /// # Errors
    /// When the table cannot be read, or lacks a sentinel.
    pub fn open(sentinels: Vec<SocketAddr>) -> Result<Self, Error> {
        let mut reader = Self { sentinels };
        reader.read(Wanted::Listeners)?;
        Ok(reader)
    }

    /// Reads the table.
    ///
    /// # Errors
    /// When the table cannot be read, or lacks a sentinel.
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
        self.check(&table.listeners)?;
        check_udp(udp_files, &table.listeners)?;
        if let Wanted::Connections { watched, listened } = wanted {
            let concern = Concern::of(watched, listened, &table.listeners);
            connections.retain(|connection: &Connection| {
                concern.includes(connection.local.port(), connection.remote.port())
            });
            table.connections = connections;
        }
        Ok(table)
    }

    /// Refuses a list of listeners in which a sentinel is missing.
    fn check(&self, listeners: &[Listener]) -> Result<(), Error> {
        let missing = self.sentinels.iter().find(|sentinel| {
            !listeners
                .iter()
                .any(|listener| stands_for(listener, sentinel))
        });
        match missing {
            None => Ok(()),
            Some(sentinel) => Err(Error::Incomplete(format!(
                "netstat2 does not show this process's own listener on {sentinel}"
            ))),
        }
    }
}

/// Whether a listener is the sentinel. Systems differ in whether they show a socket of both families as `0.0.0.0` or `::`.
fn stands_for(listener: &Listener, sentinel: &SocketAddr) -> bool {
    let address = sentinel.ip().to_canonical();
    listener.port == Port::tcp(sentinel.port())
        && (listener.address == address
            || listener.address.is_unspecified() && address.is_unspecified())
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

/// Whether a watched port is at either end: all that can be said before the listeners are known.
fn touches(watched: &PortSet, connection: &Connection) -> bool {
    [connection.local, connection.remote]
        .iter()
        .any(|end| watched.contains(Port::tcp(end.port())))
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
    let mut files = Vec::new();
    for file in [procfs::net::udp(), procfs::net::udp6()] {
        match file {
            Ok(entries) => files.push(udp_file(&entries)),
            // A kernel without IPv6 has no such file.
            Err(procfs::ProcError::NotFound(_)) => {}
            Err(error) => return Err(Error::Incomplete(error.to_string())),
        }
    }
    Ok(files)
}

#[cfg(target_os = "linux")]
fn udp_file(entries: &[procfs::net::UdpNetEntry]) -> UdpFile {
    let mut file = UdpFile::default();
    // Sockets of the kernel's own share inode 0.
    for entry in entries.iter().filter(|entry| entry.inode != 0) {
        match entry.remote_address.port() {
            0 => file.bound.insert(entry.inode),
            _ => file.connected.insert(entry.inode),
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
        NetstatError::OsError(source) => Error::Os {
            step: "list sockets through netstat2",
            source,
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
    fn each_sentinel_must_be_there() {
        let reader = Portable {
            sentinels: vec![
                "127.0.0.1:10561".parse().unwrap(),
                "[::]:10562".parse().unwrap(),
            ],
        };
        let first = shown("127.0.0.1", Port::tcp(10_561));
        let second = shown("::", Port::tcp(10_562));
        assert!(reader.check(&[first.clone(), second.clone()]).is_ok());
        let message = reader.check(&[first]).unwrap_err().to_string();
        assert!(message.contains("[::]:10562"), "{message}");
        assert!(reader.check(&[second]).is_err());
        assert!(reader.check(&[]).is_err());
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

    #[test]
    fn a_sentinel_is_known_by_port_protocol_and_address() {
        let sentinel = "127.0.0.1:10561".parse().unwrap();
        let is = |address, port| stands_for(&shown(address, port), &sentinel);
        assert!(is("127.0.0.1", Port::tcp(10_561)));
        assert!(!is("127.0.0.2", Port::tcp(10_561)));
        assert!(!is("127.0.0.1", Port::udp(10_561)));
        assert!(!is("127.0.0.1", Port::tcp(10_562)));
        let everywhere = "[::]:10561".parse().unwrap();
        assert!(stands_for(
            &shown("0.0.0.0", Port::tcp(10_561)),
            &everywhere
        ));
    }
}
