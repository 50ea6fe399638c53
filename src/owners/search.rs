//! Looking for owners on Linux: the walk through the processes, and what it leaves to be concluded.

use std::collections::HashMap;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::sync::Arc;

use rustix::io::Errno;
use rustix::thread::{CapabilitySet, capabilities};

use super::budget::{Budget, LINKS};
use super::groups::Groups;
use super::hidden;
use super::owner::{Holders, Owner, Process};
use super::process::Procfs;
use super::users::Users;
use super::walk::{Findings, Memory, walk};
use super::{Coverage, Wanted};

/// A process that holds a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hold {
    pub(super) pid: u32,
    pub(super) via: Via,
}

/// How a process holds a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Via {
    /// In its table of files, under this number.
    File(u32),
    /// In the table of a thread that has one of its own: thread, number.
    Thread(u32, u32),
    /// Registered with the io_uring under this number, and in no table.
    Ring(u32),
}

impl Hold {
    pub(super) const fn is_by_ring(self) -> bool {
        matches!(self.via, Via::Ring(_))
    }
}

/// What a look found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Owners by inode, and how the oldest holds the socket.
    pub(super) owners: HashMap<u64, (Arc<Owner>, Hold)>,
    /// Whether no process of the host holds any of the others.
    pub(super) nobody_else: bool,
}

/// Where owners are looked for.
#[derive(Debug)]
pub(super) struct Search {
    path: PathBuf,
    procfs: Option<Procfs>,
    users: Users,
    groups: Groups,
    coverage: Coverage,
    memory: Memory,
    /// How many files a look reads.
    pub(super) links: u32,
}

impl Search {
    pub(super) fn new(path: PathBuf, passwd: PathBuf) -> Self {
        Self {
            path,
            procfs: None,
            users: Users::new(passwd),
            groups: Groups::new(),
            coverage: Coverage::default(),
            memory: Memory::default(),
            links: LINKS,
        }
    }

    pub(super) fn name_users_from(&mut self, passwd: PathBuf) {
        self.users = Users::new(passwd);
    }

    /// What stood in the way at the last look through all processes.
    pub(super) const fn coverage(&self) -> Coverage {
        self.coverage
    }

    /// The name of a user.
    pub(super) fn user(&mut self, uid: u32) -> Arc<str> {
        self.users.refresh();
        self.users.name(uid)
    }

    /// The path of a control group.
    pub(super) fn group(&mut self, id: NonZeroU64) -> Option<Arc<str>> {
        self.groups.path(id)
    }

    /// A process, if it lives.
    pub(super) fn describe(&mut self, pid: u32) -> Option<Process> {
        self.users.refresh();
        self.procfs.as_ref()?.describe(pid, &mut self.users)
    }

    /// Whether a process can only have from somebody else what this user created.
    pub(super) fn is_stranger(&self, process: &Process, creator: u32) -> bool {
        self.procfs
            .as_ref()
            .is_none_or(|procfs| procfs.is_stranger(process, creator))
    }

    /// Whether a process still holds the socket, and is what it was.
    pub(super) fn confirms(&mut self, hold: Hold, inode: u64, process: &Process) -> bool {
        let Some(procfs) = &self.procfs else {
            return false;
        };
        procfs.holds(hold, inode)
            && procfs.describe(hold.pid, &mut self.users).as_ref() == Some(process)
    }

    /// Looks for holders, first in the processes `likely` to be some. A thorough look goes on, if something was not found,
    /// where no table shows it.
    pub(super) fn look(&mut self, wanted: &Wanted, mut likely: Vec<u32>, thorough: bool) -> Found {
        likely.sort_unstable();
        likely.dedup();
        self.users.refresh();
        self.try_look(wanted, &likely, thorough)
            .unwrap_or_else(|_| {
                self.procfs = None;
                self.coverage = Coverage {
                    failed: true,
                    ..Coverage::default()
                };
                Found::default()
            })
    }

    fn try_look(
        &mut self,
        wanted: &Wanted,
        likely: &[u32],
        thorough: bool,
    ) -> Result<Found, Errno> {
        let procfs = match self.procfs.take() {
            Some(procfs) => procfs,
            None => Procfs::open(&self.path)?,
        };
        let budget = Budget::new(self.links);
        let findings = walk(&procfs, wanted, likely, &mut self.memory, thorough, &budget)?;
        if findings.visited_all || budget.is_spent() {
            self.coverage = covered(&findings, budget.is_spent());
        }
        let mut found = Found::default();
        self.name_holders(&procfs, wanted, &findings.holders, &mut found);
        let missing = wanted.keys().any(|inode| !found.owners.contains_key(inode));
        if thorough && missing && findings.is_whole() {
            let budget = Budget::new(self.links);
            let hidden = hidden::look(&procfs, wanted, &budget)?;
            self.name_holders(&procfs, wanted, &hidden.holders, &mut found);
            found.nobody_else = hidden.nothing_unseen;
            self.coverage.cut_short |= budget.is_spent();
        }
        self.procfs = Some(procfs);
        Ok(found)
    }

    /// Describes who was found. Who has exited, or closed the socket since, was not; the order of the two questions makes
    /// sure that what is described is what held it, and no other process with its number.
    fn name_holders(
        &mut self,
        procfs: &Procfs,
        wanted: &Wanted,
        holders: &HashMap<u64, Vec<Hold>>,
        found: &mut Found,
    ) {
        let mut described: HashMap<u32, Option<Process>> = HashMap::new();
        // Each is read once, however many sockets it holds; the walk has had its price.
        let mut rings: HashMap<(u32, u32), Vec<u64>> = HashMap::new();
        let mut holds_still = |hold: &Hold, inode| match hold.via {
            Via::Ring(ring) => rings
                .entry((hold.pid, ring))
                .or_insert_with(|| procfs.sockets_of_ring(hold.pid, ring, &Budget::new(LINKS)))
                .contains(&inode),
            _ => procfs.holds(*hold, inode),
        };
        for (&inode, holds) in holders {
            if found.owners.contains_key(&inode) {
                continue;
            }
            let mut process = |hold: &Hold| {
                described
                    .entry(hold.pid)
                    .or_insert_with(|| procfs.describe(hold.pid, &mut self.users))
                    .clone()
            };
            let processes = holds.iter().filter_map(&mut process).collect();
            let holders = match wanted.get(&inode).and_then(|want| want.creator) {
                Some(creator) => {
                    let is_stranger = |process: &Process| procfs.is_stranger(process, creator);
                    Holders::created_by(&self.users.name(creator), processes, is_stranger)
                }
                None => Holders::of(processes),
            };
            let Some(owner) = holders.map(Owner::Held) else {
                continue;
            };
            let oldest = owner.oldest().map(|process| process.pid);
            if let Some(&hold) = holds
                .iter()
                .find(|hold| Some(hold.pid) == oldest && holds_still(hold, inode))
            {
                found.owners.insert(inode, (Arc::new(owner), hold));
            }
        }
    }
}

/// What a whole walk tells of its own completeness.
fn covered(findings: &Findings, cut_short: bool) -> Coverage {
    let held = capabilities(None).map_or(CapabilitySet::empty(), |sets| sets.effective);
    Coverage {
        unreadable: findings.unreadable,
        partial: findings.partial,
        cut_short,
        failed: false,
        lacks_dac_read_search: !held.contains(CapabilitySet::DAC_READ_SEARCH),
        lacks_sys_ptrace: !held.contains(CapabilitySet::SYS_PTRACE),
    }
}
