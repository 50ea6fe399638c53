//! `client_auth_type` and what belongs to it: which certificates clients must show.

use std::sync::Arc;

use tokio_rustls::rustls::RootCertStore;
use tokio_rustls::rustls::crypto::CryptoProvider;
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::server::danger::ClientCertVerifier;

use super::names::{CLIENT_AUTH, ClientAuth};
use super::pem::{Material, certificates, material};
use super::sources::Sources;
use super::{each, said};
use crate::web::client_certificate::{AllowedNames, AnyCertificate};
use crate::yaml::{Field, Mapping, Problems, given};

/// Which certificates clients must show.
pub(super) struct Clients {
    auth: ClientAuth,
    authorities: Option<RootCertStore>,
    names: Option<Vec<String>>,
}

pub(super) fn clients(
    section: &Field<'_>,
    map: &Mapping<'_>,
    sources: &mut Sources,
    problems: &mut Problems,
) -> Option<Clients> {
    let auth = said(map, "client_auth_type").map_or(Some(ClientAuth::None), |field| {
        field.choice(&CLIENT_AUTH, problems)
    });
    let material = material(map, "client_ca", "client_ca_file", sources, problems);
    let at = material.as_ref().and_then(|m| m.as_ref().map(|m| m.at));
    let authorities = given(
        material
            .as_ref()
            .map_or(Some(None), |m| m.as_ref().map(|m| authorities(m, problems))),
    );
    let names = given(
        map.field("client_allowed_sans")
            .filter(|field| !field.is_null())
            .map(|field| names(field, problems)),
    );
    let auth = auth?;
    let verifies = matches!(
        auth,
        ClientAuth::VerifyIfGiven | ClientAuth::RequireAndVerify
    );
    let requires = matches!(auth, ClientAuth::RequireAny | ClientAuth::RequireAndVerify);
    let mut is_sound = true;
    if let (Some(at), ClientAuth::None) = (at, auth) {
        at.refuse(
            problems,
            "no client is asked for a certificate: write client_auth_type: RequireAndVerifyClientCert",
        );
        is_sound = false;
    }
    if let (true, Some(None)) = (verifies, &material) {
        section.refuse_missing(
            problems,
            "client_ca_file",
            "missing: name the authority whose certificates are good. Without one, every public authority's would be",
        );
        is_sound = false;
    }
    if let (false, Some(field)) = (requires, said(map, "client_allowed_sans")) {
        field.refuse(
            problems,
            "a client without certificate would not be asked for its names: write client_auth_type: \
             RequireAndVerifyClientCert",
        );
        is_sound = false;
    }
    material?;
    let (authorities, names) = (authorities?, names?);
    is_sound.then_some(Clients {
        auth,
        authorities,
        names,
    })
}

fn authorities(material: &Material<'_, '_>, problems: &mut Problems) -> Option<RootCertStore> {
    let mut store = RootCertStore::empty();
    for certificate in certificates(material, problems)? {
        if let Err(error) = store.add(certificate) {
            material.at.refuse(
                problems,
                format!("a certificate in it cannot be used: {error}"),
            );
            return None;
        }
    }
    Some(store)
}

fn names(field: &Field<'_>, problems: &mut Problems) -> Option<Vec<String>> {
    let names = each(
        field,
        "a list of names, addresses or URIs",
        problems,
        |item, problems| {
            Some(
                item.text("a name, an address or a URI", problems)?
                    .to_owned(),
            )
        },
    )?;
    if names.is_empty() {
        field.refuse(
            problems,
            "names nobody, so that no client could come in: name one, or leave the key out",
        );
        return None;
    }
    Some(names)
}

impl Clients {
    /// Who looks at the certificates; `None` where there is nothing to look at.
    pub(super) fn verifier(
        self,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Option<Arc<dyn ClientCertVerifier>>, String> {
        let any = |is_required| -> Arc<dyn ClientCertVerifier> {
            Arc::new(AnyCertificate::new(provider, is_required))
        };
        let good = |authorities: Option<RootCertStore>| {
            WebPkiClientVerifier::builder_with_provider(
                Arc::new(authorities.unwrap_or_else(RootCertStore::empty)),
                Arc::clone(provider),
            )
        };
        let explain = |error| format!("client certificates cannot be verified: {error}");
        let verifier = match self.auth {
            ClientAuth::None => return Ok(None),
            ClientAuth::Request => any(false),
            ClientAuth::RequireAny => any(true),
            ClientAuth::VerifyIfGiven => good(self.authorities)
                .allow_unauthenticated()
                .build()
                .map_err(explain)?,
            ClientAuth::RequireAndVerify => good(self.authorities).build().map_err(explain)?,
        };
        Ok(Some(match self.names {
            Some(names) => Arc::new(AllowedNames::new(verifier, names)),
            None => verifier,
        }))
    }
}
