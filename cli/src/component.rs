//! Components as verbs meet them: found, read, and compiled by starting this program again in a sandbox.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use image::component::{self, ComponentRequest, Described, Run};
use spec::Outcome;
use spec::component::{Component, NamedInput};
use spec::lock::Lock;
use spec::recipe::{Kind, SourceFile};
use store::Store;

use crate::args::Arguments;
use crate::failure::Failure;
use crate::inputs::{self, LoadedLock, LoadedRecipe};
use crate::printer::Printer;

/// A component's recipe and lock.
pub(crate) struct LoadedComponent {
    pub(crate) loaded: LoadedRecipe,
    pub(crate) lock: LoadedLock,
}

/// Reads the component at `path`.
pub(crate) fn load(path: &Path) -> Result<LoadedComponent, Failure> {
    let loaded = inputs::recipe(path)?;
    if loaded.recipe.kind != Kind::Component {
        let message = format!("{} is not a recipe of kind \"component\"", path.display());
        return Err(Failure::new(Outcome::Usage, message));
    }
    let lock = inputs::lock(&inputs::lock_path(path), path, &loaded.recipe)?;
    Ok(LoadedComponent { loaded, lock })
}

impl LoadedComponent {
    /// Reads and hashes everything that goes into it.
    pub(crate) fn describe(&self) -> Result<Described<'_>, Failure> {
        Ok(component::describe(ComponentRequest {
            recipe: &self.loaded.recipe,
            directory: &self.loaded.directory,
            lock: &self.lock.lock,
            lock_text: &self.lock.text,
        })?)
    }

    /// The result, compiled where it is not in the cache, or where the cache is a store that was named: a note in it of what was
    /// compiled could be anybody's.
    pub(crate) fn build(
        &self,
        described: &Described<'_>,
        jobs: usize,
        again_and_compare: bool,
        arguments: &Arguments,
        store: &Store,
        printer: &Printer,
    ) -> Result<Component, Failure> {
        let believe_cache = arguments.cache_dir.is_none();
        if again_and_compare || !believe_cache || described.cached(store).is_none() {
            let name = &self.loaded.recipe.name;
            printer.note(format_args!(
                "compiling the component {name} (a few minutes; once for each change of its inputs)"
            ));
        }
        let say = |line: &str| printer.note(format_args!("  {line}"));
        let run = Run { again: &again, jobs, again_and_compare, believe_cache, say: &say };
        Ok(described.build(store, &run)?)
    }
}

/// Refuses a cache that somebody else than the builder and root can write to: what it says was compiled, and the trees it
/// has unpacked, are believed.
pub(crate) fn check_cache(store: &Store) -> Result<(), Failure> {
    let own = nix::unistd::geteuid().as_raw();
    let root = store.root();
    for path in ["", "blobs", "blobs/sha256", "trees", "verdicts"].map(|part| root.join(part)) {
        let found = std::fs::metadata(&path).map_err(|error| Failure::file("reading", &path, &error))?;
        let message = if found.uid() != own && found.uid() != 0 {
            format!("{} belongs to user {}", path.display(), found.uid())
        } else if found.mode() & 0o022 != 0 {
            format!("{} can be written to by others: mode {:04o}", path.display(), found.mode() & 0o7777)
        } else {
            continue;
        };
        return Err(Failure::new(Outcome::Refused, format!("a release takes nothing from this cache: {message}"))
            .with_hint("set BULLION_CACHE to a new directory, and fetch again"));
    }
    Ok(())
}

/// All that recipes are locked to.
#[derive(Default)]
pub(crate) struct Locked {
    pub(crate) locks: Vec<Lock>,
    /// Of those that are components.
    pub(crate) crates: Vec<NamedInput>,
    /// The published files of those that are components.
    pub(crate) sources: Vec<SourceFile>,
}

impl Locked {
    pub(crate) fn by(recipes: &[PathBuf]) -> Result<Self, Failure> {
        let mut all = Self::default();
        for path in recipes {
            let loaded = inputs::recipe(path)?;
            all.crates.extend(crates(&loaded)?);
            all.sources.extend_from_slice(source_files(&loaded)?);
            all.locks.push(inputs::lock(&inputs::lock_path(path), path, &loaded.recipe)?.lock);
        }
        Ok(all)
    }
}

/// This program, started so that it takes part in a sandbox.
fn again() -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg("sandbox");
    command
}

/// The crates of a recipe that is a component; none of another.
fn crates(loaded: &LoadedRecipe) -> Result<Vec<NamedInput>, Failure> {
    match loaded.recipe.kind {
        Kind::Component => Ok(component::crates(&loaded.recipe, &loaded.directory)?),
        Kind::Image | Kind::Tree => Ok(Vec::new()),
    }
}

/// The published files of a recipe that is a component; none of another.
pub(crate) fn source_files(loaded: &LoadedRecipe) -> Result<&[SourceFile], Failure> {
    match loaded.recipe.kind {
        Kind::Component => Ok(component::source_files(&loaded.recipe)?),
        Kind::Image | Kind::Tree => Ok(&[]),
    }
}
