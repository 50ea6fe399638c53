//! Short connections, as many as the machine can make.

use std::net::{Ipv4Addr, TcpListener};
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, SockAddr, Socket, Type};

/// How many processors there are.
pub fn processors() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// Connections a second that are opened, accepted and reset at once, by a thread for each processor. Each is both ends
/// of its connections, so that nobody waits for anybody.
pub fn rate(lasts: Duration) -> f64 {
    let start = Instant::now();
    let connections: u32 = thread::scope(|scope| {
        let threads: Vec<_> = (0..processors())
            .map(|_| scope.spawn(move || connect_for(start, lasts)))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("a count"))
            .sum()
    });
    f64::from(connections) / start.elapsed().as_secs_f64()
}

fn connect_for(start: Instant, lasts: Duration) -> u32 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port to listen on");
    let to = SockAddr::from(listener.local_addr().expect("its address"));
    let mut connections = 0;
    while start.elapsed() < lasts {
        let client = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        client.set_linger(Some(Duration::ZERO)).expect("linger");
        client.connect(&to).expect("a connection");
        let server = listener.accept().expect("its other end");
        drop(client);
        drop(server);
        connections += 1;
    }
    connections
}
