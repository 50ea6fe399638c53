//! What the log says when the netlink tier is overrun: once, with the cure. Alone in its process, for the log is the process's.

#![cfg(target_os = "linux")]

use std::io::Write;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use darkport_exporter::counts::netlink::{Netlink, Options};
use darkport_exporter::port::{Port, PortSet};
use darkport_exporter::sockets::SocketTable;

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn an_overrun_is_told_once_with_its_cure() {
    let log = Log::default();
    let writer = log.clone();
    tracing_subscriber::fmt()
        .with_writer(move || writer.clone())
        .init();
    let port = {
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        free.local_addr().unwrap().port()
    };
    let watched: PortSet = [Port::tcp(port)].into_iter().collect();
    let options = Options {
        receive_buffer: Some(4096),
    };
    let mut tier = Netlink::start_with(&watched, &SocketTable::default(), options).unwrap();
    for _ in 0..2 {
        let before = tier.lost();
        let paused = tier.pause();
        for _ in 0..500 {
            drop(TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap());
        }
        drop(paused);
        let start = Instant::now();
        while tier.lost() == before {
            assert!(
                start.elapsed() < Duration::from_secs(60),
                "nothing was lost"
            );
            tier.before_read();
            tier.after_read(&SocketTable::default(), SystemTime::now());
        }
    }
    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert_eq!(text.matches("counters fall short").count(), 1, "{text}");
    assert!(text.contains("net.core.rmem_max"), "{text}");
}
