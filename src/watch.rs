//! The watch set: which ports have series of their own, whose entry each one belongs to, and who may listen there.
//!
//! Valid by construction: every entry owns at least one port and every port has at most one owner, so nothing downstream
//! checks again. It knows nothing of files, of the registry or of metrics.

use crate::port::{NUMBERS, Port, PortSet};

mod expectation;

pub use expectation::{Expectation, Facts, Pattern, PatternError};

/// Which ports of an entry have series.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Series {
    /// Every port, always: an alert can be written on each.
    #[default]
    Dense,
    /// Only ports on which this host itself has listened, accepted or connected.
    Active,
}

/// One entry of the watch set.
#[derive(Clone, Debug)]
pub struct Watch {
    /// The entry's name: the value of the label `watch`.
    pub name: String,
    /// What the entry is about, for a reader; may be empty.
    pub description: String,
    /// Which of its ports have series.
    pub series: Series,
    /// Who may listen; empty: nobody may.
    pub expect: Vec<Expectation>,
    /// The ports it owns. As given to [`WatchSet::new`]: the ports it asks for.
    pub ports: PortSet,
}

impl Watch {
    /// Whether some rule of the entry allows a listener.
    #[must_use]
    pub fn expects(&self, facts: &Facts<'_>) -> bool {
        self.expect.iter().any(|rule| rule.allows(facts))
    }
}

/// All entries, with the ports shared out among them.
#[derive(Clone, Debug)]
pub struct WatchSet {
    entries: Vec<Watch>,
    /// Index of the owning entry by [`Port::index`], or [`NOBODY`].
    owners: Box<[u16]>,
    ports: PortSet,
    active: PortSet,
    /// The ports of dense entries, by number, then protocol.
    dense: Box<[Port]>,
}

/// What stands in the owner table where no entry names the port.
const NOBODY: u16 = u16::MAX;

impl WatchSet {
    /// How many entries a set holds at most: each costs 16 KiB, and nobody tells more groups apart.
    pub const MAX_ENTRIES: usize = 1024;

    /// Shares the ports out: the first entry that asks for a port owns it.
    ///
    /// # Errors
    /// When there are too many entries, or some are left without a port; then all of those are named.
    pub fn new(mut entries: Vec<Watch>) -> Result<Self, Error> {
        if entries.len() > Self::MAX_ENTRIES {
            return Err(Error::TooManyEntries(entries.len()));
        }
        let mut owners = vec![NOBODY; 2 * NUMBERS].into_boxed_slice();
        let mut ports = PortSet::new();
        let mut active = PortSet::new();
        let mut shadowed = Vec::new();
        for (index, entry) in entries.iter_mut().enumerate() {
            let asked = entry.ports.clone();
            entry.ports.subtract(&ports);
            if entry.ports.is_empty() {
                shadowed.push(Shadowed::by(index, &asked, &owners));
                continue;
            }
            for port in entry.ports.iter() {
                owners[port.index()] = index as u16;
            }
            ports.unite(&entry.ports);
            if entry.series == Series::Active {
                active.unite(&entry.ports);
            }
        }
        if !shadowed.is_empty() {
            return Err(Error::Shadowed(shadowed));
        }
        let mut dense: Vec<Port> = {
            let mut dense = ports.clone();
            dense.subtract(&active);
            dense.iter().collect()
        };
        dense.sort_unstable();
        Ok(Self {
            entries,
            owners,
            ports,
            active,
            dense: dense.into_boxed_slice(),
        })
    }

    /// The entries, in the order of the configuration.
    #[must_use]
    pub fn entries(&self) -> &[Watch] {
        &self.entries
    }

    /// The entry that owns a port; `None` where the port is not watched.
    #[must_use]
    pub fn owner(&self, port: Port) -> Option<&Watch> {
        self.entries.get(usize::from(self.owners[port.index()]))
    }

    /// Every watched port.
    #[must_use]
    pub const fn ports(&self) -> &PortSet {
        &self.ports
    }

    /// The watched ports whose entry is [`Series::Active`].
    #[must_use]
    pub const fn active(&self) -> &PortSet {
        &self.active
    }

    /// The watched ports whose entry is [`Series::Dense`], by number, then protocol.
    pub fn dense_ports(&self) -> impl ExactSizeIterator<Item = Port> + '_ {
        self.dense.iter().copied()
    }
}

impl Default for WatchSet {
    /// A set that watches nothing.
    fn default() -> Self {
        Self {
            entries: Vec::new(),
            owners: vec![NOBODY; 2 * NUMBERS].into_boxed_slice(),
            ports: PortSet::new(),
            active: PortSet::new(),
            dense: Box::default(),
        }
    }
}

/// An entry to which earlier entries left no port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shadowed {
    /// Its index among the entries.
    pub entry: usize,
    /// The indexes of the entries that own what it asks for, ascending; empty if it asks for nothing.
    pub owners: Vec<usize>,
}

impl Shadowed {
    fn by(entry: usize, asked: &PortSet, owners: &[u16]) -> Self {
        let mut owners: Vec<usize> = asked
            .iter()
            .map(|port| usize::from(owners[port.index()]))
            .collect();
        owners.sort_unstable();
        owners.dedup();
        Self { entry, owners }
    }
}

/// Why entries do not make a watch set.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// More entries than a set holds.
    #[error("{0} watch entries are more than {max}", max = WatchSet::MAX_ENTRIES)]
    TooManyEntries(usize),
    /// Entries that own nothing.
    #[error("{} watch entries own no port, the first at index {}", .0.len(), .0.first().map_or(0, |s| s.entry))]
    Shadowed(Vec<Shadowed>),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::port::Protocol;

    fn watch(name: &str, series: Series, ports: impl IntoIterator<Item = Port>) -> Watch {
        Watch {
            name: name.to_owned(),
            description: String::new(),
            series,
            expect: Vec::new(),
            ports: ports.into_iter().collect(),
        }
    }

    #[test]
    fn the_first_entry_that_names_a_port_owns_it() {
        let set = WatchSet::new(vec![
            watch("first", Series::Dense, [Port::tcp(560), Port::tcp(561)]),
            watch("second", Series::Dense, [Port::tcp(561), Port::udp(561)]),
        ])
        .unwrap();
        let owner = |port| set.owner(port).map(|watch| watch.name.as_str());
        assert_eq!(owner(Port::tcp(561)), Some("first"));
        assert_eq!(owner(Port::udp(561)), Some("second"));
        assert_eq!(owner(Port::tcp(562)), None);
        assert_eq!(
            set.entries()[1].ports.iter().collect::<Vec<_>>(),
            [Port::udp(561)]
        );
        assert_eq!(set.ports().len(), 3);
    }

    #[test]
    fn dense_ports_come_by_number_then_protocol_and_active_ones_apart() {
        let set = WatchSet::new(vec![
            watch("fossils", Series::Dense, [Port::udp(9), Port::tcp(79)]),
            watch(
                "registered",
                Series::Active,
                [Port::tcp(79), Port::tcp(3476)],
            ),
            watch("echo", Series::Dense, [Port::udp(7), Port::tcp(9)]),
        ])
        .unwrap();
        assert_eq!(
            set.dense_ports().collect::<Vec<_>>(),
            [Port::udp(7), Port::tcp(9), Port::udp(9), Port::tcp(79)]
        );
        assert_eq!(
            set.active().iter().collect::<Vec<_>>(),
            [Port::tcp(3476)],
            "a port that a dense entry owns is not active"
        );
    }

    #[test]
    fn every_entry_left_without_a_port_is_named_with_those_who_own_its_ports() {
        let error = WatchSet::new(vec![
            watch("a", Series::Dense, [Port::tcp(1)]),
            watch("b", Series::Dense, [Port::tcp(2)]),
            watch("both", Series::Dense, [Port::tcp(1), Port::tcp(2)]),
            watch("none", Series::Active, []),
        ])
        .unwrap_err();
        let shadowed = |entry, owners: &[usize]| Shadowed {
            entry,
            owners: owners.to_vec(),
        };
        assert_eq!(
            error,
            Error::Shadowed(vec![shadowed(2, &[0, 1]), shadowed(3, &[])])
        );
    }

    #[test]
    fn the_number_of_entries_is_bounded() {
        let entries: Vec<_> = (0..=WatchSet::MAX_ENTRIES)
            .map(|number| watch("x", Series::Dense, [Port::tcp(number as u16)]))
            .collect();
        assert_eq!(
            WatchSet::new(entries.clone()).unwrap_err(),
            Error::TooManyEntries(1025)
        );
        let set = WatchSet::new(entries[..WatchSet::MAX_ENTRIES].to_vec()).unwrap();
        assert!(set.owner(Port::tcp(1023)).is_some());
    }

    #[test]
    fn an_empty_set_watches_nothing() {
        for set in [WatchSet::default(), WatchSet::new(Vec::new()).unwrap()] {
            assert!(set.ports().is_empty());
            assert_eq!(set.dense_ports().count(), 0);
            for protocol in Protocol::ALL {
                assert!(
                    set.owner(Port {
                        number: 0,
                        protocol
                    })
                    .is_none()
                );
            }
        }
    }
}
