//! The table of flags, as clap reads them.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Parser, ValueEnum};

use super::values::{self, Output, PortQuery};
use crate::client::Url;
use crate::counts::Tier;
use crate::log::{Format, Level};
use crate::port::Span;
use crate::probe::{Module, Target};
use crate::sockets::Choice;
use crate::web::{DashboardUrl, ListenAddress, TelemetryPath};

/// Reports what listens and what arrives on the ports that should be silent, to Prometheus.
#[derive(Debug, Parser)]
#[command(name = "darkport_exporter", disable_version_flag = true)]
pub(super) struct Flags {
    /// Watch set and limits (YAML). Without it the embedded default is used, which --config.default prints
    #[arg(long = "config.file", value_name = "PATH", global = true)]
    pub(super) config_file: Option<PathBuf>,

    /// Validate the configuration, print every problem in it, and end: status 0 if there is none, else 1
    #[arg(long = "config.check")]
    pub(super) config_check: bool,

    /// Print the embedded default configuration, a working and commented example, and end
    #[arg(long = "config.default")]
    pub(super) config_default: bool,

    /// How to count. auto takes the best that works and logs why a better one does not; a tier named here must work. netlink
    /// costs the host up to some 2.6 µs for each socket it closes; polled costs none of that
    #[arg(
        long = "collector.tier",
        value_enum,
        value_name = "TIER",
        default_value = "auto"
    )]
    pub(super) tier: TierChoice,

    /// Where the socket table comes from. auto takes the first of netlink, netstat2 (Linux, macOS, Windows) and procfs (needs no netlink) that works, and logs why those before do not
    #[arg(
        long = "collector.sockets",
        value_parser = values::one_of(Choice::ALL, Choice::as_str),
        value_name = "READER",
        default_value = "auto",
        global = true
    )]
    pub(super) sockets: Choice,

    /// How often the polled tier reads the socket table, 100ms to 1h
    #[arg(long = "collector.poll-interval", value_name = "DURATION", default_value = "1s", value_parser = values::poll_interval)]
    pub(super) poll_interval: Duration,

    /// Whether the kernel tier sees attempts where they enter the host, before any firewall
    #[arg(
        long = "collector.tap",
        value_enum,
        value_name = "SWITCH",
        default_value = "on"
    )]
    pub(super) tap: Switch,

    /// Where the proc file system is mounted; in a container, the host's
    #[arg(
        long = "path.procfs",
        value_name = "PATH",
        default_value = "/proc",
        global = true
    )]
    pub(super) procfs: PathBuf,

    /// Where to serve: `:PORT` for every address, `HOST:PORT` or `[IPV6]:PORT`. May be given several times
    #[arg(
        long = "web.listen-address",
        value_name = "ADDRESS",
        default_value = ":10561",
        env = "DARKPORT_WEB_LISTEN_ADDRESS",
        value_delimiter = ',',
        action = ArgAction::Append,
        global = true
    )]
    pub(super) listen_address: Vec<ListenAddress>,

    /// Take the sockets that systemd listens on (socket activation) instead of listening on --web.listen-address
    #[arg(long = "web.systemd-socket")]
    pub(super) systemd_socket: bool,

    /// TLS, users, headers and rate limit (YAML), in the format of Prometheus' exporter-toolkit. Changes to it, and to the
    /// certificates it names, count without a restart
    #[arg(
        long = "web.config.file",
        value_name = "PATH",
        env = "DARKPORT_WEB_CONFIG_FILE",
        global = true
    )]
    pub(super) web_config_file: Option<PathBuf>,

    /// Let POST /-/reload load the configuration anew, as SIGHUP does
    #[arg(long = "web.enable-lifecycle")]
    pub(super) enable_lifecycle: bool,

    /// The path under which the metrics are
    #[arg(
        long = "web.telemetry-path",
        value_name = "PATH",
        default_value = "/metrics"
    )]
    pub(super) telemetry_path: TelemetryPath,

    /// How many scrapes may run at the same time, one client having three quarters of them at the most; one more is answered
    /// with 503. 0: any number
    #[arg(
        long = "web.max-requests",
        value_name = "NUMBER",
        default_value_t = 40,
        allow_negative_numbers = true
    )]
    pub(super) max_requests: usize,

    /// Where /map leads to from a port: the URL of a dashboard, with {port} and {protocol} where they belong
    #[arg(long = "web.dashboard-url", value_name = "TEMPLATE")]
    pub(super) dashboard_url: Option<DashboardUrl>,

    /// The least level that is logged
    #[arg(
        long = "log.level",
        value_parser = values::one_of(Level::ALL, Level::as_str),
        value_name = "LEVEL",
        default_value = "info",
        global = true
    )]
    pub(super) log_level: Level,

    /// The form of a log line, on stderr
    #[arg(
        long = "log.format",
        value_parser = values::one_of(Format::ALL, Format::as_str),
        value_name = "FORMAT",
        default_value = "logfmt",
        global = true
    )]
    pub(super) log_format: Format,

    /// Print version and build, and end
    #[arg(long = "version", short = 'V')]
    pub(super) version: bool,

    #[command(subcommand)]
    pub(super) subcommand: Option<Subcommand>,
}

/// What a person at a terminal may ask instead of serving.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Subcommand {
    /// Say what the registry knows of each port, in which range it lies, what listens there now, and what an exporter that
    /// runs on this host saw there last
    Lookup(Lookup),

    /// Write the bundled Grafana dashboards, Prometheus rules and provisioning files into a directory
    Dashboards {
        /// The directory; it is made if it is not there
        #[arg(long, value_name = "DIR")]
        output: PathBuf,

        /// Overwrite files that are there and differ; without it, nothing is written then
        #[arg(long)]
        force: bool,
    },

    /// Say what ports of a host answer over the network: the outside view
    Probe(Probe),

    /// Ask the exporter that runs here whether it is healthy: status 0 if it is, else 1. For a container's health check. It
    /// is asked at --web.listen-address, and over TLS where --web.config.file says so
    Healthcheck {
        /// Where to ask instead, such as http://localhost:10561/-/healthy. May be given several times; the first that answers counts
        #[arg(long, value_name = "URL")]
        url: Vec<Url>,

        /// How long the answer is waited for, 10ms to 1m
        #[arg(long, value_name = "DURATION", default_value = "3s", value_parser = values::probe_timeout)]
        timeout: Duration,
    },
}

/// The flags of `lookup`.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Lookup {
    /// A port of both protocols (561), of one (80/tcp), or a range (609-611)
    #[arg(value_name = "PORT", required = true, value_parser = values::port_query)]
    pub(super) ports: Vec<PortQuery>,

    /// The exporter that is asked what it saw last, in plain HTTP; if none answers, lookup tells what it sees itself. Empty:
    /// none is asked
    #[arg(
        long = "exporter.url",
        value_name = "URL",
        default_value = "http://127.0.0.1:10561/"
    )]
    pub(super) exporter: String,

    /// The form of the answer, on standard output
    #[arg(
        long,
        value_parser = values::one_of(Output::ALL, Output::as_str),
        value_name = "FORM",
        default_value = "table"
    )]
    pub(super) output: Output,
}

/// The flags of `probe`.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Probe {
    /// A name or an address
    #[arg(value_name = "HOST")]
    pub(super) host: Target,

    /// Numbers and ranges, such as 22,80,1-1024
    #[arg(long, value_name = "PORTS", required = true, value_delimiter = ',')]
    pub(super) ports: Vec<Span>,

    /// Probe UDP ports instead of TCP ports. Each is sent an empty datagram, which few services answer
    #[arg(long)]
    pub(super) udp: bool,

    /// How long silence is waited for before it is believed
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = values::probe_timeout)]
    pub(super) timeout: Duration,

    /// How often a silent port is asked again, 0 to 10
    #[arg(long, value_name = "NUMBER", default_value_t = Module::RETRIES, value_parser = clap::value_parser!(u32).range(0..=10))]
    pub(super) retries: u32,

    /// Ports a second, at the most. More than the default may burden a host, and what stands before it
    #[arg(long, value_name = "NUMBER", default_value_t = Module::RATE, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(super) rate: u32,

    /// Ports at a time, at the most
    #[arg(long, value_name = "NUMBER", default_value_t = Module::CONCURRENCY, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub(super) concurrency: u32,

    /// Take a name's IPv4 addresses rather than its IPv6 ones
    #[arg(long = "prefer-ipv4")]
    pub(super) prefer_ipv4: bool,

    /// The form of the answer, on standard output
    #[arg(
        long,
        value_parser = values::one_of(Output::ALL, Output::as_str),
        value_name = "FORM",
        default_value = "table"
    )]
    pub(super) output: Output,
}

/// The tier asked for.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum TierChoice {
    Auto,
    Kernel,
    Netlink,
    Polled,
}

impl From<TierChoice> for Option<Tier> {
    fn from(choice: TierChoice) -> Self {
        match choice {
            TierChoice::Auto => None,
            TierChoice::Kernel => Some(Tier::Kernel),
            TierChoice::Netlink => Some(Tier::Netlink),
            TierChoice::Polled => Some(Tier::Polled),
        }
    }
}

/// On or off.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Switch {
    On,
    Off,
}

impl From<Switch> for bool {
    fn from(switch: Switch) -> Self {
        matches!(switch, Switch::On)
    }
}
