//! All packages of all suites of a recipe, found by name and by what they provide, in the order in which they are tried:
//! the suite with the lower preference number first, then the higher version.

use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, BTreeSet, HashMap};

use spec::Sha256Digest;
use spec::recipe::PackageRequest;

use crate::index::Record;
use crate::relation::{self, Relation};
use crate::version;

/// A package of the universe.
pub(crate) type Id = u32;

/// A suite with its packages.
pub(crate) struct SuitePackages<'a> {
    pub suite: &'a str,
    pub preference: u32,
    pub records: Vec<Record<'a>>,
}

/// A package in a suite.
pub(crate) struct Entry<'a> {
    pub suite: &'a str,
    pub preference: u32,
    pub record: Record<'a>,
    /// Tried before all others of its name.
    pub held: bool,
}

/// The packages of one name that satisfy a relation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Match<'a> {
    pub name: &'a str,
    /// In the order in which they are tried.
    pub ids: Vec<Id>,
    /// Whether it is the name that the relation asks for, not something that provides it.
    pub real: bool,
}

/// Everything there is.
pub(crate) struct Universe<'a> {
    pub architecture: &'a str,
    entries: Vec<Entry<'a>>,
    by_name: HashMap<&'a str, Vec<Id>>,
    /// By what is provided: who provides it, in which version.
    providers: HashMap<&'a str, Vec<(Id, Option<&'a str>)>>,
}

impl<'a> Universe<'a> {
    /// Brings suites together. What a package provides is passed over where it cannot be read.
    /// Those with a digest of `held` are tried before all others of their name.
    pub(crate) fn new(architecture: &'a str, suites: Vec<SuitePackages<'a>>, held: &BTreeSet<Sha256Digest>) -> Self {
        let mut universe =
            Self { architecture, entries: Vec::new(), by_name: HashMap::new(), providers: HashMap::new() };
        for SuitePackages { suite, preference, records } in suites {
            for record in records {
                let held = held.contains(&record.sha256);
                universe.add(Entry { suite, preference, record, held });
            }
        }
        let Self { entries, by_name, .. } = &mut universe;
        for ids in by_name.values_mut() {
            ids.sort_by(|a, b| order(entries, *a, *b));
        }
        universe
    }

    fn add(&mut self, entry: Entry<'a>) {
        let id = Id::try_from(self.entries.len()).unwrap_or(Id::MAX);
        self.by_name.entry(entry.record.name).or_default().push(id);
        for provided in relation::parse(entry.record.provides).unwrap_or_default().into_iter().flatten() {
            let version = provided.version.map(|(_, version)| version);
            self.providers.entry(provided.name).or_default().push((id, version));
        }
        self.entries.push(entry);
    }

    /// The names of the packages that provide `name`, sorted.
    pub(crate) fn providers_of(&self, name: &str) -> Vec<&'a str> {
        let providers = self.providers.get(name).map_or(&[][..], Vec::as_slice);
        let names: BTreeSet<&'a str> = providers.iter().map(|(id, _)| self.entry(*id).record.name).collect();
        names.into_iter().collect()
    }

    /// The packages that provide `name`, with the version in which they do.
    pub(crate) fn provisions(&self, name: &str) -> impl Iterator<Item = (Id, Option<&'a str>)> {
        self.providers.get(name).into_iter().flatten().copied()
    }

    /// The package with this id, which must be one that the universe gave out.
    pub(crate) fn entry(&self, id: Id) -> &Entry<'a> {
        &self.entries[id as usize]
    }

    /// All packages of a name, in the order in which they are tried.
    pub(crate) fn named(&self, name: &str) -> &[Id] {
        self.by_name.get(name).map_or(&[], Vec::as_slice)
    }

    /// All names.
    pub(crate) fn names(&self) -> impl Iterator<Item = &'a str> {
        self.by_name.keys().copied()
    }

    /// The packages that a request means, in the order in which they are tried.
    pub(crate) fn requested(&self, request: &PackageRequest) -> Vec<Id> {
        let meant = |id: &Id| {
            let entry = self.entry(*id);
            request.suite.as_deref().is_none_or(|suite| suite == entry.suite)
                && request.version.as_deref().is_none_or(|version| version == entry.record.version)
        };
        self.named(&request.name).iter().copied().filter(meant).collect()
    }

    /// Which of two packages of one name is tried first.
    pub(crate) fn order(&self, a: Id, b: Id) -> Ordering {
        order(&self.entries, a, b)
    }

    /// What satisfies a relation: the real packages of that name first, then those that provide it, by name.
    pub(crate) fn matches_of(&self, relation: &Relation<'_>) -> Vec<Match<'a>> {
        if !relation.is_for(self.architecture) {
            return Vec::new();
        }
        let meant = |id: &Id| relation.architecture != Some("any") || self.entry(*id).record.for_any;
        let accepted = |id: &Id| meant(id) && relation.accepts(self.entry(*id).record.version);
        let ids: Vec<Id> = self.named(relation.name).iter().copied().filter(accepted).collect();
        let real = ids.first().map(|id| self.entry(*id).record.name);
        let real = real.map(|name| Match { name, ids, real: true });
        let mut virtuals: BTreeMap<&'a str, Vec<Id>> = BTreeMap::new();
        for (id, version) in self.providers.get(relation.name).map_or(&[][..], Vec::as_slice) {
            let name = self.entry(*id).record.name;
            if name != relation.name && meant(id) && relation.accepts_provided(*version) {
                virtuals.entry(name).or_default().push(*id);
            }
        }
        let virtuals = virtuals.into_iter().map(|(name, mut ids)| {
            ids.sort_by(|a, b| order(&self.entries, *a, *b));
            ids.dedup();
            Match { name, ids, real: false }
        });
        real.into_iter().chain(virtuals).collect()
    }
}

/// The order in which two packages of one name are tried. The id decides last, so that there is always one order.
fn order(entries: &[Entry<'_>], a: Id, b: Id) -> Ordering {
    let (first, second) = (&entries[a as usize], &entries[b as usize]);
    second
        .held
        .cmp(&first.held)
        .then_with(|| first.preference.cmp(&second.preference))
        .then_with(|| version::compare(second.record.version, first.record.version))
        .then_with(|| (Reverse(first.suite), a).cmp(&(Reverse(second.suite), b)))
}
