//! What a host lacks for the kernel tier costs the tier, or the part, and never the start; and the log names each missing
//! thing with its cure.
//!
//! Real where it can be: files of /sys are hidden or faked by mounts in a mount namespace of the exporter's own, capabilities
//! are dropped, and the kernel's version is the one that personality(2) has uname(2) tell. The suite runs this as root in a
//! network namespace of its own.
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test's helpers are tests too"
)]

mod support;

use std::process::Command;

use support::{Exporter, ended, program};

/// Commands that take something from whoever is started after them, in a mount namespace of their own.
fn without(steps: &str) -> Vec<&str> {
    // Nothing of it is to be seen outside.
    vec![
        "unshare",
        "--mount",
        "--propagation=private",
        "sh",
        "-ec",
        steps,
        "sh",
    ]
}

const HIDE_TYPES: &str = "mount -t tmpfs none /sys/kernel/btf; exec \"$@\"";

fn fake_lockdown(modes: &str) -> String {
    format!(
        "mount -t tmpfs none /sys/kernel/security; echo '{modes}' >/sys/kernel/security/lockdown; exec \"$@\""
    )
}

/// Starts it through these words, and gives the line that says how it counts.
fn counting(words: &[&str]) -> (Exporter, String) {
    let mut exporter = Exporter::start_through(words, &[]);
    let line = exporter.logged(&["msg=counting"]);
    (exporter, line)
}

/// Starts it through these words with the kernel tier asked for by name: it must end, and say why.
fn refused(words: &[&str]) -> String {
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).arg(program()).args([
        "--web.listen-address=127.0.0.1:0",
        "--collector.tier=kernel",
    ]);
    let (status, _, errors) = ended(&mut command);
    assert_eq!(status, Some(1), "{errors}");
    let line = errors.lines().last().unwrap().to_owned();
    assert!(
        line.starts_with("darkport_exporter: --collector.tier=kernel cannot start: "),
        "{line}"
    );
    line
}

/// What is missing costs the whole tier: the next one counts, the log names what is missing and its cure, and asking for the
/// tier by name is refused with the same words.
fn costs_the_tier(words: &[&str], told: &[&str]) {
    let (exporter, line) = counting(words);
    assert!(line.contains("tier=netlink refused=\"kernel: "), "{line}");
    let last = refused(words);
    for part in told {
        assert!(line.contains(part), "{part} in {line}");
        assert!(last.contains(part), "{part} in {last}");
    }
    let scrape = exporter.scrape();
    assert_eq!(
        scrape.value("darkport_counting_tier{tier=\"netlink\"}"),
        Some(1.0)
    );
    assert_eq!(scrape.series("darkport_inbound_attempts_total").count(), 0);
}

#[test]
#[ignore = "needs root and a network namespace of its own"]
fn without_a_description_of_the_kernels_types() {
    costs_the_tier(
        &without(HIDE_TYPES),
        &[
            "/sys/kernel/btf/vmlinux: No such file",
            "CONFIG_DEBUG_INFO_BTF",
        ],
    );
}

#[test]
#[ignore = "needs root and a network namespace of its own"]
fn locked_down_for_confidentiality() {
    let steps = fake_lockdown("none integrity [confidentiality]");
    costs_the_tier(&without(&steps), &["locked down", "lockdown=integrity"]);
}

/// What this mode forbids, the programs do not do.
#[test]
#[ignore = "needs root and a network namespace of its own"]
fn locked_down_for_integrity_costs_nothing() {
    let steps = fake_lockdown("none [integrity] confidentiality");
    let (mut exporter, line) = counting(&without(&steps));
    assert!(
        line.contains("tier=kernel") && !line.contains("refused"),
        "{line}"
    );
    assert!(
        !exporter
            .log()
            .iter()
            .any(|line| line.contains("level=WARN"))
    );
}

#[test]
#[ignore = "needs root and a network namespace of its own"]
fn without_the_capabilities_that_every_part_needs() {
    for (kept, named) in [
        ("-bpf,-sys_admin", "CAP_BPF, which"),
        ("-perfmon,-sys_admin", "CAP_PERFMON, which"),
        ("-all", "CAP_BPF, CAP_PERFMON, which"),
    ] {
        let bounding = format!("--bounding-set={kept}");
        let inheritable = format!("--inh-caps={kept}");
        costs_the_tier(
            &["setpriv", &inheritable, &bounding],
            &[named, "AmbientCapabilities="],
        );
    }
}

/// The rest stands. (CAP_SYS_ADMIN stands in for CAP_NET_ADMIN here.)
#[test]
#[ignore = "needs root and a network namespace of its own"]
fn without_the_capability_that_one_part_needs() {
    let (mut exporter, line) = counting(&[
        "setpriv",
        "--inh-caps=-net_admin,-sys_admin",
        "--bounding-set=-net_admin,-sys_admin",
    ]);
    assert!(
        line.contains("tier=kernel") && !line.contains("refused"),
        "{line}"
    );
    exporter.logged(&[
        "level=WARN",
        "a part of the kernel tier is not available",
        "UDP listeners opened not counted",
        "grant CAP_NET_ADMIN",
    ]);
    let scrape = exporter.scrape();
    let of = |port: &str, protocol: &str| {
        scrape.value(&format!(
            "darkport_listener_opened_total{{port=\"{port}\",protocol=\"{protocol}\"}}"
        ))
    };
    assert_eq!((of("561", "tcp"), of("561", "udp")), (Some(0.0), None));
    assert!(scrape.series("darkport_inbound_attempts_total").count() > 0);
}

/// With the personality UNAME26 the kernel calls itself 2.6.
#[test]
#[ignore = "needs root and a network namespace of its own"]
fn on_a_kernel_without_ring_buffers() {
    costs_the_tier(&["setarch", "--uname-2.6"], &["ring buffers", "Linux 5.8"]);
}

/// Who repairs one thing is not to find the next one only then.
#[test]
#[ignore = "needs root and a network namespace of its own"]
fn everything_that_is_missing_is_named_at_once() {
    let mut words = without(HIDE_TYPES);
    words.extend([
        "setpriv",
        "--inh-caps=-bpf,-sys_admin",
        "--bounding-set=-bpf,-sys_admin",
    ]);
    costs_the_tier(
        &words,
        &["CAP_BPF, which", ", and /sys/kernel/btf/vmlinux: "],
    );
}

/// Both better tiers are refused: the third counts, and the log says why neither of the others does.
#[test]
#[ignore = "needs root and a network namespace of its own"]
fn every_tier_that_is_refused_is_named() {
    const SCRIPT: &str = include_str!("support/without_netlink.py");
    let mut words = without(HIDE_TYPES);
    words.extend(["python3", "-c", SCRIPT, "any"]);
    let (exporter, line) = counting(&words);
    for part in [
        "tier=polled refused=\"kernel: ",
        "/sys/kernel/btf/vmlinux: ",
        "; netlink: it needs the socket table from netlink, which is not available",
    ] {
        assert!(line.contains(part), "{part} in {line}");
    }
    let scrape = exporter.scrape();
    assert_eq!(
        scrape.value("darkport_counting_tier{tier=\"polled\"}"),
        Some(1.0)
    );
}

/// Nobody reads the ring for a while: what could not be taken in is told in the log.
#[test]
#[ignore = "needs root and a network namespace of its own"]
fn listener_events_that_are_lost_are_told_in_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("darkport.yml");
    std::fs::write(&file, "watch:\n- {name: npmp, ports: [609]}\n").unwrap();
    let mut exporter = Exporter::start(&[
        "--collector.tier=kernel",
        "--config.file",
        file.to_str().unwrap(),
    ]);
    assert!(!exporter.log().iter().any(|line| line.contains(" lost=")));
    exporter.process.signal("STOP");
    const OPENED: u32 = 3000;
    for _ in 0..OPENED {
        drop(std::net::TcpListener::bind("127.0.0.1:609").unwrap());
    }
    exporter.process.signal("CONT");
    let scrape = exporter.scrape();
    assert_eq!(
        scrape.value("darkport_listener_opened_total{port=\"609\",protocol=\"tcp\"}"),
        Some(f64::from(OPENED)),
        "no count is lost"
    );
    let lost = scrape
        .value("darkport_events_lost_total{source=\"kernel\"}")
        .unwrap();
    assert!(lost > 0.0);
    exporter.logged(&[
        "level=WARN",
        &format!(" lost={lost} in_all={lost}"),
        "could be taken in",
    ]);
}
