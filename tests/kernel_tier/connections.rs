//! The gauge of established connections: no scrape walks them, and none is counted twice or missed.

use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use darkport_exporter::counts::kernel::{Kernel, Options};
use darkport_exporter::port::{Port, PortSet};
use socket2::{Domain, Socket, Type};

use crate::lab::{Lab, reset, until};
use crate::{DARK, local, local6};

fn pair(listener: &TcpListener) -> (TcpStream, TcpStream) {
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (server, _) = listener.accept().unwrap();
    (client, server)
}

fn tcp_socket() -> Socket {
    Socket::new(Domain::IPV4, Type::STREAM, None).unwrap()
}

fn connections(kernel: &Kernel, port: Port) -> Option<u64> {
    kernel.read().counts(port).connections
}

#[test]
#[ignore = "needs root"]
fn connections_from_before_are_counted_and_taken_off() {
    let _lab = Lab::new("before");
    let v4 = TcpListener::bind(local(DARK)).unwrap();
    let v6 = TcpListener::bind(local6(DARK)).unwrap();
    let mut before: Vec<_> = (0..100).flat_map(|_| [pair(&v4), pair(&v6)]).collect();
    let (mut kernel, _watcher, _) = Kernel::start(&Options::default()).unwrap();
    assert_eq!(connections(&kernel, DARK), None, "not watched yet");
    // Connections that come between the start and the watching.
    before.extend((0..50).map(|_| pair(&v4)));
    kernel.watch(&[DARK].into_iter().collect()).unwrap();
    assert_eq!(connections(&kernel, DARK), Some(250));
    before.extend((0..50).map(|_| pair(&v6)));
    assert_eq!(connections(&kernel, DARK), Some(300));

    // Ended in each way: the client first, the server first, a reset from either end.
    for (index, (client, server)) in before.drain(..200).enumerate() {
        match index % 4 {
            0 => drop((client, server)),
            1 => drop((server, client)),
            2 => reset(client),
            _ => reset(server),
        }
    }
    until("closed ones are off", || {
        connections(&kernel, DARK) == Some(100)
    });
    assert_eq!(kernel.read().counts(DARK).accepted, Some(100));

    // The listener goes, its connections stay.
    drop((v4, v6));
    assert_eq!(connections(&kernel, DARK), Some(100));
    drop(before);
    until("all are off", || connections(&kernel, DARK) == Some(0));
    assert_eq!(kernel.lost(), 0);
}

#[test]
#[ignore = "needs root"]
fn a_port_watched_anew_has_the_right_number() {
    let _lab = Lab::new("anew");
    let other = Port::tcp(561);
    let both: PortSet = [DARK, other].into_iter().collect();
    let listeners = [DARK, other].map(|port| TcpListener::bind(local(port)).unwrap());
    let (mut kernel, _watcher, _) = Kernel::start(&Options::default()).unwrap();
    kernel.watch(&both).unwrap();
    let mut open: Vec<_> = listeners.iter().map(pair).collect();
    kernel.watch(&[DARK].into_iter().collect()).unwrap();
    assert_eq!(connections(&kernel, other), None);
    // One that was counted goes while its port is not watched, two come.
    open.remove(1);
    open.extend((0..2).map(|_| pair(&listeners[1])));
    kernel.watch(&both).unwrap();
    kernel.watch(&both).unwrap();
    until("the other port is right", || {
        connections(&kernel, other) == Some(2)
    });
    assert_eq!(connections(&kernel, DARK), Some(1));
    drop(open);
    until("all are off", || {
        connections(&kernel, other) == Some(0) && connections(&kernel, DARK) == Some(0)
    });
}

/// A connection from a watched port is this host's own.
#[test]
#[ignore = "needs root"]
fn outbound_connections_are_not_among_them() {
    let _lab = Lab::new("own");
    let listener = TcpListener::bind(local(Port::tcp(4000))).unwrap();
    let dial = || {
        let socket = tcp_socket();
        socket.set_reuse_address(true).unwrap();
        socket.bind(&local(DARK).into()).unwrap();
        socket
            .connect(&listener.local_addr().unwrap().into())
            .unwrap();
        socket
    };
    let before = dial();
    let (mut kernel, _watcher, _) = Kernel::start(&Options::default()).unwrap();
    kernel.watch(&PortSet::full()).unwrap();
    assert_eq!(connections(&kernel, DARK), Some(0));
    assert_eq!(connections(&kernel, Port::tcp(4000)), Some(1));
    reset(TcpStream::from(before));
    let after = dial();
    assert_eq!(connections(&kernel, DARK), Some(0));
    assert_eq!(connections(&kernel, Port::tcp(4000)), Some(1));
    reset(TcpStream::from(after));
    assert_eq!(connections(&kernel, DARK), Some(0));
    assert_eq!(connections(&kernel, Port::tcp(4000)), Some(0));
}

/// What tells an accepted connection is the backlog it has from its listener: one without is told otherwise.
#[test]
#[ignore = "needs root"]
fn connections_of_a_listener_without_a_backlog_are_counted_and_taken_off() {
    let _lab = Lab::new("backlog");
    let (mut kernel, _watcher, _) = Kernel::start(&Options::default()).unwrap();
    kernel.watch(&[DARK].into_iter().collect()).unwrap();
    let socket = tcp_socket();
    socket.bind(&local(DARK).into()).unwrap();
    socket.listen(0).unwrap();
    let listener = TcpListener::from(socket);
    let (client, server) = pair(&listener);
    assert_eq!(connections(&kernel, DARK), Some(1));
    let other = pair(&listener);
    assert_eq!(connections(&kernel, DARK), Some(2));
    drop((server, client));
    until("one is off", || connections(&kernel, DARK) == Some(1));
    reset(other.1);
    until("both are off", || connections(&kernel, DARK) == Some(0));
    assert_eq!(kernel.lost(), 0);
}

/// A socket that has listened keeps its backlog, and looks accepted when it connects.
#[test]
#[ignore = "needs root"]
fn a_listener_that_turns_to_connecting_is_outbound() {
    let _lab = Lab::new("turned");
    let elsewhere = TcpListener::bind(local(Port::tcp(4000))).unwrap();
    let (mut kernel, _watcher, _) = Kernel::start(&Options::default()).unwrap();
    kernel.watch(&[DARK].into_iter().collect()).unwrap();
    let turned = tcp_socket();
    turned.set_reuse_address(true).unwrap();
    turned.bind(&local(DARK).into()).unwrap();
    turned.listen(16).unwrap();
    turned.shutdown(Shutdown::Both).unwrap();
    // That nothing is taken off shows only where something is on.
    let listener = TcpListener::bind(("127.0.0.2", DARK.number)).unwrap();
    let standing = pair(&listener);
    assert_eq!(connections(&kernel, DARK), Some(1));
    turned
        .connect(&elsewhere.local_addr().unwrap().into())
        .unwrap();
    let local = turned.local_addr().unwrap().as_socket().unwrap();
    assert_eq!(local.port(), DARK.number);
    assert_eq!(connections(&kernel, DARK), Some(1));
    reset(TcpStream::from(turned));
    assert_eq!(connections(&kernel, DARK), Some(1));
    drop(standing);
    until("the standing one is off", || {
        connections(&kernel, DARK) == Some(0)
    });
    assert_eq!(kernel.lost(), 0);
}

/// Connections open and close on a port all the while the walk over those from before goes on.
#[test]
#[ignore = "needs root"]
fn watching_in_the_midst_of_traffic_counts_none_twice() {
    const PORTS: u16 = 100;
    const STANDING: usize = 4;
    let lab = Lab::new("midst");
    let ports: Vec<_> = (0..PORTS).map(|n| Port::tcp(DARK.number + n)).collect();
    let listeners: Vec<_> = ports
        .iter()
        .map(|&port| TcpListener::bind(local(port)).unwrap())
        .collect();
    let standing: Vec<_> = listeners
        .iter()
        .flat_map(|listener| (0..STANDING).map(move |_| pair(listener)))
        .collect();
    let (mut kernel, _watcher, _) = Kernel::start(&Options::default()).unwrap();
    let (current, ended) = (AtomicUsize::new(0), AtomicBool::new(false));
    let all_have = |kernel: &Kernel, number| {
        ports
            .iter()
            .all(|&port| connections(kernel, port) == Some(number))
    };
    thread::scope(|scope| {
        scope.spawn(|| {
            lab.namespace.enter();
            while !ended.load(Ordering::Relaxed) {
                let (client, server) = pair(&listeners[current.load(Ordering::Relaxed)]);
                reset(client);
                drop(server);
            }
        });
        let mut watched = PortSet::new();
        for (index, &port) in ports.iter().enumerate() {
            current.store(index, Ordering::Relaxed);
            let before = kernel.read().counts(port).accepted;
            until("there is traffic on it", || {
                kernel.read().counts(port).accepted > before
            });
            watched.insert(port);
            kernel.watch(&watched).unwrap();
            kernel.watch(&PortSet::new()).unwrap();
        }
        kernel.watch(&watched).unwrap();
        ended.store(true, Ordering::Relaxed);
    });
    until("only the standing ones are left", || {
        all_have(&kernel, STANDING as u64)
    });
    drop(standing);
    until("none is left", || all_have(&kernel, 0));
}
