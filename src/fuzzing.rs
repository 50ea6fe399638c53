//! What the fuzzers call: bytes in, nothing out, and a panic where something that always holds does not.
//!
//! Is there only where cargo-fuzz builds (`cfg(fuzzing)`, see `fuzz/`) and in the tests, which run everything in
//! `fuzz/corpus` through the same functions. Each room that reads something from outside has a function `fuzz` beside what
//! is private to it; here they have names.

use std::str;

/// What is called with any bytes at all.
pub type Target = fn(&[u8]);

/// The targets by name: `fuzz/fuzz_targets` has a program, and `fuzz/corpus` a directory, for each.
pub const TARGETS: [(&str, Target); 10] = [
    ("certificate", crate::web::fuzzing::certificate),
    ("config", config),
    ("destroyed", crate::counts::netlink::fuzz),
    ("headers", crate::web::fuzzing::headers),
    ("http", crate::web::fuzzing::http),
    ("iana_csv", crate::registry::fuzz),
    ("proc", proc),
    ("routes", crate::counts::kernel::fuzz),
    ("sockets", crate::sockets::netlink::fuzz),
    ("text", text),
];

/// The target of this name.
#[must_use]
pub fn target(name: &str) -> Target {
    let found = TARGETS.into_iter().find(|(other, _)| *other == name);
    found
        .expect("a test holds the programs against the table")
        .1
}

/// The configuration: what is accepted is accepted again as it is shown, and means the same; what is refused is refused in
/// words a terminal survives.
fn config(bytes: &[u8]) {
    use crate::config::Config;

    let Ok(text) = str::from_utf8(bytes) else {
        return;
    };
    let nowhere = std::path::Path::new("/nonexistent");
    match Config::parse("fuzz.yml", text, nowhere) {
        Ok(config) => {
            let again = Config::parse("shown.yml", &config.text, nowhere).unwrap_or_else(|error| {
                panic!("what is shown is refused: {error}\n{}", config.text)
            });
            assert_eq!(again.text, config.text);
            assert_eq!(
                format!("{:?}", again.watch),
                format!("{:?}", config.watch),
                "{}",
                config.text
            );
        }
        Err(error) => assert_printable(&error.to_string()),
    }
    crate::web::fuzzing::settings(text);
}

/// The files of procfs.
fn proc(bytes: &[u8]) {
    crate::audit::fuzz(bytes);
    crate::owners::fuzz(bytes);
    crate::sockets::procfs::fuzz(bytes);
}

/// What stands on the command line or in a configuration as one word: what is read is written as something that is read as
/// the same.
fn text(bytes: &[u8]) {
    use crate::port::{Port, Protocol, Span};
    use crate::probe::Target;
    use crate::registry::Assignment;
    use crate::web::{DashboardUrl, ListenAddress, TelemetryPath};

    let Ok(text) = str::from_utf8(bytes) else {
        return;
    };
    round_trip::<Port>(text);
    round_trip::<Protocol>(text);
    round_trip::<Span>(text);
    round_trip::<Assignment>(text);
    round_trip::<ListenAddress>(text);
    round_trip::<TelemetryPath>(text);
    round_trip::<DashboardUrl>(text);
    round_trip::<Target>(text);
    crate::args::fuzz(text);
    if let Err(error) = crate::duration::parse(text) {
        assert_printable(&error);
    }
}

fn round_trip<T>(text: &str)
where
    T: str::FromStr<Err: std::fmt::Display> + std::fmt::Display + std::fmt::Debug + PartialEq,
{
    match text.parse::<T>() {
        Ok(value) => {
            let written = value.to_string();
            match written.parse::<T>() {
                Ok(again) => assert_eq!(again, value, "{text:?} is written {written:?}"),
                Err(error) => panic!("{text:?} is written {written:?}, which is none: {error}"),
            }
        }
        Err(error) => assert_printable(&error.to_string()),
    }
}

/// Nothing that is told may move a terminal's cursor.
pub(crate) fn assert_printable(message: &str) {
    let odd = message.chars().find(|&c| c.is_control() && c != '\n');
    assert_eq!(odd, None, "{message:?}");
}

#[cfg(test)]
mod tests;
