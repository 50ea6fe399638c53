//! An exporter that is soaked: how it is started, asked and measured.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use darkport_exporter::counts::Tier;
use darkport_exporter::port::Port;
use rustix::process::{Pid, Signal, kill_process};

use crate::ledger::{Count, Ledger};
use crate::support::https::{Https, Reply, try_plain};
use crate::support::pki::{Authority, Purpose};
use crate::support::{Exporter, Scrape, program};
use crate::{KERNEL, NETLINK};

/// What asks and measures it; the process itself is with whoever started it.
#[derive(Clone)]
pub(crate) struct Subject {
    pub(crate) tier: Tier,
    /// The one it serves on, which both exporters watch.
    pub(crate) port: Port,
    address: SocketAddr,
    pid: u32,
    /// The netlink tier's serves over TLS.
    https: Option<Https>,
}

/// What it holds at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Holdings {
    pub(crate) resident_kilobytes: u64,
    pub(crate) threads: u64,
    pub(crate) descriptors: u64,
}

impl Subject {
    /// As root, in the kernel tier.
    pub(crate) fn kernel(folder: &Path) -> (Self, Exporter) {
        let command = Command::new(program());
        Self::start(command, Tier::Kernel, KERNEL, folder, None)
    }

    /// As nobody, without any privilege, in the netlink tier, behind TLS.
    pub(crate) fn netlink(folder: &Path) -> (Self, Exporter) {
        let copy = folder.join("darkport_exporter");
        fs::copy(program(), &copy).unwrap();
        fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).unwrap();
        let authority = Authority::new("soak");
        let server = authority.issue(Purpose::Server, &["localhost"]);
        fs::write(folder.join("server.pem"), server.certificate).unwrap();
        fs::write(folder.join("key.pem"), server.key).unwrap();
        let web = folder.join("web.yml");
        let text = "tls_server_config: {cert_file: server.pem, key_file: key.pem}\n";
        fs::write(&web, text).unwrap();
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
            .args(["--inh-caps=-all", "--bounding-set=-all", "--no-new-privs"])
            .arg(copy)
            .arg(format!("--web.config.file={}", web.display()));
        let https = Https::trusting(authority.roots());
        Self::start(command, Tier::Netlink, NETLINK, folder, Some(https))
    }

    fn start(
        mut command: Command,
        tier: Tier,
        port: Port,
        folder: &Path,
        https: Option<Https>,
    ) -> (Self, Exporter) {
        let file = folder.join("darkport.yml");
        command
            .arg(format!("--collector.tier={tier}"))
            .arg(format!("--web.listen-address=127.0.0.1:{}", port.number))
            .arg(format!("--config.file={}", file.display()))
            .arg("--web.enable-lifecycle");
        let exporter = Exporter::listening(command);
        let subject = Self {
            tier,
            port,
            address: exporter.address,
            pid: exporter.process.pid(),
            https,
        };
        (subject, exporter)
    }

    /// One request on a connection of its own, which is in the ledger as any other.
    pub(crate) fn ask(&self, ledger: &Ledger, method: &str, path: &str) -> io::Result<Reply> {
        ledger.note(
            "requests to the exporters",
            self.port,
            &[Count::Attempts, Count::Accepted, Count::Outbound],
        );
        match &self.https {
            Some(https) => https.ask(self.address, method, path, ""),
            None => try_plain(self.address, method, path, ""),
        }
    }

    pub(crate) fn scrape(&self, ledger: &Ledger) -> io::Result<Scrape> {
        let reply = self.ask(ledger, "GET", "/metrics")?;
        if reply.status == 200 {
            Ok(Scrape(reply.body))
        } else {
            Err(io::Error::other(format!("status {}", reply.status)))
        }
    }

    pub(crate) fn hang_up(&self) {
        let pid = Pid::from_raw(self.pid.try_into().unwrap()).unwrap();
        kill_process(pid, Signal::HUP).unwrap();
    }

    /// What its file descriptors are.
    pub(crate) fn descriptors(&self) -> Vec<String> {
        let listed = fs::read_dir(format!("/proc/{}/fd", self.pid)).unwrap();
        let target = |entry: io::Result<fs::DirEntry>| {
            Some(
                fs::read_link(entry.ok()?.path())
                    .ok()?
                    .display()
                    .to_string(),
            )
        };
        listed.filter_map(target).collect()
    }

    pub(crate) fn holdings(&self) -> Holdings {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap();
        let field = |name: &str| -> u64 {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let value = line.unwrap().split_whitespace().next();
            value.unwrap().parse().unwrap()
        };
        let descriptors = fs::read_dir(format!("/proc/{}/fd", self.pid)).unwrap();
        Holdings {
            resident_kilobytes: field("VmRSS:"),
            threads: field("Threads:"),
            descriptors: descriptors.count() as u64,
        }
    }
}
