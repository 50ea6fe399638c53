//! Hosts made of network namespaces. Nothing leaves them.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test's helpers are tests too"
)]

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use super::namespace::Namespace;
use super::{DEADLINE, Running, Scrape, program, wait_for};

/// A network namespace as the host of a test.
#[derive(Debug)]
pub struct Space(Namespace);

impl Space {
    pub fn add(role: &str) -> Self {
        Self(Namespace::new(role))
    }

    pub fn ip(&self, arguments: &str) {
        self.0.run(&format!("ip {arguments}"));
    }

    /// Joins two of them by a cable, `v0` at either end.
    pub fn connect(&self, ours: &str, other: &Self, theirs: &str) {
        let name = format!("v{}", ours.trim_start_matches('v'));
        self.ip(&format!(
            "link add {name} type veth peer name {theirs} netns {}",
            other.0.name
        ));
        self.ip(&format!("link set {name} up"));
        other.ip(&format!("link set {theirs} up"));
    }

    pub fn address(&self, link: &str, address: &str) {
        let nodad = if address.contains(':') { " nodad" } else { "" };
        self.ip(&format!("address add {address} dev {link}{nodad}"));
    }

    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.0.name]).arg(program);
        command
    }

    pub fn firewall(&self, rules: &str) {
        let mut nft = self
            .command("nft")
            .args(["-f", "-"])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        nft.stdin
            .take()
            .unwrap()
            .write_all(rules.as_bytes())
            .unwrap();
        assert!(nft.wait().unwrap().success(), "{rules}");
    }

    /// Does something in there, from a thread of its own.
    pub fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.0.within(work)
    }

    pub fn listen(&self, address: &str) -> TcpListener {
        let address: SocketAddr = address.parse().unwrap();
        self.within(move || TcpListener::bind(address).unwrap())
    }

    pub fn bind(&self, address: &str) -> UdpSocket {
        let address: SocketAddr = address.parse().unwrap();
        self.within(move || UdpSocket::bind(address).unwrap())
    }

    /// What `probe` says, in JSON.
    pub fn probe(&self, arguments: &[&str]) -> (Value, Output) {
        let output = self
            .command(program())
            .arg("probe")
            .args(["--output", "json", "--rate", "1000000"])
            .args(arguments)
            .output()
            .unwrap();
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        let json = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {errors}"));
        (json, output)
    }
}

/// One that asks, and one that is asked.
#[derive(Debug)]
pub struct Pair {
    pub asker: Space,
    pub host: Space,
}

pub const V4: &str = "10.9.0.2";
pub const V6: &str = "fd09::2";

impl Pair {
    pub fn new() -> Self {
        let pair = Self {
            asker: Space::add("asker"),
            host: Space::add("host"),
        };
        pair.asker.connect("v0", &pair.host, "v0");
        for (space, last) in [(&pair.asker, 1), (&pair.host, 2)] {
            space.address("v0", &format!("10.9.0.{last}/24"));
            space.address("v0", &format!("fd09::{last}/64"));
        }
        pair
    }
}

/// An exporter in a namespace, and how to ask it.
#[derive(Debug)]
pub struct Inside<'a> {
    space: &'a Space,
    _process: Running,
    _folder: tempfile::TempDir,
}

impl Space {
    /// The packets that a named counter of the table `inet test` has counted.
    pub fn counted(&self, counter: &str) -> u64 {
        let output = self
            .command("nft")
            .args(["list", "counter", "inet", "test", counter])
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let mut words = text
            .split_whitespace()
            .skip_while(|word| *word != "packets");
        words
            .nth(1)
            .unwrap_or_else(|| panic!("{counter}: {text}"))
            .parse()
            .unwrap()
    }

    /// An exporter with this section `probe`, started through another program, which gets its path as the last argument
    /// before the flags.
    pub fn exporter(&self, wrapper: &[&str], probe: &str) -> Inside<'_> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("probe.yml");
        std::fs::write(&file, format!("watch: []\nprobe: {probe}\n")).unwrap();
        let mut command = match wrapper {
            [] => self.command(program()),
            [first, rest @ ..] => {
                let mut command = self.command(first);
                command.args(rest).arg(program());
                command
            }
        };
        command
            .arg("--web.listen-address=127.0.0.1:10561")
            .arg(format!("--config.file={}", file.display()))
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut process = Running::start(&mut command);
        wait_for("the exporter to listen", || {
            assert!(process.is_running(), "it has ended");
            self.within(|| TcpStream::connect(("127.0.0.1", 10561)).ok())
        });
        Inside {
            space: self,
            _process: process,
            _folder: folder,
        }
    }
}

impl Inside<'_> {
    /// A probe with so many seconds, as Prometheus asks for one.
    pub fn probe(&self, target: &str, module: &str, seconds: &str) -> (u16, Scrape) {
        let request = format!(
            "GET /probe?target={target}&module={module} HTTP/1.0\r\nX-Prometheus-Scrape-Timeout-Seconds: {seconds}\r\n\r\n"
        );
        let text = self.space.within(move || {
            let mut stream = TcpStream::connect(("127.0.0.1", 10561)).unwrap();
            stream.set_read_timeout(Some(DEADLINE)).unwrap();
            stream.write_all(request.as_bytes()).unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).unwrap();
            text
        });
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let status = head.split_whitespace().nth(1).unwrap().parse().unwrap();
        (status, Scrape(body.to_owned()))
    }
}
