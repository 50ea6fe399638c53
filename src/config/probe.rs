//! The section `probe`: who may be probed, and what is asked.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use super::entry;
use crate::duration;
use crate::port::{PortSet, Protocol};
use crate::probe::{Allowed, Expect, Module, Preference, Settings};
use crate::watch::WatchSet;
use crate::yaml::{Field, Mapping, Problems, closest, given, quoted};

/// How many networks and modules there may be: each request looks through the former, each of the latter costs 16 KiB.
const MOST: usize = 1024;

/// Series of one port of a module: whether it is open, and its state.
const SERIES_PER_PORT: usize = 2;

/// Reads the section. Without a watch set, what is taken from it is not judged; likewise the limit of series.
pub(super) fn settings(
    field: &Field<'_>,
    watch: Option<&WatchSet>,
    series: Option<usize>,
    problems: &mut Problems,
) -> Option<Settings> {
    let map = field.mapping(&["targets", "modules"], problems)?;
    let targets = map
        .field("targets")
        .map_or(Some(Allowed::default()), |f| targets(f, problems));
    let modules = map.field("modules").map_or(Some(BTreeMap::new()), |f| {
        modules(f, watch, series, problems)
    });
    Some(Settings {
        targets: targets?,
        modules: modules?,
    })
}

fn targets(field: &Field<'_>, problems: &mut Problems) -> Option<Allowed> {
    let items = field.list("a list of networks, such as [192.0.2.0/24]", problems)?;
    let all = items.len();
    if all > MOST {
        field.refuse(
            problems,
            format!("lists {all} networks: {MOST} are enough, join some of them"),
        );
        return None;
    }
    let mut networks: Vec<IpNet> = Vec::with_capacity(all);
    for item in items {
        match network(&item, problems) {
            Some(network) if networks.contains(&network) => {
                item.refuse(problems, format!("{network} stands twice: list it once"));
            }
            Some(network) => networks.push(network),
            None => {}
        }
    }
    (networks.len() == all).then(|| Allowed::new(networks))
}

fn network(item: &Field<'_>, problems: &mut Problems) -> Option<IpNet> {
    let text = item.text("a network or an address, such as 192.0.2.0/24", problems)?;
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(address.to_canonical().into());
    }
    let message = match text.parse::<IpNet>() {
        Ok(network) if is_mapped(network) => {
            format!("{network} is IPv4 written as IPv6: write the IPv4 network")
        }
        Ok(network) if network.addr() == network.network() => return Some(network),
        Ok(network) => format!(
            "{network} has bits behind its prefix: write {} for the network, or {} for the address",
            network.trunc(),
            network.addr()
        ),
        Err(_) => format!(
            "{} is neither a network nor an address: write one like 192.0.2.0/24 or 2001:db8::1; of a name, list the \
             addresses",
            quoted(text)
        ),
    };
    item.refuse(problems, message);
    None
}

fn is_mapped(network: IpNet) -> bool {
    matches!(network, IpNet::V6(network) if network.prefix_len() >= 96 && network.addr().to_ipv4_mapped().is_some())
}

fn modules(
    field: &Field<'_>,
    watch: Option<&WatchSet>,
    series: Option<usize>,
    problems: &mut Problems,
) -> Option<BTreeMap<String, Arc<Module>>> {
    let entries = field.entries("a name and its settings for each module", problems)?;
    let all = entries.len();
    if all > MOST {
        field.refuse(problems, format!("has {all} modules: {MOST} are enough"));
        return None;
    }
    let modules: BTreeMap<_, _> = entries
        .into_iter()
        .filter_map(|(name, field)| {
            let is_named = entry::checked_name(&field, name, problems);
            let module = module(name, &field, watch, series, problems);
            is_named?;
            Some((name.to_owned(), Arc::new(module?)))
        })
        .collect();
    (modules.len() == all).then_some(modules)
}

fn module(
    name: &str,
    field: &Field<'_>,
    watch: Option<&WatchSet>,
    series: Option<usize>,
    problems: &mut Problems,
) -> Option<Module> {
    const KEYS: [&str; 10] = [
        "ports",
        "watch",
        "protocols",
        "timeout",
        "retries",
        "rate",
        "concurrency",
        "expect",
        "preferred_ip_protocol",
        "ip_protocol_fallback",
    ];
    const EXPECT: [(&str, Expect); 2] = [("closed", Expect::Closed), ("open", Expect::Open)];
    const IPV6: [(&str, bool); 2] = [("ip4", false), ("ip6", true)];
    let map = field.mapping(&KEYS, problems)?;
    let defaults = Preference::default();
    let ports = ports(field, &map, watch, series, problems);
    let timeout = map
        .field("timeout")
        .map_or(Some(Module::TIMEOUT), |f| timeout(f, problems));
    let mut number = |key, default, least, most| {
        map.field(key)
            .map_or(Some(default), |f| bounded(f, least, most, problems))
    };
    let retries = number("retries", Module::RETRIES, 0, Module::MOST_RETRIES);
    let (least, most) = Module::RATES.into_inner();
    let rate = number("rate", Module::RATE, least, most);
    let (least, most) = Module::CONCURRENCIES.into_inner();
    let concurrency = number("concurrency", Module::CONCURRENCY, least, most);
    let expect = map
        .field("expect")
        .map_or(Some(Expect::Nothing), |f| f.choice(&EXPECT, problems));
    let ipv6 = map
        .field("preferred_ip_protocol")
        .map_or(Some(defaults.ipv6), |f| f.choice(&IPV6, problems));
    let fallback = map
        .field("ip_protocol_fallback")
        .map_or(Some(defaults.fallback), |f| f.claim(problems));
    Some(Module {
        name: name.to_owned(),
        ports: ports?,
        timeout: timeout?,
        retries: retries?,
        rate: rate?,
        concurrency: concurrency?,
        expect: expect?,
        preference: Preference {
            ipv6: ipv6?,
            fallback: fallback?,
        },
    })
}

/// The ports of a module: those listed, of its protocols, and those of the watch entries named, as far as they have its
/// protocols.
fn ports(
    module: &Field<'_>,
    map: &Mapping<'_>,
    watch: Option<&WatchSet>,
    series: Option<usize>,
    problems: &mut Problems,
) -> Option<PortSet> {
    let protocols = map
        .field("protocols")
        .map_or(Some(vec![Protocol::Tcp]), |f| entry::protocols(f, problems));
    let spans = map.field("ports").map(|f| entry::spans(f, problems));
    let watched = map.field("watch").map(|f| watched(f, watch, problems));
    if spans.is_none() && watched.is_none() {
        module.refuse_missing(
            problems,
            "ports",
            "missing: list numbers and ranges, or watch entries by name with watch",
        );
        return None;
    }
    let spans = given(spans)?;
    let watched = given(watched)?;
    let protocols = protocols?;
    let mut ports = entry::every(&spans.unwrap_or_default(), &protocols);
    if let Some(mut watched) = watched {
        watched.intersect(&entry::every(&[entry::WHOLE], &protocols));
        ports.unite(&watched);
    }
    // Port 0 is a number in packets and no port to ask: connect(2) takes it for a mistake.
    for protocol in Protocol::ALL {
        ports.remove(crate::port::Port {
            number: 0,
            protocol,
        });
    }
    if ports.is_empty() {
        // Without a watch set nothing can be said of what is taken from it.
        if watch.is_some() {
            module.refuse(
                problems,
                "selects no port: the watch entries named have none of the module's protocols, or only port 0 is listed",
            );
        }
        return None;
    }
    let needed = ports.len() * SERIES_PER_PORT;
    if let Some(limit) = series.filter(|&limit| needed > limit) {
        module.refuse(
            problems,
            format!(
                "its {} ports need {needed} series, the limit is {limit}: probe fewer ports, or raise limits.series",
                ports.len()
            ),
        );
        return None;
    }
    Some(ports)
}

fn watched(
    field: &Field<'_>,
    watch: Option<&WatchSet>,
    problems: &mut Problems,
) -> Option<PortSet> {
    let items = field.list("a list of names of watch entries", problems)?;
    let all = items.len();
    if all == 0 {
        field.refuse(
            problems,
            "names no watch entry: list some, or leave the key out",
        );
        return None;
    }
    let mut ports = PortSet::new();
    let mut known = 0;
    for item in items {
        let Some(name) = item.text("the name of a watch entry", problems) else {
            continue;
        };
        let Some(watch) = watch else { continue };
        let names = || watch.entries().iter().map(|entry| entry.name.as_str());
        match watch.entries().iter().find(|entry| entry.name == name) {
            Some(entry) => {
                ports.unite(&entry.ports);
                known += 1;
            }
            None => {
                let meant = closest(name, names())
                    .map_or_else(String::new, |meant| format!(": did you mean {meant}?"));
                item.refuse(
                    problems,
                    format!("no watch entry is named {}{meant}", quoted(name)),
                );
            }
        }
    }
    (known == all).then_some(ports)
}

fn timeout(field: &Field<'_>, problems: &mut Problems) -> Option<Duration> {
    let text = field.text("a duration, such as 2s", problems)?;
    match duration::parse(text) {
        Ok(timeout) if Module::TIMEOUTS.contains(&timeout) => Some(timeout),
        Ok(_) => {
            field.refuse(
                problems,
                format!("{text} is not a useful time-out: choose 10ms to 1m"),
            );
            None
        }
        Err(_) => {
            let message = format!(
                "{} is not a duration: write it like 2s, 500ms or 1m30s",
                quoted(text)
            );
            field.refuse(problems, message);
            None
        }
    }
}

fn bounded(field: &Field<'_>, least: u32, most: u32, problems: &mut Problems) -> Option<u32> {
    let number = field.number(most as usize, problems)?;
    let number = u32::try_from(number).unwrap_or(most);
    if number < least {
        field.refuse(
            problems,
            format!("{number} is too small: choose {least} to {most}"),
        );
        return None;
    }
    Some(number)
}
