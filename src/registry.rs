//! IANA's registry: what is this port?

use crate::port::{Port, Range};

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

impl std::fmt::Display for Assignment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

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

/// A registry.
#[derive(Debug)]
pub struct Registry {}

impl Registry {
    /// What the registry says of a port.
    #[must_use]
    pub fn assignment(&self, _port: Port) -> Assignment {
        Assignment::Unassigned
    }
}
