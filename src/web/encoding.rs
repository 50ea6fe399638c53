//! Content encodings: whether a client wants gzip, and gzip.

use std::io::{self, Write as _};
use std::sync::{Mutex, PoisonError};

use flate2::Compression;
use flate2::write::GzEncoder;
use hyper::HeaderMap;
use hyper::body::Bytes;
use hyper::header::{ACCEPT_ENCODING, HeaderValue};

use crate::api::Document;

/// Whether gzip is what the client likes best, or as much as no encoding at all (RFC 9110, section 12.5.3).
pub(super) fn wants_gzip(headers: &HeaderMap) -> bool {
    let mut gzip = None;
    let mut identity = None;
    let mut any = None;
    for (coding, quality) in headers
        .get_all(ACCEPT_ENCODING)
        .iter()
        .filter_map(|value| HeaderValue::to_str(value).ok())
        .flat_map(|value| value.split(','))
        .map(element)
    {
        match coding.to_ascii_lowercase().as_str() {
            "gzip" | "x-gzip" => gzip = gzip.max(Some(quality)),
            "identity" => identity = Some(quality),
            "*" => any = Some(quality),
            _ => {}
        }
    }
    let gzip = gzip.or(any).unwrap_or(0);
    gzip > 0 && gzip >= identity.unwrap_or(0)
}

/// A coding and how much it is liked, in thousandths; 0 where that cannot be read.
fn element(text: &str) -> (&str, u16) {
    let (coding, parameter) = text.split_once(';').unwrap_or((text, "q=1"));
    let quality = parameter
        .trim()
        .strip_prefix(['q', 'Q'])
        .and_then(|rest| rest.trim_start().strip_prefix('='))
        .and_then(|value| thousandths(value.trim()));
    (coding.trim(), quality.unwrap_or(0))
}

/// `1`, `0.5`, `0.125`: at most three decimals, at most 1.
fn thousandths(text: &str) -> Option<u16> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    if decimals.len() > 3 || !decimals.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let fraction: u16 = format!("{decimals:0<3}").parse().ok()?;
    match (whole, fraction) {
        ("0", fraction) => Some(fraction),
        ("1", 0) => Some(1000),
        _ => None,
    }
}

/// Compresses, quickly rather than tightly: seven megabytes of metrics take some 10 ms and shrink to a fifteenth.
pub(super) fn gzip(text: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(text.len() / 8), Compression::fast());
    encoder.write_all(text)?;
    encoder.finish()
}

/// A document as it was last compressed: whoever asks for the same content gets the same memory.
#[derive(Debug, Default)]
pub(super) struct Packed(Mutex<Option<(String, Bytes)>>);

impl Packed {
    /// The document, compressed. Blocks while somebody else compresses it.
    pub(super) fn gzip(&self, document: &Document) -> io::Result<Bytes> {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((id, packed)) = &*last
            && *id == document.id
        {
            return Ok(packed.clone());
        }
        let mut packed = gzip(&document.json)?;
        packed.shrink_to_fit();
        let packed = Bytes::from(packed);
        *last = Some((document.id.clone(), packed.clone()));
        Ok(packed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_document_is_compressed_once_for_all_who_ask_for_it() {
        let packed = Packed::default();
        let document = |text: &str| Document {
            json: text.as_bytes().into(),
            id: text.to_owned(),
        };
        let first = packed.gzip(&document("one")).unwrap();
        let again = packed.gzip(&document("one")).unwrap();
        assert_eq!(first.as_ptr(), again.as_ptr());
        let other = packed.gzip(&document("two")).unwrap();
        assert_ne!(other, first);
        assert_eq!(packed.gzip(&document("one")).unwrap(), first);
    }

    fn wants(values: &[&str]) -> bool {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(ACCEPT_ENCODING, HeaderValue::from_str(value).unwrap());
        }
        wants_gzip(&headers)
    }

    #[test]
    fn gzip_is_for_who_likes_it_best() {
        for liked in [
            &["gzip"][..],
            &["GZIP"],
            &["deflate, gzip;q=1.0, *;q=0.5"],
            &["br;q=1.0, gzip;q=0.8, *;q=0.1"],
            &["deflate", "gzip"],
            &["*"],
            &["gzip;q=0.001"],
            &["identity;q=0.5, gzip ; Q = 0.5"],
            &["x-gzip"],
            &["gzip;q=0.5, *;q=0"],
        ] {
            assert!(wants(liked), "{liked:?}");
        }
        for not_liked in [
            &[][..],
            &[""],
            &["identity"],
            &["deflate, br"],
            &["gzip;q=0"],
            &["gzip;q=0.000"],
            &["*;q=0"],
            &["gzip;q=0, *"],
            &["identity, gzip;q=0.5"],
            &["gzip;q=2"],
            &["gzip;q=-1"],
            &["gzip;q=0.0001"],
            &["gzip;level=9"],
            &["gzipped"],
        ] {
            assert!(!wants(not_liked), "{not_liked:?}");
        }
    }

    proptest! {
        #[test]
        fn no_header_is_too_odd(value in "[ -~]{0,40}") {
            wants(&[&value]);
        }
    }
}
