//! The part that changes with each sample.

use std::collections::BTreeMap;
use std::time::SystemTime;

use serde::Serialize;

use super::{Both, Spans, seconds, spans};
use crate::build_info;
use crate::counts::{KnockedRun, KnockedRuns};
use crate::events::{Happening, LastEvent};
use crate::port::{Port, Protocol};
use crate::snapshot::{self, Lights, Lit, Snapshot};

#[derive(Debug, Serialize)]
pub(super) struct Live<'a> {
    version: &'static str,
    tier: &'static str,
    sampled_at: f64,
    /// The id of the facts that hold now.
    facts: &'a str,
    collectors: Vec<Run>,
    events_lost: BTreeMap<&'static str, u64>,
    /// The ports with a listener in the exporter's own network namespace, all of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    lit: Option<Both<Spans>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    knocked: Option<Both<Vec<Knocks>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    listeners: Option<Vec<Listener<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    listeners_suppressed: Option<u64>,
    watched: Vec<Watched<'a>>,
    watched_suppressed: Both<u64>,
    /// In the order they were given.
    last_events: Vec<Event<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespaces: Option<Namespaces>,
}

#[derive(Debug, Serialize)]
struct Run {
    collector: &'static str,
    success: bool,
    duration_seconds: f64,
}

/// A run: first, last, attempts, refused, filtered.
#[derive(Debug, Serialize)]
struct Knocks(u16, u16, Option<u64>, Option<u64>, Option<u64>);

#[derive(Debug, Serialize)]
struct Listener<'a> {
    port: u16,
    protocol: &'static str,
    address: String,
    watch: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    expected: Option<bool>,
    process: &'a str,
    user: &'a str,
    unit: &'a str,
    netns: &'a str,
    /// The process named above, which started first of all that hold the socket.
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exe: Option<&'a str>,
    /// How many processes hold the socket.
    holders: usize,
    /// Whether it may be a client's socket, and so does not light its port.
    may_be_client: bool,
}

#[derive(Debug, Serialize)]
struct Watched<'a> {
    port: u16,
    protocol: &'static str,
    watch: &'a str,
    #[serde(flatten)]
    state: State,
}

#[derive(Debug, Serialize)]
struct State {
    #[serde(skip_serializing_if = "Option::is_none")]
    listening: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unexpected: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    connections: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    attempts: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    accepted: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    filtered: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    outbound: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    outbound_failures: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    opened: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    opened_at: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_attempt_at: Option<f64>,
}

#[derive(Debug, Serialize)]
struct Event<'a> {
    port: u16,
    protocol: &'static str,
    event: &'static str,
    at: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    opened_at: Option<f64>,
    address: String,
    watch: &'a str,
    expected: bool,
    process: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exe: Option<&'a str>,
    user: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    uid: Option<u32>,
    unit: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    cgroup: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cgroup_id: Option<u64>,
}

#[derive(Debug, Serialize)]
struct Namespaces {
    seen: u64,
    read: u64,
}

impl<'a> Live<'a> {
    pub(super) fn new(
        snapshot: &'a Snapshot<'_>,
        sampled_at: SystemTime,
        knocked: Option<&KnockedRuns>,
        last_events: &'a [(Port, LastEvent)],
        facts: &'a str,
    ) -> Self {
        let lights = snapshot.space.lit.as_ref();
        let listeners = snapshot.listeners.as_ref();
        Self {
            version: build_info::VERSION,
            tier: snapshot.tier.as_str(),
            sampled_at: seconds(sampled_at),
            facts,
            collectors: snapshot.collectors.iter().map(Run::from).collect(),
            events_lost: snapshot
                .lost
                .iter()
                .map(|(source, lost)| (source.as_str(), *lost))
                .collect(),
            lit: lights.map(|lights| spans(&lights.ports)),
            knocked: knocked.map(|knocked| Both::of(|protocol| runs(knocked, protocol))),
            listeners: listeners
                .map(|listeners| listeners.iter().map(|lit| listener(lit, lights)).collect()),
            listeners_suppressed: snapshot.listeners_suppressed,
            watched: snapshot.watched.iter().map(watched).collect(),
            watched_suppressed: Both::of(|protocol| snapshot.watched_suppressed[protocol.index()]),
            last_events: last_events.iter().map(event).collect(),
            namespaces: snapshot.namespaces.map(|namespaces| Namespaces {
                seen: namespaces.seen,
                read: namespaces.read,
            }),
        }
    }
}

impl From<&KnockedRun> for Knocks {
    fn from(run: &KnockedRun) -> Self {
        Self(run.first, run.last, run.attempts, run.refused, run.filtered)
    }
}

impl From<&snapshot::Run> for Run {
    fn from(run: &snapshot::Run) -> Self {
        Self {
            collector: run.collector.as_str(),
            success: run.success,
            duration_seconds: run.duration.as_secs_f64(),
        }
    }
}

fn runs(knocked: &KnockedRuns, protocol: Protocol) -> Vec<Knocks> {
    let of_it = knocked.0.iter().filter(|run| run.protocol == protocol);
    of_it.map(Knocks::from).collect()
}

fn listener<'a>(lit: &'a Lit<'_>, lights: Option<&Lights>) -> Listener<'a> {
    let port = lit.listener.port;
    let oldest = lit.owner.oldest();
    Listener {
        port: port.number,
        protocol: port.protocol.as_str(),
        address: lit.listener.address.to_string(),
        watch: lit.watch,
        expected: lit.expected,
        process: lit.owner.process(),
        user: lit.owner.user(),
        unit: lit.owner.unit(),
        netns: &lit.netns,
        pid: oldest.map(|process| process.pid),
        exe: oldest.and_then(|process| process.executable.as_deref()),
        holders: lit.owner.holders().count(),
        may_be_client: lit.netns.is_empty()
            && lights.is_some_and(|lights| !lights.ports.contains(port)),
    }
}

fn event((port, event): &(Port, LastEvent)) -> Event<'_> {
    let process = event.owner.oldest();
    Event {
        port: port.number,
        protocol: port.protocol.as_str(),
        event: match event.happening {
            Happening::Found => "found",
            Happening::Opened => "opened",
            Happening::Changed => "changed",
            Happening::CameAndWent => "came_and_went",
            Happening::Closed => "closed",
        },
        at: seconds(event.at),
        opened_at: event.opened_at.map(seconds),
        address: event.address.to_string(),
        watch: &event.watch,
        expected: event.expected,
        process: event.owner.process(),
        pid: process.map(|process| process.pid),
        exe: process.and_then(|process| process.executable.as_deref()),
        user: event.owner.user(),
        uid: event.uid,
        unit: event.owner.unit(),
        cgroup: event
            .cgroup
            .as_ref()
            .and_then(|group| group.path.as_deref()),
        cgroup_id: event.cgroup.as_ref().map(|group| group.id),
    }
}

fn watched<'a>(watched: &'a snapshot::Watched<'_>) -> Watched<'a> {
    let counts = &watched.counts;
    Watched {
        port: watched.port.number,
        protocol: watched.port.protocol.as_str(),
        watch: watched.watch,
        state: State {
            listening: watched.listening,
            unexpected: watched.unexpected,
            connections: counts.connections,
            attempts: counts.attempts,
            accepted: counts.accepted,
            refused: counts.refused,
            filtered: counts.filtered,
            outbound: counts.outbound,
            outbound_failures: counts.outbound_failures,
            opened: counts.opened,
            opened_at: counts.opened_at.map(seconds),
            last_attempt_at: counts.last_attempt.map(seconds),
        },
    }
}
