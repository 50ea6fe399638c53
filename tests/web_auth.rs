//! Who may ask, how often, and what they are told: users, rate limit, headers, reload, over the real program.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test's helpers are tests too"
)]

mod support;

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use support::https::{Https, Reply, basic, plain};
use support::pki::{Authority, Purpose};
use support::{Exporter, Scrape, wait_for};

/// Of "password", with the least cost there is worth a name.
const HASH: &str = "$2y$05$abcdefghijklmnopqrstuuWG29KuyeAicPCJODk1zjyGvyQUU2awu";

/// A hash of "password" with another cost, made by the same crate the exporter uses.
fn hash(cost: u32) -> String {
    use base64::Engine as _;
    let salt = *b"0123456789abcdef";
    let hash = bcrypt::bcrypt(cost, salt, b"password\0");
    let text = |bytes: &[u8]| bcrypt::BASE_64.encode(bytes);
    format!("$2y${cost:02}${}{}", text(&salt), text(&hash[..23]))
}

struct Guarded {
    exporter: Exporter,
    file: PathBuf,
    folder: tempfile::TempDir,
}

impl Guarded {
    fn start(web: &str) -> Self {
        Self::start_with(web, &[])
    }

    fn start_with(web: &str, arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("web.yml");
        std::fs::write(&file, web).unwrap();
        let config = folder.path().join("config.yml");
        std::fs::write(&config, "watch: []\n").unwrap();
        let web = format!("--web.config.file={}", file.display());
        let config = format!("--config.file={}", config.display());
        let arguments: Vec<&str> = [&*web, &config].iter().chain(arguments).copied().collect();
        Self {
            exporter: Exporter::start_guarded(&arguments),
            file,
            folder,
        }
    }

    fn ask(&self, path: &str, headers: &str) -> Reply {
        plain(self.exporter.address, "GET", path, headers)
    }

    fn status(&self, name: &str, password: &str) -> u16 {
        self.ask("/-/healthy", &basic(name, password)).status
    }

    fn scrape(&self, headers: &str) -> Scrape {
        let reply = self.ask("/metrics", headers);
        assert_eq!(reply.status, 200, "{reply:?}");
        Scrape(reply.body)
    }

    /// How many were turned away for a reason, as told to who may ask.
    fn refused(&self, headers: &str, reason: &str) -> f64 {
        self.scrape(headers)
            .value(&format!(
                "darkport_web_refused_total{{reason=\"{reason}\"}}"
            ))
            .unwrap()
    }
}

fn alice() -> String {
    basic("alice", "password")
}

#[test]
fn only_who_knows_the_password_is_answered_and_others_are_told_nothing() {
    let mut guarded = Guarded::start(&format!("basic_auth_users: {{alice: {HASH}}}\n"));
    assert_eq!(guarded.ask("/-/healthy", &alice()).status, 200);
    let without = guarded.ask("/-/healthy", "");
    assert_eq!(without.status, 401);
    assert!(
        without
            .header("www-authenticate")
            .unwrap()
            .starts_with("Basic realm=")
    );
    let same = |reply: &Reply| {
        let date = |line: &&str| !line.starts_with("date:");
        let head: Vec<&str> = reply.head.lines().filter(date).collect();
        format!("{} {}", head.join("\n"), reply.body)
    };
    // A look whether it lives is refused, and neither counted nor told; anything else is.
    assert_eq!(guarded.refused(&alice(), "basic_auth"), 0.0);
    assert_eq!(same(&guarded.ask("/metrics", "")), same(&without));
    let mut asked = 1.0;
    for headers in [
        basic("alice", "passwore"),
        basic("alice", ""),
        basic("Alice", "password"),
        basic("mallory", "password"),
        basic("", ""),
        "Authorization: Basic !\r\n".to_owned(),
        "Authorization: Bearer x\r\n".to_owned(),
        alice() + &alice(),
    ] {
        for path in [
            "/-/healthy",
            "/metrics",
            "/",
            "/config",
            "/probe",
            "/nothing",
        ] {
            let reply = guarded.ask(path, &headers);
            assert_eq!(same(&reply), same(&without), "{headers} {path}");
            asked += 1.0;
        }
    }
    assert_eq!(guarded.refused(&alice(), "basic_auth"), asked);
    let line =
        guarded
            .exporter
            .logged(&["request refused", "reason=basic_auth", "peer=127.0.0.1:"]);
    assert!(line.contains("level=WARN"), "{line}");
    let log = guarded.exporter.log();
    let lines = log.iter().filter(|line| line.contains("request refused"));
    assert!(lines.count() <= 2, "rate-limited: {log:#?}");
    for secret in ["passwore", "mallory", "abcdefghijklmnopqrstuu"] {
        assert!(!log.iter().any(|line| line.contains(secret)), "{secret}");
    }
}

#[test]
fn a_user_who_is_known_is_named_in_the_log_and_an_unknown_one_is_not() {
    let mut guarded = Guarded::start(&format!("basic_auth_users: {{alice: {HASH}}}\n"));
    assert_eq!(guarded.status("secret-typed-as-name", "x"), 401);
    assert_eq!(guarded.status("alice", "x"), 401);
    guarded.exporter.logged(&["request refused", "user=alice"]);
    let log = guarded.exporter.log();
    assert!(!log.iter().any(|line| line.contains("secret-typed")));
}

#[test]
fn users_come_and_go_without_a_restart() {
    let mut guarded = Guarded::start(&format!("basic_auth_users: {{alice: {HASH}}}\n"));
    assert_eq!(guarded.status("alice", "password"), 200);
    assert_eq!(guarded.status("bob", "password"), 401);
    std::fs::write(
        &guarded.file,
        format!("basic_auth_users: {{bob: {}}}\n", hash(4)),
    )
    .unwrap();
    wait_for("bob to be let in", || {
        (guarded.status("bob", "password") == 200).then_some(())
    });
    assert_eq!(
        guarded.status("alice", "password"),
        401,
        "remembered or not"
    );
    guarded.exporter.logged(&["web configuration loaded anew"]);

    // A bad file changes nothing but what is said of it.
    let bob = basic("bob", "password");
    let gauge = "darkport_web_config_last_reload_successful";
    assert_eq!(guarded.scrape(&bob).value(gauge), Some(1.0));
    std::fs::write(&guarded.file, "basic_auth_users: {bob: secret}\n").unwrap();
    wait_for("the bad file to be seen", || {
        (guarded.scrape(&bob).value(gauge) == Some(0.0)).then_some(())
    });
    guarded
        .exporter
        .logged(&["web configuration refused", "basic_auth_users.bob"]);
    std::fs::remove_file(&guarded.file).unwrap();
    wait_for("the missing file to be told of", || {
        assert_eq!(guarded.status("bob", "password"), 200);
        let is_told = |line: &String| {
            line.contains("web configuration refused") && line.contains("cannot be read")
        };
        guarded.exporter.log().iter().any(is_told).then_some(())
    });
    assert_eq!(guarded.scrape(&bob).value(gauge), Some(0.0));
    std::fs::write(&guarded.file, "http_server_config: {}\n").unwrap();
    wait_for("everybody to be let in", || {
        (guarded.ask("/metrics", "").status == 200).then_some(())
    });
    assert_eq!(guarded.scrape("").value(gauge), Some(1.0));
}

#[test]
fn without_a_web_configuration_nothing_is_said_of_it() {
    let exporter = Exporter::start(&[]);
    let scrape = exporter.scrape();
    assert_eq!(
        scrape.value("darkport_web_config_last_reload_successful"),
        None
    );
    assert_eq!(
        scrape.value("darkport_web_refused_total{reason=\"basic_auth\"}"),
        Some(0.0)
    );
}

/// A flood from one address; another address with a right password that nobody has used yet, and one that somebody has.
#[test]
fn a_flood_of_wrong_passwords_stops_nobody_else() {
    let costly = hash(10);
    let guarded = Guarded::start(&format!(
        "basic_auth_users: {{alice: {costly}, bob: {costly}}}\n"
    ));
    assert_eq!(guarded.status("alice", "password"), 200);
    let address = guarded.exporter.address;
    let ends = AtomicBool::new(false);
    let answered = AtomicUsize::new(0);
    let from = Https {
        from: Some(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2))),
        ..Https::trusting(tokio_rustls::rustls::RootCertStore::empty())
    };
    std::thread::scope(|scope| {
        for thread in 0..32 {
            let (ends, answered) = (&ends, &answered);
            scope.spawn(move || {
                for number in 0.. {
                    if ends.load(Ordering::Relaxed) {
                        return;
                    }
                    let name = if number % 2 == 0 { "alice" } else { "mallory" };
                    let headers = basic(name, &format!("{thread}-{number}"));
                    let status = plain(address, "GET", "/-/healthy", &headers).status;
                    assert!(matches!(status, 401 | 503), "{status}");
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        wait_for("the flood to rise", || {
            (answered.load(Ordering::Relaxed) > 8).then_some(())
        });
        // Remembered: no waiting at all, however long the line is.
        for _ in 0..50 {
            assert_eq!(guarded.status("alice", "password"), 200);
        }
        // Not remembered, and from elsewhere: next but one.
        let before = answered.load(Ordering::Relaxed);
        let reply = from.ask_plain(address, "/-/healthy", &basic("bob", "password"));
        let waited = answered.load(Ordering::Relaxed) - before;
        assert_eq!(reply.status, 200);
        assert!(waited < 32, "{waited} of the flood were answered before");
        ends.store(true, Ordering::Relaxed);
    });
}

#[test]
fn more_than_the_rate_allows_is_refused_and_counted() {
    let mut guarded = Guarded::start("rate_limit: {interval: 1h, burst: 5}\n");
    for _ in 0..5 {
        assert_eq!(guarded.ask("/-/healthy", "").status, 200);
    }
    for _ in 0..3 {
        let reply = guarded.ask("/metrics", "");
        assert_eq!(reply.status, 429);
        assert!(reply.header("retry-after").is_some());
    }
    guarded
        .exporter
        .logged(&["request refused", "reason=rate_limit", "peer=127.0.0.1:"]);
    std::fs::write(&guarded.file, "rate_limit: {interval: 0}\n").unwrap();
    wait_for("the limit to be lifted", || {
        (guarded.ask("/-/healthy", "").status == 200).then_some(())
    });
    assert!(guarded.refused("", "rate_limit") >= 3.0);
}

#[test]
fn headers_stand_in_every_answer_and_a_page_keeps_its_own() {
    let guarded = Guarded::start(
        "http_server_config:\n  headers:\n    Content-Security-Policy: default-src 'self'\n    X-Frame-Options: deny\n\
         \x20   Strict-Transport-Security: max-age=60\n",
    );
    for path in ["/metrics", "/-/healthy", "/nothing", "/config", "/probe"] {
        let reply = guarded.ask(path, "");
        assert_eq!(
            reply.header("content-security-policy"),
            Some("default-src 'self'")
        );
        assert_eq!(reply.header("x-frame-options"), Some("deny"));
        assert_eq!(
            reply.header("strict-transport-security"),
            Some("max-age=60")
        );
    }
    let policy = guarded.ask("/", "");
    let policies = policy
        .head
        .lines()
        .filter(|line| line.starts_with("content-security-policy"));
    assert_eq!(policies.count(), 1);
    assert!(
        policy
            .header("content-security-policy")
            .unwrap()
            .starts_with("default-src 'none'")
    );
}

#[test]
fn reload_is_for_who_enabled_it_and_says_what_came_of_it() {
    let exporter = Exporter::start(&[]);
    let ask = |method| plain(exporter.address, method, "/-/reload", "");
    let reply = ask("POST");
    assert_eq!(reply.status, 403);
    assert!(reply.body.contains("--web.enable-lifecycle"));
    for method in ["GET", "HEAD", "DELETE"] {
        let reply = ask(method);
        assert_eq!(reply.status, 405);
        assert_eq!(reply.header("allow"), Some("POST, PUT"));
    }

    let mut guarded = Guarded::start_with(
        &format!("basic_auth_users: {{alice: {HASH}}}\n"),
        &["--web.enable-lifecycle"],
    );
    let address = guarded.exporter.address;
    let reload = || plain(address, "POST", "/-/reload", &alice());
    assert_eq!(plain(address, "POST", "/-/reload", "").status, 401);
    assert_eq!(reload().status, 200);
    assert_eq!(plain(address, "PUT", "/-/reload", &alice()).status, 200);
    let config = guarded.folder.path().join("config.yml");
    std::fs::write(&config, "watch: []\nlimits: {series: x}\nprobes: 1\n").unwrap();
    std::fs::write(&guarded.file, "basic_auth_users: {alice: x}\n").unwrap();
    let reply = reload();
    assert_eq!(reply.status, 500);
    for problem in [
        "config.yml:2:18: limits.series: ",
        "config.yml:3:1: probes: unknown key",
        "web.yml:1:27: basic_auth_users.alice: ",
    ] {
        assert!(reply.body.contains(problem), "{}", reply.body);
    }
    let gauge = "darkport_config_last_reload_successful";
    assert_eq!(guarded.scrape(&alice()).value(gauge), Some(0.0));
    std::fs::write(&config, "watch: [{name: a, ports: [7]}]\n").unwrap();
    std::fs::write(
        &guarded.file,
        format!("basic_auth_users: {{alice: {HASH}}}\n"),
    )
    .unwrap();
    assert_eq!(reload().status, 200);
    let scrape = guarded.scrape(&alice());
    assert_eq!(scrape.value(gauge), Some(1.0));
    assert!(scrape.0.contains("darkport_listening{port=\"7\""));
    guarded
        .exporter
        .logged(&["configuration refused", "limits.series"]);
}

#[test]
fn what_is_in_use_is_shown_without_secrets() {
    let guarded = Guarded::start(&format!("basic_auth_users: {{alice: {HASH}}}\n"));
    let reply = guarded.ask("/config", &alice());
    assert_eq!(
        reply.body,
        "watch: []\n---\n# The web configuration.\nbasic_auth_users:\n  alice: <secret>\n"
    );
    assert_eq!(reply.header("cache-control"), Some("no-store"));
}

#[test]
fn a_bad_web_configuration_is_refused_before_anything_is_served() {
    let folder = tempfile::tempdir().unwrap();
    let web = folder.path().join("web.yml");
    let config = folder.path().join("config.yml");
    std::fs::write(&web, "basic_auth_users: {alice: x}\n").unwrap();
    std::fs::write(&config, "watch: [7]\n").unwrap();
    for check in [&["--config.check"][..], &[]] {
        let output = std::process::Command::new(support::program())
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--web.config.file={}", web.display()))
            .arg("--web.listen-address=127.0.0.1:0")
            .args(check)
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{told}");
        assert!(told.contains("config.yml:1:9: watch[0]"), "{told}");
        assert!(
            told.contains("web.yml:1:27: basic_auth_users.alice"),
            "{told}"
        );
    }
}

#[test]
#[cfg(target_os = "linux")]
fn sockets_of_systemd_are_served_on() {
    use std::os::fd::OwnedFd;
    use std::process::{Command, Stdio};

    // As systemd does it: the socket is descriptor 3, and the environment says so to this process alone.
    let hand_over = |socket: OwnedFd, pid: &str| {
        let script = format!(
            "LISTEN_FDS=1 LISTEN_PID={pid} exec \"$0\" --web.systemd-socket 3<&0 </dev/null"
        );
        let mut command = Command::new("sh");
        command.args(["-c", &script]).arg(support::program());
        command.stdin(Stdio::from(socket));
        command
    };
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let exporter = Exporter::listening_with_input(hand_over(listener.into(), "$$"));
    assert_eq!(exporter.address, address);
    assert_eq!(plain(address, "GET", "/-/healthy", "").status, 200);
    drop(exporter);

    let refused = |mut command: Command| {
        let output = command.output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{told}");
        told
    };
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let told = refused(hand_over(listener.into(), "1"));
    assert!(told.contains("LISTEN_PID is another process"), "{told}");
    let datagrams = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let told = refused(hand_over(datagrams.into(), "$$"));
    assert!(
        told.contains("socket 1 of 1") && told.contains("ListenStream="),
        "{told}"
    );
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let connection = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let told = refused(hand_over(connection.into(), "$$"));
    assert!(told.contains("does not listen"), "{told}");
    let mut nothing = Command::new(support::program());
    nothing.arg("--web.systemd-socket").env_remove("LISTEN_FDS");
    assert!(refused(nothing).contains("LISTEN_FDS is not set"));
}

#[test]
fn passwords_over_tls_are_judged_as_elsewhere() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new("test");
    let server = authority.issue(Purpose::Server, &["localhost"]);
    std::fs::write(folder.path().join("server.pem"), &server.certificate).unwrap();
    std::fs::write(folder.path().join("key.pem"), &server.key).unwrap();
    let web = folder.path().join("web.yml");
    std::fs::write(
        &web,
        format!("tls_server_config: {{cert_file: server.pem, key_file: key.pem}}\nbasic_auth_users: {{alice: {HASH}}}\n"),
    )
    .unwrap();
    let exporter = Exporter::start_guarded(&[&format!("--web.config.file={}", web.display())]);
    let https = Https::trusting(authority.roots());
    let status = |headers: &str| {
        https
            .ask(exporter.address, "GET", "/-/healthy", headers)
            .unwrap()
            .status
    };
    assert_eq!(status(&alice()), 200);
    assert_eq!(status(&basic("alice", "x")), 401);
    assert_eq!(status(""), 401);
}
