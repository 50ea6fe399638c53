//! The families of watched ports.

use super::super::remote_write::Series;
use super::{Making, noise};

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

/// The series, if its family is one of a watched port.
pub fn series(making: Making<'_>) -> Option<Series> {
    let (port, host) = (making.label("port"), making.host);
    let state = |time| host.lit(port, making.label("protocol"), making.progress(time));
    let calls = |time, seed, one_in| {
        u64::from(port == "79" && host.number == 2 && noise(time, seed).is_multiple_of(one_in))
    };
    Some(match making.sample.metric.as_str() {
        "darkport_listening" => making.claim(|time| state(time).is_some()),
        "darkport_unexpected_listening" => {
            making.claim(|time| state(time).is_some_and(|lit| lit.unexpected))
        }
        "darkport_listener_opened_total" => making.counter(|time| u64::from(opened(making, time))),
        "darkport_listener_opened_timestamp_seconds" => making.gauge(|time| {
            let times = (making.plan.from..=time)
                .rev()
                .step_by(making.plan.step as usize);
            let newest = times.into_iter().find(|&at| opened(making, at))?;
            Some(newest as f64 / 1e3)
        }),
        "darkport_connections" => making.gauge(|time| {
            Some(state(time).map_or(0.0, |_| 1.0 + (time / making.plan.step % 3) as f64))
        }),
        "darkport_inbound_accepted_total" => making.counter(|time| match state(time) {
            None => 0,
            Some(lit) if lit.unexpected => u64::from(noise(time, 7).is_multiple_of(9)),
            Some(_) => 3 + noise(time, 8) % 4,
        }),
        "darkport_outbound_connections_total" => making.counter(|time| calls(time, 9, 20)),
        "darkport_outbound_failures_total" => making.counter(|time| calls(time, 10, 40)),
        "darkport_inbound_attempts_total" => {
            making.counter(|time| knocks(making, time) + u64::from(state(time).is_some()) * 3)
        }
        "darkport_inbound_refused_total" => making.counter(|time| {
            if state(time).is_some() {
                0
            } else {
                knocks(making, time)
            }
        }),
        "darkport_inbound_filtered_total" => making.counter(|time| {
            if host.number == 1 && port == "513" {
                noise(time, 11) % 2
            } else {
                0
            }
        }),
        "darkport_last_attempt_timestamp_seconds" => {
            let popular = POPULAR.iter().any(|(popular, _)| *popular == port);
            making.gauge(|time| popular.then_some(time as f64 / 1e3 - 4.0))
        }
        _ => return None,
    })
}

/// Whether the port became lit since the step before.
fn opened(making: Making<'_>, time: i64) -> bool {
    let lit = |time| {
        let host = making.host;
        host.lit(
            making.label("port"),
            making.label("protocol"),
            making.progress(time),
        )
        .is_some()
    };
    time > making.plan.from && lit(time) && !lit(time - making.plan.step)
}

/// Knocks of one step on a watched port: its share of the murmur, and one for every sweep that passes.
fn knocks(making: Making<'_>, time: i64) -> u64 {
    let (port, host) = (making.label("port"), making.host);
    let number = port.parse().unwrap_or(0);
    let share = POPULAR
        .iter()
        .find(|(popular, _)| *popular == port)
        .map_or(0, |(_, share)| *share);
    let murmur = u64::from(noise(time, number + host.number as u64) % 400 < share);
    let swept =
        host.swept(making.progress(time), number / 1_024) && making.label("protocol") == "tcp";
    murmur + u64::from(swept)
}
