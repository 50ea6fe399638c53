//! The readers of the socket table against real sockets of this host, and against each other.
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "the lints spare test functions only, not what they share"
)]

use std::collections::BTreeMap;
use std::net::{
    IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket,
};
use std::os::linux::fs::MetadataExt;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use darkport_exporter::counts::polled::Polled;
use darkport_exporter::port::{Port, PortSet, Protocol};
use darkport_exporter::sockets::{
    Choice, Connection, Error, Listener, Reader, SocketTable, Wanted,
};
use socket2::{Domain, SockAddr, Socket, Type};

const READERS: [Choice; 3] = [Choice::Netlink, Choice::Netstat2, Choice::Procfs];
const LOCALHOST: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
const LOCALHOST_V6: SocketAddr = SocketAddr::new(IpAddr::V6(Ipv6Addr::LOCALHOST), 0);

/// The loopback addresses of this host: that of IPv6 is missing where IPv6 is turned off.
fn loopbacks() -> Vec<SocketAddr> {
    let addresses = std::fs::read_to_string("/proc/net/if_inet6").unwrap_or_default();
    let mut loopbacks = vec![LOCALHOST];
    if addresses
        .lines()
        .any(|line| line.starts_with(&format!("{:032x}", 1)))
    {
        loopbacks.push(LOCALHOST_V6);
    }
    loopbacks
}

/// A socket on each loopback address.
fn bound<T>(bind: impl Fn(SocketAddr) -> std::io::Result<T>) -> Vec<T> {
    loopbacks()
        .into_iter()
        .map(|address| bind(address).unwrap())
        .collect()
}

fn open(choice: Choice) -> Reader {
    let (reader, refused) = Reader::open(choice, Vec::new()).unwrap();
    assert_eq!(reader.choice(), choice);
    assert!(refused.0.is_empty());
    reader
}

fn read(choice: Choice, wanted: Wanted<'_>) -> SocketTable {
    let table = open(choice).read(wanted).unwrap();
    assert_eq!(table.skipped, 0);
    table
}

/// What a reader says listens on a port.
fn listeners(choice: Choice, port: Port) -> Vec<Listener> {
    let table = read(choice, Wanted::Listeners);
    assert_eq!(table.connections, []);
    let on_port = table.listeners.into_iter();
    on_port.filter(|listener| listener.port == port).collect()
}

/// The connections that concern `watched`, of those that have `port` at either end.
fn connections(
    choice: Choice,
    watched: &PortSet,
    listened: &PortSet,
    port: u16,
) -> Vec<Connection> {
    let wanted = Wanted::Connections { watched, listened };
    let mut found = read(choice, wanted).connections;
    found.retain(|connection| {
        [connection.local, connection.remote]
            .map(|end| end.port())
            .contains(&port)
    });
    found.sort_by_key(|connection| connection.local.port() != port);
    found
}

/// Tries until it holds; what it last saw is in the message if it never does.
fn eventually<T: std::fmt::Debug>(mut attempt: impl FnMut() -> Result<(), T>) {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        match attempt() {
            Ok(()) => return,
            Err(seen) => assert!(Instant::now() < deadline, "at the deadline: {seen:#?}"),
        }
        std::thread::yield_now();
    }
}

/// Inode and user id as the process itself sees them.
fn identity(socket: &impl std::os::fd::AsRawFd) -> (Option<u64>, Option<u32>) {
    let file = std::fs::metadata(format!("/proc/self/fd/{}", socket.as_raw_fd())).unwrap();
    (Some(file.st_ino()), Some(file.st_uid()))
}

fn listening(domain: Domain, protocol: Option<socket2::Protocol>, address: SocketAddr) -> Socket {
    let socket = Socket::new(domain, Type::STREAM, protocol).unwrap();
    socket.set_reuse_port(true).unwrap();
    if domain == Domain::IPV6 {
        socket.set_only_v6(false).unwrap();
    }
    socket.bind(&SockAddr::from(address)).unwrap();
    socket.listen(16).unwrap();
    socket
}

fn number(socket: &Socket) -> u16 {
    socket.local_addr().unwrap().as_socket().unwrap().port()
}

/// Every reader shows exactly this listener on its port.
fn assert_one(port: Port, address: IpAddr, socket: &impl std::os::fd::AsRawFd) {
    for choice in READERS {
        let found = listeners(choice, port);
        assert_eq!(found.len(), 1, "{choice:?}: {found:?}");
        assert_eq!(found[0].address, address, "{choice:?}");
        assert_eq!(
            (found[0].inode, found[0].uid),
            identity(socket),
            "{choice:?}"
        );
        assert_eq!(found[0].cookie.is_some(), choice == Choice::Netlink);
    }
}

#[test]
fn tcp_listeners_of_both_families_are_shown_until_closed() {
    for address in loopbacks() {
        let listener = TcpListener::bind(address).unwrap();
        let port = Port::tcp(listener.local_addr().unwrap().port());
        assert_one(port, address.ip(), &listener);
        drop(listener);
        for choice in READERS {
            assert_eq!(listeners(choice, port), []);
        }
    }
}

#[test]
fn a_listener_of_both_families_is_one_listener() {
    let everywhere = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0));
    let socket = listening(Domain::IPV6, None, everywhere);
    assert_one(Port::tcp(number(&socket)), everywhere.ip(), &socket);
}

#[test]
fn a_listener_bound_to_a_mapped_address_is_shown_as_ipv4() {
    let mapped = SocketAddr::from((Ipv4Addr::LOCALHOST.to_ipv6_mapped(), 0));
    let socket = listening(Domain::IPV6, None, mapped);
    assert_one(Port::tcp(number(&socket)), LOCALHOST.ip(), &socket);
}

#[test]
fn a_multipath_tcp_listener_is_one_listener_with_the_inode_its_process_sees() {
    // Only a kernel without it, or told to do without, may refuse it.
    let enabled = std::fs::read_to_string("/proc/sys/net/mptcp/enabled");
    let enabled = enabled.is_ok_and(|enabled| enabled.trim() == "1");
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(socket2::Protocol::MPTCP));
    assert_eq!(socket.is_ok(), enabled, "{socket:?}");
    if enabled {
        let socket = listening(Domain::IPV4, Some(socket2::Protocol::MPTCP), LOCALHOST);
        assert_one(Port::tcp(number(&socket)), LOCALHOST.ip(), &socket);
    }
}

#[test]
fn four_listeners_on_one_port_are_four() {
    let first = listening(Domain::IPV4, None, LOCALHOST);
    let address = first.local_addr().unwrap().as_socket().unwrap();
    let more = [(); 3].map(|()| listening(Domain::IPV4, None, address));
    for choice in READERS {
        let found = listeners(choice, Port::tcp(address.port()));
        assert_eq!(found.len(), 1 + more.len(), "{choice:?}");
        let mut inodes: Vec<_> = found.iter().map(|listener| listener.inode).collect();
        inodes.sort_unstable();
        inodes.dedup();
        assert_eq!(inodes.len(), found.len());
    }
}

#[test]
fn a_bound_udp_socket_listens_until_it_is_connected() {
    for address in loopbacks() {
        let peer = UdpSocket::bind(address).unwrap();
        let socket = UdpSocket::bind(address).unwrap();
        let port = Port::udp(socket.local_addr().unwrap().port());
        assert_one(port, address.ip(), &socket);
        socket.connect(peer.local_addr().unwrap()).unwrap();
        for choice in READERS {
            assert_eq!(listeners(choice, port), [], "{choice:?}");
        }
    }
}

#[test]
fn a_port_listened_on_by_tcp_is_not_listened_on_by_udp() {
    let listener = TcpListener::bind(LOCALHOST).unwrap();
    let number = listener.local_addr().unwrap().port();
    for choice in READERS {
        assert_eq!(listeners(choice, Port::udp(number)), []);
    }
}

/// A connection over loopback: what listened, the end that dialled, the end that was dialled.
struct Pair {
    listener: TcpListener,
    dialled: TcpStream,
    accepted: TcpStream,
}

impl Pair {
    fn new(address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let dialled = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let accepted = listener.accept().unwrap().0;
        Self {
            listener,
            dialled,
            accepted,
        }
    }

    fn port(&self) -> u16 {
        self.listener.local_addr().unwrap().port()
    }

    fn client(&self) -> SocketAddr {
        self.dialled.local_addr().unwrap()
    }
}

fn tcp(numbers: impl IntoIterator<Item = u16>) -> PortSet {
    numbers.into_iter().map(Port::tcp).collect()
}

#[test]
fn a_connection_to_a_watched_port_is_shown_from_both_ends() {
    for address in loopbacks() {
        let pair = Pair::new(address);
        let server = pair.accepted.local_addr().unwrap();
        for choice in READERS {
            let found = connections(choice, &tcp([pair.port()]), &PortSet::new(), pair.port());
            let ends: Vec<_> = found
                .iter()
                .map(|c| (c.local, c.remote, c.established))
                .collect();
            assert_eq!(
                ends,
                [(server, pair.client(), true), (pair.client(), server, true)],
                "{choice:?}"
            );
            assert!(
                found
                    .iter()
                    .all(|c| c.cookie.is_some() == (choice == Choice::Netlink))
            );
        }
    }
}

#[test]
fn an_ipv4_connection_to_a_listener_of_both_families_is_shown_as_ipv4() {
    let socket = listening(
        Domain::IPV6,
        None,
        SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    );
    let server = SocketAddr::new(LOCALHOST.ip(), number(&socket));
    let client = TcpStream::connect(server).unwrap();
    let _accepted = socket.accept().unwrap();
    for choice in READERS {
        let found = connections(
            choice,
            &tcp([server.port()]),
            &PortSet::new(),
            server.port(),
        );
        assert_eq!(found.len(), 2, "{choice:?}");
        assert_eq!(
            (found[0].local, found[0].remote),
            (server, client.local_addr().unwrap())
        );
    }
}

#[test]
fn a_connection_that_concerns_no_watched_port_is_not_shown() {
    let pair = Pair::new(LOCALHOST);
    for choice in READERS {
        let mut watched = PortSet::full();
        watched.remove(Port::tcp(pair.port()));
        // Watched, but where it is local it is the end that dialled, and where it is remote the local end was dialled.
        assert!(watched.contains(Port::tcp(pair.client().port())));
        assert_eq!(
            connections(choice, &watched, &PortSet::new(), pair.port()),
            [],
            "{choice:?}"
        );
        assert_eq!(
            connections(choice, &PortSet::new(), &PortSet::full(), pair.port()),
            []
        );
    }
}

#[test]
fn an_inbound_connection_outlives_its_listener_where_that_is_remembered() {
    let Pair {
        listener,
        dialled,
        accepted,
    } = Pair::new(LOCALHOST);
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let watched = tcp([port]);
    for choice in READERS {
        let both = connections(choice, &watched, &watched, port);
        assert_eq!(both.len(), 2, "{choice:?}");
        let outbound = connections(choice, &watched, &PortSet::new(), port);
        assert_eq!(outbound.len(), 1, "{choice:?}");
        assert_eq!(outbound[0].local, dialled.local_addr().unwrap());
        assert_eq!(outbound[0].remote, accepted.local_addr().unwrap());
    }
}

/// It counted as outbound to its client's port, which the other end chooses, once its listener had closed.
#[test]
fn a_connection_to_an_unwatched_port_does_not_turn_into_an_outbound_one() {
    for choice in READERS {
        let pair = Pair::new(LOCALHOST);
        let client = Port::tcp(pair.client().port());
        let watched = tcp([client.number]);
        let mut reader = open(choice);
        let mut polled = Polled::new(&watched);
        let mut sample = || {
            let wanted = Wanted::Connections {
                watched: &watched,
                listened: polled.listened(),
            };
            let table = reader.read(wanted).unwrap();
            polled.update(&table, SystemTime::now());
            (
                polled.counts(client).outbound,
                polled.used().contains(client),
            )
        };
        assert_eq!(sample(), (Some(0), false));
        let Pair {
            listener,
            dialled,
            accepted,
        } = pair;
        drop(listener);
        for _ in 0..3 {
            assert_eq!(sample(), (Some(0), false), "{choice:?}");
        }
        drop((dialled, accepted));
    }
}

#[test]
fn however_many_ranges_are_watched_the_kernel_takes_the_filter() {
    let pair = Pair::new(LOCALHOST);
    // Alone, in 900 ranges, in 16,384, and everything.
    for step in [0_u16, 72, 4, 1] {
        let mut watched = match step {
            0 => PortSet::new(),
            step => tcp((0..=u16::MAX).step_by(step.into())),
        };
        watched.insert(Port::tcp(pair.port()));
        let listened = tcp((1..=u16::MAX).step_by(64));
        let mut by_reader =
            READERS.map(|choice| connections(choice, &watched, &listened, pair.port()));
        assert_eq!(by_reader[0].len(), 2);
        for connection in by_reader.iter_mut().flatten() {
            connection.cookie = None;
        }
        assert_eq!(by_reader[0], by_reader[1], "every {step}th");
        assert_eq!(by_reader[0], by_reader[2], "every {step}th");
    }
}

#[test]
fn a_half_closed_connection_is_shown_and_a_time_wait_is_not() {
    let pair = Pair::new(LOCALHOST);
    let (port, client) = (pair.port(), pair.client());
    let watched = tcp([port]);
    pair.dialled.shutdown(Shutdown::Write).unwrap();
    for choice in READERS {
        eventually(|| {
            let found = connections(choice, &watched, &PortSet::new(), port);
            match found.iter().all(|c| !c.established) && found.len() == 2 {
                true => Ok(()),
                false => Err(found),
            }
        });
    }
    drop((pair.dialled, pair.accepted));
    eventually(|| match state(client) {
        Some(state) if state == "06" => Ok(()),
        other => Err(other),
    });
    for choice in READERS {
        assert_eq!(
            connections(choice, &watched, &PortSet::new(), port),
            [],
            "{choice:?}"
        );
    }
    assert_eq!(
        state(client).as_deref(),
        Some("06"),
        "TIME-WAIT until the last look"
    );
}

/// The state of the IPv4 connection with this local end, as `/proc/net/tcp` writes it.
fn state(local: SocketAddr) -> Option<String> {
    let SocketAddr::V4(local) = local else {
        panic!("{local} is not IPv4");
    };
    let end = format!(
        "{:08X}:{:04X}",
        u32::from(*local.ip()).swap_bytes(),
        local.port()
    );
    std::fs::read_to_string("/proc/net/tcp")
        .unwrap()
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .find(|fields| fields.get(1) == Some(&end.as_str()))
        .map(|fields| fields[3].to_owned())
}

/// Listeners as every reader can tell them, counted.
type Census = BTreeMap<(Port, IpAddr, Option<u64>, Option<u32>), usize>;

fn census(table: &SocketTable) -> Census {
    let mut census = Census::new();
    for listener in &table.listeners {
        let key = (
            listener.port,
            listener.address,
            listener.inode,
            listener.uid,
        );
        *census.entry(key).or_default() += 1;
    }
    census
}

#[test]
fn all_readers_show_the_same_host() {
    let _tcp = bound(TcpListener::bind);
    let _udp = bound(UdpSocket::bind);
    for other in [Choice::Netstat2, Choice::Procfs] {
        let [mut netlink, mut other] = [Choice::Netlink, other].map(open);
        // Other tests come and go on this host: only a moment in which nothing changed counts.
        eventually(|| {
            let before = census(&netlink.read(Wanted::Listeners).unwrap());
            let between = census(&other.read(Wanted::Listeners).unwrap());
            let after = census(&netlink.read(Wanted::Listeners).unwrap());
            match before == after && before == between {
                true => Ok(()),
                false => Err((before, between, after)),
            }
        });
    }
}

#[test]
fn a_table_without_the_own_listener_is_an_error() {
    for choice in READERS {
        let listener = TcpListener::bind(LOCALHOST).unwrap();
        let own = listener.local_addr().unwrap();
        let (mut reader, _) = Reader::open(choice, vec![own]).unwrap();
        assert!(reader.read(Wanted::Listeners).is_ok());
        drop(listener);
        let error = reader.read(Wanted::Listeners).unwrap_err();
        assert!(matches!(error, Error::Incomplete(_)));
        let message = error.to_string();
        assert!(
            message.contains(&own.to_string()) && message.contains(choice.as_str()),
            "{message}"
        );
        assert!(Reader::open(choice, vec![own]).is_err());
    }
}

#[test]
fn netlink_is_the_first_choice() {
    let (reader, refused) = Reader::open(Choice::Auto, Vec::new()).unwrap();
    assert_eq!(reader.choice(), Choice::Netlink);
    assert!(refused.0.is_empty());
}

#[test]
fn where_no_reader_gives_a_whole_table_each_is_told_with_its_reason() {
    let gone = TcpListener::bind(LOCALHOST).unwrap().local_addr().unwrap();
    let error = Reader::open(Choice::Auto, vec![gone]).unwrap_err();
    let Error::Unavailable(refused) = &error else {
        panic!("{error}");
    };
    let tried: Vec<Choice> = refused.0.iter().map(|(choice, _)| *choice).collect();
    assert_eq!(tried, READERS);
    let message = error.to_string();
    for choice in READERS {
        assert!(
            message.contains(&format!("{}: ", choice.as_str())),
            "{message}"
        );
    }
}

#[test]
#[ignore = "needs iproute2"]
fn ss_shows_the_same_listeners() {
    let _tcp = bound(TcpListener::bind);
    let _udp = bound(UdpSocket::bind);
    let _both = listening(
        Domain::IPV6,
        None,
        SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    );
    let mut reader = open(Choice::Netlink);
    eventually(|| {
        let table = reader.read(Wanted::Listeners).unwrap();
        let mut ours: Vec<_> = table
            .listeners
            .iter()
            .map(|l| (l.port, l.address))
            .collect();
        ours.sort_unstable();
        let theirs = ss();
        match ours == theirs {
            true => Ok(()),
            false => Err((ours, theirs)),
        }
    });
}

/// Port and address of everything `ss -lntu` lists.
fn ss() -> Vec<(Port, IpAddr)> {
    let run = Command::new("ss")
        .args(["-H", "-l", "-n", "-t", "-u"])
        .output()
        .expect("ss, of the Debian package iproute2");
    assert!(run.status.success());
    let mut shown: Vec<_> = String::from_utf8(run.stdout)
        .unwrap()
        .lines()
        .map(|line| {
            let fields: Vec<_> = line.split_whitespace().collect();
            let protocol: Protocol = fields[0].parse().unwrap();
            let (address, number) = fields[4].rsplit_once(':').unwrap();
            let address = address.split('%').next().unwrap();
            let address = match address.trim_matches(['[', ']']) {
                // So it writes a socket of both families.
                "*" => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
                address => address.parse::<IpAddr>().unwrap().to_canonical(),
            };
            let number = number.parse().unwrap();
            (Port { number, protocol }, address)
        })
        .collect();
    shown.sort_unstable();
    shown
}
