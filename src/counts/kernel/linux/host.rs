//! What the running kernel and this process have that the tier needs, found out before anything is tried: so that everything
//! that is missing is told at once, each with its cure, and not one at each start.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::counts::kernel::Lack;
use crate::privileges::{Capability, lacking};

/// Where the kernel describes its types, below the root.
const TYPES: &str = "sys/kernel/btf/vmlinux";

/// Where it says whether it is locked down (kernel_lockdown(7)), below the root.
const LOCKDOWN: &str = "sys/kernel/security/lockdown";

/// A version of Linux: major, minor.
pub(super) type Version = (u32, u32);

/// What was found.
#[derive(Clone, Debug)]
pub(super) struct Host {
    /// `None` where it cannot be understood; then the kernel is taken to be new.
    version: Option<Version>,
    /// The mode of lockdown in force; `None` where there is none, or it is not told.
    lockdown: Option<String>,
    /// Why the description of the kernel's types cannot be read.
    types: Result<PathBuf, (PathBuf, String)>,
    /// Capabilities every part needs and this thread has not.
    lacked: Vec<Capability>,
}

impl Host {
    /// Looks at the running kernel and the calling thread.
    ///
    /// # Errors
    /// When the thread's own capabilities cannot be read.
    pub(super) fn look() -> io::Result<Self> {
        let release = rustix::system::uname();
        let release = release.release().to_string_lossy();
        let lacked = lacking(&[Capability::Bpf, Capability::Perfmon])?;
        Ok(Self::of(Path::new("/"), &release, lacked))
    }

    /// What is said by the files below a root, by a kernel's release, and by the capabilities that are lacked.
    fn of(root: &Path, release: &str, lacked: Vec<Capability>) -> Self {
        let types = root.join(TYPES);
        let modes = fs::read_to_string(root.join(LOCKDOWN)).unwrap_or_default();
        Self {
            version: version(release),
            lockdown: mode_in_force(&modes),
            types: match fs::File::open(&types) {
                Ok(_) => Ok(types),
                Err(error) => Err((types, error.to_string())),
            },
            lacked,
        }
    }

    /// All that keeps the whole tier from starting.
    pub(super) fn lacks(&self) -> Vec<Lack> {
        let mut lacks = Vec::new();
        if !self.lacked.is_empty() {
            lacks.push(Lack::Capabilities(self.lacked.clone()));
        }
        if self.is_older_than((5, 8)) {
            lacks.push(Lack::RingBuffer);
        }
        if let Err((path, reason)) = &self.types {
            lacks.push(Lack::Types {
                path: path.clone(),
                reason: reason.clone(),
            });
        }
        if self.keeps_its_memory_secret() {
            lacks.push(Lack::Lockdown);
        }
        lacks
    }

    /// Whether not even root may read the kernel's memory, which the programs do. The other mode of lockdown, integrity,
    /// leaves that be.
    pub(super) fn keeps_its_memory_secret(&self) -> bool {
        self.lockdown.as_deref() == Some("confidentiality")
    }

    /// Whether the kernel's version is below this one. A version that cannot be understood is taken to be new.
    pub(super) fn is_older_than(&self, version: Version) -> bool {
        self.version.is_some_and(|running| running < version)
    }

    /// What a kernel without reasons for dropped packets, or without those of its firewall, is to be told.
    pub(super) const DROPS_CURE: &str =
        "Linux 5.17 gives reasons for dropped packets, 5.18 for those a firewall dropped";

    /// Whether the kernel gives reasons for dropped packets at all.
    pub(super) fn has_drop_reasons(&self) -> bool {
        !self.is_older_than((5, 17))
    }

    /// Whether it gives one for packets that netfilter dropped.
    pub(super) fn tells_filtered(&self) -> bool {
        !self.is_older_than((5, 18))
    }

    /// Capabilities that must be kept for as long as the tier counts: before Linux 5.19, with
    /// `kernel.unprivileged_bpf_disabled` set, even changing a map of one's own takes CAP_BPF.
    pub(super) fn needs_kept(&self) -> &'static [Capability] {
        if self.is_older_than((5, 19)) {
            &[Capability::Bpf]
        } else {
            &[]
        }
    }

    /// Whether maps count as locked memory, of which little is allowed.
    pub(super) fn charges_locked_memory(&self) -> bool {
        self.is_older_than((5, 11))
    }
}

fn version(release: &str) -> Option<Version> {
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map_while(|number| number.parse().ok());
    Some((numbers.next()?, numbers.next()?))
}

/// The mode in brackets: `none [integrity] confidentiality`.
fn mode_in_force(modes: &str) -> Option<String> {
    let mode = modes
        .split_whitespace()
        .find_map(|mode| mode.strip_prefix('[')?.strip_suffix(']'))?;
    (mode != "none").then(|| mode.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A host with these files: the description of types, and what is said of lockdown.
    fn host(types: bool, lockdown: Option<&str>, release: &str, lacked: &[Capability]) -> Host {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        if types {
            write(TYPES, "");
        }
        if let Some(modes) = lockdown {
            write(LOCKDOWN, modes);
        }
        Host::of(root.path(), release, lacked.to_vec())
    }

    fn told(host: &Host) -> Vec<String> {
        host.lacks().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_host_that_has_everything_lacks_nothing() {
        for lockdown in [
            None,
            Some("[none] integrity confidentiality\n"),
            Some("none [integrity] confidentiality\n"),
        ] {
            for release in ["5.8.0", "6.18.44-1-amd64", "odd"] {
                let host = host(true, lockdown, release, &[]);
                assert_eq!(host.lacks(), [], "{lockdown:?} {release}");
            }
        }
    }

    #[test]
    fn each_thing_that_is_missing_is_told_with_its_cure() {
        let secret = Some("none integrity [confidentiality]\n");
        for (host, words) in [
            (
                host(false, None, "6.1.0", &[]),
                ["sys/kernel/btf/vmlinux", "CONFIG_DEBUG_INFO_BTF"],
            ),
            (
                host(true, secret, "6.1.0", &[]),
                ["locked down", "lockdown=integrity"],
            ),
            (
                host(true, None, "5.7.19", &[]),
                ["ring buffers", "Linux 5.8"],
            ),
            (
                host(true, None, "6.1.0", &[Capability::Perfmon]),
                ["CAP_PERFMON", "AmbientCapabilities="],
            ),
        ] {
            let told = told(&host);
            assert_eq!(told.len(), 1, "{told:?}");
            assert!(words.iter().all(|word| told[0].contains(word)), "{told:?}");
        }
        let both = [Capability::Bpf, Capability::Perfmon];
        let all = told(&host(false, secret, "4.18.0-553.el8", &both));
        assert_eq!(all.len(), 4, "{all:?}");
        assert!(all[0].contains("CAP_BPF, CAP_PERFMON"), "{all:?}");
    }

    #[test]
    fn what_a_version_gives_costs_only_what_it_does_not() {
        let of = |release| {
            let host = host(true, None, release, &[]);
            (
                host.has_drop_reasons(),
                host.tells_filtered(),
                host.needs_kept().len(),
                host.charges_locked_memory(),
            )
        };
        assert_eq!(of("5.10.0-32-amd64"), (false, false, 1, true));
        assert_eq!(of("5.16.20"), (false, false, 1, false));
        assert_eq!(of("5.17.0"), (true, false, 1, false));
        assert_eq!(of("5.18.0"), (true, true, 1, false));
        assert_eq!(of("5.19.0"), (true, true, 0, false));
        assert_eq!(of("6.18.44"), (true, true, 0, false));
    }

    #[test]
    fn the_mode_in_force_stands_in_brackets() {
        assert_eq!(mode_in_force("[none] integrity confidentiality"), None);
        assert_eq!(
            mode_in_force("none [integrity]"),
            Some("integrity".to_owned())
        );
        for odd in ["", "[", "none", "[]]"] {
            assert_ne!(mode_in_force(odd), Some("confidentiality".to_owned()));
        }
    }
}
