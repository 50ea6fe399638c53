//! The simulated hosts: which tier, what is lit there and when, when a sweep passes.

use darkport_exporter::counts::Tier;

/// What is special about a host.
#[derive(Clone, Copy, Debug)]
pub struct Host {
    pub number: usize,
    pub tier: Tier,
}

/// What is lit on a host.
#[derive(Clone, Copy, Debug)]
pub struct Lit {
    pub unexpected: bool,
}

impl Host {
    /// The first five are what the pictures show; of the others, one in ten has something of its own.
    pub fn of(number: usize) -> Self {
        let tier = match number {
            3 => Tier::Netlink,
            4 => Tier::Polled,
            _ => Tier::Kernel,
        };
        Self { number, tier }
    }

    pub fn name(self) -> String {
        const NAMES: [&str; 5] = ["web-1", "web-2", "db-1", "build-1", "legacy-1"];
        match NAMES.get(self.number) {
            Some(name) => format!("{name}:10561"),
            None => format!("host-{:03}:10561", self.number),
        }
    }

    pub fn tier_at(self, progress: f64) -> Tier {
        if self.number == 4 && progress < 0.55 {
            Tier::Netlink
        } else {
            self.tier
        }
    }

    pub fn lit(self, port: &str, protocol: &str, progress: f64) -> Option<Lit> {
        let between = |from: f64, to: f64| (from..to).contains(&progress);
        if protocol != "tcp" {
            return None;
        }
        let unexpected = match (self.number, port) {
            (1, "79") => between(0.62, 2.0),
            (2, "3476") => true,
            (0, "609") => between(0.30, 0.34) || between(0.44, 0.46),
            (4, "561") => between(0.82, 2.0),
            (number, "79") if number > 4 => number % 50 == 7 && between(0.7, 2.0),
            _ => false,
        };
        let expected = match (self.number, port) {
            (2, "5432") => !between(0.50, 0.52),
            (3, "6379") => between(0.25, 2.0),
            (_, "9100") => true,
            (number, "5432") if number > 4 => number % 3 == 0,
            _ => false,
        };
        (unexpected || expected).then_some(Lit { unexpected })
    }

    pub fn lit_ports(self, progress: f64) -> impl Iterator<Item = (u32, &'static str)> {
        let watched = ["79", "3476", "561", "609", "5432", "6379", "9100"];
        let of_watch = watched
            .into_iter()
            .filter(move |port| self.lit(port, "tcp", progress).is_some())
            .map(|port| (port, "tcp"));
        let others = [("22", "tcp"), ("443", "tcp"), ("123", "udp")].into_iter();
        of_watch
            .chain(others)
            .map(|(port, protocol)| (port.parse().unwrap_or(0), protocol))
    }

    /// Whether a sweep is at this block now: it goes through the space from below.
    pub fn swept(self, progress: f64, block: u64) -> bool {
        let passing = |begin: f64, length: f64, last: u64| {
            let at = (progress - begin) / length * (last + 1) as f64;
            block <= last && at >= block as f64 && at < block as f64 + 3.0
        };
        match self.number {
            0 => passing(0.22, 0.03, 63) || passing(0.70, 0.01, 63),
            1 => passing(0.66, 0.02, 40),
            2 => passing(0.71, 0.01, 0),
            number => number % 40 == 11 && passing(0.8, 0.03, 63),
        }
    }

    /// Network namespaces that the exporter sees; it reads one.
    pub fn namespaces(self) -> f64 {
        if self.number == 3 { 5.0 } else { 1.0 }
    }
}
