//! Trees of tools, such as the pinned QEMU or the compilers of a component: packages unpacked into the cache and run from there.
//!
//! A tree is `trees/LOCK/root` with an index beside it (`index`). Owners and set-uid bits are not kept: the tree belongs
//! to whoever runs it. Times are 0, of directories too, so that a changed file and an added one both show at once.
//! Absolute links are made relative, so that they stay inside. Maintainer scripts, diversions and alternatives are not
//! honoured: a tree is run through its own loader with explicit paths and needs none of them.

mod error;
mod index;
mod write;

use std::path::{Path, PathBuf};

use rayon::prelude::*;
use spec::Sha256Digest;
use spec::lock::{Lock, Use};
use spec::recipe::{Kind, Recipe};
use store::{Store, TreeHold};

pub use error::UnpackError;
use index::Index;
use write::Writer;

use crate::build::read_locked;

/// The directory with the files, inside the tree's directory.
pub const ROOT: &str = "root";
/// The index, inside the tree's directory.
pub const INDEX: &str = "index";

/// A tree in the cache. While this lives, no process prunes it.
#[derive(Debug)]
pub struct UnpackedTree {
    hold: TreeHold,
    index: Index,
}

/// The tree of a lock, unpacked first where the cache does not have it. `lock_sha256` is the digest of the lock file. A
/// tree that is there already is checked with `verify_quick`.
pub fn unpack_tree(
    recipe: &Recipe,
    lock: &Lock,
    lock_sha256: &Sha256Digest,
    store: &Store,
    jobs: usize,
) -> Result<UnpackedTree, UnpackError> {
    check(recipe, lock)?;
    if let Some(tree) = open_tree(lock_sha256, store)? {
        tree.verify_quick()?;
        return Ok(tree);
    }
    let new = store.new_tree(lock_sha256)?;
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(jobs.max(1))
        .build()
        .map_err(|error| UnpackError::Threads(error.to_string()))?;
    let root = new.path().join(ROOT);
    let index = pool.install(|| unpack_into(&root, lock, store, jobs.max(1)))?;
    write::file(&new.path().join(INDEX), index.to_text().as_bytes(), 0o644)?;
    new.commit()?;
    open_tree(lock_sha256, store)?.ok_or_else(|| UnpackError::Gone(store.tree_dir(lock_sha256)))
}

/// The tree of the lock with this digest, if it is in the cache. Nothing is checked but that its index can be read.
pub fn open_tree(lock_sha256: &Sha256Digest, store: &Store) -> Result<Option<UnpackedTree>, UnpackError> {
    let Some(hold) = store.hold_tree(lock_sha256)? else {
        return Ok(None);
    };
    let path = hold.path().join(INDEX);
    let damaged = |reason: &str| UnpackError::Damaged { path: path.clone(), reason: reason.to_owned() };
    let text = std::fs::read_to_string(&path).map_err(|_| damaged("it cannot be read"))?;
    let index = Index::parse(&text).ok_or_else(|| damaged("it is not an index"))?;
    Ok(Some(UnpackedTree { hold, index }))
}

impl UnpackedTree {
    /// The directory that stands for `/`.
    pub fn root(&self) -> PathBuf {
        self.hold.path().join(ROOT)
    }

    /// Where a file of the tree is: `path` is absolute inside the tree.
    pub fn path(&self, path: &str) -> PathBuf {
        self.root().join(path.trim_start_matches('/'))
    }

    /// Compares kind, size, mode and time of all that programs read with the index: milliseconds, and finds what changed by accident
    /// or was added. It does not find a change made by someone who then set the time back.
    pub fn verify_quick(&self) -> Result<(), UnpackError> {
        self.index.verify(&self.root(), false)
    }

    /// Hashes everything as well.
    pub fn verify_full(&self) -> Result<(), UnpackError> {
        self.index.verify(&self.root(), true)
    }
}

fn check(recipe: &Recipe, lock: &Lock) -> Result<(), UnpackError> {
    if recipe.kind == Kind::Image {
        return Err(UnpackError::NotATree { recipe: recipe.name.clone() });
    }
    let expected = recipe.lock_digest();
    if lock.recipe_sha256 != expected {
        let (recipe, found) = (recipe.name.clone(), lock.recipe_sha256);
        return Err(UnpackError::OtherRecipe { recipe, expected, found });
    }
    Ok(())
}

/// Unpacks `jobs` packages at a time, so that memory holds no more than those.
fn unpack_into(root: &Path, lock: &Lock, store: &Store, jobs: usize) -> Result<Index, UnpackError> {
    let mut locked: Vec<_> = lock.packages_for(Use::Tree).collect();
    locked.sort_by_key(|package| package.name != crate::build::FIRST_PACKAGE);
    let mut writer = Writer::begin(root)?;
    for batch in locked.chunks(jobs) {
        let packages = batch
            .par_iter()
            .map(|package| {
                let package = read_locked(package, store)?;
                let digests = write::digests(&package);
                Ok((package, digests))
            })
            .collect::<Result<Vec<_>, UnpackError>>()?;
        for (package, digests) in &packages {
            writer.add(package, digests)?;
        }
    }
    writer.finish()
}
