//! The whole path on a real host: real sockets, a real Prometheus, real sweeps.
//!
//! The suite runs this as root in a network namespace of its own, so that every port is free and nobody else is swept.

mod support;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};

use darkport_exporter::config::Config;
use darkport_exporter::port::{Port, Protocol, Range};
use support::{Exporter, Prometheus, Scrape, run, wait_for};

/// A listening socket, closed when dropped.
#[derive(Debug)]
enum Open {
    Tcp(#[allow(dead_code, reason = "held open")] TcpListener),
    Udp(#[allow(dead_code, reason = "held open")] UdpSocket),
}

fn open(port: Port, address: IpAddr) -> Open {
    let at = SocketAddr::new(address, port.number);
    match port.protocol {
        Protocol::Tcp => TcpListener::bind(at).map(Open::Tcp),
        Protocol::Udp => UdpSocket::bind(at).map(Open::Udp),
    }
    .unwrap_or_else(|error| panic!("{port} on {address} cannot be opened: {error}"))
}

/// Clients of all tests speak from ports that no test listens on: a connection in TIME-WAIT keeps its client's port taken.
fn keep_clients_away() {
    std::fs::write("/proc/sys/net/ipv4/ip_local_port_range", "49152 65535")
        .expect("root in a network namespace of its own");
}

const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

fn selector(port: Port) -> String {
    format!(
        "{{port=\"{}\",protocol=\"{}\"}}",
        port.number, port.protocol
    )
}

#[test]
#[ignore = "needs root, prometheus and a network namespace of its own"]
fn a_port_of_the_default_lights_up_and_goes_dark_again() {
    keep_clients_away();
    let exporter = Exporter::start(&[]);
    let prometheus = Prometheus::scraping(&[exporter.address]);
    let nppmp = Port::tcp(3476);
    let series = format!("darkport_listening{}", selector(nppmp));
    prometheus.becomes(&series, 0.0);
    for (port, address) in [
        (nppmp, V4),
        (nppmp, V6),
        (Port::udp(3476), V4),
        (Port::udp(3476), V6),
    ] {
        let series = format!("darkport_listening{}", selector(port));
        let listener = open(port, address);
        prometheus.becomes(&series, 1.0);
        prometheus.becomes(
            &format!("darkport_unexpected_listening{}", selector(port)),
            1.0,
        );
        drop(listener);
        prometheus.becomes(&series, 0.0);
    }
}

#[test]
#[ignore = "needs root, prometheus and a network namespace of its own"]
fn every_dense_port_of_the_default_is_told_of() {
    keep_clients_away();
    let exporter = Exporter::start(&[]);
    let prometheus = Prometheus::scraping(&[exporter.address]);
    let dense: Vec<Port> = Config::embedded().watch.dense_ports().collect();
    let watched = "count(darkport_listening and on (port, protocol) darkport_watched_port_info{watch!=\"registered\"})";
    prometheus.becomes(watched, dense.len() as f64);
    let lit = "sum(darkport_listening and on (port, protocol) darkport_watched_port_info{watch!=\"registered\"})";
    prometheus.becomes(lit, 0.0);
    for address in [V4, V6] {
        let listeners: Vec<Open> = dense.iter().map(|&port| open(port, address)).collect();
        prometheus.becomes(lit, dense.len() as f64);
        drop(listeners);
        prometheus.becomes(lit, 0.0);
    }
    // The next scrape tells, not a later one: asked without Prometheus, port by port.
    for &port in &dense {
        let listener = open(port, V4);
        assert_eq!(
            exporter.scrape().of_port("darkport_listening", port),
            Some(1.0),
            "{port}"
        );
        drop(listener);
        assert_eq!(
            exporter.scrape().of_port("darkport_listening", port),
            Some(0.0),
            "{port}"
        );
    }
}

#[test]
#[ignore = "needs root, prometheus, nmap and a network namespace of its own"]
fn a_sweep_of_all_ports_creates_no_series() {
    keep_clients_away();
    let exporter = Exporter::start_at("127.0.0.1:10561", &[]);
    let prometheus = Prometheus::scraping(&[exporter.address]);
    let count = "count({__name__=~\"darkport_.+\"})";
    let before = wait_for("a scrape", || prometheus.number(count));
    // What the sweep meets is lit already; a connection to it shows nothing that was not shown.
    for arguments in [
        ["-n", "-Pn", "-sS", "-p-", "-T5", "127.0.0.1"],
        ["-n", "-Pn", "-sT", "-p-", "-T5", "127.0.0.1"],
        ["-n", "-Pn", "-sU", "-p1-2000", "-T5", "127.0.0.1"],
    ] {
        let report = run("nmap", &arguments);
        assert!(report.contains("1 host up"), "{report}");
        assert!(
            !arguments.contains(&"-p-") || report.contains("10561/tcp"),
            "{report}"
        );
    }
    let scraped = "count_over_time(up[1m])";
    let seen = prometheus.number(scraped).unwrap();
    wait_for("a scrape after the sweep", || {
        (prometheus.number(scraped)? > seen + 1.0).then_some(())
    });
    assert_eq!(prometheus.number(count), Some(before));
}

#[test]
#[ignore = "needs root and a network namespace of its own"]
fn an_active_entry_shows_a_new_listener_on_any_registered_port() {
    keep_clients_away();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("all.yml");
    std::fs::write(
        &file,
        "watch:\n- {name: all, iana: {range: registered}, series: active}\nlimits: {series: 2000000, listeners: 100000}\n",
    )
    .unwrap();
    let exporter = Exporter::start_at("127.0.0.1:80", &["--config.file", file.to_str().unwrap()]);
    assert_eq!(exporter.scrape().series("darkport_listening").count(), 0);
    // As many at a time as one process may have files.
    let numbers: Vec<u16> = Range::Registered.numbers().collect();
    let mut shown = 0;
    for protocol in Protocol::ALL {
        for part in numbers.chunks(16_000) {
            let ports = part.iter().map(|&number| Port { number, protocol });
            let listeners: Vec<Open> = ports.clone().map(|port| open(port, V4)).collect();
            let scrape = exporter.scrape();
            let lit: BTreeSet<&str> = scrape
                .series("darkport_listening")
                .filter_map(|line| line.strip_suffix(" 1"))
                .collect();
            let expected: BTreeSet<String> = ports
                .map(|port| format!("darkport_listening{}", selector(port)))
                .collect();
            assert!(
                lit.iter().copied().eq(expected.iter().map(String::as_str)),
                "{} lit",
                lit.len()
            );
            shown += lit.len();
            drop(listeners);
        }
    }
    assert_eq!(shown, 2 * 48_128);
}

#[test]
#[ignore = "needs root, ss and a network namespace of its own"]
fn what_really_listens_is_listed_as_ss_lists_it() {
    keep_clients_away();
    let exporter = Exporter::start_at(":10561", &[]);
    let prometheus = Prometheus::scraping(&[exporter.address]);
    let _open = [
        open(Port::tcp(3476), V4),
        open(Port::udp(561), V6),
        open(Port::tcp(22), IpAddr::V6(Ipv6Addr::UNSPECIFIED)),
        open(Port::udp(53), IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
    ];
    let connected = UdpSocket::bind("127.0.0.1:0").unwrap();
    connected.connect("127.0.0.1:53").unwrap();
    let listed = |scrape: &Scrape| -> BTreeSet<(String, String, String)> {
        let label = |line: &str, name: &str| {
            let rest = line.split_once(&format!("{name}=\"")).unwrap().1;
            rest.split_once('"').unwrap().0.to_owned()
        };
        scrape
            .series("darkport_listener_info")
            .map(|line| {
                (
                    label(line, "protocol"),
                    label(line, "address"),
                    label(line, "port"),
                )
            })
            .collect()
    };
    let ss = || -> BTreeSet<(String, String, String)> {
        run("ss", &["-H", "-l", "-n", "-t", "-u"])
            .lines()
            .map(|line| {
                let words: Vec<&str> = line.split_whitespace().collect();
                let (address, port) = words[4].rsplit_once(':').unwrap();
                let address = match address.trim_matches(['[', ']']) {
                    "*" => "::",
                    address => address,
                };
                (words[0].to_owned(), address.to_owned(), port.to_owned())
            })
            .collect()
    };
    let ours = listed(&exporter.scrape());
    assert_eq!(ours, ss());
    let own = ("tcp".to_owned(), "::".to_owned(), "10561".to_owned());
    assert!(ours.contains(&own), "{ours:?}");
    drop(prometheus);
}

#[test]
#[ignore = "needs root, promtool and a network namespace of its own"]
fn promtool_has_nothing_to_say_about_a_live_scrape() {
    keep_clients_away();
    use std::io::Write as _;
    use std::process::{Command, Stdio};
    let exporter = Exporter::start(&[]);
    let _listener = open(Port::tcp(3476), V4);
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool is needed");
    let scrape = exporter.scrape();
    promtool
        .stdin
        .take()
        .unwrap()
        .write_all(scrape.0.as_bytes())
        .unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(
        output.status.success() && said.is_empty(),
        "{}",
        String::from_utf8_lossy(&said)
    );
}
