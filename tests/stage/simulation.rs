//! A fleet that never was: a recorded scrape of the real exporter under other names, with some hours of history in which ports
//! are lit, knocked and swept.
//!
//! It is what the live test cannot have: hours, hundreds of hosts, and the kernel tier on a machine without one. What the recorded
//! scrape lacks, because it was not taken in the kernel tier, is added by the table of families.

use std::collections::BTreeMap;

use darkport_exporter::counts::Tier;
use darkport_exporter::metrics::FAMILIES;

use super::remote_write::Series;

/// What is simulated.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub hosts: usize,
    /// Milliseconds since 1970.
    pub from: i64,
    pub to: i64,
    /// The scrape interval in milliseconds.
    pub step: i64,
}

/// One sample of an exposition.
#[derive(Clone, Debug)]
struct Sample {
    metric: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

/// What is special about a host.
#[derive(Clone, Copy, Debug)]
struct Host {
    number: usize,
    tier: Tier,
}

const PROCESSES: [(&str, &str, &str, &str, &str); 6] = [
    ("22", "tcp", "", "sshd", "ssh.service"),
    (
        "5432",
        "tcp",
        "registered",
        "postgres",
        "postgresql.service",
    ),
    ("6379", "tcp", "registered", "redis-server", "redis.service"),
    (
        "9100",
        "tcp",
        "registered",
        "node_exporter",
        "node_exporter.service",
    ),
    ("443", "tcp", "", "nginx", "nginx.service"),
    ("123", "udp", "", "chronyd", "chrony.service"),
];

/// How often each watched port is looked for, among a hundred.
const POPULAR: [(&str, u64); 8] = [
    ("19", 20),
    ("79", 14),
    ("512", 13),
    ("513", 16),
    ("514", 12),
    ("520", 10),
    ("3476", 6),
    ("7", 9),
];

impl Plan {
    /// Every series of one host.
    pub fn host(&self, number: usize, recorded: &str) -> Vec<Series> {
        let host = Host::of(number);
        let mut samples: Vec<Sample> = recorded.lines().filter_map(Sample::parse).collect();
        samples.retain(|sample| {
            !["darkport_listener_info", "darkport_audit_host_total"]
                .contains(&sample.metric.as_str())
        });
        host.add_missing(&mut samples);
        let mut series: Vec<Series> = samples
            .iter()
            .filter_map(|sample| self.series(host, sample))
            .collect();
        series.extend(self.listeners(host));
        series.extend(self.about_the_scrape(host, samples.len()));
        series
    }

    fn times(&self) -> impl Iterator<Item = i64> + use<> {
        let (from, to, step) = (self.from, self.to, self.step);
        (0..)
            .map(move |index| from + index * step)
            .take_while(move |&time| time <= to)
    }

    /// How far into the simulated time, 0 to 1.
    fn progress(&self, time: i64) -> f64 {
        (time - self.from) as f64 / (self.to - self.from) as f64
    }

    fn build(
        &self,
        host: Host,
        metric: &str,
        labels: &BTreeMap<String, String>,
        value: impl Fn(i64) -> Option<f64>,
    ) -> Series {
        let mut all = labels.clone();
        all.retain(|_, value| !value.is_empty());
        all.insert("__name__".to_owned(), metric.to_owned());
        all.insert("job".to_owned(), "darkport".to_owned());
        all.insert("instance".to_owned(), host.name());
        Series {
            labels: all.into_iter().collect(),
            points: self
                .times()
                .filter_map(|time| Some((time, value(time)?)))
                .collect(),
        }
    }

    /// A counter: the sum of what each step adds.
    fn counter(&self, host: Host, sample: &Sample, added: impl Fn(i64) -> u64) -> Series {
        let mut series = self.build(host, &sample.metric, &sample.labels, |_| Some(0.0));
        let mut sum = 0;
        for (time, value) in &mut series.points {
            sum += added(*time);
            *value = sum as f64;
        }
        series
    }

    fn series(&self, host: Host, sample: &Sample) -> Option<Series> {
        let label = |name: &str| sample.labels.get(name).map_or("", String::as_str);
        let (port, protocol) = (label("port"), label("protocol"));
        let state = |time| host.lit(port, protocol, self.progress(time));
        let metric = sample.metric.as_str();
        let gauge = |value: &dyn Fn(i64) -> Option<f64>| {
            Some(self.build(host, metric, &sample.labels, value))
        };
        match metric {
            "darkport_listening" => gauge(&|time| Some(f64::from(u8::from(state(time).is_some())))),
            "darkport_unexpected_listening" => gauge(&|time| {
                Some(f64::from(u8::from(
                    state(time).is_some_and(|lit| lit.unexpected),
                )))
            }),
            "darkport_listener_opened_total" => Some(self.counter(host, sample, |time| {
                u64::from(
                    state(time - self.step).is_none() && state(time).is_some() && time > self.from,
                )
            })),
            "darkport_listener_opened_timestamp_seconds" => gauge(&|time| {
                // The newest moment before this one at which the port became lit.
                let step = self.step;
                let opened = (self.from + step..=time)
                    .rev()
                    .step_by(step as usize)
                    .find(|&at| state(at).is_some() && state(at - step).is_none())?;
                Some(opened as f64 / 1e3)
            })
            .filter(|series| !series.points.is_empty()),
            "darkport_connections" => gauge(&|time| {
                Some(if state(time).is_some() {
                    1.0 + (time / self.step % 3) as f64
                } else {
                    0.0
                })
            }),
            "darkport_inbound_accepted_total" => Some(self.counter(host, sample, |time| {
                state(time).map_or(0, |lit| {
                    if lit.unexpected {
                        u64::from(noise(time, 7) % 9 == 0)
                    } else {
                        3 + noise(time, 8) % 4
                    }
                })
            })),
            "darkport_outbound_connections_total" => Some(self.counter(host, sample, |time| {
                u64::from(port == "79" && host.number == 2 && noise(time, 9).is_multiple_of(20))
            })),
            "darkport_outbound_failures_total" => Some(self.counter(host, sample, |time| {
                u64::from(port == "79" && host.number == 2 && noise(time, 10).is_multiple_of(40))
            })),
            "darkport_inbound_attempts_total" => Some(self.counter(host, sample, |time| {
                self.port_knocks(host, port, protocol, time) + u64::from(state(time).is_some()) * 3
            })),
            "darkport_inbound_refused_total" => Some(self.counter(host, sample, |time| {
                if state(time).is_some() {
                    0
                } else {
                    self.port_knocks(host, port, protocol, time)
                }
            })),
            "darkport_inbound_filtered_total" => Some(self.counter(host, sample, |time| {
                if host.number == 1 && port == "513" {
                    noise(time, 11) % 2
                } else {
                    0
                }
            })),
            "darkport_last_attempt_timestamp_seconds" => gauge(&|time| {
                POPULAR
                    .iter()
                    .any(|(popular, _)| *popular == port)
                    .then_some(time as f64 / 1e3 - 4.0)
            })
            .filter(|series| !series.points.is_empty()),
            "darkport_block_knocks_total" => {
                let block = label("block").parse::<u64>().unwrap_or(0) / 1_024;
                Some(self.counter(host, sample, |time| {
                    self.block_knocks(host, block, protocol, time)
                }))
            }
            "darkport_block_lit_ports" => {
                let block = label("block").parse::<u32>().unwrap_or(0);
                gauge(&|time| {
                    Some(
                        host.lit_ports(self.progress(time))
                            .filter(|&(number, of)| {
                                of == protocol && number / 1_024 * 1_024 == block
                            })
                            .count() as f64,
                    )
                })
            }
            "darkport_space_lit_ports" => gauge(&|time| {
                let lit = host.lit_ports(self.progress(time)).filter(|&(number, of)| {
                    of == protocol
                        && label("assignment") == "assigned"
                        && label("range")
                            == if number < 1_024 {
                                "well_known"
                            } else {
                                "registered"
                            }
                });
                Some(lit.count() as f64)
            }),
            "darkport_space_knocks_total" | "darkport_space_knocked_ports" => {
                let blocks = match label("range") {
                    "well_known" => 0..1,
                    "registered" => 1..48,
                    _ => 48..64,
                };
                let share = match (label("range"), label("assignment")) {
                    ("registered", "assigned") => 2,
                    ("registered", "unassigned") => 8,
                    ("well_known", "assigned") => 6,
                    ("well_known", "unassigned") => 3,
                    ("dynamic", "unassigned") => 10,
                    _ => 0,
                };
                let knocks = |time| {
                    blocks
                        .clone()
                        .map(|block| self.block_knocks(host, block, protocol, time))
                        .sum::<u64>()
                        * share
                        / 10
                };
                let mut series = self.counter(host, sample, knocks);
                if metric.ends_with("_ports") {
                    // The more are known, the fewer are new.
                    let ports = sample.value;
                    for (_, value) in &mut series.points {
                        *value = (ports * (1.0 - (-*value / ports * 1.6).exp())).floor();
                    }
                }
                Some(series)
            }
            "darkport_space_accepted_total" => Some(self.counter(host, sample, |time| {
                if label("assignment") == "assigned" {
                    3 + noise(time, 12) % 5
                } else {
                    0
                }
            })),
            "darkport_audit_host_total" | "darkport_audit_counted_total" => {
                Some(self.counter(host, sample, |time| {
                    let tiny =
                        u64::from(metric.contains("host") && noise(time, 14).is_multiple_of(50));
                    20 + noise(time, 13) % 15
                        + if host.number == 3 && metric.contains("host") {
                            60
                        } else {
                            tiny
                        }
                }))
            }
            "darkport_events_lost_total" => Some(self.counter(host, sample, |time| {
                if host.number == 3 && self.progress(time) > 0.45 && self.progress(time) < 0.5 {
                    noise(time, 15) % 40
                } else {
                    0
                }
            })),
            "darkport_counting_tier" => gauge(&|time| {
                Some(f64::from(u8::from(
                    label("tier") == host.tier_at(self.progress(time)).as_str(),
                )))
            }),
            "darkport_collector_success" => gauge(&|_| {
                Some(f64::from(u8::from(
                    !(host.number == 4 && label("collector") == "owners"),
                )))
            }),
            "darkport_collector_duration_seconds" => gauge(&|time| {
                Some(
                    sample.value.clamp(0.000_2, 0.02)
                        * (1.0 + (noise(time, 16) % 30) as f64 / 100.0),
                )
            }),
            "darkport_config_last_reload_successful" => gauge(&|time| {
                Some(f64::from(u8::from(
                    host.number != 4 || self.progress(time) < 0.8,
                )))
            }),
            "darkport_config_last_reload_success_timestamp_seconds" => {
                gauge(&|_| Some(self.from as f64 / 1e3))
            }
            "darkport_series_suppressed" => gauge(&|_| {
                Some(
                    if host.number == 3 && label("family") == "darkport_listener_info" {
                        38.0
                    } else {
                        0.0
                    },
                )
            }),
            "process_cpu_seconds_total" => gauge(&|time| {
                Some((time - self.from) as f64 / 1e3 * 0.002 * (1.0 + host.number as f64 % 3.0))
            }),
            "process_resident_memory_bytes" => gauge(&|time| {
                Some(14e6 + host.number as f64 % 7.0 * 4e5 + (noise(time, 17) % 200_000) as f64)
            }),
            _ => gauge(&|_| Some(sample.value)),
        }
    }

    /// Knocks of one step on a watched port: its share of the murmur, and one for every sweep that passes.
    fn port_knocks(&self, host: Host, port: &str, protocol: &str, time: i64) -> u64 {
        let number = port.parse().unwrap_or(0);
        let share = POPULAR
            .iter()
            .find(|(popular, _)| *popular == port)
            .map_or(0, |(_, share)| *share);
        let murmur = u64::from(noise(time, number + host.number as u64) % 400 < share);
        let swept = u64::from(host.swept(self.progress(time), number / 1_024) && protocol == "tcp");
        murmur + swept
    }

    fn block_knocks(&self, host: Host, block: u64, protocol: &str, time: i64) -> u64 {
        let seed = block * 31 + host.number as u64 * 7 + u64::from(protocol == "udp") * 3;
        let chance = match block {
            0 => 500,
            _ if protocol == "udp" && (32..60).contains(&block) => 20,
            _ => 3 + seed % 11,
        };
        let murmur = if noise(time, seed) % 1_000 < chance {
            1 + noise(time, seed + 1) % if block == 0 { 6 } else { 2 }
        } else {
            0
        };
        // A service that is looked for all the time: 5060, 3389 and 8080 have neighbours here.
        let looked_for =
            if protocol == "tcp" && [3, 7].contains(&block) || protocol == "udp" && block == 4 {
                noise(time, seed + 2) % 4
            } else {
                0
            };
        let swept = if protocol == "tcp" && host.swept(self.progress(time), block) {
            1_000
        } else {
            0
        };
        murmur + looked_for + swept
    }

    fn listeners(&self, host: Host) -> Vec<Series> {
        let mut all = Vec::new();
        let info = |port: &str,
                    protocol: &str,
                    watch: &str,
                    process: &str,
                    user: &str,
                    unit: &str,
                    expected: &str| {
            let labels = [
                ("port", port),
                ("protocol", protocol),
                ("address", "0.0.0.0"),
                ("watch", watch),
                ("process", process),
                ("user", user),
                ("unit", unit),
                ("expected", expected),
                ("netns", ""),
            ];
            let labels = labels
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect();
            self.build(host, "darkport_listener_info", &labels, |time| {
                let lit = host.lit(port, protocol, self.progress(time)).is_some();
                (lit || watch.is_empty()).then_some(1.0)
            })
        };
        for (port, protocol, watch, process, unit) in PROCESSES {
            all.push(info(
                port,
                protocol,
                watch,
                process,
                process,
                unit,
                if watch.is_empty() { "" } else { "true" },
            ));
        }
        for (port, watch, process, user, unit) in [
            ("79", "host-talk", "nc", "www-data", "session-41.scope"),
            ("3476", "nppmp", "python3", "root", "cron.service"),
            ("561", "monitor", "", "", ""),
            ("609", "npmp", "socat", "deploy", "user@1000.service"),
        ] {
            all.push(info(port, "tcp", watch, process, user, unit, "false"));
        }
        all.retain(|series| !series.points.is_empty());
        all
    }

    fn about_the_scrape(&self, host: Host, samples: usize) -> Vec<Series> {
        let none = BTreeMap::new();
        let mut series = vec![
            self.build(host, "up", &none, |_| Some(1.0)),
            self.build(host, "scrape_samples_scraped", &none, |_| {
                Some(samples as f64)
            }),
        ];
        // Ports of the registered range that this host uses, as an active entry shows them.
        for (port, protocol, watch, _, _) in PROCESSES
            .into_iter()
            .filter(|(_, _, watch, _, _)| !watch.is_empty())
        {
            let facts = [
                ("port", port),
                ("protocol", protocol),
                ("watch", watch),
                ("service_name", service(port)),
                ("range", "registered"),
                ("assignment", "assigned"),
            ];
            let facts = facts
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into_iter()
                .collect();
            series.push(self.build(host, "darkport_watched_port_info", &facts, |_| Some(1.0)));
            for family in FAMILIES.iter().filter(|family| {
                family.labels == ["port", "protocol"] && family.tiers.contains(&host.tier)
            }) {
                let labels = [("port", port), ("protocol", protocol)]
                    .map(|(name, value)| (name.to_owned(), value.to_owned()))
                    .into_iter()
                    .collect();
                series.extend(self.series(
                    host,
                    &Sample {
                        metric: family.name.to_owned(),
                        labels,
                        value: 0.0,
                    },
                ));
            }
        }
        series
    }
}

fn service(port: &str) -> &'static str {
    match port {
        "5432" => "postgresql",
        "6379" => "redis",
        _ => "hp-pdl-datastr",
    }
}

/// What is lit on a host.
#[derive(Clone, Copy, Debug)]
struct Lit {
    unexpected: bool,
}

impl Host {
    /// The first five are what the pictures show; of the others, one in ten has something of its own.
    fn of(number: usize) -> Self {
        let tier = match number {
            3 => Tier::Netlink,
            4 => Tier::Polled,
            _ => Tier::Kernel,
        };
        Self { number, tier }
    }

    fn name(self) -> String {
        const NAMES: [&str; 5] = ["web-1", "web-2", "db-1", "build-1", "legacy-1"];
        match NAMES.get(self.number) {
            Some(name) => format!("{name}:10561"),
            None => format!("host-{:03}:10561", self.number),
        }
    }

    fn tier_at(self, progress: f64) -> Tier {
        if self.number == 4 && progress < 0.55 {
            Tier::Netlink
        } else {
            self.tier
        }
    }

    fn lit(self, port: &str, protocol: &str, progress: f64) -> Option<Lit> {
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

    fn lit_ports(self, progress: f64) -> impl Iterator<Item = (u32, &'static str)> {
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
    fn swept(self, progress: f64, block: u64) -> bool {
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

    /// The families of the simulated tier that the recorded scrape does not have, for the same ports and classes.
    fn add_missing(self, samples: &mut Vec<Sample>) {
        samples.retain(|sample| {
            sample.metric != "darkport_events_lost_total"
                && sample.metric != "darkport_audit_counted_total"
        });
        samples.retain(|sample| {
            FAMILIES
                .iter()
                .find(|family| family.name == sample.metric)
                .is_none_or(|family| family.tiers.contains(&self.tier))
        });
        let like = |metric: &str, samples: &[Sample]| -> Vec<BTreeMap<String, String>> {
            samples
                .iter()
                .filter(|sample| sample.metric == metric)
                .map(|sample| sample.labels.clone())
                .collect()
        };
        let missing: Vec<_> = FAMILIES
            .iter()
            .filter(|family| {
                family.tiers.contains(&self.tier)
                    && !samples.iter().any(|sample| sample.metric == family.name)
            })
            .collect();
        for family in missing {
            let labels = match family.labels {
                ["port", "protocol"] if family.name.contains("outbound") => {
                    like("darkport_connections", samples)
                }
                ["port", "protocol"] => like("darkport_listening", samples),
                ["protocol", "range", "assignment"] => {
                    // The value is what the class can have at most.
                    let classes: Vec<_> = samples
                        .iter()
                        .filter(|sample| sample.metric == "darkport_space_ports")
                        .map(|sample| Sample {
                            metric: family.name.to_owned(),
                            ..sample.clone()
                        })
                        .collect();
                    samples.extend(classes);
                    continue;
                }
                ["range", "assignment"] => like("darkport_space_ports", samples)
                    .into_iter()
                    .filter(|labels| labels["protocol"] == "tcp")
                    .map(|mut labels| {
                        labels.remove("protocol");
                        labels
                    })
                    .collect(),
                ["protocol", "block"] => like("darkport_block_lit_ports", samples),
                ["what"] => ["passive_opens", "udp_no_ports"]
                    .map(|what| BTreeMap::from([("what".to_owned(), what.to_owned())]))
                    .to_vec(),
                ["source"] => vec![BTreeMap::from([(
                    "source".to_owned(),
                    self.tier.as_str().to_owned(),
                )])],
                _ => Vec::new(),
            };
            samples.extend(labels.into_iter().map(|labels| Sample {
                metric: family.name.to_owned(),
                labels,
                value: 0.0,
            }));
        }
        if let Some(seen) = samples
            .iter()
            .position(|sample| sample.metric == "darkport_network_namespaces")
        {
            samples[seen].value += f64::from(u8::from(self.number == 3)) * 4.0;
        } else {
            for (state, value) in [
                ("seen", if self.number == 3 { 5.0 } else { 1.0 }),
                ("read", 1.0),
            ] {
                let labels = BTreeMap::from([("state".to_owned(), state.to_owned())]);
                samples.push(Sample {
                    metric: "darkport_network_namespaces".to_owned(),
                    labels,
                    value,
                });
            }
        }
    }
}

impl Sample {
    /// Reads a line of the text format; label values here have neither quotes nor commas.
    fn parse(line: &str) -> Option<Self> {
        let (series, value) = line.rsplit_once(' ')?;
        if line.starts_with('#') {
            return None;
        }
        let (metric, labels) = match series.split_once('{') {
            Some((metric, labels)) => (metric, labels.strip_suffix('}')?),
            None => (series, ""),
        };
        let labels = labels
            .split("\",")
            .filter_map(|label| label.split_once("=\""))
            .map(|(name, value)| (name.to_owned(), value.trim_end_matches('"').to_owned()))
            .collect();
        Some(Self {
            metric: metric.to_owned(),
            labels,
            value: value.parse().ok()?,
        })
    }
}

/// A number that looks like chance and is the same every time.
fn noise(time: i64, seed: u64) -> u64 {
    let mut state = (time as u64 / 1_000).wrapping_mul(0x9E37_79B9_7F4A_7C15)
        ^ seed.wrapping_mul(0xD1B5_4A32_D192_ED03);
    state ^= state >> 29;
    state = state.wrapping_mul(0xBF58_476D_1CE4_E5B9);
    state ^ (state >> 32)
}
