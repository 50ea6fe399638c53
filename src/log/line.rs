//! One event as one line: logfmt or JSON.
//!
//! Field names and their order are those of the Prometheus projects' own logger: `time`, `level`, `source`, `msg`, then
//! what the event carries. Values may come from anywhere, process names included, and can neither end the line, nor
//! forge a field, nor reach a terminal as a control sequence.

use std::fmt::{self, Write as _};
use std::time::{SystemTime, UNIX_EPOCH};

use tracing::field::{Field, Visit};
use tracing::{Event, Level};

use super::Format;

/// The line of an event, line feed included.
pub(super) fn of_event(format: Format, now: SystemTime, event: &Event<'_>) -> String {
    let mut fields = Fields::default();
    event.record(&mut fields);
    let metadata = event.metadata();
    let source = metadata.file().map(|file| {
        let name = file.rsplit(['/', '\\']).next().unwrap_or(file);
        format!("{name}:{}", metadata.line().unwrap_or_default())
    });
    line(
        format,
        now,
        *metadata.level(),
        source.as_deref(),
        &fields.message,
        fields.others,
    )
}

/// A line from its parts, line feed included.
pub(super) fn line(
    format: Format,
    now: SystemTime,
    level: Level,
    source: Option<&str>,
    message: &str,
    others: Vec<(&'static str, Value)>,
) -> String {
    let text = |text: &str| Value::Text(text.to_owned());
    let head = [
        Some(("time", text(&rfc3339(now)))),
        Some(("level", text(level.as_str()))),
        source.map(|source| ("source", text(source))),
        Some(("msg", text(message))),
    ];
    let all = head.into_iter().flatten().chain(others);
    match format {
        Format::Logfmt => logfmt(all),
        Format::Json => json(all),
    }
}

/// What a field holds.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    /// Written as it stands: a whole number or a truth value, as which it is valid in either format.
    Plain(String),
    /// Anything else.
    Text(String),
}

#[derive(Default)]
struct Fields {
    message: String,
    others: Vec<(&'static str, Value)>,
}

impl Fields {
    fn text(&mut self, field: &Field, text: String) {
        if field.name() == "message" {
            self.message = text;
        } else {
            self.others.push((field.name(), Value::Text(text)));
        }
    }

    fn plain(&mut self, field: &Field, value: impl fmt::Display) {
        self.others
            .push((field.name(), Value::Plain(value.to_string())));
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.text(field, format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field, value.to_owned());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.plain(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.plain(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.plain(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        if value.is_finite() {
            self.plain(field, value);
        } else {
            self.text(field, value.to_string());
        }
    }
}

fn logfmt(fields: impl Iterator<Item = (&'static str, Value)>) -> String {
    let mut line = String::new();
    for (index, (key, value)) in fields.enumerate() {
        if index > 0 {
            line.push(' ');
        }
        line.push_str(key);
        line.push('=');
        match value {
            Value::Plain(plain) => line.push_str(&plain),
            Value::Text(text) if needs_quotes(&text) => quote(&mut line, &text),
            Value::Text(text) => line.push_str(&text),
        }
    }
    line.push('\n');
    line
}

fn json(fields: impl Iterator<Item = (&'static str, Value)>) -> String {
    let mut line = String::from("{");
    for (index, (key, value)) in fields.enumerate() {
        if index > 0 {
            line.push(',');
        }
        quote(&mut line, key);
        line.push(':');
        match value {
            Value::Plain(plain) => line.push_str(&plain),
            Value::Text(text) => quote(&mut line, &text),
        }
    }
    line.push_str("}\n");
    line
}

fn needs_quotes(text: &str) -> bool {
    text.is_empty()
        || text
            .chars()
            .any(|c| matches!(c, ' ' | '=' | '"' | '\\') || !is_printable(c))
}

/// Control characters, line and paragraph separators, and what turns the direction of text are not.
fn is_printable(c: char) -> bool {
    match c {
        ' ' | '\'' | '"' | '\\' => true,
        c if c.is_ascii() => c.is_ascii_graphic(),
        // The standard library's own table says which characters show.
        c => c.escape_debug().len() == 1,
    }
}

/// A JSON string (RFC 8259, section 7), which readers of logfmt understand as well.
fn quote(line: &mut String, text: &str) {
    line.push('"');
    for c in text.chars() {
        match c {
            '"' => line.push_str("\\\""),
            '\\' => line.push_str("\\\\"),
            '\n' => line.push_str("\\n"),
            '\r' => line.push_str("\\r"),
            '\t' => line.push_str("\\t"),
            c if is_printable(c) => line.push(c),
            c => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    let _ = write!(line, "\\u{unit:04x}");
                }
            }
        }
    }
    line.push('"');
}

/// UTC to the millisecond, `2026-02-17T11:29:35.789Z` (RFC 3339). A clock before 1970 reads as 1970, one beyond the
/// year 9999 as its last day.
pub(crate) fn rfc3339(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = since.as_secs();
    let (year, month, day) = date((seconds / 86_400).min(LAST_DAY));
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:03}Z",
        seconds / 3600 % 24,
        seconds / 60 % 60,
        seconds % 60,
        since.subsec_millis()
    )
}

/// 9999-12-31, in days since 1970-01-01.
const LAST_DAY: u64 = 2_932_896;

fn date(mut days: u64) -> (u64, u64, u64) {
    let mut year = 1970;
    while days >= 365 + leap_day(year) {
        days -= 365 + leap_day(year);
        year += 1;
    }
    let lengths = [31, 28 + leap_day(year), 31, 30, 31, 30, 31, 31, 30, 31, 30];
    let mut month = 1;
    for length in lengths {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    (year, month, days + 1)
}

fn leap_day(year: u64) -> u64 {
    u64::from(year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    fn written(format: Format, others: &[(&'static str, &str)]) -> String {
        let others = others
            .iter()
            .map(|&(key, text)| (key, Value::Text(text.to_owned())))
            .collect();
        line(
            format,
            UNIX_EPOCH,
            Level::WARN,
            Some("a.rs:1"),
            "listener opened",
            others,
        )
    }

    /// Reads a line of logfmt; quoted values as JSON strings. None if it is not one valid line.
    fn read_logfmt(line: &str) -> Option<Vec<(String, String)>> {
        let mut rest = line.strip_suffix('\n')?;
        let mut fields = Vec::new();
        while !rest.is_empty() {
            let (key, after) = rest.split_once('=')?;
            if key.is_empty() || key.contains([' ', '"']) {
                return None;
            }
            let length = if after.starts_with('"') {
                let mut values = serde_json::Deserializer::from_str(after).into_iter::<String>();
                let value = values.next()?.ok()?;
                fields.push((key.to_owned(), value));
                values.byte_offset()
            } else {
                let length = after.find(' ').unwrap_or(after.len());
                let value = &after[..length];
                if value.is_empty() || value.contains(['=', '"', '\\']) {
                    return None;
                }
                fields.push((key.to_owned(), value.to_owned()));
                length
            };
            rest = &after[length..];
            if !rest.is_empty() {
                rest = rest.strip_prefix(' ')?;
            }
        }
        Some(fields)
    }

    #[test]
    fn logfmt_is_as_the_prometheus_projects_write_it() {
        assert_eq!(
            written(Format::Logfmt, &[("process", "nginx"), ("unit", "")]),
            "time=1970-01-01T00:00:00.000Z level=WARN source=a.rs:1 msg=\"listener opened\" process=nginx unit=\"\"\n"
        );
    }

    #[test]
    fn json_is_flat() {
        assert_eq!(
            written(Format::Json, &[("process", "a\"b\u{1b}")]),
            "{\"time\":\"1970-01-01T00:00:00.000Z\",\"level\":\"WARN\",\"source\":\"a.rs:1\",\
             \"msg\":\"listener opened\",\"process\":\"a\\\"b\\u001b\"}\n"
        );
    }

    #[test]
    fn hostile_values_stay_one_value_of_one_line() {
        for hostile in [
            "x\"} 1\n",
            "a b",
            "a=b",
            "\"",
            "\\",
            "x\" level=ERROR msg=\"forged",
            "\r\n",
            "\u{0}\u{1b}[2J\u{7f}\u{9b}",
            "\u{2028}\u{2029}\u{202e}\u{feff}",
            "\u{e0001}\u{10ffff}",
            "<img src=x onerror=alert(1)>",
            "",
        ] {
            let line = written(Format::Logfmt, &[("process", hostile)]);
            assert_eq!(line.matches('\n').count(), 1, "{line:?}");
            assert!(line.trim_end().chars().all(is_printable), "{line:?}");
            let fields = read_logfmt(&line).unwrap_or_else(|| panic!("{line:?}"));
            assert_eq!(fields.len(), 5, "{line:?}");
            assert_eq!(fields[4], ("process".to_owned(), hostile.to_owned()));
        }
    }

    #[test]
    fn words_of_any_language_need_no_quotes() {
        for word in ["nginx", "/usr/sbin/sshd", "naïve", "端口", "порт", "a'b"] {
            assert!(!needs_quotes(word), "{word}");
        }
    }

    #[test]
    fn times_are_utc_to_the_millisecond() {
        let at = |seconds, millis| {
            rfc3339(UNIX_EPOCH + Duration::from_secs(seconds) + Duration::from_millis(millis))
        };
        assert_eq!(at(951_782_400, 7), "2000-02-29T00:00:00.007Z");
        assert_eq!(at(1_739_791_775, 789), "2025-02-17T11:29:35.789Z");
        assert_eq!(at(1_735_689_599, 999), "2024-12-31T23:59:59.999Z");
        assert_eq!(at(4_107_542_399, 0), "2100-02-28T23:59:59.000Z");
        assert_eq!(at(4_107_542_400, 0), "2100-03-01T00:00:00.000Z");
        assert_eq!(at(253_402_300_799, 0), "9999-12-31T23:59:59.000Z");
        assert!(at(u64::from(u32::MAX) * 1000, 0).starts_with("9999-12-31T"));
        assert!(rfc3339(UNIX_EPOCH - Duration::from_secs(1)).starts_with("1970-01-01T00:00:00"));
    }

    proptest! {
        #[test]
        fn any_value_reads_back_from_either_format(value in any::<String>()) {
            let line = written(Format::Logfmt, &[("a", &value), ("b", "end")]);
            let fields = read_logfmt(&line).expect("valid logfmt");
            prop_assert_eq!(&fields[4].1, &value);
            prop_assert_eq!(&fields[5].1, "end");
            let line = written(Format::Json, &[("a", &value)]);
            let object: serde_json::Value = serde_json::from_str(&line).expect("valid JSON");
            prop_assert_eq!(object["a"].as_str(), Some(value.as_str()));
        }
    }
}
