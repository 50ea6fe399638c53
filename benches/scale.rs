//! What a scrape costs, on an idle host and on one with 200,000 established sockets, held against its bounds.
//!
//! ```sh
//! cargo bench --bench scale
//! ```
//!
//! Puts itself into a network and a process namespace of its own, so that nothing else is connected and nothing outlives it.
//! Needs util-linux, iproute2 and Debian's prometheus-node-exporter, which with only `--collector.tcpstat` is what a scrape
//! is compared with, in the same run and in turn. Prints a Markdown table and ends with status 1 if a bound is broken.
//!
//! `SCALE_TIERS=polled,kernel` names the tiers, all that can start if nothing is said; `SCALE_SOCKETS` how many sockets
//! there are on the busy host, `SCALE_SECONDS` for how long the processor time of a tier is watched while nobody scrapes.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a benchmark that cannot be set up has nothing to say"
)]

mod support;

use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use darkport_exporter::config::Config;
use darkport_exporter::counts::Tier;
use darkport_exporter::port::Port;
use support::server::{self, EXPORTER, NODE_EXPORTER, Server, median, scrape};
use support::{Holders, alone};

/// Scrapes in turn with the peer's; the median counts.
const COMPARED: usize = 21;
/// Scrapes before the memory is looked at.
const SCRAPES: usize = 50;

/// A default scrape against one of the peer's, on the busy host.
const MOST_OF_PEER: f64 = 1.0 / 8.0;
/// The same in the kernel tier, which reads no connections.
const MOST_OF_PEER_IN_KERNEL: f64 = 1.0 / 100.0;
/// A default scrape in the kernel tier, with the sums over the whole port space, on an idle host.
const MOST_IN_KERNEL: Duration = Duration::from_millis(2);
/// The same on the busy host, against that on the idle one.
const MOST_OF_IDLE_IN_KERNEL: f64 = 2.0;
/// Of one processor, while nobody scrapes, in the polled tier, on the busy host.
const MOST_PROCESSOR: f64 = 0.05;
/// A scrape with 10,000 watched ports of both protocols, dense.
const MOST_DENSE: Duration = Duration::from_millis(100);
/// Resident under the default configuration, in the tiers that map nothing of the kernel's. The kernel tier's counters are 9 MB
/// of the kernel's own memory, which the mapping counts as resident here once more.
const MOST_MEMORY: u64 = 15_000_000;

fn main() -> ExitCode {
    support::hold_if_asked();
    if !alone::is_alone() {
        return alone::run("scale");
    }
    let folder = tempfile::tempdir().unwrap();
    let dense = folder.path().join("dense.yml");
    std::fs::write(&dense, dense_configuration()).unwrap();

    let mut report = Report::default();
    for host in Host::all() {
        eprintln!("setting up: {}", host.name);
        let _holders = Holders::start(host.sockets, &host.ports);
        let _peer = Server::node_exporter();
        for tier in tiers() {
            measure(&host, tier, &dense, &mut report);
        }
    }
    print!("{}", report.text());
    if report.broken {
        return ExitCode::from(alone::BROKEN);
    }
    ExitCode::SUCCESS
}

fn tiers() -> Vec<Tier> {
    let asked = std::env::var("SCALE_TIERS").unwrap_or_default();
    let is_asked =
        |tier: &Tier| asked.is_empty() || asked.split(',').any(|name| name.trim() == tier.as_str());
    let tiers: Vec<Tier> = Tier::ALL.into_iter().filter(is_asked).collect();
    assert!(!tiers.is_empty(), "SCALE_TIERS={asked} names no tier");
    tiers
}

fn number_from(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |number| {
        number
            .parse()
            .unwrap_or_else(|error| panic!("{name}={number}: {error}"))
    })
}

/// 10,000 ports that make as many ranges, below those from which clients take theirs.
fn dense_ports() -> impl Iterator<Item = u16> {
    (2_000..32_000).step_by(3)
}

fn dense_configuration() -> String {
    let ports: Vec<String> = dense_ports().map(|port| port.to_string()).collect();
    assert_eq!(ports.len(), 10_000);
    format!(
        "watch: [{{name: dense, ports: [{}]}}]\nlimits: {{series: 1000000, listeners: 500}}\n",
        ports.join(", ")
    )
}

/// What the host is busy with.
struct Host {
    name: String,
    sockets: usize,
    /// The ports of the servers.
    ports: Vec<u16>,
    /// Whether the bounds hold here that depend on how busy the host is.
    is_bounded: bool,
}

/// Ports of servers that are busy on real hosts.
const BUSY: [u16; 12] = [22, 25, 53, 80, 110, 143, 389, 443, 465, 587, 993, 995];

impl Host {
    fn all() -> [Self; 4] {
        let sockets = number_from("SCALE_SOCKETS", 200_000);
        let mut watched = Config::embedded().watch.ports().clone();
        watched.extend(dense_ports().map(Port::tcp));
        let is_watched = |number: &u16| watched.contains(Port::tcp(*number));
        assert!(!BUSY.iter().any(is_watched));
        let between = (2_000..32_000).filter(|number| !is_watched(number));
        let busy = |what: &str, ports: Vec<u16>, is_bounded| Self {
            name: format!("{sockets} sockets, {what}"),
            sockets,
            ports,
            is_bounded,
        };
        [
            Self {
                name: "idle".to_owned(),
                sockets: 0,
                ports: vec![],
                is_bounded: false,
            },
            busy("ports not watched", BUSY.to_vec(), true),
            // Where the filter in the kernel is too coarse to tell them from 10,000 ports that lie apart.
            busy(
                "ports not watched, but between watched ones",
                between.step_by(50).take(12).collect(),
                false,
            ),
            busy("watched ports", vec![560, 561, 609, 610, 611, 3476], false),
        ]
    }
}

/// Runs the exporter in one tier, if it can start, on the default configuration and on the dense one.
fn measure(host: &Host, tier: Tier, dense: &Path, report: &mut Report) {
    let exporter = match server::exporter(tier, None) {
        Ok(exporter) => exporter,
        Err(reason) => {
            eprintln!("tier {tier} cannot start: {reason}");
            return;
        }
    };
    let (ours, theirs) = compare();
    let ratio = ours.as_secs_f64() / theirs.as_secs_f64();
    report.row(
        host,
        tier,
        "default scrape / node_exporter tcpstat",
        &format!("{} / {} = {ratio:.3}", time(ours), time(theirs)),
        match tier {
            Tier::Kernel => Bound::of(host.is_bounded, "< 1/100", ratio < MOST_OF_PEER_IN_KERNEL),
            _ => Bound::of(host.is_bounded, "< 1/8", ratio < MOST_OF_PEER),
        },
    );
    if tier == Tier::Kernel {
        judge_kernel_scrape(host, ours, report);
    }
    for _ in COMPARED..SCRAPES {
        scrape(EXPORTER);
    }
    let memory = exporter.resident();
    report.row(
        host,
        tier,
        &format!("resident after {SCRAPES} default scrapes"),
        &format!("{:.1} MB", memory as f64 / 1e6),
        // Connections to watched ports are what the polled tier has to remember.
        Bound::of(
            (host.is_bounded || host.sockets == 0) && tier != Tier::Kernel,
            "< 15 MB",
            memory < MOST_MEMORY,
        ),
    );
    let share =
        exporter.processor_share(Duration::from_secs(number_from("SCALE_SECONDS", 20) as u64));
    report.row(
        host,
        tier,
        "processor while nobody scrapes",
        &format!("{:.2} %", share * 100.0),
        Bound::of(
            host.is_bounded && tier == Tier::Polled,
            "< 5 %",
            share < MOST_PROCESSOR,
        ),
    );
    drop(exporter);
    let _exporter = server::exporter(tier, Some(dense)).unwrap_or_else(|reason| panic!("{reason}"));
    let took = median((0..COMPARED).map(|_| scrape(EXPORTER)).collect());
    report.row(
        host,
        tier,
        "scrape of 10,000 ports × 2 protocols, dense",
        &time(took),
        Bound::of(
            host.is_bounded || host.sockets == 0,
            "< 100 ms",
            took < MOST_DENSE,
        ),
    );
}

/// In the kernel tier no scrape walks the connections, however many there are.
fn judge_kernel_scrape(host: &Host, took: Duration, report: &mut Report) {
    let tier = Tier::Kernel;
    if host.sockets == 0 {
        let bound = Bound::of(true, "< 2 ms", took < MOST_IN_KERNEL);
        report.row(host, tier, "default scrape", &time(took), bound);
        report.idle_in_kernel = Some(took);
    } else if let Some(idle) = report.idle_in_kernel {
        let ratio = took.as_secs_f64() / idle.as_secs_f64();
        report.row(
            host,
            tier,
            "default scrape / that on the idle host",
            &format!("{} / {} = {ratio:.2}", time(took), time(idle)),
            Bound::of(host.is_bounded, "≤ 2", ratio <= MOST_OF_IDLE_IN_KERNEL),
        );
    }
}

/// Scrapes the exporter and the peer in turn; the medians.
fn compare() -> (Duration, Duration) {
    let (ours, theirs) = (0..COMPARED)
        .map(|_| (scrape(EXPORTER), scrape(NODE_EXPORTER)))
        .unzip();
    (median(ours), median(theirs))
}

fn time(duration: Duration) -> String {
    format!("{:.2} ms", duration.as_secs_f64() * 1e3)
}

/// What a measurement must keep to, and whether it does; `None` where nothing is promised.
struct Bound(Option<(&'static str, bool)>);

impl Bound {
    fn of(applies: bool, text: &'static str, is_kept: bool) -> Self {
        Self(applies.then_some((text, is_kept)))
    }
}

#[derive(Default)]
struct Report {
    rows: String,
    broken: bool,
    /// A default scrape in the kernel tier on the idle host.
    idle_in_kernel: Option<Duration>,
}

impl Report {
    fn row(&mut self, host: &Host, tier: Tier, what: &str, value: &str, bound: Bound) {
        let (bound, verdict) = match bound.0 {
            None => ("none", "–"),
            Some((bound, true)) => (bound, "yes"),
            Some((bound, false)) => {
                self.broken = true;
                (bound, "no")
            }
        };
        let row = format!(
            "| {} | {tier} | {what} | {value} | {bound} | {verdict} |",
            host.name
        );
        eprintln!("{row}");
        let _ = writeln!(self.rows, "{row}");
    }

    fn text(&self) -> String {
        format!(
            "\n| host | tier | what | measured | bound | within the bound |\n|---|---|---|---|---|---|\n{}",
            self.rows
        )
    }
}
