//! The answer as a table, for a person.

use std::fmt::Write as _;
use std::time::SystemTime;

use super::told::{ByPort, Counts, LastEvent, moment};
use super::{Question, told};
use crate::log::rfc3339;
use crate::owners::Owner;
use crate::port::Port;
use crate::registry::Registry;
use crate::sockets::Listener;

type Row = [String; 6];

/// The answer, one line for each name of a port, for each listener, and for what the exporter tells.
#[must_use]
pub fn table(question: &Question<'_>) -> String {
    let mut rows = vec![
        [
            "PORT",
            "SERVICE",
            "RANGE",
            "ASSIGNMENT",
            "NOW",
            "DESCRIPTION",
        ]
        .map(str::to_owned),
    ];
    let told = question.told.ok();
    let told = told.map(told::Told::by_port).unwrap_or_default();
    for &port in question.ports {
        let lit = question.listeners(port);
        let state = match &lit {
            None => "unknown",
            Some(lit) if lit.is_empty() => "dark",
            Some(_) => "lit",
        };
        rows.extend(registry_rows(port, question.registry, state));
        for (listener, owner) in lit.into_iter().flatten() {
            rows.push(below(listener_facts(listener, owner)));
        }
        rows.extend(told_rows(port, &told).map(below));
    }
    align(&rows)
}

/// A row for the port, and one more for each further name that it has.
fn registry_rows(port: Port, registry: &Registry, state: &str) -> Vec<Row> {
    let mut entries = registry.entries(port);
    let first = entries.next();
    let mut rows = vec![[
        port.to_string(),
        first
            .map_or("-", |entry| dash(entry.service_name))
            .to_owned(),
        port.range().to_string(),
        registry.assignment(port).to_string(),
        state.to_owned(),
        first.map_or("", |entry| entry.description).to_owned(),
    ]];
    rows.extend(entries.map(|entry| {
        let mut row = below(entry.description.to_owned());
        row[1] = dash(entry.service_name).to_owned();
        row
    }));
    rows
}

/// A row that says more of the port above it.
fn below(facts: String) -> Row {
    let mut row = [(); 6].map(|()| String::new());
    row[5] = facts;
    row
}

fn listener_facts(listener: &Listener, owner: &Owner) -> String {
    let process = owner.oldest();
    let pid = process.map(|process| process.pid.to_string());
    let exe = process.and_then(|process| process.executable.as_deref());
    let mut facts = format!("on {}", listener.address);
    append(
        &mut facts,
        &[
            ("process", owner.process()),
            ("pid", pid.as_deref().unwrap_or_default()),
            ("exe", exe.unwrap_or_default()),
            ("user", owner.user()),
            ("unit", owner.unit()),
        ],
    );
    facts
}

/// What the exporter tells of a port: its last event, and the attempts.
fn told_rows(port: Port, told: &ByPort<'_>) -> impl Iterator<Item = String> {
    let event = told.event(port).map(event_facts);
    let attempts = told.counts(port).and_then(|counts| attempt_facts(&counts));
    event.into_iter().chain(attempts)
}

fn event_facts(event: &LastEvent) -> String {
    let number = |number: Option<u64>| number.map(|number| number.to_string()).unwrap_or_default();
    let what = match &*event.event {
        "found" => "listener found",
        "opened" => "listener opened",
        "changed" => "listener changed owner",
        "came_and_went" => "listener came and went",
        "closed" => "listener closed",
        _ => "event of another kind",
    };
    let mut facts = format!("last event: {what} {}", when(event.at));
    if let Some(opened_at) = event.opened_at.filter(|&at| at < event.at) {
        let _ = write!(facts, ", opened {}", when(opened_at));
    }
    let expected = match event.expected {
        Some(true) => "true",
        Some(false) => "false",
        None => "",
    };
    append(
        &mut facts,
        &[
            ("address", &event.address),
            ("process", &event.process),
            ("pid", &number(event.pid.map(u64::from))),
            ("exe", event.exe.as_deref().unwrap_or_default()),
            ("user", &event.user),
            ("uid", &number(event.uid.map(u64::from))),
            ("unit", &event.unit),
            ("cgroup", event.cgroup.as_deref().unwrap_or_default()),
            // Where it has a path, the number says nothing more.
            (
                "cgroup_id",
                &number(event.cgroup_id.filter(|_| event.cgroup.is_none())),
            ),
            ("expected", expected),
        ],
    );
    facts
}

/// `None` where there is nothing to tell: the tier does not see attempts, or there were none.
fn attempt_facts(counts: &Counts) -> Option<String> {
    let told = [
        ("attempts", counts.attempts),
        ("refused", counts.refused),
        ("filtered", counts.filtered),
    ];
    let last = counts.last_attempt_at.filter(|&at| at > 0.0);
    if last.is_none() && told.iter().all(|(_, count)| count.unwrap_or(0) == 0) {
        return None;
    }
    let mut facts = match last {
        Some(at) => format!("last attempt: {}", when(at)),
        None => "knocked on:".to_owned(),
    };
    for (name, count) in told {
        if let Some(count) = count {
            let _ = write!(facts, " {name}={count}");
        }
    }
    Some(facts)
}

fn when(seconds: f64) -> String {
    moment(seconds).map_or_else(
        || "at an unknown time".to_owned(),
        |at: SystemTime| rfc3339(at),
    )
}

/// Appends ` name=value` for each value that is not empty. Names are data from outside: quoted and escaped where they could be
/// taken for anything else.
fn append(facts: &mut String, values: &[(&str, &str)]) {
    for (name, value) in values.iter().filter(|(_, value)| !value.is_empty()) {
        let plain = value.chars().all(|c| c.is_ascii_graphic() && c != '"');
        let _ = if plain {
            write!(facts, " {name}={value}")
        } else {
            write!(facts, " {name}={value:?}")
        };
    }
}

fn dash(name: &str) -> &str {
    if name.is_empty() { "-" } else { name }
}

fn align(rows: &[Row]) -> String {
    let mut widths = [0; 6];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    // Nothing stands behind the last one.
    widths[5] = 0;
    let mut text = String::new();
    for row in rows {
        let line: Vec<String> = row
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        text.push_str(line.join("  ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::{Exporter, Now, json};
    use super::*;

    fn answer(
        ports: &[Port],
        now: Option<&Now>,
        told: Exporter<'_>,
    ) -> (String, serde_json::Value) {
        let registry = Registry::embedded();
        let question = Question {
            ports,
            registry: &registry,
            now,
            told,
        };
        let json = json(&question);
        (table(&question), serde_json::from_str(&json).unwrap())
    }

    fn listener(port: Port) -> Listener {
        Listener {
            port,
            address: std::net::Ipv4Addr::UNSPECIFIED.into(),
            cookie: None,
            inode: Some(7),
            uid: Some(0),
            cgroup: None,
        }
    }

    fn rows(text: &str) -> Vec<Vec<&str>> {
        text.lines()
            .map(|line| line.split_whitespace().collect())
            .collect()
    }

    #[test]
    fn registry_range_and_state_of_each_port() {
        let ports = [
            Port::tcp(561),
            Port::udp(610),
            Port::tcp(3476),
            Port::tcp(80),
        ];
        let unknown = Arc::new(Owner::Unknown { creator: None });
        let now = vec![(listener(Port::tcp(3476)), unknown)];
        let (text, json) = answer(&ports, Some(&now), Exporter::NotAsked);
        assert_eq!(json["ports"].as_array().unwrap().len(), 4);
        assert_eq!(json["ports"][2]["lit"], true);
        assert_eq!(json["ports"][2]["services"][0]["service_name"], "nppmp");
        assert_eq!(json["ports"][0]["lit"], false);
        assert!(json.get("exporter").is_none(), "{json}");
        let rows = rows(&text);
        assert_eq!(
            rows[0],
            [
                "PORT",
                "SERVICE",
                "RANGE",
                "ASSIGNMENT",
                "NOW",
                "DESCRIPTION"
            ]
        );
        assert_eq!(
            rows[1],
            ["561/tcp", "monitor", "well_known", "assigned", "dark"]
        );
        assert_eq!(
            rows[2][..5],
            ["610/udp", "npmp-local", "well_known", "assigned", "dark"]
        );
        assert_eq!(
            rows[3][..5],
            ["3476/tcp", "nppmp", "registered", "assigned", "lit"]
        );
        assert_eq!(
            rows[4],
            ["on", "0.0.0.0"],
            "an owner that is not known is left out"
        );
        assert_eq!(
            rows[5][..5],
            ["80/tcp", "http", "well_known", "assigned", "dark"]
        );
        assert_eq!(rows[6][0], "www", "every name of a port has its row");
    }

    #[test]
    fn a_port_is_not_called_dark_where_nobody_could_look() {
        let ports = [Port::tcp(3476), Port::udp(50_000)];
        let (text, json) = answer(&ports, None, Exporter::NotAsked);
        assert!(json["ports"][0].get("lit").is_none());
        let rows = rows(&text);
        assert_eq!(rows[1][4], "unknown");
        assert_eq!(
            rows[2],
            ["50000/udp", "-", "dynamic", "unassigned", "unknown"]
        );
    }

    #[test]
    fn the_last_event_and_attempts_are_told_and_hostile_names_do_nothing() {
        let told = serde_json::json!({
            "tier": "kernel", "sampled_at": 1_700_000_002.0,
            "watched": [{"port": 561, "protocol": "tcp", "attempts": 3, "refused": 2, "filtered": 0,
                "last_attempt_at": 1_700_000_001.25}],
            "last_events": [
                {"port": 561, "protocol": "tcp", "event": "came_and_went", "at": 1_700_000_000.5,
                 "opened_at": 1_700_000_000.499, "address": "127.0.0.1", "expected": false,
                 "process": "x\u{1b}[2J\ny=\"z\"", "pid": 7, "user": "root", "uid": 0, "unit": "", "cgroup": "/a b"},
                {"port": 561, "protocol": "udp", "event": "\u{7}", "at": -1.0, "address": "::",
                 "cgroup_id": 77},
            ],
        });
        let told: told::Told = serde_json::from_value(told).unwrap();
        let url: super::super::ExporterUrl = "http://localhost:10561".parse().unwrap();
        let exporter = Exporter::Told {
            url: &url,
            told: &told,
        };
        let ports = [Port::tcp(561), Port::udp(561)];
        let (text, json) = answer(&ports, Some(&Vec::new()), exporter);
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        assert!(
            lines.contains(
                &"last event: listener came and went 2023-11-14T22:13:20.500Z, opened 2023-11-14T22:13:20.499Z \
                  address=127.0.0.1 process=\"x\\u{1b}[2J\\ny=\\\"z\\\"\" pid=7 user=root uid=0 cgroup=\"/a b\" \
                  expected=false"
            ),
            "{text}"
        );
        assert!(
            lines.contains(
                &"last attempt: 2023-11-14T22:13:21.250Z attempts=3 refused=2 filtered=0"
            ),
            "{text}"
        );
        assert!(
            lines.contains(
                &"last event: event of another kind at an unknown time address=:: cgroup_id=77"
            ),
            "{text}"
        );
        assert!(!text.contains(['\u{1b}', '\u{7}']), "{text:?}");
        let event = &json["ports"][0]["last_event"];
        assert_eq!(event["process"], "x\u{1b}[2J\ny=\"z\"");
        assert_eq!(
            (&event["uid"], &event["at"]),
            (&0.into(), &1_700_000_000.5.into())
        );
        assert!(event.get("exe").is_none(), "{event}");
        assert_eq!(json["ports"][0]["counts"]["attempts"], 3);
        assert_eq!(json["exporter"]["tier"], "kernel");
    }

    #[test]
    fn an_exporter_that_tells_nothing_is_named() {
        let url = "http://localhost:10561".parse().unwrap();
        let silent = Exporter::Silent {
            url: &url,
            why: "no exporter answers",
        };
        let (_, json) = answer(&[Port::tcp(561)], None, silent);
        assert_eq!(json["exporter"]["answers"], false);
        assert_eq!(json["exporter"]["error"], "no exporter answers");
    }
}
