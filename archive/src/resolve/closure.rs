//! What is really needed of the solver's answer, and where the answer was a guess.
//!
//! The solver may pick any provider of a virtual package. That is the recipe's author's choice unless only one package
//! provides it, or a provider is needed anyway; where it is neither, the choice is handed back.

use std::collections::{BTreeMap, BTreeSet};

use super::provider::{dependencies, holds_already};
use super::{Choice, ResolveError};
use crate::universe::{Id, Universe};

/// The packages that the roots need, out of those that were chosen (one for each name).
pub(super) fn needed(
    universe: &Universe<'_>,
    roots: Vec<Id>,
    chosen: &BTreeMap<&str, Id>,
    assumed: &BTreeSet<&str>,
) -> Result<Vec<Id>, ResolveError> {
    let mut needed: BTreeSet<Id> = roots.iter().copied().collect();
    let mut open = roots;
    let mut choices = Vec::new();
    while let Some(id) = open.pop() {
        let record = &universe.entry(id).record;
        // What cannot be parsed was never chosen.
        for alternatives in dependencies(record).unwrap_or_default() {
            if holds_already(universe, assumed, record, &alternatives) {
                continue;
            }
            let matches: Vec<_> = alternatives.iter().flat_map(|relation| universe.matches_of(relation)).collect();
            let picked =
                |found: &&crate::universe::Match<'_>| chosen.get(found.name).is_some_and(|id| found.ids.contains(id));
            let providers: BTreeSet<&str> =
                matches.iter().filter(|found| !found.real).map(|found| found.name).collect();
            let real = matches.iter().filter(|found| found.real).find(picked);
            let answer = real.or_else(|| matches.iter().find(picked).filter(|_| providers.len() == 1));
            match answer.and_then(|found| chosen.get(found.name)) {
                Some(answer) => {
                    if needed.insert(*answer) {
                        open.push(*answer);
                    }
                }
                None => {
                    let relation = alternatives.iter().map(ToString::to_string).collect::<Vec<_>>().join(" | ");
                    let good: Vec<Id> =
                        matches.iter().filter(picked).filter_map(|found| chosen.get(found.name).copied()).collect();
                    let providers = providers.iter().map(|name| (*name).to_owned()).collect();
                    choices.push((good, Choice { needed_by: record.name.to_owned(), relation, providers }));
                }
            }
        }
    }
    // Only now is it known what is needed anyway.
    choices.retain(|(good, _)| !good.iter().any(|id| needed.contains(id)));
    if choices.is_empty() {
        return Ok(needed.into_iter().collect());
    }
    let mut choices: Vec<Choice> = choices.into_iter().map(|(_, choice)| choice).collect();
    choices.sort_by(|a, b| (&a.relation, &a.needed_by).cmp(&(&b.relation, &b.needed_by)));
    choices.dedup_by(|a, b| a.relation == b.relation);
    Err(ResolveError::Ambiguous { choices })
}
