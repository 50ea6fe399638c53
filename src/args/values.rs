//! The types of the flags' values, and how each is read from text.

use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};

use crate::port::{ParseError, Port, Protocol, Span};

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
