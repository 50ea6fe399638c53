//! The sums over the whole port space, kept without walking it at each scrape.
//!
//! The kernel keeps one sum for each block of 1,024 ports. A block whose sum has not moved since it was last walked is
//! taken from memory. It knows where numbers come from only as functions.

use crate::counts::{ByBlock, ByClass, SpaceCounts};
use crate::port::{Block, NUMBERS, Port, Protocol};
use crate::registry::Class;

/// What a block counts.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Knocks(Protocol),
    Accepted,
}

const KINDS: [Kind; 3] = [
    Kind::Knocks(Protocol::Tcp),
    Kind::Knocks(Protocol::Udp),
    Kind::Accepted,
];

/// The counters a [`Space`] is read from.
pub(super) trait Counters {
    /// The kernel's sum for a block: knocks on TCP, on UDP, accepted, [`Block::COUNT`] of each.
    fn block(&self, slot: usize) -> u64;
    /// Refused and filtered attempts on a port.
    fn knocks(&self, port: Port) -> u64;
    /// Handshakes completed on a TCP port.
    fn accepted(&self, number: u16) -> u64;
}

/// What is remembered of one block.
#[derive(Clone, Copy, Debug, Default)]
struct Walked {
    /// The kernel's sum before the last walk.
    sum: u64,
    /// Whether the sum stood still over a whole walk. The kernel adds to the port first and to the sum second, but
    /// another processor may see it the other way round: so a block is walked once more after its sum has come to rest.
    settled: bool,
    counts: [u64; Class::COUNT],
    ports: [u64; Class::COUNT],
}

/// The sums, and which class each port is in. Made anew when the registry changes.
#[derive(Debug)]
pub struct Space {
    /// By [`Port::index`].
    classes: Box<[u8]>,
    blocks: Box<[Walked]>,
}

impl Space {
    /// Sums by what `class_of` says.
    #[must_use]
    pub fn new(class_of: impl Fn(Port) -> Class) -> Self {
        let classes = Protocol::ALL
            .into_iter()
            .flat_map(|protocol| (0..=u16::MAX).map(move |number| Port { number, protocol }))
            .map(|port| class_of(port).index() as u8)
            .collect();
        let resting = Walked {
            settled: true,
            ..Walked::default()
        };
        Self {
            classes,
            blocks: vec![resting; KINDS.len() * Block::COUNT].into_boxed_slice(),
        }
    }

    pub(super) fn read(&mut self, counters: &impl Counters) -> SpaceCounts {
        let mut space = SpaceCounts::default();
        for (slot, block) in self.blocks.iter_mut().enumerate() {
            let kind = KINDS[slot / Block::COUNT];
            let number = slot % Block::COUNT;
            let sum = counters.block(slot);
            if sum != block.sum || !block.settled {
                block.settled = sum == block.sum;
                block.sum = sum;
                block.walk(kind, number, &self.classes, counters);
            }
            block.add_to(&mut space, kind, number);
        }
        space
    }
}

impl Space {
    /// Gives over to sums by other classes: what these make of the counters of one moment, and what those do, to the last
    /// count. All blocks are walked.
    pub(super) fn hand_over(
        &mut self,
        to: &mut Self,
        counters: &impl Counters,
    ) -> (SpaceCounts, SpaceCounts) {
        let now = Moment::of(counters);
        [&mut *self, &mut *to]
            .into_iter()
            .flat_map(|space| &mut space.blocks)
            .for_each(|block| block.settled = false);
        (self.read(&now), to.read(&now))
    }
}

/// All counters as they stood when they were looked at.
struct Moment {
    blocks: Vec<u64>,
    knocks: Vec<u64>,
    accepted: Vec<u64>,
}

impl Moment {
    fn of(counters: &impl Counters) -> Self {
        Self {
            // First: a block that has moved since is walked again.
            blocks: (0..KINDS.len() * Block::COUNT)
                .map(|slot| counters.block(slot))
                .collect(),
            knocks: Protocol::ALL
                .into_iter()
                .flat_map(|protocol| (0..=u16::MAX).map(move |number| Port { number, protocol }))
                .map(|port| counters.knocks(port))
                .collect(),
            accepted: (0..=u16::MAX)
                .map(|number| counters.accepted(number))
                .collect(),
        }
    }
}

impl Counters for Moment {
    fn block(&self, slot: usize) -> u64 {
        self.blocks[slot]
    }

    fn knocks(&self, port: Port) -> u64 {
        self.knocks[port.index()]
    }

    fn accepted(&self, number: u16) -> u64 {
        self.accepted[usize::from(number)]
    }
}

impl Walked {
    fn walk(&mut self, kind: Kind, block: usize, classes: &[u8], counters: &impl Counters) {
        self.counts = [0; Class::COUNT];
        self.ports = [0; Class::COUNT];
        let first = block * Block::SIZE;
        for number in (first..first + Block::SIZE).map(|number| number as u16) {
            let (port, count) = match kind {
                Kind::Knocks(protocol) => {
                    let port = Port { number, protocol };
                    (port, counters.knocks(port))
                }
                Kind::Accepted => (Port::tcp(number), counters.accepted(number)),
            };
            if count > 0 {
                let class = usize::from(classes[port.index()]);
                self.counts[class] += count;
                self.ports[class] += 1;
            }
        }
    }

    fn add_to(&self, space: &mut SpaceCounts, kind: Kind, block: usize) {
        match kind {
            Kind::Knocks(protocol) => {
                let protocol = protocol.index();
                add(&mut space.knocks, protocol, &self.counts);
                add(&mut space.knocked_ports, protocol, &self.ports);
                let ByBlock(blocks) = &mut space.block_knocks;
                blocks[protocol][block] = self.counts.iter().sum();
            }
            Kind::Accepted => add(&mut space.accepted, Protocol::Tcp.index(), &self.counts),
        }
    }
}

fn add(ByClass(to): &mut ByClass, protocol: usize, counts: &[u64; Class::COUNT]) {
    for (sum, count) in to[protocol].iter_mut().zip(counts) {
        *sum += count;
    }
}

const _: () = assert!(NUMBERS == Block::COUNT * Block::SIZE && Class::COUNT <= u8::MAX as usize);

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};
    use std::collections::HashMap;

    use super::*;
    use crate::registry::Assignment;

    /// Counters as the kernel keeps them, and how often they were looked at.
    #[derive(Default)]
    struct Fake {
        knocks: RefCell<HashMap<usize, u64>>,
        accepted: RefCell<HashMap<u16, u64>>,
        blocks: RefCell<HashMap<usize, u64>>,
        looks: Cell<usize>,
    }

    impl Fake {
        fn knock(&self, port: Port, times: u64) {
            *self.knocks.borrow_mut().entry(port.index()).or_default() += times;
            *self
                .blocks
                .borrow_mut()
                .entry(port.index() / Block::SIZE)
                .or_default() += times;
        }

        fn accept(&self, number: u16) {
            *self.accepted.borrow_mut().entry(number).or_default() += 1;
            let slot = 2 * Block::COUNT + Block::of(number).index();
            *self.blocks.borrow_mut().entry(slot).or_default() += 1;
        }
    }

    impl Counters for Fake {
        fn block(&self, slot: usize) -> u64 {
            self.blocks.borrow().get(&slot).copied().unwrap_or(0)
        }

        fn knocks(&self, port: Port) -> u64 {
            self.looks.set(self.looks.get() + 1);
            self.knocks
                .borrow()
                .get(&port.index())
                .copied()
                .unwrap_or(0)
        }

        fn accepted(&self, number: u16) -> u64 {
            self.looks.set(self.looks.get() + 1);
            self.accepted.borrow().get(&number).copied().unwrap_or(0)
        }
    }

    fn class_of(port: Port) -> Class {
        Class {
            range: port.range(),
            assignment: if port.number.is_multiple_of(2) {
                Assignment::Assigned
            } else {
                Assignment::Unassigned
            },
        }
    }

    fn naive(fake: &Fake) -> SpaceCounts {
        let mut space = SpaceCounts::default();
        for protocol in Protocol::ALL {
            for number in 0..=u16::MAX {
                let port = Port { number, protocol };
                let knocks = fake.knocks(port);
                space.knocks.add(port, class_of(port), knocks);
                space
                    .knocked_ports
                    .add(port, class_of(port), u64::from(knocks > 0));
                space.block_knocks.add(port, knocks);
            }
        }
        for number in 0..=u16::MAX {
            let port = Port::tcp(number);
            space
                .accepted
                .add(port, class_of(port), fake.accepted(number));
        }
        space
    }

    #[test]
    fn the_sums_are_those_of_all_ports() {
        let fake = Fake::default();
        let mut space = Space::new(class_of);
        assert_eq!(space.read(&fake), SpaceCounts::default());
        for step in 0..3 {
            for number in [0, 561, 1023, 1024, 3476, 49_151, 49_152, 65_535] {
                fake.knock(Port::tcp(number), 1 + step);
                fake.knock(Port::udp(number ^ 1), 2);
                fake.accept(number);
            }
            assert_eq!(space.read(&fake), naive(&fake));
        }
    }

    #[test]
    fn a_block_at_rest_is_not_walked() {
        let fake = Fake::default();
        let mut space = Space::new(class_of);
        space.read(&fake);
        assert_eq!(fake.looks.replace(0), 0);
        fake.knock(Port::udp(3476), 1);
        space.read(&fake);
        assert_eq!(fake.looks.replace(0), Block::SIZE);
        space.read(&fake);
        assert_eq!(fake.looks.replace(0), Block::SIZE);
        space.read(&fake);
        assert_eq!(fake.looks.replace(0), 0);
    }

    #[test]
    fn sums_that_are_handed_over_are_of_the_same_moment() {
        let fake = Fake::default();
        let mut before = Space::new(class_of);
        fake.knock(Port::tcp(3476), 5);
        fake.accept(561);
        before.read(&fake);
        // One is counted already and not yet in its block's sum.
        fake.knock(Port::udp(3477), 2);
        fake.knocks.borrow_mut().insert(Port::tcp(610).index(), 1);
        fake.accept(561);
        let mut after = Space::new(|port| Class {
            assignment: Assignment::Assigned,
            ..class_of(port)
        });
        let (old, new) = before.hand_over(&mut after, &fake);
        assert_eq!(old, naive(&fake));
        let all = |ByClass(sums): &ByClass| sums.as_flattened().iter().sum::<u64>();
        for (old, new, count) in [
            (&old.knocks, &new.knocks, 8),
            (&old.knocked_ports, &new.knocked_ports, 3),
            (&old.accepted, &new.accepted, 2),
        ] {
            assert_eq!((all(old), all(new)), (count, count));
        }
        assert_eq!(old.block_knocks, new.block_knocks);
        fake.knock(Port::tcp(3476), 1);
        assert_eq!(all(&after.read(&fake).knocks), 9);
    }

    #[test]
    fn a_count_seen_after_its_sum_is_not_missed() {
        let fake = Fake::default();
        let mut space = Space::new(class_of);
        fake.blocks.borrow_mut().insert(3, 1);
        assert_eq!(space.read(&fake), SpaceCounts::default());
        fake.knocks.borrow_mut().insert(Port::tcp(3476).index(), 1);
        assert_eq!(space.read(&fake), naive(&fake));
        assert_ne!(space.read(&fake), SpaceCounts::default());
    }
}
