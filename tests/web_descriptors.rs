//! The web front in a process that runs out of file descriptors. Alone in its file, because the limit is the process's.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test's helpers are tests too")]

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use darkport_exporter::counts::Tier;
use darkport_exporter::web::{self, Options, Site};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

struct Fake;

impl Site for Fake {
    fn scrape(&self) -> String {
        "up 1\n".into()
    }

    fn is_ready(&self) -> bool {
        true
    }

    fn tier(&self) -> Tier {
        Tier::Polled
    }
}

#[test]
fn without_descriptors_the_oldest_connection_makes_room() {
    let limit = getrlimit(Resource::Nofile);
    let set = |current| {
        setrlimit(
            Resource::Nofile,
            Rlimit {
                current: Some(current),
                maximum: limit.maximum,
            },
        )
        .unwrap();
    };
    set(64);
    assert_eq!(Options::default().connections, 32);

    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let _inside = runtime.enter();
    let listeners = web::bind(&["127.0.0.1:0".parse().unwrap()]).unwrap();
    let address = listeners[0].local_addr().unwrap();
    let options = Options {
        // More than there can be.
        connections: 1000,
        ..Options::default()
    };
    let front = web::serve(listeners, Arc::new(Fake), options, std::future::pending());
    runtime.spawn(front);

    // Both ends of a connection need a descriptor of this process. The kernel completes connections that the front cannot
    // accept, so this ends when there is none left for this end.
    let mut idle = Vec::new();
    while let Ok(stream) = TcpStream::connect(address) {
        stream
            .set_read_timeout(Some(Duration::from_secs(60)))
            .unwrap();
        idle.push(stream);
    }
    // The last one waits to be accepted, or was by now at the expense of an older one.
    let mut last = idle.pop().unwrap();
    last.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    last.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with("\r\n\r\nup 1\n"), "{answer}");
    // With room again, all is well.
    drop(idle);
    let mut fresh = TcpStream::connect(address).unwrap();
    fresh.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
    answer.clear();
    fresh.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with("\r\n\r\nup 1\n"), "{answer}");
    runtime.shutdown_timeout(Duration::from_secs(1));
}
