//! The exporter beside what one would use instead, in one run, in turn, on one machine.
//!
//! ```sh
//! cargo bench --bench peers                # prints the tables
//! cargo bench --bench peers -- --write     # writes docs/performance.md, its curves, and README's figures as well
//! cargo bench --bench peers -- --short     # a trial: fewer of everything
//! cargo bench --bench peers -- --into DIR  # writes the page and its curves there, of a trial too
//! ```
//!
//! As root: the kernel tier needs it. Puts itself into network and process namespaces of its own. Needs util-linux, iproute2, lsof,
//! nmap and Debian's prometheus-node-exporter, prometheus-process-exporter and prometheus-blackbox-exporter.
//! Takes some eight minutes, and means something on a machine that does nothing else.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a benchmark that cannot be set up has nothing to say"
)]

#[cfg(target_os = "linux")]
mod contenders;
#[cfg(target_os = "linux")]
mod curves;
#[cfg(target_os = "linux")]
mod measure;
#[cfg(target_os = "linux")]
mod report;
#[cfg(target_os = "linux")]
mod seen;
#[cfg(target_os = "linux")]
#[path = "../support/mod.rs"]
mod support;
#[cfg(target_os = "linux")]
mod tables;

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    use support::alone;

    support::hold_if_asked();
    if !alone::is_alone() {
        return alone::run("peers");
    }
    let asked = |flag: &str| std::env::args().any(|argument| argument == flag);
    let plan = if asked("--short") {
        measure::Plan::short()
    } else {
        measure::Plan::full()
    };
    let sections = measure::all(&plan);
    print!("{}", report::markdown(&sections));
    if asked("--write") && !asked("--short") {
        report::write(&sections);
    }
    let mut arguments = std::env::args_os().skip_while(|argument| argument != "--into");
    if let Some(folder) = arguments.nth(1) {
        report::write_into(std::path::Path::new(&folder), &sections);
    }
    std::process::ExitCode::SUCCESS
}

#[cfg(not(target_os = "linux"))]
fn main() {
    println!("the peers are Linux's");
}
