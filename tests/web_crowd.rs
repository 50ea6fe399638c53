//! The web front under everything at once. Alone in its file, because it needs most of the descriptors.
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test's helpers are tests too"
)]

mod support;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use support::https::Https;
use support::pki::{Authority, Purpose};
use support::{DEADLINE, Exporter};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::ClientConfig;

/// Where the crowd comes from. Prometheus comes from another address.
const CROWD: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

/// An exporter with TLS, and what the crowd knows of it.
struct Site {
    exporter: Exporter,
    client: Https,
    to: SocketAddr,
    _folder: tempfile::TempDir,
}

impl Site {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::new("test");
        let server = authority.issue(Purpose::Server, &["localhost"]);
        let write = |name, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        write("server.pem", &server.certificate);
        write("key.pem", &server.key);
        write(
            "web.yml",
            "tls_server_config: {cert_file: server.pem, key_file: key.pem}\n",
        );
        let web = folder.path().join("web.yml");
        let exporter = Exporter::start_guarded(&[&format!("--web.config.file={}", web.display())]);
        Self {
            client: Https::trusting(authority.roots()),
            to: exporter.address,
            exporter,
            _folder: folder,
        }
    }

    /// Resident memory in KiB.
    fn memory(&self) -> usize {
        let pid = self.exporter.process.pid();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:"));
        line.unwrap()
            .split_whitespace()
            .nth(1)
            .unwrap()
            .parse()
            .unwrap()
    }

    fn scrape(&self) {
        scrape(&self.client, self.to);
    }
}

fn scrape(client: &Https, to: SocketAddr) {
    let reply = client.get(to, "/metrics").unwrap();
    assert_eq!(reply.status, 200, "{reply:?}");
}

async fn dial(to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::new(CROWD, 0))?;
    socket.connect(to).await
}

async fn dial_tls(
    to: SocketAddr,
    config: Arc<ClientConfig>,
) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = dial(to).await?;
    TlsConnector::from(config)
        .connect("localhost".try_into().unwrap(), stream)
        .await
}

async fn dial_h2(to: SocketAddr, config: Arc<ClientConfig>) -> Option<SendRequest<Bytes>> {
    let stream = dial_tls(to, config).await.ok()?;
    let (requests, connection) = h2::client::handshake(stream).await.ok()?;
    tokio::spawn(connection);
    Some(requests)
}

fn request(to: SocketAddr) -> http::request::Builder {
    http::Request::get(format!("https://localhost:{}/metrics", to.port()))
}

fn raise_limit() {
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: maximum,
            maximum,
        },
    )
    .unwrap();
}

/// Counts what each kind of visitor has done, so that the test knows they were there.
#[derive(Debug, Default)]
struct Done {
    idle: AtomicUsize,
    slow: AtomicUsize,
    half_open: AtomicUsize,
    resets: AtomicUsize,
    oversized: AtomicUsize,
    scrapes: AtomicUsize,
}

fn one_more(count: &AtomicUsize) {
    count.fetch_add(1, Ordering::Relaxed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scrape_is_answered_whoever_else_is_there() {
    raise_limit();
    let site = Site::start();
    let to = site.to;
    let http1 = Arc::clone(&site.client.config);
    let h2 = site.client.offering(&[b"h2"]).config;
    let done = Arc::new(Done::default());
    for _ in 0..50 {
        site.scrape();
    }
    let before = site.memory();
    let mut crowd = tokio::task::JoinSet::new();

    for _ in 0..2000 {
        let (config, done) = (Arc::clone(&http1), Arc::clone(&done));
        crowd.spawn(async move {
            // Some are displaced before they are through.
            let mut stream = dial_tls(to, config).await;
            one_more(&done.idle);
            if let Ok(stream) = &mut stream {
                let _ = stream.read(&mut [0; 16]).await;
            }
        });
    }
    for _ in 0..500 {
        let (config, done) = (Arc::clone(&http1), Arc::clone(&done));
        crowd.spawn(async move {
            let Ok(mut stream) = dial_tls(to, config).await else {
                one_more(&done.slow);
                return;
            };
            one_more(&done.slow);
            for byte in b"GET /metrics HTTP/1.1\r\nX: "
                .iter()
                .chain(std::iter::repeat(&b'x'))
            {
                let sent = stream.write_all(&[*byte]).await;
                if sent.and(stream.flush().await).is_err() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        });
    }
    for _ in 0..500 {
        let done = Arc::clone(&done);
        crowd.spawn(async move {
            let Ok(mut stream) = dial(to).await else {
                return;
            };
            // The beginning of a record that holds a ClientHello.
            let _ = stream
                .write_all(&[22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3])
                .await;
            one_more(&done.half_open);
            let _ = stream.read(&mut [0; 16]).await;
        });
    }
    for _ in 0..4 {
        let (config, done) = (Arc::clone(&h2), Arc::clone(&done));
        crowd.spawn(async move {
            loop {
                let Some(requests) = dial_h2(to, Arc::clone(&config)).await else {
                    continue;
                };
                loop {
                    let Ok(mut ready) = requests.clone().ready().await else {
                        break;
                    };
                    let Ok((_, mut stream)) =
                        ready.send_request(request(to).body(()).unwrap(), false)
                    else {
                        break;
                    };
                    stream.send_reset(h2::Reason::CANCEL);
                    one_more(&done.resets);
                    tokio::task::yield_now().await;
                }
            }
        });
    }
    for _ in 0..4 {
        let (config, done) = (Arc::clone(&h2), Arc::clone(&done));
        crowd.spawn(async move {
            loop {
                let Some(requests) = dial_h2(to, Arc::clone(&config)).await else {
                    continue;
                };
                let large = request(to).header("x-large", "x".repeat(200 << 10));
                if let Ok(mut ready) = requests.ready().await
                    && let Ok((response, _)) = ready.send_request(large.body(()).unwrap(), true)
                {
                    let status = response.await.map(|response| response.status().as_u16());
                    assert!(!matches!(status, Ok(200)), "{status:?}");
                    one_more(&done.oversized);
                }
            }
        });
    }
    for _ in 0..100 {
        let (config, done) = (Arc::clone(&http1), Arc::clone(&done));
        crowd.spawn(async move {
            loop {
                let Ok(mut stream) = dial_tls(to, Arc::clone(&config)).await else {
                    continue;
                };
                let asked = b"GET /metrics HTTP/1.0\r\n\r\n";
                let mut answer = Vec::new();
                if stream.write_all(asked).await.is_ok()
                    && stream.read_to_end(&mut answer).await.is_ok()
                {
                    assert!(
                        answer.starts_with(b"HTTP/1.0 200") || answer.starts_with(b"HTTP/1.0 503"),
                        "{}",
                        String::from_utf8_lossy(&answer[..answer.len().min(100)])
                    );
                    one_more(&done.scrapes);
                }
            }
        });
    }

    let client = site.client.clone();
    let present = Arc::clone(&done);
    let scrapes = tokio::task::spawn_blocking(move || {
        // As Prometheus does, one after the other; the first ones while the crowd still comes in.
        let start = std::time::Instant::now();
        let mut scrapes = 0;
        loop {
            scrape(&client, to);
            scrapes += 1;
            let there = |count: &AtomicUsize, least| count.load(Ordering::Relaxed) >= least;
            let all_there = there(&present.idle, 2000)
                && there(&present.slow, 500)
                && there(&present.half_open, 500)
                && there(&present.resets, 1000)
                && there(&present.oversized, 20)
                && there(&present.scrapes, 200);
            if all_there && scrapes >= 20 {
                return scrapes;
            }
            assert!(start.elapsed() < 2 * DEADLINE, "not all came: {present:?}");
        }
    });
    scrapes.await.unwrap();
    let during = site.memory();
    crowd.shutdown().await;
    assert!(
        during < before + 256 * 1024,
        "memory rose from {before} to {during} KiB: {done:?}"
    );
    println!("memory {before} → {during} KiB, {done:?}");
    site.scrape();
}

/// Who asks for many answers over HTTP/2 and takes none keeps nobody out and fills no memory.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_nobody_takes_are_bounded_over_http2() {
    let site = Site::start();
    let h2 = site.client.offering(&[b"h2"]).config;
    let before = site.memory();
    let mut connections = Vec::new();
    let mut held = Vec::new();
    for _ in 0..40 {
        let stream = dial_tls(site.to, Arc::clone(&h2)).await.unwrap();
        let mut builder = h2::client::Builder::new();
        builder.initial_window_size(0);
        let (requests, connection) = builder.handshake::<_, Bytes>(stream).await.unwrap();
        connections.push(tokio::spawn(connection));
        for _ in 0..4 {
            let mut ready = requests.clone().ready().await.unwrap();
            let asked = request(site.to).body(()).unwrap();
            let (response, _) = ready.send_request(asked, true).unwrap();
            // The head of the answer, or that the connection was closed.
            held.push(tokio::time::timeout(DEADLINE, response).await.unwrap());
        }
        drop(requests);
    }
    assert!(held[0].is_ok(), "{:?}", held[0]);
    // 64 answers may wait, which is 16 connections.
    let ended = || connections.iter().filter(|task| task.is_finished()).count();
    tokio::time::timeout(DEADLINE, async {
        while ended() < 24 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .unwrap_or_else(|_| panic!("{} connections ended", ended()));
    assert_eq!(ended(), 24);
    site.scrape();
    let during = site.memory();
    assert!(during < before + 128 * 1024, "{before} → {during} KiB");
}
