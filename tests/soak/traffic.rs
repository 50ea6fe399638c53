//! What is done on and to the host under test, each deed with its entry in the ledger.

use std::io::Read as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};

use darkport_exporter::port::Port;
use socket2::{Domain, Socket, Type};

use crate::ledger::{Count, Ledger};
use crate::support::namespace::{HERE, Namespace, THERE};
use crate::{
    ANSWERED, DARK, DARK_UDP, FILTERED, FILTERED_UDP, FLASH, FLASH_UDP, HELD, LIT, LIT_UDP,
    NOWHERE, PROBED_LIT, TCP, answers_a_sweep,
};

const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// Connections held open at a time.
const MOST_HELD: usize = 5;

/// What listens here for the whole time, and what listens at the neighbour's.
pub(crate) struct Listeners {
    lit: TcpListener,
    held: TcpListener,
    lit_udp: UdpSocket,
    pub(crate) probed: TcpListener,
    answered: TcpListener,
}

impl Listeners {
    pub(crate) fn open(there: &Namespace, ledger: &Ledger) -> Self {
        let tcp =
            |address: Ipv4Addr, port: Port| TcpListener::bind((address, port.number)).unwrap();
        let listeners = Self {
            lit: tcp(Ipv4Addr::UNSPECIFIED, LIT),
            held: tcp(Ipv4Addr::UNSPECIFIED, HELD),
            lit_udp: UdpSocket::bind((Ipv4Addr::UNSPECIFIED, LIT_UDP.number)).unwrap(),
            probed: tcp(Ipv4Addr::UNSPECIFIED, PROBED_LIT),
            answered: there.within(|| tcp(THERE, ANSWERED)),
        };
        listeners.lit_udp.set_nonblocking(true).unwrap();
        ledger.lit([LIT, HELD, LIT_UDP, PROBED_LIT]);
        listeners
    }
}

/// Opens a connection, takes it at the other end, and ends it at either first.
fn converse(listener: &TcpListener, to: SocketAddr, server_first: bool) {
    let client = TcpStream::connect(to).unwrap();
    let (server, _) = listener.accept().unwrap();
    let (mut late, early) = if server_first {
        (client, server)
    } else {
        (server, client)
    };
    drop(early);
    assert_eq!(late.read(&mut [0]).unwrap(), 0);
}

fn is_refused(to: SocketAddr) {
    let error = TcpStream::connect(to).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused, "{to}");
}

/// What this host does by itself.
pub(crate) struct Locals<'a> {
    ledger: &'a Ledger,
    listeners: &'a Listeners,
    /// Connected: one that is not looks like a listener.
    sender: UdpSocket,
    held: Vec<(TcpStream, TcpStream)>,
}

impl<'a> Locals<'a> {
    pub(crate) fn new(ledger: &'a Ledger, listeners: &'a Listeners) -> Self {
        let sender = UdpSocket::bind((LOCALHOST, 0)).unwrap();
        sender.connect((LOCALHOST, DARK_UDP.number)).unwrap();
        Self {
            ledger,
            listeners,
            sender,
            held: Vec::new(),
        }
    }

    /// One of everything.
    pub(crate) fn step(&mut self, turn: u64) {
        use Count::{Accepted, Attempts, Failed, Opened, Outbound, Refused};
        let here = |port: Port| SocketAddr::new(LOCALHOST, port.number);
        let there = |port: Port| SocketAddr::new(THERE.into(), port.number);
        converse(&self.listeners.lit, here(LIT), turn.is_multiple_of(2));
        let counts = &[Attempts, Accepted, Outbound];
        self.ledger
            .note("connections to itself, accepted", LIT, counts);
        is_refused(here(DARK));
        let counts = &[Attempts, Refused, Failed];
        self.ledger
            .note("connections to itself, refused", DARK, counts);
        // That the one before was refused is told now.
        if self.sender.send(b"knock").is_err() {
            self.sender.send(b"knock").unwrap();
        }
        let counts = &[Attempts, Refused];
        self.ledger
            .note("datagrams to itself, refused", DARK_UDP, counts);
        converse(
            &self.listeners.answered,
            there(ANSWERED),
            turn.is_multiple_of(2),
        );
        self.ledger
            .note("connections out, accepted", ANSWERED, &[Outbound]);
        is_refused(there(NOWHERE));
        self.ledger
            .note("connections out, refused", NOWHERE, &[Failed]);
        drop(TcpListener::bind(here(FLASH)).unwrap());
        self.ledger.note("brief TCP listeners", FLASH, &[Opened]);
        drop(UdpSocket::bind(here(FLASH_UDP)).unwrap());
        self.ledger
            .note("brief UDP listeners", FLASH_UDP, &[Opened]);
        if turn.is_multiple_of(10) {
            self.hold();
        }
    }

    /// Holds one connection more, and ends the oldest when they are enough.
    fn hold(&mut self) {
        let client = TcpStream::connect((LOCALHOST, HELD.number)).unwrap();
        let (server, _) = self.listeners.held.accept().unwrap();
        self.held.push((client, server));
        if self.held.len() > MOST_HELD {
            self.held.remove(0);
        }
        let counts = &[Count::Attempts, Count::Accepted, Count::Outbound];
        self.ledger.note("connections held open", HELD, counts);
        self.ledger.connected(HELD, self.held.len());
    }
}

/// What the neighbour does, by a thread in its namespace.
pub(crate) struct Neighbour<'a> {
    ledger: &'a Ledger,
    listeners: &'a Listeners,
    sender: UdpSocket,
}

impl<'a> Neighbour<'a> {
    pub(crate) fn new(ledger: &'a Ledger, listeners: &'a Listeners) -> Self {
        Self {
            ledger,
            listeners,
            sender: UdpSocket::bind((THERE, 0)).unwrap(),
        }
    }

    /// One of everything.
    pub(crate) fn step(&self, turn: u64) {
        use Count::{Accepted, Attempts, Filtered, Refused};
        let at = |port: Port| SocketAddr::new(HERE.into(), port.number);
        converse(&self.listeners.lit, at(LIT), turn.is_multiple_of(2));
        self.ledger
            .note("connections in, accepted", LIT, &[Attempts, Accepted]);
        is_refused(at(DARK));
        self.ledger
            .note("connections in, refused", DARK, &[Attempts, Refused]);
        give_up_at_once(at(FILTERED));
        self.ledger
            .note("connections in, filtered", FILTERED, &[Attempts, Filtered]);
        for (deed, port, counts) in [
            ("datagrams in, taken", LIT_UDP, &[Attempts][..]),
            ("datagrams in, refused", DARK_UDP, &[Attempts, Refused]),
            (
                "datagrams in, filtered",
                FILTERED_UDP,
                &[Attempts, Filtered],
            ),
        ] {
            self.sender.send_to(b"knock", at(port)).unwrap();
            self.ledger.note(deed, port, counts);
        }
        while self.listeners.lit_udp.recv(&mut [0; 8]).is_ok() {}
    }
}

/// Sends one SYN and no second one.
fn give_up_at_once(to: SocketAddr) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_nonblocking(true).unwrap();
    socket.connect(&to.into()).unwrap_err();
}

/// nmap asks every TCP port once, and 50 UDP ports that nobody watches as often as it likes.
pub(crate) fn sweep(there: &Namespace, ledger: &Ledger) {
    there.run(&format!(
        "nmap -sS -Pn -n -p- -T5 --max-retries 0 --min-rate 8000 {HERE}"
    ));
    for port in TCP {
        let counts: &[Count] = match port {
            FILTERED => &[Count::Attempts, Count::Filtered],
            _ if answers_a_sweep(port) => &[Count::Attempts],
            _ => &[Count::Attempts, Count::Refused],
        };
        ledger.note("watched ports swept", port, counts);
    }
    there.run(&format!(
        "nmap -sU -Pn -n -p 20000-20049 -T5 --max-retries 0 {HERE}"
    ));
    ledger.did("sweeps of all TCP ports and 50 UDP ports");
}
