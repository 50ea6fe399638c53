//! Tells the crate what builds it and from what: cargo does not.

use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // The log of HEAD grows with each commit; outside a checkout there is none, and the variables alone count.
    if let Some(commits) = answer("git", &["rev-parse", "--git-path", "logs/HEAD"]) {
        println!("cargo::rerun-if-changed={commits}");
    }
    // `rustc 1.95.0 (abcdef 2026-01-01)`: the second word is the version. Without it the crate says `unknown`.
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    let compiler = answer(&rustc, &["--version"])
        .and_then(|text| text.split_whitespace().nth(1).map(str::to_owned));
    tell("DARKPORT_RUST_VERSION", compiler);
    // Who builds outside a checkout, a container for one, says it in the environment.
    for (variable, arguments) in [
        (
            "DARKPORT_REVISION",
            ["rev-parse", "--short=12", "HEAD"].as_slice(),
        ),
        ("DARKPORT_BRANCH", &["symbolic-ref", "--short", "HEAD"]),
    ] {
        println!("cargo::rerun-if-env-changed={variable}");
        let given = std::env::var(variable).ok();
        tell(variable, given.or_else(|| answer("git", arguments)));
    }
}

fn tell(variable: &str, value: Option<String>) {
    if let Some(value) = value.filter(|value| !value.is_empty()) {
        println!("cargo::rustc-env={variable}={value}");
    }
}

fn answer(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}
