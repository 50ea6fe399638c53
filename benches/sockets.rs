//! What reading the socket table costs, on a host as it is and on one with many connections.
//!
//! ```sh
//! unshare --map-root-user --net sh -c 'ip link set lo up && cargo bench --bench sockets'
//! ```
//!
//! runs it in a network namespace of its own, where nothing else is connected. `SOCKETS_BENCH_CONNECTED=200000` sets how
//! many sockets are established for the second part; 50,000 are if nothing is said. They are held by as many processes as the
//! limit on open files demands.
#![allow(
    clippy::unwrap_used,
    reason = "a benchmark that cannot be set up has nothing to say"
)]

use std::hint::black_box;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

use criterion::Criterion;
use darkport_exporter::port::{Port, PortSet};
use darkport_exporter::sockets::{Choice, Reader, Wanted};

/// Set in a process that only holds connections: how many pairs, and its number.
const HOLDER: &str = "SOCKETS_BENCH_HOLDER";
/// Connections a holder keeps, each two sockets: below a limit of 20,000 open files.
const PAIRS: usize = 9_000;

fn main() {
    if let Ok(task) = std::env::var(HOLDER) {
        return hold(&task);
    }
    let mut criterion = Criterion::default().sample_size(20).configure_from_args();
    measure(&mut criterion, "as it is");
    let sockets = std::env::var("SOCKETS_BENCH_CONNECTED")
        .map_or(50_000, |number| number.parse::<usize>().unwrap());
    let holders = Holders::start(sockets / 2);
    measure(&mut criterion, &format!("with {sockets} connected"));
    drop(holders);
    criterion.final_summary();
}

fn measure(criterion: &mut Criterion, host: &str) {
    let none = PortSet::new();
    // As many ranges as the unassigned ports make, away from the ephemeral ones that the holders use.
    let watched: PortSet = (0..816)
        .flat_map(|range| [range * 40, range * 40 + 1])
        .map(Port::tcp)
        .collect();
    let one = PortSet::from_iter([Port::tcp(3476)]);
    let everything = PortSet::full();
    let connections = |watched| Wanted::Connections {
        watched,
        listened: &none,
    };
    let mut group = criterion.benchmark_group(host);
    for (name, choice, wanted) in [
        ("netlink: listeners", Choice::Netlink, Wanted::Listeners),
        (
            "netlink: connections, one port",
            Choice::Netlink,
            connections(&one),
        ),
        (
            "netlink: connections, 816 ranges",
            Choice::Netlink,
            connections(&watched),
        ),
        (
            "netlink: connections, all",
            Choice::Netlink,
            connections(&everything),
        ),
        ("netstat2: listeners", Choice::Netstat2, Wanted::Listeners),
    ] {
        let (mut reader, _) = Reader::open(choice, Vec::new()).unwrap();
        group.bench_function(name, |bencher| {
            bencher.iter(|| black_box(reader.read(wanted).unwrap()));
        });
    }
    group.finish();
}

/// Processes that hold connections until dropped.
struct Holders(Vec<Child>);

impl Holders {
    fn start(pairs: usize) -> Self {
        let mut holders = Self(Vec::new());
        for number in 0..pairs.div_ceil(PAIRS) {
            let share = PAIRS.min(pairs - number * PAIRS);
            let child = Command::new(std::env::current_exe().unwrap())
                .env(HOLDER, format!("{number} {share}"))
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            holders.0.push(child);
        }
        for child in &mut holders.0 {
            let mut ready = [0];
            child
                .stdout
                .as_mut()
                .unwrap()
                .read_exact(&mut ready)
                .unwrap();
        }
        holders
    }
}

impl Drop for Holders {
    fn drop(&mut self) {
        for child in &mut self.0 {
            // Its end of the pipe closed is what a holder waits for.
            drop(child.stdin.take());
            let _ = child.wait();
        }
    }
}

/// Connects to itself on a loopback address of its own, says that it is ready and waits until nobody needs it.
fn hold(task: &str) {
    let (number, pairs) = task.split_once(' ').unwrap();
    let address = Ipv4Addr::new(127, 0, 1 + number.parse::<u8>().unwrap(), 1);
    let listener = TcpListener::bind((address, 0)).unwrap();
    let local = listener.local_addr().unwrap();
    let held: Vec<_> = (0..pairs.parse().unwrap())
        .map(|_| {
            (
                TcpStream::connect(local).unwrap(),
                listener.accept().unwrap(),
            )
        })
        .collect();
    std::io::stdout().write_all(b".").unwrap();
    std::io::stdout().flush().unwrap();
    let _ = std::io::stdin().read(&mut [0]);
    drop(held);
}
