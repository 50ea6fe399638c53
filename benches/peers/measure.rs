//! What is measured, in which order, with how much of everything.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use darkport_exporter::counts::Tier;

use crate::contenders::{self, Contender, Servers};
use crate::seen::{self, Ending};
use crate::support::server::{Server, answer};
use crate::support::{Holders, traffic};
use crate::tables::Section;

/// Ports of servers that are busy on real hosts.
const BUSY: [u16; 8] = [22, 25, 53, 80, 143, 443, 993, 995];
/// What a contender may take of one measurement before the others go on without it.
const PATIENCE: Duration = Duration::from_secs(4);
/// Turns that each gets nevertheless.
const LEAST_TURNS: usize = 3;

/// How much of everything.
pub(crate) struct Plan {
    sockets: Vec<usize>,
    watched: Vec<usize>,
    turns: usize,
    connections: u32,
    flashes: u32,
    /// Over how long connections and flashes are spread.
    spread: [Duration; 2],
    /// Of the rate of short connections.
    rates: usize,
    starts: usize,
    /// For how long nobody asks.
    rest: Duration,
}

impl Plan {
    pub(crate) fn full() -> Self {
        Self {
            sockets: vec![0, 10_000, 100_000, 200_000],
            watched: vec![50, 1_000, 10_000, 65_536],
            turns: 15,
            connections: 20_000,
            flashes: 500,
            spread: [Duration::from_secs(10), Duration::from_secs(5)],
            rates: 21,
            starts: 5,
            rest: Duration::from_secs(10),
        }
    }

    pub(crate) fn short() -> Self {
        Self {
            sockets: vec![0, 2_000],
            watched: vec![50, 1_000],
            turns: 3,
            connections: 1_000,
            flashes: 50,
            spread: [Duration::from_secs(2), Duration::from_secs(2)],
            rates: 3,
            starts: 1,
            rest: Duration::from_secs(2),
        }
    }
}

/// Everything, in the order of the document.
pub(crate) fn all(plan: &Plan) -> Vec<Section> {
    let servers = Servers::new();
    let mut sections = by_sockets(plan, &servers);
    sections.push(by_watched(plan, &servers));
    sections.push(brief(plan, &servers));
    sections.push(rates(plan));
    sections.push(footprint(plan, &servers));
    sections
}

/// A contender's figures, one for each level; `None` where it was not asked.
type Figures = Vec<(String, Vec<Option<f64>>)>;

/// Times in turn: the medians, by contender.
fn medians(contenders: &mut [Contender], turns: usize) -> Vec<(String, Option<f64>)> {
    let mut times = vec![Vec::new(); contenders.len()];
    for contender in contenders.iter_mut() {
        contender.time();
    }
    for _ in 0..turns {
        for (contender, times) in contenders.iter_mut().zip(&mut times) {
            let spent: Duration = times.iter().sum();
            if times.len() < LEAST_TURNS || spent < PATIENCE {
                times.push(contender.time());
            }
        }
    }
    let names = contenders.iter().map(|contender| contender.name.clone());
    let median = times.into_iter().map(|mut times| {
        times.sort_unstable();
        Some(times[times.len() / 2].as_secs_f64())
    });
    names.zip(median).collect()
}

/// Takes in the figures of a level.
fn add(all: &mut Figures, level: usize, figures: Vec<(String, Option<f64>)>) {
    for (name, figure) in figures {
        if !all.iter().any(|(other, _)| *other == name) {
            all.push((name.clone(), Vec::new()));
        }
        let of_name = all.iter_mut().find(|(other, _)| *other == name);
        let (_, levels) = of_name.expect("it was added");
        levels.resize(level, None);
        levels.push(figure);
    }
}

/// A section whose last column says how many times the first row's figure at the last level each has.
fn section(title: &str, levels: Vec<String>, figures: Figures, show: fn(f64) -> String) -> Section {
    let count = levels.len();
    let last = |figures: &[Option<f64>]| figures.get(count - 1).copied().flatten();
    let first = figures.first().and_then(|(_, figures)| last(figures));
    // Nothing can be so many times nothing.
    let first = first.filter(|&first| first > 0.0);
    let rows = figures.iter().map(|(name, figures)| {
        let mut cells = vec![name.clone()];
        let cell = |level| figures.get(level).copied().flatten();
        cells.extend((0..count).map(|level| cell(level).map_or("–".to_owned(), show)));
        let ratio = last(figures)
            .zip(first)
            .map(|(figure, first)| figure / first);
        cells.push(ratio.map_or("–".to_owned(), times));
        cells
    });
    let rows = rows.collect();
    let mut columns = vec!["median".to_owned()];
    columns.extend(levels);
    columns.push("× the first row, at the last".to_owned());
    Section {
        title: title.to_owned(),
        columns,
        rows,
    }
}

pub(crate) fn seconds(seconds: f64) -> String {
    match seconds {
        s if s >= 10.0 => format!("{s:.0} s"),
        s if s >= 1.0 => format!("{s:.1} s"),
        s if s >= 0.01 => format!("{:.0} ms", s * 1e3),
        s => format!("{:.1} ms", s * 1e3),
    }
}

fn times(ratio: f64) -> String {
    if ratio >= 10.0 {
        format!("{ratio:.0}")
    } else {
        format!("{ratio:.2}")
    }
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

fn megabytes(bytes: f64) -> String {
    format!("{:.1} MB", bytes / 1e6)
}

fn thousands(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// What a look takes, and what memory it leaves, by how many sockets are established on the host.
fn by_sockets(plan: &Plan, servers: &Servers) -> Vec<Section> {
    let [mut took, mut resident, mut processor] = [const { Figures::new() }; 3];
    for (level, &sockets) in plan.sockets.iter().enumerate() {
        eprintln!("{sockets} sockets");
        let _holders = Holders::start(sockets, &BUSY);
        let running: Vec<(String, Server)> = Tier::ALL
            .map(|tier| (contenders::name(tier), Servers::exporter(tier, None)))
            .into_iter()
            .chain([
                ("node_exporter, tcpstat".to_owned(), Server::node_exporter()),
                ("process-exporter".to_owned(), servers.process_exporter()),
            ])
            .collect();
        let mut contenders: Vec<Contender> = Tier::ALL.map(Contender::exporter).into();
        contenders.extend([
            Contender::node_exporter(),
            Contender::process_exporter(),
            Contender::command("ss -tan"),
            Contender::command("ss -tulnp"),
            Contender::command("lsof -nP -iTCP -sTCP:LISTEN"),
            Contender::netstat2(),
        ]);
        add(&mut took, level, medians(&mut contenders, plan.turns));
        let memory =
            |(name, server): &(String, Server)| (name.clone(), Some(server.resident() as f64));
        add(&mut resident, level, running.iter().map(memory).collect());
        add(&mut processor, level, shares(&running, plan.rest));
    }
    let levels = || -> Vec<String> {
        plan.sockets
            .iter()
            .map(|&sockets| thousands(sockets))
            .collect()
    };
    vec![
        section("A look, by established sockets", levels(), took, seconds),
        section(
            "Resident memory, by established sockets",
            levels(),
            resident,
            megabytes,
        ),
        section(
            "Processor while nobody asks, by established sockets",
            levels(),
            processor,
            percent,
        ),
    ]
}

/// The part of a processor that each takes while nobody asks.
fn shares(running: &[(String, Server)], lasts: Duration) -> Vec<(String, Option<f64>)> {
    let used = || running.iter().map(|(_, server)| server.processor_time());
    let (before, begun): (Vec<Duration>, Instant) = (used().collect(), Instant::now());
    std::thread::sleep(lasts);
    let took = begun.elapsed().as_secs_f64();
    let shares = used()
        .zip(before)
        .map(|(after, before)| Some((after - before).as_secs_f64() / took));
    let names = running.iter().map(|(name, _)| name.clone());
    names.zip(shares).collect()
}

/// What a look takes by how many ports are watched, each of both protocols with series of its own.
fn by_watched(plan: &Plan, servers: &Servers) -> Section {
    let mut took = Figures::new();
    for (level, &count) in plan.watched.iter().enumerate() {
        eprintln!("{count} watched ports");
        let ports = spread(count);
        let configuration = servers.dense(&ports);
        let _running = Tier::ALL.map(|tier| Servers::exporter(tier, Some(&configuration)));
        let _blackbox = servers.blackbox();
        let mut contenders: Vec<Contender> = Tier::ALL.map(Contender::exporter).into();
        contenders.push(Contender::nmap(&ports));
        if count <= 1_000 {
            contenders.push(Contender::blackbox(ports));
        }
        add(&mut took, level, medians(&mut contenders, plan.turns));
    }
    let level = |&count: &usize| format!("{} × 2", thousands(count));
    let levels = plan.watched.iter().map(level).collect();
    section("A look, by watched ports", levels, took, seconds)
}

/// So many ports, apart from each other as far as there is room.
fn spread(count: usize) -> Vec<u16> {
    let step = if count <= 10_000 { 3 } else { 1 };
    let first = if count <= 10_000 { 2_000 } else { 0 };
    let ports = (first..=u16::MAX).step_by(step).take(count);
    let ports: Vec<u16> = ports.collect();
    assert_eq!(ports.len(), count);
    ports
}

/// What is seen of what is over before anybody looks.
fn brief(plan: &Plan, servers: &Servers) -> Section {
    eprintln!("what is brief");
    let _running = Tier::ALL.map(|tier| Servers::exporter(tier, None));
    let _peers = [Server::node_exporter(), servers.blackbox()];
    let [long, short] = plan.spread;
    // In this order: what is left of connections that were closed is to be seen for a minute.
    let reset = seen::connections(plan.connections, long, Ending::Reset);
    let closed = seen::connections(plan.connections, long, Ending::Closed);
    let seen = [closed, reset, seen::flashes(plan.flashes, short)];
    let mut names: Vec<String> = Vec::new();
    for (name, _) in seen.iter().flatten() {
        if !names.contains(name) {
            names.push(name.clone());
        }
    }
    let rows = names.into_iter().map(|name| {
        let figure = |seen: &Vec<(String, u64)>| {
            let found = seen.iter().find(|(other, _)| *other == name);
            found.map_or("–".to_owned(), |(_, count)| thousands(*count as usize))
        };
        let figures = seen.iter().map(figure).collect::<Vec<_>>();
        [vec![name.clone()], figures].concat()
    });
    let made = |count: u32, what: &str| format!("of {} {what}", thousands(count as usize));
    Section {
        title: "What is seen of what is brief".to_owned(),
        rows: rows.collect(),
        columns: vec![
            "seen".to_owned(),
            made(plan.connections, "connections that were closed"),
            made(plan.connections, "connections that were reset"),
            made(plan.flashes, "listeners"),
        ],
    }
}

/// The highest rate of short connections beside each tier, and beside none.
fn rates(plan: &Plan) -> Section {
    eprintln!("rates of short connections");
    const LASTS: Duration = Duration::from_millis(250);
    let mut rates = [const { Vec::new() }; 4];
    traffic::rate(LASTS);
    for _ in 0..plan.rates {
        rates[0].push(traffic::rate(LASTS));
        for (tier, rates) in Tier::ALL.into_iter().zip(&mut rates[1..]) {
            let _running = Servers::exporter(tier, None);
            rates.push(traffic::rate(LASTS));
        }
    }
    let ratios = |with: &[f64]| -> f64 {
        let each = with
            .iter()
            .zip(&rates[0])
            .map(|(with, without)| with / without);
        median(each.collect())
    };
    let names = ["nothing".to_owned()]
        .into_iter()
        .chain(Tier::ALL.map(contenders::name));
    let rows = names.zip(&rates).map(|(name, each)| {
        let rate = median(each.clone());
        vec![
            name,
            thousands(rate as usize),
            format!("{:.2}", ratios(each)),
        ]
    });
    Section {
        title: "What traffic pays".to_owned(),
        rows: rows.collect(),
        columns: [
            "beside",
            "short connections a second",
            "of the rate beside nothing",
        ]
        .map(str::to_owned)
        .into(),
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// From the start to the first answer, memory after some scrapes, and the size of the program.
fn footprint(plan: &Plan, servers: &Servers) -> Section {
    eprintln!("footprints");
    type Start<'a> = Box<dyn Fn() -> Server + 'a>;
    let mut starts: Vec<(String, &str, std::net::SocketAddr, Start<'_>)> = Vec::new();
    for tier in Tier::ALL {
        starts.push((
            contenders::name(tier),
            env!("CARGO_BIN_EXE_darkport_exporter"),
            contenders::address(tier),
            Box::new(move || Servers::exporter(tier, None)),
        ));
    }
    starts.push((
        "node_exporter, tcpstat".to_owned(),
        "prometheus-node-exporter",
        crate::support::server::NODE_EXPORTER,
        Box::new(Server::node_exporter),
    ));
    starts.push((
        "process-exporter".to_owned(),
        "prometheus-process-exporter",
        contenders::PROCESS_EXPORTER,
        Box::new(|| servers.process_exporter()),
    ));
    starts.push((
        "blackbox_exporter".to_owned(),
        "prometheus-blackbox-exporter",
        contenders::BLACKBOX_EXPORTER,
        Box::new(|| servers.blackbox()),
    ));
    let rows = starts.iter().map(|(name, program, address, start)| {
        let mut took = Vec::new();
        let mut memory = Vec::new();
        for _ in 0..plan.starts {
            let begun = Instant::now();
            let server = start();
            let (status, _) = answer(*address, "/metrics").unwrap();
            took.push(begun.elapsed().as_secs_f64());
            assert_eq!(status, 200);
            for _ in 0..20 {
                answer(*address, "/metrics").unwrap();
            }
            memory.push(server.resident() as f64);
        }
        vec![
            name.clone(),
            seconds(median(took)),
            megabytes(median(memory)),
            megabytes(fs::metadata(found(program)).unwrap().len() as f64),
        ]
    });
    let rows = rows.collect();
    Section {
        title: "Footprint".to_owned(),
        columns: [
            "idle host",
            "start to first scrape",
            "resident after 20 scrapes",
            "size of the program",
        ]
        .map(str::to_owned)
        .into(),
        rows,
    }
}

/// Where a program is.
fn found(program: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places = std::env::split_paths(&path).map(|folder| folder.join(program));
    places
        .find(|place| place.is_file())
        .unwrap_or_else(|| program.into())
}
