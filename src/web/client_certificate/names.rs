//! The alternative names of a certificate (RFC 5280, sections 4.1 and 4.2.1.6), out of its DER.
//!
//! Reads the way to one extension and nothing else; whether the certificate is good is for others. What is not DER, or is cut
//! short anywhere on that way, gives nothing.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The tags of X.690 on the way.
mod tag {
    pub(super) const SEQUENCE: u8 = 0x30;
    pub(super) const OBJECT_IDENTIFIER: u8 = 0x06;
    pub(super) const BOOLEAN: u8 = 0x01;
    pub(super) const OCTET_STRING: u8 = 0x04;
    /// `TBSCertificate.extensions`.
    pub(super) const EXTENSIONS: u8 = 0xa3;
    pub(super) const EMAIL: u8 = 0x81;
    pub(super) const DNS: u8 = 0x82;
    pub(super) const URI: u8 = 0x86;
    pub(super) const ADDRESS: u8 = 0x87;
}

/// id-ce-subjectAltName, 2.5.29.17.
const SUBJECT_ALT_NAME: [u8; 3] = [0x55, 0x1d, 0x11];

/// DNS names, e-mail addresses, URIs as they are written and IP addresses in their usual form; none where there is no such
/// extension; `None` where this is no certificate.
pub(super) fn alternative_names(certificate: &[u8]) -> Option<Vec<String>> {
    let (certificate, _) = expect(certificate, tag::SEQUENCE)?;
    let (mut fields, _) = expect(certificate, tag::SEQUENCE)?;
    let mut extensions = None;
    while !fields.is_empty() {
        let (tag, content, rest) = next(fields)?;
        if tag == tag::EXTENSIONS {
            extensions = Some(content);
        }
        fields = rest;
    }
    let Some(extensions) = extensions else {
        return Some(Vec::new());
    };
    let (mut extensions, _) = expect(extensions, tag::SEQUENCE)?;
    let mut names = Vec::new();
    while !extensions.is_empty() {
        let (extension, rest) = expect(extensions, tag::SEQUENCE)?;
        let (identifier, content) = expect(extension, tag::OBJECT_IDENTIFIER)?;
        if identifier == SUBJECT_ALT_NAME {
            read(content, &mut names)?;
        }
        extensions = rest;
    }
    Some(names)
}

/// The names of the extension, behind its identifier: perhaps whether it is critical, and a string that holds them.
fn read(content: &[u8], names: &mut Vec<String>) -> Option<()> {
    let (first, _, behind) = next(content)?;
    let content = if first == tag::BOOLEAN {
        behind
    } else {
        content
    };
    let (value, _) = expect(content, tag::OCTET_STRING)?;
    let (mut general, _) = expect(value, tag::SEQUENCE)?;
    while !general.is_empty() {
        let (tag, content, rest) = next(general)?;
        names.extend(name(tag, content)?);
        general = rest;
    }
    Some(())
}

/// A general name as text; `Some(None)` for a kind that has none here.
fn name(tag: u8, content: &[u8]) -> Option<Option<String>> {
    match tag {
        tag::EMAIL | tag::DNS | tag::URI => {
            let text = content.is_ascii().then_some(content)?;
            Some(String::from_utf8(text.to_vec()).ok())
        }
        tag::ADDRESS => {
            let address = match content.len() {
                4 => IpAddr::from(Ipv4Addr::from(<[u8; 4]>::try_from(content).ok()?)),
                16 => IpAddr::from(Ipv6Addr::from(<[u8; 16]>::try_from(content).ok()?)),
                _ => return None,
            };
            Some(Some(address.to_string()))
        }
        _ => Some(None),
    }
}

/// The content of an element that must have this tag, and what comes behind it.
fn expect(input: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (found, content, rest) = next(input)?;
    (found == tag).then_some((content, rest))
}

/// Tag, content and what comes behind them. Tags of one byte, lengths of up to four: a certificate needs no others.
fn next(input: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = input.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = if first < 0x80 {
        (usize::from(first), rest)
    } else {
        let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
        if bytes.is_empty() || bytes.len() > 4 {
            return None;
        }
        let length = bytes
            .iter()
            .fold(0_u64, |length, &byte| length << 8 | u64::from(byte));
        (usize::try_from(length).ok()?, rest)
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair, SanType};

    fn certificate(names: Vec<SanType>) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.subject_alt_names = names;
        let key = KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().to_vec()
    }

    #[test]
    fn every_kind_of_name_is_read() {
        let der = certificate(vec![
            SanType::DnsName("prometheus.example".try_into().unwrap()),
            SanType::Rfc822Name("ops@example.org".try_into().unwrap()),
            SanType::URI("spiffe://example.org/prometheus".try_into().unwrap()),
            SanType::IpAddress("192.0.2.1".parse().unwrap()),
            SanType::IpAddress("2001:db8::1".parse().unwrap()),
        ]);
        assert_eq!(
            alternative_names(&der).unwrap(),
            [
                "prometheus.example",
                "ops@example.org",
                "spiffe://example.org/prometheus",
                "192.0.2.1",
                "2001:db8::1"
            ]
        );
    }

    #[test]
    fn a_certificate_without_names_has_none() {
        assert_eq!(alternative_names(&certificate(vec![])), Some(vec![]));
    }

    #[test]
    fn no_part_of_a_certificate_makes_it_panic() {
        let der = certificate(vec![SanType::DnsName("a.example".try_into().unwrap())]);
        for length in 0..der.len() {
            assert_eq!(alternative_names(&der[..length]), None);
        }
        for at in 0..der.len() {
            for bit in 0..8 {
                let mut changed = der.clone();
                changed[at] ^= 1 << bit;
                let _ = alternative_names(&changed);
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            let _ = alternative_names(&bytes);
        }
    }
}
