//! The content-addressed cache of locked inputs, the way files are written, and image directories as their readers see them.
//!
//! Everything in the cache is named by its SHA-256 and checked against it whenever it is read, so a damaged or swapped
//! file is never used. Nothing here knows a network: `archive` fills the cache, `image` and `launcher` read it.
//! Several processes may use one cache at the same time.

mod atomic;
mod blob;
mod entries;
mod error;
mod image;
mod lock;
mod partial;
mod place;
mod regular;
mod tree;
mod verify;

pub use atomic::{AtomicFile, write_atomically, write_new};
pub use entries::{Entry, Keep, Kind, Pruned};
pub use error::StoreError;
pub use image::{Image, ImageError};
pub use partial::{Begin, PartialBlob};
pub use place::Store;
pub use regular::{hash_file, hash_file_384, hash_with, open_regular};
pub use tree::{NewTree, TreeHold};
pub use verify::{OpenArtifacts, VerifyError, open_unverified, verify, verify_all, verify_open};
