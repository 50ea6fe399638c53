//! Which ports of `active` watch entries have series.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::port::PortSet;
use crate::sockets::{Listener, ListenerKey};

/// Remembers on which ports this host has listened, accepted or connected.
///
/// A UDP client that sends without connecting holds a socket on an ephemeral port that looks like a listener, and a
/// remote host can make some programs open many. So what a tier says of UDP ports in the ephemeral range does not count here,
/// but only listeners that [`Clients`] let through.
#[derive(Debug, Default)]
pub(super) struct Activity {
    used: PortSet,
}

impl Activity {
    /// The ports of `active` to be shown: those of listeners that are `listed`, and those that were `used`, now or before.
    /// `ephemeral` holds the UDP ports from which clients speak.
    pub(super) fn shown(
        &mut self,
        active: &PortSet,
        used: &PortSet,
        listed: &PortSet,
        ephemeral: &PortSet,
    ) -> PortSet {
        let mut sure = used.clone();
        sure.subtract(ephemeral);
        sure.unite(listed);
        self.used.unite(&sure);
        self.used.intersect(active);
        self.used.clone()
    }
}

/// Remembers the sockets that may be clients': UDP sockets on ephemeral ports that no dense watch entry names.
///
/// A client's socket lives for an answer. Listing it would make a series a socket, and finding its owner a look through all
/// processes a sample, as often as somebody makes this host resolve a name. So such a socket is listed once it has been seen
/// for [`PATIENCE`].
#[derive(Debug, Default)]
pub(super) struct Clients {
    since: HashMap<ListenerKey, Instant>,
}

/// How long a socket that may be a client's is left alone.
const PATIENCE: Duration = Duration::from_secs(60);

impl Clients {
    /// Keeps the sockets to be listed. `may_be_client` tells which have to have been there for a while.
    pub(super) fn sift<'l, T>(
        &mut self,
        now: Instant,
        listeners: Vec<(T, &'l Listener)>,
        may_be_client: impl Fn(&Listener) -> bool,
    ) -> Vec<(T, &'l Listener)> {
        let mut since = HashMap::new();
        let listed = listeners.into_iter().filter(|(_, listener)| {
            if !may_be_client(listener) {
                return true;
            }
            let key = listener.key();
            let first = self.since.get(&key).copied().unwrap_or(now);
            since.insert(key, first);
            now.duration_since(first) >= PATIENCE
        });
        let listed = listed.collect();
        self.since = since;
        listed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::port::Port;

    #[test]
    fn a_client_is_listed_when_it_has_been_there_for_a_while() {
        let socket = |cookie| Listener {
            port: Port::udp(40_000),
            address: std::net::Ipv4Addr::UNSPECIFIED.into(),
            cookie: std::num::NonZeroU64::new(cookie),
            inode: None,
            uid: None,
            cgroup: None,
        };
        let (first, second) = (socket(1), socket(2));
        let start = Instant::now();
        let mut clients = Clients::default();
        let mut sift = |seconds, listeners: &[&Listener], may_be_client: bool| {
            let listeners = listeners.iter().map(|&each| ((), each)).collect();
            let now = start + Duration::from_secs(seconds);
            clients.sift(now, listeners, |_| may_be_client).len()
        };
        assert_eq!(sift(0, &[&first], true), 0);
        assert_eq!(sift(59, &[&first, &second], true), 0);
        assert_eq!(sift(60, &[&first, &second], true), 1);
        assert_eq!(sift(119, &[&second], true), 1);
        assert_eq!(sift(120, &[&first], true), 0, "it was away for a sample");
        assert_eq!(sift(121, &[&first, &second], false), 2);
    }

    fn set(ports: &[Port]) -> PortSet {
        ports.iter().copied().collect()
    }

    #[test]
    fn a_port_that_was_used_once_stays() {
        let mut activity = Activity::default();
        let ephemeral = (32_768..=60_999).map(Port::udp).collect();
        let mut shown = |active: &PortSet, used: &[Port], listed: &[Port]| -> Vec<Port> {
            let shown = activity.shown(active, &set(used), &set(listed), &ephemeral);
            shown.iter().collect()
        };
        let all = PortSet::full();
        let (tcp, udp, client) = (Port::tcp(40_000), Port::udp(5353), Port::udp(40_000));
        assert_eq!(shown(&all, &[tcp], &[udp]), [tcp, udp]);
        assert_eq!(shown(&all, &[], &[]), [tcp, udp]);
        assert_eq!(
            shown(&all, &[client], &[]),
            [tcp, udp],
            "a client leaves no trace"
        );
        assert_eq!(shown(&all, &[], &[client]), [tcp, udp, client]);
        assert_eq!(
            shown(&set(&[udp]), &[], &[]),
            [udp],
            "only active ports are shown"
        );
    }
}
