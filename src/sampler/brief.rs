//! Listeners that were there for a moment, as the tiers tell of them: which no table has shown, and whose they were.

use std::collections::{HashMap, HashSet, VecDeque};
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::SystemTime;

use super::listeners::{judged, may_be_client};
use crate::config::Config;
use crate::counts::kernel::ListenerEvent;
use crate::events::Departure;
use crate::owners::{Caller, Owner, Owners};
use crate::port::{Port, PortSet, Protocol};
use crate::snapshot::Lit;
use crate::sockets::{Listener, SocketTable};

/// What was told of listeners around the reading of a table.
#[derive(Debug, Default)]
pub(super) struct News {
    /// Told before the table was read, and after.
    pub(super) events: [Vec<ListenerEvent>; 2],
    /// Closed, and when; nobody tells by whom.
    pub(super) closed: Vec<(Listener, SystemTime)>,
}

/// Remembers listeners that were told of, for as long as it takes to tell whose they were.
#[derive(Debug)]
pub(super) struct Brief {
    lives: Lives,
    /// UDP listeners that have opened. That one closes is not told: it is gone when a table read after that lacks it.
    unseen: Vec<ListenerEvent>,
    own: Arc<str>,
    unknown: Arc<Owner>,
}

/// UDP listeners of which no table was read yet, at the most.
const MOST_UNSEEN: usize = 8192;

impl Brief {
    pub(super) fn new() -> Self {
        Self {
            lives: Lives::default(),
            unseen: Vec::new(),
            own: Arc::from(""),
            unknown: Arc::new(Owner::Unknown { creator: None }),
        }
    }

    /// Listeners on watched ports that are known to have closed, also such as no table has shown, with whoever opened them
    /// where that is known. Those that may have been a client's are left out: a host that resolves names opens hundreds a
    /// second. A UDP socket that was bound and then connected has gone, too: it listens no more.
    pub(super) fn departures<'a>(
        &mut self,
        config: &'a Config,
        owners: &mut Owners,
        news: News,
        table: Option<&SocketTable>,
        ephemeral: &PortSet,
    ) -> Vec<Departure<'a>> {
        let is_told = |port: Port| {
            !may_be_client(config, ephemeral, port) && config.watch.owner(port).is_some()
        };
        let mut gone = Vec::new();
        let [before, after] = news.events;
        self.take(before, &mut gone, is_told);
        if let Some(table) = table {
            self.miss(table, &mut gone);
        }
        self.take(after, &mut gone, is_told);
        let mut found = HashMap::new();
        let mut departures: Vec<Departure<'a>> = gone
            .into_iter()
            .map(|gone| Departure {
                lit: self.lit(config, owners, &gone, &mut found),
                opened_at: gone.opened_at,
                at: gone.at,
            })
            .collect();
        for (listener, at) in news.closed {
            if is_told(listener.port) {
                departures.push(Departure {
                    lit: judged(config, &listener, Arc::clone(&self.unknown), &self.own),
                    opened_at: None,
                    at,
                });
            }
        }
        departures
    }

    /// When a listener opened and closed, as far as it was told.
    pub(super) fn moments(&self, listener: &Listener) -> (Option<SystemTime>, Option<SystemTime>) {
        let life = listener.cookie.and_then(|cookie| self.lives.of(cookie));
        life.map_or((None, None), |life| {
            (life.opened.as_ref().map(|event| event.at), life.closed)
        })
    }

    fn take(
        &mut self,
        events: Vec<ListenerEvent>,
        gone: &mut Vec<Gone>,
        is_told: impl Fn(Port) -> bool,
    ) {
        for event in events {
            let opened = self.lives.note(&event);
            if !is_told(event.port) {
                continue;
            }
            if !event.opened {
                gone.push(Gone {
                    opened_at: opened.as_ref().map(|opened| opened.at),
                    at: event.at,
                    by: opened.unwrap_or(event),
                });
            } else if event.port.protocol == Protocol::Udp && self.unseen.len() < MOST_UNSEEN {
                self.unseen.push(event);
            }
        }
    }

    /// Tells which UDP listeners of before a table was read are not in it. Where the table's reader knows no cookies, one on
    /// the same port is taken for the same.
    fn miss(&mut self, table: &SocketTable, gone: &mut Vec<Gone>) {
        if self.unseen.is_empty() {
            return;
        }
        let cookies: HashSet<NonZeroU64> =
            table.listeners.iter().filter_map(|l| l.cookie).collect();
        let without = table.listeners.iter().filter(|l| l.cookie.is_none());
        let nameless: PortSet = without.map(|listener| listener.port).collect();
        let missing = self.unseen.drain(..).filter(|event| {
            !event.cookie.is_some_and(|cookie| cookies.contains(&cookie))
                && !nameless.contains(event.port)
        });
        gone.extend(missing.map(|event| Gone {
            opened_at: Some(event.at),
            at: event.at,
            by: event,
        }));
    }

    /// A listener that is gone, with its owner. `found` are the owners found for this sample: who opens many is looked for
    /// once.
    fn lit<'a>(
        &self,
        config: &'a Config,
        owners: &mut Owners,
        gone: &Gone,
        found: &mut HashMap<(u32, u32, u32, String), Arc<Owner>>,
    ) -> Lit<'a> {
        let by = &gone.by;
        let owner = found
            .entry((by.pid, by.thread, by.uid, by.command.clone()))
            .or_insert_with(|| {
                Arc::new(owners.caller(&Caller {
                    pid: by.pid,
                    thread: by.thread,
                    uid: by.uid,
                    name: &by.command,
                    cgroup: by.cgroup,
                }))
            });
        let listener = Listener {
            port: by.port,
            address: by.address,
            cookie: by.cookie,
            inode: None,
            uid: Some(by.uid),
            cgroup: by.cgroup,
        };
        judged(config, &listener, Arc::clone(owner), &self.own)
    }
}

/// A listener that is no more.
#[derive(Debug)]
struct Gone {
    opened_at: Option<SystemTime>,
    at: SystemTime,
    /// The event that tells whose it was: that of its opening, else that of its end.
    by: ListenerEvent,
}

/// When listeners opened and closed, and who opened them: the newest of them.
#[derive(Debug, Default)]
struct Lives {
    order: VecDeque<NonZeroU64>,
    by_cookie: HashMap<NonZeroU64, Life>,
}

#[derive(Debug, Default)]
struct Life {
    opened: Option<ListenerEvent>,
    closed: Option<SystemTime>,
}

impl Lives {
    /// Listeners that are remembered. One that is older when it closes is told with who closed it.
    const MOST: usize = 4096;

    fn of(&self, cookie: NonZeroU64) -> Option<&Life> {
        self.by_cookie.get(&cookie)
    }

    /// Notes an event; of one that closes, gives the one that opened it.
    fn note(&mut self, event: &ListenerEvent) -> Option<ListenerEvent> {
        let cookie = event.cookie?;
        if !self.by_cookie.contains_key(&cookie) {
            if self.order.len() == Self::MOST
                && let Some(oldest) = self.order.pop_front()
            {
                self.by_cookie.remove(&oldest);
            }
            self.order.push_back(cookie);
        }
        let life = self.by_cookie.entry(cookie).or_default();
        if event.opened {
            *life = Life {
                opened: Some(event.clone()),
                closed: None,
            };
            return None;
        }
        life.closed = Some(event.at);
        life.opened.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    fn event(port: Port, cookie: u64, opened: bool, seconds: u64) -> ListenerEvent {
        ListenerEvent {
            port,
            opened,
            address: std::net::Ipv4Addr::LOCALHOST.into(),
            cookie: NonZeroU64::new(cookie),
            // No process has this number.
            pid: u32::MAX,
            thread: u32::MAX,
            uid: 12_345,
            command: if opened { "opener" } else { "closer" }.to_owned(),
            cgroup: None,
            at: at(seconds),
        }
    }

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn told(
        brief: &mut Brief,
        events: [Vec<ListenerEvent>; 2],
        table: Option<&SocketTable>,
    ) -> Vec<(Port, String, Option<SystemTime>, SystemTime)> {
        let text = "watch: [{name: one, ports: [561]}]";
        let config = Config::parse("a test", text, Path::new("")).unwrap();
        let mut owners = Owners::new(Path::new("/proc"));
        let news = News {
            events,
            closed: Vec::new(),
        };
        let departures = brief.departures(&config, &mut owners, news, table, &PortSet::new());
        let facts = departures.into_iter().map(|departure| {
            (
                departure.lit.listener.port,
                departure.lit.owner.process().to_owned(),
                departure.opened_at,
                departure.at,
            )
        });
        facts.collect()
    }

    #[test]
    fn a_tcp_listener_is_told_with_who_opened_it_when_it_closes() {
        let mut brief = Brief::new();
        let port = Port::tcp(561);
        let opened = vec![event(port, 7, true, 1), event(Port::tcp(562), 8, true, 1)];
        assert_eq!(told(&mut brief, [opened, Vec::new()], None), []);
        let closed = vec![event(port, 7, false, 5), event(Port::tcp(562), 8, false, 5)];
        assert_eq!(
            told(&mut brief, [Vec::new(), closed], None),
            [(port, "opener".to_owned(), Some(at(1)), at(5))],
            "the other is not watched"
        );
        let unknown = vec![event(port, 9, false, 6)];
        assert_eq!(
            told(&mut brief, [unknown, Vec::new()], None),
            [(port, "closer".to_owned(), None, at(6))]
        );
    }

    #[test]
    fn a_udp_listener_is_gone_when_a_table_read_after_it_opened_lacks_it() {
        let mut brief = Brief::new();
        let port = Port::udp(561);
        let gone = |seconds| vec![(port, "opener".to_owned(), Some(at(seconds)), at(seconds))];
        let empty = SocketTable::default();
        let opened = || vec![event(port, 7, true, 1)];
        assert_eq!(told(&mut brief, [Vec::new(), opened()], Some(&empty)), []);
        assert_eq!(told(&mut brief, [Vec::new(), Vec::new()], None), []);
        assert_eq!(told(&mut brief, Default::default(), Some(&empty)), gone(1));
        assert_eq!(told(&mut brief, Default::default(), Some(&empty)), []);

        let listener = |cookie| Listener {
            port,
            address: std::net::Ipv4Addr::LOCALHOST.into(),
            cookie,
            inode: None,
            uid: None,
            cgroup: None,
        };
        let shows = |cookie| SocketTable {
            listeners: vec![listener(cookie)],
            ..SocketTable::default()
        };
        let this = shows(NonZeroU64::new(7));
        assert_eq!(told(&mut brief, [opened(), Vec::new()], Some(&this)), []);
        let without_cookies = shows(None);
        assert_eq!(
            told(&mut brief, [opened(), Vec::new()], Some(&without_cookies)),
            []
        );
        let another = shows(NonZeroU64::new(8));
        assert_eq!(
            told(&mut brief, [opened(), Vec::new()], Some(&another)),
            gone(1)
        );
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut brief = Brief::new();
        let opened = (1..20_000)
            .map(|cookie| event(Port::udp(561), cookie, true, cookie))
            .collect();
        told(&mut brief, [opened, Vec::new()], None);
        assert_eq!(brief.lives.by_cookie.len(), Lives::MOST);
        assert_eq!(brief.lives.order.len(), Lives::MOST);
        assert_eq!(brief.unseen.len(), MOST_UNSEEN);
    }
}
