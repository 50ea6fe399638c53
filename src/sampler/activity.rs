//! Which ports of `active` watch entries have series.

use crate::port::PortSet;

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::port::Port;

    fn set(ports: &[Port]) -> PortSet {
        ports.iter().copied().collect()
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
