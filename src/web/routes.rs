//! The routes: what is answered where.

use std::io;
use std::net::{Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Body, Bytes};
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Method, Request, Response, StatusCode, Version};

use super::asked::Asked;
use super::auth::{Gate, Verdict};
use super::encoding::Packed;
use super::peer::{self, PEERS_TOLD};
use super::rate::Bucket;
use super::settings::{Settings, SettingsFile};
use super::{DashboardUrl, Options, Site, TelemetryPath, encoding, landing, map, probe};
use crate::api::Document;
use crate::log::{Limiter, OncePer};
use crate::refusals::{Reason, Refusals};

/// How old a sample the landing page shows without asking for a new one, and how long it waits for that.
const GLANCE_AGE: Duration = Duration::from_secs(5);
const GLANCE_WAIT: Duration = Duration::from_secs(2);

const LANDING: &str = "/";
const MAP: &str = "/map";
const PORTS: &str = "/api/v1/ports";
const FACTS: &str = "/api/v1/ports/facts";
const HEALTHY: &str = "/-/healthy";
const READY: &str = "/-/ready";
const RELOAD: &str = "/-/reload";
const CONFIG: &str = "/config";
const PROBE: &str = "/probe";

const PLAIN: &str = "text/plain; charset=utf-8";
/// Prometheus' text format, as its exposition format document names it.
pub(super) const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";
const JSON: &str = "application/json";

pub(super) type Answer = Response<Full<Bytes>>;

enum Route {
    Telemetry,
    Landing,
    Map,
    Ports,
    Facts,
    Healthy,
    Ready,
    Reload,
    Config,
    Probe,
}

/// Answers requests, whatever they came over.
pub(super) struct Front {
    site: Arc<dyn Site>,
    telemetry: TelemetryPath,
    dashboard: Option<DashboardUrl>,
    scrapes: Asked,
    probes: Asked,
    ports: Arc<Packed>,
    facts: Arc<Packed>,
    settings: Option<Arc<SettingsFile>>,
    gate: Gate,
    bucket: Bucket,
    has_lifecycle: bool,
    /// Held while a reload runs.
    reloading: Arc<tokio::sync::Mutex<()>>,
    refusals: Arc<Refusals>,
}

impl Front {
    /// # Errors
    /// When the system has no random numbers.
    pub(super) fn new(site: Arc<dyn Site>, options: &Options) -> io::Result<Self> {
        Ok(Self {
            site,
            telemetry: options.telemetry_path.clone(),
            dashboard: options.dashboard_url.clone(),
            scrapes: Asked::new(options.max_requests),
            probes: Asked::new(probe::MOST),
            ports: Arc::default(),
            facts: Arc::default(),
            settings: options.settings.clone(),
            gate: Gate::new()?,
            bucket: Bucket::default(),
            has_lifecycle: options.has_lifecycle,
            reloading: Arc::default(),
            refusals: Arc::clone(&options.refusals),
        })
    }

    /// What the web configuration says now; `None` where there is none.
    pub(super) async fn settings(&self) -> Option<Arc<Settings>> {
        let file = self.settings.as_ref()?;
        let settings = file.fresh().await;
        self.refusals.set_config(file.is_in_use());
        Some(settings)
    }

    /// The answer to a request. Its body is never read.
    pub(super) async fn answer<B: Body>(&self, peer: SocketAddr, request: &Request<B>) -> Answer {
        let settings = self.settings().await;
        let mut answer = match self.admit(peer, request, settings.as_deref()).await {
            Ok(()) => self.route(peer, request).await,
            Err(refusal) => refusal,
        };
        let headers = answer.headers_mut();
        for (name, value) in settings.iter().flat_map(|settings| &settings.headers) {
            // A page that has its own policy knows better.
            headers.entry(name).or_insert_with(|| value.clone());
        }
        headers.insert(
            header::X_CONTENT_TYPE_OPTIONS,
            HeaderValue::from_static("nosniff"),
        );
        // HTTP/2 has its own way to say that the rest of a body is not wanted.
        if request.version() < Version::HTTP_2 && !request.body().is_end_stream() {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        tracing::debug!(
            %peer,
            method = request.method().as_str(),
            path = request.uri().path(),
            status = answer.status().as_u16(),
            "request"
        );
        answer
    }

    /// Whether the request is answered at all.
    async fn admit<B>(
        &self,
        peer: SocketAddr,
        request: &Request<B>,
        settings: Option<&Settings>,
    ) -> Result<(), Answer> {
        let Some(settings) = settings else {
            return Ok(());
        };
        if let Some(rate) = settings.rate
            && !self.bucket.take(rate)
        {
            self.refused(peer, Reason::RateLimit, None);
            return Err(too_often());
        }
        if settings.users.is_empty() {
            return Ok(());
        }
        let headers = request.headers();
        match self.gate.judge(&settings.users, headers, peer.ip()).await {
            Verdict::Welcome => Ok(()),
            Verdict::Missing => {
                if !is_look(request) {
                    self.refused(peer, Reason::BasicAuth, None);
                }
                Err(unauthorized())
            }
            Verdict::Wrong(user) => {
                self.refused(peer, Reason::BasicAuth, user.as_deref());
                Err(unauthorized())
            }
            Verdict::Busy => {
                self.refused(peer, Reason::Overload, None);
                Err(unavailable("Too many passwords at a time.\n"))
            }
        }
    }

    fn refused(&self, peer: SocketAddr, reason: Reason, user: Option<&str>) {
        // Who tries passwords does not hide who asks too often, nor the other way round.
        static PASSWORDS: OncePer<(Ipv6Addr, Option<String>)> =
            OncePer::new(PEERS_TOLD, Duration::from_secs(60));
        static OTHERS: OncePer<(Ipv6Addr, Reason)> =
            OncePer::new(PEERS_TOLD, Duration::from_secs(60));

        self.refusals.count(reason);
        let network = peer::network(peer.ip());
        let admitted = match reason {
            Reason::BasicAuth => PASSWORDS.admit((network, user.map(str::to_owned))),
            _ => OTHERS.admit((network, reason)),
        };
        if let Some(left_out) = admitted {
            let reason = reason.as_str();
            tracing::warn!(%peer, reason, user, left_out, "request refused");
        }
    }

    async fn route<B>(&self, peer: SocketAddr, request: &Request<B>) -> Answer {
        let Some(route) = self.find(request.uri().path()) else {
            return self.not_found();
        };
        let (allowed, is_allowed) = match (&route, request.method()) {
            (Route::Reload, method) => ("POST, PUT", matches!(*method, Method::POST | Method::PUT)),
            (_, method) => ("GET, HEAD", matches!(*method, Method::GET | Method::HEAD)),
        };
        if !is_allowed {
            return method_not_allowed(allowed);
        }
        match route {
            Route::Telemetry => self.scrape(peer, request.headers()).await,
            Route::Landing => self.landing(peer).await,
            Route::Map => map::map(self.dashboard.as_ref()),
            Route::Ports => {
                self.document(peer, request.headers(), &self.ports, <dyn Site>::ports)
                    .await
            }
            Route::Facts => {
                self.document(peer, request.headers(), &self.facts, <dyn Site>::facts)
                    .await
            }
            Route::Probe => {
                let Some(_ticket) = self.probes.ask(peer.ip()) else {
                    self.refused(peer, Reason::Overload, None);
                    return unavailable(
                        "Too many probes at a time, of this client or of all. Try again later.\n",
                    );
                };
                probe::answer(&*self.site, request).await
            }
            Route::Healthy => plain(StatusCode::OK, "darkport_exporter is healthy.\n"),
            Route::Ready if self.site.is_ready() => {
                plain(StatusCode::OK, "darkport_exporter is ready.\n")
            }
            Route::Ready => plain(
                StatusCode::SERVICE_UNAVAILABLE,
                "darkport_exporter is not ready: no sample has been taken yet.\n",
            ),
            Route::Config => self.config(),
            Route::Reload => self.reload(peer).await,
        }
    }

    fn find(&self, path: &str) -> Option<Route> {
        if path == self.telemetry.as_str() {
            return Some(Route::Telemetry);
        }
        match path {
            LANDING => Some(Route::Landing),
            MAP => Some(Route::Map),
            PORTS => Some(Route::Ports),
            FACTS => Some(Route::Facts),
            HEALTHY => Some(Route::Healthy),
            READY => Some(Route::Ready),
            RELOAD => Some(Route::Reload),
            CONFIG => Some(Route::Config),
            PROBE => Some(Route::Probe),
            _ => None,
        }
    }

    fn not_found(&self) -> Answer {
        let mut text = String::from("No such page. There are:\n");
        for path in [
            self.telemetry.as_str(),
            LANDING,
            MAP,
            PORTS,
            FACTS,
            PROBE,
            CONFIG,
            HEALTHY,
            READY,
            RELOAD,
        ] {
            text.push_str(path);
            text.push('\n');
        }
        plain(StatusCode::NOT_FOUND, text)
    }

    /// The configuration in use, and the web configuration behind it.
    fn config(&self) -> Answer {
        let mut text = self.site.config().to_string();
        if let Some(file) = &self.settings {
            text.push_str("---\n# The web configuration.\n");
            text.push_str(file.current().text());
        }
        let mut answer = respond(StatusCode::OK, "application/yaml; charset=utf-8", text);
        answer
            .headers_mut()
            .insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        answer
    }

    /// Loads everything anew and says what came of it. Whoever asks while that goes on is sent away: nobody who waits for a
    /// turn is in the way of scrapes, and nobody is told of a file that may have been read before it was written.
    async fn reload(&self, peer: SocketAddr) -> Answer {
        if !self.has_lifecycle {
            return plain(
                StatusCode::FORBIDDEN,
                "Reloading over HTTP is not enabled: start with --web.enable-lifecycle, or send SIGHUP.\n",
            );
        }
        let Ok(turn) = Arc::clone(&self.reloading).try_lock_owned() else {
            self.refused(peer, Reason::Overload, None);
            return unavailable(
                "A reload is under way, which may have read the files before you changed them. Try again.\n",
            );
        };
        let (site, settings) = (Arc::clone(&self.site), self.settings.clone());
        let reloaded = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            reload(&*site, settings.as_deref())
        })
        .await;
        match reloaded {
            Ok(Ok(())) => plain(StatusCode::OK, ""),
            Ok(Err(problems)) => plain(StatusCode::INTERNAL_SERVER_ERROR, problems + "\n"),
            Err(_) => plain(
                StatusCode::INTERNAL_SERVER_ERROR,
                "The reload failed. The exporter's log says why.\n",
            ),
        }
    }

    async fn scrape(&self, peer: SocketAddr, headers: &HeaderMap) -> Answer {
        let as_gzip = encoding::wants_gzip(headers);
        let made = self
            .work(peer, move |site| {
                let text = site.scrape()?.into_bytes();
                packed(text, as_gzip)
            })
            .await;
        match made {
            Ok(body) => encoded(METRICS, body, as_gzip),
            Err(refusal) => refusal,
        }
    }

    /// A document, unless the client holds this very one.
    async fn document(
        &self,
        peer: SocketAddr,
        headers: &HeaderMap,
        packed: &Arc<Packed>,
        ask: impl Fn(&dyn Site) -> Option<Document> + Send + 'static,
    ) -> Answer {
        let as_gzip = encoding::wants_gzip(headers);
        let held: Vec<HeaderValue> = headers
            .get_all(header::IF_NONE_MATCH)
            .iter()
            .cloned()
            .collect();
        let packed = Arc::clone(packed);
        let made = self
            .work(peer, move |site| {
                let document = ask(site)?;
                // Weak: the same content, as it is and compressed.
                let tag = format!("W/\"{}\"", document.id);
                if names(&held, &tag) {
                    return Some((tag, None));
                }
                let body = if as_gzip {
                    packed.gzip(&document).ok()?
                } else {
                    Bytes::from_owner(document.json)
                };
                Some((tag, Some(body)))
            })
            .await;
        let (tag, body) = match made {
            Ok(made) => made,
            Err(refusal) => return refusal,
        };
        let mut answer = match body {
            Some(body) => encoded(JSON, body, as_gzip),
            None => not_modified(),
        };
        let headers = answer.headers_mut();
        // To be kept, and asked about before it is used again.
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        if let Ok(tag) = HeaderValue::from_str(&tag) {
            headers.insert(header::ETAG, tag);
        }
        answer
    }

    /// The landing page shows a sample that somebody else has asked for; only where that is old it asks for one itself, and
    /// not for long.
    async fn landing(&self, peer: SocketAddr) -> Answer {
        let is_old = self.site.glance().is_none_or(|glance| {
            // A clock that was set back makes a sample look new; the next one is.
            glance.sampled_at.elapsed().unwrap_or_default() > GLANCE_AGE
        });
        if is_old {
            let sampling = self.work(peer, |site| site.ports().map(drop));
            let _ = tokio::time::timeout(GLANCE_WAIT, sampling).await;
        }
        landing::landing(&*self.site, &self.telemetry)
    }

    /// Does what may block, in its turn and within the limits.
    async fn work<T: Send + 'static>(
        &self,
        peer: SocketAddr,
        work: impl FnOnce(&dyn Site) -> Option<T> + Send + 'static,
    ) -> Result<T, Answer> {
        let Some(ticket) = self.scrapes.ask(peer.ip()) else {
            self.refused(peer, Reason::Overload, None);
            return Err(unavailable(
                "Too many scrapes at a time. The limit is --web.max-requests.\n",
            ));
        };
        let Some(turn) = ticket.turn().await else {
            return Err(failed());
        };
        let site = Arc::clone(&self.site);
        let made = tokio::task::spawn_blocking(move || {
            // Held by the work and not by the one who waits for it, who may hang up and ask again.
            let _held = turn;
            work(&*site)
        })
        .await;
        made.ok().flatten().ok_or_else(failed)
    }
}

/// Whether somebody looks whether the exporter lives, as health checks do every few seconds: without trying a password.
fn is_look<B>(request: &Request<B>) -> bool {
    request.uri().path() == HEALTHY && !request.headers().contains_key(header::AUTHORIZATION)
}

/// A text as it is sent: what it grew by and does not need is given back, because it may wait for its client.
fn packed(text: Vec<u8>, as_gzip: bool) -> Option<Vec<u8>> {
    let mut body = if as_gzip {
        encoding::gzip(&text).ok()?
    } else {
        text
    };
    body.shrink_to_fit();
    Some(body)
}

/// A body, with what caches must know of it.
pub(super) fn encoded(kind: &'static str, body: impl Into<Bytes>, as_gzip: bool) -> Answer {
    let mut answer = respond(StatusCode::OK, kind, body);
    let headers = answer.headers_mut();
    headers.insert(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    if as_gzip {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    answer
}

/// Whether an If-None-Match names this tag (RFC 9110, section 13.1.2).
fn names(held: &[HeaderValue], tag: &str) -> bool {
    let opaque = tag.trim_start_matches("W/");
    held.iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .any(|value| value == "*" || value.trim_start_matches("W/") == opaque)
}

fn not_modified() -> Answer {
    let mut answer = Response::new(Full::default());
    *answer.status_mut() = StatusCode::NOT_MODIFIED;
    answer
        .headers_mut()
        .insert(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    answer
}

/// Loads the configuration and, where there is one, the web configuration anew. Blocks.
///
/// # Errors
/// What is wrong with them, one problem a line. Whichever of the two is good is in use all the same.
pub fn reload(site: &dyn Site, settings: Option<&SettingsFile>) -> Result<(), String> {
    let problems: Vec<String> = [
        site.reload().err(),
        settings
            .and_then(|settings| settings.refresh().err())
            .map(|problem| problem.to_string()),
    ]
    .into_iter()
    .flatten()
    .collect();
    if problems.is_empty() {
        Ok(())
    } else {
        Err(problems.join("\n"))
    }
}

fn unauthorized() -> Answer {
    let mut answer = plain(StatusCode::UNAUTHORIZED, "Unauthorized\n");
    answer.headers_mut().insert(
        header::WWW_AUTHENTICATE,
        HeaderValue::from_static("Basic realm=\"darkport_exporter\", charset=\"UTF-8\""),
    );
    answer
}

fn too_often() -> Answer {
    let mut answer = plain(StatusCode::TOO_MANY_REQUESTS, "Too many requests\n");
    answer
        .headers_mut()
        .insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    answer
}

fn unavailable(text: &'static str) -> Answer {
    let mut answer = plain(StatusCode::SERVICE_UNAVAILABLE, text);
    answer
        .headers_mut()
        .insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    answer
}

fn failed() -> Answer {
    static FAILED: Limiter = Limiter::new(2, Duration::from_secs(60));

    if let Some(left_out) = FAILED.admit() {
        tracing::error!(left_out, "scrape failed");
    }
    plain(
        StatusCode::INTERNAL_SERVER_ERROR,
        "The scrape failed. The exporter's log says why.\n",
    )
}

fn method_not_allowed(allowed: &'static str) -> Answer {
    let mut answer = plain(
        StatusCode::METHOD_NOT_ALLOWED,
        format!("Method not allowed. Allowed here: {allowed}.\n"),
    );
    answer
        .headers_mut()
        .insert(header::ALLOW, HeaderValue::from_static(allowed));
    answer
}

pub(super) fn plain(status: StatusCode, text: impl Into<Bytes>) -> Answer {
    respond(status, PLAIN, text)
}

/// An answer of a kind. hyper adds its length and leaves its body out where the request was HEAD.
pub(super) fn respond(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    answer
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    answer
}

/// A tag is named by itself, whatever else is.
#[cfg(all(target_os = "linux", any(test, fuzzing)))]
pub(super) fn fuzz(headers: &HeaderMap) {
    let mut held: Vec<HeaderValue> = headers.values().cloned().collect();
    let _ = names(&held, "\"0123456789abcdef\"");
    held.push(HeaderValue::from_static("W/\"0123456789abcdef\""));
    assert!(names(&held, "\"0123456789abcdef\""));
}
