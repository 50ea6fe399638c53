//! A moment of rest at which every series of every watched port must be what the ledger says.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use darkport_exporter::counts::Tier;
use darkport_exporter::port::{Port, Protocol};

use crate::ledger::{Count, Ledger, Pages};
use crate::subject::{Holdings, Subject};
use crate::support::Scrape;
use crate::{PROBED_LIT, TCP, UDP};

/// How long the last event may be on its way.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(50);

/// What the counters were before the generator began.
#[derive(Debug)]
pub(crate) struct Base {
    counts: BTreeMap<(Port, Count), f64>,
    pages: Pages,
    /// Of the exporter's own families.
    series: BTreeSet<String>,
    descriptors: u64,
    /// How many values were compared.
    pub(crate) compared: u64,
}

impl Base {
    /// Taken while nothing is done, after everything was done once: all series are there that can be.
    pub(crate) fn take(subject: &Subject, ledger: &Ledger) -> Self {
        // Tier netlink counts what goes out and lasts by the second look.
        subject.scrape(ledger).unwrap();
        let scrape = subject.scrape(ledger).unwrap();
        let mut counts = BTreeMap::new();
        for (port, count) in all(subject.tier) {
            let value = scrape.of_port(count.family(), port);
            counts.insert((port, count), value.unwrap());
        }
        Self {
            counts,
            pages: ledger.read(),
            series: series(&scrape),
            descriptors: at_rest(subject),
            compared: 0,
        }
    }

    /// Waits until all is equal, and gives what the exporter holds then; or everything that is not.
    pub(crate) fn check(
        &mut self,
        subject: &Subject,
        ledger: &Ledger,
    ) -> Result<Holdings, Vec<String>> {
        let start = Instant::now();
        loop {
            let differences = match subject.scrape(ledger) {
                Ok(scrape) => self.differences(subject, ledger, &scrape),
                Err(error) => vec![format!("no scrape: {error}")],
            };
            let holdings = subject.holdings();
            let mut differences = differences;
            if holdings.descriptors > self.descriptors {
                differences.push(format!(
                    "{} descriptors, {} at the start: {:?}",
                    holdings.descriptors,
                    self.descriptors,
                    subject.descriptors()
                ));
            }
            if differences.is_empty() {
                return Ok(holdings);
            }
            if start.elapsed() > PATIENCE {
                return Err(differences);
            }
            std::thread::sleep(PAUSE);
        }
    }

    fn differences(&mut self, subject: &Subject, ledger: &Ledger, scrape: &Scrape) -> Vec<String> {
        let pages = ledger.read();
        let mut differences = Vec::new();
        let mut compare = |what: String, expected: Option<f64>, shown: Option<f64>| {
            self.compared += 1;
            if expected != shown {
                differences.push(format!("{what}: expected {expected:?}, shown {shown:?}"));
            }
        };
        for (port, count) in all(subject.tier) {
            // A probe hangs up with a reset, after which this tier cannot tell whither the connection went.
            if subject.tier == Tier::Netlink && port == PROBED_LIT && count == Count::Outbound {
                continue;
            }
            let done = pages.count(port, count) - self.pages.count(port, count);
            let expected = self.counts[&(port, count)] + done as f64;
            let shown = scrape.of_port(count.family(), port);
            compare(
                format!("{} of {port}", count.family()),
                Some(expected),
                shown,
            );
        }
        for port in TCP.into_iter().chain(UDP) {
            let is_lit =
                pages.listening.contains(&port) || port == crate::KERNEL || port == crate::NETLINK;
            let shown = scrape.of_port("darkport_listening", port);
            compare(
                format!("listening on {port}"),
                Some(f64::from(is_lit)),
                shown,
            );
        }
        for port in TCP {
            let held = pages.connections.get(&port).copied().unwrap_or(0);
            // This scrape is one, too.
            let expected = held + u64::from(port == subject.port);
            let shown = scrape.of_port("darkport_connections", port);
            compare(
                format!("connections on {port}"),
                Some(expected as f64),
                shown,
            );
        }
        for what in ["passive_opens", "udp_no_ports"] {
            let of = |side: &str| {
                scrape.value(&format!("darkport_audit_{side}_total{{what=\"{what}\"}}"))
            };
            // Every connection that comes in is to a watched port. The netlink tier does not see refusals.
            if subject.tier == Tier::Kernel || what == "passive_opens" {
                compare(format!("audit of {what}"), of("host"), of("counted"));
            }
        }
        let now = series(scrape);
        for series in now.symmetric_difference(&self.series) {
            differences.push(format!("{series}: not there both at the start and now"));
        }
        differences
    }
}

/// The fewest descriptors of some looks: a connection that has just ended may still have one.
fn at_rest(subject: &Subject) -> u64 {
    let look = |_| {
        std::thread::sleep(PAUSE);
        subject.holdings().descriptors
    };
    (0..20).map(look).min().unwrap_or(0)
}

fn series(scrape: &Scrape) -> BTreeSet<String> {
    let own = scrape
        .0
        .lines()
        .filter(|line| line.starts_with("darkport_"));
    own.filter_map(|line| Some(line.rsplit_once(' ')?.0.to_owned()))
        .collect()
}

/// The counters that a tier shows of the ports that are always watched.
fn all(tier: Tier) -> impl Iterator<Item = (Port, Count)> {
    let of = move |port: Port| {
        Count::ALL
            .into_iter()
            .filter(move |count| count.exists(tier, port.protocol))
            .map(move |count| (port, count))
    };
    debug_assert!(TCP.iter().all(|port| port.protocol == Protocol::Tcp));
    TCP.into_iter().chain(UDP).flat_map(of)
}
