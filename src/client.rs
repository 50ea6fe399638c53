//! Asking a running exporter over HTTP: one request, one bounded answer, in bounded time.
//!
//! For commands that speak with an exporter of the same host. It knows URLs, TLS and HTTP/1; what is asked for, and what
//! an answer means, is for who asks. It sends no secret and believes whoever answers: a certificate is not verified, since
//! the exporter's own is often self-signed, and is made for the name by which others reach the host. So nothing may be
//! built on it that tells a secret, or that trusts an answer from another host.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, HOST, USER_AGENT};
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{self, AlertDescription, ClientConfig};

mod unverified;

/// Whether TLS is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// It is not.
    Http,
    /// It is.
    Https,
}

/// What to ask, and whom.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Url {
    /// Whether over TLS.
    pub scheme: Scheme,
    /// A name or an address; an IPv6 address without brackets.
    pub host: String,
    /// The TCP port.
    pub port: u16,
    /// The path and what follows it; begins with a slash.
    pub path: String,
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.scheme {
            Scheme::Http => "http",
            Scheme::Https => "https",
        };
        write!(f, "{scheme}://{}{}", self.authority(), self.path)
    }
}

impl Url {
    /// Host and port, as they stand in a URL.
    fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

/// What is wrong with the text of a URL.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not the URL of an exporter: write it like http://localhost:10561/-/healthy")]
pub struct BadUrl(String);

impl FromStr for Url {
    type Err = BadUrl;

    /// Reads `http://HOST[:PORT][/PATH]`, or `https`. User and password are refused: none are sent.
    fn from_str(text: &str) -> Result<Self, BadUrl> {
        let bad = || BadUrl(text.to_owned());
        let uri: Uri = text.parse().map_err(|_| bad())?;
        let (scheme, default_port) = match uri.scheme_str() {
            Some("http") => (Scheme::Http, 80),
            Some("https") => (Scheme::Https, 443),
            _ => return Err(bad()),
        };
        let authority = uri.authority().ok_or_else(bad)?;
        // With a user in front, it does not begin with the host.
        let port = match authority.as_str().strip_prefix(authority.host()) {
            Some("") => default_port,
            Some(rest) => authority
                .port_u16()
                .filter(|_| rest != ":")
                .ok_or_else(bad)?,
            None => return Err(bad()),
        };
        let host = authority.host().trim_matches(['[', ']']);
        if host.is_empty() {
            return Err(bad());
        }
        Ok(Self {
            scheme,
            host: host.to_owned(),
            port,
            path: uri
                .path_and_query()
                .map_or("/", |path| path.as_str())
                .to_owned(),
        })
    }
}

/// How much a question may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// From the first look at the name to the last byte of the answer.
    pub time: Duration,
    /// Bytes of the answer's body.
    pub bytes: usize,
}

/// What was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// HTTP's status.
    pub status: u16,
    /// The body, whole.
    pub body: Bytes,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The name has no address, or nobody listens there.
    #[error("{url}: cannot connect")]
    Connect {
        /// Who was asked.
        url: Url,
        /// What the system said.
        source: io::Error,
    },
    /// No TLS came about.
    #[error("{url}: no TLS connection")]
    Tls {
        /// Who was asked.
        url: Url,
        /// Why.
        source: io::Error,
    },
    /// Who answers wants to see a certificate, and there is none to show.
    #[error("{0}: a client certificate is asked for, and there is none to show")]
    ClientCertificate(Url),
    /// What came back is not HTTP, or was cut off.
    #[error("{url}: no HTTP answer")]
    Http {
        /// Who was asked.
        url: Url,
        /// Why.
        source: hyper::Error,
    },
    /// The answer's body is larger than it may be, or was cut off.
    #[error("{url}: the answer cannot be read: {reason}")]
    Body {
        /// Who was asked.
        url: Url,
        /// Why.
        reason: String,
    },
    /// The URL cannot be asked for.
    #[error("{0}: not a URL that can be asked for")]
    Request(Url),
    /// It took too long.
    #[error("{url}: no answer within {time:?}")]
    Late {
        /// Who was asked.
        url: Url,
        /// How long was waited.
        time: Duration,
    },
}

/// Asks for a URL. Redirects are answers like others.
///
/// # Errors
/// When there is no whole answer within the limits. Whatever status it has, an answer is none.
pub async fn get(url: &Url, limits: Limits) -> Result<Reply, Error> {
    let late = |_| Error::Late {
        url: url.clone(),
        time: limits.time,
    };
    tokio::time::timeout(limits.time, ask(url, limits.bytes))
        .await
        .map_err(late)?
}

async fn ask(url: &Url, bytes: usize) -> Result<Reply, Error> {
    let stream = TcpStream::connect((url.host.as_str(), url.port))
        .await
        .map_err(|source| Error::Connect {
            url: url.clone(),
            source,
        })?;
    match url.scheme {
        Scheme::Http => exchange(stream, url, bytes).await,
        Scheme::Https => exchange(secured(stream, url).await?, url, bytes).await,
    }
}

async fn secured(
    stream: TcpStream,
    url: &Url,
) -> Result<tokio_rustls::client::TlsStream<TcpStream>, Error> {
    let failed = |source: io::Error| {
        if wants_certificate(&source) {
            Error::ClientCertificate(url.clone())
        } else {
            Error::Tls {
                url: url.clone(),
                source,
            }
        }
    };
    let config = config().map_err(|error| failed(io::Error::other(error)))?;
    let name = match url.host.parse::<IpAddr>() {
        Ok(address) => ServerName::from(address),
        Err(_) => ServerName::try_from(url.host.clone())
            .map_err(|error| failed(io::Error::other(error)))?,
    };
    TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
        .map_err(failed)
}

fn config() -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = unverified::Unverified::new(&provider);
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    Ok(config)
}

async fn exchange<S>(stream: S, url: &Url, bytes: usize) -> Result<Reply, Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let failed = |source: hyper::Error| {
        // In TLS 1.3 the client is done with the handshake before the server has looked for a certificate.
        if causes(&source).any(wants_certificate) {
            Error::ClientCertificate(url.clone())
        } else {
            Error::Http {
                url: url.clone(),
                source,
            }
        }
    };
    let request = Request::get(url.path.as_str())
        .header(HOST, url.authority())
        .header(CONNECTION, "close")
        .header(
            USER_AGENT,
            concat!("darkport_exporter/", env!("CARGO_PKG_VERSION")),
        )
        .body(Empty::<Bytes>::new())
        .map_err(|_| Error::Request(url.clone()))?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(failed)?;
    // Ends with this question, however that ends. What goes wrong with the connection, the question is told as well.
    let mut driver = JoinSet::new();
    driver.spawn(connection);
    let answer = sender.send_request(request).await.map_err(failed)?;
    let status = answer.status().as_u16();
    let body = Limited::new(answer.into_body(), bytes)
        .collect()
        .await
        .map_err(|error| Error::Body {
            url: url.clone(),
            reason: error.to_string(),
        })?
        .to_bytes();
    Ok(Reply { status, body })
}

/// The input and output errors among the causes of an error.
fn causes<'a>(error: &'a (dyn std::error::Error + 'static)) -> impl Iterator<Item = &'a io::Error> {
    std::iter::successors(Some(error), |error| error.source())
        .filter_map(|error| error.downcast_ref::<io::Error>())
}

fn wants_certificate(error: &io::Error) -> bool {
    let cause = error
        .get_ref()
        .and_then(|cause| cause.downcast_ref::<rustls::Error>());
    matches!(
        cause,
        Some(rustls::Error::AlertReceived(
            AlertDescription::CertificateRequired
        ))
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_written_as_it_is_read() {
        for text in [
            "http://localhost:10561/-/healthy",
            "https://[::1]:443/",
            "http://127.0.0.1:80/a?b=c",
        ] {
            assert_eq!(text.parse::<Url>().unwrap().to_string(), text);
        }
        let short: Url = "https://db1.example.net".parse().unwrap();
        assert_eq!(short.to_string(), "https://db1.example.net:443/");
    }

    #[test]
    fn what_cannot_be_asked_is_refused() {
        for text in [
            "",
            "localhost:10561",
            "/-/healthy",
            "ftp://localhost/",
            "http://",
            "http://:80/",
            "http://me:secret@localhost/",
            "http://localhost:65536/",
            "http://localhost:x/",
            "http://localhost:/",
            "http://localhost@localhost/",
        ] {
            assert!(text.parse::<Url>().is_err(), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn reading_never_panics(text in "\\PC{0,40}") {
            let _ = text.parse::<Url>();
        }
    }
}
