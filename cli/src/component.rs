//! Components as verbs meet them: found, read, and compiled by starting this program again in a sandbox.

use std::path::{Path, PathBuf};
use std::process::Command;

use image::component::{self, ComponentRequest, Described, Run};
use spec::Outcome;
use spec::component::{Component, NamedInput};
use spec::recipe::Kind;
use store::Store;

use crate::failure::Failure;
use crate::inputs::{self, LoadedLock, LoadedRecipe};
use crate::printer::Printer;

/// A component's recipe and lock.
pub(crate) struct LoadedComponent {
    pub(crate) loaded: LoadedRecipe,
    pub(crate) lock: LoadedLock,
    path: PathBuf,
}

/// Reads the component at `path`.
pub(crate) fn load(path: &Path) -> Result<LoadedComponent, Failure> {
    let loaded = inputs::recipe(path)?;
    if loaded.recipe.kind != Kind::Component {
        let message = format!("{} is not a recipe of kind \"component\"", path.display());
        return Err(Failure::new(Outcome::Usage, message));
    }
    let lock = inputs::lock(&inputs::lock_path(path), path, &loaded.recipe)?;
    Ok(LoadedComponent { loaded, lock, path: path.to_path_buf() })
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

    /// The result, compiled where it is not in the cache.
    pub(crate) fn build(
        &self,
        described: &Described<'_>,
        jobs: usize,
        again_and_compare: bool,
        store: &Store,
        printer: &Printer,
    ) -> Result<Component, Failure> {
        if again_and_compare || described.cached(store).is_none() {
            let name = &self.loaded.recipe.name;
            printer.note(format_args!(
                "compiling the component {name} (a few minutes; once for each change of its inputs)"
            ));
        }
        let say = |line: &str| printer.note(format_args!("  {line}"));
        let run = Run { again: &again, jobs, again_and_compare, say: &say };
        described.build(store, &run).map_err(|error| {
            let failure = Failure::from(error);
            match failure.outcome {
                Outcome::InputMismatch if failure.hint.is_none() => {
                    failure.with_hint(format!("run: bullion fetch {}", self.path.display()))
                }
                _ => failure,
            }
        })
    }
}

/// This program, started so that it takes part in a sandbox.
fn again() -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg("sandbox");
    command
}

/// The crates of a recipe that is a component; none of another.
pub(crate) fn crates(loaded: &LoadedRecipe) -> Result<Vec<NamedInput>, Failure> {
    match loaded.recipe.kind {
        Kind::Component => Ok(component::crates(&loaded.recipe, &loaded.directory)?),
        Kind::Image | Kind::Tree => Ok(Vec::new()),
    }
}
