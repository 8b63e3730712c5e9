//! Locked inputs in the store to an image directory.
//!
//! Everything here is a pure function of the lock, the recipe and the guest binary: no network, no clock, no user, no
//! umask, no path and no order of files or threads reaches a bit of the result. No maintainer script runs; what scripts
//! would have done and a guest needs is an effect (`effects`). `build` puts the parts together; `unpack` does the same
//! for trees of tools that run on the host.
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

pub mod build;
pub mod compare;
pub mod component;
mod content;
pub mod cpio;
pub mod deb;
pub mod disk;
pub mod effects;
pub mod erofs;
pub mod initrd;
pub mod inspect;
mod kept;
pub mod kernel;
mod little_endian;
pub mod measured;
pub mod publish;
pub mod root_modules;
pub mod sandbox;
pub mod sbom;
pub mod scripts;
pub mod tree;
pub mod uki;
pub mod unpack;
pub mod verity;

pub use build::{
    BuildError, BuildRequest, CompiledKernel, CompiledPart, DriverError, Guest, Staged, build, firmware_images,
    open_origins,
};
pub use compare::{Difference, compare_images};
pub use content::Content;
pub use publish::{PublishError, PublishRequest, publish};
pub use unpack::{UnpackError, UnpackedTree, open_tree, unpack_tree};

/// The version of the writers in this crate: EROFS with its LZ4 encoder, dm-verity, unified kernel images, disks, cpio, zstd. It
/// changes whenever the same inputs would give other bits, and stands in the manifest. What comes into a tree (effects of scripts,
/// attributes) is not among them.
pub const FORMAT_EPOCH: u32 = 2;
