//! The line before the one place where passwords are hashed.
//!
//! Each peer waits in a line of its own, and the lines take turns, so that who sends many passwords waits for their own and
//! others do not. There is a bound on all of them together; beyond it, the newest of the longest line is sent away.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use crate::web::peer::network;

/// How many may wait.
const MOST: usize = 256;

/// What is done for one who waits. Blocks.
pub(super) type Work = Box<dyn FnOnce() -> bool + Send>;

/// Everybody who waits.
#[derive(Debug, Default)]
pub(super) struct Line {
    waiting: Mutex<Waiting>,
}

impl Line {
    /// Waits for the peer's turn and gives what the work found; `None` where too many wait. Who stops waiting is not worked
    /// for, unless it has begun.
    pub(super) async fn wait(self: &Arc<Self>, peer: IpAddr, work: Work) -> Option<bool> {
        let (done, outcome) = oneshot::channel();
        let begins = self.waiting().join(network(peer), Job { work, done });
        if begins {
            tokio::spawn(Arc::clone(self).serve());
        }
        outcome.await.ok()
    }

    /// Works until nobody waits.
    async fn serve(self: Arc<Self>) {
        loop {
            let Some(Job { work, done }) = self.waiting().next() else {
                return;
            };
            if let Ok(outcome) = tokio::task::spawn_blocking(work).await {
                let _ = done.send(outcome);
            }
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Job {
    work: Work,
    done: oneshot::Sender<bool>,
}

#[derive(Default)]
struct Waiting {
    /// Whether somebody works already.
    is_served: bool,
    /// The lines that are not empty, the next to have its turn first.
    lines: VecDeque<(Ipv6Addr, VecDeque<Job>)>,
}

impl std::fmt::Debug for Waiting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Waiting({})", self.count())
    }
}

impl Waiting {
    /// Takes a place. Whether somebody has to begin to work.
    fn join(&mut self, peer: Ipv6Addr, job: Job) -> bool {
        match self.lines.iter_mut().find(|(other, _)| *other == peer) {
            Some((_, line)) => line.push_back(job),
            None => self.lines.push_back((peer, VecDeque::from([job]))),
        }
        if self.count() > MOST {
            self.send_away();
        }
        !std::mem::replace(&mut self.is_served, true)
    }

    /// The newest of the longest line; of the last to come, where several are as long.
    fn send_away(&mut self) {
        let longest = (0..self.lines.len()).max_by_key(|&index| self.lines[index].1.len());
        if let Some(index) = longest {
            self.lines[index].1.pop_back();
            if self.lines[index].1.is_empty() {
                self.lines.remove(index);
            }
        }
    }

    /// Who is next; with `None`, nobody works any more.
    fn next(&mut self) -> Option<Job> {
        while let Some((peer, mut line)) = self.lines.pop_front() {
            let job = line.pop_front();
            if !line.is_empty() {
                self.lines.push_back((peer, line));
            }
            if let Some(job) = job.filter(|job| !job.done.is_closed()) {
                return Some(job);
            }
        }
        self.is_served = false;
        None
    }

    fn count(&self) -> usize {
        self.lines.iter().map(|(_, line)| line.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job() -> (Job, oneshot::Receiver<bool>) {
        let (done, outcome) = oneshot::channel();
        let work: Work = Box::new(|| true);
        (Job { work, done }, outcome)
    }

    fn peer(text: &str) -> Ipv6Addr {
        network(text.parse().unwrap())
    }

    #[test]
    fn lines_take_turns() {
        let mut waiting = Waiting::default();
        let mut outcomes = Vec::new();
        let mut join = |waiting: &mut Waiting, from| {
            let (job, outcome) = job();
            let begins = waiting.join(peer(from), job);
            outcomes.push(outcome);
            begins
        };
        assert!(join(&mut waiting, "192.0.2.1"));
        for _ in 0..9 {
            assert!(!join(&mut waiting, "192.0.2.1"));
        }
        join(&mut waiting, "192.0.2.2");
        for _ in 0..2 {
            waiting.next().unwrap().done.send(true).unwrap();
        }
        assert_eq!(outcomes[0].try_recv(), Ok(true));
        assert_eq!(outcomes[10].try_recv(), Ok(true));
        assert!(outcomes[1].try_recv().is_err());
    }

    #[test]
    fn who_sends_many_is_sent_away_and_others_are_not() {
        let mut waiting = Waiting::default();
        let mut many = Vec::new();
        for _ in 0..2 * MOST {
            let (job, outcome) = job();
            waiting.join(peer("2001:db8::1"), job);
            many.push(outcome);
        }
        let (job, mut other) = job();
        waiting.join(peer("2001:db8:0:1::1"), job);
        assert_eq!(waiting.count(), MOST);
        assert!(matches!(
            other.try_recv(),
            Err(oneshot::error::TryRecvError::Empty)
        ));
        let sent_away = many
            .iter_mut()
            .filter_map(|outcome| outcome.try_recv().err())
            .filter(|error| *error == oneshot::error::TryRecvError::Closed);
        assert_eq!(sent_away.count(), MOST + 1);
    }

    #[test]
    fn who_has_gone_is_not_worked_for() {
        let mut waiting = Waiting::default();
        for _ in 0..3 {
            let (job, gone) = job();
            waiting.join(peer("192.0.2.1"), job);
            drop(gone);
        }
        assert!(waiting.next().is_none());
        let (job, _outcome) = job();
        assert!(waiting.join(peer("192.0.2.1"), job), "nobody works by now");
    }
}
