//! Which network namespaces there are.
//!
//! One link is read a process, some two microseconds; nothing shorter is sound, as a process may move at any time.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, fstat, fstatfs, openat};
use rustix::io::Errno;

use super::Namespace;
use crate::owners::process::Procfs;

/// What fstatfs(2) says of a namespace's file: `NSFS_MAGIC` of the kernel's linux/magic.h.
const NSFS: u64 = 0x6e73_6673;

/// How many processes of a namespace are remembered as ways in: if one exits, the next may be there.
const WAYS_IN: usize = 4;

/// Longest name that is taken.
const NAME_LENGTH: usize = 255;

/// The namespaces found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// By inode.
    pub(super) namespaces: BTreeMap<u64, Candidate>,
    /// Processes whose namespace could not be told.
    pub(super) unreadable: usize,
}

/// A namespace and the ways into it.
#[derive(Debug, Default)]
pub(super) struct Candidate {
    name: Option<OsString>,
    processes: Vec<u32>,
}

/// Finds all namespaces but one's own.
///
/// # Errors
/// When the processes cannot be listed.
pub(super) fn discover(procfs: &Procfs, names: &Path, own: u64) -> Result<Found, Errno> {
    let mut found = Found::default();
    for pid in procfs.processes()? {
        match procfs.network_namespace(pid) {
            Ok(Some(inode)) => {
                let candidate = found.namespaces.entry(inode).or_default();
                if candidate.processes.len() < WAYS_IN {
                    candidate.processes.push(pid);
                }
            }
            // It has exited, or is a zombie and in no namespace any more.
            Ok(None) | Err(Errno::NOENT | Errno::SRCH) => {}
            // Kernel threads are all in the first namespace, and the dead are in none.
            Err(_) if !procfs.stat(pid).is_some_and(|stat| stat.can_hold_files()) => {}
            Err(_) => found.unreadable += 1,
        }
    }
    for (name, inode) in named(names) {
        found
            .namespaces
            .entry(inode)
            .or_default()
            .name
            .get_or_insert(name);
    }
    found.namespaces.remove(&own);
    Ok(found)
}

/// The names in a directory, by alphabet, and the namespaces they stand for.
fn named(directory: &Path) -> Vec<(OsString, u64)> {
    let Ok(entries) = fs::read_dir(directory) else {
        return Vec::new();
    };
    let mut names: Vec<OsString> = entries
        .filter_map(|entry| Some(entry.ok()?.file_name()))
        .collect();
    names.sort_unstable();
    let inode = |name: &OsString| inode_of(&open_name(&directory.join(name)).ok()?);
    names
        .into_iter()
        .filter_map(|name| inode(&name).map(|inode| (name, inode)))
        .collect()
}

/// Opens what should be a namespace. Never waits, whatever it is.
fn open_name(path: &PathBuf) -> Result<OwnedFd, Errno> {
    openat(
        CWD,
        path,
        OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOFOLLOW,
        Mode::empty(),
    )
}

/// The inode of an open namespace; `None` if the file is something else, such as a name from which the namespace was
/// unmounted.
pub(super) fn inode_of(file: impl AsFd) -> Option<u64> {
    let system = fstatfs(&file).ok()?;
    (u64::try_from(system.f_type) == Ok(NSFS)).then_some(())?;
    fstat(&file).ok().map(|status| status.st_ino)
}

impl Candidate {
    pub(super) fn namespace(&self, inode: u64) -> Namespace {
        let name = self.name.as_ref().map(|name| {
            let name = name.to_string_lossy();
            name[..name.floor_char_boundary(NAME_LENGTH)].to_owned()
        });
        Namespace { inode, name }
    }

    /// Opens the namespace by the first way that still leads there. `None` if none does: it has ended.
    pub(super) fn open(
        &self,
        inode: u64,
        procfs: &Procfs,
        names: &Path,
    ) -> Result<Option<OwnedFd>, Errno> {
        let mut refused = None;
        let by_name = self.name.iter().map(|name| open_name(&names.join(name)));
        let by_process = self
            .processes
            .iter()
            .map(|pid| procfs.open_file(&format!("{pid}/ns/net")));
        for file in by_name.chain(by_process) {
            match file {
                Ok(file) if inode_of(&file) == Some(inode) => return Ok(Some(file)),
                Ok(_) | Err(Errno::NOENT | Errno::SRCH) => {}
                Err(error) => refused = Some(error),
            }
        }
        refused.map_or(Ok(None), Err)
    }
}
