//! Going into namespaces and coming back. Everything here runs on the one thread kept for it.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use rustix::io::Errno;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::discover::{Candidate, discover, inode_of};
use super::{Error, Failure, Reading};
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
    pub(super) fn new(procfs: PathBuf, names: PathBuf) -> Self {
        Self { procfs, names }
    }

    /// Reads all namespaces but the thread's own.
    pub(super) fn read(&self) -> Result<Reading, Error> {
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
        for (inode, candidate) in found.namespaces {
            let namespace = candidate.namespace(inode);
            reading.seen += 1;
            match self.visit(&candidate, inode, &procfs, &home) {
                Visit::Read(table) => {
                    reading.read += 1;
                    reading.tables.push((namespace, table));
                }
                Visit::Gone => reading.seen -= 1,
                Visit::Failed(failure) => {
                    reading.failure.get_or_insert((namespace, failure));
                }
                Visit::Stranded => return Err(Error::Stranded { from: namespace }),
            }
        }
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
