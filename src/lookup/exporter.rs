//! Asking the exporter that runs: one request in plain HTTP, bounded in time and size.

use std::fmt;
use std::io;
use std::str::FromStr;
use std::time::Duration;

use super::told::Told;
use crate::client::{self, Limits, Reply, Scheme, Url};
use crate::log::Chain;

/// How long the whole of it may take. The exporter takes a sample for the answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// The longest answer that is read. One that tells of 16,384 events has some five million bytes.
const LONGEST: usize = 64 << 20;

/// What of a refusal is shown.
const SHOWN: usize = 300;

/// Where an exporter answers: `http://HOST[:PORT][/PREFIX]`. The path ends with `/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExporterUrl(Url);

/// A URL under which no exporter can be asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// Not a URL with a host.
    #[error("write it as http://localhost:10561")]
    Malformed,
    /// HTTPS.
    #[error(
        "lookup asks in plain HTTP and cannot check a certificate: ask an exporter without TLS, or look at its /map"
    )]
    Tls,
    /// A name and a password in the URL.
    #[error("credentials in a command line can be read by every user: lookup takes none")]
    Credentials,
}

impl FromStr for ExporterUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        let authority = text.split('/').nth(2).unwrap_or_default();
        if authority.contains('@') {
            return Err(UrlError::Credentials);
        }
        let mut url: Url = text.parse().map_err(|_| UrlError::Malformed)?;
        if url.scheme == Scheme::Https {
            return Err(UrlError::Tls);
        }
        if url.path.contains('?') {
            return Err(UrlError::Malformed);
        }
        url.path = format!("{}/", url.path.trim_end_matches('/'));
        Ok(Self(url))
    }
}

impl fmt::Display for ExporterUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Why the exporter told nothing.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody is there.
    #[error("no exporter answers at {url}: {source}")]
    Absent {
        /// Where it was asked.
        url: ExporterUrl,
        /// What the system said.
        source: io::Error,
    },
    /// It took too long.
    #[error("{url} does not answer within {} s", PATIENCE.as_secs())]
    Late {
        /// Where it was asked.
        url: ExporterUrl,
    },
    /// It wants to know who asks.
    #[error(
        "{0} asks for a name and a password (basic_auth_users in its --web.config.file), of which lookup has none: look at \
         its /map in a browser"
    )]
    Guarded(ExporterUrl),
    /// Another answer than was hoped for.
    #[error("{url} answers {status}: {text:?}")]
    Refused {
        /// Where it was asked.
        url: ExporterUrl,
        /// The status.
        status: u16,
        /// The beginning of what it said.
        text: String,
    },
    /// What answers does not speak HTTP, or not to its end.
    #[error("{url} does not answer in plain HTTP: {why}")]
    Garbled {
        /// Where it was asked.
        url: ExporterUrl,
        /// What was wrong.
        why: String,
    },
    /// What answers is no exporter of this kind.
    #[error("{url} is not a darkport_exporter: {why}")]
    Other {
        /// Where it was asked.
        url: ExporterUrl,
        /// The beginning of what was wrong, which may quote the answer.
        why: String,
    },
}

/// What the exporter tells of its ports. Blocks; not to be called in a runtime.
///
/// # Errors
/// When it is not there, or does not tell.
pub fn ask(url: &ExporterUrl) -> Result<Told, Error> {
    let absent = |source| Error::Absent {
        url: url.clone(),
        source,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(absent)?;
    let mut of_ports = url.0.clone();
    of_ports.path.push_str("api/v1/ports");
    let limits = Limits {
        time: PATIENCE,
        bytes: LONGEST,
    };
    let asked = runtime.block_on(client::get(&of_ports, limits));
    // A resolver that hangs is not waited for.
    runtime.shutdown_background();
    let Reply { status, body } = asked.map_err(|error| match error {
        client::Error::Connect { source, .. } => absent(source),
        client::Error::Late { .. } => Error::Late { url: url.clone() },
        error => Error::Garbled {
            url: url.clone(),
            why: Chain(&error).to_string(),
        },
    })?;
    match status {
        200 => serde_json::from_slice(&body).map_err(|error| Error::Other {
            url: url.clone(),
            why: beginning(error.to_string().as_bytes()),
        }),
        401 => Err(Error::Guarded(url.clone())),
        status => Err(Error::Refused {
            url: url.clone(),
            status,
            text: beginning(&body),
        }),
    }
}

fn beginning(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(&body[..body.len().min(SHOWN)]);
    text.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_as_people_write_them() {
        for (text, shown) in [
            ("http://127.0.0.1:10561", "http://127.0.0.1:10561/"),
            ("http://localhost:10561/", "http://localhost:10561/"),
            ("http://[::1]:10561/", "http://[::1]:10561/"),
            (
                "http://example.org/darkport/",
                "http://example.org:80/darkport/",
            ),
        ] {
            assert_eq!(text.parse::<ExporterUrl>().unwrap().to_string(), shown);
        }
        for (text, error) in [
            ("https://localhost:10561", UrlError::Tls),
            ("http://a:b@localhost", UrlError::Credentials),
            ("localhost:10561", UrlError::Malformed),
            ("ftp://localhost", UrlError::Malformed),
            ("http://localhost?x", UrlError::Malformed),
            ("http://localhost:65536", UrlError::Malformed),
            ("", UrlError::Malformed),
        ] {
            assert_eq!(text.parse::<ExporterUrl>(), Err(error), "{text}");
        }
    }
}
