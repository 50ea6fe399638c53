use super::*;
use crate::port::Port;
use proptest::prelude::*;

/// A message as the kernel lays it out: header, ports, an attribute of no interest, and for TCP its tcp_info.
fn message(local: u16, remote: u16, advertised_mss: Option<u32>) -> Vec<u8> {
    let mut bytes = vec![0; message::ATTRIBUTES];
    bytes[message::LOCAL_PORT..][..2].copy_from_slice(&local.to_be_bytes());
    bytes[message::REMOTE_PORT..][..2].copy_from_slice(&remote.to_be_bytes());
    bytes.extend(5_u16.to_ne_bytes());
    bytes.extend(10_u16.to_ne_bytes());
    bytes.extend([6, 0, 0, 0]);
    if let Some(mss) = advertised_mss {
        let mut info = vec![0xff; 280];
        info[message::ADVERTISED_MSS..][..4].copy_from_slice(&mss.to_ne_bytes());
        bytes.extend(284_u16.to_ne_bytes());
        bytes.extend(message::INET_DIAG_INFO.to_ne_bytes());
        bytes.extend(info);
    }
    bytes
}

/// Runs a program as the kernel does: true where it lets the message pass.
fn passes(program: &[Instruction], message: &[u8]) -> bool {
    let (mut accumulator, mut index, mut at) = (0_u32, 0_u32, 0_usize);
    let word = |offset: usize| {
        message
            .get(offset..offset + 4)
            .map(|b| u32::from_be_bytes(b.try_into().unwrap()))
    };
    loop {
        let Instruction { code, jt, jf, k } = program[at];
        at += 1;
        let mut branch = |taken: bool| at += usize::from(if taken { jt } else { jf });
        match code {
            LOAD_HALF => {
                let octets = message[k as usize..][..2].try_into().unwrap();
                accumulator = u32::from(u16::from_be_bytes(octets));
            }
            LOAD_WORD if k == FIND_ATTRIBUTE => {
                accumulator = find(message, accumulator as usize, index) as u32;
            }
            LOAD_WORD_AT_INDEX => match word((index + k) as usize) {
                Some(value) => accumulator = value,
                None => return false,
            },
            LOAD_IMMEDIATE => accumulator = k,
            INDEX_IMMEDIATE => index = k,
            INDEX_FROM_ACCUMULATOR => index = accumulator,
            INDEX_XOR => accumulator ^= index,
            AND => accumulator &= k,
            JUMP => at += k as usize,
            JUMP_EQUAL => branch(accumulator == k),
            JUMP_GREATER => branch(accumulator > k),
            JUMP_NOT_LESS => branch(accumulator >= k),
            RETURN => return k != 0,
            _ => panic!("unknown instruction {code:#x}"),
        }
    }
}

fn find(message: &[u8], mut at: usize, kind: u32) -> usize {
    while at + 4 <= message.len() {
        let half = |at: usize| u16::from_ne_bytes(message[at..at + 2].try_into().unwrap());
        if u32::from(half(at + 2)) == kind {
            return at;
        }
        at += usize::from(half(at)).next_multiple_of(4);
    }
    0
}

/// As many spans as the default watch set has, spread over the space; none holds port 0.
fn scattered(protocol: Protocol, spans: u16) -> PortSet {
    (0..spans)
        .flat_map(|n| {
            let first = 7 + n * (65_000 / spans) + n % 5;
            first..=first + n % 3
        })
        .map(|number| Port { number, protocol })
        .collect()
}

#[test]
fn every_port_is_told_on_either_side_for_tcp() {
    for spans in [1, 2, 3, 100, 816, 1000] {
        let watched = scattered(Protocol::Tcp, spans);
        let program = compile(&watched, Protocol::Tcp, Share::WHOLE, MAX_SPANS);
        assert!(
            program.len() <= MAX_INSTRUCTIONS,
            "{spans} spans take {}",
            program.len()
        );
        let unwatched = 3;
        assert!(!watched.contains(Port::tcp(unwatched)));
        for number in 1..=u16::MAX {
            let is_watched = watched.contains(Port::tcp(number));
            assert_eq!(
                passes(&program, &message(number, unwatched, Some(1460))),
                is_watched,
                "{number}"
            );
            assert_eq!(
                passes(&program, &message(unwatched, number, Some(1460))),
                is_watched,
                "{number}"
            );
        }
    }
}

#[test]
fn every_port_is_told_for_udp_and_connected_sockets_never_pass() {
    let watched = scattered(Protocol::Udp, 740);
    let program = compile(&watched, Protocol::Udp, Share::WHOLE, MAX_SPANS);
    for number in 0..=u16::MAX {
        let is_watched = watched.contains(Port::udp(number));
        assert_eq!(
            passes(&program, &message(number, 0, None)),
            is_watched,
            "{number}"
        );
        assert!(!passes(&program, &message(number, 53, None)), "{number}");
        assert!(!passes(&program, &message(0, number, None)), "{number}");
    }
}

#[test]
fn a_tcp_listener_passes_whatever_its_port() {
    let program = compile(
        &scattered(Protocol::Tcp, 816),
        Protocol::Tcp,
        Share::WHOLE,
        MAX_SPANS,
    );
    for number in 1..=u16::MAX {
        assert!(passes(&program, &message(number, 0, Some(0))), "{number}");
    }
    // The kernel says nothing of the connection: look.
    assert!(passes(&program, &message(3, 0, None)));
    // Disconnected, on a port that is not watched.
    assert!(!passes(&program, &message(3, 0, Some(1460))));
    // Never bound.
    assert!(!passes(&program, &message(0, 0, Some(0))));
}

#[test]
fn every_message_is_of_exactly_one_share() {
    let watched = PortSet::full();
    for protocol in Protocol::ALL {
        let programs: Vec<_> = (0..4)
            .map(|index| compile(&watched, protocol, Share { index, of: 4 }, MAX_SPANS))
            .collect();
        let mut passed = [0; 4];
        // The ports the kernel hands out for outbound connections.
        for number in (32_768..60_999).step_by(2) {
            let of_tcp = (protocol == Protocol::Tcp).then_some(1460);
            let remote = of_tcp.map_or(0, |_| 3476);
            let takers: Vec<_> = (0..4)
                .filter(|&part| passes(&programs[part], &message(number, remote, of_tcp)))
                .collect();
            assert_eq!(takers.len(), 1, "{number}");
            passed[takers[0]] += 1;
        }
        assert!(passed.iter().all(|&count| count > 3000), "{passed:?}");
    }
    let most = compile(
        &scattered(Protocol::Tcp, 1000),
        Protocol::Tcp,
        Share { index: 3, of: 4 },
        MAX_SPANS,
    );
    assert!(most.len() <= MAX_INSTRUCTIONS);
}

#[test]
fn nothing_watched_lets_nothing_pass() {
    let program = compile(&PortSet::new(), Protocol::Tcp, Share::WHOLE, MAX_SPANS);
    assert!(!passes(&program, &message(3476, 0, Some(0))));
    assert!(!passes(&program, &message(3476, 3476, Some(1460))));
}

#[test]
fn too_many_spans_let_more_pass_never_less() {
    let watched: PortSet = (1..=u16::MAX).step_by(2).map(Port::tcp).collect();
    for spans in [MAX_SPANS, 10, 1] {
        let program = compile(&watched, Protocol::Tcp, Share::WHOLE, spans);
        assert!(program.len() <= MAX_INSTRUCTIONS);
        for number in (1..=u16::MAX).step_by(2) {
            assert!(passes(&program, &message(number, 2, Some(1460))));
            assert!(passes(&program, &message(2, number, Some(1460))));
        }
    }
}

#[test]
fn the_narrowest_gaps_are_closed_first() {
    let span = |first, last| Span { first, last };
    let spans = vec![
        span(1, 1),
        span(3, 4),
        span(100, 200),
        span(210, 210),
        span(900, 900),
    ];
    assert_eq!(
        merged(spans.clone(), 4),
        [span(1, 4), span(100, 200), span(210, 210), span(900, 900)]
    );
    assert_eq!(
        merged(spans.clone(), 3),
        [span(1, 4), span(100, 210), span(900, 900)]
    );
    assert_eq!(merged(spans.clone(), 1), [span(1, 900)]);
    assert_eq!(merged(spans.clone(), 9), spans);
}

proptest! {
    #[test]
    fn a_program_agrees_with_the_set(
        ports in prop::collection::btree_set(1..=u16::MAX, 1..400),
        local in 1..=u16::MAX,
        remote in 1..=u16::MAX,
    ) {
        let tcp: PortSet = ports.iter().copied().map(Port::tcp).collect();
        let program = compile(&tcp, Protocol::Tcp, Share::WHOLE, MAX_SPANS);
        let expected = ports.contains(&local) || ports.contains(&remote);
        prop_assert_eq!(passes(&program, &message(local, remote, Some(1))), expected);
        for &port in &ports {
            prop_assert!(passes(&program, &message(local, port, Some(1))));
            prop_assert!(passes(&program, &message(port, remote, Some(1))));
        }
    }
}
