//! Where scrapes are answered.

use std::fmt;
use std::str::FromStr;

/// The path of the metrics: absolute, and none that serves something else.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TelemetryPath(String);

impl TelemetryPath {
    /// The path, beginning with `/`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for TelemetryPath {
    fn default() -> Self {
        Self("/metrics".to_owned())
    }
}

impl fmt::Display for TelemetryPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// Paths that serve something else, now or in what the design has promised; a path below one of them is taken too.
const TAKEN_PATHS: [&str; 5] = ["/-", "/api", "/map", "/probe", "/config"];

impl FromStr for TelemetryPath {
    type Err = BadPath;

    fn from_str(text: &str) -> Result<Self, BadPath> {
        check(text).map_err(BadPath)?;
        Ok(Self(text.to_owned()))
    }
}

/// What is wrong with a telemetry path, and how it is written right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadPath(String);

fn check(text: &str) -> Result<(), String> {
    // First, so that no other message repeats what a terminal would obey.
    if let Some(bad) = text
        .chars()
        .find(|&c| !(c.is_ascii_alphanumeric() || "/-._~".contains(c)))
    {
        return Err(format!(
            "{bad:?} cannot stand in the path: use letters, digits and - . _ ~"
        ));
    }
    let Some(rest) = text.strip_prefix('/') else {
        return Err(format!("a path begins with a slash: /{text}"));
    };
    if rest.is_empty() {
        return Err("/ is the landing page: choose another path, such as /metrics".to_owned());
    }
    if text
        .split('/')
        .skip(1)
        .any(|part| matches!(part, "" | "." | ".."))
    {
        return Err("a path has no empty part, and no . or .. for a part".to_owned());
    }
    let taken = TAKEN_PATHS.into_iter().find(|taken| {
        text.strip_prefix(taken)
            .is_some_and(|below| below.is_empty() || below.starts_with('/'))
    });
    match taken {
        Some(taken) => Err(format!(
            "{taken} serves something else: choose another path, such as /metrics"
        )),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_bad_path_reaches_a_terminal_unescaped() {
        for text in ["metrics\u{1b}[2J", "/metrics\u{1b}[2J"] {
            let error = text.parse::<TelemetryPath>().unwrap_err().to_string();
            assert!(!error.contains('\u{1b}'), "{error}");
        }
    }
}
