//! One look through the processes for the holders of certain sockets.
//!
//! A process's table of files is read link by link, which is what costs; so the walk goes where the sockets most likely
//! are: to processes that hold listeners already, to those that are new since the last walk (the youngest first), to those
//! whose tables have grown or shrunk since, and only then to the rest. It reads no more tables once every socket is found.
//! What is left then is to find who *else* holds them: after a fork a socket has the same number in both tables, so of the
//! remaining processes only that number is looked at, and of the holders' parents the whole table, where a service manager
//! keeps what it hands to its services under another number.

use std::collections::{HashMap, HashSet};

use rustix::io::Errno;

use super::Wanted;
use super::budget::Budget;
use super::process::{Link, Procfs};
use super::search::{Hold, Via};

/// If the sockets are held under more different numbers than this, tables are read whole to the end: that costs no more.
const NUMBERS: usize = 4;

/// Generations of parents that are looked at.
const ANCESTORS: usize = 32;

/// What it costs to find out the parent of a process, in links read.
const STAT: u32 = 4;

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Findings {
    /// Holders by inode.
    pub(super) holders: HashMap<u64, Vec<Hold>>,
    /// Whether every process's table was read or at least tried.
    pub(super) visited_all: bool,
    /// Processes that could not be read.
    pub(super) unreadable: usize,
    /// Whether procfs shows no kernel thread, and so not the whole host.
    pub(super) partial: bool,
}

impl Findings {
    /// Whether what was not found is held by no process in sight.
    pub(super) const fn is_whole(&self) -> bool {
        self.visited_all && self.unreadable == 0 && !self.partial
    }
}

/// What is remembered from one walk to the next.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// How many files each process had when its table was last read: a table of another size has something new in it.
    sizes: HashMap<u32, u64>,
    /// The process at which the budget was spent.
    cut_at: Option<u32>,
}

/// Looks for the wanted sockets, first in the processes `likely` to have them, as far as the budget goes. A walk that `resumes`
/// starts where the last one had to stop, and goes on down the process ids: so it comes to every process, whatever others do.
///
/// # Errors
/// When procfs cannot be listed.
pub(super) fn walk(
    procfs: &Procfs,
    wanted: &Wanted,
    likely: &[u32],
    memory: &mut Memory,
    resumes: bool,
    budget: &Budget,
) -> Result<Findings, Errno> {
    let Memory { sizes, cut_at } = memory;
    let listed = procfs.processes()?;
    let present: HashSet<u32> = listed.iter().copied().collect();
    sizes.retain(|pid, _| present.contains(pid));
    let known = sizes.clone();
    let is_new = |pid: &u32| !known.contains_key(pid);
    let has_changed = |pid: &u32| {
        procfs
            .table_size(*pid)
            .is_some_and(|size| known.get(pid) != Some(&size))
    };
    let mut walk = Walk::new(procfs, wanted, sizes, budget);
    let resumed = cut_at.filter(|_| resumes);
    if resumes {
        *cut_at = None;
    }
    let mut order = resumed
        .map(|pid| downwards_from(pid, &listed))
        .into_iter()
        .flatten()
        .chain(likely.iter().copied())
        .chain(listed.iter().copied().filter(is_new))
        .chain(listed.iter().copied().filter(has_changed))
        .chain(listed.iter().copied());
    walk.findings.visited_all = loop {
        if walk.is_done() {
            break false;
        }
        let Some(pid) = order.next() else {
            break true;
        };
        walk.visit(pid);
        if budget.is_spent() {
            // One that is too much for a whole walk is left out by the next.
            let is_first = walk.visited.len() == 1;
            let here = pid.saturating_sub(u32::from(is_first));
            // One that does not resume leaves to the others where they go on.
            cut_at.get_or_insert(here);
            break false;
        }
    };
    for &pid in &listed {
        walk.look_for_copies(pid);
    }
    walk.visit_parents();
    walk.findings.partial = !shows_the_host(procfs, &listed);
    Ok(walk.findings)
}

/// All processes by their ids, from this one down and round.
fn downwards_from(pid: u32, listed: &[u32]) -> Vec<u32> {
    let mut pids = listed.to_vec();
    pids.sort_unstable_by(|a, b| b.cmp(a));
    let above = pids.partition_point(|&each| each > pid);
    pids.rotate_left(above);
    pids
}

/// Whether procfs shows the first process namespace, and all of it: its second process is a kernel thread, which no other
/// namespace shows and `hidepid` hides from whoever may not see everything.
fn shows_the_host(procfs: &Procfs, listed: &[u32]) -> bool {
    listed.contains(&2)
        && procfs
            .stat(2)
            .is_some_and(|second| second.is_kernel_thread())
}

struct Walk<'a> {
    procfs: &'a Procfs,
    wanted: &'a Wanted,
    findings: Findings,
    /// How many of the sockets the walk goes on for are not found yet.
    missing: usize,
    /// The numbers under which found sockets are held.
    numbers: Vec<u32>,
    visited: HashSet<u32>,
    sizes: &'a mut HashMap<u32, u64>,
    budget: &'a Budget,
    /// Processes whose parents were looked at.
    climbed: HashSet<u32>,
}

impl<'a> Walk<'a> {
    fn new(
        procfs: &'a Procfs,
        wanted: &'a Wanted,
        sizes: &'a mut HashMap<u32, u64>,
        budget: &'a Budget,
    ) -> Self {
        let missing = wanted.values().filter(|want| want.due).count();
        Self {
            procfs,
            wanted,
            findings: Findings::default(),
            missing,
            numbers: Vec::new(),
            visited: HashSet::new(),
            sizes,
            budget,
            climbed: HashSet::new(),
        }
    }

    /// Whether reading more tables whole would not pay.
    fn is_done(&self) -> bool {
        self.missing == 0 && self.numbers.len() <= NUMBERS
    }

    /// Reads a process's whole table.
    fn visit(&mut self, pid: u32) {
        if !self.visited.insert(pid) {
            return;
        }
        let mut rings = Vec::new();
        let mut size = 0;
        let (procfs, budget) = (self.procfs, self.budget);
        let result = procfs.each_file(&format!("{pid}/fd"), budget, |number, link| {
            size += 1;
            match link {
                Link::Socket(inode) => self.saw(
                    inode,
                    Hold {
                        pid,
                        via: Via::File(number),
                    },
                ),
                Link::Ring => rings.push(number),
                Link::Other => {}
            }
        });
        if result.is_err() {
            size = procfs.table_size(pid).unwrap_or(0);
        }
        self.sizes.insert(pid, size);
        if let Err(error) = result
            && !is_gone(error)
            && procfs.stat(pid).is_some_and(|stat| stat.can_hold_files())
        {
            self.findings.unreadable += 1;
        }
        for ring in rings {
            for inode in procfs.sockets_of_ring(pid, ring, budget) {
                self.saw(
                    inode,
                    Hold {
                        pid,
                        via: Via::Ring(ring),
                    },
                );
            }
        }
    }

    /// Looks only at the numbers under which found sockets are held elsewhere.
    fn look_for_copies(&mut self, pid: u32) {
        let cost = u32::try_from(self.numbers.len()).unwrap_or(u32::MAX);
        if self.visited.contains(&pid) || !self.budget.take(cost) {
            return;
        }
        let procfs = self.procfs;
        self.sizes
            .entry(pid)
            .or_insert_with(|| procfs.table_size(pid).unwrap_or(0));
        for index in 0..self.numbers.len() {
            let number = self.numbers[index];
            if let Ok(Link::Socket(inode)) = self.procfs.file(pid, number) {
                self.saw(
                    inode,
                    Hold {
                        pid,
                        via: Via::File(number),
                    },
                );
            }
        }
    }

    /// Reads the tables of the holders' parents, and of theirs.
    fn visit_parents(&mut self) {
        let mut holders: Vec<u32> = self
            .findings
            .holders
            .values()
            .flatten()
            .map(|hold| hold.pid)
            .collect();
        holders.sort_unstable();
        holders.dedup();
        for holder in holders {
            let mut pid = holder;
            for _ in 0..ANCESTORS {
                if !self.climbed.insert(pid) || !self.budget.take(STAT) {
                    break;
                }
                match self.procfs.stat(pid) {
                    Some(stat) if stat.parent != 0 => pid = stat.parent,
                    _ => break,
                }
                if self.visited.contains(&pid) {
                    continue;
                }
                self.visit(pid);
            }
        }
    }

    fn saw(&mut self, inode: u64, hold: Hold) {
        let Some(want) = self.wanted.get(&inode) else {
            return;
        };
        let holders = self.findings.holders.entry(inode).or_default();
        if want.due && holders.is_empty() {
            self.missing -= 1;
        }
        if let Via::File(number) = hold.via
            && self.numbers.len() <= NUMBERS
            && !self.numbers.contains(&number)
        {
            self.numbers.push(number);
        }
        // Mostly the last one: a table is read at a time.
        if !holders.iter().rev().any(|known| known.pid == hold.pid) {
            holders.push(hold);
        }
    }
}

/// Whether the process exited while it was read.
pub(super) fn is_gone(error: Errno) -> bool {
    matches!(error, Errno::NOENT | Errno::SRCH)
}
