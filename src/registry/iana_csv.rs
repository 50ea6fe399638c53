//! Reads IANA's `service-names-port-numbers.csv`.
//!
//! Its form, as IANA publishes it: RFC 4180, a header, then a row for every name, port or range and protocol. A row may
//! lack the port (a name alone), or the protocol (both are meant), or the name (the description then says what holds: a
//! state such as `Reserved`, or a use without a name). Fields may run over several lines.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use csv::StringRecord;

use super::error::{Error, Problem};
use super::table::{Builder, NAMES_PER_PORT, Rank, Row, Slice, Table, TooManyNames};
use crate::port::{NUMBERS, ParseError, Port, Protocol, Span};

/// The largest file read, in bytes. IANA's has 1.2 million.
pub(super) const MAX_FILE: u64 = 32 << 20;
/// The longest field read, in bytes. IANA's longest note has some 2,000.
const MAX_FIELD: usize = 16 << 10;
/// How many ports all ranges may name together: every port of both protocols sixteen times, where IANA names
/// each about once. It keeps a forged file from taking hours.
const MAX_NAMED_PORTS: usize = 16 * 2 * NUMBERS;
/// How many bad rows are reported before reading stops.
const MAX_PROBLEMS: usize = 10;

const SERVICE_NAME: &str = "Service Name";
const PORT_NUMBER: &str = "Port Number";
const TRANSPORT_PROTOCOL: &str = "Transport Protocol";
const DESCRIPTION: &str = "Description";
const ASSIGNMENT_NOTES: &str = "Assignment Notes";

/// Reads the file.
pub(super) fn read(path: &Path) -> Result<Table, Error> {
    parse(path, &contents(path)?)
}

fn contents(path: &Path) -> Result<Vec<u8>, Error> {
    let fail = |source| Error::Read {
        path: path.to_owned(),
        source,
    };
    // Asked before opening, which would wait for ever on a pipe nobody writes to.
    if !path.metadata().map_err(fail)?.is_file() {
        return Err(Error::NotAFile {
            path: path.to_owned(),
        });
    }
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_FILE + 1).read_to_end(&mut bytes))
        .map_err(fail)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(Error::TooLarge {
            path: path.to_owned(),
        });
    }
    Ok(bytes)
}

/// Reads the bytes of the file; `path` is for messages.
pub(super) fn parse(path: &Path, bytes: &[u8]) -> Result<Table, Error> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(bytes);
    let columns = match reader.headers() {
        Ok(header) => Columns::find(header),
        // Not UTF-8, so none of the names is in it.
        Err(_) => Columns::find(&StringRecord::new()),
    };
    let columns = columns.map_err(|missing| Error::Header {
        path: path.to_owned(),
        missing,
    })?;

    let mut listing = Listing::new();
    let mut problems = Vec::new();
    let mut last_line = 1;
    for record in reader.records() {
        let outcome = match record {
            Ok(record) => {
                last_line = record.position().map_or(last_line, csv::Position::line);
                columns
                    .row(&record)
                    .and_then(|row| row.map_or(Ok(()), |row| listing.add(&row)))
                    .map_err(|fault| fault.at(last_line))
            }
            Err(error) => Err(unreadable(&error, last_line)),
        };
        problems.extend(outcome.err());
        if problems.len() == MAX_PROBLEMS {
            break;
        }
    }
    let more = problems.len() == MAX_PROBLEMS;
    // The csv crate ends an open quote at the end of the file without a word.
    if !more && bytes.iter().filter(|&&byte| byte == b'"').count() % 2 == 1 {
        let open = "a quote is opened and never closed: the file may be cut short, fetch it again";
        problems.push(Fault::row(open).at(last_line));
    }
    if !problems.is_empty() {
        return Err(Error::Rows {
            path: path.to_owned(),
            problems,
            more,
        });
    }
    if listing.assigns_nothing() {
        return Err(Error::Empty {
            path: path.to_owned(),
        });
    }
    Ok(listing.finish())
}

/// A record the csv crate could not make a row of.
fn unreadable(error: &csv::Error, last_line: u64) -> Problem {
    let line = error.position().map_or(last_line, csv::Position::line);
    match error.kind() {
        csv::ErrorKind::Utf8 { err, .. } => Fault::row(format!(
            "field {} is not UTF-8: fetch the file again",
            err.field() + 1
        ))
        .at(line),
        _ => Fault::row(format!("{error}")).at(line),
    }
}

/// A problem before its line is known.
struct Fault {
    column: Option<&'static str>,
    what: String,
}

impl Fault {
    fn row(what: impl Into<String>) -> Self {
        Self {
            column: None,
            what: what.into(),
        }
    }

    fn column(column: &'static str, what: impl Into<String>) -> Self {
        Self {
            column: Some(column),
            what: what.into(),
        }
    }

    fn at(self, line: u64) -> Problem {
        Problem {
            line,
            column: self.column,
            what: self.what,
        }
    }
}

/// Where the columns stand that are read. IANA has added and renamed others before.
struct Columns {
    count: usize,
    service_name: usize,
    port_number: usize,
    transport_protocol: usize,
    description: usize,
    assignment_notes: usize,
}

impl Columns {
    fn find(header: &StringRecord) -> Result<Self, Vec<&'static str>> {
        let mut missing = Vec::new();
        let mut find = |name| {
            let found = header.iter().position(|column| column.trim() == name);
            found.unwrap_or_else(|| {
                missing.push(name);
                0
            })
        };
        let columns = Self {
            count: header.len(),
            service_name: find(SERVICE_NAME),
            port_number: find(PORT_NUMBER),
            transport_protocol: find(TRANSPORT_PROTOCOL),
            description: find(DESCRIPTION),
            assignment_notes: find(ASSIGNMENT_NOTES),
        };
        if missing.is_empty() {
            Ok(columns)
        } else {
            Err(missing)
        }
    }

    /// What a record says of TCP and UDP ports; `None` where it says nothing.
    fn row(&self, record: &StringRecord) -> Result<Option<CsvRow>, Fault> {
        if record.len() != self.count {
            return Err(Fault::row(format!(
                "{} fields where the header has {}: the file may be cut short, fetch it again",
                record.len(),
                self.count
            )));
        }
        if let Some(field) = record.iter().find(|field| field.len() > MAX_FIELD) {
            return Err(Fault::row(format!(
                "a field of {} bytes where {MAX_FIELD} are the most: a quote may be missing",
                field.len()
            )));
        }
        let field = |index| record.get(index).unwrap_or_default().trim();
        let (port, protocol) = (field(self.port_number), field(self.transport_protocol));
        let Some(protocols) = protocols(protocol)? else {
            return Ok(None);
        };
        if port.is_empty() {
            return Ok(None);
        }
        let span = port
            .parse()
            .map_err(|error: ParseError| Fault::column(PORT_NUMBER, error.to_string()))?;
        let name = one_line(SERVICE_NAME, field(self.service_name))?;
        let description = one_line(DESCRIPTION, field(self.description))?;
        let notes = field(self.assignment_notes);
        Ok(Some(CsvRow {
            span,
            protocols,
            statement: Statement::of(name, &description, notes),
        }))
    }
}

/// The protocols a row is for; `None` for those that are not watched.
fn protocols(text: &str) -> Result<Option<&'static [Protocol]>, Fault> {
    match text.to_ascii_lowercase().as_str() {
        "" => Ok(Some(&Protocol::ALL)),
        "tcp" => Ok(Some(&[Protocol::Tcp])),
        "udp" => Ok(Some(&[Protocol::Udp])),
        "sctp" | "dccp" => Ok(None),
        _ => Err(Fault::column(
            TRANSPORT_PROTOCOL,
            format!("{text:?} is none of tcp, udp, sctp, dccp"),
        )),
    }
}

/// The text with every run of white space made one space. What would upset a terminal or a label is refused.
fn one_line(column: &'static str, text: &str) -> Result<String, Fault> {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.chars().any(char::is_control) {
        let what = "holds control characters: the file may be damaged, fetch it again";
        return Err(Fault::column(column, what));
    }
    Ok(line)
}

/// A row that says something of ports.
struct CsvRow {
    span: Span,
    protocols: &'static [Protocol],
    statement: Statement,
}

/// What a row says of its ports.
enum Statement {
    Assigned {
        name: String,
        description: String,
        rank: Rank,
    },
    Reserved,
    Unassigned,
}

impl Statement {
    fn of(name: String, description: &str, notes: &str) -> Self {
        // IANA puts this after a line break in the description of a name that took the place of one RFC 6335 forbids.
        let description = description
            .split("IANA assigned this well-formed service name")
            .next()
            .unwrap_or_default()
            .trim_end();
        let state = description.to_ascii_lowercase();
        if name.is_empty() {
            // A port that was taken back is not to be handed out before all others are gone: RFC 6335, section 8.2.
            let kept_back = ["reserved", "de-registered", "de-assigned", "removed"];
            if state.is_empty() || state.starts_with("unassigned") {
                return Self::Unassigned;
            } else if kept_back.iter().any(|word| state.starts_with(word)) {
                return Self::Reserved;
            }
        }
        let rank = if name.is_empty() {
            Rank::Nameless
        } else if is_alias(&state, notes) {
            Rank::Alias
        } else {
            Rank::Named
        };
        Self::Assigned {
            name,
            description: description.to_owned(),
            rank,
        }
    }
}

/// Whether IANA calls the entry another name for a service: as a word in the notes (`This entry is an alias to …`,
/// `This entry is now historic`, `This is a duplicate of the "http" service`), or in the description, where only these
/// forms are no part of a title.
fn is_alias(description: &str, notes: &str) -> bool {
    let mut words = notes.split(|character: char| !character.is_alphanumeric());
    words.any(|word| {
        ["alias", "historic", "duplicate"]
            .iter()
            .any(|sign| word.eq_ignore_ascii_case(sign))
    }) || ["alias of ", "alias to ", "alias for ", "(historic)"]
        .iter()
        .any(|sign| description.contains(sign))
}

/// The table in the making, and the text its rows are slices of.
struct Listing {
    builder: Builder,
    text: String,
    slices: HashMap<String, Slice>,
    rows: HashMap<Row, u32>,
    /// How many ports the rows so far have named.
    named_ports: usize,
}

impl Listing {
    fn new() -> Self {
        Self {
            builder: Builder::new(),
            text: String::new(),
            slices: HashMap::new(),
            rows: HashMap::new(),
            named_ports: 0,
        }
    }

    fn add(&mut self, csv: &CsvRow) -> Result<(), Fault> {
        self.named_ports += csv.span.numbers().len() * csv.protocols.len();
        if self.named_ports > MAX_NAMED_PORTS {
            let what = format!("the ranges up to here name more than {MAX_NAMED_PORTS} ports");
            return Err(Fault::column(PORT_NUMBER, what));
        }
        let row = match &csv.statement {
            Statement::Unassigned => return Ok(()),
            Statement::Reserved => None,
            Statement::Assigned {
                name,
                description,
                rank,
            } => Some((self.row(name, description), *rank)),
        };
        for &protocol in csv.protocols {
            for number in csv.span.numbers() {
                let port = Port { number, protocol };
                match row {
                    None => self.builder.reserve(port),
                    Some((row, rank)) => self
                        .builder
                        .assign(port, row, rank)
                        .map_err(too_many_names)?,
                }
            }
        }
        Ok(())
    }

    /// The row for a name and its description; the same for the same, so that both protocols of a port share a list.
    fn row(&mut self, name: &str, description: &str) -> u32 {
        let row = Row {
            name: self.slice(name),
            description: self.slice(description),
        };
        let builder = &mut self.builder;
        *self.rows.entry(row).or_insert_with(|| builder.row(row))
    }

    /// The slice that holds a text, the same for the same text. It cannot outgrow 32 bits: the file is bounded.
    fn slice(&mut self, text: &str) -> Slice {
        if let Some(&slice) = self.slices.get(text) {
            return slice;
        }
        let start = self.text.len() as u32;
        self.text.push_str(text);
        let slice = Slice {
            start,
            end: self.text.len() as u32,
        };
        self.slices.insert(text.to_owned(), slice);
        slice
    }

    fn assigns_nothing(&self) -> bool {
        self.rows.is_empty()
    }

    fn finish(mut self) -> Table {
        self.text.shrink_to_fit();
        self.builder.finish(Cow::Owned(self.text))
    }
}

fn too_many_names(TooManyNames(port): TooManyNames) -> Fault {
    Fault::column(
        SERVICE_NAME,
        format!("{port} has more than {NAMES_PER_PORT} names: IANA gives none more than a few"),
    )
}
