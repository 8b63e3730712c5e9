//! Trees of unpacked files: made under a temporary name, renamed when complete, held while a program runs from them.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use spec::Sha256Digest;

use crate::atomic::{TEMPORARY_SUFFIX, sync_directory_of};
use crate::blob::mark_used;
use crate::error::StoreError;
use crate::lock::is_named;
use crate::place::{Store, TREES};

/// A tree that is being made. Dropped before `commit`, it leaves nothing.
#[derive(Debug)]
pub struct NewTree {
    temporary: tempfile::TempDir,
    target: PathBuf,
}

/// A tree in use: while this lives, no process prunes it.
#[derive(Debug)]
pub struct TreeHold {
    _lock: File,
    path: PathBuf,
}

impl Store {
    /// Starts a tree for the lock with this digest. Two processes may make the same one: the first to finish wins.
    pub fn new_tree(&self, lock: &Sha256Digest) -> Result<NewTree, StoreError> {
        let target = self.tree_dir(lock);
        let temporary = tempfile::Builder::new()
            .prefix(&format!(".{}.", lock.short()))
            .suffix(TEMPORARY_SUFFIX)
            .tempdir_in(self.root().join(TREES))
            .map_err(StoreError::io("creating", &target))?;
        Ok(NewTree { temporary, target })
    }

    /// Holds the tree of the lock with this digest; `None` where there is none.
    pub fn hold_tree(&self, lock: &Sha256Digest) -> Result<Option<TreeHold>, StoreError> {
        let path = self.tree_dir(lock);
        let directory = match File::open(&path) {
            Ok(directory) => directory,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(StoreError::io("opening", &path)(error)),
        };
        directory.lock_shared().map_err(StoreError::io("locking", &path))?;
        if !is_named(&directory, &path) {
            return Ok(None);
        }
        mark_used(&directory);
        Ok(Some(TreeHold { _lock: directory, path }))
    }
}

impl NewTree {
    /// The directory to fill.
    pub fn path(&self) -> &Path {
        self.temporary.path()
    }

    /// Gives the tree its name; returns its directory. If another process was first, its tree is used.
    pub fn commit(self) -> Result<PathBuf, StoreError> {
        match fs::rename(self.temporary.path(), &self.target) {
            Ok(()) => {
                let _ = self.temporary.keep();
                sync_directory_of(&self.target)?;
            }
            // rename(2): a directory that is not empty is never replaced.
            Err(error) if matches!(error.kind(), io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists) => {}
            Err(error) => return Err(StoreError::io("creating", &self.target)(error)),
        }
        Ok(self.target)
    }
}

impl TreeHold {
    /// The tree's directory.
    pub fn path(&self) -> &Path {
        &self.path
    }
}
