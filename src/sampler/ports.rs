//! Which watched ports have series, and which are lit.

use crate::config::{Config, series_per_port};
use crate::port::{Port, PortSet};
use crate::snapshot::Lit;
use crate::sockets::SocketTable;

/// Which ports are lit in the exporter's own network namespace.
pub(super) struct View {
    pub(super) lit: PortSet,
    pub(super) unexpected: PortSet,
}

impl View {
    pub(super) fn of(table: &SocketTable, lit: &[Lit<'_>]) -> Self {
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

/// As many active ports as the limit of series allows beside the dense ones, the lit ones first; and how many were cut.
pub(super) fn limit(
    shown: &PortSet,
    view: Option<&View>,
    config: &Config,
) -> (Vec<Port>, [u64; 2]) {
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
