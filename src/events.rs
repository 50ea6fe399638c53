//! Events: a listener that opens or closes on a watched port, told once in the log with every fact an on-call person
//! needs.
//!
//! What an attacker can repeat is limited: the log says how many events it left out. Counters are not concerned.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use crate::log::Limiter;
use crate::owners::Owner;
use crate::port::PortSet;
use crate::sampler::Coverage;
use crate::snapshot::Lit;
use crate::sockets::{Listener, ListenerKey};

/// Knows which listeners of watched ports were there last time, and tells the difference.
#[derive(Debug)]
pub struct Journal {
    known: HashMap<Key, Known>,
    /// Whether a first table was seen: what it held did not open, it was found.
    begun: bool,
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

/// What happened to a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Happening {
    /// It was there when the exporter first looked.
    Found,
    /// It was not there last time.
    Opened,
    /// Another process holds it, or it is another program, or a rule allows it now and did not before.
    Changed,
    /// It opened and closed since the last look.
    CameAndWent,
    /// It is there no more.
    Closed,
}

impl Journal {
    /// A journal that has seen nothing.
    #[must_use]
    pub fn new() -> Self {
        Self {
            known: HashMap::new(),
            begun: false,
            unexpected: Limiter::new(EVENTS_A_MINUTE, Duration::from_secs(60)),
            others: Limiter::new(EVENTS_A_MINUTE, Duration::from_secs(60)),
        }
    }

    /// Tells of listeners on watched ports that have closed, where no table has shown them: neither one before nor the one of
    /// this sample, `lit`.
    pub fn note_closed(&self, closed: &[Lit<'_>], lit: &[Lit<'_>]) {
        if closed.is_empty() {
            return;
        }
        let shown: HashSet<Key> = lit.iter().map(Key::of).collect();
        for lit in closed {
            let key = Key::of(lit);
            if let Some(expected) = lit.expected
                && !self.known.contains_key(&key)
                && !shown.contains(&key)
            {
                self.tell(Happening::CameAndWent, &Known::of(lit, expected));
            }
        }
    }

    /// Tells what has happened to the listeners of the `watched` ports since the last call. A port that a reload adds to the
    /// watch set tells of its listeners as opened: that is when they were seen. What is no longer watched, or was not read
    /// this time as `elsewhere` says, has not closed.
    pub fn note(&mut self, lit: &[Lit<'_>], watched: &PortSet, elsewhere: Coverage) {
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
                    self.tell(happening, &known);
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
                Coverage::Whole => closed.push(known),
                _ if is_own => closed.push(known),
                Coverage::Partial => {
                    self.known.insert(key, known);
                }
                Coverage::Unwanted => {}
            }
        }
        closed.sort_by_key(|known| (known.listener.port, known.listener.address));
        for known in &closed {
            self.tell(Happening::Closed, known);
        }
        self.begun = true;
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
                    creator = creator(owner),
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

impl Happening {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Found => "listener found",
            Self::Opened => "listener opened",
            Self::Changed => "listener changed owner",
            Self::CameAndWent => "listener came and went",
            Self::Closed => "listener closed",
        }
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

/// Who created a socket whose holder is not known.
fn creator(owner: &Owner) -> Option<&str> {
    match owner {
        Owner::Unknown { creator } => creator.as_deref(),
        Owner::Held(_) | Owner::Kernel => None,
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
