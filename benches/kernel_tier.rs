//! What the kernel tier costs the host, held against its bounds: bulk throughput and short connections with and without,
//! nanoseconds a packet, and what a scrape reads. Needs root, util-linux and iproute2; puts itself into a network namespace of
//! its own:
//!
//! ```text
//! cargo bench --bench kernel_tier
//! ```
//!
//! Rates with and without are measured in turns, many short ones, so that whatever else the machine does falls on both; what
//! counts is the median of the turns' ratios, by the processor time that the work took, which other work disturbs less than the
//! clock. Prints the quartiles too, and ends with status 1 if a bound is broken. The names of parts (`memory`, `packet`,
//! `scrape`, `bulk`, `short`) as arguments measure only these.
//!
//! A tracepoint costs more with each program on it, so nothing else should be attached while this measures, above all no other
//! exporter; it says so if one is.

#![allow(
    clippy::unwrap_used,
    reason = "a benchmark that cannot go on has nothing to say"
)]

use std::process::ExitCode;

#[cfg(target_os = "linux")]
fn main() -> ExitCode {
    linux::main()
}

#[cfg(not(target_os = "linux"))]
fn main() -> ExitCode {
    println!("the kernel tier is Linux's");
    ExitCode::SUCCESS
}

#[cfg(target_os = "linux")]
mod linux {
    use std::env;
    use std::fs;
    use std::hint::black_box;
    use std::io::{Read, Write};
    use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
    use std::process::{Command, ExitCode};
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;
    use std::time::{Duration, Instant};

    use darkport_exporter::counts::kernel::{Kernel, Options, Space, Watcher};
    use darkport_exporter::port::Port;
    use darkport_exporter::registry::{Assignment, Class};

    const PORT: Port = Port::tcp(3476);
    const STATS: &str = "/proc/sys/kernel/bpf_stats_enabled";

    /// Set once the benchmark is in a namespace of its own.
    const ALONE: &str = "KERNEL_TIER_ALONE";
    /// What an exit status by itself does not say: measured, and a bound is broken.
    const BROKEN: u8 = 3;

    /// Of the rates without, what must be left.
    const LEAST_BULK: f64 = 0.98;
    const LEAST_SHORT: f64 = 0.97;
    /// Between the quartiles of the turns' ratios; beyond it they say nothing.
    const MOST_SPREAD: f64 = 0.06;
    /// Each turn with and each without takes so long.
    const TURN: Duration = Duration::from_millis(250);
    const TURNS: usize = 40;

    pub(super) fn main() -> ExitCode {
        if env::var_os(ALONE).is_none() {
            return run_alone();
        }
        for name in other_programs() {
            println!("attached by somebody else, and measured too: {name}");
        }
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
        let mut kept = true;
        if wants("bulk") {
            kept &= compare("bulk TCP, MB", LEAST_BULK, bulk);
        }
        if wants("short") {
            for (what, number) in [("unwatched", 4000), ("watched", PORT.number)] {
                let what = format!("short connections, {what} port");
                kept &= compare(&what, LEAST_SHORT, |lasts| short_connections(number, lasts));
            }
        }
        if kept {
            ExitCode::SUCCESS
        } else {
            ExitCode::from(BROKEN)
        }
    }

    /// Runs the benchmark anew where no other traffic is.
    fn run_alone() -> ExitCode {
        let status = Command::new("unshare")
            .args([
                "--net",
                "sh",
                "-c",
                "ip link set lo up && exec \"$@\"",
                "sh",
            ])
            .arg(env::current_exe().unwrap())
            .args(env::args_os().skip(1))
            .env(ALONE, "1")
            .status();
        match status {
            Ok(status) if status.success() => ExitCode::SUCCESS,
            Ok(status) if status.code() == Some(BROKEN.into()) => ExitCode::FAILURE,
            Ok(status) => {
                eprintln!("kernel_tier: not measured ({status}); run it as root");
                ExitCode::FAILURE
            }
            Err(error) => {
                eprintln!("kernel_tier: unshare, of util-linux, cannot be run: {error}");
                ExitCode::FAILURE
            }
        }
    }

    /// Programs of other exporters.
    fn other_programs() -> Vec<String> {
        aya::programs::loaded_programs()
            .filter_map(Result::ok)
            .filter_map(|program| program.name_as_str().map(str::to_owned))
            .filter(|name| ["tap", "tap_direct", "dropped", "state"].contains(&name.as_str()))
            .collect()
    }

    fn start() -> (Kernel, Watcher) {
        let (mut kernel, watcher, missing) = Kernel::start(&Options::default()).unwrap();
        for part in missing {
            println!("missing: {part}");
        }
        kernel.watch(&[PORT].into_iter().collect()).unwrap();
        (kernel, watcher)
    }

    /// Measures with the tier and without, in turns, and prints the medians of each, and median and quartiles of the turns'
    /// ratios: by the clock, and by the processor time of this process. Whether the latter keeps to the bound.
    fn compare(what: &str, least: f64, mut measure: impl FnMut(Duration) -> f64) -> bool {
        let mut rates = [[Vec::new(), Vec::new()], [Vec::new(), Vec::new()]];
        measure(TURN);
        for number in 0..TURNS {
            // With, without, without, with: a drift of the machine falls on both.
            for attached in [number % 2 == 0, number % 2 == 1] {
                let held = attached.then(start);
                let (begin, cpu) = (Instant::now(), processor_time());
                let rate = measure(TURN);
                let (took, cpu) = (begin.elapsed(), processor_time() - cpu);
                let by_cpu = rate * took.as_secs_f64() / cpu.as_secs_f64();
                rates[0][usize::from(held.is_some())].push(rate);
                rates[1][usize::from(held.is_some())].push(by_cpu);
            }
        }
        let mut kept = false;
        for (of, [without, with]) in ["clock", "processor"].into_iter().zip(rates) {
            let ratios: Vec<_> = with
                .iter()
                .zip(&without)
                .map(|(with, without)| with / without)
                .collect();
            let (low, ratio, high) = (
                quantile(&ratios, 0.25),
                quantile(&ratios, 0.5),
                quantile(&ratios, 0.75),
            );
            println!(
                "{what}, a second of {of}: {:.0} with, {:.0} without, ratio {ratio:.3} ({low:.3} to {high:.3})",
                quantile(&with, 0.5),
                quantile(&without, 0.5),
            );
            // The last is the processor's.
            let verdict = match ratio {
                _ if high - low > MOST_SPREAD => "too uneven to tell: the machine is busy",
                ratio if ratio < least => "broken",
                _ => "kept",
            };
            kept = verdict == "kept";
            if of == "processor" {
                println!("{what}: bound {least}, {verdict}");
            }
        }
        kept
    }

    fn processor_time() -> Duration {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32)
    }

    fn quantile(values: &[f64], part: f64) -> f64 {
        let mut values = values.to_vec();
        values.sort_by(f64::total_cmp);
        values[((values.len() - 1) as f64 * part).round() as usize]
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
            quantile(&times, 0.5)
        };
        println!("a scrape's reading at rest: {:.0} µs", read(false));
        println!("with knocks in 64 blocks since: {:.0} µs", read(true));
    }
}
