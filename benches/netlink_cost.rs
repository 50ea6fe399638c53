//! What the netlink tier costs a host: the highest rate of short connections on a port that is not watched, with and without
//! the subscription, in turns. Run it in a network namespace of its own, on a machine that is otherwise idle:
//!
//! ```text
//! cargo bench --bench netlink_cost --no-run
//! unshare -rn sh -c 'ip link set lo up; exec target/release/deps/netlink_cost-*'
//! ```
//!
//! The kernel makes a message as soon as anybody listens for it, in whichever network namespace: with another exporter of this
//! tier anywhere on the machine, both sides of the comparison pay, and the ratio says nothing.
//!
//! Prints, for each size of buffer, the medians, their ratio, what a closed socket costs more, and how long the reader
//! itself ran.

mod support;

#[cfg(target_os = "linux")]
fn main() {
    linux::main();
}

#[cfg(not(target_os = "linux"))]
fn main() {
    println!("the netlink tier is Linux only");
}

#[cfg(target_os = "linux")]
mod linux {
    use std::fs;
    use std::time::Duration;

    use darkport_exporter::counts::netlink::{Netlink, Options};
    use darkport_exporter::port::{Port, PortSet};
    use darkport_exporter::sockets::SocketTable;

    use crate::support::traffic::{processors, rate};

    const ROUNDS: usize = 41;
    const ROUND: Duration = Duration::from_millis(150);

    pub(crate) fn main() {
        let watched = as_many_as_by_default();
        println!("buffer      without/s     with/s  ratio  us/socket  reader ms/s");
        for (name, options) in [
            ("largest", Options::default()),
            (
                "stock",
                Options {
                    receive_buffer: Some(212_992),
                },
            ),
        ] {
            let ratio = compare(name, &watched, options);
            assert!(ratio >= LEAST, "{ratio:.3} is below {LEAST}");
        }
    }

    /// The least of the rate without that may be left with the subscription.
    const LEAST: f64 = 0.80;

    /// Measures and prints; gives the ratio of the rates.
    fn compare(name: &str, watched: &PortSet, options: Options) -> f64 {
        let mut rounds = Vec::with_capacity(ROUNDS);
        let mut reader = Duration::ZERO;
        rate(ROUND);
        for _ in 0..ROUNDS {
            let without = rate(ROUND);
            let tier = Netlink::start_with(watched, &SocketTable::default(), options)
                .expect("the subscription");
            let with = rate(ROUND);
            reader += reader_ran();
            drop(tier);
            rounds.push((without, with));
        }
        let of = |value: fn(&(f64, f64)) -> f64| median(rounds.iter().map(value).collect());
        let ratio = of(|round| round.1 / round.0);
        println!(
            "{name:10} {:10.0} {:10.0}  {ratio:5.3}  {:9.2}  {:11.2}",
            of(|round| round.0),
            of(|round| round.1),
            // A connection is two sockets, and every processor is at it.
            of(|round| 1.0 / round.1 - 1.0 / round.0) * 1e6 / 2.0 * processors() as f64,
            reader.as_secs_f64() * 1e3 / (ROUND.as_secs_f64() * ROUNDS as f64),
        );
        ratio
    }

    /// 816 spans of TCP, 740 of UDP, below the ports the kernel hands out.
    fn as_many_as_by_default() -> PortSet {
        let mut watched = PortSet::new();
        for n in 0..816 {
            watched.insert(Port::tcp(3 + n * 40));
            if n < 740 {
                watched.insert(Port::udp(5 + n * 44));
            }
        }
        watched
    }

    /// Processor time of the tier's thread: the first number of its schedstat.
    fn reader_ran() -> Duration {
        let tasks = fs::read_dir("/proc/self/task")
            .into_iter()
            .flatten()
            .flatten();
        let ran = tasks
            .filter(|task| {
                fs::read_to_string(task.path().join("comm"))
                    .is_ok_and(|name| name.trim_end() == "destroyed")
            })
            .filter_map(|task| fs::read_to_string(task.path().join("schedstat")).ok())
            .filter_map(|stat| stat.split_ascii_whitespace().next()?.parse::<u64>().ok())
            .sum::<u64>();
        Duration::from_nanos(ran)
    }

    fn median(mut rates: Vec<f64>) -> f64 {
        rates.sort_by(f64::total_cmp);
        rates[rates.len() / 2]
    }
}
