//! The routes: what is answered where.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Body, Bytes};
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{DashboardUrl, Options, Site, TelemetryPath, encoding, landing, map};
use crate::api::Document;
use crate::log::Limiter;

/// Scrapes that are worked on at a time. They wait for the same sampler and would only fill the memory together.
const WORKED_ON: usize = 2;

/// How old a sample the landing page shows without asking for a new one, and how long it waits for that.
const GLANCE_AGE: Duration = Duration::from_secs(5);
const GLANCE_WAIT: Duration = Duration::from_secs(2);

const LANDING: &str = "/";
const MAP: &str = "/map";
const PORTS: &str = "/api/v1/ports";
const FACTS: &str = "/api/v1/ports/facts";
const HEALTHY: &str = "/-/healthy";
const READY: &str = "/-/ready";

const PLAIN: &str = "text/plain; charset=utf-8";
/// Prometheus' text format, as its exposition format document names it.
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";
const JSON: &str = "application/json";

type Answer = Response<Full<Bytes>>;

enum Route {
    Telemetry,
    Landing,
    Map,
    Ports,
    Facts,
    Healthy,
    Ready,
}

/// Answers requests, whatever they came over.
pub(super) struct Front {
    site: Arc<dyn Site>,
    telemetry: TelemetryPath,
    dashboard: Option<DashboardUrl>,
    /// One permit for each scrape that is asked for.
    asked: Arc<Semaphore>,
    /// One permit for each scrape that is worked on.
    worked_on: Arc<Semaphore>,
}

impl Front {
    pub(super) fn new(site: Arc<dyn Site>, options: &Options) -> Self {
        let most = match options.max_requests {
            0 => Semaphore::MAX_PERMITS,
            limit => limit.min(Semaphore::MAX_PERMITS),
        };
        Self {
            site,
            telemetry: options.telemetry_path.clone(),
            dashboard: options.dashboard_url.clone(),
            asked: Arc::new(Semaphore::new(most)),
            worked_on: Arc::new(Semaphore::new(WORKED_ON)),
        }
    }

    /// The answer to a request. Its body is never read.
    pub(super) async fn answer<B: Body>(&self, peer: SocketAddr, request: &Request<B>) -> Answer {
        let mut answer = self.route(request).await;
        let headers = answer.headers_mut();
        headers.insert(
            header::X_CONTENT_TYPE_OPTIONS,
            HeaderValue::from_static("nosniff"),
        );
        if !request.body().is_end_stream() {
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

    async fn route<B>(&self, request: &Request<B>) -> Answer {
        let Some(route) = self.find(request.uri().path()) else {
            return self.not_found();
        };
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return method_not_allowed();
        }
        match route {
            Route::Telemetry => self.scrape(request.headers()).await,
            Route::Landing => self.landing().await,
            Route::Map => map::map(self.dashboard.as_ref()),
            Route::Ports => self.document(request.headers(), <dyn Site>::ports).await,
            Route::Facts => self.document(request.headers(), <dyn Site>::facts).await,
            Route::Healthy => plain(StatusCode::OK, "darkport_exporter is healthy.\n"),
            Route::Ready if self.site.is_ready() => {
                plain(StatusCode::OK, "darkport_exporter is ready.\n")
            }
            Route::Ready => plain(
                StatusCode::SERVICE_UNAVAILABLE,
                "darkport_exporter is not ready: no sample has been taken yet.\n",
            ),
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
            HEALTHY,
            READY,
        ] {
            text.push_str(path);
            text.push('\n');
        }
        plain(StatusCode::NOT_FOUND, text)
    }

    async fn scrape(&self, headers: &HeaderMap) -> Answer {
        let as_gzip = encoding::wants_gzip(headers);
        let made = self
            .work(move |site| packed(site.scrape()?.into_bytes(), as_gzip))
            .await;
        match made {
            Ok(body) => encoded(METRICS, body, as_gzip),
            Err(refusal) => refusal,
        }
    }

    /// A document, unless the client holds this very one.
    async fn document(
        &self,
        headers: &HeaderMap,
        ask: impl Fn(&dyn Site) -> Option<Document> + Send + 'static,
    ) -> Answer {
        let as_gzip = encoding::wants_gzip(headers);
        let held: Vec<HeaderValue> = headers
            .get_all(header::IF_NONE_MATCH)
            .iter()
            .cloned()
            .collect();
        let made = self
            .work(move |site| {
                let document = ask(site)?;
                // Weak: the same content, as it is and compressed.
                let tag = format!("W/\"{}\"", document.id);
                if names(&held, &tag) {
                    return Some((tag, None));
                }
                let body = if as_gzip {
                    packed(document.json.to_vec(), true)?.into()
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
    async fn landing(&self) -> Answer {
        let is_old = self.site.glance().is_none_or(|glance| {
            // A clock that was set back makes a sample look new; the next one is.
            glance.sampled_at.elapsed().unwrap_or_default() > GLANCE_AGE
        });
        if is_old {
            let sampling = self.work(|site| site.ports().map(drop));
            let _ = tokio::time::timeout(GLANCE_WAIT, sampling).await;
        }
        landing::landing(&*self.site, &self.telemetry)
    }

    /// Does what may block, in its turn and within the limits.
    async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce(&dyn Site) -> Option<T> + Send + 'static,
    ) -> Result<T, Answer> {
        let Ok(asked) = Arc::clone(&self.asked).try_acquire_owned() else {
            return Err(too_many());
        };
        let Ok(turn) = Arc::clone(&self.worked_on).acquire_owned().await else {
            return Err(failed());
        };
        let site = Arc::clone(&self.site);
        let made = tokio::task::spawn_blocking(move || {
            // Held by the work and not by the one who waits for it, who may hang up and ask again.
            let _held: [OwnedSemaphorePermit; 2] = [asked, turn];
            work(&*site)
        })
        .await;
        made.ok().flatten().ok_or_else(failed)
    }
}

fn packed(text: Vec<u8>, as_gzip: bool) -> Option<Vec<u8>> {
    if as_gzip {
        encoding::gzip(&text).ok()
    } else {
        Some(text)
    }
}

fn encoded(kind: &'static str, body: impl Into<Bytes>, as_gzip: bool) -> Answer {
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

fn too_many() -> Answer {
    let mut answer = plain(
        StatusCode::SERVICE_UNAVAILABLE,
        "Too many scrapes at a time. The limit is --web.max-requests.\n",
    );
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

fn method_not_allowed() -> Answer {
    let mut answer = plain(
        StatusCode::METHOD_NOT_ALLOWED,
        "Method not allowed: use GET or HEAD.\n",
    );
    answer
        .headers_mut()
        .insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
    answer
}

fn plain(status: StatusCode, text: impl Into<Bytes>) -> Answer {
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
