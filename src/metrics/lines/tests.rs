//! The lines against the prometheus crate's own.

use prometheus::TextEncoder;
use prometheus::proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};
use proptest::prelude::*;

use super::*;
use crate::counts::PortCounts;
use crate::port::Port;
use crate::registry::Assignment;

const FACTS: &[&str] = &[
    "port",
    "protocol",
    "watch",
    "service_name",
    "range",
    "assignment",
];

/// What the crate writes for the same.
fn encoded(head: Head, series: &[(Vec<String>, f64)]) -> String {
    if series.is_empty() {
        return String::new();
    }
    let mut family = MetricFamily::default();
    family.set_name(head.name.to_owned());
    family.set_help(head.help.to_owned());
    family.set_field_type(match head.kind {
        Kind::Counter => MetricType::COUNTER,
        Kind::Gauge => MetricType::GAUGE,
    });
    for (labels, value) in series {
        let pairs = head.labels.iter().zip(labels).map(|(name, value)| {
            let mut pair = LabelPair::default();
            pair.set_name((*name).to_owned());
            pair.set_value(value.clone());
            pair
        });
        let mut metric = Metric::from_label(pairs.collect());
        match head.kind {
            Kind::Counter => {
                let mut counter = Counter::default();
                counter.set_value(*value);
                metric.set_counter(counter);
            }
            Kind::Gauge => {
                let mut gauge = Gauge::default();
                gauge.set_value(*value);
                metric.set_gauge(gauge);
            }
        }
        family.mut_metric().push(metric);
    }
    TextEncoder::new().encode_to_string(&[family]).unwrap()
}

fn watched<'a>(port: Port, watch: &'a str, service_name: &'a str) -> Watched<'a> {
    Watched {
        port,
        watch,
        service_name,
        assignment: Assignment::Reserved,
        listening: None,
        unexpected: None,
        counts: PortCounts::default(),
    }
}

fn text() -> impl Strategy<Value = String> {
    "([a-z ]|[\"\\\\\n{}=,]|\\PC){0,12}"
}

fn port() -> impl Strategy<Value = Port> {
    (any::<u16>(), prop::sample::select(&Protocol::ALL[..]))
        .prop_map(|(number, protocol)| Port { number, protocol })
}

fn value() -> impl Strategy<Value = f64> {
    prop_oneof![
        prop::num::f64::ANY,
        any::<u64>().prop_map(|whole| whole as f64),
        (0_u64..4).prop_map(|small| small as f64),
        prop::sample::select(&[MOST_DIGITS, MOST_DIGITS - 1.0, -0.0, 0.5, f64::INFINITY][..]),
    ]
}

fn head(kind: Kind, labels: &'static [&'static str]) -> Head {
    Head {
        name: "darkport_something_total",
        kind,
        help: "What \"it\" means: C:\\ and\nmore.",
        labels,
    }
}

proptest! {
    #[test]
    fn a_line_is_what_the_crate_writes(
        series in prop::collection::vec((port(), value()), 0..4),
        is_counter in any::<bool>(),
    ) {
        let kind = if is_counter { Kind::Counter } else { Kind::Gauge };
        let head = head(kind, &FACTS[..2]);
        let mut text = String::new();
        let mut lines = Lines::new(head, &mut text);
        for (port, value) in &series {
            lines.push(&watched(*port, "", ""), *value);
        }
        let expected: Vec<_> = series
            .iter()
            .map(|(port, value)| (vec![port.number.to_string(), port.protocol.to_string()], *value))
            .collect();
        prop_assert_eq!(text, encoded(head, &expected));
    }

    #[test]
    fn facts_are_what_the_crate_writes(port in port(), watch in text(), service in text()) {
        let head = head(Kind::Gauge, FACTS);
        let mut text = "before\n".to_owned();
        Lines::new(head, &mut text).push_facts(&watched(port, &watch, &service));
        let labels = [
            &port.number.to_string(),
            port.protocol.as_str(),
            &watch,
            &service,
            port.range().as_str(),
            Assignment::Reserved.as_str(),
        ];
        let expected = encoded(head, &[(labels.map(str::to_owned).to_vec(), 1.0)]);
        prop_assert_eq!(text, format!("before\n{expected}"));
    }
}
