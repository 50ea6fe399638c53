//! The log of a whole process: what reaches standard error, and what becomes of a process that cannot write to it.
#![cfg(unix)]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test's helpers are tests too"
)]

use std::io::Read as _;
use std::process::{Command, Output, Stdio};

use darkport_exporter::log::{self, Format, Level};

/// The process under test is this file's ignored test, run on its own.
fn process(task: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--ignored", "--exact", "--nocapture", "child"]);
    command.env("CHILD", task);
    command.stdout(Stdio::null()).env_remove("RUST_BACKTRACE");
    command
}

fn lines(output: &Output) -> Vec<&str> {
    std::str::from_utf8(&output.stderr)
        .unwrap()
        .lines()
        .collect()
}

#[test]
fn events_come_out_in_logfmt_from_the_level_on() {
    let output = process("tells").output().unwrap();
    assert!(output.status.success());
    let lines = lines(&output);
    assert_eq!(lines.len(), 2, "{lines:#?}");
    assert!(lines[0].starts_with("time=2"), "{}", lines[0]);
    assert!(
        lines[0].contains("Z level=INFO source=log.rs:"),
        "{}",
        lines[0]
    );
    assert!(
        lines[0].ends_with(
            " msg=\"listener opened\" port=3476 process=\"x\\\"} 1\\n\" expected=false ratio=0.5"
        ),
        "{}",
        lines[0]
    );
    assert!(lines[1].contains("level=ERROR"), "{}", lines[1]);
}

#[test]
fn a_panic_is_one_line_of_json() {
    let output = process("panics").output().unwrap();
    assert!(output.status.success());
    let lines = lines(&output);
    assert_eq!(lines.len(), 1, "{lines:#?}");
    let line: serde_json::Value = serde_json::from_str(lines[0]).unwrap();
    assert_eq!(line["level"], "ERROR");
    assert_eq!(line["reason"], "two\nlines");
    assert_eq!(line["thread"], "doomed");
    assert!(line["location"].as_str().unwrap().contains("log.rs:"));
}

#[test]
fn a_pipe_that_nobody_reads_does_not_hold_the_process() {
    let (mut reader, writer) = std::io::pipe().unwrap();
    let status = process("floods").stderr(writer).status().unwrap();
    assert!(status.success());
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert!(text.starts_with("time="), "{text}");
}

#[test]
fn a_closed_standard_error_does_not_end_the_process() {
    let program = std::env::current_exe().unwrap();
    let status = Command::new("sh")
        .args(["-c", "exec \"$0\" --ignored --exact --nocapture child 2>&-"])
        .arg(program)
        .env("CHILD", "floods")
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
}

#[test]
#[cfg(target_os = "linux")]
fn a_full_disk_does_not_end_the_process() {
    let full = std::fs::File::options()
        .write(true)
        .open("/dev/full")
        .unwrap();
    let status = process("floods").stderr(full).status().unwrap();
    assert!(status.success());
}

/// One test for all of them, because a process has one log.
#[test]
#[ignore = "a process of its own, started by the tests above"]
fn child() {
    match std::env::var("CHILD").as_deref() {
        Ok("panics") => panics(),
        Ok("floods") => floods(),
        _ => tells(),
    }
}

fn tells() {
    let _guard = log::init(Level::Info, Format::Logfmt).unwrap();
    assert!(matches!(
        log::init(Level::Info, Format::Logfmt),
        Err(log::Error::Again)
    ));
    tracing::debug!("not to be seen");
    tracing::info!(
        port = 3476,
        process = "x\"} 1\n",
        user = None::<&str>,
        expected = false,
        ratio = 0.5,
        "listener opened"
    );
    tracing::error!("broken");
}

fn panics() {
    let _guard = log::init(Level::Info, Format::Json).unwrap();
    let doomed = std::thread::Builder::new()
        .name("doomed".into())
        .spawn(|| panic!("two\nlines"))
        .unwrap();
    assert!(doomed.join().is_err());
}

fn floods() {
    let _guard = log::init(Level::Info, Format::Logfmt).unwrap();
    for number in 0..50_000 {
        tracing::info!(number, "flood");
    }
}
