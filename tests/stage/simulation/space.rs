//! The families of the whole port space.

use super::super::remote_write::Series;
use super::{Making, noise};

/// The series, if its family is one of the whole port space.
pub fn series(making: Making<'_>) -> Option<Series> {
    let lit = |time| {
        making
            .host
            .lit_ports(making.progress(time))
            .filter(|(_, protocol)| *protocol == making.label("protocol"))
    };
    let assigned = making.label("assignment") == "assigned";
    Some(match making.sample.metric.as_str() {
        "darkport_block_knocks_total" => {
            let block = making.label("block").parse::<u64>().unwrap_or(0) / 1_024;
            making.counter(|time| block_knocks(making, block, time))
        }
        "darkport_block_lit_ports" => {
            let block = making.label("block").parse::<u32>().unwrap_or(0) / 1_024;
            making.gauge(|time| {
                Some(
                    lit(time)
                        .filter(|(number, _)| number / 1_024 == block)
                        .count() as f64,
                )
            })
        }
        "darkport_space_lit_ports" => making.gauge(|time| {
            let of_range = lit(time).filter(|&(number, _)| making.label("range") == range(number));
            Some(if assigned {
                of_range.count() as f64
            } else {
                0.0
            })
        }),
        "darkport_space_knocks_total" => making.counter(|time| class_knocks(making, time)),
        "darkport_space_knocked_ports" => {
            let mut series = making.counter(|time| class_knocks(making, time));
            // The more are known, the fewer are new; the value is what the class has.
            let ports = making.sample.value;
            for (_, value) in &mut series.points {
                *value = (ports * (1.0 - (-*value / ports * 1.6).exp())).floor();
            }
            series
        }
        "darkport_space_accepted_total" => {
            making.counter(|time| if assigned { 3 + noise(time, 12) % 5 } else { 0 })
        }
        _ => return None,
    })
}

fn range(port: u32) -> &'static str {
    if port < 1_024 {
        "well_known"
    } else {
        "registered"
    }
}

fn class_knocks(making: Making<'_>, time: i64) -> u64 {
    let mut blocks = match making.label("range") {
        "well_known" => 0..1,
        "registered" => 1..48,
        _ => 48..64,
    };
    let tenths = match (making.label("range"), making.label("assignment")) {
        ("registered", "assigned") => 2,
        ("registered", "unassigned") => 8,
        ("well_known", "assigned") => 6,
        ("well_known", "unassigned") => 3,
        ("dynamic", "unassigned") => 10,
        _ => return 0,
    };
    blocks
        .by_ref()
        .map(|block| block_knocks(making, block, time))
        .sum::<u64>()
        * tenths
        / 10
}

fn block_knocks(making: Making<'_>, block: u64, time: i64) -> u64 {
    let tcp = making.label("protocol") == "tcp";
    let seed = block * 31 + making.host.number as u64 * 7 + u64::from(!tcp) * 3;
    let chance = match block {
        0 => 500,
        // Late answers to clients that have gone.
        32..60 if !tcp => 20,
        _ => 3 + seed % 11,
    };
    let some = 1 + noise(time, seed + 1) % if block == 0 { 6 } else { 2 };
    let murmur = if noise(time, seed) % 1_000 < chance {
        some
    } else {
        0
    };
    // A service that is looked for all the time: 3389, 8080 and 5060 have neighbours here.
    let always = if tcp {
        matches!(block, 3 | 7)
    } else {
        block == 4
    };
    let looked_for = if always { noise(time, seed + 2) % 4 } else { 0 };
    let swept = tcp && making.host.swept(making.progress(time), block);
    murmur + looked_for + if swept { 1_000 } else { 0 }
}
