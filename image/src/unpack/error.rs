//! Why a tree cannot be unpacked or used.

use std::io;
use std::path::{Path, PathBuf};

use spec::{Diagnostic, Outcome, Sha256Digest};
use store::StoreError;

use crate::build::BuildError;
use crate::tree::MergeError;

/// A tree that cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// The recipe makes an image.
    #[error("the recipe \"{recipe}\" makes an image, not a tree of tools")]
    NotATree {
        /// The recipe.
        recipe: String,
    },
    /// The lock was made for another recipe, or for an earlier state of this one.
    #[error(
        "the lock does not belong to the recipe \"{recipe}\": it was made for {found}, the recipe now is {expected}"
    )]
    OtherRecipe {
        /// The recipe.
        recipe: String,
        /// The digest of the recipe.
        expected: Sha256Digest,
        /// The digest in the lock.
        found: Sha256Digest,
    },
    /// A locked package.
    #[error(transparent)]
    Input(#[from] Box<BuildError>),
    /// Packages that cannot be in one tree.
    #[error(transparent)]
    Merge(#[from] MergeError),
    /// The cache.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The tree is not as it was unpacked.
    #[error("{} was changed after it was unpacked: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is different.
        reason: String,
    },
    /// The tree was removed as soon as it was made.
    #[error("{} was removed by another process", .0.display())]
    Gone(PathBuf),
    /// No threads.
    #[error("starting threads: {0}")]
    Threads(String),
    /// The operating system refused.
    #[error("{doing} {}", path.display())]
    Io {
        /// What was being done, as a gerund.
        doing: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

impl UnpackError {
    /// Wraps an I/O error of `doing` something to `path`, for use in `map_err`.
    pub(super) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { doing, path: path.to_owned(), source }
    }
}

impl From<BuildError> for UnpackError {
    fn from(error: BuildError) -> Self {
        Self::Input(Box::new(error))
    }
}

impl Diagnostic for UnpackError {
    fn outcome(&self) -> Outcome {
        match self {
            Self::NotATree { .. } | Self::OtherRecipe { .. } => Outcome::Usage,
            Self::Input(error) => error.outcome(),
            Self::Merge(error) => error.outcome(),
            Self::Store(error) => error.outcome(),
            Self::Damaged { .. } => Outcome::InputMismatch,
            Self::Gone(_) | Self::Threads(_) | Self::Io { .. } => Outcome::HostCannot,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::OtherRecipe { .. } => {
                Some("the recipe has changed since it was locked: run `bullion lock`".to_owned())
            }
            Self::Input(error) => error.hint(),
            Self::Merge(error) => error.hint(),
            Self::Store(error) => error.hint(),
            Self::Damaged { .. } => {
                Some("remove the tree with `bullion cache prune`; it is unpacked again when needed".to_owned())
            }
            Self::Gone(_) => Some("try again".to_owned()),
            Self::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                Some("the disk is full: free some room, or set BULLION_CACHE to a larger disk".to_owned())
            }
            _ => None,
        }
    }
}
