//! What a probe sends, and to whom, counted where it arrives: in network namespaces of their own.
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test's helpers are tests too"
)]

mod support;

use std::collections::HashMap;
use std::net::{Ipv4Addr, UdpSocket};
use std::sync::{Arc, Mutex};
use std::thread;

use support::spaces::{Pair, Space, V4};

/// The kernel's own token bucket counts what is beyond the rate: no clock of the test's is asked.
#[test]
#[ignore = "needs root and nftables"]
fn many_probes_together_stay_below_the_rates() {
    let pair = Pair::new();
    pair.host.address("v0", "10.9.0.3/24");
    pair.host.firewall(
        "table inet test {
          counter asked { }
          counter beyond_all { }
          counter beyond_slow { }
          chain input { type filter hook input priority 0;
            tcp flags & (syn | ack) == syn counter name asked
            tcp flags & (syn | ack) == syn limit rate over 500/second burst 50 packets counter name beyond_all
            tcp dport 3001-3150 tcp flags & (syn | ack) == syn limit rate over 100/second burst 30 packets counter name beyond_slow
          }
        }",
    );
    let exporter = pair.asker.exporter(
        &[],
        "{targets: [10.9.0.0/29], modules: {one: {ports: [1001-1300], rate: 500}, \
         other: {ports: [2001-2300], rate: 500}, slow: {ports: [3001-3150], rate: 100}}}",
    );
    thread::scope(|scope| {
        for target in [V4, "10.9.0.3"] {
            for module in ["one", "other", "slow"] {
                let exporter = &exporter;
                scope.spawn(move || {
                    let (_, answer) = exporter.probe(target, module, "60");
                    assert_eq!(
                        answer.value("probe_success"),
                        Some(1.0),
                        "{target} {module}"
                    );
                });
            }
        }
    });
    let counted = ["asked", "beyond_all", "beyond_slow"].map(|name| pair.host.counted(name));
    assert_eq!(counted, [2 * (300 + 300 + 150), 0, 0]);
}

#[test]
#[ignore = "needs root and nftables"]
fn what_the_system_sends_again_counts_against_the_rate() {
    const PORTS: u64 = 450;
    let pair = Pair::new();
    pair.host.firewall(
        "table inet test {
          counter asked { }
          counter beyond { }
          chain input { type filter hook input priority 0;
            tcp flags syn counter name asked
            tcp flags syn limit rate over 300/second burst 50 packets counter name beyond
            tcp flags syn drop
          }
        }",
    );
    let exporter = pair.asker.exporter(
        &[],
        "{targets: [10.9.0.2], modules: {silent: {ports: [1001-1450], rate: 300, timeout: 1500ms, retries: 0, \
         concurrency: 4096}}}",
    );
    let (_, answer) = exporter.probe(V4, "silent", "60");
    assert_eq!(
        answer.value("darkport_probe_ports{protocol=\"tcp\",state=\"filtered\"}"),
        Some(PORTS as f64)
    );
    let [asked, beyond] = ["asked", "beyond"].map(|name| pair.host.counted(name));
    assert!(asked > PORTS, "{asked}: the system sends some again");
    assert_eq!(beyond, 0, "of {asked}");
}

/// Of two questions a second, a run that wants many takes those that it asks, and no others.
#[test]
#[ignore = "needs root"]
fn a_run_that_was_cut_off_leaves_the_rate_to_the_next() {
    let pair = Pair::new();
    let exporter = pair.asker.exporter(
        &[],
        "{targets: [10.9.0.2], modules: {slow: {ports: [1001-1400], rate: 2}}}",
    );
    for seconds in ["0.2", "3"] {
        let (_, answer) = exporter.probe(V4, "slow", seconds);
        assert_eq!(answer.value("probe_success"), Some(0.0));
        let first = "darkport_probe_open{port=\"1001\",protocol=\"tcp\"}";
        assert_eq!(answer.value(first), Some(0.0), "in {seconds} s");
    }
}

/// A name server on the loopback address of a namespace.
struct NameServer {
    asked: Arc<Mutex<HashMap<String, usize>>>,
}

impl NameServer {
    /// `answer` is given a name, and how often its IPv4 addresses were asked for before.
    fn start(
        space: &Space,
        answer: impl Fn(&str, usize) -> Vec<Ipv4Addr> + Send + 'static,
    ) -> Self {
        let socket = space.bind("127.0.0.1:53");
        let asked = Arc::new(Mutex::new(HashMap::new()));
        let counts = Arc::clone(&asked);
        thread::spawn(move || serve(&socket, &counts, answer));
        Self { asked }
    }

    /// How often the IPv4 addresses of a name were asked for.
    fn asked(&self, name: &str) -> usize {
        self.asked.lock().unwrap().get(name).copied().unwrap_or(0)
    }
}

/// Answers questions as RFC 1035 has it.
fn serve(
    socket: &UdpSocket,
    counts: &Mutex<HashMap<String, usize>>,
    answer: impl Fn(&str, usize) -> Vec<Ipv4Addr>,
) {
    const HEADER: usize = 12;
    let mut buffer = [0; 512];
    while let Ok((length, from)) = socket.recv_from(&mut buffer) {
        let mut labels = Vec::new();
        let mut at = HEADER;
        while buffer[at] > 0 {
            let end = at + 1 + usize::from(buffer[at]);
            labels.push(String::from_utf8_lossy(&buffer[at + 1..end]).into_owned());
            at = end;
        }
        let is_of_ipv4 = buffer[at + 1..at + 3] == [0, 1];
        let question = &buffer[HEADER..(at + 5).min(length)];
        let name = labels.join(".").to_lowercase();
        let addresses = if is_of_ipv4 {
            let mut counts = counts.lock().unwrap();
            let count = counts.entry(name.clone()).or_default();
            *count += 1;
            answer(&name, *count - 1)
        } else {
            Vec::new()
        };
        // Its identity; an answer, recursion wanted and there; one question, so many answers, nothing else.
        let count = u8::try_from(addresses.len()).unwrap();
        let mut reply = buffer[..2].to_vec();
        reply.extend([0x81, 0x80, 0, 1, 0, count, 0, 0, 0, 0]);
        reply.extend(question);
        for address in addresses {
            // The name of the question; A, IN, to be kept no time, four octets.
            reply.extend([0xc0, 0x0c, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4]);
            reply.extend(address.octets());
        }
        socket.send_to(&reply, from).unwrap();
    }
}

const ALLOWED: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);
const FORBIDDEN: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 3);

#[test]
#[ignore = "needs root and nftables"]
fn the_addresses_that_were_checked_are_the_ones_that_are_asked() {
    let pair = Pair::new();
    pair.host.address("v0", "10.9.0.3/24");
    pair.host.firewall(
        "table inet test {
          counter allowed { }
          counter forbidden { }
          chain input { type filter hook input priority 0;
            ip daddr 10.9.0.2 counter name allowed
            ip daddr 10.9.0.3 counter name forbidden
            tcp dport 1002 drop
          }
        }",
    );
    let _open = [
        pair.host.listen("10.9.0.2:1001"),
        pair.host.listen("10.9.0.3:1001"),
    ];
    let names = NameServer::start(&pair.asker, |name, before| match (name, before) {
        ("both.example", _) => vec![ALLOWED, FORBIDDEN],
        ("moves.example", 0) => vec![ALLOWED],
        ("moves.example", _) => vec![FORBIDDEN],
        _ => Vec::new(),
    });
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let servers = file("resolv.conf", "nameserver 127.0.0.1\n");
    let order = file("nsswitch.conf", "hosts: dns\n");
    let script = "mount --bind \"$0\" /etc/resolv.conf && mount --bind \"$1\" /etc/nsswitch.conf && shift && exec \"$@\"";
    let exporter = pair.asker.exporter(
        &["unshare", "--mount", "sh", "-c", script, &servers, &order],
        "{targets: [10.9.0.2], modules: {one: {ports: [1001-1002], timeout: 50ms, retries: 3}}}",
    );
    let arrived = || ["allowed", "forbidden"].map(|name| pair.host.counted(name));
    let refused = |name: &str| {
        let (status, text) = exporter.probe(name, "one", "30");
        assert!(
            status == 403 && text.0.contains("10.9.0.3 is not in probe.targets"),
            "{name}: {status} {text:?}"
        );
    };

    refused("both.example");
    assert_eq!(arrived(), [0, 0], "not even the other address was asked");

    // A silent port is asked again and again, while the name points elsewhere already.
    let (status, found) = exporter.probe("moves.example", "one", "30");
    assert_eq!(
        (status, found.value("probe_success")),
        (200, Some(1.0)),
        "{found:?}"
    );
    assert_eq!(
        found.value("darkport_probe_open{port=\"1001\",protocol=\"tcp\"}"),
        Some(1.0)
    );
    assert_eq!(names.asked("moves.example"), 1, "a name is resolved once");
    let [allowed, forbidden] = arrived();
    assert!(allowed > 4 && forbidden == 0, "{allowed} {forbidden}");

    refused("moves.example");
    assert_eq!(names.asked("moves.example"), 2);
    assert_eq!(arrived(), [allowed, 0]);
}

/// All of it would take more than three minutes, which is longer than a test waits for an answer.
#[test]
#[ignore = "needs root"]
fn a_host_that_goes_away_costs_no_more_than_the_scrapes_time() {
    let pair = Pair::new();
    let first = pair.host.listen("10.9.0.2:1001");
    let exporter = pair.asker.exporter(
        &[],
        "{targets: [10.9.0.2], modules: {gone: {ports: [1001-1400], rate: 2, timeout: 200ms}}}",
    );
    let (status, answer) = thread::scope(|scope| {
        let asking = scope.spawn(|| exporter.probe(V4, "gone", "3"));
        first.accept().unwrap();
        pair.host.ip("link set v0 down");
        asking.join().unwrap()
    });
    assert_eq!((status, answer.value("probe_success")), (200, Some(0.0)));
    let open = |port: u16| {
        answer.value(&format!(
            "darkport_probe_open{{port=\"{port}\",protocol=\"tcp\"}}"
        ))
    };
    assert_eq!(open(1001), Some(1.0), "what was found out stays");
    assert_eq!(open(1400), None, "what was not is absent");
    let counted: f64 = ["open", "closed", "filtered"]
        .map(|state| {
            let series = format!("darkport_probe_ports{{protocol=\"tcp\",state=\"{state}\"}}");
            answer.value(&series).unwrap()
        })
        .iter()
        .sum();
    let told = answer.series("darkport_probe_port_state").count();
    assert_eq!(counted, told as f64);
    assert!(told < 400, "{told}");
}
