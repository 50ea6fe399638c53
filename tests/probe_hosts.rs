//! The outside view of hosts made of network namespaces, held against what nmap says of the same ports.
//!
//! Each test has namespaces of its own: one that asks, one that is asked, and a third behind it where need be. Nothing
//! leaves them.
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test's helpers are tests too"
)]

mod support;

use std::collections::BTreeMap;
use std::net::{IpAddr, UdpSocket};
use std::process::{Output, Stdio};
use std::thread;

use serde_json::Value;
use support::program;
use support::spaces::{Pair, Space, V4, V6};

impl Pair {
    /// States by port, ours and nmap's, which must be the same.
    fn compare(&self, target: &str, ports: &str, is_udp: bool) -> BTreeMap<u16, (String, String)> {
        self.compare_with(target, ports, is_udp, &[])
    }

    /// The same, with nmap told more.
    fn compare_with(
        &self,
        target: &str,
        ports: &str,
        is_udp: bool,
        told: &[&str],
    ) -> BTreeMap<u16, (String, String)> {
        let mut arguments = vec![target, "--ports", ports];
        if is_udp {
            arguments.push("--udp");
        }
        let (json, _) = self.asker.probe(&arguments);
        let ours = found(&json);
        let theirs = self.nmap(target, ports, is_udp, told);
        for (port, (state, reason)) in &ours {
            assert_eq!(
                Some(state),
                theirs.get(port),
                "port {port} of {target}, by us ({reason}) and by nmap"
            );
        }
        assert_eq!(ours.len(), theirs.len());
        ours
    }

    fn nmap(
        &self,
        target: &str,
        ports: &str,
        is_udp: bool,
        told: &[&str],
    ) -> BTreeMap<u16, String> {
        let mut arguments = vec!["-n", "-Pn", "-dd", "-oX", "-", "-p", ports];
        arguments.push(if is_udp { "-sU" } else { "-sS" });
        arguments.extend(told);
        if target.parse::<IpAddr>().unwrap().is_ipv6() {
            arguments.push("-6");
        }
        arguments.push(target);
        let output = self
            .asker
            .command("nmap")
            .args(&arguments)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{text}");
        let value = |text: &str, key: &str| {
            let rest = text.split_once(&format!("{key}=\"")).unwrap().1;
            rest.split_once('"').unwrap().0.to_owned()
        };
        text.split("<port ")
            .skip(1)
            .map(|port| {
                let state =
                    value(port, "<state state").replace("open|filtered", "open_or_filtered");
                (value(port, "portid").parse().unwrap(), state)
            })
            .collect()
    }
}

/// State and reason by port, of the one address.
fn found(json: &Value) -> BTreeMap<u16, (String, String)> {
    let addresses = json["addresses"].as_array().unwrap();
    assert_eq!(addresses.len(), 1, "{json}");
    let word = |value: &Value| value.as_str().unwrap_or("none").to_owned();
    addresses[0]["ports"]
        .as_array()
        .unwrap()
        .iter()
        .map(|port| {
            let number = u16::try_from(port["port"].as_u64().unwrap()).unwrap();
            (number, (word(&port["state"]), word(&port["reason"])))
        })
        .collect()
}

fn expect(found: &BTreeMap<u16, (String, String)>, expected: &[(u16, &str, &str)]) {
    for &(port, state, reason) in expected {
        let (its_state, its_reason) = &found[&port];
        assert_eq!(
            (its_state.as_str(), its_reason.as_str()),
            (state, reason),
            "port {port}"
        );
    }
    assert_eq!(found.len(), expected.len());
}

/// Has a service answer every datagram.
fn echo(service: UdpSocket) {
    thread::spawn(move || {
        while let Ok((_, from)) = service.recv_from(&mut [0; 64]) {
            let _ = service.send_to(b"here", from);
        }
    });
}

/// Has a host not limit its ICMP messages, which another test is about.
fn answer_freely(host: &Space) {
    host.within(|| {
        for limit in ["ipv4/icmp_ratelimit", "ipv6/icmp/ratelimit"] {
            std::fs::write(format!("/proc/sys/net/{limit}"), "0").unwrap();
        }
    });
}

#[test]
#[ignore = "needs root, nmap and nftables"]
fn every_state_of_tcp_is_what_nmap_says() {
    let pair = Pair::new();
    pair.host.firewall(
        "table inet test { chain input { type filter hook input priority 0;
            tcp dport 1003 drop
            tcp dport 1004 reject with tcp reset
            meta nfproto ipv4 tcp dport vmap { 1005 : jump p3, 1006 : jump p1, 1007 : jump p0, 1008 : jump p2,
                1009 : jump p9, 1010 : jump p10, 1011 : jump p13 }
            meta nfproto ipv6 tcp dport vmap { 1005 : jump s4, 1006 : jump s3, 1007 : jump s0, 1008 : jump s1 }
          }
          chain p0 { reject with icmp type net-unreachable
          }
          chain p1 { reject with icmp type host-unreachable
          }
          chain p2 { reject with icmp type prot-unreachable
          }
          chain p3 { reject with icmp type port-unreachable
          }
          chain p9 { reject with icmp type net-prohibited
          }
          chain p10 { reject with icmp type host-prohibited
          }
          chain p13 { reject with icmp type admin-prohibited
          }
          chain s0 { reject with icmpv6 type no-route
          }
          chain s1 { reject with icmpv6 type admin-prohibited
          }
          chain s3 { reject with icmpv6 type addr-unreachable
          }
          chain s4 { reject with icmpv6 type port-unreachable
          }
        }",
    );
    answer_freely(&pair.host);
    let _open = [
        pair.host.listen("10.9.0.2:1001"),
        pair.host.listen("[fd09::2]:1001"),
    ];
    let states = pair.compare(V4, "1001-1011", false);
    expect(
        &states,
        &[
            (1001, "open", "syn_ack"),
            (1002, "closed", "reset"),
            (1003, "filtered", "no_response"),
            (1004, "closed", "reset"),
            (1005, "filtered", "port_unreachable"),
            (1006, "filtered", "host_unreachable"),
            (1007, "filtered", "net_unreachable"),
            (1008, "filtered", "protocol_unreachable"),
            (1009, "filtered", "net_prohibited"),
            (1010, "filtered", "host_prohibited"),
            (1011, "filtered", "admin_prohibited"),
        ],
    );
    let states = pair.compare(V6, "1001-1008", false);
    expect(
        &states,
        &[
            (1001, "open", "syn_ack"),
            (1002, "closed", "reset"),
            (1003, "filtered", "no_response"),
            (1004, "closed", "reset"),
            (1005, "filtered", "port_unreachable"),
            (1006, "filtered", "host_unreachable"),
            (1007, "filtered", "net_unreachable"),
            (1008, "filtered", "admin_prohibited"),
        ],
    );
}

#[test]
#[ignore = "needs root, nmap and nftables"]
fn every_state_of_udp_is_what_nmap_says() {
    let pair = Pair::new();
    pair.host.firewall(
        "table inet test { chain input { type filter hook input priority 0;
            udp dport 41003 drop
            udp dport 41004 reject
            meta nfproto ipv4 udp dport vmap { 41006 : jump p13, 41007 : jump p1, 41008 : jump p0, 41009 : jump p2,
                41010 : jump p9, 41011 : jump p10 }
            meta nfproto ipv6 udp dport vmap { 41006 : jump s1, 41007 : jump s3, 41008 : jump s0 }
          }
          chain p0 { reject with icmp type net-unreachable
          }
          chain p1 { reject with icmp type host-unreachable
          }
          chain p2 { reject with icmp type prot-unreachable
          }
          chain p9 { reject with icmp type net-prohibited
          }
          chain p10 { reject with icmp type host-prohibited
          }
          chain p13 { reject with icmp type admin-prohibited
          }
          chain s0 { reject with icmpv6 type no-route
          }
          chain s1 { reject with icmpv6 type admin-prohibited
          }
          chain s3 { reject with icmpv6 type addr-unreachable
          }
        }",
    );
    answer_freely(&pair.host);
    let mut silent = Vec::new();
    for address in ["10.9.0.2", "[fd09::2]"] {
        silent.push(pair.host.bind(&format!("{address}:41005")));
        echo(pair.host.bind(&format!("{address}:41001")));
    }
    let common = [
        (41001, "open", "udp_response"),
        (41002, "closed", "port_unreachable"),
        (41003, "open_or_filtered", "no_response"),
        (41004, "closed", "port_unreachable"),
        (41005, "open_or_filtered", "no_response"),
        (41006, "filtered", "admin_prohibited"),
        (41007, "filtered", "host_unreachable"),
        (41008, "filtered", "net_unreachable"),
    ];
    let of_ipv4 = [
        (41009, "filtered", "protocol_unreachable"),
        (41010, "filtered", "net_prohibited"),
        (41011, "filtered", "host_prohibited"),
    ];
    let states = pair.compare(V4, "41001-41011", true);
    expect(&states, &[&common[..], &of_ipv4].concat());
    let states = pair.compare(V6, "41001-41008", true);
    expect(&states, &common);
}

/// Linux answers a peer six times and then once a second.
#[test]
#[ignore = "needs root, nmap and nftables"]
fn udp_ports_of_a_host_that_limits_its_answers_are_closed_all_the_same() {
    let pair = Pair::new();
    let _silent = pair.host.bind("10.9.0.2:42010");
    pair.host.firewall(
        "table inet test { chain input { type filter hook input priority 0;
            udp dport 42011 drop
        }
        }",
    );
    // Left to itself, nmap now and then gives up on a closed port before the host answers it.
    let slowly = ["--max-rate", "0.8", "--max-retries", "10"];
    let states = pair.compare_with(V4, "42001-42020", true, &slowly);
    for (port, (state, _)) in states {
        let is_silent = (42010..=42011).contains(&port);
        assert_eq!(
            state,
            if is_silent {
                "open_or_filtered"
            } else {
                "closed"
            },
            "port {port}"
        );
    }
}

#[test]
#[ignore = "needs root, nmap and nftables"]
fn tcp_ports_behind_a_limit_have_their_states_all_the_same() {
    let pair = Pair::new();
    pair.host.firewall(
        "table inet test { chain input { type filter hook input priority 0;
            tcp dport 1139 drop
            tcp dport 1100-1139 tcp flags syn limit rate 10/second burst 5 packets accept
            tcp dport 1100-1139 tcp flags syn drop
        }
        }",
    );
    let _open = [
        pair.host.listen("10.9.0.2:1110"),
        pair.host.listen("10.9.0.2:1130"),
    ];
    // Left to itself, nmap calls some of them filtered: it has to be told to go slowly.
    let states = pair.compare_with(V4, "1100-1139", false, &["--max-rate", "5"]);
    for (port, (state, _)) in states {
        let expected = match port {
            1110 | 1130 => "open",
            1139 => "filtered",
            _ => "closed",
        };
        assert_eq!(state, expected, "port {port}");
    }
}

#[test]
#[ignore = "needs root, nmap and nftables"]
fn forwarded_ports_are_as_what_they_lead_to() {
    let pair = Pair::new();
    let behind = Space::add("behind");
    pair.host.connect("v1", &behind, "v0");
    pair.host.address("v1", "10.10.0.1/24");
    behind.address("v0", "10.10.0.2/24");
    behind.ip("route add default via 10.10.0.1");
    pair.host
        .within(|| std::fs::write("/proc/sys/net/ipv4/ip_forward", "1"))
        .unwrap();
    pair.host.firewall(
        "table ip test { chain prerouting { type nat hook prerouting priority -100;
            tcp dport 2001 dnat to 10.10.0.2:80
            tcp dport 2002 dnat to 10.10.0.2:81
            tcp dport 2003 dnat to 10.10.0.2:82
            udp dport 2001 dnat to 10.10.0.2:80
            udp dport 2002 dnat to 10.10.0.2:81
            udp dport 2003 dnat to 10.10.0.2:82
        }
        }",
    );
    behind.firewall(
        "table ip test { chain input { type filter hook input priority 0;
            tcp dport 82 drop
            udp dport 82 drop
        }
        }",
    );
    let _open = behind.listen("10.10.0.2:80");
    let states = pair.compare(V4, "2001-2003", false);
    expect(
        &states,
        &[
            (2001, "open", "syn_ack"),
            (2002, "closed", "reset"),
            (2003, "filtered", "no_response"),
        ],
    );
    echo(behind.bind("10.10.0.2:80"));
    let states = pair.compare(V4, "2001-2003", true);
    expect(
        &states,
        &[
            (2001, "open", "udp_response"),
            (2002, "closed", "port_unreachable"),
            (2003, "open_or_filtered", "no_response"),
        ],
    );
}

/// Runs `probe` with names of its own.
fn with_names(pair: &Pair, names: &str, arguments: &[&str]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("hosts");
    std::fs::write(&file, names).unwrap();
    pair.asker
        .command("unshare")
        .args([
            "--mount",
            "sh",
            "-c",
            "mount --bind \"$0\" /etc/hosts && exec \"$@\"",
        ])
        .arg(&file)
        .arg(program())
        .args(["probe", "--output", "json"])
        .args(arguments)
        .output()
        .unwrap()
}

#[test]
#[ignore = "needs root"]
fn a_name_is_asked_at_each_address_of_the_preferred_family() {
    let pair = Pair::new();
    pair.host.address("v0", "10.9.0.3/24");
    let _open = [
        pair.host.listen("10.9.0.3:1001"),
        pair.host.listen("[fd09::2]:1002"),
    ];
    let names = "10.9.0.2 both two\n10.9.0.3 two\nfd09::2 both six\n";
    let states = |arguments: &[&str]| -> Vec<(String, Vec<String>)> {
        let output = with_names(&pair, names, arguments);
        let json: Value = serde_json::from_slice(&output.stdout).unwrap();
        let word = |value: &Value| value.as_str().unwrap().to_owned();
        let addresses = json["addresses"].as_array().unwrap();
        addresses
            .iter()
            .map(|address| {
                let ports = address["ports"].as_array().unwrap();
                (
                    word(&address["address"]),
                    ports.iter().map(|port| word(&port["state"])).collect(),
                )
            })
            .collect()
    };
    let of =
        |address: &str, states: [&str; 2]| (address.to_owned(), states.map(str::to_owned).to_vec());
    let ports = ["--ports", "1001-1002"];
    let six = of("fd09::2", ["closed", "open"]);
    assert_eq!(
        states(&["six", ports[0], ports[1]]),
        std::slice::from_ref(&six)
    );
    assert_eq!(
        states(&["six", ports[0], ports[1], "--prefer-ipv4"]),
        std::slice::from_ref(&six)
    );
    assert_eq!(states(&["both", ports[0], ports[1]]), [six]);
    let four = of("10.9.0.2", ["closed", "closed"]);
    assert_eq!(
        states(&["both", ports[0], ports[1], "--prefer-ipv4"]),
        std::slice::from_ref(&four)
    );
    assert_eq!(
        states(&["two", ports[0], ports[1]]),
        [four, of("10.9.0.3", ["open", "closed"])]
    );
}

#[test]
#[ignore = "needs root"]
fn a_host_that_goes_away_in_the_middle_ends_filtered() {
    let pair = Pair::new();
    let first = pair.host.listen("10.9.0.2:1001");
    let mut probe = pair.asker.command(program());
    probe
        .args(["probe", V4, "--ports", "1001-1400", "--output", "json"])
        .args(["--rate", "400", "--timeout", "200ms"])
        .stdout(Stdio::piped());
    let probe = probe.spawn().unwrap();
    first.accept().unwrap();
    pair.host.ip("link set v0 down");
    let output = probe.wait_with_output().unwrap();
    assert!(output.status.success());
    let states = found(&serde_json::from_slice(&output.stdout).unwrap());
    assert_eq!(states[&1001].0, "open");
    assert_eq!(states[&1400].0, "filtered");
    assert!(
        states.values().all(|(state, _)| state != "none"),
        "{states:?}"
    );
}

#[test]
#[ignore = "needs root"]
fn a_host_to_which_there_is_no_way_is_not_asked() {
    let pair = Pair::new();
    let (json, output) = pair.asker.probe(&["192.0.2.1", "--ports", "1-3"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        found(&json).values().all(|(state, _)| state == "none"),
        "{json}"
    );
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        errors.contains("could not be asked: Network is unreachable"),
        "{errors}"
    );
}

/// In a namespace without any way out, so that a mistake here asks nobody.
#[test]
#[ignore = "needs root"]
fn special_addresses_are_refused_whatever_wide_network_is_listed() {
    let space = Space::add("alone");
    let exporter = space.exporter(
        &[],
        "{targets: [0.0.0.0/0, '::/0'], modules: {one: {ports: [1]}}}",
    );
    for (target, reason) in [
        ("169.254.169.254", "link-local"),
        ("::ffff:169.254.169.254", "link-local"),
        ("0xa9fea9fe", "link-local"),
        ("fd00:ec2::254", "metadata"),
        ("255.255.255.255", "broadcast"),
        ("224.0.0.1", "multicast"),
        ("ff02::1", "multicast"),
        ("fe80::1", "link-local"),
        ("fe80::1%25lo", "link-local"),
        ("64:ff9b::a9fe:a9fe", "stands for an IPv4 address"),
        ("64:ff9b:1::a9fe:a9fe", "stands for an IPv4 address"),
        ("2002:a9fe:a9fe::1", "stands for an IPv4 address"),
        ("::169.254.169.254", "stands for an IPv4 address"),
        ("::ffff:0:169.254.169.254", "stands for an IPv4 address"),
    ] {
        let (status, text) = exporter.probe(target, "one", "10");
        assert!(
            status == 403 && text.0.contains(reason),
            "{target}: {status} {text:?}"
        );
    }
    // What other programs take for 169.254.169.254.
    for target in [
        "2852039166",
        "0251.0376.0251.0376",
        "169.254.43518",
        "169.16689662",
    ] {
        let (status, text) = exporter.probe(target, "one", "10");
        assert!(
            status == 400 && text.0.contains("neither an address nor a host name"),
            "{target}: {status} {text:?}"
        );
    }
    let (status, text) = exporter.probe("127.0.0.1", "one", "10");
    assert!(
        status == 200 && text.0.contains("state=\"closed\""),
        "{text:?}"
    );
}
