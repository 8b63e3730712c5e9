//! Compiled components: a script run in a sandbox, in the tree of locked packages that its recipe names, over sources that
//! were hashed before. The result is kept under the key of all inputs, so that it is compiled once for each change.

mod error;
mod results;
mod sources;
mod workspace;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use spec::Sha256Digest;
use spec::component::{Component, ComponentInputs, NamedInput};
use spec::lock::{Lock, Package};
use spec::manifest::Artifact;
use spec::recipe::{ComponentRecipe, Recipe, SourceFile};
use store::Store;

pub use error::ComponentError;
pub use workspace::WorkspaceError;

use crate::sandbox::{self, Plan, SCRIPT};
use crate::unpack::unpack_tree;

/// A component's recipe with its lock.
#[derive(Clone, Copy, Debug)]
pub struct ComponentRequest<'a> {
    /// The flattened recipe, of kind `component`.
    pub recipe: &'a Recipe,
    /// The directory of the recipe file.
    pub directory: &'a Path,
    /// The lock.
    pub lock: &'a Lock,
    /// The lock as it was read.
    pub lock_text: &'a str,
}

/// A component with all that goes into it read and hashed.
#[derive(Debug)]
pub struct Described<'a> {
    request: ComponentRequest<'a>,
    sources: sources::Sources,
    inputs: ComponentInputs,
    key: Sha256Digest,
}

/// How a component is compiled; none of it is a part of the key.
#[derive(Clone, Copy)]
pub struct Run<'a> {
    /// Gives the command that starts this program again so that it calls `sandbox::started_again`.
    pub again: &'a dyn Fn() -> Command,
    /// How many jobs at once.
    pub jobs: usize,
    /// Compile although the result is there, or twice where it is not, and compare.
    pub again_and_compare: bool,
    /// Take the word of the cache for what was compiled before: no, where others may have written to it.
    pub believe_cache: bool,
    /// Gets each line that the script prints.
    pub say: &'a dyn Fn(&str),
}

/// The crates that a component is compiled from: what `fetch` brings into the cache.
pub fn crates(recipe: &Recipe, directory: &Path) -> Result<Vec<NamedInput>, ComponentError> {
    match &component_of(recipe)?.cargo {
        Some(cargo) => Ok(workspace::reduce(&directory.join(&cargo.workspace), &cargo.package)?.crates),
        None => Ok(Vec::new()),
    }
}

/// The published files that a component is compiled from: what `fetch` brings into the cache, too.
pub fn source_files(recipe: &Recipe) -> Result<&[SourceFile], ComponentError> {
    Ok(&component_of(recipe)?.sources)
}

fn component_of(recipe: &Recipe) -> Result<&ComponentRecipe, ComponentError> {
    recipe.component.as_ref().ok_or_else(|| ComponentError::NotAComponent { recipe: recipe.name.clone() })
}

/// Reads and hashes everything that goes into a component.
pub fn describe(request: ComponentRequest<'_>) -> Result<Described<'_>, ComponentError> {
    let component = component_of(request.recipe)?;
    let mut sources = sources::Sources::read(component, request.directory)?;
    let named = |package: &Package| NamedInput {
        name: package.name.clone(),
        version: package.version.clone(),
        sha256: package.sha256,
    };
    let inputs = ComponentInputs {
        name: request.recipe.name.clone(),
        sandbox: sandbox::VERSION,
        script: component.script.clone(),
        outputs: component.outputs.clone(),
        packages: request.lock.package.iter().map(named).collect(),
        crates: sources.crates.clone(),
        sources: component.sources.clone(),
        files: sources.digests(),
    };
    sources.files.insert(SCRIPT.to_owned(), component.script.clone().into_bytes());
    let key = inputs.key()?;
    Ok(Described { request, sources, inputs, key })
}

impl Described<'_> {
    /// The digest of all inputs.
    pub fn key(&self) -> Sha256Digest {
        self.key
    }

    /// All inputs.
    pub fn inputs(&self) -> &ComponentInputs {
        &self.inputs
    }

    /// The result, if it was compiled before and is still in the cache.
    pub fn cached(&self, store: &Store) -> Option<Component> {
        let outputs = results::find(&self.key, store)?;
        outputs
            .keys()
            .eq(self.inputs.outputs.iter().collect::<std::collections::BTreeSet<_>>())
            .then(|| self.with(outputs))
    }

    /// The result: from the cache, else compiled in a sandbox and put there.
    pub fn build(&self, store: &Store, run: &Run<'_>) -> Result<Component, ComponentError> {
        let before = self.cached(store).filter(|_| run.believe_cache || run.again_and_compare);
        if let Some(before) = before.as_ref().filter(|_| !run.again_and_compare) {
            return Ok(before.clone());
        }
        let files = self.compile(store, run)?;
        match before {
            Some(before) => {
                self.compare(|output| before.outputs.get(output).map(|artifact| artifact.sha256), &files)?;
            }
            // With nothing to compare with, the first result is not kept unless a second is the same.
            None if run.again_and_compare => {
                let first: BTreeMap<_, _> =
                    files.iter().map(|(output, bytes)| (output, Sha256Digest::of(bytes))).collect();
                self.compare(|output| first.get(&output).copied(), &self.compile(store, run)?)?;
            }
            None => {}
        }
        let outputs = results::keep(&self.key, &files, store)?;
        Ok(self.with(outputs))
    }

    /// Whether what was compiled now is what was compiled before.
    fn compare(
        &self,
        before: impl Fn(&String) -> Option<Sha256Digest>,
        files: &BTreeMap<String, Vec<u8>>,
    ) -> Result<(), ComponentError> {
        for (output, bytes) in files {
            let second = Sha256Digest::of(bytes);
            if let Some(first) = before(output).filter(|first| *first != second) {
                let (component, output) = (self.inputs.name.clone(), output.clone());
                return Err(ComponentError::NotReproducible { component, output, first, second });
            }
        }
        Ok(())
    }

    fn with(&self, outputs: BTreeMap<String, Artifact>) -> Component {
        Component {
            key: self.key,
            lock_sha256: Sha256Digest::of(self.request.lock_text.as_bytes()),
            standing: self.request.lock.standing,
            inputs: self.inputs.clone(),
            outputs,
        }
    }

    fn compile(&self, store: &Store, run: &Run<'_>) -> Result<BTreeMap<String, Vec<u8>>, ComponentError> {
        let ComponentRequest { recipe, lock, lock_text, .. } = self.request;
        let tree = unpack_tree(recipe, lock, &Sha256Digest::of(lock_text.as_bytes()), store, run.jobs)?;
        // What compiles a release is worth two seconds of hashing.
        tree.verify_full()?;
        // Dropped, it leaves nothing; killed, `cache prune` finds it.
        let scratch = store.new_tree(&self.key)?;
        let plan = Plan {
            tree: tree.root(),
            inputs: scratch.path().join("inputs"),
            root: scratch.path().join("root"),
            jobs: run.jobs,
            outputs: self.inputs.outputs.clone(),
        };
        for directory in [&plan.inputs, &plan.root] {
            fs::create_dir(directory).map_err(ComponentError::io("creating", directory))?;
        }
        self.sources.write(&plan.inputs, store)?;
        sandbox::run(&plan, (run.again)(), run.say)
            .map_err(|source| ComponentError::Sandbox { component: self.inputs.name.clone(), source })
    }
}

/// The file of a crate, from the cache and checked.
pub fn crate_file(one: &NamedInput, store: &Store) -> Result<Vec<u8>, ComponentError> {
    sources::read_crate(one, store)
}

/// The bytes of an output, from the cache.
pub fn output(artifact: &Artifact, store: &Store) -> Result<Vec<u8>, ComponentError> {
    Ok(store.read(&artifact.sha256, artifact.size)?)
}
