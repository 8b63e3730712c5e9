//! Debian archives: from a recipe to a lock, from a lock to verified files in the cache.
//!
//! This is the only crate with a network. Nothing that comes over it counts before it is verified: release files by
//! Debian's keys, indexes by the release file's hashes, packages by the index's, and later by the lock's.

mod apt_sources;
mod control;
mod crates;
mod diff;
pub mod fetch;
mod index;
mod kernel;
mod keyring;
pub mod lock;
mod mirror;
mod progress;
mod relation;
mod release;
mod resolve;
mod resolver;
mod sources;
mod transport;
mod universe;
mod version;

pub use crates::{CRATES_VARIABLE, CratesError, fetch_crates, has_crate};
pub use diff::{LockDiff, RolledBack, diff};
pub use index::IndexError;
pub use kernel::KernelError;
pub use keyring::{DEFAULT_KEYRING, Keyring, KeyringError, Rejection};
pub use mirror::{APT_DIRECTORY, Mirror, MirrorError, Patience, VARIABLE};
pub use progress::{Progress, Silent};
pub use relation::RelationError;
pub use release::ReleaseError;
pub use resolve::{Choice, ResolveError};
pub use sources::{SourceError, fetch_sources};
pub use transport::TransportError;
pub use version::compare as compare_versions;
