//! The ports that were knocked on, in few words: a sweep of the whole space is one run.

use super::PortCounts;
use crate::port::{Port, Protocol};

/// Consecutive ports of which the same was counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnockedRun {
    /// Of all ports of the run.
    pub protocol: Protocol,
    /// The lowest.
    pub first: u16,
    /// The highest.
    pub last: u16,
    /// As [`PortCounts::attempts`], of each port.
    pub attempts: Option<u64>,
    /// As [`PortCounts::refused`], of each port.
    pub refused: Option<u64>,
    /// As [`PortCounts::filtered`], of each port.
    pub filtered: Option<u64>,
}

impl KnockedRun {
    const fn of(port: Port, counts: &PortCounts) -> Self {
        Self {
            protocol: port.protocol,
            first: port.number,
            last: port.number,
            attempts: counts.attempts,
            refused: counts.refused,
            filtered: counts.filtered,
        }
    }

    /// Takes in a run that follows this one, or gives it back.
    fn append(&mut self, next: Self) -> Result<(), Self> {
        let joined = Self {
            first: self.first,
            ..next
        };
        let reaches_it = self.last.checked_add(1) == Some(next.first);
        if reaches_it
            && joined
                == (Self {
                    last: next.last,
                    ..*self
                })
        {
            *self = joined;
            Ok(())
        } else {
            Err(next)
        }
    }
}

/// Runs, in the order of [`PortSet::iter`](crate::port::PortSet::iter) if the ports came so.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KnockedRuns(pub Vec<KnockedRun>);

impl FromIterator<(Port, PortCounts)> for KnockedRuns {
    fn from_iter<I: IntoIterator<Item = (Port, PortCounts)>>(ports: I) -> Self {
        let mut runs: Vec<KnockedRun> = Vec::new();
        for (port, counts) in ports {
            let mut run = Some(KnockedRun::of(port, &counts));
            if let (Some(last), Some(next)) = (runs.last_mut(), run) {
                run = last.append(next).err();
            }
            runs.extend(run);
        }
        Self(runs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_alike_are_one_run_and_others_are_not() {
        let counts = |refused| PortCounts {
            refused: Some(refused),
            ..PortCounts::default()
        };
        let runs: KnockedRuns = [
            (Port::tcp(1), counts(2)),
            (Port::tcp(2), counts(2)),
            (Port::tcp(3), counts(3)),
            (Port::tcp(5), counts(3)),
            (Port::tcp(65_535), counts(1)),
            (Port::udp(0), counts(1)),
        ]
        .into_iter()
        .collect();
        let spans: Vec<(u16, u16)> = runs.0.iter().map(|run| (run.first, run.last)).collect();
        assert_eq!(spans, [(1, 2), (3, 3), (5, 5), (65_535, 65_535), (0, 0)]);
    }

    #[test]
    fn a_sweep_of_both_protocols_is_two_runs() {
        let sweep = crate::port::PortSet::full();
        let runs: KnockedRuns = sweep
            .iter()
            .map(|port| (port, PortCounts::default()))
            .collect();
        let spans: Vec<(u16, u16)> = runs.0.iter().map(|run| (run.first, run.last)).collect();
        assert_eq!(spans, [(0, u16::MAX); 2]);
    }
}
