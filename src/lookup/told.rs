//! What a running exporter tells of its ports: the part of `/api/v1/ports` that a person asks about.
//!
//! Whoever listens at the exporter's address may have written it. So nothing of it is believed to be short, printable or
//! whole: what shows it escapes it, and what is missing is not known.

use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Deserialize;

use crate::port::{Port, Protocol};

/// What the exporter told.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Told {
    /// How it counts.
    #[serde(default)]
    pub tier: String,
    /// When it looked, in seconds since 1970.
    pub sampled_at: f64,
    /// Listener events it knows to have missed, by source.
    #[serde(default)]
    pub events_lost: HashMap<String, u64>,
    #[serde(default)]
    last_events: Option<Vec<OfPort<LastEvent>>>,
    #[serde(default)]
    watched: Vec<OfPort<Counts>>,
    #[serde(default)]
    knocked: Option<Both>,
}

#[derive(Clone, Debug, Deserialize)]
struct OfPort<T> {
    port: u16,
    protocol: String,
    #[serde(flatten)]
    what: T,
}

#[derive(Clone, Debug, Deserialize)]
struct Both {
    tcp: Vec<Run>,
    udp: Vec<Run>,
}

/// First, last, attempts, refused, filtered.
#[derive(Clone, Copy, Debug, Deserialize)]
struct Run(u16, u16, Option<u64>, Option<u64>, Option<u64>);

/// What last happened on a port.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct LastEvent {
    /// `found`, `opened`, `changed`, `came_and_went` or `closed`.
    pub event: String,
    /// When, in seconds since 1970.
    pub at: f64,
    /// When the listener opened.
    pub opened_at: Option<f64>,
    /// Where it listened.
    pub address: String,
    /// Whether a rule allowed it.
    pub expected: Option<bool>,
    /// The name of the process.
    #[serde(default)]
    pub process: String,
    /// Its id.
    pub pid: Option<u32>,
    /// What it ran.
    pub exe: Option<String>,
    /// Its user.
    #[serde(default)]
    pub user: String,
    /// The user id of who made the socket.
    pub uid: Option<u32>,
    /// Its unit or container.
    #[serde(default)]
    pub unit: String,
    /// Its control group.
    pub cgroup: Option<String>,
    /// The kernel's number for that.
    pub cgroup_id: Option<u64>,
}

/// What was counted on a port since the exporter started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
pub struct Counts {
    /// Attempts that came in.
    pub attempts: Option<u64>,
    /// Connections accepted.
    pub accepted: Option<u64>,
    /// Attempts refused.
    pub refused: Option<u64>,
    /// Attempts a firewall dropped.
    pub filtered: Option<u64>,
    /// Times something began to listen.
    pub opened: Option<u64>,
    /// When the last attempt came, in seconds since 1970.
    pub last_attempt_at: Option<f64>,
}

/// The same, for looking up ports.
#[derive(Clone, Debug, Default)]
pub struct ByPort<'a> {
    events: HashMap<Port, &'a LastEvent>,
    counts: HashMap<Port, &'a Counts>,
    knocked: Option<&'a Both>,
}

impl Told {
    /// Whether it tells of last events at all; an older one does not.
    #[must_use]
    pub const fn has_events(&self) -> bool {
        self.last_events.is_some()
    }

    /// How many listener events it knows to have missed; the last of a port may be among them.
    #[must_use]
    pub fn missed(&self) -> u64 {
        self.events_lost
            .values()
            .fold(0, |sum, lost| lost.saturating_add(sum))
    }

    /// By port.
    #[must_use]
    pub fn by_port(&self) -> ByPort<'_> {
        let events = self.last_events.iter().flatten();
        ByPort {
            events: events.filter_map(OfPort::entry).collect(),
            counts: self.watched.iter().filter_map(OfPort::entry).collect(),
            knocked: self.knocked.as_ref(),
        }
    }
}

impl<T> OfPort<T> {
    fn entry(&self) -> Option<(Port, &T)> {
        let protocol = self.protocol.parse().ok()?;
        let number = self.port;
        Some((Port { number, protocol }, &self.what))
    }
}

impl<'a> ByPort<'a> {
    /// What last happened on a port.
    #[must_use]
    pub fn event(&self, port: Port) -> Option<&'a LastEvent> {
        self.events.get(&port).copied()
    }

    /// What was counted on a port: all that the tier counts on a watched one, knocks on others.
    #[must_use]
    pub fn counts(&self, port: Port) -> Option<Counts> {
        let counts = self.counts.get(&port).map(|counts| **counts);
        counts.or_else(|| self.knocks(port))
    }

    fn knocks(&self, port: Port) -> Option<Counts> {
        let knocked = self.knocked?;
        let runs = match port.protocol {
            Protocol::Tcp => &knocked.tcp,
            Protocol::Udp => &knocked.udp,
        };
        let run = runs
            .iter()
            .find(|run| (run.0..=run.1).contains(&port.number))?;
        Some(Counts {
            attempts: run.2,
            refused: run.3,
            filtered: run.4,
            ..Counts::default()
        })
    }
}

/// A moment the exporter told, if it is one.
pub(super) fn moment(seconds: f64) -> Option<SystemTime> {
    let since = Duration::try_from_secs_f64(seconds).ok()?;
    // To the millisecond, which is what it was told to.
    let millis = u64::try_from(since.as_micros().saturating_add(500) / 1000).ok()?;
    UNIX_EPOCH.checked_add(Duration::from_millis(millis))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_exporter_tells_is_found_by_port() {
        let text = r#"{"version": "1", "tier": "kernel", "sampled_at": 1700000000.5,
            "watched": [{"port": 561, "protocol": "tcp", "watch": "x", "attempts": 3, "last_attempt_at": 1.5}],
            "knocked": {"tcp": [[5, 7, 2, 1, null]], "udp": []},
            "last_events": [{"port": 561, "protocol": "udp", "event": "closed", "at": 2.25, "address": "::",
                "process": "x", "user": "", "unit": "", "more": [1]}]}"#;
        let told: Told = serde_json::from_str(text).unwrap();
        assert!(told.has_events());
        assert_eq!(told.missed(), 0);
        let ports = told.by_port();
        let event = ports.event(Port::udp(561)).unwrap();
        assert_eq!(
            (event.event.as_str(), event.at, event.uid),
            ("closed", 2.25, None)
        );
        assert_eq!(ports.event(Port::tcp(561)), None);
        let counts = ports.counts(Port::tcp(561)).unwrap();
        assert_eq!((counts.attempts, counts.refused), (Some(3), None));
        let knocks = ports.counts(Port::tcp(6)).unwrap();
        assert_eq!(
            (knocks.attempts, knocks.refused, knocks.filtered),
            (Some(2), Some(1), None)
        );
        assert_eq!(ports.counts(Port::udp(6)), None);
    }

    #[test]
    fn an_older_exporter_tells_no_events() {
        let told: Told = serde_json::from_str(r#"{"sampled_at": 1.0}"#).unwrap();
        assert!(!told.has_events());
        let text = format!(
            r#"{{"sampled_at": 1, "events_lost": {{"a": {}, "b": 2}}}}"#,
            u64::MAX
        );
        let told: Told = serde_json::from_str(&text).unwrap();
        assert_eq!(told.missed(), u64::MAX);
        assert!(told.by_port().event(Port::tcp(1)).is_none());
    }

    #[test]
    fn no_number_is_too_odd_for_a_moment() {
        assert_eq!(moment(1.5), Some(UNIX_EPOCH + Duration::from_millis(1500)));
        assert_eq!(
            moment(1_700_000_000.123),
            Some(UNIX_EPOCH + Duration::from_millis(1_700_000_000_123))
        );
        for odd in [-1.0, f64::NAN, f64::INFINITY, 1e300] {
            assert_eq!(moment(odd), None);
        }
    }
}
