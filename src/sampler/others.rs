//! The listeners of the host's other network namespaces, where the configuration asks for them.

use std::collections::HashSet;
use std::sync::Arc;

use crate::config::{self, Config};
use crate::log::Chain;
use crate::namespaces::{Namespaces, Reading};
use crate::snapshot;
use crate::sockets::SocketTable;

/// How much of the other namespaces a sample covers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Coverage {
    /// Nobody asks for them.
    Unwanted,
    /// It is not known which were not read: what is not in the sample may still be there.
    Partial,
    /// All were read but those with these values of the label `netns`.
    AllBut(HashSet<Arc<str>>),
}

/// What a sample has of the other namespaces.
#[derive(Debug)]
pub(super) struct Elsewhere {
    /// How many of the host's namespaces are covered; not known where nobody asked or none could be looked for.
    pub(super) covered: Option<snapshot::Namespaces>,
    /// What listens in them, by the value of the label `netns`.
    pub(super) tables: Vec<(Arc<str>, SocketTable)>,
    pub(super) coverage: Coverage,
}

impl Elsewhere {
    const fn nothing(coverage: Coverage) -> Self {
        Self {
            covered: None,
            tables: Vec::new(),
            coverage,
        }
    }
}

/// Reads the other namespaces.
#[derive(Debug)]
pub(super) struct Others {
    namespaces: Namespaces,
    /// Whether it was told why some stay unread.
    told: bool,
}

impl Others {
    pub(super) fn new(namespaces: Namespaces) -> Self {
        Self {
            namespaces,
            told: false,
        }
    }

    /// Reads them, where the configuration asks for them. Where it does not, the thread that could is ended.
    pub(super) fn read(&mut self, config: &Config) -> Elsewhere {
        if config.namespaces == config::Namespaces::Own {
            self.namespaces.stop();
            return Elsewhere::nothing(Coverage::Unwanted);
        }
        match self.namespaces.read() {
            Ok(reading) => {
                self.explain(&reading);
                let coverage = if reading.unreadable == 0 {
                    let unread = reading.unread.iter();
                    Coverage::AllBut(unread.map(|each| each.to_string().into()).collect())
                } else {
                    Coverage::Partial
                };
                let tables = reading.tables.into_iter();
                let named = tables.map(|(namespace, table)| (namespace.to_string().into(), table));
                Elsewhere {
                    // The exporter's own is one more, and is read.
                    covered: Some(snapshot::Namespaces {
                        seen: reading.seen as u64 + 1,
                        read: reading.read as u64 + 1,
                    }),
                    tables: named.collect(),
                    coverage,
                }
            }
            Err(error) => {
                if !std::mem::replace(&mut self.told, true) {
                    tracing::error!(
                        error = %Chain(&error),
                        "network namespaces cannot be read; the listeners of others are absent"
                    );
                }
                Elsewhere::nothing(Coverage::Partial)
            }
        }
    }

    /// Says once why some namespaces stay unread.
    fn explain(&mut self, reading: &Reading) {
        let is_whole = reading.read == reading.seen && reading.unreadable == 0;
        if is_whole {
            self.told = false;
        } else if !std::mem::replace(&mut self.told, true) {
            let reason = reading.failure.as_ref().map(|(namespace, failure)| {
                format!("network namespace {namespace}: {}", Chain(failure))
            });
            tracing::warn!(
                seen = reading.seen + 1,
                read = reading.read + 1,
                processes_unreadable = reading.unreadable,
                reason,
                "some network namespaces were not read; their listeners are absent"
            );
        }
    }
}
