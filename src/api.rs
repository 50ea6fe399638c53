//! What `/api/v1/ports` and `/api/v1/ports/facts` say, as JSON: a snapshot, and what the configuration and the registry
//! say of each port.
//!
//! [`live`] is small and changes with each sample; [`facts`] is large and changes with the configuration alone, and the
//! one names the other by its id. What cannot be known is left out, never 0. Every text from outside, such as the name of a
//! process, is a JSON string and nothing else. This room knows neither readers nor HTTP.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

use crate::config::Config;
use crate::counts::KnockedRuns;
use crate::events::LastEvent;
use crate::port::{Port, PortSet, Protocol};
use crate::snapshot::{Collector, Snapshot};

mod facts;
mod live;

use facts::Facts;
use live::Live;

/// A JSON text, shared by all who ask for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// The text.
    pub json: Arc<[u8]>,
    /// Names this content: 16 hexadecimal digits.
    pub id: String,
}

/// A document cannot be written as JSON.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {what} as JSON")]
pub struct Error {
    what: &'static str,
    source: serde_json::Error,
}

/// What was seen: the answer of `/api/v1/ports`. `knocked` are the ports that have had a knock, and `None` where the tier
/// cannot know; `last_events` the last event of each port that had one; `facts` is the id of the document that tells the rest.
///
/// # Errors
/// When it cannot be written.
pub fn live(
    snapshot: &Snapshot<'_>,
    sampled_at: SystemTime,
    knocked: Option<&KnockedRuns>,
    last_events: &[(Port, LastEvent)],
    facts: &str,
) -> Result<Document, Error> {
    let live = Live::new(snapshot, sampled_at, knocked, last_events, facts);
    let json = write("what was seen", &live)?;
    Ok(Document {
        id: id(&json),
        json: json.into(),
    })
}

/// What each port is and who watches it: the answer of `/api/v1/ports/facts`.
///
/// # Errors
/// When it cannot be written.
pub fn facts(config: &Config) -> Result<Document, Error> {
    let mut facts = Facts::new(config);
    let id = id(&write("the facts", &facts)?);
    facts.id = &id;
    let json = write("the facts", &facts)?.into();
    Ok(Document { json, id })
}

/// What a sample comes to, for whoever wants no more than a glance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glance {
    /// When it was taken.
    pub sampled_at: SystemTime,
    /// How many watched ports have series.
    pub watched: usize,
    /// How many of them are lit; `None` if that could not be read.
    pub lit: Option<usize>,
    /// Those on which something listens that may not, ascending; `None` if that could not be read.
    pub unexpected: Option<Vec<Port>>,
    /// How many ports of the host are lit, watched or not: TCP, UDP.
    pub lit_anywhere: Option<[usize; 2]>,
    /// The collectors that failed.
    pub failing: Vec<Collector>,
}

impl Glance {
    /// A glance at this snapshot.
    #[must_use]
    pub fn of(snapshot: &Snapshot<'_>, sampled_at: SystemTime) -> Self {
        let unexpected = |watched: &crate::snapshot::Watched<'_>| {
            watched
                .unexpected
                .map(|unexpected| unexpected.then_some(watched.port))
        };
        let ports: Option<Vec<Option<Port>>> = snapshot.watched.iter().map(unexpected).collect();
        let lit: Option<Vec<bool>> = snapshot
            .watched
            .iter()
            .map(|watched| watched.listening)
            .collect();
        Self {
            sampled_at,
            watched: snapshot.watched.len(),
            lit: lit.map(|lit| lit.into_iter().filter(|&lit| lit).count()),
            unexpected: ports.map(|ports| ports.into_iter().flatten().collect()),
            lit_anywhere: snapshot
                .space
                .lit
                .as_ref()
                .map(|lit| Protocol::ALL.map(|protocol| lit.ports.numbers(protocol).count())),
            failing: snapshot
                .collectors
                .iter()
                .filter(|run| !run.success)
                .map(|run| run.collector)
                .collect(),
        }
    }
}

/// The same for both protocols.
#[derive(Debug, Serialize)]
struct Both<T> {
    tcp: T,
    udp: T,
}

impl<T> Both<T> {
    fn of(each: impl Fn(Protocol) -> T) -> Self {
        Self {
            tcp: each(Protocol::Tcp),
            udp: each(Protocol::Udp),
        }
    }
}

/// Ports as `[first, last]`.
type Spans = Vec<[u16; 2]>;

fn spans(ports: &PortSet) -> Both<Spans> {
    Both::of(|protocol| {
        let spans = ports.spans(protocol).into_iter();
        spans.map(|span| [span.first, span.last]).collect()
    })
}

/// Seconds since 1970, in milliseconds' steps, which is what a floating-point number can show.
fn seconds(at: SystemTime) -> f64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    (since.as_millis() as f64) / 1000.0
}

fn write(what: &'static str, document: &impl Serialize) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(document).map_err(|source| Error { what, source })
}

fn id(json: &[u8]) -> String {
    let mut hasher = DefaultHasher::new();
    json.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}
