//! The token bucket: how many questions a second.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// How much of a second's tokens may be taken at once.
const BURST: Duration = Duration::from_millis(10);

/// A bucket that fills evenly. Kept as the moment at which the token after the last one taken falls due (the generic cell
/// rate algorithm, ITU-T I.371), so that nothing has to fill it.
#[derive(Debug, Default)]
pub(super) struct Bucket {
    /// `None`: nothing was taken yet.
    next: Mutex<Option<Instant>>,
    /// Held by whoever waits for the next token, with the others behind in the order in which they came. Nobody takes a
    /// token before it is there, so whoever goes away meanwhile leaves it to the next.
    queue: tokio::sync::Mutex<()>,
    /// How many wait, or are about to.
    waiting: AtomicUsize,
}

/// The right to take the next token, while the others wait.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    _first: tokio::sync::MutexGuard<'a, ()>,
    _waiting: Waiting<'a>,
}

#[derive(Debug)]
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Bucket {
    /// Whether it is as full as a new one.
    pub(super) fn is_full(&self) -> bool {
        let next = *lock(&self.next);
        next.is_none_or(|next| next <= Instant::now())
    }

    /// Takes a token from each of two buckets, of which there are so many a second, or none from either: where one has
    /// none, or where somebody waits already.
    pub(super) fn take_both(buckets: [(&Self, u32); 2], now: Instant) -> bool {
        let [(one, rate_of_one), (other, rate_of_other)] = buckets;
        let (mut one_next, mut other_next) = (lock(&one.next), lock(&other.next));
        let is_free = |bucket: &Self, next: Option<Instant>| {
            bucket.waiting.load(Ordering::Relaxed) == 0 && due(next, now) <= now
        };
        let are_free = is_free(one, *one_next) && is_free(other, *other_next);
        if are_free {
            *one_next = Some(after(*one_next, rate_of_one, now));
            *other_next = Some(after(*other_next, rate_of_other, now));
        }
        are_free
    }

    /// Waits for a token, takes it, and gives the right to the next one: whoever keeps that keeps the others waiting. The
    /// rate may be another each time.
    pub(super) async fn take(&self, rate: u32) -> Turn<'_> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let waiting = Waiting(&self.waiting);
        let first = self.queue.lock().await;
        while let Err(due) = self.try_take(rate, Instant::now()) {
            sleep_until(due).await;
        }
        Turn {
            _first: first,
            _waiting: waiting,
        }
    }

    /// Takes a token; where there is none, says from when on there may be one.
    fn try_take(&self, rate: u32, now: Instant) -> Result<(), Instant> {
        let mut next = lock(&self.next);
        let due = due(*next, now);
        if due > now {
            return Err(due);
        }
        *next = Some(after(*next, rate, now));
        Ok(())
    }

    /// Takes a token for what has been sent already, whether there is one or not: whoever comes next waits for it.
    pub(super) fn owe(&self, rate: u32, now: Instant) {
        let mut next = lock(&self.next);
        *next = Some(after(*next, rate, now));
    }
}

/// From when on the next token may be taken.
fn due(next: Option<Instant>, now: Instant) -> Instant {
    let at = next.map_or(now, |next| next.max(now));
    at.checked_sub(BURST).unwrap_or(at).max(now)
}

/// When the token after the next one falls due.
fn after(next: Option<Instant>, rate: u32, now: Instant) -> Instant {
    next.map_or(now, |next| next.max(now)) + Duration::from_secs(1) / rate.max(1)
}

fn lock(next: &Mutex<Option<Instant>>) -> MutexGuard<'_, Option<Instant>> {
    next.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    /// When, in milliseconds from now, each of so many tokens can be taken.
    fn taken(bucket: &Bucket, rate: u32, count: usize, now: Instant) -> Vec<u128> {
        let mut at = now;
        (0..count)
            .map(|_| {
                while let Err(due) = bucket.try_take(rate, at) {
                    assert!(due > at);
                    at = due;
                }
                (at - now).as_millis()
            })
            .collect()
    }

    #[test]
    fn tokens_come_evenly_after_the_first_few() {
        let now = Instant::now();
        let due = taken(&Bucket::default(), 1000, 100, now);
        assert_eq!(due.iter().filter(|&&wait| wait == 0).count(), 11);
        assert_eq!(due[99], 89);
        assert!(due.is_sorted());
    }

    #[test]
    fn a_slow_bucket_gives_one_at_a_time() {
        let now = Instant::now();
        assert_eq!(taken(&Bucket::default(), 2, 3, now), [0, 490, 990]);
    }

    #[test]
    fn what_was_not_taken_in_time_is_not_saved_up() {
        let bucket = Bucket::default();
        let now = Instant::now();
        taken(&bucket, 1000, 1, now);
        let later = now + Duration::from_secs(3600);
        let due = taken(&bucket, 1000, 100, later);
        assert_eq!(due.iter().filter(|&&wait| wait == 0).count(), 11);
    }

    #[test]
    fn what_is_owed_is_paid_by_the_next() {
        let bucket = Bucket::default();
        let now = Instant::now();
        for _ in 0..1000 {
            bucket.owe(1000, now);
        }
        assert_eq!(taken(&bucket, 1000, 2, now), [990, 991]);
        assert!(!bucket.is_full());
    }

    #[tokio::test]
    async fn whoever_waits_goes_first_and_whoever_goes_away_takes_nothing_along() {
        let (slow, fast) = (Bucket::default(), Bucket::default());
        let now = Instant::now();
        let both = || Bucket::take_both([(&slow, 1), (&fast, 1_000_000)], now);
        assert!(both());
        assert!(!both(), "one has none");
        assert_eq!(
            taken(&fast, 1000, 11, now),
            [0; 11],
            "none was taken of the other"
        );
        for _ in 0..100 {
            let waiting = slow.take(1);
            assert!(timeout(Duration::ZERO, waiting).await.is_err());
        }
        assert_eq!(taken(&slow, 1, 1, now), [990]);

        let later = now + Duration::from_secs(60);
        let both_later = || Bucket::take_both([(&slow, 1), (&fast, 1000)], later);
        let mut waiting = std::pin::pin!(slow.take(1));
        assert!(timeout(Duration::ZERO, waiting.as_mut()).await.is_err());
        assert!(!both_later(), "somebody waits");
    }

    #[tokio::test]
    async fn who_has_the_turn_keeps_the_others_waiting() {
        let (one, other) = (Bucket::default(), Bucket::default());
        let turn = one.take(1_000_000).await;
        let both = || Bucket::take_both([(&one, 1000), (&other, 1000)], Instant::now());
        assert!(!both());
        assert!(
            timeout(Duration::from_millis(1), one.take(1000))
                .await
                .is_err()
        );
        drop(turn);
        assert!(both());
    }
}
