//! One entry of the watch list: its name and its ports.

use std::cell::OnceCell;
use std::collections::HashMap;

use super::rules;
use crate::port::{ParseError, Port, PortSet, Protocol, Range, Span};
use crate::registry::{Assignment, Registry};
use crate::watch::{Pattern, Series, Watch};
use crate::yaml::Problems;
use crate::yaml::{Field, Mapping, closest, given, quoted};

/// An entry that is understood, and where it stands.
#[derive(Debug)]
pub(super) struct Entry<'a> {
    pub(super) field: Field<'a>,
    pub(super) watch: Watch,
}

/// Reads every entry; those with a problem are left out. Without a registry, what selects from it is not judged.
pub(super) fn decode_all<'a>(
    items: impl Iterator<Item = Field<'a>>,
    registry: Option<&Registry>,
    problems: &mut Problems,
) -> Vec<Entry<'a>> {
    let registry = registry.map(Names::of);
    let registry = registry.as_ref();
    let mut names = HashMap::new();
    let mut rules_left = rules::MAX_RULES;
    items
        .filter_map(|field| {
            let watch = entry(&field, registry, &mut names, &mut rules_left, problems)?;
            Some(Entry { field, watch })
        })
        .collect()
}

fn entry<'a>(
    field: &Field<'a>,
    registry: Option<&Names<'_>>,
    names: &mut HashMap<&'a str, Field<'a>>,
    rules_left: &mut usize,
    problems: &mut Problems,
) -> Option<Watch> {
    const KEYS: [&str; 7] = [
        "name",
        "description",
        "ports",
        "protocols",
        "iana",
        "series",
        "expect",
    ];
    const SERIES: [(&str, Series); 2] = [("dense", Series::Dense), ("active", Series::Active)];
    let map = field.mapping(&KEYS, problems)?;
    let name = name(field, &map, names, problems);
    let description = map
        .field("description")
        .map_or(Some(""), |f| f.text("a text", problems));
    let ports = ports(field, &map, registry, problems);
    let series = map
        .field("series")
        .map_or(Some(Series::default()), |f| f.choice(&SERIES, problems));
    let expect = map.field("expect").map_or(Some(Vec::new()), |f| {
        rules::expectations(f, rules_left, problems)
    });
    Some(Watch {
        name: name?.to_owned(),
        description: description?.trim().to_owned(),
        series: series?,
        expect: expect?,
        ports: ports?,
    })
}

fn name<'a>(
    entry: &Field<'a>,
    map: &Mapping<'a>,
    names: &mut HashMap<&'a str, Field<'a>>,
    problems: &mut Problems,
) -> Option<&'a str> {
    let Some(field) = map.field("name") else {
        entry.refuse_missing(
            problems,
            "name",
            "missing: every entry has a name of its own, made of a-z, 0-9, _ and -",
        );
        return None;
    };
    let name = field.text("a name", problems)?;
    checked_name(field, name, problems)?;
    if let Some(first) = names.get(name) {
        let message = format!(
            "{} is taken: {} on line {} has this name",
            quoted(name),
            first.key(),
            first.place().line
        );
        field.refuse(problems, message);
        return None;
    }
    names.insert(name, entry.clone());
    Some(name)
}

/// A name as every name here has to be; noted at `field` otherwise.
pub(super) fn checked_name(field: &Field<'_>, name: &str, problems: &mut Problems) -> Option<()> {
    const MAX_LENGTH: usize = 63;
    let is_valid = (1..=MAX_LENGTH).contains(&name.len())
        && name
            .bytes()
            .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-'));
    if !is_valid {
        let message = format!(
            "{} cannot be a name: use 1 to {MAX_LENGTH} of a-z, 0-9, _ and -",
            quoted(name)
        );
        field.refuse(problems, message);
    }
    is_valid.then_some(())
}

/// The ports that an entry asks for.
fn ports(
    entry: &Field<'_>,
    map: &Mapping<'_>,
    registry: Option<&Names<'_>>,
    problems: &mut Problems,
) -> Option<PortSet> {
    let protocols = map
        .field("protocols")
        .map_or(Some(Protocol::ALL.to_vec()), |f| protocols(f, problems));
    let spans = map.field("ports").map(|f| spans(f, problems));
    let selector = map
        .field("iana")
        .map(|f| Selector::decode(f, registry, problems));
    if spans.is_none() && selector.is_none() {
        entry.refuse_missing(
            problems,
            "ports",
            "missing: list numbers and ranges, or select from the registry with iana",
        );
    }
    // What is given must be understood before it can be judged.
    let spans = given(spans)?;
    let selector = given(selector)?;
    let protocols = protocols?;
    let asked = match &spans {
        Some(spans) => every(spans, &protocols),
        None if selector.is_some() => every(&[WHOLE], &protocols),
        None => return None,
    };
    let (Some(selector), Some(names)) = (selector, registry) else {
        return Some(asked);
    };
    let selected: PortSet = asked
        .iter()
        .filter(|&port| selector.selects(port, names.registry))
        .collect();
    if selected.is_empty() {
        let among = if spans.is_some() {
            " of those in ports"
        } else {
            ""
        };
        selector.field.refuse(
            problems,
            format!("selects nothing: no port{among} has all that is asked for here"),
        );
        return None;
    }
    Some(selected)
}

pub(super) const WHOLE: Span = Span {
    first: 0,
    last: u16::MAX,
};

pub(super) fn every(spans: &[Span], protocols: &[Protocol]) -> PortSet {
    let mut set = PortSet::new();
    for span in spans {
        for &protocol in protocols {
            set.extend(span.numbers().map(|number| Port { number, protocol }));
        }
    }
    set
}

pub(super) fn protocols(field: &Field<'_>, problems: &mut Problems) -> Option<Vec<Protocol>> {
    const CHOICES: [(&str, Protocol); 2] = [("tcp", Protocol::Tcp), ("udp", Protocol::Udp)];
    let items = field.list("a list: [tcp], [udp] or [tcp, udp]", problems)?;
    if items.len() == 0 {
        field.refuse(
            problems,
            "names no protocol: write [tcp] or [udp], or leave the key out for both",
        );
        return None;
    }
    let all = items.len();
    let mut protocols = Vec::new();
    for item in items {
        match item.choice(&CHOICES, problems) {
            Some(protocol) if protocols.contains(&protocol) => {
                item.refuse(problems, format!("{protocol} stands twice: name it once"));
            }
            Some(protocol) => protocols.push(protocol),
            None => {}
        }
    }
    (protocols.len() == all).then_some(protocols)
}

pub(super) fn spans(field: &Field<'_>, problems: &mut Problems) -> Option<Vec<Span>> {
    let items = field.list(
        "a list of numbers and ranges, such as [561, 609-611]",
        problems,
    )?;
    if items.len() == 0 {
        field.refuse(
            problems,
            "names no port: list numbers and ranges, such as [561, 609-611]",
        );
        return None;
    }
    let all = items.len();
    let spans: Vec<Span> = items.filter_map(|item| span(&item, problems)).collect();
    (spans.len() == all).then_some(spans)
}

fn span(item: &Field<'_>, problems: &mut Problems) -> Option<Span> {
    let text = item.text("a number or a range, such as 561 or 609-611", problems)?;
    if let Some((number, protocol)) = text.split_once('/')
        && let (Ok(span), Ok(protocol)) = (number.parse::<Span>(), protocol.parse::<Protocol>())
    {
        let message = format!(
            "the protocol does not stand here: write {span}, and protocols: [{protocol}] beside ports"
        );
        item.refuse(problems, message);
        return None;
    }
    let message = match text.parse::<Span>() {
        Ok(span) => return Some(span),
        // The text of this one may be a part of what stands there, and as long as it likes.
        Err(ParseError::Number(_)) => format!(
            "{} is neither a port number nor a range: write decimal digits, such as 561 or 609-611",
            quoted(text)
        ),
        Err(ParseError::Beyond(number)) if number.len() > LONGEST_NUMBER => {
            format!("port {}… is beyond 65535", &number[..LONGEST_NUMBER])
        }
        Err(error) => error.to_string(),
    };
    item.refuse(problems, message);
    None
}

/// How many digits of a number far beyond all ports a message shows.
const LONGEST_NUMBER: usize = 20;

/// What an entry selects from the registry: every part given must hold.
#[derive(Debug)]
struct Selector<'a> {
    field: Field<'a>,
    range: Option<Range>,
    assignment: Option<Assignment>,
    service_name: Option<Pattern>,
}

impl<'a> Selector<'a> {
    fn decode(
        field: &Field<'a>,
        registry: Option<&Names<'_>>,
        problems: &mut Problems,
    ) -> Option<Self> {
        let ranges = Range::ALL.map(|range| (range.as_str(), range));
        let assignments = Assignment::ALL.map(|assignment| (assignment.as_str(), assignment));
        let map = field.mapping(&["range", "assignment", "service_name"], problems)?;
        // What is left out must not hinder; what is given and wrong must.
        let range = map.field("range").map(|f| f.choice(&ranges, problems));
        let assignment = map
            .field("assignment")
            .map(|f| f.choice(&assignments, problems));
        let service_name = map
            .field("service_name")
            .map(|f| service_name(f, registry, problems));
        if range.is_none() && assignment.is_none() && service_name.is_none() {
            if field.is_empty_mapping() {
                field.refuse(
                    problems,
                    "selects by nothing: give at least one of range, assignment, service_name",
                );
            }
            return None;
        }
        Some(Self {
            field: field.clone(),
            range: given(range)?,
            assignment: given(assignment)?,
            service_name: given(service_name)?,
        })
    }

    fn selects(&self, port: Port, registry: &Registry) -> bool {
        let class = registry.class(port);
        self.range.is_none_or(|range| range == class.range)
            && self
                .assignment
                .is_none_or(|assignment| assignment == class.assignment)
            && self.service_name.as_ref().is_none_or(|pattern| {
                registry
                    .entries(port)
                    .any(|entry| pattern.matches(entry.service_name))
            })
    }
}

fn service_name(
    field: &Field<'_>,
    registry: Option<&Names<'_>>,
    problems: &mut Problems,
) -> Option<Pattern> {
    let text = field.text("a service name, or a pattern such as \"npmp-*\"", problems)?;
    let pattern = Pattern::ignoring_case(text)
        .map_err(|error| field.refuse(problems, error.to_string()))
        .ok()?;
    let Some(known) = registry.filter(|_| pattern.is_literal()) else {
        return Some(pattern);
    };
    if known.names().any(|name| name.eq_ignore_ascii_case(text)) {
        return Some(pattern);
    }
    let meant = closest(text, known.names())
        .map_or_else(String::new, |name| format!(": did you mean {name}?"));
    field.refuse(
        problems,
        format!("unknown service name {}{meant}", quoted(text)),
    );
    None
}

/// A registry with the list of its names, which is made once if an entry asks for it.
struct Names<'r> {
    registry: &'r Registry,
    names: OnceCell<Vec<&'r str>>,
}

impl<'r> Names<'r> {
    const fn of(registry: &'r Registry) -> Self {
        Self {
            registry,
            names: OnceCell::new(),
        }
    }

    fn names(&self) -> impl Iterator<Item = &'r str> + '_ {
        self.names
            .get_or_init(|| self.registry.service_names().collect())
            .iter()
            .copied()
    }
}
