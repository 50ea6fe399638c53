//! What the netlink tier costs a host: the highest rate of short connections on a port that is not watched, with and without
//! the subscription, in turns. Run it in a network namespace of its own, on a machine that is otherwise idle:
//!
//! ```text
//! cargo bench --bench netlink_cost --no-run
//! unshare -rn sh -c 'ip link set lo up; exec target/release/deps/netlink_cost-*'
//! ```
//!
//! Prints, for each size of buffer, the medians, their ratio, what a closed socket costs more, and how long the reader
//! itself ran.

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
    use std::net::{Ipv4Addr, SocketAddr, TcpListener};
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;
    use std::time::{Duration, Instant};

    use darkport_exporter::counts::netlink::{Netlink, Options};
    use darkport_exporter::port::{Port, PortSet};
    use darkport_exporter::sockets::SocketTable;
    use socket2::{Domain, SockAddr, Socket, Type};

    const ROUNDS: usize = 41;
    const ROUND: Duration = Duration::from_millis(150);

    pub(crate) fn main() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port to listen on");
        let to = listener.local_addr().expect("its address");
        thread::spawn(move || {
            for stream in listener.incoming() {
                drop(stream);
            }
        });
        let watched = as_many_as_by_default(to.port());
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
            compare(name, to, &watched, options);
        }
    }

    fn compare(name: &str, to: SocketAddr, watched: &PortSet, options: Options) {
        let (mut without, mut with) = (Vec::new(), Vec::new());
        let mut reader = Duration::ZERO;
        rate(to);
        for _ in 0..ROUNDS {
            without.push(rate(to));
            let tier = Netlink::start_with(watched, &SocketTable::default(), options)
                .expect("the subscription");
            with.push(rate(to));
            reader += reader_ran();
            drop(tier);
        }
        let (without, with) = (median(without), median(with));
        println!(
            "{name:10} {without:10.0} {with:10.0}  {:5.3}  {:9.2}  {:11.2}",
            with / without,
            (1.0 / with - 1.0 / without) * 1e6 / 2.0,
            reader.as_secs_f64() * 1e3 / (ROUND.as_secs_f64() * ROUNDS as f64),
        );
    }

    /// Connections a second that are opened and reset at once.
    fn rate(to: SocketAddr) -> f64 {
        let to = SockAddr::from(to);
        let stop = AtomicBool::new(false);
        let start = Instant::now();
        let mut connections = 0_u32;
        thread::scope(|scope| {
            scope.spawn(|| {
                thread::sleep(ROUND);
                stop.store(true, Ordering::Relaxed);
            });
            while !stop.load(Ordering::Relaxed) {
                let client = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
                client.set_linger(Some(Duration::ZERO)).expect("linger");
                client.connect(&to).expect("a connection");
                connections += 1;
            }
        });
        f64::from(connections) / start.elapsed().as_secs_f64()
    }

    /// 816 spans of TCP, 740 of UDP, none with the busy port.
    fn as_many_as_by_default(busy: u16) -> PortSet {
        let mut watched = PortSet::new();
        for n in 0..816 {
            watched.insert(Port::tcp(3 + n * 40));
            if n < 740 {
                watched.insert(Port::udp(5 + n * 44));
            }
        }
        watched.remove(Port::tcp(busy));
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
