//! What is seen of what is brief: everybody looks once a second, at the same traffic, at the same time.

use std::collections::HashSet;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use darkport_exporter::counts::Tier;
use netstat2::{ProtocolSocketInfo, TcpState};
use socket2::{Domain, SockAddr, Socket, Type};

use crate::contenders::{address, blackbox_sees, everything, listed, nmap, printed};
use crate::support::server::{NODE_EXPORTER, answer};

/// A watched port of the default configuration.
const PORT: u16 = 3_476;
/// Watched ports on which something listens for a moment.
pub(crate) const FLASHED: [u16; 5] = [561, 609, 610, 611, PORT];
const PACE: Duration = Duration::from_secs(1);

/// How a connection ends.
#[derive(Clone, Copy)]
pub(crate) enum Ending {
    /// As most do; what is left of it waits for a minute.
    Closed,
    /// By a reset, as scanners end theirs.
    Reset,
}

/// Makes connections to a watched port over some time; how many each has seen.
pub(crate) fn connections(count: u32, over: Duration, ending: Ending) -> Vec<(String, u64)> {
    let before = Tier::ALL.map(|tier| sum(tier, "darkport_inbound_accepted_total", &[PORT]));
    let (by_ss, by_netstat2) = (Mutex::new(HashSet::new()), Mutex::new(HashSet::new()));
    let by_node_exporter = Mutex::new(0);
    let idle = established();
    let looks: [&(dyn Fn() + Sync); 4] = [
        &|| by_ss.lock().unwrap().extend(ss_connections()),
        &|| by_netstat2.lock().unwrap().extend(netstat2_connections()),
        &|| *by_node_exporter.lock().unwrap() += established().saturating_sub(idle),
        &scrape_all,
    ];
    while_looked_at(&looks, || connect(count, over, ending));
    let mut seen = ours("darkport_inbound_accepted_total", &[PORT], before);
    seen.extend([
        (
            "`ss -tan` each second".to_owned(),
            by_ss.into_inner().unwrap().len() as u64,
        ),
        (
            "netstat2 each second".to_owned(),
            by_netstat2.into_inner().unwrap().len() as u64,
        ),
        (
            "node_exporter, tcpstat, each second".to_owned(),
            by_node_exporter.into_inner().unwrap(),
        ),
    ]);
    seen
}

/// Listens on watched ports for a moment each; how many each has seen.
pub(crate) fn flashes(count: u32, over: Duration) -> Vec<(String, u64)> {
    let before = Tier::ALL.map(|tier| sum(tier, "darkport_listener_opened_total", &FLASHED));
    let counters = [const { Mutex::new(0_u64) }; 4];
    let [by_ss, by_netstat2, by_blackbox, by_nmap] = &counters;
    let add = |counter: &Mutex<u64>, more: usize| *counter.lock().unwrap() += more as u64;
    let looks: [&(dyn Fn() + Sync); 5] = [
        &|| add(by_ss, ss_listeners()),
        &|| add(by_netstat2, netstat2_listeners()),
        &|| {
            let open = FLASHED.into_iter().filter(|&port| blackbox_sees(port));
            add(by_blackbox, open.count());
        },
        &|| add(by_nmap, nmap(&listed(&FLASHED)).matches("/open/").count()),
        &scrape_all,
    ];
    while_looked_at(&looks, || flash(count, over));
    let mut seen = ours("darkport_listener_opened_total", &FLASHED, before);
    let names = [
        "`ss -tln` each second",
        "netstat2 each second",
        "blackbox_exporter, TCP, each second",
        "`nmap -sS` each second",
    ];
    let counts = counters.map(|counter| counter.into_inner().unwrap());
    seen.extend(names.map(str::to_owned).into_iter().zip(counts));
    seen
}

/// Runs something while each look is taken once a second, on a thread of its own, and once more at the end.
fn while_looked_at(looks: &[&(dyn Fn() + Sync)], run: impl FnOnce()) {
    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        for look in looks {
            let ended = &ended;
            scope.spawn(move || {
                let mut next = Instant::now();
                loop {
                    let is_last = ended.load(Ordering::Relaxed);
                    look();
                    if is_last {
                        break;
                    }
                    next += PACE;
                    while Instant::now() < next && !ended.load(Ordering::Relaxed) {
                        thread::sleep(Duration::from_millis(5));
                    }
                }
            });
        }
        run();
        ended.store(true, Ordering::Relaxed);
    });
}

fn connect(count: u32, over: Duration, ending: Ending) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, PORT)).unwrap();
    let to = SockAddr::from(listener.local_addr().unwrap());
    let begun = Instant::now();
    for number in 0..count {
        wait_until(begun + over * number / count);
        let client = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        if matches!(ending, Ending::Reset) {
            client.set_linger(Some(Duration::ZERO)).unwrap();
        }
        client.connect(&to).unwrap();
        let server = listener.accept().unwrap();
        drop(client);
        drop(server);
    }
}

fn flash(count: u32, over: Duration) {
    let begun = Instant::now();
    for number in 0..count {
        wait_until(begun + over * number / count);
        let port = FLASHED[number as usize % FLASHED.len()];
        drop(TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap());
    }
}

fn wait_until(moment: Instant) {
    if let Some(left) = moment.checked_duration_since(Instant::now()) {
        thread::sleep(left);
    }
}

fn ours(family: &str, ports: &[u16], before: [u64; 3]) -> Vec<(String, u64)> {
    let rows = Tier::ALL.into_iter().zip(before).map(|(tier, before)| {
        let seen = sum(tier, family, ports) - before;
        (crate::contenders::name(tier), seen)
    });
    rows.collect()
}

fn scrape_all() {
    for tier in Tier::ALL {
        sum(tier, "", &[]);
    }
}

/// The sum of a counter over some TCP ports.
fn sum(tier: Tier, family: &str, ports: &[u16]) -> u64 {
    let (status, answer) = answer(address(tier), "/metrics").unwrap();
    assert_eq!(status, 200);
    let text = String::from_utf8(answer).unwrap();
    let of_port = |port: &u16| {
        let start = format!("{family}{{port=\"{port}\",protocol=\"tcp\"}} ");
        let value = text.lines().find_map(|line| line.strip_prefix(&start));
        let value = value.unwrap_or_else(|| panic!("tier {tier} has no {start}"));
        value.parse::<f64>().unwrap() as u64
    };
    ports.iter().map(of_port).sum()
}

fn established() -> u64 {
    let (_, answer) = answer(NODE_EXPORTER, "/metrics").unwrap();
    let text = String::from_utf8(answer).unwrap();
    let start = "node_tcp_connection_states{state=\"established\"} ";
    let value = text.lines().find_map(|line| line.strip_prefix(start));
    value.map_or(0, |value| value.parse::<f64>().unwrap() as u64)
}

/// The ends of connections to the port that are not the port.
fn ss_connections() -> Vec<u16> {
    let port = format!(":{PORT}");
    let filter = ["(", "sport", "=", &port, "or", "dport", "=", &port, ")"];
    let arguments: Vec<&str> = ["-Htan"].into_iter().chain(filter).collect();
    let text = printed("ss", &arguments);
    let number = |address: &str| address.rsplit(':').next()?.parse::<u16>().ok();
    text.lines()
        .filter_map(|line| {
            let mut cells = line.split_whitespace().skip(3);
            let ends = [cells.next()?, cells.next()?].map(number);
            ends.into_iter().flatten().find(|&end| end != PORT)
        })
        .collect()
}

fn ss_listeners() -> usize {
    let text = printed("ss", &["-Htln"]);
    let is_flashed = |line: &&str| {
        let local = line.split_whitespace().nth(3).unwrap_or_default();
        let number = local
            .rsplit(':')
            .next()
            .and_then(|number| number.parse().ok());
        number.is_some_and(|number| FLASHED.contains(&number))
    };
    text.lines().filter(is_flashed).count()
}

fn netstat2_connections() -> Vec<u16> {
    let ends = tcp_sockets()
        .into_iter()
        .filter_map(|(local, remote, state)| {
            let concerns = state != TcpState::Listen && (local == PORT || remote == PORT);
            concerns.then_some(if local == PORT { remote } else { local })
        });
    ends.collect()
}

fn netstat2_listeners() -> usize {
    let sockets = tcp_sockets().into_iter();
    sockets
        .filter(|(local, _, state)| *state == TcpState::Listen && FLASHED.contains(local))
        .count()
}

fn tcp_sockets() -> Vec<(u16, u16, TcpState)> {
    let (families, protocols) = everything();
    let sockets = netstat2::get_sockets_info(families, protocols).unwrap();
    let tcp = sockets
        .into_iter()
        .filter_map(|socket| match socket.protocol_socket_info {
            ProtocolSocketInfo::Tcp(tcp) => Some((tcp.local_port, tcp.remote_port, tcp.state)),
            ProtocolSocketInfo::Udp(_) => None,
        });
    tcp.collect()
}
