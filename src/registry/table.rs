//! The table behind a registry: for every port its names, in few allocations.
//!
//! It knows texts and ports, not where they came from. Names and descriptions are slices of one text, ports that carry
//! the same list of names share it, and a port costs four bytes beside.

use std::borrow::Cow;
use std::collections::HashMap;
use std::iter;
use std::num::NonZeroU32;

use super::{Assignment, Entry};
use crate::port::{NUMBERS, Port, PortSet};

/// Names one port may have: IANA gives four at most, and a bound keeps a forged file from filling the memory.
pub(super) const NAMES_PER_PORT: usize = 16;

/// Bytes from and up to, in the text of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Slice {
    pub(super) start: u32,
    pub(super) end: u32,
}

/// A name with its description. The name is empty where IANA describes a use but names none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Row {
    pub(super) name: Slice,
    pub(super) description: Slice,
}

/// A list of rows, as a stretch of [`Table::lists`].
#[derive(Clone, Copy, Debug)]
struct List {
    start: u32,
    len: u32,
}

/// Group 0: nobody has the port.
const UNASSIGNED: u32 = 0;
/// Group 1: IANA keeps the port back. The groups above are assigned.
const RESERVED: u32 = 1;

/// What a registry says of all ports.
#[derive(Debug)]
pub(super) struct Table {
    text: Cow<'static, str>,
    rows: Box<[Row]>,
    /// Indices of rows, list after list.
    lists: Box<[u32]>,
    groups: Box<[List]>,
    /// The group of each port, by [`Port::index`].
    ports: Box<[u32]>,
}

impl Table {
    pub(super) fn assignment(&self, port: Port) -> Assignment {
        match self.ports[port.index()] {
            UNASSIGNED => Assignment::Unassigned,
            RESERVED => Assignment::Reserved,
            _ => Assignment::Assigned,
        }
    }

    /// The entries of a port, the primary one first.
    pub(super) fn entries(&self, port: Port) -> impl Iterator<Item = Entry<'_>> {
        let List { start, len } = self.groups[self.ports[port.index()] as usize];
        self.lists[start as usize..(start + len) as usize]
            .iter()
            .map(|&row| self.entry(self.rows[row as usize]))
    }

    /// The entries of all ports, in no particular order, one perhaps more than once.
    pub(super) fn all_entries(&self) -> impl Iterator<Item = Entry<'_>> {
        self.rows.iter().map(|&row| self.entry(row))
    }

    fn entry(&self, row: Row) -> Entry<'_> {
        Entry {
            service_name: self.slice(row.name),
            description: self.slice(row.description),
        }
    }

    fn slice(&self, slice: Slice) -> &str {
        &self.text[slice.start as usize..slice.end as usize]
    }
}

/// How an entry ranks among those of its port: the least becomes the primary one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rank {
    /// A name of its own.
    Named,
    /// Another name for a service that has one.
    Alias,
    /// A use without a name.
    Nameless,
}

/// One more name than [`NAMES_PER_PORT`] on a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooManyNames(pub(super) Port);

/// Takes rows in the order of the source and makes the table.
#[derive(Debug)]
pub(super) struct Builder {
    rows: Vec<Row>,
    reserved: PortSet,
    /// The first entry of each port, by [`Port::index`], in `entries`.
    heads: Vec<Option<NonZeroU32>>,
    /// The entries of all ports; those of one port are chained. The first is none, so that a link can be non-zero.
    entries: Vec<Link>,
}

/// An entry of a port, and where the next one of the same port stands.
#[derive(Clone, Copy, Debug)]
struct Link {
    rank: Rank,
    row: u32,
    next: Option<NonZeroU32>,
}

impl Builder {
    pub(super) fn new() -> Self {
        let none = Link {
            rank: Rank::Nameless,
            row: 0,
            next: None,
        };
        Self {
            rows: Vec::new(),
            reserved: PortSet::new(),
            heads: vec![None; 2 * NUMBERS],
            entries: vec![none],
        }
    }

    /// Takes a row in; it stands on no port yet.
    pub(super) fn row(&mut self, row: Row) -> u32 {
        self.rows.push(row);
        (self.rows.len() - 1) as u32
    }

    /// Notes that IANA keeps the port back. An assignment of the same port counts for more.
    pub(super) fn reserve(&mut self, port: Port) {
        self.reserved.insert(port);
    }

    /// Adds a row to a port. A name the port has already is passed over.
    pub(super) fn assign(&mut self, port: Port, row: u32, rank: Rank) -> Result<(), TooManyNames> {
        let name = self.rows[row as usize].name;
        let mut last = None;
        let mut len = 0;
        for (at, link) in self.chain(port) {
            if self.rows[link.row as usize].name == name {
                return Ok(());
            }
            last = Some(at);
            len += 1;
        }
        if len == NAMES_PER_PORT {
            return Err(TooManyNames(port));
        }
        let added = NonZeroU32::new(self.entries.len() as u32);
        self.entries.push(Link {
            rank,
            row,
            next: None,
        });
        match last {
            Some(at) => self.entries[at.get() as usize].next = added,
            None => self.heads[port.index()] = added,
        }
        Ok(())
    }

    /// The entries of a port, in the order in which they came, each with its place.
    fn chain(&self, port: Port) -> impl Iterator<Item = (NonZeroU32, Link)> {
        let at = |place: NonZeroU32| (place, self.entries[place.get() as usize]);
        iter::successors(self.heads[port.index()].map(at), move |(_, link)| {
            link.next.map(at)
        })
    }

    /// The table over `text`, of which every slice given before is a part.
    pub(super) fn finish(self, text: Cow<'static, str>) -> Table {
        let none = List { start: 0, len: 0 };
        let mut groups = vec![none, none];
        let mut lists: Vec<u32> = Vec::new();
        let mut known: HashMap<Vec<u32>, u32> = HashMap::new();
        let mut ports = vec![UNASSIGNED; 2 * NUMBERS].into_boxed_slice();
        for port in PortSet::full().iter() {
            let mut entries: Vec<(Rank, u32)> = self
                .chain(port)
                .map(|(_, link)| (link.rank, link.row))
                .collect();
            if entries.is_empty() {
                if self.reserved.contains(port) {
                    ports[port.index()] = RESERVED;
                }
                continue;
            }
            // Stable: within a rank the order of the source stays.
            entries.sort_by_key(|&(rank, _)| rank);
            let list: Vec<u32> = entries.into_iter().map(|(_, row)| row).collect();
            ports[port.index()] = *known.entry(list).or_insert_with_key(|list| {
                groups.push(List {
                    start: lists.len() as u32,
                    len: list.len() as u32,
                });
                lists.extend(list);
                (groups.len() - 1) as u32
            });
        }
        Table {
            text,
            rows: self.rows.into(),
            lists: lists.into(),
            groups: groups.into(),
            ports,
        }
    }
}
