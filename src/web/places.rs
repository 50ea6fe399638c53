//! The places for connections: how many there are, and which one goes when room runs out.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::activity::{Activity, Delivery, Phase, Work};

/// Connections at a time, where descriptors allow it.
const MOST: usize = 1024;
/// Answers that may wait for their clients at a time: a client that asks and does not read costs memory.
const MOST_WRITING: usize = 64;

/// Half the descriptors the process may open, [`MOST`] at most: the readers need some too.
pub(super) fn room() -> usize {
    #[cfg(target_os = "linux")]
    {
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        let half = limit.map_or(MOST, |limit| usize::try_from(limit / 2).unwrap_or(MOST));
        half.clamp(1, MOST)
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
    by: HashMap<u64, Arc<Activity>>,
}

impl Places {
    /// So many places, one at least.
    pub(super) fn new(most: usize) -> Self {
        Self {
            most: most.max(1),
            taken: Arc::default(),
        }
    }

    /// A place for a new connection. If all are taken, the one that has been without work for the longest time is
    /// freed; `None` if all are at work.
    pub(super) fn take(&self) -> Option<Place> {
        let mut taken = self.taken();
        if taken.by.len() >= self.most && !taken.close_oldest(|phase| phase != Phase::Busy) {
            return None;
        }
        let number = taken.next;
        taken.next += 1;
        let activity = Arc::new(Activity::new());
        taken.by.insert(number, Arc::clone(&activity));
        Some(Place {
            number,
            activity,
            places: self.clone(),
        })
    }

    /// Frees the place that has been without work for the longest time, if any is.
    pub(super) fn close_oldest(&self) {
        self.taken().close_oldest(|phase| phase != Phase::Busy);
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Taken {
    fn close_oldest(&mut self, may_close: impl Fn(Phase) -> bool) -> bool {
        let oldest = self
            .by
            .iter()
            .map(|(&number, activity)| (activity.now(), number))
            .filter(|&((phase, _), _)| may_close(phase))
            .min_by_key(|&((_, since), number)| (since, number));
        let Some((_, number)) = oldest else {
            return false;
        };
        if let Some(activity) = self.by.remove(&number) {
            activity.close();
        }
        true
    }
}

impl Taken {
    /// Whatever else the connection is at: it holds an answer for the longest time.
    fn close_slowest(&mut self) {
        let slowest = self
            .by
            .iter()
            .filter_map(|(&number, activity)| Some((activity.oldest_answer()?, number)))
            .min();
        if let Some((_, number)) = slowest
            && let Some(activity) = self.by.remove(&number)
        {
            activity.close();
        }
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

    /// An answer begins its way. If too many are on theirs, the connection on which one has been so for the longest time is
    /// given up.
    pub(super) fn answered(&self, work: Work) -> Delivery {
        let delivery = work.answered();
        let mut taken = self.places.taken();
        let writing: usize = taken.by.values().map(|activity| activity.writing()).sum();
        if writing > MOST_WRITING {
            taken.close_slowest();
        }
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

    fn is_closed(place: &Place) -> bool {
        pin!(place.closed())
            .poll(&mut Context::from_waker(Waker::noop()))
            .is_ready()
    }

    #[test]
    fn a_newcomer_takes_the_place_that_was_idle_the_longest() {
        let places = Places::new(3);
        let [first, second, third] = [(); 3].map(|()| places.take().unwrap());
        let _work = first.activity().begin();
        let fourth = places.take().unwrap();
        assert!(!is_closed(&first));
        assert!(is_closed(&second));
        // The place of the second is gone already; that its task ends later frees none twice.
        drop(second);
        assert_eq!(places.taken().by.len(), 3);
        assert!(!is_closed(&third) && !is_closed(&fourth));
    }

    #[test]
    fn who_is_at_work_keeps_the_place() {
        let places = Places::new(1);
        let only = places.take().unwrap();
        let _work = only.activity().begin();
        assert!(places.take().is_none());
        drop(only);
        assert!(places.take().is_some());
    }

    #[test]
    fn answers_that_nobody_takes_are_given_up_oldest_first() {
        let places = Places::new(10 * MOST_WRITING);
        let idle = places.take().unwrap();
        let writing: Vec<Place> = (0..=MOST_WRITING)
            .map(|_| places.take().unwrap())
            .inspect(|place| {
                let work = place.activity().begin();
                place.answered(work).until_drained();
            })
            .collect();
        assert!(is_closed(&writing[0]));
        assert!(!writing[1..].iter().any(is_closed));
        assert!(!is_closed(&idle));
    }
}
