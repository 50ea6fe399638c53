//! Where there is no procfs, every owner is unknown: the same words as on Linux, and no search.

use std::collections::HashMap;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::sync::Arc;

use super::owner::{Owner, Process};
use super::users::Users;
use super::{Coverage, Wanted};

/// A process that holds a socket.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hold {
    pub(super) pid: u32,
}

impl Hold {
    pub(super) const fn is_by_ring(self) -> bool {
        false
    }
}

/// What a look found: nothing.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) owners: HashMap<u64, (Arc<Owner>, Hold)>,
    pub(super) nobody_else: bool,
}

/// Names users, and finds nothing.
#[derive(Debug)]
pub(super) struct Search {
    users: Users,
}

impl Search {
    pub(super) fn new(_procfs: PathBuf, passwd: PathBuf) -> Self {
        Self {
            users: Users::new(passwd),
        }
    }

    pub(super) fn name_users_from(&mut self, passwd: PathBuf) {
        self.users = Users::new(passwd);
    }

    pub(super) const fn coverage(&self) -> Coverage {
        Coverage {
            unreadable: 0,
            partial: false,
            cut_short: false,
            failed: true,
            lacks_dac_read_search: false,
            lacks_sys_ptrace: false,
        }
    }

    pub(super) fn user(&mut self, uid: u32) -> Arc<str> {
        self.users.refresh();
        self.users.name(uid)
    }

    pub(super) fn group(&mut self, _id: NonZeroU64) -> Option<Arc<str>> {
        None
    }

    pub(super) fn describe(&mut self, _pid: u32) -> Option<Process> {
        None
    }

    pub(super) fn is_stranger(&self, _process: &Process, _creator: u32) -> bool {
        true
    }

    pub(super) fn confirms(&mut self, _hold: Hold, _inode: u64, _process: &Process) -> bool {
        false
    }

    pub(super) fn look(&mut self, _wanted: &Wanted, _likely: Vec<u32>, _thorough: bool) -> Found {
        Found::default()
    }
}
