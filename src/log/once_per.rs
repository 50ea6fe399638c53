//! A limit on log lines of which each names somebody, so that one who repeats himself hides nobody else.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Lets one line for each key through in an interval, for so many keys at the most, and counts the rest.
///
/// ```
/// use darkport_exporter::log::OncePer;
/// use std::time::Duration;
///
/// static REFUSALS: OncePer<String> = OncePer::new(64, Duration::from_secs(60));
///
/// if let Some(left_out) = REFUSALS.admit("192.0.2.1".to_owned()) {
///     tracing::warn!(left_out, "refused");
/// }
/// # assert_eq!(REFUSALS.admit("192.0.2.1".to_owned()), None);
/// ```
#[derive(Debug)]
pub struct OncePer<K> {
    keys: usize,
    interval: Duration,
    window: Mutex<Window<K>>,
}

impl<K: Ord> OncePer<K> {
    /// At most one line a key and `keys` lines in each `interval`. An interval begins with the first line after the one
    /// before has ended.
    #[must_use]
    pub const fn new(keys: usize, interval: Duration) -> Self {
        Self {
            keys,
            interval,
            window: Mutex::new(Window {
                opened: None,
                told: BTreeSet::new(),
                left_out: 0,
            }),
        }
    }

    /// Whether a line may be written for this key now. `None`: leave it out. `Some`: write it, with the number of lines of all
    /// keys left out since the last one that was written; `Some(None)` where there were none.
    pub fn admit(&self, key: K) -> Option<Option<u64>> {
        self.admit_at(key, Instant::now())
    }

    fn admit_at(&self, key: K, now: Instant) -> Option<Option<u64>> {
        self.window
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .admit(key, now, self.keys, self.interval)
    }
}

#[derive(Debug)]
struct Window<K> {
    opened: Option<Instant>,
    told: BTreeSet<K>,
    left_out: u64,
}

impl<K: Ord> Window<K> {
    fn admit(
        &mut self,
        key: K,
        now: Instant,
        keys: usize,
        interval: Duration,
    ) -> Option<Option<u64>> {
        let is_open = self
            .opened
            .is_some_and(|opened| now.saturating_duration_since(opened) < interval);
        if !is_open {
            self.opened = Some(now);
            self.told.clear();
        }
        if self.told.contains(&key) || self.told.len() >= keys {
            self.left_out = self.left_out.saturating_add(1);
            return None;
        }
        self.told.insert(key);
        let left_out = std::mem::take(&mut self.left_out);
        Some((left_out > 0).then_some(left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_repeats_himself_hides_nobody_else() {
        let once = OncePer::new(3, Duration::from_secs(10));
        let start = Instant::now();
        let at = |seconds, key| once.admit_at(key, start + Duration::from_secs(seconds));
        assert_eq!(at(0, "a"), Some(None));
        for _ in 0..100 {
            assert_eq!(at(1, "a"), None);
        }
        assert_eq!(at(2, "b"), Some(Some(100)));
        assert_eq!(at(3, "a"), None);
        assert_eq!(at(10, "a"), Some(Some(1)));
        assert_eq!(at(11, "b"), Some(None));
    }

    #[test]
    fn however_many_there_are_the_lines_are_bounded() {
        let once = OncePer::new(3, Duration::from_secs(10));
        let start = Instant::now();
        let told = (0..1000).filter(|key| once.admit_at(*key, start).is_some());
        assert_eq!(told.count(), 3);
        assert_eq!(once.window.lock().unwrap().told.len(), 3);
        let later = start + Duration::from_secs(10);
        assert_eq!(once.admit_at(1000, later), Some(Some(997)));
    }
}
