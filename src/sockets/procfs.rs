//! The socket table out of `/proc/net` (proc_pid_net(5)): the reader that is left where netlink is forbidden, by a
//! sandbox such as gVisor or systemd's `RestrictAddressFamilies=`.
//!
//! The kernel writes a line for every socket of the network namespace, wanted or not, and this reads it: some 2 µs a
//! socket, so that the cost grows with how busy the host is. What it cannot tell: cookies and control groups. The lines
//! are the procfs crate's to read; this takes them in pieces, so that no more than one is in memory, and
//! sees to it that there are no lines missing at the end.
//!
//! A list is written a page at a time, and goes on by position: a socket that joins the hash bucket at which a page ends
//! shows another twice, which is put right here, and one that leaves it can hide another until the next reading, which
//! cannot be noticed. A netlink dump has the same between two of its datagrams.

use std::fs::File;
use std::io::{self, Read};
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};

use procfs::net::{TcpNetEntries, TcpNetEntry, TcpState, UdpNetEntries, UdpNetEntry};
use procfs::{FromBufReadSI, ProcError, current_system_info};

use super::concern::touches;
use super::{Concern, Connection, Error, Listener, SocketTable, Wanted, once_each};
use crate::port::{Port, Protocol};

/// How much of a file is in memory at a time, in bytes: some 400 sockets.
const PIECE: usize = 64 * 1024;

/// Reads the table from procfs, of the network namespace of the reading thread.
#[derive(Debug)]
pub struct Procfs {
    folder: PathBuf,
}

impl Procfs {
    /// Of the exporter's own network namespace, whichever procfs shows the processes. Not `/proc/net`: that is the main
    /// thread's, and not there where `/proc` shows processes only.
    #[must_use]
    pub fn own() -> Self {
        Self {
            folder: "/proc/thread-self/net".into(),
        }
    }

    /// Reads the table.
    ///
    /// # Errors
    /// When a file cannot be read, ends within a line or has one that is not understood.
    pub fn read(&mut self, wanted: Wanted<'_>) -> Result<SocketTable, Error> {
        let mut listeners = Vec::new();
        let mut connections = Vec::new();
        self.each_of_both("tcp", |piece: TcpNetEntries| {
            for socket in piece.0 {
                if socket.state == TcpState::Listen {
                    listeners.push(tcp_listener(&socket));
                } else if let Wanted::Connections { watched, .. } = wanted {
                    connections.extend(connection(&socket).filter(|found| touches(watched, found)));
                }
            }
        })?;
        self.each_of_both("udp", |piece: UdpNetEntries| {
            let bound = piece.0.iter().filter(|socket| is_unconnected(socket));
            listeners.extend(bound.map(udp_listener));
        })?;
        let inode = |listener: &Listener| listener.inode.and_then(NonZeroU64::new);
        let mut table = SocketTable {
            listeners: once_each(listeners, inode),
            ..SocketTable::default()
        };
        if let Wanted::Connections { watched, listened } = wanted {
            let concern = Concern::of(watched, listened, &table.listeners);
            connections.retain(|connection| concern.covers(connection));
            table.connections = once_each(connections, |c| Some((c.local, c.remote)));
        }
        Ok(table)
    }

    /// The UDP sockets of IPv4, and those of IPv6 where the kernel has it.
    pub(super) fn udp_files(&self) -> Result<Vec<Vec<UdpNetEntry>>, Error> {
        let mut files = Vec::new();
        for name in ["udp", "udp6"] {
            let mut sockets = Vec::new();
            let is_there = self.each(name, |piece: UdpNetEntries| sockets.extend(piece.0))?;
            files.extend(is_there.then_some(sockets));
        }
        Ok(files)
    }

    /// Reads a file of IPv4, and the one of IPv6 where the kernel has it.
    fn each_of_both<T: FromBufReadSI>(
        &self,
        name: &str,
        mut take: impl FnMut(T),
    ) -> Result<(), Error> {
        self.each(name, &mut take)?;
        self.each(&format!("{name}6"), &mut take)?;
        Ok(())
    }

    /// Reads a file; gives whether there is one, which only that of IPv6 may lack.
    fn each<T: FromBufReadSI>(&self, name: &str, take: impl FnMut(T)) -> Result<bool, Error> {
        let path = self.folder.join(name);
        match File::open(&path) {
            Ok(file) => read_pieces(file, take)
                .map(|()| true)
                .map_err(|reason| cannot_read(&path, &reason)),
            Err(error) if error.kind() == io::ErrorKind::NotFound && name.ends_with('6') => {
                Ok(false)
            }
            Err(error) => Err(cannot_read(&path, &error.to_string())),
        }
    }
}

fn cannot_read(path: &Path, reason: &str) -> Error {
    Error::Incomplete(format!("{}: {reason}", path.display()))
}

/// Reads a list of sockets and hands it on by pieces of whole lines. An error says what is wrong.
fn read_pieces<T: FromBufReadSI>(
    mut file: impl Read,
    mut take: impl FnMut(T),
) -> Result<(), String> {
    let mut piece = Vec::with_capacity(PIECE);
    let mut headed = false;
    loop {
        let room = (PIECE - piece.len()) as u64;
        let read = file
            .by_ref()
            .take(room)
            .read_to_end(&mut piece)
            .map_err(|error| error.to_string())?;
        let Some(end) = piece.iter().rposition(|&byte| byte == b'\n') else {
            return match (read, piece.is_empty(), headed) {
                (0, true, true) => Ok(()),
                (0, true, false) => Err("is empty".to_owned()),
                _ => Err("ends within a line, or has one that is far too long".to_owned()),
            };
        };
        let lines = &piece[..=end];
        // The crate passes over one line, which is the header of a file; a piece further on gets one.
        let header: &[u8] = if headed { b"\n" } else { b"" };
        let sockets = T::from_buf_read(header.chain(lines), current_system_info());
        take(sockets.map_err(|error| not_understood(&error))?);
        headed = true;
        piece.drain(..=end);
    }
}

/// The crate asks to be told of every line that it does not understand, at a length; only what it is about is of use here.
fn not_understood(error: &ProcError) -> String {
    match error {
        ProcError::InternalError(error) => format!("a line is not understood: {}", error.msg),
        error => format!("a line is not understood: {error}"),
    }
}

fn tcp_listener(socket: &TcpNetEntry) -> Listener {
    Listener {
        port: Port::tcp(socket.local_address.port()),
        address: socket.local_address.ip().to_canonical(),
        cookie: None,
        inode: Some(socket.inode),
        uid: Some(socket.uid),
        cgroup: None,
    }
}

fn is_unconnected(socket: &UdpNetEntry) -> bool {
    socket.remote_address.port() == 0
}

fn udp_listener(socket: &UdpNetEntry) -> Listener {
    Listener {
        port: Port {
            number: socket.local_address.port(),
            protocol: Protocol::Udp,
        },
        address: socket.local_address.ip().to_canonical(),
        cookie: None,
        inode: Some(socket.inode),
        uid: Some(socket.uid),
        cgroup: None,
    }
}

/// The connection in a synchronised state but TIME-WAIT, if it is one.
fn connection(socket: &TcpNetEntry) -> Option<Connection> {
    let established = match socket.state {
        TcpState::Established => true,
        TcpState::FinWait1
        | TcpState::FinWait2
        | TcpState::CloseWait
        | TcpState::LastAck
        | TcpState::Closing => false,
        _ => return None,
    };
    let [local, remote] = [socket.local_address, socket.remote_address].map(|mut end| {
        end.set_ip(end.ip().to_canonical());
        end
    });
    Some(Connection {
        local,
        remote,
        established,
        cookie: None,
    })
}

/// `net/tcp` and the like: what is wrong is told in one line, and a list that was accepted ends with a whole line.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz(bytes: &[u8]) {
    let mut lines = 0;
    let tcp = read_pieces(bytes, |piece: TcpNetEntries| {
        lines += piece.0.len();
        for socket in piece.0 {
            let _ = (tcp_listener(&socket), connection(&socket));
        }
    });
    assert!(lines <= bytes.len());
    let udp = read_pieces(bytes, |piece: UdpNetEntries| {
        for socket in piece.0.iter().filter(|socket| is_unconnected(socket)) {
            let _ = udp_listener(socket);
        }
    });
    for outcome in [tcp, udp] {
        match outcome {
            Ok(()) => assert_eq!(bytes.last(), Some(&b'\n')),
            Err(reason) => assert!(!reason.contains('\n'), "{reason:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Write as _;

    const HEADER: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";

    fn line(number: usize) -> String {
        format!(
            "{number:4}: 0100007F:{:04X} 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 {} 1 \
             0000000000000000 100 0 0 10 0\n",
            number % 65_536,
            number + 1
        )
    }

    fn list(sockets: usize) -> String {
        let mut text = HEADER.to_owned();
        for number in 0..sockets {
            let _ = write!(text, "{}", line(number));
        }
        text
    }

    fn inodes(mut file: impl Read) -> Result<Vec<u64>, String> {
        let mut inodes = Vec::new();
        read_pieces(&mut file, |piece: TcpNetEntries| {
            inodes.extend(piece.0.iter().map(|socket| socket.inode));
        })?;
        Ok(inodes)
    }

    /// Gives what it has in parts of any size, as the kernel does.
    struct Dripping<'a>(&'a [u8], usize);

    impl Read for Dripping<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let length = self.1.min(self.0.len()).min(buffer.len());
            let (now, later) = self.0.split_at(length);
            buffer[..length].copy_from_slice(now);
            self.0 = later;
            Ok(length)
        }
    }

    #[test]
    fn every_line_of_many_pieces_is_read_once() {
        for sockets in [0, 1, 399, 2_000] {
            let text = list(sockets);
            let all: Vec<u64> = (1..=sockets as u64).collect();
            for step in [7, 149, 4_096, usize::MAX] {
                assert_eq!(inodes(Dripping(text.as_bytes(), step)).unwrap(), all);
            }
        }
    }

    #[test]
    fn a_list_that_ends_within_a_line_is_an_error() {
        let text = list(1_000);
        let whole = inodes(text.as_bytes()).unwrap();
        for cut in 1..=line(0).len() * 3 {
            let end = text.len() - cut;
            match inodes(&text.as_bytes()[..end]) {
                // Cut off between two lines, which nothing can tell.
                Ok(found) => assert!(text[..end].ends_with('\n') && whole.starts_with(&found)),
                Err(reason) => assert!(reason.contains("ends within a line"), "{reason}"),
            }
        }
        assert!(inodes(&HEADER.as_bytes()[..20]).is_err());
    }

    #[test]
    fn a_file_without_a_header_is_an_error() {
        assert_eq!(inodes(&b""[..]).unwrap_err(), "is empty");
    }

    #[test]
    fn a_line_that_is_not_understood_is_an_error_and_one_line() {
        let good = line(7);
        for bad in [
            "\n".to_owned(),
            "7: 0100007F:1F90\n".to_owned(),
            good.replace("0100007F:0007", "0100007F"),
            good.replace("0100007F:0007", "0100007:0007"),
            good.replace("0100007F:0007", "0100007F:10007"),
            good.replace("  1000  ", "  -  "),
            good.replace(" 0A ", " ZZ "),
            good.replace(" 8 1 ", " x 1 "),
        ] {
            assert_ne!(bad, good);
            let reason = inodes(format!("{HEADER}{good}{bad}{good}").as_bytes()).unwrap_err();
            assert!(
                reason.starts_with("a line is not understood") && !reason.contains('\n'),
                "{bad}: {reason:?}"
            );
        }
        let binary = [HEADER.as_bytes(), b"\xff\xfe\n"].concat();
        assert!(inodes(&binary[..]).is_err());
        assert!(inodes(&vec![b' '; 3 * PIECE][..]).is_err());
    }

    #[test]
    fn a_file_that_fails_half_way_is_an_error() {
        struct Failing;
        impl Read for Failing {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::ErrorKind::OutOfMemory.into())
            }
        }
        let text = list(10);
        assert!(inodes(text.as_bytes().chain(Failing)).is_err());
    }

    fn folder(files: &[(&str, &str)]) -> (tempfile::TempDir, Procfs) {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        let reader = Procfs {
            folder: folder.path().to_owned(),
        };
        (folder, reader)
    }

    #[test]
    fn only_the_files_of_ipv6_may_be_missing() {
        let (_folder, mut reader) = folder(&[("tcp", &list(3)), ("udp", HEADER)]);
        assert_eq!(reader.read(Wanted::Listeners).unwrap().listeners.len(), 3);
        for missing in ["tcp", "udp"] {
            let present = if missing == "tcp" { "udp" } else { "tcp" };
            let (_folder, mut reader) = folder(&[(present, HEADER)]);
            let error = reader.read(Wanted::Listeners).unwrap_err().to_string();
            assert!(error.contains(&format!("/{missing}: ")), "{error}");
        }
    }

    #[test]
    fn a_socket_on_both_sides_of_a_page_is_one() {
        let text = format!("{HEADER}{0}{1}{1}", line(1), line(2));
        let (_folder, mut reader) = folder(&[("tcp", &text), ("udp", HEADER)]);
        assert_eq!(reader.read(Wanted::Listeners).unwrap().listeners.len(), 2);
    }
}
