//! TLS and HTTP/2, over the real program.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test's helpers are tests too"
)]

mod support;

use std::collections::HashMap;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use support::https::{Https, basic, plain};
use support::pki::{Authority, Identity, Purpose};
use support::{Exporter, Prometheus, Scrape, wait_for};
use tokio_rustls::rustls::ALL_VERSIONS;
use tokio_rustls::rustls::version::{TLS12, TLS13};

/// Of "password".
const HASH: &str = "$2y$05$abcdefghijklmnopqrstuuWG29KuyeAicPCJODk1zjyGvyQUU2awu";

/// An authority with a server's certificate, and the files that name it.
struct Site {
    folder: tempfile::TempDir,
    authority: Authority,
}

impl Site {
    fn new() -> Self {
        let site = Self {
            folder: tempfile::tempdir().unwrap(),
            authority: Authority::new("test"),
        };
        site.renew(&site.authority);
        std::fs::write(site.path().join("ca.pem"), &site.authority.pem).unwrap();
        std::fs::write(site.path().join("config.yml"), "watch: []\n").unwrap();
        site
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Another certificate and key, one file after the other, as an editor or a copy does it.
    fn renew(&self, authority: &Authority) -> Identity {
        let server = authority.issue(Purpose::Server, &["localhost"]);
        std::fs::write(self.path().join("server.pem"), &server.certificate).unwrap();
        std::fs::write(self.path().join("key.pem"), &server.key).unwrap();
        server
    }

    /// Writes the web configuration: these keys of `tls_server_config`, and these lines behind.
    fn write(&self, tls: &str, rest: &str) {
        let text =
            format!("tls_server_config: {{cert_file: server.pem, key_file: key.pem{tls}}}\n{rest}");
        std::fs::write(self.path().join("web.yml"), text).unwrap();
    }

    fn start(&self, tls: &str, rest: &str) -> Exporter {
        self.start_with(tls, rest, &[])
    }

    fn start_with(&self, tls: &str, rest: &str, arguments: &[&str]) -> Exporter {
        self.write(tls, rest);
        let web = format!(
            "--web.config.file={}",
            self.path().join("web.yml").display()
        );
        let config = format!("--config.file={}", self.path().join("config.yml").display());
        let arguments: Vec<&str> = [&*web, &config].iter().chain(arguments).copied().collect();
        Exporter::start_guarded(&arguments)
    }

    fn client(&self) -> Https {
        Https::trusting(self.authority.roots())
    }

    fn client_as(&self, identity: &Identity) -> Https {
        Https::new(self.authority.roots(), Some(identity), ALL_VERSIONS)
    }
}

fn scrape(client: &Https, exporter: &Exporter) -> Scrape {
    scrape_at(client, exporter.address)
}

fn scrape_at(client: &Https, address: SocketAddr) -> Scrape {
    let reply = client.get(address, "/metrics").unwrap();
    assert_eq!(reply.status, 200, "{reply:?}");
    Scrape(reply.body)
}

fn refused(scrape: &Scrape, reason: &str) -> f64 {
    scrape
        .value(&format!(
            "darkport_web_refused_total{{reason=\"{reason}\"}}"
        ))
        .unwrap()
}

#[test]
fn http2_is_spoken_where_it_is_offered_unless_it_is_switched_off() {
    let site = Site::new();
    let spoken = |exporter: &Exporter, offered: &[&[u8]]| {
        let stream = site.client().offering(offered).connect(exporter.address);
        stream.unwrap().conn.alpn_protocol().map(<[u8]>::to_vec)
    };
    let exporter = site.start("", "");
    assert_eq!(spoken(&exporter, &[b"h2", b"http/1.1"]).unwrap(), b"h2");
    assert_eq!(spoken(&exporter, &[b"http/1.1"]).unwrap(), b"http/1.1");
    assert_eq!(spoken(&exporter, &[]), None);
    assert!(scrape(&site.client(), &exporter).count() > 10);
    drop(exporter);

    let exporter = site.start("", "http_server_config: {http2: false}\n");
    assert_eq!(
        spoken(&exporter, &[b"h2", b"http/1.1"]).unwrap(),
        b"http/1.1"
    );
}

#[test]
fn who_speaks_no_tls_is_told_and_counted_and_who_says_nothing_is_not() {
    let site = Site::new();
    let mut exporter = site.start("", "");
    let reply = plain(exporter.address, "GET", "/metrics", "");
    assert_eq!(reply.status, 400);
    assert!(reply.body.contains("https://"), "{reply:?}");
    let mut stream = TcpStream::connect(exporter.address).unwrap();
    stream.write_all(&[0; 100]).unwrap();
    drop(TcpStream::connect(exporter.address).unwrap());
    wait_for("both to be counted", || {
        (refused(&scrape(&site.client(), &exporter), "tls") == 2.0).then_some(())
    });
    exporter.logged(&[
        "TLS handshake failed",
        "peer=127.0.0.1:",
        "does not speak TLS",
    ]);
}

#[test]
fn a_client_that_does_not_trust_the_server_is_counted() {
    let site = Site::new();
    let mut exporter = site.start("", "");
    let other = Https::trusting(Authority::new("other").roots());
    other.get(exporter.address, "/metrics").unwrap_err();
    wait_for("it to be counted", || {
        (refused(&scrape(&site.client(), &exporter), "tls") == 1.0).then_some(())
    });
    exporter.logged(&["TLS handshake failed", "the client refused", "UnknownCA"]);
}

#[test]
fn each_kind_of_client_authentication_lets_in_whom_it_should() {
    let site = Site::new();
    let stranger = Authority::new("stranger");
    let good = site
        .authority
        .issue(Purpose::Client, &["prometheus.example"]);
    let expired = site
        .authority
        .issue_expired(Purpose::Client, &["prometheus.example"]);
    let of_stranger = stranger.issue(Purpose::Client, &["prometheus.example"]);
    let of_server = site.authority.issue(Purpose::Server, &["localhost"]);
    let shown = [
        ("none", None),
        ("good", Some(&good)),
        ("expired", Some(&expired)),
        ("a stranger's", Some(&of_stranger)),
        ("a server's", Some(&of_server)),
    ];
    let ca = ", client_ca_file: ca.pem";
    for (kind, keys, welcome) in [
        ("NoClientCert", "", [true, true, true, true, true]),
        ("RequestClientCert", "", [true, true, true, true, true]),
        ("RequireAnyClientCert", "", [false, true, true, true, true]),
        (
            "VerifyClientCertIfGiven",
            ca,
            [true, true, false, false, false],
        ),
        (
            "RequireAndVerifyClientCert",
            ca,
            [false, true, false, false, false],
        ),
    ] {
        let mut exporter = site.start(&format!(", client_auth_type: {kind}{keys}"), "");
        for version in ALL_VERSIONS {
            for ((what, identity), is_welcome) in shown.into_iter().zip(welcome) {
                let client = Https::new(site.authority.roots(), identity, &[version]);
                let reply = client.get(exporter.address, "/-/healthy");
                assert_eq!(
                    reply.is_ok(),
                    is_welcome,
                    "{kind}, {what}, {version:?}: {reply:?}"
                );
            }
        }
        let refusals = 2 * welcome.iter().filter(|is_welcome| !**is_welcome).count();
        let client = site.client_as(&good);
        let counted = refused(&scrape(&client, &exporter), "client_certificate");
        assert_eq!(counted, refusals as f64, "{kind}");
        if refusals > 0 {
            exporter.logged(&[
                "client certificate refused",
                "peer=127.0.0.1:",
                "level=WARN",
            ]);
            let log = exporter.log();
            let lines = log
                .iter()
                .filter(|line| line.contains("certificate refused"));
            assert!(lines.count() <= 2, "rate-limited: {log:#?}");
        }
    }
}

#[test]
fn an_expired_certificate_is_called_so() {
    let site = Site::new();
    let good = site.authority.issue(Purpose::Client, &["a.example"]);
    let expired = site
        .authority
        .issue_expired(Purpose::Client, &["a.example"]);
    let mut exporter = site.start(
        ", client_auth_type: RequireAndVerifyClientCert, client_ca_file: ca.pem",
        "",
    );
    site.client_as(&expired)
        .get(exporter.address, "/metrics")
        .unwrap_err();
    let line = exporter.logged(&["client certificate refused"]);
    assert!(line.contains("expired"), "{line}");
    let counted = refused(
        &scrape(&site.client_as(&good), &exporter),
        "client_certificate",
    );
    assert_eq!(counted, 1.0);
}

/// An attempt that is refused, and what is told of it.
struct Attempt {
    what: &'static str,
    client: Https,
    headers: String,
    reason: &'static str,
    told: &'static str,
}

/// Each with an exporter of its own: once from one address; again and again from there; once from another address.
#[test]
fn a_refusal_is_counted_each_time_and_told_once_for_each_address() {
    let site = Site::new();
    let issue = |names| site.authority.issue(Purpose::Client, names);
    let good = site.client_as(&issue(&["prometheus.example"]));
    let expired = site
        .authority
        .issue_expired(Purpose::Client, &["prometheus.example"]);
    let stranger = Authority::new("stranger").issue(Purpose::Client, &["prometheus.example"]);
    let alice = basic("alice", "password");
    let certificate = |what, client, told| Attempt {
        what,
        client,
        headers: alice.clone(),
        reason: "client_certificate",
        told,
    };
    let password = |what, headers, told| Attempt {
        what,
        client: good.clone(),
        headers,
        reason: "basic_auth",
        told,
    };
    let attempts = [
        certificate(
            "no certificate",
            site.client(),
            "the client has shown no certificate",
        ),
        certificate(
            "an expired certificate",
            site.client_as(&expired),
            "expired",
        ),
        certificate(
            "a stranger's certificate",
            site.client_as(&stranger),
            "UnknownIssuer",
        ),
        certificate(
            "the certificate of another",
            site.client_as(&issue(&["other.example"])),
            "client_allowed_sans",
        ),
        password("no password", String::new(), "request refused"),
        password("a wrong password", basic("alice", "x"), "user=alice"),
        password(
            "an unknown user",
            basic("bob", "password"),
            "request refused",
        ),
        Attempt {
            what: "an authority the client does not trust",
            client: Https::trusting(Authority::new("other").roots()),
            headers: alice.clone(),
            reason: "tls",
            told: "UnknownCA",
        },
    ];
    for attempt in attempts {
        let what = attempt.what;
        let exporter = site.start(
            ", client_auth_type: RequireAndVerifyClientCert, client_ca_file: ca.pem, client_allowed_sans: [prometheus.example]",
            &format!("basic_auth_users: {{alice: {HASH}}}\n"),
        );
        let counted = |reason: &str| {
            let reply = good
                .ask(exporter.address, "GET", "/metrics", &alice)
                .unwrap();
            refused(&Scrape(reply.body), reason)
        };
        let ask = |last: u8| {
            let client = Https {
                from: Some(IpAddr::V4(Ipv4Addr::new(127, 0, 0, last))),
                ..attempt.client.clone()
            };
            let reply = client.ask(exporter.address, "GET", "/metrics", &attempt.headers);
            assert!(reply.is_err() || reply.unwrap().status == 401, "{what}");
        };
        let becomes = |count: f64| {
            wait_for(what, || (counted(attempt.reason) >= count).then_some(()));
            for reason in [
                "tls",
                "client_certificate",
                "basic_auth",
                "rate_limit",
                "overload",
            ] {
                let expected = if reason == attempt.reason { count } else { 0.0 };
                assert_eq!(counted(reason), expected, "{what}: {reason}");
            }
        };
        ask(9);
        becomes(1.0);
        for _ in 0..5 {
            ask(9);
        }
        becomes(6.0);
        ask(10);
        becomes(7.0);
        let log = exporter.log_to_the_end();
        let lines: Vec<&String> = log
            .iter()
            .filter(|line| line.contains("level=WARN") && line.contains(" peer="))
            .collect();
        let [first, second] = lines[..] else {
            panic!("{what}: {log:#?}");
        };
        assert!(
            first.contains("peer=127.0.0.9:") && first.contains(attempt.told),
            "{what}: {first}"
        );
        assert!(
            second.contains("peer=127.0.0.10:") && second.contains("left_out=5"),
            "{what}: {second}"
        );
    }
}

#[test]
fn only_allowed_names_come_in() {
    let site = Site::new();
    let issue = |names: &[&str]| site.client_as(&site.authority.issue(Purpose::Client, names));
    let mut exporter = site.start(
        ", client_auth_type: RequireAndVerifyClientCert, client_ca_file: ca.pem, \
         client_allowed_sans: [prometheus.example, 192.0.2.1]",
        "",
    );
    for names in [
        &["prometheus.example"][..],
        &["192.0.2.1"],
        &["other.example", "prometheus.example"],
    ] {
        scrape(&issue(names), &exporter);
    }
    for names in [
        &[][..],
        &["other.example"],
        &["*.example"],
        &["prometheus.example.org"],
        &["192.0.2.2"],
    ] {
        let reply = issue(names).get(exporter.address, "/metrics");
        assert!(reply.is_err(), "{names:?}: {reply:?}");
    }
    let line = exporter.logged(&["client certificate refused", "client_allowed_sans"]);
    assert!(line.contains("it has none"), "{line}");
    let counted = refused(
        &scrape(&issue(&["192.0.2.1"]), &exporter),
        "client_certificate",
    );
    assert_eq!(counted, 5.0);
}

#[test]
fn versions_and_suites_are_those_that_were_chosen() {
    let site = Site::new();
    let speaks = |exporter: &Exporter, version| {
        Https::new(site.authority.roots(), None, &[version])
            .connect(exporter.address)
            .map(|stream| stream.conn.negotiated_cipher_suite().unwrap().suite())
            .map(|suite| format!("{suite:?}"))
            .ok()
    };
    let exporter = site.start(", min_version: TLS13", "");
    assert!(speaks(&exporter, &TLS12).is_none() && speaks(&exporter, &TLS13).is_some());
    drop(exporter);
    let exporter = site.start(", max_version: TLS12", "");
    assert!(speaks(&exporter, &TLS12).is_some() && speaks(&exporter, &TLS13).is_none());
    drop(exporter);
    let exporter = site.start(
        ", cipher_suites: [TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256]",
        "",
    );
    assert_eq!(
        speaks(&exporter, &TLS12).unwrap(),
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256"
    );
    assert!(speaks(&exporter, &TLS13).is_some());
    drop(exporter);
    // A suite for keys of another kind, and nothing else.
    let exporter = site.start(
        ", max_version: TLS12, cipher_suites: [TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256]",
        "",
    );
    assert!(speaks(&exporter, &TLS12).is_none());
}

#[test]
fn tls_is_not_switched_off_while_it_runs() {
    let site = Site::new();
    let mut exporter = site.start("", "");
    std::fs::write(site.path().join("web.yml"), "{}\n").unwrap();
    let gauge = "darkport_web_config_last_reload_successful";
    wait_for("the file to be refused", || {
        (scrape(&site.client(), &exporter).value(gauge) == Some(0.0)).then_some(())
    });
    exporter.logged(&["web configuration refused", "TLS would be switched off"]);
}

/// Whether this is the certificate the server shows.
fn serves(client: &Https, to: SocketAddr, identity: &Identity) -> bool {
    let stream = client.connect(to).unwrap();
    stream.conn.peer_certificates().unwrap()[0] == identity.chain()[0]
}

/// One client scrapes without a pause, another looks which certificate is served.
#[test]
fn certificates_are_replaced_without_a_failed_scrape() {
    let site = Site::new();
    let exporter = site.start("", "");
    let ends = AtomicBool::new(false);
    let scrapes = AtomicUsize::new(0);
    let client = site.client();
    let address = exporter.address;
    std::thread::scope(|scope| {
        let scraping = scope.spawn(|| {
            while !ends.load(Ordering::Relaxed) {
                assert_eq!(client.get(address, "/metrics").unwrap().status, 200);
                scrapes.fetch_add(1, Ordering::Relaxed);
            }
        });
        for _ in 0..30 {
            let before = scrapes.load(Ordering::Relaxed);
            let next = site.renew(&site.authority);
            // Between the two files nothing fits; before and behind it, everything does.
            wait_for("the new certificate to be served, and some scrapes", || {
                let is_served = serves(&client, address, &next);
                let done = is_served && scrapes.load(Ordering::Relaxed) >= before + 5;
                (done || scraping.is_finished()).then_some(())
            });
        }
        // At last one that only another client trusts, so that it is seen to have come.
        let next = Authority::new("next");
        ends.store(true, Ordering::Relaxed);
        scraping.join().unwrap();
        site.renew(&next);
        let client = Https::trusting(next.roots());
        wait_for("the new certificate", || {
            client.get(address, "/metrics").ok()
        });
    });
}

/// What a process holds.
#[cfg(target_os = "linux")]
#[derive(Clone, Copy, Debug, Default)]
struct Held {
    descriptors: usize,
    threads: usize,
    /// Resident, in KiB.
    memory: usize,
}

#[cfg(target_os = "linux")]
impl Held {
    fn by(pid: u32) -> Self {
        let entries = |of: &str| {
            std::fs::read_dir(format!("/proc/{pid}/{of}"))
                .unwrap()
                .count()
        };
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:"));
        let kib = line.unwrap().split_whitespace().nth(1).unwrap();
        Self {
            descriptors: entries("fd"),
            threads: entries("task"),
            memory: kib.parse().unwrap(),
        }
    }
}

/// The newest value of every counter there was, by its series.
#[derive(Debug, Default)]
struct Counters(HashMap<String, f64>);

impl Counters {
    /// Takes a scrape, in which no counter may be below what it was, not even one that was away in between.
    fn take(&mut self, scrape: &Scrape) {
        let mut counter = "";
        for line in scrape.0.lines() {
            if let Some(kind) = line.strip_prefix("# TYPE ") {
                counter = kind.strip_suffix(" counter").unwrap_or_default();
            } else if !counter.is_empty() && line.starts_with(counter) {
                let (series, value) = line.rsplit_once(' ').unwrap();
                let value: f64 = value.parse().unwrap();
                let last = self.0.insert(series.to_owned(), value).unwrap_or_default();
                assert!(value >= last, "{series}: {value} after {last}");
            }
        }
    }
}

/// Opens and closes a listener, connects to it and knocks on the closed port, until the end; each as long as it takes for two
/// more scrapes to see it.
#[cfg(target_os = "linux")]
fn come_and_go(port: u16, scrapes: &AtomicUsize, ends: &AtomicBool) {
    let at = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let wait = || {
        let until = scrapes.load(Ordering::Relaxed) + 2;
        while scrapes.load(Ordering::Relaxed) < until && !ends.load(Ordering::Relaxed) {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    };
    while !ends.load(Ordering::Relaxed) {
        let listener = TcpListener::bind(at).unwrap();
        let _client = TcpStream::connect(at).unwrap();
        let _accepted = listener.accept().unwrap();
        wait();
        drop(listener);
        let _ = TcpStream::connect(at);
        wait();
    }
}

/// Two ports are watched throughout, with traffic to one of them; a third comes and goes with the configurations.
#[test]
#[cfg(target_os = "linux")]
fn a_thousand_reloads_cost_no_scrape_no_count_and_no_memory() {
    let site = Site::new();
    let port = support::free_address().port();
    let watched = |more: &str| format!("watch: [{{name: kept, ports: [19, {port}]}}{more}]\n");
    std::fs::write(site.path().join("config.yml"), watched("")).unwrap();
    let exporter = site.start_with("", "", &["--web.enable-lifecycle"]);
    let (client, address, pid) = (site.client(), exporter.address, exporter.process.pid());
    let config = site.path().join("config.yml");
    let ends = AtomicBool::new(false);
    let scrapes = AtomicUsize::new(0);
    let counters = std::thread::scope(|scope| {
        let scraping = scope.spawn(|| {
            let mut counters = Counters::default();
            while !ends.load(Ordering::Relaxed) {
                counters.take(&scrape_at(&client, address));
                scrapes.fetch_add(1, Ordering::Relaxed);
                // Several in 100 ms, and some of the processor for the reloads.
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
            counters
        });
        let traffic = scope.spawn(|| come_and_go(port, &scrapes, &ends));
        let mut early = Held::default();
        for round in 0..1000 {
            let (text, keys, expected) = match round % 4 {
                0 => (watched(", {name: a, ports: [7]}"), "", 200),
                1 => ("watch: 7\n".to_owned(), "", 500),
                2 => (watched(""), ", min_version: TLS13", 200),
                _ => (watched(""), ", min_version: TLS11", 500),
            };
            std::fs::write(&config, text).unwrap();
            site.write(keys, "");
            let reply = client.ask(address, "POST", "/-/reload", "Content-Length: 0\r\n");
            let reply = reply.unwrap();
            assert_eq!(reply.status, expected, "{reply:?}");
            assert!(!scraping.is_finished() && !traffic.is_finished());
            if round == 200 {
                early = Held::by(pid);
            }
        }
        let late = Held::by(pid);
        ends.store(true, Ordering::Relaxed);
        let grown = format!("{early:?}, {late:?}");
        assert!(late.descriptors <= early.descriptors + 10, "{grown}");
        assert!(late.threads <= early.threads + 4, "{grown}");
        assert!(late.memory <= early.memory + 8 * 1024, "{grown}");
        traffic.join().unwrap();
        scraping.join().unwrap()
    });
    let of_port = |family| format!("{family}{{port=\"{port}\",protocol=\"tcp\"}}");
    let opened = counters.0[&of_port("darkport_listener_opened_total")];
    assert!(opened > 10.0, "{opened}: {counters:?}");
    // Where the tier knows of them, connections and knocks were counted, too.
    for family in [
        "darkport_inbound_accepted_total",
        "darkport_inbound_refused_total",
    ] {
        let count = counters.0.get(&of_port(family));
        assert!(
            count.is_none_or(|count| *count > 10.0),
            "{family}: {count:?}"
        );
    }
}

/// Jobs as an operator writes them, most of them wrong in one way.
#[test]
#[ignore = "needs root, prometheus and a network namespace of its own"]
fn prometheus_scrapes_with_certificate_and_password_and_is_refused_without() {
    let site = Site::new();
    let write = |name: &str, identity: &Identity| {
        let path = |kind| site.path().join(format!("{name}.{kind}"));
        std::fs::write(path("pem"), &identity.certificate).unwrap();
        std::fs::write(path("key"), &identity.key).unwrap();
        let [certificate, key] = [path("pem"), path("key")];
        format!(
            ", cert_file: \"{}\", key_file: \"{}\"",
            certificate.display(),
            key.display()
        )
    };
    let issue = |names| site.authority.issue(Purpose::Client, names);
    let good = issue(&["prometheus.example"]);
    let prometheus_like = site.client_as(&good);
    let good = write("good", &good);
    let unnamed = write("unnamed", &issue(&["other.example"]));
    let expired = site
        .authority
        .issue_expired(Purpose::Client, &["prometheus.example"]);
    let expired = write("expired", &expired);
    let stranger = Authority::new("stranger").issue(Purpose::Client, &["prometheus.example"]);
    let stranger = write("stranger", &stranger);
    let mut exporter = site.start(
        ", client_auth_type: RequireAndVerifyClientCert, client_ca_file: ca.pem, client_allowed_sans: [prometheus.example]",
        &format!("basic_auth_users: {{alice: {HASH}}}\n"),
    );
    let job = |name: &str, scheme: &str, certificate: &str, user: &str| {
        format!(
            "- {{job_name: {name}, scheme: {scheme}, tls_config: {{ca_file: \"{}\", server_name: localhost{certificate}}}{user}, \
             static_configs: [{{targets: [\"{}\"]}}]}}\n",
            site.path().join("ca.pem").display(),
            exporter.address
        )
    };
    let alice = ", basic_auth: {username: alice, password: password}";
    let jobs = [
        job("good", "https", &good, alice),
        job(
            "wrong_password",
            "https",
            &good,
            ", basic_auth: {username: alice, password: x}",
        ),
        job(
            "unknown_user",
            "https",
            &good,
            ", basic_auth: {username: bob, password: password}",
        ),
        job("no_password", "https", &good, ""),
        job("no_certificate", "https", "", alice),
        job("unnamed", "https", &unnamed, alice),
        job("expired", "https", &expired, alice),
        job("stranger", "https", &stranger, alice),
        job("no_tls", "http", "", alice),
    ];
    let prometheus = Prometheus::start(&format!(
        "global: {{scrape_interval: 100ms, scrape_timeout: 100ms, evaluation_interval: 1s}}\nscrape_configs:\n{}",
        jobs.concat()
    ));
    prometheus.becomes("up{job=\"good\"}", 1.0);
    for job in [
        "wrong_password",
        "unknown_user",
        "no_password",
        "no_certificate",
        "unnamed",
        "expired",
        "stranger",
        "no_tls",
    ] {
        prometheus.becomes(&format!("up{{job=\"{job}\"}}"), 0.0);
    }
    for (reason, jobs) in [
        ("basic_auth", 3.0),
        ("client_certificate", 4.0),
        ("tls", 1.0),
    ] {
        let query = format!(
            "darkport_web_refused_total{{job=\"good\",reason=\"{reason}\"}} >= bool {jobs}"
        );
        prometheus.becomes(&query, 1.0);
    }
    for line in [
        &["request refused", "reason=basic_auth", "peer=127.0.0.1:"][..],
        &["client certificate refused", "peer=127.0.0.1:"],
        &[
            "TLS handshake failed",
            "peer=127.0.0.1:",
            "does not speak TLS",
        ],
    ] {
        exporter.logged(line);
    }

    // Each comes back ten times a second; the log tells one line of each kind, and of each user.
    let log = exporter.log();
    for (told, lines) in [
        ("request refused", 2),
        ("client certificate refused", 1),
        ("TLS handshake failed", 1),
    ] {
        let found = log.iter().filter(|line| line.contains(told)).count();
        assert_eq!(found, lines, "{told}: {log:#?}");
    }

    // Certificates are replaced, files one after the other, with a scrape every 100 ms.
    let scrapes = || {
        prometheus
            .number("count_over_time(up{job=\"good\"}[1h])")
            .unwrap()
    };
    for _ in 0..10 {
        let before = scrapes();
        let next = site.renew(&site.authority);
        wait_for("the new certificate to be served, and more scrapes", || {
            let is_served = serves(&prometheus_like, exporter.address, &next);
            (is_served && scrapes() >= before + 3.0).then_some(())
        });
    }
    // What was cut off after its 100 ms tells of the machine, and nothing of certificates.
    let failed = "count_over_time((up{job=\"good\"} == 0 and scrape_duration_seconds{job=\"good\"} < 0.1)[1h:100ms])";
    assert_eq!(prometheus.number(failed), None);
    assert!(scrapes() >= 30.0);
    prometheus.becomes("max(max_over_time(up{job!=\"good\"}[1h]))", 0.0);
}
