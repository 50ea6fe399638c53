//! What the kernel tier costs the host: nanoseconds a packet, bulk throughput and short connections with and without,
//! and what a scrape reads. Needs root; works in a network namespace of its own:
//!
//! ```text
//! unshare -n cargo bench --bench kernel_tier
//! ```
//!
//! Rates with and without are measured in turns, many short ones, so that whatever else the machine does falls on both;
//! the ratio is that of the medians.

#![allow(
    clippy::unwrap_used,
    reason = "a benchmark that cannot go on has nothing to say"
)]

fn main() {
    #[cfg(target_os = "linux")]
    linux::main();
    #[cfg(not(target_os = "linux"))]
    println!("the kernel tier is Linux's");
}

#[cfg(target_os = "linux")]
mod linux {
    use std::env;
    use std::fs;
    use std::hint::black_box;
    use std::io::{Read, Write};
    use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
    use std::process::Command;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;
    use std::time::{Duration, Instant};

    use darkport_exporter::counts::kernel::{Kernel, Options, Space, Watcher};
    use darkport_exporter::port::Port;
    use darkport_exporter::registry::{Assignment, Class};

    const PORT: Port = Port::tcp(3476);
    const STATS: &str = "/proc/sys/kernel/bpf_stats_enabled";

    pub(super) fn main() {
        let devices = fs::read_to_string("/proc/self/net/dev").unwrap();
        if devices.lines().skip(2).any(|line| !line.contains("lo:")) {
            println!("not measured: run it in a network namespace of its own, unshare -n");
            return;
        }
        run("ip link set lo up");
        let wanted: Vec<_> = env::args()
            .skip(1)
            .filter(|arg| !arg.starts_with('-'))
            .collect();
        let wants = |name: &str| wanted.is_empty() || wanted.iter().any(|one| one == name);
        if wants("memory") {
            memory();
        }
        if wants("packet") {
            nanoseconds_a_run();
        }
        if wants("scrape") {
            scrape();
        }
        if wants("bulk") {
            compare("bulk TCP, MB", 20, bulk);
        }
        if wants("short") {
            compare("short connections, unwatched port", 60, |lasts| {
                short_connections(4000, lasts)
            });
            compare("short connections, watched port", 60, |lasts| {
                short_connections(PORT.number, lasts)
            });
        }
    }

    fn run(line: &str) {
        let mut words = line.split(' ');
        let status = Command::new(words.next().unwrap())
            .args(words)
            .status()
            .unwrap();
        assert!(status.success(), "{line}");
    }

    fn start() -> (Kernel, Watcher) {
        let (mut kernel, watcher, missing) = Kernel::start(&Options::default()).unwrap();
        for part in missing {
            println!("missing: {part}");
        }
        if !env::var("DP_SKIP").unwrap_or_default().contains("watch") {
            kernel.watch(&[PORT].into_iter().collect()).unwrap();
        }
        (kernel, watcher)
    }

    /// Measures with the tier and without, in turns, and prints the median of each and the median of the turns' ratios:
    /// for a second of time, and for a second of this process's processor time, which other work disturbs less.
    fn compare(what: &str, turns: usize, mut measure: impl FnMut(Duration) -> f64) {
        let turn = Duration::from_millis(400);
        let mut rates = [[Vec::new(), Vec::new()], [Vec::new(), Vec::new()]];
        measure(turn);
        for number in 0..turns {
            // With, without, without, with: a drift of the machine falls on both.
            for attached in [number % 2 == 0, number % 2 == 1] {
                let held = attached.then(start);
                let (begin, cpu) = (Instant::now(), processor_time());
                let rate = measure(turn);
                let (took, cpu) = (begin.elapsed(), processor_time() - cpu);
                rates[0][usize::from(held.is_some())].push(rate);
                let by_cpu = rate * took.as_secs_f64() / cpu.as_secs_f64();
                rates[1][usize::from(held.is_some())].push(by_cpu);
            }
        }
        for (of, [without, with]) in ["time", "processor time"].into_iter().zip(rates) {
            let ratios = with
                .iter()
                .zip(&without)
                .map(|(with, without)| with / without);
            let ratio = median(ratios.collect());
            let (with, without) = (median(with), median(without));
            println!(
                "{what}, a second of {of}: {with:.0} with, {without:.0} without, ratio {ratio:.3}"
            );
        }
    }

    fn processor_time() -> Duration {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32)
    }

    fn median(mut values: Vec<f64>) -> f64 {
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    }

    fn short_connections(number: u16, lasts: Duration) -> f64 {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, number));
        let listener = TcpListener::bind(address).unwrap();
        let ended = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !ended.load(Ordering::Relaxed) {
                    drop(listener.accept().unwrap());
                }
            });
            let mut count = 0_u32;
            let begin = Instant::now();
            while begin.elapsed() < lasts {
                let mut stream = TcpStream::connect(address).unwrap();
                let end = stream.read(&mut [0]).unwrap();
                assert_eq!(end, 0);
                count += 1;
            }
            let rate = f64::from(count) / begin.elapsed().as_secs_f64();
            ended.store(true, Ordering::Relaxed);
            let _ = TcpStream::connect(address);
            rate
        })
    }

    fn bulk(lasts: Duration) -> f64 {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, PORT.number));
        let listener = TcpListener::bind(address).unwrap();
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut stream = TcpStream::connect(address).unwrap();
                let buffer = vec![0; 256 * 1024];
                while stream.write_all(&buffer).is_ok() {}
            });
            let (mut stream, _) = listener.accept().unwrap();
            let mut buffer = vec![0; 256 * 1024];
            let mut bytes = 0;
            let begin = Instant::now();
            while begin.elapsed() < lasts {
                bytes += stream.read(&mut buffer).unwrap();
            }
            bytes as f64 / 1e6 / begin.elapsed().as_secs_f64()
        })
    }

    /// The kernel's own account of each program's runs; keeping it adds to each run.
    fn nanoseconds_a_run() {
        let before = fs::read_to_string(STATS).unwrap();
        fs::write(STATS, "1").unwrap();
        let held = start();
        let lasts = Duration::from_secs(2);
        bulk(lasts);
        account("packets of bulk TCP");
        short_connections(4000, lasts);
        account("short connections");
        datagrams(lasts);
        account("datagrams to a dark port");
        drop(held);
        fs::write(STATS, before).unwrap();
    }

    fn datagrams(lasts: Duration) {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let begin = Instant::now();
        while begin.elapsed() < lasts {
            let _ = socket.send_to(b"knock", (Ipv4Addr::LOCALHOST, PORT.number));
        }
    }

    /// Prints what each program has done since the last account.
    fn account(what: &str) {
        thread_local! {
            static LAST: std::cell::RefCell<std::collections::BTreeMap<String, (u64, u64)>> = const {
                std::cell::RefCell::new(std::collections::BTreeMap::new())
            };
        }
        println!("{what}:");
        LAST.with_borrow_mut(|last| {
            for entry in fs::read_dir("/proc/self/fdinfo").unwrap() {
                let Ok(text) = fs::read_to_string(entry.unwrap().path()) else {
                    continue;
                };
                let field = |name: &str| {
                    text.lines()
                        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
                        .map(|value| value.trim().to_owned())
                };
                let (Some(id), Some(kind), Some(time), Some(runs)) = (
                    field("prog_id"),
                    field("prog_type"),
                    field("run_time_ns"),
                    field("run_cnt"),
                ) else {
                    continue;
                };
                let now: (u64, u64) = (time.parse().unwrap(), runs.parse().unwrap());
                let then = last.insert(id.clone(), now).unwrap_or_default();
                let (time, runs) = (now.0 - then.0, now.1 - then.1);
                if runs > 1000 {
                    println!(
                        "  program {id}, type {kind}: {:.0} ns a run, {runs} runs",
                        time as f64 / runs as f64
                    );
                }
            }
        });
    }

    /// What starting the tier leaves in memory: the mapped counters are files there, what it allocates is anonymous.
    fn memory() {
        let held = start();
        let status = fs::read_to_string("/proc/self/status").unwrap();
        for line in status.lines().filter(|line| line.contains("Rss")) {
            println!("{line}");
        }
        drop(held);
    }

    /// What a scrape reads: the sums of the space and 40 ports; at rest, and with every block knocked on in between.
    fn scrape() {
        let (kernel, _watcher) = start();
        let mut space = Space::new(|port| Class {
            range: port.range(),
            assignment: Assignment::Assigned,
        });
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let mut read = |knocks: bool| {
            let mut times = Vec::new();
            for _ in 0..100 {
                if knocks {
                    for block in 0..64_u16 {
                        let _ = socket.send_to(b"knock", (Ipv4Addr::LOCALHOST, block * 1024 + 9));
                    }
                }
                let begin = Instant::now();
                let reading = kernel.read();
                black_box(reading.space(&mut space));
                for number in 600..620 {
                    black_box(reading.counts(Port::tcp(number)));
                    black_box(reading.counts(Port::udp(number)));
                }
                times.push(begin.elapsed().as_secs_f64() * 1e6);
            }
            median(times)
        };
        println!("a scrape's reading at rest: {:.0} µs", read(false));
        println!("with knocks in 64 blocks since: {:.0} µs", read(true));
    }
}
