//! Who holds a socket, in the words of labels, log and expectations.

use std::sync::Arc;

/// Whose a listening socket is.
///
/// The three are told apart in labels too, and no process can pass for another kind by its name:
///
/// | | `process` | `user` | `unit` |
/// |---|---|---|---|
/// | [`Owner::Held`] | never empty, never `kernel` | never empty | empty outside units and containers, and of a [stranger](Holders) |
/// | [`Owner::Kernel`] | `kernel` | empty | empty |
/// | [`Owner::Unknown`] | empty | empty | empty |
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    /// Processes hold it.
    Held(Holders),
    /// The kernel itself: NFS, WireGuard, VXLAN and the like.
    Kernel,
    /// Could not be found out, mostly for lack of permission.
    Unknown {
        /// Who created the socket, where the kernel said so. A fact for the log and no label: a daemon that drops its
        /// privileges leaves a socket that root created.
        creator: Option<Arc<str>>,
    },
}

/// The processes that hold a socket, which are several after a fork or when one was passed on. Never empty.
///
/// Whoever creates a socket can have others hold it: a program that runs as another user (setuid), or a service that takes
/// files. So the labels are about a process of the socket's creator. Only root gives sockets to others, which a service manager
/// does, and a daemon that drops its privileges: any process may hold what root created, and in a user namespace what the root of
/// that one did. Where only strangers hold a socket, its user is the creator, and its unit is not known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holders {
    oldest: Process,
    others: Vec<Process>,
    /// Who created the socket, if only strangers hold it.
    creator: Option<Arc<str>>,
}

/// A process, as it was when it was found to hold a socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its id, in the process namespace of the procfs that was read.
    pub pid: u32,
    /// When it started, in clock ticks after boot.
    pub started: u64,
    /// What it calls itself (`comm`): the name of its executable cut to 15 bytes, unless it chose another. One that calls
    /// itself `kernel`, or nothing, is written so that it cannot be mistaken for the kernel or for an unknown owner.
    pub name: String,
    /// The file it runs, as the host's root sees it, with ` (deleted)` behind it when the file is no more. `None` where
    /// that could not be read.
    pub executable: Option<String>,
    /// The user it runs as (effective).
    pub uid: u32,
    /// That user by name, or by number where the host has no name for it.
    pub user: Arc<str>,
    /// The systemd unit or container it runs in, see [`super::cgroup::unit_of_path`]; empty if none.
    pub unit: String,
}

impl Owner {
    /// The `process` label.
    #[must_use]
    pub fn process(&self) -> &str {
        match self {
            Self::Held(holders) => &holders.oldest.name,
            Self::Kernel => "kernel",
            Self::Unknown { .. } => "",
        }
    }

    /// The `user` label.
    #[must_use]
    pub fn user(&self) -> &str {
        match self {
            Self::Held(holders) => holders.creator.as_ref().unwrap_or(&holders.oldest.user),
            Self::Kernel | Self::Unknown { .. } => "",
        }
    }

    /// The `unit` label.
    #[must_use]
    pub fn unit(&self) -> &str {
        match self {
            Self::Held(holders) if holders.creator.is_none() => &holders.oldest.unit,
            Self::Held(_) | Self::Kernel | Self::Unknown { .. } => "",
        }
    }

    /// Who created the socket, where that is all that is known, or only strangers hold it. A fact for the log.
    #[must_use]
    pub fn creator(&self) -> Option<&str> {
        match self {
            Self::Held(Holders { creator, .. }) | Self::Unknown { creator } => creator.as_deref(),
            Self::Kernel => None,
        }
    }

    /// The process the labels are about: of all that hold the socket, the one that started first, strangers after all others.
    #[must_use]
    pub fn oldest(&self) -> Option<&Process> {
        match self {
            Self::Held(holders) => Some(&holders.oldest),
            Self::Kernel | Self::Unknown { .. } => None,
        }
    }

    /// Every process that holds the socket, the one the labels are about first.
    pub fn holders(&self) -> impl Iterator<Item = &Process> {
        let others = match self {
            Self::Held(holders) => holders.others.as_slice(),
            Self::Kernel | Self::Unknown { .. } => &[],
        };
        self.oldest().into_iter().chain(others)
    }

    /// The same with the oldest process alone, and its names bounded: to be remembered.
    #[must_use]
    pub fn brief(owner: &Arc<Self>) -> Arc<Self> {
        let Self::Held(holders) = &**owner else {
            return Arc::clone(owner);
        };
        let oldest = &holders.oldest;
        let is_long = |path: &String| path.len() > super::NAME_LENGTH;
        if holders.others.is_empty() && !oldest.executable.as_ref().is_some_and(is_long) {
            return Arc::clone(owner);
        }
        Arc::new(Self::Held(Holders {
            oldest: Process {
                executable: oldest.executable.as_deref().map(super::bounded),
                ..oldest.clone()
            },
            others: Vec::new(),
            creator: holders.creator.clone(),
        }))
    }

    /// Whether the kernel holds it. For a decision this is the question to ask, not the label.
    #[must_use]
    pub const fn is_kernel(&self) -> bool {
        matches!(self, Self::Kernel)
    }

    /// Whether it is not known who holds it.
    #[must_use]
    pub const fn is_unknown(&self) -> bool {
        matches!(self, Self::Unknown { .. })
    }
}

impl Holders {
    /// Puts the oldest first. `None` of no process.
    #[must_use]
    pub fn of(processes: Vec<Process>) -> Option<Self> {
        Self::created_by("", processes, |_| false)
    }

    /// The same, strangers last.
    pub(super) fn created_by(
        creator: &str,
        mut processes: Vec<Process>,
        is_stranger: impl Fn(&Process) -> bool,
    ) -> Option<Self> {
        processes.sort_by_cached_key(|each| (is_stranger(each), each.started, each.pid));
        processes.dedup_by_key(|process| process.pid);
        let mut processes = processes.into_iter();
        let oldest = processes.next()?;
        Some(Self {
            creator: is_stranger(&oldest).then(|| creator.into()),
            oldest,
            others: processes.collect(),
        })
    }
}

/// The name of a process for people and labels. `comm` holds at most 15 bytes, so no process can give itself either of
/// the two replacements.
pub(super) fn displayed(comm: &[u8]) -> String {
    match comm {
        b"" => "(process without name)".to_owned(),
        b"kernel" => "kernel (a process)".to_owned(),
        _ => super::bounded(&String::from_utf8_lossy(comm)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(pid: u32, started: u64) -> Process {
        Process {
            pid,
            started,
            name: format!("p{pid}"),
            executable: None,
            uid: pid,
            user: format!("u{pid}").into(),
            unit: "a.service".to_owned(),
        }
    }

    #[test]
    fn the_oldest_holder_is_the_label() {
        let holders = Holders::of(vec![
            process(9, 50),
            process(3, 70),
            process(4, 50),
            process(9, 50),
        ])
        .unwrap();
        let owner = Owner::Held(holders);
        assert_eq!(owner.process(), "p4");
        assert_eq!(
            owner
                .holders()
                .map(|process| process.pid)
                .collect::<Vec<_>>(),
            [4, 9, 3]
        );
        assert_eq!(Holders::of(Vec::new()), None);
        let brief = Owner::brief(&Arc::new(owner));
        assert_eq!((brief.process(), brief.holders().count()), ("p4", 1));
    }

    #[test]
    fn a_stranger_is_not_the_label() {
        let labels = |pids: &[u32]| {
            let processes = pids.iter().map(|&pid| process(pid, pid.into())).collect();
            let owner = Owner::Held(Holders::created_by("u9", processes, |p| p.uid != 9).unwrap());
            let brief = Owner::brief(&Arc::new(owner.clone()));
            let text =
                |owner: &Owner| [owner.process(), owner.user(), owner.unit()].map(str::to_owned);
            assert_eq!(text(&owner), text(&brief));
            (text(&owner), owner.creator().map(str::to_owned))
        };
        let own = ["p9", "u9", "a.service"].map(str::to_owned);
        assert_eq!(labels(&[3, 9, 10]), (own, None));
        let strange = ["p3", "u9", ""].map(str::to_owned);
        assert_eq!(labels(&[10, 3]), (strange, Some("u9".to_owned())));
    }

    #[test]
    fn no_process_passes_for_the_kernel_or_for_nobody() {
        for comm in [b"".as_slice(), b"kernel"] {
            let name = displayed(comm);
            assert!(
                !name.is_empty() && name != "kernel" && name.len() > 15,
                "{name}"
            );
        }
        assert_eq!(displayed(b"x\"} 1\n"), "x\"} 1\n");
        assert_eq!(displayed(b"a\xffb"), "a\u{fffd}b");
    }
}
