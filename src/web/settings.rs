//! The web configuration: a file in exporter-toolkit's format → [`Settings`], ready for use.
//!
//! Everything the file names is read with it, so a `Settings` needs no file any more. Keys are strict, and every problem is
//! found in one run, as in the exporter's own configuration. Where what the format can ask for is not to be had, or would
//! leave the exporter open in a way that was hardly meant, the file is refused and the message says so.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hyper::header::{self, HeaderName, HeaderValue};
use tokio_rustls::rustls::ServerConfig;

use crate::yaml::{self, Error, Field, Mapping, Problems, given, quoted};

mod clients;
mod file;
mod names;
mod pem;
mod sources;
mod tls;
mod users;

pub use file::SettingsFile;
pub(super) use users::{Stored, Users};

pub(super) use sources::Sources;

/// What a web configuration asks for.
#[derive(Debug, Default)]
pub struct Settings {
    /// How TLS is spoken; `None`: it is not.
    pub(super) tls: Option<Arc<ServerConfig>>,
    /// What is added to every answer.
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    /// Who may ask; nobody named: everybody may.
    pub(super) users: Users,
    /// How often may be asked, all clients together.
    pub(super) rate: Option<Rate>,
    /// The file as YAML, without its secrets.
    text: String,
}

/// A token bucket's measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rate {
    /// In which time one more request may come; not zero.
    pub(super) interval: Duration,
    /// How many may come at once; not zero.
    pub(super) burst: usize,
}

impl Settings {
    /// Reads a file and what it names. Paths in it are relative to the directory it lies in.
    ///
    /// # Errors
    /// When the file cannot be read or is refused; then with every problem in it.
    pub fn load(path: &Path) -> Result<Self, Error> {
        Self::read(path).1
    }

    /// As [`Settings::load`], with what was read on the way.
    fn read(path: &Path) -> (Sources, Result<Self, Error>) {
        let mut sources = Sources::beside(path);
        let settings = sources
            .text(path)
            .and_then(|text| Self::parse(&path.display().to_string(), &text, &mut sources));
        (sources, settings)
    }

    pub(super) fn parse(source: &str, text: &str, sources: &mut Sources) -> Result<Self, Error> {
        yaml::decode(source, text, |root, problems| match root {
            Some(root) if !root.is_null() => settings(root, sources, problems),
            // As a file in which everything is commented out.
            _ => Some(Self::default()),
        })
    }

    /// Whether TLS is spoken.
    #[must_use]
    pub const fn has_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// How many users there are.
    #[must_use]
    pub fn users(&self) -> usize {
        self.users.len()
    }

    /// What is in use, as YAML; in place of each secret stands `<secret>`.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }
}

fn is_secret(key: &str) -> bool {
    key == "tls_server_config.key" || key.starts_with("basic_auth_users.")
}

fn settings(root: &Field<'_>, sources: &mut Sources, problems: &mut Problems) -> Option<Settings> {
    const KEYS: [&str; 4] = [
        "tls_server_config",
        "http_server_config",
        "basic_auth_users",
        "rate_limit",
    ];
    let map = root.mapping(&KEYS, problems)?;
    let http = present(&map, "http_server_config")
        .map_or_else(|| Some(Http::default()), |field| http(field, problems));
    let has_http2 = http.as_ref().is_none_or(|http| http.has_http2);
    let tls = given(
        present(&map, "tls_server_config")
            .map(|field| tls::server_config(field, has_http2, sources, problems)),
    );
    let users = present(&map, "basic_auth_users").map_or_else(
        || Some(Users::default()),
        |field| users::users(field, problems),
    );
    let rate = given(present(&map, "rate_limit").map(|field| rate(field, problems)));
    Some(Settings {
        tls: tls?.flatten(),
        headers: http?.headers,
        users: users?,
        rate: rate?.flatten(),
        text: root.render(&is_secret),
    })
}

/// The value of a key, where one is written behind it: a key without value is as none.
fn present<'m, 'a>(map: &'m Mapping<'a>, key: &str) -> Option<&'m Field<'a>> {
    map.field(key).filter(|field| !field.is_null())
}

/// The value of a key that says something.
fn said<'m, 'a>(map: &'m Mapping<'a>, key: &str) -> Option<&'m Field<'a>> {
    map.field(key).filter(|field| !field.is_blank())
}

/// The items of a list, none of which may be wrong.
fn each<T>(
    field: &Field<'_>,
    wanted: &str,
    problems: &mut Problems,
    mut read: impl FnMut(&Field<'_>, &mut Problems) -> Option<T>,
) -> Option<Vec<T>> {
    let items = field.list(wanted, problems)?;
    let all = items.len();
    let read: Vec<T> = items.filter_map(|item| read(&item, problems)).collect();
    (read.len() == all).then_some(read)
}

struct Http {
    has_http2: bool,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Default for Http {
    fn default() -> Self {
        Self {
            has_http2: true,
            headers: Vec::new(),
        }
    }
}

fn http(field: &Field<'_>, problems: &mut Problems) -> Option<Http> {
    let map = field.mapping(&["http2", "headers"], problems)?;
    let has_http2 = present(&map, "http2").map_or(Some(true), |field| field.claim(problems));
    let headers =
        present(&map, "headers").map_or_else(|| Some(Vec::new()), |field| headers(field, problems));
    Some(Http {
        has_http2: has_http2?,
        headers: headers?,
    })
}

/// The headers that may be set, by their keys, with the values they may have; none: any.
const HEADERS: [(&str, HeaderName, &[&str]); 5] = [
    (
        "Content-Security-Policy",
        header::CONTENT_SECURITY_POLICY,
        &[],
    ),
    (
        "X-Frame-Options",
        header::X_FRAME_OPTIONS,
        &["deny", "sameorigin"],
    ),
    (
        "X-Content-Type-Options",
        header::X_CONTENT_TYPE_OPTIONS,
        &["nosniff"],
    ),
    ("X-XSS-Protection", header::X_XSS_PROTECTION, &[]),
    (
        "Strict-Transport-Security",
        header::STRICT_TRANSPORT_SECURITY,
        &[],
    ),
];

fn headers(field: &Field<'_>, problems: &mut Problems) -> Option<Vec<(HeaderName, HeaderValue)>> {
    let map = field.mapping(&HEADERS.map(|(key, ..)| key), problems)?;
    let mut headers = Vec::new();
    for (key, name, allowed) in HEADERS {
        let Some(field) = present(&map, key) else {
            continue;
        };
        let Some(text) = field.text("the header's value", problems) else {
            continue;
        };
        if !allowed.is_empty() && !allowed.contains(&text) {
            let message = format!("{} is not {}", quoted(text), allowed.join(" or "));
            field.refuse(problems, message);
        } else if text.is_empty() {
            // Unset.
        } else if let Ok(value) = HeaderValue::from_str(text) {
            headers.push((name, value));
        } else {
            let message = format!(
                "{} cannot be sent: a header is one line of text",
                quoted(text)
            );
            field.refuse(problems, message);
        }
    }
    Some(headers)
}

fn rate(field: &Field<'_>, problems: &mut Problems) -> Option<Option<Rate>> {
    let map = field.mapping(&["interval", "burst"], problems)?;
    let interval = present(&map, "interval").map_or(Some(Duration::ZERO), |field| {
        let text = field.text(DURATION, problems)?;
        let interval = go_duration(text);
        if interval.is_none() {
            field.refuse(problems, format!("{} is not {DURATION}", quoted(text)));
        }
        interval
    });
    let burst = given(present(&map, "burst").map(|field| field.number(1_000_000, problems)));
    let (interval, burst) = (interval?, burst?);
    if interval.is_zero() {
        return Some(None);
    }
    let Some(burst) = burst.filter(|&burst| burst > 0) else {
        let message = "without a burst of 1 at least every request would be refused: write how many may come at once";
        match map.field("burst") {
            Some(burst) => burst.refuse(problems, message),
            None => field.refuse_missing(problems, "burst", message),
        }
        return None;
    };
    Some(Some(Rate { interval, burst }))
}

const DURATION: &str = "a duration such as 1s, 500ms or 1m30s";

/// A duration as Go's `time.ParseDuration` reads it, but not below zero: numbers with decimals, each with its unit.
fn go_duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    let mut sum = Duration::ZERO;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .filter(|&digits| digits > 0)?;
        let (number, tail) = rest.split_at(digits);
        let letters = tail
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(letters);
        let seconds = match unit {
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        let number: f64 = number.parse().ok()?;
        let part = Duration::try_from_secs_f64(number * seconds).ok()?;
        sum = sum.checked_add(part)?;
        rest = tail;
    }
    Some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_reads_them() {
        let seconds = |text| go_duration(text).map(|duration| duration.as_secs_f64());
        assert_eq!(seconds("0"), Some(0.0));
        assert_eq!(seconds("1s"), Some(1.0));
        assert_eq!(seconds("+1m30.5s"), Some(90.5));
        assert_eq!(seconds("250us"), Some(0.00025));
        assert_eq!(seconds(".5h"), Some(1800.0));
        for bad in [
            "",
            "+",
            "1",
            "s",
            "1 s",
            "-1s",
            "1d",
            "1s1",
            ".s",
            "1..5s",
            "1e3s",
            "99999999999999999999h",
        ] {
            assert_eq!(go_duration(bad), None, "{bad}");
        }
    }
}
