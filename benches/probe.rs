//! What it takes to probe every TCP port of a host, beside nmap and blackbox_exporter, and what a probe does to scrapes.
//!
//! ```sh
//! cargo bench --bench probe
//! ```
//!
//! as root, with nmap, iproute2 and prometheus-blackbox-exporter. It asks from one network namespace to another; nothing
//! leaves them. It ends with status 1 where one of its [bounds](Bounds) does not hold.
//!
//! - nmap has the same bound of connections at a time, and is measured as it comes and as fast as it can be told to be.
//! - `blackbox_exporter` is asked for a sample of the ports as Prometheus asks, compressed and on connections that are kept:
//!   all targets of a job share them. By as many clients as serve it best; on a connection of its own for each probe as well.
//! - Besides the command, `/probe` is measured: one request, the ports' series as its compressed answer.
#![allow(
    clippy::unwrap_used,
    reason = "a benchmark that cannot be set up has nothing to say"
)]

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

const PROGRAM: &str = env!("CARGO_BIN_EXE_darkport_exporter");
const ASKER: &str = "dp-bench-asker";
const HOST: &str = "dp-bench-host";
const TARGET: &str = "10.9.0.2";
const AT_A_TIME: &str = "256";
const ROUNDS: usize = 5;
/// Where our exporter listens, and theirs.
const OURS: u16 = 10561;
const THEIRS: u16 = 9115;
/// Ports that blackbox_exporter is asked for.
const SAMPLE: usize = 6_000;

/// The most by which a scrape may take longer during a probe at a rate that suits a network, and during one without any
/// bound, which leaves no processor idle.
const MOST_BESIDE: [(&str, f64); 2] = [("polite", 1.25), ("all", 2.0)];
/// Descriptors beside those of the ports under way: of the web front, the readers and the threads.
const OTHER_DESCRIPTORS: usize = 60;

fn main() -> ExitCode {
    let spaces = Spaces::make();
    let open: Vec<TcpListener> = within(HOST, || {
        let port = |number| TcpListener::bind((Ipv4Addr::UNSPECIFIED, number)).unwrap();
        (1..=100).map(|number| port(number * 600)).collect()
    });
    println!(
        "all 65,535 TCP ports of a host with {} open ones, {AT_A_TIME} at a time, {ROUNDS} rounds, medians",
        open.len()
    );
    let exporter = exporter();
    let mut bounds = Bounds::default();
    let mut times = [const { Vec::new() }; 4];
    for _ in 0..ROUNDS {
        let [by_hand, by_http, plain, fastest] = &mut times;
        by_hand.push(timed(&ours()));
        by_http.push(timed_over_http());
        plain.push(timed(&nmap(&[])));
        fastest.push(timed(&nmap(&FASTEST)));
    }
    let [ours, over_http, plain, fastest] = times.map(median);
    let line = |name: &str, time| {
        println!(
            "  {name:<36} {time:>10.3?} {:>7.1} times as long",
            ratio(time, ours)
        );
    };
    line("darkport_exporter probe", ours);
    line("/probe, with all series", over_http);
    line("nmap -sT", plain);
    line("nmap -sT, hurried", fastest);
    bounds.hold("no slower than nmap -sT", ours <= plain);
    bounds.hold("no slower than nmap -sT, hurried", ours <= fastest);
    let blackbox = blackbox(line);
    for (what, time) in [("by hand", ours), ("over HTTP", over_http)] {
        println!(
            "  blackbox_exporter at its best takes {:.0} times as long as ours {what}",
            ratio(blackbox, time)
        );
    }
    bounds.hold(
        "fifty times faster than as many probes by blackbox_exporter",
        ratio(blackbox, ours) >= 50.0,
    );
    scrapes(&exporter, &mut bounds);
    drop(spaces);
    bounds.end()
}

/// What has to hold.
#[derive(Default)]
struct Bounds {
    broken: Vec<String>,
}

impl Bounds {
    fn hold(&mut self, what: &str, holds: bool) {
        if !holds {
            self.broken.push(what.to_owned());
        }
    }

    fn end(self) -> ExitCode {
        for what in &self.broken {
            println!("does not hold: {what}");
        }
        if self.broken.is_empty() {
            println!("every bound holds");
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    }
}

const FASTEST: [&str; 5] = ["-T5", "--min-parallelism", AT_A_TIME, "--max-retries", "0"];

fn ours() -> Vec<&'static str> {
    vec![
        PROGRAM,
        "probe",
        TARGET,
        "--ports",
        "1-65535",
        "--rate",
        "1000000",
        "--concurrency",
        AT_A_TIME,
    ]
}

fn nmap(more: &[&'static str]) -> Vec<&'static str> {
    let mut command = vec![
        "nmap",
        "-sT",
        "-n",
        "-Pn",
        "-p-",
        "--max-parallelism",
        AT_A_TIME,
    ];
    command.extend(more);
    command.push(TARGET);
    command
}

fn timed(command: &[&str]) -> Duration {
    let start = Instant::now();
    let output = Command::new("ip")
        .args(["netns", "exec", ASKER])
        .args(command)
        .output()
        .unwrap();
    let took = start.elapsed();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{command:?}: {text}");
    let open = text
        .lines()
        .filter(|line| line.contains("/tcp") && line.contains(" open"))
        .count();
    assert_eq!(open, 100, "{command:?} finds all that are open: {text}");
    took
}

fn timed_over_http() -> Duration {
    within(ASKER, || {
        let mut client = Client::connect(OURS);
        let start = Instant::now();
        let answer = client.scrape(&format!("/probe?target={TARGET}&module=all"));
        let took = start.elapsed();
        assert!(answer.len() > 65_535, "{} bytes", answer.len());
        took
    })
}

/// As many probes by blackbox_exporter, at its best on connections that are kept.
fn blackbox(line: impl Fn(&str, Duration)) -> Duration {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("blackbox.yml");
    fs::write(
        &file,
        "modules: {tcp: {prober: tcp, timeout: 2s, tcp: {preferred_ip_protocol: ip4}}}\n",
    )
    .unwrap();
    let _server = Server::start(
        "prometheus-blackbox-exporter",
        &[
            &format!("--config.file={}", file.display()),
            &format!("--web.listen-address=127.0.0.1:{THEIRS}"),
            "--log.level=error",
        ],
        THEIRS,
    );
    let seen = within(ASKER, || Client::connect(THEIRS).get(&theirs(600)));
    assert!(seen.contains("\nprobe_success 1\n"), "{seen}");
    let kept = [1, 4, 16, 64].map(|clients| {
        let all = sample(clients, true);
        line(&format!("blackbox_exporter, {clients} clients"), all);
        all
    });
    line("blackbox_exporter, new connections", sample(16, false));
    kept.into_iter().min().unwrap_or_default()
}

fn theirs(port: usize) -> String {
    format!("/probe?module=tcp&target={TARGET}:{port}")
}

/// The time for all ports, from some of them, spread over all.
fn sample(clients: usize, is_kept: bool) -> Duration {
    let next = AtomicUsize::new(0);
    let start = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..clients {
            scope.spawn(|| {
                join(ASKER);
                let mut client = Client::connect(THEIRS);
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= SAMPLE {
                        return;
                    }
                    if !is_kept {
                        client = Client::connect(THEIRS);
                    }
                    let port = 1 + number * 65_534 / (SAMPLE - 1);
                    assert!(!client.scrape(&theirs(port)).is_empty());
                }
            });
        }
    });
    start.elapsed() * 65_535 / u32::try_from(SAMPLE).unwrap()
}

/// Our exporter, which may probe the host.
fn exporter() -> Server {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("probe.yml");
    fs::write(
        &file,
        format!(
            "watch: [{{name: one, ports: [1-500]}}]\nlimits: {{series: 200000}}\nprobe:\n  targets: [{TARGET}]\n  modules:\n    \
             all: {{ports: [1-65535], rate: 1000000, concurrency: {AT_A_TIME}}}\n    \
             polite: {{ports: [1-65535], rate: 5000, concurrency: {AT_A_TIME}}}\n"
        ),
    )
    .unwrap();
    Server::start(
        PROGRAM,
        &[
            &format!("--config.file={}", file.display()),
            &format!("--web.listen-address=127.0.0.1:{OURS}"),
            "--log.level=error",
        ],
        OURS,
    )
}

/// Scrapes before a probe of all ports and during it, and what the process holds meanwhile.
fn scrapes(server: &Server, bounds: &mut Bounds) {
    join(ASKER);
    let descriptors = || {
        fs::read_dir(format!("/proc/{}/fd", server.0.id()))
            .unwrap()
            .count()
    };
    let mut client = Client::connect(OURS);
    let mut scrape = || {
        let start = Instant::now();
        assert!(client.get("/metrics").contains("darkport_listening"));
        start.elapsed()
    };
    let idle = median((0..500).map(|_| scrape()).collect());
    println!("a scrape of /metrics, median: {idle:.3?} with nothing else to do");
    for (module, most_beside) in MOST_BESIDE {
        let is_done = AtomicBool::new(false);
        let mut during = Vec::new();
        let mut most = 0;
        let mut waiting = 0;
        std::thread::scope(|scope| {
            scope.spawn(|| {
                join(ASKER);
                let text =
                    Client::connect(OURS).get(&format!("/probe?target={TARGET}&module={module}"));
                is_done.store(true, Ordering::Release);
                assert!(
                    text.contains("probe_success 1"),
                    "{}",
                    &text[..200.min(text.len())]
                );
            });
            while !is_done.load(Ordering::Acquire) {
                during.push(scrape());
                most = most.max(descriptors());
                waiting = waiting.max(in_time_wait());
            }
        });
        let count = during.len();
        let during = median(during);
        println!(
            "  during module {module:<7} {during:.3?}, {:.2} times as long, {count} scrapes; {most} descriptors and {waiting} \
             sockets in TIME-WAIT at the most",
            ratio(during, idle)
        );
        bounds.hold(
            &format!(
                "a scrape during module {module} takes {most_beside} times as long at the most"
            ),
            ratio(during, idle) <= most_beside,
        );
        let at_a_time: usize = AT_A_TIME.parse().unwrap();
        bounds.hold(
            "descriptors are bounded",
            most <= at_a_time + OTHER_DESCRIPTORS,
        );
        bounds.hold("no probe is left in TIME-WAIT", waiting == 0);
    }
}

/// Sockets of the calling thread's network namespace that are in TIME-WAIT, of connections to the host that is probed.
fn in_time_wait() -> usize {
    const TIME_WAIT: &str = "06";
    let [a, b, c, d] = TARGET.parse::<Ipv4Addr>().unwrap().octets();
    let target = format!("{d:02X}{c:02X}{b:02X}{a:02X}:");
    let text = fs::read_to_string("/proc/thread-self/net/tcp").unwrap();
    let is_one = |line: &&str| {
        let mut words = line.split_whitespace().skip(2);
        words.next().is_some_and(|peer| peer.starts_with(&target))
            && words.next() == Some(TIME_WAIT)
    };
    text.lines().filter(is_one).count()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

fn ratio(one: Duration, other: Duration) -> f64 {
    one.as_secs_f64() / other.as_secs_f64()
}

struct Spaces;

impl Spaces {
    fn make() -> Self {
        let spaces = Self;
        for arguments in [
            format!("netns add {ASKER}"),
            format!("netns add {HOST}"),
            format!("-n {ASKER} link set lo up"),
            format!("-n {HOST} link set lo up"),
            format!("-n {ASKER} link add v0 type veth peer name v0 netns {HOST}"),
            format!("-n {ASKER} address add 10.9.0.1/24 dev v0"),
            format!("-n {HOST} address add {TARGET}/24 dev v0"),
            format!("-n {ASKER} link set v0 up"),
            format!("-n {HOST} link set v0 up"),
        ] {
            let done = Command::new("ip")
                .args(arguments.split(' '))
                .status()
                .unwrap();
            assert!(done.success(), "ip {arguments}");
        }
        spaces
    }
}

impl Drop for Spaces {
    fn drop(&mut self) {
        for name in [ASKER, HOST] {
            let _ = Command::new("ip").args(["netns", "delete", name]).status();
        }
    }
}

fn join(name: &str) {
    let namespace = fs::File::open(format!("/run/netns/{name}")).unwrap();
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
}

fn within<T: Send + 'static>(name: &'static str, work: impl FnOnce() -> T + Send + 'static) -> T {
    let there = move || {
        join(name);
        work()
    };
    std::thread::spawn(there).join().unwrap()
}

/// A server in the namespace that asks.
struct Server(Child);

impl Server {
    fn start(program: &str, arguments: &[&str], port: u16) -> Self {
        let child = Command::new("ip")
            .args(["netns", "exec", ASKER, program])
            .args(arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let server = Self(child);
        within(ASKER, move || {
            let start = Instant::now();
            while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
                assert!(start.elapsed() < Duration::from_secs(30));
                std::thread::yield_now();
            }
        });
        server
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A client that keeps its connection, as Prometheus does.
struct Client(BufReader<TcpStream>);

impl Client {
    fn connect(port: u16) -> Self {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        Self(BufReader::new(TcpStream::connect(address).unwrap()))
    }

    fn get(&mut self, path: &str) -> String {
        String::from_utf8(self.ask(path, "")).unwrap()
    }

    /// As Prometheus asks; the answer is compressed.
    fn scrape(&mut self, path: &str) -> Vec<u8> {
        self.ask(
            path,
            "Accept: text/plain;version=0.0.4;q=0.5,*/*;q=0.1\r\nAccept-Encoding: gzip\r\n\
             X-Prometheus-Scrape-Timeout-Seconds: 60\r\n",
        )
    }

    fn ask(&mut self, path: &str, headers: &str) -> Vec<u8> {
        let request = format!("GET {path} HTTP/1.1\r\nHost: bench\r\n{headers}\r\n");
        self.0.get_mut().write_all(request.as_bytes()).unwrap();
        let mut length = None;
        let mut status = String::new();
        self.0.read_line(&mut status).unwrap();
        assert!(status.contains(" 200 "), "{path}: {status}");
        loop {
            let mut line = String::new();
            self.0.read_line(&mut line).unwrap();
            if line.trim().is_empty() {
                break;
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = Some(value.trim().parse::<usize>().unwrap());
            }
        }
        let mut body =
            vec![0; length.unwrap_or_else(|| panic!("{path}: an answer of unknown length"))];
        self.0.read_exact(&mut body).unwrap();
        body
    }
}
