//! Ports: numbers with their protocol, the ranges and blocks they lie in, and sets of them.
//!
//! Standard library only, no input or output. Everything downstream handles a [`Port`], never a bare number with the
//! protocol implied.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

/// How many port numbers a protocol has, 0 included.
pub const NUMBERS: usize = 65_536;

/// A transport protocol this exporter watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// Transmission Control Protocol, RFC 9293.
    Tcp,
    /// User Datagram Protocol, RFC 768.
    Udp,
}

impl Protocol {
    /// Both protocols, in the order in which they are listed everywhere.
    pub const ALL: [Self; 2] = [Self::Tcp, Self::Udp];

    /// The name as it stands in labels and in `3476/tcp`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }

    /// 0 for TCP, 1 for UDP: for tables indexed by protocol.
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Protocol {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        match text {
            "tcp" => Ok(Self::Tcp),
            "udp" => Ok(Self::Udp),
            _ => Err(ParseError::Protocol(text.to_owned())),
        }
    }
}

/// A port: number and protocol, written `3476/tcp`. Ordered by number, then protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Port {
    /// 0 to 65535. Port 0 cannot be listened on, but packets can carry it.
    pub number: u16,
    /// The protocol.
    pub protocol: Protocol,
}

impl Port {
    /// A TCP port.
    #[must_use]
    pub const fn tcp(number: u16) -> Self {
        Self {
            number,
            protocol: Protocol::Tcp,
        }
    }

    /// A UDP port.
    #[must_use]
    pub const fn udp(number: u16) -> Self {
        Self {
            number,
            protocol: Protocol::Udp,
        }
    }

    /// Position in a table of all ports of both protocols: TCP first, then UDP; below `2 * NUMBERS`.
    #[must_use]
    pub const fn index(self) -> usize {
        self.protocol.index() * NUMBERS + self.number as usize
    }

    /// The range the number lies in.
    #[must_use]
    pub const fn range(self) -> Range {
        Range::of(self.number)
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.number, self.protocol)
    }
}

impl FromStr for Port {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let (number, protocol) = text
            .split_once('/')
            .ok_or_else(|| ParseError::NoProtocol(text.to_owned()))?;
        Ok(Self {
            number: parse_number(number)?,
            protocol: protocol.parse()?,
        })
    }
}

/// The three ranges of port numbers (RFC 6335, section 6: System, User and Dynamic Ports).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Range {
    /// 0–1023, System Ports.
    WellKnown,
    /// 1024–49151, User Ports.
    Registered,
    /// 49152–65535, Dynamic or Private Ports.
    Dynamic,
}

impl Range {
    /// All three, by number.
    pub const ALL: [Self; 3] = [Self::WellKnown, Self::Registered, Self::Dynamic];

    /// The range in which a number lies.
    #[must_use]
    pub const fn of(number: u16) -> Self {
        match number {
            0..=1023 => Self::WellKnown,
            1024..=49151 => Self::Registered,
            49152..=65535 => Self::Dynamic,
        }
    }

    /// First and last number.
    #[must_use]
    pub const fn numbers(self) -> RangeInclusive<u16> {
        match self {
            Self::WellKnown => 0..=1023,
            Self::Registered => 1024..=49151,
            Self::Dynamic => 49152..=65535,
        }
    }

    /// The name as it stands in labels and in the configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::WellKnown => "well_known",
            Self::Registered => "registered",
            Self::Dynamic => "dynamic",
        }
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A block of 1,024 consecutive ports: what the whole space is drawn in. Written as its first port, five digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Block(u8);

impl Block {
    /// Ports in a block.
    pub const SIZE: usize = 1024;
    /// Blocks in the space of one protocol.
    pub const COUNT: usize = NUMBERS / Self::SIZE;

    /// The block in which a number lies.
    #[must_use]
    pub const fn of(number: u16) -> Self {
        Self((number >> 10) as u8)
    }

    /// All blocks, by number.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..=63).map(Self)
    }

    /// Position among the blocks, below [`Block::COUNT`].
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    /// The first port number of the block.
    #[must_use]
    pub const fn first(self) -> u16 {
        (self.0 as u16) << 10
    }
}

impl fmt::Display for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:05}", self.first())
    }
}

/// Consecutive port numbers, written `609-611`, or `561` where there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    /// The first number.
    pub first: u16,
    /// The last number, not below the first.
    pub last: u16,
}

impl Span {
    /// The numbers, in order.
    #[must_use]
    pub const fn numbers(self) -> RangeInclusive<u16> {
        self.first..=self.last
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(f, "{}", self.first)
        } else {
            write!(f, "{}-{}", self.first, self.last)
        }
    }
}

impl FromStr for Span {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let (first, last) = match text.split_once('-') {
            Some((first, last)) => (
                parse_number(first.trim_end())?,
                parse_number(last.trim_start())?,
            ),
            None => {
                let number = parse_number(text)?;
                (number, number)
            }
        };
        if first > last {
            return Err(ParseError::Backwards { first, last });
        }
        Ok(Self { first, last })
    }
}

/// What is wrong with the text of a port, a protocol or a span.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Not decimal digits.
    #[error("{0:?} is not a port number: write decimal digits, 0 to 65535")]
    Number(String),
    /// Digits, but too large.
    #[error("port {0} is beyond 65535")]
    Beyond(String),
    /// A port without its protocol.
    #[error("{0:?} names no protocol: write it like 3476/tcp")]
    NoProtocol(String),
    /// A protocol that is not watched.
    #[error("{0:?} is not a protocol: write tcp or udp")]
    Protocol(String),
    /// A span whose end comes first.
    #[error("range {first}-{last} runs backwards: write {last}-{first}")]
    Backwards {
        /// What stands first.
        first: u16,
        /// What stands last.
        last: u16,
    },
}

fn parse_number(text: &str) -> Result<u16, ParseError> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(ParseError::Number(text.to_owned()));
    }
    text.parse()
        .map_err(|_| ParseError::Beyond(text.to_owned()))
}

/// A set of ports of both protocols: one bit each, 16 KiB whatever it holds.
#[derive(Clone, PartialEq, Eq)]
pub struct PortSet {
    bits: Box<[u64]>,
}

impl PortSet {
    /// The empty set.
    #[must_use]
    pub fn new() -> Self {
        Self {
            bits: vec![0; 2 * NUMBERS / 64].into_boxed_slice(),
        }
    }

    /// Every port of both protocols.
    #[must_use]
    pub fn full() -> Self {
        Self {
            bits: vec![u64::MAX; 2 * NUMBERS / 64].into_boxed_slice(),
        }
    }

    /// Adds a port; true if it was not in the set.
    pub fn insert(&mut self, port: Port) -> bool {
        let (word, bit) = place(port);
        let fresh = self.bits[word] & bit == 0;
        self.bits[word] |= bit;
        fresh
    }

    /// Takes a port out; true if it was in the set.
    pub fn remove(&mut self, port: Port) -> bool {
        let (word, bit) = place(port);
        let held = self.bits[word] & bit != 0;
        self.bits[word] &= !bit;
        held
    }

    /// Whether the port is in the set.
    #[must_use]
    pub fn contains(&self, port: Port) -> bool {
        let (word, bit) = place(port);
        self.bits[word] & bit != 0
    }

    /// Keeps what is in both.
    pub fn intersect(&mut self, other: &Self) {
        for (mine, theirs) in self.bits.iter_mut().zip(&other.bits) {
            *mine &= theirs;
        }
    }

    /// Adds all of the other.
    pub fn unite(&mut self, other: &Self) {
        for (mine, theirs) in self.bits.iter_mut().zip(&other.bits) {
            *mine |= theirs;
        }
    }

    /// Takes out all of the other.
    pub fn subtract(&mut self, other: &Self) {
        for (mine, theirs) in self.bits.iter_mut().zip(&other.bits) {
            *mine &= !theirs;
        }
    }

    /// How many ports are in the set.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bits
            .iter()
            .map(|word| word.count_ones() as usize)
            .sum()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bits.iter().all(|&word| word == 0)
    }

    /// The numbers of one protocol, ascending.
    pub fn numbers(&self, protocol: Protocol) -> impl Iterator<Item = u16> + '_ {
        let words = NUMBERS / 64;
        let start = protocol.index() * words;
        self.bits[start..start + words]
            .iter()
            .enumerate()
            .flat_map(|(index, &word)| Ones(word).map(move |bit| (index * 64) as u16 + bit))
    }

    /// All ports, TCP first, ascending within a protocol.
    pub fn iter(&self) -> impl Iterator<Item = Port> + '_ {
        Protocol::ALL.into_iter().flat_map(|protocol| {
            self.numbers(protocol)
                .map(move |number| Port { number, protocol })
        })
    }

    /// The numbers of one protocol as spans, ascending, none touching another: the shortest list of ranges.
    #[must_use]
    pub fn spans(&self, protocol: Protocol) -> Vec<Span> {
        let mut spans: Vec<Span> = Vec::new();
        for number in self.numbers(protocol) {
            match spans.last_mut() {
                Some(span) if u32::from(span.last) + 1 == u32::from(number) => span.last = number,
                _ => spans.push(Span {
                    first: number,
                    last: number,
                }),
            }
        }
        spans
    }
}

impl Default for PortSet {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for PortSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut set = f.debug_set();
        for protocol in Protocol::ALL {
            set.entries(
                self.spans(protocol)
                    .iter()
                    .map(|span| format!("{span}/{protocol}")),
            );
        }
        set.finish()
    }
}

impl FromIterator<Port> for PortSet {
    fn from_iter<I: IntoIterator<Item = Port>>(ports: I) -> Self {
        let mut set = Self::new();
        set.extend(ports);
        set
    }
}

impl Extend<Port> for PortSet {
    fn extend<I: IntoIterator<Item = Port>>(&mut self, ports: I) {
        for port in ports {
            self.insert(port);
        }
    }
}

const fn place(port: Port) -> (usize, u64) {
    let index = port.index();
    (index / 64, 1 << (index % 64))
}

/// The positions of a word's set bits, ascending.
struct Ones(u64);

impl Iterator for Ones {
    type Item = u16;

    fn next(&mut self) -> Option<u16> {
        if self.0 == 0 {
            return None;
        }
        let bit = self.0.trailing_zeros();
        self.0 &= self.0 - 1;
        Some(bit as u16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_port_is_written_as_it_is_read() {
        for text in ["0/tcp", "561/udp", "3476/tcp", "65535/udp"] {
            assert_eq!(text.parse::<Port>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn bad_text_names_what_is_wrong() {
        let message = |text: &str| text.parse::<Span>().unwrap_err().to_string();
        assert_eq!(message("65536"), "port 65536 is beyond 65535");
        assert_eq!(
            message("611-609"),
            "range 611-609 runs backwards: write 609-611"
        );
        assert!(message("").contains("is not a port number"));
        assert!(message("+5").contains("is not a port number"));
        assert!(message("5-").contains("is not a port number"));
        assert!(message("99999999999999999999").contains("beyond"));
        assert!(
            "80".parse::<Port>()
                .unwrap_err()
                .to_string()
                .contains("3476/tcp")
        );
        assert!(
            "80/sctp"
                .parse::<Port>()
                .unwrap_err()
                .to_string()
                .contains("tcp or udp")
        );
    }

    #[test]
    fn ranges_cover_the_space_without_overlap() {
        for number in 0..=u16::MAX {
            let holding: Vec<_> = Range::ALL
                .iter()
                .filter(|r| r.numbers().contains(&number))
                .collect();
            assert_eq!(holding, [&Range::of(number)]);
        }
        assert_eq!(Range::Registered.numbers().count(), 48_128);
    }

    #[test]
    fn blocks_are_named_by_five_digits() {
        assert_eq!(Block::of(561).to_string(), "00000");
        assert_eq!(Block::of(3476).to_string(), "03072");
        assert_eq!(Block::of(65_535).to_string(), "64512");
        assert_eq!(Block::all().count(), Block::COUNT);
        assert!(
            Block::all()
                .enumerate()
                .all(|(index, block)| block.index() == index)
        );
    }

    #[test]
    fn the_full_set_holds_every_port() {
        let full = PortSet::full();
        assert_eq!(full.len(), 2 * NUMBERS);
        assert_eq!(
            full.spans(Protocol::Udp),
            [Span {
                first: 0,
                last: 65_535
            }]
        );
    }

    proptest! {
        #[test]
        fn a_set_agrees_with_the_standard_one(
            numbers in prop::collection::btree_set(any::<u16>(), 0..300),
            gone in any::<u16>(),
        ) {
            let mut set: PortSet = numbers.iter().map(|&number| Port::udp(number)).collect();
            prop_assert_eq!(set.len(), numbers.len());
            prop_assert_eq!(set.numbers(Protocol::Udp).collect::<Vec<_>>(), numbers.iter().copied().collect::<Vec<_>>());
            prop_assert_eq!(set.numbers(Protocol::Tcp).count(), 0);
            let from_spans: Vec<u16> = set.spans(Protocol::Udp).into_iter().flat_map(Span::numbers).collect();
            prop_assert_eq!(from_spans, numbers.iter().copied().collect::<Vec<_>>());
            prop_assert_eq!(set.remove(Port::udp(gone)), numbers.contains(&gone));
            prop_assert!(!set.contains(Port::udp(gone)));
        }

        #[test]
        fn parsing_never_panics(text in "\\PC{0,12}") {
            let _ = text.parse::<Port>();
            let _ = text.parse::<Span>();
        }
    }
}
