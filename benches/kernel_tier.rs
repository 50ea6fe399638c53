//! What the kernel tier costs the host, held against its bounds: bulk throughput and short connections with and without,
//! nanoseconds a packet, and what a scrape reads. Needs root, util-linux and iproute2; puts itself into a network namespace of
//! its own:
//!
//! ```text
//! cargo bench --bench kernel_tier
//! ```
//!
//! Rates with and without are measured in turns, so that whatever else the machine does falls on both, and with several tiers at
//! once, held by a process of their own, because what one costs is less than what a machine does by itself from turn to turn. What
//! counts is a single one's part of the median of the turns' ratios, with the interval in which it lies with a certainty of
//! 95 %. Ends with status 1 if a bound is broken, or lies in that interval. The names of parts (`memory`, `packet`, `scrape`,
//! `bulk`, `short`) as arguments measure only these.
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
    use std::io::{self, Read, Write};
    use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
    use std::process::{Child, Command, ExitCode, Stdio};
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;
    use std::time::{Duration, Instant};

    use darkport_exporter::counts::kernel::{Kernel, Options, Space, Watcher};
    use darkport_exporter::port::Port;
    use darkport_exporter::registry::{Assignment, Class};

    /// Watched.
    const PORT: Port = Port::tcp(3476);
    const UNWATCHED: Port = Port::tcp(4000);
    const STATS: &str = "/proc/sys/kernel/bpf_stats_enabled";

    /// Set once the benchmark is in a namespace of its own.
    const ALONE: &str = "KERNEL_TIER_ALONE";
    /// Set in the process that holds the tier for another.
    const HOLDER: &str = "KERNEL_TIER_HOLDER";
    /// What an exit status by itself does not say: measured, and a bound is broken.
    const BROKEN: u8 = 3;

    /// Of the rates without, what must be left.
    const LEAST_BULK: f64 = 0.98;
    const LEAST_SHORT: f64 = 0.97;
    /// Each turn with and each without takes so long.
    const TURN: Duration = Duration::from_millis(500);
    /// The same work goes before each, not measured: what starting and ending the tier left to the kernel falls on neither.
    const SETTLE: Duration = Duration::from_millis(300);
    const TURNS: usize = 60;
    /// So many tiers are held at once. What one costs is less than what the machine does by itself from turn to turn; each is
    /// called on its own, so their times add up, and a list of programs is called more slowly than one.
    const AT_ONCE: usize = 8;

    pub(super) fn main() -> ExitCode {
        if env::var_os(ALONE).is_none() {
            return run_alone();
        }
        if env::var_os(HOLDER).is_some() {
            hold();
            return ExitCode::SUCCESS;
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
            for (what, port) in [("unwatched", UNWATCHED), ("watched", PORT)] {
                let what = format!("short connections, {what} port");
                kept &= compare(&what, LEAST_SHORT, |lasts| short_connections(port, lasts));
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
            eprintln!("missing: {part}");
        }
        kernel.watch(&[PORT].into_iter().collect()).unwrap();
        (kernel, watcher)
    }

    /// Starts the tiers and ends them, in turns, with each byte that comes, and answers how many attempts the one that saw the
    /// fewest has counted meanwhile on the ports of [`compare`].
    fn hold() {
        let (mut asked, mut done) = (io::stdin().lock(), io::stdout().lock());
        let mut held: Vec<(Kernel, Watcher)> = Vec::new();
        while asked.read_exact(&mut [0]).is_ok() {
            let attempts = held.iter().map(|(kernel, _)| {
                let reading = kernel.read();
                let of = |port| reading.counts(port).attempts.unwrap_or(0);
                of(PORT) + of(UNWATCHED)
            });
            let attempts = attempts.min().unwrap_or(0);
            held = if held.is_empty() {
                (0..AT_ONCE).map(|_| start()).collect()
            } else {
                Vec::new()
            };
            done.write_all(&attempts.to_ne_bytes()).unwrap();
            done.flush().unwrap();
        }
    }

    /// A process that holds the tiers, as the exporter would: what starting does to a process is not the traffic's.
    struct Holder {
        process: Child,
        attached: bool,
    }

    impl Holder {
        fn start() -> Self {
            let process = Command::new(env::current_exe().unwrap())
                .env(HOLDER, "1")
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            Self {
                process,
                attached: false,
            }
        }

        fn attach(&mut self, attached: bool) {
            if self.attached == attached {
                return;
            }
            let (asked, done) = (&mut self.process.stdin, &mut self.process.stdout);
            asked.as_mut().unwrap().write_all(&[0]).unwrap();
            let mut attempts = [0; 8];
            done.as_mut().unwrap().read_exact(&mut attempts).unwrap();
            let attempts = u64::from_ne_bytes(attempts);
            assert_eq!(attempts > 0, self.attached, "{attempts} attempts counted");
            self.attached = attached;
        }
    }

    impl Drop for Holder {
        fn drop(&mut self) {
            drop(self.process.stdin.take());
            let _ = self.process.wait();
        }
    }

    /// Measures with the tiers and without, in turns, and prints the median of the turns' ratios, a single tier's part of it, and
    /// the 95 % interval of that: by the clock, which the bound is about, and by the processor time of this process. Whether
    /// the former keeps to the bound.
    fn compare(what: &str, least: f64, mut measure: impl FnMut(Duration) -> f64) -> bool {
        let mut holder = Holder::start();
        let mut clock = Ratios::default();
        let mut processor = Ratios::default();
        for turn in 0..TURNS {
            // With, without, without, with: a drift of the machine falls on both.
            let with_first = turn % 2 == 0;
            for attached in [with_first, !with_first] {
                holder.attach(attached);
                measure(SETTLE);
                let (begin, cpu) = (Instant::now(), processor_time());
                let rate = measure(TURN);
                let (took, cpu) = (begin.elapsed(), processor_time() - cpu);
                clock.push(attached, rate);
                processor.push(attached, rate * took.as_secs_f64() / cpu.as_secs_f64());
            }
        }
        clock.print(&format!("{what}, a second of clock"));
        processor.print(&format!("{what}, a second of processor"));
        let (low, high) = clock.interval().map(of_one).into();
        let verdict = match () {
            () if low >= least => "kept",
            () if high < least => "broken",
            () => "not told: the machine is busy",
        };
        println!("{what}: bound {least}, {verdict}");
        verdict == "kept"
    }

    /// What one of several leaves of a rate, where together they leave so much: each adds the same to the time of a unit.
    fn of_one(ratio: f64) -> f64 {
        1.0 / (1.0 + (1.0 / ratio - 1.0) / AT_ONCE as f64)
    }

    /// Rates with and without, a pair a turn.
    #[derive(Default)]
    struct Ratios {
        with: Vec<f64>,
        without: Vec<f64>,
    }

    impl Ratios {
        fn push(&mut self, attached: bool, rate: f64) {
            if attached {
                self.with.push(rate);
            } else {
                self.without.push(rate);
            }
        }

        fn sorted(&self) -> Vec<f64> {
            let pairs = self.with.iter().zip(&self.without);
            let mut ratios: Vec<_> = pairs.map(|(with, without)| with / without).collect();
            ratios.sort_by(f64::total_cmp);
            ratios
        }

        /// Where the median lies with a certainty of 95 %, whatever the distribution: the order statistics that a sign
        /// test leaves.
        fn interval(&self) -> [f64; 2] {
            let ratios = self.sorted();
            let turns = ratios.len() as f64;
            let below = ((turns - 1.96 * turns.sqrt()) / 2.0).floor().max(0.0) as usize;
            [ratios[below], ratios[ratios.len() - 1 - below]]
        }

        fn print(&self, what: &str) {
            let [low, high] = self.interval().map(of_one);
            let ratio = quantile(&self.sorted(), 0.5);
            println!(
                "{what}: {:.0} with {AT_ONCE}, {:.0} without, ratio {ratio:.3}; one leaves {:.4} ({low:.4} to {high:.4})",
                quantile(&self.with, 0.5),
                quantile(&self.without, 0.5),
                of_one(ratio),
            );
        }
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

    fn short_connections(port: Port, lasts: Duration) -> f64 {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port.number));
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
        short_connections(UNWATCHED, lasts);
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
