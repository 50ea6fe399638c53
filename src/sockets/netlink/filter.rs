//! The program that has the kernel pass over connections nobody asked for. Ports in, bytecode out; no socket.
//!
//! The kernel runs it on every connection of the host while it dumps them (`struct inet_diag_bc_op` of
//! `linux/inet_diag.h`, `inet_diag_bc_run` of `net/ipv4/inet_diag.c`). An operation tests a port and goes on at one of
//! two later places; arriving exactly at the end keeps the connection, arriving four bytes behind it drops it. One
//! choice is narrow: where a test holds, an 8-bit number says how far to go, so the program goes on at the very next operation
//! there and jumps, with 16 bits, where the test fails.
//!
//! A list of ranges would be tested one by one, on a host with 200,000 connections some hundred million times. So
//! the ranges become a decision tree. Before it runs a program, the kernel walks it from its start to each place it jumps
//! to, which grows with the square of its length; therefore the tree's leaves are short chains whose exits need no such
//! walk, and a set of too many ranges is made coarser. What is kept is then more than what was asked for, never less.

use super::super::Concern;
use crate::port::Protocol;

const INET_DIAG_BC_JMP: u8 = 1;
const INET_DIAG_BC_S_GE: u8 = 2;
const INET_DIAG_BC_D_GE: u8 = 4;
const INET_DIAG_BC_D_LE: u8 = 5;
/// Length of one `struct inet_diag_bc_op`. A test of a port is two, the second of which holds the port.
const OPERATION: usize = 4;

/// Pieces up to this many are tested one after another.
const CHAIN: usize = 8;
/// Into how many pieces the ports of one end are divided at most. Two ends of this make 36 KiB, of the 64 KiB that an attribute holds.
const PIECES: usize = 2_000;

/// The program that keeps sockets whose remote port is 0: one test, behind which lies the end.
pub(super) const UNCONNECTED: [u8; 2 * OPERATION] = {
    // Where the test fails, four bytes behind the end.
    let [low, high] = (3 * OPERATION as u16).to_ne_bytes();
    [
        INET_DIAG_BC_D_LE,
        2 * OPERATION as u8,
        low,
        high,
        0,
        0,
        0,
        0,
    ]
};

/// What to do with a connection, judged by one of its ports. Greater keeps more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Verdict {
    Drop,
    /// Let the remote port decide.
    AskRemote,
    Keep,
}

/// Ports from `first` to the next piece's, and what they mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Piece {
    first: u16,
    verdict: Verdict,
}

/// The program that keeps at least the connections that concern a watched port. `None`: there can be no such.
pub(super) fn compile(concern: &Concern<'_>) -> Option<Vec<u8>> {
    compile_within(concern, PIECES)
}

fn compile_within(concern: &Concern<'_>, limit: usize) -> Option<Vec<u8>> {
    let starts = starts(concern);
    let remote = pieces(&starts, |number| match concern.is_watched(number) {
        true => Verdict::Keep,
        false => Verdict::Drop,
    });
    let local = pieces(&starts, |number| {
        match (concern.is_open(number), concern.is_watched(number)) {
            (true, true) => Verdict::Keep,
            (true, false) => Verdict::Drop,
            (false, _) => Verdict::AskRemote,
        }
    });
    // An inbound connection has a watched local port, an outbound one a watched remote port.
    if remote.iter().all(|piece| piece.verdict == Verdict::Drop) {
        return None;
    }
    let mut program = Program::default();
    program.tree(INET_DIAG_BC_S_GE, &coarsened(local, limit));
    let remote_tree = program.length;
    program.tree(INET_DIAG_BC_D_GE, &coarsened(remote, limit));
    Some(program.assemble(remote_tree))
}

/// Every port at which one of the sets begins or ends, ascending, from 0.
fn starts(concern: &Concern<'_>) -> Vec<u16> {
    let mut starts = vec![0];
    for set in [concern.watched(), concern.open()] {
        for span in set.spans(Protocol::Tcp) {
            starts.push(span.first);
            starts.extend(span.last.checked_add(1));
        }
    }
    starts.sort_unstable();
    starts.dedup();
    starts
}

fn pieces(starts: &[u16], judge: impl Fn(u16) -> Verdict) -> Vec<Piece> {
    let mut pieces: Vec<Piece> = starts
        .iter()
        .map(|&first| Piece {
            first,
            verdict: judge(first),
        })
        .collect();
    pieces.dedup_by_key(|piece| piece.verdict);
    pieces
}

/// At most `limit` pieces that keep whatever `pieces` keep: the narrowest take the verdict of a neighbour that keeps more.
fn coarsened(mut pieces: Vec<Piece>, limit: usize) -> Vec<Piece> {
    let mut width = 1;
    while pieces.len() > limit.max(1) {
        let before = pieces.clone();
        for (index, piece) in pieces.iter_mut().enumerate() {
            let last = before
                .get(index + 1)
                .map_or(1 << 16, |next| u32::from(next.first));
            if last - u32::from(piece.first) <= width {
                let neighbours = &before[index.saturating_sub(1)..(index + 2).min(before.len())];
                piece.verdict = neighbours
                    .iter()
                    .map(|neighbour| neighbour.verdict)
                    .max()
                    .unwrap_or(Verdict::Keep);
            }
        }
        pieces.dedup_by_key(|piece| piece.verdict);
        width *= 2;
    }
    pieces
}

/// Where to go on.
#[derive(Clone, Copy, Debug)]
enum Target {
    Verdict(Verdict),
    /// Bytes from the start of the program.
    At(usize),
}

#[derive(Debug)]
struct Operation {
    at: usize,
    /// Code and port of a test; none for a jump.
    test: Option<(u8, u16)>,
    otherwise: Target,
}

/// A program whose jumps are not yet numbers.
#[derive(Debug, Default)]
struct Program {
    operations: Vec<Operation>,
    length: usize,
}

impl Program {
    /// Adds the tree that finds the piece of a port and does as it says.
    fn tree(&mut self, code: u8, pieces: &[Piece]) {
        if pieces.len() <= CHAIN {
            return self.chain(code, pieces);
        }
        let (lower, upper) = pieces.split_at(pieces.len() / 2);
        let test = self.operations.len();
        self.push(Some((code, upper[0].first)), Target::At(0));
        self.tree(code, upper);
        self.operations[test].otherwise = Target::At(self.length);
        self.tree(code, lower);
    }

    fn chain(&mut self, code: u8, pieces: &[Piece]) {
        for pair in pieces.windows(2) {
            self.push(
                Some((code, pair[1].first)),
                Target::Verdict(pair[0].verdict),
            );
        }
        let last = pieces.last().map_or(Verdict::Keep, |piece| piece.verdict);
        self.push(None, Target::Verdict(last));
    }

    fn push(&mut self, test: Option<(u8, u16)>, otherwise: Target) {
        self.operations.push(Operation {
            at: self.length,
            test,
            otherwise,
        });
        self.length += size(test);
    }

    fn assemble(&self, remote_tree: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.length);
        for operation in &self.operations {
            let target = match operation.otherwise {
                Target::At(at) => at,
                Target::Verdict(Verdict::AskRemote) => remote_tree,
                Target::Verdict(Verdict::Keep) => self.length,
                Target::Verdict(Verdict::Drop) => self.length + OPERATION,
            };
            // Below 64 KiB by the limit on pieces.
            let no = (target - operation.at) as u16;
            let yes = size(operation.test) as u8;
            match operation.test {
                Some((code, port)) => {
                    push_operation(&mut bytes, code, yes, no);
                    push_operation(&mut bytes, 0, 0, port);
                }
                None => push_operation(&mut bytes, INET_DIAG_BC_JMP, yes, no),
            }
        }
        bytes
    }
}

/// The bytes an operation takes.
const fn size(test: Option<(u8, u16)>) -> usize {
    match test {
        Some(_) => 2 * OPERATION,
        None => OPERATION,
    }
}

fn push_operation(bytes: &mut Vec<u8>, code: u8, yes: u8, no: u16) {
    bytes.extend([code, yes]);
    bytes.extend(no.to_ne_bytes());
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::port::{Port, PortSet};
    use proptest::prelude::*;

    /// Runs a program as the kernel does: true if it keeps the connection. Counts the steps.
    fn run(program: &[u8], local: u16, remote: u16, steps: &Cell<usize>) -> bool {
        let operation = |at: usize| {
            let bytes: [u8; 4] = program[at..at + 4].try_into().unwrap();
            let no = u16::from_ne_bytes([bytes[2], bytes[3]]);
            (bytes[0], usize::from(bytes[1]), no)
        };
        let mut at = 0;
        while at < program.len() {
            steps.set(steps.get() + 1);
            let (code, yes, no) = operation(at);
            let holds = match code {
                INET_DIAG_BC_JMP => false,
                INET_DIAG_BC_S_GE => local >= operation(at + 4).2,
                INET_DIAG_BC_D_GE => remote >= operation(at + 4).2,
                _ => panic!("operation {code} at {at}"),
            };
            at += if holds { yes } else { usize::from(no) };
        }
        assert!(
            at == program.len() || at == program.len() + 4,
            "ends at {at}"
        );
        at == program.len()
    }

    /// What the kernel demands before it runs a program, and how many operations it walks to find out.
    fn audit(program: &[u8]) -> usize {
        let mut places = vec![];
        let mut at = 0;
        while at < program.len() {
            places.push(at);
            at += usize::from(program[at + 1]);
        }
        assert_eq!(at, program.len());
        let mut walked = places.len();
        for &at in &places {
            let no = usize::from(u16::from_ne_bytes([program[at + 2], program[at + 3]]));
            let target = at + no;
            assert!(no >= usize::from(program[at + 1]) && target <= program.len() + 4);
            if target < program.len() {
                walked += places
                    .binary_search(&target)
                    .expect("a jump to an operation");
            }
        }
        walked
    }

    fn tcp(numbers: impl IntoIterator<Item = u16>) -> PortSet {
        numbers.into_iter().map(Port::tcp).collect()
    }

    /// Every local port with a few remote ones and the other way round, against the definition.
    fn assert_exact(concern: &Concern<'_>, program: &[u8]) {
        audit(program);
        let steps = Cell::new(0);
        for port in 0..=u16::MAX {
            for other in [0, 22, 40_000, u16::MAX] {
                for (local, remote) in [(port, other), (other, port)] {
                    assert_eq!(
                        run(program, local, remote, &steps),
                        concern.includes(local, remote),
                        "{local} <- {remote}"
                    );
                }
            }
        }
    }

    #[test]
    fn every_port_is_judged_as_asked() {
        let watched = tcp([0, 21, 22, 561, 609, 610, 611, 3476, 65_535]);
        let concern = Concern::new(&watched, tcp([22, 80, 3476, 65_534]));
        assert_exact(&concern, &compile(&concern).unwrap());
    }

    #[test]
    fn the_whole_port_space_and_single_ports_compile() {
        for watched in [PortSet::full(), tcp([0, 65_535])] {
            for open in [PortSet::new(), PortSet::full(), tcp([1, 65_535])] {
                let concern = Concern::new(&watched, open);
                assert_exact(&concern, &compile(&concern).unwrap());
            }
        }
    }

    #[test]
    fn nothing_watched_needs_no_dump() {
        let watched: PortSet = [Port::udp(53)].into_iter().collect();
        assert_eq!(compile(&Concern::new(&watched, tcp([80]))), None);
    }

    #[test]
    fn nine_hundred_ranges_take_a_logarithm_of_steps() {
        let watched = tcp((0..900_u16).flat_map(|n| [n * 70, n * 70 + 1]));
        let concern = Concern::new(&watched, tcp((0..40).map(|n| n * 1000)));
        let program = compile(&concern).unwrap();
        assert_exact(&concern, &program);
        assert!(audit(&program) < 400_000, "{}", audit(&program));
        for port in (0..u16::MAX).step_by(7) {
            let steps = Cell::new(0);
            run(&program, 40_001, port, &steps);
            assert!(steps.get() <= 40, "{} steps", steps.get());
        }
    }

    #[test]
    fn the_most_ranges_there_can_be_still_fit_an_attribute() {
        let watched = tcp((0..=u16::MAX).step_by(2));
        let open = tcp((0..=u16::MAX).step_by(3));
        let concern = Concern::new(&watched, open);
        let program = compile(&concern).unwrap();
        audit(&program);
        let spread = tcp((0..999).flat_map(|n| [n * 64, n * 64 + 5]));
        let apart = tcp((0..999).map(|n| n * 64 + 9));
        let program = compile(&Concern::new(&spread, apart)).unwrap();
        audit(&program);
        assert!(
            program.len() > 20_000 && program.len() < 65_531,
            "{}",
            program.len()
        );
    }

    proptest! {
        #[test]
        fn a_coarser_program_keeps_all_that_was_asked_for(
            watched in prop::collection::vec(any::<u16>(), 1..60),
            open in prop::collection::vec(any::<u16>(), 0..60),
            limit in 0_usize..130,
            local in any::<u16>(),
            remote in any::<u16>(),
        ) {
            let set = tcp(watched.iter().copied());
            let concern = Concern::new(&set, tcp(open.iter().copied()));
            let program = compile_within(&concern, limit).unwrap();
            audit(&program);
            let ends = |more: u16| watched.iter().chain(&open).copied().chain([more]).collect::<Vec<_>>();
            for &local in &ends(local) {
                for &remote in &ends(remote) {
                    let kept = run(&program, local, remote, &Cell::new(0));
                    prop_assert!(kept || !concern.includes(local, remote));
                }
            }
        }

        #[test]
        fn within_the_limit_the_program_is_exact(
            watched in prop::collection::vec(any::<u16>(), 1..60),
            open in prop::collection::vec(any::<u16>(), 0..60),
            local in any::<u16>(),
            remote in any::<u16>(),
        ) {
            let set = tcp(watched.iter().copied());
            let concern = Concern::new(&set, tcp(open.iter().copied()));
            let program = compile(&concern).unwrap();
            let near = |ports: &[u16], more: u16| -> Vec<u16> {
                ports.iter().flat_map(|&p| [p.saturating_sub(1), p, p.saturating_add(1)]).chain([more]).collect()
            };
            for &local in &near(&open, local) {
                for &remote in &near(&watched, remote) {
                    prop_assert_eq!(run(&program, local, remote, &Cell::new(0)), concern.includes(local, remote));
                }
            }
        }
    }
}
