//! Network namespaces made for one test, and two of them as neighbours.
#![allow(unreachable_pub, reason = "shared by test binaries")]

use std::fs::File;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::process::{self, Command};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::run;

/// The two ends of the cable between neighbours.
pub const HERE: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
pub const THERE: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);

/// A network namespace with a name; gone when dropped, unless something still lives in it.
#[derive(Debug)]
pub struct Namespace {
    pub name: String,
}

impl Namespace {
    pub fn new(role: &str) -> Self {
        static MADE: AtomicUsize = AtomicUsize::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let name = format!("dpx-{}-{number}-{role}", process::id());
        run("ip", &["netns", "add", &name]);
        let namespace = Self { name };
        namespace.run("ip link set lo up");
        namespace
    }

    /// Two, joined by a cable: this one has [`HERE`] on `here`, the other [`THERE`] on `there`.
    pub fn neighbours() -> (Self, Self) {
        let (here, there) = (Self::new("here"), Self::new("there"));
        here.run(&format!(
            "ip link add here type veth peer name there netns {}",
            there.name
        ));
        for (namespace, link, address) in [(&here, "here", HERE), (&there, "there", THERE)] {
            namespace.run(&format!("ip addr add {address}/24 dev {link}"));
            namespace.run(&format!("ip link set {link} up"));
        }
        (here, there)
    }

    /// Runs a command line in it, words apart by spaces, and gives what it printed; it must succeed.
    pub fn run(&self, line: &str) -> String {
        let words: Vec<&str> = line.split_whitespace().collect();
        run(
            "ip",
            &[&["netns", "exec", self.name.as_str()], &words[..]].concat(),
        )
    }

    /// Moves the calling thread, and what it starts from now on, into it.
    pub fn enter(&self) {
        let file = File::open(format!("/run/netns/{}", self.name)).unwrap();
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
    }

    /// Does something in it, on a thread of its own.
    pub fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                self.enter();
                work()
            });
            inside.join().unwrap()
        })
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip")
            .args(["netns", "del", &self.name])
            .status();
    }
}
