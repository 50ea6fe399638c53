//! The arithmetic: what was counted, from sockets destroyed and tables of sockets present.
//!
//! Pure: messages and tables go in, numbers come out. Every socket is counted once, be it first seen in a table or in the
//! message of its end; its cookie tells whether it was seen before. What the first table held is seen without being
//! counted. The order in which things arrive does not matter but for one rule: a message that arrives while a table is
//! being read waits until the table is booked, because the table may still show the socket it speaks of.
//!
//! A connection came in if its local port was listened on, else it went out. A listener may have opened and closed since
//! the last table, and its end be told after that of its connections, or open while a table is being read: where neither
//! the ports nor the numbers of the destroyed socket decide, the connection waits for the next table. Once decided it stays
//! so, as a connection may outlive its listener by far: the other end chooses its own port, and would else choose one to
//! which this host then seems to have connected.

use std::collections::{HashMap, VecDeque};
use std::num::NonZeroU64;
use std::time::{Duration, SystemTime};

use crate::counts::PortCounts;
use crate::port::{Port, PortSet, Protocol};
use crate::sockets::{Connection, Listener, SocketTable};

use super::message::{Destroyed, Origin, Was};

/// Sockets that a table no longer shows and whose end was not told, kept at most. A socket that was reset is in no table
/// while its process holds the descriptor, and its end comes later; one whose message was lost never comes.
const MOST_ABSENT: usize = 65_536;
/// Undecided connections kept at most: pairs of ports, not connections.
const MOST_UNDECIDED: usize = 65_536;
/// Messages kept at most while a table is being read.
const MOST_HELD: usize = 1 << 20;
/// Closed listeners kept at most until they are fetched.
const MOST_CLOSED: usize = 65_536;
/// How long a port counts as listened on after its listener was last seen, besides until the table after the next.
const LINGER: Duration = Duration::from_secs(10);

/// What one port has seen.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    accepted: u64,
    outbound: u64,
    opened: u64,
    opened_at: Option<SystemTime>,
    connections: u64,
}

/// A connection that a table has shown and whose end was not told.
#[derive(Clone, Copy, Debug)]
struct Known {
    local: u16,
    remote: u16,
    seen: u64,
    /// `None` until it is settled, and counted where it is to be.
    way: Option<Way>,
}

/// Which way a connection went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    In,
    Out,
}

/// A listener whose end was not told.
#[derive(Clone, Debug)]
struct Open {
    listener: Listener,
    seen: u64,
}

/// When a TCP port was last known to be listened on.
#[derive(Clone, Copy, Debug)]
struct Listened {
    table: u64,
    at: SystemTime,
}

/// Connections of which it is not settled whether their local port was listened on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Undecided {
    local: u16,
    remote: Option<u16>,
    origin: Origin,
}

/// The books of the tier.
#[derive(Debug)]
pub(super) struct Ledger {
    watched: PortSet,
    tallies: HashMap<Port, Tally>,
    connections: HashMap<NonZeroU64, Known>,
    listeners: HashMap<NonZeroU64, Open>,
    /// By number: TCP ports of this host, watched or not.
    listened: HashMap<u16, Listened>,
    undecided: HashMap<Undecided, u64>,
    /// Connections that the last table was the first to show and that are not decided.
    waiting: Vec<NonZeroU64>,
    /// While a table is being read: what was told meanwhile.
    held: Option<Vec<(Destroyed, SystemTime)>>,
    /// And when.
    closed: VecDeque<(Listener, SystemTime)>,
    ever_listened: PortSet,
    used: PortSet,
    /// How many tables were booked.
    tables: u64,
}

impl Ledger {
    /// Opens the books on what is watched. What the table shows was there before and is not counted.
    pub(super) fn new(watched: PortSet, present: &SocketTable, now: SystemTime) -> Self {
        let mut ledger = Self {
            watched: PortSet::new(),
            tallies: HashMap::new(),
            connections: HashMap::new(),
            listeners: HashMap::new(),
            listened: HashMap::new(),
            undecided: HashMap::new(),
            waiting: Vec::new(),
            held: None,
            closed: VecDeque::new(),
            ever_listened: PortSet::new(),
            used: PortSet::new(),
            tables: 0,
        };
        ledger.watch(watched, present, now);
        ledger
    }

    /// Changes what is watched. What the table shows on a port not watched before was there before and is not counted.
    pub(super) fn watch(&mut self, watched: PortSet, present: &SocketTable, now: SystemTime) {
        let mut fresh = watched.clone();
        fresh.subtract(&self.watched);
        self.watched = watched;
        self.forget_unwatched();
        for listener in &present.listeners {
            self.note_listened(listener.port, now);
            if let Some(cookie) = listener.cookie
                && (fresh.contains(listener.port) || !self.watched.contains(listener.port))
            {
                let seen = self.tables;
                self.listeners.entry(cookie).or_insert_with(|| Open {
                    listener: listener.clone(),
                    seen,
                });
            }
        }
        for connection in &present.connections {
            let (local, remote) = ports(connection);
            let way = self.way(local);
            let side = Port::tcp(match way {
                Way::In => local,
                Way::Out => remote,
            });
            let is_fresh = fresh.contains(side);
            if let Some(cookie) = connection.cookie
                && (is_fresh || !self.watched.contains(side))
            {
                if is_fresh {
                    self.used.insert(side);
                }
                let seen = self.tables;
                self.connections.entry(cookie).or_insert(Known {
                    local,
                    remote,
                    seen,
                    way: Some(way),
                });
            }
        }
        self.count_established(&present.connections);
    }

    /// Counters stay, so that a port that is watched again goes on where it stopped.
    fn forget_unwatched(&mut self) {
        let watched = &self.watched;
        let is_watched = |number| watched.contains(Port::tcp(number));
        self.connections
            .retain(|_, known| is_watched(known.local) || is_watched(known.remote));
        self.listeners.retain(|_, open| {
            open.listener.port.protocol == Protocol::Tcp || watched.contains(open.listener.port)
        });
    }

    /// Says that a table is about to be read. Messages wait from here on.
    pub(super) fn hold(&mut self) {
        self.release();
        self.held = Some(Vec::new());
    }

    /// Says that no table came of it.
    pub(super) fn release(&mut self) {
        for (destroyed, at) in self.held.take().unwrap_or_default() {
            self.settle(&destroyed, at);
        }
    }

    /// Books the end of a socket.
    pub(super) fn book(&mut self, destroyed: Destroyed, now: SystemTime) {
        match &mut self.held {
            // A table takes milliseconds; whoever reads this long has forgotten to say how it ended.
            Some(held) if held.len() >= MOST_HELD => {
                self.release();
                self.settle(&destroyed, now);
            }
            Some(held) => held.push((destroyed, now)),
            None => self.settle(&destroyed, now),
        }
    }

    /// Books a table read since [`Self::hold`], then what was held back.
    pub(super) fn book_table(&mut self, table: &SocketTable, now: SystemTime) {
        let Some(held) = self.held.take() else {
            // Read without holding: it may show sockets whose end is booked.
            return;
        };
        self.tables += 1;
        let undecided = std::mem::take(&mut self.undecided);
        let waiting = std::mem::take(&mut self.waiting);
        for listener in &table.listeners {
            self.book_listener(listener, now);
        }
        for connection in &table.connections {
            self.book_connection(connection);
        }
        self.count_established(&table.connections);
        for (destroyed, at) in held {
            self.settle(&destroyed, at);
        }
        for (connections, count) in undecided {
            self.decide(connections, count);
        }
        for cookie in waiting {
            self.decide_known(cookie);
        }
        self.forget_absent(now);
    }

    fn book_listener(&mut self, listener: &Listener, now: SystemTime) {
        self.note_listened(listener.port, now);
        let Some(cookie) = listener.cookie else {
            return;
        };
        let open = Open {
            listener: listener.clone(),
            seen: self.tables,
        };
        if self.listeners.insert(cookie, open).is_none() {
            self.count_opened(listener.port, now);
        }
    }

    fn book_connection(&mut self, connection: &Connection) {
        let Some(cookie) = connection.cookie else {
            return;
        };
        let (local, remote) = ports(connection);
        let seen = self.tables;
        if let Some(known) = self.connections.get_mut(&cookie) {
            known.seen = seen;
            return;
        }
        let way = self.is_listened(local).then_some(Way::In);
        match way {
            Some(_) => {
                self.count(Port::tcp(local), 1, |tally| &mut tally.accepted);
            }
            None => self.waiting.push(cookie),
        }
        let known = Known {
            local,
            remote,
            seen,
            way,
        };
        self.connections.insert(cookie, known);
    }

    /// Decides a connection that the table before this one was the first to show: who listens or listened there is known by now.
    fn decide_known(&mut self, cookie: NonZeroU64) {
        let Some(known) = self.connections.get(&cookie).copied() else {
            return;
        };
        if known.way.is_some() {
            return;
        }
        let way = Some(self.way(known.local));
        self.connections.insert(cookie, Known { way, ..known });
        let connection = Undecided {
            local: known.local,
            remote: Some(known.remote),
            origin: Origin::Unproven,
        };
        self.decide(connection, 1);
    }

    fn settle(&mut self, destroyed: &Destroyed, now: SystemTime) {
        match destroyed.was {
            Was::Neither => {}
            Was::Listener => self.settle_listener(destroyed, now),
            Was::Connection {
                remote,
                synchronised,
                origin,
            } => {
                let known = self.connections.remove(&destroyed.cookie);
                let is_decided = known.is_some_and(|known| known.way.is_some());
                if !is_decided && (synchronised || known.is_some()) {
                    self.settle_connection(Undecided {
                        local: destroyed.port.number,
                        remote: known.map(|known| known.remote).or(remote),
                        origin,
                    });
                }
            }
        }
    }

    fn settle_listener(&mut self, destroyed: &Destroyed, now: SystemTime) {
        self.note_listened(destroyed.port, now);
        let known = self.listeners.remove(&destroyed.cookie);
        if !self.watched.contains(destroyed.port) {
            return;
        }
        if known.is_none() {
            self.count_opened(destroyed.port, now);
        }
        if self.closed.len() == MOST_CLOSED {
            self.closed.pop_front();
        }
        let listener = known.map_or_else(|| flash(destroyed), |open| open.listener);
        self.closed.push_back((listener, now));
    }

    fn settle_connection(&mut self, connection: Undecided) {
        let concerns = |number| self.watched.contains(Port::tcp(number));
        if !concerns(connection.local) && !connection.remote.is_some_and(concerns) {
            return;
        }
        let is_settled = connection.origin == Origin::Active || self.is_listened(connection.local);
        if is_settled || self.undecided.len() >= MOST_UNDECIDED {
            self.decide(connection, 1);
        } else {
            *self.undecided.entry(connection).or_insert(0) += 1;
        }
    }

    /// Counts connections by what is known now. The ports affirm; the numbers of the socket only deny, because they can
    /// prove who began a connection but not that it began while we counted.
    fn decide(&mut self, connection: Undecided, count: u64) {
        let is_listened = self.is_listened(connection.local);
        match (connection.origin, connection.remote) {
            (Origin::Passive | Origin::Unproven, _) if is_listened => {
                self.count(Port::tcp(connection.local), count, |tally| {
                    &mut tally.accepted
                });
            }
            (Origin::Active | Origin::Unproven, Some(remote)) => {
                self.count(Port::tcp(remote), count, |tally| &mut tally.outbound);
            }
            _ => {}
        }
    }

    fn count_opened(&mut self, port: Port, now: SystemTime) {
        if self.count(port, 1, |tally| &mut tally.opened) {
            // The newest is the last one booked, whatever the clock showed before: it may have been set back since.
            self.tallies.entry(port).or_default().opened_at = Some(now);
        }
    }

    /// Adds to a counter of a port; false where the port is not watched.
    fn count(&mut self, port: Port, count: u64, of: fn(&mut Tally) -> &mut u64) -> bool {
        let is_watched = self.watched.contains(port);
        if is_watched {
            *of(self.tallies.entry(port).or_default()) += count;
            self.used.insert(port);
        }
        is_watched
    }

    fn count_established(&mut self, connections: &[Connection]) {
        for tally in self.tallies.values_mut() {
            tally.connections = 0;
        }
        for connection in connections
            .iter()
            .filter(|connection| connection.established)
        {
            let local = connection.local.port();
            let known = connection.cookie.and_then(|it| self.connections.get(&it));
            let way = known.and_then(|known| known.way);
            if way.unwrap_or_else(|| self.way(local)) == Way::In {
                self.count(Port::tcp(local), 1, |tally| &mut tally.connections);
            }
        }
    }

    fn note_listened(&mut self, port: Port, now: SystemTime) {
        if port.protocol == Protocol::Tcp {
            let listened = Listened {
                table: self.tables,
                at: now,
            };
            self.listened.insert(port.number, listened);
        }
        if self.watched.contains(port) {
            self.ever_listened.insert(port);
            self.used.insert(port);
        }
    }

    fn is_listened(&self, number: u16) -> bool {
        self.listened.contains_key(&number)
    }

    /// Which way a connection from or to this local port went, by who listens there now.
    fn way(&self, local: u16) -> Way {
        if self.is_listened(local) {
            Way::In
        } else {
            Way::Out
        }
    }

    fn forget_absent(&mut self, now: SystemTime) {
        let tables = self.tables;
        self.listened.retain(|_, listened| {
            listened.table + 1 >= tables
                || now
                    .duration_since(listened.at)
                    .is_ok_and(|age| age < LINGER)
        });
        // The end of a listener on an unwatched UDP port is not told, nor that of one that has connected.
        self.listeners.retain(|_, open| {
            open.listener.port.protocol == Protocol::Tcp || open.seen + 2 > tables
        });
        forget_oldest(&mut self.connections, |known| known.seen, tables);
        forget_oldest(&mut self.listeners, |open| open.seen, tables);
    }

    /// What was counted on a port; nothing where it is not watched.
    pub(super) fn counts(&self, port: Port) -> PortCounts {
        if !self.watched.contains(port) {
            return PortCounts::default();
        }
        let tally = self.tallies.get(&port).copied().unwrap_or_default();
        let of_tcp = |count| (port.protocol == Protocol::Tcp).then_some(count);
        PortCounts {
            accepted: of_tcp(tally.accepted),
            outbound: of_tcp(tally.outbound),
            opened: Some(tally.opened),
            opened_at: tally.opened_at,
            connections: of_tcp(tally.connections),
            ..PortCounts::default()
        }
    }

    /// Connections accepted on every port that is or was watched.
    pub(super) fn accepted(&self) -> u64 {
        self.tallies.values().map(|tally| tally.accepted).sum()
    }

    /// The listeners on watched ports that closed since this was last asked, and when each did.
    pub(super) fn take_closed(&mut self) -> Vec<(Listener, SystemTime)> {
        std::mem::take(&mut self.closed).into()
    }

    /// Watched ports on which this host listened.
    pub(super) fn ever_listened(&self) -> &PortSet {
        &self.ever_listened
    }

    /// Watched ports on which this host listened or accepted, or to which it connected.
    pub(super) fn used(&self) -> &PortSet {
        &self.used
    }
}

fn ports(connection: &Connection) -> (u16, u16) {
    (connection.local.port(), connection.remote.port())
}

/// A listener known only by its end.
fn flash(destroyed: &Destroyed) -> Listener {
    Listener {
        port: destroyed.port,
        address: destroyed.address,
        cookie: Some(destroyed.cookie),
        inode: None,
        uid: None,
        cgroup: None,
    }
}

/// Forgets what has been absent longest, until no more than [`MOST_ABSENT`] absent ones are left.
fn forget_oldest<T>(sockets: &mut HashMap<NonZeroU64, T>, seen: fn(&T) -> u64, tables: u64) {
    let mut absent: Vec<u64> = sockets
        .values()
        .map(seen)
        .filter(|&table| table < tables)
        .collect();
    let Some(surplus) = absent
        .len()
        .checked_sub(MOST_ABSENT)
        .filter(|&surplus| surplus > 0)
    else {
        return;
    };
    let (_, &mut newest_to_go, _) = absent.select_nth_unstable(surplus - 1);
    sockets.retain(|_, socket| seen(socket) > newest_to_go);
}

#[cfg(test)]
mod tests;
