//! Which ports of `active` watch entries have series.

use std::collections::HashSet;

use crate::port::PortSet;
use crate::sockets::{Listener, ListenerKey};

/// Remembers on which ports this host has listened, accepted or connected.
///
/// A UDP client that sends without connecting holds a socket on an ephemeral port that looks like a listener, and a
/// remote host can make some programs open many, one after the other. So a UDP port of the ephemeral range is shown
/// while it is lit, and remembered only once it was lit in two samples in a row.
#[derive(Debug, Default)]
pub(super) struct Activity {
    used: PortSet,
    lit_last: PortSet,
}

impl Activity {
    /// The ports of `active` to be shown: those that are lit and those that were used. `lit` is `None` where the socket
    /// table could not be read; `ephemeral` holds the UDP ports from which clients speak.
    pub(super) fn shown(
        &mut self,
        active: &PortSet,
        used: &PortSet,
        lit: Option<&PortSet>,
        ephemeral: &PortSet,
    ) -> PortSet {
        let mut sure = used.clone();
        if let Some(lit) = lit {
            sure.unite(lit);
        }
        sure.intersect(active);
        sure.subtract(ephemeral);
        self.used.unite(&sure);
        self.used.intersect(active);

        let mut now = lit.cloned().unwrap_or_default();
        now.intersect(active);
        let mut twice = now.clone();
        twice.intersect(&self.lit_last);
        self.used.unite(&twice);
        let mut shown = self.used.clone();
        shown.unite(&now);
        if lit.is_some() {
            self.lit_last = now;
        }
        shown
    }
}

/// Remembers the sockets that may be clients': unwatched UDP sockets on ephemeral ports.
///
/// A client's socket that lives for one answer is in one sample at the most. Listing it would make a series a socket, and
/// finding its owner a look through all processes a sample, as often as somebody makes this host resolve a name. So such a
/// socket is listed from the second sample on that shows it.
#[derive(Debug, Default)]
pub(super) struct Clients {
    seen: HashSet<ListenerKey>,
}

impl Clients {
    /// Keeps the sockets to be listed. `may_be_client` tells which have to be seen twice.
    pub(super) fn sift<'l, T>(
        &mut self,
        listeners: Vec<(T, &'l Listener)>,
        may_be_client: impl Fn(&Listener) -> bool,
    ) -> Vec<(T, &'l Listener)> {
        let mut seen = HashSet::new();
        let listed = listeners.into_iter().filter(|(_, listener)| {
            if !may_be_client(listener) {
                return true;
            }
            let key = listener.key();
            seen.insert(key);
            self.seen.contains(&key)
        });
        let listed = listed.collect();
        self.seen = seen;
        listed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::port::Port;

    fn set(ports: &[Port]) -> PortSet {
        ports.iter().copied().collect()
    }

    #[test]
    fn a_client_is_listed_from_its_second_sample_on() {
        let socket = |cookie| Listener {
            port: Port::udp(40_000),
            address: std::net::Ipv4Addr::UNSPECIFIED.into(),
            cookie: std::num::NonZeroU64::new(cookie),
            inode: None,
            uid: None,
            cgroup: None,
        };
        let (first, second) = (socket(1), socket(2));
        let mut clients = Clients::default();
        let mut sift = |listeners: &[&Listener], may_be_client: bool| {
            let listeners = listeners.iter().map(|&each| ((), each)).collect();
            clients.sift(listeners, |_| may_be_client).len()
        };
        assert_eq!(sift(&[&first], true), 0);
        assert_eq!(sift(&[&first, &second], true), 1);
        assert_eq!(sift(&[&second], true), 1);
        assert_eq!(sift(&[&first], true), 0, "it was away for a sample");
        assert_eq!(sift(&[&first, &second], false), 2);
    }

    struct Host {
        activity: Activity,
        active: PortSet,
        ephemeral: PortSet,
    }

    impl Host {
        fn new() -> Self {
            Self {
                activity: Activity::default(),
                active: PortSet::full(),
                ephemeral: (32_768..=60_999).map(Port::udp).collect(),
            }
        }

        fn sample(&mut self, used: &[Port], lit: Option<&[Port]>) -> Vec<Port> {
            let lit = lit.map(set);
            self.activity
                .shown(&self.active, &set(used), lit.as_ref(), &self.ephemeral)
                .iter()
                .collect()
        }
    }

    #[test]
    fn a_port_that_was_lit_once_stays() {
        let mut host = Host::new();
        let ports = [Port::tcp(8080), Port::tcp(40_000), Port::udp(5353)];
        assert_eq!(host.sample(&[], Some(&ports)), ports);
        assert_eq!(host.sample(&[], Some(&[])), ports);
        assert_eq!(host.sample(&[], None), ports);
    }

    #[test]
    fn a_udp_client_leaves_no_trace() {
        let mut host = Host::new();
        let client = Port::udp(40_000);
        assert_eq!(host.sample(&[client], Some(&[client])), [client]);
        assert_eq!(host.sample(&[client], Some(&[])), []);
        assert_eq!(host.sample(&[client], Some(&[client])), [client]);
        assert_eq!(host.sample(&[client], Some(&[])), []);
    }

    #[test]
    fn a_udp_server_on_an_ephemeral_port_stays() {
        let mut host = Host::new();
        let server = Port::udp(40_000);
        host.sample(&[], Some(&[server]));
        host.sample(&[], Some(&[server]));
        assert_eq!(host.sample(&[], Some(&[])), [server]);
    }

    #[test]
    fn only_active_ports_are_shown() {
        let mut host = Host::new();
        let (active, other) = (Port::tcp(1024), Port::tcp(1025));
        host.sample(&[other], Some(&[active, other]));
        host.active = set(&[active]);
        assert_eq!(host.sample(&[], Some(&[])), [active]);
    }

    #[test]
    fn a_connection_alone_shows_its_port() {
        let mut host = Host::new();
        assert_eq!(
            host.sample(&[Port::tcp(5432)], Some(&[])),
            [Port::tcp(5432)]
        );
    }
}
