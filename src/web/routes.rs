//! The routes: what is answered where.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Body, Bytes};
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{Options, Site, TelemetryPath, encoding, landing, probe};
use crate::log::Limiter;

/// Scrapes that are worked on at a time. They wait for the same sampler and would only fill the memory together.
const WORKED_ON: usize = 2;

const LANDING: &str = "/";
const HEALTHY: &str = "/-/healthy";
const READY: &str = "/-/ready";
const PROBE: &str = "/probe";

const PLAIN: &str = "text/plain; charset=utf-8";
/// Prometheus' text format, as its exposition format document names it.
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";

pub(super) type Answer = Response<Full<Bytes>>;

enum Route {
    Telemetry,
    Landing,
    Healthy,
    Ready,
    Probe,
}

/// Answers requests, whatever they came over.
pub(super) struct Front {
    site: Arc<dyn Site>,
    telemetry: TelemetryPath,
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
            Route::Landing => landing::page(&*self.site, &self.telemetry),
            Route::Probe => probe::answer(&*self.site, request).await,
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
            HEALTHY => Some(Route::Healthy),
            READY => Some(Route::Ready),
            PROBE => Some(Route::Probe),
            _ => None,
        }
    }

    fn not_found(&self) -> Answer {
        let mut text = String::from("No such page. There are:\n");
        for path in [self.telemetry.as_str(), LANDING, PROBE, HEALTHY, READY] {
            text.push_str(path);
            text.push('\n');
        }
        plain(StatusCode::NOT_FOUND, text)
    }

    async fn scrape(&self, headers: &HeaderMap) -> Answer {
        let Ok(asked) = Arc::clone(&self.asked).try_acquire_owned() else {
            return too_many();
        };
        let Ok(turn) = Arc::clone(&self.worked_on).acquire_owned().await else {
            return failed();
        };
        let as_gzip = encoding::wants_gzip(headers);
        let site = Arc::clone(&self.site);
        let made = tokio::task::spawn_blocking(move || {
            // Held by the work and not by the one who waits for it, who may hang up and ask again.
            let _held: [OwnedSemaphorePermit; 2] = [asked, turn];
            let text = site.scrape()?.into_bytes();
            if as_gzip {
                encoding::gzip(&text).ok()
            } else {
                Some(text)
            }
        })
        .await;
        let Ok(Some(body)) = made else {
            return failed();
        };
        metrics(body, as_gzip)
    }
}

/// An answer in Prometheus' text format.
pub(super) fn metrics(body: Vec<u8>, as_gzip: bool) -> Answer {
    let mut answer = respond(StatusCode::OK, METRICS, body);
    let headers = answer.headers_mut();
    headers.insert(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    if as_gzip {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
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
