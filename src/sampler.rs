//! The sampler: asks the readers and puts together what they say.
//!
//! It never fails. A reader that fails costs what it would have told, the run of its collector says so, and the rest of
//! the snapshot stands.

use std::time::{Instant, SystemTime};

use crate::audit::HostCounters;
use crate::config::Config;
use crate::counts::{ByClass, Counts, PortCounts};
use crate::events::{Journal, LastEvent};
use crate::namespaces::Namespaces;
use crate::owners::Owners;
use crate::port::{Port, PortSet};
use crate::refusals::Web;
use crate::snapshot::{Audit, Collector, Lights, Lit, Reload, Snapshot, Space, Watched};
use crate::sockets::{self, Reader, SocketTable, Wanted};

mod activity;
mod brief;
mod ephemeral;
mod health;
mod listeners;
mod losses;
mod others;
mod ports;

use activity::Activity;
use brief::News;
use health::Health;
use listeners::Listeners;
use losses::Losses;
pub use others::Coverage;
use others::Others;
use ports::View;

/// Asks the readers, one sample at a time.
#[derive(Debug)]
pub struct Sampler {
    reader: Reader,
    counts: Counts,
    listeners: Listeners,
    others: Others,
    journal: Journal,
    activity: Activity,
    /// The host's counters when counting began; `None` where they cannot be read.
    audit_start: Option<HostCounters>,
    health: Health,
    losses: Losses,
}

impl Sampler {
    /// A sampler of these readers. `audit_start` are the host's counters, read when counting began.
    #[must_use]
    pub fn new(
        reader: Reader,
        counts: Counts,
        owners: Owners,
        namespaces: Namespaces,
        audit_start: Option<HostCounters>,
    ) -> Self {
        Self {
            reader,
            counts,
            listeners: Listeners::new(owners),
            others: Others::new(namespaces),
            journal: Journal::new(),
            activity: Activity::default(),
            audit_start,
            health: Health::default(),
            losses: Losses::default(),
        }
    }

    /// How counting is done.
    #[must_use]
    pub const fn counts(&self) -> &Counts {
        &self.counts
    }

    /// The last event of each port that had one, the newest first; see [`crate::events::MOST`].
    pub fn last_events(&self) -> impl Iterator<Item = (Port, &LastEvent)> {
        self.journal.last_events()
    }

    /// Takes up a new watch set; counters stay.
    ///
    /// # Errors
    /// When the socket table cannot be read, without which what is open on newly watched ports could not be told from what
    /// opens next. The watch set is then as it was.
    pub fn watch(&mut self, watched: &PortSet) -> Result<(), sockets::Error> {
        let present = if self.counts.needs_table_to_watch() {
            self.read_table(watched)?
        } else {
            SocketTable::default()
        };
        self.counts.watch(watched, &present);
        Ok(())
    }

    /// Takes one sample.
    pub fn sample<'a>(
        &mut self,
        config: &'a Config,
        reload: Reload,
        now: SystemTime,
    ) -> Snapshot<'a> {
        let ephemeral = ephemeral::udp_ports();
        let told_before = self.counts.listener_events();
        let table = self.read_sockets(config.watch.ports(), now);
        let others = self.others.read(config);
        let mut lit = table.as_ref().map(|table| {
            self.listeners
                .look_up(config, table, &others.tables, &ephemeral, &mut self.health)
        });
        let news = News {
            events: [told_before, self.counts.listener_events()],
            closed: self.counts.closed_listeners(),
        };
        let departures = self
            .listeners
            .departures(config, news, table.as_ref(), &ephemeral);
        let mut trace = |listener: &_| self.listeners.trace(listener);
        let lit_now = lit.as_deref().unwrap_or_default();
        self.journal
            .note_departures(&departures, lit_now, &mut trace);
        if let Some(lit) = &lit {
            let watched = config.watch.ports();
            self.journal
                .note(lit, watched, &others.coverage, now, &mut trace);
        }
        let view = table.as_ref().zip(lit.as_deref());
        let view = view.map(|(table, lit)| {
            View::of(table, lit, |listener| {
                ephemeral.contains(listener.port)
                    && !config.watch.ports().contains(listener.port)
                    && !self.counts.was_bound(listener)
            })
        });
        let (shown, watched_suppressed) =
            self.shown(config, view.as_ref(), lit.as_deref(), &ephemeral);
        let watched = self.watched(config, view.as_ref(), &shown);
        let space = self.space(config, view.as_ref());
        let audit = self.audit(space.accepted.as_ref());
        let lost = self.counts.lost();
        self.losses.note(&lost);
        let listeners_suppressed = lit
            .as_mut()
            .map(|lit| listeners::limit(lit, &config.limits));
        Snapshot {
            tier: self.counts.tier(),
            watched,
            watched_suppressed,
            listeners: lit,
            listeners_suppressed,
            namespaces: others.covered,
            space,
            lost,
            audit,
            collectors: self.health.take(),
            reload,
            web: Web::default(),
        }
    }

    fn read_sockets(&mut self, watched: &PortSet, now: SystemTime) -> Option<SocketTable> {
        let start = Instant::now();
        self.counts.before_read();
        let read = self.read_table(watched);
        let table = self.health.judge(Collector::Sockets, start, read);
        let start = Instant::now();
        self.counts.after_read(table.as_ref(), now);
        if let Some((collector, is_alive)) = self.counts.collector() {
            self.health.note(collector, start, is_alive);
        }
        table
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
        self.reader.read(wanted)
    }

    /// The watched ports that have series, ascending, and how many have none for lack of room: TCP, UDP.
    fn shown(
        &mut self,
        config: &Config,
        view: Option<&View>,
        lit: Option<&[Lit<'_>]>,
        ephemeral: &PortSet,
    ) -> (Vec<Port>, [u64; 2]) {
        let used = self.counts.used();
        let listed = lit.into_iter().flatten().filter(|lit| lit.netns.is_empty());
        let listed = listed.map(|lit| lit.listener.port).collect();
        let active = self
            .activity
            .shown(config.watch.active(), &used, &listed, ephemeral);
        let (mut shown, suppressed) = ports::limit(&active, view, config);
        shown.extend(config.watch.dense_ports());
        shown.sort_unstable();
        (shown, suppressed)
    }

    fn watched<'a>(
        &self,
        config: &'a Config,
        view: Option<&View>,
        shown: &[Port],
    ) -> Vec<Watched<'a>> {
        let row = |&port: &Port| Watched {
            port,
            watch: config.watch.owner(port).map_or("", |watch| &watch.name),
            service_name: config.registry.service_name(port),
            assignment: config.registry.assignment(port),
            listening: view.map(|view| view.lit.contains(port)),
            unexpected: view.map(|view| view.unexpected.contains(port)),
            counts: self.port_counts(port, view.is_some()),
        };
        shown.iter().map(row).collect()
    }

    /// What the tier counted; what it takes from the table is unknown where the table could not be read.
    fn port_counts(&self, port: Port, is_table_read: bool) -> PortCounts {
        let counts = self.counts.counts(port);
        PortCounts {
            connections: counts
                .connections
                .filter(|_| is_table_read || !self.counts.wants_connections()),
            ..counts
        }
    }

    fn audit(&mut self, accepted: Option<&ByClass>) -> Vec<Audit> {
        let Some(first) = self.audit_start else {
            return Vec::new();
        };
        let start = Instant::now();
        // Ours first: what comes between the two is in the host's number and not in ours.
        let accepted = self.counts.accepted(accepted);
        let udp_refused = self.counts.udp_refused();
        let read = HostCounters::read();
        let Some(counters) = self.health.judge(Collector::Audit, start, read) else {
            return Vec::new();
        };
        let host = counters.since(first);
        vec![
            Audit {
                what: "passive_opens",
                host: host.passive_opens,
                counted: accepted,
            },
            Audit {
                what: "udp_no_ports",
                host: host.udp_no_ports,
                counted: udp_refused,
            },
        ]
    }

    fn space(&mut self, config: &Config, view: Option<&View>) -> Space {
        let registry = &config.registry;
        let lit = view.map(|view| {
            let mut lights = Lights::default();
            for port in view.sure.iter() {
                lights.classes.add(port, registry.class(port), 1);
                lights.blocks.add(port, 1);
                lights.ports.insert(port);
            }
            lights
        });
        let (accepted, knocks) = self.counts.space(registry);
        Space {
            ports: ByClass(registry.class_sizes().map(|sizes| sizes.map(u64::from))),
            lit,
            accepted,
            knocks,
        }
    }
}
