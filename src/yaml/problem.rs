//! What is wrong with a configuration: every problem of a file, each with its place.

use std::fmt;

use super::tree::Place;

/// How many problems are kept. Who has more than this has one that repeats.
const KEPT: usize = 100;

/// Something in a configuration that is not right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
    /// The key, such as `watch[2].ports[0]`; empty where it concerns the file as a whole.
    pub key: String,
    /// What is wrong and what would be right.
    pub message: String,
}

/// Every problem of one file, by place. Displayed one a line, without a line break at the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The file, or what stands in its place.
    pub source: String,
    /// The problems, by place; not empty.
    pub problems: Vec<Problem>,
    /// How many more there are.
    pub more: usize,
}

/// The message with control characters written as escapes: it may hold what others say of a text, as globset does, and
/// goes to terminals and logs.
fn printable(message: String) -> String {
    if !message.contains(char::is_control) {
        return message;
    }
    let mut text = String::with_capacity(message.len());
    for c in message.chars() {
        if c.is_control() {
            text.extend(c.escape_debug());
        } else {
            text.push(c);
        }
    }
    text
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{}:{}:{}: ", self.source, problem.line, problem.column)?;
            if !problem.key.is_empty() {
                write!(f, "{}: ", problem.key)?;
            }
            f.write_str(&problem.message)?;
        }
        if self.more > 0 {
            write!(f, "\n{}: and {} more problems", self.source, self.more)?;
        }
        Ok(())
    }
}

/// The problems found so far.
#[derive(Debug, Default)]
pub(crate) struct Problems {
    kept: Vec<Problem>,
    more: usize,
}

impl Problems {
    pub(crate) fn add(&mut self, place: Place, key: &str, message: impl Into<String>) {
        if self.kept.len() == KEPT {
            self.more += 1;
            return;
        }
        self.kept.push(Problem {
            line: place.line,
            column: place.column,
            key: key.to_owned(),
            message: printable(message.into()),
        });
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// The problems as what a file is refused with.
    pub(crate) fn into_refusal(mut self, source: &str) -> Refusal {
        self.kept
            .sort_by_key(|problem| (problem.line, problem.column));
        Refusal {
            source: source.to_owned(),
            problems: self.kept,
            more: self.more,
        }
    }
}
