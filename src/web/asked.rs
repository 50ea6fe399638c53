//! The scrapes that are asked for: so many at a time, and of one peer not all of them.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::peer;

/// The scrapes at a time.
#[derive(Debug)]
pub(super) struct Asked {
    /// `None`: any number.
    most: Option<usize>,
    by_peer: Arc<Mutex<HashMap<Ipv6Addr, usize>>>,
}

impl Asked {
    /// So many at a time; 0: any number. From four on, a quarter is out of reach for any single peer, so that one that asks
    /// without end leaves something to the others.
    pub(super) fn new(most: usize) -> Self {
        Self {
            most: (most > 0).then_some(most),
            by_peer: Arc::default(),
        }
    }

    /// A scrape for this peer, if it may have one.
    pub(super) fn ask(&self, peer: IpAddr) -> Option<Scrape> {
        let peer = peer::network(peer);
        let mut by_peer = lock(&self.by_peer);
        if let Some(most) = self.most {
            let all: usize = by_peer.values().sum();
            let own = by_peer.get(&peer).copied().unwrap_or(0);
            if all >= most || own >= most - most / 4 {
                return None;
            }
        }
        *by_peer.entry(peer).or_insert(0) += 1;
        Some(Scrape {
            peer,
            by_peer: Arc::clone(&self.by_peer),
        })
    }
}

/// One scrape, until it is dropped.
#[derive(Debug)]
pub(super) struct Scrape {
    peer: Ipv6Addr,
    by_peer: Arc<Mutex<HashMap<Ipv6Addr, usize>>>,
}

impl Drop for Scrape {
    fn drop(&mut self) {
        let mut by_peer = lock(&self.by_peer);
        if let Some(count) = by_peer.get_mut(&self.peer) {
            *count -= 1;
            if *count == 0 {
                by_peer.remove(&self.peer);
            }
        }
    }
}

fn lock(by_peer: &Mutex<HashMap<Ipv6Addr, usize>>) -> MutexGuard<'_, HashMap<Ipv6Addr, usize>> {
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
        let mut held: Vec<Scrape> = (0..6).map(|_| asked.ask(ONE).unwrap()).collect();
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
        let held: Vec<Option<Scrape>> = (0..1000).map(|_| asked.ask(ONE)).collect();
        assert!(held.iter().all(Option::is_some));
    }
}
