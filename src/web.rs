//! The web front: what HTTP may ask, answered to whoever asks, however they ask.
//!
//! Knows connections, routes and encodings. Does not know how a number was read or written down: behind it stands a
//! [`Site`], which is all it may ask.
//!
//! Nothing that somebody outside does may stop the scrapes of others, so everything outside can hold is bounded: the
//! connections ([`Options::connections`]), the bytes of a head, the time for a head, for a pause between requests and for
//! taking an answer, the scrapes at a time, and the answers that wait to be taken. Where room runs out, the
//! connection that has done nothing for the longest time goes, of the peer that has the most, and the newcomer is served.

use std::future::Future;
use std::io;
use std::net::{Ipv6Addr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use crate::api::{Document, Glance};
use crate::counts::Tier;
use crate::exporter::{Exporter, ProbeError};
use crate::log::{Chain, Limiter, OncePer};
use crate::probe::Request;
use crate::refusals::{Reason, Refusals};

mod activation;
mod activity;
mod address;
mod asked;
mod auth;
mod client_certificate;
mod connection;
mod dashboard;
mod encoding;
#[cfg(all(target_os = "linux", any(test, fuzzing)))]
pub(crate) mod fuzzing;
mod landing;
mod listen;
mod map;
mod page;
mod path;
mod peer;
mod places;
mod probe;
mod rate;
mod routes;
mod settings;
mod tls;

pub use activation::{ActivationError, activated};
pub use address::{BadAddress, Host, ListenAddress};
pub use dashboard::{BadUrl, DashboardUrl};
pub use listen::{Error, bind};
pub use path::{BadPath, TelemetryPath};
pub use routes::reload;
pub use settings::{Settings, SettingsFile};

use peer::PEERS_TOLD;
use places::Places;
use routes::Front;

/// What HTTP may ask of the exporter.
pub trait Site: Send + Sync + 'static {
    /// The answer to a scrape, in text format 0.0.4; `None` where there can be none, which is told in the log. May block:
    /// it is called off the async threads.
    fn scrape(&self) -> Option<String>;
    /// What listens and what was counted, as JSON; `None` where there can be none, which is told in the log. May block. Asked
    /// however often, it must not sample more than once a second.
    fn ports(&self) -> Option<Document>;
    /// What is known of each port beforehand, as JSON; otherwise as [`ports`](Self::ports).
    fn facts(&self) -> Option<Document>;
    /// What the last sample came to; `None` before the first. Must not block.
    fn glance(&self) -> Option<Arc<Glance>>;
    /// Whether a first sample was taken. Must not block.
    fn is_ready(&self) -> bool;
    /// The tier in use. Must not block.
    fn tier(&self) -> Tier;
    /// Loads the configuration anew and tells the log how that went; where it is refused, every problem in it. May block.
    fn reload(&self) -> Result<(), String>;
    /// The configuration in use as YAML, without secrets. Must not block.
    fn config(&self) -> Arc<str>;
    /// The answer to a probe, in text format 0.0.4; a site that probes nobody refuses it. Must not block.
    fn probe(&self, _request: Request) -> Probing<'_> {
        Box::pin(async { Err(crate::probe::Error::NobodyAllowed.into()) })
    }
}

/// A probe under way. Dropped, it ends.
pub type Probing<'a> = Pin<Box<dyn Future<Output = Result<String, ProbeError>> + Send + 'a>>;

impl Site for Exporter {
    fn scrape(&self) -> Option<String> {
        Self::scrape(self)
            .inspect_err(|error| tracing::error!(error = %Chain(error), "scrape failed"))
            .ok()
    }

    fn ports(&self) -> Option<Document> {
        Self::ports(self)
            .inspect_err(|error| tracing::error!(error = %Chain(error), "ports cannot be told"))
            .ok()
    }

    fn facts(&self) -> Option<Document> {
        Self::facts(self)
            .inspect_err(|error| tracing::error!(error = %Chain(error), "facts cannot be told"))
            .ok()
    }

    fn glance(&self) -> Option<Arc<Glance>> {
        Self::glance(self)
    }

    fn is_ready(&self) -> bool {
        Self::is_ready(self)
    }

    fn tier(&self) -> Tier {
        Self::tier(self)
    }

    fn reload(&self) -> Result<(), String> {
        match Self::reload(self) {
            Ok(()) => {
                tracing::info!("configuration loaded anew");
                Ok(())
            }
            Err(error) => {
                tracing::error!(
                    error = %Chain(&error),
                    "configuration refused; everything stays as it was"
                );
                Err(error.to_string())
            }
        }
    }

    fn config(&self) -> Arc<str> {
        Arc::clone(&Self::config(self).text)
    }

    fn probe(&self, request: Request) -> Probing<'_> {
        Box::pin(Self::probe(self, request))
    }
}

/// How the front behaves.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where scrapes are answered.
    pub telemetry_path: TelemetryPath,
    /// Scrapes at a time, those that wait for their turn included; beyond it the answer is 503. Of more than three, one peer
    /// has three quarters at the most. 0: no limit.
    pub max_requests: usize,
    /// Where the map leads to from a port.
    pub dashboard_url: Option<DashboardUrl>,
    /// The web configuration: TLS, headers, users, rate limit; `None`: none of these.
    pub settings: Option<Arc<SettingsFile>>,
    /// Whether `/-/reload` does anything.
    pub has_lifecycle: bool,
    /// Where what is turned away is counted.
    pub refusals: Arc<Refusals>,
    /// Connections at a time, over all listeners.
    pub connections: usize,
    /// Time for the head of a request, from its first byte; for the first request, from the connection on.
    pub head_timeout: Duration,
    /// Time that a connection may stay open between requests.
    pub idle_timeout: Duration,
    /// Time to take an answer.
    pub write_timeout: Duration,
    /// Time that requests under way have to finish once the end is asked for.
    pub drain_timeout: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            telemetry_path: TelemetryPath::default(),
            max_requests: 40,
            dashboard_url: None,
            settings: None,
            has_lifecycle: false,
            refusals: Arc::default(),
            connections: places::room(),
            head_timeout: Duration::from_secs(10),
            // Prometheus gives up an idle connection after 5 minutes. The server should not be the first to do so: a
            // request that crosses the end of its connection is lost.
            idle_timeout: Duration::from_secs(360),
            write_timeout: Duration::from_secs(30),
            drain_timeout: Duration::from_secs(10),
        }
    }
}

/// Serves until `shutdown` completes, and then until the requests under way are answered, for [`Options::drain_timeout`]
/// at most. A scrape that hangs beyond that still holds a blocking thread: end the runtime with a time-out.
///
/// # Errors
/// When a listener cannot be served by the runtime around this, or the system has no random numbers.
pub async fn serve(
    listeners: Vec<std::net::TcpListener>,
    site: Arc<dyn Site>,
    options: Options,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let listeners = listeners
        .into_iter()
        .map(TcpListener::from_std)
        .collect::<io::Result<Vec<_>>>()?;
    let has_tls = options
        .settings
        .as_ref()
        .is_some_and(|settings| settings.current().has_tls());
    for listener in &listeners {
        match listener.local_addr() {
            Ok(address) => tracing::info!(%address, tls = has_tls, "listening"),
            Err(error) => tracing::warn!(%error, "listening on an address that cannot be told"),
        }
    }
    let drain = options.drain_timeout;
    let (close, closing) = watch::channel(());
    let mut server = Server {
        places: Places::new(options.connections),
        front: Arc::new(Front::new(site, &options)?),
        options: Arc::new(options),
        closing,
        connections: JoinSet::new(),
    };
    server.accept_until(&listeners, shutdown).await;

    drop(listeners);
    drop(close);
    let Server {
        mut connections, ..
    } = server;
    let ended = timeout(drain, async {
        while connections.join_next().await.is_some() {}
    });
    if ended.await.is_err() {
        tracing::warn!(
            connections = connections.len(),
            "requests were still under way at the end and are cut off"
        );
        connections.shutdown().await;
    }
    Ok(())
}

struct Server {
    places: Places,
    front: Arc<Front>,
    options: Arc<Options>,
    /// Its sender is dropped at the end.
    closing: watch::Receiver<()>,
    connections: JoinSet<()>,
}

impl Server {
    async fn accept_until(&mut self, listeners: &[TcpListener], end: impl Future<Output = ()>) {
        let mut end = pin!(end);
        let mut turn = 0;
        let mut pause = Instant::now();
        loop {
            let accepted = async {
                sleep_until(pause).await;
                accept(listeners, &mut turn).await
            };
            tokio::select! {
                () = &mut end => return,
                Some(ended) = self.connections.join_next() => tell_defect(ended),
                accepted = accepted => match accepted {
                    Ok((stream, peer)) => self.welcome(stream, peer),
                    Err(error) => if let Some(rest) = self.refused(&error) {
                        pause = Instant::now() + rest;
                    },
                },
            }
        }
    }

    fn welcome(&mut self, stream: TcpStream, peer: SocketAddr) {
        static FULL: OncePer<Ipv6Addr> = OncePer::new(PEERS_TOLD, Duration::from_secs(60));

        let Some(place) = self.places.take(peer.ip()) else {
            self.options.refusals.count(Reason::Overload);
            if let Some(left_out) = FULL.admit(peer::network(peer.ip())) {
                tracing::warn!(%peer, left_out, "connection closed: all others are at work");
            }
            return;
        };
        // Answers are written whole; there is nothing to wait for.
        let _ = stream.set_nodelay(true);
        self.connections.spawn(connection::run(
            stream,
            peer,
            place,
            Arc::clone(&self.front),
            Arc::clone(&self.options),
            self.closing.clone(),
        ));
    }

    /// How long to rest after an error of accept.
    fn refused(&self, error: &io::Error) -> Option<Duration> {
        static REFUSED: Limiter = Limiter::new(2, Duration::from_secs(60));

        if is_of_one_connection(error) {
            return None;
        }
        // Out of descriptors or memory, most likely, and at once again if asked at once. Make room.
        self.places.close_oldest();
        if let Some(left_out) = REFUSED.admit() {
            tracing::error!(
                %error,
                left_out,
                "cannot accept connections, so idle ones are closed; if descriptors are short, raise their limit (ulimit -n)"
            );
        }
        Some(Duration::from_millis(50))
    }
}

/// The next connection of any listener. Each has its turn at being asked first.
async fn accept(
    listeners: &[TcpListener],
    turn: &mut usize,
) -> io::Result<(TcpStream, SocketAddr)> {
    std::future::poll_fn(|context| {
        for offset in 0..listeners.len() {
            let index = (*turn + offset) % listeners.len();
            if let Poll::Ready(accepted) = listeners[index].poll_accept(context) {
                *turn = index + 1;
                return Poll::Ready(accepted);
            }
        }
        Poll::Pending
    })
    .await
}

/// The errors of accept(2) that tell of the connection and not of the listener.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::NetworkDown
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::TimedOut
            | io::ErrorKind::Interrupted
    )
}

fn tell_defect(ended: Result<(), tokio::task::JoinError>) {
    static DEFECTS: Limiter = Limiter::new(2, Duration::from_secs(60));

    if let Err(error) = ended
        && let Some(left_out) = DEFECTS.admit()
    {
        tracing::error!(%error, left_out, "a connection's task ended by a defect");
    }
}
