//! The list of attacks as a whole: what it says of itself, and that the document says the same.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;
use std::path::Path;

use hostile::attack::Outcome;
use hostile::attacks::FAMILIES;
use hostile::report::{BEGIN, END, table};

#[test]
fn the_document_has_the_table_of_this_suite() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/threat-model.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = text.split_once(BEGIN).unwrap_or_else(|| panic!("no \"{BEGIN}\""));
    let (found, after) = rest.split_once(END).unwrap_or_else(|| panic!("no \"{END}\""));
    let expected = format!("\n\n{}\n", table());
    if std::env::var_os("BULLION_WRITE_ATTACKS").is_some() {
        std::fs::write(&path, format!("{before}{BEGIN}{expected}{END}{after}")).unwrap();
    } else {
        assert!(found == expected, "the table differs: BULLION_WRITE_ATTACKS=1 writes it anew");
    }
}

/// Words by which two attacks are told from each other: the same words only where it is the same fact.
#[test]
fn every_attack_that_is_stopped_has_words_of_its_own() {
    // Root hash and tree do not fit; the kernel finds a block of the tree that is not the one it should be.
    const ONE_FACT: [&[&str]; 2] =
        [&["another-root-hash", "bit-in-the-top-of-the-tree"], &["bit-below-the-top-of-the-tree", "bait-and-switch"]];
    let mut by_words: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for attack in FAMILIES.iter().flat_map(|family| family.attacks) {
        if let Outcome::Stopped { words, .. } = attack.outcome {
            by_words.entry(words).or_default().push(attack.name);
        }
    }
    for names in by_words.values().filter(|names| names.len() > 1) {
        assert!(ONE_FACT.contains(&names.as_slice()), "the same words stand for {names:?}");
    }
}

#[test]
fn names_are_unique_and_there_are_as_many_attacks_as_promised() {
    let mut names: Vec<&str> = FAMILIES.iter().flat_map(|family| family.attacks).map(|attack| attack.name).collect();
    assert!(names.len() >= 95, "{} attacks", names.len());
    let trials: usize = FAMILIES.iter().flat_map(|family| family.attacks).map(|attack| attack.trials().count()).sum();
    assert!(2 * (trials - names.len()) >= names.len(), "{trials} trials of {} attacks", names.len());
    names.sort_unstable();
    let count = names.len();
    names.dedup();
    assert_eq!(names.len(), count, "a name stands twice");
}
