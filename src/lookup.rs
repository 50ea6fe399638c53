//! `lookup`: what the registry says of a port, and what listens there now, for a person at a terminal.

use std::fmt::Write as _;
use std::sync::Arc;

use crate::owners::Owner;
use crate::port::Port;
use crate::registry::Registry;
use crate::sockets::Listener;

/// What listens on this host, with owners.
pub type Now = Vec<(Listener, Arc<Owner>)>;

/// The answer about these ports. `now` is `None` where the socket table could not be read: then the answer says so
/// instead of calling a port dark.
#[must_use]
pub fn answer(ports: &[Port], registry: &Registry, now: Option<&Now>) -> String {
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
    for &port in ports {
        let lit = now.map(|now| {
            now.iter()
                .filter(|(listener, _)| listener.port == port)
                .collect::<Vec<_>>()
        });
        let state = match &lit {
            None => "unknown",
            Some(lit) if lit.is_empty() => "dark",
            Some(_) => "lit",
        };
        rows.extend(registry_rows(port, registry, state));
        for (listener, owner) in lit.into_iter().flatten() {
            rows.push(listener_row(listener, owner));
        }
    }
    align(&rows)
}

/// A row for the port, and one more for each further name that it has.
fn registry_rows(port: Port, registry: &Registry, state: &str) -> Vec<[String; 6]> {
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
        let [port, range, assignment, state] = [(); 4].map(|()| String::new());
        let name = dash(entry.service_name).to_owned();
        [
            port,
            name,
            range,
            assignment,
            state,
            entry.description.to_owned(),
        ]
    }));
    rows
}

fn listener_row(listener: &Listener, owner: &Owner) -> [String; 6] {
    let mut facts = format!("on {}", listener.address);
    let process = owner.oldest();
    let pid = process.map(|process| process.pid.to_string());
    for (name, value) in [
        ("process", Some(owner.process())),
        ("pid", pid.as_deref()),
        (
            "exe",
            process.and_then(|process| process.executable.as_deref()),
        ),
        ("user", Some(owner.user())),
        ("unit", Some(owner.unit())),
    ] {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            // Names are data from outside: quoted where they could be taken for anything else.
            let plain = value.chars().all(|c| c.is_ascii_graphic() && c != '"');
            let _ = if plain {
                write!(facts, " {name}={value}")
            } else {
                write!(facts, " {name}={value:?}")
            };
        }
    }
    let [port, service, range, assignment, state] = [(); 5].map(|()| String::new());
    [port, service, range, assignment, state, facts]
}

fn dash(name: &str) -> &str {
    if name.is_empty() { "-" } else { name }
}

fn align(rows: &[[String; 6]]) -> String {
    let mut widths = [0; 6];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
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
    use super::*;

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
        let text = answer(&ports, &Registry::embedded(), Some(&now));
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
        let text = answer(
            &[Port::tcp(3476), Port::udp(50_000)],
            &Registry::embedded(),
            None,
        );
        let rows = rows(&text);
        assert_eq!(rows[1][4], "unknown");
        assert_eq!(
            rows[2],
            ["50000/udp", "-", "dynamic", "unassigned", "unknown"]
        );
    }
}
