//! What the web front turned away, and how its configuration is: counted by the front, shown by the exporter.
//!
//! Plain numbers that both hold, so that neither knows the other.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

/// Why somebody was turned away. A closed set: what comes from outside creates no series.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// A TLS handshake came to nothing, for any reason but the client's certificate.
    Tls,
    /// The client's certificate is missing, is not good, or has none of the allowed names.
    ClientCertificate,
    /// No credentials, or wrong ones.
    BasicAuth,
    /// More requests than `rate_limit` allows.
    RateLimit,
    /// More connections, scrapes, probes or passwords at a time than there is room for.
    Overload,
}

impl Reason {
    /// All reasons, in the order of [`Reason::index`].
    pub const ALL: [Self; 5] = [
        Self::Tls,
        Self::ClientCertificate,
        Self::BasicAuth,
        Self::RateLimit,
        Self::Overload,
    ];

    /// The name as it stands in labels.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tls => "tls",
            Self::ClientCertificate => "client_certificate",
            Self::BasicAuth => "basic_auth",
            Self::RateLimit => "rate_limit",
            Self::Overload => "overload",
        }
    }

    /// Its place in [`Reason::ALL`].
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }
}

/// What was seen of the web front at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Web {
    /// Connections and requests turned away since start, by [`Reason::index`].
    pub refused: [u64; Reason::ALL.len()],
    /// Whether the web configuration on disk is the one in use; `None` where there is none.
    pub config_successful: Option<bool>,
}

/// Counts what is turned away.
#[derive(Debug, Default)]
pub struct Refusals {
    counts: [AtomicU64; Reason::ALL.len()],
    /// 0: there is no web configuration; 1: it is refused; 2: it is in use.
    config: AtomicU8,
}

impl Refusals {
    /// Somebody was turned away.
    pub fn count(&self, reason: Reason) {
        self.counts[reason.index()].fetch_add(1, Ordering::Relaxed);
    }

    /// The web configuration was looked at.
    pub fn set_config(&self, is_successful: bool) {
        self.config
            .store(1 + u8::from(is_successful), Ordering::Relaxed);
    }

    /// The numbers now.
    #[must_use]
    pub fn now(&self) -> Web {
        let mut refused = [0; Reason::ALL.len()];
        for (sum, count) in refused.iter_mut().zip(&self.counts) {
            *sum = count.load(Ordering::Relaxed);
        }
        Web {
            refused,
            config_successful: match self.config.load(Ordering::Relaxed) {
                0 => None,
                state => Some(state == 2),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_own_count() {
        let refusals = Refusals::default();
        for (index, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason.index(), index);
            for _ in 0..=index {
                refusals.count(reason);
            }
        }
        assert_eq!(refusals.now().refused, [1, 2, 3, 4, 5]);
    }

    #[test]
    fn without_a_web_configuration_nothing_is_said_of_it() {
        let refusals = Refusals::default();
        assert_eq!(refusals.now().config_successful, None);
        refusals.set_config(false);
        assert_eq!(refusals.now().config_successful, Some(false));
        refusals.set_config(true);
        assert_eq!(refusals.now().config_successful, Some(true));
    }
}
