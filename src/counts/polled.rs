//! The `polled` tier: counts from the difference of two socket tables.
//!
//! What begins and ends between two samples is never seen, so every counter here is a lower bound, but for one thing: a
//! connection whose listener no table has shown looks like an outbound one. It needs nothing but
//! a reader, and is the only tier off Linux. What is in the first table, or on a port that a reload has just added,
//! was there before anyone counted and is not counted.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::time::SystemTime;

use super::PortCounts;
use crate::port::{Port, PortSet, Protocol};
use crate::sockets::{Connection, Listener, ListenerKey, SocketTable};

/// The counters of the tier.
#[derive(Debug)]
pub struct Polled {
    watched: PortSet,
    /// Watched ports of which no table has been seen yet: what is there first is not counted.
    unseen: PortSet,
    tallies: HashMap<Port, Tally>,
    connections: HashSet<ConnectionKey>,
    listeners: HashSet<ListenerKey>,
    /// TCP ports that are listened on, or were and still have connections.
    listened: PortSet,
    used: PortSet,
}

#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    accepted: u64,
    outbound: u64,
    opened: u64,
    opened_at: Option<SystemTime>,
    connections: u64,
}

/// Tells one connection from another; the addresses where the reader knows no cookie. Boxed, because a host may have
/// 200,000 connections, and nearly always they have cookies.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum ConnectionKey {
    Cookie(NonZeroU64),
    Ends(Box<[SocketAddr; 2]>),
}

impl Polled {
    /// Counters at zero, for these watched ports.
    #[must_use]
    pub fn new(watched: &PortSet) -> Self {
        Self {
            watched: watched.clone(),
            unseen: watched.clone(),
            tallies: HashMap::new(),
            connections: HashSet::new(),
            listeners: HashSet::new(),
            listened: PortSet::new(),
            used: PortSet::new(),
        }
    }

    /// Takes up a new watch set. Ports that stay watched keep their counters, and those that come back find theirs.
    pub fn watch(&mut self, watched: &PortSet) {
        let mut fresh = watched.clone();
        fresh.subtract(&self.watched);
        self.unseen.unite(&fresh);
        self.watched = watched.clone();
    }

    /// TCP ports that were listened on when last seen, or that still have connections from then.
    #[must_use]
    pub const fn listened(&self) -> &PortSet {
        &self.listened
    }

    /// Ports on which this host has listened, accepted or connected since start.
    #[must_use]
    pub const fn used(&self) -> &PortSet {
        &self.used
    }

    /// Counts what is new in the table.
    pub fn update(&mut self, table: &SocketTable, now: SystemTime) {
        for tally in self.tallies.values_mut() {
            tally.connections = 0;
        }
        let listening = self.count_listeners(&table.listeners, now);
        self.count_connections(&table.connections, listening);
        self.unseen = PortSet::new();
    }

    /// What was counted on a port.
    #[must_use]
    pub fn counts(&self, port: Port) -> PortCounts {
        let tally = self.tallies.get(&port).copied().unwrap_or_default();
        let tcp = |count| (port.protocol == Protocol::Tcp).then_some(count);
        PortCounts {
            accepted: tcp(tally.accepted),
            outbound: tcp(tally.outbound),
            opened: Some(tally.opened),
            opened_at: tally.opened_at,
            connections: tcp(tally.connections),
            ..PortCounts::default()
        }
    }

    /// Counts new listeners; gives the TCP ports that are listened on now.
    fn count_listeners(&mut self, listeners: &[Listener], now: SystemTime) -> PortSet {
        let mut listening = PortSet::new();
        let mut present = HashSet::with_capacity(listeners.len());
        for listener in listeners {
            let key = listener.key();
            present.insert(key);
            if listener.port.protocol == Protocol::Tcp {
                listening.insert(listener.port);
            }
            if !self.watched.contains(listener.port) {
                continue;
            }
            self.used.insert(listener.port);
            if !self.listeners.contains(&key) && !self.unseen.contains(listener.port) {
                let tally = self.tallies.entry(listener.port).or_default();
                tally.opened += 1;
                tally.opened_at = Some(now);
            }
        }
        self.listeners = present;
        self.listened.unite(&listening);
        listening
    }

    fn count_connections(&mut self, connections: &[Connection], listening: PortSet) {
        let mut present = HashSet::with_capacity(connections.len());
        let mut inhabited = listening;
        for connection in connections {
            let local = Port::tcp(connection.local.port());
            let inbound = self.listened.contains(local);
            let port = if inbound {
                inhabited.insert(local);
                local
            } else {
                Port::tcp(connection.remote.port())
            };
            if !self.watched.contains(port) {
                continue;
            }
            self.used.insert(port);
            let key = ConnectionKey::of(connection);
            let is_new = !self.connections.contains(&key) && !self.unseen.contains(port);
            present.insert(key);
            let tally = self.tallies.entry(port).or_default();
            if inbound {
                tally.accepted += u64::from(is_new);
                tally.connections += u64::from(connection.established);
            } else {
                tally.outbound += u64::from(is_new);
            }
        }
        self.connections = present;
        // A port without a listener and without a connection from its time is free to be a client's again.
        self.listened = inhabited;
    }
}

impl ConnectionKey {
    fn of(connection: &Connection) -> Self {
        match connection.cookie {
            Some(cookie) => Self::Cookie(cookie),
            None => Self::Ends(Box::new([connection.local, connection.remote])),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{IpAddr, Ipv4Addr};
    use std::time::{Duration, UNIX_EPOCH};

    const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    fn listener(port: Port, cookie: u64) -> Listener {
        Listener {
            port,
            address: HERE,
            cookie: NonZeroU64::new(cookie),
            inode: None,
            uid: None,
            cgroup: None,
        }
    }

    fn connection(local: u16, remote: u16, cookie: u64) -> Connection {
        Connection {
            local: (HERE, local).into(),
            remote: (HERE, remote).into(),
            established: true,
            cookie: NonZeroU64::new(cookie),
        }
    }

    fn table(listeners: Vec<Listener>, connections: Vec<Connection>) -> SocketTable {
        SocketTable {
            listeners,
            connections,
            skipped: 0,
        }
    }

    fn at(second: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(second)
    }

    fn watching(ports: &[Port]) -> Polled {
        Polled::new(&ports.iter().copied().collect())
    }

    #[test]
    fn what_was_there_first_is_not_counted() {
        let port = Port::tcp(3476);
        let mut polled = watching(&[port]);
        let full = table(vec![listener(port, 1)], vec![connection(3476, 50_000, 2)]);
        polled.update(&full, at(1));
        polled.update(&full, at(2));
        let counts = polled.counts(port);
        assert_eq!(counts.opened, Some(0));
        assert_eq!(counts.opened_at, None);
        assert_eq!(counts.accepted, Some(0));
        assert_eq!(counts.connections, Some(1));
        assert!(polled.used().contains(port));
    }

    #[test]
    fn a_loopback_connection_is_accepted_once_and_outbound_once() {
        let port = Port::tcp(3476);
        let mut polled = watching(&[port]);
        polled.update(&table(vec![listener(port, 1)], vec![]), at(1));
        let both = vec![connection(3476, 50_000, 2), connection(50_000, 3476, 3)];
        polled.update(&table(vec![listener(port, 1)], both.clone()), at(2));
        polled.update(&table(vec![listener(port, 1)], both), at(3));
        let counts = polled.counts(port);
        assert_eq!((counts.accepted, counts.outbound), (Some(1), Some(1)));
        assert_eq!(counts.connections, Some(1));
    }

    #[test]
    fn a_client_port_that_is_watched_is_not_an_inbound_connection() {
        let mut polled = watching(&[Port::tcp(40_000), Port::tcp(443)]);
        polled.update(&table(vec![], vec![]), at(1));
        polled.update(&table(vec![], vec![connection(40_000, 443, 2)]), at(2));
        assert_eq!(polled.counts(Port::tcp(40_000)).accepted, Some(0));
        assert_eq!(polled.counts(Port::tcp(443)).outbound, Some(1));
        assert!(!polled.used().contains(Port::tcp(40_000)));
    }

    #[test]
    fn a_connection_outlives_its_listener() {
        let port = Port::tcp(3476);
        let mut polled = watching(&[port]);
        polled.update(&table(vec![listener(port, 1)], vec![]), at(1));
        polled.update(&table(vec![], vec![]), at(2));
        assert!(!polled.listened().contains(port));
        let open = vec![connection(3476, 50_000, 2)];
        polled.update(&table(vec![listener(port, 4)], open.clone()), at(3));
        polled.update(&table(vec![], open), at(4));
        assert!(polled.listened().contains(port));
        let counts = polled.counts(port);
        assert_eq!((counts.accepted, counts.connections), (Some(1), Some(1)));
        assert_eq!((counts.opened, counts.opened_at), (Some(1), Some(at(3))));
        polled.update(&table(vec![], vec![]), at(5));
        assert_eq!(polled.counts(port).connections, Some(0));
        assert!(!polled.listened().contains(port));
    }

    #[test]
    fn a_reload_keeps_counters_and_starts_new_ports_from_what_is_there() {
        let (old, new) = (Port::tcp(561), Port::udp(3476));
        let mut polled = watching(&[old]);
        polled.update(&table(vec![], vec![]), at(1));
        polled.update(
            &table(vec![listener(old, 1), listener(new, 2)], vec![]),
            at(2),
        );
        polled.watch(&[old, new].into_iter().collect());
        polled.update(
            &table(vec![listener(old, 1), listener(new, 2)], vec![]),
            at(3),
        );
        assert_eq!(polled.counts(old).opened, Some(1));
        assert_eq!(polled.counts(new).opened, Some(0));
        polled.update(&table(vec![listener(new, 3)], vec![]), at(4));
        assert_eq!(polled.counts(new).opened, Some(1));
        assert_eq!(polled.counts(new).accepted, None, "udp has no handshakes");
    }

    #[test]
    fn without_cookies_the_ends_tell_connections_apart() {
        let port = Port::tcp(3476);
        let mut polled = watching(&[port]);
        let listeners = || {
            vec![Listener {
                inode: Some(7),
                ..listener(port, 0)
            }]
        };
        polled.update(&table(listeners(), vec![]), at(1));
        polled.update(
            &table(listeners(), vec![connection(3476, 50_000, 0)]),
            at(2),
        );
        polled.update(
            &table(listeners(), vec![connection(3476, 50_001, 0)]),
            at(3),
        );
        assert_eq!(polled.counts(port).accepted, Some(2));
        assert_eq!(polled.counts(port).opened, Some(0));
    }
}
