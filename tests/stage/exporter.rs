//! A real exporter for the time of a test.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::http;
use super::prometheus::{eventually, free_port};

/// A running exporter; it ends with this value.
#[derive(Debug)]
pub struct Exporter {
    child: Child,
    pub address: SocketAddr,
    log: PathBuf,
}

impl Exporter {
    /// Starts one and waits until it is ready. Its log goes to a file in `scratch`.
    pub fn start(name: &str, flags: &[&str], scratch: &Path) -> Self {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let log = scratch.join(format!("{name}.log"));
        let child = Command::new(env!("CARGO_BIN_EXE_darkport_exporter"))
            .arg(format!("--web.listen-address={address}"))
            .args(flags)
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(&log).expect("a log"))
            .spawn()
            .expect("the exporter starts");
        let exporter = Self {
            child,
            address,
            log,
        };
        eventually("the exporter is ready", || {
            http::get(address, "/-/ready").map_err(|error| format!("{error}\n{}", exporter.log()))
        });
        exporter
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub fn scrape(&self) -> String {
        http::get(self.address, "/metrics").expect("a scrape")
    }

    /// The tier it counts in.
    pub fn tier(&self) -> String {
        self.scrape()
            .lines()
            .find_map(|line| {
                line.strip_prefix("darkport_counting_tier{tier=\"")?
                    .strip_suffix("\"} 1")
            })
            .expect("a tier")
            .to_owned()
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
