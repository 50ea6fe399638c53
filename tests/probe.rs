//! The outside view over real sockets on this host: `/probe` and `probe`.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test's helpers are tests too"
)]

mod support;

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::thread;

use darkport_exporter::metrics::PROBE_FAMILIES;
use support::{DEADLINE, Exporter, Scrape, get, program, wait_for};

/// An exporter with this section `probe`, and the file that has it.
fn exporter(probe: &str) -> (Exporter, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("probe.yml");
    std::fs::write(
        &file,
        format!("watch: [{{name: seen, ports: [561]}}]\n{probe}"),
    )
    .unwrap();
    let flag = format!("--config.file={}", file.display());
    (Exporter::start(&["--collector.tier=polled", &flag]), folder)
}

const TARGETS: &str = "probe:\n  targets: [127.0.0.0/8]\n  modules:\n";

/// A port of each kind on which nobody listens, held so that nobody else gets it: bound, and not listening.
fn closed_tcp() -> (socket2::Socket, u16) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    socket.bind(&any.into()).unwrap();
    let port = socket.local_addr().unwrap().as_socket().unwrap().port();
    (socket, port)
}

/// A UDP port that refuses everybody: its socket hears only a peer that never speaks.
fn closed_udp() -> (UdpSocket, u16) {
    let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(peer.local_addr().unwrap()).unwrap();
    let port = socket.local_addr().unwrap().port();
    (socket, port)
}

/// A UDP service that answers every datagram.
fn echo() -> u16 {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = socket.local_addr().unwrap().port();
    thread::spawn(move || {
        let mut buffer = [0; 64];
        while let Ok((_, from)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(b"here", from);
        }
    });
    port
}

fn probe(exporter: &Exporter, query: &str) -> (u16, Scrape) {
    let (status, text) = get(exporter.address, &format!("/probe?{query}"));
    (status, Scrape(text))
}

/// A probe with so many seconds, as Prometheus asks for one, on a connection of its own.
fn ask(exporter: &Exporter, query: &str, seconds: &str) -> TcpStream {
    ask_on(
        TcpStream::connect(exporter.address).unwrap(),
        query,
        seconds,
    )
}

fn ask_on(mut stream: TcpStream, query: &str, seconds: &str) -> TcpStream {
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    write!(
        stream,
        "GET /probe?{query} HTTP/1.0\r\nX-Prometheus-Scrape-Timeout-Seconds: {seconds}\r\n\r\n"
    )
    .unwrap();
    stream
}

fn answer(mut stream: TcpStream) -> (u16, Scrape) {
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let status = head.split_whitespace().nth(1).unwrap().parse().unwrap();
    (status, Scrape(body.to_owned()))
}

fn state(scrape: &Scrape, port: u16, protocol: &str) -> Option<(String, String)> {
    let label = |line: &str, name: &str| {
        let rest = line.split_once(&format!("{name}=\""))?.1;
        Some(rest.split_once('"')?.0.to_owned())
    };
    let start = format!("{{port=\"{port}\",protocol=\"{protocol}\"");
    let line = scrape
        .series("darkport_probe_port_state")
        .find(|line| line.contains(&start))?;
    assert!(line.ends_with(" 1"), "{line}");
    Some((label(line, "state")?, label(line, "reason")?))
}

fn known(state: &str, reason: &str) -> Option<(String, String)> {
    Some((state.to_owned(), reason.to_owned()))
}

#[test]
fn open_closed_and_silent_ports_are_told_apart() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let open = listener.local_addr().unwrap().port();
    let (_held, closed) = closed_tcp();
    let (_deaf, refusing) = closed_udp();
    let answering = echo();
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let quiet = silent.local_addr().unwrap().port();
    let (exporter, _folder) = exporter(&format!(
        "{TARGETS}    tcp: {{ports: [{open}, {closed}]}}\n    \
         udp: {{ports: [{refusing}, {answering}, {quiet}], protocols: [udp], timeout: 200ms}}\n"
    ));

    let (status, tcp) = probe(&exporter, "target=127.0.0.1&module=tcp");
    assert_eq!(status, 200, "{tcp:?}");
    assert_eq!(state(&tcp, open, "tcp"), known("open", "syn_ack"));
    assert_eq!(state(&tcp, closed, "tcp"), known("closed", "reset"));
    let open_value = |scrape: &Scrape, port: u16, protocol: &str| {
        scrape.value(&format!(
            "darkport_probe_open{{port=\"{port}\",protocol=\"{protocol}\"}}"
        ))
    };
    assert_eq!(open_value(&tcp, open, "tcp"), Some(1.0));
    assert_eq!(open_value(&tcp, closed, "tcp"), Some(0.0));
    let counts: Vec<&str> = tcp.series("darkport_probe_ports").collect();
    assert_eq!(
        counts,
        [
            "darkport_probe_ports{protocol=\"tcp\",state=\"filtered\"} 0",
            "darkport_probe_ports{protocol=\"tcp\",state=\"closed\"} 1",
            "darkport_probe_ports{protocol=\"tcp\",state=\"open\"} 1",
        ]
    );
    assert_eq!(tcp.value("probe_success"), Some(1.0));
    assert!(tcp.value("probe_duration_seconds").unwrap() > 0.0);
    assert_eq!(
        tcp.series("process_open_fds").count(),
        0,
        "a registry of its own"
    );

    let (_, udp) = probe(&exporter, "target=127.0.0.1&module=udp");
    assert_eq!(
        state(&udp, refusing, "udp"),
        known("closed", "port_unreachable")
    );
    assert_eq!(state(&udp, answering, "udp"), known("open", "udp_response"));
    assert_eq!(
        state(&udp, quiet, "udp"),
        known("open_or_filtered", "no_response")
    );
    assert_eq!(open_value(&udp, quiet, "udp"), Some(0.0));
    assert_eq!(open_value(&udp, answering, "udp"), Some(1.0));
}

#[test]
fn success_is_what_the_module_expects() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let open = listener.local_addr().unwrap().port();
    let (_held, closed) = closed_tcp();
    let mut modules = String::new();
    for (name, ports) in [
        ("o", vec![open]),
        ("c", vec![closed]),
        ("b", vec![open, closed]),
    ] {
        for expect in ["", ", expect: open", ", expect: closed"] {
            let word = expect.strip_prefix(", expect: ").unwrap_or("any");
            modules += &format!("    {name}-{word}: {{ports: {ports:?}{expect}}}\n");
        }
    }
    let (exporter, _folder) = exporter(&format!("{TARGETS}{modules}"));
    for (module, success) in [
        ("o-any", 1.0),
        ("o-open", 1.0),
        ("o-closed", 0.0),
        ("c-any", 1.0),
        ("c-open", 0.0),
        ("c-closed", 1.0),
        ("b-any", 1.0),
        ("b-open", 0.0),
        ("b-closed", 0.0),
    ] {
        let (status, scrape) = probe(&exporter, &format!("target=127.0.0.1&module={module}"));
        assert_eq!(
            (status, scrape.value("probe_success")),
            (200, Some(success)),
            "{module}"
        );
    }
}

/// The host that is asked decides what is in the series, never how many there are.
#[test]
fn an_answer_has_as_many_series_whatever_the_ports_are() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let open = listener.local_addr().unwrap().port();
    let (_held, closed) = closed_tcp();
    let (_deaf, refusing) = closed_udp();
    let (_service, quiet, _) = silent();
    let answering = echo();
    let mut modules = String::new();
    for port in [open, closed] {
        modules += &format!("    tcp-{port}: {{ports: [{port}]}}\n");
    }
    for port in [refusing, quiet, answering] {
        modules +=
            &format!("    udp-{port}: {{ports: [{port}], protocols: [udp], timeout: 100ms}}\n");
    }
    let (exporter, _folder) = exporter(&format!("{TARGETS}{modules}"));
    let series = |module: String| {
        let (_, scrape) = probe(&exporter, &format!("target=127.0.0.1&module={module}"));
        assert_eq!(scrape.value("probe_success"), Some(1.0), "{scrape:?}");
        scrape.count()
    };
    assert_eq!(
        [open, closed].map(|port| series(format!("tcp-{port}"))),
        [5; 2]
    );
    let udp = [refusing, quiet, answering].map(|port| series(format!("udp-{port}")));
    assert_eq!(udp, [6; 3]);
}

#[test]
fn an_open_port_hears_nothing_but_the_handshake() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let open = listener.local_addr().unwrap().port();
    let (exporter, _folder) = exporter(&format!("{TARGETS}    one: {{ports: [{open}]}}\n"));
    let (_, scrape) = probe(&exporter, "target=127.0.0.1&module=one");
    assert_eq!(scrape.value("probe_success"), Some(1.0));
    let (mut stream, _) = listener.accept().unwrap();
    let heard = stream.read(&mut [0; 16]);
    assert_eq!(heard.unwrap_err().kind(), ErrorKind::ConnectionReset);
    listener.set_nonblocking(true).unwrap();
    let again = listener.accept().map(|_| ()).unwrap_err();
    assert_eq!(again.kind(), ErrorKind::WouldBlock, "it was asked once");
}

#[test]
fn who_is_not_listed_is_not_probed() {
    let modules = "    one: {ports: [1]}\n";
    let (nobody, _folder) = exporter("");
    let (status, text) = probe(&nobody, "target=127.0.0.1&module=one");
    assert_eq!(status, 403);
    assert!(text.0.contains("probe.targets"), "{text:?}");

    // Special addresses that are this host in truth, so that nobody else is asked if this fails.
    let (some, _folder) = exporter(&format!(
        "probe:\n  targets: [127.0.0.0/8, 0.0.0.0/0, \"::/0\"]\n  modules:\n{modules}"
    ));
    for (target, reason) in [
        ("0.0.0.0", "unspecified"),
        ("%5B::%5D", "unspecified"),
        ("::ffff:0.0.0.0", "unspecified"),
        // What the resolver takes for an address as well.
        ("0x0", "unspecified"),
        ("127.255.255.255", "broadcast"),
    ] {
        let (status, text) = probe(&some, &format!("target={target}&module=one"));
        assert!(
            status == 403 && text.0.contains(reason),
            "{target}: {status} {text:?}"
        );
    }

    let (other, _folder) = exporter(&format!(
        "probe:\n  targets: [192.0.2.0/24]\n  modules:\n{modules}"
    ));
    for target in ["127.0.0.1", "localhost", "::1"] {
        let (status, text) = probe(&other, &format!("target={target}&module=one"));
        assert!(
            status == 403 && text.0.contains("is not in probe.targets"),
            "{target}: {status} {text:?}"
        );
    }
}

#[test]
fn bad_input_is_refused_with_the_reason() {
    let (exporter, _folder) = exporter(&format!(
        "{TARGETS}    dark: {{ports: [1]}}\n    other: {{ports: [2]}}\n"
    ));
    let long = format!("target={}&module=dark", "a".repeat(10_000));
    for (query, reason) in [
        ("", "target is missing"),
        ("module=dark", "target is missing"),
        ("target=127.0.0.1", "module is missing"),
        ("target=127.0.0.1&module=", "module is missing"),
        (
            "target=127.0.0.1&module=drak",
            "unknown module \"drak\": probe.modules of the configuration has dark, other",
        ),
        ("target=127.0.0.1&module=%1b", "unknown module \"\\u{1b}\""),
        ("target=&module=dark", "the target is empty"),
        ("target=127.0.0.1:80&module=dark", "names a port"),
        ("target=%5B::1%5D:80&module=dark", "names a port"),
        ("target=127.0.0.1/8&module=dark", "has a path"),
        ("target=http://127.0.0.1&module=dark", "has a path"),
        ("target=root@127.0.0.1&module=dark", "names a user"),
        (
            "target=1.2.3&module=dark",
            "neither an address nor a host name",
        ),
        (
            "target=a%00b&module=dark",
            "neither an address nor a host name",
        ),
        ("target=%ff&module=dark", "not UTF-8"),
        (&long, "10000 characters"),
        (
            "target=no-such-host.invalid&module=dark",
            "cannot be resolved",
        ),
        ("target=a&target=b&module=dark", "given twice"),
    ] {
        let (status, text) = probe(&exporter, query);
        assert!(
            status == 400 && text.0.contains(reason),
            "{query}: {status} {text:?}"
        );
    }
    for seconds in ["ten", "-1", "0", "NaN"] {
        let (status, text) = answer(ask(&exporter, "target=127.0.0.1&module=dark", seconds));
        assert!(
            status == 400 && text.0.contains("scrape-timeout"),
            "{seconds}: {text:?}"
        );
    }
    let mut stream = TcpStream::connect(exporter.address).unwrap();
    write!(
        stream,
        "POST /probe?target=127.0.0.1&module=dark HTTP/1.0\r\n\r\n"
    )
    .unwrap();
    assert_eq!(answer(stream).0, 405);
}

/// A port that says nothing until the test has it say something. It is asked once and waited for long.
fn silent() -> (UdpSocket, u16, String) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = socket.local_addr().unwrap().port();
    let section = format!(
        "{TARGETS}    slow: {{ports: [{port}], protocols: [udp], timeout: 60s, retries: 0}}\n"
    );
    (socket, port, section)
}

#[test]
fn probes_of_the_same_share_one_run_and_each_keeps_its_own_time() {
    let (service, port, section) = silent();
    let (exporter, _folder) = exporter(&section);
    let query = "target=127.0.0.1&module=slow";
    let first = ask(&exporter, query, "60");
    let mut buffer = [0; 16];
    let (length, asker) = service.recv_from(&mut buffer).unwrap();
    assert_eq!(length, 0, "an empty datagram");

    let (status, second) = answer(ask(&exporter, query, "0.2"));
    assert_eq!((status, second.value("probe_success")), (200, Some(0.0)));
    assert_eq!(
        state(&second, port, "udp"),
        None,
        "what is not known is absent"
    );
    assert_eq!(second.series("darkport_probe_open").count(), 0);
    service.set_nonblocking(true).unwrap();
    let again = service.recv_from(&mut buffer).unwrap_err();
    assert_eq!(
        again.kind(),
        ErrorKind::WouldBlock,
        "the second asked nothing itself"
    );

    service.send_to(b"here", asker).unwrap();
    let (status, first) = answer(first);
    assert_eq!((status, first.value("probe_success")), (200, Some(1.0)));
    assert_eq!(state(&first, port, "udp"), known("open", "udp_response"));
}

#[test]
fn a_run_ends_when_nobody_waits_for_it() {
    let (service, _, section) = silent();
    let (exporter, _folder) = exporter(&section);
    let query = "target=127.0.0.1&module=slow";
    answer(ask(&exporter, query, "0.2"));
    let mut buffer = [0; 16];
    let (_, first) = service.recv_from(&mut buffer).unwrap();
    // The next one asks anew, so the first was not kept.
    answer(ask(&exporter, query, "0.2"));
    let (_, second) = service.recv_from(&mut buffer).unwrap();
    assert_ne!(first, second);
    let descriptors = format!("/proc/{}/fd", exporter.process.pid());
    if cfg!(target_os = "linux") {
        let idle = std::fs::read_dir(&descriptors).unwrap().count();
        for _ in 0..20 {
            answer(ask(&exporter, query, "0.02"));
        }
        wait_for("its sockets to be closed", || {
            (std::fs::read_dir(&descriptors).unwrap().count() <= idle + 1).then_some(())
        });
    }
}

#[test]
fn probes_that_hang_keep_neither_scrapes_nor_anybody_elses_probes_from_being_answered() {
    let (_service, _, section) = silent();
    let (mut exporter, _folder) = exporter(&section);
    let query = "target=127.0.0.1&module=slow";
    let hanging: Vec<TcpStream> = (0..40).map(|_| ask(&exporter, query, "60")).collect();
    wait_for("a probe too many", || {
        let (status, _) = answer(ask(&exporter, query, "0.02"));
        (status == 503).then_some(())
    });
    // Elsewhere there is no other address to come from.
    if cfg!(target_os = "linux") {
        let other = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
        let other = other.unwrap();
        let address = SocketAddr::from(([127, 0, 0, 2], 0));
        other.bind(&address.into()).unwrap();
        other.connect(&exporter.address.into()).unwrap();
        let (status, _) = answer(ask_on(other.into(), query, "0.02"));
        assert_eq!(status, 200);
    }
    for _ in 0..10 {
        let (status, text) = get(exporter.address, "/metrics");
        assert_eq!(status, 200);
        let refused = Scrape(text).value("darkport_web_refused_total{reason=\"overload\"}");
        assert!(refused.is_some_and(|refused| refused >= 1.0), "{refused:?}");
    }
    exporter.logged(&["request refused", "peer=127.0.0.1:", "reason=overload"]);
    drop(hanging);
    wait_for("those that hang up to make room", || {
        let (status, _) = answer(ask(&exporter, query, "0.02"));
        (status == 200).then_some(())
    });
}

#[test]
fn a_reload_allows_and_forbids() {
    let (_held, closed) = closed_tcp();
    let (exporter, folder) = exporter("");
    let query = "target=127.0.0.1&module=one";
    assert_eq!(probe(&exporter, query).0, 403);
    let file = folder.path().join("probe.yml");
    let load = |text: String, status: u16| {
        std::fs::write(&file, text).unwrap();
        exporter.process.signal("HUP");
        wait_for("the reload", || {
            (probe(&exporter, query).0 == status).then_some(())
        });
    };
    load(
        format!("watch: []\n{TARGETS}    one: {{ports: [{closed}]}}\n"),
        200,
    );
    let (_, shown) = get(exporter.address, "/config");
    assert!(
        shown.contains("\nprobe:\n") && shown.contains("127.0.0.0/8"),
        "{shown}"
    );
    load(
        format!("watch: []\n{TARGETS}    two: {{ports: [{closed}]}}\n"),
        400,
    );
    load("watch: []\n".to_owned(), 403);
}

#[test]
fn a_person_gets_a_table_and_a_program_json() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let open = listener.local_addr().unwrap().port();
    let (_held, closed) = closed_tcp();
    let run = |arguments: &[&str]| {
        let output = Command::new(program())
            .arg("probe")
            .args(arguments)
            .output()
            .unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (
            output.status.code(),
            text(output.stdout),
            text(output.stderr),
        )
    };
    let ports = format!("{open},{closed}-{closed}");
    let (status, table, errors) = run(&["127.0.0.1", "--ports", &ports]);
    assert_eq!((status, errors.as_str()), (Some(0), ""), "{table}");
    let has = |words: &[&str]| {
        table
            .lines()
            .any(|line| line.split_whitespace().eq(words.iter().copied()))
    };
    assert!(table.starts_with("127.0.0.1\n"), "{table}");
    assert!(has(&["PORT", "STATE", "REASON", "SERVICE"]), "{table}");
    assert!(
        table.contains(&format!("{open}/tcp")) && table.contains("open    syn_ack"),
        "{table}"
    );
    assert!(
        table.contains(&format!("{closed}/tcp")) && table.contains("closed  reset"),
        "{table}"
    );

    let (status, json, _) = run(&["127.0.0.1", "--ports", &ports, "--output", "json"]);
    assert_eq!(status, Some(0));
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["target"], "127.0.0.1");
    let found: Vec<_> = json["addresses"][0]["ports"]
        .as_array()
        .unwrap()
        .iter()
        .collect();
    assert_eq!(found.len(), 2);
    for port in found {
        let is_open = port["port"] == open;
        assert_eq!(
            port["state"],
            if is_open { "open" } else { "closed" },
            "{port}"
        );
        assert_eq!(
            port["reason"],
            if is_open { "syn_ack" } else { "reset" },
            "{port}"
        );
        assert_eq!(port["protocol"], "tcp");
    }

    let (_service, quiet, _) = silent();
    // Long enough for a bar, if this were a terminal.
    let (_, table, errors) = run(&[
        "127.0.0.1",
        "--ports",
        &quiet.to_string(),
        "--udp",
        "--timeout",
        "500ms",
        "--retries",
        "0",
    ]);
    assert_eq!(errors, "");
    assert!(!table.contains('\u{1b}'), "{table:?}");
    assert!(table.contains("open_or_filtered  no_response"), "{table}");

    for (arguments, status, told) in [
        (
            &["no-such-host.invalid", "--ports", "1"][..],
            1,
            "cannot be resolved",
        ),
        (&["127.0.0.1:80", "--ports", "1"], 2, "names a port"),
        (&["127.0.0.1"], 2, "--ports"),
        (&["127.0.0.1", "--ports", "0"], 2, "port 0 cannot be asked"),
        (&["127.0.0.1", "--ports", "65536"], 2, "beyond 65535"),
        (&["127.0.0.1", "--ports", "1", "--rate", "0"], 2, "--rate"),
        (
            &["127.0.0.1", "--ports", "1", "--timeout", "2"],
            2,
            "not a duration",
        ),
    ] {
        let (code, out, errors) = run(arguments);
        assert_eq!((code, out.as_str()), (Some(status), ""), "{arguments:?}");
        assert!(errors.contains(told), "{arguments:?}: {errors}");
    }
}

/// The families of a probe as docs/probing.md has them.
#[test]
fn the_documentation_has_every_family() {
    let text =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/probing.md")).unwrap();
    for family in &PROBE_FAMILIES {
        let labels: Vec<String> = family
            .labels
            .iter()
            .map(|label| format!("`{label}`"))
            .collect();
        let row = format!(
            "| `{}` | {} | {} |",
            family.name,
            labels.join(", "),
            family.help
        );
        assert!(
            text.contains(&row),
            "docs/probing.md lacks this row:\n{row}"
        );
    }
}

#[test]
fn every_family_has_its_help_and_type() {
    let (_held, closed) = closed_tcp();
    let (exporter, _folder) = exporter(&format!("{TARGETS}    one: {{ports: [{closed}]}}\n"));
    let (_, scrape) = probe(&exporter, "target=127.0.0.1&module=one");
    for family in &PROBE_FAMILIES {
        assert!(
            scrape.0.contains(&format!("# HELP {} ", family.name)),
            "{}",
            family.name
        );
        assert!(
            scrape.0.contains(&format!("# TYPE {} gauge", family.name)),
            "{}",
            family.name
        );
    }
}
