//! Where things are in the cache: `blobs/sha256/AA/HEX`, `trees/HEX/`, `verdicts/`.

use std::fs;
use std::path::{Path, PathBuf};

use spec::Sha256Digest;

use crate::error::StoreError;

/// The names of the cache's parts.
pub(crate) const BLOBS: &str = "blobs/sha256";
pub(crate) const TREES: &str = "trees";
const VERDICTS: &str = "verdicts";

/// A cache directory.
#[derive(Clone, Debug)]
pub struct Store {
    root: PathBuf,
}

impl Store {
    /// Opens the cache at `directory`, creating it where it is not there.
    pub fn open(directory: &Path) -> Result<Self, StoreError> {
        // Relative names would change their meaning with the working directory.
        let root = std::path::absolute(directory).map_err(StoreError::io("opening", directory))?;
        for part in [BLOBS, TREES, VERDICTS] {
            let path = root.join(part);
            fs::create_dir_all(&path).map_err(StoreError::io("creating", &path))?;
        }
        Ok(Self { root })
    }

    /// `$BULLION_CACHE`, else `$XDG_CACHE_HOME/bullion`, else `$HOME/.cache/bullion`; `None` where none is set.
    /// A relative `XDG_CACHE_HOME` is ignored (XDG Base Directory Specification 0.8).
    pub fn default_dir() -> Option<PathBuf> {
        let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        variable("BULLION_CACHE")
            .or_else(|| variable("XDG_CACHE_HOME").filter(|path| path.is_absolute()).map(|path| path.join("bullion")))
            .or_else(|| variable("HOME").map(|path| path.join(".cache/bullion")))
    }

    /// The cache directory, absolute.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where the blob with this digest is, or would be.
    pub fn blob_path(&self, sha256: &Sha256Digest) -> PathBuf {
        let hex = sha256.to_string();
        self.root.join(BLOBS).join(hex.get(..2).unwrap_or_default()).join(hex)
    }

    /// Where the tree unpacked from the lock with this digest is, or would be.
    pub fn tree_dir(&self, lock: &Sha256Digest) -> PathBuf {
        self.root.join(TREES).join(lock.to_string())
    }

    /// Where findings about this host are kept that are dear to make anew.
    pub fn verdicts_dir(&self) -> PathBuf {
        self.root.join(VERDICTS)
    }
}
