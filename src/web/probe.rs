//! `/probe`: a query → a request, and the report or the refusal → an answer.

use std::time::Duration;

use hyper::header::HeaderMap;
use hyper::{Request, StatusCode};

use super::Site;
use super::encoding;
use super::routes::{Answer, METRICS, encoded, plain};
use crate::exporter::ProbeError;
use crate::log::Limiter;
use crate::probe;

/// How much time a scrape has, as Prometheus says it.
const TIME_HEADER: &str = "x-prometheus-scrape-timeout-seconds";
/// What is left of it for the way back and forth, as `blackbox_exporter` does.
const OFFSET: Duration = Duration::from_millis(500);
/// The time of who says nothing, as `blackbox_exporter` has it.
const TIME: Duration = Duration::from_secs(120);
/// The most time.
const MOST_TIME: Duration = Duration::from_secs(3600);

/// Probes at a time, of which a quarter is out of reach for any single client.
pub(super) const MOST: usize = 32;

pub(super) async fn answer<B>(site: &dyn Site, request: &Request<B>) -> Answer {
    let wanted = match wanted(request.uri().query().unwrap_or_default(), request.headers()) {
        Ok(wanted) => wanted,
        Err(why) => return plain(StatusCode::BAD_REQUEST, format!("{why}\n")),
    };
    let text = match site.probe(wanted).await {
        Ok(text) => text.into_bytes(),
        Err(error) => return refusal(&error),
    };
    if !encoding::wants_gzip(request.headers()) {
        return encoded(METRICS, text, false);
    }
    match tokio::task::spawn_blocking(move || encoding::gzip(&text)).await {
        Ok(Ok(body)) => encoded(METRICS, body, true),
        _ => plain(
            StatusCode::INTERNAL_SERVER_ERROR,
            "The report could not be compressed.\n",
        ),
    }
}

fn wanted(query: &str, headers: &HeaderMap) -> Result<probe::Request, String> {
    let mut target = None;
    let mut module = None;
    for pair in query.split('&') {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let place = match key {
            "target" => &mut target,
            "module" => &mut module,
            // Prometheus sends every parameter it is told to, and some are for others.
            _ => continue,
        };
        let value =
            decode(value).ok_or_else(|| format!("{key} is not UTF-8 in percent encoding"))?;
        if place.replace(value).is_some() {
            return Err(format!("{key} is given twice"));
        }
    }
    let missing = |what| format!("{what} is missing: ask for /probe?target=HOST&module=NAME");
    Ok(probe::Request {
        target: target.ok_or_else(|| missing("target"))?,
        module: module
            .filter(|module| !module.is_empty())
            .ok_or_else(|| missing("module"))?,
        time: time(headers)?,
    })
}

/// A value of a query, decoded (WHATWG URL, application/x-www-form-urlencoded).
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digits = [rest.next()?, rest.next()?];
                if !digits.iter().all(u8::is_ascii_hexdigit) {
                    return None;
                }
                u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

/// How much time there is for a probe.
fn time(headers: &HeaderMap) -> Result<Duration, String> {
    let Some(value) = headers.get(TIME_HEADER) else {
        return Ok(TIME);
    };
    let given = value
        .to_str()
        .ok()
        .and_then(|text| text.parse::<f64>().ok())
        .filter(|&seconds| seconds > 0.0)
        .map(|seconds| Duration::from_secs_f64(seconds.min(MOST_TIME.as_secs_f64())));
    match given {
        // Of very little, half.
        Some(given) => Ok(given.saturating_sub(OFFSET).max(given / 2)),
        None => Err(format!("{TIME_HEADER} is not a number of seconds above 0")),
    }
}

fn refusal(error: &ProbeError) -> Answer {
    static FAILED: Limiter = Limiter::new(2, Duration::from_secs(60));

    let status = match error {
        ProbeError::Probe(error) => status(error),
        ProbeError::Encode(_) => StatusCode::INTERNAL_SERVER_ERROR,
    };
    if status == StatusCode::INTERNAL_SERVER_ERROR
        && let Some(left_out) = FAILED.admit()
    {
        tracing::error!(%error, left_out, "probe failed");
    }
    plain(status, format!("{error}\n"))
}

const fn status(error: &probe::Error) -> StatusCode {
    use probe::Error;
    match error {
        Error::NobodyAllowed | Error::NotAllowed { .. } => StatusCode::FORBIDDEN,
        Error::UnknownModule(..) | Error::Target(_) | Error::Resolve { .. } => {
            StatusCode::BAD_REQUEST
        }
        Error::Thread(_) | Error::Interrupted | Error::CutOff => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// What was read of a query and its headers can be asked for.
#[cfg(all(target_os = "linux", any(test, fuzzing)))]
pub(super) fn fuzz(query: &str, headers: &HeaderMap) {
    if let Ok(request) = wanted(query, headers) {
        assert!(!request.module.is_empty());
        assert!(!request.time.is_zero() && request.time <= MOST_TIME);
        let encoded: String = request
            .target
            .bytes()
            .map(|b| format!("%{b:02x}"))
            .collect();
        assert_eq!(decode(&encoded), Some(request.target));
    }
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    fn read(query: &str) -> Result<probe::Request, String> {
        wanted(query, &HeaderMap::new())
    }

    fn with_time(text: &str) -> Result<Duration, String> {
        let mut headers = HeaderMap::new();
        headers.insert(TIME_HEADER, HeaderValue::from_str(text).unwrap());
        time(&headers)
    }

    #[test]
    fn a_query_is_decoded() {
        let request = read("debug=true&target=%5B%3A%3A1%5D&module=a+b&x").unwrap();
        assert_eq!(
            (request.target.as_str(), request.module.as_str()),
            ("[::1]", "a b")
        );
        assert_eq!(request.time, TIME);
    }

    #[test]
    fn what_is_missing_or_twice_or_no_text_is_told() {
        for (query, told) in [
            ("", "target is missing"),
            ("module=a", "target is missing"),
            ("target=a", "module is missing"),
            ("target=a&module=", "module is missing"),
            ("target=a&target=b&module=c", "target is given twice"),
            ("target=a&module=b&module=b", "module is given twice"),
            ("target=%ff&module=a", "target is not UTF-8"),
            ("target=%f&module=a", "target is not UTF-8"),
            ("target=%+1&module=a", "target is not UTF-8"),
        ] {
            let error = read(query).expect_err(query);
            assert!(error.contains(told), "{query}: {error}");
        }
    }

    #[test]
    fn some_of_the_scrapes_time_is_kept_for_the_way_back() {
        let milliseconds = |text| with_time(text).map(|time| time.as_millis());
        assert_eq!(milliseconds("10"), Ok(9500));
        assert_eq!(milliseconds("10.000"), Ok(9500));
        assert_eq!(milliseconds("0.6"), Ok(300));
        assert_eq!(milliseconds("0.1"), Ok(50));
        assert_eq!(milliseconds("inf"), Ok(3_599_500));
        for bad in ["", "0", "-1", "NaN", "ten", "1e400s"] {
            assert!(with_time(bad).is_err(), "{bad}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_query_is_too_odd(query in "[ -~]{0,60}") {
            let _ = read(&query);
        }
    }
}
