//! Start-up: which reader and which tier work on this host, and why not the better ones.

use std::net::SocketAddr;
use std::path::Path;

use crate::args;
use crate::audit::HostCounters;
use crate::config::{self, Config};
use crate::counts::attached::Attached;
use crate::counts::kernel::{self, Kernel};
#[cfg(target_os = "linux")]
use crate::counts::netlink::Netlink;
use crate::counts::polled::Polled;
use crate::counts::{Counts, Tier};
use crate::log::Chain;
use crate::namespaces::{self, Namespaces};
use crate::owners::Owners;
use crate::port::PortSet;
use crate::privileges::{self, Capability};
use crate::sampler::Sampler;
use crate::sockets::{self, Choice, Reader, Wanted};

/// Why nothing could be started.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No reader gives a socket table.
    #[error("the socket table cannot be read")]
    Sockets(#[source] sockets::Error),
    /// The reader that was asked for does not work here.
    #[error("--collector.sockets={reader} does not work here; auto takes the best that does")]
    Reader {
        /// The reader.
        reader: &'static str,
        /// Why it does not.
        source: sockets::Error,
    },
    /// The tier that was asked for does not work here.
    #[error("--collector.tier={tier} cannot start: {reason}")]
    Tier {
        /// The tier.
        tier: Tier,
        /// What it lacks, and the cure.
        reason: String,
    },
    /// Privileges could not be given up.
    #[error(transparent)]
    Privileges(#[from] privileges::Error),
    /// The thread that enters network namespaces could not be started.
    #[error(transparent)]
    Namespaces(#[from] namespaces::Error),
}

/// What finding owners takes, and is kept.
const FOR_OWNERS: [Capability; 2] = [Capability::SysPtrace, Capability::DacReadSearch];

/// Opens the reader and begins to count. `own` are the exporter's own listening sockets, by which a table is known to be
/// this host's.
///
/// # Errors
/// When a reader or tier that was asked for by name cannot start, or no reader can.
pub fn sampler(
    collector: &args::Collector,
    procfs: &Path,
    config: &Config,
    own: Vec<SocketAddr>,
) -> Result<Sampler, Error> {
    let mut reader = reader(collector, own)?;
    let audit_start = match HostCounters::read() {
        Ok(counters) => Some(counters),
        Err(error) => {
            tracing::warn!(%error, "the host's own counters cannot be read; the audit is absent");
            None
        }
    };
    let counts = counts(collector, config, &mut reader)?;
    let mut namespaces = Namespaces::new(procfs, Path::new(namespaces::NAMES));
    if config.namespaces == config::Namespaces::All {
        // Now, because the privilege that its thread needs is given up by all others.
        namespaces.start()?;
    }
    Ok(Sampler::new(
        reader,
        counts,
        Owners::new(procfs),
        namespaces,
        audit_start,
    ))
}

/// Puts into effect what capabilities the program's file gives and leaves to it, as that of a container image does. Where
/// that is refused, what needs them says so itself.
pub fn take_up_privileges() {
    if let Err(error) = privileges::take_up(&Capability::ALL) {
        tracing::warn!(%error, "capabilities that are held cannot be put into effect");
    }
}

/// Gives up, for the calling thread and all it starts from now on, every privilege but those that finding owners and the
/// tier need. To be called when all is attached and bound, before there are other threads than those that did it for
/// themselves.
///
/// # Errors
/// When a privilege stays.
pub fn give_up_privileges(counts: &Counts) -> Result<(), Error> {
    let keep: Vec<Capability> = FOR_OWNERS.iter().chain(counts.needs()).copied().collect();
    let reduced = privileges::reduce(&keep)?;
    let or_none = |names: Vec<String>| {
        if names.is_empty() {
            "none".to_owned()
        } else {
            names.join(" ")
        }
    };
    tracing::info!(
        held = or_none(reduced.held),
        kept = or_none(reduced.kept),
        "capabilities given up"
    );
    Ok(())
}

fn reader(collector: &args::Collector, own: Vec<SocketAddr>) -> Result<Reader, Error> {
    let (reader, refused) =
        Reader::open(collector.sockets, own).map_err(|source| match collector.sockets {
            Choice::Auto => Error::Sockets(source),
            asked => Error::Reader {
                reader: asked.as_str(),
                source,
            },
        })?;
    let name = reader.choice().as_str();
    if refused.0.is_empty() {
        tracing::info!(reader = name, "reading the socket table");
    } else {
        tracing::warn!(
            reader = name,
            %refused,
            "reading the socket table, but not with the best reader: it costs more and knows less"
        );
    }
    Ok(reader)
}

/// The best tier that works, or the one that was asked for. Each better one that does not work is told with its reason.
fn counts(
    collector: &args::Collector,
    config: &Config,
    reader: &mut Reader,
) -> Result<Counts, Error> {
    let mut refused = String::new();
    for tier in Tier::ALL {
        if collector.tier.is_some_and(|asked| asked != tier) {
            continue;
        }
        match begin(tier, collector, config, reader) {
            Ok(counts) => {
                let refused = (!refused.is_empty()).then_some(refused);
                tracing::info!(tier = tier.as_str(), refused, "counting");
                return Ok(counts);
            }
            Err(reason) if collector.tier.is_some() => return Err(Error::Tier { tier, reason }),
            Err(reason) => {
                let joint = if refused.is_empty() { "" } else { "; " };
                refused.push_str(&format!("{joint}{tier}: {reason}"));
            }
        }
    }
    unreachable!("the polled tier needs nothing")
}

/// Begins to count in one tier, or says what it lacks.
fn begin(
    tier: Tier,
    collector: &args::Collector,
    config: &Config,
    reader: &mut Reader,
) -> Result<Counts, String> {
    let watched = config.watch.ports();
    match tier {
        Tier::Kernel => kernel(watched, collector.tap),
        Tier::Netlink => netlink(watched, reader),
        Tier::Polled => Ok(Counts::Polled(Polled::new(watched))),
    }
}

/// Attaches the programs. What this host lacks for a part of them is told, and costs that part.
fn kernel(watched: &PortSet, tap: bool) -> Result<Counts, String> {
    let options = kernel::Options {
        tap,
        ..kernel::Options::default()
    };
    let (kernel, watcher, missing) =
        Kernel::start(&options).map_err(|error| Chain(&error).to_string())?;
    for missing in missing {
        tracing::warn!(%missing, "a part of the kernel tier is not available");
    }
    let attached = Attached::new(kernel, watcher, watched).map_err(|error| error.to_string())?;
    Ok(Counts::Kernel(Box::new(attached)))
}

#[cfg(target_os = "linux")]
fn netlink(watched: &PortSet, reader: &mut Reader) -> Result<Counts, String> {
    if reader.choice() != Choice::Netlink {
        return Err("it needs the socket table from netlink, which is not available".to_owned());
    }
    let wanted = Wanted::Connections {
        watched,
        listened: &PortSet::new(),
    };
    let present = reader
        .read(wanted)
        .map_err(|error| Chain(&error).to_string())?;
    Netlink::start(watched, &present)
        .map(Counts::Netlink)
        .map_err(|error| Chain(&error).to_string())
}

#[cfg(not(target_os = "linux"))]
fn netlink(_watched: &PortSet, _reader: &mut Reader) -> Result<Counts, String> {
    Err("only Linux tells of the sockets it destroys".to_owned())
}
