//! Plays the AMD secure processor and the TDX module behind the KVM ioctls, so that an unmodified QEMU goes through a whole
//! SEV-SNP or TDX launch on any machine with `/dev/kvm`, and the digest of what it really submits can be seen.
//!
//! Built as `libteesim.so` and preloaded into QEMU (`LD_PRELOAD`, or the `--preload` of a program's own loader). Which TEE is
//! simulated is decided by the VM type that QEMU asks for; everything that is not part of a launch goes to the real KVM. The
//! configuration is `TEESIM_*` (module `config`), the result is a report (module `report`) whose every digest is SIMULATED.
//!
//! The arithmetic in `snp::digest` and `tdx::mrtd` is nobody else's: this library judges the crates that predict digests and
//! shares no code with them.
//!
//! The guest never runs. Where that is asked for, its first vCPU reads what firmware would read (module `firmware`), and asks for a
//! quote (module `quote`).
//!
//! What is not like the real thing beyond that:
//! - `cbitpos` must be what the host's own CPUID instruction says (leaf 0x8000001F, EBX[5:0]; 0 on most hosts without SEV),
//!   because QEMU executes it itself. It reaches only the CPUID page, which is not measured.
//! - The CPUID page is accepted whatever it says, and every CPUID bit of a TD may be configured (`tdx::capabilities`).
//! - On a processor with less than 48 bits of physical addresses a TD has 48 all the same.
//! - There is no RMP, no Secure EPT and no key: conversions of memory always succeed, and a page is discarded when it becomes
//!   shared. VCEK, GOSVW and migration are noted or absent.
//! - A TD may have more vCPUs than the host has CPUs; TDX would refuse that.
//! - After the launch, vCPU registers can still be read; a TEE would refuse that.
//! - SEV and SEV-ES guests, KVM_SEV_SNP_ENABLE_REQ_CERTS beyond being accepted, IGVM with other initial states than KVM's.
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

mod abi;
mod config;
mod firmware;
mod guest_memory;
pub mod interpose;
mod machine;
mod pages;
mod quote;
mod real;
mod refusal;
mod report;
mod route;
mod snp;
mod tdx;
#[cfg(test)]
mod test_vectors;
mod user_memory;
mod vcpu;
