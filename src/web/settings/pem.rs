//! Certificates and keys in PEM, in place or by file.

use tokio_rustls::rustls::pki_types::pem::{Error, PemObject as _};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::said;
use super::sources::Sources;
use crate::yaml::{Field, Mapping, Problems};

/// PEM text and the key it stands behind.
pub(super) struct Material<'m, 'a> {
    pub(super) at: &'m Field<'a>,
    pem: Vec<u8>,
}

/// What stands in place or in a file; `Some(None)` where neither is named.
pub(super) fn material<'m, 'a>(
    map: &'m Mapping<'a>,
    inline: &str,
    file: &str,
    sources: &mut Sources,
    problems: &mut Problems,
) -> Option<Option<Material<'m, 'a>>> {
    match (said(map, inline), said(map, file)) {
        (Some(_), Some(at)) => {
            at.refuse(
                problems,
                format!("stands beside {inline}: which of them is meant? Leave one out"),
            );
            None
        }
        (Some(at), None) => {
            let text = at.text("text in PEM, behind a |", problems)?;
            let pem = text.as_bytes().to_vec();
            Some(Some(Material { at, pem }))
        }
        (None, Some(at)) => {
            let path = at.text("the path of a file in PEM", problems)?;
            match sources.bytes(path) {
                Ok(pem) => Some(Some(Material { at, pem })),
                Err(error) => {
                    at.refuse(problems, error.to_string());
                    None
                }
            }
        }
        (None, None) => Some(None),
    }
}

pub(super) fn certificates(
    material: &Material<'_, '_>,
    problems: &mut Problems,
) -> Option<Vec<CertificateDer<'static>>> {
    let read: Result<Vec<_>, Error> = CertificateDer::pem_slice_iter(&material.pem).collect();
    let message = match read {
        Ok(chain) if !chain.is_empty() => return Some(chain),
        Ok(_) => {
            "there is no certificate in PEM: it begins with -----BEGIN CERTIFICATE-----".into()
        }
        Err(error) => unreadable(&error),
    };
    material.at.refuse(problems, message);
    None
}

pub(super) fn private_key<'m, 'a>(
    material: &Material<'m, 'a>,
    problems: &mut Problems,
) -> Option<(&'m Field<'a>, PrivateKeyDer<'static>)> {
    let message = match PrivateKeyDer::from_pem_slice(&material.pem) {
        Ok(key) => return Some((material.at, key)),
        Err(Error::NoItemsFound) => {
            "there is no private key in PEM: it begins with -----BEGIN PRIVATE KEY-----, and one with a passphrase cannot be read"
                .into()
        }
        Err(error) => unreadable(&error),
    };
    material.at.refuse(problems, message);
    None
}

/// What is wrong with PEM, without any of it.
fn unreadable(error: &Error) -> String {
    let what = match error {
        Error::MissingSectionEnd { .. } => "a section does not end",
        Error::IllegalSectionStart { .. } => "a section begins with a line that is none",
        Error::Base64Decode(_) => "what stands in a section is not base 64",
        _ => "it is damaged",
    };
    format!("not valid PEM: {what}")
}
