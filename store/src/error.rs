//! What can go wrong with the cache, and with writing a file.

use std::io;
use std::path::{Path, PathBuf};

use spec::{Diagnostic, Outcome, Sha256Digest};

/// A failed operation on the cache or on a file that is written atomically.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The operating system refused.
    #[error("{doing} {}", path.display())]
    Io {
        /// What was being done, as a gerund: `creating`, `writing`, ...
        doing: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The cache does not have what was asked for.
    #[error("{sha256} is not in the cache: there is no {}", path.display())]
    Missing {
        /// What was asked for.
        sha256: Sha256Digest,
        /// Where it would be.
        path: PathBuf,
    },
    /// A file has the wrong length.
    #[error("{} has {found} bytes, expected {expected}", path.display())]
    Size {
        /// The file.
        path: PathBuf,
        /// The length it should have.
        expected: u64,
        /// The length it has.
        found: u64,
    },
    /// A file has the wrong content.
    #[error("{} has SHA-256 {found}, expected {expected}", path.display())]
    Digest {
        /// The file.
        path: PathBuf,
        /// The digest it should have.
        expected: Sha256Digest,
        /// The digest it has.
        found: Sha256Digest,
    },
}

impl StoreError {
    /// Wraps an I/O error of `doing` something to `path`, for use in `map_err`.
    pub(crate) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { doing, path: path.to_owned(), source }
    }
}

impl Diagnostic for StoreError {
    fn outcome(&self) -> Outcome {
        match self {
            Self::Io { .. } => Outcome::HostCannot,
            Self::Missing { .. } | Self::Size { .. } | Self::Digest { .. } => Outcome::InputMismatch,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Io { source, .. } => io_hint(source.kind()).map(str::to_owned),
            Self::Missing { .. } => Some("fetch the locked inputs first: bullion fetch RECIPE".to_owned()),
            Self::Size { path, .. } | Self::Digest { path, .. } => {
                Some(format!("the cached copy is damaged: delete {} and fetch it again", path.display()))
            }
        }
    }
}

/// What a person can do about an I/O error, where that is known.
fn io_hint(kind: io::ErrorKind) -> Option<&'static str> {
    match kind {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Some(
            "there is no room left: free some (`bullion cache prune` empties the cache), or set BULLION_CACHE to a larger disk",
        ),
        io::ErrorKind::PermissionDenied => {
            Some("check who owns it, or set BULLION_CACHE to a directory that you can write to")
        }
        io::ErrorKind::ReadOnlyFilesystem => Some("the file system is read-only: choose another directory"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_and_a_missing_permission_come_with_advice() {
        // errno 28 ENOSPC, 122 EDQUOT, 13 EACCES, 30 EROFS (Linux, asm-generic/errno*.h).
        for (errno, word) in [(28, "room"), (122, "room"), (13, "owns"), (30, "read-only")] {
            let error = StoreError::io("writing", Path::new("/x"))(io::Error::from_raw_os_error(errno));
            assert_eq!(error.outcome(), Outcome::HostCannot);
            assert!(error.hint().unwrap().contains(word), "{errno}");
            assert_eq!(error.to_string(), "writing /x");
        }
    }
}
