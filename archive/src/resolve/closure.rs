//! What is really needed of the solver's answer, and where the answer was a guess.
//!
//! The solver may pick any provider of a virtual package. That is the recipe's author's choice unless only one package
//! provides it, or a provider is needed anyway; where it is neither, the choice is handed back.

use std::collections::{BTreeMap, BTreeSet};

use super::Choice;
use super::provider::{dependencies, holds_already};
use crate::universe::{Id, Match, Universe};

/// A relation whose answer was a guess.
pub(super) struct Open<'a> {
    pub choice: Choice,
    /// What answers it: the recipe's choice, else the first real package among the alternatives, which the solver did not
    /// take.
    pub real: Option<Match<'a>>,
    /// What the solver took.
    guesses: Vec<Id>,
}

/// The packages that the roots need, out of those that were chosen (one for each name).
pub(super) fn needed<'a>(
    universe: &Universe<'a>,
    roots: Vec<Id>,
    chosen: &BTreeMap<&str, Id>,
    assumed: &BTreeSet<&str>,
    choose: &BTreeMap<String, String>,
) -> Result<Vec<Id>, Vec<Open<'a>>> {
    let mut needed: BTreeSet<Id> = roots.iter().copied().collect();
    let mut open = roots;
    let mut guessed = Vec::new();
    while let Some(id) = open.pop() {
        let record = &universe.entry(id).record;
        // What cannot be parsed was never chosen.
        for alternatives in dependencies(record).unwrap_or_default() {
            if holds_already(universe, assumed, record, &alternatives) {
                continue;
            }
            let matches: Vec<_> = alternatives.iter().flat_map(|relation| universe.matches_of(relation)).collect();
            let picked = |found: &&Match<'a>| chosen.get(found.name).is_some_and(|id| found.ids.contains(id));
            let providers: BTreeSet<&str> =
                matches.iter().filter(|found| !found.real).map(|found| found.name).collect();
            let wanted = alternatives.iter().find_map(|relation| choose.get(relation.name));
            let wanted = wanted.and_then(|name| matches.iter().find(|found| !found.real && found.name == name));
            let real = matches.iter().filter(|found| found.real).find(picked);
            let free = || real.or_else(|| matches.iter().find(picked).filter(|_| providers.len() == 1));
            // What the recipe has chosen is the answer, whatever else would do.
            let answer = wanted.map_or_else(free, |wanted| Some(wanted).filter(picked));
            match answer.and_then(|found| chosen.get(found.name)) {
                Some(answer) => {
                    if needed.insert(*answer) {
                        open.push(*answer);
                    }
                }
                None => {
                    let relation = alternatives.iter().map(ToString::to_string).collect::<Vec<_>>().join(" | ");
                    let guesses =
                        matches.iter().filter(picked).filter_map(|found| chosen.get(found.name).copied()).collect();
                    let providers = providers.iter().map(|name| (*name).to_owned()).collect();
                    let choice = Choice { needed_by: record.name.to_owned(), relation, providers };
                    let real = wanted.or_else(|| matches.iter().find(|found| found.real)).cloned();
                    guessed.push(Open { choice, real, guesses });
                }
            }
        }
    }
    // Only now is it known what is needed anyway.
    guessed.retain(|one| !one.guesses.iter().any(|id| needed.contains(id)));
    if guessed.is_empty() {
        return Ok(needed.into_iter().collect());
    }
    guessed.sort_by(|a, b| (&a.choice.relation, &a.choice.needed_by).cmp(&(&b.choice.relation, &b.choice.needed_by)));
    guessed.dedup_by(|a, b| a.choice.relation == b.choice.relation);
    Err(guessed)
}
