//! The content-addressed cache of locked inputs, and the way files are written.
//!
//! Everything in the cache is named by its SHA-256 and checked against it whenever it is read, so a damaged or swapped
//! file is never used. Nothing here knows a network: `archive` fills the cache, `image` and `launcher` read it.
//! Several processes may use one cache at the same time.

mod atomic;
mod blob;
mod entries;
mod error;
mod lock;
mod partial;
mod place;
mod tree;

pub use atomic::{AtomicFile, write_atomically};
pub use entries::{Entry, Keep, Kind, Pruned};
pub use error::StoreError;
pub use partial::{Begin, PartialBlob};
pub use place::Store;
pub use tree::{NewTree, TreeHold};
