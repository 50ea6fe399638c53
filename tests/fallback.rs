//! The exporter where the kernel refuses netlink sockets, as under systemd's `RestrictAddressFamilies=` and in sandboxes.
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "the lints spare test functions only, not what they share"
)]

mod support;

use std::net::{TcpListener, TcpStream, UdpSocket};

use darkport_exporter::port::Port;
use support::{Exporter, wait_for};

/// A wrapper that refuses netlink sockets: every one, or those of type SOCK_RAW.
fn without_netlink(which: &str) -> [&str; 4] {
    const SCRIPT: &str = include_str!("support/without_netlink.py");
    ["python3", "-c", SCRIPT, which]
}

/// Starts the exporter behind the wrapper, watching one port that nobody uses, and holds what it serves against what is
/// opened there. Gives the exporter, and the log line that tells the reader.
fn assert_true_scrapes(wrapper: &[&str], arguments: &[&str]) -> (Exporter, String) {
    let free = support::free_address();
    let (tcp, udp) = (Port::tcp(free.port()), Port::udp(free.port()));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("one.yml");
    let one = format!("watch: [{{name: one, ports: [{}]}}]\n", free.port());
    std::fs::write(&file, one).unwrap();
    let config = format!("--config.file={}", file.display());
    let polled = ["--collector.tier=polled", &config];
    let mut exporter = Exporter::start_through(wrapper, &[&polled, arguments].concat());
    let line = exporter.logged(&["reading the socket table"]);

    let listening = |port| exporter.scrape().of_port("darkport_listening", port);
    assert_eq!((listening(tcp), listening(udp)), (Some(0.0), Some(0.0)));
    let listener = TcpListener::bind(free).unwrap();
    assert_eq!((listening(tcp), listening(udp)), (Some(1.0), Some(0.0)));
    let bound = UdpSocket::bind(free).unwrap();
    assert_eq!((listening(tcp), listening(udp)), (Some(1.0), Some(1.0)));

    let connected = (
        TcpStream::connect(free).unwrap(),
        listener.accept().unwrap(),
    );
    let scrape = exporter.scrape();
    for (family, value) in [
        ("darkport_connections", 1.0),
        ("darkport_inbound_accepted_total", 1.0),
        ("darkport_outbound_connections_total", 1.0),
        ("darkport_listener_opened_total", 1.0),
    ] {
        assert_eq!(scrape.of_port(family, tcp), Some(value), "{family}");
    }
    let success = |collector: &str| {
        scrape.value(&format!(
            "darkport_collector_success{{collector=\"{collector}\"}}"
        ))
    };
    assert_eq!(success("sockets"), Some(1.0));
    drop((connected, bound, listener));
    // The end that closed last may be in LAST-ACK for a moment, but a listener is gone at once.
    assert_eq!((listening(tcp), listening(udp)), (Some(0.0), Some(0.0)));
    wait_for("the connection to be gone", || {
        let connections = exporter.scrape().of_port("darkport_connections", tcp);
        (connections == Some(0.0)).then_some(())
    });
    (exporter, line)
}

#[test]
#[ignore = "needs python3"]
fn without_any_netlink_procfs_stands_in_and_the_log_says_why() {
    let (_exporter, line) = assert_true_scrapes(&without_netlink("any"), &[]);
    assert!(line.contains("reader=procfs"), "{line}");
    for reason in [
        "netlink: open a netlink socket for sock_diag: ",
        "; netstat2: list sockets through netstat2: ",
        "not supported",
    ] {
        assert!(line.contains(reason), "{line}");
    }
}

#[test]
#[ignore = "needs python3"]
fn where_only_our_netlink_socket_is_refused_netstat2_stands_in_and_the_log_says_why() {
    let (_exporter, line) = assert_true_scrapes(&without_netlink("raw"), &[]);
    assert!(line.contains("reader=netstat2"), "{line}");
    assert!(
        line.contains("netlink: ") && !line.contains("netstat2: "),
        "{line}"
    );
}

#[test]
fn a_reader_that_is_asked_for_by_name_is_taken_without_a_word() {
    for reader in ["netlink", "netstat2", "procfs"] {
        let asked = format!("--collector.sockets={reader}");
        let (_exporter, line) = assert_true_scrapes(&["env"], &[&asked]);
        assert!(
            line.contains(&format!("reader={reader}")) && line.contains("level=INFO"),
            "{line}"
        );
    }
}

#[test]
#[ignore = "needs python3"]
fn a_reader_that_is_asked_for_by_name_and_does_not_work_ends_the_exporter() {
    for reader in ["netlink", "netstat2"] {
        let wrapper = without_netlink("any");
        let output = std::process::Command::new(wrapper[0])
            .args(&wrapper[1..])
            .arg(env!("CARGO_BIN_EXE_darkport_exporter"))
            .arg("--web.listen-address=127.0.0.1:0")
            .arg(format!("--collector.sockets={reader}"))
            .output()
            .unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{said}");
        let last = said.lines().last().unwrap();
        assert!(
            last.starts_with(&format!(
                "darkport_exporter: --collector.sockets={reader} does not work here"
            )) && last.matches("not supported").count() == 1,
            "{said}"
        );
    }
}
