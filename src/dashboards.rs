//! The dashboards, rules and provisioning files in the binary, and how they are written out.
//!
//! Their source is the directory dashboards/ of the repository; a test holds the table here against it. Nothing here knows
//! what a dashboard shows.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// A file as it is in the binary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Artefact {
    /// Its path below the directory written to, with `/` between the parts.
    pub path: &'static str,
    /// Its text.
    pub text: &'static str,
}

macro_rules! artefacts {
    ($($path:literal),+ $(,)?) => {
        &[$(Artefact { path: $path, text: include_str!(concat!("../dashboards/", $path)) }),+]
    };
}

/// Every file there is to write, in the order in which they are written.
pub static ARTEFACTS: &[Artefact] = artefacts![
    "README.md",
    "overview.json",
    "dark-space.json",
    "port.json",
    "exporter.json",
    "fleet.json",
    "library/overview.json",
    "library/dark-space.json",
    "library/port.json",
    "library/exporter.json",
    "library/fleet.json",
    "prometheus/darkport.rules.yml",
    "prometheus/darkport.rules.test.yml",
    "prometheus/darkport.alerts.yml",
    "prometheus/darkport.alerts.test.yml",
    "provisioning/dashboards/darkport.yml",
    "provisioning/datasources/darkport.yml",
];

/// Why the files were not written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Files are there that differ: somebody's own, changed ones, or those of another version. None was written.
    #[error(
        "{} already there and different: {}; nothing was written. Choose another directory, or overwrite with --force",
        match .0.len() { 1 => "a file is", _ => "files are" },
        .0.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
    )]
    Different(Vec<PathBuf>),
    /// A directory cannot be made.
    #[error("cannot create directory {}", path.display())]
    Create {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file that is there already cannot be read, to see whether it is the same.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// What became of the files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Those that were written, in their order.
    pub written: Vec<PathBuf>,
    /// Those that were there already and the same, and were not touched.
    pub unchanged: Vec<PathBuf>,
}

/// Writes all [`ARTEFACTS`] below `directory`, which is made if it is not there. Files of other names stay as they are.
///
/// # Errors
/// When files are there that differ, unless `force` says to overwrite them: then none is written. When something cannot be
/// read or written.
pub fn write(directory: &Path, force: bool) -> Result<Written, Error> {
    let mut result = Written::default();
    let mut pending = Vec::new();
    let mut different = Vec::new();
    for artefact in ARTEFACTS {
        let path = directory.join(artefact.path);
        match found(&path)? {
            Some(text) if text == artefact.text.as_bytes() => result.unchanged.push(path),
            Some(_) if !force => different.push(path),
            _ => pending.push((path, artefact)),
        }
    }
    if !different.is_empty() {
        return Err(Error::Different(different));
    }
    for (path, artefact) in pending {
        replace(&path, artefact.text)?;
        result.written.push(path);
    }
    Ok(result)
}

fn found(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        // A parent that is a file: making the directory says so.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            Ok(None)
        }
        Err(source) => Err(Error::Read {
            path: path.to_owned(),
            source,
        }),
    }
}

/// Writes beside the file and renames, so that a Grafana or Prometheus that looks meanwhile never sees half of it.
fn replace(path: &Path, text: &str) -> Result<(), Error> {
    let parent = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(parent).map_err(|source| Error::Create {
        path: parent.to_owned(),
        source,
    })?;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let beside = path.with_file_name(name);
    let written = File::create(&beside)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .and_then(|()| fs::rename(&beside, path));
    written.map_err(|source| {
        // What is left of it helps nobody; that it cannot be removed adds nothing to the error.
        let _ = fs::remove_file(&beside);
        Error::Write {
            path: path.to_owned(),
            source,
        }
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn files_below(directory: &Path, prefix: &str, found: &mut BTreeSet<String>) {
        for entry in fs::read_dir(directory).unwrap() {
            let entry = entry.unwrap();
            let path = format!("{prefix}{}", entry.file_name().into_string().unwrap());
            if entry.file_type().unwrap().is_dir() {
                files_below(&entry.path(), &format!("{path}/"), found);
            } else {
                found.insert(path);
            }
        }
    }

    #[test]
    fn every_file_of_the_directory_is_in_the_table() {
        let mut there = BTreeSet::new();
        files_below(
            &Path::new(env!("CARGO_MANIFEST_DIR")).join("dashboards"),
            "",
            &mut there,
        );
        // What makes the dashboards, and what hands them to Kubernetes, is not for users.
        there.retain(|path| {
            path != "generate" && path != "kustomization.yaml" && !path.starts_with("panels/")
        });
        let here: BTreeSet<_> = ARTEFACTS
            .iter()
            .map(|artefact| artefact.path.to_owned())
            .collect();
        assert_eq!(here, there);
        assert_eq!(here.len(), ARTEFACTS.len(), "none twice");
    }

    #[test]
    fn all_is_written_once_and_then_left_alone() {
        let scratch = tempfile::tempdir().unwrap();
        let directory = scratch.path().join("a/b");
        let first = write(&directory, false).unwrap();
        assert_eq!(first.written.len(), ARTEFACTS.len());
        let mut there = BTreeSet::new();
        files_below(&directory, "", &mut there);
        assert_eq!(there.len(), ARTEFACTS.len(), "nothing beside is left");
        for artefact in ARTEFACTS {
            let text = fs::read_to_string(directory.join(artefact.path)).unwrap();
            assert_eq!(text, artefact.text, "{}", artefact.path);
        }
        let second = write(&directory, false).unwrap();
        assert!(second.written.is_empty());
        assert_eq!(second.unchanged.len(), ARTEFACTS.len());
    }

    #[test]
    fn a_file_that_differs_is_overwritten_only_by_force() {
        let scratch = tempfile::tempdir().unwrap();
        let changed = scratch.path().join("port.json");
        fs::write(&changed, "mine").unwrap();
        fs::write(scratch.path().join("other.json"), "other").unwrap();
        let error = write(scratch.path(), false).unwrap_err();
        assert!(
            matches!(&error, Error::Different(paths) if paths == std::slice::from_ref(&changed))
        );
        let message = error.to_string();
        assert!(
            message.contains("port.json") && message.contains("--force"),
            "{message}"
        );
        assert!(
            !scratch.path().join("overview.json").exists(),
            "nothing was written"
        );
        write(scratch.path(), true).unwrap();
        assert_ne!(fs::read_to_string(&changed).unwrap(), "mine");
        assert_eq!(
            fs::read_to_string(scratch.path().join("other.json")).unwrap(),
            "other"
        );
    }

    #[test]
    fn what_cannot_be_made_is_named() {
        let scratch = tempfile::tempdir().unwrap();
        let file = scratch.path().join("file");
        fs::write(&file, "").unwrap();
        let message = write(&file, false).unwrap_err().to_string();
        assert!(
            message.contains("cannot create directory") && message.contains("file"),
            "{message}"
        );
        fs::create_dir_all(scratch.path().join("overview.json")).unwrap();
        let message = write(scratch.path(), false).unwrap_err().to_string();
        assert!(
            message.contains("cannot read") && message.contains("overview.json"),
            "{message}"
        );
    }
}
