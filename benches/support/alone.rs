//! A benchmark in network and process namespaces of its own, so that nothing else is connected and nothing outlives it. Needs
//! util-linux and iproute2.

use std::process::{Command, ExitCode};

/// Set once the benchmark is in namespaces of its own.
const ALONE: &str = "BENCH_ALONE";
/// The exit status by which the benchmark tells itself that it has measured, and that a bound is broken.
pub const BROKEN: u8 = 3;

/// Whether it is there.
pub fn is_alone() -> bool {
    std::env::var_os(ALONE).is_some()
}

/// Runs the benchmark anew where it is alone. The process namespace ends with its first process, and all in it do too.
pub fn run(name: &str) -> ExitCode {
    let mut unshare = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        unshare.arg("--map-root-user");
    }
    let status = unshare
        .args(["--net", "--pid", "--fork", "--kill-child", "--mount-proc"])
        .args(["sh", "-c", "ip link set lo up && exec \"$@\"", "sh"])
        .arg(std::env::current_exe().unwrap())
        .args(std::env::args_os().skip(1))
        .env(ALONE, "1")
        .status();
    match status {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Ok(status) if status.code() == Some(BROKEN.into()) => ExitCode::FAILURE,
        Ok(status) => {
            eprintln!(
                "{name}: not measured ({status}); where namespaces are not allowed to this user, run it as root"
            );
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("{name}: unshare, of util-linux, cannot be run: {error}");
            ExitCode::FAILURE
        }
    }
}
