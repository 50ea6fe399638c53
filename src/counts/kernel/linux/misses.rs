//! What the kernel left out by itself. It does not run a program anew on a processor that is in the midst of running it:
//! when an interrupt brings about a change of state, a packet or a drop just while one is being counted, the second is not.
//! That is rare, once in ten million was seen, and cannot be helped, but the kernel says how often it happened.

use std::fs;
use std::os::fd::{AsFd, AsRawFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use aya::Ebpf;

/// The programs on tracepoints.
const PROGRAMS: [&str; 4] = ["tap", "tap_direct", "dropped", "state"];

/// Where the kernel tells of each of the loaded programs, and what it last told: where that cannot be read now, it stands.
#[derive(Debug)]
pub(super) struct Misses(Vec<(PathBuf, AtomicU64)>);

impl Misses {
    /// Of the programs that are loaded by now; to be read as long as they are.
    pub(super) fn of(ebpf: &Ebpf) -> Self {
        let path = |name| {
            let program = ebpf.program(name)?.fd().ok()?;
            let number = program.as_fd().as_raw_fd();
            let path = PathBuf::from(format!("/proc/self/fdinfo/{number}"));
            Some((path, AtomicU64::new(0)))
        };
        Self(PROGRAMS.into_iter().filter_map(path).collect())
    }

    /// Runs left out since start. Before Linux 5.12, which does not tell, 0.
    pub(super) fn count(&self) -> u64 {
        let of = |(path, last): &(PathBuf, AtomicU64)| {
            let text = fs::read_to_string(path).unwrap_or_default();
            let told = recursion_misses(&text).unwrap_or(0);
            last.fetch_max(told, Ordering::Relaxed).max(told)
        };
        self.0.iter().map(of).sum()
    }
}

/// Of proc_pid_fdinfo(5), as `bpf_prog_show_fdinfo` writes it.
fn recursion_misses(text: &str) -> Option<u64> {
    text.lines()
        .find_map(|line| line.strip_prefix("recursion_misses:"))
        .and_then(|value| value.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_told_stands_while_it_cannot_be_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("7");
        let misses = Misses(vec![(path.clone(), AtomicU64::new(0))]);
        assert_eq!(misses.count(), 0);
        fs::write(&path, "recursion_misses:\t7\n").unwrap();
        assert_eq!(misses.count(), 7);
        fs::remove_file(&path).unwrap();
        assert_eq!(misses.count(), 7);
    }

    #[test]
    fn the_kernels_number_is_found() {
        let text = "pos:\t0\nprog_type:\t26\nrun_time_ns:\t0\nrun_cnt:\t0\nrecursion_misses:\t7\nverified_insns:\t3\n";
        assert_eq!(recursion_misses(text), Some(7));
        assert_eq!(recursion_misses("prog_type:\t26\n"), None);
    }
}
