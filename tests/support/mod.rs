//! Real parts for the tests: the exporter as a process, Prometheus, and what it takes to ask them.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::panic,
    reason = "each test binary uses some of it, and a test fails by panicking"
)]

pub mod https;
pub mod pki;

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

/// How long anything may take before a test gives up. No test asserts a time: this only ends one that hangs.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// Asks until there is an answer; fails with `what` when the deadline is over.
pub fn wait_for<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(start.elapsed() < DEADLINE, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A process that ends with its test.
#[derive(Debug)]
pub struct Running {
    child: Child,
    name: String,
}

impl Running {
    pub fn start(command: &mut Command) -> Self {
        let name = command.get_program().to_string_lossy().into_owned();
        let child = command
            .spawn()
            .unwrap_or_else(|error| panic!("{name} is needed and cannot be started: {error}"));
        Self { child, name }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal by its name, such as `HUP`.
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .args([&format!("-{name}"), &self.pid().to_string()])
            .status()
            .unwrap();
        assert!(status.success(), "kill -{name} {}", self.name);
    }

    /// Waits for the end and gives the exit status.
    pub fn ended(&mut self) -> std::process::ExitStatus {
        let name = self.name.clone();
        wait_for(&format!("the end of {name}"), || {
            self.child.try_wait().unwrap()
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The exporter, as its users run it.
#[derive(Debug)]
pub struct Exporter {
    pub process: Running,
    pub address: SocketAddr,
    log: Receiver<String>,
    told: Vec<String>,
}

impl Exporter {
    /// Starts it on a loopback port of the system's choice and waits until it is ready.
    pub fn start(arguments: &[&str]) -> Self {
        Self::start_at("127.0.0.1:0", arguments)
    }

    pub fn start_at(address: &str, arguments: &[&str]) -> Self {
        let mut command = Command::new(program());
        command
            .arg(format!("--web.listen-address={address}"))
            .args(arguments);
        Self::spawn(command)
    }

    /// Starts it without asking whether it is ready, which not everybody may.
    pub fn start_guarded(arguments: &[&str]) -> Self {
        let mut command = Command::new(program());
        command
            .arg("--web.listen-address=127.0.0.1:0")
            .args(arguments);
        Self::listening(command)
    }

    /// Starts it through another program, which gets its path as the last argument before the flags.
    pub fn start_through(wrapper: &[&str], arguments: &[&str]) -> Self {
        Self::start_copy(Path::new(&program()), wrapper, arguments)
    }

    /// Starts a copy of it through another program, which gets the copy's path as its last argument before the flags.
    pub fn start_copy(copy: &Path, wrapper: &[&str], arguments: &[&str]) -> Self {
        let mut command = Command::new(wrapper[0]);
        command
            .args(&wrapper[1..])
            .arg(copy)
            .arg("--web.listen-address=127.0.0.1:0")
            .args(arguments);
        Self::spawn(command)
    }

    fn spawn(command: Command) -> Self {
        let exporter = Self::listening(command);
        wait_for("a first sample", || {
            (get(exporter.address, "/-/ready").0 == 200).then_some(())
        });
        exporter
    }

    /// Starts a command that ends in the exporter, and waits until it listens.
    pub fn listening(mut command: Command) -> Self {
        command.stdin(Stdio::null());
        Self::listening_with_input(command)
    }

    /// The same, with the standard input the command has.
    pub fn listening_with_input(mut command: Command) -> Self {
        command.stderr(Stdio::piped());
        let mut process = Running::start(&mut command);
        let log = lines(process.child.stderr.take().unwrap());
        let mut told = Vec::new();
        let address = wait_for("the log line that tells the address", || {
            while let Ok(line) = log.try_recv() {
                told.push(line);
                if let Some(address) = field(told.last().unwrap(), "msg=listening", "address") {
                    return Some(address.parse().unwrap());
                }
            }
            assert!(
                process.child.try_wait().unwrap().is_none(),
                "it ended: {told:#?}"
            );
            None
        });
        Self {
            process,
            address,
            log,
            told,
        }
    }

    /// One scrape.
    pub fn scrape(&self) -> Scrape {
        let (status, text) = get(self.address, "/metrics");
        assert_eq!(status, 200, "{text}");
        Scrape(text)
    }

    /// Every log line so far.
    pub fn log(&mut self) -> &[String] {
        self.told.extend(self.log.try_iter());
        &self.told
    }

    /// Ends it, and gives every log line there was.
    pub fn log_to_the_end(mut self) -> Vec<String> {
        self.process.signal("TERM");
        self.process.ended();
        self.told.extend(self.log.iter());
        self.told
    }

    /// Waits for a log line with all of these in it.
    pub fn logged(&mut self, parts: &[&str]) -> String {
        wait_for(&format!("a log line with {parts:?}"), || {
            let found = |line: &&String| parts.iter().all(|part| line.contains(part));
            self.log().iter().find(found).cloned()
        })
    }
}

/// The exporter's program; `DARKPORT_EXPORTER` names a copy where the one that was built cannot be read.
pub fn program() -> OsString {
    std::env::var_os("DARKPORT_EXPORTER")
        .unwrap_or_else(|| env!("CARGO_BIN_EXE_darkport_exporter").into())
}

/// Runs the exporter, or a program that runs it, until it ends by itself: exit status, standard output and standard error.
/// One that serves instead fails the test.
pub fn ended(command: &mut Command) -> (Option<i32>, String, String) {
    let piped = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut process = Running::start(piped);
    let [out, err] = [
        text_of(process.child.stdout.take().unwrap()),
        text_of(process.child.stderr.take().unwrap()),
    ];
    let status = process.ended();
    (status.code(), out.join().unwrap(), err.join().unwrap())
}

fn text_of(mut stream: impl Read + Send + 'static) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    })
}

fn lines(stream: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines() {
            let Ok(line) = line else { return };
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

fn field<'a>(line: &'a str, marker: &str, key: &str) -> Option<&'a str> {
    line.contains(marker).then_some(())?;
    let rest = line.split_once(&format!(" {key}="))?.1;
    rest.split_whitespace().next()
}

/// The text of a scrape.
#[derive(Clone, Debug, PartialEq)]
pub struct Scrape(pub String);

impl Scrape {
    /// The value of the series with exactly this text before the value, such as `darkport_listening{port="561",protocol="tcp"}`.
    pub fn value(&self, series: &str) -> Option<f64> {
        self.0
            .lines()
            .find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
    }

    /// The value of a per-port family.
    pub fn of_port(&self, family: &str, port: darkport_exporter::port::Port) -> Option<f64> {
        self.value(&format!(
            "{family}{{port=\"{}\",protocol=\"{}\"}}",
            port.number, port.protocol
        ))
    }

    /// The series of a family.
    pub fn series<'a>(&'a self, family: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.lines().filter(move |line| {
            line.strip_prefix(family)
                .is_some_and(|rest| rest.starts_with(['{', ' ']))
        })
    }

    /// How many series there are of the exporter's own families.
    pub fn count(&self) -> usize {
        self.0
            .lines()
            .filter(|line| line.starts_with("darkport_"))
            .count()
    }
}

/// A GET request without any library: status and body.
pub fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let text = String::from_utf8(answer).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").expect("a head and a body");
    let status = head.split_whitespace().nth(1).unwrap().parse().unwrap();
    (status, body.to_owned())
}

/// Debian's Prometheus, scraping some targets several times a second.
#[derive(Debug)]
pub struct Prometheus {
    pub process: Running,
    pub address: SocketAddr,
    _folder: tempfile::TempDir,
}

impl Prometheus {
    pub fn scraping(targets: &[SocketAddr]) -> Self {
        let targets: Vec<String> = targets
            .iter()
            .map(|target| format!("\"{target}\""))
            .collect();
        Self::start(&format!(
            "global: {{scrape_interval: 200ms, scrape_timeout: 200ms, evaluation_interval: 1s}}\n\
             scrape_configs:\n- {{job_name: darkport, static_configs: [{{targets: [{}]}}]}}\n",
            targets.join(", ")
        ))
    }

    pub fn start(configuration: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("prometheus.yml");
        std::fs::write(&file, configuration).unwrap();
        let address = free_address();
        let flag = |name: &str, path: &Path| format!("--{name}={}", path.display());
        let mut command = Command::new("prometheus");
        command
            .arg(flag("config.file", &file))
            .arg(flag("storage.tsdb.path", &folder.path().join("data")))
            .arg(format!("--web.listen-address={address}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let process = Running::start(&mut command);
        wait_for("Prometheus to be ready", || {
            TcpStream::connect(address).ok()?;
            (get(address, "/-/ready").0 == 200).then_some(())
        });
        Self {
            process,
            address,
            _folder: folder,
        }
    }

    /// The samples of an instant query: labels and value.
    pub fn query(&self, query: &str) -> Vec<(serde_json::Value, f64)> {
        let (status, body) = get(
            self.address,
            &format!("/api/v1/query?query={}", escape(query)),
        );
        assert_eq!(status, 200, "{query}: {body}");
        let answer: serde_json::Value = serde_json::from_str(&body).unwrap();
        let samples = answer["data"]["result"].as_array().unwrap();
        let sample = |sample: &serde_json::Value| {
            let value = sample["value"][1].as_str().unwrap().parse().unwrap();
            (sample["metric"].clone(), value)
        };
        samples.iter().map(sample).collect()
    }

    /// The value of a query that gives one sample at the most.
    pub fn number(&self, query: &str) -> Option<f64> {
        let samples = self.query(query);
        assert!(samples.len() <= 1, "{query}: {samples:?}");
        samples.first().map(|(_, value)| *value)
    }

    /// Waits until a query has this value.
    pub fn becomes(&self, query: &str, expected: f64) {
        let mut last = None;
        let start = Instant::now();
        while start.elapsed() < DEADLINE {
            last = self.number(query);
            if last == Some(expected) {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("{query} is {last:?} and does not become {expected}");
    }
}

/// A loopback address nobody listens on now.
pub fn free_address() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
}

fn escape(query: &str) -> String {
    query
        .bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

/// Runs a program to its end and gives what it printed; fails if it does.
pub fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{program} is needed and cannot be run: {error}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {text}{errors}"
    );
    text
}
