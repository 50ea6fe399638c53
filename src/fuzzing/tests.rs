//! The corpus, run through what the fuzzers call; and what of it proptest makes.

use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::{TARGETS, Target};

/// Bytes that the corpus may take all together: it is for what no other test has, and is read by people.
const MOST_BYTES: u64 = 1 << 20;

fn corpus(name: &str) -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
        .join(name);
    let mut files: Vec<PathBuf> = fs::read_dir(&directory)
        .unwrap_or_else(|error| panic!("{}: {error}", directory.display()))
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    assert!(!files.is_empty(), "{} is empty", directory.display());
    files
}

#[test]
fn the_corpus_upsets_nothing() {
    for (name, target) in TARGETS {
        for file in corpus(name) {
            // What a panic is about is to be seen from its message.
            println!("{}", file.display());
            target(&fs::read(&file).unwrap());
        }
    }
}

#[test]
fn the_corpus_is_small() {
    let sizes = TARGETS.map(|(name, _)| {
        let files = corpus(name).into_iter();
        files
            .map(|file| file.metadata().unwrap().len())
            .sum::<u64>()
    });
    assert!(sizes.iter().sum::<u64>() <= MOST_BYTES, "{sizes:?}");
}

#[test]
fn every_target_has_its_program_and_no_program_is_without_its_target() {
    let mut programs: Vec<String> = fs::read_dir("fuzz/fuzz_targets")
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| path.file_stem().unwrap().to_string_lossy().into_owned())
        .collect();
    programs.sort();
    assert_eq!(programs, TARGETS.map(|(name, _)| name));
    for name in programs {
        let program = fs::read_to_string(format!("fuzz/fuzz_targets/{name}.rs")).unwrap();
        assert!(program.contains(&format!("\"{name}\"")), "{program}");
    }
}

/// A target, and something in its corpus.
fn seed() -> impl Strategy<Value = (Target, Vec<u8>)> {
    prop::sample::select(TARGETS.to_vec()).prop_flat_map(|(name, target)| {
        prop::sample::select(corpus(name)).prop_map(move |file| (target, fs::read(file).unwrap()))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn a_damaged_corpus_upsets_nothing(
        (target, mut bytes) in seed(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        kept in any::<prop::sample::Index>(),
        is_cut in any::<bool>(),
    ) {
        if is_cut && !bytes.is_empty() {
            bytes.truncate(kept.index(bytes.len()) + 1);
        }
        for (place, byte) in damage {
            if !bytes.is_empty() {
                let place = place.index(bytes.len());
                bytes[place] = byte;
            }
        }
        target(&bytes);
    }

    #[test]
    fn no_bytes_upset_anything(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        for (_, target) in TARGETS {
            target(&bytes);
        }
    }
}
