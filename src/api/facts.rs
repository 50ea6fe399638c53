//! The part that changes with the configuration alone.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Both, Spans, spans};
use crate::config::Config;
use crate::port::{Port, Protocol};
use crate::registry::{Class, Entry, Registry};
use crate::watch::{self, Series};

#[derive(Debug, Serialize)]
pub(super) struct Facts<'a> {
    /// Names this content; empty while it is being worked out.
    pub(super) id: &'a str,
    /// What the registry was read from.
    registry: &'a str,
    classes: Both<Vec<ClassRun>>,
    /// By first port.
    services: Vec<Service<'a>>,
    watch: Vec<Watch<'a>>,
}

/// Consecutive ports of one class. Those of a protocol cover the space.
#[derive(Debug, Serialize)]
struct ClassRun {
    first: u16,
    last: u16,
    range: &'static str,
    assignment: &'static str,
}

/// Consecutive ports with the same names.
#[derive(Debug, Serialize)]
struct Service<'a> {
    first: u16,
    last: u16,
    protocols: Vec<&'static str>,
    /// The primary one first.
    names: Vec<Name<'a>>,
}

#[derive(Debug, Serialize)]
struct Name<'a> {
    service_name: &'a str,
    description: &'a str,
}

#[derive(Debug, Serialize)]
struct Watch<'a> {
    name: &'a str,
    description: &'a str,
    series: &'static str,
    ports: Both<Spans>,
}

impl<'a> Facts<'a> {
    pub(super) fn new(config: &'a Config) -> Self {
        let registry = &*config.registry;
        Self {
            id: "",
            registry: registry.source(),
            classes: Both::of(|protocol| class_runs(registry, protocol)),
            services: services(registry),
            watch: config.watch.entries().iter().map(Watch::from).collect(),
        }
    }
}

impl<'a> From<&'a watch::Watch> for Watch<'a> {
    fn from(watch: &'a watch::Watch) -> Self {
        Self {
            name: &watch.name,
            description: &watch.description,
            series: match watch.series {
                Series::Dense => "dense",
                Series::Active => "active",
            },
            ports: spans(&watch.ports),
        }
    }
}

fn class_runs(registry: &Registry, protocol: Protocol) -> Vec<ClassRun> {
    runs(protocol, |port| Some(registry.class(port)))
        .map(|(first, last, Class { range, assignment })| ClassRun {
            first,
            last,
            range: range.as_str(),
            assignment: assignment.as_str(),
        })
        .collect()
}

fn services(registry: &Registry) -> Vec<Service<'_>> {
    let mut services: BTreeMap<(u16, u16, Vec<Entry<'_>>), Vec<&'static str>> = BTreeMap::new();
    for protocol in Protocol::ALL {
        let named = runs(protocol, |port| {
            let names: Vec<Entry<'_>> = registry.entries(port).collect();
            (!names.is_empty()).then_some(names)
        });
        for run in named {
            services.entry(run).or_default().push(protocol.as_str());
        }
    }
    services
        .into_iter()
        .map(|((first, last, names), protocols)| Service {
            first,
            last,
            protocols,
            names: names
                .into_iter()
                .map(|entry| Name {
                    service_name: entry.service_name,
                    description: entry.description,
                })
                .collect(),
        })
        .collect()
}

/// The ports of a protocol as runs of which the same is said; ports of which nothing is said are left out.
fn runs<T: PartialEq>(
    protocol: Protocol,
    say: impl Fn(Port) -> Option<T>,
) -> impl Iterator<Item = (u16, u16, T)> {
    let mut runs: Vec<(u16, u16, T)> = Vec::new();
    for number in 0..=u16::MAX {
        let Some(said) = say(Port { number, protocol }) else {
            continue;
        };
        match runs.last_mut() {
            Some((_, last, same)) if *same == said && u32::from(*last) + 1 == u32::from(number) => {
                *last = number;
            }
            _ => runs.push((number, number, said)),
        }
    }
    runs.into_iter()
}
