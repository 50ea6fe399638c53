//! Configuration files as a user writes them, good and bad.
//!
//! Each `tests/config/bad/NAME.yml` is refused with exactly the text of `NAME.err` beside it. After a change of wording,
//! `BLESS=1 cargo test --test config` writes those texts anew: read the difference.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::fs;
use std::path::{Path, PathBuf};

use darkport_exporter::config::{self, Config, Limits, Namespaces};
use darkport_exporter::port::{Port, Protocol};
use darkport_exporter::watch::{Facts, Series};
use proptest::prelude::*;

fn cases(directory: &str) -> Vec<PathBuf> {
    let directory = Path::new("tests/config").join(directory);
    let mut files: Vec<PathBuf> = fs::read_dir(&directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yml"))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "no case in {}", directory.display());
    files
}

fn refusal(text: &str) -> String {
    match Config::parse("test.yml", text, Path::new("")) {
        Ok(_) => panic!("accepted:\n{text}"),
        Err(error) => error.to_string(),
    }
}

fn accepted(text: &str) -> Config {
    Config::parse("test.yml", text, Path::new("")).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

#[test]
fn every_bad_file_is_refused_with_its_message() {
    let bless = std::env::var_os("BLESS").is_some();
    let mut wrong = Vec::new();
    for path in cases("bad") {
        let error = match Config::load(&path) {
            Ok(_) => panic!("{} is accepted", path.display()),
            Err(error) => format!("{error}\n"),
        };
        let golden = path.with_extension("err");
        if bless {
            fs::write(&golden, &error).unwrap();
        }
        let wanted = fs::read_to_string(&golden).unwrap_or_default();
        if error != wanted {
            wrong.push(format!("{}:\n{error}wanted:\n{wanted}", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_good_file_is_accepted() {
    for path in cases("good") {
        if let Err(error) = Config::load(&path) {
            panic!("{error}");
        }
    }
}

#[test]
fn the_embedded_default_is_valid_and_watches_what_it_promises() {
    let config = Config::embedded();
    let owner = |port| config.watch.owner(port).map(|watch| watch.name.as_str());
    for protocol in Protocol::ALL {
        let at = |number| owner(Port { number, protocol });
        assert_eq!((at(560), at(561)), (Some("monitor"), Some("monitor")));
        assert!((609..=611).all(|number| at(number) == Some("npmp")));
        assert_eq!(at(3476), Some("nppmp"));
        assert_eq!(
            at(3306),
            Some("registered"),
            "mysql is assigned and registered"
        );
        assert_eq!(at(22), None);
        assert_eq!(at(10561), None, "the exporter's own port is unassigned");
    }
    assert_eq!(owner(Port::tcp(514)), Some("r-services"));
    assert_eq!(owner(Port::udp(514)), None, "syslog is alive");
    assert_eq!(config.limits, Limits::default());
    assert_eq!(config.namespaces, Namespaces::Own);
    assert_eq!(config.source, "embedded default");
}

#[test]
fn the_embedded_default_calls_no_ordinary_service_unexpected() {
    let config = Config::embedded();
    let database = Facts {
        process: "",
        user: "",
        unit: "",
        address: "0.0.0.0",
    };
    let watch = config.watch.owner(Port::tcp(3306)).unwrap();
    assert!(watch.expects(&database));
    assert_eq!(watch.series, Series::Active);
    for watch in config.watch.entries() {
        assert_eq!(
            watch.expects(&database),
            watch.series == Series::Active,
            "{}",
            watch.name
        );
        assert!(!watch.description.is_empty(), "{}", watch.name);
    }
}

/// The comment behind each port of the default names its services as the registry does.
#[test]
fn the_embedded_default_names_ports_as_the_registry_does() {
    let config = Config::embedded();
    let mut named = 0;
    for line in config::DEFAULT_TEXT.lines() {
        let Some((number, comment)) = line
            .trim_start()
            .strip_prefix("- ")
            .and_then(|line| line.split_once('#'))
        else {
            continue;
        };
        let Ok(number) = number.trim().parse::<u16>() else {
            continue;
        };
        let first = comment
            .trim_start()
            .split([' ', ',', ':', ';'])
            .next()
            .unwrap();
        let names: Vec<&str> = [Port::tcp(number), Port::udp(number)]
            .into_iter()
            .flat_map(|port| {
                config
                    .registry
                    .entries(port)
                    .map(|entry| entry.service_name)
            })
            .collect();
        // Unassigned today; the comment says so.
        if number == 15 {
            assert!(names.is_empty() && comment.contains("no longer assigned"));
            continue;
        }
        assert!(
            names.contains(&first),
            "{number}: {first:?} is none of {names:?}"
        );
        named += 1;
    }
    assert!(named > 35, "only {named} ports found in the text");
}

#[test]
fn all_problems_are_told_at_once_in_the_order_of_the_file() {
    let message = refusal(
        "watch:\n  - nam: a\n    ports: [65536]\n  - name: B\n    ports: [9-7, 1]\nlimits: {series: many}\nwacth: 1\n",
    );
    let places: Vec<&str> = message
        .lines()
        .map(|line| line.strip_prefix("test.yml:").unwrap())
        .map(|line| line.split(": ").next().unwrap())
        .collect();
    assert_eq!(
        places,
        ["2:5", "2:5", "3:13", "4:11", "5:13", "6:18", "7:1"],
        "{message}"
    );
}

#[test]
fn a_hundred_problems_are_enough() {
    let text = format!("watch:\n{}", "  - {}\n".repeat(300));
    let message = refusal(&text);
    assert_eq!(message.lines().count(), 101);
    assert!(
        message.ends_with("test.yml: and 500 more problems"),
        "{message}"
    );
}

#[test]
fn the_first_entry_that_names_a_port_owns_it() {
    let config = accepted(
        "watch:\n  - {name: one, ports: [561]}\n  - {name: two, ports: [560-562], protocols: [udp]}\n",
    );
    let owner = |port| config.watch.owner(port).map(|watch| watch.name.as_str());
    assert_eq!(owner(Port::udp(561)), Some("one"));
    assert_eq!(owner(Port::udp(562)), Some("two"));
    assert_eq!(owner(Port::tcp(562)), None);
}

#[test]
fn ports_and_selectors_meet() {
    let config = accepted(
        "watch:\n\
         - {name: known, ports: [0-1023], protocols: [tcp], iana: {service_name: 'NPMP-*'}}\n\
         - {name: gaps, ports: [4-6], protocols: [udp], iana: {assignment: unassigned, range: well_known}}\n\
         - {name: one, iana: {service_name: nppmp}}\n",
    );
    let [known, gaps, one] = config.watch.entries() else {
        panic!("three entries");
    };
    assert_eq!(
        known.ports.iter().collect::<Vec<_>>(),
        [Port::tcp(609), Port::tcp(610), Port::tcp(611)]
    );
    assert_eq!(
        gaps.ports.iter().collect::<Vec<_>>(),
        [Port::udp(4), Port::udp(6)],
        "5 is rje"
    );
    assert_eq!(
        one.ports.iter().collect::<Vec<_>>(),
        [Port::tcp(3476), Port::udp(3476)]
    );
}

#[test]
fn the_series_limit_is_met_exactly() {
    let text = |limit: usize| {
        format!("limits: {{series: {limit}}}\nwatch: [{{name: ten, ports: [1-10]}}]\n")
    };
    let needed =
        10 * (config::series_per_port(Protocol::Tcp) + config::series_per_port(Protocol::Udp));
    accepted(&text(needed));
    assert!(refusal(&text(needed - 1)).contains(&format!("need {needed} series")));
    accepted("limits: {series: 0}\nwatch: [{name: all, ports: [0-65535], series: active}]\n");
}

#[test]
fn what_is_left_out_has_its_default() {
    let config = accepted("watch: []\n");
    assert!(config.watch.entries().is_empty());
    assert_eq!(config.limits, Limits::default());
    assert_eq!(config.namespaces, Namespaces::Own);
    let config = accepted("watch: []\nnamespaces: all\nlimits: {listeners: 7}\n");
    assert_eq!(config.namespaces, Namespaces::All);
    assert_eq!((config.limits.series, config.limits.listeners), (20_000, 7));
}

#[test]
fn a_path_is_relative_to_the_file_that_names_it() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("dark.yml");
    fs::write(
        directory.path().join("list.csv"),
        "Service Name,Port Number,Transport Protocol,Description,Assignee,Contact,Registration Date,Modification Date,\
         Reference,Service Code,Unauthorized Use Reported,Assignment Notes\n\
         ours,4321,tcp,Our service,,,,,,,,\n",
    )
    .unwrap();
    fs::write(
        &file,
        "registry: {iana_csv: list.csv}\nwatch: [{name: a, iana: {service_name: ours}}]\n",
    )
    .unwrap();
    let config = Config::load(&file).unwrap();
    assert_eq!(config.registry.service_name(Port::tcp(4321)), "ours");
    assert_eq!(
        config.watch.ports().iter().collect::<Vec<_>>(),
        [Port::tcp(4321)]
    );
    assert_eq!(config.source, file.display().to_string());
}

#[test]
fn a_registry_that_cannot_be_read_hides_no_other_problem_and_invents_none() {
    let message = refusal(
        "registry: {iana_csv: /nowhere/list.csv}\nwatch:\n  - {name: a, iana: {service_name: ours}}\n  - {name: a, ports: [1]}\n",
    );
    let lines: Vec<&str> = message.lines().collect();
    assert_eq!(lines.len(), 2, "{message}");
    assert!(
        lines[0].starts_with("test.yml:1:22: registry.iana_csv: "),
        "{message}"
    );
    assert!(lines[0].contains("/nowhere/list.csv"), "{message}");
    assert!(
        lines[1].starts_with("test.yml:4:12: watch[1].name: \"a\" is taken"),
        "{message}"
    );
}

#[test]
fn a_file_that_is_none_is_refused_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let written = |name: &str, bytes: &[u8]| {
        let path = directory.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    };
    let message = |path: &Path| {
        let text = Config::load(path).expect_err("refused").to_string();
        assert!(text.starts_with(&path.display().to_string()), "{text}");
        text
    };
    assert!(
        message(&directory.path().join("missing.yml")).contains("cannot be read: No such file")
    );
    assert!(message(directory.path()).contains("is a directory"));
    assert!(message(&written("empty.yml", b"")).contains("there is no configuration here"));
    assert!(
        message(&written("latin.yml", b"a: 1\n# \xe9\n"))
            .contains("latin.yml:2: there is a byte that is not UTF-8")
    );
    assert!(message(&written("binary.yml", b"\x7fELF\x02\x01\x01\x00")).contains("zero byte"));
    assert!(message(&written("utf16.yml", b"\xff\xfew\0")).contains("UTF-16"));
    let too_large = vec![b'#'; config::MAX_FILE_BYTES as usize + 1];
    assert!(message(&written("large.yml", &too_large)).contains("is larger than 1024 KiB"));
    let sparse = directory.path().join("sparse.yml");
    fs::File::create(&sparse)
        .unwrap()
        .set_len(50 << 20)
        .unwrap();
    assert!(message(&sparse).contains("is larger than 1024 KiB"));
}

/// A device or a pipe has no length beforehand; what is read of it is bounded all the same.
#[cfg(unix)]
#[test]
fn an_endless_file_is_not_read_to_its_end() {
    let message = Config::load(Path::new("/dev/zero"))
        .unwrap_err()
        .to_string();
    assert_eq!(
        message,
        "/dev/zero: is larger than 1024 KiB: no configuration is"
    );
}

#[test]
fn a_byte_order_mark_and_windows_line_ends_do_no_harm() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("windows.yml");
    fs::write(
        &path,
        "\u{feff}watch:\r\n  - name: a\r\n    ports: [561]\r\n",
    )
    .unwrap();
    assert_eq!(Config::load(&path).unwrap().watch.ports().len(), 2);
}

/// Pieces of which configurations are made, right and wrong, so that the decoder is reached as well as the parser.
fn piece() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::sample::select(vec![
            "watch:",
            "- name: a",
            "name: b",
            "ports: [561, 609-611]",
            "ports:",
            "- 70000",
            "protocols: [tcp]",
            "iana:",
            "{range: registered}",
            "service_name: '*'",
            "series: active",
            "expect:",
            "- process: nv",
            "limits:",
            "{series: 1}",
            "registry:",
            "namespaces: all",
            "probe:",
            "&a",
            "*a",
            "<<: *a",
            "? ",
            "---",
            "...",
            "!!str",
            "|",
            ">",
            "[",
            "]",
            "{",
            "}",
            ",",
            ": ",
            "- ",
            "~",
            "\t",
            "#",
        ])
        .prop_map(str::to_owned),
        "\\PC{0,6}",
    ]
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(
        pieces in prop::collection::vec((0_usize..7, piece()), 0..24),
    ) {
        let text: String = pieces
            .iter()
            .map(|(indent, piece)| match indent {
                6 => format!(" {piece}"),
                indent => format!("\n{}{piece}", "  ".repeat(*indent)),
            })
            .collect();
        if let Err(error) = Config::parse("test.yml", &text, Path::new("")) {
            let message = error.to_string();
            prop_assert!(message.lines().all(|line| line.starts_with("test.yml:")), "{}", message);
        }
    }
}

/// A file as large as is read, with as many entries as are allowed: refused or accepted, but never a burden.
#[test]
fn the_largest_file_is_read() {
    let mut text = "watch:\n".to_owned();
    for index in 0..1024_u32 {
        let ports: Vec<String> = (0..100)
            .map(|n| (index * 64 + n % 64).to_string())
            .collect();
        text += &format!(
            "  - {{name: n{index}, series: active, ports: [{}]}}\n",
            ports.join(",")
        );
    }
    assert!(text.len() > config::MAX_FILE_BYTES as usize / 2);
    let config = accepted(&text);
    assert_eq!(config.watch.entries().len(), 1024);
    assert_eq!(config.watch.ports().len(), 2 * 65_536);
}
