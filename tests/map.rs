//! What the map draws: the JSON of a snapshot and of what is known of each port, and the page without a browser.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test's helpers are tests too"
)]

mod support;

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use darkport_exporter::api;
use darkport_exporter::config::Config;
use darkport_exporter::counts::{KnockedRuns, PortCounts, Tier};
use darkport_exporter::events::{Cgroup, Happening, LastEvent};
use darkport_exporter::owners::{Holders, Owner, Process};
use darkport_exporter::port::{Port, Protocol, Span};
use darkport_exporter::registry::{Assignment, Class, Registry};
use darkport_exporter::snapshot::{
    Collector, Lights, Lit, Reload, Run, Snapshot, Source, Space, Watched,
};
use darkport_exporter::sockets::Listener;
use serde_json::Value;
use support::{Exporter, get};

const HOSTILE: &str = "</script><img src=x onerror=\"alert(1)\">\u{2028}\n\0";

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(seconds * 1000 + 250)
}

fn process(pid: u32, name: &str) -> Process {
    Process {
        pid,
        started: u64::from(pid),
        name: name.to_owned(),
        executable: Some(format!("/tmp/{name} (deleted)")),
        uid: pid,
        user: name.into(),
        unit: name.to_owned(),
    }
}

fn lit(
    port: Port,
    address: IpAddr,
    owner: Owner,
    expected: Option<bool>,
    netns: &str,
) -> Lit<'static> {
    Lit {
        listener: Listener {
            port,
            address,
            cookie: None,
            inode: Some(1),
            uid: Some(0),
            cgroup: None,
        },
        watch: if expected.is_some() { "npmp" } else { "" },
        owner: Arc::new(owner),
        expected,
        netns: Arc::from(netns),
    }
}

fn watched(port: Port, listening: Option<bool>, counts: PortCounts) -> Watched<'static> {
    Watched {
        port,
        watch: "npmp",
        service_name: "npmp-gui",
        assignment: Assignment::Assigned,
        listening,
        unexpected: listening,
        counts,
    }
}

/// Everything that can be known, and a process with a name made to do harm.
fn full() -> Snapshot<'static> {
    let any = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    let held = Holders::of(vec![process(7, HOSTILE), process(9, "worker")]).unwrap();
    let mut lights = Lights::default();
    for port in [
        Port::tcp(22),
        Port::tcp(23),
        Port::tcp(611),
        Port::udp(2049),
    ] {
        lights.ports.insert(port);
    }
    Snapshot {
        web: Default::default(),
        tier: Tier::Kernel,
        watched: vec![
            watched(
                Port::tcp(611),
                Some(true),
                PortCounts {
                    attempts: Some(9),
                    accepted: Some(1),
                    refused: Some(5),
                    filtered: Some(3),
                    outbound: Some(2),
                    outbound_failures: Some(1),
                    opened: Some(4),
                    opened_at: Some(at(1_700_000_000)),
                    last_attempt: Some(at(1_700_000_001)),
                    connections: Some(0),
                },
            ),
            watched(
                Port::udp(611),
                Some(false),
                PortCounts {
                    opened: Some(0),
                    ..PortCounts::default()
                },
            ),
        ],
        watched_suppressed: [0, 1],
        listeners: Some(vec![
            lit(Port::tcp(611), any, Owner::Held(held), Some(false), ""),
            lit(
                Port::tcp(22),
                IpAddr::V6(Ipv6Addr::UNSPECIFIED),
                Owner::Unknown { creator: None },
                None,
                "",
            ),
            lit(Port::udp(2049), any, Owner::Kernel, None, ""),
            lit(
                Port::udp(40_000),
                any,
                Owner::Unknown { creator: None },
                None,
                "",
            ),
            lit(
                Port::tcp(80),
                any,
                Owner::Unknown { creator: None },
                None,
                "web-1",
            ),
        ]),
        listeners_suppressed: Some(7),
        namespaces: None,
        space: Space {
            lit: Some(lights),
            ..Space::default()
        },
        collectors: vec![
            Run {
                collector: Collector::Sockets,
                success: true,
                duration: Duration::from_micros(250),
            },
            Run {
                collector: Collector::Owners,
                success: false,
                duration: Duration::from_millis(2),
            },
        ],
        lost: vec![(Source::Kernel, 0)],
        audit: vec![],
        reload: Reload {
            successful: true,
            at: at(1_700_000_002),
        },
    }
}

/// The socket table could not be read, and the tier does not see knocks.
fn blind() -> Snapshot<'static> {
    Snapshot {
        tier: Tier::Polled,
        watched: vec![watched(Port::tcp(611), None, PortCounts::default())],
        listeners: None,
        listeners_suppressed: None,
        space: Space::default(),
        lost: vec![],
        ..full()
    }
}

fn knocked() -> KnockedRuns {
    let counts = |attempts: u64, filtered| PortCounts {
        attempts: Some(attempts),
        refused: Some(attempts),
        filtered,
        ..PortCounts::default()
    };
    [
        (Port::tcp(1), counts(2, Some(0))),
        (Port::tcp(2), counts(2, Some(0))),
        (Port::tcp(3), counts(3, Some(0))),
        (Port::tcp(5), counts(3, Some(0))),
        (Port::tcp(65_535), counts(1, None)),
        (Port::udp(0), counts(1, Some(1))),
    ]
    .into_iter()
    .collect()
}

/// One with all that can be known, and one with the least.
fn last_events() -> [(Port, LastEvent); 2] {
    let held = Holders::of(vec![process(7, HOSTILE)]).unwrap();
    let brief = LastEvent {
        happening: Happening::CameAndWent,
        at: at(1_700_000_002),
        opened_at: Some(at(1_700_000_001)),
        address: IpAddr::V4(Ipv4Addr::LOCALHOST),
        watch: Arc::from("npmp"),
        expected: false,
        owner: Arc::new(Owner::Held(held)),
        uid: Some(0),
        cgroup: Some(Cgroup {
            id: 77,
            path: Some(Arc::from("/system.slice/x.service")),
        }),
    };
    let least = LastEvent {
        happening: Happening::Closed,
        opened_at: None,
        owner: Arc::new(Owner::Unknown { creator: None }),
        uid: None,
        cgroup: None,
        ..brief.clone()
    };
    [(Port::tcp(609), brief), (Port::udp(610), least)]
}

fn live(snapshot: &Snapshot<'_>, knocked: Option<&KnockedRuns>) -> Value {
    let now = at(1_700_000_003);
    let document = api::live(snapshot, now, knocked, &last_events(), "0123456789abcdef").unwrap();
    serde_json::from_slice(&document.json).unwrap()
}

/// Compares with a golden file; `UPDATE_GOLDEN=1` writes it anew, for the change to be read in the diff.
fn assert_golden(name: &str, mut value: Value) {
    value["version"] = "X".into();
    let text = format!("{}\n", serde_json::to_string_pretty(&value).unwrap());
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap();
    assert_eq!(
        text, golden,
        "{name} differs; UPDATE_GOLDEN=1 writes it anew"
    );
}

#[test]
fn the_ports_with_everything_known() {
    assert_golden("ports.json", live(&full(), Some(&knocked())));
}

#[test]
fn what_cannot_be_known_is_missing_and_never_zero() {
    let value = live(&blind(), None);
    assert_golden("ports-blind.json", value.clone());
    for key in ["lit", "knocked", "listeners", "namespaces"] {
        assert!(value.get(key).is_none(), "{key} in {value}");
    }
    let watched = value["watched"][0].as_object().unwrap();
    let keys: Vec<&str> = watched.keys().map(String::as_str).collect();
    assert_eq!(keys, ["port", "protocol", "watch"]);
}

#[test]
fn a_hostile_name_stays_text() {
    let value = live(&full(), None);
    let listener = &value["listeners"][0];
    for key in ["process", "user", "unit"] {
        assert_eq!(listener[key], HOSTILE, "{key}");
    }
    assert_eq!(listener["exe"], format!("/tmp/{HOSTILE} (deleted)"));
    assert_eq!(
        (&listener["pid"], &listener["holders"]),
        (&7.into(), &2.into())
    );
}

#[test]
fn a_sweep_of_the_whole_space_is_one_run() {
    let all: KnockedRuns = (0..=u16::MAX)
        .map(|number| {
            let counts = PortCounts {
                refused: Some(1),
                ..PortCounts::default()
            };
            (Port::tcp(number), counts)
        })
        .collect();
    let value = live(&full(), Some(&all));
    assert_eq!(
        value["knocked"],
        serde_json::json!({"tcp": [[0, 65_535, null, 1, null]], "udp": []})
    );
}

#[test]
fn documents_are_named_by_their_content() {
    let config = Config::embedded();
    let [first, second] = [(); 2].map(|()| api::facts(&config).unwrap());
    assert_eq!(first, second);
    let other = Config {
        watch: Default::default(),
        ..config
    };
    assert_ne!(api::facts(&other).unwrap().id, first.id);
}

/// The facts must say of each port what the registry and the watch set say.
#[test]
fn the_facts_cover_the_space() {
    let config = Config::embedded();
    let registry: &Registry = &config.registry;
    let document = api::facts(&config).unwrap();
    let facts: Value = serde_json::from_slice(&document.json).unwrap();
    assert_eq!(facts["id"], document.id);
    assert_eq!(facts["registry"], registry.source());
    let span = |run: &Value| Span {
        first: run["first"].as_u64().unwrap() as u16,
        last: run["last"].as_u64().unwrap() as u16,
    };
    for protocol in Protocol::ALL {
        let mut next = 0;
        for run in facts["classes"][protocol.as_str()].as_array().unwrap() {
            assert_eq!(u32::from(span(run).first), next);
            next = u32::from(span(run).last) + 1;
            for number in span(run).numbers() {
                let Class { range, assignment } = registry.class(Port { number, protocol });
                assert_eq!(
                    (&run["range"], &run["assignment"]),
                    (&range.as_str().into(), &assignment.as_str().into())
                );
            }
        }
        assert_eq!(next, 65_536);

        let mut named = HashSet::new();
        for service in facts["services"].as_array().unwrap() {
            if !service["protocols"]
                .as_array()
                .unwrap()
                .contains(&protocol.as_str().into())
            {
                continue;
            }
            let names: Vec<(&str, &str)> = service["names"]
                .as_array()
                .unwrap()
                .iter()
                .map(|name| {
                    (
                        name["service_name"].as_str().unwrap(),
                        name["description"].as_str().unwrap(),
                    )
                })
                .collect();
            for number in span(service).numbers() {
                let entries = registry.entries(Port { number, protocol });
                let entries: Vec<(&str, &str)> = entries
                    .map(|entry| (entry.service_name, entry.description))
                    .collect();
                assert_eq!(names, entries, "{number}/{protocol}");
                assert!(named.insert(number), "{number}/{protocol} stands twice");
            }
        }
        let assigned = (0..=u16::MAX)
            .filter(|&number| registry.entries(Port { number, protocol }).next().is_some());
        assert_eq!(named.len(), assigned.count());
    }
    for (entry, said) in config
        .watch
        .entries()
        .iter()
        .zip(facts["watch"].as_array().unwrap())
    {
        assert_eq!(said["name"], entry.name);
        for protocol in Protocol::ALL {
            let spans: Vec<Value> = entry
                .ports
                .spans(protocol)
                .iter()
                .map(|span| serde_json::json!([span.first, span.last]))
                .collect();
            assert_eq!(
                said["ports"][protocol.as_str()],
                Value::Array(spans),
                "{}",
                entry.name
            );
        }
    }
    assert_eq!(
        facts["watch"].as_array().unwrap().len(),
        config.watch.entries().len()
    );
}

/// The page as its users get it.
fn page(exporter: &Exporter, path: &str) -> String {
    let (status, body) = get(exporter.address, path);
    assert_eq!(status, 200, "{path}");
    body
}

#[test]
fn the_page_needs_nothing_from_elsewhere_and_makes_no_markup_of_text() {
    let exporter =
        Exporter::start(&["--web.dashboard-url=https://g.example/d?p={port}&t={protocol}"]);
    let page = page(&exporter, "/map");
    let url = "https://g.example/d?p={port}&amp;t={protocol}";
    assert!(page.contains(&format!("data-dashboard=\"{url}\"")));
    let page = page.replace(url, "").to_lowercase();
    for loaded in [
        "http:", "https:", "src=", "<link", "url(", "@import", "import(", "<iframe", "<object",
        "//cdn",
    ] {
        assert!(!page.contains(loaded), "{loaded}");
    }
    for sink in [
        "innerhtml",
        "outerhtml",
        "insertadjacenthtml",
        "document.write",
        "eval(",
        "new function",
        "domparser",
        "srcdoc",
        " style=\"",
        " onclick=",
        " onload=",
        " onerror=",
        "javascript:",
    ] {
        assert!(!page.contains(sink), "{sink}");
    }
}

/// Every element that is opened is closed, in order; no id stands twice, and what refers to one finds it.
#[test]
fn the_pages_are_well_formed() {
    let exporter = Exporter::start(&[]);
    for path in ["/map", "/"] {
        assert_well_formed(&page(&exporter, path));
    }
}

fn assert_well_formed(page: &str) {
    const VOID: [&str; 7] = ["meta", "input", "br", "i/", "path", "circle", "!doctype"];
    let (mut open, mut ids, mut named) = (Vec::new(), HashSet::new(), Vec::new());
    let mut rest = page;
    while let Some(start) = rest.find('<') {
        let end = start + rest[start..].find('>').expect("a tag that ends");
        let tag = &rest[start + 1..end];
        rest = &rest[end + 1..];
        let element = tag.split_whitespace().next().unwrap().to_lowercase();
        if let Some(closed) = element.strip_prefix('/') {
            assert_eq!(open.pop().as_deref(), Some(closed), "</{closed}>");
            continue;
        }
        for (name, value) in attributes(tag) {
            match name {
                "id" => assert!(ids.insert(value.to_owned()), "the id {value} stands twice"),
                "for" | "aria-labelledby" | "aria-describedby" => named.push(value.to_owned()),
                _ => {}
            }
        }
        if tag.ends_with('/') || VOID.contains(&element.as_str()) {
            continue;
        }
        if element == "script" || element == "style" {
            let close = format!("</{element}>");
            rest = &rest[rest.find(&close).expect("an end of the script") + close.len()..];
            continue;
        }
        open.push(element);
    }
    assert_eq!(open, [""; 0], "left open");
    for id in named {
        assert!(ids.contains(&id), "nothing has the id {id}");
    }
}

fn attributes(tag: &str) -> impl Iterator<Item = (&str, &str)> {
    let parts: Vec<&str> = tag.split('"').collect();
    let pairs: Vec<(&str, &str)> = parts
        .chunks_exact(2)
        .map(|pair| {
            let name = pair[0].trim_end_matches('=').split_whitespace().last();
            (name.unwrap_or_default(), pair[1])
        })
        .collect();
    pairs.into_iter()
}

/// A port that nobody listens on, and an exporter that watches it.
fn watching(number: u16) -> (tempfile::TempDir, Exporter) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("darkport.yml");
    std::fs::write(
        &file,
        format!("watch:\n- {{name: one, ports: [{number}]}}\n"),
    )
    .unwrap();
    let exporter = Exporter::start(&["--config.file", file.to_str().unwrap()]);
    (folder, exporter)
}

#[test]
fn a_listener_is_in_the_json_and_on_the_landing_page() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let number = listener.local_addr().unwrap().port();
    let (_folder, exporter) = watching(number);
    let value: Value = serde_json::from_str(&page(&exporter, "/api/v1/ports")).unwrap();
    let mut spans = value["lit"]["tcp"].as_array().unwrap().iter();
    assert!(
        spans.any(|span| span[0].as_u64() <= Some(number.into())
            && span[1].as_u64() >= Some(number.into())),
        "{value}"
    );
    let mut listeners = value["listeners"].as_array().unwrap().iter();
    let found = listeners
        .find(|each| each["port"] == number && each["address"] == "127.0.0.1")
        .unwrap();
    assert_eq!(
        (&found["watch"], &found["expected"]),
        (&"one".into(), &false.into())
    );
    assert_eq!(found["pid"], std::process::id());
    let own = std::env::current_exe().unwrap();
    assert_eq!(found["exe"], own.to_str().unwrap());
    let facts: Value = serde_json::from_str(&page(&exporter, "/api/v1/ports/facts")).unwrap();
    assert_eq!(facts["id"], value["facts"]);
    let landing = page(&exporter, "/");
    for part in [
        "class=\"verdict lit\"",
        &format!("<a href=\"map#{number}/tcp\">{number}/tcp</a>"),
        "<dd>2, 1 of them lit</dd>",
        "href=\"/map\"",
        "href=\"/api/v1/ports\"",
    ] {
        assert!(landing.contains(part), "{part} in {landing}");
    }
}

#[test]
fn many_who_look_share_a_sample_a_second() {
    let (_folder, exporter) = watching(9);
    let address = exporter.address;
    let start = Instant::now();
    let times: HashSet<String> = std::thread::scope(|scope| {
        let looks: Vec<_> = (0..30)
            .map(|_| {
                scope.spawn(move || {
                    let (status, body) = get(address, "/api/v1/ports");
                    assert_eq!(status, 200, "{body}");
                    let value: Value = serde_json::from_str(&body).unwrap();
                    value["sampled_at"].to_string()
                })
            })
            .collect();
        looks.into_iter().map(|look| look.join().unwrap()).collect()
    });
    let most = start.elapsed().as_secs() as usize + 1;
    assert!((1..=most).contains(&times.len()), "{times:?} in {most} s");
}
