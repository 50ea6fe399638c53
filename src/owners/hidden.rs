//! Where a socket may be held that no process's table of files shows.
//!
//! Looked at only for a socket that was twice found in no table although all were read, before it is said to be the
//! kernel's own: a thread may have a table to itself, and a socket may be on its way through a Unix socket.

use std::collections::HashMap;

use rustix::io::Errno;

use super::Wanted;
use super::budget::Budget;
use super::process::{Link, Procfs};
use super::search::{Hold, Via};
use super::walk::is_gone;

/// What it costs to read of a socket whether files are on their way to it, in links read.
const FDINFO: u32 = 4;

/// What the second look found.
#[derive(Debug, Default)]
pub(super) struct Hidden {
    /// Holders by inode.
    pub(super) holders: HashMap<u64, Vec<Hold>>,
    /// Whether nothing can hold a socket unseen: every table could be read and no file is on its way.
    pub(super) nothing_unseen: bool,
}

/// Looks into the tables of all threads, as far as the budget goes.
///
/// # Errors
/// When procfs cannot be listed.
pub(super) fn look(procfs: &Procfs, wanted: &Wanted, budget: &Budget) -> Result<Hidden, Errno> {
    let mut hidden = Hidden {
        nothing_unseen: true,
        ..Hidden::default()
    };
    for pid in procfs.processes()? {
        for thread in procfs
            .numbers_in(&format!("{pid}/task"))
            .unwrap_or_default()
        {
            let readable = hidden.look_at_thread(procfs, wanted, budget, pid, thread);
            hidden.nothing_unseen &= readable;
            if budget.is_spent() {
                hidden.nothing_unseen = false;
                return Ok(hidden);
            }
        }
    }
    Ok(hidden)
}

impl Hidden {
    /// Whether the thread could be read, and has no files on their way to it.
    fn look_at_thread(
        &mut self,
        procfs: &Procfs,
        wanted: &Wanted,
        budget: &Budget,
        pid: u32,
        thread: u32,
    ) -> bool {
        let mut sockets = Vec::new();
        let table = format!("{pid}/task/{thread}/fd");
        let result = procfs.each_file(&table, budget, |number, link| {
            if let Link::Socket(inode) = link {
                sockets.push((number, inode));
            }
        });
        for &(number, inode) in &sockets {
            if wanted.contains_key(&inode) {
                let holders = self.holders.entry(inode).or_default();
                if !holders.iter().any(|known| known.pid == pid) {
                    holders.push(Hold {
                        pid,
                        via: Via::Thread(thread, number),
                    });
                }
            }
        }
        // Threads mostly share the table of their process; its sockets are asked about once.
        let in_flight = thread == pid
            && sockets.iter().any(|&(number, _)| {
                !budget.take(FDINFO) || has_files_in_flight(procfs, pid, number)
            });
        let unreadable = matches!(result, Err(error) if !is_gone(error))
            && procfs.stat(pid).is_some_and(|stat| stat.can_hold_files());
        !in_flight && !unreadable
    }
}

/// Whether files are on their way to a Unix socket: its fdinfo counts them (`scm_fds`, since Linux 5.7).
fn has_files_in_flight(procfs: &Procfs, pid: u32, number: u32) -> bool {
    let file = procfs
        .read(&format!("{pid}/fdinfo/{number}"))
        .unwrap_or_default();
    String::from_utf8_lossy(&file)
        .lines()
        .filter_map(|line| line.strip_prefix("scm_fds:"))
        .any(|count| count.trim() != "0")
}
