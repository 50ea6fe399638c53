//! The types of the flags' values, and how each is read from text.

use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};

use crate::duration;
use crate::port::{ParseError, Port, Protocol, Span};
use crate::probe::Module;

/// Reads one of a closed set by its name; help and errors list the names.
pub(super) fn one_of<T, const N: usize>(
    all: [T; N],
    name: fn(T) -> &'static str,
) -> impl TypedValueParser<Value = T>
where
    T: Copy + Send + Sync + 'static,
{
    PossibleValuesParser::new(all.map(name)).map(move |text| {
        all.into_iter()
            .find(|&each| name(each) == text)
            .expect("clap lets nothing through but these names")
    })
}

/// The bounds of `--collector.poll-interval`.
const POLL_INTERVALS: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_secs(3600);

pub(super) fn poll_interval(text: &str) -> Result<Duration, String> {
    let interval = duration::parse(text)?;
    if POLL_INTERVALS.contains(&interval) {
        Ok(interval)
    } else {
        Err("choose 100ms to 1h".to_owned())
    }
}

pub(super) fn probe_timeout(text: &str) -> Result<Duration, String> {
    let timeout = duration::parse(text)?;
    if Module::TIMEOUTS.contains(&timeout) {
        Ok(timeout)
    } else {
        Err("choose 10ms to 1m".to_owned())
    }
}

/// The form of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// For a person.
    Table,
    /// For a program.
    Json,
}

impl Output {
    pub(super) const ALL: [Self; 2] = [Self::Table, Self::Json];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Table => "table",
            Self::Json => "json",
        }
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
