//! What naming owners costs on a host with 1,000 processes and 10,000 open files, beside what others ask for it.
//!
//! ```sh
//! cargo bench --bench owners
//! ```
//!
//! Best as root, who may read every process, and in a network namespace of its own (`unshare --net`), where nobody else's
//! listeners come and go. Starts 1,000 processes that sleep and one that holds 100 listeners, and prints, after criterion's
//! report, each way of naming a new listener as a part of what the `listeners` crate's `get_all` and `ss -lntup` cost in the
//! same run.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a benchmark that cannot be set up has nothing to say"
)]

use std::hint::black_box;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use criterion::Criterion;
use darkport_exporter::owners::Owners;
use darkport_exporter::port::Port;
use darkport_exporter::sockets::Wanted;
use darkport_exporter::sockets::netlink::Netlink;
use rustix::io::{FdFlags, fcntl_setfd};

const PROCESSES: usize = 1_000;
/// Listeners that are there all the time.
const STANDING: usize = 100;
/// How often the cases of the comparison are timed, in turn.
const ROUNDS: usize = 30;

fn main() {
    let mut criterion = Criterion::default().sample_size(20).configure_from_args();
    let (crowd, standing) = (Crowd::gather(), Crowd::holding_listeners());
    let mut host = Host::new();
    criterion.bench_function("nothing new: the socket table alone", |bencher| {
        bencher.iter(|| black_box(host.read_table()));
    });
    criterion.bench_function("nothing new: the socket table and its owners", |bencher| {
        bencher.iter(|| host.scrape());
    });
    compare(&mut host);
    drop((crowd, standing));
    criterion.final_summary();
}

/// Times every case once a round, so that whatever else the machine does falls on all alike, and takes the medians.
fn compare(host: &mut Host) {
    let mut times: [Vec<Duration>; 6] = Default::default();
    for _ in 0..ROUNDS {
        let steady = timed(|| host.scrape());
        let first = timed(|| drop(Host::new()));
        let by_old_process = listener();
        let old = timed(|| host.scrape());
        host.expect(&by_old_process, std::process::id());
        drop(by_old_process);
        let (by_new_process, child) = handed_over();
        let new = timed(|| host.scrape());
        host.expect(&by_new_process, child.0[0].id());
        let listeners = timed(|| drop(black_box(listeners::get_all().unwrap())));
        let ss = timed(run_ss);
        for (times, time) in times
            .iter_mut()
            .zip([steady, first, old, new, listeners, ss])
        {
            times.push(time);
        }
    }
    let [steady, first, old, new, listeners, ss] = times.map(median);
    println!("\nmedians of {ROUNDS} rounds            time   of get_all   of ss -lntup");
    for (name, time) in [
        ("scrape, nothing new", steady),
        ("first scrape, all new", first),
        ("scrape, new, by an old process", old),
        ("scrape, new, by a new process", new),
        ("listeners::get_all", listeners),
        ("ss -lntup", ss),
    ] {
        let part = |whole: Duration| time.as_secs_f64() / whole.as_secs_f64();
        println!(
            "{name:<32} {time:>9.1?}   {:>8.3}   {:>10.3}",
            part(listeners),
            part(ss)
        );
    }
}

/// What a scrape does, as far as owners concern it.
struct Host {
    netlink: Netlink,
    owners: Owners,
}

impl Host {
    fn new() -> Self {
        let mut host = Self {
            netlink: Netlink::open().unwrap(),
            owners: Owners::new(Path::new("/proc")),
        };
        host.scrape();
        host
    }

    fn read_table(&mut self) -> usize {
        self.netlink
            .read(Wanted::Listeners)
            .unwrap()
            .listeners
            .len()
    }

    fn scrape(&mut self) {
        let table = self.netlink.read(Wanted::Listeners).unwrap();
        black_box(self.owners.resolve(&table.listeners));
    }

    /// A fast answer must be a right one.
    fn expect(&mut self, socket: &TcpListener, pid: u32) {
        let port = Port::tcp(socket.local_addr().unwrap().port());
        let table = self.netlink.read(Wanted::Listeners).unwrap();
        let owners = self.owners.resolve(&table.listeners).owners;
        let found = table
            .listeners
            .iter()
            .zip(owners)
            .find(|(listener, _)| listener.port == port)
            .unwrap();
        assert!(
            found.1.holders().any(|process| process.pid == pid),
            "{found:?}"
        );
    }
}

fn listener() -> TcpListener {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap()
}

/// A listener that a process just started holds too.
fn handed_over() -> (TcpListener, Crowd) {
    let socket = listener();
    fcntl_setfd(&socket, FdFlags::empty()).unwrap();
    let child = Crowd(vec![sleeping("exec sleep 600")]);
    fcntl_setfd(&socket, FdFlags::CLOEXEC).unwrap();
    (socket, child)
}

/// Processes that sleep until dropped, with ten files each.
struct Crowd(Vec<Child>);

impl Crowd {
    fn gather() -> Self {
        let ten_files = "exec sleep 600 3</dev/null 4<&3 5<&3 6<&3 7<&3 8<&3 9<&3";
        Self((0..PROCESSES).map(|_| sleeping(ten_files)).collect())
    }
}

impl Crowd {
    /// One process that holds them all, and this one none.
    fn holding_listeners() -> Self {
        let sockets: Vec<TcpListener> = (0..STANDING).map(|_| listener()).collect();
        for socket in &sockets {
            fcntl_setfd(socket, FdFlags::empty()).unwrap();
        }
        Self(vec![sleeping("exec sleep 600")])
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn sleeping(script: &str) -> Child {
    let mut command = Command::new("sh");
    command
        .args(["-c", script])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command.spawn().unwrap()
}

fn run_ss() {
    let status = Command::new("ss")
        .arg("-lntup")
        .stdout(Stdio::null())
        .status();
    assert!(status.unwrap().success(), "ss is needed for the comparison");
}

fn timed(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}
