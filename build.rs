//! Tells the crate which compiler builds it: cargo does not.

use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    // `rustc 1.95.0 (abcdef 2026-01-01)`: the second word is the version. Without it the crate says `unknown`.
    let version = Command::new(rustc)
        .arg("--version")
        .output()
        .ok()
        .and_then(|output| String::from_utf8(output.stdout).ok())
        .and_then(|text| text.split_whitespace().nth(1).map(str::to_owned));
    if let Some(version) = version {
        println!("cargo::rustc-env=DARKPORT_RUST_VERSION={version}");
    }
}
