//! The listeners of the host's other network namespaces, where the configuration asks for them.

use std::sync::Arc;

use crate::config::{self, Config};
use crate::log::Chain;
use crate::namespaces::{Namespaces, Reading};
use crate::snapshot;
use crate::sockets::SocketTable;

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

    /// What listens in them, by the value of the label `netns`; and how many of the host's namespaces are covered, which
    /// is not known where nobody asked or none could be looked for.
    pub(super) fn read(
        &mut self,
        config: &Config,
    ) -> (Option<snapshot::Namespaces>, Vec<(Arc<str>, SocketTable)>) {
        if config.namespaces == config::Namespaces::Own {
            return (None, Vec::new());
        }
        match self.namespaces.read() {
            Ok(reading) => {
                self.explain(&reading);
                // The exporter's own is one more, and is read.
                let covered = snapshot::Namespaces {
                    seen: reading.seen as u64 + 1,
                    read: reading.read as u64 + 1,
                };
                let tables = reading.tables.into_iter();
                let named = tables.map(|(namespace, table)| (namespace.to_string().into(), table));
                (Some(covered), named.collect())
            }
            Err(error) => {
                if !std::mem::replace(&mut self.told, true) {
                    tracing::error!(
                        error = %Chain(&error),
                        "network namespaces cannot be read; the listeners of others are absent"
                    );
                }
                (None, Vec::new())
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
                "some network namespaces cannot be read; their listeners are absent"
            );
        }
    }
}
