use super::*;
use proptest::prelude::*;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const SILENT: u16 = 3476;
const EPHEMERAL: u16 = 40_000;

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

fn cookie(number: u64) -> Option<NonZeroU64> {
    NonZeroU64::new(number)
}

fn listener(port: Port, number: u64) -> Listener {
    Listener {
        port,
        address: HERE,
        cookie: cookie(number),
        inode: Some(7),
        uid: Some(0),
        cgroup: None,
    }
}

fn connection(local: u16, remote: u16, number: u64) -> Connection {
    Connection {
        local: SocketAddr::new(HERE, local),
        remote: SocketAddr::new(HERE, remote),
        established: true,
        cookie: cookie(number),
    }
}

fn table(listeners: &[Listener], connections: &[Connection]) -> SocketTable {
    SocketTable {
        listeners: listeners.to_vec(),
        connections: connections.to_vec(),
        skipped: 0,
    }
}

fn end(port: Port, number: u64, was: Was) -> Destroyed {
    Destroyed {
        port,
        address: HERE,
        cookie: cookie(number).unwrap(),
        was,
    }
}

fn ended(local: u16, remote: u16, number: u64, origin: Origin) -> Destroyed {
    let was = Was::Connection {
        remote: Some(remote),
        synchronised: true,
        origin,
    };
    end(Port::tcp(local), number, was)
}

fn watching(numbers: &[u16], present: &SocketTable) -> Ledger {
    let watched = numbers
        .iter()
        .flat_map(|&number| [Port::tcp(number), Port::udp(number)])
        .collect();
    Ledger::new(watched, present, at(0))
}

fn sample(ledger: &mut Ledger, table: &SocketTable, seconds: u64) {
    ledger.hold();
    ledger.book_table(table, at(seconds));
}

fn accepted(ledger: &Ledger, number: u16) -> u64 {
    ledger.counts(Port::tcp(number)).accepted.unwrap()
}

fn outbound(ledger: &Ledger, number: u16) -> u64 {
    ledger.counts(Port::tcp(number)).outbound.unwrap()
}

fn opened(ledger: &Ledger, port: Port) -> u64 {
    ledger.counts(port).opened.unwrap()
}

#[test]
fn a_table_that_still_shows_what_ended_meanwhile_counts_it_once() {
    let listening = [listener(Port::tcp(SILENT), 1)];
    let mut ledger = watching(&[SILENT], &table(&listening, &[]));
    ledger.hold();
    ledger.book(ended(SILENT, EPHEMERAL, 2, Origin::Unproven), at(1));
    ledger.book_table(
        &table(&listening, &[connection(SILENT, EPHEMERAL, 2)]),
        at(1),
    );
    assert_eq!(accepted(&ledger, SILENT), 1);
    sample(&mut ledger, &table(&listening, &[]), 2);
    assert_eq!(accepted(&ledger, SILENT), 1);
}

#[test]
fn an_end_told_long_after_the_connection_left_the_table_is_not_counted_again() {
    let listening = [listener(Port::tcp(SILENT), 1)];
    let mut ledger = watching(&[SILENT], &table(&listening, &[]));
    sample(
        &mut ledger,
        &table(&listening, &[connection(SILENT, EPHEMERAL, 2)]),
        1,
    );
    for seconds in 2..100 {
        sample(&mut ledger, &table(&listening, &[]), seconds);
    }
    ledger.book(ended(SILENT, EPHEMERAL, 2, Origin::Passive), at(100));
    assert_eq!(accepted(&ledger, SILENT), 1);
}

#[test]
fn a_table_that_failed_releases_what_was_held() {
    let listening = [listener(Port::tcp(SILENT), 1)];
    let mut ledger = watching(&[SILENT], &table(&listening, &[]));
    ledger.hold();
    ledger.book(ended(SILENT, EPHEMERAL, 2, Origin::Unproven), at(1));
    assert_eq!(accepted(&ledger, SILENT), 0);
    ledger.release();
    assert_eq!(accepted(&ledger, SILENT), 1);
    // A table read without holding is no evidence.
    ledger.book_table(
        &table(&listening, &[connection(SILENT, EPHEMERAL, 2)]),
        at(1),
    );
    assert_eq!(accepted(&ledger, SILENT), 1);
}

#[test]
fn a_connection_told_before_its_flash_listener_waits_for_it() {
    let mut ledger = watching(&[SILENT, EPHEMERAL], &SocketTable::default());
    ledger.book(ended(SILENT, EPHEMERAL, 2, Origin::Unproven), at(1));
    ledger.hold();
    ledger.book(end(Port::tcp(SILENT), 1, Was::Listener), at(1));
    ledger.book_table(&SocketTable::default(), at(1));
    assert_eq!(
        (accepted(&ledger, SILENT), outbound(&ledger, EPHEMERAL)),
        (1, 0)
    );
    assert_eq!(opened(&ledger, Port::tcp(SILENT)), 1);
}

#[test]
fn a_flash_listener_on_an_unwatched_port_keeps_its_clients_from_counting_as_outbound() {
    let mut ledger = watching(&[EPHEMERAL], &SocketTable::default());
    ledger.book(end(Port::tcp(22), 1, Was::Listener), at(1));
    ledger.book(ended(22, EPHEMERAL, 2, Origin::Unproven), at(1));
    sample(&mut ledger, &SocketTable::default(), 1);
    assert_eq!(outbound(&ledger, EPHEMERAL), 0);
    assert_eq!(ledger.take_closed(), []);
    // Much later the number may be a client's.
    for seconds in [2, 30, 60] {
        sample(&mut ledger, &SocketTable::default(), seconds);
    }
    ledger.book(ended(22, EPHEMERAL, 3, Origin::Unproven), at(61));
    sample(&mut ledger, &SocketTable::default(), 61);
    assert_eq!(outbound(&ledger, EPHEMERAL), 1);
}

/// A connection to an unwatched port counted as outbound to its client's port once the listener was forgotten.
#[test]
fn a_connection_that_came_in_never_goes_out_however_long_it_outlives_its_listener() {
    let listening = [listener(Port::tcp(EPHEMERAL), 1)];
    let came = [connection(EPHEMERAL, SILENT, 2)];
    for is_flash in [false, true] {
        let mut ledger = watching(&[SILENT], &SocketTable::default());
        if is_flash {
            ledger.book(end(Port::tcp(EPHEMERAL), 1, Was::Listener), at(1));
        } else {
            // As long as the port is listened on, the table shows nothing of what concerns it.
            sample(&mut ledger, &table(&listening, &[]), 1);
        }
        for seconds in [2, 60, 120, 180] {
            sample(&mut ledger, &table(&[], &came), seconds);
        }
        // Listened on again, then not: the table leaves the connection out for a while.
        sample(&mut ledger, &table(&listening, &[]), 240);
        for seconds in [300, 360, 420] {
            sample(&mut ledger, &table(&[], &came), seconds);
        }
        ledger.book(ended(EPHEMERAL, SILENT, 2, Origin::Unproven), at(480));
        sample(&mut ledger, &SocketTable::default(), 481);
        assert_eq!(outbound(&ledger, SILENT), 0);
        assert!(!ledger.used().contains(Port::tcp(SILENT)));
        // The next from there is a client's.
        ledger.book(ended(EPHEMERAL, SILENT, 3, Origin::Unproven), at(482));
        sample(&mut ledger, &SocketTable::default(), 482);
        assert_eq!(outbound(&ledger, SILENT), 1);
    }
}

#[test]
fn a_connection_that_came_in_before_its_client_s_port_was_watched_never_goes_out() {
    let came = [connection(EPHEMERAL, SILENT, 2)];
    let mut ledger = watching(&[609], &table(&[listener(Port::tcp(EPHEMERAL), 1)], &[]));
    let watched = [Port::tcp(609), Port::tcp(SILENT)].into_iter().collect();
    ledger.watch(watched, &table(&[], &came), at(1));
    for seconds in [2, 60, 120, 180] {
        sample(&mut ledger, &table(&[], &came), seconds);
    }
    assert_eq!(outbound(&ledger, SILENT), 0);
}

/// The gauge fell to 0 once the listener was forgotten.
#[test]
fn a_connection_that_outlives_its_listener_stays_in_the_gauge() {
    let came = [connection(SILENT, EPHEMERAL, 2)];
    let gauge = |ledger: &Ledger| ledger.counts(Port::tcp(SILENT)).connections;
    for was_there_before in [false, true] {
        let listening = table(&[listener(Port::tcp(SILENT), 1)], &came);
        let mut ledger = if was_there_before {
            watching(&[SILENT], &listening)
        } else {
            watching(&[SILENT], &SocketTable::default())
        };
        sample(&mut ledger, &listening, 1);
        for seconds in [2, 60, 120, 180] {
            sample(&mut ledger, &table(&[], &came), seconds);
            assert_eq!(gauge(&ledger), Some(1));
        }
        sample(&mut ledger, &SocketTable::default(), 240);
        assert_eq!(gauge(&ledger), Some(0));
    }
}

#[test]
fn a_connection_that_went_out_never_came_in_whoever_listens_there_later() {
    let went = [connection(SILENT, 443, 2)];
    let mut ledger = watching(&[SILENT], &table(&[listener(Port::tcp(SILENT), 1)], &[]));
    for seconds in [1, 60, 120] {
        sample(&mut ledger, &SocketTable::default(), seconds);
    }
    for seconds in [180, 240] {
        sample(&mut ledger, &table(&[], &went), seconds);
    }
    let listening = [listener(Port::tcp(SILENT), 3)];
    sample(&mut ledger, &table(&listening, &went), 300);
    assert_eq!(accepted(&ledger, SILENT), 0);
}

/// The list of listeners is read before that of connections.
#[test]
fn a_connection_to_a_listener_that_came_or_went_while_a_table_was_read_came_in() {
    let listening = [listener(Port::tcp(EPHEMERAL), 1)];
    let came = [connection(EPHEMERAL, SILENT, 2)];
    for watched in [&[SILENT][..], &[SILENT, EPHEMERAL]] {
        let is_watched = u64::from(watched.contains(&EPHEMERAL));
        for came_or_went in 0..3 {
            let mut ledger = watching(watched, &SocketTable::default());
            ledger.hold();
            if came_or_went == 0 {
                ledger.book(end(Port::tcp(EPHEMERAL), 1, Was::Listener), at(1));
            }
            ledger.book_table(&table(&[], &came), at(1));
            let next = match came_or_went {
                0 => table(&[], &came),
                1 => table(&listening, &came[..watched.len() - 1]),
                _ => {
                    // Aborted by this host: the kernel says nothing of the remote port.
                    let was = Was::Connection {
                        remote: None,
                        synchronised: true,
                        origin: Origin::Unproven,
                    };
                    ledger.book(end(Port::tcp(EPHEMERAL), 2, was), at(2));
                    table(&listening, &[])
                }
            };
            sample(&mut ledger, &next, 2);
            assert_eq!(
                (outbound(&ledger, SILENT), ledger.accepted()),
                (0, is_watched),
                "{came_or_went}"
            );
        }
    }
}

#[test]
fn a_connection_that_this_host_aborts_after_a_table_has_shown_it_went_out() {
    let was = Was::Connection {
        remote: None,
        synchronised: true,
        origin: Origin::Unproven,
    };
    for is_told in [false, true] {
        let mut ledger = watching(&[SILENT, EPHEMERAL], &SocketTable::default());
        sample(
            &mut ledger,
            &table(&[], &[connection(EPHEMERAL, SILENT, 2)]),
            1,
        );
        if is_told {
            ledger.book(end(Port::tcp(EPHEMERAL), 2, was), at(2));
        }
        for seconds in [2, 3] {
            sample(&mut ledger, &SocketTable::default(), seconds);
            assert_eq!(outbound(&ledger, SILENT), 1);
        }
    }
}

#[test]
fn what_went_out_from_a_watched_port_is_outbound_only() {
    let mut ledger = watching(&[SILENT, EPHEMERAL], &SocketTable::default());
    for (number, origin) in [(1, Origin::Active), (2, Origin::Unproven)] {
        ledger.book(ended(EPHEMERAL, SILENT, number, origin), at(1));
    }
    let last = table(&[], &[connection(EPHEMERAL, SILENT, 3)]);
    sample(&mut ledger, &last, 1);
    assert_eq!(outbound(&ledger, SILENT), 2);
    sample(&mut ledger, &last, 2);
    assert_eq!(
        (accepted(&ledger, EPHEMERAL), outbound(&ledger, SILENT)),
        (0, 3)
    );
}

#[test]
fn what_was_dialled_from_a_listening_port_is_not_accepted() {
    let mut ledger = watching(&[SILENT], &table(&[listener(Port::tcp(SILENT), 1)], &[]));
    ledger.book(ended(SILENT, EPHEMERAL, 2, Origin::Active), at(1));
    assert_eq!(accepted(&ledger, SILENT), 0);
}

#[test]
fn a_connection_to_a_listener_gone_before_the_start_is_not_counted() {
    let mut ledger = watching(&[SILENT], &SocketTable::default());
    ledger.book(ended(SILENT, EPHEMERAL, 2, Origin::Passive), at(1));
    sample(&mut ledger, &SocketTable::default(), 1);
    assert_eq!(accepted(&ledger, SILENT), 0);
}

#[test]
fn a_disconnected_socket_is_accepted_where_someone_listened() {
    let was = Was::Connection {
        remote: None,
        synchronised: true,
        origin: Origin::Unproven,
    };
    let mut ledger = watching(
        &[SILENT, EPHEMERAL],
        &table(&[listener(Port::tcp(SILENT), 1)], &[]),
    );
    ledger.book(end(Port::tcp(SILENT), 2, was), at(1));
    ledger.book(end(Port::tcp(EPHEMERAL), 3, was), at(1));
    sample(&mut ledger, &SocketTable::default(), 1);
    assert_eq!(
        (accepted(&ledger, SILENT), accepted(&ledger, EPHEMERAL)),
        (1, 0)
    );
}

#[test]
fn an_attempt_counts_nowhere() {
    let mut ledger = watching(&[SILENT], &table(&[listener(Port::tcp(SILENT), 1)], &[]));
    let was = Was::Connection {
        remote: Some(SILENT),
        synchronised: false,
        origin: Origin::Passive,
    };
    ledger.book(end(Port::tcp(SILENT), 2, was), at(1));
    ledger.book(end(Port::tcp(EPHEMERAL), 3, was), at(1));
    sample(&mut ledger, &SocketTable::default(), 1);
    assert_eq!(
        (accepted(&ledger, SILENT), outbound(&ledger, SILENT)),
        (0, 0)
    );
}

#[test]
fn a_listener_counts_once_whether_a_table_or_its_end_shows_it_first() {
    for port in [Port::tcp(SILENT), Port::udp(SILENT)] {
        let mut ledger = watching(&[SILENT], &SocketTable::default());
        sample(&mut ledger, &table(&[listener(port, 1)], &[]), 1);
        assert_eq!(ledger.counts(port).opened_at, Some(at(1)));
        ledger.book(end(port, 1, Was::Listener), at(2));
        ledger.book(end(port, 2, Was::Listener), at(3));
        assert_eq!(opened(&ledger, port), 2);
        assert_eq!(ledger.counts(port).opened_at, Some(at(3)));
        let closed = ledger.take_closed();
        assert_eq!(closed[0], (listener(port, 1), at(2)));
        let (flash, closed_at) = &closed[1];
        assert_eq!(
            (flash.cookie, flash.inode, *closed_at),
            (cookie(2), None, at(3))
        );
    }
}

/// The time of an opening stood still in the future until the clock, once set back, had come there again.
#[test]
fn the_newest_listener_is_told_by_the_clock_as_it_was_set_then() {
    let port = Port::tcp(SILENT);
    let mut ledger = watching(&[SILENT], &SocketTable::default());
    ledger.book(end(port, 1, Was::Listener), at(90_000));
    ledger.book(end(port, 2, Was::Listener), at(3600));
    assert_eq!(ledger.counts(port).opened_at, Some(at(3600)));
}

#[test]
fn ports_used_are_watched_ones_with_something_on_them() {
    let present = table(
        &[listener(Port::udp(SILENT), 1), listener(Port::tcp(22), 2)],
        &[],
    );
    let mut ledger = watching(&[SILENT, 609, 610], &present);
    ledger.book(ended(EPHEMERAL, 609, 3, Origin::Active), at(1));
    assert_eq!(
        ledger.used().iter().collect::<Vec<_>>(),
        [Port::tcp(609), Port::udp(SILENT)]
    );
    assert_eq!(
        ledger.ever_listened().iter().collect::<Vec<_>>(),
        [Port::udp(SILENT)]
    );
}

#[test]
fn sockets_whose_end_never_comes_do_not_pile_up() {
    let listening = [listener(Port::tcp(SILENT), 1)];
    let mut ledger = watching(&[SILENT], &table(&listening, &[]));
    let mut next = 2;
    for seconds in 1..=20 {
        let connections: Vec<_> = (next..next + 10_000)
            .map(|n| connection(SILENT, EPHEMERAL, n))
            .collect();
        next += 10_000;
        sample(&mut ledger, &table(&listening, &connections), seconds);
    }
    assert_eq!(accepted(&ledger, SILENT), 200_000);
    assert!(
        ledger.connections.len() <= MOST_ABSENT + 10_000,
        "{}",
        ledger.connections.len()
    );
    for n in 0..200_000 {
        ledger.book(ended(n as u16, SILENT, next + n, Origin::Unproven), at(21));
    }
    assert!(ledger.undecided.len() <= MOST_UNDECIDED);
    sample(&mut ledger, &table(&listening, &[]), 22);
    // Those from the port that is listened on came in.
    assert_eq!(
        outbound(&ledger, SILENT) + accepted(&ledger, SILENT),
        400_000
    );
}

/// What befalls a connection between two samples.
#[derive(Clone, Copy, Debug)]
enum Step {
    Accept,
    Connect,
    Close(usize),
    Sample { late: usize },
    Rewatch,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => Just(Step::Accept),
        3 => Just(Step::Connect),
        4 => any::<usize>().prop_map(Step::Close),
        2 => (0..4_usize).prop_map(|late| Step::Sample { late }),
        1 => Just(Step::Rewatch),
    ];
    prop::collection::vec(step, 0..120)
}

proptest! {
    /// Connections come and go, ends are told at once, or while a table is being read that still shows them.
    #[test]
    fn every_connection_counts_once(steps in steps(), before in 0..5_u64) {
        let listening = [listener(Port::tcp(SILENT), 1)];
        let mut open: Vec<Connection> = (0..before).map(|n| connection(SILENT, EPHEMERAL, 2 + n)).collect();
        let mut ledger = watching(&[SILENT], &table(&listening, &open));
        let (mut next, mut came, mut went) = (2 + before, 0, 0);
        for (seconds, step) in (1..).zip(steps) {
            match step {
                Step::Accept => {
                    open.push(connection(SILENT, EPHEMERAL, next));
                    (next, came) = (next + 1, came + 1);
                }
                Step::Connect => {
                    open.push(connection(EPHEMERAL, SILENT, next));
                    (next, went) = (next + 1, went + 1);
                }
                Step::Close(which) if !open.is_empty() => {
                    let closed = open.swap_remove(which % open.len());
                    ledger.book(told(&closed), at(seconds));
                }
                Step::Close(_) => {}
                Step::Sample { late } => {
                    ledger.hold();
                    let shown = table(&listening, &open);
                    for closed in open.drain(..late.min(open.len())) {
                        ledger.book(told(&closed), at(seconds));
                    }
                    let earlier = (accepted(&ledger, SILENT), outbound(&ledger, SILENT));
                    ledger.book_table(&shown, at(seconds));
                    prop_assert!(accepted(&ledger, SILENT) >= earlier.0);
                    prop_assert!(outbound(&ledger, SILENT) >= earlier.1);
                }
                Step::Rewatch => {
                    let watched = [Port::tcp(SILENT), Port::tcp(609)].into_iter().collect();
                    ledger.watch(watched, &table(&listening, &open), at(seconds));
                }
            }
        }
        // What went out is not counted before the second table that could show it.
        sample(&mut ledger, &table(&listening, &open), 1000);
        for _ in 0..2 {
            sample(&mut ledger, &table(&listening, &open), 1000);
            prop_assert_eq!(accepted(&ledger, SILENT), came);
            prop_assert_eq!(outbound(&ledger, SILENT), went);
        }
    }
}

fn told(connection: &Connection) -> Destroyed {
    let (local, remote) = ports(connection);
    ended(
        local,
        remote,
        connection.cookie.unwrap().get(),
        Origin::Unproven,
    )
}
