//! The configuration: a YAML file → [`Config`], valid by construction.
//!
//! Every problem of a file is found in one run and named with file, line, column, key and what would be right. It reads
//! files and nothing else: it knows no sockets, no metrics and no HTTP.

use std::path::Path;
use std::sync::Arc;

use crate::port::Protocol;
use crate::probe::Settings;
use crate::registry::Registry;
use crate::watch::{self, Watch, WatchSet};
use crate::yaml::{self, Field, Mapping, Place, Problems, quoted};

mod entry;
mod probe;
mod rules;

pub use crate::yaml::{Error, MAX_FILE_BYTES, Problem, Refusal};

use entry::Entry;

/// The embedded default: a working example that explains every key.
pub const DEFAULT_TEXT: &str = include_str!("default.yml");

/// The series that one port of a dense entry has, by [`Protocol::index`].
const SERIES_PER_PORT: [usize; Protocol::ALL.len()] = [13, 9];

/// How many series one port of a dense entry has, every tier's taken together.
#[must_use]
pub const fn series_per_port(protocol: Protocol) -> usize {
    SERIES_PER_PORT[protocol.index()]
}

/// What the exporter was told to do.
#[derive(Clone, Debug)]
pub struct Config {
    /// Which ports are watched, and who may listen there.
    pub watch: WatchSet,
    /// How much may be reported.
    pub limits: Limits,
    /// What is known of ports in general.
    pub registry: Arc<Registry>,
    /// Whose listeners are reported.
    pub namespaces: Namespaces,
    /// Who may be probed, and how; nobody by default.
    pub probe: Settings,
    /// Where this comes from: the path of the file as it was given, or `embedded default`.
    pub source: String,
    /// The same as YAML, without comments.
    pub text: Arc<str>,
}

/// How much may be reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Series of watched ports. Dense entries that would need more are refused when the file is read.
    pub series: usize,
    /// Listeners, one series each.
    pub listeners: usize,
}

impl Limits {
    /// The largest value of either.
    const MAX: usize = 10_000_000;
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            series: 20_000,
            listeners: 500,
        }
    }
}

/// Whose listeners are reported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Namespaces {
    /// Those of the exporter's own network namespace.
    #[default]
    Own,
    /// Those of every network namespace of the host.
    All,
}

impl Config {
    /// Reads a file. Paths in it are relative to the directory it lies in.
    ///
    /// # Errors
    /// When the file cannot be read or is not a valid configuration; then with every problem in it.
    pub fn load(path: &Path) -> Result<Self, Error> {
        let text = yaml::read(path)?;
        let directory = path.parent().unwrap_or(Path::new(""));
        Self::parse(&path.display().to_string(), &text, directory)
    }

    /// The embedded default.
    #[must_use]
    pub fn embedded() -> Self {
        Self::parse("embedded default", DEFAULT_TEXT, Path::new(""))
            .expect("a test holds the embedded default to be valid")
    }

    /// Reads a text. `source` stands before each problem; paths in the text are relative to `directory`.
    ///
    /// # Errors
    /// [`Error::Refused`], with every problem in the text.
    pub fn parse(source: &str, text: &str, directory: &Path) -> Result<Self, Error> {
        yaml::decode(source, text, |root, problems| {
            let Some(root) = root else {
                problems.add(Place::START, "", EMPTY);
                return None;
            };
            config(root, source, directory, problems)
        })
    }
}

const EMPTY: &str = "there is no configuration here: --config.default prints one to start from";

fn config(
    root: &Field<'_>,
    source: &str,
    directory: &Path,
    problems: &mut Problems,
) -> Option<Config> {
    const KEYS: [&str; 5] = ["watch", "limits", "registry", "namespaces", "probe"];
    if root.is_null() {
        root.refuse(problems, EMPTY);
        return None;
    }
    let map = root.mapping(&KEYS, problems)?;
    let namespaces = map
        .field("namespaces")
        .map_or(Some(Namespaces::default()), |f| {
            f.choice(
                &[("own", Namespaces::Own), ("all", Namespaces::All)],
                problems,
            )
        });
    let limits = map
        .field("limits")
        .map_or(Some(Limits::default()), |f| limits(f, problems));
    let registry = map.field("registry").map_or_else(
        || Some(Registry::embedded()),
        |f| registry(f, directory, problems),
    );
    let watch = watch_set(root, &map, registry.as_deref(), problems);
    if let (Some(watch), Some(limits)) = (&watch, &limits) {
        check_series(root, &map, watch, limits.series, problems);
    }
    let probe = map.field("probe").map_or_else(
        || Some(Settings::default()),
        |f| {
            probe::settings(
                f,
                watch.as_ref(),
                limits.map(|limits| limits.series),
                problems,
            )
        },
    );
    Some(Config {
        watch: watch?,
        limits: limits?,
        registry: registry?,
        namespaces: namespaces?,
        probe: probe?,
        source: source.to_owned(),
        // There is no secret in it.
        text: root.render(&|_| false).into(),
    })
}

fn limits(field: &Field<'_>, problems: &mut Problems) -> Option<Limits> {
    let map = field.mapping(&["series", "listeners"], problems)?;
    let defaults = Limits::default();
    let mut limit = |key, default| match map.field(key) {
        Some(field) => field.number(Limits::MAX, problems),
        None => Some(default),
    };
    let series = limit("series", defaults.series);
    let listeners = limit("listeners", defaults.listeners);
    Some(Limits {
        series: series?,
        listeners: listeners?,
    })
}

fn registry(field: &Field<'_>, directory: &Path, problems: &mut Problems) -> Option<Arc<Registry>> {
    let map = field.mapping(&["iana_csv"], problems)?;
    let Some(field) = map.field("iana_csv") else {
        return Some(Registry::embedded());
    };
    let path = field.text("the path of IANA's CSV file", problems)?;
    if path.is_empty() {
        field.refuse(problems, "the path is empty: write that of IANA's CSV file");
        return None;
    }
    match Registry::from_iana_csv(&directory.join(path)) {
        Ok(registry) => Some(Arc::new(registry)),
        Err(error) => {
            field.refuse(problems, with_causes(&error));
            None
        }
    }
}

/// An error and everything that led to it, in one line.
fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let text = causes
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ");
    text.lines().map(str::trim).collect::<Vec<_>>().join("; ")
}

/// Reads the list of entries and shares the ports out. An empty list is allowed, for the sums over the whole space are
/// worth having alone; but it must be written, so that a file that lost its list does not pass for one.
fn watch_set(
    root: &Field<'_>,
    map: &Mapping<'_>,
    registry: Option<&Registry>,
    problems: &mut Problems,
) -> Option<WatchSet> {
    let Some(field) = map.field("watch") else {
        root.refuse_missing(
            problems,
            "watch",
            "missing: list what to watch, or write watch: [] to watch no port of its own",
        );
        return None;
    };
    let items = field.list("a list of watch entries", problems)?;
    if items.len() > WatchSet::MAX_ENTRIES {
        let error = watch::Error::TooManyEntries(items.len());
        field.refuse(problems, format!("{error}: join some of them"));
        return None;
    }
    let all = items.len();
    let entries = entry::decode_all(items, registry, problems);
    let (fields, watches): (Vec<Field<'_>>, Vec<Watch>) = entries
        .into_iter()
        .map(|Entry { field, watch }| (field, watch))
        .unzip();
    let names: Vec<String> = watches.iter().map(|watch| watch.name.clone()).collect();
    match WatchSet::new(watches) {
        Ok(set) => (fields.len() == all).then_some(set),
        Err(watch::Error::Shadowed(shadowed)) => {
            for watch::Shadowed { entry, owners } in shadowed {
                let owners: Vec<String> = owners.iter().map(|&o| quoted(&names[o])).collect();
                let message = format!(
                    "every port of watch {} is already owned by {}: the first entry that names a port owns it",
                    quoted(&names[entry]),
                    listed(&owners)
                );
                fields[entry].refuse(problems, message);
            }
            None
        }
        Err(error @ watch::Error::TooManyEntries(_)) => {
            field.refuse(problems, error.to_string());
            None
        }
    }
}

/// The first few of some words.
fn listed(words: &[String]) -> String {
    const SHOWN: usize = 3;
    match words.len().checked_sub(SHOWN) {
        None | Some(0) => words.join(", "),
        Some(more) => format!("{} and {more} more", words[..SHOWN].join(", ")),
    }
}

fn check_series(
    root: &Field<'_>,
    map: &Mapping<'_>,
    watch: &WatchSet,
    limit: usize,
    problems: &mut Problems,
) {
    let needed: usize = watch
        .dense_ports()
        .map(|p| series_per_port(p.protocol))
        .sum();
    if needed <= limit {
        return;
    }
    let largest = watch
        .entries()
        .iter()
        .filter(|entry| entry.series == watch::Series::Dense)
        .max_by_key(|entry| entry.ports.len());
    let largest = largest.map_or_else(String::new, |entry| {
        format!(
            " to the largest ({}, {} ports)",
            quoted(&entry.name),
            entry.ports.len()
        )
    });
    let message = format!(
        "the dense watch entries need {needed} series, the limit is {limit}: watch fewer ports, give series: \
         active{largest}, or raise limits.series to {needed}"
    );
    let (place, key) = map
        .field("limits")
        .and_then(|limits| limits.child("series"))
        .or_else(|| map.field("watch").cloned())
        .map_or_else(
            || (root.place(), "limits.series".to_owned()),
            |field| (field.place(), field.key().to_owned()),
        );
    problems.add(place, &key, message);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_list_is_cut() {
        let words: Vec<String> = ["a", "b", "c", "d", "e"].map(String::from).to_vec();
        assert_eq!(listed(&words[..3]), "a, b, c");
        assert_eq!(listed(&words), "a, b, c and 2 more");
    }
}
