//! The files a web configuration is made of, and whether they are as they were.
//!
//! They are told apart by what is in them: a time stamp says too little when a file is replaced twice within its grain.

use std::path::{Path, PathBuf};

use ring::digest::{SHA256, digest};

use crate::yaml::{self, Error};

/// What was in a file, or why it could not be read.
type Seen = [u8; 32];

/// The files that were read for one configuration.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::web) struct Sources {
    directory: PathBuf,
    read: Vec<(PathBuf, Seen)>,
}

impl Sources {
    /// None yet; paths are relative to the directory in which this file lies.
    pub(in crate::web) fn beside(file: &Path) -> Self {
        Self {
            directory: file.parent().unwrap_or(Path::new("")).to_owned(),
            read: Vec::new(),
        }
    }

    /// The text of a file whose path is not relative to the directory.
    pub(super) fn text(&mut self, path: &Path) -> Result<String, Error> {
        self.note(path.to_owned())
            .and_then(|bytes| yaml::text_of(path, bytes))
    }

    /// What is in a file that is named in the configuration.
    pub(super) fn bytes(&mut self, path: &str) -> Result<Vec<u8>, Error> {
        self.note(self.directory.join(path))
    }

    /// Whether every file is as it was when it was read.
    pub(super) fn are_unchanged(&self) -> bool {
        self.read
            .iter()
            .all(|(path, before)| seen(&yaml::read_bytes(path)) == *before)
    }

    fn note(&mut self, path: PathBuf) -> Result<Vec<u8>, Error> {
        let read = yaml::read_bytes(&path);
        self.read.push((path, seen(&read)));
        read
    }
}

fn seen(read: &Result<Vec<u8>, Error>) -> Seen {
    let hash = match read {
        Ok(bytes) => digest(&SHA256, bytes),
        Err(error) => digest(&SHA256, format!("\0{error}").as_bytes()),
    };
    let mut seen = Seen::default();
    seen.copy_from_slice(hash.as_ref());
    seen
}
