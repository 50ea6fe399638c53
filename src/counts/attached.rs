//! The kernel tier in use: the programs, the thread that takes in what they tell, and what is remembered between scrapes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::{self, JoinHandle};

use super::kernel::{Kernel, ListenerEvent, Space, Watcher};
use super::{ByClass, KnockedRuns, Knocks, PortCounts, SpaceCounts};
use crate::log::Chain;
use crate::port::{Port, PortSet};
use crate::privileges::{self, Capability};
use crate::registry::{Class, Registry};
use crate::sockets::Listener;

/// How many listener events wait for the next scrape at the most. Who opens more in between is counted all the same, by the
/// programs; the log has fewer of them.
const MOST_EVENTS: usize = 4096;

/// Of how many ports, beyond those, the newest event is kept: so nobody hides a listener behind many on another port.
const MOST_NEWEST: usize = 4096;

/// The tier, attached.
#[derive(Debug)]
pub struct Attached {
    kernel: Kernel,
    waiting: Arc<Mutex<Waiting>>,
    /// Takes in the events, and follows the host's addresses.
    thread: JoinHandle<()>,
    /// The sums over the whole space, for the registry they were made for.
    space: Option<(Weak<Registry>, Space)>,
    /// What the sums by the registries of before had that those by this one have not: counters do not go back.
    carried: Carried,
    watched: PortSet,
    used: PortSet,
}

impl Attached {
    /// Takes over what was attached, watches these ports, and starts the thread.
    ///
    /// # Errors
    /// When there can be no thread.
    pub fn new(kernel: Kernel, watcher: Watcher, watched: &PortSet) -> std::io::Result<Self> {
        let waiting = Arc::new(Mutex::new(Waiting::default()));
        let needs = kernel.needs();
        let thread = thread::Builder::new().name("kernel-events".to_owned()).spawn({
            let waiting = Arc::clone(&waiting);
            move || {
                privileges::reduce_thread(needs);
                let told = watcher.run(|event| lock(&waiting).put(event));
                if let Err(error) = told {
                    tracing::error!(%error, "listener events and changes of addresses are not taken in any more");
                }
            }
        })?;
        let mut attached = Self {
            kernel,
            waiting,
            thread,
            space: None,
            carried: Carried::default(),
            watched: PortSet::new(),
            used: PortSet::new(),
        };
        attached.watch(watched);
        Ok(attached)
    }

    /// Takes up a new watch set.
    pub fn watch(&mut self, watched: &PortSet) {
        if let Err(error) = self.kernel.watch(watched) {
            tracing::error!(error = %Chain(&error), "the gauge of established connections is absent on newly watched ports");
        }
        self.watched = watched.clone();
    }

    /// What was counted on a port.
    #[must_use]
    pub fn counts(&self, port: Port) -> PortCounts {
        self.kernel.read().counts(port)
    }

    /// Watched ports on which this host has listened, accepted or connected since start.
    pub fn used(&mut self) -> PortSet {
        let reading = self.kernel.read();
        let mut unused = self.watched.clone();
        unused.subtract(&self.used);
        for port in unused.iter() {
            let counts = reading.counts(port);
            let is_used = [
                counts.accepted,
                counts.outbound,
                counts.opened,
                counts.connections,
            ];
            if is_used.into_iter().flatten().any(|count| count > 0) {
                self.used.insert(port);
            }
        }
        self.used.clone()
    }

    /// Whether this UDP socket is known to have been bound by a call, and not by sending: the newest of its port is.
    #[must_use]
    pub fn was_bound(&self, listener: &Listener) -> bool {
        let newest = self.kernel.read().opened_cookie(listener.port);
        newest.is_some() && newest == listener.cookie
    }

    /// What the whole space has seen: connections accepted, and knocks where they are counted.
    pub fn space(&mut self, registry: &Arc<Registry>) -> (ByClass, Option<Knocks>) {
        let reading = self.kernel.read();
        let sums = match &mut self.space {
            Some((made_for, space)) if made_for.as_ptr() == Arc::as_ptr(registry) => {
                reading.space(space)
            }
            space => {
                let mut sums = Space::new(|port| registry.class(port));
                if let Some((_, others)) = space {
                    let (before, after) = reading.hand_over(others, &mut sums);
                    self.carried.hand_over(&before, &after);
                }
                let (_, sums) = space.insert((Arc::downgrade(registry), sums));
                reading.space(sums)
            }
        };
        let accepted = self.carried.accepted.over(&sums.accepted);
        let knocks = self.carried.knocks.over(&sums.knocks);
        let knocks = Knocks {
            ports: sums.knocked_ports,
            knocks,
            blocks: sums.block_knocks,
        };
        (accepted, reading.knocks_are_counted().then_some(knocks))
    }

    /// UDP datagrams refused on all ports, where refusals are counted.
    #[must_use]
    pub fn udp_refused(&self) -> Option<u64> {
        self.kernel.read().udp_refused()
    }

    /// Whether events and changes of addresses are taken in.
    #[must_use]
    pub fn is_following(&self) -> bool {
        !self.thread.is_finished() && self.kernel.addresses_are_current()
    }

    /// The ports that have had a knock since start, with what was counted there; `None` where knocks are not counted. Walks
    /// the whole space.
    #[must_use]
    pub fn knocked(&self) -> Option<KnockedRuns> {
        let reading = self.kernel.read();
        if !reading.knocks_are_counted() {
            return None;
        }
        let with_counts = |port| {
            let counts = reading.counts(port);
            let knocks = counts.refused.unwrap_or(0) + counts.filtered.unwrap_or(0);
            (knocks > 0).then_some((port, counts))
        };
        Some(PortSet::full().iter().filter_map(with_counts).collect())
    }

    /// The listener events since this was last asked, oldest first.
    pub fn events(&mut self) -> Vec<ListenerEvent> {
        lock(&self.waiting).take()
    }

    /// Capabilities that have to be kept while this lives.
    #[must_use]
    pub fn needs(&self) -> &'static [Capability] {
        self.kernel.needs()
    }

    /// What is known to have been missed.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.kernel.lost() + lock(&self.waiting).left_out
    }
}

/// Listener events that wait for the next scrape.
#[derive(Debug, Default)]
struct Waiting {
    /// The first that came.
    events: Vec<ListenerEvent>,
    /// The newest of each port, of those that came after.
    newest: HashMap<Port, ListenerEvent>,
    /// How many there was no room for since start.
    left_out: u64,
}

impl Waiting {
    fn put(&mut self, event: ListenerEvent) {
        if self.events.len() < MOST_EVENTS {
            self.events.push(event);
        } else if self.newest.len() < MOST_NEWEST || self.newest.contains_key(&event.port) {
            let replaced = self.newest.insert(event.port, event);
            self.left_out += u64::from(replaced.is_some());
        } else {
            self.left_out += 1;
        }
    }

    fn take(&mut self) -> Vec<ListenerEvent> {
        let mut events = std::mem::take(&mut self.events);
        let first_of_the_newest = events.len();
        events.extend(std::mem::take(&mut self.newest).into_values());
        events[first_of_the_newest..].sort_by_key(|event| event.at);
        events
    }
}

/// What waits is whole after every step: a panic elsewhere does not spoil it.
fn lock(waiting: &Mutex<Waiting>) -> MutexGuard<'_, Waiting> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is to be added to the sums by class of now. Another registry puts ports into other classes; the counts of before stay
/// where they were, and only what is new goes where it belongs now.
#[derive(Debug, Default)]
struct Carried {
    accepted: Carry,
    knocks: Carry,
}

impl Carried {
    /// The sums of one moment, by the classes of before and by those that are asked for from now on.
    fn hand_over(&mut self, before: &SpaceCounts, after: &SpaceCounts) {
        self.accepted.hand_over(&before.accepted, &after.accepted);
        self.knocks.hand_over(&before.knocks, &after.knocks);
    }
}

#[derive(Debug, Default)]
struct Carry([[i64; Class::COUNT]; 2]);

impl Carry {
    fn hand_over(&mut self, ByClass(before): &ByClass, ByClass(after): &ByClass) {
        let sums = before.as_flattened().iter().zip(after.as_flattened());
        for (carried, (before, after)) in self.0.as_flattened_mut().iter_mut().zip(sums) {
            *carried += before.cast_signed() - after.cast_signed();
        }
    }

    fn over(&self, raw: &ByClass) -> ByClass {
        let mut shown = raw.clone();
        let sums = shown.0.as_flattened_mut().iter_mut();
        for (sum, carried) in sums.zip(self.0.as_flattened()) {
            *sum = sum.saturating_add_signed(*carried);
        }
        shown
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::port::{Protocol, Range};
    use crate::registry::Assignment;

    #[test]
    fn whoever_opens_many_listeners_hides_none_on_another_port() {
        let event = |number, seconds| ListenerEvent {
            port: Port::tcp(number),
            opened: false,
            address: std::net::Ipv4Addr::LOCALHOST.into(),
            cookie: None,
            pid: 1,
            thread: 1,
            uid: 0,
            command: String::new(),
            cgroup: None,
            at: std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds),
        };
        let mut waiting = Waiting::default();
        for seconds in 0..10_000 {
            waiting.put(event(561, seconds));
        }
        waiting.put(event(3476, 10_000));
        assert_eq!(waiting.left_out, 10_000 - MOST_EVENTS as u64 - 1);
        let told = waiting.take();
        assert_eq!(told.len(), MOST_EVENTS + 2);
        assert!(told.is_sorted_by_key(|event| event.at));
        assert_eq!(told[MOST_EVENTS].at, event(561, 9_999).at);
        assert_eq!(told[MOST_EVENTS + 1].port, Port::tcp(3476));
        assert_eq!(waiting.take(), []);
        for number in 0..=u16::MAX {
            waiting.put(event(number, 0));
        }
        assert_eq!(waiting.take().len(), MOST_EVENTS + MOST_NEWEST, "bounded");
    }

    #[test]
    fn another_registry_takes_no_count_back() {
        let class = |assignment| Class {
            range: Range::Registered,
            assignment,
        };
        let (before, after) = (class(Assignment::Unassigned), class(Assignment::Assigned));
        let port = Port::tcp(3476);
        let sums = |class, count| {
            let mut sums = ByClass::default();
            sums.add(port, class, count);
            sums
        };
        let mut carry = Carry::default();
        let shown = |carry: &Carry, class, count| {
            let shown = carry.over(&sums(class, count));
            [before, after].map(|class| shown.of(Protocol::Tcp, class))
        };
        assert_eq!(shown(&carry, before, 5), [5, 0]);
        // The port is in another class now; two came since it was last looked at.
        carry.hand_over(&sums(before, 7), &sums(after, 7));
        assert_eq!(shown(&carry, after, 7), [7, 0]);
        assert_eq!(shown(&carry, after, 9), [7, 2]);
        carry.hand_over(&sums(after, 10), &sums(before, 10));
        assert_eq!(shown(&carry, before, 10), [7, 3]);
        assert_eq!(shown(&carry, before, 11), [8, 3]);
    }
}
