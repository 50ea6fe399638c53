//! Every listener with its owner and whether it may be there.

use std::sync::Arc;
use std::time::Instant;

use super::activity::Clients;
use super::health::Health;
use crate::config::{Config, Limits};
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
    unknown: Arc<Owner>,
}

impl Listeners {
    pub(super) fn new(owners: Owners) -> Self {
        Self {
            owners,
            clients: Clients::default(),
            own: Arc::from(""),
            unknown: Arc::new(Owner::Unknown { creator: None }),
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
        let listeners = self.clients.sift(listeners, |listener| {
            ephemeral.contains(listener.port) && config.watch.owner(listener.port).is_none()
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

    /// Listeners on watched ports that have closed, also such as no table has shown. Those that may have been a client's are
    /// left out: a host that resolves names opens hundreds a second.
    pub(super) fn closed<'a>(
        &self,
        config: &'a Config,
        closed: &[Listener],
        ephemeral: &PortSet,
    ) -> Vec<Lit<'a>> {
        let may_be_client =
            |port: Port| ephemeral.contains(port) && config.watch.active().contains(port);
        closed
            .iter()
            .filter(|listener| !may_be_client(listener.port))
            .map(|listener| judged(config, listener, Arc::clone(&self.unknown), &self.own))
            .collect()
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
pub(super) fn limit(lit: &mut Vec<Lit<'_>>, limits: &Limits) -> u64 {
    lit.dedup_by(|a, b| {
        (a.listener.port, a.listener.address) == (b.listener.port, b.listener.address)
            && shown_owner(a) == shown_owner(b)
    });
    let cut = lit.len().saturating_sub(limits.listeners);
    lit.truncate(limits.listeners);
    cut as u64
}
