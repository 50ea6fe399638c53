//! The answer as JSON, for a program. What is not known is left out.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use super::{Question, told};
use crate::owners::Owner;
use crate::port::Port;
use crate::sockets::Listener;

/// The answer, pretty and with a line end. It may go to a terminal: what does not print is escaped.
#[must_use]
pub fn json(question: &Question<'_>) -> String {
    let told = question.told.ok();
    let by_port = told.map(told::Told::by_port).unwrap_or_default();
    let ports: Vec<Value> = question
        .ports
        .iter()
        .map(|&port| of_port(port, question, &by_port))
        .collect();
    let exporter = match question.told {
        super::Exporter::Told { url, told } => json!({
            "url": url.to_string(), "answers": true, "tier": told.tier, "sampled_at": told.sampled_at,
            "events_lost": told.events_lost,
        }),
        super::Exporter::Silent { url, why } => {
            json!({"url": url.to_string(), "answers": false, "error": why})
        }
        super::Exporter::NotAsked => Value::Null,
    };
    let mut answer = json!({"ports": ports, "exporter": exporter});
    strip(&mut answer);
    printable(&format!("{answer:#}\n"))
}

/// JSON in which strings mean what they did. serde_json escapes no control characters but those of ASCII's first 32.
fn printable(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for c in json.chars() {
        if matches!(c, '\0'..'\x7f') || c.escape_debug().eq([c]) {
            text.push(c);
            continue;
        }
        for unit in c.encode_utf16(&mut [0; 2]) {
            let _ = write!(text, "\\u{unit:04x}");
        }
    }
    text
}

fn of_port(port: Port, question: &Question<'_>, told: &told::ByPort<'_>) -> Value {
    let services: Vec<Value> = question
        .registry
        .entries(port)
        .map(|entry| json!({"service_name": entry.service_name, "description": entry.description}))
        .collect();
    let listeners = question.listeners(port);
    let mut answer = json!({
        "port": port.number,
        "protocol": port.protocol.as_str(),
        "range": port.range().to_string(),
        "assignment": question.registry.assignment(port).to_string(),
        "services": services,
        "lit": listeners.as_ref().map(|listeners| !listeners.is_empty()),
        "listeners": listeners.map(|listeners| {
            listeners.iter().map(|(listener, owner)| of_listener(listener, owner)).collect::<Vec<_>>()
        }),
    });
    if let Value::Object(answer) = &mut answer {
        answer.extend(of_exporter(port, told));
    }
    answer
}

fn of_listener(listener: &Listener, owner: &Owner) -> Value {
    let process = owner.oldest();
    json!({
        "address": listener.address.to_string(),
        "process": owner.process(),
        "pid": process.map(|process| process.pid),
        "exe": process.and_then(|process| process.executable.as_deref()),
        "user": owner.user(),
        "unit": owner.unit(),
    })
}

fn of_exporter(port: Port, told: &told::ByPort<'_>) -> Map<String, Value> {
    let mut facts = Map::new();
    if let Some(event) = told.event(port) {
        let event = json!({
            "event": event.event,
            "at": event.at,
            "opened_at": event.opened_at,
            "address": event.address,
            "expected": event.expected,
            "process": event.process,
            "pid": event.pid,
            "exe": event.exe,
            "user": event.user,
            "uid": event.uid,
            "unit": event.unit,
            "cgroup": event.cgroup,
            "cgroup_id": event.cgroup_id,
        });
        facts.insert("last_event".to_owned(), event);
    }
    if let Some(counts) = told.counts(port) {
        let counts = json!({
            "attempts": counts.attempts,
            "accepted": counts.accepted,
            "refused": counts.refused,
            "filtered": counts.filtered,
            "opened": counts.opened,
            "last_attempt_at": counts.last_attempt_at.filter(|&at| at > 0.0),
        });
        facts.insert("counts".to_owned(), counts);
    }
    facts
}

/// Takes out what is not known.
fn strip(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, field| !field.is_null());
            fields.values_mut().for_each(strip);
        }
        Value::Array(items) => items.iter_mut().for_each(strip),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_print_is_escaped_and_means_the_same() {
        let names =
            json!({"names": ["\u{7f}\u{9b}2J", "\u{202e}\u{e0041}", "\u{1b}\"\\\n", "ä漢😀"]});
        let text = printable(&format!("{names:#}"));
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), names);
        assert!(
            text.contains("\"\\u007f\\u009b2J\"") && text.contains("\"\\u202e\\udb40\\udc41\""),
            "{text}"
        );
        assert!(text.contains("\"ä漢😀\""), "{text}");
    }
}
