//! A module: which ports are asked, how, and what is hoped for.

use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::finding::State;
use crate::port::{Port, PortSet};

/// What a module hopes for; decides whether a probe succeeds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Expect {
    /// Nothing: a probe succeeds when every port has been asked.
    #[default]
    Nothing,
    /// That no port is open.
    Closed,
    /// That every port is open. Silence of a UDP port does not show that.
    Open,
}

impl Expect {
    /// Whether a port in this state is as hoped for.
    #[must_use]
    pub const fn is_met_by(self, state: State) -> bool {
        match self {
            Self::Nothing => true,
            Self::Closed => !matches!(state, State::Open),
            Self::Open => matches!(state, State::Open),
        }
    }
}

/// Which addresses of a name are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Preference {
    /// Whether IPv6 is preferred to IPv4.
    pub ipv6: bool,
    /// Whether the other family is asked where the name has no address of the preferred one.
    pub fallback: bool,
}

impl Default for Preference {
    /// As `blackbox_exporter` has it: IPv6, else IPv4.
    fn default() -> Self {
        Self {
            ipv6: true,
            fallback: true,
        }
    }
}

/// Which ports are asked, how, and what is hoped for.
#[derive(Clone, Debug)]
pub struct Module {
    /// Its name. Modules of one name share their rate.
    pub name: String,
    /// The ports; at least one.
    pub ports: PortSet,
    /// How long silence is waited for before it is believed.
    pub timeout: Duration,
    /// How often a silent port is asked again.
    pub retries: u32,
    /// Questions a second, at the most, of all runs of this module together.
    pub rate: u32,
    /// Questions at a time, at the most, of one run.
    pub concurrency: u32,
    /// What is hoped for.
    pub expect: Expect,
    /// Which addresses of a name are asked.
    pub preference: Preference,
}

impl Module {
    /// The rate if nothing is said: all ports of a host in a minute or so, and no burden for anybody.
    pub const RATE: u32 = 1000;
    /// What a rate may be.
    pub const RATES: RangeInclusive<u32> = 1..=1_000_000;
    /// The concurrency if nothing is said.
    pub const CONCURRENCY: u32 = 256;
    /// What a concurrency may be.
    pub const CONCURRENCIES: RangeInclusive<u32> = 1..=4096;
    /// The time-out if nothing is said.
    pub const TIMEOUT: Duration = Duration::from_secs(2);
    /// What a time-out may be.
    pub const TIMEOUTS: RangeInclusive<Duration> =
        Duration::from_millis(10)..=Duration::from_secs(60);
    /// The retries if nothing is said.
    pub const RETRIES: u32 = 1;
    /// The most retries.
    pub const MOST_RETRIES: u32 = 10;

    /// A module of these ports, with the defaults for everything else.
    #[must_use]
    pub fn new(name: impl Into<String>, ports: impl IntoIterator<Item = Port>) -> Self {
        Self {
            name: name.into(),
            ports: ports.into_iter().collect(),
            timeout: Self::TIMEOUT,
            retries: Self::RETRIES,
            rate: Self::RATE,
            concurrency: Self::CONCURRENCY,
            expect: Expect::default(),
            preference: Preference::default(),
        }
    }

    /// The concurrency, one at the least.
    pub(super) fn concurrency(&self) -> NonZeroU32 {
        NonZeroU32::new(self.concurrency).unwrap_or(NonZeroU32::MIN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_open_ports_disappoint_who_expects_closed_ones() {
        let met = |expect: Expect| State::ALL.map(|state| expect.is_met_by(state));
        assert_eq!(met(Expect::Nothing), [true; 4]);
        assert_eq!(met(Expect::Closed), [true, true, true, false]);
        assert_eq!(met(Expect::Open), [false, false, false, true]);
    }
}
