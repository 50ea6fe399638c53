//! Where the map leads to from a port: the URL of a dashboard, with places for the port.

use std::fmt;
use std::str::FromStr;

/// The URL of a dashboard about one port, such as
/// `https://grafana.example.org/d/darkport-port?var-port={port}&var-protocol={protocol}`. Made of characters a URL is made
/// of, and so never of a quotation mark, a bracket or a space.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DashboardUrl(String);

/// What stands for the port.
const PLACES: [&str; 2] = ["{port}", "{protocol}"];

impl DashboardUrl {
    /// The URL, with its places.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DashboardUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for DashboardUrl {
    type Err = BadUrl;

    fn from_str(text: &str) -> Result<Self, BadUrl> {
        check(text).map_err(BadUrl)?;
        Ok(Self(text.to_owned()))
    }
}

/// What is wrong with the URL, and how it is written right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadUrl(String);

fn check(text: &str) -> Result<(), String> {
    let Some(rest) = ["http://", "https://"]
        .into_iter()
        .find_map(|scheme| text.strip_prefix(scheme))
    else {
        return Err(
            "a dashboard's URL begins with http:// or https://, as in https://grafana.example.org/d/darkport-port\
             ?var-port={port}&var-protocol={protocol}"
                .to_owned(),
        );
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if authority.is_empty() || authority.starts_with(':') {
        return Err("the URL names no host".to_owned());
    }
    if authority.contains('@') {
        return Err(
            "the URL holds a user or a password, which everybody would see: leave them out"
                .to_owned(),
        );
    }
    if authority.contains('{') {
        return Err("{port} and {protocol} stand behind the host, not in it".to_owned());
    }
    let plain = PLACES
        .into_iter()
        .fold(rest.to_owned(), |text, place| text.replace(place, ""));
    // RFC 3986, appendix A: unreserved, reserved and percent-encoded; none of them ends an attribute or begins a tag.
    match plain
        .chars()
        .find(|&c| !(c.is_ascii_alphanumeric() || "-._~:/?#[]@!$&()*+,;=%".contains(c)))
    {
        Some(bad @ ('{' | '}')) => Err(format!(
            "{bad:?} stands for nothing: the places are {{port}} and {{protocol}}"
        )),
        Some(bad) => Err(format!(
            "{bad:?} cannot stand in a URL: write it percent-encoded"
        )),
        None if plain.len() == rest.len() => Err(
            "the URL has no place for the port: write {port}, and {protocol} where the dashboard asks for it".to_owned(),
        ),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_has_a_host_and_a_place_for_the_port() {
        for good in [
            "https://grafana.example.org/d/x?var-port={port}&var-protocol={protocol}",
            "http://[::1]:3000/d/x?var-port={port}",
            "http://h/%7B/{protocol}/{port}#top",
        ] {
            assert_eq!(good.parse::<DashboardUrl>().unwrap().as_str(), good);
        }
        for (bad, why) in [
            ("grafana.example.org/{port}", "begins with http"),
            ("javascript:alert({port})", "begins with http"),
            ("http://", "no host"),
            ("https:///d/{port}", "no host"),
            ("http://u:p@h/{port}", "password"),
            ("http://{port}.example.org/", "behind the host"),
            ("http://h/d/x", "no place for the port"),
            ("http://h/{port}/{host}", "'{' stands for nothing"),
            ("http://h/{port}\"onclick=", "'\"' cannot stand"),
            ("http://h/{port}'", "cannot stand"),
            ("http://h/{port}<b>", "'<' cannot stand"),
            ("http://h/{port} x", "' ' cannot stand"),
            ("http://h/{port}\u{e9}", "cannot stand"),
        ] {
            let error = bad.parse::<DashboardUrl>().unwrap_err().to_string();
            assert!(error.contains(why), "{bad}: {error}");
        }
    }
}
