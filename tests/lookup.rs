//! `lookup` as a person calls it, beside an exporter that runs: what that one saw last is told, and where none answers, what
//! lookup sees itself. tests/kernel_exporter.rs has what the kernel tier adds.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test's helpers are tests too"
)]

mod support;

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use support::pki::{Authority, Purpose};
use support::{Exporter, ended, get, program, wait_for};

/// Port numbers below the ephemeral range, free for both protocols. Test processes run side by side: each begins elsewhere.
fn free_ports() -> [u16; 2] {
    let start = 9_000 + (std::process::id() % 300) as u16 * 10;
    let mut free = (start..start + 10_000).filter(|&number| {
        let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, number));
        TcpListener::bind(address).is_ok() && UdpSocket::bind(address).is_ok()
    });
    [free.next().unwrap(), free.next().unwrap()]
}

/// Exit status, standard output and standard error of `lookup PORT`.
fn look_up(port: u16, url: &str, more: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(program());
    command.args(["lookup", &port.to_string(), "--exporter.url", url]);
    ended(command.args(more))
}

fn url(address: SocketAddr) -> String {
    format!("http://{address}/")
}

fn json(port: u16, url: &str) -> Value {
    let (status, answer, errors) = look_up(port, url, &["--output=json"]);
    assert_eq!((status, errors.as_str()), (Some(0), ""));
    serde_json::from_str(&answer).unwrap()
}

#[test]
fn the_last_event_of_a_port_is_told_in_every_tier_that_sees_it() {
    for tier in ["netlink", "polled"] {
        let [brief, owned] = free_ports();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("darkport.yml");
        std::fs::write(
            &file,
            format!("watch: [{{name: two, ports: [{brief}, {owned}]}}]\n"),
        )
        .unwrap();
        let exporter = Exporter::start(&[
            "--config.file",
            file.to_str().unwrap(),
            &format!("--collector.tier={tier}"),
        ]);
        let url = url(exporter.address);
        let before = json(brief, &url);
        assert_eq!(before["exporter"]["tier"], tier);
        assert!(before["ports"][0].get("last_event").is_none(), "{before}");

        // One that every tier has a table of.
        let held = TcpListener::bind((Ipv4Addr::LOCALHOST, owned)).unwrap();
        exporter.scrape();
        drop(held);
        let answer = wait_for("the end of the listener to be told", || {
            let answer = json(owned, &url);
            (answer["ports"][0]["last_event"]["event"] == "closed").then_some(answer)
        });
        let event = &answer["ports"][0]["last_event"];
        assert_eq!(event["pid"], std::process::id(), "{event}");
        assert_eq!(event["uid"], rustix::process::getuid().as_raw(), "{event}");
        assert_eq!(event["address"], "127.0.0.1");
        assert_eq!(event["expected"], false);
        let name = std::fs::read_to_string("/proc/self/comm").unwrap();
        assert_eq!(event["process"], name.trim_end());
        let (_, table, errors) = look_up(owned, &url, &[]);
        assert_eq!(errors, "");
        let row = table
            .lines()
            .find(|line| line.contains("last event: "))
            .unwrap();
        for part in [
            "listener closed 20",
            &format!("pid={} ", std::process::id()),
            "uid=",
        ] {
            assert!(row.contains(part), "{part} in {row}");
        }
        if tier == "polled" {
            continue;
        }

        // And those that none shows.
        drop(TcpListener::bind((Ipv4Addr::LOCALHOST, brief)).unwrap());
        drop(UdpSocket::bind((Ipv4Addr::LOCALHOST, brief)).unwrap());
        let answer = wait_for("the brief listeners to be told", || {
            let answer = json(brief, &url);
            let told =
                |index: usize| answer["ports"][index]["last_event"]["event"] == "came_and_went";
            (told(0) && told(1)).then_some(answer)
        });
        for index in [0, 1] {
            let event = &answer["ports"][index]["last_event"];
            assert_eq!(event["address"], "127.0.0.1");
            assert_eq!(event["process"], "", "this tier is not told whose it was");
            let at = event["at"].as_f64().unwrap();
            assert!((at - answer["exporter"]["sampled_at"].as_f64().unwrap()).abs() < 3600.0);
        }
        assert_eq!(answer["ports"][0]["lit"], false);
    }
}

#[test]
fn without_an_exporter_lookup_tells_what_it_sees() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let nobody = url(support::free_address());
    let (status, table, errors) = look_up(port, &nobody, &[]);
    assert_eq!(status, Some(0));
    assert!(
        errors.starts_with(&format!(
            "darkport_exporter: no exporter answers at {nobody}: "
        )) && errors.ends_with("; what follows is what lookup sees itself\n"),
        "{errors}"
    );
    assert!(
        table.contains(&format!("{port}/tcp")) && table.contains(" lit"),
        "{table}"
    );
    let (status, answer, _) = look_up(port, &nobody, &["--output=json"]);
    assert_eq!(status, Some(0));
    let answer: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(answer["exporter"]["answers"], false);
    assert_eq!(answer["ports"][0]["lit"], true);
    assert_eq!(
        answer["ports"][0]["listeners"][0]["pid"],
        std::process::id()
    );
    let (status, table, errors) = look_up(port, "", &[]);
    assert_eq!((status, errors.as_str()), (Some(0), ""), "nobody is asked");
    assert!(table.contains(" lit"), "{table}");
}

/// An exporter that serves with this web configuration.
fn guarded(folder: &Path, web: &str) -> Exporter {
    let (config, file) = (folder.join("config.yml"), folder.join("web.yml"));
    std::fs::write(&config, "watch: []\n").unwrap();
    std::fs::write(&file, web).unwrap();
    Exporter::start_guarded(&[
        &format!("--config.file={}", config.display()),
        &format!("--web.config.file={}", file.display()),
    ])
}

#[test]
fn an_exporter_that_does_not_tell_is_named_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let hash = "$2y$04$abcdefghijklmnopqrstuuFiycaHGRGfElgFvkKESRR6zSHEydGmG";
    let users = guarded(
        folder.path(),
        &format!("basic_auth_users: {{alice: {hash}}}\n"),
    );
    let server = Authority::new("test").issue(Purpose::Server, &["localhost"]);
    std::fs::write(folder.path().join("server.pem"), &server.certificate).unwrap();
    std::fs::write(folder.path().join("key.pem"), &server.key).unwrap();
    let tls = guarded(
        folder.path(),
        "tls_server_config: {cert_file: server.pem, key_file: key.pem}\n",
    );
    for (exporter, reason) in [
        (&users, "asks for a name and a password"),
        (&tls, "This is an HTTPS server"),
    ] {
        let (status, table, errors) = look_up(561, &url(exporter.address), &[]);
        assert_eq!(status, Some(0));
        assert!(errors.contains(reason), "{errors}");
        assert!(table.contains("561/tcp"), "{table}");
    }
    let (status, _, errors) = look_up(561, "https://localhost:10561", &[]);
    assert_eq!(status, Some(2));
    assert!(errors.contains("plain HTTP"), "{errors}");
}

/// Anybody may listen where an exporter should be.
#[test]
fn what_answers_in_an_exporters_place_does_no_harm() {
    let evil = "{\"sampled_at\": 1e308, \"last_events\": [{\"port\": 561, \"protocol\": \"tcp\", \"event\": \"\\u001b[2J\", \
                \"at\": -1e308, \"address\": \"\\u001b]0;x\\u0007\", \"process\": \"\\r\\n561/tcp  -  lit\", \"uid\": 0}]}";
    let http = |body: &str| {
        format!(
            "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    for (reply, told) in [
        (http(evil), ""),
        (
            http("{\"sampled_at\": \"\u{1b}\"}"),
            "is not a darkport_exporter",
        ),
        (http("[1"), "is not a darkport_exporter"),
        (
            "SSH-2.0-\u{1b}[2J\r\n".to_owned(),
            "does not answer in plain HTTP",
        ),
        (
            "HTTP/1.1 404 Not Found\r\ncontent-length: 1\r\n\r\n\u{1b}".to_owned(),
            "answers 404",
        ),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{".to_owned(),
            "does not answer in plain HTTP",
        ),
        (String::new(), "does not answer in plain HTTP"),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 4096];
            let _ = stream.read(&mut request);
            let _ = stream.write_all(reply.as_bytes());
        });
        let (status, table, errors) = look_up(561, &url(address), &[]);
        assert_eq!(status, Some(0), "{errors}");
        server.join().unwrap();
        assert!(
            errors.contains(told) && errors.is_empty() == told.is_empty(),
            "{told}: {errors:?}"
        );
        for text in [&table, &errors] {
            assert!(
                !text.chars().any(|c| c.is_control() && c != '\n'),
                "{text:?}"
            );
        }
        assert_eq!(
            table
                .lines()
                .filter(|line| line.starts_with("561/tcp"))
                .count(),
            1,
            "{table}"
        );
    }
}

/// What /api/v1/ports tells of a hostile name is a JSON string and nothing else.
#[test]
fn events_are_told_by_the_api_newest_first() {
    let [first, second] = free_ports();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("darkport.yml");
    std::fs::write(
        &file,
        format!("watch: [{{name: two, ports: [{first}, {second}]}}]\n"),
    )
    .unwrap();
    let exporter = Exporter::start(&[
        "--config.file",
        file.to_str().unwrap(),
        "--collector.tier=polled",
    ]);
    let mut held = Vec::new();
    for port in [first, second] {
        held.push(TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap());
        exporter.scrape();
    }
    let events = wait_for("both events", || {
        let (_, body) = get(exporter.address, "/api/v1/ports");
        let answer: Value = serde_json::from_str(&body).unwrap();
        let events = answer["last_events"].as_array().unwrap().clone();
        (events.len() == 2).then_some(events)
    });
    let told: Vec<_> = events
        .iter()
        .map(|event| (&event["port"], &event["event"]))
        .collect();
    assert_eq!(
        told,
        [
            (&second.into(), &"opened".into()),
            (&first.into(), &"opened".into())
        ]
    );
}
