//! `probe`: what the ports of a host answer, for a person at a terminal, and how far the asking is.

use std::fmt::Write as _;
use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use terminal_size::{Width, terminal_size_of};

use crate::port::Port;
use crate::probe::{Finding, Report, State, Target};
use crate::registry::Registry;

/// Ports of one state that are listed one by one. Beyond, only those that somebody answers on are.
const LISTED: usize = 20;

/// The answer as a table, one for each address.
#[must_use]
pub fn table(target: &Target, report: &Report, registry: &Registry) -> String {
    let mut text = String::new();
    for (index, address) in report.addresses.iter().enumerate() {
        if index > 0 {
            text.push('\n');
        }
        let address = address.ip().to_string();
        let name = target.to_string();
        let _ = if name == address {
            writeln!(text, "{address}")
        } else {
            writeln!(text, "{name} ({address})")
        };
        text.push_str(&of_address(report, index, registry));
    }
    let (count, seconds) = (report.ports.len(), report.duration.as_secs_f64());
    let ports = if count == 1 { "port" } else { "ports" };
    let _ = writeln!(text, "{count} {ports} in {seconds:.2} s");
    text
}

fn of_address(report: &Report, index: usize, registry: &Registry) -> String {
    let mut rows = vec![["PORT", "STATE", "REASON", "SERVICE"].map(str::to_owned)];
    let mut summary = String::new();
    let ports: Vec<(Port, Option<Finding>)> = report.of_address(index).collect();
    let mut kinds: Vec<Option<Finding>> = ports.iter().map(|(_, finding)| *finding).collect();
    kinds.sort_unstable();
    kinds.dedup();
    let is_listed = |kind: Option<Finding>| {
        kind.is_some_and(|finding| finding.state == State::Open)
            || ports.iter().filter(|(_, finding)| *finding == kind).count() <= LISTED
    };
    let (listed, summed): (Vec<_>, Vec<_>) = kinds.into_iter().partition(|kind| is_listed(*kind));
    for kind in summed {
        let count = ports.iter().filter(|(_, finding)| *finding == kind).count();
        let _ = match kind {
            Some(Finding { state, reason }) => {
                writeln!(summary, "{count} ports {state} ({reason})")
            }
            None => writeln!(summary, "{count} ports could not be asked"),
        };
    }
    for (port, finding) in ports.iter().filter(|(_, finding)| listed.contains(finding)) {
        let (state, reason) = finding.map_or_else(
            || ("not asked".to_owned(), String::new()),
            |finding| (finding.state.to_string(), finding.reason.to_string()),
        );
        let service = registry.service_name(*port).to_owned();
        rows.push([port.to_string(), state, reason, service]);
    }
    if rows.len() == 1 {
        return summary;
    }
    summary + &align(&rows)
}

fn align(rows: &[[String; 4]]) -> String {
    let mut widths = [0; 4];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(widths);
        let line: Vec<String> = cells
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        text.push_str(line.join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// The answer as one JSON object: every port of every address. State and reason are null where a port could not be asked.
#[must_use]
pub fn json(target: &Target, report: &Report) -> String {
    let port = |(port, finding): (Port, Option<Finding>)| {
        json!({
            "port": port.number,
            "protocol": port.protocol.as_str(),
            "state": finding.map(|finding| finding.state.as_str()),
            "reason": finding.map(|finding| finding.reason.as_str()),
        })
    };
    let addresses: Vec<Value> = report
        .addresses
        .iter()
        .enumerate()
        .map(|(index, address)| {
            let ports: Vec<Value> = report.of_address(index).map(port).collect();
            json!({ "address": address.ip().to_string(), "ports": ports })
        })
        .collect();
    let answer = json!({
        "target": target.to_string(),
        "duration_seconds": report.duration.as_secs_f64(),
        "addresses": addresses,
    });
    format!("{answer}\n")
}

/// A line on a terminal that says how far the asking is; elsewhere nothing.
#[derive(Debug)]
pub struct Progress {
    is_terminal: bool,
    /// Whether the terminal has a line to erase.
    is_shown: bool,
    start: Instant,
}

impl Progress {
    /// Cells of the bar, where there is room for them.
    const WIDTH: usize = 30;
    /// What is over sooner needs no bar.
    const DELAY: Duration = Duration::from_millis(300);
    /// Columns of a terminal that does not say how many it has.
    const COLUMNS: usize = 80;

    /// Begins, with nothing on the terminal yet.
    #[must_use]
    pub fn begin() -> Self {
        Self {
            is_terminal: std::io::stderr().is_terminal(),
            is_shown: false,
            start: Instant::now(),
        }
    }

    /// Shows how much of it is done.
    pub fn show(&mut self, done: usize, all: usize) {
        let elapsed = self.start.elapsed();
        if self.is_terminal && elapsed > Self::DELAY {
            // Asked each time: a person may have made the window another size.
            let columns = terminal_size_of(std::io::stderr())
                .map_or(Self::COLUMNS, |(Width(columns), _)| columns.into());
            let line = Self::line(done, all, elapsed, columns);
            // A terminal that is gone costs the line, not the answer. What the line before it had is overwritten (ECMA-48:
            // erase to the end of the line).
            let _ = write!(std::io::stderr(), "\r{line}\u{1b}[K");
            self.is_shown = true;
        }
    }

    /// The line, shorter than the terminal is wide: one that were wrapped could not be overwritten.
    fn line(done: usize, all: usize, elapsed: Duration, columns: usize) -> String {
        let left = if done == 0 || done >= all {
            String::new()
        } else {
            let left = elapsed.as_secs_f64() * (all - done) as f64 / done as f64;
            format!(", {left:.0} s left")
        };
        let words = format!("{done}/{all} ports{left}");
        let room = columns.saturating_sub(1);
        // The bar with its brackets and a blank behind it.
        let width = room.saturating_sub(words.len() + 3).min(Self::WIDTH);
        if width == 0 {
            return words.chars().take(room).collect();
        }
        let full = (done * width).checked_div(all).unwrap_or(width).min(width);
        let bar = "#".repeat(full) + &"-".repeat(width - full);
        format!("[{bar}] {words}")
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.is_shown {
            let _ = write!(std::io::stderr(), "\r\u{1b}[K");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(done: usize, all: usize, columns: usize) -> String {
        Progress::line(done, all, Duration::from_secs(10), columns)
    }

    #[test]
    fn the_bar_grows() {
        assert_eq!(
            line(0, 100, 80),
            "[------------------------------] 0/100 ports"
        );
        assert_eq!(
            line(50, 100, 80),
            "[###############---------------] 50/100 ports, 10 s left"
        );
        assert_eq!(
            line(100, 100, 80),
            "[##############################] 100/100 ports"
        );
        assert!(line(0, 0, 80).contains("0/0"));
    }

    #[test]
    fn a_narrow_terminal_is_never_wrapped() {
        assert_eq!(line(50, 100, 40), "[######-------] 50/100 ports, 10 s left");
        assert_eq!(line(50, 100, 26), "50/100 ports, 10 s left");
        assert_eq!(line(50, 100, 10), "50/100 po");
        for columns in 0..120 {
            assert!(line(12_345, 65_535, columns).len() <= columns.saturating_sub(1));
        }
    }
}
