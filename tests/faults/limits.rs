//! Too few file descriptors, and little memory.

use std::ffi::OsStr;
use std::fs;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::PathBuf;

use crate::support::{get, wait_for};
use crate::{DARK, FLASH, LIT, Stage, WATCH, collector, flash, opened, wait_for_opened};

#[test]
#[ignore = "needs root"]
fn with_64_file_descriptors_it_serves_and_knows_what_it_says() {
    let stage = Stage::new(WATCH);
    let wrapper = ["prlimit", "--nofile=64:64"].map(OsStr::new);
    for tier in ["kernel", "netlink", "polled"] {
        let exporter = stage.start_through(tier, &wrapper);
        let mut lit = Some(TcpListener::bind((Ipv4Addr::LOCALHOST, LIT.number)).unwrap());
        wait_for_opened(&exporter, LIT, 1.0);
        for turn in 1..=3 {
            // Three times as many as there is room for; none of them says anything.
            let silent: Vec<_> = (0..200)
                .map(|_| TcpStream::connect(exporter.address).unwrap())
                .collect();
            flash(FLASH, 5);
            for _ in 0..5 {
                let scrape = exporter.scrape();
                let whole = collector(&scrape, "sockets") == Some(1.0);
                let shown = whole.then_some(f64::from(lit.is_some()));
                assert_eq!(scrape.of_port("darkport_listening", LIT), shown, "{tier}");
                let dark = whole.then_some(0.0);
                assert_eq!(scrape.of_port("darkport_listening", DARK), dark, "{tier}");
            }
            drop(silent);
            let after = wait_for("all collectors to succeed", || {
                let scrape = exporter.scrape();
                let all = ["sockets", "owners", "audit"];
                let succeed = all.iter().all(|name| collector(&scrape, name) == Some(1.0));
                succeed.then_some(scrape)
            });
            assert_eq!(opened(&after, LIT), 1.0, "{tier}");
            if tier != "polled" {
                wait_for_opened(&exporter, FLASH, 5.0 * f64::from(turn));
            }
            lit = lit.filter(|_| turn < 2);
        }
    }
}

/// A control group with so much memory that what the exporter may hold fits, and not much more.
#[test]
#[ignore = "needs root"]
fn in_96_megabytes_it_lives_through_a_crowd_and_all_its_pages() {
    let stage = Stage::new(WATCH);
    let group = Group::of_memory(96 << 20);
    let script = format!("echo $$ > {}/cgroup.procs; exec \"$@\"", group.0.display());
    let wrapper = ["sh", "-c", &script, "sh"].map(OsStr::new);
    for tier in ["kernel", "netlink"] {
        let exporter = stage.start_through(tier, &wrapper);
        // Every port has counts of its own, by which no two are alike.
        for number in (1..=20_000).filter(|number| number % 2 == 0) {
            let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, number));
        }
        let crowd: Vec<_> = (0..300)
            .map(|_| TcpStream::connect(exporter.address).unwrap())
            .collect();
        for _ in 0..5 {
            for path in [
                "/",
                "/map",
                "/config",
                "/api/v1/ports",
                "/api/v1/ports/facts",
            ] {
                assert_eq!(get(exporter.address, path).0, 200, "{tier} {path}");
            }
            exporter.process.signal("HUP");
            exporter.scrape();
        }
        drop(crowd);
        assert_eq!(
            collector(&exporter.scrape(), "sockets"),
            Some(1.0),
            "{tier}"
        );
    }
}

struct Group(PathBuf);

impl Group {
    fn of_memory(octets: u64) -> Self {
        let name = format!("darkport-{}", std::process::id());
        let roots = [
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
            ("/sys/fs/cgroup", "memory.max"),
        ];
        for (root, limit) in roots {
            let path = PathBuf::from(root).join(&name);
            if fs::create_dir(&path).is_err() {
                continue;
            }
            let group = Self(path);
            if fs::write(group.0.join(limit), octets.to_string()).is_ok() {
                return group;
            }
        }
        panic!("no control groups that limit memory here");
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}
