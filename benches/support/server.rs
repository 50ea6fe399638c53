//! Processes that serve metrics, and what a scrape of them takes.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use darkport_exporter::counts::Tier;

/// How long anything may take before the benchmark gives up.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// Where the exporter is asked, and where node_exporter is.
pub const EXPORTER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 10_561);
pub const NODE_EXPORTER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9_100);

/// The exporter in one tier, on this configuration or the default one. An error is the last that it said.
pub fn exporter(tier: Tier, configuration: Option<&Path>) -> Result<Server, String> {
    exporter_at(EXPORTER, tier, configuration)
}

/// The same, at an address.
pub fn exporter_at(
    address: SocketAddr,
    tier: Tier,
    configuration: Option<&Path>,
) -> Result<Server, String> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_darkport_exporter"));
    command
        .arg(format!("--web.listen-address={address}"))
        .arg(format!("--collector.tier={tier}"))
        .args(configuration.map(|file| format!("--config.file={}", file.display())));
    Server::start(command, address, "/-/ready")
}

pub fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// One scrape, from the connection to the last byte.
pub fn scrape(address: SocketAddr) -> Duration {
    let start = Instant::now();
    let (status, body) = get(address, "/metrics").unwrap();
    let took = start.elapsed();
    assert_eq!(status, 200);
    assert!(body > 100, "{body} bytes are no scrape");
    took
}

/// Status and length of the answer.
pub fn get(address: SocketAddr, path: &str) -> std::io::Result<(u16, usize)> {
    answer(address, path).map(|(status, answer)| (status, answer.len()))
}

/// Status and answer, the head included.
pub fn answer(address: SocketAddr, path: &str) -> std::io::Result<(u16, Vec<u8>)> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(DEADLINE))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let status = answer
        .split(|&byte| byte == b' ')
        .nth(1)
        .and_then(|status| std::str::from_utf8(status).ok()?.parse().ok())
        .ok_or(std::io::ErrorKind::InvalidData)?;
    Ok((status, answer))
}

/// A process that serves metrics until dropped.
pub struct Server(Child);

impl Server {
    /// Debian's node_exporter with its tcpstat collector alone.
    pub fn node_exporter() -> Self {
        let mut command = Command::new("prometheus-node-exporter");
        command
            .args(["--collector.disable-defaults", "--collector.tcpstat"])
            .arg(format!("--web.listen-address={NODE_EXPORTER}"));
        Self::start(command, NODE_EXPORTER, "/")
            .unwrap_or_else(|reason| panic!("node_exporter: {reason}"))
    }

    /// Starts it and waits until this path is answered with 200. An error is the last that it said.
    pub fn start(mut command: Command, address: SocketAddr, path: &str) -> Result<Self, String> {
        let child = command
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("{:?}: {error}", command.get_program()))?;
        let mut server = Self(child);
        let lines = BufReader::new(server.0.stderr.take().unwrap()).lines();
        let said = std::thread::spawn(move || lines.map_while(Result::ok).last());
        let start = Instant::now();
        while !get(address, path).is_ok_and(|(status, _)| status == 200) {
            if server.0.try_wait().unwrap().is_some() {
                return Err(said.join().unwrap().unwrap_or_default());
            }
            assert!(start.elapsed() < DEADLINE, "{address} does not get ready");
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(server)
    }

    fn process(&self) -> procfs::process::Process {
        procfs::process::Process::new(self.0.id() as i32).unwrap()
    }

    /// Bytes of memory.
    pub fn resident(&self) -> u64 {
        self.process().status().unwrap().vmrss.unwrap() * 1024
    }

    /// The part of a processor that it takes while nobody asks it anything.
    pub fn processor_share(&self, lasts: Duration) -> f64 {
        let (before, start) = (self.processor_time(), Instant::now());
        std::thread::sleep(lasts);
        (self.processor_time() - before).as_secs_f64() / start.elapsed().as_secs_f64()
    }

    /// Processor time it has used so far.
    pub fn processor_time(&self) -> Duration {
        let stat = self.process().stat().unwrap();
        let ticks = (stat.utime + stat.stime) as f64;
        Duration::from_secs_f64(ticks / procfs::ticks_per_second() as f64)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
