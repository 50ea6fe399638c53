//! The types of the flags' values, and how each is read from text.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use clap::ValueEnum;

use crate::port::{ParseError, Port, Protocol, Span};

/// Where the socket table comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ValueEnum)]
pub enum Sockets {
    /// The best the platform has.
    Auto,
    /// The kernel's socket diagnosis, Linux only.
    Netlink,
    /// The portable reader.
    Netstat2,
}

/// The least level that is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ValueEnum)]
pub enum LogLevel {
    /// Everything.
    Debug,
    /// Events, and what is worse.
    Info,
    /// What somebody should look at, and what is worse.
    Warn,
    /// Only what failed.
    Error,
}

/// The form of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ValueEnum)]
pub enum LogFormat {
    /// `key=value` pairs.
    Logfmt,
    /// One JSON object a line.
    Json,
}

/// A host to listen on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Host {
    /// Every address of this host.
    Any,
    /// One address.
    Address(IpAddr),
    /// A name, in lower case, or an IPv6 address with its zone: looked up when it is bound.
    Name(String),
}

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ListenAddress {
    /// The host.
    pub host: Host,
    /// The TCP port; 0 lets the system choose one.
    pub port: u16,
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Any => write!(f, ":{}", self.port),
            Host::Address(IpAddr::V4(address)) => write!(f, "{address}:{}", self.port),
            Host::Address(IpAddr::V6(address)) => write!(f, "[{address}]:{}", self.port),
            Host::Name(name) if name.contains(':') => write!(f, "[{name}]:{}", self.port),
            Host::Name(name) => write!(f, "{name}:{}", self.port),
        }
    }
}

/// Reads `:PORT`, `HOST:PORT` or `[IPV6]:PORT`.
pub(super) fn listen_address(text: &str) -> Result<ListenAddress, String> {
    let Some((host, port)) = text.rsplit_once(':') else {
        return Err(match text.parse::<u16>() {
            Ok(port) => format!("a port is written with a colon before it: :{port}"),
            Err(_) => format!("the port is missing: write {text}:10561"),
        });
    };
    if text.parse::<Ipv6Addr>().is_ok() {
        return Err(format!(
            "an IPv6 address is written in brackets, and its port behind them: [{text}]:10561"
        ));
    }
    if text.starts_with('[') && !text.contains(']') {
        return Err(format!("the bracket is not closed: write {text}]:10561"));
    }
    let host = if host.is_empty() {
        Host::Any
    } else if let Some(inner) = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
        bracketed_host(inner)?
    } else if host.contains([':', '[', ']']) {
        return Err(format!(
            "an IPv6 address is written in brackets: [{}]:{port}",
            host.trim_matches(['[', ']'])
        ));
    } else {
        plain_host(host)?
    };
    let port = match port.parse::<Span>() {
        Ok(Span { first, last }) if first == last => first,
        Err(error @ ParseError::Beyond(_)) => return Err(error.to_string()),
        _ if port.is_empty() => return Err(format!("the port is missing: write {text}10561")),
        _ => return Err(format!("{port:?} is not a port: write 0 to 65535")),
    };
    Ok(ListenAddress { host, port })
}

fn bracketed_host(text: &str) -> Result<Host, String> {
    let address = text
        .split_once('%')
        .map_or(text, |(address, _zone)| address);
    match address.parse::<Ipv6Addr>() {
        Ok(address) if text.contains('%') => {
            let (_, zone) = text.split_once('%').unwrap_or_default();
            if zone.is_empty() || !zone.bytes().all(|b| b.is_ascii_graphic()) {
                return Err(format!("{text:?} names no zone behind the %"));
            }
            Ok(Host::Name(format!("{address}%{zone}")))
        }
        Ok(address) => Ok(Host::Address(address.into())),
        Err(_) => Err(format!("{text:?} is not an IPv6 address")),
    }
}

fn plain_host(text: &str) -> Result<Host, String> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(Host::Address(address));
    }
    let name = text.to_ascii_lowercase();
    let is_name = name.len() <= 253
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'));
    // A name of digits and dots only is an address that was mistyped.
    if !is_name || name.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        return Err(format!("{text:?} is neither an address nor a host name"));
    }
    Ok(Host::Name(name))
}

/// The path of the metrics: absolute, and none that serves something else.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TelemetryPath(String);

impl TelemetryPath {
    /// The path, beginning with `/`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Paths that serve something else, now or in what the design has promised; a path below one of them is taken too.
const TAKEN_PATHS: [&str; 5] = ["/-", "/api", "/map", "/probe", "/config"];

pub(super) fn telemetry_path(text: &str) -> Result<TelemetryPath, String> {
    let Some(rest) = text.strip_prefix('/') else {
        return Err(format!("a path begins with a slash: /{text}"));
    };
    if rest.is_empty() {
        return Err("/ is the landing page: choose another path, such as /metrics".to_owned());
    }
    if let Some(bad) = rest
        .chars()
        .find(|&c| !(c.is_ascii_alphanumeric() || "/-._~".contains(c)))
    {
        return Err(format!(
            "{bad:?} cannot stand in the path: use letters, digits and - . _ ~"
        ));
    }
    if text
        .split('/')
        .skip(1)
        .any(|part| matches!(part, "" | "." | ".."))
    {
        return Err("a path has no empty part, and no . or .. for a part".to_owned());
    }
    let taken = TAKEN_PATHS.into_iter().find(|taken| {
        text.strip_prefix(taken)
            .is_some_and(|below| below.is_empty() || below.starts_with('/'))
    });
    match taken {
        Some(taken) => Err(format!(
            "{taken} serves something else: choose another path, such as /metrics"
        )),
        None => Ok(TelemetryPath(text.to_owned())),
    }
}

/// The bounds of `--collector.poll-interval`.
const POLL_INTERVALS: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_secs(3600);

pub(super) fn poll_interval(text: &str) -> Result<Duration, String> {
    let interval = duration(text)?;
    if POLL_INTERVALS.contains(&interval) {
        Ok(interval)
    } else {
        Err("choose 100ms to 1h".to_owned())
    }
}

/// Reads a duration as Prometheus writes one: `1s`, `500ms`, `1m30s`.
fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a duration: write it like 1s, 500ms or 1m30s");
    let mut rest = text;
    let mut sum = Duration::ZERO;
    let mut coarser = u64::MAX;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, tail) = rest.split_at(digits);
        let number: u64 = number.parse().map_err(|_| wrong())?;
        let letters = tail.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (unit, tail) = tail.split_at(letters);
        let milliseconds = match unit {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => return Err(wrong()),
        };
        // Each unit once, the coarser first.
        if milliseconds >= coarser {
            return Err(wrong());
        }
        coarser = milliseconds;
        let part = number.checked_mul(milliseconds).ok_or_else(wrong)?;
        sum = sum
            .checked_add(Duration::from_millis(part))
            .ok_or_else(wrong)?;
        rest = tail;
    }
    if text.is_empty() {
        Err(wrong())
    } else {
        Ok(sum)
    }
}

/// Ports a person asks about: `561`, `80/tcp`, `609-611` or `609-611/udp`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PortQuery {
    /// The numbers.
    pub span: Span,
    /// The protocol; `None`: both.
    pub protocol: Option<Protocol>,
}

impl PortQuery {
    /// The ports, by number, then protocol.
    pub fn ports(self) -> impl Iterator<Item = Port> {
        self.span.numbers().flat_map(move |number| {
            Protocol::ALL
                .into_iter()
                .filter(move |&protocol| self.protocol.is_none_or(|only| only == protocol))
                .map(move |protocol| Port { number, protocol })
        })
    }
}

pub(super) fn port_query(text: &str) -> Result<PortQuery, ParseError> {
    let (span, protocol) = match text.split_once('/') {
        Some((span, protocol)) => (span, Some(protocol.parse()?)),
        None => (text, None),
    };
    Ok(PortQuery {
        span: span.parse()?,
        protocol,
    })
}
