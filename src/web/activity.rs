//! What one connection is at, and since when.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::time::Instant;

use super::Options;

/// What a connection is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Between requests. A beginning of the next one that came in one piece with the last is not seen, and gets the
    /// longer time of this phase.
    Idle,
    /// The head of a request is awaited or on its way, or a TLS handshake before it.
    Head,
    /// A request is being answered.
    Busy,
    /// An answer is on its way, and nothing else is asked for.
    Writing,
}

/// What one connection is at, and since when. In HTTP/2 it may be at several requests.
#[derive(Debug)]
pub(super) struct Activity {
    state: Mutex<State>,
    close: Notify,
}

#[derive(Debug)]
struct State {
    /// Whether a head is awaited while there is nothing else to do.
    awaits_head: bool,
    since: Instant,
    /// Requests that are being answered.
    working: usize,
    /// The answers that are on their way, the oldest first.
    writing: VecDeque<Answer>,
    next: u64,
}

/// An answer that is on its way.
#[derive(Clone, Copy, Debug)]
struct Answer {
    number: u64,
    since: Instant,
    bytes: usize,
}

/// What waits for a client to take it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Waiting {
    pub(super) answers: usize,
    pub(super) bytes: usize,
}

impl Activity {
    pub(super) fn new() -> Self {
        Self {
            state: Mutex::new(State {
                awaits_head: true,
                since: Instant::now(),
                working: 0,
                writing: VecDeque::new(),
                next: 0,
            }),
            close: Notify::new(),
        }
    }

    /// Something came from the client of HTTP/1. More of a head does not win it more time.
    pub(super) fn received(&self) {
        let mut state = self.lock();
        if state.phase() == Phase::Idle {
            state.awaits_head = true;
            state.since = Instant::now();
        }
    }

    /// A request is whole, and is worked on until what this returns is dropped or answered.
    pub(super) fn begin(self: &Arc<Self>) -> Work {
        let mut state = self.lock();
        state.working += 1;
        state.awaits_head = false;
        state.since = Instant::now();
        drop(state);
        Work(Some(Arc::clone(self)))
    }

    /// Everything there was to write is with the kernel. In HTTP/1, answers are taken by then.
    pub(super) fn drained(&self) {
        let mut state = self.lock();
        if !state.writing.is_empty() {
            state.writing.clear();
            state.rest();
        }
    }

    /// Asks for the end of the connection.
    pub(super) fn close(&self) {
        self.close.notify_one();
    }

    /// Waits until the end is asked for.
    pub(super) async fn closed(&self) {
        self.close.notified().await;
    }

    /// Whether there is no request to answer, and no answer to deliver.
    pub(super) fn is_without_work(&self) -> bool {
        matches!(self.now().0, Phase::Idle | Phase::Head)
    }

    /// How many answers are on their way, and how large they are.
    pub(super) fn waiting(&self) -> Waiting {
        let state = self.lock();
        Waiting {
            answers: state.writing.len(),
            bytes: state.writing.iter().map(|answer| answer.bytes).sum(),
        }
    }

    /// When the oldest of them began.
    pub(super) fn oldest_answer(&self) -> Option<Instant> {
        self.lock().writing.front().map(|answer| answer.since)
    }

    /// When it is time to close; never while a request is being answered and no answer waits to be taken.
    pub(super) fn due(&self, options: &Options) -> Option<Instant> {
        let state = self.lock();
        let (since, time) = match (state.writing.front(), state.phase()) {
            (Some(oldest), _) => (oldest.since, options.write_timeout),
            (None, Phase::Idle) => (state.since, options.idle_timeout),
            (None, Phase::Head) => (state.since, options.head_timeout),
            (None, _) => return None,
        };
        since.checked_add(time)
    }

    pub(super) fn now(&self) -> (Phase, Instant) {
        let state = self.lock();
        let phase = state.phase();
        match state.writing.front() {
            Some(oldest) if phase == Phase::Writing => (phase, oldest.since),
            _ => (phase, state.since),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn phase(&self) -> Phase {
        if self.working > 0 {
            Phase::Busy
        } else if !self.writing.is_empty() {
            Phase::Writing
        } else if self.awaits_head {
            Phase::Head
        } else {
            Phase::Idle
        }
    }

    /// Idle from now on, if there is nothing left to do.
    fn rest(&mut self) {
        if self.phase() == Phase::Idle {
            self.since = Instant::now();
        }
    }
}

/// A request that is being answered. Who gives it up, as by resetting a stream, drops it.
#[derive(Debug)]
pub(super) struct Work(Option<Arc<Activity>>);

impl Work {
    /// The answer, of so many bytes, begins its way, and has come to its end when what this returns is dropped.
    pub(super) fn answered(mut self, bytes: usize) -> Delivery {
        let Some(activity) = self.0.take() else {
            return Delivery(None);
        };
        let mut state = activity.lock();
        state.working -= 1;
        let number = state.next;
        state.next += 1;
        state.writing.push_back(Answer {
            number,
            since: Instant::now(),
            bytes,
        });
        drop(state);
        Delivery(Some((activity, number)))
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        if let Some(activity) = self.0.take() {
            let mut state = activity.lock();
            state.working -= 1;
            state.rest();
        }
    }
}

/// An answer that is on its way.
#[derive(Debug)]
pub(super) struct Delivery(Option<(Arc<Activity>, u64)>);

impl Delivery {
    /// Leaves it to [`Activity::drained`] to say when the answer was taken.
    pub(super) fn until_drained(mut self) {
        self.0 = None;
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        if let Some((activity, number)) = self.0.take() {
            let mut state = activity.lock();
            state.writing.retain(|answer| answer.number != number);
            state.rest();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_of_a_head_win_no_time() {
        let activity = Arc::new(Activity::new());
        let options = Options::default();
        let due = activity.due(&options);
        activity.received();
        assert_eq!(activity.due(&options), due);
        let work = activity.begin();
        assert_eq!(activity.due(&options), None);
        activity.drained();
        assert_eq!(activity.now().0, Phase::Busy);
        work.answered(0).until_drained();
        assert_eq!(activity.now().0, Phase::Writing);
        activity.drained();
        assert_eq!(activity.now().0, Phase::Idle);
        activity.received();
        assert_eq!(activity.now().0, Phase::Head);
    }

    #[test]
    fn an_answer_that_is_not_taken_is_due_whatever_else_is_asked() {
        let activity = Arc::new(Activity::new());
        let options = Options::default();
        let stuck = activity.begin().answered(10);
        let due = activity.due(&options);
        let others: Vec<Work> = (0..3).map(|_| activity.begin()).collect();
        assert_eq!(activity.now().0, Phase::Busy);
        assert_eq!(activity.due(&options), due);
        let mut others = others.into_iter();
        let taken = others.next().unwrap().answered(7);
        let waiting = |answers, bytes| Waiting { answers, bytes };
        assert_eq!(activity.waiting(), waiting(2, 17));
        drop(taken);
        drop(others);
        assert_eq!(activity.now().0, Phase::Writing);
        assert_eq!(activity.due(&options), due);
        drop(stuck);
        assert_eq!(activity.now().0, Phase::Idle);
        assert_eq!(activity.waiting(), waiting(0, 0));
    }
}
