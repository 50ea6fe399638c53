//! The rules of an entry: who may listen on its ports.

use std::net::IpAddr;

use crate::watch::{Expectation, Pattern};
use crate::yaml::Problems;
use crate::yaml::{Field, given, quoted};

/// How many rules all entries together may have: each may hold four compiled patterns.
pub(super) const MAX_RULES: usize = 1024;

/// Reads the rules of one entry. `rules_left` is what the entries before have left of [`MAX_RULES`].
pub(super) fn expectations(
    field: &Field<'_>,
    rules_left: &mut usize,
    problems: &mut Problems,
) -> Option<Vec<Expectation>> {
    let items = field.list("a list of rules, [] if nobody may listen", problems)?;
    let all = items.len();
    let Some(left) = rules_left.checked_sub(all) else {
        field.refuse(
            problems,
            format!(
                "more than {MAX_RULES} rules in all entries together: join some with * or {{a,b}}"
            ),
        );
        return None;
    };
    *rules_left = left;
    let rules: Vec<Expectation> = items
        .filter_map(|item| expectation(&item, problems))
        .collect();
    (rules.len() == all).then_some(rules)
}

fn expectation(field: &Field<'_>, problems: &mut Problems) -> Option<Expectation> {
    let map = field.mapping(&["process", "user", "unit", "address"], problems)?;
    let mut pattern = |key| given(map.field(key).map(|f| fact_pattern(f, problems)));
    let process = pattern("process");
    let user = pattern("user");
    let unit = pattern("unit");
    let address = given(map.field("address").map(|f| address(f, problems)));
    let rule = Expectation {
        process: process?,
        user: user?,
        unit: unit?,
        address: address?,
    };
    if rule == Expectation::default() {
        if field.is_empty_mapping() {
            field.refuse(
                problems,
                "the rule would allow everyone: give at least one of process, user, unit, address",
            );
        }
        return None;
    }
    Some(rule)
}

fn fact_pattern(field: &Field<'_>, problems: &mut Problems) -> Option<Pattern> {
    let text = field.text("a name, or a pattern in quotes such as \"nv-*\"", problems)?;
    Pattern::new(text)
        .map_err(|error| field.refuse(problems, error.to_string()))
        .ok()
}

/// The pattern of an address. One without wildcards must be an address as the exporter writes it, or it could never match.
fn address(field: &Field<'_>, problems: &mut Problems) -> Option<Pattern> {
    let pattern = fact_pattern(field, problems)?;
    let text = pattern.as_str();
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    if let (true, Ok(address)) = (bare.len() < text.len(), bare.parse::<IpAddr>()) {
        let message = format!(
            "{} never matches: write {address}, without brackets",
            quoted(text)
        );
        field.refuse(problems, message);
        return None;
    }
    if !pattern.is_literal() {
        return Some(pattern);
    }
    let wrong = match text.parse::<IpAddr>() {
        Ok(address) if address.to_string() == text => return Some(pattern),
        Ok(address) => format!("{} never matches: write {address}", quoted(text)),
        Err(_) => format!(
            "{} is not an IP address: write one without a port, or a pattern such as \"127.*\"",
            quoted(text)
        ),
    };
    field.refuse(problems, wrong);
    None
}
