//! Control groups for tests.
#![allow(unreachable_pub, reason = "shared by test binaries")]

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// A control group made for a test, in every hierarchy that has names.
pub struct Group(Vec<PathBuf>);

impl Group {
    pub fn make(path: &[&[u8]]) -> Self {
        let mut made = Vec::new();
        for mut directory in hierarchies() {
            for name in path {
                directory.push(OsString::from_vec(name.to_vec()));
                if fs::create_dir(&directory).is_ok() {
                    made.push(directory.clone());
                }
            }
            assert!(directory.is_dir(), "{}", directory.display());
        }
        assert!(!made.is_empty(), "no control groups here");
        Self(made)
    }

    pub fn put(&self, pid: u32) {
        // The innermost of each hierarchy is the one that is no other's parent.
        let innermost = |path: &&PathBuf| !self.0.iter().any(|other| other.parent() == Some(path));
        for path in self.0.iter().filter(innermost) {
            fs::write(path.join("cgroup.procs"), pid.to_string()).unwrap();
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        for path in self.0.iter().rev() {
            // A process that was just ended may still be on its way out.
            let start = Instant::now();
            while let Err(error) = fs::remove_dir(path) {
                assert!(
                    std::thread::panicking() || start.elapsed() < Duration::from_secs(30),
                    "{}: {error}",
                    path.display()
                );
                if std::thread::panicking() {
                    return;
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }
}

/// Where control groups of version 2, and systemd's of version 1, are mounted.
fn hierarchies() -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let fields = mounts
        .lines()
        .map(|line| line.split(' ').collect::<Vec<_>>());
    let named = fields.filter(|fields| {
        fields[2] == "cgroup2"
            || fields[2] == "cgroup" && fields[3].split(',').any(|option| option == "name=systemd")
    });
    named.map(|fields| PathBuf::from(fields[1])).collect()
}
