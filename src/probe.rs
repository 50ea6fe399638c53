//! The outside view: what a port answers to somebody who asks over the network.
//!
//! Knows how to ask and whom it may ask. Does not know who listens: the inside view is another room, and only Prometheus
//! holds the two against each other. Names neither metrics nor HTTP.
//!
//! - Without privilege: a TCP port is asked by connect(2), a UDP port by an empty datagram.
//! - Nothing is sent to an open TCP port beyond the handshake. The connection is closed with RST, so that neither side
//!   keeps a socket in TIME-WAIT, and no run can use up the ephemeral ports.
//! - Whoever asks over HTTP may ask only what the configuration [allows](Allowed). A name is resolved once, its addresses
//!   are checked, and the checked addresses are connected to: a name that points elsewhere a moment later changes nothing.
//! - All runs of a process together stay below the rates of their modules and below a number of descriptors, and have
//!   threads of their own, behind which no scrape waits.

mod allowed;
mod bucket;
mod finding;
mod icmp;
mod lane;
mod module;
mod prober;
mod report;
mod shared;
mod socket;
mod target;
mod tcp;
mod udp;

pub use allowed::{Allowed, NotAllowed};
pub use finding::{Finding, Reason, State};
pub use module::{Expect, Module, Preference};
pub use prober::{Error, Prober, Request};
pub use report::{Findings, Report};
pub use target::{BadTarget, Target};

/// What the configuration says about probing. By default nobody may be probed.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Who may be probed.
    pub targets: Allowed,
    /// What may be asked, by name.
    pub modules: std::collections::BTreeMap<String, std::sync::Arc<Module>>,
}

impl Settings {
    /// The largest rate of any module, in ports a second: the bound for all runs together.
    #[must_use]
    pub fn rate(&self) -> u32 {
        self.modules
            .values()
            .map(|module| module.rate)
            .max()
            .unwrap_or(Module::RATE)
    }
}
