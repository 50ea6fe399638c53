//! The netlink tier against the real kernel, as whatever user runs the suite: nothing here needs a privilege.

#![cfg(target_os = "linux")]
// Helpers of tests count as tests.
#![allow(clippy::unwrap_used)]

use std::io::{Read, Write};
use std::net::{
    IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket,
};
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use darkport_exporter::counts::PortCounts;
use darkport_exporter::counts::netlink::{Netlink as Counts, Options};
use darkport_exporter::port::{Port, PortSet};
use darkport_exporter::sockets::{SocketTable, Wanted, netlink::Netlink as Reader};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use socket2::{Domain, SockAddr, Socket, Type};

const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);
/// What an ordinary user gets where nobody has raised net.core.rmem_max.
const STOCK_BUFFER: Options = Options {
    receive_buffer: Some(212_992),
};
const PATIENCE: Duration = Duration::from_secs(30);

/// The tier with its reader of tables, as the sampler uses them.
struct Tier {
    reader: Reader,
    counts: Counts,
    watched: PortSet,
}

impl Tier {
    fn start(watched: impl IntoIterator<Item = Port>) -> Self {
        Self::start_with(watched, Options::default())
    }

    fn start_with(watched: impl IntoIterator<Item = Port>, options: Options) -> Self {
        let watched: PortSet = watched.into_iter().collect();
        let mut reader = Reader::open().unwrap();
        let present = read(&mut reader, &watched, &PortSet::new());
        let counts = Counts::start_with(&watched, &present, options).unwrap();
        Self {
            reader,
            counts,
            watched,
        }
    }

    fn watch(&mut self, watched: impl IntoIterator<Item = Port>) {
        self.watched = watched.into_iter().collect();
        let present = read(
            &mut self.reader,
            &self.watched,
            &self.counts.ports_listened(),
        );
        self.counts.watch(&self.watched, &present).unwrap();
    }

    fn sample(&mut self) {
        let listened = self.counts.ports_listened();
        self.counts.before_read();
        let table = read(&mut self.reader, &self.watched, &listened);
        self.counts.after_read(&table, SystemTime::now());
    }

    fn of(&mut self, port: Port) -> Seen {
        self.sample();
        Seen::from(self.counts.counts(port))
    }

    /// Samples until a port shows what is expected, and fails with what it showed last.
    fn expect(&mut self, port: Port, expected: Seen) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let seen = self.of(port);
            if seen == expected {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "{port}: {seen:?}, expected {expected:?}, lost {}",
                self.counts.lost()
            );
            pause();
        }
    }

    /// Waits until everything that was destroyed has been told, by destroying a listener on a watched port on every
    /// processor: each tells of sockets in the order in which they were destroyed there.
    fn settle(&mut self, marker: Port) {
        let before = self.of(marker);
        let mut opened = before.opened;
        let allowed = sched_getaffinity(None).unwrap();
        for processor in (0..CpuSet::MAX_CPU).filter(|&processor| allowed.is_set(processor)) {
            opened += 1;
            thread::spawn(move || {
                let mut only = CpuSet::new();
                only.set(processor);
                sched_setaffinity(None, &only).unwrap();
                drop(TcpListener::bind((V4, marker.number)).unwrap());
            })
            .join()
            .unwrap();
        }
        self.expect(marker, Seen { opened, ..before });
    }
}

fn read(reader: &mut Reader, watched: &PortSet, listened: &PortSet) -> SocketTable {
    reader
        .read(Wanted::Connections { watched, listened })
        .unwrap()
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Seen {
    accepted: u64,
    outbound: u64,
    opened: u64,
    connections: u64,
}

impl From<PortCounts> for Seen {
    fn from(counts: PortCounts) -> Self {
        Self {
            accepted: counts.accepted.unwrap(),
            outbound: counts.outbound.unwrap(),
            opened: counts.opened.unwrap(),
            connections: counts.connections.unwrap(),
        }
    }
}

fn listener(address: IpAddr) -> (TcpListener, Port) {
    let listener = TcpListener::bind((address, 0)).unwrap();
    let port = Port::tcp(listener.local_addr().unwrap().port());
    (listener, port)
}

/// A port on which nothing listens, below those the kernel hands out by itself. Found without binding it: the end of
/// a probing listener may be told late, to a tier that was started meanwhile.
fn free_port() -> Port {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let spread = (std::process::id() % 97) as u16 * 64;
    loop {
        let number = 21_000 + (spread + NEXT.fetch_add(1, Ordering::Relaxed)) % 10_000;
        if TcpStream::connect((V4, number)).is_err() {
            return Port::tcp(number);
        }
    }
}

/// Between two looks at something that is waited for.
fn pause() {
    thread::sleep(Duration::from_millis(2));
}

fn pair(listener: &TcpListener) -> (TcpStream, TcpStream) {
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (server, _) = listener.accept().unwrap();
    (client, server)
}

fn reset(stream: TcpStream) {
    let socket = Socket::from(stream);
    socket.set_linger(Some(Duration::ZERO)).unwrap();
}

/// How a connection ends; the client says so in its first octet.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(u8)]
enum End {
    Client,
    Server,
    ClientResets,
    ServerResets,
}

impl End {
    const ALL: [Self; 4] = [
        Self::Client,
        Self::Server,
        Self::ClientResets,
        Self::ServerResets,
    ];
}

/// Tests at full speed take turns: several at once measure the machine's scheduler.
static FULL_SPEED: Mutex<()> = Mutex::new(());

fn at_full_speed() -> MutexGuard<'static, ()> {
    FULL_SPEED.lock().unwrap_or_else(PoisonError::into_inner)
}

fn serve(listener: &TcpListener, connections: usize) {
    for _ in 0..connections {
        let (mut server, _) = listener.accept().unwrap();
        let mut octet = [0];
        if server.read(&mut octet).unwrap_or(0) == 0 {
            continue;
        }
        if octet[0] == End::Client as u8 || octet[0] == End::ClientResets as u8 {
            let _ = server.read(&mut octet);
        } else if octet[0] == End::ServerResets as u8 {
            reset(server);
        }
    }
}

fn call(to: SocketAddr, end: End) {
    let mut client = TcpStream::connect(to).unwrap();
    client.write_all(&[end as u8]).unwrap();
    match end {
        End::Client => {}
        End::ClientResets => reset(client),
        End::Server | End::ServerResets => {
            let _ = client.read(&mut [0]);
        }
    }
}

/// Opens and closes connections at full speed, served by a thread.
fn traffic(listener: &TcpListener, connections: usize, end: impl Fn(usize) -> End + Sync) {
    let to = listener.local_addr().unwrap();
    thread::scope(|scope| {
        scope.spawn(|| serve(listener, connections));
        for index in 0..connections {
            call(to, end(index));
        }
    });
}

/// The tier after 20,000 short connections to a watched port beside 20,000 to another, and the watched one.
fn after_twenty_thousand(address: IpAddr, options: Options) -> (Tier, Port) {
    const CONNECTIONS: usize = 20_000;
    let (silent, port) = listener(address);
    let (busy, busy_port) = listener(address);
    let tier = Tier::start_with([port], options);
    thread::scope(|scope| {
        // Either end first: thousands in TIME-WAIT at one end would slow the search for a free port.
        scope.spawn(|| traffic(&busy, CONNECTIONS, |index| End::ALL[index % 2]));
        traffic(&silent, CONNECTIONS, |index| End::ALL[index % 2]);
    });
    assert_eq!(tier.counts.counts(busy_port), PortCounts::default());
    (tier, port)
}

const TWENTY_THOUSAND: Seen = Seen {
    accepted: 20_000,
    outbound: 20_000,
    opened: 0,
    connections: 0,
};

#[test]
fn twenty_thousand_short_connections_are_twenty_thousand() {
    let _turn = at_full_speed();
    let (mut tier, port) = after_twenty_thousand(V4, Options::default());
    tier.expect(port, TWENTY_THOUSAND);
    assert_eq!(tier.counts.lost(), 0);
}

#[test]
fn twenty_thousand_short_connections_are_twenty_thousand_over_ipv6() {
    let _turn = at_full_speed();
    let (mut tier, port) = after_twenty_thousand(V6, Options::default());
    tier.expect(port, TWENTY_THOUSAND);
    assert_eq!(tier.counts.lost(), 0);
}

/// Where the host gives small buffers only, a burst on a busy machine may overrun them. Then as many are missing as are
/// said to be.
#[test]
fn in_a_stock_buffer_what_is_not_counted_is_known_to_be_lost() {
    let _turn = at_full_speed();
    let (mut tier, port) = after_twenty_thousand(V4, STOCK_BUFFER);
    let deadline = Instant::now() + PATIENCE;
    loop {
        let seen = tier.of(port);
        let told = seen.accepted + seen.outbound + tier.counts.lost();
        if told >= 40_000 {
            // A message that was lost may have been about a listener of another test.
            assert!(
                seen.accepted <= 20_000 && seen.outbound <= 20_000,
                "{seen:?}"
            );
            break;
        }
        assert!(
            Instant::now() < deadline,
            "{seen:?}, lost {}",
            tier.counts.lost()
        );
    }
}

#[test]
fn a_connection_counts_once_however_it_ends() {
    let _turn = at_full_speed();
    for address in [V4, V6] {
        for end in End::ALL {
            let (listener, port) = listener(address);
            let mut tier = Tier::start([port]);
            traffic(&listener, 500, |_| end);
            // The kernel wipes the remote port of a socket its own side aborts.
            let outbound = if end == End::ClientResets { 0 } else { 500 };
            tier.expect(
                port,
                Seen {
                    accepted: 500,
                    outbound,
                    ..Seen::default()
                },
            );
        }
    }
}

#[test]
fn tables_read_amid_traffic_change_nothing() {
    let _turn = at_full_speed();
    let (listener, port) = listener(V4);
    let mut tier = Tier::start([port]);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            traffic(&listener, 10_000, |index| End::ALL[index % 2]);
            done.store(true, Ordering::Release);
        });
        let mut last = Seen::default();
        while !done.load(Ordering::Acquire) {
            let seen = tier.of(port);
            assert!(
                seen.accepted >= last.accepted && seen.outbound >= last.outbound,
                "{last:?} then {seen:?}"
            );
            last = seen;
            pause();
        }
    });
    tier.expect(
        port,
        Seen {
            accepted: 10_000,
            outbound: 10_000,
            ..Seen::default()
        },
    );
    assert_eq!(tier.counts.lost(), 0);
}

#[test]
fn open_and_half_closed_connections_count_once() {
    let (listener, port) = listener(V4);
    let marker = free_port();
    let mut tier = Tier::start([port, marker]);
    let open: Vec<_> = (0..10).map(|_| pair(&listener)).collect();
    let ten = Seen {
        accepted: 10,
        outbound: 10,
        opened: 0,
        connections: 10,
    };
    tier.expect(port, ten);
    for (client, server) in &open[..4] {
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!((&*server).read(&mut [0]).unwrap(), 0);
    }
    let half_closed = Seen {
        connections: 6,
        ..ten
    };
    tier.expect(port, half_closed);
    // FIN-WAIT-2 without a process: the kernel replaces the socket by a remnant.
    let (clients, servers): (Vec<_>, Vec<_>) = open.into_iter().unzip();
    drop(clients);
    tier.settle(marker);
    assert_eq!(
        tier.of(port),
        Seen {
            connections: 0,
            ..ten
        }
    );
    drop(servers);
    tier.settle(marker);
    assert_eq!(
        tier.of(port),
        Seen {
            connections: 0,
            ..ten
        }
    );
}

#[test]
fn what_was_there_before_the_start_is_not_counted() {
    // Ports that nobody is handed when they become free.
    let (port, marker) = (free_port(), free_port());
    let udp_port = Port::udp(port.number);
    let listener = TcpListener::bind((V4, port.number)).unwrap();
    let udp = UdpSocket::bind((V4, port.number)).unwrap();
    let before: Vec<_> = (0..20).map(|_| pair(&listener)).collect();
    let mut tier = Tier::start([port, udp_port, marker]);
    assert_eq!(
        tier.of(port),
        Seen {
            connections: 20,
            ..Seen::default()
        }
    );
    drop(before);
    drop(listener);
    drop(udp);
    tier.settle(marker);
    assert_eq!(tier.of(port), Seen::default());
    assert_eq!(tier.counts.counts(udp_port).opened, Some(0));
    assert!(tier.counts.ports_used().contains(port));
    let closed: Vec<Port> = tier
        .counts
        .closed_listeners()
        .iter()
        .map(|(listener, _)| listener.port)
        .collect();
    assert!(
        closed.contains(&port) && closed.contains(&udp_port),
        "{closed:?}"
    );
    assert_eq!(tier.counts.closed_listeners(), []);
}

#[test]
fn listeners_that_live_less_than_a_millisecond_are_counted() {
    let (tcp, marker) = (free_port(), free_port());
    let udp = Port::udp(tcp.number);
    let started = SystemTime::now();
    let mut tier = Tier::start([tcp, udp, marker]);
    for _ in 0..200 {
        drop(TcpListener::bind((V4, tcp.number)).unwrap());
        drop(UdpSocket::bind((V4, udp.number)).unwrap());
    }
    tier.expect(
        tcp,
        Seen {
            opened: 200,
            ..Seen::default()
        },
    );
    let deadline = Instant::now() + PATIENCE;
    while tier.counts.counts(udp).opened != Some(200) {
        assert!(Instant::now() < deadline, "{:?}", tier.counts.counts(udp));
        tier.sample();
        pause();
    }
    tier.settle(marker);
    assert_eq!(tier.counts.counts(udp).opened, Some(200));
    assert_eq!(tier.counts.counts(tcp).opened, Some(200));
    assert!(tier.counts.counts(udp).opened_at.unwrap() >= started);
    assert_eq!(tier.counts.counts(udp).accepted, None);
    let closed = tier.counts.closed_listeners();
    for port in [tcp, udp] {
        let of_port: Vec<_> = closed
            .iter()
            .filter(|(listener, _)| listener.port == port)
            .collect();
        assert_eq!(of_port.len(), 200);
        assert!(of_port.iter().all(|(_, at)| *at >= started));
        assert!(
            of_port
                .iter()
                .all(|(listener, _)| listener.address == V4 && listener.cookie.is_some())
        );
    }
    assert_eq!(tier.counts.lost(), 0);
}

#[test]
fn a_listener_that_stays_is_opened_once() {
    let port = free_port();
    let mut tier = Tier::start([port]);
    let listener = TcpListener::bind((V4, port.number)).unwrap();
    let opened = Seen {
        opened: 1,
        ..Seen::default()
    };
    tier.expect(port, opened);
    assert_eq!(tier.of(port), opened);
    drop(listener);
    let deadline = Instant::now() + PATIENCE;
    let closed = loop {
        let closed = tier.counts.closed_listeners();
        if !closed.is_empty() {
            break closed;
        }
        assert!(Instant::now() < deadline);
    };
    // A table has shown it, so more is known than the message says.
    let (listener, _) = &closed[0];
    assert!(listener.inode.is_some_and(|inode| inode > 0) && listener.uid.is_some());
    assert_eq!(tier.of(port), opened);
}

#[test]
fn a_connection_to_a_listener_no_table_ever_shows_is_accepted() {
    let port = free_port();
    let mut tier = Tier::start([port]);
    for _ in 0..50 {
        let listener = TcpListener::bind((V4, port.number)).unwrap();
        let (client, server) = pair(&listener);
        reset(client);
        drop(server);
        drop(listener);
    }
    tier.expect(
        port,
        Seen {
            accepted: 50,
            opened: 50,
            ..Seen::default()
        },
    );
}

#[test]
fn a_connection_never_accepted_by_its_process_is_accepted_once() {
    let port = free_port();
    let mut tier = Tier::start([port]);
    let listener = TcpListener::bind((V4, port.number)).unwrap();
    let client = TcpStream::connect((V4, port.number)).unwrap();
    drop(listener);
    drop(client);
    tier.expect(
        port,
        Seen {
            accepted: 1,
            outbound: 1,
            opened: 1,
            connections: 0,
        },
    );
}

#[test]
fn connections_that_do_not_come_about_are_not_counted() {
    let (dead, marker) = (free_port(), free_port());
    let full = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    full.bind(&SockAddr::from(SocketAddr::new(V4, 0))).unwrap();
    full.listen(0).unwrap();
    let full_address = full.local_addr().unwrap();
    let full_port = Port::tcp(full_address.as_socket().unwrap().port());
    let mut tier = Tier::start([dead, full_port, marker]);

    let dead_address = SockAddr::from(SocketAddr::new(V4, dead.number));
    for _ in 0..20 {
        TcpStream::connect((V4, dead.number)).unwrap_err();
        let waiting = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        waiting.set_nonblocking(true).unwrap();
        waiting.connect(&dead_address).unwrap_err();
        let unread = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        unread.set_nonblocking(true).unwrap();
        unread.connect(&dead_address).unwrap_err();
        waiting.take_error().unwrap();
    }
    // One fits into the queue; the SYNs of the rest are dropped, and they give up.
    let callers: Vec<Socket> = (0..5)
        .map(|_| {
            let caller = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            caller.set_nonblocking(true).unwrap();
            let _ = caller.connect(&full_address);
            caller
        })
        .collect();
    let connected = callers
        .iter()
        .filter(|caller| caller.peer_addr().is_ok())
        .count() as u64;
    assert!((1..5).contains(&connected), "{connected} of 5 connected");
    drop(callers);
    tier.settle(marker);
    assert_eq!(tier.of(dead), Seen::default());
    let seen = tier.of(full_port);
    assert_eq!(seen.outbound, connected, "{seen:?}");
    // What waits in the queue is accepted, whether or not a process ever asks for it.
    drop(full);
    tier.settle(marker);
    assert_eq!(tier.of(full_port).accepted, connected);
}

/// A client whose own port is watched.
fn call_from(local: u16, to: SocketAddr, shares: bool) -> Socket {
    let client = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    client.set_reuse_address(true).unwrap();
    client.set_reuse_port(shares).unwrap();
    client
        .bind(&SockAddr::from(SocketAddr::new(V4, local)))
        .unwrap();
    client.connect(&SockAddr::from(to)).unwrap();
    client
}

#[test]
fn a_client_whose_own_port_is_watched_accepts_nothing() {
    let (elsewhere, _) = listener(V4);
    let (silent, silent_port) = listener(V4);
    let (own, marker) = (free_port(), free_port());
    let mut tier = Tier::start([own, silent_port, marker]);
    for (index, to) in [&elsewhere, &silent].into_iter().enumerate() {
        let client = call_from(own.number, to.local_addr().unwrap(), false);
        let (server, _) = to.accept().unwrap();
        if index == 0 {
            drop(server);
            assert_eq!((&client).read(&mut [0]).unwrap(), 0);
            drop(client);
        } else {
            drop(client);
            drop(server);
        }
    }
    tier.settle(marker);
    // An inbound connection from a watched port of the other side is none to that port: `own` shows nothing.
    assert_eq!(tier.of(own), Seen::default());
    tier.expect(
        silent_port,
        Seen {
            accepted: 1,
            outbound: 1,
            ..Seen::default()
        },
    );
}

#[test]
fn a_connection_dialled_from_a_listening_port_is_not_accepted() {
    let (elsewhere, _) = listener(V4);
    let (own, marker) = (free_port(), free_port());
    let listening = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    listening.set_reuse_address(true).unwrap();
    listening.set_reuse_port(true).unwrap();
    listening
        .bind(&SockAddr::from(SocketAddr::new(V4, own.number)))
        .unwrap();
    listening.listen(1).unwrap();
    let mut tier = Tier::start([own, marker]);
    let client = call_from(own.number, elsewhere.local_addr().unwrap(), true);
    let (server, _) = elsewhere.accept().unwrap();
    drop(client);
    assert_eq!((&server).read(&mut [0]).unwrap(), 0);
    drop(server);
    tier.settle(marker);
    assert_eq!(tier.of(own), Seen::default());
}

#[test]
fn an_overrun_is_told_to_the_last_message_and_counting_goes_on() {
    let (listener, port) = listener(V4);
    let marker = free_port();
    let small = Options {
        receive_buffer: Some(16_384),
    };
    let mut tier = Tier::start_with([port, marker], small);
    let mut witness = Tier::start_with([port], Options::default());
    let paused = tier.counts.pause();
    traffic(&listener, 300, |index| End::ALL[index % 2]);
    witness.expect(
        port,
        Seen {
            accepted: 300,
            outbound: 300,
            ..Seen::default()
        },
    );
    drop(paused);
    tier.settle(marker);
    let seen = tier.of(port);
    let lost = tier.counts.lost();
    assert!(lost > 0, "{seen:?}");
    assert!(seen.accepted <= 300 && seen.outbound <= 300, "{seen:?}");
    assert!(
        seen.accepted + seen.outbound + lost >= 600,
        "{seen:?}, lost {lost}"
    );

    let mut expected = seen;
    for _ in 0..100 {
        traffic(&listener, 1, |_| End::Client);
        expected.accepted += 1;
        expected.outbound += 1;
        tier.expect(port, expected);
    }
    assert_eq!(tier.counts.lost(), lost);
}

#[test]
fn changing_what_is_watched_amid_traffic_loses_nothing() {
    let _turn = at_full_speed();
    let (listener, port) = listener(V4);
    let others: Vec<Port> = (20_001..20_999).step_by(2).map(Port::tcp).collect();
    let mut tier = Tier::start([port]);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            traffic(&listener, 10_000, |index| End::ALL[index % 2]);
            done.store(true, Ordering::Release);
        });
        while !done.load(Ordering::Acquire) {
            for also in [&others[..], &others[..1], &[]] {
                tier.watch(also.iter().copied().chain([port]));
                tier.sample();
                pause();
            }
        }
    });
    tier.expect(
        port,
        Seen {
            accepted: 10_000,
            outbound: 10_000,
            ..Seen::default()
        },
    );
    assert_eq!(tier.counts.lost(), 0);
}

#[test]
fn a_port_newly_watched_starts_from_what_is_there() {
    let (listener, port) = listener(V4);
    let marker = free_port();
    let mut tier = Tier::start([marker]);
    let before: Vec<_> = (0..5).map(|_| pair(&listener)).collect();
    assert_eq!(tier.counts.counts(port), PortCounts::default());
    tier.watch([marker, port]);
    assert_eq!(
        tier.of(port),
        Seen {
            connections: 5,
            ..Seen::default()
        }
    );
    drop(before);
    traffic(&listener, 3, |_| End::Client);
    let three = Seen {
        accepted: 3,
        outbound: 3,
        ..Seen::default()
    };
    tier.expect(port, three);
    tier.watch([marker]);
    traffic(&listener, 3, |_| End::Client);
    tier.settle(marker);
    assert_eq!(tier.counts.counts(port), PortCounts::default());
    // Watched again, it goes on where it stopped.
    tier.watch([marker, port]);
    tier.settle(marker);
    assert_eq!(tier.of(port), three);
}

#[test]
#[ignore = "needs a kernel with Multipath TCP"]
fn a_multipath_connection_counts_as_the_one_tcp_connection_it_is() {
    const MPTCP: i32 = 262;
    let listening = Socket::new(Domain::IPV4, Type::STREAM, Some(MPTCP.into())).unwrap();
    listening
        .bind(&SockAddr::from(SocketAddr::new(V4, 0)))
        .unwrap();
    let port = Port::tcp(listening.local_addr().unwrap().as_socket().unwrap().port());
    let mut tier = Tier::start([port]);
    listening.listen(8).unwrap();
    for protocol in [None, Some(MPTCP.into())] {
        let client = Socket::new(Domain::IPV4, Type::STREAM, protocol).unwrap();
        client.connect(&listening.local_addr().unwrap()).unwrap();
        let (server, _) = listening.accept().unwrap();
        drop(client);
        drop(server);
    }
    tier.expect(
        port,
        Seen {
            accepted: 2,
            outbound: 2,
            opened: 1,
            connections: 0,
        },
    );
    drop(listening);
    tier.expect(
        port,
        Seen {
            accepted: 2,
            outbound: 2,
            opened: 1,
            connections: 0,
        },
    );
}
