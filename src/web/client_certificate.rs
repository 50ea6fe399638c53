//! What is asked of clients' certificates beyond what rustls asks by itself: less, where any certificate will do; more, where
//! only some names may come in.

use std::sync::Arc;

use tokio_rustls::rustls::client::danger::HandshakeSignatureValid;
use tokio_rustls::rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
};
use tokio_rustls::rustls::pki_types::{CertificateDer, UnixTime};
use tokio_rustls::rustls::server::ParsedCertificate;
use tokio_rustls::rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use tokio_rustls::rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, SignatureScheme,
};

mod names;

/// Takes any certificate whose key the client holds, whoever issued it and whenever it was good.
#[derive(Debug)]
pub(super) struct AnyCertificate {
    algorithms: WebPkiSupportedAlgorithms,
    is_required: bool,
}

impl AnyCertificate {
    pub(super) fn new(provider: &CryptoProvider, is_required: bool) -> Self {
        Self {
            algorithms: provider.signature_verification_algorithms,
            is_required,
        }
    }
}

impl ClientCertVerifier for AnyCertificate {
    fn client_auth_mandatory(&self) -> bool {
        self.is_required
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        ParsedCertificate::try_from(end_entity)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Asks what another asks, and then that one of the certificate's alternative names be allowed, letter by letter.
#[derive(Debug)]
pub(super) struct AllowedNames {
    first: Arc<dyn ClientCertVerifier>,
    allowed: Vec<String>,
}

impl AllowedNames {
    pub(super) fn new(first: Arc<dyn ClientCertVerifier>, allowed: Vec<String>) -> Self {
        Self { first, allowed }
    }
}

/// None of the client certificate's alternative names is allowed.
#[derive(Debug, thiserror::Error)]
#[error("none of its names stands in client_allowed_sans: it has {}", listed(.0))]
struct NotAllowed(Vec<String>);

/// The names come from outside: the first few, escaped.
fn listed(names: &[String]) -> String {
    const SHOWN: usize = 5;
    match names {
        [] => "none".to_owned(),
        names => {
            let shown: Vec<String> = names
                .iter()
                .take(SHOWN)
                .map(|name| crate::yaml::quoted(name))
                .collect();
            shown.join(", ")
        }
    }
}

impl ClientCertVerifier for AllowedNames {
    fn offer_client_auth(&self) -> bool {
        self.first.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.first.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.first.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self
            .first
            .verify_client_cert(end_entity, intermediates, now)?;
        let names = names::alternative_names(end_entity).ok_or(CertificateError::BadEncoding)?;
        if names.iter().any(|name| self.allowed.contains(name)) {
            return Ok(verified);
        }
        Err(CertificateError::Other(OtherError(Arc::new(NotAllowed(names)))).into())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.first
            .verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.first
            .verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.first.supported_verify_schemes()
    }
}

/// The names in a certificate.
#[cfg(all(target_os = "linux", any(test, fuzzing)))]
pub(super) fn fuzz(bytes: &[u8]) {
    if let Some(names) = names::alternative_names(bytes) {
        assert!(names.len() <= bytes.len());
    }
}
