//! From the tree to values: what every part of a configuration is read with.
//!
//! A method that finds something wrong notes it and answers `None`; whoever called goes on with the rest, so that one run
//! finds every problem.

use std::collections::HashMap;

use super::problem::Problems;
use super::tree::{Node, Place, Value};

/// A value with the key that leads to it.
#[derive(Clone, Debug)]
pub(crate) struct Field<'a> {
    node: &'a Node,
    key: String,
}

impl<'a> Field<'a> {
    /// The whole document.
    pub(crate) const fn root(node: &'a Node) -> Self {
        Self {
            node,
            key: String::new(),
        }
    }

    pub(crate) const fn place(&self) -> Place {
        self.node.place
    }

    pub(crate) fn key(&self) -> &str {
        &self.key
    }

    pub(crate) const fn is_null(&self) -> bool {
        matches!(self.node.value, Value::Null)
    }

    /// Whether this is `{}`.
    pub(crate) fn is_empty_mapping(&self) -> bool {
        matches!(&self.node.value, Value::Mapping(pairs) if pairs.is_empty())
    }

    /// The node itself.
    pub(super) const fn node(&self) -> &'a Node {
        self.node
    }

    /// Whether nothing is said: no value, an empty text, an empty list or mapping.
    pub(crate) fn is_blank(&self) -> bool {
        match &self.node.value {
            Value::Null => true,
            Value::Text(text) => text.is_empty(),
            Value::List(items) => items.is_empty(),
            Value::Mapping(pairs) => pairs.is_empty(),
        }
    }

    /// The value of a key of this mapping, if there is one.
    pub(crate) fn child(&self, name: &str) -> Option<Self> {
        let Value::Mapping(pairs) = &self.node.value else {
            return None;
        };
        let (_, node) = pairs
            .iter()
            .find(|(key, _)| matches!(&key.value, Value::Text(text) if text == name))?;
        Some(Self {
            node,
            key: join(&self.key, name),
        })
    }

    /// Notes that something is wrong with this value.
    pub(crate) fn refuse(&self, problems: &mut Problems, message: impl Into<String>) {
        problems.add(self.node.place, &self.key, message);
    }

    /// Notes that a key of this mapping is missing.
    pub(crate) fn refuse_missing(&self, problems: &mut Problems, key: &str, message: &str) {
        problems.add(self.node.place, &join(&self.key, key), message);
    }

    /// A text; `wanted` says what belongs here.
    pub(crate) fn text(&self, wanted: &str, problems: &mut Problems) -> Option<&'a str> {
        match &self.node.value {
            Value::Text(text) => Some(text),
            _ => self.refuse_kind(wanted, problems),
        }
    }

    /// The items of a list; `wanted` says what belongs here.
    pub(crate) fn list(
        &self,
        wanted: &str,
        problems: &mut Problems,
    ) -> Option<impl ExactSizeIterator<Item = Field<'a>> + use<'a>> {
        let Value::List(items) = &self.node.value else {
            return self.refuse_kind(wanted, problems);
        };
        let key = self.key.clone();
        Some(items.iter().enumerate().map(move |(index, node)| Field {
            node,
            key: format!("{key}[{index}]"),
        }))
    }

    /// The values of a mapping. Notes every key that is not known, stands twice or is no word.
    pub(crate) fn mapping(
        &self,
        known: &[&'static str],
        problems: &mut Problems,
    ) -> Option<Mapping<'a>> {
        let Value::Mapping(pairs) = &self.node.value else {
            return self.refuse_kind(&format!("keys and values ({})", known.join(", ")), problems);
        };
        let mut fields: HashMap<&'a str, (Place, Field<'a>)> = HashMap::new();
        for (key, value) in pairs {
            let Value::Text(name) = &key.value else {
                problems.add(key.place, &self.key, "a key is a plain word");
                continue;
            };
            let path = join(&self.key, name);
            if !known.contains(&name.as_str()) {
                problems.add(key.place, &path, unknown_key(name, known));
            } else if let Some((first, _)) = fields.get(name.as_str()) {
                let message = format!("the key stands twice, first on line {}", first.line);
                problems.add(key.place, &path, message);
            } else {
                let field = Field {
                    node: value,
                    key: path,
                };
                fields.insert(name, (key.place, field));
            }
        }
        Some(Mapping { fields })
    }

    /// The values of a mapping whose keys are names of any kind. Notes every name that stands twice or is no text.
    pub(crate) fn entries(
        &self,
        wanted: &str,
        problems: &mut Problems,
    ) -> Option<Vec<(&'a str, Field<'a>)>> {
        let Value::Mapping(pairs) = &self.node.value else {
            return self.refuse_kind(wanted, problems);
        };
        let mut entries: Vec<(&'a str, Field<'a>)> = Vec::with_capacity(pairs.len());
        let mut lines: HashMap<&'a str, usize> = HashMap::new();
        for (key, node) in pairs {
            let Value::Text(name) = &key.value else {
                problems.add(key.place, &self.key, "a name is a plain text");
                continue;
            };
            let path = join(&self.key, name);
            if let Some(first) = lines.insert(name, key.place.line) {
                let message = format!("the name stands twice, first on line {first}");
                problems.add(key.place, &path, message);
                continue;
            }
            entries.push((name, Field { node, key: path }));
        }
        Some(entries)
    }

    /// `true` or `false`.
    pub(crate) fn claim(&self, problems: &mut Problems) -> Option<bool> {
        self.choice(&[("true", true), ("false", false)], problems)
    }

    /// One of a few words.
    pub(crate) fn choice<T: Copy>(
        &self,
        choices: &[(&'static str, T)],
        problems: &mut Problems,
    ) -> Option<T> {
        let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
        let text = self.text(&format!("one of {}", words.join(", ")), problems)?;
        let chosen = choices.iter().find(|(word, _)| *word == text);
        if chosen.is_none() {
            let meant = closest(text, words.iter().copied())
                .map_or_else(String::new, |word| format!(": did you mean {word}?"));
            let message = format!("{} is not one of {}{meant}", quoted(text), words.join(", "));
            self.refuse(problems, message);
        }
        chosen.map(|(_, value)| *value)
    }

    /// A whole number, 0 to `max`.
    pub(crate) fn number(&self, max: usize, problems: &mut Problems) -> Option<usize> {
        let wanted = format!("a whole number, 0 to {max}");
        let text = self.text(&wanted, problems)?;
        let number = text
            .bytes()
            .all(|b| b.is_ascii_digit())
            .then(|| text.parse().ok())
            .flatten()
            .filter(|&number| number <= max);
        if number.is_none() {
            self.refuse(problems, format!("{} is not {wanted}", quoted(text)));
        }
        number
    }

    fn refuse_kind<T>(&self, wanted: &str, problems: &mut Problems) -> Option<T> {
        let found = match &self.node.value {
            Value::Null => {
                self.refuse(problems, format!("the value is missing: write {wanted}"));
                return None;
            }
            Value::Text(text) => quoted(text),
            Value::List(_) => "a list".to_owned(),
            Value::Mapping(_) => "a mapping".to_owned(),
        };
        self.refuse(problems, format!("{found} stands here: write {wanted}"));
        None
    }
}

/// The known values of a mapping.
#[derive(Debug)]
pub(crate) struct Mapping<'a> {
    fields: HashMap<&'a str, (Place, Field<'a>)>,
}

impl<'a> Mapping<'a> {
    pub(crate) fn field(&self, key: &str) -> Option<&Field<'a>> {
        self.fields.get(key).map(|(_, field)| field)
    }
}

/// `None` for a part that was given and not understood, `Some(None)` for one that was not given.
pub(crate) fn given<T>(part: Option<Option<T>>) -> Option<Option<T>> {
    match part {
        None => Some(None),
        Some(None) => None,
        Some(understood) => Some(understood),
    }
}

/// The part of a text that a message shows, in quotes, with everything escaped that could break a line.
pub(crate) fn quoted(text: &str) -> String {
    const SHOWN: usize = 60;
    if text.chars().nth(SHOWN).is_none() {
        return format!("{text:?}");
    }
    let head: String = text.chars().take(SHOWN).collect();
    format!("{head:?}…")
}

/// The candidate a mistyped word most likely stands for, if any is near.
pub(crate) fn closest<'c>(
    given: &str,
    candidates: impl Iterator<Item = &'c str>,
) -> Option<&'c str> {
    let given = given.to_lowercase();
    let length = given.chars().count();
    let near = (length / 3).max(1);
    candidates
        .filter(|candidate| candidate.len().abs_diff(length) <= near)
        .map(|candidate| {
            let distance = strsim::osa_distance(&given, &candidate.to_lowercase());
            (distance, candidate)
        })
        .filter(|(distance, _)| *distance <= near)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

fn unknown_key(name: &str, known: &[&'static str]) -> String {
    closest(name, known.iter().copied()).map_or_else(
        || format!("unknown key: known here are {}", known.join(", ")),
        |meant| format!("unknown key: did you mean {meant}?"),
    )
}

/// The path of a key. One that is no plain word is shown in quotes: it comes from the file and could hold anything.
pub(super) fn join(path: &str, key: &str) -> String {
    let is_plain = !key.is_empty()
        && key.len() <= 63
        && key
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
    let key = if is_plain {
        key.to_owned()
    } else {
        quoted(key)
    };
    if path.is_empty() {
        key
    } else {
        format!("{path}.{key}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suggestion_is_near_or_there_is_none() {
        let known = ["name", "description", "ports", "protocols", "expect"];
        let suggest = |given| closest(given, known.into_iter());
        assert_eq!(suggest("prots"), Some("ports"));
        assert_eq!(suggest("port"), Some("ports"));
        assert_eq!(suggest("Protocol"), Some("protocols"));
        assert_eq!(suggest("desciption"), Some("description"));
        assert_eq!(suggest("x"), None);
        assert_eq!(suggest("targets"), None);
        assert_eq!(suggest(""), None);
    }

    #[test]
    fn what_comes_from_the_file_cannot_break_a_line() {
        assert_eq!(join("watch[0]", "a\nb"), "watch[0].\"a\\nb\"");
        assert_eq!(quoted(&"é".repeat(61)), format!("\"{}\"…", "é".repeat(60)));
        assert_eq!(quoted("\u{1b}[31m"), "\"\\u{1b}[31m\"");
    }
}
