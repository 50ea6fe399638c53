//! From the kernel's number for a version 2 control group to its path.
//!
//! The number is the inode of the group's directory (cgroups(7)). There is no call without privilege that turns one into the
//! other, so the directories are walked; but only when a number comes up that is not known, and once a second at the most.

use std::collections::HashMap;
use std::fs;
use std::num::NonZeroU64;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::bounded;

/// How many groups are looked at in a walk; hosts have some hundreds.
const MOST: usize = 16_384;

/// The least time between two walks: whoever may make groups must not make us walk.
const PAUSE: Duration = Duration::from_secs(1);

/// The control groups of the host, as far as they were asked about.
#[derive(Debug)]
pub(super) struct Groups {
    /// Where they are mounted; `None` if nowhere.
    mounted: Option<PathBuf>,
    paths: HashMap<u64, Arc<str>>,
    walked: Option<Instant>,
}

impl Groups {
    /// The groups at the first mount of version 2 that this process sees.
    pub(super) fn new() -> Self {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        Self::at(mount_point(&mounts))
    }

    fn at(mounted: Option<PathBuf>) -> Self {
        Self {
            mounted,
            paths: HashMap::new(),
            walked: None,
        }
    }

    /// The path of a group below the root, such as `/system.slice/sshd.service`; `None` if it is gone or not in sight.
    pub(super) fn path(&mut self, id: NonZeroU64) -> Option<Arc<str>> {
        if let Some(path) = self.paths.get(&id.get()) {
            return Some(Arc::clone(path));
        }
        let now = Instant::now();
        let is_due = self
            .walked
            .is_none_or(|walked| now.saturating_duration_since(walked) >= PAUSE);
        if is_due {
            self.walked = Some(now);
            self.walk();
        }
        self.paths.get(&id.get()).cloned()
    }

    /// What has gone since the last walk is forgotten.
    fn walk(&mut self) {
        let Some(mounted) = &self.mounted else {
            return;
        };
        self.paths.clear();
        let mut waiting = vec![mounted.clone()];
        while let Some(directory) = waiting.pop() {
            let Ok(metadata) = fs::metadata(&directory) else {
                continue;
            };
            let below = directory.strip_prefix(mounted).unwrap_or(Path::new(""));
            let path = bounded(&format!("/{}", below.to_string_lossy()));
            self.paths.insert(metadata.ino(), Arc::from(path));
            let entries = fs::read_dir(&directory).into_iter().flatten().flatten();
            let directories =
                entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
            let room = MOST.saturating_sub(self.paths.len() + waiting.len());
            waiting.extend(directories.map(|entry| entry.path()).take(room));
        }
    }
}

/// Where version 2 is mounted, from the text of /proc/self/mounts (proc_pid_mounts(5)).
fn mount_point(mounts: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let (path, kind) = (fields.next()?, fields.next()?);
        (kind == "cgroup2").then(|| PathBuf::from(path))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mount_is_found_on_hosts_with_both_versions() {
        let mounts = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\n\
                      cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n\
                      cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        assert_eq!(mount_point(mounts), Some("/sys/fs/cgroup/unified".into()));
        assert_eq!(mount_point("proc /proc proc rw 0 0\nbroken"), None);
    }

    #[test]
    fn a_directory_is_known_by_its_number_and_walked_for_once() {
        let root = tempfile::tempdir().unwrap();
        let inner = root.path().join("system.slice/sshd.service");
        fs::create_dir_all(&inner).unwrap();
        let number = |path: &Path| NonZeroU64::new(fs::metadata(path).unwrap().ino()).unwrap();
        let mut groups = Groups::at(Some(root.path().to_owned()));
        assert_eq!(groups.path(number(root.path())).as_deref(), Some("/"));
        assert_eq!(
            groups.path(number(&inner)).as_deref(),
            Some("/system.slice/sshd.service")
        );
        let later = root.path().join("later");
        fs::create_dir(&later).unwrap();
        assert_eq!(groups.path(number(&later)), None, "not so soon again");
        groups.walked = None;
        assert_eq!(groups.path(number(&later)).as_deref(), Some("/later"));
        assert_eq!(Groups::at(None).path(number(&later)), None);
    }
}
