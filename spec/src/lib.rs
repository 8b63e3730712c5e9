//! The file formats of Bullion: types, validation and nothing else.
//!
//! Everything here is a pure function over text or bytes; reading files is left to the callers, so that `bullion-guest`
//! and the builder share one definition. What a person typed (`recipe::RecipeFile`) and what was meant
//! (`recipe::Recipe`) are two types. Every format has a `schema` number; unknown keys are refused.
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

pub mod agent;
pub mod canonical;
pub mod component;
pub mod diagnostic;
pub mod digest;
pub mod gpus;
pub mod guest_config;
pub mod hardening;
pub mod lock;
pub mod manifest;
pub mod network;
pub mod partitions;
mod pci;
pub mod pins;
pub mod provenance;
pub mod recipe;
pub mod release;
pub mod release_date;
#[cfg(feature = "schema")]
pub mod schema;
pub mod size;
pub mod tee;
mod text;
pub mod time;
pub mod vm;
pub mod volume;
pub mod watchdog;
pub mod workload;

pub use diagnostic::{Diagnostic, Outcome};
pub use digest::{Sha256Digest, Sha384Digest};
pub use pci::PciAddress;
pub use tee::Tee;
pub use text::SyntaxError;
