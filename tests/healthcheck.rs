//! `healthcheck`, as a container's runtime calls it: beside an exporter that runs, and beside none.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test's helpers are tests too"
)]

mod support;

use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use support::pki::{Authority, Purpose};
use support::{Exporter, ended, free_address, get, program};

/// Of "password".
const HASH: &str = "$2y$05$abcdefghijklmnopqrstuuWG29KuyeAicPCJODk1zjyGvyQUU2awu";

fn healthcheck(arguments: &[&str]) -> (Option<i32>, String, String) {
    ended(
        Command::new(program())
            .arg("healthcheck")
            .args(arguments)
            .env_remove("DARKPORT_WEB_LISTEN_ADDRESS")
            .env_remove("DARKPORT_WEB_CONFIG_FILE"),
    )
}

/// What a healthy exporter is said to be, asked with these arguments.
fn healthy(arguments: &[&str]) -> String {
    let (status, out, err) = healthcheck(arguments);
    assert_eq!(status, Some(0), "{out}{err}");
    assert_eq!(err, "");
    out
}

/// Why an exporter is said not to be healthy.
fn unhealthy(arguments: &[&str]) -> String {
    let (status, out, err) = healthcheck(arguments);
    assert_eq!(status, Some(1), "{out}{err}");
    assert_eq!(out, "");
    err
}

/// An exporter with a web configuration, and the flags by which it is asked.
fn guarded(folder: &Path, web: &str) -> (Exporter, [String; 2]) {
    let file = folder.join("web.yml");
    std::fs::write(&file, web).unwrap();
    let file = format!("--web.config.file={}", file.display());
    let exporter = Exporter::start_guarded(&[&file]);
    let address = format!("--web.listen-address={}", exporter.address);
    (exporter, [address, file])
}

#[test]
fn an_exporter_that_runs_is_healthy_and_one_that_has_ended_is_not() {
    let exporter = Exporter::start(&[]);
    let address = format!("--web.listen-address={}", exporter.address);
    let url = format!("http://{}/-/healthy", exporter.address);
    assert_eq!(healthy(&[&address]), format!("{url}: healthy\n"));
    // As the flags and the environment of a container have it.
    let anywhere = format!(":{}", exporter.address.port());
    assert_eq!(
        healthy(&["--web.listen-address", &anywhere]),
        format!("{url}: healthy\n")
    );
    let told = ended(
        Command::new(program())
            .arg("healthcheck")
            .env_remove("DARKPORT_WEB_CONFIG_FILE")
            .env("DARKPORT_WEB_LISTEN_ADDRESS", &anywhere),
    );
    assert_eq!(told.0, Some(0), "{told:?}");
    let missing = unhealthy(&["--url", &url.replace("healthy", "nothing")]);
    assert!(missing.contains("status 404"), "{missing}");
    drop(exporter);
    let gone = unhealthy(&[&address]);
    assert!(gone.contains("unhealthy"), "{gone}");
    assert!(gone.contains(&url), "{gone}");
    assert!(gone.contains("refused"), "{gone}");
}

#[test]
fn several_addresses_are_tried_until_one_answers() {
    let exporter = Exporter::start(&[]);
    let nobody = format!("--web.listen-address={}", free_address());
    let somebody = format!("--web.listen-address={}", exporter.address);
    healthy(&[&nobody, &somebody]);
}

#[test]
fn an_exporter_that_asks_for_a_password_is_healthy_and_does_not_count_the_look() {
    let folder = tempfile::tempdir().unwrap();
    let (mut exporter, flags) = guarded(
        folder.path(),
        &format!("basic_auth_users: {{alice: {HASH}}}\n"),
    );
    let told = healthy(&[&flags[0], &flags[1]]);
    assert!(told.contains("it asks for a password"), "{told}");
    assert_eq!(get(exporter.address, "/metrics").0, 401);
    // That one is told, and it alone: the log is in order.
    exporter.logged(&["request refused", "reason=basic_auth"]);
    let log = exporter.log();
    let told = log.iter().filter(|line| line.contains("request refused"));
    assert_eq!(told.count(), 1, "{log:#?}");
}

#[test]
fn over_tls_whoever_signed_is_believed_and_a_wish_for_a_certificate_is_life() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new("test");
    let server = authority.issue(Purpose::Server, &["elsewhere.example"]);
    let write = |name, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("server.pem", &server.certificate);
    write("key.pem", &server.key);
    write("ca.pem", &authority.pem);
    for (keys, word) in [
        ("", "/-/healthy: healthy\n"),
        (", min_version: TLS13", "/-/healthy: healthy\n"),
        (
            ", client_auth_type: RequireAndVerifyClientCert, client_ca_file: ca.pem",
            "it asks for a client certificate",
        ),
        (
            ", max_version: TLS12, client_auth_type: RequireAndVerifyClientCert, client_ca_file: ca.pem",
            "it asks for a client certificate",
        ),
    ] {
        let web =
            format!("tls_server_config: {{cert_file: server.pem, key_file: key.pem{keys}}}\n");
        let (exporter, flags) = guarded(folder.path(), &web);
        let told = healthy(&[&flags[0], &flags[1]]);
        assert!(told.starts_with("https://"), "{told}");
        assert!(told.contains(word), "{keys}: {told}");
        // Without the file nobody knows that TLS is spoken, and the answer says that it is.
        let plain = unhealthy(&[&flags[0]]);
        assert!(plain.contains("status 400"), "{plain}");
        // A file that has been spoilt since is not in use, and the exporter is what it was.
        write("web.yml", "tls_server_config: {}\nnothing: 1\n");
        healthy(&[&flags[0], &flags[1]]);
        drop(exporter);
    }
}

#[test]
fn one_that_says_nothing_is_not_waited_for_without_end() {
    let mute = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("--web.listen-address={}", mute.local_addr().unwrap());
    let late = unhealthy(&[&address, "--timeout=100ms"]);
    assert!(late.contains("no answer within 100ms"), "{late}");
}

#[test]
fn with_a_port_that_nobody_knows_the_cure_is_named() {
    let message = unhealthy(&["--web.listen-address=:0"]);
    assert!(message.contains("--url"), "{message}");
}
