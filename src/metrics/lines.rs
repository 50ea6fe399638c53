//! The families with a series for every watched port, written as text straight away.
//!
//! There may be 131,072 watched ports, and then all but a few lines of a scrape are theirs. What they have in common allows
//! to leave out what the prometheus crate has to do for any series: label values copied into a structure of their own,
//! looked through for what must be escaped, and put together again. All other families are the crate's to encode, and
//! these lines are octet for octet what it would write: tests hold them against it, `benches/encoding` measures both.

use super::{Head, Kind};
use crate::port::Protocol;
use crate::snapshot::Watched;

/// A number longer than this is written by the standard library: what is counted here has no such numbers.
const MOST_DIGITS: f64 = 9_007_199_254_740_992.0;

/// The lines of one family, written behind what is there already.
pub(super) struct Lines<'a> {
    head: Head,
    text: &'a mut String,
    /// What stands before the number of a port: the family's name, and the name of the first label.
    before: String,
    is_headed: bool,
    number: itoa::Buffer,
}

impl<'a> Lines<'a> {
    /// Lines of this family, whose first labels are `port` and `protocol`.
    pub(super) fn new(head: Head, text: &'a mut String) -> Self {
        debug_assert_eq!(head.labels.get(..2), Some(&["port", "protocol"][..]));
        Self {
            head,
            text,
            before: format!("{}{{port=\"", head.name),
            is_headed: false,
            number: itoa::Buffer::new(),
        }
    }

    /// Adds the line of a port.
    pub(super) fn push(&mut self, watched: &Watched<'_>, value: f64) {
        self.port(watched);
        self.text.push_str("} ");
        self.value(value);
    }

    /// Adds the line of a port that has the facts about it as labels, and the value 1.
    pub(super) fn push_facts(&mut self, watched: &Watched<'_>) {
        self.port(watched);
        let facts = [
            watched.watch,
            watched.service_name,
            watched.port.range().as_str(),
            watched.assignment.as_str(),
        ];
        for (name, value) in self.head.labels.iter().skip(2).zip(facts) {
            self.text.push(',');
            self.text.push_str(name);
            self.text.push_str("=\"");
            escape(value, self.text);
            self.text.push('"');
        }
        self.text.push_str("} ");
        self.value(1.0);
    }

    fn port(&mut self, watched: &Watched<'_>) {
        if !self.is_headed {
            self.is_headed = true;
            write_head(self.head, self.text);
        }
        self.text.push_str(&self.before);
        self.text.push_str(self.number.format(watched.port.number));
        self.text.push_str(match watched.port.protocol {
            Protocol::Tcp => "\",protocol=\"tcp\"",
            Protocol::Udp => "\",protocol=\"udp\"",
        });
    }

    fn value(&mut self, value: f64) {
        push_number(value, &mut self.number, self.text);
        self.text.push('\n');
    }
}

fn write_head(head: Head, text: &mut String) {
    for part in ["# HELP ", head.name, " "] {
        text.push_str(part);
    }
    for c in head.help.chars() {
        match c {
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            c => text.push(c),
        }
    }
    let kind = match head.kind {
        Kind::Counter => " counter\n",
        Kind::Gauge => " gauge\n",
    };
    for part in ["\n# TYPE ", head.name, kind] {
        text.push_str(part);
    }
}

/// A number as the standard library displays it, only quicker where it is whole.
fn push_number(value: f64, number: &mut itoa::Buffer, text: &mut String) {
    // Minus zero is displayed with its sign.
    if value.is_sign_positive() && value < MOST_DIGITS && value.trunc() == value {
        text.push_str(number.format(value as u64));
    } else {
        text.push_str(&value.to_string());
    }
}

/// A label's value, with what would end it escaped.
fn escape(value: &str, text: &mut String) {
    if !value
        .bytes()
        .any(|byte| matches!(byte, b'\\' | b'"' | b'\n'))
    {
        text.push_str(value);
        return;
    }
    for c in value.chars() {
        match c {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            c => text.push(c),
        }
    }
}

#[cfg(test)]
mod tests;
