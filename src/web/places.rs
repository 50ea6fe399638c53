//! The places for connections: how many there are, and which one goes when room runs out.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::activity::{Activity, Delivery, Phase, Waiting, Work};
use super::peer;

/// Connections at a time, where descriptors allow it.
const MOST: usize = 1024;
/// What may wait for clients at a time, all connections together: a client that asks and does not read costs memory.
const MOST_WAITING: Waiting = Waiting {
    answers: 64,
    bytes: 64 << 20,
};

/// Half the descriptors the process may open, and three quarters of those that it has not opened yet, [`MOST`] at most: the
/// readers need some too. A tier may hold many, and where connections are accepted until none is left, each waits.
pub(super) fn room() -> usize {
    #[cfg(target_os = "linux")]
    {
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        let limit = limit.map_or(usize::MAX, |limit| limit.try_into().unwrap_or(usize::MAX));
        let open = std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
        let free = limit.saturating_sub(open);
        (limit / 2).min(free - free / 4).clamp(1, MOST)
    }
    #[cfg(not(target_os = "linux"))]
    MOST
}

/// All places.
#[derive(Clone, Debug)]
pub(super) struct Places {
    most: usize,
    taken: Arc<Mutex<Taken>>,
}

#[derive(Debug, Default)]
struct Taken {
    next: u64,
    by: HashMap<u64, Held>,
}

#[derive(Debug)]
struct Held {
    peer: Ipv6Addr,
    activity: Arc<Activity>,
}

impl Places {
    /// So many places, one at least.
    pub(super) fn new(most: usize) -> Self {
        Self {
            most: most.max(1),
            taken: Arc::default(),
        }
    }

    /// A place for a new connection of this peer. If all are taken, one is freed as [`Places::close_oldest`] does it; `None`
    /// if all are at work.
    pub(super) fn take(&self, peer: IpAddr) -> Option<Place> {
        let mut taken = self.taken();
        if taken.by.len() >= self.most && !taken.close_oldest() {
            return None;
        }
        let number = taken.next;
        taken.next += 1;
        let activity = Arc::new(Activity::new());
        let held = Held {
            peer: peer::network(peer),
            activity: Arc::clone(&activity),
        };
        taken.by.insert(number, held);
        Some(Place {
            number,
            activity,
            places: self.clone(),
        })
    }

    /// Frees a place on which there is no work, if there is one: of the peers that have any, the one with the most places
    /// gives up that which has been without work for the longest time. So a crowd from one address drives out itself.
    pub(super) fn close_oldest(&self) {
        self.taken().close_oldest();
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Taken {
    fn close_oldest(&mut self) -> bool {
        let mut places: HashMap<Ipv6Addr, usize> = HashMap::new();
        for held in self.by.values() {
            *places.entry(held.peer).or_insert(0) += 1;
        }
        let oldest = self
            .by
            .iter()
            .filter_map(|(&number, held)| {
                let (phase, since) = held.activity.now();
                let places = places.get(&held.peer).copied();
                (phase != Phase::Busy).then_some((Reverse(places), since, number))
            })
            .min();
        oldest.is_some_and(|(.., number)| self.close(number))
    }

    fn close(&mut self, number: u64) -> bool {
        let held = self.by.remove(&number);
        if let Some(held) = &held {
            held.activity.close();
        }
        held.is_some()
    }

    fn waiting(&self) -> Waiting {
        let each = self.by.values().map(|held| held.activity.waiting());
        each.fold(Waiting::default(), |all, one| Waiting {
            answers: all.answers + one.answers,
            bytes: all.bytes.saturating_add(one.bytes),
        })
    }

    /// Closes connections until no more waits than may. A single answer may be of any size.
    fn give_up_the_slowest(&mut self) {
        loop {
            let waiting = self.waiting();
            let is_bounded = waiting.answers <= MOST_WAITING.answers
                && (waiting.bytes <= MOST_WAITING.bytes || waiting.answers <= 1);
            if is_bounded || !self.close_slowest() {
                return;
            }
        }
    }

    /// Of the peer for which the most answers wait, the connection on which one has done so for the longest time, whatever else
    /// it is at.
    fn close_slowest(&mut self) -> bool {
        let mut answers: HashMap<Ipv6Addr, usize> = HashMap::new();
        for held in self.by.values() {
            *answers.entry(held.peer).or_insert(0) += held.activity.waiting().answers;
        }
        let slowest = self
            .by
            .iter()
            .filter_map(|(&number, held)| {
                let since = held.activity.oldest_answer()?;
                Some((Reverse(answers.get(&held.peer).copied()), since, number))
            })
            .min();
        slowest.is_some_and(|(.., number)| self.close(number))
    }
}

/// A connection's place; free again when dropped.
#[derive(Debug)]
pub(super) struct Place {
    number: u64,
    activity: Arc<Activity>,
    places: Places,
}

impl Place {
    /// What the connection is at.
    pub(super) fn activity(&self) -> &Arc<Activity> {
        &self.activity
    }

    /// Waits until the place is needed for another.
    pub(super) async fn closed(&self) {
        self.activity.closed().await;
    }

    /// An answer of so many bytes begins its way. If too much waits to be taken, the connection that has let it wait for the
    /// longest time is given up, of the peer for which the most answers wait.
    pub(super) fn answered(&self, work: Work, bytes: usize) -> Delivery {
        let delivery = work.answered(bytes);
        self.places.taken().give_up_the_slowest();
        delivery
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.taken().by.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Waker};

    const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn is_closed(place: &Place) -> bool {
        pin!(place.closed())
            .poll(&mut Context::from_waker(Waker::noop()))
            .is_ready()
    }

    #[test]
    fn a_newcomer_takes_the_place_that_was_idle_the_longest() {
        let places = Places::new(3);
        let [first, second, third] = [(); 3].map(|()| places.take(PEER).unwrap());
        let _work = first.activity().begin();
        let fourth = places.take(PEER).unwrap();
        assert!(!is_closed(&first));
        assert!(is_closed(&second));
        // The place of the second is gone already; that its task ends later frees none twice.
        drop(second);
        assert_eq!(places.taken().by.len(), 3);
        assert!(!is_closed(&third) && !is_closed(&fourth));
    }

    #[test]
    fn a_crowd_from_one_address_drives_out_itself() {
        let places = Places::new(10);
        let other = places.take("192.0.2.1".parse().unwrap()).unwrap();
        let crowd: Vec<Place> = (0..100).map(|_| places.take(PEER).unwrap()).collect();
        assert!(!is_closed(&other));
        assert!(crowd[..91].iter().all(is_closed));
        assert!(!crowd[91..].iter().any(is_closed));
        // From as many addresses as there are places, it is the oldest that goes.
        let many: Vec<Place> = (0..10)
            .map(|host| places.take([192, 0, 2, 10 + host].into()).unwrap())
            .collect();
        assert!(is_closed(&other) && !many.iter().any(is_closed));
    }

    #[test]
    fn who_is_at_work_keeps_the_place() {
        let places = Places::new(1);
        let only = places.take(PEER).unwrap();
        let _work = only.activity().begin();
        assert!(places.take(PEER).is_none());
        drop(only);
        assert!(places.take(PEER).is_some());
    }

    /// A connection on which an answer of so many bytes waits.
    fn stuck(places: &Places, peer: IpAddr, bytes: usize) -> Place {
        let place = places.take(peer).unwrap();
        place
            .answered(place.activity().begin(), bytes)
            .until_drained();
        place
    }

    #[test]
    fn answers_that_nobody_takes_are_given_up_oldest_first() {
        let places = Places::new(10 * MOST_WAITING.answers);
        let idle = places.take(PEER).unwrap();
        let writing: Vec<Place> = (0..=MOST_WAITING.answers)
            .map(|_| stuck(&places, PEER, 1))
            .collect();
        assert!(is_closed(&writing[0]));
        assert!(!writing[1..].iter().any(is_closed));
        assert!(!is_closed(&idle));
    }

    #[test]
    fn large_answers_are_fewer() {
        let places = Places::new(100);
        let writing: Vec<Place> = (0..20).map(|_| stuck(&places, PEER, 8 << 20)).collect();
        assert!(writing[..12].iter().all(is_closed));
        assert!(!writing[12..].iter().any(is_closed));
        // One alone may be larger than all together.
        drop(writing);
        let alone = stuck(&places, PEER, 2 * MOST_WAITING.bytes);
        assert!(!is_closed(&alone));
    }

    #[test]
    fn who_takes_nothing_drives_out_himself() {
        let places = Places::new(100);
        let other = stuck(&places, "192.0.2.1".parse().unwrap(), 4 << 20);
        let crowd: Vec<Place> = (0..40).map(|_| stuck(&places, PEER, 4 << 20)).collect();
        assert!(!is_closed(&other));
        assert!(crowd[..25].iter().all(is_closed));
        assert!(!crowd[25..].iter().any(is_closed));
    }
}
