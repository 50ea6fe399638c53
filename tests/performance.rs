//! README's figures against those of docs/performance.md, which `cargo bench --bench peers -- --write` writes.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

#[path = "../benches/peers/tables.rs"]
mod tables;

use std::fs;

use tables::{Section, claims, figure, sections};

fn document() -> Vec<Section> {
    sections(&fs::read_to_string("docs/performance.md").unwrap())
}

#[test]
fn every_claim_of_readme_has_its_row_and_says_what_it_says() {
    let document = document();
    let claims = claims(&fs::read_to_string("README.md").unwrap());
    assert!(
        claims.len() >= 5,
        "README claims next to nothing: {claims:?}"
    );
    for [what, claimed, place] in claims {
        let measured = figure(&document, &place);
        assert_eq!(measured, Some(claimed.as_str()), "{what}: {place}");
    }
}

/// What is measured belongs into that table, or it grows old unseen.
#[test]
fn no_other_figure_stands_in_readme() {
    let readme = fs::read_to_string("README.md").unwrap();
    let mut is_code = false;
    for (number, line) in readme.lines().enumerate() {
        is_code ^= line.starts_with("```");
        if is_code || line.contains(" › ") {
            continue;
        }
        // What is in code is a setting.
        let words: String = line.split('`').step_by(2).collect::<Vec<_>>().join("`");
        let words: Vec<&str> = words.split_whitespace().collect();
        for pair in words.windows(2) {
            let is_number = pair[0].trim_matches('(').parse::<f64>().is_ok();
            let unit = pair[1].trim_end_matches(['.', ',', ';', ':', ')']);
            assert!(
                !(is_number && matches!(unit, "ms" | "µs" | "ns" | "MB" | "GB")),
                "README.md:{}: {} {unit} has no row in docs/performance.md",
                number + 1,
                pair[0]
            );
        }
    }
}

#[test]
fn the_document_has_all_its_tables_and_curves() {
    let titles: Vec<String> = document()
        .into_iter()
        .map(|section| section.title)
        .collect();
    assert_eq!(
        titles,
        [
            "A look, by established sockets",
            "Resident memory, by established sockets",
            "Processor while nobody asks, by established sockets",
            "A look, by watched ports",
            "What is seen of what is brief",
            "What traffic pays",
            "Footprint",
        ]
    );
    for curve in ["sockets", "watched"] {
        let drawn = fs::read_to_string(format!("docs/performance/{curve}.svg")).unwrap();
        assert!(drawn.contains("<svg") && drawn.contains("darkport_exporter, tier kernel"));
    }
}
