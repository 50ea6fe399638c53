//! The last event of each port, for whoever asks about a port: who it was that listened there, even if only for a moment.
//!
//! Bounded whatever anybody does: [`MOST`] ports, one event each, of which every name is bounded. Where more ports have had
//! one, those whose event is oldest are forgotten.
//!
//! Which of two is older is for the wall clock to say, because a tier may tell of a close before it tells of an opening that
//! was earlier; but an event told after the clock was set back is newer than all that were told before.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crate::owners::Owner;
use crate::port::Port;

/// How many ports an event is remembered of: more than the embedded default watches. Some 300 bytes each.
pub const MOST: usize = 16_384;

/// What happened to a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Happening {
    /// It was there when the exporter first looked.
    Found,
    /// It was not there last time.
    Opened,
    /// Another process holds it, or it is another program, or a rule allows it now and did not before.
    Changed,
    /// It opened and closed between two looks.
    CameAndWent,
    /// It is there no more.
    Closed,
}

impl Happening {
    /// As the log has it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Found => "listener found",
            Self::Opened => "listener opened",
            Self::Changed => "listener changed owner",
            Self::CameAndWent => "listener came and went",
            Self::Closed => "listener closed",
        }
    }
}

/// What last happened on a watched port of the exporter's own network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastEvent {
    /// What it was.
    pub happening: Happening,
    /// When: to the microsecond where the tier tells of it, else when it was noticed. Of a UDP listener that came and went in
    /// tier kernel, when it opened.
    pub at: SystemTime,
    /// When the listener opened, where that was told.
    pub opened_at: Option<SystemTime>,
    /// Where it listened.
    pub address: IpAddr,
    /// The watch entry that owned the port then.
    pub watch: Arc<str>,
    /// Whether a rule allowed it.
    pub expected: bool,
    /// Whose it was; of several processes, only the oldest.
    pub owner: Arc<Owner>,
    /// User id of who made the socket. `None` where that is not known.
    pub uid: Option<u32>,
    /// The version 2 control group in which it was made.
    pub cgroup: Option<Cgroup>,
}

/// A version 2 control group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cgroup {
    /// The kernel's number for it.
    pub id: u64,
    /// Its path below the root; `None` where it is gone, or out of the exporter's sight.
    pub path: Option<Arc<str>>,
}

/// Two clocks, read one after the other: one that may be set, and one that may not.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clocks {
    wall: SystemTime,
    steady: Instant,
}

impl Clocks {
    pub(super) fn now() -> Self {
        Self {
            wall: SystemTime::now(),
            steady: Instant::now(),
        }
    }

    /// How far the wall clock is behind what it would show, had nobody set it since these were read.
    fn set_back(&self, now: &Self) -> Duration {
        let passed = now.steady.saturating_duration_since(self.steady);
        let unset = self.wall.checked_add(passed).unwrap_or(self.wall);
        unset.duration_since(now.wall).unwrap_or_default()
    }
}

/// What the wall clock may be behind because two clocks are not read at once. ntpd corrects less than 128 ms without a step.
const STEP: Duration = Duration::from_millis(100);

/// When an event was, among all events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Moment {
    /// How often the clock was set back before it was told.
    set_back: u64,
    at: SystemTime,
}

/// The last event of each port.
#[derive(Debug, Default)]
pub(super) struct LastEvents {
    newest: HashMap<Port, (Moment, LastEvent)>,
    /// The same by time.
    order: BTreeSet<(Moment, Port)>,
    /// When the wall clock was last the furthest ahead, since it was last set back.
    clocks: Option<Clocks>,
    set_back: u64,
}

impl LastEvents {
    /// Notes an event that is told `now`; one that is older than what is known of its port is not the last.
    pub(super) fn note(&mut self, port: Port, event: LastEvent, now: Clocks) {
        self.follow(now);
        let moment = Moment {
            set_back: self.set_back,
            // What is yet to come was told by the clock before it was set back.
            at: event.at.min(now.wall.checked_add(STEP).unwrap_or(now.wall)),
        };
        if let Some((known, _)) = self.newest.get(&port) {
            if *known > moment {
                return;
            }
            self.order.remove(&(*known, port));
        }
        self.order.insert((moment, port));
        self.newest.insert(port, (moment, event));
        if self.newest.len() > MOST
            && let Some((_, oldest)) = self.order.pop_first()
        {
            self.newest.remove(&oldest);
        }
    }

    /// Notices that the wall clock was set back.
    fn follow(&mut self, now: Clocks) {
        let behind = self
            .clocks
            .map_or(Duration::ZERO, |clocks| clocks.set_back(&now));
        if behind > STEP {
            self.set_back += 1;
        } else if !behind.is_zero() {
            return;
        }
        self.clocks = Some(now);
    }

    /// All of them, the newest first.
    pub(super) fn newest_first(&self) -> impl Iterator<Item = (Port, &LastEvent)> {
        let by_time = self.order.iter().rev();
        by_time.filter_map(|(_, port)| Some((*port, &self.newest.get(port)?.1)))
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    fn event(seconds: u64, uid: u32) -> LastEvent {
        LastEvent {
            happening: Happening::CameAndWent,
            at: UNIX_EPOCH + Duration::from_secs(seconds),
            opened_at: None,
            address: std::net::Ipv4Addr::LOCALHOST.into(),
            watch: Arc::from("npmp"),
            expected: false,
            owner: Arc::new(Owner::Unknown { creator: None }),
            uid: Some(uid),
            cgroup: None,
        }
    }

    fn told(events: &LastEvents) -> Vec<(Port, Option<u32>)> {
        let told = events.newest_first();
        told.map(|(port, event)| (port, event.uid)).collect()
    }

    /// The clocks a while after the test began, of which the wall clock shows so many seconds.
    fn clocks(start: Instant, passed: u64, seconds: u64) -> Clocks {
        Clocks {
            wall: UNIX_EPOCH + Duration::from_secs(seconds),
            steady: start + Duration::from_secs(passed),
        }
    }

    #[test]
    fn the_last_of_each_port_is_kept_whatever_the_order_they_are_told_in() {
        let mut events = LastEvents::default();
        let now = clocks(Instant::now(), 0, 100);
        let (tcp, udp) = (Port::tcp(3476), Port::udp(3476));
        events.note(tcp, event(20, 1), now);
        events.note(udp, event(30, 2), now);
        events.note(tcp, event(10, 3), now);
        assert_eq!(told(&events), [(udp, Some(2)), (tcp, Some(1))]);
        events.note(tcp, event(40, 4), now);
        events.note(tcp, event(40, 5), now);
        assert_eq!(told(&events), [(tcp, Some(5)), (udp, Some(2))]);
    }

    /// An event under a clock that was ahead once hid all that followed until the right time caught up.
    #[test]
    fn a_clock_that_is_set_back_hides_no_event() {
        let mut events = LastEvents::default();
        let (tcp, udp) = (Port::tcp(3476), Port::udp(3476));
        let start = Instant::now();
        events.note(tcp, event(9000, 1), clocks(start, 0, 9000));
        events.note(udp, event(9001, 2), clocks(start, 1, 9001));
        let set_back = |passed| clocks(start, passed, 100 + passed);
        events.note(tcp, event(110, 3), set_back(10));
        assert_eq!(told(&events), [(tcp, Some(3)), (udp, Some(2))]);
        // Their own order is as ever.
        events.note(tcp, event(105, 4), set_back(11));
        assert_eq!(told(&events)[0], (tcp, Some(3)));
        // Seen before, and told only now.
        events.note(udp, event(9002, 5), set_back(12));
        events.note(udp, event(120, 6), set_back(20));
        events.note(tcp, event(121, 7), set_back(21));
        assert_eq!(told(&events), [(tcp, Some(7)), (udp, Some(6))]);
    }

    #[test]
    fn steps_too_small_to_see_add_up() {
        let mut events = LastEvents::default();
        let start = Instant::now();
        for steps in 0..4 {
            let mut now = clocks(start, 0, 1000);
            now.wall -= STEP * steps * 2 / 3;
            events.follow(now);
        }
        // The third is behind the first by more than is not seen, and the fourth behind the third by less.
        assert_eq!(events.set_back, 1);
        events.follow(clocks(start, 10, 9000));
        assert_eq!(events.set_back, 1, "set ahead");
        events.follow(clocks(start, 20, 9000));
        assert_eq!(events.set_back, 2);
    }

    #[test]
    fn memory_is_bounded_and_the_oldest_are_forgotten() {
        let mut events = LastEvents::default();
        let now = clocks(Instant::now(), 0, 3 * 65_536);
        for round in 0..2 {
            for number in 0..=u16::MAX {
                events.note(
                    Port::tcp(number),
                    event(round * 65_536 + u64::from(number), 0),
                    now,
                );
            }
        }
        let told = told(&events);
        assert_eq!(told.len(), MOST);
        assert_eq!((events.newest.len(), events.order.len()), (MOST, MOST));
        assert_eq!(told[0].0, Port::tcp(65_535));
        assert_eq!(told[MOST - 1].0, Port::tcp((65_536 - MOST) as u16));
    }
}
