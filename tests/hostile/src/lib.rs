//! Attacks by the host on a guest, as values: what the host does, and what must come of it.
//!
//! Each runs under QEMU's TCG, unmodified, with the argument list that `bullion` itself plans for the guest; an attack is a change of
//! that list, of the files behind it, or something done while the guest runs. `docs/threat-model.md` has a table that is made
//! of these values. There is no TEE here: what a TEE adds (memory that the host cannot read, a launch digest) is not tested.
//!
//! A new attack is a value in a list of `attacks`; a new family is a file there, a line in `attacks::FAMILIES` and a test in
//! `tests/suite.rs`. Attacks on another kernel or image bring a `Guest` of their own (`guests`).
#![allow(
    clippy::print_stderr,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test support: failing loudly is its job"
)]

pub mod acpi;
pub mod attack;
pub mod attacks;
pub mod guests;
pub mod machine;
pub mod nbd;
pub mod report;
pub mod setup;
pub mod vhost_user;
