//! The image's recipe, the compose files and README's `docker run` lines: that what they name is there, and that the noise
//! they offer is seen. tests/image builds and runs the image itself.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test's helpers are tests too"
)]

mod support;

use std::path::{Path, PathBuf};

use darkport_exporter::args::{Args, Command};
use darkport_exporter::privileges::Capability;
use darkport_exporter::web::Host;
use serde_json::Value;
use support::yaml;

const TOP: &str = env!("CARGO_MANIFEST_DIR");
const COMPOSE: &str = "deploy/compose";

fn read(path: &str) -> String {
    std::fs::read_to_string(Path::new(TOP).join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

fn compose() -> Value {
    yaml::read(Path::new(TOP).join(COMPOSE).join("compose.yaml"))
}

/// What the exporter makes of a command line.
fn understood(flags: &[&str]) -> Args {
    Args::try_parse_from([&["darkport_exporter"], flags].concat())
        .unwrap_or_else(|error| panic!("{flags:?}: {error}"))
}

fn default_port() -> u16 {
    let listen = understood(&[]).web.listen;
    assert_eq!(listen[0].host, Host::Any);
    listen[0].port
}

/// A capability as setcap, Docker and compose write it: with CAP_ in front or without, in either case.
fn capability(name: &str) -> Capability {
    let name = name.to_uppercase();
    let name = name.strip_prefix("CAP_").unwrap_or(&name);
    Capability::ALL
        .into_iter()
        .find(|known| known.as_str().strip_prefix("CAP_") == Some(name))
        .unwrap_or_else(|| panic!("the exporter has no use for {name}"))
}

/// Mounts of a service: what of the repository or the host, and where to.
fn mounts(service: &Value) -> Vec<(String, String)> {
    yaml::texts(&service["volumes"])
        .into_iter()
        .map(|mount| {
            let mut parts = mount.split(':');
            (
                parts.next().unwrap().to_owned(),
                parts.next().unwrap().to_owned(),
            )
        })
        .collect()
}

/// What lies at a path of a service's container, in the repository.
fn mounted(service: &Value, path: &str) -> PathBuf {
    mounts(service)
        .into_iter()
        .filter(|(source, _)| source.starts_with('.'))
        .find_map(|(source, target)| {
            let below = Path::new(path).strip_prefix(&target).ok()?;
            let source = Path::new(TOP).join(COMPOSE).join(source);
            Some(if below.as_os_str().is_empty() {
                source
            } else {
                source.join(below)
            })
        })
        .unwrap_or_else(|| panic!("{path} is not mounted"))
}

#[test]
fn the_dockerfile_says_what_the_package_says() {
    let recipe = read("Dockerfile");
    let has = |line: &str| assert!(recipe.lines().any(|l| l.trim() == line), "{line}");
    has(&format!("ARG VERSION={}", env!("CARGO_PKG_VERSION")));
    has(&format!("EXPOSE {}", default_port()));
    has(&format!(
        "FROM rust:{}-bookworm AS dependencies",
        env!("CARGO_PKG_RUST_VERSION")
    ));
    // The whole set, and none of them in effect.
    let granted = recipe
        .split_once("setcap ")
        .and_then(|(_, rest)| rest.split_once("=p "))
        .expect("setcap CAPABILITIES=p FILE")
        .0;
    let granted: Vec<Capability> = granted.split(',').map(capability).collect();
    assert_eq!(granted, Capability::ALL);
    let health = recipe
        .split_once("HEALTHCHECK ")
        .and_then(|(_, rest)| rest.split_once("CMD "))
        .and_then(|(_, rest)| rest.lines().next())
        .unwrap();
    let health: Vec<String> = serde_json::from_str(health).unwrap();
    assert_eq!(health[0], "/darkport_exporter");
    let flags: Vec<&str> = health[1..].iter().map(String::as_str).collect();
    assert!(matches!(
        understood(&flags).command,
        Command::CheckHealth { .. }
    ));
}

#[test]
fn what_the_image_is_built_from_is_let_through_and_there() {
    for line in read(".dockerignore").lines() {
        if let Some(path) = line.strip_prefix('!') {
            assert!(Path::new(TOP).join(path).exists(), "{path}");
        }
    }
}

#[test]
fn compose_mounts_what_is_there() {
    let compose = compose();
    let host = ["/sys/fs/cgroup", "/etc/passwd"];
    for (name, service) in compose["services"].as_object().unwrap() {
        for (source, target) in mounts(service) {
            assert!(target.starts_with('/'), "{name}: {target}");
            let is_there = if source.starts_with('.') {
                Path::new(TOP).join(COMPOSE).join(&source).exists()
            } else if source.starts_with('/') {
                host.contains(&&*source)
            } else {
                compose["volumes"].get(&source).is_some()
            };
            assert!(is_there, "{name}: {source}");
        }
        // A tag of its own, so that it is tomorrow what it is today; the exporter's is built here.
        let image = service["image"].as_str().unwrap();
        assert!(image.contains(':') || name == "exporter", "{image}");
    }
    let context = compose["services"]["exporter"]["build"]["context"]
        .as_str()
        .unwrap();
    assert!(
        Path::new(TOP)
            .join(COMPOSE)
            .join(context)
            .join("Dockerfile")
            .exists()
    );
}

#[test]
fn compose_grants_the_exporter_what_it_has_a_use_for() {
    let compose = compose();
    let exporter = &compose["services"]["exporter"];
    let granted: Vec<Capability> = yaml::texts(&exporter["cap_add"])
        .into_iter()
        .map(capability)
        .collect();
    assert_eq!(granted, &Capability::ALL[..5], "all but CAP_SYS_ADMIN");
    assert_eq!(yaml::texts(&exporter["cap_drop"]), ["ALL"]);
    for key in ["network_mode", "pid", "cgroup"] {
        assert_eq!(exporter[key], "host", "{key}");
    }
    understood(&yaml::texts(&exporter["command"]));
}

#[test]
fn prometheus_finds_the_exporter_and_the_rules() {
    let compose = compose();
    let service = &compose["services"]["prometheus"];
    let flag = yaml::texts(&service["command"])
        .into_iter()
        .find_map(|flag| flag.strip_prefix("--config.file="))
        .unwrap();
    let configuration = yaml::read(mounted(service, flag));
    let rules = yaml::texts(&configuration["rule_files"]);
    assert_eq!(rules.len(), 2);
    for rule in rules {
        assert!(mounted(service, rule).exists(), "{rule}");
    }
    let job = &configuration["scrape_configs"][0];
    let target = format!("host.docker.internal:{}", default_port());
    assert_eq!(yaml::texts(&job["static_configs"][0]["targets"]), [target]);
    let hosts = yaml::texts(&service["extra_hosts"]);
    assert_eq!(hosts, ["host.docker.internal:host-gateway"]);
    // What Grafana makes $__rate_interval from.
    let source = yaml::read(mounted(
        &compose["services"]["grafana"],
        "/etc/grafana/provisioning/datasources/darkport.yml",
    ));
    assert_eq!(
        source["datasources"][0]["jsonData"]["timeInterval"],
        configuration["global"]["scrape_interval"]
    );
}

#[test]
fn grafana_finds_every_dashboard_and_its_data_source() {
    let compose = compose();
    let service = &compose["services"]["grafana"];
    let provider = yaml::read(mounted(
        service,
        "/etc/grafana/provisioning/dashboards/darkport.yml",
    ));
    let folder = provider["providers"][0]["options"]["path"]
        .as_str()
        .unwrap();
    let mut dashboards = 0;
    for entry in std::fs::read_dir(Path::new(TOP).join("dashboards")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|kind| kind == "json") {
            let name = path.file_name().unwrap().to_str().unwrap();
            let there = mounted(service, &format!("{folder}/{name}"));
            assert_eq!(there.canonicalize().unwrap(), path.canonicalize().unwrap());
            dashboards += 1;
        }
    }
    assert!(dashboards > 0);
    let environment = service["environment"].as_object().unwrap();
    let home = environment["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
        .as_str()
        .unwrap();
    assert!(mounted(service, home).exists());
    let source = read("dashboards/provisioning/datasources/darkport.yml");
    let variables: Vec<&str> = source
        .split("${")
        .skip(1)
        .map(|rest| rest.split_once('}').unwrap().0)
        .collect();
    assert_eq!(variables, ["PROMETHEUS_URL"]);
    let url = environment["PROMETHEUS_URL"].as_str().unwrap();
    let url = url.strip_prefix("http://").unwrap();
    assert!(
        compose["services"]
            .get(url.split(':').next().unwrap())
            .is_some()
    );
}

/// README's lines are what people copy.
#[test]
fn the_lines_of_the_readme_are_understood() {
    let readme = read("README.md").replace("\\\n", " ");
    let lines: Vec<&str> = readme
        .lines()
        .filter(|line| line.trim_start().starts_with("docker run "))
        .collect();
    assert!(lines.len() >= 2, "with and without the kernel tier");
    for line in lines {
        let words: Vec<&str> = line.split_whitespace().collect();
        let image = words
            .iter()
            .position(|&word| word == "darkport_exporter")
            .unwrap_or_else(|| panic!("no image in {line}"));
        understood(&words[image + 1..]);
        let flags = &words[2..image];
        for pair in flags.windows(2) {
            if pair[0] == "--cap-add" {
                capability(pair[1]);
            }
        }
        assert!(line.contains("--network host --pid host"), "{line}");
    }
    for file in ["compose.yaml", "noise.py", "prometheus.yml"] {
        assert!(Path::new(TOP).join(COMPOSE).join(file).exists(), "{file}");
    }
    assert!(readme.contains("docker compose --file deploy/compose/compose.yaml"));
}

#[cfg(target_os = "linux")]
mod privileged {
    use super::*;
    use darkport_exporter::port::Port;
    use support::Exporter;

    #[test]
    #[ignore = "needs root and promtool"]
    fn promtool_takes_the_configuration() {
        let compose = compose();
        let service = &compose["services"]["prometheus"];
        let mut text = read("deploy/compose/prometheus.yml");
        let inside = "/etc/prometheus/darkport";
        let outside = mounted(service, inside).canonicalize().unwrap();
        text = text.replace(inside, outside.to_str().unwrap());
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("prometheus.yml");
        std::fs::write(&file, text).unwrap();
        let told = support::run("promtool", &["check", "config", file.to_str().unwrap()]);
        assert!(told.contains("2 rule files found"), "{told}");
    }

    #[test]
    #[ignore = "needs root, python3 and a network namespace of its own"]
    fn the_noise_is_seen() {
        let exporter = Exporter::start(&["--collector.tier=kernel"]);
        let before = exporter.scrape();
        let script = Path::new(TOP).join(COMPOSE).join("noise.py");
        let told = support::run(
            "python3",
            &[
                script.to_str().unwrap(),
                "--rounds=5",
                "--beats=3",
                "--pace=0",
                "--sweep=50",
                "--seed=1",
            ],
        );
        assert_eq!(told.lines().count(), 10, "{told}");
        let after = exporter.scrape();
        let knocks = |scrape: &support::Scrape| -> f64 {
            scrape
                .series("darkport_space_knocks_total")
                .map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap())
                .sum()
        };
        // Of each beat three ports, of each round fifty, TCP and UDP.
        assert_eq!(
            knocks(&after) - knocks(&before),
            f64::from(5 * (3 * 3 + 50) * 2)
        );
        for number in [561, 609, 3476, 79, 513] {
            let port = Port::tcp(number);
            let of = |family| after.of_port(family, port);
            assert_eq!(of("darkport_listener_opened_total"), Some(1.0), "{port}");
            assert_eq!(of("darkport_inbound_accepted_total"), Some(3.0), "{port}");
            assert_eq!(of("darkport_listening"), Some(0.0), "{port}");
        }
    }
}
