//! From what a recipe asks for to the packages that hold it together: dependencies, alternatives, virtual packages,
//! conflicts. Essential packages are not added by themselves, and `Recommends` never.
//!
//! `provider` puts Debian's rules to the solver resolvo, `explain` tells why there is no answer; `closure` keeps of its answer what is really needed and refuses
//! to choose where the recipe's author has to.

mod closure;
mod explain;
mod provider;

use std::collections::{BTreeMap, BTreeSet};

use resolvo::{Problem, Solver};
use spec::recipe::PackageRequest;
use spec::{Diagnostic, Outcome};

use crate::universe::{Id, Match, Universe};
use provider::Provider;

/// A set of packages that cannot be found.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// A request names nothing that there is.
    #[error("there is no package \"{request}\"{}", listed(available))]
    Unknown {
        /// The request as written.
        request: String,
        /// What there is under that name: `VERSION in SUITE`.
        available: Vec<String>,
        /// A name that is like it.
        similar: Option<String>,
    },
    /// A package is asked for and at the same time said to be there already.
    #[error("package \"{0}\" is asked for in packages.add and assumed to be there in packages.assume")]
    Assumed(String),
    /// The recipe chooses a package for something that it does not provide.
    #[error("packages.choose takes \"{chosen}\" for \"{name}\", which is provided by {}", if providers.is_empty() { "no package".to_owned() } else { providers.join(", ") })]
    NoProvider {
        /// What is to be provided.
        name: String,
        /// The package.
        chosen: String,
        /// Who does provide it.
        providers: Vec<String>,
    },
    /// No set of packages satisfies all relations.
    #[error("the packages cannot be brought together:\n{explanation}")]
    Unsatisfiable {
        /// What stands in the way.
        explanation: String,
        /// The request of the recipe that is in the way and names a suite or a version, if one is.
        pin: Option<String>,
    },
    /// Something needs a virtual package that several packages provide.
    #[error("the recipe must say which of several packages to take: {}", choices.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Ambiguous {
        /// What is to be chosen.
        choices: Vec<Choice>,
    },
}

/// A virtual package with several providers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The package that needs it.
    pub needed_by: String,
    /// The relation.
    pub relation: String,
    /// Who provides it.
    pub providers: Vec<String>,
}

impl std::fmt::Display for Choice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} needs {}, which is provided by {}", self.needed_by, self.relation, self.providers.join(", "))
    }
}

fn listed(available: &[String]) -> String {
    if available.is_empty() { String::new() } else { format!("; there is {}", available.join(", ")) }
}

impl Diagnostic for ResolveError {
    fn outcome(&self) -> Outcome {
        match self {
            Self::Unknown { .. } | Self::Assumed(_) | Self::NoProvider { .. } | Self::Ambiguous { .. } => {
                Outcome::Usage
            }
            Self::Unsatisfiable { .. } => Outcome::InputMismatch,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Unknown { similar, .. } => similar.as_ref().map(|name| format!("did you mean \"{name}\"?")),
            Self::Assumed(_) => None,
            Self::NoProvider { providers, .. } => {
                (!providers.is_empty()).then(|| "name one of them in packages.choose".to_owned())
            }
            Self::Unsatisfiable { pin: Some(pin), .. } => Some(format!(
                "ask for it without the suite or version that \"{pin}\" names, or for packages that go with that one"
            )),
            Self::Unsatisfiable { .. } => Some(
                "pin packages to a suite with NAME/SUITE, add a suite that has the versions, or name what is not needed in packages.assume".to_owned(),
            ),
            Self::Ambiguous { .. } => {
                Some("say which in [packages.choose], add one of them to packages.add, or name the virtual package in packages.assume if nothing needs it".to_owned())
            }
        }
    }
}

/// The one package that a request means when nothing else is considered.
pub(crate) fn pick(universe: &Universe<'_>, request: &PackageRequest) -> Result<Id, ResolveError> {
    universe.requested(request).first().copied().ok_or_else(|| unknown(universe, request))
}

/// The packages that the requests need together, themselves included, by id in no particular order.
pub(crate) fn with_dependencies(
    universe: &Universe<'_>,
    requests: &[PackageRequest],
    assume: &[String],
    choose: &BTreeMap<String, String>,
) -> Result<Vec<Id>, ResolveError> {
    check_choices(universe, choose)?;
    let assumed: BTreeSet<&str> = assume.iter().map(String::as_str).collect();
    for request in requests {
        pick(universe, request)?;
        if assumed.contains(request.name.as_str()) {
            return Err(ResolveError::Assumed(request.name.clone()));
        }
    }
    let mut insisted = Vec::new();
    let mut unanswered: Vec<Choice> = Vec::new();
    loop {
        let chosen = match solve(universe, requests, &insisted, &assumed) {
            Some(chosen) => chosen,
            // What was insisted on does not go: the question is open.
            None if !unanswered.is_empty() => return Err(ResolveError::Ambiguous { choices: unanswered }),
            None => {
                let solvable = |requests: &[PackageRequest], assumed: &BTreeSet<&str>| {
                    solve(universe, requests, &[], assumed).is_some()
                };
                let (explanation, pin) = explain::explain(universe, requests, &assumed, solvable);
                return Err(ResolveError::Unsatisfiable { explanation, pin });
            }
        };
        let roots = requests.iter().filter_map(|request| chosen.get(request.name.as_str()).copied()).collect();
        let open = match closure::needed(universe, roots, &chosen, &assumed, choose) {
            Ok(needed) => return Ok(needed),
            Err(open) => open,
        };
        // Where a real package is among the alternatives ("mail-b | mail-server"), that is the answer, if it goes.
        let real: Vec<Match<'_>> = open.iter().filter_map(|one| one.real.clone()).collect();
        let fresh: Vec<Match<'_>> = real.into_iter().filter(|one| !insisted.contains(one)).collect();
        let choices = open.into_iter().map(|one| one.choice).collect();
        if fresh.is_empty() {
            return Err(ResolveError::Ambiguous { choices });
        }
        insisted.extend(fresh);
        unanswered = choices;
    }
}

/// A choice that names no provider would be passed over in silence.
fn check_choices(universe: &Universe<'_>, choose: &BTreeMap<String, String>) -> Result<(), ResolveError> {
    for (name, chosen) in choose {
        let providers = universe.providers_of(name);
        if !providers.contains(&chosen.as_str()) {
            let providers = providers.into_iter().map(str::to_owned).collect();
            return Err(ResolveError::NoProvider { name: name.clone(), chosen: chosen.clone(), providers });
        }
    }
    Ok(())
}

/// Asks the solver: one package for each name; `None` where there is no answer.
fn solve<'a>(
    universe: &Universe<'a>,
    requests: &[PackageRequest],
    insisted: &[Match<'_>],
    assumed: &BTreeSet<&str>,
) -> Option<BTreeMap<&'a str, Id>> {
    let provider = Provider::new(universe, assumed);
    let requested = requests.iter().map(|request| provider.requested(request));
    let requirements = requested.chain(insisted.iter().map(|one| provider.insisted(one))).collect();
    let mut solver = Solver::new(provider);
    // It is broken off only by a provider that cancels, and ours never does.
    let solution = solver.solve(Problem::new().requirements(requirements)).ok()?;
    Some(solution.into_iter().map(provider::id_of).map(|id| (universe.entry(id).record.name, id)).collect())
}

fn unknown(universe: &Universe<'_>, request: &PackageRequest) -> ResolveError {
    let available: Vec<String> = universe
        .named(&request.name)
        .iter()
        .map(|id| universe.entry(*id))
        .map(|entry| format!("{} in {}", entry.record.version, entry.suite))
        .collect();
    let similar = if available.is_empty() { similar_name(universe, &request.name) } else { None };
    ResolveError::Unknown { request: request.to_string(), available, similar }
}

/// A name of the universe that is one edit, or one transposition, from `name`.
fn similar_name(universe: &Universe<'_>, name: &str) -> Option<String> {
    universe.names().filter(|other| is_one_slip_away(name, other)).min().map(str::to_owned)
}

/// Whether a slip of the keyboard makes one text of the other: what is left between the common beginning and the common
/// end is at most one character on each side, or two that are swapped.
fn is_one_slip_away(a: &str, b: &str) -> bool {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let start = a.iter().zip(b).take_while(|(x, y)| x == y).count();
    let (a, b) = (&a[start..], &b[start..]);
    let end = a.iter().rev().zip(b.iter().rev()).take_while(|(x, y)| x == y).count();
    let (a, b) = (&a[..a.len() - end], &b[..b.len() - end]);
    (a.len() <= 1 && b.len() <= 1) || (a.len() == 2 && b.len() == 2 && a[0] == b[1] && a[1] == b[0])
}
