//! Events: a listener that opens or closes on a watched port, told once in the log with every fact an on-call person
//! needs, and the last of each port remembered.
//!
//! What an attacker can repeat is limited: the log says how many events it left out, and one event a port is remembered.
//! Counters are not concerned.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::log::Limiter;
use crate::owners::Owner;
use crate::port::{Port, PortSet};
use crate::sampler::Coverage;
use crate::snapshot::Lit;
use crate::sockets::{Listener, ListenerKey};

mod last;

pub use last::{Cgroup, Happening, LastEvent, MOST};

use last::{Clocks, LastEvents};

/// Knows which listeners of watched ports were there last time, and tells the difference.
#[derive(Debug)]
pub struct Journal {
    known: HashMap<Key, Known>,
    /// Whether a first table was seen: what it held did not open, it was found.
    begun: bool,
    last: LastEvents,
    /// Apart, so that nobody hides an unexpected listener behind many that are expected.
    unexpected: Limiter,
    others: Limiter,
}

/// How many events of each sort, unexpected and other, are logged in a minute at the most.
const EVENTS_A_MINUTE: u32 = 100;

/// Tells one socket from another, in every network namespace.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    netns: Arc<str>,
    socket: ListenerKey,
}

/// A listener as it was last seen.
#[derive(Clone, Debug)]
struct Known {
    listener: Listener,
    watch: Arc<str>,
    owner: Arc<Owner>,
    expected: bool,
    netns: Arc<str>,
}

/// A listener that is known to have closed; no table may have shown it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Departure<'a> {
    /// The listener, and whose it was.
    pub lit: Lit<'a>,
    /// When it opened, where that was told.
    pub opened_at: Option<SystemTime>,
    /// When it closed, or, where that is not told, when it was last known to be there.
    pub at: SystemTime,
}

/// What is known of a listener beside its owner.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trace {
    /// When it opened, where that was told.
    pub opened_at: Option<SystemTime>,
    /// When it closed, where that was told.
    pub closed_at: Option<SystemTime>,
    /// The control group in which it was made.
    pub cgroup: Option<Cgroup>,
}

impl Journal {
    /// A journal that has seen nothing.
    #[must_use]
    pub fn new() -> Self {
        Self {
            known: HashMap::new(),
            begun: false,
            last: LastEvents::default(),
            unexpected: Limiter::new(EVENTS_A_MINUTE, Duration::from_secs(60)),
            others: Limiter::new(EVENTS_A_MINUTE, Duration::from_secs(60)),
        }
    }

    /// Tells of listeners on watched ports that have closed, where no table has shown them: neither one before nor the one of
    /// this sample, `lit`. `trace` is asked for what else is known of a listener that is told of.
    pub fn note_departures(
        &mut self,
        departures: &[Departure<'_>],
        lit: &[Lit<'_>],
        mut trace: impl FnMut(&Listener) -> Trace,
    ) {
        if departures.is_empty() {
            return;
        }
        let shown: HashSet<Key> = lit.iter().map(Key::of).collect();
        for Departure { lit, opened_at, at } in departures {
            let key = Key::of(lit);
            if let Some(expected) = lit.expected
                && !self.known.contains_key(&key)
                && !shown.contains(&key)
            {
                let trace = Trace {
                    opened_at: *opened_at,
                    ..trace(&lit.listener)
                };
                let known = Known::of(lit, expected);
                self.happened(Happening::CameAndWent, &known, *at, trace);
            }
        }
    }

    /// Tells what has happened to the listeners of the `watched` ports since the last call. A port that a reload adds to the
    /// watch set tells of its listeners as opened: that is when they were seen. What is no longer watched, or was not read
    /// this time as `elsewhere` says, has not closed. `now` is when; `trace` is asked for what else is known of a listener
    /// that is told of.
    pub fn note(
        &mut self,
        lit: &[Lit<'_>],
        watched: &PortSet,
        elsewhere: &Coverage,
        now: SystemTime,
        mut trace: impl FnMut(&Listener) -> Trace,
    ) {
        let mut before = std::mem::take(&mut self.known);
        for lit in lit {
            let Some(expected) = lit.expected else {
                continue;
            };
            let key = Key::of(lit);
            let known = match before.remove(&key) {
                Some(known) if known.owner == lit.owner && known.expected == expected => known,
                earlier => {
                    let known = Known::of(lit, expected);
                    let happening = match earlier {
                        Some(_) => Happening::Changed,
                        None if self.begun => Happening::Opened,
                        None => Happening::Found,
                    };
                    let trace = trace(&known.listener);
                    let told = trace.opened_at.filter(|_| happening == Happening::Opened);
                    self.happened(happening, &known, told.unwrap_or(now), trace);
                    known
                }
            };
            self.known.insert(key, known);
        }
        let mut closed = Vec::new();
        for (key, known) in before {
            let is_own = key.netns.is_empty();
            match elsewhere {
                _ if !watched.contains(known.listener.port) => {}
                _ if is_own => closed.push(known),
                Coverage::AllBut(unread) if !unread.contains(&key.netns) => closed.push(known),
                Coverage::AllBut(_) | Coverage::Partial => {
                    self.known.insert(key, known);
                }
                Coverage::Unwanted => {}
            }
        }
        closed.sort_by_key(|known| (known.listener.port, known.listener.address));
        for known in &closed {
            let trace = trace(&known.listener);
            let at = trace.closed_at.unwrap_or(now);
            self.happened(Happening::Closed, known, at, trace);
        }
        self.begun = true;
    }

    /// The last event of each port of the exporter's own network namespace, the newest first.
    pub fn last_events(&self) -> impl Iterator<Item = (Port, &LastEvent)> {
        self.last.newest_first()
    }

    fn happened(&mut self, happening: Happening, known: &Known, at: SystemTime, trace: Trace) {
        self.tell(happening, known);
        if known.netns.is_empty() {
            let event = LastEvent {
                happening,
                at,
                opened_at: trace.opened_at,
                address: known.listener.address,
                watch: Arc::clone(&known.watch),
                expected: known.expected,
                owner: Owner::brief(&known.owner),
                uid: known.listener.uid,
                cgroup: trace.cgroup,
            };
            self.last.note(known.listener.port, event, Clocks::now());
        }
    }

    fn tell(&self, happening: Happening, known: &Known) {
        let is_warning = !known.expected && happening != Happening::Closed;
        let limiter = if is_warning {
            &self.unexpected
        } else {
            &self.others
        };
        let Some(left_out) = limiter.admit() else {
            return;
        };
        let Known {
            listener, owner, ..
        } = known;
        let process = owner.oldest();
        macro_rules! event {
            ($level:expr) => {
                tracing::event!(
                    $level,
                    port = listener.port.number,
                    protocol = listener.port.protocol.as_str(),
                    address = %listener.address,
                    watch = &*known.watch,
                    process = owner.process(),
                    exe = process.and_then(|process| process.executable.as_deref()),
                    pid = process.map(|process| process.pid),
                    user = owner.user(),
                    unit = owner.unit(),
                    creator = owner.creator(),
                    also_held_by = other_holders(owner),
                    netns = (!known.netns.is_empty()).then_some(&*known.netns),
                    expected = known.expected,
                    left_out,
                    "{}",
                    happening.as_str()
                )
            };
        }
        if is_warning {
            event!(tracing::Level::WARN);
        } else {
            event!(tracing::Level::INFO);
        }
    }
}

impl Default for Journal {
    fn default() -> Self {
        Self::new()
    }
}

impl Key {
    fn of(lit: &Lit<'_>) -> Self {
        Self {
            netns: Arc::clone(&lit.netns),
            socket: lit.listener.key(),
        }
    }
}

impl Known {
    fn of(lit: &Lit<'_>, expected: bool) -> Self {
        Self {
            listener: lit.listener.clone(),
            watch: Arc::from(lit.watch),
            owner: Arc::clone(&lit.owner),
            expected,
            netns: Arc::clone(&lit.netns),
        }
    }
}

/// The processes that hold the socket beside the oldest, as `name[pid]`.
fn other_holders(owner: &Owner) -> Option<String> {
    const SHOWN: usize = 16;
    let others: Vec<String> = owner
        .holders()
        .skip(1)
        .map(|process| format!("{}[{}]", process.name, process.pid))
        .collect();
    match others.len().checked_sub(SHOWN) {
        None if others.is_empty() => None,
        None | Some(0) => Some(others.join(" ")),
        Some(more) => Some(format!("{} and {more} more", others[..SHOWN].join(" "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_read_has_not_closed_and_what_was_read_is_not_kept() {
        let port = Port::tcp(3476);
        let lit = ["", "read", "unread"].map(|netns| Lit {
            listener: Listener {
                port,
                address: std::net::Ipv4Addr::LOCALHOST.into(),
                cookie: std::num::NonZeroU64::new(1),
                inode: None,
                uid: None,
                cgroup: None,
            },
            watch: "",
            owner: Arc::new(Owner::Kernel),
            expected: Some(false),
            netns: netns.into(),
        });
        let left = |elsewhere| {
            let mut journal = Journal::new();
            let mut note = |lit: &[Lit<'_>], elsewhere: &Coverage| {
                let watched = [port].into_iter().collect();
                journal.note(lit, &watched, elsewhere, SystemTime::UNIX_EPOCH, |_| {
                    Trace::default()
                });
            };
            note(&lit, &Coverage::AllBut(HashSet::new()));
            note(&[], &elsewhere);
            let mut left: Vec<_> = journal
                .known
                .keys()
                .map(|key| key.netns.to_string())
                .collect();
            left.sort_unstable();
            left
        };
        let unread = HashSet::from(["unread".into()]);
        assert_eq!(left(Coverage::AllBut(unread)), ["unread"]);
        assert_eq!(left(Coverage::Partial), ["read", "unread"]);
        assert_eq!(left(Coverage::AllBut(HashSet::new())), [""; 0]);
        assert_eq!(left(Coverage::Unwanted), [""; 0]);
    }
}
