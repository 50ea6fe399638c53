//! The embedded copy of IANA's registry: `iana.tsv`, which the script `update` makes. Its first line names its source,
//! its other comments the format.

use std::borrow::Cow;

use super::table::{Builder, Rank, Row, Slice, Table};
use crate::port::{Port, Protocol, Span};

/// The table as it stands in the repository.
pub(super) const TEXT: &str = include_str!("iana.tsv");

/// Reads a table in the format of [`TEXT`], with its source. `None` if a line does not fit the format, which no user can
/// bring about: a test reads every line.
pub(super) fn read(text: &'static str) -> Option<(Table, &'static str)> {
    let source = text.lines().next()?.strip_prefix("# source: ")?;
    let mut builder = Builder::new();
    let mut offset = 0;
    for line in text.split_inclusive('\n') {
        let start = offset;
        offset += line.len();
        let line = line.trim_end();
        if !line.starts_with('#') {
            read_line(&mut builder, line, start)?;
        }
    }
    Some((builder.finish(Cow::Borrowed(text)), source))
}

/// Reads the line that begins at `start` of the text.
fn read_line(builder: &mut Builder, line: &str, start: usize) -> Option<()> {
    let mut fields = line.splitn(4, '\t');
    let (span, protocols) = (fields.next()?, fields.next()?);
    let entry = match fields.next() {
        None => None,
        Some(name) => {
            let name_start = start + span.len() + protocols.len() + 2;
            let name = slice(name_start, name.len())?;
            let description = match fields.next() {
                Some(description) => slice(name.end as usize + 1, description.len())?,
                None => slice(name_start, 0)?,
            };
            // Of several names the file has the primary one first, so that none need be marked an alias.
            let rank = if name.start == name.end {
                Rank::Nameless
            } else {
                Rank::Named
            };
            Some((builder.row(Row { name, description }), rank))
        }
    };
    let span: Span = span.parse().ok()?;
    let protocols: &[Protocol] = match protocols {
        "tu" => &Protocol::ALL,
        "t" => &[Protocol::Tcp],
        "u" => &[Protocol::Udp],
        _ => return None,
    };
    for &protocol in protocols {
        for number in span.numbers() {
            let port = Port { number, protocol };
            match entry {
                Some((row, rank)) => builder.assign(port, row, rank).ok()?,
                None => builder.reserve(port),
            }
        }
    }
    Some(())
}

fn slice(start: usize, len: usize) -> Option<Slice> {
    Some(Slice {
        start: u32::try_from(start).ok()?,
        end: u32::try_from(start + len).ok()?,
    })
}
