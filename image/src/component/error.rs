//! Why a component cannot be described or compiled.

use std::io;
use std::path::{Path, PathBuf};

use spec::canonical::CanonicalError;
use spec::recipe::SourceFile;
use spec::{Diagnostic, Outcome, Sha256Digest, SyntaxError};
use store::StoreError;

use super::workspace::WorkspaceError;
use crate::sandbox::SandboxError;
use crate::unpack::UnpackError;

/// A component that cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ComponentError {
    /// The recipe makes something else.
    #[error("the recipe \"{recipe}\" is not of kind \"component\"")]
    NotAComponent {
        /// The recipe.
        recipe: String,
    },
    /// The tree of compilers.
    #[error(transparent)]
    Tree(#[from] UnpackError),
    /// The Cargo workspace.
    #[error(transparent)]
    Workspace(#[from] WorkspaceError),
    /// A crate is not in the cache.
    #[error("the crate {name} {version} is not in the cache")]
    NoCrate {
        /// Its name.
        name: String,
        /// Its version.
        version: String,
    },
    /// A crate that no registry would give out.
    #[error("the crate {name}: {reason}")]
    BadCrate {
        /// Its name and version.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// A published file is not in the cache.
    #[error("{} of {} is not in the cache", .0.name(), .0.url)]
    NoSource(Box<SourceFile>),
    /// What the cache has for a published file is another one.
    #[error("{} should be {} of {} bytes with SHA-256 {}, and is of {size} bytes with SHA-256 {sha256}", path.display(), expected.name(), expected.size, expected.sha256)]
    BadSource {
        /// What it should be.
        expected: Box<SourceFile>,
        /// The file in the cache.
        path: PathBuf,
        /// Its size.
        size: u64,
        /// Its digest.
        sha256: Sha256Digest,
    },
    /// A source that is neither a file nor a directory.
    #[error("{} is neither a file nor a directory", .0.display())]
    Odd(PathBuf),
    /// A source with a name that cannot stand in a description.
    #[error("{} has a name that is not plain text", .0.display())]
    Name(PathBuf),
    /// What is described has no canonical form.
    #[error(transparent)]
    Canonical(#[from] CanonicalError),
    /// The sandbox, or what ran in it.
    #[error("compiling the component \"{component}\"")]
    Sandbox {
        /// The component.
        component: String,
        /// Why.
        source: SandboxError,
    },
    /// The cache.
    #[error(transparent)]
    Store(#[from] StoreError),
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
    /// Two builds of the same inputs gave different results.
    #[error(
        "the component \"{component}\" is not reproducible: \"{output}\" was {first}, and is {second} when it is built again"
    )]
    NotReproducible {
        /// The component.
        component: String,
        /// Which file.
        output: String,
        /// Its digest before.
        first: Sha256Digest,
        /// Its digest now.
        second: Sha256Digest,
    },
}

impl ComponentError {
    /// Wraps an I/O error of `doing` something to `path`, for use in `map_err`.
    pub(super) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { doing, path: path.to_owned(), source }
    }
}

impl Diagnostic for ComponentError {
    fn outcome(&self) -> Outcome {
        match self {
            Self::NotAComponent { .. } | Self::Odd(_) | Self::Name(_) => Outcome::Usage,
            Self::Tree(error) => error.outcome(),
            Self::Workspace(error) => error.outcome(),
            Self::NoCrate { .. } | Self::BadCrate { .. } | Self::NoSource(_) | Self::BadSource { .. } => {
                Outcome::InputMismatch
            }
            Self::NotReproducible { .. } => Outcome::Refused,
            Self::Canonical(_) => Outcome::Internal,
            Self::Sandbox { source, .. } => source.outcome(),
            Self::Store(error) => error.outcome(),
            Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => Outcome::Usage,
            Self::Io { .. } => Outcome::HostCannot,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Tree(error) => error.hint(),
            Self::Workspace(error) => error.hint(),
            Self::Store(error) => error.hint(),
            Self::Sandbox { source, .. } => source.hint(),
            Self::BadSource { .. } => Some("remove it, and run `bullion fetch` with the component's recipe".to_owned()),
            Self::NoCrate { .. } | Self::NoSource(_) => {
                Some("run `bullion fetch` with the component's recipe".to_owned())
            }
            _ => None,
        }
    }
}

/// A manifest of Cargo that is not as it should be.
pub(super) fn syntax(file: &Path, message: impl Into<String>) -> SyntaxError {
    SyntaxError::whole(&file.display().to_string(), message)
}
