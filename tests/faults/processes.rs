//! Processes that vanish while they are read, and very many of them.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::AsFd;
use std::os::unix::fs::symlink;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::support::wait_for;
use crate::{LIT, Over, Stage, WATCH, collector};

/// Each new listener makes the exporter look through all processes, while hundreds begin and end.
#[test]
#[ignore = "needs root"]
fn processes_that_vanish_while_they_are_read_cost_no_owner() {
    let stage = Stage::new(WATCH);
    let exporter = stage.start("netlink");
    let done = AtomicBool::new(false);
    let name = fs::read_to_string("/proc/self/comm").unwrap();
    let owner = format!("process=\"{}\"", name.trim_end());
    let vanished = thread::scope(|scope| {
        let churn = |_| {
            scope.spawn(|| {
                let mut times = 0_u64;
                while !done.load(Ordering::Acquire) {
                    assert!(Command::new("true").status().unwrap().success());
                    times += 1;
                }
                times
            })
        };
        let churning: Vec<_> = (0..2).map(churn).collect();
        let over = Over(&done);
        for _ in 0..50 {
            // A process that has just begun may hold the last one for a moment.
            let _lit = wait_for("the port to be free", || {
                TcpListener::bind((Ipv4Addr::LOCALHOST, LIT.number)).ok()
            });
            let scrape = exporter.scrape();
            assert_eq!(scrape.of_port("darkport_listening", LIT), Some(1.0));
            assert_eq!(collector(&scrape, "owners"), Some(1.0));
            let port = format!("port=\"{}\"", LIT.number);
            let mut listed = scrape.series("darkport_listener_info");
            assert!(
                listed.any(|line| line.contains(&port) && line.contains(&owner)),
                "{}",
                scrape.0
            );
        }
        drop(over);
        let times = churning.into_iter().map(|churn| churn.join().unwrap());
        times.sum::<u64>()
    });
    assert!(vanished > 50, "only {vanished} processes came and went");
}

/// A procfs with as many processes as a large host has; all but two are one and the same directory.
#[test]
#[ignore = "needs root"]
fn among_a_hundred_thousand_processes_the_owner_is_found() {
    const LAST: u32 = 100_100;
    const NEEDLE: u32 = 777;
    let stage = Stage::new(WATCH);
    let procfs = stage.path("proc");
    let lit = TcpListener::bind((Ipv4Addr::LOCALHOST, LIT.number)).unwrap();
    let inode = rustix::fs::fstat(lit.as_fd()).unwrap().st_ino;
    let process = |directory: &str, stat: &str, file: &str| {
        let directory = procfs.join(directory);
        fs::create_dir_all(directory.join("fd")).unwrap();
        fs::write(directory.join("stat"), stat).unwrap();
        symlink(file, directory.join("fd/3")).unwrap();
    };
    // proc_pid_stat(5); the second is the kernel's, as on every host.
    process(
        "2",
        "2 (kthreadd) S 0 0 0 0 -1 2129984 0 0 0 0 0 0 0 0 20 0 1 0 20 0 0",
        "/",
    );
    process(
        "crowd",
        "1 (crowd) S 0 0 0 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 90 0 0",
        "/dev/null",
    );
    process(
        &NEEDLE.to_string(),
        &format!("{NEEDLE} (needle) S 1 0 0 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 91 0 0"),
        &format!("socket:[{inode}]"),
    );
    fs::write(procfs.join("loadavg"), format!("0.0 0.0 0.0 1/92 {LAST}\n")).unwrap();
    for pid in (100..LAST).filter(|&pid| pid != NEEDLE) {
        symlink("crowd", procfs.join(pid.to_string())).unwrap();
    }
    let mut command = stage.command("netlink", &[]);
    command.arg(format!("--path.procfs={}", procfs.display()));
    let exporter = crate::support::Exporter::listening(command);
    let scrape = wait_for("the owner", || {
        let scrape = exporter.scrape();
        let is_named = scrape.0.contains("process=\"needle\"");
        is_named.then_some(scrape)
    });
    assert_eq!(scrape.of_port("darkport_listening", LIT), Some(1.0));
    // The exporter's own listener is in no table of this procfs.
    assert_eq!(collector(&scrape, "sockets"), Some(1.0));
}
