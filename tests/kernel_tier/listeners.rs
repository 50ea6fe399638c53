//! Listeners that live for a moment still have a name.

use std::collections::HashSet;
use std::net::{IpAddr, TcpListener, UdpSocket};
use std::process;
use std::thread;

use darkport_exporter::counts::kernel::{Kernel, Options};
use darkport_exporter::port::{Port, PortSet};

use crate::lab::{Lab, until};
use crate::{DARK, DARK_UDP, local, local6};

/// Opens and closes on each port, alternating IPv4 and IPv6, on a thread of a known name.
fn flash(lab: &Lab, ports: std::ops::Range<u16>) {
    thread::scope(|scope| {
        thread::Builder::new()
            .name("flash".to_owned())
            .spawn_scoped(scope, || {
                lab.namespace.enter();
                for number in ports {
                    let (tcp, udp) = (Port::tcp(number), Port::udp(number));
                    if number % 2 == 0 {
                        TcpListener::bind(local(tcp)).unwrap();
                        UdpSocket::bind(local(udp)).unwrap();
                    } else {
                        TcpListener::bind(local6(tcp)).unwrap();
                        UdpSocket::bind(local6(udp)).unwrap();
                    }
                }
            })
            .unwrap();
    });
}

#[test]
#[ignore = "needs root"]
fn flash_listeners_are_counted_and_named() {
    let lab = Lab::new("flash");
    let started = lab.start();
    flash(&lab, 3000..3500);
    until("all events have come", || {
        started.events.lock().unwrap().len() == 1500
    });
    for number in 3000..3500 {
        for port in [Port::tcp(number), Port::udp(number)] {
            let counts = started.counts(port);
            assert_eq!(counts.opened, Some(1), "{port}");
            assert!(counts.opened_at.is_some());
        }
    }
    assert_eq!(started.kernel.lost(), 0);
    let mut events = started.stop();
    // By socket, in the order in which they came. What opens is done by who calls; what closes, by who closes last: that
    // may be a process that another test is just starting, and that has not yet closed what it does not inherit.
    events.sort_by_key(|event| event.cookie);
    let cookies: HashSet<_> = events.iter().map(|event| event.cookie.unwrap()).collect();
    assert_eq!(cookies.len(), 1000, "a cookie a socket");
    let closed = events.iter().filter(|event| !event.opened).count();
    assert_eq!(closed, 500);
    for pair in events.windows(2).filter(|pair| !pair[1].opened) {
        assert!(pair[0].opened && pair[0].at <= pair[1].at);
        assert_eq!(pair[0].cookie, pair[1].cookie);
        assert_eq!(pair[0].port, pair[1].port);
        assert_eq!(pair[0].address, pair[1].address);
    }
    for opened in events.iter().filter(|event| event.opened) {
        assert_eq!(opened.command, "flash");
        assert_eq!(opened.pid, process::id());
        assert_ne!(opened.thread, opened.pid);
        assert_eq!(opened.uid, 0);
        assert!(opened.cgroup.is_some());
        let local: IpAddr = if opened.port.number % 2 == 0 {
            local(DARK).ip()
        } else {
            local6(DARK).ip()
        };
        assert_eq!(opened.address, local);
        assert!(opened.at.elapsed().unwrap().as_secs() < 60);
    }
}

/// The kernel's number for a socket is the one its owner sees.
#[test]
#[ignore = "needs root"]
fn the_cookie_is_the_sockets_own() {
    let lab = Lab::new("cookie");
    let started = lab.start();
    let tcp = TcpListener::bind(local(DARK)).unwrap();
    let udp = UdpSocket::bind(local(DARK_UDP)).unwrap();
    let cookies = [
        rustix::net::sockopt::socket_cookie(&tcp).unwrap(),
        rustix::net::sockopt::socket_cookie(&udp).unwrap(),
    ];
    until("both have opened", || {
        started.events.lock().unwrap().len() == 2
    });
    let cookie = started.kernel.read().opened_cookie(DARK_UDP).unwrap();
    assert_eq!(cookie.get(), cookies[1]);
    let events = started.stop();
    let seen: Vec<_> = events.iter().map(|e| e.cookie.unwrap().get()).collect();
    assert_eq!(seen, cookies);
}

/// Another namespace's listeners are another's, and a socket that only sends is none.
#[test]
#[ignore = "needs root"]
fn only_listeners_of_the_own_namespace_are_told() {
    let lab = Lab::new("foreign");
    let neighbour = lab.neighbour();
    let started = lab.start();
    neighbour.within(|| {
        TcpListener::bind(local(DARK)).unwrap();
        UdpSocket::bind(local(DARK_UDP)).unwrap();
        std::net::TcpStream::connect(local(DARK)).unwrap_err();
    });
    let sender = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None).unwrap();
    sender
        .send_to(b"knock", &local(Port::udp(4242)).into())
        .unwrap();
    let port = sender.local_addr().unwrap().as_socket().unwrap().port();
    assert_eq!(started.counts(Port::udp(port)).opened, Some(0));
    for port in [DARK, DARK_UDP] {
        let counts = started.counts(port);
        assert_eq!(counts.opened, Some(0));
        assert_eq!(counts.attempts, Some(0));
        assert_eq!(counts.refused, Some(0));
    }
    drop(sender);
    assert_eq!(started.stop(), []);
}

#[test]
#[ignore = "needs root"]
fn unwatched_listeners_are_counted_but_not_told() {
    let _lab = Lab::new("unwatched");
    let (mut kernel, mut watcher, _) = Kernel::start(&Options::default()).unwrap();
    kernel.watch(&[DARK].into_iter().collect()).unwrap();
    TcpListener::bind(local(Port::tcp(561))).unwrap();
    UdpSocket::bind(local(DARK_UDP)).unwrap();
    TcpListener::bind(local(DARK)).unwrap();
    let mut events = Vec::new();
    watcher.drain(|event| events.push((event.port, event.opened)));
    assert_eq!(events, [(DARK, true), (DARK, false)]);
    for port in [Port::tcp(561), DARK_UDP, DARK] {
        assert_eq!(kernel.read().counts(port).opened, Some(1));
    }
}

/// A listener that was never given a port has one all the same, also when it closes.
#[test]
#[ignore = "needs root"]
fn a_listener_without_a_bind_closes_on_its_port() {
    let lab = Lab::new("unbound");
    let started = lab.start();
    let socket = socket2::Socket::new(socket2::Domain::IPV6, socket2::Type::STREAM, None).unwrap();
    socket.listen(1).unwrap();
    let port = socket.local_addr().unwrap().as_socket().unwrap().port();
    drop(socket);
    until("it has opened and closed", || {
        started.events.lock().unwrap().len() == 2
    });
    let events = started.stop();
    assert_eq!(events[0].port, Port::tcp(port));
    assert_eq!(events[1].port, Port::tcp(port));
    assert_eq!(events[0].cookie, events[1].cookie);
}

/// Nobody reads the ring: events are lost and counted as lost, the counters stand.
#[test]
#[ignore = "needs root"]
fn an_overrun_costs_events_and_no_counts() {
    let lab = Lab::new("overrun");
    let (mut kernel, mut watcher, _) = Kernel::start(&Options::default()).unwrap();
    kernel.watch(&PortSet::full()).unwrap();
    flash(&lab, 2000..4000);
    let mut events = 0_u64;
    watcher.drain(|_| events += 1);
    assert!(kernel.lost() > 0);
    assert_eq!(events + kernel.lost(), 6000);
    for number in 2000..4000 {
        assert_eq!(kernel.read().counts(Port::tcp(number)).opened, Some(1));
        assert_eq!(kernel.read().counts(Port::udp(number)).opened, Some(1));
    }
    let lost = kernel.lost();
    flash(&lab, 4000..4001);
    let mut after = Vec::new();
    watcher.drain(|event| after.push(event.port));
    assert_eq!(after.len(), 3);
    assert_eq!(kernel.lost(), lost);
}
