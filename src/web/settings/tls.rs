//! `tls_server_config`: certificates, keys and choices → what rustls serves with.

use std::sync::Arc;

use tokio_rustls::rustls::crypto::{CryptoProvider, SupportedKxGroup, ring};
use tokio_rustls::rustls::server::NoServerSessionStorage;
use tokio_rustls::rustls::sign::{CertifiedKey, SingleCertAndKey};
use tokio_rustls::rustls::{
    self, InconsistentKeys, ProtocolVersion, ServerConfig, SupportedCipherSuite,
    SupportedProtocolVersion,
};

use super::clients::clients;
use super::names::{CURVES, Named, SUITES, VERSIONS};
use super::pem::{certificates, material, private_key};
use super::sources::Sources;
use super::{each, said};
use crate::yaml::{Field, Mapping, Problems};

const KEYS: [&str; 13] = [
    "cert",
    "cert_file",
    "key",
    "key_file",
    "client_ca",
    "client_ca_file",
    "client_auth_type",
    "client_allowed_sans",
    "min_version",
    "max_version",
    "cipher_suites",
    "prefer_server_cipher_suites",
    "curve_preferences",
];

/// Reads the section; `Some(None)` where it says nothing.
pub(super) fn server_config(
    field: &Field<'_>,
    has_http2: bool,
    sources: &mut Sources,
    problems: &mut Problems,
) -> Option<Option<Arc<ServerConfig>>> {
    let map = field.mapping(&KEYS, problems)?;
    if KEYS.iter().all(|key| said(&map, key).is_none()) {
        return Some(None);
    }
    let identity = identity(field, &map, sources, problems);
    let provider = provider(&map, problems);
    let versions = versions(&map, problems);
    let prefers_own =
        said(&map, "prefer_server_cipher_suites").map_or(Some(true), |field| field.claim(problems));
    let clients = clients(field, &map, sources, problems);
    let (provider, versions) = (Arc::new(provider?), versions?);
    let clients = clients?;
    check_suites(&map, &provider, &versions, problems)?;

    let builder = match ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&versions)
    {
        Ok(builder) => builder,
        Err(error) => {
            field.refuse(problems, format!("TLS cannot be spoken like this: {error}"));
            return None;
        }
    };
    let builder = match clients.verifier(&provider) {
        Ok(Some(verifier)) => builder.with_client_cert_verifier(verifier),
        Ok(None) => builder.with_no_client_auth(),
        Err(message) => {
            field.refuse(problems, message);
            return None;
        }
    };
    let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(identity?)));
    config.ignore_client_order = prefers_own?;
    // A session that is taken up again would skip the look at the client's certificate, which may have run out.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.alpn_protocols = if has_http2 {
        vec![b"h2".to_vec(), b"http/1.1".to_vec()]
    } else {
        vec![b"http/1.1".to_vec()]
    };
    Some(Some(Arc::new(config)))
}

/// A certificate chain with its key.
fn identity(
    field: &Field<'_>,
    map: &Mapping<'_>,
    sources: &mut Sources,
    problems: &mut Problems,
) -> Option<CertifiedKey> {
    let mut part = |inline, file, what: &str| {
        let found = material(map, inline, file, sources, problems);
        if let Some(None) = found {
            let message = format!("missing: TLS needs a {what}, by {file} or in place by {inline}");
            field.refuse_missing(problems, file, &message);
            return None;
        }
        found.flatten()
    };
    let chain = part("cert", "cert_file", "certificate");
    let key = part("key", "key_file", "private key");
    let chain = chain.and_then(|chain| certificates(&chain, problems));
    let key = key.and_then(|key| private_key(&key, problems));
    let ((key_at, key), chain) = (key?, chain?);
    match CertifiedKey::from_der(chain, key, &ring::default_provider()) {
        Ok(identity) => Some(identity),
        Err(error) => {
            let message = match error {
                rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                    "the key is not that of the certificate: name the pair that belongs together, the server's certificate first"
                        .to_owned()
                }
                rustls::Error::InvalidCertificate(error) => {
                    format!("the certificate cannot be used: {error}")
                }
                _ => "this kind of key cannot be used: take RSA of 2048 to 8192 bits, ECDSA on P-256 or P-384, or Ed25519"
                    .to_owned(),
            };
            key_at.refuse(problems, message);
            None
        }
    }
}

/// One of the format's names for something; what is not to be had is refused with `instead`.
fn named<T: Copy>(
    field: &Field<'_>,
    names: &[Named<T>],
    instead: &str,
    problems: &mut Problems,
) -> Option<T> {
    let text = field.text("a name", problems)?;
    if names
        .iter()
        .any(|(name, value)| *name == text && value.is_none())
    {
        field.refuse(problems, instead);
        return None;
    }
    let to_be_had: Vec<(&'static str, T)> = names
        .iter()
        .filter_map(|(name, value)| Some((*name, (*value)?)))
        .collect();
    field.choice(&to_be_had, problems)
}

fn versions(
    map: &Mapping<'_>,
    problems: &mut Problems,
) -> Option<Vec<&'static SupportedProtocolVersion>> {
    const INSTEAD: &str =
        "TLS 1.0 and 1.1 are broken, and this exporter does not speak them: write TLS12 or TLS13";
    let mut version = |key, default: &'static SupportedProtocolVersion| {
        said(map, key).map_or(Some(default), |field| {
            named(field, &VERSIONS, INSTEAD, problems)
        })
    };
    let least = version("min_version", &rustls::version::TLS12);
    let most = version("max_version", &rustls::version::TLS13);
    let (least, most) = (least?, most?);
    let number = |version: &SupportedProtocolVersion| u16::from(version.version);
    let all: Vec<_> = rustls::ALL_VERSIONS
        .iter()
        .copied()
        .filter(|version| (number(least)..=number(most)).contains(&number(version)))
        .collect();
    if all.is_empty() {
        if let Some(field) = map.field("max_version") {
            field.refuse(
                problems,
                "older than min_version, so that no version is left",
            );
        }
        return None;
    }
    Some(all)
}

/// What to compute with: the suites and curves that were chosen.
fn provider(map: &Mapping<'_>, problems: &mut Problems) -> Option<CryptoProvider> {
    let chosen =
        said(map, "cipher_suites").map_or(Some(Vec::new()), |field| suites(field, problems));
    let curves =
        said(map, "curve_preferences").map_or(Some(Vec::new()), |field| curves(field, problems));
    let (chosen, curves) = (chosen?, curves?);
    let mut provider = ring::default_provider();
    if !chosen.is_empty() {
        // As in Go, the list is for TLS 1.2; the suites of 1.3 are not chosen.
        provider.cipher_suites.retain(|suite| is_of_13(*suite));
        provider
            .cipher_suites
            .extend(chosen.into_iter().filter(|suite| !is_of_13(*suite)));
    }
    if !curves.is_empty() {
        provider.kx_groups = curves;
    }
    Some(provider)
}

fn is_of_13(suite: SupportedCipherSuite) -> bool {
    suite.version().version == ProtocolVersion::TLSv1_3
}

fn suites(field: &Field<'_>, problems: &mut Problems) -> Option<Vec<SupportedCipherSuite>> {
    const INSTEAD: &str = "this exporter has no suites with CBC or without forward secrecy: leave it out, and name one with \
                           ECDHE and GCM or CHACHA20, such as TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256";
    each(
        field,
        "a list of cipher suites",
        problems,
        |item, problems| named(item, &SUITES, INSTEAD, problems),
    )
}

fn curves(
    field: &Field<'_>,
    problems: &mut Problems,
) -> Option<Vec<&'static dyn SupportedKxGroup>> {
    const INSTEAD: &str =
        "this exporter does not have it: leave it out, and name X25519, CurveP256 or CurveP384";
    each(field, "a list of curves", problems, |item, problems| {
        named(item, &CURVES, INSTEAD, problems)
    })
}

/// That there is a suite for a version that may be spoken.
fn check_suites(
    map: &Mapping<'_>,
    provider: &CryptoProvider,
    versions: &[&SupportedProtocolVersion],
    problems: &mut Problems,
) -> Option<()> {
    let fits = |suite: &SupportedCipherSuite| {
        versions
            .iter()
            .any(|version| version.version == suite.version().version)
    };
    if provider.cipher_suites.iter().any(fits) {
        return Some(());
    }
    if let Some(field) = map.field("cipher_suites") {
        field.refuse(
            problems,
            "none of these is for TLS 1.2, and max_version allows no other: add one with ECDHE, or write max_version: TLS13",
        );
    }
    None
}
