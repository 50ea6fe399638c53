//! Bad input at start, as whoever types it meets it: the exit status, and a message that names the place and the cure.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "the lints spare test functions only, not what they share"
)]

mod support;

use std::net::{TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;

use darkport_exporter::port::Port;
use support::{Exporter, ended};

const EXPORTER: &str = env!("CARGO_BIN_EXE_darkport_exporter");
/// Refused configuration or failed run.
const REFUSED: i32 = 1;
/// A command line that is not understood.
const USAGE: i32 = 2;

/// What the exporter says when it is started so; it must end with this status and print nothing else.
fn said(status: i32, arguments: &[&str]) -> String {
    let (code, output, errors) = ended(Command::new(EXPORTER).args(arguments));
    assert_eq!(code, Some(status), "{arguments:?}: {errors}");
    assert_eq!(output, "", "{arguments:?}");
    errors
}

/// The message, which comes after the log, when it ends with status 1.
fn message(arguments: &[&str]) -> String {
    after_the_log(&said(REFUSED, arguments))
}

fn after_the_log(errors: &str) -> String {
    let message = errors.split_once("darkport_exporter: ");
    message.unwrap_or_else(|| panic!("{errors}")).1.to_owned()
}

fn message_about(file: &Path) -> String {
    let flag = format!("--config.file={}", file.display());
    let serving = message(&[&flag, "--web.listen-address=127.0.0.1:0"]);
    assert_eq!(message(&[&flag, "--config.check"]), serving);
    assert_eq!(message(&[&flag, "lookup", "561"]), serving);
    let place = file.display().to_string();
    assert!(serving.starts_with(&place), "{serving}");
    serving
}

fn file_of(folder: &tempfile::TempDir, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
    let path = folder.path().join(name);
    std::fs::write(&path, content).unwrap();
    path
}

fn listen(address: &str) -> String {
    format!("--web.listen-address={address}")
}

#[test]
fn a_listen_address_in_use() {
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = other.local_addr().unwrap();
    let port = address.port();
    for asked in [address.to_string(), format!(":{port}")] {
        let message = message(&[&listen(&asked)]);
        for part in [
            format!("listen address {asked} is in use"),
            format!("ss -lntp 'sport = :{port}'"),
            "--web.listen-address".to_owned(),
        ] {
            assert!(message.contains(&part), "{message}");
        }
    }
}

#[test]
fn a_listen_address_of_another_host() {
    // Of the block for documentation (RFC 5737), which no host has.
    let message = message(&[&listen("192.0.2.1:0")]);
    assert!(
        message.starts_with("listen address 192.0.2.1:0 is not an address of this host")
            && message.contains("ip address"),
        "{message}"
    );
}

#[test]
fn a_listen_address_that_is_none() {
    for (address, cure) in [
        ("localhost", "write localhost:10561"),
        ("10561", "a port is written with a colon before it: :10561"),
        ("127.0.0.1:65536", "port 65536 is beyond 65535"),
        ("::1:80", "in brackets"),
        ("[::1:80", "the bracket is not closed"),
        ("127.0.0.256:80", "neither an address nor a host name"),
        (":http", "\"http\" is not a port"),
        ("", "the port is missing"),
    ] {
        let said = said(USAGE, &[&listen(address)]);
        assert!(
            said.contains("--web.listen-address") && said.contains(cure),
            "{address}: {said}"
        );
    }
}

#[test]
fn two_listen_addresses_the_same() {
    let said = said(USAGE, &[&listen("[::1]:1"), &listen("[0:0::1]:1")]);
    assert!(
        said.contains("--web.listen-address [::1]:1 is given twice"),
        "{said}"
    );
    let port = support::free_address().port();
    let (one, all) = (format!("127.0.0.1:{port}"), format!(":{port}"));
    let message = message(&[&listen(&one), &listen(&all)]);
    assert!(
        message.contains(&format!("listen address {all} is covered by {one}"))
            && message.contains("leave one of them out"),
        "{message}"
    );
}

#[test]
fn a_flag_or_value_that_is_not_known() {
    for (flag, part) in [
        ("--web.listen-adress=:1", "--web.listen-address"),
        ("--collector.tier=poled", "polled"),
        ("--collector.sockets=proc", "procfs"),
        ("--collector.poll-interval=5", "1s, 500ms or 1m30s"),
        ("--collector.poll-interval=1ms", "choose 100ms to 1h"),
        ("--web.max-requests=-1", "--web.max-requests"),
        ("--log.level=loud", "debug"),
    ] {
        let said = said(USAGE, &[flag]);
        assert!(said.contains(part), "{flag}: {said}");
    }
}

#[test]
fn a_configuration_file_that_is_not_there() {
    let folder = tempfile::tempdir().unwrap();
    let message = message_about(&folder.path().join("missing.yml"));
    assert!(
        message.contains("cannot be read: No such file or directory"),
        "{message}"
    );
}

#[test]
fn a_directory_in_place_of_a_configuration_file() {
    let folder = tempfile::tempdir().unwrap();
    let message = message_about(folder.path());
    assert!(
        message.contains("is a directory: name the file in it"),
        "{message}"
    );
}

/// Root reads whatever it likes, but for a process without any capability.
#[cfg(target_os = "linux")]
#[test]
fn a_configuration_file_that_may_not_be_read() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let file = file_of(&folder, "secret.yml", "watch: [{name: a, ports: [1]}]\n");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o000)).unwrap();
    let mut command = if rustix::process::geteuid().is_root() {
        let mut without = Command::new("setpriv");
        without.args(["--bounding-set=-all", "--inh-caps=-all", EXPORTER]);
        without
    } else {
        Command::new(EXPORTER)
    };
    let flag = format!("--config.file={}", file.display());
    let (code, _, errors) = ended(command.args([&flag, "--config.check"]));
    assert_eq!(code, Some(REFUSED), "{errors}");
    let told = format!("{}: cannot be read: Permission denied", file.display());
    assert!(after_the_log(&errors).starts_with(&told), "{errors}");
}

#[test]
fn an_empty_configuration_file() {
    let folder = tempfile::tempdir().unwrap();
    let message = message_about(&file_of(&folder, "empty.yml", ""));
    assert!(
        message.contains(":1:1: ") && message.contains("--config.default prints one"),
        "{message}"
    );
}

#[test]
fn a_binary_configuration_file() {
    let folder = tempfile::tempdir().unwrap();
    let binary = std::fs::read(EXPORTER).unwrap();
    for (name, content, told) in [
        ("program.yml", &binary[..64 * 1024], "as in binary data"),
        ("utf16.yml", b"\xff\xfew\0", "UTF-16"),
        ("latin1.yml", b"watch:\n# caf\xe9\n", ":2: "),
    ] {
        let message = message_about(&file_of(&folder, name, content));
        assert!(
            message.contains(told) && message.contains("YAML in UTF-8"),
            "{message}"
        );
    }
}

#[test]
fn a_configuration_file_of_50_mb() {
    let folder = tempfile::tempdir().unwrap();
    let line = "- {name: a, ports: [1]}\n";
    let text = format!("watch:\n{}", line.repeat(50_000_000 / line.len()));
    let message = message_about(&file_of(&folder, "large.yml", text));
    assert!(message.contains("is larger than 1024 KiB"), "{message}");
}

#[cfg(unix)]
#[test]
fn a_configuration_file_without_end() {
    let message = message_about(Path::new("/dev/zero"));
    assert!(message.contains("is larger than 1024 KiB"), "{message}");
}

#[test]
fn every_problem_of_a_configuration_is_told_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let file = file_of(
        &folder,
        "many.yml",
        "watch:\n\
         - {name: a, ports: [65536]}\n\
         - {name: a, port: [1]}\n\
         - {name: b, ports: [9-3]}\n\
         - {name: c, ports: [7], protocols: tcp}\n\
         - {name: d, iana: {service_name: no-such-service}}\n\
         limitz: {}\n",
    );
    let message = message_about(&file);
    for (place, cure) in [
        (":2:21: ", "port 65536 is beyond 65535"),
        (":3:3: ", "list numbers and ranges"),
        (":3:10: ", "\"a\" is taken"),
        (":3:13: ", "did you mean ports?"),
        (":4:21: ", "write 3-9"),
        (":5:36: ", "write a list"),
        (":6:34: ", "no-such-service"),
        (":7:1: ", "did you mean limits?"),
    ] {
        let at = format!("{}{place}", file.display());
        let line = message.lines().find(|line| line.starts_with(&at));
        assert!(line.is_some_and(|line| line.contains(cure)), "{message}");
    }
    assert_eq!(message.lines().count(), 8, "{message}");
}

#[test]
fn a_good_configuration_is_checked_without_a_word_of_complaint() {
    let (code, output, errors) = ended(Command::new(EXPORTER).arg("--config.check"));
    assert_eq!((code, errors.as_str()), (Some(0), ""));
    assert!(output.starts_with("embedded default: valid, "), "{output}");
}

#[cfg(target_os = "linux")]
#[test]
fn a_proc_that_shows_nothing_costs_the_owners_and_nothing_else() {
    let empty = tempfile::tempdir().unwrap();
    for procfs in [empty.path().to_owned(), empty.path().join("missing")] {
        let free = support::free_address();
        let port = Port::tcp(free.port());
        let config = format!("watch: [{{name: one, ports: [{}]}}]\n", free.port());
        let folder = tempfile::tempdir().unwrap();
        let file = file_of(&folder, "one.yml", config);
        let mut exporter = Exporter::start(&[
            &format!("--config.file={}", file.display()),
            &format!("--path.procfs={}", procfs.display()),
        ]);
        let listening = |exporter: &Exporter| exporter.scrape().of_port("darkport_listening", port);
        assert_eq!(listening(&exporter), Some(0.0));
        let _open = (
            TcpListener::bind(free).unwrap(),
            UdpSocket::bind(free).unwrap(),
        );
        assert_eq!(listening(&exporter), Some(1.0));
        let scrape = exporter.scrape();
        for (collector, success) in [("owners", 0.0), ("sockets", 1.0)] {
            let series = format!("darkport_collector_success{{collector=\"{collector}\"}}");
            assert_eq!(scrape.value(&series), Some(success), "{collector}");
        }
        let here = format!("port=\"{}\"", free.port());
        let infos: Vec<&str> = scrape.series("darkport_listener_info").collect();
        let own: Vec<&&str> = infos.iter().filter(|info| info.contains(&here)).collect();
        assert_eq!(own.len(), 2, "{infos:?}");
        for info in own {
            assert!(info.contains("process=\"\"") && info.contains("expected=\"false\""));
        }
        let line = exporter.logged(&["owners of listeners are unknown"]);
        assert!(line.contains("--path.procfs"), "{line}");
    }
}
