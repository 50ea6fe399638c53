//! What reaches the web front from outside, for the fuzzers; see [`crate::fuzzing`].

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, LazyLock};

use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;

use super::places::Places;
use super::routes::Front;
use super::settings::{Settings, Sources};
use super::{Options, Site, auth, client_certificate, connection, encoding, probe, routes};
use crate::api::{Document, Glance};
use crate::counts::Tier;
use crate::fuzzing::assert_printable;

/// What comes over a connection of HTTP/1, as it is: what goes back is HTTP/1, or nothing.
pub(crate) fn http(bytes: &[u8]) {
    static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
        let mut builder = Builder::new_current_thread();
        builder.enable_all().build().expect("a runtime can be had")
    });
    static FRONT: LazyLock<Arc<Front>> = LazyLock::new(|| {
        let options = Options {
            has_lifecycle: true,
            ..Options::default()
        };
        Arc::new(Front::new(Arc::new(Still), &options).expect("there are random numbers"))
    });

    let answers = RUNTIME.block_on(async {
        let (mut client, server) = duplex(64 << 10);
        let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        let place = Places::new(1)
            .take(peer.ip())
            .expect("the first place is free");
        let (_open, closing) = watch::channel(());
        let served = connection::run_http1(
            server,
            peer,
            place,
            Arc::clone(&FRONT),
            Arc::default(),
            closing,
        );
        let asked = async {
            // The front may end the connection before it has read everything.
            let _ = client.write_all(bytes).await;
            let _ = client.shutdown().await;
            let mut answers = Vec::new();
            let _ = client.read_to_end(&mut answers).await;
            answers
        };
        tokio::join!(served, asked).1
    });
    assert!(
        answers.is_empty() || answers.starts_with(b"HTTP/1."),
        "{}",
        answers.escape_ascii()
    );
}

/// A query in the first line, and headers in those behind it.
pub(crate) fn headers(bytes: &[u8]) {
    let mut lines = bytes.split(|&byte| byte == b'\n');
    let query = String::from_utf8_lossy(lines.next().unwrap_or_default());
    let mut headers = HeaderMap::new();
    for line in lines {
        let colon = line.iter().position(|&byte| byte == b':');
        let (name, value) = line.split_at(colon.unwrap_or(line.len()));
        if let (Ok(name), Ok(value)) = (
            HeaderName::from_bytes(name),
            HeaderValue::from_bytes(value.get(1..).unwrap_or_default()),
        ) {
            headers.append(name, value);
        }
    }
    probe::fuzz(&query, &headers);
    auth::fuzz(&headers);
    routes::fuzz(&headers);
    let _ = encoding::wants_gzip(&headers);
}

/// A client's certificate.
pub(crate) fn certificate(bytes: &[u8]) {
    client_certificate::fuzz(bytes);
}

/// The web configuration; the files it names are not there.
pub(crate) fn settings(text: &str) {
    let mut sources = Sources::beside(Path::new("/nonexistent/web.yml"));
    match Settings::parse("fuzz.yml", text, &mut sources) {
        Ok(settings) => {
            assert!(!settings.has_tls(), "without a certificate");
            // What is shown shows no hash, and all users still.
            let shown = settings.text();
            assert!(shown.matches("<secret>").count() >= settings.users());
        }
        Err(error) => assert_printable(&error.to_string()),
    }
}

/// A site where nothing happens.
struct Still;

impl Site for Still {
    fn scrape(&self) -> Option<String> {
        Some("# nothing\n".to_owned())
    }

    fn ports(&self) -> Option<Document> {
        Some(document())
    }

    fn facts(&self) -> Option<Document> {
        Some(document())
    }

    fn glance(&self) -> Option<Arc<Glance>> {
        None
    }

    fn is_ready(&self) -> bool {
        true
    }

    fn tier(&self) -> Tier {
        Tier::Polled
    }

    fn reload(&self) -> Result<(), String> {
        Err("it stays as it is".to_owned())
    }

    fn config(&self) -> Arc<str> {
        "watch: []\n".into()
    }
}

fn document() -> Document {
    Document {
        json: Arc::from(&b"{}"[..]),
        id: "0123456789abcdef".to_owned(),
    }
}
