//! There is no room for the log.

use std::fs::{self, File, OpenOptions};
use std::net::{Ipv4Addr, TcpListener};
use std::process::{Command, Stdio};

use crate::support::{Running, Scrape, get, run, wait_for};
use crate::{FLASH, LIT, Stage, WATCH, flash};

const ADDRESS: ([u8; 4], u16) = ([127, 0, 0, 1], 19100);

/// An exporter that logs to a file, ready.
fn start(stage: &Stage, log: File) -> Running {
    let mut command = stage.command("netlink", &[]);
    let process = Running::start(command.stdin(Stdio::null()).stderr(log));
    wait_for("the exporter", || {
        std::net::TcpStream::connect(std::net::SocketAddr::from(ADDRESS)).ok()?;
        (get(ADDRESS.into(), "/-/ready").0 == 200).then_some(())
    });
    process
}

fn scrape() -> Scrape {
    let (status, text) = get(ADDRESS.into(), "/metrics");
    assert_eq!(status, 200, "{text}");
    Scrape(text)
}

#[test]
#[ignore = "needs root"]
fn a_log_that_takes_nothing_stops_nothing() {
    let stage = Stage::new(WATCH);
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut process = start(&stage, full);
    for turn in 1..=20 {
        flash(FLASH, 10);
        let lit = TcpListener::bind((Ipv4Addr::LOCALHOST, LIT.number)).unwrap();
        assert_eq!(scrape().of_port("darkport_listening", LIT), Some(1.0));
        drop(lit);
        let times = Some(f64::from(turn) * 10.0);
        wait_for("the listeners to be counted", || {
            let shown = scrape().of_port("darkport_listener_opened_total", FLASH);
            (shown == times).then_some(())
        });
    }
    process.signal("TERM");
    assert!(process.ended().success());
}

#[test]
#[ignore = "needs root"]
fn when_the_disk_has_room_again_the_log_says_how_much_was_left_out() {
    let stage = Stage::new(WATCH);
    let disk = stage.path("disk");
    fs::create_dir(&disk).unwrap();
    let _mounted = Mounted::tmpfs(disk.to_str().unwrap());
    let log = disk.join("log");
    let filler = disk.join("filler");
    let process = start(
        &stage,
        OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log)
            .unwrap(),
    );
    fs::write(&filler, vec![0; 64 << 10]).unwrap_err();
    // More than fits in what is left of the page that the log ends in.
    for _ in 0..40 {
        process.signal("HUP");
        scrape();
    }
    let full = fs::read_to_string(&log).unwrap();
    fs::remove_file(&filler).unwrap();
    wait_for("the log to say what it left out", || {
        process.signal("HUP");
        let text = fs::read_to_string(&log).unwrap();
        assert!(text.starts_with(&full));
        text[full.len()..].contains("dropped=").then_some(())
    });
    scrape();
}

struct Mounted(String);

impl Mounted {
    /// Of 16 kB.
    fn tmpfs(path: &str) -> Self {
        run("mount", &["-t", "tmpfs", "-o", "size=16k", "tmpfs", path]);
        Self(path.to_owned())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").args(["-l", &self.0]).status();
    }
}
