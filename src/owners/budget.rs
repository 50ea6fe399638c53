//! What a look through the processes may cost.
//!
//! Any user may have hundreds of processes with half a million open files each, and a thread or an io_uring is as good as a
//! process. So a look reads so much and no more: what it had not come to by then is unknown.

use std::cell::Cell;

/// How many files a look reads, and once more where it goes on in threads: more than a host has but for the largest, and within
/// the ten seconds that a scrape has.
pub(super) const LINKS: u32 = 2 << 20;

/// What is still to be spent, in links read.
#[derive(Debug)]
pub(super) struct Budget(Cell<Option<u32>>);

impl Budget {
    pub(super) const fn new(links: u32) -> Self {
        Self(Cell::new(Some(links)))
    }

    /// Whether there is as much; it is taken, and what is short of it, too.
    pub(super) fn take(&self, links: u32) -> bool {
        let left = self.0.get().and_then(|left| left.checked_sub(links));
        self.0.set(left);
        left.is_some()
    }

    /// Whether more was asked for than there was.
    pub(super) const fn is_spent(&self) -> bool {
        self.0.get().is_none()
    }
}
