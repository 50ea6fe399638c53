//! Losses of events, told in the log: when there are some, and again whenever there are more, once a minute at the most.

use std::time::{Duration, Instant};

use crate::snapshot::Source;

/// The least time between two lines about the same source.
const PAUSE: Duration = Duration::from_secs(60);

/// What was told of each source.
#[derive(Debug, Default)]
pub(super) struct Losses {
    told: Vec<Told>,
}

#[derive(Debug)]
struct Told {
    source: Source,
    lost: u64,
    at: Instant,
}

/// What is to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Loss {
    source: Source,
    /// Since the last time it was told.
    lost: u64,
    /// Since start.
    in_all: u64,
}

impl Losses {
    /// Takes in what each source has lost since start, and tells of what is new.
    pub(super) fn note(&mut self, lost: &[(Source, u64)]) {
        for loss in self.due(lost, Instant::now()) {
            loss.tell();
        }
    }

    fn due(&mut self, lost: &[(Source, u64)], now: Instant) -> Vec<Loss> {
        let due = lost.iter().filter_map(|&(source, in_all)| {
            let told = self.told.iter_mut().find(|told| told.source == source);
            let before = told.as_ref().map_or(0, |told| told.lost);
            let is_early = told
                .as_ref()
                .is_some_and(|told| now.saturating_duration_since(told.at) < PAUSE);
            if in_all <= before || is_early {
                return None;
            }
            let now_told = Told {
                source,
                lost: in_all,
                at: now,
            };
            match told {
                Some(told) => *told = now_told,
                None => self.told.push(now_told),
            }
            Some(Loss {
                source,
                lost: in_all - before,
                in_all,
            })
        });
        due.collect()
    }
}

impl Loss {
    fn tell(self) {
        let Self {
            source,
            lost,
            in_all,
        } = self;
        match source {
            Source::Netlink => tracing::warn!(
                lost,
                in_all,
                "the kernel could not tell of every destroyed socket: counters fall short by so many. \
                 Raise net.core.rmem_max to 8388608, or grant CAP_NET_ADMIN"
            ),
            Source::Kernel => tracing::warn!(
                lost,
                in_all,
                "more happened than could be taken in: so many listener events for the log, marks on connections, packets \
                 that could not be read to the end, and runs that the kernel skipped are missing. Only the last two are of \
                 consequence to the counters of attempts, connections and listeners, and both are rare"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_is_told_at_once_and_again_when_there_is_more_but_not_more_often_than_it_may() {
        let start = Instant::now();
        let mut losses = Losses::default();
        let mut at = |seconds, lost| {
            let due = losses.due(
                &[(Source::Kernel, lost)],
                start + Duration::from_secs(seconds),
            );
            due.first().map(|loss| (loss.lost, loss.in_all))
        };
        assert_eq!(at(0, 0), None);
        assert_eq!(at(1, 5), Some((5, 5)));
        assert_eq!(at(2, 5), None);
        assert_eq!(at(30, 9), None, "too soon");
        assert_eq!(
            at(61, 12),
            Some((7, 12)),
            "what was not told in between is in it"
        );
        assert_eq!(at(1000, 12), None, "nothing new");
        assert_eq!(at(2000, 13), Some((1, 13)));
    }

    #[test]
    fn one_source_does_not_silence_another() {
        let now = Instant::now();
        let mut losses = Losses::default();
        assert_eq!(losses.due(&[(Source::Kernel, 1)], now).len(), 1);
        let both = [(Source::Kernel, 2), (Source::Netlink, 3)];
        let due = losses.due(&both, now);
        assert_eq!(due.len(), 1);
        assert_eq!((due[0].source, due[0].lost), (Source::Netlink, 3));
    }
}
