//! A fleet that never was: a recorded scrape of the real exporter under other names, with some hours of history in which ports
//! are lit, knocked and swept.
//!
//! It is what the live test cannot have: hours, hundreds of hosts, and the kernel tier on a machine without one. What the recorded
//! scrape lacks, because it was not taken in the kernel tier, is added by the table of families.

mod exporter;
mod hosts;
mod listeners;
mod ports;
mod probe;
mod recorded;
mod space;

use std::collections::BTreeMap;

use super::remote_write::Series;
use hosts::Host;
use recorded::{Sample, add_missing};

/// What is simulated.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub hosts: usize,
    /// Milliseconds since 1970.
    pub from: i64,
    pub to: i64,
    /// The scrape interval in milliseconds.
    pub step: i64,
}

/// One series in the making: a sample of the recorded scrape, for a host, over the whole time.
#[derive(Clone, Copy, Debug)]
struct Making<'a> {
    plan: &'a Plan,
    host: Host,
    sample: &'a Sample,
}

impl Plan {
    /// Every series of one host.
    pub fn host(&self, number: usize, recorded: &str) -> Vec<Series> {
        let host = Host::of(number);
        let mut samples: Vec<Sample> = recorded.lines().filter_map(Sample::parse).collect();
        add_missing(&mut samples, host.tier);
        for (state, namespaces) in [("seen", host.namespaces()), ("read", 1.0)] {
            samples.push(Sample {
                metric: "darkport_network_namespaces".to_owned(),
                labels: labelled([("state", state)]),
                value: namespaces,
            });
        }
        let mut series: Vec<Series> = samples
            .iter()
            .filter_map(|sample| self.series(host, sample))
            .collect();
        series.extend(self.listeners(host));
        series.extend(self.probes(host));
        series.extend(self.about_the_scrape(host, samples.len()));
        series
    }

    fn times(&self) -> impl Iterator<Item = i64> + use<> {
        let (from, to, step) = (self.from, self.to, self.step);
        (0..)
            .map(move |index| from + index * step)
            .take_while(move |&time| time <= to)
    }

    /// How far into the simulated time, 0 to 1.
    fn progress(&self, time: i64) -> f64 {
        (time - self.from) as f64 / (self.to - self.from) as f64
    }

    fn build(
        &self,
        host: Host,
        metric: &str,
        labels: &BTreeMap<String, String>,
        value: impl Fn(i64) -> Option<f64>,
    ) -> Series {
        let mut all = labels.clone();
        all.retain(|_, value| !value.is_empty());
        all.insert("__name__".to_owned(), metric.to_owned());
        all.insert("job".to_owned(), "darkport".to_owned());
        all.insert("instance".to_owned(), host.name());
        Series {
            labels: all.into_iter().collect(),
            points: self
                .times()
                .filter_map(|time| Some((time, value(time)?)))
                .collect(),
        }
    }

    fn series(&self, host: Host, sample: &Sample) -> Option<Series> {
        let making = Making {
            plan: self,
            host,
            sample,
        };
        let series = ports::series(making)
            .or_else(|| space::series(making))
            .or_else(|| exporter::series(making))
            .unwrap_or_else(|| making.gauge(|_| Some(sample.value)));
        // A series that never has a value is none.
        (!series.points.is_empty()).then_some(series)
    }
}

impl<'a> Making<'a> {
    fn label(self, name: &str) -> &'a str {
        self.sample.labels.get(name).map_or("", String::as_str)
    }

    fn progress(self, time: i64) -> f64 {
        self.plan.progress(time)
    }

    fn gauge(self, value: impl Fn(i64) -> Option<f64>) -> Series {
        self.plan
            .build(self.host, &self.sample.metric, &self.sample.labels, value)
    }

    /// A gauge that is 1 while the claim holds, else 0.
    fn claim(self, holds: impl Fn(i64) -> bool) -> Series {
        self.gauge(|time| Some(f64::from(u8::from(holds(time)))))
    }

    /// A counter: the sum of what each step adds.
    fn counter(self, added: impl Fn(i64) -> u64) -> Series {
        let mut series = self.gauge(|_| Some(0.0));
        let mut sum = 0;
        for (time, value) in &mut series.points {
            sum += added(*time);
            *value = sum as f64;
        }
        series
    }
}

fn labelled<const N: usize>(labels: [(&str, &str); N]) -> BTreeMap<String, String> {
    labels
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

/// A number that looks like chance and is the same every time.
fn noise(time: i64, seed: u64) -> u64 {
    let mut state = (time as u64 / 1_000).wrapping_mul(0x9E37_79B9_7F4A_7C15)
        ^ seed.wrapping_mul(0xD1B5_4A32_D192_ED03);
    state ^= state >> 29;
    state = state.wrapping_mul(0xBF58_476D_1CE4_E5B9);
    state ^ (state >> 32)
}
