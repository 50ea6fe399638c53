//! Counts what happens on the ports that should be silent, and says who listens there.

pub mod args;
pub mod config;
pub mod counts;
pub mod events;
pub mod exporter;
pub mod log;
pub mod metrics;
pub mod owners;
pub mod port;
pub mod privileges;
pub mod registry;
pub mod sampler;
pub mod signal;
pub mod snapshot;
pub mod sockets;
pub mod watch;
pub mod web;
