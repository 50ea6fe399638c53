//! The soak: scrapes every 100 ms under mixed traffic, sweeps, probes and reloads, for as long as `SOAK` says.
//!
//! Two exporters count the same traffic, one in the kernel tier as root, one in the netlink tier as nobody and behind TLS. At
//! every checkpoint all rest for a moment, and every counter must be what the generator did. `SOAK_REPORT` names a file for
//! the summary.

#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "in a test, what fails is to fail; the lint's own exception does not cover helpers"
)]

mod checkpoint;
mod ledger;
mod observer;
mod operator;
mod report;
mod subject;
#[path = "../support/mod.rs"]
mod support;
mod traffic;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::RwLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use darkport_exporter::port::Port;

use checkpoint::Base;
use ledger::Ledger;
use observer::Observer;
use operator::Operator;
use report::Report;
use subject::Subject;
use support::namespace::Namespace;
use support::wait_for;
use traffic::{Listeners, Locals, Neighbour};

/// Refused, from here and from the neighbour.
const DARK: Port = Port::tcp(561);
const DARK_UDP: Port = Port::udp(561);
/// Listened on for the whole time.
const LIT: Port = Port::tcp(609);
const LIT_UDP: Port = Port::udp(610);
/// Listened on for a moment at a time.
const FLASH: Port = Port::tcp(611);
const FLASH_UDP: Port = Port::udp(611);
/// Its connections stay open for a while.
const HELD: Port = Port::tcp(512);
/// The firewall drops what comes to them.
const FILTERED: Port = Port::tcp(3476);
const FILTERED_UDP: Port = Port::udp(3476);
/// The neighbour's: one answers, one does not.
const ANSWERED: Port = Port::tcp(1524);
const NOWHERE: Port = Port::tcp(1525);
/// What `/probe` asks.
const PROBED_LIT: Port = Port::tcp(7100);
const PROBED_DARK: Port = Port::tcp(7101);
/// The exporters' own.
const KERNEL: Port = Port::tcp(19_101);
const NETLINK: Port = Port::tcp(19_102);

const TCP: [Port; 11] = [
    DARK,
    LIT,
    FLASH,
    HELD,
    FILTERED,
    ANSWERED,
    NOWHERE,
    PROBED_LIT,
    PROBED_DARK,
    KERNEL,
    NETLINK,
];
const UDP: [Port; 4] = [DARK_UDP, LIT_UDP, FLASH_UDP, FILTERED_UDP];

const SCRAPES: Duration = Duration::from_millis(100);
const TRAFFIC: Duration = Duration::from_millis(200);
/// Whoever is in charge does something.
const OPERATIONS: Duration = Duration::from_secs(4);
const MEASUREMENTS: Duration = Duration::from_secs(1);

/// Whether something listens where the neighbour's sweep arrives: the brief listeners and the exporters are on loopback.
fn answers_a_sweep(port: Port) -> bool {
    [LIT, HELD, PROBED_LIT].contains(&port)
}

/// What both exporters are told, with some lines more in `watch`.
fn configuration(more: &str) -> String {
    let numbers = |ports: &[Port]| {
        let numbers: Vec<String> = ports.iter().map(|port| port.number.to_string()).collect();
        numbers.join(", ")
    };
    let (tcp, udp) = (numbers(&TCP), numbers(&UDP));
    let (lit, dark) = (PROBED_LIT.number, PROBED_DARK.number);
    format!(
        "watch:\n\
         - {{name: soak-tcp, ports: [{tcp}], protocols: [tcp]}}\n\
         - {{name: soak-udp, ports: [{udp}], protocols: [udp]}}\n\
         {more}\
         - {{name: registered, iana: {{range: registered, assignment: assigned}}, series: active, expect: [{{address: \"*\"}}]}}\n\
         probe:\n  targets: [127.0.0.0/8]\n  modules:\n    both: {{ports: [{lit}, {dark}], protocols: [tcp], timeout: 5s}}\n"
    )
}

/// Lets work go on, or rest: whoever works holds it for a step, a checkpoint holds it alone.
#[derive(Default)]
struct Gate {
    work: RwLock<()>,
    is_over: AtomicBool,
}

impl Gate {
    /// Works at this pace until it is over. A step that comes too late is not made up for.
    fn every(&self, pace: Duration, mut step: impl FnMut(u64)) {
        let mut next = Instant::now();
        for turn in 0.. {
            {
                let _working = self.work.read().unwrap();
                if self.is_over.load(Ordering::Acquire) {
                    return;
                }
                step(turn);
            }
            next = (next + pace).max(Instant::now());
            while Instant::now() < next && !self.is_over.load(Ordering::Acquire) {
                let rest = next.saturating_duration_since(Instant::now());
                thread::park_timeout(rest.min(SCRAPES));
            }
        }
    }
}

/// How long, from `SOAK` in Prometheus' way of writing durations.
fn lasts() -> Duration {
    let text = std::env::var("SOAK").unwrap_or_else(|_| "12s".into());
    darkport_exporter::duration::parse(&text).unwrap_or_else(|error| panic!("SOAK={text}: {error}"))
}

#[test]
#[ignore = "needs root, nmap and nft"]
fn every_counter_is_what_the_generator_did_and_nothing_grows() {
    let lasts = lasts();
    let checks = (lasts / 60).clamp(Duration::from_secs(4), Duration::from_secs(60));
    let sweeps = (lasts / 12).clamp(Duration::from_secs(10), Duration::from_secs(300));
    let (here, there) = Namespace::neighbours();
    here.enter();
    prepare(&here);
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let file = folder.path().join("darkport.yml");
    fs::write(&file, configuration("")).unwrap();

    let ledger = Ledger::default();
    let listeners = Listeners::open(&there, &ledger);
    let mut locals = Locals::new(&ledger, &listeners);
    let (kernel, mut kernel_process) = Subject::kernel(folder.path());
    let (netlink, mut netlink_process) = Subject::netlink(folder.path());
    let subjects = [kernel, netlink];
    for subject in &subjects {
        wait_for("a first sample", || {
            (subject.ask(&ledger, "GET", "/-/ready").unwrap().status == 200).then_some(())
        });
    }
    let mut observers = [Observer::default(), Observer::default()];
    let mut report = Report::new(lasts);

    let gate = Gate::default();
    let operator = Operator {
        subjects: &subjects,
        ledger: &ledger,
        listeners: &listeners,
        file,
    };
    // Everything once, one after the other.
    locals.step(0);
    there.within(|| Neighbour::new(&ledger, &listeners).step(0));
    (0..Operator::KINDS).for_each(|turn| operator.step(turn));
    traffic::sweep(&there, &ledger);
    let mut bases = subjects
        .each_ref()
        .map(|subject| Base::take(subject, &ledger));
    thread::scope(|scope| {
        let workers = [
            scope.spawn(|| gate.every(TRAFFIC, |turn| locals.step(turn))),
            scope.spawn(|| {
                there.enter();
                let neighbour = Neighbour::new(&ledger, &listeners);
                gate.every(TRAFFIC, |turn| neighbour.step(turn));
            }),
            scope.spawn(|| gate.every(OPERATIONS, |turn| operator.step(turn))),
            scope.spawn(|| gate.every(sweeps, |_| traffic::sweep(&there, &ledger))),
        ];
        for (subject, observer) in subjects.iter().zip(&mut observers) {
            let (gate, ledger) = (&gate, &ledger);
            scope.spawn(move || gate.every(SCRAPES, |_| observer.step(subject, ledger)));
        }
        let start = Instant::now();
        let mut next_check = checks;
        let mut next_measurement = Duration::ZERO;
        loop {
            let elapsed = start.elapsed();
            let stops =
                elapsed >= lasts || workers.iter().any(thread::ScopedJoinHandle::is_finished);
            if stops || elapsed >= next_check {
                let _resting = gate.work.write();
                for (subject, base) in subjects.iter().zip(&mut bases) {
                    report.checkpoint(subject.tier, elapsed, base.check(subject, &ledger));
                }
                next_check += checks;
                // Before anybody works on.
                gate.is_over.store(stops, Ordering::Release);
            }
            if stops {
                break;
            }
            if elapsed >= next_measurement {
                for subject in &subjects {
                    report.measured(subject.tier, elapsed, subject.holdings());
                }
                next_measurement += MEASUREMENTS;
            }
            thread::park_timeout(SCRAPES);
        }
        for worker in workers {
            if worker.join().is_err() {
                report.problem("the generator failed; its message is above".into());
            }
        }
    });
    let logs = [
        kernel_process.log().to_vec(),
        netlink_process.log().to_vec(),
    ];
    for (((subject, observer), base), log) in subjects.iter().zip(observers).zip(&bases).zip(logs) {
        let processor_seconds = subject
            .scrape(&ledger)
            .unwrap()
            .value("process_cpu_seconds_total");
        report.ended(
            subject.tier,
            observer,
            base.compared,
            processor_seconds,
            &log,
        );
    }
    let text = report.markdown(&ledger.read());
    println!("{text}");
    if let Some(file) = std::env::var_os("SOAK_REPORT") {
        fs::write(file, &text).unwrap();
    }
    let problems = report.problems();
    assert!(problems.is_empty(), "{problems:#?}");
}

/// A firewall for two ports, no limit on what is told to the neighbour, and clients' ports apart from the watched ones.
fn prepare(here: &Namespace) {
    for (name, value) in [
        ("icmp_ratelimit", "0"),
        ("icmp_ratemask", "0"),
        ("ip_local_port_range", "49152 60999"),
    ] {
        fs::write(format!("/proc/sys/net/ipv4/{name}"), value).unwrap();
    }
    for line in [
        "add table inet soak",
        "add chain inet soak entrance { type filter hook input priority 0 ; }",
        "add rule inet soak entrance iif here tcp dport 3476 drop",
        "add rule inet soak entrance iif here udp dport 3476 drop",
    ] {
        here.run(&format!("nft {line}"));
    }
}
