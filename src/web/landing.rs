//! The landing page: what this is, and where to go on.

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{self, HeaderValue};
use hyper::{Response, StatusCode};

use super::Site;
use super::TelemetryPath;
use super::routes::respond;

const PAGE: &str = include_str!("landing.html");

/// Nothing may be loaded, run, framed or sent; the one style sheet is told by its SHA-256.
const POLICY: &str = "default-src 'none'; style-src 'sha256-/HGc2A+SOjsU88SisuVgLv3X8oVRXcYKl6AZwiFJKRg='; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'";

/// The page as things are now.
pub(super) fn page(site: &dyn Site, telemetry: &TelemetryPath) -> Response<Full<Bytes>> {
    let state = if site.is_ready() {
        "ready"
    } else {
        "not ready: no sample has been taken yet"
    };
    // What is put in is the program's own, or checked to be plain: nothing of it needs escaping.
    let text = PAGE
        .replace("{{version}}", env!("CARGO_PKG_VERSION"))
        .replace("{{tier}}", site.tier().as_str())
        .replace("{{state}}", state)
        .replace("{{telemetry}}", telemetry.as_str());
    let mut answer = respond(StatusCode::OK, "text/html; charset=utf-8", text);
    let headers = answer.headers_mut();
    headers.insert(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(POLICY),
    );
    headers.insert(
        header::REFERRER_POLICY,
        HeaderValue::from_static("no-referrer"),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

#[cfg(test)]
mod tests {
    use super::*;
    use sha2::{Digest as _, Sha256};

    fn base64(bytes: &[u8]) -> String {
        const DIGITS: &[u8; 64] =
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let mut text = String::new();
        for chunk in bytes.chunks(3) {
            let bits = chunk
                .iter()
                .chain(&[0, 0])
                .take(3)
                .fold(0, |bits, &byte| bits << 8 | usize::from(byte));
            for place in 0..4 {
                text.push(if place <= chunk.len() {
                    char::from(DIGITS[bits >> (18 - 6 * place) & 63])
                } else {
                    '='
                });
            }
        }
        text
    }

    #[test]
    fn the_policy_names_the_style_sheet_as_it_is() {
        assert_eq!(base64(b"light w"), "bGlnaHQgdw==");
        let start = PAGE.find("<style>").unwrap() + "<style>".len();
        let end = PAGE.find("</style>").unwrap();
        let hash = base64(&Sha256::digest(&PAGE[start..end]));
        assert!(
            POLICY.contains(&format!("'sha256-{hash}'")),
            "the style sheet has changed: its hash is now sha256-{hash}"
        );
    }

    #[test]
    fn the_page_needs_nothing_from_elsewhere() {
        for loaded in [
            "<script", "<img", "<link", "url(", "http:", "https:", "style=", "@import",
        ] {
            assert!(!PAGE.contains(loaded), "{loaded}");
        }
    }
}
