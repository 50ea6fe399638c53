//! What somebody wants probed: an address, or a name that has some.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, ToSocketAddrs as _};
use std::str::FromStr;

use super::module::Preference;

/// A host: an address, or a name that has some.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// One address.
    Address(IpAddr),
    /// A name, in lower case, or an IPv6 address with its zone.
    Name(String),
}

/// The most addresses of a name that are asked.
pub(super) const MOST_ADDRESSES: usize = 16;

/// What is wrong with the text of a target, and how it is written right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadTarget {
    /// Nothing at all.
    #[error("the target is empty: name a host or an address")]
    Empty,
    /// Longer than any name (RFC 1035: 253 characters).
    #[error("the target has {0} characters: a host name has at most 253")]
    TooLong(usize),
    /// With user or password.
    #[error("the target names a user: give only the host")]
    UserInfo,
    /// A URL, or part of one.
    #[error("the target has a path: give only the host")]
    Path,
    /// With a port.
    #[error("the target names a port: give only the host, the module has the ports")]
    Port,
    /// Anything else.
    #[error("{0:?} is neither an address nor a host name")]
    Other(String),
}

impl FromStr for Target {
    type Err = BadTarget;

    fn from_str(text: &str) -> Result<Self, BadTarget> {
        const LONGEST: usize = 253;
        if text.is_empty() {
            return Err(BadTarget::Empty);
        }
        if text.len() > LONGEST {
            return Err(BadTarget::TooLong(text.chars().count()));
        }
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self::Address(address.to_canonical()));
        }
        if text.contains('@') {
            return Err(BadTarget::UserInfo);
        }
        if text.contains(['/', '?', '#', '\\']) {
            return Err(BadTarget::Path);
        }
        if let Some(rest) = text.strip_prefix('[') {
            return match rest.split_once(']') {
                Some((inner, "")) if inner.contains(':') => inner.parse(),
                Some((_, behind)) if behind.starts_with(':') => Err(BadTarget::Port),
                _ => Err(BadTarget::Other(text.to_owned())),
            };
        }
        if let Some((address, zone)) = text.split_once('%') {
            return zoned(address, zone).ok_or_else(|| BadTarget::Other(text.to_owned()));
        }
        if text.contains(':') {
            let is_ipv6 = text.matches(':').count() > 1;
            return Err(if is_ipv6 {
                BadTarget::Other(text.to_owned())
            } else {
                BadTarget::Port
            });
        }
        name(text).ok_or_else(|| BadTarget::Other(text.to_owned()))
    }
}

fn zoned(address: &str, zone: &str) -> Option<Target> {
    let address: Ipv6Addr = address.parse().ok()?;
    let is_zone = !zone.is_empty()
        && zone
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'));
    is_zone.then(|| Target::Name(format!("{address}%{zone}")))
}

fn name(text: &str) -> Option<Target> {
    let is_name = text
        .split('.')
        .enumerate()
        // A name may end with the dot of the root.
        .all(|(index, label)| label.len() <= 63 && (!label.is_empty() || index > 0))
        && !text.contains("..")
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'));
    // A name of digits and dots only is an address that was mistyped.
    let is_number = text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    (is_name && !is_number).then(|| Target::Name(text.to_ascii_lowercase()))
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => write!(f, "{address}"),
            Self::Name(name) => f.pad(name),
        }
    }
}

impl Target {
    /// The addresses to ask, sorted, with port 0: all those of the family that is preferred, or of the other one if there
    /// is none and it may be fallen back to. Blocks.
    ///
    /// # Errors
    /// When the name has no such address, or more than are asked, or the resolver cannot say.
    pub(super) fn resolve(&self, preference: Preference) -> io::Result<Vec<SocketAddr>> {
        match self {
            Self::Address(address) => Ok(vec![SocketAddr::new(*address, 0)]),
            Self::Name(name) => {
                let all = (name.as_str(), 0).to_socket_addrs()?;
                choose(all.map(canonical).collect(), preference)
            }
        }
    }
}

fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        IpAddr::V4(ip) => SocketAddr::new(ip.into(), 0),
        IpAddr::V6(_) => address,
    }
}

fn choose(all: Vec<SocketAddr>, preference: Preference) -> io::Result<Vec<SocketAddr>> {
    let (preferred, other): (Vec<_>, Vec<_>) = all
        .into_iter()
        .partition(|address| address.is_ipv6() == preference.ipv6);
    let mut chosen = if preferred.is_empty() && preference.fallback {
        other
    } else {
        preferred
    };
    chosen.sort_unstable();
    chosen.dedup();
    if chosen.is_empty() {
        let family = if preference.ipv6 { "IPv6" } else { "IPv4" };
        let fallback = if preference.fallback {
            ""
        } else {
            " and the module allows no other"
        };
        return Err(io::Error::other(format!(
            "it has no {family} address{fallback}"
        )));
    }
    if chosen.len() > MOST_ADDRESSES {
        return Err(io::Error::other(format!(
            "it has {} addresses, {MOST_ADDRESSES} are asked at the most",
            chosen.len()
        )));
    }
    Ok(chosen)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_read_as_they_are_written() {
        for (text, written) in [
            ("192.0.2.1", "192.0.2.1"),
            ("::1", "::1"),
            ("[::1]", "::1"),
            ("2001:DB8::1", "2001:db8::1"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("Host-1.Example.", "host-1.example."),
            ("localhost", "localhost"),
            ("fe80::1%eth0", "fe80::1%eth0"),
            ("a_b", "a_b"),
        ] {
            assert_eq!(
                text.parse::<Target>().unwrap().to_string(),
                written,
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_more_than_a_host_is_refused_by_name() {
        let refused = |text: &str| text.parse::<Target>().expect_err(text);
        assert_eq!(refused(""), BadTarget::Empty);
        assert_eq!(refused(&"a".repeat(10_000)), BadTarget::TooLong(10_000));
        for text in ["user@host", "user:secret@host", "http://user@host/"] {
            assert_eq!(refused(text), BadTarget::UserInfo, "{text}");
        }
        for text in [
            "host/",
            "http://host",
            "host/path",
            "192.0.2.0/24",
            "host?x",
            "host#x",
            "\\host",
        ] {
            assert_eq!(refused(text), BadTarget::Path, "{text}");
        }
        for text in ["host:80", "192.0.2.1:80", "[::1]:80", "host:"] {
            assert_eq!(refused(text), BadTarget::Port, "{text}");
        }
        for text in [
            "1.2.3",
            "1.2.3.4.5",
            "256.1.1.1",
            "2130706433",
            "a b",
            "a..b",
            ".",
            ".a",
            "-\u{1b}[2J",
            "::1::",
            "[::1",
            "[host]",
            "fe80::1%",
            "fe80::1%a b",
            "1.2.3.4%eth0",
            "h\u{f6}st",
            "a\0b",
        ] {
            let error = refused(text);
            assert!(matches!(error, BadTarget::Other(_)), "{text}");
            assert!(!error.to_string().contains(['\u{1b}', '\0']), "{error}");
        }
        assert!(format!("{}.a", "b".repeat(64)).parse::<Target>().is_err());
    }

    #[test]
    fn the_preferred_family_is_taken_whole() {
        let addresses = |texts: &[&str]| -> Vec<SocketAddr> {
            texts
                .iter()
                .map(|text| SocketAddr::new(text.parse().unwrap(), 0))
                .collect()
        };
        let both = addresses(&["192.0.2.2", "192.0.2.1", "2001:db8::1", "192.0.2.1"]);
        let chosen = |ipv6, fallback, all: &[SocketAddr]| {
            choose(all.to_vec(), Preference { ipv6, fallback })
        };
        assert_eq!(
            chosen(true, true, &both).unwrap(),
            addresses(&["2001:db8::1"])
        );
        assert_eq!(
            chosen(false, true, &both).unwrap(),
            addresses(&["192.0.2.1", "192.0.2.2"])
        );
        assert_eq!(
            chosen(true, true, &both[..1]).unwrap(),
            addresses(&["192.0.2.2"])
        );
        assert!(chosen(true, false, &both[..1]).is_err());
        let many: Vec<SocketAddr> = (0..17)
            .map(|n| SocketAddr::new([192, 0, 2, n].into(), 0))
            .collect();
        assert!(chosen(false, true, &many).is_err());
        assert_eq!(
            chosen(false, true, &many[1..]).unwrap().len(),
            MOST_ADDRESSES
        );
    }

    proptest::proptest! {
        #[test]
        fn parsing_never_panics(text in "\\PC{0,20}") {
            let _ = text.parse::<Target>();
        }
    }
}
