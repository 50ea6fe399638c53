//! What a running exporter tells of its ports: the part of `/api/v1/ports` that a person asks about.
//!
//! Whoever listens at the exporter's address may have written it. So nothing of it is believed to be short, printable or
//! whole: what shows it escapes it, what is missing is not known, and what is longer than it can be is refused or cut off.

use std::collections::HashMap;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::de::{Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::port::{NUMBERS, Port, Protocol};

/// The longest list: one item for each port.
const MOST: usize = Protocol::ALL.len() * NUMBERS;
/// Sources of events, at the most: more than there will ever be.
const MOST_SOURCES: usize = 64;
/// Octets of a name: a path of the kernel's is no longer (`PATH_MAX`).
const LONGEST_NAME: usize = 4096;

/// What the exporter told.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Told {
    /// How it counts.
    #[serde(default)]
    pub tier: String,
    /// When it looked, in seconds since 1970.
    pub sampled_at: f64,
    /// Listener events it knows to have missed, by source.
    #[serde(default, deserialize_with = "by_source")]
    pub events_lost: HashMap<String, u64>,
    #[serde(default)]
    last_events: Option<List<LastEvent>>,
    #[serde(default)]
    watched: List<Counts>,
    #[serde(default)]
    knocked: Option<Both>,
}

/// Runs, in ascending order.
#[derive(Clone, Debug, Deserialize)]
struct Both {
    tcp: List<Run>,
    udp: List<Run>,
}

/// First, last, attempts, refused, filtered.
#[derive(Clone, Copy, Debug, Deserialize)]
struct Run(u16, u16, Option<u64>, Option<u64>, Option<u64>);

/// What last happened on a port.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct LastEvent {
    port: u16,
    #[serde(deserialize_with = "protocol")]
    protocol: Option<Protocol>,
    /// `found`, `opened`, `changed`, `came_and_went` or `closed`.
    pub event: Name,
    /// When, in seconds since 1970.
    pub at: f64,
    /// When the listener opened.
    pub opened_at: Option<f64>,
    /// Where it listened.
    pub address: Name,
    /// Whether a rule allowed it.
    pub expected: Option<bool>,
    /// The name of the process.
    #[serde(default)]
    pub process: Name,
    /// Its id.
    pub pid: Option<u32>,
    /// What it ran.
    pub exe: Option<Name>,
    /// Its user.
    #[serde(default)]
    pub user: Name,
    /// The user id of who made the socket.
    pub uid: Option<u32>,
    /// Its unit or container.
    #[serde(default)]
    pub unit: Name,
    /// Its control group.
    pub cgroup: Option<Name>,
    /// The kernel's number for that.
    pub cgroup_id: Option<u64>,
}

/// What was counted on a port since the exporter started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
pub struct Counts {
    port: u16,
    #[serde(deserialize_with = "protocol")]
    protocol: Option<Protocol>,
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
        let port =
            |number, protocol: Option<Protocol>| protocol.map(|protocol| Port { number, protocol });
        let events = self.last_events.iter().flat_map(|events| &events.0);
        let events = events.filter_map(|event| Some((port(event.port, event.protocol)?, event)));
        let counts = self.watched.0.iter();
        let counts =
            counts.filter_map(|counts| Some((port(counts.port, counts.protocol)?, counts)));
        ByPort {
            events: events.collect(),
            counts: counts.collect(),
            knocked: self.knocked.as_ref(),
        }
    }
}

/// What there is one of for each port, at the most.
#[derive(Clone, Debug)]
struct List<T>(Vec<T>);

impl<T> Default for List<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for List<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Items<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Items<T> {
            type Value = List<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a list of {MOST} at the most")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<List<T>, A::Error> {
                let mut list = Vec::new();
                while let Some(item) = items.next_element()? {
                    if list.len() == MOST {
                        return Err(A::Error::invalid_length(MOST + 1, &self));
                    }
                    list.push(item);
                }
                Ok(List(list))
            }
        }

        deserializer.deserialize_seq(Items(PhantomData))
    }
}

fn by_source<'de, D: Deserializer<'de>>(deserializer: D) -> Result<HashMap<String, u64>, D::Error> {
    struct Sources;

    impl<'de> Visitor<'de> for Sources {
        type Value = HashMap<String, u64>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "{MOST_SOURCES} sources at the most")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
            let mut sources = HashMap::new();
            while let Some((Name(source), count)) = entries.next_entry()? {
                sources.insert(source, count);
                if sources.len() > MOST_SOURCES {
                    return Err(A::Error::invalid_length(sources.len(), &self));
                }
            }
            Ok(sources)
        }
    }

    deserializer.deserialize_map(Sources)
}

/// `None` where it is none that this program knows.
fn protocol<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Protocol>, D::Error> {
    Name::deserialize(deserializer).map(|name| name.parse().ok())
}

/// A name, of which no more is kept than a name has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(from = "String")]
pub struct Name(String);

impl From<String> for Name {
    fn from(mut name: String) -> Self {
        name.truncate(name.floor_char_boundary(LONGEST_NAME));
        name.shrink_to_fit();
        Self(name)
    }
}

impl Deref for Name {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
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
        let next = runs.0.partition_point(|run| run.1 < port.number);
        let run = runs.0.get(next).filter(|run| run.0 <= port.number)?;
        Some(Counts {
            port: port.number,
            protocol: Some(port.protocol),
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
            "knocked": {"tcp": [[1, 3, 9, 9, 9], [5, 7, 2, 1, null], [9, 9, 9, 9, 9]], "udp": []},
            "last_events": [{"port": 561, "protocol": "udp", "event": "closed", "at": 2.25, "address": "::",
                "process": "x", "user": "", "unit": "", "more": [1]}]}"#;
        let told: Told = serde_json::from_str(text).unwrap();
        assert!(told.has_events());
        assert_eq!(told.missed(), 0);
        let ports = told.by_port();
        let event = ports.event(Port::udp(561)).unwrap();
        assert_eq!((&*event.event, event.at, event.uid), ("closed", 2.25, None));
        assert_eq!(ports.event(Port::tcp(561)), None);
        let counts = ports.counts(Port::tcp(561)).unwrap();
        assert_eq!((counts.attempts, counts.refused), (Some(3), None));
        let knocks = ports.counts(Port::tcp(6)).unwrap();
        assert_eq!(
            (knocks.attempts, knocks.refused, knocks.filtered),
            (Some(2), Some(1), None)
        );
        assert_eq!(ports.counts(Port::udp(6)), None);
        for dark in [0, 4, 8, 10] {
            assert_eq!(ports.counts(Port::tcp(dark)), None);
        }
    }

    #[test]
    fn what_cannot_be_true_is_refused_or_cut_off() {
        let read = |text: &str| serde_json::from_str::<Told>(text);
        let list = |name: &str, item: &str, count: usize| {
            let items = vec![item; count].join(",");
            read(&format!(
                r#"{{"sampled_at": 1, "{name}": {}}}"#,
                match name {
                    "knocked" => format!(r#"{{"tcp": [{items}], "udp": []}}"#),
                    "events_lost" => format!("{{{items}}}"),
                    _ => format!("[{items}]"),
                }
            ))
        };
        for (name, item) in [
            ("watched", r#"{"port": 1, "protocol": "tcp"}"#),
            (
                "last_events",
                r#"{"port": 1, "protocol": "tcp", "event": "", "at": 1, "address": ""}"#,
            ),
            ("knocked", "[1, 1, 1, 1, 1]"),
        ] {
            let told = list(name, item, MOST).unwrap();
            assert!(told.by_port().knocks(Port::tcp(2)).is_none());
            let error = list(name, item, MOST + 1).unwrap_err().to_string();
            assert!(error.contains("131073"), "{error}");
        }
        let sources: Vec<String> = (0..=MOST_SOURCES).map(|n| format!("\"{n}\": 1")).collect();
        assert!(list("events_lost", &sources[1..].join(","), 1).is_ok());
        assert!(list("events_lost", &sources.join(","), 1).is_err());
        let event = format!(
            r#"{{"port": 1, "protocol": "tcp", "event": "", "at": 1, "address": "", "process": "{}"}}"#,
            "ä".repeat(LONGEST_NAME)
        );
        let told = list("last_events", &event, 1).unwrap();
        let ports = told.by_port();
        assert_eq!(
            ports.event(Port::tcp(1)).unwrap().process.len(),
            LONGEST_NAME
        );
    }

    /// Keys that nobody asks for were once kept, at 32 octets for two.
    #[test]
    fn what_is_not_asked_for_is_not_read() {
        // No number that fits: whoever keeps it has to know what it is.
        let text = r#"{"sampled_at": 1, "watched": [{"port": 1, "protocol": "tcp", "x": 1e999}]}"#;
        let told: Told = serde_json::from_str(text).unwrap();
        assert!(told.by_port().counts(Port::tcp(1)).is_some());
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
