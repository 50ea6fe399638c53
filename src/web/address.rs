//! Where to listen: `:10561`, `host:10561`, `[v6]:10561`.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use crate::port::{ParseError, Span};

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

impl FromStr for ListenAddress {
    type Err = BadAddress;

    fn from_str(text: &str) -> Result<Self, BadAddress> {
        read(text).map_err(BadAddress)
    }
}

/// What is wrong with the text of a listen address, and how it is written right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadAddress(String);

/// Reads `:PORT`, `HOST:PORT` or `[IPV6]:PORT`.
fn read(text: &str) -> Result<ListenAddress, String> {
    if let Some(bad) = text.chars().find(|c| c.is_control()) {
        return Err(format!("{bad:?} cannot stand in an address"));
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_written_as_it_is_read() {
        for text in [
            ":10561",
            ":0",
            "localhost:10561",
            "127.0.0.1:80",
            "[::1]:10561",
            "[fe80::1%eth0]:10561",
            "host-1.example:65535",
        ] {
            assert_eq!(text.parse::<ListenAddress>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn nothing_in_a_bad_address_reaches_a_terminal_unescaped() {
        let error = "\u{1b}[2J:1".parse::<ListenAddress>().unwrap_err();
        assert!(!error.to_string().contains('\u{1b}'), "{error}");
    }

    proptest::proptest! {
        #[test]
        fn parsing_never_panics(text in "\\PC{0,20}") {
            let _ = text.parse::<ListenAddress>();
        }
    }
}
