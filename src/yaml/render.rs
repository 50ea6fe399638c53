//! The tree as YAML again: for a person who asks what is in use.

use super::decode::{Field, join};
use super::tree::{Node, Value};

/// What stands in place of a secret, as Prometheus writes it.
const SECRET: &str = "<secret>";

impl Field<'_> {
    /// The value as YAML, without comments and with aliases unfolded. Of the keys that `is_secret` claims, nothing but that
    /// they are there.
    pub(crate) fn render(&self, is_secret: &dyn Fn(&str) -> bool) -> String {
        let mut text = String::new();
        write(self.node(), self.key(), 0, is_secret, &mut text);
        text
    }
}

/// Writes a value behind what leads to it, and ends the line.
fn write(
    node: &Node,
    key: &str,
    depth: usize,
    is_secret: &dyn Fn(&str) -> bool,
    text: &mut String,
) {
    match &node.value {
        _ if is_secret(key) => text.push_str(SECRET),
        Value::Null => text.push_str("null"),
        Value::Text(value) => text.push_str(&scalar(value)),
        Value::List(items) if items.is_empty() => text.push_str("[]"),
        Value::Mapping(pairs) if pairs.is_empty() => text.push_str("{}"),
        Value::List(items) if items.iter().all(is_scalar) => {
            let items: Vec<String> = items.iter().map(flow).collect();
            text.push_str(&format!("[{}]", items.join(", ")));
        }
        Value::List(items) => {
            for item in items {
                begin_line(text, depth);
                text.push_str("- ");
                write(item, key, depth + 1, is_secret, text);
            }
            return;
        }
        Value::Mapping(pairs) => {
            for (index, (name, value)) in pairs.iter().enumerate() {
                // The first key of an item stands behind its dash.
                if index > 0 || !text.ends_with("- ") {
                    begin_line(text, depth);
                }
                let name = flow(name);
                text.push_str(&name);
                text.push(':');
                if matches!(value.value, Value::Null)
                    || !is_block(value)
                    || is_secret(&join(key, &name))
                {
                    text.push(' ');
                }
                write(value, &join(key, &name), depth + 1, is_secret, text);
            }
            return;
        }
    }
    end_line(text);
}

fn begin_line(text: &mut String, depth: usize) {
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    text.extend(std::iter::repeat_n("  ", depth));
}

fn end_line(text: &mut String) {
    text.push('\n');
}

fn is_scalar(node: &Node) -> bool {
    matches!(node.value, Value::Null | Value::Text(_))
}

/// Whether it takes lines of its own.
fn is_block(node: &Node) -> bool {
    match &node.value {
        Value::Null | Value::Text(_) => false,
        Value::List(items) => !items.iter().all(is_scalar),
        Value::Mapping(pairs) => !pairs.is_empty(),
    }
}

/// A scalar in a line; what is more does not stand where this is asked for.
fn flow(node: &Node) -> String {
    match &node.value {
        Value::Text(value) => scalar(value),
        _ => "null".to_owned(),
    }
}

/// Bare where nothing of it means anything to YAML, else quoted as JSON, which YAML reads.
fn scalar(value: &str) -> String {
    let is_bare = value
        .bytes()
        .next()
        .is_some_and(|first| first.is_ascii_alphanumeric() || first == b'/')
        && value
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"_-./".contains(&byte))
        && !value.eq_ignore_ascii_case("null");
    if is_bare {
        value.to_owned()
    } else {
        serde_json::Value::from(value).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Field, tree};
    use super::*;
    use proptest::prelude::*;

    fn rendered(text: &str) -> String {
        let node = tree::parse(text).unwrap().unwrap();
        Field::root(&node).render(&|key| key == "a.key" || key.starts_with("users."))
    }

    /// Places are not compared: they are those of another text.
    fn shape(node: &Node) -> String {
        match &node.value {
            Value::Null => "null".to_owned(),
            Value::Text(text) => format!("{text:?}"),
            Value::List(items) => format!("{:?}", items.iter().map(shape).collect::<Vec<_>>()),
            Value::Mapping(pairs) => {
                let pairs = pairs.iter().map(|(k, v)| (shape(k), shape(v)));
                format!("{:?}", pairs.collect::<Vec<_>>())
            }
        }
    }

    #[test]
    fn secrets_are_left_out_and_the_rest_is_there() {
        let text = "a: {key: PRIVATE, cert_file: /x.pem}\nusers: {alice: $2y$10$, \"b: ob\": x}\n";
        assert_eq!(
            rendered(text),
            "a:\n  key: <secret>\n  cert_file: /x.pem\nusers:\n  alice: <secret>\n  \"b: ob\": <secret>\n"
        );
    }

    #[test]
    fn lists_of_mappings_are_read_as_they_were_written() {
        let text = "watch:\n- {name: a, ports: [1, 2-3], expect: [{process: \"*\"}, {user: root}]}\n- {name: b, expect: []}\n\
                    - [1, [2, 3], {}]\nlimits: {series: 1}\nempty:\n";
        let before = tree::parse(text).unwrap().unwrap();
        let written = rendered(text);
        let after = tree::parse(&written).unwrap_or_else(|f| panic!("{f:?} in {written}"));
        assert_eq!(shape(&after.unwrap()), shape(&before), "{written}");
    }

    proptest! {
        #[test]
        fn any_text_is_read_as_it_was_written(value in "\\PC{0,20}") {
            let written = scalar(&value);
            let node = tree::parse(&format!("a: {written}\n")).unwrap().unwrap();
            let Value::Mapping(pairs) = &node.value else { panic!("{written}") };
            prop_assert!(matches!(&pairs[0].1.value, Value::Text(text) if *text == value), "{}", written);
        }
    }
}
