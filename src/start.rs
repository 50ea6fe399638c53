//! Start-up: which reader and which tier work on this host, and why not the better ones.

use std::net::SocketAddr;
use std::path::Path;

use crate::args;
use crate::audit::HostCounters;
use crate::config::Config;
use crate::counts::{Counts, Tier, polled::Polled};
use crate::owners::Owners;
use crate::sampler::Sampler;
use crate::sockets::{self, Reader};

/// Why nothing could be started.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No reader gives a socket table.
    #[error("no socket table")]
    Sockets(#[source] sockets::Error),
}
