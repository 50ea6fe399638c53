//! The kernel's netlink sockets fail, each kind in turn, while the exporter runs.

use std::ffi::OsStr;
use std::fs;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};

use darkport_exporter::port::Port;

use crate::support::wait_for;
use crate::{DARK, FLASH, LIT, Stage, WATCH, collector, flash, lost, opened, wait_for_opened};

const SCRIPT: &str = include_str!("../support/failing.py");
/// As many errors as are told apart: those that pass, no permission, no memory, no answer, and a nonsensical one.
const ERRORS: [&str; 6] = ["ENOBUFS", "EPERM", "ENOMEM", "EAGAIN", "EIO", "EBADF"];

/// An exporter, and the file that says what fails.
fn failing(stage: &Stage, tier: &str) -> (crate::support::Exporter, std::path::PathBuf) {
    let file = stage.path("failing");
    let wrapper = ["python3", "-c", SCRIPT].map(OsStr::new);
    let exporter = stage.start_through(tier, &[&wrapper[..], &[file.as_os_str()]].concat());
    (exporter, file)
}

/// Put in place at once: it is read at any moment.
fn write(file: &std::path::Path, text: &str) {
    let new = file.with_extension("new");
    fs::write(&new, text).unwrap();
    fs::rename(new, file).unwrap();
}

#[test]
#[ignore = "needs root"]
fn a_table_that_cannot_be_read_is_absent_and_counters_stand() {
    let stage = Stage::new(WATCH);
    for tier in ["kernel", "netlink", "polled"] {
        let (mut exporter, file) = failing(&stage, tier);
        let lit = TcpListener::bind((Ipv4Addr::LOCALHOST, LIT.number)).unwrap();
        let before = wait_for_opened(&exporter, LIT, 1.0);
        assert_eq!(before.of_port("darkport_listening", LIT), Some(1.0));
        for (index, error) in ERRORS.into_iter().enumerate() {
            write(&file, &format!("dump {error}\n"));
            let during = exporter.scrape();
            assert_eq!(collector(&during, "sockets"), Some(0.0), "{tier} {error}");
            for family in [
                "darkport_listening",
                "darkport_unexpected_listening",
                "darkport_listener_info",
                "darkport_space_lit_ports",
                "darkport_block_lit_ports",
            ] {
                assert_eq!(during.series(family).count(), 0, "{tier} {error} {family}");
            }
            assert_eq!(opened(&during, LIT), 1.0, "{tier} {error}");
            exporter.logged(&["level=ERROR", "collector failed", "collector=sockets"]);
            // What happens meanwhile is counted where somebody tells of it.
            flash(FLASH, 10);
            write(&file, "");
            let after = exporter.scrape();
            assert_eq!(collector(&after, "sockets"), Some(1.0), "{tier} {error}");
            assert_eq!(after.of_port("darkport_listening", LIT), Some(1.0));
            assert_eq!(after.of_port("darkport_listening", DARK), Some(0.0));
            assert_eq!(opened(&after, LIT), 1.0, "{tier} {error}");
            if tier != "polled" {
                wait_for_opened(&exporter, FLASH, 10.0 * (index + 1) as f64);
            }
        }
        exporter.logged(&["collector succeeds again", "collector=sockets"]);
        drop((lit, exporter));
        fs::remove_file(file).unwrap();
    }
}

/// The reader's thread ended for ever when one read failed, and each scrape logged an error.
#[test]
#[ignore = "needs root"]
fn what_the_kernel_tells_is_read_again_after_an_error() {
    let stage = Stage::new(WATCH);
    let (mut exporter, file) = failing(&stage, "netlink");
    for (index, error) in ["EIO", "ENOMEM", "EPERM"].into_iter().enumerate() {
        let so_far = 10.0 * index as f64;
        write(&file, &format!("told {error}\n"));
        flash(FLASH, 10);
        let during = wait_for("the failure to show", || {
            let scrape = exporter.scrape();
            (collector(&scrape, "netlink") == Some(0.0)).then_some(scrape)
        });
        assert_eq!(collector(&during, "sockets"), Some(1.0), "{error}");
        assert_eq!(opened(&during, FLASH), so_far, "{error}");
        write(&file, "");
        let after = wait_for_opened(&exporter, FLASH, so_far + 10.0);
        assert_eq!(collector(&after, "netlink"), Some(1.0), "{error}");
        assert_eq!(lost(&after, "netlink"), 0.0, "{error}");
    }
    exporter.scrape();
    let log = exporter.log().join("\n");
    let times = log.matches("a netlink socket cannot be read").count();
    assert_eq!(times, 3, "{log}");
}

#[test]
#[ignore = "needs root"]
fn without_ipv6_it_listens_and_counts_on_ipv4() {
    let stage = Stage::new(WATCH);
    let file = stage.path("failing");
    write(&file, "inet6 EAFNOSUPPORT\n");
    let wrapper = ["python3", "-c", SCRIPT].map(OsStr::new);
    for tier in ["kernel", "netlink", "polled"] {
        let mut command = stage.command(tier, &[&wrapper[..], &[file.as_os_str()]].concat());
        command.arg("--web.listen-address=:19101");
        let mut exporter = crate::support::Exporter::listening(command);
        exporter.logged(&["msg=listening", "address=0.0.0.0:19101"]);
        // What the first table shows was there before.
        exporter.scrape();
        let _lit = TcpListener::bind((Ipv4Addr::LOCALHOST, LIT.number)).unwrap();
        let scrape = wait_for_opened(&exporter, LIT, 1.0);
        assert_eq!(scrape.of_port("darkport_listening", LIT), Some(1.0));
        assert_eq!(collector(&scrape, "sockets"), Some(1.0), "{tier}");
    }
}

/// Stopped for so long that the kernel has no more room for what it tells.
#[test]
#[ignore = "needs root"]
fn what_was_lost_while_it_was_stopped_is_told_and_counting_goes_on() {
    // Of so many that are told of, the buffer of a user without privilege holds less than half.
    const MANY: usize = 250_000;
    let port = Port::udp(FLASH.number);
    let stage = Stage::new(WATCH);
    let nobody = [
        "setpriv",
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        "--bounding-set=-all",
    ];
    let copy = stage.path("darkport_exporter");
    fs::copy(crate::support::program(), &copy).unwrap();
    for path in [stage.folder.path(), &copy] {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let config = format!("--config.file={}", stage.path("darkport.yml").display());
    let arguments = ["--collector.tier=netlink", config.as_str()];
    let mut exporter = crate::support::Exporter::start_copy(&copy, &nobody, &arguments);
    exporter.process.signal("STOP");
    for _ in 0..MANY {
        drop(UdpSocket::bind((Ipv4Addr::LOCALHOST, port.number)).unwrap());
    }
    exporter.process.signal("CONT");
    let after = wait_for("losses to be told", || {
        let scrape = exporter.scrape();
        let accounted = opened(&scrape, port) + lost(&scrape, "netlink");
        (accounted == MANY as f64).then_some(scrape)
    });
    assert!(lost(&after, "netlink") > 0.0);
    assert!(opened(&after, port) > 0.0);
    exporter.logged(&["level=WARN", "counters fall short", "net.core.rmem_max"]);
    for _ in 0..10 {
        drop(UdpSocket::bind((Ipv4Addr::LOCALHOST, port.number)).unwrap());
    }
    let more = wait_for_opened(&exporter, port, opened(&after, port) + 10.0);
    assert_eq!(lost(&more, "netlink"), lost(&after, "netlink"));
}

#[test]
#[ignore = "needs root"]
fn in_the_kernel_tier_nothing_is_lost_while_it_is_stopped() {
    const MANY: usize = 20_000;
    let stage = Stage::new(WATCH);
    let exporter = stage.start("kernel");
    exporter.process.signal("STOP");
    flash(FLASH, MANY);
    for _ in 0..1000 {
        std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, DARK.number)).unwrap_err();
    }
    exporter.process.signal("CONT");
    let scrape = exporter.scrape();
    assert_eq!(opened(&scrape, FLASH), MANY as f64);
    for family in [
        "darkport_inbound_attempts_total",
        "darkport_inbound_refused_total",
        "darkport_outbound_failures_total",
    ] {
        assert_eq!(scrape.of_port(family, DARK), Some(1000.0), "{family}");
    }
}
