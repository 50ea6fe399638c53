//! What the simulated exporters say of themselves.

use super::super::remote_write::Series;
use super::{Making, noise};

/// The series, if its family is about the exporter itself.
pub fn series(making: Making<'_>) -> Option<Series> {
    let number = making.host.number;
    let (from, metric) = (making.plan.from, making.sample.metric.as_str());
    Some(match metric {
        "darkport_audit_host_total" | "darkport_audit_counted_total" => {
            // In tier netlink the host counts on more ports; in tier kernel a scrape may fall between two counts.
            let more = |time| match (metric, number) {
                ("darkport_audit_counted_total", _) => 0,
                (_, 3) => 60,
                _ => u64::from(noise(time, 14).is_multiple_of(50)),
            };
            making.counter(|time| 20 + noise(time, 13) % 15 + more(time))
        }
        "darkport_events_lost_total" => making.counter(|time| {
            let busy = number == 3 && (0.45..0.5).contains(&making.progress(time));
            if busy { noise(time, 15) % 40 } else { 0 }
        }),
        "darkport_counting_tier" => making.claim(|time| {
            making.label("tier") == making.host.tier_at(making.progress(time)).as_str()
        }),
        "darkport_collector_success" => {
            making.claim(|_| number != 4 || making.label("collector") != "owners")
        }
        "darkport_collector_duration_seconds" => {
            let usual = making.sample.value.clamp(0.000_2, 0.02);
            making.gauge(|time| Some(usual * (1.0 + (noise(time, 16) % 30) as f64 / 100.0)))
        }
        "darkport_config_last_reload_successful" => {
            making.claim(|time| number != 4 || making.progress(time) < 0.8)
        }
        "darkport_web_config_last_reload_successful" => {
            making.claim(|time| number != 2 || making.progress(time) < 0.7)
        }
        "darkport_web_refused_total" => making.counter(|time| {
            let away = match making.label("reason") {
                "basic_auth" => number == 2 && making.progress(time) > 0.6,
                "client_certificate" => number == 1 && noise(time, 18).is_multiple_of(40),
                "overload" => number == 3 && (0.45..0.5).contains(&making.progress(time)),
                _ => false,
            };
            u64::from(away)
        }),
        "darkport_config_last_reload_success_timestamp_seconds" => {
            making.gauge(|_| Some(from as f64 / 1e3))
        }
        "darkport_series_suppressed" => {
            let cut = number == 3 && making.label("family") == "darkport_listener_info";
            making.gauge(|_| Some(if cut { 38.0 } else { 0.0 }))
        }
        "process_cpu_seconds_total" => {
            let share = 0.002 * (1.0 + number as f64 % 3.0);
            making.gauge(|time| Some((time - from) as f64 / 1e3 * share))
        }
        "process_resident_memory_bytes" => making.gauge(|time| {
            Some(14e6 + number as f64 % 7.0 * 4e5 + (noise(time, 17) % 200_000) as f64)
        }),
        _ => return None,
    })
}
