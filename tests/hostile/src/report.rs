//! The report: the attacks as a table of `docs/threat-model.md`.

use std::fmt::Write as _;

use crate::attack::{By, OnRelease, Outcome};
use crate::attacks::FAMILIES;

/// The line before the table in the document.
pub const BEGIN: &str =
    "<!-- hostile: made by tests/hostile; BULLION_WRITE_ATTACKS=1 cargo test -p bullion-hostile --test report -->";
/// The line behind it.
pub const END: &str = "<!-- /hostile -->";

/// The table, with one head for all families.
pub fn table() -> String {
    let mut text = String::from(
        "| the host | guest | what comes of it | of class release, with the compiled kernel | test |\n|---|---|---|---|---|\n",
    );
    for family in FAMILIES {
        let _ = writeln!(text, "| **{}** | | | | `hostile` `{}` |", family.name, family.test);
        for attack in family.attacks {
            let (host, guest) = (attack.host, attack.guest.name());
            let release = match attack.release {
                OnRelease::Untried => String::new(),
                OnRelease::Same => "the same".to_owned(),
                OnRelease::Other(other) => outcome(other),
            };
            let _ =
                writeln!(text, "| {host} | {guest} | {} | {release} | `{}` |", outcome(attack.outcome), attack.name);
        }
    }
    text
}

fn outcome(outcome: Outcome) -> String {
    let quoted = |words: &str| words.replace('|', "\\|");
    match outcome {
        Outcome::NeverStarted => "stopped by firmware, which goes no further and says nothing".to_owned(),
        Outcome::Stopped { by, words } => {
            let who = match by {
                By::Kernel => "the kernel",
                By::Guest => "`bullion-guest`",
            };
            format!("stopped by {who}: \"{}\"", quoted(words))
        }
        Outcome::NoEffect { because, words: "" } => format!("no effect: {because}"),
        Outcome::NoEffect { because, words } => format!("no effect, and said (\"{}\"): {because}", quoted(words)),
        Outcome::Shows { what } => format!("shows: {what}"),
        Outcome::NotNoticed { but } => format!("**not noticed**: {but}"),
    }
}
