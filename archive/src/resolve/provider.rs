//! Debian's package relations as resolvo understands them.
//!
//! A set of versions is a list of packages of one name. A relation becomes the union of what satisfies it: for each
//! alternative in turn the real packages of that name, then each package that provides it. A conflict becomes a
//! constraint to the packages of that name that are not in conflict.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::fmt::Display;

use resolvo::DenseIndex as _;
use resolvo::{
    Candidates, Condition, ConditionId, ConditionalRequirement, Dependencies, DependencyProvider, Interner,
    KnownDependencies, NameId, Requirement, SolvableId, SolverCache, StringId, VersionSetId, VersionSetUnionId,
};
use spec::recipe::PackageRequest;

use crate::index::Record;
use crate::relation::{Alternatives, RelationError, parse};
use crate::universe::{Id, Match, Universe};

/// The solver's view of a universe.
pub(super) struct Provider<'u, 'a> {
    universe: &'u Universe<'a>,
    assumed: &'u BTreeSet<&'u str>,
    // The solver asks with a shared reference, and new relations turn up while it works.
    known: RefCell<Known>,
}

#[derive(Default)]
struct Known {
    names: Vec<String>,
    name_ids: HashMap<String, NameId>,
    sets: Vec<VersionSet>,
    set_ids: HashMap<(NameId, Vec<Id>), VersionSetId>,
    unions: Vec<Vec<VersionSetId>>,
    union_ids: HashMap<Vec<VersionSetId>, VersionSetUnionId>,
    texts: Vec<String>,
}

struct VersionSet {
    name: NameId,
    allowed: Vec<Id>,
    text: String,
}

/// The package behind the solver's id.
pub(super) fn id_of(solvable: SolvableId) -> Id {
    Id::try_from(solvable.to_index()).unwrap_or(Id::MAX)
}

fn solvable(id: Id) -> SolvableId {
    SolvableId::from_index(id as usize)
}

/// Everything a package depends on.
pub(super) fn dependencies<'a>(record: &Record<'a>) -> Result<Vec<Alternatives<'a>>, RelationError> {
    let mut all = parse(record.pre_depends)?;
    all.extend(parse(record.depends)?);
    Ok(all)
}

/// Whether a relation holds without any package being added: it is assumed, or the package that asks is itself the answer.
pub(super) fn holds_already(
    universe: &Universe<'_>,
    assumed: &BTreeSet<&str>,
    asking: &Record<'_>,
    alternatives: &Alternatives<'_>,
) -> bool {
    let there = |name: &str| name == asking.name || assumed.contains(name);
    alternatives.iter().any(|relation| {
        assumed.contains(relation.name) || universe.matches_of(relation).iter().any(|found| there(found.name))
    })
}

impl<'u, 'a> Provider<'u, 'a> {
    pub(super) fn new(universe: &'u Universe<'a>, assumed: &'u BTreeSet<&'u str>) -> Self {
        Self { universe, assumed, known: RefCell::default() }
    }

    /// The requirement of a recipe's request.
    pub(super) fn requested(&self, request: &PackageRequest) -> ConditionalRequirement {
        let allowed = self.universe.requested(request);
        let text = match (&request.suite, &request.version) {
            (Some(suite), _) => format!("in {suite}"),
            (None, Some(version)) => format!("= {version}"),
            (None, None) => "*".to_owned(),
        };
        let set = self.known.borrow_mut().set(&request.name, allowed, text);
        ConditionalRequirement { condition: None, requirement: set.into() }
    }

    /// The requirement of a package that was found to be the only good answer to a relation.
    pub(super) fn insisted(&self, wanted: &Match<'_>) -> ConditionalRequirement {
        let set = self.known.borrow_mut().set(wanted.name, wanted.ids.clone(), "*".to_owned());
        ConditionalRequirement { condition: None, requirement: set.into() }
    }

    fn requirement(&self, alternatives: &Alternatives<'_>) -> Requirement {
        let mut known = self.known.borrow_mut();
        let mut seen = BTreeSet::new();
        let mut sets = Vec::new();
        for relation in alternatives {
            let asked = relation.version.map_or("*".to_owned(), |(operator, version)| format!("{operator} {version}"));
            for found in self.universe.matches_of(relation) {
                let fresh: Vec<Id> = found.ids.iter().copied().filter(|id| seen.insert(*id)).collect();
                let text = if found.real { asked.clone() } else { format!("providing {relation}") };
                if !fresh.is_empty() {
                    sets.push(known.set(found.name, fresh, text));
                }
            }
        }
        match (sets.as_slice(), alternatives.first()) {
            ([], Some(relation)) => {
                let text =
                    relation.version.map_or("*".to_owned(), |(operator, version)| format!("{operator} {version}"));
                known.set(relation.name, Vec::new(), text).into()
            }
            ([only], _) => (*only).into(),
            _ => known.union(sets).into(),
        }
    }

    fn relations(&self, record: &Record<'_>) -> Result<KnownDependencies, RelationError> {
        let mut known = KnownDependencies::default();
        for alternatives in dependencies(record)? {
            if !holds_already(self.universe, self.assumed, record, &alternatives) {
                let requirement = self.requirement(&alternatives);
                known.requirements.push(ConditionalRequirement { condition: None, requirement });
            }
        }
        for field in [record.conflicts, record.breaks] {
            for relation in parse(field)?.into_iter().flatten() {
                for found in self.universe.matches_of(&relation) {
                    // A package never conflicts with itself, whatever it provides (Debian Policy 7.4).
                    if found.name == record.name || self.assumed.contains(found.name) {
                        continue;
                    }
                    let all = self.universe.named(found.name).iter().copied();
                    let allowed = all.filter(|id| !found.ids.contains(id)).collect();
                    let text = format!("not {relation}");
                    known.constrains.push(self.known.borrow_mut().set(found.name, allowed, text));
                }
            }
        }
        Ok(known)
    }
}

impl Known {
    fn name(&mut self, name: &str) -> NameId {
        if let Some(id) = self.name_ids.get(name) {
            return *id;
        }
        let id = NameId::from_index(self.names.len());
        self.names.push(name.to_owned());
        self.name_ids.insert(name.to_owned(), id);
        id
    }

    fn set(&mut self, name: &str, allowed: Vec<Id>, text: String) -> VersionSetId {
        let name = self.name(name);
        let next = VersionSetId::from_index(self.sets.len());
        *self.set_ids.entry((name, allowed)).or_insert_with_key(|(name, allowed)| {
            self.sets.push(VersionSet { name: *name, allowed: allowed.clone(), text });
            next
        })
    }

    fn union(&mut self, sets: Vec<VersionSetId>) -> VersionSetUnionId {
        let next = VersionSetUnionId::from_index(self.unions.len());
        *self.union_ids.entry(sets).or_insert_with_key(|sets| {
            self.unions.push(sets.clone());
            next
        })
    }
}

impl Interner for Provider<'_, '_> {
    type NameId = NameId;
    type SolvableId = SolvableId;

    fn display_solvable(&self, solvable: SolvableId) -> impl Display + '_ {
        let entry = self.universe.entry(id_of(solvable));
        format!("{} {} ({})", entry.record.name, entry.record.version, entry.suite)
    }

    fn display_merged_solvables(&self, solvables: &[SolvableId]) -> impl Display + '_ {
        let all: Vec<String> = solvables.iter().map(|one| self.display_solvable(*one).to_string()).collect();
        all.join(" | ")
    }

    fn display_name(&self, name: NameId) -> impl Display + '_ {
        self.known.borrow().names[name.to_index()].clone()
    }

    fn display_version_set(&self, set: VersionSetId) -> impl Display + '_ {
        self.known.borrow().sets[set.to_index()].text.clone()
    }

    fn display_string(&self, text: StringId) -> impl Display + '_ {
        self.known.borrow().texts[text.to_index()].clone()
    }

    fn version_set_name(&self, set: VersionSetId) -> NameId {
        self.known.borrow().sets[set.to_index()].name
    }

    fn solvable_name(&self, solvable: SolvableId) -> NameId {
        self.known.borrow_mut().name(self.universe.entry(id_of(solvable)).record.name)
    }

    fn version_sets_in_union(&self, union: VersionSetUnionId) -> impl Iterator<Item = VersionSetId> {
        self.known.borrow().unions[union.to_index()].clone().into_iter()
    }

    fn resolve_condition(&self, _: ConditionId) -> Condition {
        unreachable!("no requirement of ours has a condition")
    }
}

impl DependencyProvider for Provider<'_, '_> {
    async fn filter_candidates(&self, candidates: &[SolvableId], set: VersionSetId, inverse: bool) -> Vec<SolvableId> {
        let known = self.known.borrow();
        let allowed = &known.sets[set.to_index()].allowed;
        candidates.iter().copied().filter(|one| allowed.contains(&id_of(*one)) != inverse).collect()
    }

    async fn get_candidates(&self, name: NameId) -> Option<Candidates> {
        let name = self.known.borrow().names[name.to_index()].clone();
        let ids = if self.assumed.contains(name.as_str()) { &[] } else { self.universe.named(&name) };
        let candidates: Vec<SolvableId> = ids.iter().copied().map(solvable).collect();
        (!candidates.is_empty()).then(|| Candidates { candidates, ..Candidates::default() })
    }

    async fn sort_candidates(&self, _: &SolverCache<Self>, solvables: &mut [SolvableId]) {
        solvables.sort_by(|a, b| self.universe.order(id_of(*a), id_of(*b)));
    }

    async fn get_dependencies(&self, solvable: SolvableId) -> Dependencies {
        match self.relations(&self.universe.entry(id_of(solvable)).record) {
            Ok(known) => Dependencies::Known(known),
            Err(error) => {
                let mut known = self.known.borrow_mut();
                known.texts.push(error.to_string());
                Dependencies::Unknown(StringId::from_index(known.texts.len() - 1))
            }
        }
    }
}
