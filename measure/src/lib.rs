//! Launch measurement of confidential VMs: bytes to digests.
//!
//! No I/O, no clock, no environment, no `unsafe`, no `std`; foreign bytes never make it panic. `Shape` is the one
//! description of a guest: `launcher` turns it into QEMU's argument list, this crate turns it into digests.
#![no_std]
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

extern crate alloc;

pub mod acpi;
pub mod authenticode;
mod command_line;
pub mod digest;
pub mod eventlog;
pub mod firmware;
pub mod fw_cfg;
mod guid;
pub mod linux;
mod read;
pub mod shape;
pub mod smbios;
pub mod snp;
pub mod tdx;
pub mod tpm;
pub mod uefi;

pub use digest::{Digest256, Digest384};
pub use guid::Guid;
