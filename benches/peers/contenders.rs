//! What is asked, and how.

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use darkport_exporter::counts::Tier;
use netstat2::{AddressFamilyFlags, ProtocolFlags};

use crate::support::server::{self, NODE_EXPORTER, Server, answer};

pub(crate) const PROCESS_EXPORTER: SocketAddr =
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9_256);
pub(crate) const BLACKBOX_EXPORTER: SocketAddr =
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9_115);

/// Where the exporter is asked, a port for each tier, so that all can run at a time.
pub(crate) fn address(tier: Tier) -> SocketAddr {
    let port = match tier {
        Tier::Kernel => 10_561,
        Tier::Netlink => 10_562,
        Tier::Polled => 10_563,
    };
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// What a row is called.
pub(crate) fn name(tier: Tier) -> String {
    format!("darkport_exporter, tier {tier}")
}

/// Something that can be asked and answers with metrics, or runs and prints.
pub(crate) struct Contender {
    pub(crate) name: String,
    ask: Box<dyn FnMut()>,
}

impl Contender {
    fn new(name: impl Into<String>, ask: impl FnMut() + 'static) -> Self {
        Self {
            name: name.into(),
            ask: Box::new(ask),
        }
    }

    /// Asks once; how long that took.
    pub(crate) fn time(&mut self) -> Duration {
        let begun = Instant::now();
        (self.ask)();
        begun.elapsed()
    }

    pub(crate) fn exporter(tier: Tier) -> Self {
        Self::scraped(name(tier), address(tier))
    }

    pub(crate) fn node_exporter() -> Self {
        Self::scraped("node_exporter, tcpstat", NODE_EXPORTER)
    }

    pub(crate) fn process_exporter() -> Self {
        Self::scraped("process-exporter", PROCESS_EXPORTER)
    }

    fn scraped(name: impl Into<String>, address: SocketAddr) -> Self {
        Self::new(name, move || {
            server::scrape(address);
        })
    }

    /// A probe of blackbox_exporter for each port, one after the other.
    pub(crate) fn blackbox(ports: Vec<u16>) -> Self {
        Self::new("blackbox_exporter, TCP, a probe a port", move || {
            for port in &ports {
                blackbox_sees(*port);
            }
        })
    }

    pub(crate) fn command(line: &str) -> Self {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        Self::new(format!("`{line}`"), move || {
            run(&words[0], &words[1..]);
        })
    }

    /// nmap's scan of TCP ports.
    pub(crate) fn nmap(ports: &[u16]) -> Self {
        let list = listed(ports);
        Self::new("`nmap -sS`, TCP", move || {
            nmap(&list);
        })
    }

    /// The crate alone, with the processes it finds.
    pub(crate) fn netstat2() -> Self {
        Self::new("netstat2, the crate alone", || {
            let (families, protocols) = everything();
            let sockets = netstat2::get_sockets_info(families, protocols).unwrap();
            std::hint::black_box(sockets);
        })
    }
}

pub(crate) fn everything() -> (AddressFamilyFlags, ProtocolFlags) {
    (
        AddressFamilyFlags::IPV4 | AddressFamilyFlags::IPV6,
        ProtocolFlags::TCP | ProtocolFlags::UDP,
    )
}

/// Runs a program to its end; what it prints goes nowhere, or it would be what is measured.
fn run(program: &str, arguments: &[String]) {
    let status = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    // lsof has 1 where it found nothing.
    assert!(matches!(status.code(), Some(0 | 1)), "{program}: {status}");
}

/// What a program prints.
pub(crate) fn printed(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// nmap's word on each port of a list, in the form made for programs.
pub(crate) fn nmap(ports: &str) -> String {
    let arguments = ["-n", "-Pn", "-sS", "-oG", "-", "-p", ports, "127.0.0.1"];
    printed("nmap", &arguments)
}

/// Ports as nmap takes them: ranges where they are next to each other, or the line gets too long.
pub(crate) fn listed(ports: &[u16]) -> String {
    let set = ports
        .iter()
        .map(|&port| darkport_exporter::port::Port::tcp(port));
    let set: darkport_exporter::port::PortSet = set.collect();
    let spans = set.spans(darkport_exporter::port::Protocol::Tcp);
    let spans: Vec<String> = spans.iter().map(ToString::to_string).collect();
    spans.join(",")
}

/// Whether blackbox_exporter gets a connection.
pub(crate) fn blackbox_sees(port: u16) -> bool {
    let path = format!("/probe?target=127.0.0.1:{port}&module=tcp");
    let (status, answer) = answer(BLACKBOX_EXPORTER, &path).unwrap();
    assert_eq!(status, 200);
    String::from_utf8_lossy(&answer).contains("\nprobe_success 1")
}

/// Processes that serve, with what they were given.
pub(crate) struct Servers {
    scratch: tempfile::TempDir,
}

impl Servers {
    pub(crate) fn new() -> Self {
        Self {
            scratch: tempfile::tempdir().unwrap(),
        }
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.scratch.path().join(name);
        let mut file = std::fs::File::create(&path).unwrap();
        file.write_all(text.as_bytes()).unwrap();
        path
    }

    /// The exporter in one tier, on the default configuration or this one.
    pub(crate) fn exporter(tier: Tier, configuration: Option<&Path>) -> Server {
        server::exporter_at(address(tier), tier, configuration)
            .unwrap_or_else(|reason| panic!("tier {tier}: {reason}"))
    }

    /// A configuration with these ports, each with series of its own.
    pub(crate) fn dense(&self, ports: &[u16]) -> PathBuf {
        let text = format!(
            "watch: [{{name: dense, ports: [{}]}}]\nlimits: {{series: 10000000, listeners: 500}}\n",
            listed(ports).replace(',', ", ")
        );
        self.file("dense.yml", &text)
    }

    pub(crate) fn process_exporter(&self) -> Server {
        let text = "process_names: [{name: \"{{.Comm}}\", cmdline: [\".+\"]}]\n";
        let mut command = Command::new("prometheus-process-exporter");
        command
            .arg(format!("--web.listen-address={PROCESS_EXPORTER}"))
            .arg(format!(
                "--config.path={}",
                self.file("process.yml", text).display()
            ));
        Server::start(command, PROCESS_EXPORTER, "/metrics")
            .unwrap_or_else(|reason| panic!("process-exporter: {reason}"))
    }

    pub(crate) fn blackbox(&self) -> Server {
        let text = "modules: {tcp: {prober: tcp, timeout: 1s}}\n";
        let mut command = Command::new("prometheus-blackbox-exporter");
        command
            .arg(format!("--web.listen-address={BLACKBOX_EXPORTER}"))
            .arg(format!(
                "--config.file={}",
                self.file("blackbox.yml", text).display()
            ));
        Server::start(command, BLACKBOX_EXPORTER, "/metrics")
            .unwrap_or_else(|reason| panic!("blackbox_exporter: {reason}"))
    }
}
