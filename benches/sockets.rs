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

mod support;

use std::hint::black_box;

use criterion::Criterion;
use darkport_exporter::port::{Port, PortSet};
use darkport_exporter::sockets::{Choice, Reader, Wanted};
use support::Holders;

fn main() {
    support::hold_if_asked();
    let mut criterion = Criterion::default().sample_size(20).configure_from_args();
    measure(&mut criterion, "as it is");
    let sockets = std::env::var("SOCKETS_BENCH_CONNECTED")
        .map_or(50_000, |number| number.parse::<usize>().unwrap());
    let holders = Holders::start(sockets, &[0]);
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
        ("procfs: listeners", Choice::Procfs, Wanted::Listeners),
    ] {
        let (mut reader, _) = Reader::open(choice, Vec::new()).unwrap();
        group.bench_function(name, |bencher| {
            bencher.iter(|| black_box(reader.read(wanted).unwrap()));
        });
    }
    group.finish();
}
