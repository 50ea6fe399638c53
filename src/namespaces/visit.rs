//! Going into namespaces and coming back. Everything here runs on the one thread kept for it.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::time::Instant;

use rustix::io::Errno;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::discover::{Candidate, discover, inode_of};
use super::{Bounds, Error, Failure, Reading};
use crate::owners::process::Procfs;
use crate::sockets::netlink::Netlink;
use crate::sockets::{SocketTable, Wanted};

/// The calling thread's own namespace, below procfs.
const OWN: &str = "thread-self/ns/net";

/// Where namespaces are found.
#[derive(Debug)]
pub(super) struct Visitor {
    procfs: PathBuf,
    names: PathBuf,
    bounds: Bounds,
    /// The inode at which the next reading begins: the first that was left out of the last.
    next: u64,
}

/// What became of a visit.
enum Visit {
    Read(SocketTable),
    /// The namespace has ended.
    Gone,
    Failed(Failure),
    /// The thread is still there.
    Stranded,
}

impl Visitor {
    pub(super) fn new(procfs: PathBuf, names: PathBuf, bounds: Bounds) -> Self {
        Self {
            procfs,
            names,
            bounds,
            next: 0,
        }
    }

    /// Reads the namespaces but the thread's own: by inode and in turn, as many as the bounds allow.
    pub(super) fn read(&mut self) -> Result<Reading, Error> {
        let procfs = Procfs::open(&self.procfs).map_err(|error| self.unlistable(error))?;
        let home = procfs
            .open_file(OWN)
            .map_err(|error| self.not_at_home(error))?;
        let own = inode_of(&home).ok_or_else(|| self.not_at_home(Errno::INVAL))?;
        let found = discover(&procfs, &self.names, own).map_err(|error| self.unlistable(error))?;
        let mut reading = Reading {
            unreadable: found.unreadable,
            ..Reading::default()
        };
        let first = std::mem::take(&mut self.next);
        let in_turn = found.namespaces.range(first..);
        let in_turn = in_turn.chain(found.namespaces.range(..first));
        let start = Instant::now();
        for (index, (&inode, candidate)) in in_turn.enumerate() {
            let Bounds { most, time } = self.bounds;
            let is_left = index > 0 && (index >= most || start.elapsed() >= time);
            if is_left && self.next == 0 {
                self.next = inode;
            }
            let namespace = candidate.namespace(inode);
            let visit = if is_left {
                Visit::Failed(Failure::Left(self.bounds))
            } else {
                self.visit(candidate, inode, &procfs, &home)
            };
            match visit {
                Visit::Read(table) => {
                    reading.read += 1;
                    reading.tables.push((namespace, table));
                }
                Visit::Gone => {}
                Visit::Failed(failure) => {
                    reading.unread.push(namespace.clone());
                    reading.failure.get_or_insert((namespace, failure));
                }
                Visit::Stranded => return Err(Error::Stranded { from: namespace }),
            }
        }
        reading.seen = reading.read + reading.unread.len();
        Ok(reading)
    }

    fn visit(&self, candidate: &Candidate, inode: u64, procfs: &Procfs, home: &OwnedFd) -> Visit {
        match candidate.open(inode, procfs, &self.names) {
            Ok(Some(there)) => read_in(&there, home),
            Ok(None) => Visit::Gone,
            Err(error) => Visit::Failed(Failure::Open(error.into())),
        }
    }

    fn unlistable(&self, error: Errno) -> Error {
        Error::Processes {
            path: self.procfs.clone(),
            source: error.into(),
        }
    }

    fn not_at_home(&self, error: Errno) -> Error {
        Error::Own {
            path: self.procfs.join(OWN),
            source: error.into(),
        }
    }
}

/// Enters, reads, and comes back whatever happened.
fn read_in(there: &OwnedFd, home: &OwnedFd) -> Visit {
    if let Err(error) = enter(there) {
        return Visit::Failed(Failure::Enter(error));
    }
    let table = Netlink::open().and_then(|mut reader| reader.read(Wanted::Listeners));
    if enter(home).is_err() {
        return Visit::Stranded;
    }
    match table {
        Ok(table) => Visit::Read(table),
        Err(error) => Visit::Failed(error.into()),
    }
}

fn enter(namespace: &OwnedFd) -> io::Result<()> {
    Ok(move_into_link_name_space(
        namespace.as_fd(),
        Some(LinkNameSpaceType::Network),
    )?)
}
