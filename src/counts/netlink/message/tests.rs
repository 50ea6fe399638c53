use super::*;
use proptest::prelude::*;

/// What a socket showed of itself on Linux 6.18: remote port, write queue, and the fields of tcp_info that are read.
#[derive(Clone, Copy, Default)]
struct Shown {
    remote: u16,
    write_queue: u32,
    not_sent: u32,
    advertised_mss: u32,
    rtt: u32,
    acknowledged: u64,
    sent: u64,
    retransmitted: u64,
    delivered: u32,
    window: u32,
}

impl Shown {
    fn message(self, info_length: usize) -> Vec<u8> {
        let mut info = vec![0; 280];
        let mut put = |at: usize, octets: &[u8]| info[at..][..octets.len()].copy_from_slice(octets);
        put(84, &self.advertised_mss.to_ne_bytes());
        put(68, &self.rtt.to_ne_bytes());
        put(120, &self.acknowledged.to_ne_bytes());
        put(144, &self.not_sent.to_ne_bytes());
        put(192, &self.delivered.to_ne_bytes());
        put(200, &self.sent.to_ne_bytes());
        put(208, &self.retransmitted.to_ne_bytes());
        put(228, &self.window.to_ne_bytes());
        info.truncate(info_length);
        let mut bytes = vec![0; ATTRIBUTES];
        bytes[4..6].copy_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
        bytes[DIAG] = AF_INET;
        bytes[LOCAL_PORT..][..2].copy_from_slice(&3476_u16.to_be_bytes());
        bytes[REMOTE_PORT..][..2].copy_from_slice(&self.remote.to_be_bytes());
        bytes[LOCAL_ADDRESS..][..4].copy_from_slice(&[192, 0, 2, 1]);
        bytes[COOKIE] = 0x11;
        bytes[COOKIE + 4] = 0x22;
        bytes[WRITE_QUEUE..][..4].copy_from_slice(&self.write_queue.to_ne_bytes());
        bytes.extend([5, 0, 10, 0, 6, 0, 0, 0]);
        bytes.extend(((ATTRIBUTE_HEADER + info.len()) as u16).to_ne_bytes());
        bytes.extend(INET_DIAG_INFO.to_ne_bytes());
        bytes.extend(info);
        let length = bytes.len() as u32;
        bytes[..4].copy_from_slice(&length.to_ne_bytes());
        bytes
    }

    fn was(self) -> Was {
        Destroyed::parse(&self.message(280), Protocol::Tcp)
            .unwrap()
            .unwrap()
            .was
    }
}

const CONNECTED: Shown = Shown {
    remote: 40_000,
    write_queue: 0,
    not_sent: 0,
    advertised_mss: 65_483,
    rtt: 20,
    acknowledged: 1,
    sent: 0,
    retransmitted: 0,
    delivered: 2,
    window: 65_536,
};

fn connection(remote: Option<u16>, synchronised: bool, origin: Origin) -> Was {
    Was::Connection {
        remote,
        synchronised,
        origin,
    }
}

#[test]
fn a_socket_that_never_connected_was_a_listener() {
    let seen = Destroyed::parse(&Shown::default().message(280), Protocol::Tcp)
        .unwrap()
        .unwrap();
    assert_eq!(seen.was, Was::Listener);
    assert_eq!(seen.port, Port::tcp(3476));
    assert_eq!(seen.address, IpAddr::from([192, 0, 2, 1]));
    assert_eq!(seen.cookie.get(), 0x22_0000_0011);
}

#[test]
fn the_syn_tells_the_active_opener_unless_a_fin_may_be_it() {
    let to = Some(40_000);
    // Client that closed in order, server likewise, and both with data.
    assert_eq!(
        Shown {
            acknowledged: 2,
            ..CONNECTED
        }
        .was(),
        connection(to, true, Origin::Active)
    );
    assert_eq!(CONNECTED.was(), connection(to, true, Origin::Unproven));
    assert_eq!(
        Shown {
            acknowledged: 12,
            sent: 10,
            ..CONNECTED
        }
        .was(),
        connection(to, true, Origin::Active)
    );
    assert_eq!(
        Shown {
            acknowledged: 21,
            sent: 20,
            ..CONNECTED
        }
        .was(),
        connection(to, true, Origin::Unproven)
    );
    // A server whose peer reset it.
    assert_eq!(
        Shown {
            acknowledged: 0,
            delivered: 1,
            ..CONNECTED
        }
        .was(),
        connection(to, true, Origin::Passive)
    );
    // Retransmitted data count once, data that was never sent or never acknowledged are taken away.
    assert_eq!(
        Shown {
            acknowledged: 12,
            sent: 25,
            retransmitted: 15,
            ..CONNECTED
        }
        .was(),
        connection(to, true, Origin::Active)
    );
    assert_eq!(
        Shown {
            acknowledged: 101,
            sent: 150,
            write_queue: 71,
            not_sent: 20,
            ..CONNECTED
        }
        .was(),
        connection(to, true, Origin::Active)
    );
}

#[test]
fn an_attempt_is_no_connection() {
    let refused = Shown {
        rtt: 0,
        acknowledged: 0,
        delivered: 0,
        window: 0,
        write_queue: 1,
        ..CONNECTED
    };
    assert!(matches!(
        refused.was(),
        Was::Connection {
            synchronised: false,
            ..
        }
    ));
    let waited = Shown {
        remote: 0,
        write_queue: 3,
        not_sent: 2,
        ..refused
    };
    assert_eq!(waited.was(), connection(None, false, Origin::Unproven));
}

#[test]
fn a_disconnected_socket_had_a_peer_if_it_heard_of_a_window() {
    let reset = Shown {
        remote: 0,
        rtt: 0,
        acknowledged: 0,
        delivered: 0,
        ..CONNECTED
    };
    assert_eq!(reset.was(), connection(None, true, Origin::Unproven));
}

#[test]
fn an_older_kernel_leaves_more_unproven() {
    // Linux 4.2 ends after the counts of segments.
    let old = Shown {
        acknowledged: 2,
        ..CONNECTED
    }
    .message(144);
    let was = Destroyed::parse(&old, Protocol::Tcp).unwrap().unwrap().was;
    assert_eq!(was, connection(Some(40_000), true, Origin::Unproven));
    let refused = Shown {
        rtt: 0,
        acknowledged: 0,
        ..CONNECTED
    }
    .message(144);
    let was = Destroyed::parse(&refused, Protocol::Tcp)
        .unwrap()
        .unwrap()
        .was;
    assert_eq!(was, connection(Some(40_000), false, Origin::Unproven));
}

#[test]
fn udp_listens_while_it_is_connected_to_nobody() {
    let parse = |remote| {
        let mut bytes = Shown {
            remote,
            ..Shown::default()
        }
        .message(280);
        bytes.truncate(ATTRIBUTES);
        bytes[..4].copy_from_slice(&(ATTRIBUTES as u32).to_ne_bytes());
        Destroyed::parse(&bytes, Protocol::Udp).unwrap()
    };
    assert_eq!(parse(0).unwrap().was, Was::Listener);
    assert_eq!(parse(53), None);
}

#[test]
fn a_socket_that_was_never_bound_is_of_no_concern() {
    let mut bytes = Shown::default().message(280);
    bytes[LOCAL_PORT..][..2].fill(0);
    assert_eq!(Destroyed::parse(&bytes, Protocol::Tcp), Ok(None));
}

#[test]
fn what_is_cut_short_or_no_such_message_is_unreadable() {
    let whole = CONNECTED.message(280);
    for length in 0..ATTRIBUTES {
        assert_eq!(
            Destroyed::parse(&whole[..length], Protocol::Tcp),
            Err(Unreadable),
            "{length}"
        );
    }
    let mut other = whole.clone();
    other[4] = 3;
    assert_eq!(Destroyed::parse(&other, Protocol::Tcp), Err(Unreadable));
    let mut family = whole;
    family[DIAG] = 1;
    assert_eq!(Destroyed::parse(&family, Protocol::Tcp), Err(Unreadable));
}

proptest! {
    #[test]
    fn no_octets_make_it_panic(
        mut bytes in prop::collection::vec(any::<u8>(), 0..500),
        fits in any::<bool>(),
    ) {
        if fits && bytes.len() >= 6 {
            let length = bytes.len() as u32;
            bytes[..4].copy_from_slice(&length.to_ne_bytes());
            bytes[4..6].copy_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
        }
        for protocol in Protocol::ALL {
            let _ = Destroyed::parse(&bytes, protocol);
        }
    }
}
