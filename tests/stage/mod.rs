//! What the live tests and the benchmark of a fleet share: a real Prometheus, what runs against it, and what is in it.

// Each binary uses a part of this.
#![allow(dead_code, unreachable_pub)]

pub mod exporter;
pub mod http;
pub mod panels;
pub mod prometheus;
pub mod remote_write;
pub mod simulation;
