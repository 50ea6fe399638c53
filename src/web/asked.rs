//! What is asked for, scrapes or probes: so many at a time, of one peer not all of them, and scrapes for peers in turn.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::peer;

/// Scrapes that are worked on at a time. They wait for the same sampler and would only fill the memory together.
const WORKED_ON: usize = 2;

/// The scrapes, or the probes, at a time.
#[derive(Debug)]
pub(super) struct Asked {
    /// `None`: any number.
    most: Option<usize>,
    by_peer: Arc<Mutex<HashMap<Ipv6Addr, Peer>>>,
    /// One permit for each scrape that is worked on.
    worked_on: Arc<Semaphore>,
}

#[derive(Debug)]
struct Peer {
    tickets: usize,
    /// One permit for each of the peer's scrapes that stands in line with those of others. As there are no more of them than are
    /// worked on at a time, who asks once waits for a few of each other peer's, however many they have asked for.
    in_line: Arc<Semaphore>,
}

impl Default for Peer {
    fn default() -> Self {
        Self {
            tickets: 0,
            in_line: Arc::new(Semaphore::new(WORKED_ON)),
        }
    }
}

impl Asked {
    /// So many at a time; 0: any number. From four on, a quarter is out of reach for any single peer, so that one that asks
    /// without end leaves something to the others.
    pub(super) fn new(most: usize) -> Self {
        Self {
            most: (most > 0).then_some(most),
            by_peer: Arc::default(),
            worked_on: Arc::new(Semaphore::new(WORKED_ON)),
        }
    }

    /// A ticket for this peer, if it may have one.
    pub(super) fn ask(&self, peer: IpAddr) -> Option<Ticket> {
        let peer = peer::network(peer);
        let mut by_peer = lock(&self.by_peer);
        if let Some(most) = self.most {
            let all: usize = by_peer.values().map(|peer| peer.tickets).sum();
            let own = by_peer.get(&peer).map_or(0, |peer| peer.tickets);
            if all >= most || own >= most - most / 4 {
                return None;
            }
        }
        let entry = by_peer.entry(peer).or_default();
        entry.tickets += 1;
        Some(Ticket {
            peer,
            in_line: Arc::clone(&entry.in_line),
            worked_on: Arc::clone(&self.worked_on),
            by_peer: Arc::clone(&self.by_peer),
        })
    }
}

/// Leave to ask for one scrape or probe, until it is dropped.
#[derive(Debug)]
pub(super) struct Ticket {
    peer: Ipv6Addr,
    in_line: Arc<Semaphore>,
    worked_on: Arc<Semaphore>,
    by_peer: Arc<Mutex<HashMap<Ipv6Addr, Peer>>>,
}

/// Leave to work on a scrape, until it is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    _worked_on: OwnedSemaphorePermit,
    _in_line: OwnedSemaphorePermit,
    _ticket: Ticket,
}

impl Ticket {
    /// Waits until the scrape may be worked on; `None` never comes, because nothing closes the line.
    pub(super) async fn turn(self) -> Option<Turn> {
        let in_line = Arc::clone(&self.in_line).acquire_owned().await.ok()?;
        let worked_on = Arc::clone(&self.worked_on).acquire_owned().await.ok()?;
        Some(Turn {
            _worked_on: worked_on,
            _in_line: in_line,
            _ticket: self,
        })
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut by_peer = lock(&self.by_peer);
        if let Some(peer) = by_peer.get_mut(&self.peer) {
            peer.tickets -= 1;
            if peer.tickets == 0 {
                by_peer.remove(&self.peer);
            }
        }
    }
}

fn lock(by_peer: &Mutex<HashMap<Ipv6Addr, Peer>>) -> MutexGuard<'_, HashMap<Ipv6Addr, Peer>> {
    by_peer.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const OTHER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));

    #[test]
    fn one_peer_leaves_a_quarter_to_others() {
        let asked = Asked::new(8);
        let mut held: Vec<Ticket> = (0..6).map(|_| asked.ask(ONE).unwrap()).collect();
        assert!(asked.ask(ONE).is_none());
        let other = [asked.ask(OTHER).unwrap(), asked.ask(OTHER).unwrap()];
        assert!(asked.ask(OTHER).is_none());
        held.pop();
        assert!(asked.ask(ONE).is_some());
        drop((held, other));
        assert!(lock(&asked.by_peer).is_empty());
    }

    #[test]
    fn few_are_for_whoever_comes_first() {
        let asked = Asked::new(3);
        let _held = [(); 3].map(|()| asked.ask(ONE).unwrap());
        assert!(asked.ask(OTHER).is_none());
    }

    #[test]
    fn none_is_any_number() {
        let asked = Asked::new(0);
        let held: Vec<Option<Ticket>> = (0..1000).map(|_| asked.ask(ONE)).collect();
        assert!(held.iter().all(Option::is_some));
    }

    #[tokio::test]
    async fn who_asks_once_does_not_wait_for_all_that_another_has_asked_for() {
        let asked = Asked::new(0);
        let (done, order) = std::sync::mpsc::channel();
        let turn = |peer: IpAddr| {
            let (ticket, done) = (asked.ask(peer).unwrap(), done.clone());
            async move {
                let turn = ticket.turn().await.unwrap();
                tokio::task::yield_now().await;
                done.send(peer).unwrap();
                drop(turn);
            }
        };
        let mut all: Vec<_> = (0..20).map(|_| tokio::spawn(turn(ONE))).collect();
        tokio::task::yield_now().await;
        all.push(tokio::spawn(turn(OTHER)));
        for task in all {
            task.await.unwrap();
        }
        let order: Vec<IpAddr> = order.try_iter().collect();
        let place = order.iter().position(|peer| *peer == OTHER).unwrap();
        assert!(place <= 2 * WORKED_ON, "{place} were before");
        assert!(lock(&asked.by_peer).is_empty());
    }
}
