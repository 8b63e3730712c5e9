//! Maintainer scripts: none runs, and each is answered. An answer is the effects that stand for a script, or why it is
//! ignored; a script that nobody has answered is listed as such, and no release image is made with it.
//!
//! `fragments` takes off what debhelper puts into every script and what its name alone says; what is left is looked up by
//! package, script and SHA-256 in `known`, so that a script that comes to do something new is unknown again.

mod fragments;
mod known;

use std::collections::BTreeMap;

use spec::Sha256Digest;
use spec::lock::{Lock, Script, Use};
use spec::recipe::{Recipe, ScriptAnswer};
use store::Store;

use crate::deb::{self, Control, DebError};
use fragments::Answer;

/// A script without an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unanswered {
    /// The package.
    pub package: String,
    /// The script: `postinst`, ...
    pub script: String,
}

impl std::fmt::Display for Unanswered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} of {}", self.script, self.package)
    }
}

/// Writes into a lock how the scripts of its packages are answered, for those packages that are in the cache. Returns how
/// many are not.
pub fn record(lock: &mut Lock, recipe: &Recipe, store: &Store) -> Result<usize, DebError> {
    // A tree of tools is only unpacked; kernels and firmware are taken out of packages that are not installed.
    if recipe.image.is_none() {
        return Ok(0);
    }
    let mut missing = 0;
    for package in lock.package.iter_mut().filter(|package| package.uses.contains(&Use::Tree)) {
        match store.read(&package.sha256, package.size) {
            Ok(bytes) => package.scripts = answers(&package.name, &deb::read_control(&bytes)?, &recipe.scripts),
            Err(_) => missing += 1,
        }
    }
    Ok(missing)
}

/// The scripts of a lock that nobody has answered.
pub fn unanswered(lock: &Lock) -> Vec<Unanswered> {
    let of = |package: &spec::lock::Package| -> Vec<Unanswered> {
        let open = package.scripts.iter().filter(|script| !script.is_answered());
        open.map(|script| Unanswered { package: package.name.clone(), script: script.name.clone() }).collect()
    };
    lock.package.iter().flat_map(of).collect()
}

/// The scripts of `packages`, as they were unpacked, whose answers the lock does not have: it was made without them, or says
/// something else of them.
pub fn unrecorded(lock: &Lock, recipe: &Recipe, packages: &[deb::Package]) -> Vec<Unanswered> {
    let of = |package: &deb::Package| -> Vec<Unanswered> {
        let locked = lock.package.iter().filter(|locked| locked.name == package.name);
        let known: Vec<&Script> = locked.flat_map(|locked| &locked.scripts).collect();
        let answers = answers(&package.name, &package.control, &recipe.scripts);
        let open = answers.into_iter().filter(|answer| !known.contains(&answer));
        open.map(|script| Unanswered { package: package.name.clone(), script: script.name }).collect()
    };
    packages.iter().flat_map(of).collect()
}

/// How the scripts of one package are answered.
pub fn answers(package: &str, control: &Control, given: &BTreeMap<String, ScriptAnswer>) -> Vec<Script> {
    let answer = |(name, text): (&String, &String)| {
        let answer = match fragments::take_off(name, text) {
            (answer, rest) if rest.is_empty() => answer,
            (answer, rest) => match known::answer(package, name, &Sha256Digest::of(rest.as_bytes()).to_string()) {
                Some(known) => answer.and(known),
                None => match given.get(package) {
                    Some(given) => answer.and(Answer::ignored(&given.ignore)),
                    None => Answer::default(),
                },
            },
        };
        let Answer { effects, ignored } = answer;
        let ignored = ignored.into_iter().collect::<Vec<_>>().join("; ");
        Script {
            name: name.clone(),
            sha256: Sha256Digest::of(text.as_bytes()),
            effects: effects.into_iter().collect(),
            ignored: (!ignored.is_empty()).then_some(ignored),
        }
    };
    control.scripts.iter().map(answer).collect()
}

/// What is left of a script and would have to be known, with its digest: for those who extend the table.
pub fn rest(script: &str, text: &str) -> (String, Sha256Digest) {
    let rest = fragments::take_off(script, text).1;
    let digest = Sha256Digest::of(rest.as_bytes());
    (rest, digest)
}
