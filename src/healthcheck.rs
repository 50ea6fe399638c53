//! Whether a running exporter is healthy: for the health check of a container, which has no other program to ask with.
//!
//! It asks at the addresses that the exporter was told to listen on, and knows from the web configuration whether TLS is
//! spoken there. An exporter that asks for a password or a client certificate is alive, and healthy: there is no secret
//! here to answer it with, and none is wanted.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::time::Duration;

use crate::client::{self, Limits, Scheme, Url};
use crate::log::Chain;
use crate::web::{Host, ListenAddress, SettingsFile};

/// Where an exporter says that it runs.
pub const PATH: &str = "/-/healthy";

/// What the answer may have; it is a line.
const ANSWER_BYTES: usize = 64 << 10;

/// By what an exporter is known to be healthy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Healthy {
    /// It says so.
    Says(Url),
    /// It asks for a password.
    AsksForPassword(Url),
    /// It asks for a client certificate.
    AsksForCertificate(Url),
    /// It has been asked too often in a short time.
    LimitsRate(Url),
}

impl fmt::Display for Healthy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Says(url) => write!(f, "{url}: healthy"),
            Self::AsksForPassword(url) => write!(f, "{url}: healthy; it asks for a password"),
            Self::AsksForCertificate(url) => {
                write!(f, "{url}: healthy; it asks for a client certificate")
            }
            Self::LimitsRate(url) => write!(f, "{url}: healthy; it limits the rate of requests"),
        }
    }
}

/// Why an exporter is not healthy, or not known to be.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be asked, wherever it was looked for.
    #[error("unhealthy: {0}")]
    NoAnswer(String),
    /// It answers, but not as an exporter does.
    #[error("unhealthy: {url}: answered with status {status}")]
    Status {
        /// Where.
        url: Url,
        /// HTTP's status.
        status: u16,
    },
    /// The system chooses the port, and only the exporter's log tells which.
    #[error(
        "with port 0 the exporter is nowhere to be found: name its port in --web.listen-address, or its URL in --url"
    )]
    NoPort,
}

/// Where an exporter that listens on these addresses, with this web configuration, may be asked.
///
/// Where the web configuration cannot be read now, the exporter goes on with the one it has, and may be asked either way.
///
/// # Errors
/// When no address has a port.
pub fn urls(listen: &[ListenAddress], web_config: Option<&Path>) -> Result<Vec<Url>, Error> {
    let schemes: &[Scheme] = match web_config.map(SettingsFile::load) {
        None => &[Scheme::Http],
        Some(Ok(file)) if file.current().has_tls() => &[Scheme::Https],
        Some(Ok(_)) => &[Scheme::Http],
        Some(Err(_)) => &[Scheme::Https, Scheme::Http],
    };
    let urls: Vec<Url> = listen
        .iter()
        .filter(|address| address.port != 0)
        .flat_map(|address| {
            hosts(&address.host)
                .into_iter()
                .map(|host| (host, address.port))
        })
        .flat_map(|(host, port)| {
            schemes.iter().map(move |&scheme| Url {
                scheme,
                host: host.clone(),
                port,
                path: PATH.to_owned(),
            })
        })
        .collect();
    if urls.is_empty() {
        Err(Error::NoPort)
    } else {
        Ok(urls)
    }
}

/// Where somebody who listens there is reached from the same host.
fn hosts(host: &Host) -> Vec<String> {
    let loopback = [
        IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(Ipv6Addr::LOCALHOST),
    ];
    match host {
        Host::Any => loopback.map(|address| address.to_string()).to_vec(),
        Host::Address(address) if address.is_unspecified() => loopback
            .into_iter()
            .filter(|local| local.is_ipv4() || address.is_ipv6())
            .map(|local| local.to_string())
            .collect(),
        Host::Address(address) => vec![address.to_string()],
        Host::Name(name) => vec![name.clone()],
    }
}

/// Asks at one URL after the other until there is an answer, which is judged. `time` is for all of them together.
///
/// # Errors
/// When nobody answers, or it is not the answer of an exporter that is healthy.
pub async fn check(urls: &[Url], time: Duration) -> Result<Healthy, Error> {
    let end = tokio::time::Instant::now() + time;
    let mut failures = Vec::new();
    for url in urls {
        let limits = Limits {
            time: end.saturating_duration_since(tokio::time::Instant::now()),
            bytes: ANSWER_BYTES,
        };
        let url = url.clone();
        match client::get(&url, limits).await.map(|reply| reply.status) {
            Ok(200) => return Ok(Healthy::Says(url)),
            Ok(401) => return Ok(Healthy::AsksForPassword(url)),
            Ok(429) => return Ok(Healthy::LimitsRate(url)),
            Ok(status) => return Err(Error::Status { url, status }),
            Err(client::Error::ClientCertificate(url)) => {
                return Ok(Healthy::AsksForCertificate(url));
            }
            Err(client::Error::Late { url, .. }) => {
                failures.push(format!("{url}: no answer within {time:?}"));
                // None is left for the others.
                break;
            }
            Err(error) => failures.push(Chain(&error).to_string()),
        }
    }
    Err(Error::NoAnswer(failures.join("; ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn where_to_ask(listen: &[&str]) -> Vec<String> {
        let listen: Vec<ListenAddress> = listen.iter().map(|text| text.parse().unwrap()).collect();
        let urls = urls(&listen, None).unwrap();
        urls.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn an_exporter_is_asked_where_it_listens() {
        assert_eq!(
            where_to_ask(&[":10561"]),
            [
                "http://127.0.0.1:10561/-/healthy",
                "http://[::1]:10561/-/healthy"
            ]
        );
        assert_eq!(
            where_to_ask(&["0.0.0.0:1", "[2001:db8::1]:2", "db1:3", "[fe80::1%eth0]:4"]),
            [
                "http://127.0.0.1:1/-/healthy",
                "http://[2001:db8::1]:2/-/healthy",
                "http://db1:3/-/healthy",
                "http://[fe80::1%eth0]:4/-/healthy"
            ]
        );
        assert_eq!(where_to_ask(&[":0", "[::]:1"]).len(), 2);
    }

    #[test]
    fn without_a_port_there_is_nobody_to_ask() {
        let listen = [":0".parse().unwrap()];
        assert!(matches!(urls(&listen, None), Err(Error::NoPort)));
    }

    #[test]
    fn a_web_configuration_that_cannot_be_read_leaves_both_ways_open() {
        let listen = ["127.0.0.1:1".parse().unwrap()];
        let urls = urls(&listen, Some(Path::new("/nonexistent/web.yml"))).unwrap();
        let schemes: Vec<Scheme> = urls.iter().map(|url| url.scheme).collect();
        assert_eq!(schemes, [Scheme::Https, Scheme::Http]);
    }
}
