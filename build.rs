//! Hands the revision, the branch and the compiler's version to the program, where they can be told.

use std::process::Command;

fn main() {
    // The log of HEAD grows with each commit; outside a checkout there is none, and the variables alone count.
    let commits = answer("git", &["rev-parse", "--git-path", "logs/HEAD"]);
    if !commits.is_empty() {
        println!("cargo::rerun-if-changed={commits}");
    }
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=DARKPORT_REVISION");
    println!("cargo::rerun-if-env-changed=DARKPORT_BRANCH");
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    let version = answer(&rustc, &["--version"])
        .split_whitespace()
        .nth(1)
        .unwrap_or_default()
        .to_owned();
    println!("cargo::rustc-env=DARKPORT_RUST_VERSION={version}");
    for (variable, arguments) in [
        (
            "DARKPORT_REVISION",
            ["rev-parse", "--short=12", "HEAD"].as_slice(),
        ),
        ("DARKPORT_BRANCH", &["symbolic-ref", "--short", "HEAD"]),
    ] {
        let value = std::env::var(variable).unwrap_or_else(|_| answer("git", arguments));
        println!("cargo::rustc-env={variable}={value}");
    }
}

/// What a program prints, or nothing: a build outside a checkout is a build all the same.
fn answer(program: &str, arguments: &[&str]) -> String {
    match Command::new(program).args(arguments).output() {
        Ok(output) if output.status.success() => {
            String::from_utf8_lossy(&output.stdout).trim().to_owned()
        }
        _ => String::new(),
    }
}
