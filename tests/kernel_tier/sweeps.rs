//! The whole port space, swept.

use std::fs;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use darkport_exporter::counts::SpaceCounts;
use darkport_exporter::counts::kernel::Space;
use darkport_exporter::port::{Block, Port, Protocol};
use darkport_exporter::registry::{Assignment, Class};
use socket2::SockAddr;

use crate::lab::{Lab, until};
use crate::packets::{ipv4, raw, tcp};
use crate::support::{Exporter, Scrape};
use crate::{DARK, HERE, THERE};

fn class_of(port: Port) -> Class {
    Class {
        range: port.range(),
        assignment: Assignment::Assigned,
    }
}

fn sum(counts: &[u64]) -> u64 {
    counts.iter().sum()
}

#[test]
#[ignore = "needs root"]
fn a_full_tcp_sweep_is_seen_port_by_port() {
    let lab = Lab::new("sweep-tcp");
    let neighbour = lab.neighbour();
    let lit = TcpListener::bind((HERE, DARK.number)).unwrap();
    let started = lab.start();
    let mut space = Space::new(class_of);
    assert_eq!(
        started.kernel.read().space(&mut space),
        SpaceCounts::default()
    );
    neighbour.run("nmap -sS -Pn -n -p- -T5 --max-retries 0 --min-rate 10000 10.9.0.1");
    for number in 1..=u16::MAX {
        let port = Port::tcp(number);
        let counts = started.counts(port);
        assert_eq!(counts.attempts, Some(1), "{port}");
        assert_eq!(counts.refused, Some(u64::from(port != DARK)), "{port}");
    }
    drop(lit);
    let seen = started.kernel.read().space(&mut space);
    assert_eq!(seen, started.kernel.read().space(&mut space));
    let tcp = Protocol::Tcp.index();
    assert_eq!(sum(&seen.knocks.0[tcp]), 65_534);
    assert_eq!(sum(&seen.knocked_ports.0[tcp]), 65_534);
    assert_eq!(sum(&seen.block_knocks.0[tcp]), 65_534);
    assert_eq!(seen.block_knocks.0[tcp][63], Block::SIZE as u64);
    assert_eq!(sum(&seen.knocks.0[Protocol::Udp.index()]), 0);
    // nmap answers what is open with a reset: the handshake is not completed.
    assert_eq!(sum(&seen.accepted.0[tcp]), 0);
    assert_eq!(started.kernel.lost(), 0);
}

/// nmap sends more than one datagram to some ports; the host's own counter says how many there were.
#[test]
#[ignore = "needs root"]
fn a_udp_sweep_of_the_system_ports_agrees_with_the_host() {
    let lab = Lab::new("sweep-udp");
    let neighbour = lab.neighbour();
    // Else the host's answers are held back and nmap waits.
    for limit in ["icmp_ratelimit", "icmp_ratemask"] {
        fs::write(format!("/proc/sys/net/ipv4/{limit}"), "0").unwrap();
    }
    let started = lab.start();
    let before = lab.snmp("Udp", "NoPorts");
    neighbour.run("nmap -sU -Pn -n -p 1-1023 -T5 --max-retries 0 10.9.0.1");
    let no_ports = lab.snmp("Udp", "NoPorts") - before;
    let mut knocks = 0;
    for number in 1..1024 {
        let counts = started.counts(Port::udp(number));
        assert!(counts.attempts >= Some(1), "{number}");
        assert_eq!(counts.attempts, counts.refused, "{number}");
        knocks += counts.refused.unwrap();
    }
    assert_eq!(knocks, no_ports);
    let mut space = Space::new(class_of);
    let seen = started.kernel.read().space(&mut space);
    let udp = Protocol::Udp.index();
    assert_eq!(sum(&seen.knocked_ports.0[udp]), 1023);
    assert_eq!(sum(&seen.knocks.0[udp]), no_ports);
}

/// SYNs as fast as one processor makes them, at an exporter that is scraped all the while: what was sent is what was counted,
/// but for what the device says it had no room for; each scrape is answered; and memory does not grow.
#[test]
#[ignore = "needs root"]
fn a_flood_is_counted_to_the_last_packet_while_scrapes_go_on() {
    const LASTS: Duration = Duration::from_secs(20);
    let lab = Lab::new("flood");
    let neighbour = lab.neighbour();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("darkport.yml");
    fs::write(
        &file,
        "watch: [{name: flooded, ports: [3000-3999], protocols: [tcp]}]\n",
    )
    .unwrap();
    let exporter = Exporter::start(&[
        "--collector.tier=kernel",
        "--config.file",
        file.to_str().unwrap(),
    ]);
    let attempts = |scrape: &Scrape| -> u64 {
        let tcp = scrape.series("darkport_inbound_attempts_total");
        let tcp = tcp.filter(|line| line.contains("protocol=\"tcp\""));
        tcp.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap() as u64)
            .sum()
    };
    let series = exporter.scrape().count();
    let (mut resident, mut counted) = (Vec::new(), Vec::new());
    let sent = std::thread::scope(|scope| {
        let flood = scope.spawn(|| neighbour.within(|| flood(LASTS)));
        while !flood.is_finished() {
            let scrape = exporter.scrape();
            assert_eq!(scrape.count(), series);
            counted.push(attempts(&scrape));
            resident.push(resident_kilobytes(exporter.process.pid()));
            std::thread::park_timeout(Duration::from_millis(100));
        }
        flood.join().unwrap()
    });
    let dropped = || -> u64 {
        let text = crate::lab::run("cat /proc/thread-self/net/dev");
        let line = text.lines().find(|line| line.contains("here:")).unwrap();
        line.split_whitespace().nth(4).unwrap().parse().unwrap()
    };
    until("all packets are accounted for", || {
        attempts(&exporter.scrape()) + dropped() == sent
    });
    let last = exporter.scrape();
    println!(
        "{sent} sent, {} counted, {} dropped by the device, {} a second; {} scrapes; {:?} kB resident",
        attempts(&last),
        dropped(),
        sent / LASTS.as_secs(),
        counted.len(),
        (resident[resident.len() / 4], resident[resident.len() - 1])
    );
    assert!(attempts(&last) > 100_000);
    assert!(counted.len() >= 10 && counted.is_sorted(), "{counted:?}");
    assert!(
        counted[counted.len() - 2] > counted[1],
        "scrapes saw the flood grow"
    );
    let lost = last.value("darkport_events_lost_total{source=\"kernel\"}");
    assert_eq!(lost, Some(0.0));
    let (early, late) = (resident[resident.len() / 4], resident[resident.len() - 1]);
    assert!(late <= early + 1024, "{early} kB became {late} kB");
}

/// Sends SYNs to a thousand ports for so long; how many the kernel took.
fn flood(lasts: Duration) -> u64 {
    let (to, from) = (HERE.into(), THERE.into());
    let socket = raw(false);
    let address = SockAddr::from(std::net::SocketAddr::new(to, 0));
    let packets: Vec<_> = (0..4096_u16)
        .map(|n| {
            let segment = tcp(from, to, n.wrapping_mul(17), 3000 + n % 1000, 0x02);
            ipv4(THERE, HERE, 6, &[], 0, &segment)
        })
        .collect();
    let end = Instant::now() + lasts;
    let mut sent = 0_u64;
    while Instant::now() < end {
        for packet in &packets {
            sent += u64::from(socket.send_to(packet, &address).is_ok());
        }
    }
    sent
}

fn resident_kilobytes(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
