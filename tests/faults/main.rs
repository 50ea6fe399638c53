//! What is broken on purpose, and what must hold meanwhile and afterwards: the exporter serves, what it does not know is
//! absent and never zero, it says so, and it goes on where it was when the fault is over.
//!
//! docs/reliability.md says which promise each test is for.

#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "in a test, what fails is to fail; the lint's own exception does not cover helpers"
)]

mod clock;
mod crowds;
mod documents;
mod limits;
mod log;
mod netlink;
mod network;
mod processes;
#[path = "../support/mod.rs"]
mod support;

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::Command;

use darkport_exporter::port::Port;
use support::{Exporter, Scrape, program};
use tempfile::TempDir;

/// A port for each purpose, all watched.
const LIT: Port = Port::tcp(609);
const DARK: Port = Port::tcp(610);
const FLASH: Port = Port::tcp(611);

const WATCH: &str = "watch:\n- {name: faults, ports: [609-611, 3476]}\n";

/// A folder with a configuration, in a network namespace of the calling thread's own.
struct Stage {
    folder: TempDir,
    _namespace: support::namespace::Namespace,
}

impl Stage {
    fn new(configuration: &str) -> Self {
        let namespace = support::namespace::Namespace::new("faults");
        namespace.enter();
        let stage = Self {
            folder: tempfile::tempdir().unwrap(),
            _namespace: namespace,
        };
        std::fs::write(stage.path("darkport.yml"), configuration).unwrap();
        stage
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The exporter's command line, behind another program where there is one.
    fn command(&self, tier: &str, wrapper: &[&OsStr]) -> Command {
        let program = program();
        let mut words = wrapper.iter().copied().chain([program.as_os_str()]);
        let mut command = Command::new(words.next().unwrap());
        command
            .args(words)
            .arg(format!("--collector.tier={tier}"))
            .arg("--web.listen-address=127.0.0.1:19100")
            .arg("--web.enable-lifecycle")
            .arg(format!(
                "--config.file={}",
                self.path("darkport.yml").display()
            ));
        command
    }

    fn start(&self, tier: &str) -> Exporter {
        self.start_through(tier, &[])
    }

    fn start_through(&self, tier: &str, wrapper: &[&OsStr]) -> Exporter {
        let exporter = Exporter::listening(self.command(tier, wrapper));
        support::wait_for("a first sample", || {
            (support::get(exporter.address, "/-/ready").0 == 200).then_some(())
        });
        exporter
    }
}

fn collector(scrape: &Scrape, name: &str) -> Option<f64> {
    scrape.value(&format!(
        "darkport_collector_success{{collector=\"{name}\"}}"
    ))
}

fn lost(scrape: &Scrape, source: &str) -> f64 {
    let series = format!("darkport_events_lost_total{{source=\"{source}\"}}");
    scrape.value(&series).unwrap()
}

fn opened(scrape: &Scrape, port: Port) -> f64 {
    scrape
        .of_port("darkport_listener_opened_total", port)
        .unwrap()
}

/// Says that something is over when it goes, so that a test that fails does not wait for what goes on beside it.
struct Over<'a>(&'a std::sync::atomic::AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, std::sync::atomic::Ordering::Release);
    }
}

/// Opens and closes a listener.
fn flash(port: Port, times: usize) {
    for _ in 0..times {
        drop(std::net::TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, port.number)).unwrap());
    }
}

/// Waits until a port has been opened so often.
fn wait_for_opened(exporter: &Exporter, port: Port, times: f64) -> Scrape {
    support::wait_for(&format!("{times} openings of {port}"), || {
        let scrape = exporter.scrape();
        (opened(&scrape, port) == times).then_some(scrape)
    })
}
