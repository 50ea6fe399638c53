//! The sampler: asks the readers and puts together what they say.
//!
//! It never fails. A reader that fails costs what it would have told, the run of its collector says so, and the rest of
//! the snapshot stands.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use crate::audit::HostCounters;
use crate::config::{self, Config, Limits, series_per_port};
use crate::counts::{ByClass, Counts, PortCounts};
use crate::events::Journal;
use crate::log::Chain;
use crate::namespaces;
use crate::owners::{Owner, Owners};
use crate::port::{Port, PortSet};
use crate::refusals::Web;
use crate::snapshot::{
    Audit, Collector, Lights, Lit, Namespaces, Reload, Run, Snapshot, Space, Watched,
};
use crate::sockets::{self, Listener, Reader, SocketTable, Wanted};
use crate::watch::Facts;

mod activity;
mod ephemeral;

use activity::{Activity, Clients};

/// Asks the readers, one sample at a time.
#[derive(Debug)]
pub struct Sampler {
    reader: Reader,
    counts: Counts,
    owners: Owners,
    journal: Journal,
    activity: Activity,
    clients: Clients,
    /// The exporter's own listening sockets: a table without them is not this host's.
    own: Vec<SocketAddr>,
    /// The host's counters when counting began; `None` where they cannot be read.
    audit_start: Option<HostCounters>,
    namespaces: namespaces::Namespaces,
    /// Whether it was told why namespaces stay unread.
    namespaces_told: bool,
    /// Collectors that failed last time: a failure is logged when it begins, not at every scrape.
    failing: HashSet<Collector>,
}

impl Sampler {
    /// A sampler of these readers. `own` are the exporter's own listening sockets; `audit_start` the host's counters read
    /// when counting began.
    #[must_use]
    pub fn new(
        reader: Reader,
        counts: Counts,
        owners: Owners,
        namespaces: namespaces::Namespaces,
        own: Vec<SocketAddr>,
        audit_start: Option<HostCounters>,
    ) -> Self {
        Self {
            reader,
            counts,
            owners,
            journal: Journal::new(),
            activity: Activity::default(),
            clients: Clients::default(),
            own,
            audit_start,
            namespaces,
            namespaces_told: false,
            failing: HashSet::new(),
        }
    }

    /// How counting is done.
    #[must_use]
    pub const fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Takes up a new watch set; counters stay.
    pub fn watch(&mut self, watched: &PortSet) {
        let present = self.read_table(watched).unwrap_or_else(|error| {
            tracing::warn!(
                error = %Chain(&error),
                "what is open on newly watched ports cannot be told from what opens next"
            );
            SocketTable::default()
        });
        self.counts.watch(watched, &present);
    }

    /// Takes one sample.
    pub fn sample<'a>(
        &mut self,
        config: &'a Config,
        reload: Reload,
        now: SystemTime,
    ) -> Snapshot<'a> {
        let mut runs = Vec::new();
        let table = self.read_sockets(config, now, &mut runs);
        let (namespaces, others) = self.read_namespaces(config);
        let ephemeral = ephemeral::udp_ports();
        let mut lit = table
            .as_ref()
            .map(|table| self.look_up_owners(config, table, &others, &ephemeral, &mut runs));
        let view = table
            .as_ref()
            .zip(lit.as_deref())
            .map(|(table, lit)| View::of(table, lit));
        let brief = self.brief(config, &ephemeral);
        if let Some(lit) = &lit {
            self.journal.note(lit, &brief);
        }
        let watched = self.watched(config, view.as_ref(), &ephemeral);
        let space = self.space(config, view.as_ref(), &ephemeral);
        let audit = self.audit(&mut runs);
        let listeners_suppressed = lit
            .as_mut()
            .map_or(0, |lit| limit_listeners(lit, &config.limits));
        self.log_failures(&runs);
        Snapshot {
            tier: self.counts.tier(),
            watched: watched.ports,
            watched_suppressed: watched.suppressed,
            listeners: lit,
            listeners_suppressed,
            namespaces,
            space,
            collectors: runs,
            lost: self.counts.lost(),
            audit,
            reload,
            web: Web::default(),
        }
    }
}

impl Sampler {
    fn read_sockets(
        &mut self,
        config: &Config,
        now: SystemTime,
        runs: &mut Vec<Run>,
    ) -> Option<SocketTable> {
        let start = Instant::now();
        self.counts.before_read();
        let result = self.read_table(config.watch.ports());
        runs.push(run(Collector::Sockets, result.is_ok(), start));
        if let Err(error) = &result {
            self.explain(Collector::Sockets, error);
        }
        let start = Instant::now();
        self.counts.after_read(result.as_ref().ok(), now);
        if let Some((collector, is_alive)) = self.counts.collector() {
            runs.push(run(collector, is_alive, start));
        }
        result.ok()
    }

    fn read_table(&mut self, watched: &PortSet) -> Result<SocketTable, sockets::Error> {
        let listened = self.counts.listened();
        let wanted = if self.counts.wants_connections() {
            Wanted::Connections {
                watched,
                listened: &listened,
            }
        } else {
            Wanted::Listeners
        };
        let table = self.reader.read(wanted)?;
        holding(table, &self.own)
    }

    /// The listeners of the other network namespaces, where the configuration asks for them, and how many of the host's
    /// namespaces that covers.
    fn read_namespaces(
        &mut self,
        config: &Config,
    ) -> (Option<Namespaces>, Vec<(Arc<str>, SocketTable)>) {
        if config.namespaces == config::Namespaces::Own {
            return (None, Vec::new());
        }
        match self.namespaces.read() {
            Ok(reading) => {
                self.explain_namespaces(&reading);
                let covered = Namespaces {
                    seen: reading.seen as u64 + 1,
                    read: reading.read as u64 + 1,
                };
                let tables = reading.tables.into_iter();
                let named = tables.map(|(namespace, table)| (namespace.to_string().into(), table));
                (Some(covered), named.collect())
            }
            Err(error) => {
                if !std::mem::replace(&mut self.namespaces_told, true) {
                    tracing::error!(
                        error = %Chain(&error),
                        "network namespaces cannot be read; the listeners of others are absent"
                    );
                }
                (None, Vec::new())
            }
        }
    }

    /// Says once why some namespaces stay unread.
    fn explain_namespaces(&mut self, reading: &namespaces::Reading) {
        let is_whole = reading.read == reading.seen && reading.unreadable == 0;
        if is_whole {
            self.namespaces_told = false;
        } else if !std::mem::replace(&mut self.namespaces_told, true) {
            let reason = reading.failure.as_ref().map(|(namespace, failure)| {
                format!("network namespace {namespace}: {}", Chain(failure))
            });
            tracing::warn!(
                seen = reading.seen + 1,
                read = reading.read + 1,
                processes_unreadable = reading.unreadable,
                reason,
                "some network namespaces cannot be read; their listeners are absent"
            );
        }
    }

    /// Every listener with its owner and whether it may be there, the most important first.
    fn look_up_owners<'a>(
        &mut self,
        config: &'a Config,
        table: &SocketTable,
        others: &[(Arc<str>, SocketTable)],
        ephemeral: &PortSet,
        runs: &mut Vec<Run>,
    ) -> Vec<Lit<'a>> {
        let start = Instant::now();
        let own: Arc<str> = Arc::from("");
        let listeners: Vec<(&Arc<str>, &Listener)> = std::iter::once((&own, table))
            .chain(others.iter().map(|(netns, table)| (netns, table)))
            .flat_map(|(netns, table)| table.listeners.iter().map(move |each| (netns, each)))
            .collect();
        let listeners = self.clients.sift(listeners, |listener| {
            ephemeral.contains(listener.port) && config.watch.owner(listener.port).is_none()
        });
        let resolution = self.owners.resolve(listeners.iter().map(|(_, each)| *each));
        if resolution.unknown > 0 && !self.failing.contains(&Collector::Owners) {
            tracing::warn!(
                unknown = resolution.unknown,
                reason = %resolution.coverage,
                "owners of listeners are unknown; their labels are empty"
            );
        }
        runs.push(run(Collector::Owners, resolution.unknown == 0, start));
        let mut lit: Vec<Lit<'a>> = listeners
            .into_iter()
            .zip(resolution.owners)
            .map(|((netns, listener), owner)| judged(config, listener, owner, netns))
            .collect();
        lit.sort_by(|a, b| importance(a).cmp(&importance(b)));
        lit
    }

    /// Listeners on watched ports that have closed, also such as no table has shown. Those are not told of in the log where
    /// they may have been a client's: a host that resolves names opens hundreds a second.
    fn brief<'a>(&mut self, config: &'a Config, ephemeral: &PortSet) -> Vec<Lit<'a>> {
        let own: Arc<str> = Arc::from("");
        let unknown = Arc::new(Owner::Unknown { creator: None });
        let may_be_client =
            |port: Port| ephemeral.contains(port) && config.watch.active().contains(port);
        self.counts
            .closed_listeners()
            .iter()
            .filter(|listener| !may_be_client(listener.port))
            .map(|listener| judged(config, listener, Arc::clone(&unknown), &own))
            .collect()
    }

    fn watched<'a>(
        &mut self,
        config: &'a Config,
        view: Option<&View>,
        ephemeral: &PortSet,
    ) -> WatchedPorts<'a> {
        let active = config.watch.active();
        let used = self.counts.used();
        let shown = self
            .activity
            .shown(active, &used, view.map(|view| &view.lit), ephemeral);
        let (shown, suppressed) = limit_ports(shown, view, config);
        let mut ports: Vec<Port> = config.watch.dense_ports().chain(shown).collect();
        ports.sort_unstable();
        let rows = ports.into_iter().map(|port| Watched {
            port,
            watch: config.watch.owner(port).map_or("", |watch| &watch.name),
            service_name: config.registry.service_name(port),
            assignment: config.registry.assignment(port),
            listening: view.map(|view| view.lit.contains(port)),
            unexpected: view.map(|view| view.unexpected.contains(port)),
            counts: self.port_counts(port, view.is_some()),
        });
        WatchedPorts {
            ports: rows.collect(),
            suppressed,
        }
    }

    /// What the tier counted; what it takes from the table is unknown where the table could not be read.
    fn port_counts(&self, port: Port, table_read: bool) -> PortCounts {
        let counts = self.counts.counts(port);
        if table_read {
            counts
        } else {
            PortCounts {
                connections: None,
                ..counts
            }
        }
    }

    fn space(&self, config: &Config, view: Option<&View>, ephemeral: &PortSet) -> Space {
        let registry = &config.registry;
        let lit = view.map(|view| {
            let mut lights = Lights::default();
            for port in view.lit.iter() {
                let may_be_client =
                    ephemeral.contains(port) && !config.watch.ports().contains(port);
                if !may_be_client {
                    lights.classes.add(port, registry.class(port), 1);
                    lights.blocks.add(port, 1);
                }
            }
            lights
        });
        Space {
            ports: ByClass(registry.class_sizes().map(|sizes| sizes.map(u64::from))),
            lit,
            counts: None,
        }
    }

    fn audit(&mut self, runs: &mut Vec<Run>) -> Vec<Audit> {
        let Some(first) = self.audit_start else {
            return Vec::new();
        };
        let start = Instant::now();
        let read = HostCounters::read();
        runs.push(run(Collector::Audit, read.is_ok(), start));
        match read {
            Ok(counters) => {
                let host = counters.since(first);
                let of = |what, host, counted| Audit {
                    what,
                    host,
                    counted,
                };
                vec![
                    of("passive_opens", host.passive_opens, self.counts.accepted()),
                    of("udp_no_ports", host.udp_no_ports, None),
                ]
            }
            Err(error) => {
                self.explain(Collector::Audit, &error);
                Vec::new()
            }
        }
    }

    /// Says why a collector fails, once when it begins to.
    fn explain(&self, collector: Collector, error: &dyn std::error::Error) {
        if !self.failing.contains(&collector) {
            tracing::error!(
                collector = collector.as_str(),
                error = %Chain(error),
                "collector failed; what it tells is absent until it succeeds"
            );
        }
    }

    fn log_failures(&mut self, runs: &[Run]) {
        for run in runs {
            if run.success && self.failing.remove(&run.collector) {
                tracing::info!(
                    collector = run.collector.as_str(),
                    "collector succeeds again"
                );
            } else if !run.success {
                self.failing.insert(run.collector);
            }
        }
    }
}

/// Which ports are lit in the exporter's own network namespace.
struct View {
    lit: PortSet,
    unexpected: PortSet,
}

impl View {
    fn of(table: &SocketTable, lit: &[Lit<'_>]) -> Self {
        Self {
            lit: table.listeners.iter().map(|each| each.port).collect(),
            unexpected: lit
                .iter()
                .filter(|lit| lit.netns.is_empty() && lit.expected == Some(false))
                .map(|lit| lit.listener.port)
                .collect(),
        }
    }
}

struct WatchedPorts<'a> {
    ports: Vec<Watched<'a>>,
    suppressed: [u64; 2],
}

fn run(collector: Collector, success: bool, start: Instant) -> Run {
    Run {
        collector,
        success,
        duration: start.elapsed(),
    }
}

/// Refuses a table in which the exporter's own listeners are missing: it would read as silence.
fn holding(table: SocketTable, own: &[SocketAddr]) -> Result<SocketTable, sockets::Error> {
    let ports: HashSet<Port> = table
        .listeners
        .iter()
        .map(|listener| listener.port)
        .collect();
    match own
        .iter()
        .find(|address| !ports.contains(&Port::tcp(address.port())))
    {
        None => Ok(table),
        Some(address) => Err(sockets::Error::Incomplete(format!(
            "the exporter's own listener on {address} is not in it"
        ))),
    }
}

/// A listener with what the watch set says of it.
fn judged<'a>(
    config: &'a Config,
    listener: &Listener,
    owner: Arc<Owner>,
    netns: &Arc<str>,
) -> Lit<'a> {
    let watch = config.watch.owner(listener.port);
    let expected = watch.map(|watch| {
        watch.expects(&Facts {
            process: owner.process(),
            user: owner.user(),
            unit: owner.unit(),
            address: &listener.address.to_string(),
        })
    });
    Lit {
        listener: listener.clone(),
        watch: watch.map_or("", |watch| &watch.name),
        owner,
        expected,
        netns: Arc::clone(netns),
    }
}

/// What a listener is sorted by: the unexpected first, then the watched, then by port.
fn importance<'l>(lit: &'l Lit<'_>) -> impl Ord + 'l {
    let rank = match (lit.expected, lit.watch) {
        (Some(false), _) => 0,
        (_, "") => 2,
        _ => 1,
    };
    (
        rank,
        lit.listener.port,
        lit.listener.address,
        shown_owner(lit),
    )
}

fn shown_owner<'l>(lit: &'l Lit<'_>) -> [&'l str; 4] {
    [
        lit.owner.process(),
        lit.owner.user(),
        lit.owner.unit(),
        &lit.netns,
    ]
}

/// Leaves listeners that differ in nothing that is shown once, and as many as the limit allows; gives how many it cut.
fn limit_listeners(lit: &mut Vec<Lit<'_>>, limits: &Limits) -> u64 {
    lit.dedup_by(|a, b| {
        (a.listener.port, a.listener.address) == (b.listener.port, b.listener.address)
            && shown_owner(a) == shown_owner(b)
    });
    let cut = lit.len().saturating_sub(limits.listeners);
    lit.truncate(limits.listeners);
    cut as u64
}

/// As many active ports as the limit of series allows beside the dense ones, the lit ones first; and how many were cut.
fn limit_ports(shown: PortSet, view: Option<&View>, config: &Config) -> (Vec<Port>, [u64; 2]) {
    let cost = |port: Port| series_per_port(port.protocol);
    let mut left = config
        .limits
        .series
        .saturating_sub(config.watch.dense_ports().map(cost).sum());
    let is_lit = |port: &Port| view.is_some_and(|view| view.lit.contains(*port));
    let (lit, dark): (Vec<Port>, Vec<Port>) = shown.iter().partition(is_lit);
    let mut suppressed = [0; 2];
    let mut kept = Vec::with_capacity(lit.len() + dark.len());
    for port in lit.into_iter().chain(dark) {
        if cost(port) <= left {
            left -= cost(port);
            kept.push(port);
        } else {
            suppressed[port.protocol.index()] += 1;
        }
    }
    (kept, suppressed)
}
