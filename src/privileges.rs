//! Capabilities: what this process may do, taking up what lies ready, and giving up what it no longer needs.
//!
//! A program file with capabilities may leave it to the program to put them into effect, and then it starts also where not
//! all of them can be had, as in a container that was granted fewer; a file that puts them into effect itself does not
//! (capabilities(7), "Safety checking for capability-dumb binaries"). [`take_up`] is for the former.
//!
//! Linux keeps capabilities a thread, and a new thread takes over its parent's. So the order at the start is: attach the
//! tier; start the thread that enters namespaces, if there is to be one; call [`reduce`]; only then start the runtime. Threads
//! that exist before, the log's and the readers', call [`reduce_thread`] for themselves as their first act. A reload needs
//! nothing back.
//!
//! It knows nothing of what the capabilities are wanted for. On other platforms there are none, and nothing is done.

use std::fmt;
use std::io;

/// The capabilities this exporter has a use for (capabilities(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Capability {
    /// Load eBPF programs, create maps.
    Bpf,
    /// Attach programs that look into the kernel.
    Perfmon,
    /// Attach programs to control groups.
    NetAdmin,
    /// See other users' processes.
    SysPtrace,
    /// Read other users' directories under /proc.
    DacReadSearch,
    /// Enter other namespaces.
    SysAdmin,
}

impl Capability {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Bpf,
        Self::Perfmon,
        Self::NetAdmin,
        Self::SysPtrace,
        Self::DacReadSearch,
        Self::SysAdmin,
    ];

    /// The name as in capabilities(7).
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Bpf => "CAP_BPF",
            Self::Perfmon => "CAP_PERFMON",
            Self::NetAdmin => "CAP_NET_ADMIN",
            Self::SysPtrace => "CAP_SYS_PTRACE",
            Self::DacReadSearch => "CAP_DAC_READ_SEARCH",
            Self::SysAdmin => "CAP_SYS_ADMIN",
        }
    }

    /// Names, separated by commas.
    #[must_use]
    pub fn list(capabilities: &[Self]) -> String {
        let names: Vec<_> = capabilities.iter().map(|one| one.as_str()).collect();
        names.join(", ")
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What a thread held before [`reduce`] and what it holds since: names as in capabilities(7), for the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reduced {
    /// Held before.
    pub held: Vec<String>,
    /// Kept.
    pub kept: Vec<String>,
}

/// Why privileges could not be given up. None of it may be ignored.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system refused a step.
    #[error("giving up privileges: {step}: {source}")]
    Os {
        /// What was being done.
        step: &'static str,
        /// What it said.
        source: io::Error,
    },
    /// After dropping, more was held than was to be kept.
    #[error("giving up privileges: still held afterwards: {0}")]
    StillHeld(String),
}

#[cfg(target_os = "linux")]
pub use linux::{lacking, reduce, take_up};

#[cfg(not(target_os = "linux"))]
pub use elsewhere::{lacking, reduce, take_up};

/// Gives up, for a thread that was started before [`reduce`] was called for the process, all but the capabilities named. A
/// thread that fails in this says so and goes on: it is told of, and it does what it did.
pub fn reduce_thread(keep: &[Capability]) {
    if let Err(error) = reduce(keep) {
        tracing::error!(%error, "a thread keeps privileges that it does not need");
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use std::io;

    use rustix::thread::{
        CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set,
        clear_ambient_capability_set, remove_capability_from_bounding_set, set_capabilities,
        set_no_new_privs,
    };

    use super::{Capability, Error, Reduced};

    impl From<Capability> for CapabilitySet {
        fn from(capability: Capability) -> Self {
            match capability {
                Capability::Bpf => Self::BPF,
                Capability::Perfmon => Self::PERFMON,
                Capability::NetAdmin => Self::NET_ADMIN,
                Capability::SysPtrace => Self::SYS_PTRACE,
                Capability::DacReadSearch => Self::DAC_READ_SEARCH,
                Capability::SysAdmin => Self::SYS_ADMIN,
            }
        }
    }

    /// Which of the wanted capabilities the calling thread may not use now, in the order given. CAP_SYS_ADMIN stands in
    /// for CAP_BPF and CAP_PERFMON, as it does in the kernel.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn lacking(wanted: &[Capability]) -> io::Result<Vec<Capability>> {
        let effective = capabilities(None)?.effective;
        let holds = |capability| {
            let stand_in = match capability {
                Capability::Bpf | Capability::Perfmon => CapabilitySet::SYS_ADMIN,
                _ => CapabilitySet::empty(),
            };
            effective.intersects(CapabilitySet::from(capability) | stand_in)
        };
        Ok(wanted.iter().copied().filter(|&one| !holds(one)).collect())
    }

    /// Puts into effect, for the calling thread and all it starts from now on, those of the capabilities named that it may
    /// put into effect.
    ///
    /// # Errors
    /// When the system refuses; then all is as it was.
    pub fn take_up(wanted: &[Capability]) -> io::Result<()> {
        let wanted: CapabilitySet = wanted.iter().copied().map(CapabilitySet::from).collect();
        let held = capabilities(None)?;
        let effective = held.effective | (held.permitted & wanted);
        if effective != held.effective {
            set_capabilities(None, CapabilitySets { effective, ..held })?;
        }
        Ok(())
    }

    /// Gives up, for the calling thread and all it starts from now on, every capability but those named, also those
    /// that could come back by running a program, and sets `no_new_privs`. A capability named but not held is not
    /// acquired.
    ///
    /// # Errors
    /// When a step fails or more is held afterwards than was to be kept; the caller must not go on.
    pub fn reduce(keep: &[Capability]) -> Result<Reduced, Error> {
        let keep: CapabilitySet = keep.iter().copied().map(CapabilitySet::from).collect();
        let os = |step| {
            move |errno: rustix::io::Errno| Error::Os {
                step,
                source: errno.into(),
            }
        };
        let held = capabilities(None).map_err(os("reading capabilities"))?;
        let kept = (held.effective | held.permitted) & keep;
        clear_ambient_capability_set().map_err(os("clearing the ambient set"))?;
        if held.effective.contains(CapabilitySet::SETPCAP) {
            empty_bounding_set(keep).map_err(os("emptying the bounding set"))?;
        }
        let sets = CapabilitySets {
            effective: kept & held.permitted,
            permitted: kept & held.permitted,
            inheritable: CapabilitySet::empty(),
        };
        set_capabilities(None, sets).map_err(os("dropping capabilities"))?;
        set_no_new_privs(true).map_err(os("setting no_new_privs"))?;

        let now = capabilities(None).map_err(os("reading capabilities"))?;
        let beyond = (now.effective | now.permitted | now.inheritable) - keep;
        if !beyond.is_empty() {
            return Err(Error::StillHeld(names(beyond).join(", ")));
        }
        Ok(Reduced {
            held: names(held.effective | held.permitted),
            kept: names(now.permitted),
        })
    }

    fn empty_bounding_set(keep: CapabilitySet) -> rustix::io::Result<()> {
        // The kernel may know more capabilities than we have names for; it answers EINVAL beyond its last.
        for bit in 0..64 {
            let capability = CapabilitySet::from_bits_retain(1 << bit);
            match capability_is_in_bounding_set(capability) {
                Ok(true) if !keep.contains(capability) => {
                    remove_capability_from_bounding_set(capability)?;
                }
                Ok(_) => {}
                Err(rustix::io::Errno::INVAL) => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn names(set: CapabilitySet) -> Vec<String> {
        let mut names: Vec<_> = set
            .iter_names()
            .map(|(name, _)| format!("CAP_{name}"))
            .collect();
        let known = set & CapabilitySet::all();
        let unnamed = set.bits() & !known.bits();
        names.extend(
            (0..64)
                .filter(|bit| unnamed >> bit & 1 == 1)
                .map(|bit| format!("capability {bit}")),
        );
        names
    }
}

#[cfg(not(target_os = "linux"))]
mod elsewhere {
    use std::io;

    use super::{Capability, Error, Reduced};

    /// No platform but Linux has them: none is lacking.
    ///
    /// # Errors
    /// None.
    pub fn lacking(_: &[Capability]) -> io::Result<Vec<Capability>> {
        Ok(Vec::new())
    }

    /// Nothing to take up.
    ///
    /// # Errors
    /// None.
    pub fn take_up(_: &[Capability]) -> io::Result<()> {
        Ok(())
    }

    /// Nothing to give up.
    ///
    /// # Errors
    /// None.
    pub fn reduce(_: &[Capability]) -> Result<Reduced, Error> {
        Ok(Reduced::default())
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    /// In a thread of its own: what is given up does not come back.
    #[test]
    fn what_is_given_up_is_gone() {
        std::thread::spawn(|| {
            let reduced = reduce(&[Capability::SysPtrace]).unwrap();
            assert!(reduced.kept.iter().all(|name| name == "CAP_SYS_PTRACE"));
            assert!(reduced.held.len() >= reduced.kept.len());
            assert_eq!(
                lacking(&[Capability::Bpf, Capability::NetAdmin]).unwrap(),
                [Capability::Bpf, Capability::NetAdmin]
            );
            let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
            assert!(status.lines().any(|line| line == "NoNewPrivs:\t1"));
            let again = reduce(&[]).unwrap();
            assert_eq!(again.held, reduced.kept);
            assert!(again.kept.is_empty());
        })
        .join()
        .unwrap();
    }

    /// Run as root, all of them are permitted; as anybody else none is, and none may come about.
    #[test]
    fn what_is_permitted_is_taken_up_and_nothing_else() {
        use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};

        std::thread::spawn(|| {
            let held = capabilities(None).unwrap();
            let permitted = held.permitted & CapabilitySet::NET_ADMIN;
            let idle = CapabilitySets {
                effective: CapabilitySet::empty(),
                permitted,
                ..held
            };
            set_capabilities(None, idle).unwrap();
            assert_eq!(lacking(&Capability::ALL).unwrap(), Capability::ALL);
            take_up(&[Capability::Bpf]).unwrap();
            assert_eq!(capabilities(None).unwrap(), idle);
            take_up(&Capability::ALL).unwrap();
            assert_eq!(capabilities(None).unwrap().effective, permitted);
        })
        .join()
        .unwrap();
    }

    #[test]
    fn names_are_listed_as_the_manual_has_them() {
        assert_eq!(
            Capability::list(&[Capability::Bpf, Capability::NetAdmin]),
            "CAP_BPF, CAP_NET_ADMIN"
        );
    }
}
