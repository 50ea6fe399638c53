//! `rate_limit`: a token bucket for all requests together.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use super::settings::Rate;

/// A bucket; full when its measures change.
#[derive(Debug, Default)]
pub(super) struct Bucket {
    level: Mutex<Option<Level>>,
}

#[derive(Debug)]
struct Level {
    rate: Rate,
    tokens: f64,
    at: Instant,
}

impl Bucket {
    /// Takes a token, if there is one.
    pub(super) fn take(&self, rate: Rate) -> bool {
        self.take_at(rate, Instant::now())
    }

    fn take_at(&self, rate: Rate, now: Instant) -> bool {
        let most = rate.burst as f64;
        let mut level = self.level.lock().unwrap_or_else(PoisonError::into_inner);
        let level = match &mut *level {
            Some(level) if level.rate == rate => level,
            level => level.insert(Level {
                rate,
                tokens: most,
                at: now,
            }),
        };
        let passed = now.saturating_duration_since(level.at);
        level.at = level.at.max(now);
        let gained = passed.as_secs_f64() / rate.interval.as_secs_f64();
        level.tokens = (level.tokens + gained).min(most);
        if level.tokens < 1.0 {
            return false;
        }
        level.tokens -= 1.0;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_burst_passes_and_then_one_an_interval() {
        let rate = Rate {
            interval: Duration::from_secs(1),
            burst: 3,
        };
        let bucket = Bucket::default();
        let start = Instant::now();
        let take = |millis| bucket.take_at(rate, start + Duration::from_millis(millis));
        assert_eq!([0, 0, 0, 0].map(take), [true, true, true, false]);
        assert_eq!([500, 1000, 1001].map(take), [false, true, false]);
        // However long nobody comes, no more than a burst is saved up.
        assert_eq!(
            [99_000, 99_000, 99_000, 99_000].map(take),
            [true, true, true, false]
        );
        let other = Rate { burst: 1, ..rate };
        assert!(bucket.take_at(other, start + Duration::from_secs(99)));
    }
}
