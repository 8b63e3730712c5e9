//! Why packages cannot be brought together, told as a person would: the name that nothing satisfies, who asks what of it and
//! through whom, and what rules out each version that there is.
//!
//! The solver only answers yes or no. The requests are cut down to those that clash, and the name is the deepest one whose
//! absence from the rules would make them go together.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write as _;

use spec::recipe::PackageRequest;

use super::provider::{dependencies, holds_already};
use crate::relation::{Alternatives, Relation, parse};
use crate::universe::{Id, Universe};

/// More packages than this are not looked at, nor more names tried: an explanation is not worth minutes.
const MAX_PACKAGES: usize = 3000;
const MAX_NAMES: usize = 300;
/// More claims than this are not shown.
const MAX_CLAIMS: usize = 8;

/// Whether requests go together where some names are assumed to be there.
pub(super) trait Solvable: Fn(&[PackageRequest], &BTreeSet<&str>) -> bool {}
impl<F: Fn(&[PackageRequest], &BTreeSet<&str>) -> bool> Solvable for F {}

/// The account, and the pin of the recipe that is part of it, if one is.
pub(super) fn explain(
    universe: &Universe<'_>,
    requests: &[PackageRequest],
    assumed: &BTreeSet<&str>,
    solvable: impl Solvable,
) -> (String, Option<String>) {
    let requests = clashing(requests, assumed, &solvable);
    let walk = Walk::new(universe, &requests, assumed);
    let name = walk.deepest(assumed, &solvable).or_else(|| walk.contested());
    let Some(name) = name else {
        let names: Vec<String> = requests.iter().map(|request| format!("\"{request}\"")).collect();
        return (format!("{} do not go together", names.join(", ")), None);
    };
    let pin =
        requests.iter().find(|request| request.name == name && (request.suite.is_some() || request.version.is_some()));
    (walk.account(&name), pin.map(ToString::to_string))
}

/// As few of the requests as do not go together either.
fn clashing(requests: &[PackageRequest], assumed: &BTreeSet<&str>, solvable: &impl Solvable) -> Vec<PackageRequest> {
    let mut left = requests.to_vec();
    let mut chunk = left.len().div_ceil(2);
    while chunk > 0 {
        let mut start = 0;
        while start < left.len() {
            let mut fewer = left.clone();
            fewer.drain(start..(start + chunk).min(left.len()));
            if fewer.is_empty() || solvable(&fewer, assumed) {
                start += chunk;
            } else {
                left = fewer;
            }
        }
        chunk = if chunk == 1 { 0 } else { chunk.div_ceil(2) };
    }
    left
}

/// How a package comes into play.
enum Step {
    /// By a request.
    Asked(String),
    /// Because another one needs it.
    Needed(Id),
}

/// Something that is said of a name: which of its packages it allows.
struct Claim {
    /// The claim, then through whom it comes, a line each.
    lines: Vec<String>,
    /// In a few words, for what it rules out.
    short: String,
    allowed: BTreeSet<Id>,
}

/// What the requests can lead to.
struct Walk<'u, 'a> {
    universe: &'u Universe<'a>,
    requests: &'u [PackageRequest],
    assumed: &'u BTreeSet<&'u str>,
    reached: BTreeMap<Id, Step>,
    /// Reached packages, nearest first.
    order: Vec<Id>,
    /// Names that something needs, nearest first.
    names: Vec<String>,
}

impl<'u, 'a> Walk<'u, 'a> {
    fn new(universe: &'u Universe<'a>, requests: &'u [PackageRequest], assumed: &'u BTreeSet<&'u str>) -> Self {
        let mut walk =
            Self { universe, requests, assumed, reached: BTreeMap::new(), order: Vec::new(), names: Vec::new() };
        let mut open = VecDeque::new();
        for request in requests {
            for id in universe.requested(request) {
                walk.reached.entry(id).or_insert_with(|| Step::Asked(request.to_string()));
                open.push_back(id);
            }
        }
        let mut named = BTreeSet::new();
        while let Some(id) = open.pop_front().filter(|_| walk.order.len() < MAX_PACKAGES) {
            walk.order.push(id);
            for alternatives in walk.needs(id) {
                let matches =
                    alternatives.iter().flat_map(|relation| universe.matches_of(relation)).collect::<Vec<_>>();
                let names = alternatives.iter().map(|one| one.name).chain(matches.iter().map(|found| found.name));
                walk.names.extend(names.filter(|name| named.insert(*name)).map(str::to_owned));
                for needed in matches.into_iter().flat_map(|found| found.ids) {
                    walk.reached.entry(needed).or_insert_with(|| {
                        open.push_back(needed);
                        Step::Needed(id)
                    });
                }
            }
        }
        walk
    }

    /// What a package needs and does not have already.
    fn needs(&self, id: Id) -> Vec<Alternatives<'a>> {
        let record = &self.universe.entry(id).record;
        let all = dependencies(record).unwrap_or_default();
        all.into_iter().filter(|one| !holds_already(self.universe, self.assumed, record, one)).collect()
    }

    fn is_requested(&self, name: &str) -> bool {
        self.requests.iter().any(|request| request.name == name)
    }

    /// The name without which everything would go together: if there are several, one whose versions are all ruled out by
    /// what is said of it, then the deepest.
    fn deepest(&self, assumed: &BTreeSet<&str>, solvable: &impl Solvable) -> Option<String> {
        let names = self.names.iter().take(MAX_NAMES).rev().filter(|name| !self.is_requested(name));
        let names = names.filter(|name| {
            let mut more = assumed.clone();
            more.insert(name);
            solvable(self.requests, &more)
        });
        let rank = |name: &&String| {
            let (there, claims) = (self.universe.named(name), self.claims(name));
            let ruled_out = there.iter().all(|id| claims.iter().any(|claim| !claim.allowed.contains(id)));
            (!ruled_out, there.is_empty())
        };
        names.min_by_key(rank).cloned()
    }

    /// The requested name of which most is said.
    fn contested(&self) -> Option<String> {
        let names = self.requests.iter().map(|request| (self.claims(&request.name).len(), &request.name));
        names.filter(|(claims, _)| *claims > 1).max_by_key(|(claims, _)| *claims).map(|(_, name)| name.clone())
    }

    /// All that is said of a name.
    fn claims(&self, name: &str) -> Vec<Claim> {
        let requested = self.requests.iter().filter(|request| request.name == name).map(|request| Claim {
            lines: vec![format!("\"{request}\" is asked for in packages.add")],
            short: format!("not what \"{request}\" asks for"),
            allowed: self.universe.requested(request).into_iter().collect(),
        });
        let mut claims: Vec<Claim> = requested.collect();
        for id in &self.order {
            let record = &self.universe.entry(*id).record;
            claims.extend(self.needs(*id).iter().filter_map(|alternatives| self.need(name, *id, alternatives)));
            for (verb, field) in [("conflicts with", record.conflicts), ("breaks", record.breaks)] {
                let relations = parse(field).unwrap_or_default().into_iter().flatten();
                claims.extend(relations.filter_map(|relation| self.conflict(name, *id, verb, &relation)));
            }
        }
        claims
    }

    fn need(&self, name: &str, by: Id, alternatives: &Alternatives<'_>) -> Option<Claim> {
        let matches: Vec<_> = alternatives.iter().flat_map(|relation| self.universe.matches_of(relation)).collect();
        let is_about =
            alternatives.iter().any(|one| one.name == name) || matches.iter().any(|found| found.name == name);
        // With another way out, nothing is asked of this name.
        if !is_about || matches.iter().any(|found| found.name != name && !found.ids.is_empty()) {
            return None;
        }
        let relation = alternatives.iter().map(ToString::to_string).collect::<Vec<_>>().join(" | ");
        let mut lines = vec![format!("{} needs {relation}", self.title(by))];
        lines.extend(self.chain(by));
        let short = format!("not {relation}, which {} needs", self.title(by));
        Some(Claim { lines, short, allowed: matches.into_iter().flat_map(|found| found.ids).collect() })
    }

    fn conflict(&self, name: &str, by: Id, verb: &str, relation: &Relation<'_>) -> Option<Claim> {
        if self.universe.entry(by).record.name == name {
            return None;
        }
        let matches = self.universe.matches_of(relation);
        let refused = &matches.iter().find(|found| found.name == name)?.ids;
        let mut lines = vec![format!("{} {verb} {relation}", self.title(by))];
        lines.extend(self.chain(by));
        let short = format!("{} {verb} it", self.title(by));
        let allowed = self.universe.named(name).iter().copied().filter(|id| !refused.contains(id)).collect();
        Some(Claim { lines, short, allowed })
    }

    /// Through whom a package comes into play, nearest first.
    fn chain(&self, from: Id) -> Vec<String> {
        let mut lines = Vec::new();
        let mut id = from;
        loop {
            match self.reached.get(&id) {
                Some(Step::Needed(by)) => {
                    lines.push(format!("... needed by {}", self.title(*by)));
                    id = *by;
                }
                Some(Step::Asked(request)) => {
                    lines.push(format!("... asked for as \"{request}\" in packages.add"));
                    return lines;
                }
                None => return lines,
            }
        }
    }

    fn title(&self, id: Id) -> String {
        let entry = self.universe.entry(id);
        format!("{} {} in {}", entry.record.name, entry.record.version, entry.suite)
    }

    /// Everything about a name, as lines.
    fn account(&self, name: &str) -> String {
        let claims = self.claims(name);
        let mut text = format!("nothing satisfies all that is asked of \"{name}\":");
        for claim in claims.iter().take(MAX_CLAIMS) {
            for (depth, line) in claim.lines.iter().enumerate() {
                let _ = write!(text, "\n  {:depth$}{line}", "", depth = 2 * depth);
            }
        }
        if claims.len() > MAX_CLAIMS {
            let _ = write!(text, "\n  and {} more", claims.len() - MAX_CLAIMS);
        }
        let there = self.universe.named(name);
        text +=
            if there.is_empty() { "\nthere is no package of that name in the recipe's suites" } else { "\nthere is:" };
        for (id, version) in self.universe.provisions(name) {
            let version = version.map_or("without a version".to_owned(), |version| format!("as version {version}"));
            let _ = write!(text, "\n  {}: provides it {version}", self.title(id));
        }
        for id in there {
            let excluded = claims.iter().find(|claim| !claim.allowed.contains(id)).map(|claim| claim.short.as_str());
            let reason = excluded.unwrap_or("what it needs itself is not to be had");
            let _ = write!(text, "\n  {}: {reason}", self.title(*id));
        }
        text
    }
}
