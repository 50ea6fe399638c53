//! YAML files → values, with every problem of a file found in one run.
//!
//! A file is read whole and bounded, parsed into a tree in which everything has its place, and decoded by methods that note
//! what is wrong and go on. It knows YAML and files; what a key means is for who decodes.

use std::io;
use std::path::PathBuf;

mod decode;
mod file;
mod problem;
mod render;
mod tree;

pub use problem::{Problem, Refusal};

pub(crate) use decode::{Field, Mapping, closest, given, quoted};
pub(crate) use file::{read, read_bytes, text_of};
pub(crate) use problem::Problems;
pub(crate) use tree::Place;

/// The largest file that is read, in bytes.
pub const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// Why a file gives no value. Displayed whole, its cause included, and complete without its `source()`.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file could not be read.
    #[error("{}: cannot be read: {cause}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        cause: io::Error,
    },
    /// There is a directory where a file is expected.
    #[error("{}: is a directory: name the file in it", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
    },
    /// Larger than [`MAX_FILE_BYTES`]; nothing beyond was read.
    #[error("{}: is larger than {} KiB: no configuration is", path.display(), MAX_FILE_BYTES / 1024)]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// Not text.
    #[error("{}:{line}: {what}: a configuration is YAML in UTF-8", path.display())]
    NotText {
        /// The file.
        path: PathBuf,
        /// The line of the first byte that cannot be.
        line: usize,
        /// What stands there.
        what: &'static str,
    },
    /// Text that is not a valid configuration.
    #[error("{0}")]
    Refused(Refusal),
}

/// Decodes a text; `source` stands before each problem. `decode` gets `None` where there is no document, and must note a
/// problem for each value it does not give.
///
/// # Errors
/// [`Error::Refused`], with every problem in the text.
pub(crate) fn decode<T>(
    source: &str,
    text: &str,
    decode: impl FnOnce(Option<&Field<'_>>, &mut Problems) -> Option<T>,
) -> Result<T, Error> {
    let mut problems = Problems::default();
    let value = match tree::parse(text) {
        Ok(node) => decode(node.as_ref().map(Field::root).as_ref(), &mut problems),
        Err(fault) => {
            problems.add(fault.place, "", fault.message);
            None
        }
    };
    if value.is_none() && problems.is_empty() {
        problems.add(Place::START, "", "this is not a configuration");
    }
    match value {
        Some(value) if problems.is_empty() => Ok(value),
        _ => Err(Error::Refused(problems.into_refusal(source))),
    }
}
