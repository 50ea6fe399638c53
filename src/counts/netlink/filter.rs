//! The classic BPF program that keeps what is not watched from ever waking the exporter.
//!
//! Pure: a set of ports goes in, instructions come out. A program may let more through than was asked for, never less:
//! the ledger looks at every port again.
//!
//! A destroy message starts with `struct nlmsghdr` (16 octets) and `struct inet_diag_msg` (72), whose ports are in
//! network order; attributes follow (linux/netlink.h, linux/inet_diag.h). Classic BPF jumps forward only, over at most 255
//! instructions where it compares, and a program has at most 4,096 of them (`BPF_MAXINSNS`, linux/bpf_common.h). So a
//! program is written from its end: every target is already in place when the jump to it is made.

use crate::port::{PortSet, Protocol, Span};

use super::message;

/// The most instructions the kernel takes.
#[cfg(test)]
const MAX_INSTRUCTIONS: usize = 4096;

/// The most spans that fit into that: a TCP program holds two search trees of two instructions a span, and some jumps.
pub(super) const MAX_SPANS: usize = 1000;

const LOAD_WORD: u16 = 0x20;
const LOAD_HALF: u16 = 0x28;
const LOAD_WORD_AT_INDEX: u16 = 0x40;
const LOAD_IMMEDIATE: u16 = 0x00;
const INDEX_IMMEDIATE: u16 = 0x01;
const INDEX_FROM_ACCUMULATOR: u16 = 0x07;
const INDEX_XOR: u16 = 0xac;
const AND: u16 = 0x54;
const JUMP: u16 = 0x05;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_GREATER: u16 = 0x25;
const JUMP_NOT_LESS: u16 = 0x35;
const RETURN: u16 = 0x06;

/// `SKF_AD_OFF + SKF_AD_NLATTR` (linux/filter.h): replaces the accumulator, an offset, by that of the first attribute
/// from there on whose type is in the index register; 0 if there is none.
const FIND_ATTRIBUTE: u32 = 0xffff_f000 + 12;

/// One instruction, as in `struct sock_filter`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Instruction {
    pub(super) code: u16,
    pub(super) jt: u8,
    pub(super) jf: u8,
    pub(super) k: u32,
}

/// One part of the messages of a group, when several sockets share it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Share {
    /// Which part, from 0.
    pub(super) index: u16,
    /// How many there are: a power of two.
    pub(super) of: u16,
}

impl Share {
    /// All of them.
    #[cfg(test)]
    pub(super) const WHOLE: Self = Self { index: 0, of: 1 };

    /// The bits of both ports, one against the other, that tell the part. Not the lowest: the kernel picks even ports for
    /// outbound connections.
    fn mask(self) -> u32 {
        u32::from(self.of - 1) << 1
    }
}

/// The program for the two groups of a protocol, in at most [`MAX_INSTRUCTIONS`], with at most `max_spans` spans of
/// ports told apart.
///
/// TCP: passes sockets whose local or remote port is watched, and every one that may have listened, whatever its port:
/// whether a connection came in or went out is told by whether its local port was listened on. UDP: passes unconnected
/// sockets whose local port is watched.
pub(super) fn compile(
    watched: &PortSet,
    protocol: Protocol,
    share: Share,
    max_spans: usize,
) -> Vec<Instruction> {
    let spans = merged(watched.spans(protocol), max_spans.clamp(1, MAX_SPANS));
    let mut program = Backwards::new();
    if spans.is_empty() {
        return program.finish();
    }
    match protocol {
        Protocol::Udp => {
            program.search(&spans, program.reject);
            program.load_half(message::LOCAL_PORT);
            let local = program.here();
            program.branch(JUMP_EQUAL, 0, local, program.reject);
            program.load_half(message::REMOTE_PORT);
        }
        Protocol::Tcp => {
            program.search(&spans, program.reject);
            let remote = program.here();
            let unconnected = program.never_connected();
            program.branch(JUMP_EQUAL, 0, unconnected, remote);
            program.load_half(message::REMOTE_PORT);
            let miss = program.here();
            program.search(&spans, miss);
            let bound = program.here();
            program.branch(JUMP_EQUAL, 0, program.reject, bound);
            program.load_half(message::LOCAL_PORT);
        }
    }
    program.only(share);
    program.finish()
}

/// Closes the narrowest gaps until no more than `most` spans are left.
fn merged(spans: Vec<Span>, most: usize) -> Vec<Span> {
    let surplus = spans.len().saturating_sub(most);
    if surplus == 0 {
        return spans;
    }
    let gap = |index: usize| spans[index + 1].first - spans[index].last;
    let mut order: Vec<usize> = (0..spans.len() - 1).collect();
    order.sort_by_key(|&index| gap(index));
    let mut closed = vec![false; spans.len()];
    for &index in &order[..surplus] {
        closed[index + 1] = true;
    }
    let mut merged: Vec<Span> = Vec::with_capacity(most);
    for (span, joins) in spans.into_iter().zip(closed) {
        match merged.last_mut() {
            Some(last) if joins => last.last = span.last,
            _ => merged.push(span),
        }
    }
    merged
}

/// A place in a program that is being written, counted from its end.
#[derive(Clone, Copy)]
struct Place(usize);

/// A program being written from its end to its start.
struct Backwards {
    reversed: Vec<Instruction>,
    accept: Place,
    reject: Place,
}

impl Backwards {
    fn new() -> Self {
        let end = |k| Instruction {
            code: RETURN,
            jt: 0,
            jf: 0,
            k,
        };
        Self {
            reversed: vec![end(u32::MAX), end(0)],
            accept: Place(0),
            reject: Place(1),
        }
    }

    fn finish(mut self) -> Vec<Instruction> {
        self.reversed.reverse();
        // An empty set leaves the two returns: what runs first refuses.
        self.reversed
    }

    /// The instruction written last, which runs before all others so far.
    fn here(&self) -> Place {
        Place(self.reversed.len() - 1)
    }

    fn push(&mut self, code: u16, k: u32) {
        self.reversed.push(Instruction {
            code,
            jt: 0,
            jf: 0,
            k,
        });
    }

    fn load_half(&mut self, offset: usize) {
        self.push(LOAD_HALF, offset as u32);
    }

    /// How many instructions the next one must jump over to get to a place.
    fn distance(&self, to: Place) -> usize {
        self.reversed.len() - to.0 - 1
    }

    /// Writes a jump without a condition.
    fn jump(&mut self, to: Place) -> Place {
        let distance = self.distance(to) as u32;
        self.push(JUMP, distance);
        self.here()
    }

    /// A place from which `to` is reached and which the next instruction but `spare` can still reach.
    fn near(&mut self, to: Place, spare: usize) -> Place {
        if self.distance(to) + spare <= usize::from(u8::MAX) {
            to
        } else {
            self.jump(to)
        }
    }

    /// Writes a comparison of the accumulator with a constant.
    fn branch(&mut self, code: u16, k: u32, yes: Place, no: Place) {
        let yes = self.near(yes, 1);
        let no = self.near(no, 0);
        // `near` keeps both within an octet.
        let (jt, jf) = (self.distance(yes) as u8, self.distance(no) as u8);
        self.reversed.push(Instruction { code, jt, jf, k });
    }

    /// Writes: accept if the accumulator lies in one of the spans, else go to `miss`. The spans are not empty.
    fn search(&mut self, spans: &[Span], miss: Place) {
        let mut exits = Exits {
            accept: self.accept,
            miss,
        };
        let first = u32::from(spans[0].first);
        let found = self.subtree(spans, &mut exits);
        self.branch(JUMP_NOT_LESS, first, found, exits.miss);
    }

    /// The same for an accumulator not below the first span's start.
    fn subtree(&mut self, spans: &[Span], exits: &mut Exits) -> Place {
        if let [span] = spans {
            exits.miss = self.near(exits.miss, 1);
            exits.accept = self.near(exits.accept, 0);
            self.branch(JUMP_GREATER, u32::from(span.last), exits.miss, exits.accept);
            return self.here();
        }
        let (left, right) = spans.split_at(spans.len() / 2);
        let above = self.subtree(right, exits);
        let below = self.subtree(left, exits);
        self.branch(JUMP_NOT_LESS, u32::from(right[0].first), above, below);
        self.here()
    }

    /// Writes: refuse what is not of this part.
    fn only(&mut self, share: Share) {
        if share.of == 1 {
            return;
        }
        let ours = self.here();
        self.branch(JUMP_EQUAL, u32::from(share.index) << 1, ours, self.reject);
        self.push(AND, share.mask());
        self.push(INDEX_XOR, 0);
        self.load_half(message::REMOTE_PORT);
        self.push(INDEX_FROM_ACCUMULATOR, 0);
        self.load_half(message::LOCAL_PORT);
    }

    /// Writes: accept if the TCP socket has never begun to connect and is no accepted one.
    fn never_connected(&mut self) -> Place {
        self.branch(JUMP_EQUAL, 0, self.accept, self.reject);
        self.push(
            LOAD_WORD_AT_INDEX,
            (message::ATTRIBUTE_HEADER + message::ADVERTISED_MSS) as u32,
        );
        self.push(INDEX_FROM_ACCUMULATOR, 0);
        let looks = self.here();
        // A kernel that tells nothing of the connection leaves the question to the reader.
        self.branch(JUMP_EQUAL, 0, self.accept, looks);
        self.push(LOAD_WORD, FIND_ATTRIBUTE);
        self.push(LOAD_IMMEDIATE, message::ATTRIBUTES as u32);
        self.push(INDEX_IMMEDIATE, u32::from(message::INET_DIAG_INFO));
        self.here()
    }
}

/// Where the leaves of a search tree jump to: the nearest instructions from which the two ends are reached.
struct Exits {
    accept: Place,
    miss: Place,
}

#[cfg(test)]
mod tests;
