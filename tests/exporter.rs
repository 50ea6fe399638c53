//! The exporter as a process, as any user runs it: what it serves, how it is told to change, and how it ends.

mod support;

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;

use darkport_exporter::port::Port;
use support::{Exporter, get, wait_for};

/// A configuration file that can be changed.
struct Watching {
    folder: tempfile::TempDir,
}

impl Watching {
    fn new(text: &str) -> Self {
        let watching = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        watching.change(text);
        watching
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("darkport.yml")
    }

    fn change(&self, text: &str) {
        std::fs::write(self.path(), text).unwrap();
    }

    fn exporter(&self, arguments: &[&str]) -> Exporter {
        let path = self.path();
        let arguments: Vec<&str> = ["--config.file", path.to_str().unwrap()]
            .iter()
            .chain(arguments)
            .copied()
            .collect();
        Exporter::start(&arguments)
    }
}

/// A TCP port on which nobody listens, below the ephemeral range so that no client takes it meanwhile.
fn dark_port() -> u16 {
    use std::sync::atomic::{AtomicU16, Ordering};
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Test processes run side by side: each begins elsewhere.
    let start = 12_000 + (std::process::id() % 150) as u16 * 100;
    loop {
        let number = start + NEXT.fetch_add(1, Ordering::Relaxed) % 100;
        let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, number));
        if TcpListener::bind(address).is_ok() && UdpSocket::bind(address).is_ok() {
            return number;
        }
    }
}

/// What this process is called where processes are listed.
fn own_name() -> String {
    std::fs::read_to_string("/proc/self/comm")
        .unwrap()
        .trim_end()
        .to_owned()
}

fn listen(number: u16) -> TcpListener {
    TcpListener::bind((Ipv4Addr::LOCALHOST, number)).unwrap()
}

#[test]
fn a_listener_is_told_of_with_its_owner_and_its_rule() {
    let (open, strict) = (dark_port(), dark_port());
    let watching = Watching::new(&format!(
        "watch:\n- {{name: open, ports: [{open}], expect: [{{address: 127.*}}]}}\n- {{name: strict, ports: [{strict}]}}\n"
    ));
    let mut exporter = watching.exporter(&[]);
    for port in [open, strict] {
        let scrape = exporter.scrape();
        for port in [Port::tcp(port), Port::udp(port)] {
            assert_eq!(scrape.of_port("darkport_listening", port), Some(0.0));
            assert_eq!(
                scrape.of_port("darkport_unexpected_listening", port),
                Some(0.0)
            );
        }
    }
    let listeners = [listen(open), listen(strict)];
    let scrape = exporter.scrape();
    for (port, watch, is_expected) in [(open, "open", true), (strict, "strict", false)] {
        let unexpected = f64::from(u8::from(!is_expected));
        assert_eq!(
            scrape.of_port("darkport_listening", Port::tcp(port)),
            Some(1.0)
        );
        assert_eq!(
            scrape.of_port("darkport_unexpected_listening", Port::tcp(port)),
            Some(unexpected)
        );
        assert_eq!(
            scrape.of_port("darkport_listening", Port::udp(port)),
            Some(0.0)
        );
        let start = format!(
            "darkport_listener_info{{port=\"{port}\",protocol=\"tcp\",address=\"127.0.0.1\",watch=\"{watch}\",process=\"{}\"",
            own_name()
        );
        let info = scrape
            .series("darkport_listener_info")
            .find(|line| line.starts_with(&start));
        let expected = format!("expected=\"{is_expected}\",netns=\"\"}} 1");
        assert!(
            info.is_some_and(|line| line.ends_with(&expected)),
            "{}",
            scrape.0
        );
        let level = if is_expected {
            "level=INFO"
        } else {
            "level=WARN"
        };
        let pid = format!(" pid={} ", std::process::id());
        let line = exporter.logged(&["msg=\"listener opened\"", &format!("port={port} ")]);
        for part in [
            level,
            &pid,
            "protocol=tcp address=127.0.0.1",
            &format!("expected={is_expected}"),
        ] {
            assert!(line.contains(part), "{part} in {line}");
        }
    }
    drop(listeners);
    let scrape = exporter.scrape();
    assert_eq!(
        scrape.of_port("darkport_listening", Port::tcp(strict)),
        Some(0.0)
    );
    assert_eq!(
        scrape.of_port("darkport_unexpected_listening", Port::tcp(strict)),
        Some(0.0)
    );
    let line = exporter.logged(&["msg=\"listener closed\"", &format!("port={strict} ")]);
    assert!(
        line.contains("level=INFO") && line.contains(&format!("pid={}", std::process::id())),
        "{line}"
    );
}

#[test]
fn the_polled_tier_counts_what_it_sees() {
    let number = dark_port();
    let watching = Watching::new(&format!("watch:\n- {{name: one, ports: [{number}]}}\n"));
    // Samples are taken by the scrapes alone, one where the test wants one.
    let exporter = watching.exporter(&["--collector.tier=polled", "--collector.poll-interval=1h"]);
    let port = Port::tcp(number);
    let listener = listen(number);
    exporter.scrape();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (server, _) = listener.accept().unwrap();
    let scrape = exporter.scrape();
    for (family, value) in [
        ("darkport_connections", 1.0),
        ("darkport_inbound_accepted_total", 1.0),
        ("darkport_outbound_connections_total", 1.0),
        ("darkport_listener_opened_total", 1.0),
    ] {
        assert_eq!(scrape.of_port(family, port), Some(value), "{family}");
    }
    assert!(
        scrape
            .of_port("darkport_listener_opened_timestamp_seconds", port)
            .is_some()
    );
    drop((client, server, listener));
    let scrape = exporter.scrape();
    assert_eq!(scrape.of_port("darkport_connections", port), Some(0.0));
    assert_eq!(
        scrape.of_port("darkport_inbound_accepted_total", port),
        Some(1.0)
    );
    assert_eq!(
        scrape.value("darkport_counting_tier{tier=\"polled\"}"),
        Some(1.0)
    );
    for family in [
        "darkport_inbound_attempts_total",
        "darkport_space_knocks_total",
        "darkport_events_lost_total",
    ] {
        assert_eq!(scrape.series(family).count(), 0, "{family} cannot be known");
    }
}

#[test]
fn a_reload_keeps_counters_and_a_bad_file_changes_nothing() {
    let (first, second) = (dark_port(), dark_port());
    let watch = |ports: &[u16]| format!("watch:\n- {{name: some, ports: {ports:?}}}\n");
    let watching = Watching::new(&watch(&[first]));
    let mut exporter = watching.exporter(&[]);
    drop((listen(first), exporter.scrape()));
    let _listener = listen(first);
    let opened = exporter
        .scrape()
        .of_port("darkport_listener_opened_total", Port::tcp(first));
    assert!(opened >= Some(1.0), "{opened:?}");
    assert_eq!(
        exporter
            .scrape()
            .of_port("darkport_listening", Port::tcp(second)),
        None
    );

    watching.change(&watch(&[first, second]));
    exporter.process.signal("HUP");
    wait_for("the second port", || {
        exporter
            .scrape()
            .of_port("darkport_listening", Port::tcp(second))
    });
    let scrape = exporter.scrape();
    assert_eq!(
        scrape.of_port("darkport_listener_opened_total", Port::tcp(first)),
        opened
    );
    let reloaded = scrape.value("darkport_config_last_reload_success_timestamp_seconds");

    watching.change("watch:\n- {name: some, ports: [65536]}\n");
    exporter.process.signal("HUP");
    wait_for("the refusal", || {
        (exporter
            .scrape()
            .value("darkport_config_last_reload_successful")?
            == 0.0)
            .then_some(())
    });
    let line = exporter.logged(&["configuration refused"]);
    assert!(
        line.contains("65536") && line.contains("darkport.yml:2:"),
        "{line}"
    );
    let scrape = exporter.scrape();
    assert_eq!(
        scrape.of_port("darkport_listening", Port::tcp(second)),
        Some(0.0)
    );
    assert_eq!(
        scrape.value("darkport_config_last_reload_success_timestamp_seconds"),
        reloaded
    );

    watching.change(&watch(&[first]));
    exporter.process.signal("HUP");
    wait_for("the good file", || {
        (exporter
            .scrape()
            .value("darkport_config_last_reload_successful")?
            == 1.0)
            .then_some(())
    });
    assert_eq!(
        exporter
            .scrape()
            .of_port("darkport_listening", Port::tcp(second)),
        None
    );
}

#[test]
fn the_own_port_is_listed_and_the_pages_answer() {
    let watching = Watching::new("watch: []\n");
    let exporter = watching.exporter(&[]);
    let scrape = exporter.scrape();
    let own = format!(
        "darkport_listener_info{{port=\"{}\",protocol=\"tcp\"",
        exporter.address.port()
    );
    assert!(
        scrape
            .series("darkport_listener_info")
            .any(|line| line.starts_with(&own)),
        "{}",
        scrape.0
    );
    assert_eq!(
        scrape.value("darkport_collector_success{collector=\"sockets\"}"),
        Some(1.0)
    );
    for path in ["/", "/-/healthy", "/-/ready"] {
        assert_eq!(get(exporter.address, path).0, 200, "{path}");
    }
}

#[test]
fn a_signal_ends_it_with_success() {
    for signal in ["TERM", "INT"] {
        let watching = Watching::new("watch: []\n");
        let mut exporter = watching.exporter(&[]);
        exporter.process.signal(signal);
        assert!(exporter.process.ended().success(), "{signal}");
        assert!(
            exporter
                .logged(&["msg=ending"])
                .contains(&format!("signal=SIG{signal}"))
        );
    }
}

#[test]
fn the_limits_cut_and_say_how_much() {
    let ports: Vec<u16> = (0..3).map(|_| dark_port()).collect();
    let watching = Watching::new(&format!(
        "watch:\n- {{name: some, ports: {ports:?}, protocols: [tcp], series: active}}\nlimits: {{series: 26, listeners: 1}}\n"
    ));
    let exporter = watching.exporter(&[]);
    let _listeners: Vec<TcpListener> = ports.iter().map(|&port| listen(port)).collect();
    let scrape = exporter.scrape();
    assert_eq!(scrape.series("darkport_listening").count(), 2);
    assert_eq!(
        scrape.value("darkport_series_suppressed{family=\"darkport_listening\"}"),
        Some(1.0)
    );
    assert_eq!(scrape.series("darkport_listener_info").count(), 1);
    assert!(
        scrape
            .series("darkport_listener_info")
            .all(|line| line.contains("expected=\"false\""))
    );
    let suppressed = scrape.value("darkport_series_suppressed{family=\"darkport_listener_info\"}");
    assert!(suppressed >= Some(3.0), "{suppressed:?}");
}

#[cfg(target_os = "linux")]
#[test]
fn what_lives_between_two_scrapes_is_counted_and_told() {
    let number = dark_port();
    let watching = Watching::new(&format!("watch:\n- {{name: brief, ports: [{number}]}}\n"));
    let mut exporter = watching.exporter(&["--collector.tier=netlink"]);
    let (tcp, udp) = (Port::tcp(number), Port::udp(number));
    let before = exporter.scrape();
    assert_eq!(
        before.value("darkport_counting_tier{tier=\"netlink\"}"),
        Some(1.0)
    );
    for port in [tcp, udp] {
        assert_eq!(
            before.of_port("darkport_listener_opened_total", port),
            Some(0.0)
        );
    }
    for _ in 0..20 {
        drop(listen(number));
        drop(UdpSocket::bind((Ipv4Addr::LOCALHOST, number)).unwrap());
    }
    let listener = listen(number);
    for _ in 0..5 {
        drop(TcpStream::connect(listener.local_addr().unwrap()).unwrap());
        drop(listener.accept().unwrap());
    }
    drop(listener);
    let after = wait_for("all of them", || {
        let scrape = exporter.scrape();
        let shown = [
            "darkport_inbound_accepted_total",
            "darkport_outbound_connections_total",
        ];
        let shown = shown.map(|family| scrape.of_port(family, tcp));
        (shown == [Some(5.0); 2]).then_some(scrape)
    });
    assert_eq!(
        after.of_port("darkport_listener_opened_total", tcp),
        Some(21.0)
    );
    assert_eq!(
        after.of_port("darkport_listener_opened_total", udp),
        Some(20.0)
    );
    assert_eq!(after.of_port("darkport_listening", tcp), Some(0.0));
    assert_eq!(
        after.value("darkport_events_lost_total{source=\"netlink\"}"),
        Some(0.0)
    );
    assert_eq!(
        after.value("darkport_collector_success{collector=\"netlink\"}"),
        Some(1.0)
    );
    let counted = after
        .value("darkport_audit_counted_total{what=\"passive_opens\"}")
        .unwrap();
    let host = after
        .value("darkport_audit_host_total{what=\"passive_opens\"}")
        .unwrap();
    assert!(counted == 5.0 && host >= counted, "{counted} of {host}");
    exporter.logged(&[
        "level=WARN",
        "listener came and went",
        &format!("port={number} protocol=tcp"),
    ]);
}

#[cfg(target_os = "linux")]
#[test]
fn many_expected_events_hide_no_unexpected_one_and_are_counted() {
    let (open, strict) = (dark_port(), dark_port());
    let watching = Watching::new(&format!(
        "watch:\n- {{name: open, ports: [{open}], protocols: [tcp], expect: [{{address: \"*\"}}]}}\n\
         - {{name: strict, ports: [{strict}], protocols: [tcp]}}\n"
    ));
    let mut exporter = watching.exporter(&["--collector.tier=netlink"]);
    for _ in 0..150 {
        drop(listen(open));
    }
    wait_for("all of them", || {
        let opened = exporter
            .scrape()
            .of_port("darkport_listener_opened_total", Port::tcp(open));
        (opened == Some(150.0)).then_some(())
    });
    let told = |exporter: &mut Exporter, port: u16| {
        let port = format!(" port={port} ");
        exporter
            .log()
            .iter()
            .filter(|line| line.contains(&port))
            .count()
    };
    let _unexpected = listen(strict);
    exporter.scrape();
    exporter.logged(&["level=WARN", "listener opened", &format!(" port={strict} ")]);
    assert_eq!(told(&mut exporter, open), 100);
}

/// sd_notify(3): what a unit of `Type=notify` goes by.
#[cfg(target_os = "linux")]
#[test]
fn the_service_manager_is_told_when_it_is_ready_reloads_and_ends() {
    let watching = Watching::new("watch: [{name: dark, ports: [561]}]\n");
    let socket_path = watching.folder.path().join("notify");
    let manager = std::os::unix::net::UnixDatagram::bind(&socket_path).unwrap();
    manager.set_read_timeout(Some(support::DEADLINE)).unwrap();
    let told = || {
        let mut message = [0; 4096];
        let length = manager.recv(&mut message).unwrap();
        String::from_utf8(message[..length].to_vec()).unwrap()
    };
    let mut command = std::process::Command::new(support::program());
    command
        .arg("--web.listen-address=127.0.0.1:0")
        .args(["--collector.tier=polled", "--config.file"])
        .arg(watching.path())
        .env("NOTIFY_SOCKET", &socket_path);
    let mut exporter = Exporter::listening(command);
    assert_eq!(told(), "READY=1\nSTATUS=counting in tier polled\n");
    assert_eq!(get(exporter.address, "/-/ready").0, 200);

    exporter.process.signal("HUP");
    assert!(told().starts_with("RELOADING=1\nMONOTONIC_USEC="));
    assert_eq!(told(), "READY=1\nSTATUS=counting in tier polled\n");
    watching.change("watch: 7\n");
    exporter.process.signal("HUP");
    assert!(told().starts_with("RELOADING=1\n"));
    assert!(told().contains("by an earlier configuration"));

    exporter.process.signal("TERM");
    assert_eq!(told(), "STOPPING=1\n");
    assert!(exporter.process.ended().success());
}

/// More than fits into a connection whose client does not read: the answer is under way for as long as the test wants.
#[test]
fn a_scrape_under_way_is_completed_before_the_end() {
    let watching = Watching::new(
        "watch: [{name: many, ports: [20000-25999], protocols: [tcp]}]\nlimits: {series: 100000}\n",
    );
    let mut exporter = watching.exporter(&["--collector.tier=polled"]);
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(&exporter.address.into()).unwrap();
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(support::DEADLINE)).unwrap();
    stream
        .write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .unwrap();
    let mut answer = vec![0; 512];
    stream.read_exact(&mut answer).unwrap();
    exporter.process.signal("TERM");
    exporter.logged(&["msg=ending", "signal=SIGTERM"]);
    wait_for("new connections to be refused", || {
        TcpStream::connect(exporter.address).is_err().then_some(())
    });
    stream.read_to_end(&mut answer).unwrap();
    let text = String::from_utf8(answer).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let length: usize = head
        .lines()
        .find_map(|line| {
            line.to_ascii_lowercase()
                .strip_prefix("content-length: ")?
                .parse()
                .ok()
        })
        .unwrap();
    assert!(
        head.starts_with("HTTP/1.1 200 ") && length > 1 << 20,
        "{head}"
    );
    assert_eq!(body.len(), length);
    assert!(body.ends_with('\n'));
    assert!(exporter.process.ended().success());
}

#[test]
fn the_default_configuration_that_is_printed_is_the_one_in_use_without_a_file() {
    use darkport_exporter::config::Config;
    let run = |arguments: &[&str]| {
        let mut command = std::process::Command::new(support::program());
        let (status, answer, errors) = support::ended(command.args(arguments));
        assert_eq!((status, errors.as_str()), (Some(0), ""), "{arguments:?}");
        answer
    };
    let watching = Watching::new(&run(&["--config.default"]));
    let path = watching.path();
    let checked = run(&["--config.check", "--config.file", path.to_str().unwrap()]);
    let embedded = run(&["--config.check"]);
    let after_the_name = |text: &str| text.split_once(": valid, ").unwrap().1.to_owned();
    assert_eq!(after_the_name(&checked), after_the_name(&embedded));
    let (file, embedded) = (Config::load(&path).unwrap(), Config::embedded());
    assert_eq!(format!("{:?}", file.watch), format!("{:?}", embedded.watch));
    assert_eq!(
        format!("{:?}", file.limits),
        format!("{:?}", embedded.limits)
    );
    assert_eq!(file.text, embedded.text);
}
