//! The kernel tier in the program: what its scrape and its log say, and what privileges are left.
//!
//! The suite runs this as root in a network namespace of its own.

#![cfg(target_os = "linux")]

mod support;

use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};

use darkport_exporter::port::Port;
use support::{Exporter, wait_for};

fn exporter(more: &[&str]) -> (Exporter, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("darkport.yml");
    std::fs::write(&file, "watch:\n- {name: npmp, ports: [609-611]}\n").unwrap();
    let mut arguments = vec![
        "--collector.tier=kernel",
        "--config.file",
        file.to_str().unwrap(),
    ];
    arguments.extend(more);
    (Exporter::start(&arguments), folder)
}

#[test]
#[ignore = "needs root and a network namespace of its own"]
fn attempts_refusals_and_brief_listeners_are_counted_told_and_audited() {
    let (mut exporter, _folder) = exporter(&[]);
    let (tcp, udp, lit) = (Port::tcp(609), Port::udp(610), Port::tcp(611));
    let before = exporter.scrape();
    assert_eq!(
        before.value("darkport_counting_tier{tier=\"kernel\"}"),
        Some(1.0)
    );
    assert_eq!(
        before.value("darkport_collector_success{collector=\"kernel\"}"),
        Some(1.0)
    );
    for port in [tcp, udp] {
        assert_eq!(
            before.of_port("darkport_inbound_attempts_total", port),
            Some(0.0)
        );
        assert_eq!(
            before.of_port("darkport_last_attempt_timestamp_seconds", port),
            Some(0.0)
        );
    }
    for _ in 0..30 {
        TcpStream::connect((Ipv4Addr::LOCALHOST, 609)).unwrap_err();
    }
    let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
    for _ in 0..20 {
        // A refusal of the one before may be told at the next one.
        let _ = sender.send_to(b"knock", (Ipv4Addr::LOCALHOST, 610));
    }
    for _ in 0..10 {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 611)).unwrap();
        let client = TcpStream::connect((Ipv4Addr::LOCALHOST, 611)).unwrap();
        drop((listener.accept().unwrap(), client));
    }
    let after = wait_for("the last connection to be counted", || {
        let scrape = exporter.scrape();
        (scrape.of_port("darkport_inbound_accepted_total", lit) == Some(10.0)).then_some(scrape)
    });
    for (family, port, value) in [
        ("darkport_inbound_attempts_total", tcp, 30.0),
        ("darkport_inbound_refused_total", tcp, 30.0),
        ("darkport_outbound_failures_total", tcp, 30.0),
        ("darkport_inbound_attempts_total", udp, 20.0),
        ("darkport_inbound_refused_total", udp, 20.0),
        ("darkport_inbound_filtered_total", udp, 0.0),
        ("darkport_listener_opened_total", lit, 10.0),
        ("darkport_outbound_connections_total", lit, 10.0),
        ("darkport_connections", lit, 0.0),
    ] {
        assert_eq!(
            after.of_port(family, port),
            Some(value),
            "{family} of {port}"
        );
    }
    let knocks = |protocol: &str| {
        after.value(&format!(
            "darkport_space_knocks_total{{protocol=\"{protocol}\",range=\"well_known\",assignment=\"assigned\"}}"
        ))
    };
    assert_eq!((knocks("tcp"), knocks("udp")), (Some(30.0), Some(20.0)));
    for what in ["passive_opens", "udp_no_ports"] {
        let of =
            |side: &str| after.value(&format!("darkport_audit_{side}_total{{what=\"{what}\"}}"));
        assert_eq!(of("counted"), of("host"), "{what}");
        assert!(of("host") >= Some(10.0), "{what}");
    }
    // Knocks gave a port a time, and no series.
    assert_eq!(
        after
            .series("darkport_last_attempt_timestamp_seconds")
            .count(),
        6
    );
    assert!(after.of_port("darkport_last_attempt_timestamp_seconds", tcp) > Some(1e9));
    let pid = format!("pid={} ", std::process::id());
    let name = std::fs::read_to_string("/proc/self/comm").unwrap();
    let process = format!("process={} ", name.trim_end());
    exporter.logged(&[
        "level=WARN",
        "listener came and went",
        " port=611 ",
        &pid,
        &process,
        "user=root",
    ]);
}

#[test]
#[ignore = "needs root and a network namespace of its own"]
fn without_the_tap_attempts_are_absent_and_all_else_stands() {
    let (exporter, _folder) = exporter(&["--collector.tap=off"]);
    TcpStream::connect((Ipv4Addr::LOCALHOST, 609)).unwrap_err();
    let scrape = exporter.scrape();
    for family in [
        "darkport_inbound_attempts_total",
        "darkport_last_attempt_timestamp_seconds",
    ] {
        assert_eq!(scrape.series(family).count(), 0, "{family}");
    }
    assert_eq!(
        scrape.of_port("darkport_inbound_refused_total", Port::tcp(609)),
        Some(1.0)
    );
}

/// A control group of version 2; goes when dropped.
struct Group(std::path::PathBuf);

impl Group {
    fn new() -> Self {
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
        let mounted = mounts.lines().find_map(|line| {
            let mut fields = line.split(' ').skip(1);
            let path = fields.next()?;
            (fields.next()? == "cgroup2").then_some(path)
        });
        let mounted = mounted.expect("control groups of version 2 are needed and not mounted");
        let group = Self(format!("{mounted}/darkport-{}", std::process::id()).into());
        std::fs::create_dir(&group.0).unwrap();
        group
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.0);
    }
}

/// Joins a control group, becomes another user, takes a name, and listens for a moment, TCP and UDP.
const FLASH: &str = "import os, socket, sys
group, name, port = sys.argv[1:]
open(group + '/cgroup.procs', 'w').write(str(os.getpid()))
open('/proc/self/comm', 'w').write(name)
os.setuid(12345)
tcp = socket.socket(); tcp.bind(('127.0.0.1', int(port))); tcp.listen(); tcp.close()
udp = socket.socket(type=socket.SOCK_DGRAM); udp.bind(('127.0.0.1', int(port))); udp.close()
";

/// The process is gone before anybody asks; what it is called does nothing to the terminal.
#[test]
#[ignore = "needs root and a network namespace of its own"]
fn lookup_names_who_listened_for_a_moment() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("darkport.yml");
    std::fs::write(&file, "watch:\n- {name: fossils, ports: [3476, 3477]}\n").unwrap();
    let mut exporter = Exporter::start(&[
        "--collector.tier=kernel",
        "--config.file",
        file.to_str().unwrap(),
    ]);
    let group = Group::new();
    for (port, name) in [("3476", "flashd"), ("3477", "x\u{1b}[31m\ny=\"\u{7}")] {
        let mut flash = std::process::Command::new("/usr/bin/python3");
        flash.args(["-c", FLASH]).arg(&group.0).args([name, port]);
        let mut flash = support::Running::start(&mut flash);
        let pid = flash.pid();
        assert!(flash.ended().success());
        let look_up = |form: &str| {
            let mut command = std::process::Command::new(support::program());
            command.args(["lookup", port, "--output", form, "--exporter.url"]);
            let (status, answer, errors) =
                support::ended(command.arg(format!("http://{}", exporter.address)));
            assert_eq!((status, errors.as_str()), (Some(0), ""));
            answer
        };
        let answer: serde_json::Value = wait_for("both listeners to be told", || {
            let answer: serde_json::Value = serde_json::from_str(&look_up("json")).unwrap();
            let told = |index: usize| answer["ports"][index].get("last_event").is_some();
            (told(0) && told(1)).then_some(answer)
        });
        for index in [0, 1] {
            let event = &answer["ports"][index]["last_event"];
            assert_eq!(event["event"], "came_and_went", "{event}");
            assert_eq!(event["process"], name);
            assert_eq!(event["pid"], pid);
            assert_eq!(event["uid"], 12345);
            assert_eq!(event["user"], "12345");
            let path = format!("/darkport-{}", std::process::id());
            assert_eq!(event["cgroup"], path.as_str());
            assert_eq!(event["address"], "127.0.0.1");
            assert!(
                event["opened_at"].as_f64() <= event["at"].as_f64()
                    && event["at"].as_f64() > Some(1e9)
            );
        }
        let table = look_up("table");
        let rows: Vec<_> = table
            .lines()
            .filter(|line| line.contains("last event: "))
            .collect();
        assert_eq!(rows.len(), 2, "{table}");
        for row in rows {
            let shown = if name == "flashd" {
                "process=flashd "
            } else {
                "process=\"x\\u{1b}[31m\\ny=\\\"\\u{7}\" "
            };
            for part in [
                "listener came and went 20",
                shown,
                " uid=12345 ",
                " cgroup=/darkport-",
            ] {
                assert!(row.contains(part), "{part} in {row}");
            }
        }
        assert!(
            !table.chars().any(|c| c.is_control() && c != '\n'),
            "{table:?}"
        );
        exporter.logged(&[
            "came and went",
            &format!(" port={port} protocol=udp "),
            &format!(" pid={pid} "),
        ]);
        exporter.logged(&[
            "came and went",
            &format!(" port={port} protocol=tcp "),
            &format!(" pid={pid} "),
        ]);
    }
}

/// The capability sets of every thread, as numbers.
fn capabilities(pid: u32) -> Vec<(String, u64)> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let mut sets = Vec::new();
    for task in tasks {
        let status = std::fs::read_to_string(task.unwrap().path().join("status")).unwrap();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap().trim().to_owned()
        };
        assert_eq!(field("NoNewPrivs:"), "1", "{}", field("Name:"));
        for set in ["CapEff:", "CapPrm:", "CapInh:", "CapAmb:"] {
            sets.push((
                field("Name:"),
                u64::from_str_radix(&field(set), 16).unwrap(),
            ));
        }
    }
    sets
}

#[test]
#[ignore = "needs root and a network namespace of its own"]
fn once_attached_no_thread_keeps_more_than_owners_need() {
    // capabilities(7): CAP_DAC_READ_SEARCH is 2, CAP_SYS_PTRACE 19, CAP_SYS_ADMIN 21.
    const FOR_OWNERS: u64 = 1 << 2 | 1 << 19;
    const FOR_NAMESPACES: u64 = FOR_OWNERS | 1 << 21;
    let (mut exporter, folder) = exporter(&[]);
    exporter.scrape();
    let threads = capabilities(exporter.process.pid());
    assert!(threads.len() >= 4 * 4, "{threads:?}");
    for (name, set) in threads {
        assert_eq!(set & !FOR_OWNERS, 0, "{name} holds {set:x}");
    }
    let line = exporter.logged(&["capabilities given up"]);
    assert!(
        line.contains("CAP_BPF") && line.ends_with("kept=\"CAP_DAC_READ_SEARCH CAP_SYS_PTRACE\""),
        "{line}"
    );
    drop(exporter);

    let file = folder.path().join("darkport.yml");
    std::fs::write(&file, "watch: []\nnamespaces: all\n").unwrap();
    let exporter = Exporter::start(&["--config.file", file.to_str().unwrap()]);
    exporter.scrape();
    for (name, set) in capabilities(exporter.process.pid()) {
        let allowed = if name == "namespaces" {
            FOR_NAMESPACES
        } else {
            FOR_OWNERS
        };
        assert_eq!(set & !allowed, 0, "{name} holds {set:x}");
    }
}

/// As a container image has it: a file whose capabilities the program puts into effect itself, run by an ordinary user.
#[test]
#[ignore = "needs root and a network namespace of its own"]
fn capabilities_of_the_file_are_taken_up_and_those_that_are_missing_keep_nobody_from_starting() {
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("darkport_exporter");
    std::fs::copy(support::program(), &copy).unwrap();
    for path in [folder.path(), &copy] {
        let all = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(path, all).unwrap();
    }
    // capabilities(7) and linux/capability.h: revision 2, nothing in effect; permitted and inheritable, low and high halves.
    // CAP_DAC_READ_SEARCH 2, CAP_NET_ADMIN 12, CAP_SYS_PTRACE 19; CAP_PERFMON 38, CAP_BPF 39.
    let low: u32 = 1 << 2 | 1 << 12 | 1 << 19;
    let high: u32 = 1 << (38 - 32) | 1 << (39 - 32);
    let attribute: Vec<u8> = [0x0200_0000, low, 0, high, 0]
        .iter()
        .flat_map(|word: &u32| word.to_le_bytes())
        .collect();
    rustix::fs::setxattr(
        &copy,
        "security.capability",
        &attribute,
        rustix::fs::XattrFlags::empty(),
    )
    .unwrap();
    let user = [
        "setpriv",
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
    ];
    let tier = |exporter: &Exporter, tier| {
        let scrape = exporter.scrape();
        scrape.value(&format!("darkport_counting_tier{{tier=\"{tier}\"}}"))
    };

    let exporter = Exporter::start_copy(&copy, &user, &[]);
    assert_eq!(tier(&exporter, "kernel"), Some(1.0));
    assert_eq!(
        exporter
            .scrape()
            .value("darkport_collector_success{collector=\"owners\"}"),
        Some(1.0)
    );
    drop(exporter);

    let fewer = [&user[..], &["--bounding-set=-bpf,-perfmon"]].concat();
    let mut exporter = Exporter::start_copy(&copy, &fewer, &[]);
    assert_eq!(tier(&exporter, "netlink"), Some(1.0));
    exporter.logged(&["counting", "tier=netlink", "CAP_BPF, CAP_PERFMON"]);
}
