//! The recorded scrape, and what of the table of families it lacks for a host's tier.

use std::collections::BTreeMap;

use darkport_exporter::counts::Tier;
use darkport_exporter::metrics::FAMILIES;

/// One sample of an exposition.
#[derive(Clone, Debug)]
pub struct Sample {
    pub metric: String,
    pub labels: BTreeMap<String, String>,
    pub value: f64,
}

impl Sample {
    /// Reads a line of the text format; label values here have neither quotes nor commas.
    pub fn parse(line: &str) -> Option<Self> {
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

/// What the simulation says otherwise than the host on which the scrape was taken.
const OF_THAT_HOST: [&str; 5] = [
    "darkport_listener_info",
    "darkport_network_namespaces",
    "darkport_audit_host_total",
    "darkport_audit_counted_total",
    "darkport_events_lost_total",
];

/// Makes the samples those of a host in this tier: leaves out what the tier does not have, and adds what the recorded one did not
/// have, for the same ports and classes.
pub fn add_missing(samples: &mut Vec<Sample>, tier: Tier) {
    samples.retain(|sample| {
        let family = FAMILIES.iter().find(|family| family.name == sample.metric);
        !OF_THAT_HOST.contains(&sample.metric.as_str())
            && family.is_none_or(|family| family.tiers.contains(&tier))
    });
    for family in FAMILIES
        .iter()
        .filter(|family| family.tiers.contains(&tier))
    {
        if samples.iter().any(|sample| sample.metric == family.name) {
            continue;
        }
        let like = |metric: &str| {
            let others = samples.iter().filter(|sample| sample.metric == metric);
            // The value of another family is what a class can have at most.
            others
                .map(|sample| Sample {
                    metric: family.name.to_owned(),
                    ..sample.clone()
                })
                .collect::<Vec<_>>()
        };
        let one = |label: &str, value: &str| Sample {
            metric: family.name.to_owned(),
            labels: BTreeMap::from([(label.to_owned(), value.to_owned())]),
            value: 0.0,
        };
        let added = match family.labels {
            ["port", "protocol"] if family.name.contains("outbound") => {
                like("darkport_connections")
            }
            ["port", "protocol"] => like("darkport_listening"),
            ["protocol", "range", "assignment"] => like("darkport_space_ports"),
            ["range", "assignment"] => {
                let mut classes = like("darkport_space_ports");
                classes.retain(|class| class.labels["protocol"] == "tcp");
                classes
                    .iter_mut()
                    .for_each(|class| drop(class.labels.remove("protocol")));
                classes
            }
            ["protocol", "block"] => like("darkport_block_lit_ports"),
            ["what"] => vec![one("what", "passive_opens"), one("what", "udp_no_ports")],
            ["source"] => vec![one("source", tier.as_str())],
            // The recorded one had no web configuration.
            [] if family.name == "darkport_web_config_last_reload_successful" => vec![Sample {
                metric: family.name.to_owned(),
                labels: BTreeMap::new(),
                value: 1.0,
            }],
            _ => Vec::new(),
        };
        samples.extend(added);
    }
}
