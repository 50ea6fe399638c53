//! `probe` on a real terminal, which script(1) makes: the bar, its end, and an interrupt.
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test's helpers are tests too"
)]

mod support;

use std::io::{Read as _, Write as _};
use std::net::UdpSocket;
use std::process::{Command, Stdio};

use support::{Running, program};

/// Carriage return, and erase to the end of the line.
const ERASED: &str = "\r\u{1b}[K";
const INTERRUPT: &[u8] = &[3];

/// What a terminal of so many columns shows of a probe of a port that says nothing, and the exit status. Standard output
/// goes to a file, whose text comes last. `interrupted`: somebody types Ctrl-C when the bar is there.
fn on_a_terminal(columns: u16, timeout: &str, interrupted: bool) -> (String, Option<i32>, String) {
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let folder = tempfile::tempdir().unwrap();
    let printed = folder.path().join("printed");
    let program = program();
    let command = format!(
        "stty cols {columns} rows 24 && exec '{}' probe 127.0.0.1 --ports {port} --udp --retries 0 --timeout {timeout} > '{}'",
        program.to_str().unwrap(),
        printed.display()
    );
    let mut child = Command::new("script")
        .args([
            "--quiet",
            "--flush",
            "--return",
            "--command",
            &command,
            "/dev/null",
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("script is needed");
    let mut keys = child.stdin.take().unwrap();
    let mut screen = child.stdout.take().unwrap();
    let mut terminal = Running::of(child, "script");
    let mut shown = Vec::new();
    let mut buffer = [0; 256];
    while let Ok(count @ 1..) = screen.read(&mut buffer) {
        shown.extend(&buffer[..count]);
        if interrupted && shown.ends_with(b"\x1b[K") {
            let _ = keys.write_all(INTERRUPT);
        }
    }
    let status = terminal.ended().code();
    let text = std::fs::read_to_string(printed).unwrap();
    (String::from_utf8(shown).unwrap(), status, text)
}

/// The lines of the bar, each of which overwrites the one before; the last thing on the terminal must be its erasure.
fn bars(shown: &str) -> Vec<&str> {
    let drawn = shown
        .strip_suffix(ERASED)
        .unwrap_or_else(|| panic!("nothing erases the bar: {shown:?}"));
    drawn
        .split_terminator("\u{1b}[K")
        .map(|line| line.trim_start_matches('\r'))
        .collect()
}

#[test]
#[ignore = "needs script, of util-linux"]
fn a_bar_is_drawn_and_erased_and_the_table_goes_to_standard_output() {
    let (shown, status, table) = on_a_terminal(80, "1s", false);
    let bars = bars(&shown);
    assert!(
        bars.len() > 1
            && bars
                .iter()
                .all(|bar| bar.starts_with('[') && bar.contains("/1 ports")),
        "{bars:?}"
    );
    assert_eq!(status, Some(0));
    assert!(
        table.contains("open_or_filtered") && !table.contains(['\u{1b}', '\r']),
        "{table:?}"
    );
}

#[test]
#[ignore = "needs script, of util-linux"]
fn a_narrow_terminal_gets_a_bar_that_fits() {
    for columns in [24, 12] {
        let (shown, status, _) = on_a_terminal(columns, "600ms", false);
        let bars = bars(&shown);
        assert!(
            bars.iter()
                .all(|bar| bar.len() < columns.into() && !bar.contains('\n')),
            "{bars:?}"
        );
        assert!(bars.iter().any(|bar| bar.contains("0/1")), "{bars:?}");
        assert_eq!(status, Some(0));
    }
}

#[test]
#[ignore = "needs script, of util-linux"]
fn an_interrupt_erases_the_bar_and_ends_it() {
    let (shown, status, table) = on_a_terminal(80, "60s", true);
    // The terminal echoes what is typed.
    let shown = shown.replace("^C", "");
    assert!(!bars(&shown).is_empty());
    assert_eq!(status, Some(130));
    assert_eq!(table, "");
}
