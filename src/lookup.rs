//! `lookup`: what the registry says of a port, what listens there now, and what an exporter that runs tells of it, for a
//! person at a terminal.
//!
//! It sees for itself what listens, as whoever calls it may. What was before it began, above all who it was that listened
//! for a moment, only an exporter knows that was there: it is asked for its `/api/v1/ports`. Without one, the answer is what
//! lookup sees itself.

use std::sync::Arc;

use crate::owners::Owner;
use crate::port::Port;
use crate::registry::Registry;
use crate::sockets::Listener;

mod exporter;
mod json;
mod table;
pub mod told;

pub use exporter::{Error, ExporterUrl, UrlError, ask};
pub use json::json;
pub use table::table;
use told::Told;

/// What listens on this host, with owners.
pub type Now = Vec<(Listener, Arc<Owner>)>;

/// What is asked, and all that the answer is made of.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// The ports, in the order of the answer.
    pub ports: &'a [Port],
    /// What is known of them beforehand.
    pub registry: &'a Registry,
    /// `None` where the socket table could not be read: then the answer says so instead of calling a port dark.
    pub now: Option<&'a Now>,
    /// What the exporter tells.
    pub told: Exporter<'a>,
}

/// The exporter's part.
#[derive(Clone, Copy, Debug)]
pub enum Exporter<'a> {
    /// It tells of its ports.
    Told {
        /// Where it was asked.
        url: &'a ExporterUrl,
        /// What it told.
        told: &'a Told,
    },
    /// It tells nothing.
    Silent {
        /// Where it was asked.
        url: &'a ExporterUrl,
        /// Why.
        why: &'a str,
    },
    /// Nobody wanted to know.
    NotAsked,
}

impl<'a> Question<'a> {
    /// What listens on a port now; `None` where that is not known.
    fn listeners(&self, port: Port) -> Option<Vec<(&'a Listener, &'a Owner)>> {
        let of_port = self
            .now?
            .iter()
            .filter(|(listener, _)| listener.port == port);
        Some(
            of_port
                .map(|(listener, owner)| (listener, &**owner))
                .collect(),
        )
    }
}

impl<'a> Exporter<'a> {
    const fn ok(self) -> Option<&'a Told> {
        match self {
            Self::Told { told, .. } => Some(told),
            Self::Silent { .. } | Self::NotAsked => None,
        }
    }
}
