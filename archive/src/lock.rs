//! `bullion lock`: from a recipe to every package by SHA-256, along a chain of proof that starts at Debian's keyring:
//! signature, release file, index, package.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use spec::lock::{Lock, Package, Release, Standing, Use};
use spec::recipe::{PackageRequest, Recipe};
use spec::{Diagnostic, Outcome};
use store::Store;

use crate::apt_sources::is_security;
use crate::index::{self, IndexError};
use crate::kernel::{self, KernelError};
use crate::keyring::{DEFAULT_KEYRING, Keyring, KeyringError};
use crate::mirror::Mirror;
use crate::progress::Progress;
use crate::release::{self, ReleaseError};
use crate::resolve::{self, ResolveError};
use crate::universe::{Id, SuitePackages, Universe};

/// What the caller decides about making a lock.
#[derive(Clone, Debug)]
pub struct Options {
    /// The time, in seconds since 1970, against which `Valid-Until` and signatures are checked.
    pub now: u64,
    /// The keyring of all suites; else the one that apt's configuration names for their archive, else Debian's.
    pub keyring: Option<PathBuf>,
    /// Suites of the recipe whose release file may be past its `Valid-Until`, or signed by keys that have run out since.
    pub accept_expired: BTreeSet<String>,
    /// What the lock will say about itself.
    pub standing: Standing,
    /// Packages of an earlier lock that stay as they are unless what is new needs another version of them.
    pub held: Vec<Held>,
}

/// A package of an earlier lock.
#[derive(Clone, Debug)]
pub struct Held {
    /// The package.
    pub package: Package,
    /// Its control file, which says what it needs; the archive may not have that version any more.
    pub control: String,
}

/// A lock that cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// `Options::accept_expired` names suites that the recipe does not have.
    #[error(
        "--accept-expired names \"{}\", the recipe \"{recipe}\" has the suites {}",
        unknown.join("\", \""),
        known.join(", ")
    )]
    UnknownSuites {
        /// The recipe.
        recipe: String,
        /// What it does not have.
        unknown: Vec<String>,
        /// What it has.
        known: Vec<String>,
    },
    /// The keyring.
    #[error(transparent)]
    Keyring(#[from] KeyringError),
    /// A release file.
    #[error(transparent)]
    Release(#[from] ReleaseError),
    /// A package index.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// The packages of the tree, or a firmware package.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// The kernel.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// One package is wanted in two versions for two uses.
    #[error("package {name} would be locked as {first} and as {second}")]
    TwoVersions {
        /// The package.
        name: String,
        /// `VERSION in SUITE` of one.
        first: String,
        /// And of the other.
        second: String,
    },
}

impl Diagnostic for LockError {
    fn outcome(&self) -> Outcome {
        match self {
            Self::Keyring(error) => error.outcome(),
            Self::Release(error) => error.outcome(),
            Self::Index(error) => error.outcome(),
            Self::Resolve(error) => error.outcome(),
            Self::Kernel(error) => error.outcome(),
            Self::UnknownSuites { .. } | Self::TwoVersions { .. } => Outcome::Usage,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::UnknownSuites { known, .. } => Some(format!("name one of {}", known.join(", "))),
            Self::Keyring(error) => error.hint(),
            Self::Release(error) => error.hint(),
            Self::Index(error) => error.hint(),
            Self::Resolve(error) => error.hint(),
            Self::Kernel(error) => error.hint(),
            Self::TwoVersions { name, .. } => Some(format!("pin both to one suite: {name}/SUITE")),
        }
    }
}

/// Makes a lock for a recipe from what the mirror has now. Indexes are kept in the store, so that a second lock from the
/// same release files is quick; packages are not fetched.
pub fn resolve(
    recipe: &Recipe,
    mirror: &Mirror,
    store: &Store,
    options: &Options,
    progress: &dyn Progress,
) -> Result<Lock, LockError> {
    check_accepted(recipe, options)?;
    let source = Source { mirror, store, options, progress };
    // Most of the time goes into waiting for the mirror and unpacking the indexes: all suites at once.
    let read: Vec<Result<_, LockError>> = std::thread::scope(|scope| {
        let suites = recipe.suites.iter();
        let readers: Vec<_> = suites
            .map(|(suite, wanted)| scope.spawn(|| source.suite(suite, &wanted.components, &recipe.architecture)))
            .collect();
        readers.into_iter().map(|one| one.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
    });
    let mut release = Vec::new();
    let mut texts = Vec::new();
    for (suite, read) in recipe.suites.keys().zip(read) {
        let (record, of_suite) = read?;
        release.push(record);
        texts.extend(of_suite.into_iter().map(|text| (suite.as_str(), text)));
    }
    let held: Vec<(&str, String)> =
        options.held.iter().map(|held| (held.package.suite.as_str(), paragraph(held))).collect();
    let universe = universe(recipe, &texts, &held, options)?;
    Ok(Lock {
        schema: 1,
        recipe: recipe.name.clone(),
        recipe_sha256: recipe.lock_digest(),
        standing: options.standing,
        release,
        package: choose(recipe, &universe)?,
    })
}

/// A suite that is misspelled must not look as if an exception had been made for it.
fn check_accepted(recipe: &Recipe, options: &Options) -> Result<(), LockError> {
    let unknown: Vec<String> =
        options.accept_expired.iter().filter(|suite| !recipe.suites.contains_key(*suite)).cloned().collect();
    if unknown.is_empty() {
        return Ok(());
    }
    Err(LockError::UnknownSuites {
        recipe: recipe.name.clone(),
        unknown,
        known: recipe.suites.keys().cloned().collect(),
    })
}

/// Where suites are read from, and on what terms.
struct Source<'a> {
    mirror: &'a Mirror,
    store: &'a Store,
    options: &'a Options,
    progress: &'a dyn Progress,
}

impl Source<'_> {
    /// What the lock says about a suite's release file, and the text of its indexes.
    fn suite(
        &self,
        suite: &str,
        components: &[String],
        architecture: &str,
    ) -> Result<(Release, Vec<String>), LockError> {
        let accept_expired = self.options.accept_expired.contains(suite);
        let keyring = self.keyring(suite)?;
        let release = release::fetch(self.mirror, suite, &keyring, self.options.now, accept_expired)?;
        let texts = components
            .iter()
            .map(|component| index::fetch(self.mirror, self.store, &release, component, architecture, self.progress))
            .collect::<Result<_, _>>()?;
        Ok((release.record, texts))
    }

    /// The keys that may sign a suite: those of the main archive do not vouch for the security archive where it has its own, nor
    /// the other way round.
    fn keyring(&self, suite: &str) -> Result<Keyring, KeyringError> {
        let of_security = self.mirror.security_keyring.as_ref().filter(|_| is_security(suite));
        let named = self.options.keyring.as_ref().or(of_security).or(self.mirror.keyring.as_ref());
        Keyring::read(named.map_or(Path::new(DEFAULT_KEYRING), PathBuf::as_path))
    }
}

fn universe<'a>(
    recipe: &'a Recipe,
    texts: &'a [(&'a str, String)],
    held: &'a [(&'a str, String)],
    options: &Options,
) -> Result<Universe<'a>, LockError> {
    let mut suites = Vec::new();
    for (suite, text) in texts.iter().chain(held) {
        let preference = recipe.suites.get(*suite).map_or(0, |suite| suite.preference);
        suites.push(SuitePackages { suite, preference, records: index::parse(text, suite, &recipe.architecture)? });
    }
    let held = options.held.iter().map(|held| held.package.sha256).collect();
    Ok(Universe::new(&recipe.architecture, suites, &held))
}

/// A held package as an index lists packages: its control file, and where the lock says that it is.
fn paragraph(held: &Held) -> String {
    let Package { path, size, sha256, .. } = &held.package;
    format!("{}\nFilename: {path}\nSize: {size}\nSHA256: {sha256}\n\n", held.control.trim_end())
}

/// Every package that the recipe needs, with its uses, sorted by name.
fn choose(recipe: &Recipe, universe: &Universe<'_>) -> Result<Vec<Package>, LockError> {
    let mut chosen: BTreeMap<&str, (Id, BTreeSet<Use>)> = BTreeMap::new();
    let mut add = |id: Id, purpose: Use| {
        let name = universe.entry(id).record.name;
        let (first, uses) = chosen.entry(name).or_insert((id, BTreeSet::new()));
        uses.insert(purpose);
        if universe.entry(*first).record.sha256 == universe.entry(id).record.sha256 {
            return Ok(());
        }
        let text = |id| format!("{} in {}", universe.entry(id).record.version, universe.entry(id).suite);
        Err(LockError::TwoVersions { name: name.to_owned(), first: text(*first), second: text(id) })
    };
    for id in tree(recipe, universe)? {
        add(id, Use::Tree)?;
    }
    if let Some(image) = &recipe.image {
        for id in kernel::packages(universe, &image.kernel)? {
            add(id, Use::Kernel)?;
        }
        for source in [&image.firmware.snp, &image.firmware.tdx].into_iter().flatten() {
            add(resolve::pick(universe, &source.package)?, Use::Firmware)?;
        }
        if let Some(uki) = &image.uki {
            add(resolve::pick(universe, &uki.package)?, Use::Stub)?;
        }
    }
    Ok(chosen.into_values().map(|(id, uses)| locked(universe, id, uses)).collect())
}

fn tree(recipe: &Recipe, universe: &Universe<'_>) -> Result<Vec<Id>, ResolveError> {
    if recipe.dependencies {
        return resolve::with_dependencies(universe, &recipe.packages, &recipe.assume, &recipe.choose);
    }
    recipe.packages.iter().map(|request: &PackageRequest| resolve::pick(universe, request)).collect()
}

fn locked(universe: &Universe<'_>, id: Id, uses: BTreeSet<Use>) -> Package {
    let entry = universe.entry(id);
    Package {
        name: entry.record.name.to_owned(),
        version: entry.record.version.to_owned(),
        architecture: entry.record.architecture.to_owned(),
        suite: entry.suite.to_owned(),
        uses: uses.into_iter().collect(),
        path: entry.record.path.to_owned(),
        size: entry.record.size,
        sha256: entry.record.sha256,
        scripts: Vec::new(),
    }
}
