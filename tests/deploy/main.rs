//! What lies under deploy/ holds: it names only files, flags and settings that exist, and what is made from the command
//! line's definition is what that makes.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod compose;
mod generated;
mod kubernetes;
mod permissions;
#[path = "../support/mod.rs"]
mod support;
mod units;

use std::fs;
use std::path::{Path, PathBuf};

use darkport_exporter::args::Args;

/// A file or folder of the repository.
fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// The text of a file of the repository.
fn text(name: &str) -> String {
    fs::read_to_string(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Reads a command line as the exporter does, and fails with where it stands if it is refused.
fn accepted(place: &str, words: &[&str]) -> Args {
    Args::try_parse_from(["darkport_exporter"].iter().chain(words))
        .unwrap_or_else(|error| panic!("{place}: {error}"))
}
