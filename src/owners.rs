//! Whose socket it is: from a listener to the process, user and unit behind it.
//!
//! Knows procfs and control groups; not metrics, configuration or how the socket table was read. What it reads was
//! written by others (a process chooses its own name), so it is bounded, made valid UTF-8, and otherwise left alone.
//!
//! **Cost.** A socket seen before costs a look into a table in memory. Processes are looked through only when a listener
//! appears that was not there before, once for all such listeners (`walk`). That a known answer is still true is found
//! out a little at a time: a recheck costs some ten microseconds and there is one a second, saved up to [`RECHECKS`], so
//! that the price is the same however often and for however many listeners it is asked. A process that ran another
//! program, changed its user or gave the socket away is therefore seen at the next scrape on a host with a few
//! listeners, and after as many seconds as there are listeners on one with hundreds.
//!
//! **No process decides how long it takes.** A look reads so many open files and no more (`budget`); the next one goes on from
//! there.
//!
//! **Unknown is not kernel.** A socket is the kernel's own if it has no file at all, or if nothing on the host holds it:
//! every process was there to be read and was read, twice, with the places that no table of files shows (`hidden`). If
//! anything could not be read it is unknown. (The TCP socket under a listener of SMC, RFC 7609, is the kernel's in this sense:
//! the process holds another one.) Neither is it the kernel's if an ordinary user created it: whoever wants to can keep a socket
//! where nobody finds it, with an io_uring for one. Root, and for a tunnel over UDP a system service such as systemd-networkd,
//! may have had the kernel open it. What the kernel opens for others, as it does for a tunnel in a container with a user
//! namespace, is unknown, too.

use std::collections::HashMap;
use std::net::IpAddr;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::port::{Port, Protocol};
use crate::sockets::Listener;

#[cfg(target_os = "linux")]
mod budget;
pub mod cgroup;
mod coverage;
#[cfg(target_os = "linux")]
mod groups;
#[cfg(target_os = "linux")]
mod hidden;
mod owner;
#[cfg(target_os = "linux")]
pub(crate) mod process;
#[cfg_attr(not(target_os = "linux"), path = "owners/unsupported.rs")]
mod search;
mod users;
#[cfg(target_os = "linux")]
mod walk;

pub use coverage::Coverage;
pub use owner::{Holders, Owner, Process};
use search::{Hold, Search};

/// The first user id that is no system service's (`UID_MIN` of login.defs(5)).
const FIRST_USER: u32 = 1000;

/// Where the host's users are named.
pub const PASSWD: &str = "/etc/passwd";

/// How many rechecks are saved up at most; one a second is added.
pub const RECHECKS: u32 = 32;

/// How long until an owner that was not found is looked for again, after the two first times; doubled each time.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often that is doubled at most.
const DOUBLINGS: u32 = 6;

/// Names from outside are cut to this many bytes. Twice what systemd and Kubernetes allow.
const NAME_LENGTH: usize = 512;

/// Who holds what, as far as it was asked.
#[derive(Debug)]
pub struct Owners {
    search: Search,
    known: HashMap<Key, Known>,
    /// Counts calls, to tell who is gone.
    round: u64,
    /// Which of the known comes next to be rechecked.
    next: usize,
    rechecks: Allowance,
}

/// The answer to one question.
#[derive(Clone, Debug)]
pub struct Resolution {
    /// The owner of each listener, in the order in which they were asked about.
    pub owners: Vec<Arc<Owner>>,
    /// How many of them are unknown. The collector succeeded if there is none.
    pub unknown: usize,
    /// What stood in the way, at the last look through all processes.
    pub coverage: Coverage,
}

/// Who called, as the kernel tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Caller<'a> {
    /// Process id.
    pub pid: u32,
    /// Thread id.
    pub thread: u32,
    /// User id.
    pub uid: u32,
    /// The name the thread had.
    pub name: &'a str,
    /// Its version 2 control group.
    pub cgroup: Option<NonZeroU64>,
}

/// By which a socket is known again. The cookie alone would do where there is one; where there is none, an inode may come
/// again, and the recheck finds that out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    cookie: Option<NonZeroU64>,
    inode: Option<u64>,
    uid: Option<u32>,
    port: Port,
    address: IpAddr,
}

/// What is looked for, by inode.
type Wanted = HashMap<u64, Want>;

/// What a look has to know of a socket.
#[derive(Clone, Copy, Debug)]
struct Want {
    /// Whether the look goes on until it is found.
    due: bool,
    /// Who created it.
    #[cfg_attr(not(target_os = "linux"), allow(dead_code))]
    creator: Option<u32>,
}

#[derive(Debug)]
struct Known {
    owner: Arc<Owner>,
    /// What the owner is if nothing is found.
    unknown: Arc<Owner>,
    certainty: Certainty,
    /// The call in which the socket was there last.
    round: u64,
}

/// How far an answer goes.
#[derive(Clone, Copy, Debug)]
enum Certainty {
    /// A process holds it, in this way.
    Held(Hold),
    /// So many looks found no process; the next one is due at this time. None yet for a new socket.
    Missing(u32, Instant),
    /// There is nothing to look for: the socket has no file, or its inode is not known.
    Final,
}

/// What may be spent: one a second, saved up to [`RECHECKS`].
#[derive(Debug)]
struct Allowance {
    saved: u32,
    since: Option<Instant>,
}

impl Owners {
    /// Owners from the procfs at this path. User names are the host's, in [`PASSWD`].
    #[must_use]
    pub fn new(procfs: &Path) -> Self {
        Self {
            search: Search::new(procfs.to_owned(), PathBuf::from(PASSWD)),
            known: HashMap::new(),
            round: 0,
            next: 0,
            rechecks: Allowance {
                saved: RECHECKS,
                since: None,
            },
        }
    }

    /// Takes user names from another file, passwd(5).
    #[must_use]
    pub fn with_passwd(mut self, path: &Path) -> Self {
        self.search.name_users_from(path.to_owned());
        self
    }

    /// Whose the listeners are. Those not named are forgotten, so all are asked about at once, of all network namespaces.
    ///
    /// Never fails: an owner that cannot be found is [`Owner::Unknown`], and [`Resolution::coverage`] says why.
    pub fn resolve<'a>(&mut self, listeners: impl IntoIterator<Item = &'a Listener>) -> Resolution {
        self.resolve_at(Instant::now(), listeners)
    }

    /// The owner of a socket that is told of by its caller, though it may have gone. If the process still lives, is called
    /// so, and is of that user or has the socket from root, with all that is known of it; a thread that is not the first may have
    /// a name of its own.
    pub fn caller(&mut self, caller: &Caller<'_>) -> Owner {
        let name = owner::displayed(caller.name.as_bytes());
        let process = self
            .search
            .describe(caller.pid)
            .filter(|process| process.name == name || caller.thread != caller.pid)
            .filter(|process| !self.search.is_stranger(process, caller.uid))
            .unwrap_or_else(|| Process {
                pid: caller.pid,
                started: 0,
                name,
                executable: None,
                uid: caller.uid,
                user: self.search.user(caller.uid),
                unit: caller
                    .cgroup
                    .and_then(|group| self.group(group))
                    .map(|path| cgroup::unit_of_path(&path))
                    .unwrap_or_default(),
            });
        Holders::of(vec![process]).map_or(Owner::Unknown { creator: None }, Owner::Held)
    }

    /// The path below the root of a version 2 control group that the kernel tells by its number; `None` where it is gone or
    /// not in sight. Most answers come from memory.
    pub fn group(&mut self, id: NonZeroU64) -> Option<Arc<str>> {
        self.search.group(id)
    }

    fn resolve_at<'a>(
        &mut self,
        now: Instant,
        listeners: impl IntoIterator<Item = &'a Listener>,
    ) -> Resolution {
        self.round += 1;
        let keys: Vec<Key> = listeners
            .into_iter()
            .map(|listener| self.note(now, listener))
            .collect();
        self.forget_the_gone();
        self.recheck(now, &keys);
        self.find(now);
        let owners: Vec<_> = keys
            .iter()
            .filter_map(|key| Some(Arc::clone(&self.known.get(key)?.owner)))
            .collect();
        debug_assert_eq!(owners.len(), keys.len(), "every listener was noted");
        let unknown = owners.iter().filter(|owner| owner.is_unknown()).count();
        Resolution {
            owners,
            unknown,
            coverage: self.search.coverage(),
        }
    }

    /// Marks a listener as present.
    fn note(&mut self, now: Instant, listener: &Listener) -> Key {
        let (key, round, search) = (Key::of(listener), self.round, &mut self.search);
        self.known
            .entry(key)
            .or_insert_with(|| Known::new(now, listener, search))
            .round = round;
        key
    }

    fn forget_the_gone(&mut self) {
        let round = self.round;
        self.known.retain(|_, known| known.round == round);
    }

    /// Asks again about some that are held, in turn, as many as there is allowance for.
    fn recheck(&mut self, now: Instant, keys: &[Key]) {
        let count = keys.len().min(self.rechecks.available(now) as usize);
        for _ in 0..count {
            if self.rechecks.saved == 0 {
                break;
            }
            self.next = (self.next + 1) % keys.len();
            let key = &keys[self.next];
            let Some(known) = self.known.get_mut(key) else {
                continue;
            };
            let Certainty::Held(hold) = known.certainty else {
                continue;
            };
            let (Some(inode), Some(oldest)) = (key.inode, known.owner.oldest()) else {
                continue;
            };
            // To list a large ring takes long: there is one at the most.
            self.rechecks.saved = if hold.is_by_ring() {
                0
            } else {
                self.rechecks.saved.saturating_sub(1)
            };
            if !self.search.confirms(hold, inode, oldest) {
                known.certainty = Certainty::Missing(0, now);
            }
        }
    }

    /// Looks for the owners that are not known, if a look is due.
    fn find(&mut self, now: Instant) {
        let mut wanted = Wanted::new();
        let mut looks = 0;
        for (key, known) in &self.known {
            if let (Some(inode), Certainty::Missing(so_often, due)) = (key.inode, known.certainty) {
                let creator = key.uid;
                let want = wanted.entry(inode).or_insert(Want {
                    due: false,
                    creator,
                });
                want.due |= due <= now;
                looks = looks.max(if due <= now { so_often } else { 0 });
            }
        }
        if !wanted.values().any(|want| want.due) {
            return;
        }
        let likely = self.known.values().filter_map(Known::holder).collect();
        let found = self.search.look(&wanted, likely, looks > 0);
        for (key, known) in &mut self.known {
            if let (Some(inode), Certainty::Missing(looks, due)) = (key.inode, known.certainty) {
                match found.owners.get(&inode) {
                    Some((owner, hold)) => {
                        known.owner = Arc::clone(owner);
                        known.certainty = Certainty::Held(*hold);
                    }
                    None if due <= now => {
                        let may_be_kernels = found.nobody_else && key.may_be_kernels();
                        known.was_not_found(looks + 1, now, may_be_kernels);
                    }
                    None => {}
                }
            }
        }
    }
}

impl Key {
    /// Whether the kernel may have opened the socket for itself. Its sockets belong to whoever had it open them.
    fn may_be_kernels(&self) -> bool {
        self.uid
            .is_none_or(|uid| uid == 0 || self.port.protocol == Protocol::Udp && uid < FIRST_USER)
    }

    const fn of(listener: &Listener) -> Self {
        let Listener {
            port,
            address,
            cookie,
            inode,
            uid,
            ..
        } = *listener;
        Self {
            cookie,
            inode,
            uid,
            port,
            address,
        }
    }
}

impl Known {
    /// What can be said of a listener without looking.
    fn new(now: Instant, listener: &Listener, search: &mut Search) -> Self {
        let unknown = Arc::new(Owner::Unknown {
            creator: listener.uid.map(|uid| search.user(uid)),
        });
        let (owner, certainty) = match listener.inode {
            Some(0) => (Arc::new(Owner::Kernel), Certainty::Final),
            Some(_) => (Arc::clone(&unknown), Certainty::Missing(0, now)),
            None => (Arc::clone(&unknown), Certainty::Final),
        };
        Self {
            owner,
            unknown,
            certainty,
            round: 0,
        }
    }

    const fn holder(&self) -> Option<u32> {
        match self.certainty {
            Certainty::Held(hold) => Some(hold.pid),
            Certainty::Missing(..) | Certainty::Final => None,
        }
    }

    /// Draws the conclusion of a look without result. The first one proves nothing: the socket may have been closed, or
    /// handed from one process to another, while they were looked through.
    fn was_not_found(&mut self, looks: u32, now: Instant, may_be_kernels: bool) {
        if looks > 1 && may_be_kernels {
            self.owner = Arc::new(Owner::Kernel);
        } else if !self.owner.is_kernel() {
            self.owner = Arc::clone(&self.unknown);
        }
        let pause = match looks {
            0 | 1 => Duration::ZERO,
            _ => PATIENCE * 2_u32.pow((looks - 2).min(DOUBLINGS)),
        };
        self.certainty = Certainty::Missing(looks, now + pause);
    }
}

impl Allowance {
    /// How many may be spent now.
    fn available(&mut self, now: Instant) -> u32 {
        let since = *self.since.get_or_insert(now);
        let earned = now.saturating_duration_since(since).as_secs();
        if earned > 0 {
            let earned = u32::try_from(earned).unwrap_or(u32::MAX);
            self.saved = self.saved.saturating_add(earned).min(RECHECKS);
            self.since = Some(now);
        }
        self.saved
    }
}

/// Cuts a name from outside to a bounded length, between two characters.
fn bounded(name: &str) -> String {
    name[..name.floor_char_boundary(NAME_LENGTH)].to_owned()
}

/// The files about processes and users.
#[cfg(all(target_os = "linux", any(test, fuzzing)))]
pub(crate) fn fuzz(bytes: &[u8]) {
    process::fuzz(bytes);
    users::fuzz(bytes);
    let text = String::from_utf8_lossy(bytes);
    let unit = bounded(&cgroup::unit_of_process(&text));
    assert!(unit.len() <= NAME_LENGTH);
}

#[cfg(all(test, target_os = "linux"))]
mod tests;
