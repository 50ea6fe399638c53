//! What is started on a host: the units, the service's command line and what Debian's package puts where.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use darkport_exporter::args;
use darkport_exporter::privileges::Capability;

use crate::{accepted, path, text};

const SERVICE: &str = "deploy/systemd/darkport_exporter.service";

/// The value of a setting in a unit, the last one if there are several.
fn setting<'a>(unit: &'a str, name: &str) -> Option<&'a str> {
    unit.lines()
        .rev()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
}

/// The words of ARGS in a file that a shell or systemd reads.
fn words(defaults: &str) -> Vec<&str> {
    let line = defaults
        .lines()
        .find_map(|line| line.strip_prefix("ARGS="))
        .expect("ARGS");
    line.trim_matches('"').split_whitespace().collect()
}

/// Where Debian's package puts which file of the repository; a folder stands for what keeps its name in it.
fn installed() -> Vec<(String, String)> {
    let manifest = text("Cargo.toml");
    let assets = manifest.split_once("\nassets = [").expect("assets").1;
    let assets = assets.split_once("\n]").expect("their end").0;
    assets
        .lines()
        .filter_map(|line| {
            let mut quoted = line.split('"').skip(1).step_by(2);
            Some((quoted.next()?.to_owned(), format!("/{}", quoted.next()?)))
        })
        .collect()
}

fn is_installed(destination: &str) -> bool {
    installed().iter().any(|(source, to)| {
        let name = Path::new(source).file_name().unwrap().to_str().unwrap();
        to == destination || (to.ends_with('/') && format!("{to}{name}") == destination)
    })
}

/// All that is written by hand under deploy/.
fn by_hand() -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![path("deploy")];
    while let Some(folder) = folders.pop() {
        if folder.ends_with("man") || folder.ends_with("completions") {
            continue;
        }
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                files.push(path);
            }
        }
    }
    files
}

#[test]
fn the_command_line_of_the_service_is_one_that_the_exporter_takes() {
    let service = text(SERVICE);
    let defaults = setting(&service, "EnvironmentFile").unwrap();
    assert!(is_installed(defaults.trim_start_matches('-')), "{defaults}");
    assert_eq!(
        setting(&service, "ExecStart"),
        Some("/usr/bin/darkport_exporter $ARGS")
    );
    assert!(is_installed("/usr/bin/darkport_exporter"));

    let defaults = text("deploy/systemd/darkport_exporter.default");
    let args = accepted(
        "deploy/systemd/darkport_exporter.default",
        &words(&defaults),
    );
    let configuration = args.config_file.expect("a configuration");
    assert!(
        is_installed(configuration.to_str().unwrap()),
        "{configuration:?}"
    );
    // The embedded default, so that a host may go either way.
    assert!(
        installed()
            .iter()
            .any(|(source, to)| source == "src/default.yml" && Path::new(to) == configuration)
    );
    // What the socket unit says to add.
    let with_socket: Vec<&str> = words(&defaults)
        .into_iter()
        .chain(["--web.systemd-socket"])
        .collect();
    assert!(accepted("the socket unit", &with_socket).web.systemd_socket);
}

#[test]
fn every_flag_named_under_deploy_exists() {
    let definition = args::definition();
    let known: BTreeSet<&str> = definition
        .get_arguments()
        .filter_map(|argument| argument.get_long())
        .collect();
    let mut seen = 0;
    for file in by_hand() {
        let Ok(text) = fs::read_to_string(&file) else {
            continue;
        };
        for word in text.split(|c: char| !(c.is_ascii_alphanumeric() || "-._".contains(c))) {
            let Some(flag) = word.strip_prefix("--") else {
                continue;
            };
            // The exporter's flags are told from those of other programs by their dot; a sentence may end behind one.
            let flag = flag.trim_end_matches('.');
            let family = flag.split_once('.').map(|(family, _)| family);
            let is_ours = known
                .iter()
                .any(|known| known.split_once('.').map(|(family, _)| family) == family);
            if family.is_some() && is_ours && !is_prometheus(&file, flag) {
                seen += 1;
                assert!(known.contains(flag), "{}: --{flag}", file.display());
            }
        }
    }
    assert!(seen >= 3, "only {seen} flags were found");
}

/// Prometheus has flags of the same families, and compose runs it.
fn is_prometheus(file: &Path, flag: &str) -> bool {
    file.starts_with(path("deploy/compose"))
        && text_of(file).contains("prom/prometheus")
        && matches!(
            flag,
            "config.file"
                | "web.enable-lifecycle"
                | "web.listen-address"
                | "web.config.file"
                | "web.external-url"
        )
}

fn text_of(file: &Path) -> String {
    fs::read_to_string(file).unwrap()
}

#[test]
fn what_the_package_holds_is_there() {
    for (source, to) in installed() {
        if source == "target/release/darkport_exporter" {
            continue;
        }
        if let Some((folder, pattern)) = source.rsplit_once("/*") {
            let mut entries = fs::read_dir(path(folder)).unwrap();
            let found =
                entries.any(|entry| entry.unwrap().path().to_str().unwrap().ends_with(pattern));
            assert!(found, "{source}");
        } else {
            assert!(path(&source).is_file(), "{source} for {to}");
        }
    }
    let version = env!("CARGO_PKG_VERSION");
    let changelog = text("deploy/debian/changelog");
    assert!(
        changelog.starts_with(&format!("darkport-exporter ({version}-1) ")),
        "deploy/debian/changelog begins with another version"
    );
}

#[test]
fn the_units_name_capabilities_that_the_exporter_has_a_use_for() {
    let all = [
        Capability::Bpf,
        Capability::Perfmon,
        Capability::NetAdmin,
        Capability::SysPtrace,
        Capability::DacReadSearch,
        Capability::SysAdmin,
    ]
    .map(Capability::as_str);
    let mut units = vec![SERVICE.to_owned()];
    for entry in fs::read_dir(path("deploy/systemd/drop-ins")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        units.push(format!("deploy/systemd/drop-ins/{name}"));
    }
    for unit in &units {
        let content = text(unit);
        let ambient = setting(&content, "AmbientCapabilities").unwrap();
        assert_eq!(
            Some(ambient),
            setting(&content, "CapabilityBoundingSet"),
            "{unit}"
        );
        for name in ambient.split_whitespace() {
            assert!(all.contains(&name), "{unit}: {name}");
        }
    }
    // sysvinit gives the same.
    let script = text("deploy/debian/darkport_exporter.init");
    let named = script
        .lines()
        .find_map(|line| line.trim().strip_prefix("for capability in "))
        .unwrap();
    let named: Vec<String> = named
        .trim_end_matches("; do")
        .split_whitespace()
        .map(|name| format!("CAP_{}", name.to_uppercase()))
        .collect();
    assert_eq!(
        setting(&text(SERVICE), "AmbientCapabilities"),
        Some(named.join(" ").as_str())
    );
}

/// Each of these takes away what the exporter is there to see; `tests/package/run` shows that the others do not.
#[test]
fn nothing_hides_the_host_from_the_exporter() {
    let service = text(SERVICE);
    for name in [
        "PrivateNetwork",
        "PrivateUsers",
        "ProtectProc",
        "ProcSubset",
        "IPAddressDeny",
        "DynamicUser",
        "RootDirectory",
        "NetworkNamespacePath",
    ] {
        assert_eq!(setting(&service, name), None, "{name}");
    }
    let families = setting(&service, "RestrictAddressFamilies").unwrap();
    assert!(families.split_whitespace().any(|one| one == "AF_NETLINK"));
}

/// systemd's own word on how much the service could do to the host if it were taken over; `OK` ends at 5.0.
#[test]
#[ignore = "needs root"]
fn systemd_finds_the_service_little_exposed() {
    let output = Command::new("systemd-analyze")
        .args(["security", "--no-pager", "--offline=true", "--threshold=30"])
        .arg(path(SERVICE))
        .output()
        .expect("systemd-analyze is needed: Debian package systemd");
    let told = String::from_utf8_lossy(&output.stdout);
    let verdict = told.lines().last().unwrap_or_default();
    assert!(
        output.status.success() && verdict.contains(" OK "),
        "{told}"
    );
}
