//! The web front in a process that runs out of file descriptors. Alone in its file, because the limit is the process's.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test's helpers are tests too")]

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use darkport_exporter::api::{Document, Glance};
use darkport_exporter::counts::Tier;
use darkport_exporter::web::{self, Options, Site};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

struct Fake;

impl Site for Fake {
    fn scrape(&self) -> Option<String> {
        Some("up 1\n".into())
    }

    fn ports(&self) -> Option<Document> {
        None
    }

    fn facts(&self) -> Option<Document> {
        None
    }

    fn glance(&self) -> Option<Arc<Glance>> {
        None
    }

    fn is_ready(&self) -> bool {
        true
    }

    fn tier(&self) -> Tier {
        Tier::Polled
    }

    fn reload(&self) -> Result<(), String> {
        Ok(())
    }

    fn config(&self) -> Arc<str> {
        "watch: []\n".into()
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

    let mut idle: Vec<TcpStream> = (0..3)
        .map(|_| {
            let mut stream = TcpStream::connect(address).unwrap();
            assert_eq!(ask(&mut stream), 200);
            stream
        })
        .collect();
    let mut others = Vec::new();
    while let Ok(file) = File::open("/dev/null") {
        others.push(file);
    }
    // One descriptor for this end of a connection; for the other end there is none, until the front makes room.
    others.pop().unwrap();
    let mut newest = TcpStream::connect(address).unwrap();
    assert_eq!(ask(&mut newest), 200);
    assert_eq!(idle[0].read(&mut [0; 16]).unwrap(), 0);
    // accept(2) asks for a descriptor before it looks whether anybody waits, so one more may have made room.
    assert_eq!(ask(&mut idle[2]), 200);

    drop(others);
    assert_eq!(ask(&mut TcpStream::connect(address).unwrap()), 200);
    runtime.shutdown_timeout(Duration::from_secs(1));
}

/// The status of a scrape. The connection stays open.
fn ask(stream: &mut TcpStream) -> u16 {
    stream
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    stream
        .write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        .unwrap();
    let mut buffer = [0; 4096];
    let length = stream.read(&mut buffer).unwrap();
    let text = std::str::from_utf8(&buffer[..length]).unwrap();
    assert!(text.ends_with("\r\n\r\nup 1\n"), "{text}");
    text[9..12].parse().unwrap()
}
