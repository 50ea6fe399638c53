//! What it takes to probe every TCP port of a host, beside nmap and blackbox_exporter, and what a probe does to scrapes.
//!
//! ```sh
//! cargo bench --bench probe
//! ```
//!
//! as root, with nmap, iproute2 and prometheus-blackbox-exporter. It asks from one network namespace to another; nothing
//! leaves them. nmap has the same bound of connections at a time, and is measured as it comes and as fast as it can be
//! told to be. blackbox_exporter is asked for a sample of the ports, by as many clients as serve it best.
#![allow(
    clippy::unwrap_used,
    reason = "a benchmark that cannot be set up has nothing to say"
)]

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

const PROGRAM: &str = env!("CARGO_BIN_EXE_darkport_exporter");
const ASKER: &str = "dp-bench-asker";
const HOST: &str = "dp-bench-host";
const TARGET: &str = "10.9.0.2";
const AT_A_TIME: &str = "256";
const ROUNDS: usize = 5;
/// Ports that blackbox_exporter is asked for.
const SAMPLE: usize = 8_000;

fn main() {
    let spaces = Spaces::make();
    let open: Vec<TcpListener> = within(HOST, || {
        let port = |number| TcpListener::bind((Ipv4Addr::UNSPECIFIED, number)).unwrap();
        (1..=100).map(|number| port(number * 600)).collect()
    });
    println!(
        "all 65,535 TCP ports of a host with {} open ones, {AT_A_TIME} at a time, {ROUNDS} rounds, medians",
        open.len()
    );
    let mut times = [const { Vec::new() }; 3];
    for _ in 0..ROUNDS {
        for (times, command) in times.iter_mut().zip([ours(), nmap(&[]), nmap(&FASTEST)]) {
            times.push(timed(&command));
        }
    }
    let [ours, plain, fastest] = times.map(median);
    println!("  darkport_exporter probe    {ours:>10.3?}");
    println!(
        "  nmap -sT                   {plain:>10.3?}  {:.1} times as long",
        ratio(plain, ours)
    );
    println!(
        "  nmap -sT, hurried          {fastest:>10.3?}  {:.1} times as long",
        ratio(fastest, ours)
    );
    blackbox(ours);
    scrapes();
    drop(spaces);
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

fn blackbox(ours: Duration) {
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
            "--web.listen-address=127.0.0.1:9115",
            "--log.level=error",
        ],
        9115,
    );
    let mut best = Duration::MAX;
    for clients in [1, 4, 16, 64] {
        let start = Instant::now();
        let next = AtomicUsize::new(1);
        std::thread::scope(|scope| {
            for _ in 0..clients {
                scope.spawn(|| {
                    join(ASKER);
                    let mut client = Client::connect(9115);
                    loop {
                        let port = next.fetch_add(1, Ordering::Relaxed);
                        if port > SAMPLE {
                            return;
                        }
                        let text = client.get(&format!("/probe?module=tcp&target={TARGET}:{port}"));
                        assert!(text.contains("probe_success"));
                    }
                });
            }
        });
        let all = start.elapsed() * 65_535 / u32::try_from(SAMPLE).unwrap();
        println!(
            "  blackbox_exporter          {all:>10.3?}  {:.0} times as long ({clients} clients, from {SAMPLE} ports)",
            ratio(all, ours)
        );
        best = best.min(all);
    }
    println!(
        "  blackbox_exporter at its best takes {:.0} times as long",
        ratio(best, ours)
    );
}

/// Scrapes before a probe of all ports and during it, and what the process holds meanwhile.
fn scrapes() {
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
    let server = Server::start(
        PROGRAM,
        &[
            &format!("--config.file={}", file.display()),
            "--web.listen-address=127.0.0.1:10561",
            "--log.level=error",
        ],
        10561,
    );
    join(ASKER);
    let descriptors = || {
        fs::read_dir(format!("/proc/{}/fd", server.0.id()))
            .unwrap()
            .count()
    };
    let mut client = Client::connect(10561);
    let mut scrape = || {
        let start = Instant::now();
        assert!(client.get("/metrics").contains("darkport_listening"));
        start.elapsed()
    };
    let idle = median((0..200).map(|_| scrape()).collect());
    println!("a scrape of /metrics, median: {idle:.3?} with nothing else to do");
    for module in ["polite", "all"] {
        let is_done = AtomicBool::new(false);
        let mut during = Vec::new();
        let mut most = 0;
        std::thread::scope(|scope| {
            scope.spawn(|| {
                join(ASKER);
                let text =
                    Client::connect(10561).get(&format!("/probe?target={TARGET}&module={module}"));
                assert!(
                    text.contains("probe_success 1"),
                    "{}",
                    &text[..200.min(text.len())]
                );
                is_done.store(true, Ordering::Release);
            });
            while !is_done.load(Ordering::Acquire) {
                during.push(scrape());
                most = most.max(descriptors());
            }
        });
        let waiting = fs::read_to_string("/proc/thread-self/net/sockstat").unwrap();
        let waiting = waiting
            .split_whitespace()
            .skip_while(|word| *word != "tw")
            .nth(1)
            .unwrap_or("?");
        let count = during.len();
        println!(
            "  during module {module:<7} {:.3?}, {count} scrapes; {most} descriptors at the most; {waiting} sockets in TIME-WAIT",
            median(during)
        );
    }
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
        let request = format!("GET {path} HTTP/1.1\r\nHost: bench\r\n\r\n");
        self.0.get_mut().write_all(request.as_bytes()).unwrap();
        let mut length = None;
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
        String::from_utf8(body).unwrap()
    }
}
