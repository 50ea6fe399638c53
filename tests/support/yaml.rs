//! YAML files of others' formats, as JSON values: what a test looks into, and nothing is lost but comments.

use granit_parser::{Event, Parser, Span};
use serde_json::{Map, Value};

/// The first document of a file. Scalars are texts, whatever they look like.
pub fn read(path: impl AsRef<std::path::Path>) -> Value {
    let path = path.as_ref();
    let text =
        std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut events = Parser::new_from_str(&text).map(|event| {
        let (event, _): (Event<'_>, Span) =
            event.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        event
    });
    let events: &mut dyn Iterator<Item = Event<'_>> = &mut events;
    loop {
        match events.next().expect("a document") {
            Event::StreamStart | Event::DocumentStart(..) => {}
            event => return value(event, events),
        }
    }
}

fn value<'a>(event: Event<'a>, events: &mut dyn Iterator<Item = Event<'a>>) -> Value {
    match event {
        Event::Scalar(text, ..) => Value::String(text.into_owned()),
        Event::SequenceStart(..) => {
            let mut items = Vec::new();
            loop {
                match events.next().expect("the end of a list") {
                    Event::SequenceEnd => return Value::Array(items),
                    event => items.push(value(event, events)),
                }
            }
        }
        Event::MappingStart(..) => {
            let mut pairs = Map::new();
            loop {
                let key = match events.next().expect("the end of a mapping") {
                    Event::MappingEnd => return Value::Object(pairs),
                    Event::Scalar(text, ..) => text.into_owned(),
                    other => panic!("a key that is no text: {other:?}"),
                };
                let event = events.next().expect("a value");
                assert!(
                    pairs.insert(key.clone(), value(event, events)).is_none(),
                    "{key} stands twice"
                );
            }
        }
        other => panic!("not expected in these files: {other:?}"),
    }
}

/// The texts of a list; of nothing, none.
pub fn texts(value: &Value) -> Vec<&str> {
    match value {
        Value::Null => Vec::new(),
        Value::Array(items) => items
            .iter()
            .map(|item| item.as_str().expect("a text"))
            .collect(),
        other => panic!("not a list: {other}"),
    }
}
