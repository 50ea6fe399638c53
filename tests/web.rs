//! The web front over real sockets.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test's helpers are tests too"
)]

use std::io::Read as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc as blocking;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use darkport_exporter::api::{Document, Glance};
use darkport_exporter::counts::Tier;
use darkport_exporter::refusals::Reason;
use darkport_exporter::web::{self, ListenAddress, Options, SettingsFile, Site};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

const TEXT: &str = "# HELP up Up.\n# TYPE up gauge\nup 1\n";
/// For what should come at once. It is only there to end a test that would never end.
const LONG: Duration = Duration::from_secs(60);
/// For time-outs that a test waits for.
const SHORT: Duration = Duration::from_millis(500);

const PORTS: &str = "{\"lit\":{}}";
const FACTS: &str = "{\"classes\":{}}";

fn document(text: &str) -> Document {
    Document {
        json: text.as_bytes().into(),
        id: "00c0ffee".to_owned(),
    }
}

struct Fake<F> {
    scrape: F,
    is_ready: Arc<AtomicBool>,
}

impl<F: Fn() -> String + Send + Sync + 'static> Site for Fake<F> {
    fn scrape(&self) -> Option<String> {
        Some((self.scrape)())
    }

    fn ports(&self) -> Option<Document> {
        Some(document(PORTS))
    }

    fn facts(&self) -> Option<Document> {
        Some(document(FACTS))
    }

    fn glance(&self) -> Option<Arc<Glance>> {
        None
    }

    fn is_ready(&self) -> bool {
        self.is_ready.load(Ordering::Relaxed)
    }

    fn tier(&self) -> Tier {
        Tier::Netlink
    }

    /// Takes as long as a scrape.
    fn reload(&self) -> Result<(), String> {
        (self.scrape)();
        Ok(())
    }

    fn config(&self) -> Arc<str> {
        "watch: []\n".into()
    }
}

struct Server {
    addresses: Vec<SocketAddr>,
    is_ready: Arc<AtomicBool>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Server {
    fn start(options: Options, scrape: impl Fn() -> String + Send + Sync + 'static) -> Self {
        Self::start_on(&["127.0.0.1:0"], options, scrape)
    }

    fn start_on(
        addresses: &[&str],
        options: Options,
        scrape: impl Fn() -> String + Send + Sync + 'static,
    ) -> Self {
        let addresses: Vec<ListenAddress> =
            addresses.iter().map(|text| text.parse().unwrap()).collect();
        let listeners = web::bind(&addresses).unwrap();
        let addresses = listeners
            .iter()
            .map(|listener| listener.local_addr().unwrap())
            .collect();
        let is_ready = Arc::new(AtomicBool::new(true));
        let site = Fake {
            scrape,
            is_ready: Arc::clone(&is_ready),
        };
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(async {
            let stop = async {
                let _ = stopped.await;
            };
            web::serve(listeners, Arc::new(site), options, stop)
                .await
                .unwrap();
        });
        Self {
            addresses,
            is_ready,
            stop,
            task,
        }
    }

    fn plain() -> Self {
        Self::start(Options::default(), || TEXT.to_owned())
    }

    async fn connect(&self) -> TcpStream {
        soon(TcpStream::connect(self.addresses[0])).await.unwrap()
    }

    /// Sends a request on a connection of its own and reads until the server closes it.
    async fn send(&self, request: &str) -> Reply {
        let mut stream = self.connect().await;
        stream.write_all(request.as_bytes()).await.unwrap();
        Reply::of(&read_to_end(stream).await)
    }

    async fn ask(&self, method: &str, path: &str, headers: &str) -> Reply {
        self.send(&format!(
            "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n"
        ))
        .await
    }

    async fn get(&self, path: &str) -> Reply {
        self.ask("GET", path, "").await
    }

    async fn stop(self) {
        self.stop.send(()).unwrap();
        soon(self.task).await.unwrap();
    }
}

async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(LONG, future).await.expect("in time")
}

/// What comes until the connection ends, by a reset or otherwise.
async fn read_to_end(mut stream: TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    let _ = soon(stream.read_to_end(&mut bytes)).await;
    bytes
}

#[derive(Debug)]
struct Reply {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Reply {
    fn of(bytes: &[u8]) -> Self {
        let end = bytes
            .windows(4)
            .position(|window| window == b"\r\n\r\n")
            .unwrap_or_else(|| panic!("no head in {:?}", String::from_utf8_lossy(bytes)));
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
        Self {
            status: head[9..12].parse().unwrap(),
            head,
            body: bytes[end + 4..].to_vec(),
        }
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

/// A scrape that says when it has begun and goes on when told.
fn held() -> (
    impl Fn() -> String + Send + Sync + 'static,
    mpsc::UnboundedReceiver<()>,
    blocking::Sender<()>,
) {
    let (begun, begins) = mpsc::unbounded_channel();
    let (go_on, goes_on) = blocking::channel();
    let goes_on = Mutex::new(goes_on);
    let scrape = move || {
        begun.send(()).unwrap();
        goes_on.lock().unwrap().recv_timeout(LONG).unwrap();
        TEXT.to_owned()
    };
    (scrape, begins, go_on)
}

#[tokio::test]
async fn metrics_are_the_scrape_as_it_is() {
    let server = Server::plain();
    for path in ["/metrics", "/metrics?name=up", "http://x/metrics"] {
        let reply = server.get(path).await;
        assert_eq!(reply.status, 200);
        assert_eq!(reply.text(), TEXT);
        assert_eq!(
            reply.header("content-type"),
            Some("text/plain; version=0.0.4; charset=utf-8")
        );
        assert_eq!(
            reply.header("content-length"),
            Some(&*TEXT.len().to_string())
        );
        assert_eq!(reply.header("content-encoding"), None);
        assert_eq!(reply.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(reply.header("vary"), Some("Accept-Encoding"));
    }
    server.stop().await;
}

#[tokio::test]
async fn metrics_are_compressed_for_who_asks() {
    let server = Server::start(Options::default(), || TEXT.repeat(100_000));
    // As Prometheus asks.
    let reply = server
        .ask("GET", "/metrics", "Accept-Encoding: gzip\r\n")
        .await;
    assert_eq!(reply.header("content-encoding"), Some("gzip"));
    assert_eq!(
        reply.header("content-length"),
        Some(&*reply.body.len().to_string())
    );
    let mut text = String::new();
    flate2::read::GzDecoder::new(&*reply.body)
        .read_to_string(&mut text)
        .unwrap();
    assert_eq!(text, TEXT.repeat(100_000));

    let reply = server
        .ask("GET", "/metrics", "Accept-Encoding: gzip;q=0, identity\r\n")
        .await;
    assert_eq!(reply.header("content-encoding"), None);
    assert_eq!(reply.body.len(), TEXT.len() * 100_000);
    server.stop().await;
}

#[tokio::test]
async fn head_is_get_without_the_body() {
    let server = Server::plain();
    for path in ["/", "/metrics", "/-/healthy", "/-/ready", "/nothing"] {
        let get = server.get(path).await;
        let head = server.ask("HEAD", path, "").await;
        assert_eq!(head.status, get.status, "{path}");
        assert_eq!(head.body, b"", "{path}");
        for name in ["content-length", "content-type"] {
            assert!(head.header(name).is_some(), "{path} {name}");
            assert_eq!(head.header(name), get.header(name), "{path} {name}");
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn readiness_follows_the_first_sample_and_health_does_not() {
    let server = Server::plain();
    server.is_ready.store(false, Ordering::Relaxed);
    assert_eq!(server.get("/-/healthy").await.status, 200);
    let reply = server.get("/-/ready").await;
    assert_eq!(reply.status, 503);
    assert!(reply.text().contains("no sample"));
    server.is_ready.store(true, Ordering::Relaxed);
    assert_eq!(server.get("/-/ready").await.status, 200);
    server.stop().await;
}

#[tokio::test]
async fn the_landing_page_says_what_this_is_and_runs_nothing() {
    let server = Server::plain();
    let reply = server.get("/").await;
    assert_eq!(reply.status, 200);
    assert_eq!(
        reply.header("content-type"),
        Some("text/html; charset=utf-8")
    );
    let policy = reply.header("content-security-policy").unwrap();
    assert!(policy.starts_with("default-src 'none';") && !policy.contains("unsafe"));
    for part in [
        "darkport_exporter",
        env!("CARGO_PKG_VERSION"),
        "<dd>netlink</dd>",
        "<dd>ready</dd>",
        "href=\"/metrics\"",
        "href=\"/-/healthy\"",
        "href=\"/-/ready\"",
    ] {
        assert!(reply.text().contains(part), "{part}");
    }
    assert!(!reply.text().contains("{{"));
    server.stop().await;
}

#[tokio::test]
async fn the_map_may_run_its_own_script_and_ask_its_own_server() {
    let server = Server::plain();
    let reply = server.get("/map").await;
    assert_eq!(reply.status, 200);
    assert_eq!(
        reply.header("content-type"),
        Some("text/html; charset=utf-8")
    );
    let policy = reply.header("content-security-policy").unwrap();
    let mut directives: Vec<&str> = policy.split(';').map(str::trim).collect();
    directives.retain(|directive| {
        !directive.starts_with("style-src 'sha256-")
            && !directive.starts_with("script-src 'sha256-")
    });
    assert_eq!(
        directives,
        [
            "default-src 'none'",
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        ]
    );
    assert_eq!(reply.header("referrer-policy"), Some("no-referrer"));
    assert!(!reply.text().contains("{{"));
    server.stop().await;
}

#[tokio::test]
async fn documents_are_json_and_are_not_sent_twice() {
    let server = Server::plain();
    for (path, text) in [("/api/v1/ports", PORTS), ("/api/v1/ports/facts", FACTS)] {
        let reply = server.get(path).await;
        assert_eq!((reply.status, reply.text()), (200, text));
        assert_eq!(reply.header("content-type"), Some("application/json"));
        assert_eq!(reply.header("cache-control"), Some("no-cache"));
        assert_eq!(reply.header("vary"), Some("Accept-Encoding"));
        assert_eq!(reply.header("etag"), Some("W/\"00c0ffee\""));

        let reply = server.ask("GET", path, "Accept-Encoding: gzip\r\n").await;
        assert_eq!(reply.header("content-encoding"), Some("gzip"));
        let mut unpacked = String::new();
        flate2::read::GzDecoder::new(&*reply.body)
            .read_to_string(&mut unpacked)
            .unwrap();
        assert_eq!(unpacked, text);

        for held in [
            "W/\"00c0ffee\"",
            "\"00c0ffee\"",
            "\"a\", W/\"00c0ffee\"",
            "*",
        ] {
            let reply = server
                .ask("GET", path, &format!("If-None-Match: {held}\r\n"))
                .await;
            assert_eq!((reply.status, &*reply.body), (304, &b""[..]), "{held}");
            assert_eq!(reply.header("etag"), Some("W/\"00c0ffee\""));
        }
        let reply = server
            .ask("GET", path, "If-None-Match: \"00c0ffe\"\r\n")
            .await;
        assert_eq!(reply.status, 200);
    }
    server.stop().await;
}

#[tokio::test]
async fn looking_at_ports_counts_as_a_scrape() {
    let (scrape, mut begins, go_on) = held();
    let options = Options {
        max_requests: 1,
        ..Options::default()
    };
    let server = Server::start(options, scrape);
    let mut stream = server.connect().await;
    stream
        .write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        .await
        .unwrap();
    soon(begins.recv()).await.unwrap();
    for path in ["/api/v1/ports", "/api/v1/ports/facts"] {
        let reply = server.get(path).await;
        assert_eq!(reply.status, 503, "{path}");
        assert_eq!(reply.header("retry-after"), Some("1"));
    }
    // Pages answer nevertheless.
    for path in ["/", "/map"] {
        assert_eq!(server.get(path).await.status, 200, "{path}");
    }
    go_on.send(()).unwrap();
    assert_eq!(Reply::of(&read_to_end(stream).await).status, 200);
    server.stop().await;
}

#[tokio::test]
async fn the_telemetry_path_can_be_elsewhere() {
    let options = Options {
        telemetry_path: "/m".parse().unwrap(),
        ..Options::default()
    };
    let server = Server::start(options, || TEXT.to_owned());
    assert_eq!(server.get("/m").await.text(), TEXT);
    assert_ne!(server.get("/").await.text(), TEXT);
    let reply = server.get("/metrics").await;
    assert_eq!(reply.status, 404);
    assert!(reply.text().lines().any(|line| line == "/m"));
    server.stop().await;
}

#[tokio::test]
async fn unknown_paths_are_told_the_known_ones() {
    let server = Server::plain();
    for path in ["/nothing", "/metrics/", "//metrics", "/%6detrics", "*"] {
        let reply = server.get(path).await;
        assert_eq!(reply.status, 404, "{path}");
        assert_eq!(
            reply.header("content-type"),
            Some("text/plain; charset=utf-8")
        );
        assert!(reply.text().ends_with(
            "\n/metrics\n/\n/map\n/api/v1/ports\n/api/v1/ports/facts\n/probe\n/config\n/-/healthy\n/-/ready\n/-/reload\n"
        ));
    }
    server.stop().await;
}

#[tokio::test]
async fn other_methods_are_told_which_are_allowed() {
    let server = Server::plain();
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "BREW"] {
        let reply = server.ask(method, "/metrics", "").await;
        assert_eq!(reply.status, 405, "{method}");
        assert_eq!(reply.header("allow"), Some("GET, HEAD"));
    }
    server.stop().await;
}

#[tokio::test]
async fn a_body_is_not_read_and_ends_the_connection() {
    let server = Server::plain();
    for body in [
        "Content-Length: 5\r\n\r\nhello",
        "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        // Announced and never sent.
        "Content-Length: 1000000000000\r\n\r\nhello",
        "Content-Length: 9\r\nExpect: 100-continue\r\n\r\n",
    ] {
        let reply = server
            .send(&format!("POST /metrics HTTP/1.1\r\nHost: x\r\n{body}"))
            .await;
        assert_eq!(reply.status, 405, "{body}");
        assert_eq!(reply.header("connection"), Some("close"), "{body}");
    }
    let reply = server
        .send("GET /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello")
        .await;
    assert_eq!(reply.text(), TEXT);
    server.stop().await;
}

#[tokio::test]
async fn a_body_without_end_is_cut_off() {
    let server = Server::plain();
    let mut stream = server.connect().await;
    stream
        .write_all(b"POST /metrics HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        .await
        .unwrap();
    let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
    soon(async { while stream.write_all(chunk.as_bytes()).await.is_ok() {} }).await;
    assert_eq!(server.get("/metrics").await.status, 200);
    server.stop().await;
}

#[tokio::test]
async fn garbage_is_answered_400_and_does_no_harm() {
    let server = Server::plain();
    for garbage in [
        "garbage\r\n\r\n",
        "GET /metrics HTTP/9.9\r\n\r\n",
        "GET  /metrics HTTP/1.1\r\n\r\n",
        "\0\0\0\0\r\n\r\n",
        "GET / HTTP/1.1\r\nno colon\r\n\r\n",
        "GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        "GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        "\u{16}\u{3}\u{1}\u{2}\0\u{1}\0\u{1}\u{fc}\u{3}\u{3} hello of a TLS client",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ] {
        let mut stream = server.connect().await;
        stream.write_all(garbage.as_bytes()).await.unwrap();
        let bytes = read_to_end(stream).await;
        // hyper closes on the preface of HTTP/2 without a word.
        if !garbage.starts_with("PRI") {
            assert_eq!(Reply::of(&bytes).status, 400, "{garbage:?}");
        }
    }
    assert_eq!(server.get("/metrics").await.status, 200);
    server.stop().await;
}

#[tokio::test]
async fn a_flood_of_headers_is_stopped() {
    let server = Server::plain();
    let reply = server.ask("GET", "/", &"X: y\r\n".repeat(1000)).await;
    assert_eq!(reply.status, 431);
    let mut stream = server.connect().await;
    let flood = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "y".repeat(1 << 20));
    // The server closes before everything is sent, and its answer may be lost with what it has not read.
    let _ = soon(stream.write_all(flood.as_bytes())).await;
    let bytes = read_to_end(stream).await;
    assert!(bytes.is_empty() || Reply::of(&bytes).status == 431);
    let mut stream = server.connect().await;
    stream.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
    soon(async { while stream.write_all(b"X: y\r\n").await.is_ok() {} }).await;
    assert_eq!(server.get("/metrics").await.status, 200);
    server.stop().await;
}

#[tokio::test]
async fn who_sends_nothing_or_too_slowly_is_dropped_and_others_are_served() {
    let options = Options {
        head_timeout: SHORT,
        ..Options::default()
    };
    let server = Server::start(options, || TEXT.to_owned());
    let silent = server.connect().await;
    let mut slow = server.connect().await;
    let slowly = tokio::spawn(async move {
        // Each byte comes well within the time for a head; the head does not.
        while slow.write_all(b"G").await.is_ok() {
            tokio::time::sleep(SHORT / 10).await;
        }
    });
    // The time runs anew for the second request of a connection.
    let mut second = server.connect().await;
    second
        .write_all(b"GET /-/healthy HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .unwrap();
    let mut buffer = [0; 4096];
    let length = soon(second.read(&mut buffer)).await.unwrap();
    assert_eq!(Reply::of(&buffer[..length]).status, 200);
    second.write_all(b"GET /-/healthy HTT").await.unwrap();
    assert_eq!(server.get("/metrics").await.status, 200);
    assert_eq!(read_to_end(silent).await, b"");
    soon(slowly).await.unwrap();
    assert_eq!(read_to_end(second).await, b"");
    server.stop().await;
}

#[tokio::test]
async fn an_idle_connection_is_closed_after_its_own_time() {
    let options = Options {
        idle_timeout: SHORT,
        ..Options::default()
    };
    let server = Server::start(options, || TEXT.to_owned());
    let mut stream = server.connect().await;
    stream
        .write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .unwrap();
    assert_eq!(Reply::of(&read_to_end(stream).await).text(), TEXT);
    server.stop().await;
}

#[tokio::test]
async fn a_pause_between_requests_may_be_longer_than_a_head() {
    let options = Options {
        head_timeout: SHORT,
        ..Options::default()
    };
    let server = Server::start(options, || TEXT.to_owned());
    let mut stream = server.connect().await;
    let request = b"GET /-/healthy HTTP/1.1\r\nHost: x\r\n\r\n";
    let mut buffer = [0; 4096];
    for _ in 0..3 {
        stream.write_all(request).await.unwrap();
        let length = soon(stream.read(&mut buffer)).await.unwrap();
        assert_eq!(Reply::of(&buffer[..length]).status, 200);
        // When this silent connection ends, the time for a head is over for the other one as well.
        assert_eq!(read_to_end(server.connect().await).await, b"");
    }
    server.stop().await;
}

#[tokio::test]
async fn requests_in_a_row_are_answered_in_their_order() {
    let server = Server::plain();
    let mut stream = server.connect().await;
    let row = ["/-/healthy", "/metrics", "/nothing"]
        .map(|path| format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"));
    stream.write_all(row.concat().as_bytes()).await.unwrap();
    stream
        .write_all(b"GET /-/ready HTTP/1.0\r\n\r\n")
        .await
        .unwrap();
    let text = String::from_utf8(read_to_end(stream).await).unwrap();
    let places: Vec<_> = ["is healthy", "up 1", "No such page", "is ready"]
        .map(|part| text.find(part).unwrap_or_else(|| panic!("{part}")))
        .into();
    assert!(places.is_sorted(), "{places:?}");
    server.stop().await;
}

#[tokio::test]
async fn who_does_not_read_the_answer_is_dropped() {
    let options = Options {
        write_timeout: SHORT,
        // So that it is the time for an answer which ends the connection.
        drain_timeout: 2 * LONG,
        ..Options::default()
    };
    // More than the buffers of both ends hold.
    let server = Server::start(options, || TEXT.repeat(1_000_000));
    let mut stream = server.connect().await;
    stream
        .write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .unwrap();
    // That the answer was cut shows when it is read, after the server has ended with no connection left.
    soon(stream.readable()).await.unwrap();
    assert_eq!(server.get("/-/healthy").await.status, 200);
    server.stop().await;
    let got = read_to_end(stream).await.len();
    assert!(got < TEXT.len() * 1_000_000, "{got}");
}

#[tokio::test]
async fn a_scrape_too_many_is_refused_at_once() {
    let (scrape, mut begins, go_on) = held();
    let options = Options {
        max_requests: 1,
        ..Options::default()
    };
    let server = Arc::new(Server::start(options, scrape));
    let first = tokio::spawn({
        let server = Arc::clone(&server);
        async move { server.get("/metrics").await }
    });
    soon(begins.recv()).await.unwrap();
    let refused = server.get("/metrics").await;
    assert_eq!(refused.status, 503);
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert!(refused.text().contains("--web.max-requests"));
    // Only scrapes are limited.
    assert_eq!(server.get("/-/healthy").await.status, 200);
    go_on.send(()).unwrap();
    assert_eq!(first.await.unwrap().status, 200);
    go_on.send(()).unwrap();
    assert_eq!(server.get("/metrics").await.status, 200);
}

#[tokio::test]
async fn who_hangs_up_does_not_make_room_for_another_scrape_before_it_is_over() {
    let (scrape, mut begins, go_on) = held();
    let options = Options {
        max_requests: 1,
        ..Options::default()
    };
    let server = Server::start(options, scrape);
    let mut stream = server.connect().await;
    stream
        .write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .unwrap();
    soon(begins.recv()).await.unwrap();
    drop(stream);
    for _ in 0..10 {
        assert_eq!(server.get("/metrics").await.status, 503);
    }
    go_on.send(()).unwrap();
    go_on.send(()).unwrap();
    soon(async { while server.get("/metrics").await.status != 200 {} }).await;
}

/// They once waited for each other, and kept scrapes out when there were as many as places.
#[tokio::test]
async fn who_asks_for_a_reload_while_one_runs_is_refused_at_once() {
    let (scrape, mut begins, go_on) = held();
    let options = Options {
        has_lifecycle: true,
        ..Options::default()
    };
    let refusals = Arc::clone(&options.refusals);
    let server = Arc::new(Server::start(options, scrape));
    let first = tokio::spawn({
        let server = Arc::clone(&server);
        async move { server.ask("POST", "/-/reload", "").await }
    });
    soon(begins.recv()).await.unwrap();
    let refused = server.ask("POST", "/-/reload", "").await;
    assert_eq!(refused.status, 503);
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert!(refused.text().contains("Try again"));
    assert_eq!(refusals.now().refused[Reason::Overload.index()], 1);
    go_on.send(()).unwrap();
    assert_eq!(first.await.unwrap().status, 200);
    // The next one reads the files anew.
    go_on.send(()).unwrap();
    assert_eq!(server.ask("POST", "/-/reload", "").await.status, 200);
    soon(begins.recv()).await.unwrap();
}

#[tokio::test]
async fn a_limit_of_0_is_none() {
    let (scrape, mut begins, go_on) = held();
    let options = Options {
        max_requests: 0,
        ..Options::default()
    };
    let server = Arc::new(Server::start(options, scrape));
    let all: Vec<_> = (0..100)
        .map(|_| {
            let server = Arc::clone(&server);
            tokio::spawn(async move { server.get("/metrics").await })
        })
        .collect();
    for _ in 0..100 {
        go_on.send(()).unwrap();
        soon(begins.recv()).await.unwrap();
    }
    for one in all {
        assert_eq!(one.await.unwrap().status, 200);
    }
}

#[tokio::test]
async fn a_scrape_that_panics_is_answered_500_and_the_next_one_as_ever() {
    let count = AtomicUsize::new(0);
    let server = Server::start(Options::default(), move || {
        assert!(count.fetch_add(1, Ordering::Relaxed) > 0, "the first fails");
        TEXT.to_owned()
    });
    let reply = server.get("/metrics").await;
    assert_eq!(reply.status, 500);
    assert!(reply.text().contains("log says why"));
    assert_eq!(server.get("/metrics").await.text(), TEXT);
    server.stop().await;
}

#[tokio::test]
async fn at_the_end_a_scrape_under_way_is_answered_and_idle_connections_are_closed() {
    let (scrape, mut begins, go_on) = held();
    let server = Server::start(Options::default(), scrape);
    let address = server.addresses[0];
    let fresh = server.connect().await;
    let mut partial = server.connect().await;
    partial.write_all(b"GET / HT").await.unwrap();
    let mut idle = server.connect().await;
    idle.write_all(b"GET /-/healthy HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .unwrap();
    soon(idle.read(&mut [0; 4096])).await.unwrap();
    let mut scraping = server.connect().await;
    scraping
        .write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .unwrap();
    soon(begins.recv()).await.unwrap();

    server.stop.send(()).unwrap();
    for stream in [fresh, partial, idle] {
        assert_eq!(read_to_end(stream).await, b"");
    }
    assert!(TcpStream::connect(address).await.is_err());
    assert!(!server.task.is_finished());
    go_on.send(()).unwrap();
    let reply = Reply::of(&read_to_end(scraping).await);
    assert_eq!(reply.text(), TEXT);
    assert_eq!(reply.header("connection"), Some("close"));
    soon(server.task).await.unwrap();
}

#[tokio::test]
async fn at_the_end_a_scrape_that_hangs_is_not_waited_for() {
    let (scrape, mut begins, go_on) = held();
    let options = Options {
        drain_timeout: SHORT,
        ..Options::default()
    };
    let server = Server::start(options, scrape);
    let mut scraping = server.connect().await;
    scraping
        .write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .unwrap();
    soon(begins.recv()).await.unwrap();
    server.stop().await;
    assert_eq!(read_to_end(scraping).await, b"");
    go_on.send(()).unwrap();
}

#[tokio::test]
async fn all_listeners_are_served() {
    let server = Server::start_on(
        &["127.0.0.1:0", "127.0.0.1:0", "localhost:0"],
        Options::default(),
        || TEXT.to_owned(),
    );
    for &address in server.addresses.iter().rev().chain(&server.addresses) {
        let mut stream = soon(TcpStream::connect(address)).await.unwrap();
        stream
            .write_all(b"GET /metrics HTTP/1.0\r\n\r\n")
            .await
            .unwrap();
        assert_eq!(Reply::of(&read_to_end(stream).await).text(), TEXT);
    }
    server.stop().await;
}

#[tokio::test]
async fn an_address_without_host_is_all_of_them() {
    let server = Server::start_on(&[":0"], Options::default(), || TEXT.to_owned());
    let bound = server.addresses[0];
    assert!(bound.ip().is_unspecified());
    let mut ways: Vec<IpAddr> = vec![Ipv4Addr::LOCALHOST.into()];
    if bound.is_ipv6() && std::net::TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok() {
        ways.push(Ipv6Addr::LOCALHOST.into());
    }
    for ip in ways {
        let mut stream = soon(TcpStream::connect((ip, bound.port()))).await.unwrap();
        stream
            .write_all(b"GET /metrics HTTP/1.0\r\n\r\n")
            .await
            .unwrap();
        assert_eq!(Reply::of(&read_to_end(stream).await).text(), TEXT, "{ip}");
    }
    server.stop().await;
}

#[tokio::test]
async fn an_address_that_cannot_be_listened_on_is_told_why() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let message = |addresses: &[&str]| {
        let addresses: Vec<ListenAddress> =
            addresses.iter().map(|text| text.parse().unwrap()).collect();
        web::bind(&addresses).unwrap_err().to_string()
    };
    let in_use = format!("127.0.0.1:{port}");
    for address in [&in_use, &format!(":{port}")] {
        let text = message(&["127.0.0.1:0", address]);
        assert!(
            text.starts_with(&format!("listen address {address} is in use")),
            "{text}"
        );
        assert!(text.contains(&format!("'sport = :{port}'")), "{text}");
    }
    drop(taken);
    // RFC 5737: an address for documentation, which no host has.
    let text = message(&["192.0.2.1:0"]);
    assert!(text.contains("192.0.2.1:0 is not an address of this host"));
    let text = message(&["no-such-name.invalid:0"]);
    assert!(text.contains("no-such-name.invalid:0: the name cannot be resolved"));
    for earlier in [&in_use, &format!("localhost:{port}"), &format!(":{port}")] {
        let text = message(&[earlier, &in_use]);
        assert!(
            text.contains(&format!("{in_use} is covered by {earlier}")),
            "{text}"
        );
    }
}

#[tokio::test]
async fn the_port_of_the_run_before_can_be_had_at_once() {
    let server = Server::plain();
    let address = server.addresses[0].to_string();
    let mut stream = server.connect().await;
    stream
        .write_all(b"GET /-/healthy HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .unwrap();
    soon(stream.read(&mut [0; 4096])).await.unwrap();
    // The server closes first, so its end stays in TIME-WAIT.
    server.stop().await;
    assert_eq!(read_to_end(stream).await, b"");
    Server::start_on(&[&address], Options::default(), String::new)
        .stop()
        .await;
}

#[tokio::test]
async fn two_thousand_idle_connections_do_not_keep_a_scrape_out() {
    let count = idle_connections();
    let options = Options {
        connections: count / 2,
        ..Options::default()
    };
    let server = Server::start(options, || TEXT.to_owned());
    let mut idle = Vec::new();
    for _ in 0..count {
        idle.push(server.connect().await);
    }
    assert_eq!(server.get("/metrics").await.text(), TEXT);
    // The oldest made room, the newest are still there.
    assert_eq!(read_to_end(idle.swap_remove(0)).await, b"");
    let mut newest = idle.swap_remove(0);
    newest
        .write_all(b"GET /metrics HTTP/1.0\r\n\r\n")
        .await
        .unwrap();
    assert_eq!(Reply::of(&read_to_end(newest).await).text(), TEXT);
    server.stop().await;
}

/// 2,000 where descriptors allow it; both ends are in this process.
#[cfg(target_os = "linux")]
fn idle_connections() -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    let maximum = getrlimit(Resource::Nofile).maximum;
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    setrlimit(Resource::Nofile, raised).unwrap();
    let descriptors = usize::try_from(maximum.unwrap_or(u64::MAX)).unwrap();
    (descriptors / 4).min(2000)
}

#[cfg(not(target_os = "linux"))]
fn idle_connections() -> usize {
    60
}

/// A TLS handshake has the time that a head has, and whoever waits for theirs takes nobody else's.
#[tokio::test]
async fn a_handshake_that_does_not_go_on_is_dropped_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let certificate = params.self_signed(&key).unwrap();
    for (name, text) in [
        ("cert.pem", certificate.pem()),
        ("key.pem", key.serialize_pem()),
        (
            "web.yml",
            "tls_server_config: {cert_file: cert.pem, key_file: key.pem}\n".to_owned(),
        ),
    ] {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    let settings = SettingsFile::load(&folder.path().join("web.yml")).unwrap();
    let options = Options {
        settings: Some(Arc::new(settings)),
        head_timeout: SHORT,
        ..Options::default()
    };
    let refusals = Arc::clone(&options.refusals);
    let server = Server::start(options, || TEXT.to_owned());
    // Nothing at all, and the beginning of a record that holds a ClientHello.
    for beginning in [&[][..], &[22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3]] {
        let mut stream = server.connect().await;
        stream.write_all(beginning).await.unwrap();
        assert_eq!(read_to_end(stream).await, b"");
    }
    assert_eq!(refusals.now().refused[Reason::Tls.index()], 2);
    server.stop().await;
}
