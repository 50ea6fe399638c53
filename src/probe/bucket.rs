//! The token bucket: how many questions a second.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// How much of a second's tokens may be taken at once.
const BURST: Duration = Duration::from_millis(10);

/// A bucket that fills evenly. Kept as the moment at which the token after the last one taken falls due (the generic cell
/// rate algorithm, ITU-T I.371), so that nothing has to fill it, and takers wait in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Bucket {
    /// `None`: nothing was taken yet.
    next: Mutex<Option<Instant>>,
}

impl Bucket {
    /// Whether it is as full as a new one.
    pub(super) fn is_full(&self) -> bool {
        let next = *self.next.lock().unwrap_or_else(PoisonError::into_inner);
        next.is_none_or(|next| next <= Instant::now())
    }

    /// Takes a token, of which there are `rate` a second, and says from when on it is there. The rate may be another each
    /// time.
    pub(super) fn reserve(&self, rate: u32, now: Instant) -> Instant {
        let apart = Duration::from_secs(1) / rate.max(1);
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let at = next.map_or(now, |next| next.max(now));
        *next = Some(at + apart);
        at.checked_sub(BURST).unwrap_or(at).max(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(bucket: &Bucket, rate: u32, count: usize, now: Instant) -> Vec<u128> {
        (0..count)
            .map(|_| (bucket.reserve(rate, now) - now).as_millis())
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
}
