//! A limit on log lines that somebody outside can repeat at will.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Lets so many lines through in an interval and counts the rest.
///
/// ```
/// use darkport_exporter::log::Limiter;
/// use std::time::Duration;
///
/// static REFUSALS: Limiter = Limiter::new(10, Duration::from_secs(60));
///
/// if let Some(left_out) = REFUSALS.admit() {
///     tracing::warn!(left_out, "refused");
/// }
/// # assert_eq!(REFUSALS.admit(), Some(None));
/// ```
#[derive(Debug)]
pub struct Limiter {
    lines: u32,
    interval: Duration,
    window: Mutex<Window>,
}

impl Limiter {
    /// At most `lines` lines in each `interval`. An interval begins with the first line after the one before has ended.
    #[must_use]
    pub const fn new(lines: u32, interval: Duration) -> Self {
        Self {
            lines,
            interval,
            window: Mutex::new(Window {
                opened: None,
                admitted: 0,
                left_out: 0,
            }),
        }
    }

    /// Whether a line may be written now. `None`: leave it out. `Some`: write it, with the number of lines left out since
    /// the last one that was written; `Some(None)` where there were none, which as a field of an event writes nothing.
    pub fn admit(&self) -> Option<Option<u64>> {
        self.admit_at(Instant::now())
    }

    fn admit_at(&self, now: Instant) -> Option<Option<u64>> {
        self.window
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .admit(now, self.lines, self.interval)
    }
}

#[derive(Debug)]
struct Window {
    opened: Option<Instant>,
    admitted: u32,
    left_out: u64,
}

impl Window {
    fn admit(&mut self, now: Instant, lines: u32, interval: Duration) -> Option<Option<u64>> {
        let is_open = self
            .opened
            .is_some_and(|opened| now.saturating_duration_since(opened) < interval);
        if !is_open {
            self.opened = Some(now);
            self.admitted = 0;
        }
        if self.admitted >= lines {
            self.left_out = self.left_out.saturating_add(1);
            return None;
        }
        self.admitted += 1;
        let left_out = std::mem::take(&mut self.left_out);
        Some((left_out > 0).then_some(left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_beyond_the_limit_are_counted_and_told_with_the_next() {
        let limiter = Limiter::new(2, Duration::from_secs(10));
        let start = Instant::now();
        let at = |seconds| limiter.admit_at(start + Duration::from_secs(seconds));
        assert_eq!(at(0), Some(None));
        assert_eq!(at(1), Some(None));
        assert_eq!(at(2), None);
        assert_eq!(at(9), None);
        assert_eq!(at(10), Some(Some(2)));
        assert_eq!(at(11), Some(None));
        assert_eq!(at(12), None);
        assert_eq!(at(1000), Some(Some(1)));
    }

    #[test]
    fn a_clock_that_goes_back_does_not_open_a_new_interval() {
        let limiter = Limiter::new(1, Duration::from_secs(10));
        let start = Instant::now() + Duration::from_secs(60);
        assert_eq!(limiter.admit_at(start), Some(None));
        assert_eq!(limiter.admit_at(start - Duration::from_secs(30)), None);
    }

    #[test]
    fn a_limit_of_none_admits_none() {
        let limiter = Limiter::new(0, Duration::ZERO);
        assert_eq!(limiter.admit(), None);
    }
}
