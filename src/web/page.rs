//! Pages for people: HTML with its own style and script inside, which needs nothing from elsewhere and may not get it.

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{self, HeaderValue};
use hyper::{Response, StatusCode};

use super::routes::respond;

/// A page with this content security policy.
pub(super) fn page(text: String, policy: &'static str) -> Response<Full<Bytes>> {
    let mut answer = respond(StatusCode::OK, "text/html; charset=utf-8", text);
    let headers = answer.headers_mut();
    headers.insert(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(policy),
    );
    headers.insert(
        header::REFERRER_POLICY,
        HeaderValue::from_static("no-referrer"),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

/// Text as it stands between tags and in a quoted attribute.
pub(super) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
pub(super) mod tests {
    use sha2::{Digest as _, Sha256};

    /// Fails unless the policy names the one element of this tag as it is.
    pub(in super::super) fn assert_named(policy: &str, page: &str, tag: &str) {
        let (open, close) = (format!("<{tag}>"), format!("</{tag}>"));
        assert_eq!(page.matches(&open).count(), 1, "one {open}");
        let start = page.find(&open).unwrap() + open.len();
        let end = page.find(&close).unwrap();
        let hash = base64(&Sha256::digest(&page[start..end]));
        assert!(
            policy.contains(&format!("{tag}-src 'sha256-{hash}'")),
            "the {tag} has changed: its hash is now sha256-{hash}"
        );
    }

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
    fn base64_is_that_of_rfc_4648() {
        assert_eq!(base64(b"light w"), "bGlnaHQgdw==");
    }

    #[test]
    fn nothing_gets_out_of_an_attribute() {
        assert_eq!(
            super::escaped("<a href=\"x&y\">"),
            "&lt;a href=&quot;x&amp;y&quot;&gt;"
        );
    }
}
