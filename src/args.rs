//! The command line: raw flags → [`Args`], in which nothing is a raw string any more.
//!
//! The only room that names clap. It opens nothing and resolves nothing: a file is read by who needs it, a host name is
//! looked up when the address is bound.

use std::ffi::OsString;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};

use crate::client::Url;
use crate::counts::Tier;
use crate::log::{Format, Level};
use crate::lookup::{ExporterUrl, UrlError};
use crate::port::{Port, PortSet, Protocol};
use crate::probe::{Preference, Target};
use crate::sockets::Choice;
use crate::web::{DashboardUrl, ListenAddress, TelemetryPath};

mod flags;
mod values;

pub use values::{Output, PortQuery};

use flags::{Flags, Subcommand};

/// What the command line asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Args {
    /// What to do.
    pub command: Command,
    /// The configuration file; `None`: the embedded default.
    pub config_file: Option<PathBuf>,
    /// How to read and to count.
    pub collector: Collector,
    /// Where the proc file system is.
    pub procfs: PathBuf,
    /// How to serve.
    pub web: Web,
    /// What to log, and in which form.
    pub log: Log,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Serve until told to end.
    Serve,
    /// Validate the configuration, print every problem.
    CheckConfig,
    /// Print the embedded default configuration.
    PrintDefaultConfig,
    /// Print the version, as [`crate::build_info::version_text`] has it.
    PrintVersion,
    /// Say what is known of some ports.
    Lookup(Lookup),
    /// Write the bundled dashboards, rules and provisioning files.
    WriteDashboards {
        /// The directory to write to.
        output: PathBuf,
        /// Whether files that are there and differ are overwritten.
        force: bool,
    },
    /// Say what ports of a host answer over the network.
    Probe(Probe),
    /// Say whether a running exporter is healthy.
    CheckHealth {
        /// Where to ask; none: where [`Web`] says that it listens.
        urls: Vec<Url>,
        /// How long to wait for the answer.
        timeout: Duration,
    },
}

/// What to look up, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lookup {
    /// The ports, in the order of the answer.
    pub queries: Vec<PortQuery>,
    /// The exporter that is asked what it has seen; `None`: nobody is.
    pub exporter: Option<ExporterUrl>,
    /// The form of the answer.
    pub output: Output,
}

/// What to probe, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Whose ports.
    pub target: Target,
    /// Which ports, at least one, none of them 0.
    pub ports: PortSet,
    /// How long silence is waited for.
    pub timeout: Duration,
    /// How often a silent port is asked again.
    pub retries: u32,
    /// Ports a second.
    pub rate: u32,
    /// Ports at a time.
    pub concurrency: u32,
    /// Which addresses of a name.
    pub preference: Preference,
    /// The form of the answer.
    pub output: Output,
}

/// How to read and to count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collector {
    /// The tier asked for; `None`: the best that works.
    pub tier: Option<Tier>,
    /// Where the socket table comes from.
    pub sockets: Choice,
    /// How often the polled tier looks: 100 ms to 1 h.
    pub poll_interval: Duration,
    /// Whether attempts are watched where they enter, before any firewall.
    pub tap: bool,
}

/// How to serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Web {
    /// Where to listen: at least one, no two the same.
    pub listen: Vec<ListenAddress>,
    /// Whether systemd's sockets are used, and `listen` is not.
    pub systemd_socket: bool,
    /// The web configuration; `None`: plain HTTP for everybody.
    pub config_file: Option<PathBuf>,
    /// Whether `/-/reload` does anything.
    pub enable_lifecycle: bool,
    /// The path of the metrics.
    pub telemetry_path: TelemetryPath,
    /// How many scrapes may run at the same time; `None`: any number.
    pub max_requests: Option<NonZeroUsize>,
    /// Where the map leads to from a port; `None`: nowhere.
    pub dashboard_url: Option<DashboardUrl>,
}

/// What to log, and in which form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Log {
    /// The least level that is logged.
    pub level: Level,
    /// The form of a line.
    pub format: Format,
}

impl Args {
    /// Reads the command line of this process. Help and usage errors are printed, and end the process with status 0
    /// and 2.
    #[must_use]
    pub fn parse() -> Self {
        Self::try_parse_from(std::env::args_os()).unwrap_or_else(|error| error.exit())
    }

    /// Reads a command line; the first item is the name of the program.
    ///
    /// # Errors
    /// When the command line asks for help or cannot be understood. The error knows how it is to be printed, and its
    /// `exit_code`.
    pub fn try_parse_from<I, T>(command_line: I) -> Result<Self, clap::Error>
    where
        I: IntoIterator<Item = T>,
        T: Into<OsString> + Clone,
    {
        Flags::try_parse_from(command_line)?.resolve()
    }
}

/// The command line's own definition, from which the man pages and the completions of shells are made.
#[must_use]
pub fn definition() -> clap::Command {
    Flags::command()
}

impl Flags {
    fn resolve(self) -> Result<Args, clap::Error> {
        let command = self.one_command()?;
        if let Some(twice) = first_repeated(&self.listen_address) {
            return Err(refusal(
                ErrorKind::ValueValidation,
                format!("--web.listen-address {twice} is given twice"),
            ));
        }
        Ok(Args {
            command,
            config_file: self.config_file,
            collector: Collector {
                tier: self.tier.into(),
                sockets: self.sockets,
                poll_interval: self.poll_interval,
                tap: self.tap.into(),
            },
            procfs: self.procfs,
            web: Web {
                listen: self.listen_address,
                systemd_socket: self.systemd_socket,
                config_file: self
                    .web_config_file
                    .filter(|file| !file.as_os_str().is_empty()),
                enable_lifecycle: self.enable_lifecycle,
                telemetry_path: self.telemetry_path,
                max_requests: NonZeroUsize::new(self.max_requests),
                dashboard_url: self.dashboard_url,
            },
            log: Log {
                level: self.log_level,
                format: self.log_format,
            },
        })
    }

    /// The one thing to do. Two at once are refused: which of them would be meant?
    fn one_command(&self) -> Result<Command, clap::Error> {
        let subcommand = self
            .subcommand
            .as_ref()
            .map(|subcommand| match subcommand {
                Subcommand::Lookup(flags) => {
                    Ok::<_, clap::Error>(("lookup", Command::Lookup(lookup(flags)?)))
                }
                Subcommand::Dashboards { output, force } => Ok((
                    "dashboards",
                    Command::WriteDashboards {
                        output: output.clone(),
                        force: *force,
                    },
                )),
                Subcommand::Probe(flags) => Ok(("probe", Command::Probe(probe(flags)?))),
                Subcommand::Healthcheck { url, timeout } => Ok((
                    "healthcheck",
                    Command::CheckHealth {
                        urls: url.clone(),
                        timeout: *timeout,
                    },
                )),
            })
            .transpose()?;
        let asked: Vec<(&str, Command)> = [
            self.version.then_some(("--version", Command::PrintVersion)),
            self.config_default
                .then_some(("--config.default", Command::PrintDefaultConfig)),
            self.config_check
                .then_some(("--config.check", Command::CheckConfig)),
            subcommand,
        ]
        .into_iter()
        .flatten()
        .collect();
        match asked.as_slice() {
            [] => Ok(Command::Serve),
            [(_, command)] => Ok(command.clone()),
            [(first, _), (second, _), ..] => Err(refusal(
                ErrorKind::ArgumentConflict,
                format!("{first} cannot be used together with {second}"),
            )),
        }
    }
}

fn lookup(flags: &flags::Lookup) -> Result<Lookup, clap::Error> {
    let exporter = match flags.exporter.as_str() {
        "" => None,
        url => Some(url.parse().map_err(|error: UrlError| {
            refusal(
                ErrorKind::ValueValidation,
                format!("--exporter.url {url}: {error}"),
            )
        })?),
    };
    Ok(Lookup {
        queries: flags.ports.clone(),
        exporter,
        output: flags.output,
    })
}

fn probe(flags: &flags::Probe) -> Result<Probe, clap::Error> {
    let protocol = if flags.udp {
        Protocol::Udp
    } else {
        Protocol::Tcp
    };
    let numbers = flags.ports.iter().flat_map(|span| span.numbers());
    let ports: PortSet = numbers
        .filter(|&number| number != 0)
        .map(|number| Port { number, protocol })
        .collect();
    if ports.is_empty() {
        return Err(refusal(
            ErrorKind::ValueValidation,
            "--ports 0: port 0 cannot be asked, choose 1 to 65535".to_owned(),
        ));
    }
    Ok(Probe {
        target: flags.host.clone(),
        ports,
        timeout: flags.timeout,
        retries: flags.retries,
        rate: flags.rate,
        concurrency: flags.concurrency,
        preference: Preference {
            ipv6: !flags.prefer_ipv4,
            ..Preference::default()
        },
        output: flags.output,
    })
}

fn refusal(kind: ErrorKind, message: String) -> clap::Error {
    Flags::command().error(kind, message)
}

fn first_repeated(addresses: &[ListenAddress]) -> Option<&ListenAddress> {
    addresses
        .iter()
        .enumerate()
        .find(|(index, address)| addresses[..*index].contains(address))
        .map(|(_, address)| address)
}

/// The values of options that this crate reads itself.
#[cfg(all(target_os = "linux", any(test, fuzzing)))]
pub(crate) fn fuzz(text: &str) {
    if let Ok(query) = values::port_query(text) {
        let ports = query.ports().count();
        let protocols = if query.protocol.is_some() { 1 } else { 2 };
        assert_eq!(ports, query.span.numbers().len() * protocols);
    }
    let _ = (values::poll_interval(text), values::probe_timeout(text));
}

#[cfg(test)]
mod tests;
