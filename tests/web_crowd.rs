//! The web front under everything at once. Alone in its file, because it needs most of the descriptors.
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test's helpers are tests too"
)]

mod support;

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use support::https::{Https, plain};
use support::pki::{Authority, Purpose};
use support::{DEADLINE, Exporter, Prometheus, wait_for};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::ClientConfig;

/// Where the crowd comes from. Prometheus comes from another address.
const CROWD: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
/// How much memory the crowd may cost at its height, in KiB. Places, heads and TLS sessions are a third of it; the rest is for
/// answers that wait to be taken.
const CROWD_COSTS: usize = 96 << 10;

/// An exporter, and what the crowd knows of it.
struct Site {
    exporter: Exporter,
    to: SocketAddr,
    folder: tempfile::TempDir,
    /// Who trusts it, where it speaks TLS.
    client: Option<Https>,
}

impl Site {
    fn tls() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::new("test");
        let server = authority.issue(Purpose::Server, &["localhost"]);
        let write = |name, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        write("ca.pem", &authority.pem);
        write("server.pem", &server.certificate);
        write("key.pem", &server.key);
        write(
            "web.yml",
            "tls_server_config: {cert_file: server.pem, key_file: key.pem}\n",
        );
        let web = folder.path().join("web.yml");
        let exporter = Exporter::start_guarded(&[&format!("--web.config.file={}", web.display())]);
        Self {
            client: Some(Https::trusting(authority.roots())),
            to: exporter.address,
            exporter,
            folder,
        }
    }

    fn plain(config: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("darkport.yml");
        std::fs::write(&file, config).unwrap();
        let exporter = Exporter::start(&["--config.file", file.to_str().unwrap()]);
        Self {
            client: None,
            to: exporter.address,
            exporter,
            folder,
        }
    }

    /// Resident memory in KiB: `VmRSS` now, `VmHWM` at its height.
    fn memory(&self, line: &str) -> usize {
        let pid = self.exporter.process.pid();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find(|all| all.starts_with(line));
        line.unwrap()
            .split_whitespace()
            .nth(1)
            .unwrap()
            .parse()
            .unwrap()
    }

    fn scrape(&self) {
        scrape(self.client.as_ref(), self.to);
    }

    /// What a job of Prometheus says of it.
    fn job(&self) -> String {
        let scheme = match self.client {
            Some(_) => format!(
                "scheme: https, tls_config: {{ca_file: \"{}\", server_name: localhost}}, ",
                self.folder.path().join("ca.pem").display()
            ),
            None => String::new(),
        };
        format!(
            "- {{job_name: darkport, {scheme}static_configs: [{{targets: [\"{}\"]}}]}}\n",
            self.to
        )
    }
}

fn scrape(client: Option<&Https>, to: SocketAddr) {
    let reply = match client {
        Some(client) => client.get(to, "/metrics").unwrap(),
        None => plain(to, "GET", "/metrics", ""),
    };
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

/// Something that bytes go to and come from.
trait Wire: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Wire for T {}

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

impl Done {
    fn is_all(&self, has_tls: bool) -> bool {
        let there = |count: &AtomicUsize, least| count.load(Ordering::Relaxed) >= least;
        let over_tls = there(&self.half_open, 500) && there(&self.resets, 1000);
        there(&self.idle, 2000)
            && there(&self.slow, 500)
            && there(&self.oversized, 20)
            && there(&self.scrapes, 200)
            && (over_tls || !has_tls)
    }
}

/// Everybody who is there beside Prometheus.
struct Crowd {
    to: SocketAddr,
    http1: Option<Arc<ClientConfig>>,
    h2: Option<Arc<ClientConfig>>,
    done: Arc<Done>,
}

impl Crowd {
    fn of(site: &Site) -> Arc<Self> {
        let client = site.client.as_ref();
        Arc::new(Self {
            to: site.to,
            http1: client.map(|client| Arc::clone(&client.config)),
            h2: client.map(|client| client.offering(&[b"h2"]).config),
            done: Arc::default(),
        })
    }

    async fn connect(&self) -> std::io::Result<Box<dyn Wire>> {
        Ok(match &self.http1 {
            Some(config) => Box::new(dial_tls(self.to, Arc::clone(config)).await?),
            None => Box::new(dial(self.to).await?),
        })
    }

    /// Lets them all come. They end when what this returns is dropped.
    fn come(self: &Arc<Self>) -> JoinSet<()> {
        let mut all = JoinSet::new();
        for _ in 0..2000 {
            all.spawn(Arc::clone(self).idle());
        }
        for _ in 0..500 {
            all.spawn(Arc::clone(self).slow());
        }
        for _ in 0..4 {
            all.spawn(Arc::clone(self).oversized());
        }
        for _ in 0..100 {
            all.spawn(Arc::clone(self).scraping());
        }
        if let Some(h2) = &self.h2 {
            for _ in 0..500 {
                all.spawn(Arc::clone(self).half_open());
            }
            for _ in 0..4 {
                all.spawn(Arc::clone(self).resetting(Arc::clone(h2)));
                all.spawn(Arc::clone(self).oversized_h2(Arc::clone(h2)));
            }
        }
        all
    }

    async fn idle(self: Arc<Self>) {
        // Some are displaced before they are through.
        let mut stream = self.connect().await;
        one_more(&self.done.idle);
        if let Ok(stream) = &mut stream {
            let _ = stream.read(&mut [0; 16]).await;
        }
    }

    async fn slow(self: Arc<Self>) {
        let stream = self.connect().await;
        one_more(&self.done.slow);
        let Ok(mut stream) = stream else { return };
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
    }

    async fn half_open(self: Arc<Self>) {
        let Ok(mut stream) = dial(self.to).await else {
            return;
        };
        // The beginning of a record that holds a ClientHello.
        let _ = stream
            .write_all(&[22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3])
            .await;
        one_more(&self.done.half_open);
        let _ = stream.read(&mut [0; 16]).await;
    }

    async fn resetting(self: Arc<Self>, h2: Arc<ClientConfig>) {
        loop {
            let Some(requests) = dial_h2(self.to, Arc::clone(&h2)).await else {
                continue;
            };
            loop {
                let Ok(mut ready) = requests.clone().ready().await else {
                    break;
                };
                let asked = request(self.to).body(()).unwrap();
                let Ok((_, mut stream)) = ready.send_request(asked, false) else {
                    break;
                };
                stream.send_reset(h2::Reason::CANCEL);
                one_more(&self.done.resets);
                tokio::task::yield_now().await;
            }
        }
    }

    async fn oversized(self: Arc<Self>) {
        let asked = format!(
            "GET /metrics HTTP/1.0\r\nx-large: {}\r\n\r\n",
            "x".repeat(200 << 10)
        );
        loop {
            let Ok(mut stream) = self.connect().await else {
                continue;
            };
            let sent = stream.write_all(asked.as_bytes()).await;
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer).await;
            assert!(sent.is_err() || !answer.starts_with(b"HTTP/1.0 200"));
            one_more(&self.done.oversized);
        }
    }

    async fn oversized_h2(self: Arc<Self>, h2: Arc<ClientConfig>) {
        loop {
            let Some(requests) = dial_h2(self.to, Arc::clone(&h2)).await else {
                continue;
            };
            let large = request(self.to).header("x-large", "x".repeat(200 << 10));
            if let Ok(mut ready) = requests.ready().await
                && let Ok((response, _)) = ready.send_request(large.body(()).unwrap(), true)
            {
                let status = response.await.map(|response| response.status().as_u16());
                assert!(!matches!(status, Ok(200)), "{status:?}");
                one_more(&self.done.oversized);
            }
        }
    }

    async fn scraping(self: Arc<Self>) {
        loop {
            let Ok(mut stream) = self.connect().await else {
                continue;
            };
            let asked = b"GET /metrics HTTP/1.0\r\n\r\n";
            let mut answer = Vec::new();
            if stream.write_all(asked).await.is_ok()
                && stream.read_to_end(&mut answer).await.is_ok()
            {
                // Nothing at all: its place was needed before it had asked.
                assert!(
                    answer.is_empty()
                        || answer.starts_with(b"HTTP/1.0 200")
                        || answer.starts_with(b"HTTP/1.0 503"),
                    "{}",
                    String::from_utf8_lossy(&answer[..answer.len().min(100)])
                );
                one_more(&self.done.scrapes);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scrape_is_answered_whoever_else_is_there() {
    raise_limit();
    let site = Site::tls();
    for _ in 0..50 {
        site.scrape();
    }
    let before = site.memory("VmRSS:");
    let crowd = Crowd::of(&site);
    let mut all = crowd.come();

    let (client, to, done) = (site.client.clone(), site.to, Arc::clone(&crowd.done));
    let scrapes = tokio::task::spawn_blocking(move || {
        // As Prometheus does, one after the other; the first ones while the crowd still comes in.
        let start = std::time::Instant::now();
        let mut scrapes = 0;
        loop {
            scrape(client.as_ref(), to);
            scrapes += 1;
            if done.is_all(true) && scrapes >= 20 {
                return;
            }
            assert!(start.elapsed() < 2 * DEADLINE, "not all came: {done:?}");
        }
    });
    scrapes.await.unwrap();
    all.shutdown().await;
    let during = site.memory("VmHWM:");
    let done = &crowd.done;
    assert!(
        during < before + CROWD_COSTS,
        "memory rose from {before} to {during} KiB: {done:?}"
    );
    println!("memory {before} → {during} KiB, {done:?}");
    site.scrape();
}

/// Prometheus itself, with a time-out of its own, before, during and after the crowd.
async fn prometheus_misses_no_scrape(site: Site) {
    raise_limit();
    let has_tls = site.client.is_some();
    let prometheus = Prometheus::start(&format!(
        "global: {{scrape_interval: 3s, scrape_timeout: 3s, evaluation_interval: 1s}}\nscrape_configs:\n{}",
        site.job()
    ));
    let scrapes = |prometheus: &Prometheus| prometheus.number("count_over_time(up[1h])");
    wait_for("a scrape", || (scrapes(&prometheus)? >= 1.0).then_some(()));
    let before = site.memory("VmRSS:");
    let crowd = Crowd::of(&site);
    let mut all = crowd.come();
    let done = Arc::clone(&crowd.done);
    let watching = tokio::task::spawn_blocking(move || {
        wait_for("the crowd to be there", || {
            done.is_all(has_tls).then_some(())
        });
        let there = scrapes(&prometheus).unwrap();
        wait_for("scrapes beside the crowd", || {
            (scrapes(&prometheus)? >= there + 4.0).then_some(())
        });
        prometheus
    });
    let prometheus = watching.await.unwrap();
    let during = site.memory("VmHWM:");
    all.shutdown().await;
    let all_up = prometheus.number("min_over_time(up[1h])");
    let longest = prometheus.number("max_over_time(scrape_duration_seconds[1h])");
    println!(
        "{:?} scrapes, the longest took {longest:?} s, memory {before} → {during} KiB, {:?}",
        scrapes(&prometheus),
        crowd.done
    );
    assert_eq!(all_up, Some(1.0), "{:?}", crowd.done);
    assert!(longest.unwrap() < 3.0, "{longest:?}");
    assert!(
        during < before + CROWD_COSTS,
        "memory rose from {before} to {during} KiB: {:?}",
        crowd.done
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs prometheus"]
async fn prometheus_misses_no_scrape_over_tls() {
    prometheus_misses_no_scrape(Site::tls()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs prometheus"]
async fn prometheus_misses_no_scrape_without_tls() {
    prometheus_misses_no_scrape(Site::plain("watch: [{name: a, ports: [7]}]\n")).await;
}

/// Who asks for many answers over HTTP/2 and takes none keeps nobody out and fills no memory.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_nobody_takes_are_bounded_over_http2() {
    let site = Site::tls();
    let h2 = site.client.as_ref().unwrap().offering(&[b"h2"]).config;
    let before = site.memory("VmRSS:");
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
    let during = site.memory("VmHWM:");
    assert!(during < before + 128 * 1024, "{before} → {during} KiB");
}

/// As many as may wait, of large answers: what is held of them is bounded in bytes.
#[test]
fn large_answers_nobody_takes_are_bounded_in_bytes() {
    let site = Site::plain("watch: [{name: many, ports: [1024-7000]}]\nlimits: {series: 200000}\n");
    let size = plain(site.to, "GET", "/metrics", "").body.len();
    assert!(size > 4 << 20, "{size}");
    let before = site.memory("VmHWM:");
    // Were all of them kept, they would be more than is allowed.
    let count = (64 << 20) / size + 6;
    let held: Vec<_> = (0..count)
        .map(|_| {
            let mut stream = std::net::TcpStream::connect(site.to).unwrap();
            stream.set_read_timeout(Some(DEADLINE)).unwrap();
            write!(stream, "GET /metrics HTTP/1.0\r\n\r\n").unwrap();
            // The beginning of the answer: it waits from now on.
            assert!(matches!(stream.peek(&mut [0]), Ok(1)));
            stream
        })
        .collect();
    let during = site.memory("VmHWM:");
    println!("{count} answers of {size} bytes, memory {before} → {during} KiB");
    // Beside those that wait, one is being made, and has what it grew by.
    let most = (64 << 10) + 3 * size / 1024;
    assert!(during < before + most, "{before} → {during} KiB");
    site.scrape();
    drop(held);
}
