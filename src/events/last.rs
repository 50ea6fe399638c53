//! The last event of each port, for whoever asks about a port: who it was that listened there, even if only for a moment.
//!
//! Bounded whatever anybody does: [`MOST`] ports, one event each, of which every name is bounded. Where more ports have had
//! one, those whose event is oldest are forgotten.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

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

/// The last event of each port.
#[derive(Debug, Default)]
pub(super) struct LastEvents {
    newest: HashMap<Port, LastEvent>,
    /// The same by time.
    order: BTreeSet<(SystemTime, Port)>,
}

impl LastEvents {
    /// Notes an event; one that is older than what is known of its port is not the last.
    pub(super) fn note(&mut self, port: Port, event: LastEvent) {
        if let Some(known) = self.newest.get(&port) {
            if known.at > event.at {
                return;
            }
            self.order.remove(&(known.at, port));
        }
        self.order.insert((event.at, port));
        self.newest.insert(port, event);
        if self.newest.len() > MOST
            && let Some((_, oldest)) = self.order.pop_first()
        {
            self.newest.remove(&oldest);
        }
    }

    /// All of them, the newest first.
    pub(super) fn newest_first(&self) -> impl Iterator<Item = (Port, &LastEvent)> {
        let by_time = self.order.iter().rev();
        by_time.filter_map(|(_, port)| Some((*port, self.newest.get(port)?)))
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

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

    #[test]
    fn the_last_of_each_port_is_kept_whatever_the_order_they_are_told_in() {
        let mut events = LastEvents::default();
        let (tcp, udp) = (Port::tcp(3476), Port::udp(3476));
        events.note(tcp, event(20, 1));
        events.note(udp, event(30, 2));
        events.note(tcp, event(10, 3));
        assert_eq!(told(&events), [(udp, Some(2)), (tcp, Some(1))]);
        events.note(tcp, event(40, 4));
        events.note(tcp, event(40, 5));
        assert_eq!(told(&events), [(tcp, Some(5)), (udp, Some(2))]);
    }

    #[test]
    fn memory_is_bounded_and_the_oldest_are_forgotten() {
        let mut events = LastEvents::default();
        for round in 0..2 {
            for number in 0..=u16::MAX {
                events.note(
                    Port::tcp(number),
                    event(round * 65_536 + u64::from(number), 0),
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
