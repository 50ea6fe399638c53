//! Every listener with its owner and whether it may be there.

use std::sync::Arc;
use std::time::Instant;

use super::activity::Clients;
use super::brief::{Brief, News};
use super::health::Health;
use crate::config::{Config, Limits};
use crate::events::{Cgroup, Departure, Trace};
use crate::owners::{Owner, Owners};
use crate::port::{Port, PortSet};
use crate::snapshot::{Collector, Lit};
use crate::sockets::{Listener, SocketTable};
use crate::watch::Facts;

/// Finds out about listeners.
#[derive(Debug)]
pub(super) struct Listeners {
    owners: Owners,
    clients: Clients,
    /// The `netns` label of the exporter's own namespace.
    own: Arc<str>,
    brief: Brief,
}

impl Listeners {
    pub(super) fn new(owners: Owners) -> Self {
        Self {
            owners,
            clients: Clients::default(),
            own: Arc::from(""),
            brief: Brief::new(),
        }
    }

    /// The listeners of the own namespace and of the others, the most important first.
    pub(super) fn look_up<'a>(
        &mut self,
        config: &'a Config,
        own: &SocketTable,
        others: &[(Arc<str>, SocketTable)],
        ephemeral: &PortSet,
        health: &mut Health,
    ) -> Vec<Lit<'a>> {
        let start = Instant::now();
        let listeners: Vec<(&Arc<str>, &Listener)> = std::iter::once((&self.own, own))
            .chain(others.iter().map(|(netns, table)| (netns, table)))
            .flat_map(|(netns, table)| table.listeners.iter().map(move |each| (netns, each)))
            .collect();
        let listeners = self.clients.sift(start, listeners, |listener| {
            may_be_client(config, ephemeral, listener.port)
        });
        let resolution = self.owners.resolve(listeners.iter().map(|(_, each)| *each));
        if resolution.unknown > 0 && health.begins_to_fail(Collector::Owners) {
            tracing::warn!(
                unknown = resolution.unknown,
                reason = %resolution.coverage,
                "owners of listeners are unknown; their labels are empty"
            );
        }
        health.note(Collector::Owners, start, resolution.unknown == 0);
        let mut lit: Vec<Lit<'a>> = listeners
            .into_iter()
            .zip(resolution.owners)
            .map(|((netns, listener), owner)| judged(config, listener, owner, netns))
            .collect();
        lit.sort_by(|a, b| importance(a).cmp(&importance(b)));
        lit
    }

    /// Listeners on watched ports that are known to have closed, see [`Brief::departures`].
    pub(super) fn departures<'a>(
        &mut self,
        config: &'a Config,
        news: News,
        table: Option<&SocketTable>,
        ephemeral: &PortSet,
    ) -> Vec<Departure<'a>> {
        self.brief
            .departures(config, &mut self.owners, news, table, ephemeral)
    }

    /// What is known of a listener beside its owner.
    pub(super) fn trace(&mut self, listener: &Listener) -> Trace {
        let (opened_at, closed_at) = self.brief.moments(listener);
        Trace {
            opened_at,
            closed_at,
            cgroup: listener.cgroup.map(|id| Cgroup {
                id: id.get(),
                path: self.owners.group(id),
            }),
        }
    }
}

/// Whether a socket on this port may be a client's: a UDP port of the ephemeral range that no dense entry names.
pub(super) fn may_be_client(config: &Config, ephemeral: &PortSet, port: Port) -> bool {
    ephemeral.contains(port)
        && (config.watch.owner(port).is_none() || config.watch.active().contains(port))
}

/// A listener with what the watch set says of it.
pub(super) fn judged<'a>(
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
pub(super) fn limit(lit: &mut Vec<Lit<'_>>, limits: &Limits) -> u64 {
    lit.dedup_by(|a, b| {
        (a.listener.port, a.listener.address) == (b.listener.port, b.listener.address)
            && shown_owner(a) == shown_owner(b)
    });
    let cut = lit.len().saturating_sub(limits.listeners);
    lit.truncate(limits.listeners);
    cut as u64
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;
    use std::path::Path;

    use super::*;

    fn listener(number: u16) -> Listener {
        Listener {
            port: Port::tcp(number),
            address: std::net::Ipv4Addr::UNSPECIFIED.into(),
            cookie: NonZeroU64::new(u64::from(number)),
            inode: None,
            uid: None,
            cgroup: None,
        }
    }

    #[test]
    fn the_unexpected_come_first_then_the_watched_then_by_port() {
        let text = "watch:\n- {name: strict, ports: [30, 40]}\n- {name: open, ports: [50], expect: [{address: \"*\"}]}\n";
        let config = Config::parse("a test", text, Path::new("")).unwrap();
        let owner = Arc::new(Owner::Unknown { creator: None });
        let netns: Arc<str> = Arc::from("");
        let judge = |number| judged(&config, &listener(number), Arc::clone(&owner), &netns);
        let mut lit: Vec<Lit<'_>> = [20, 50, 40, 10, 30, 10].into_iter().map(judge).collect();
        lit.sort_by(|a, b| importance(a).cmp(&importance(b)));
        let limits = |listeners| Limits {
            series: 0,
            listeners,
        };
        let numbers = |lit: &[Lit<'_>]| -> Vec<u16> {
            lit.iter().map(|lit| lit.listener.port.number).collect()
        };
        assert_eq!(limit(&mut lit, &limits(10)), 0);
        assert_eq!(
            numbers(&lit),
            [30, 40, 50, 10, 20],
            "alike in all that is shown: once"
        );
        assert_eq!(limit(&mut lit, &limits(3)), 2);
        assert_eq!(numbers(&lit), [30, 40, 50]);
    }
}
