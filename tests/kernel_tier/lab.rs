//! Network namespaces to work in, and the tier started in one.

use std::fs::{self, File};
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::process::{self, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use darkport_exporter::counts::PortCounts;
use darkport_exporter::counts::kernel::{Kernel, ListenerEvent, Options};
use darkport_exporter::port::{Port, PortSet};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Waits until something is so; a test that waits in vain says for what.
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        thread::yield_now();
    }
}

/// Runs a command line, words apart by spaces; it must succeed.
pub(crate) fn run(line: &str) -> String {
    let mut words = line.split_whitespace();
    let output = Command::new(words.next().unwrap())
        .args(words)
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{line}: {error}"));
    assert!(
        output.status.success(),
        "{line}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A network namespace; goes when dropped.
pub(crate) struct Namespace {
    pub(crate) name: String,
}

impl Namespace {
    pub(crate) fn new(name: &str) -> Self {
        static MADE: AtomicUsize = AtomicUsize::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let name = format!("darkport-{}-{number}-{name}", process::id());
        run(&format!("ip netns add {name}"));
        let namespace = Self { name };
        namespace.run("ip link set lo up");
        namespace
    }

    /// Runs a command line in it.
    pub(crate) fn run(&self, line: &str) -> String {
        run(&format!("ip netns exec {} {line}", self.name))
    }

    /// Moves the calling thread, and what it starts, into it.
    pub(crate) fn enter(&self) {
        let file = File::open(format!("/run/netns/{}", self.name)).unwrap();
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
    }

    /// Does something in it, on a thread of its own.
    pub(crate) fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            scope
                .spawn(|| {
                    self.enter();
                    work()
                })
                .join()
                .unwrap()
        })
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip")
            .args(["netns", "del", &self.name])
            .status();
    }
}

/// The namespace in which the exporter's part runs, and the test's thread is.
pub(crate) struct Lab {
    pub(crate) namespace: Namespace,
}

impl Lab {
    pub(crate) fn new(name: &str) -> Self {
        let _ = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::WARN)
            .with_test_writer()
            .try_init();
        let namespace = Namespace::new(name);
        namespace.enter();
        Self { namespace }
    }

    /// Starts the tier with everything; nothing may be missing.
    pub(crate) fn start(&self) -> Started {
        self.start_with(&Options::default())
    }

    pub(crate) fn start_with(&self, options: &Options) -> Started {
        let (mut kernel, watcher, missing) = Kernel::start(options).unwrap();
        assert_eq!(missing, []);
        kernel.watch(&PortSet::full()).unwrap();
        let events = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&events);
        let watcher = thread::spawn(move || {
            watcher
                .run(|event| sink.lock().unwrap().push(event))
                .unwrap();
        });
        Started {
            kernel,
            events,
            watcher,
        }
    }

    /// Another namespace, joined to this one by a veth pair: 10.9.0.1 and fd09::1 here, .2 there.
    pub(crate) fn neighbour(&self) -> Namespace {
        let neighbour = Namespace::new("neighbour");
        let name = &neighbour.name;
        run(&format!(
            "ip link add here type veth peer name there netns {name}"
        ));
        run("ip addr add 10.9.0.1/24 dev here");
        run("ip addr add fd09::1/64 dev here nodad");
        run("ip link set here up");
        neighbour.run("ip addr add 10.9.0.2/24 dev there");
        neighbour.run("ip addr add fd09::2/64 dev there nodad");
        neighbour.run("ip link set there up");
        neighbour
    }

    /// A counter of this namespace's /proc/net/snmp.
    pub(crate) fn snmp(&self, group: &str, name: &str) -> u64 {
        let text = fs::read_to_string("/proc/thread-self/net/snmp").unwrap();
        let mut lines = text
            .lines()
            .filter_map(|line| line.strip_prefix(group)?.strip_prefix(':'));
        let names = lines.next().unwrap().split_whitespace();
        let values = lines.next().unwrap().split_whitespace();
        let (_, value) = names.zip(values).find(|(key, _)| *key == name).unwrap();
        value.parse().unwrap()
    }

    /// A counter of this namespace's /proc/net/snmp6.
    pub(crate) fn snmp6(&self, name: &str) -> u64 {
        let text = fs::read_to_string("/proc/thread-self/net/snmp6").unwrap();
        let line = text
            .lines()
            .find(|line| line.split_whitespace().next() == Some(name))
            .unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

/// The tier, running.
pub(crate) struct Started {
    pub(crate) kernel: Kernel,
    pub(crate) events: Arc<Mutex<Vec<ListenerEvent>>>,
    watcher: JoinHandle<()>,
}

impl Started {
    pub(crate) fn counts(&self, port: Port) -> PortCounts {
        self.kernel.read().counts(port)
    }

    /// Ends the tier; its follower must end with it.
    pub(crate) fn stop(self) -> Vec<ListenerEvent> {
        drop(self.kernel);
        self.watcher.join().unwrap();
        std::mem::take(&mut self.events.lock().unwrap())
    }
}

/// Closes with a reset.
pub(crate) fn reset(stream: TcpStream) {
    socket2::SockRef::from(&stream)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
}
