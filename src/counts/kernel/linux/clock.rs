//! Nanoseconds since boot, as the kernel's programs write them, to wall clock time.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, Timespec, clock_gettime};

/// Below this, a difference between two measurements is what reading two clocks one after the other takes. Slewing
/// moves both clocks alike; only a step moves one.
const STEP: i64 = 20_000_000;

/// How far the wall clock is ahead of the time since boot. Kept, so that a moment that does not change is told as the
/// same moment each time; measured anew when the wall clock was stepped.
#[derive(Debug)]
pub(super) struct Clock {
    ahead: AtomicI64,
}

impl Clock {
    pub(super) fn new() -> Self {
        Self {
            ahead: AtomicI64::new(measure()),
        }
    }

    /// Notices a step of the wall clock.
    pub(super) fn refresh(&self) {
        self.adjust(measure());
    }

    fn adjust(&self, measured: i64) {
        if measured.abs_diff(self.ahead.load(Ordering::Relaxed)) > STEP as u64 {
            self.ahead.store(measured, Ordering::Relaxed);
        }
    }

    /// The wall clock time of a moment; `None` for 0, which stands for never.
    pub(super) fn wall(&self, since_boot: u64) -> Option<SystemTime> {
        if since_boot == 0 {
            return None;
        }
        let since_epoch = self
            .ahead
            .load(Ordering::Relaxed)
            .saturating_add_unsigned(since_boot);
        u64::try_from(since_epoch)
            .ok()
            .map(|nanoseconds| UNIX_EPOCH + Duration::from_nanos(nanoseconds))
    }
}

fn measure() -> i64 {
    nanoseconds(clock_gettime(ClockId::Realtime)) - nanoseconds(clock_gettime(ClockId::Boottime))
}

fn nanoseconds(time: Timespec) -> i64 {
    time.tv_sec * 1_000_000_000 + time.tv_nsec
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_stays_until_the_clock_is_stepped() {
        let clock = Clock {
            ahead: AtomicI64::new(1_000_000_000_000),
        };
        let at = |seconds| Some(UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(clock.wall(5_000_000_000), at(1005));
        clock.adjust(1_000_000_000_000 + STEP / 2);
        assert_eq!(clock.wall(5_000_000_000), at(1005));
        clock.adjust(3_600_000_000_000);
        assert_eq!(clock.wall(5_000_000_000), at(3605));
    }

    #[test]
    fn zero_is_never() {
        assert_eq!(Clock::new().wall(0), None);
    }

    #[test]
    fn now_is_now() {
        let before = SystemTime::now();
        let clock = Clock::new();
        let now = clock
            .wall(nanoseconds(clock_gettime(ClockId::Boottime)) as u64)
            .unwrap();
        let tolerance = Duration::from_nanos(STEP as u64);
        assert!(now + tolerance >= before);
        assert!(now <= SystemTime::now() + tolerance);
    }
}
