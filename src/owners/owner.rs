//! Who holds a socket, in the words of labels, log and expectations.

use std::sync::Arc;

/// Whose a listening socket is.
///
/// The three are told apart in labels too, and no process can pass for another kind by its name:
///
/// | | `process` | `user` | `unit` |
/// |---|---|---|---|
/// | [`Owner::Held`] | never empty, never `kernel` | never empty | empty outside units and containers |
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holders {
    oldest: Process,
    younger: Vec<Process>,
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
    /// The user it runs as (effective), by name, or by number where the host has no name for it.
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
        self.oldest().map_or("", |process| &process.user)
    }

    /// The `unit` label.
    #[must_use]
    pub fn unit(&self) -> &str {
        self.oldest().map_or("", |process| &process.unit)
    }

    /// The process the labels are about: of all that hold the socket, the one that started first.
    #[must_use]
    pub fn oldest(&self) -> Option<&Process> {
        match self {
            Self::Held(holders) => Some(&holders.oldest),
            Self::Kernel | Self::Unknown { .. } => None,
        }
    }

    /// Every process that holds the socket, the oldest first.
    pub fn holders(&self) -> impl Iterator<Item = &Process> {
        let younger = match self {
            Self::Held(holders) => holders.younger.as_slice(),
            Self::Kernel | Self::Unknown { .. } => &[],
        };
        self.oldest().into_iter().chain(younger)
    }

    /// The same with the oldest process alone, and its names bounded: to be remembered.
    #[must_use]
    pub fn brief(owner: &Arc<Self>) -> Arc<Self> {
        let Self::Held(holders) = &**owner else {
            return Arc::clone(owner);
        };
        let oldest = &holders.oldest;
        let is_long = |path: &String| path.len() > super::NAME_LENGTH;
        if holders.younger.is_empty() && !oldest.executable.as_ref().is_some_and(is_long) {
            return Arc::clone(owner);
        }
        Arc::new(Self::Held(Holders {
            oldest: Process {
                executable: oldest.executable.as_deref().map(super::bounded),
                ..oldest.clone()
            },
            younger: Vec::new(),
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
    pub fn of(mut processes: Vec<Process>) -> Option<Self> {
        processes.sort_by_key(|process| (process.started, process.pid));
        processes.dedup_by_key(|process| process.pid);
        let mut processes = processes.into_iter();
        Some(Self {
            oldest: processes.next()?,
            younger: processes.collect(),
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
            user: "root".into(),
            unit: String::new(),
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
