//! The scrapes: each must succeed, and no counter may go backwards from one to the next.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use darkport_exporter::counts::Tier;

use crate::ledger::Ledger;
use crate::subject::Subject;

/// Failures that are kept word by word; all are counted.
const KEPT: usize = 20;

/// What came of all scrapes of one exporter.
#[derive(Debug, Default)]
pub(crate) struct Observer {
    last: HashMap<String, f64>,
    pub(crate) took: Vec<Duration>,
    /// Scrapes that say that an owner is not known: a brief listener closed before its owner was looked for. (Without a
    /// privilege no owner is known but those of the same user.)
    pub(crate) without_an_owner: u64,
    pub(crate) failures: u64,
    pub(crate) first_failures: Vec<String>,
}

impl Observer {
    pub(crate) fn step(&mut self, subject: &Subject, ledger: &Ledger) {
        let start = Instant::now();
        let scraped = subject.scrape(ledger);
        self.took.push(start.elapsed());
        match scraped {
            Ok(scrape) => {
                for line in scrape.0.lines().filter(|line| !line.starts_with('#')) {
                    self.look(subject.tier, line);
                }
            }
            Err(error) => self.fail(format!("no scrape: {error}")),
        }
    }

    fn look(&mut self, tier: Tier, line: &str) {
        let Some((series, value)) = line.rsplit_once(' ') else {
            return self.fail(format!("not a sample: {line}"));
        };
        let Ok(value) = value.parse::<f64>() else {
            return self.fail(format!("not a number: {line}"));
        };
        let (family, _) = series.split_once('{').unwrap_or((series, ""));
        match family {
            "darkport_collector_success" if value != 1.0 => {
                if !series.contains("\"owners\"") {
                    self.fail(format!("a collector failed: {line}"));
                } else if tier == Tier::Kernel {
                    self.without_an_owner += 1;
                }
            }
            "darkport_events_lost_total" if value != 0.0 => {
                self.fail(format!("events were lost: {line}"));
            }
            _ if family.ends_with("_total") => match self.last.get_mut(series) {
                Some(last) if *last > value => {
                    let fell = format!("a counter fell from {last}: {line}");
                    self.fail(fell);
                }
                Some(last) => *last = value,
                None => {
                    self.last.insert(series.to_owned(), value);
                }
            },
            _ => {}
        }
    }

    fn fail(&mut self, why: String) {
        self.failures += 1;
        if self.first_failures.len() < KEPT {
            self.first_failures.push(why);
        }
    }
}
