//! Which connections concern a watched port: the definition that stands at [`Wanted::Connections`](super::Wanted::Connections).

use super::{Connection, Listener};
use crate::port::{Port, PortSet};

/// The watched ports, beside those that tell an inbound connection from an outbound one.
#[derive(Debug)]
pub(super) struct Concern<'a> {
    watched: &'a PortSet,
    /// The ports listened on now, and the watched ones that were earlier. An unwatched one that was is left out, so that what
    /// outlives its listener is shown and can be known to have come in.
    open: PortSet,
}

impl<'a> Concern<'a> {
    pub(super) fn new(watched: &'a PortSet, open: PortSet) -> Self {
        Self { watched, open }
    }

    pub(super) fn of(watched: &'a PortSet, listened: &PortSet, listeners: &[Listener]) -> Self {
        let mut open = listened.clone();
        open.intersect(watched);
        open.extend(listeners.iter().map(|listener| listener.port));
        Self::new(watched, open)
    }

    pub(super) fn watched(&self) -> &PortSet {
        self.watched
    }

    pub(super) fn open(&self) -> &PortSet {
        &self.open
    }

    pub(super) fn is_watched(&self, number: u16) -> bool {
        self.watched.contains(Port::tcp(number))
    }

    pub(super) fn is_open(&self, number: u16) -> bool {
        self.open.contains(Port::tcp(number))
    }

    /// Whether a connection between these TCP ports does.
    pub(super) fn includes(&self, local: u16, remote: u16) -> bool {
        if self.is_open(local) {
            self.is_watched(local)
        } else {
            self.is_watched(remote)
        }
    }

    /// Whether this connection does.
    pub(super) fn covers(&self, connection: &Connection) -> bool {
        self.includes(connection.local.port(), connection.remote.port())
    }
}

/// Whether a watched port is at either end: all that can be said before the listeners are known.
pub(super) fn touches(watched: &PortSet, connection: &Connection) -> bool {
    [connection.local, connection.remote]
        .iter()
        .any(|end| watched.contains(Port::tcp(end.port())))
}
