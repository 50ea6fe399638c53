//! A busy host for the benchmarks: processes that hold established connections over loopback.
//!
//! The benchmark runs itself anew as often as the limit on open files demands. A holder ends when its standard input does,
//! so that none outlives the benchmark, however that one ends.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a benchmark that cannot be set up has nothing to say, and each uses some of this"
)]

#[cfg(target_os = "linux")]
pub mod alone;
#[cfg(target_os = "linux")]
pub mod server;
pub mod traffic;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

use rustix::process::{Resource, getrlimit, setrlimit};

/// Set in a process that only holds connections: its number, how many pairs, and the port to listen on.
const HOLDER: &str = "BENCH_HOLDER";
/// The most connections a holder keeps, each two sockets: below a limit of 20,000 open files, and below the 28,000
/// ephemeral ports that one address has for another.
const MOST_PAIRS: usize = 9_000;
/// Files a process has open beside the connections, generously.
const OTHER_FILES: usize = 100;

/// In a process started to hold connections: does so until nobody needs them, and ends it.
pub fn hold_if_asked() {
    if let Ok(task) = std::env::var(HOLDER) {
        hold(&task);
        std::process::exit(0);
    }
}

/// Processes that hold connections until dropped.
pub struct Holders(Vec<Child>);

impl Holders {
    /// Establishes this many sockets, two a connection. Each holder listens on an address of its own, on the next of
    /// these ports; 0 lets the system choose one.
    pub fn start(sockets: usize, ports: &[u16]) -> Self {
        let most = pairs_a_process();
        let mut holders = Self(Vec::new());
        let mut left = sockets / 2;
        for (number, port) in ports.iter().cycle().enumerate() {
            if left == 0 {
                break;
            }
            let share = most.min(left);
            left -= share;
            let child = Command::new(std::env::current_exe().unwrap())
                .env(HOLDER, format!("{number} {share} {port}"))
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            holders.0.push(child);
        }
        for child in &mut holders.0 {
            let ready = child.stdout.as_mut().unwrap().read_exact(&mut [0]);
            ready.expect("a holder has not got its connections: what it said stands above");
        }
        holders
    }
}

impl Drop for Holders {
    fn drop(&mut self) {
        // The end of its input is what a holder waits for: all end at the same time.
        for child in &mut self.0 {
            drop(child.stdin.take());
        }
        for child in &mut self.0 {
            let _ = child.wait();
        }
    }
}

fn pairs_a_process() -> usize {
    raise_file_limit()
        .saturating_sub(OTHER_FILES)
        .div_euclid(2)
        .min(MOST_PAIRS)
}

/// Allows as many open files as this user may have, and gives how many.
fn raise_file_limit() -> usize {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    let _ = setrlimit(Resource::Nofile, limit);
    let files = getrlimit(Resource::Nofile).current;
    files.map_or(usize::MAX, |files| files as usize)
}

/// Connects to itself on a loopback address of its own, says that it is ready and waits.
fn hold(task: &str) {
    let numbers: Vec<usize> = task
        .split(' ')
        .map(|number| number.parse().unwrap())
        .collect();
    let [number, pairs, port] = numbers[..] else {
        unreachable!("written by Holders::start");
    };
    raise_file_limit();
    let address = Ipv4Addr::new(127, 0, 1 + number as u8, 1);
    let listener = TcpListener::bind((address, port as u16)).unwrap();
    let local = listener.local_addr().unwrap();
    let held: Vec<_> = (0..pairs)
        .map(|_| {
            let dialled = TcpStream::connect(local).unwrap();
            (dialled, listener.accept().unwrap())
        })
        .collect();
    std::io::stdout().write_all(b".").unwrap();
    std::io::stdout().flush().unwrap();
    let _ = std::io::stdin().read(&mut [0]);
    drop(held);
}
