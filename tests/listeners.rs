//! Whose listener it is, from end to end: the labels of a scrape and the line in the log, for every way a socket can be held.
//!
//! The suite runs this as root in a network namespace of its own. The listeners are python3 processes.

#![cfg(target_os = "linux")]

#[path = "support/group.rs"]
mod group;
mod support;

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};

use group::Group;
use support::namespace::Namespace;
use support::{Exporter, Running, Scrape, run, wait_for};

/// What every listener begins with: it listens, says its process id, and waits to be ended.
const LISTEN: &str = "
import os, socket, sys, time
def listen(port, family=socket.AF_INET, address='127.0.0.1', protocol=0, reuse=False):
    s = socket.socket(family, socket.SOCK_STREAM, protocol)
    if reuse: s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    if family == socket.AF_INET6: s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    s.bind((address, port)); s.listen(); return s
def ready(): print(os.getpid(), flush=True)
def wait():
    while True: time.sleep(60)
";

/// A listening process with all its children.
struct Listening {
    child: Child,
    pid: u32,
}

impl Listening {
    fn start(wrapper: &[&str], script: &str) -> Self {
        let script = format!("{LISTEN}{script}");
        let mut words = wrapper.to_vec();
        words.extend(["/usr/bin/python3", "-c", &script]);
        let mut child = Command::new(words[0])
            .args(&words[1..])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{} is needed: {error}", words[0]));
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let pid = line
            .trim()
            .parse()
            .unwrap_or_else(|_| panic!("it did not listen: {line:?}"));
        Self { child, pid }
    }

    /// Lets a script that reads a line go on.
    fn go_on(&mut self) {
        self.child.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        // Children of the listener hold its socket too; they are known by their parent.
        let children = Command::new("pgrep")
            .args(["-P", &self.pid.to_string()])
            .output()
            .unwrap();
        for pid in String::from_utf8_lossy(&children.stdout).split_whitespace() {
            let _ = Command::new("kill").args(["-KILL", pid]).status();
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An exporter that watches the well-known ports, and expects what a test says.
fn exporter(expect: &str, more: &str) -> (Exporter, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("all.yml");
    let text = format!(
        "watch:\n- {{name: all, ports: [1-1023], series: active, expect: {expect}}}\n{more}"
    );
    std::fs::write(&file, text).unwrap();
    (
        Exporter::start(&["--config.file", file.to_str().unwrap()]),
        folder,
    )
}

/// The labels of the listeners on a port, one text each.
fn infos(scrape: &Scrape, port: u16) -> Vec<String> {
    let start = format!("darkport_listener_info{{port=\"{port}\",");
    let lines = scrape.series("darkport_listener_info");
    lines
        .filter(|line| line.starts_with(&start))
        .map(str::to_owned)
        .collect()
}

fn one_info(exporter: &Exporter, port: u16) -> String {
    let scrape = exporter.scrape();
    let infos = infos(&scrape, port);
    assert_eq!(infos.len(), 1, "{infos:?}");
    infos[0].clone()
}

fn assert_has(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "no {part} in {text}");
    }
}

fn opened(exporter: &mut Exporter, port: u16) -> String {
    exporter.logged(&["msg=\"listener opened\"", &format!(" port={port} ")])
}

#[test]
#[ignore = "needs root and a network namespace of its own"]
fn root_and_another_user() {
    let (mut exporter, _folder) = exporter("[{user: root, process: python3}]", "");
    let root = Listening::start(&[], "s = listen(101); ready(); wait()");
    let nobody = Listening::start(
        &[
            "setpriv",
            "--ambient-caps=+net_bind_service",
            "--inh-caps=+net_bind_service",
            "--reuid=65534",
            "--",
        ],
        "s = listen(102); ready(); wait()",
    );
    let info = one_info(&exporter, 101);
    assert_has(
        &info,
        &[
            "process=\"python3\"",
            "user=\"root\"",
            "expected=\"true\"",
            "watch=\"all\"",
        ],
    );
    let info = one_info(&exporter, 102);
    assert_has(
        &info,
        &[
            "process=\"python3\"",
            "user=\"nobody\"",
            "expected=\"false\"",
        ],
    );
    let line = opened(&mut exporter, 101);
    assert_has(
        &line,
        &[
            "level=INFO",
            &format!("pid={} ", root.pid),
            "user=root",
            "exe=/",
            "expected=true",
        ],
    );
    let line = opened(&mut exporter, 102);
    assert_has(
        &line,
        &[
            "level=WARN",
            &format!("pid={} ", nobody.pid),
            "user=nobody",
            "expected=false",
        ],
    );
}

#[test]
#[ignore = "needs root and a network namespace of its own"]
fn a_systemd_unit_and_a_docker_container() {
    let id = "4f2a".repeat(16);
    let cases: [(u16, [&[u8]; 2], &str); 2] = [
        (
            111,
            [b"darkport-test.slice", b"darkport-test.service"],
            "darkport-test.service",
        ),
        (112, [b"darkport-docker", id.as_bytes()], &id),
    ];
    let (mut exporter, _folder) = exporter("[]", "");
    for (port, path, unit) in cases {
        let group = Group::make(&path);
        let mut listening = Listening::start(
            &[],
            &format!("ready(); sys.stdin.readline(); s = listen({port}); wait()"),
        );
        group.put(listening.pid);
        listening.go_on();
        let info = wait_for("the listener", || infos(&exporter.scrape(), port).pop());
        assert_has(&info, &[&format!("unit=\"{unit}\"")]);
        assert_has(&opened(&mut exporter, port), &[&format!("unit={unit} ")]);
        drop(listening);
    }
}

#[test]
#[ignore = "needs root, ip and a network namespace of its own"]
fn two_other_network_namespaces() {
    let (mut exporter, _folder) = exporter("[]", "namespaces: all\n");
    let namespaces = ["a", "b"].map(Namespace::new);
    let names = namespaces.each_ref().map(|made| made.name.as_str());
    let _listening = names.map(|name| {
        let wrapper = ["ip", "netns", "exec", name];
        Listening::start(
            &wrapper,
            "s = listen(121, address='0.0.0.0'); ready(); wait()",
        )
    });
    let scrape = exporter.scrape();
    let infos = infos(&scrape, 121);
    assert_eq!(infos.len(), 2, "{infos:?}");
    for name in names {
        let info = infos
            .iter()
            .find(|info| info.contains(&format!("netns=\"{name}\"")));
        assert_has(
            info.expect(name),
            &["process=\"python3\"", "user=\"root\"", "expected=\"false\""],
        );
        exporter.logged(&["listener opened", " port=121 ", &format!("netns={name} ")]);
    }
    let seen = scrape
        .value("darkport_network_namespaces{state=\"seen\"}")
        .unwrap();
    let read = scrape
        .value("darkport_network_namespaces{state=\"read\"}")
        .unwrap();
    assert!(read >= 3.0 && seen >= read, "{read} of {seen}");
    let dark = scrape.of_port(
        "darkport_listening",
        darkport_exporter::port::Port::tcp(121),
    );
    assert_eq!(dark, None, "it is dark here, and this host has not used it");
}

#[test]
#[ignore = "needs root and a network namespace of its own"]
fn after_a_fork_the_oldest_is_the_label_and_all_are_told() {
    let (mut exporter, _folder) = exporter("[]", "");
    let listening = Listening::start(
        &[],
        "s = listen(131)
child = os.fork()
if child == 0: wait()
ready(); wait()",
    );
    assert_has(&one_info(&exporter, 131), &["process=\"python3\""]);
    let line = opened(&mut exporter, 131);
    assert_has(
        &line,
        &[&format!("pid={} ", listening.pid), "also_held_by=python3["],
    );
}

#[test]
#[ignore = "needs root and a network namespace of its own"]
fn after_an_exec_the_label_is_the_new_program() {
    let (mut exporter, _folder) = exporter("[{process: python3}]", "");
    let mut listening = Listening::start(
        &[],
        "s = listen(141); s.set_inheritable(True); ready(); sys.stdin.readline()
os.execvp('sleep', ['sleep', '600'])",
    );
    assert_has(
        &one_info(&exporter, 141),
        &["process=\"python3\"", "expected=\"true\""],
    );
    listening.go_on();
    let info = wait_for("the new program", || {
        infos(&exporter.scrape(), 141)
            .pop()
            .filter(|info| info.contains("process=\"sleep\""))
    });
    assert_has(&info, &["expected=\"false\""]);
    let line = exporter.logged(&["listener changed owner", " port=141 "]);
    assert_has(&line, &["level=WARN", "process=sleep", "expected=false"]);
}

#[test]
#[ignore = "needs root and a network namespace of its own"]
fn four_processes_on_one_port_are_one_series_and_four_events() {
    let (mut exporter, _folder) = exporter("[]", "");
    let listening =
        [(); 4].map(|()| Listening::start(&[], "s = listen(151, reuse=True); ready(); wait()"));
    assert_has(
        &one_info(&exporter, 151),
        &["process=\"python3\"", "user=\"root\""],
    );
    for listening in &listening {
        exporter.logged(&[
            "listener opened",
            " port=151 ",
            &format!("pid={} ", listening.pid),
        ]);
    }
    let port = darkport_exporter::port::Port::tcp(151);
    assert_eq!(
        exporter
            .scrape()
            .of_port("darkport_listener_opened_total", port),
        Some(4.0)
    );
}

#[test]
#[ignore = "needs root and a network namespace of its own"]
fn a_dual_stack_listener_and_an_mptcp_listener() {
    let (mut exporter, _folder) = exporter("[]", "");
    let cases = [
        (
            161,
            "s = listen(161, socket.AF_INET6, '::'); ready(); wait()",
            "::",
        ),
        (
            162,
            "s = listen(162, protocol=262); ready(); wait()",
            "127.0.0.1",
        ),
    ];
    for (port, script, address) in cases {
        let listening = Listening::start(&[], script);
        let info = one_info(&exporter, port);
        assert_has(
            &info,
            &[
                &format!("address=\"{address}\""),
                "process=\"python3\"",
                "user=\"root\"",
            ],
        );
        let line = opened(&mut exporter, port);
        assert_has(
            &line,
            &[
                &format!("address={address} "),
                &format!("pid={} ", listening.pid),
            ],
        );
    }
}

#[test]
#[ignore = "needs root and a network namespace of its own"]
fn a_name_from_outside_is_data() {
    let (mut exporter, _folder) = exporter("[]", "");
    let _listening = Listening::start(
        &[],
        "open('/proc/self/comm', 'wb').write(b'x\"} 1\\n\\x1b[2J\\xff')
s = listen(171); ready(); wait()",
    );
    let info = one_info(&exporter, 171);
    assert!(
        info.ends_with(" 1") && info.contains("process=\"x\\\"} 1\\n"),
        "{info}"
    );
    let line = opened(&mut exporter, 171);
    assert!(
        !line.contains('\u{1b}') && line.contains("process=\"x\\\"} 1\\n"),
        "{line}"
    );
}

#[test]
#[ignore = "needs root and a network namespace of its own"]
fn an_ordinary_user_names_its_own_and_nothing_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("all.yml");
    std::fs::write(
        &file,
        "watch:\n- {name: all, ports: [1-1023], series: active}\n",
    )
    .unwrap();
    let program = folder.path().join("darkport_exporter");
    std::fs::copy(support::program(), &program).unwrap();
    run("chmod", &["-R", "a+rX", folder.path().to_str().unwrap()]);
    let _root = Listening::start(&[], "s = listen(181); ready(); wait()");
    let user = [
        "setpriv",
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        "--inh-caps=-all",
        "--bounding-set=-all",
    ];
    let mut exporter =
        Exporter::start_copy(&program, &user, &["--config.file", file.to_str().unwrap()]);
    let own = exporter.address.port();
    let scrape = exporter.scrape();
    assert_has(
        &infos(&scrape, own)[0],
        &["process=\"darkport_export\"", "user=\"nobody\""],
    );
    assert_has(
        &infos(&scrape, 181)[0],
        &[
            "process=\"\"",
            "user=\"\"",
            "unit=\"\"",
            "expected=\"false\"",
        ],
    );
    assert_eq!(
        scrape.value("darkport_collector_success{collector=\"owners\"}"),
        Some(0.0)
    );
    exporter.logged(&["owners of listeners are unknown", "CAP_SYS_PTRACE"]);
    let _keep: &Running = &exporter.process;
}
