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
