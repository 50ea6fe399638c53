//! What it costs to write down 65,536 ports of both protocols, every one with a series of its own: against the prometheus
//! crate's encoder, against a writer made by hand for nothing else, and against what the memory can take.
//!
//! ```sh
//! cargo bench --bench encoding
//! ```
//!
//! All write the same octets, which is looked at. Prints a Markdown table of medians, taken in turn, and ends with status 1
//! where what the exporter does takes more than four times as long as the writer made by hand.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a benchmark that cannot be set up has nothing to say"
)]

use std::fmt::Write as _;
use std::hint::black_box;
use std::io::Write as _;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use darkport_exporter::counts::{PortCounts, Tier};
use darkport_exporter::metrics::{FAMILIES, Family, Kind, Values, encode_families};
use darkport_exporter::port::{PortSet, Protocol};
use darkport_exporter::refusals::Web;
use darkport_exporter::registry::Registry;
use darkport_exporter::snapshot::{Reload, Snapshot, Space, Watched};
use flate2::Compression;
use flate2::write::GzEncoder;
use prometheus::TextEncoder;
use prometheus::proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};

const ROUNDS: usize = 7;
/// Of the time of the writer made by hand.
const MOST: f64 = 4.0;

fn main() -> ExitCode {
    let registry = Registry::embedded();
    let snapshot = dense(&registry);
    let by_hand = ByHand::new();
    let text = by_hand.write(&snapshot);
    let ours = encode_families(&snapshot).unwrap();
    assert!(ours.as_bytes().starts_with(&text), "not the same octets");
    let (_, crates) = by_the_crate(&snapshot);
    assert!(crates.as_bytes() == text, "not the crate's octets");
    drop((ours, crates));

    let mut times = [const { Vec::new() }; 7];
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        black_box(text.clone());
        times[0].push(begun.elapsed());
        let mut there = text.clone();
        let begun = Instant::now();
        there.copy_from_slice(black_box(&text));
        times[1].push(begun.elapsed());
        drop(black_box(there));
        let begun = Instant::now();
        black_box(by_hand.write(&snapshot));
        times[2].push(begun.elapsed());
        let begun = Instant::now();
        let ours = black_box(encode_families(&snapshot).unwrap());
        times[3].push(begun.elapsed());
        let begun = Instant::now();
        let (encoding, crates) = by_the_crate(&snapshot);
        times[5].push(begun.elapsed());
        times[4].push(encoding);
        drop((ours, crates));
        let begun = Instant::now();
        let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
        packed.write_all(&text).unwrap();
        black_box(packed.finish().unwrap());
        times[6].push(begun.elapsed());
    }
    let medians = times.map(median);
    let (hand, ours) = (medians[2], medians[3]);
    print!("{}", table(&medians, &snapshot, text.len()));
    if ours.as_secs_f64() > MOST * hand.as_secs_f64() {
        eprintln!("encoding: more than {MOST} times what a writer made by hand takes");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn table(medians: &[Duration; 7], snapshot: &Snapshot<'_>, octets: usize) -> String {
    const WHAT: [&str; 7] = [
        "copying the finished text into fresh memory",
        "copying the finished text over itself",
        "a writer made by hand",
        "the exporter",
        "the prometheus crate's encoder alone, its structures being there",
        "the prometheus crate: its structures, and its encoder",
        "gzip of the text",
    ];
    let hand = medians[2].as_secs_f64();
    let mut text = format!(
        "{} watched ports, {:.1} MB of text\n\n| | time | of the writer made by hand | MB/s |\n|---|---:|---:|---:|\n",
        snapshot.watched.len(),
        octets as f64 / 1e6
    );
    for (what, median) in WHAT.into_iter().zip(medians) {
        let seconds = median.as_secs_f64();
        let _ = writeln!(
            text,
            "| {what} | {:.1} ms | {:.2} | {:.0} |",
            seconds * 1e3,
            seconds / hand,
            octets as f64 / 1e6 / seconds
        );
    }
    text
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// Every port, with a number for everything that the kernel tier counts, most of them 0, as on a real host.
fn dense(registry: &Registry) -> Snapshot<'_> {
    let at = UNIX_EPOCH + Duration::from_millis(1_700_000_000_250);
    let all = PortSet::full();
    let watched = all.iter().map(|port| {
        let is_busy = port.number % 16 == 0;
        let count = if is_busy {
            u64::from(port.number) * 37
        } else {
            0
        };
        Watched {
            port,
            watch: "everything",
            service_name: registry.service_name(port),
            assignment: registry.assignment(port),
            listening: Some(is_busy),
            unexpected: Some(false),
            counts: PortCounts {
                attempts: Some(count),
                accepted: Some(count / 2),
                refused: Some(count / 3),
                filtered: Some(0),
                outbound: Some(0),
                outbound_failures: Some(0),
                opened: Some(u64::from(is_busy)),
                opened_at: is_busy.then_some(at),
                last_attempt: is_busy.then_some(at),
                connections: Some(count % 7),
            },
        }
    });
    Snapshot {
        tier: Tier::Kernel,
        watched: watched.collect(),
        watched_suppressed: [0, 0],
        listeners: None,
        listeners_suppressed: None,
        namespaces: None,
        space: Space::default(),
        collectors: vec![],
        lost: vec![],
        audit: vec![],
        reload: Reload {
            successful: true,
            at: SystemTime::now(),
        },
        web: Web::default(),
    }
}

/// The families that have a series for each port, with their values.
fn per_port() -> impl Iterator<Item = &'static Family> {
    FAMILIES.iter().filter(|family| {
        family.tiers.contains(&Tier::Kernel) && !matches!(family.values, Values::Snapshot(_))
    })
}

/// Calls `take` with each series of a family that has any.
fn each<'a>(
    family: &Family,
    snapshot: &'a Snapshot<'a>,
    mut take: impl FnMut(&'a Watched<'a>, f64),
) {
    for watched in &snapshot.watched {
        let value = match family.values {
            Values::Port { protocols, value } if protocols.contains(&watched.port.protocol) => {
                value(watched)
            }
            Values::PortFacts => Some(1.0),
            _ => None,
        };
        if let Some(value) = value {
            take(watched, value);
        }
    }
}

/// The writer that has everything made up beforehand that can be, and asks nothing twice.
struct ByHand {
    /// `3476",protocol="tcp"`, by protocol and number.
    ports: [Vec<String>; 2],
}

impl ByHand {
    fn new() -> Self {
        let ports = |protocol: Protocol| {
            let number = |number: u16| format!("{number}\",protocol=\"{protocol}\"");
            (0..=u16::MAX).map(number).collect()
        };
        Self {
            ports: Protocol::ALL.map(ports),
        }
    }

    fn write(&self, snapshot: &Snapshot<'_>) -> Vec<u8> {
        let mut text = Vec::with_capacity(200 << 20);
        let mut digits = itoa::Buffer::new();
        for family in per_port() {
            let (name, kind) = (family.name, family.kind.as_str());
            write!(
                text,
                "# HELP {name} {}\n# TYPE {name} {kind}\n",
                family.help
            )
            .unwrap();
            let before = format!("{name}{{port=\"");
            let has_facts = matches!(family.values, Values::PortFacts);
            each(family, snapshot, |watched, value| {
                let port = watched.port;
                text.extend_from_slice(before.as_bytes());
                text.extend_from_slice(
                    self.ports[port.protocol.index()][usize::from(port.number)].as_bytes(),
                );
                if has_facts {
                    text.extend_from_slice(b",watch=\"");
                    text.extend_from_slice(watched.watch.as_bytes());
                    text.extend_from_slice(b"\",service_name=\"");
                    text.extend_from_slice(watched.service_name.as_bytes());
                    text.extend_from_slice(b"\",range=\"");
                    text.extend_from_slice(port.range().as_str().as_bytes());
                    text.extend_from_slice(b"\",assignment=\"");
                    text.extend_from_slice(watched.assignment.as_str().as_bytes());
                    text.push(b'"');
                }
                text.extend_from_slice(b"} ");
                let whole = value as u64;
                if whole as f64 == value {
                    text.extend_from_slice(digits.format(whole).as_bytes());
                } else {
                    write!(text, "{value}").unwrap();
                }
                text.push(b'\n');
            });
        }
        text
    }
}

/// The text by way of the crate's structures, one family after the other, and how long the encoder alone took.
fn by_the_crate(snapshot: &Snapshot<'_>) -> (Duration, String) {
    let mut text = String::new();
    let mut encoding = Duration::ZERO;
    for family in per_port() {
        let mut encoded = MetricFamily::default();
        encoded.set_name(family.name.to_owned());
        encoded.set_help(family.help.to_owned());
        encoded.set_field_type(match family.kind {
            Kind::Counter => MetricType::COUNTER,
            Kind::Gauge => MetricType::GAUGE,
        });
        each(family, snapshot, |watched, value| {
            let port = watched.port;
            let labels = [
                port.number.to_string(),
                port.protocol.as_str().to_owned(),
                watched.watch.to_owned(),
                watched.service_name.to_owned(),
                port.range().as_str().to_owned(),
                watched.assignment.as_str().to_owned(),
            ];
            let pairs = family.labels.iter().zip(labels).map(|(name, value)| {
                let mut pair = LabelPair::default();
                pair.set_name((*name).to_owned());
                pair.set_value(value);
                pair
            });
            let mut metric = Metric::from_label(pairs.collect());
            match family.kind {
                Kind::Counter => {
                    let mut counter = Counter::default();
                    counter.set_value(value);
                    metric.set_counter(counter);
                }
                Kind::Gauge => {
                    let mut gauge = Gauge::default();
                    gauge.set_value(value);
                    metric.set_gauge(gauge);
                }
            }
            encoded.mut_metric().push(metric);
        });
        let begun = Instant::now();
        TextEncoder::new()
            .encode_utf8(&[encoded], &mut text)
            .unwrap();
        encoding += begun.elapsed();
    }
    (encoding, text)
}
