//! What docs/reliability.md and SECURITY.md name must exist, and what is broken on purpose must be told there.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// The tests a document names, such as `tests/web.rs::all_listeners_are_served`: file and function.
fn named(document: &str) -> BTreeSet<(String, String)> {
    let text = read(document);
    let quoted = text.split('`').skip(1).step_by(2);
    let tests = quoted.filter_map(|word| word.split_once(".rs::"));
    tests
        .map(|(file, test)| (format!("{file}.rs"), test.to_owned()))
        .collect()
}

/// The functions of a file that follow `#[test]` or its kin.
fn tests_in(text: &str) -> BTreeSet<String> {
    let after_attribute = text.split("test]\n").skip(1);
    let name = |rest: &str| {
        let (_, from_name) = rest.split_once("fn ")?;
        Some(from_name.split_once('(')?.0.to_owned())
    };
    after_attribute.filter_map(name).collect()
}

#[test]
fn every_test_that_the_documents_name_exists() {
    for document in ["docs/reliability.md", "SECURITY.md"] {
        let named = named(document);
        assert!(named.len() > 10, "{document}: {named:?}");
        for (file, test) in named {
            let text = read(&file);
            let is_there = tests_in(&text).contains(&test)
                // Made by a macro, which has no attribute before the name.
                || text.contains(&format!("fn {test}("));
            assert!(is_there, "{document} names {file}::{test}");
        }
    }
}

#[test]
fn every_fault_is_in_the_document() {
    let named = named("docs/reliability.md");
    let mut seen = 0;
    for file in [
        "clock",
        "crowds",
        "limits",
        "log",
        "netlink",
        "network",
        "processes",
    ] {
        let file = format!("tests/faults/{file}.rs");
        for test in tests_in(&read(&file)) {
            seen += 1;
            assert!(
                named.contains(&(file.clone(), test.clone())),
                "docs/reliability.md does not name {file}::{test}"
            );
        }
    }
    assert!(seen > 10, "{seen} tests found");
}
