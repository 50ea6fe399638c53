//! The token bucket: how many questions a second.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// How much of a second's tokens may be taken at once.
const BURST: Duration = Duration::from_millis(10);

/// A bucket that fills evenly. Kept as the moment at which the token after the last one taken falls due (the generic cell
/// rate algorithm, ITU-T I.371), so that nothing has to fill it.
#[derive(Debug, Default)]
pub(super) struct Bucket {
    /// `None`: nothing was taken yet.
    next: Mutex<Option<Instant>>,
    /// Held by whoever is the next to take a token. One at a time, and the others behind in the order in which they came:
    /// nobody takes a token before it is there, so whoever goes away meanwhile leaves it to the next.
    queue: tokio::sync::Mutex<()>,
}

/// The right to take the next token.
pub(super) type Turn<'a> = tokio::sync::MutexGuard<'a, ()>;

impl Bucket {
    /// Whether it is as full as a new one.
    pub(super) fn is_full(&self) -> bool {
        let next = *self.next.lock().unwrap_or_else(PoisonError::into_inner);
        next.is_none_or(|next| next <= Instant::now())
    }

    /// The right to take the next token, if nobody else is waiting for it.
    pub(super) fn try_turn(&self) -> Option<Turn<'_>> {
        self.queue.try_lock().ok()
    }

    /// Waits for the right to take the next token.
    pub(super) async fn turn(&self) -> Turn<'_> {
        self.queue.lock().await
    }

    /// Takes a token, of which there are `rate` a second. The rate may be another each time.
    ///
    /// # Errors
    /// When there is none: from when on there may be one.
    pub(super) fn take(&self, rate: u32, now: Instant, _turn: &Turn<'_>) -> Result<(), Instant> {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let at = next.map_or(now, |next| next.max(now));
        match at.checked_sub(BURST) {
            Some(due) if due > now => Err(due),
            _ => {
                *next = Some(at + apart(rate));
                Ok(())
            }
        }
    }

    /// Takes a token for what has been sent already, whether there is one or not: whoever comes next waits for it.
    pub(super) fn owe(&self, rate: u32, now: Instant) {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        *next = Some(next.map_or(now, |next| next.max(now)) + apart(rate));
    }
}

fn apart(rate: u32) -> Duration {
    Duration::from_secs(1) / rate.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// When, in milliseconds from now, each of so many tokens can be taken.
    fn taken(bucket: &Bucket, rate: u32, count: usize, now: Instant) -> Vec<u128> {
        let turn = bucket.try_turn().unwrap();
        let mut at = now;
        (0..count)
            .map(|_| {
                while let Err(due) = bucket.take(rate, at, &turn) {
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
    async fn whoever_goes_away_takes_nothing_along() {
        let bucket = Bucket::default();
        let now = Instant::now();
        taken(&bucket, 2, 1, now);
        for _ in 0..100 {
            let turn = bucket.turn().await;
            assert!(bucket.try_turn().is_none(), "one at a time");
            assert!(bucket.take(2, now, &turn).is_err());
        }
        assert_eq!(taken(&bucket, 2, 1, now), [490]);
    }
}
