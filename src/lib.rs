//! Counts what happens on the ports that should be silent, and says who listens there.

pub mod args;
pub mod audit;
pub mod build_info;
pub mod command;
pub mod config;
pub mod counts;
pub mod dashboards;
pub mod events;
pub mod exporter;
pub mod log;
pub mod lookup;
pub mod metrics;
#[cfg(target_os = "linux")]
pub mod namespaces;
pub mod owners;
pub mod port;
pub mod registry;
pub mod sampler;
pub mod signal;
pub mod snapshot;
pub mod sockets;
pub mod start;
pub mod watch;
pub mod web;
