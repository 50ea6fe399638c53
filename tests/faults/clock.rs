//! The clock of the day jumps. libfaketime shows the exporter another one; the monotonic clock goes on as it does on a host
//! whose clock is set.
//!
//! What the kernel's programs saw has the kernel's own times, for which the kernel tier asks the kernel without the C library
//! between, and so sees no other clock here: how it takes a jump is tested beside it.

use std::fs;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::support::{Exporter, wait_for};
use crate::{DARK, FLASH, LIT, Stage, WATCH, flash, opened, wait_for_opened};

const DAY: f64 = 86_400.0;
/// Lines in the log in a minute, of listeners that nobody expects.
const MOST_LINES: usize = 100;

#[test]
#[ignore = "needs root and faketime"]
fn jumps_of_the_clock_change_no_counter_and_lift_no_limit() {
    for tier in ["kernel", "netlink"] {
        let stage = Stage::new(WATCH);
        let clock = stage.path("clock");
        fs::write(&clock, "+0\n").unwrap();
        let mut command = stage.command(tier, &[]);
        command
            .env("LD_PRELOAD", library())
            .env("FAKETIME_TIMESTAMP_FILE", &clock)
            .env("FAKETIME_NO_CACHE", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .env("DONT_FAKE_MONOTONIC", "1");
        let mut exporter = Exporter::listening(command);
        let start = exporter.scrape();
        let began = start.value("process_start_time_seconds").unwrap();
        let mut before = start;
        for (index, days) in [1.0, -1.0, 0.0, -400.0, 0.0].into_iter().enumerate() {
            fs::write(&clock, format!("{days:+}d\n")).unwrap();
            flash(FLASH, 60);
            for _ in 0..10 {
                TcpStream::connect((Ipv4Addr::LOCALHOST, DARK.number)).unwrap_err();
            }
            let lit = TcpListener::bind((Ipv4Addr::LOCALHOST, LIT.number)).unwrap();
            let times = (index + 1) as f64;
            wait_for_opened(&exporter, FLASH, 60.0 * times);
            let after = wait_for_opened(&exporter, LIT, times);
            assert_eq!(after.of_port("darkport_listening", LIT), Some(1.0));
            drop(lit);
            if tier == "kernel" {
                let refused = after.of_port("darkport_inbound_refused_total", DARK);
                assert_eq!(refused, Some(10.0 * times));
            } else {
                let shown = after.of_port("darkport_listener_opened_timestamp_seconds", LIT);
                assert_is_now(shown.unwrap(), days);
            }
            assert_eq!(after.value("process_start_time_seconds"), Some(began));
            for line in before.0.lines().filter(|line| !line.starts_with('#')) {
                let (series, value) = line.rsplit_once(' ').unwrap();
                if series.split('{').next().unwrap().ends_with("_total") {
                    let value: f64 = value.parse().unwrap();
                    assert!(after.value(series) >= Some(value), "{tier}: {line}");
                }
            }
            before = after;
        }
        assert_eq!(opened(&before, FLASH), 300.0);
        wait_for("the audit to agree", || {
            let scrape = exporter.scrape();
            let of = |side: &str| {
                scrape.value(&format!(
                    "darkport_audit_{side}_total{{what=\"passive_opens\"}}"
                ))
            };
            (tier == "netlink" || of("host") == of("counted")).then_some(())
        });
        let told = exporter.log().join("\n");
        let lines = told.matches("msg=\"listener").count();
        assert!((1..=MOST_LINES * 2).contains(&lines), "{lines} lines");
    }
}

/// Holds a time against the exporter's clock; within some minutes of it will do.
fn assert_is_now(shown: f64, days: f64) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let expected = now.as_secs_f64() + days * DAY;
    assert!(
        (shown - expected).abs() < 300.0,
        "{shown} shown, {expected} expected"
    );
}

fn library() -> std::path::PathBuf {
    let folders = fs::read_dir("/usr/lib").unwrap();
    let mut found = folders.filter_map(|folder| {
        let path = folder.ok()?.path().join("faketime/libfaketimeMT.so.1");
        path.exists().then_some(path)
    });
    found.next().expect("Debian's package faketime is needed")
}
