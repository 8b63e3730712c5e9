//! SEV-SNP launch digests, predicted.
//!
//! The secure processor hashes one PAGE_INFO per launched page into a chain ([`chain`]); QEMU and KVM decide which pages
//! come in which order ([`seed`]) and what each vCPU's first state is ([`vmsa`], by [`profile`]). Neither memory size nor
//! devices, ACPI tables, the content of the CPUID and secrets pages, POLICY, HOST_DATA or the ID block are part of it.

pub mod chain;
pub mod cpu;
pub mod explain;
pub mod features;
pub mod hashes;
pub mod id_block;
pub mod launch;
pub mod policy;
pub mod profile;
pub mod seed;
pub mod sev;
pub mod vmsa;

pub use chain::{Chain, PageType};
pub use cpu::{CpuError, CpuSignature};
pub use hashes::{CommandLineError, KernelHashes};
pub use launch::{LaunchInputs, ShapeError};
pub use profile::Profile;
pub use seed::{Seed, SeedError, Step, StepName, Vcpu};
