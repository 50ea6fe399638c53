//! What can be wrong with a file that is to be read as IANA's registry, in words for whoever named the file.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use super::iana_csv::MAX_FILE;

/// What keeps a file from being read as IANA's registry.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be opened or read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A directory, a device, a pipe.
    #[error("{} is not a regular file: name IANA's service-names-port-numbers.csv", path.display())]
    NotAFile {
        /// What was named.
        path: PathBuf,
    },
    /// More bytes than such a list has.
    #[error(
        "{} is larger than {} MiB: IANA's service-names-port-numbers.csv has little more than one",
        path.display(), MAX_FILE >> 20
    )]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// The first row lacks columns.
    #[error(
        "{}, line 1: no column {}: the first row must be the header of IANA's service-names-port-numbers.csv",
        path.display(), missing.join(", ")
    )]
    Header {
        /// The file.
        path: PathBuf,
        /// The columns that are not there.
        missing: Vec<&'static str>,
    },
    /// Rows that make no sense, the first ten.
    #[error("{}", listed(path, problems, *more))]
    Rows {
        /// The file.
        path: PathBuf,
        /// What is wrong, in the order of the file.
        problems: Vec<Problem>,
        /// Whether reading stopped before the end of the file.
        more: bool,
    },
    /// Not one TCP or UDP port is assigned.
    #[error(
        "{} assigns no TCP or UDP port: it must be the whole of IANA's service-names-port-numbers.csv",
        path.display()
    )]
    Empty {
        /// The file.
        path: PathBuf,
    },
}

/// What is wrong with one row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The line the row begins on, counted from 1.
    pub line: u64,
    /// The column, where it is one that is wrong.
    pub column: Option<&'static str>,
    /// What is wrong, and what would be right.
    pub what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: ", self.line)?;
        if let Some(column) = self.column {
            write!(f, "{column}: ")?;
        }
        f.write_str(&self.what)
    }
}

fn listed(path: &Path, problems: &[Problem], more: bool) -> String {
    let mut lines: Vec<String> = problems
        .iter()
        .map(|problem| format!("{}, {problem}", path.display()))
        .collect();
    if more {
        lines.push(format!(
            "{}: reading stopped here; is this IANA's service-names-port-numbers.csv?",
            path.display()
        ));
    }
    lines.join("\n")
}
