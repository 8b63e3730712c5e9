//! SEV-SNP: the launch as `arch/x86/kvm/svm/sev.c` of Linux 7.3 and the SEV-SNP firmware ABI (AMD 56860) do it.

mod digest;
mod facts;
mod guest;
mod id_block;
mod id_key;
pub(crate) mod platform;
#[cfg(test)]
mod state_tests;
mod vmsa;

pub(crate) use facts::Facts;
pub(crate) use guest::{Environment, Guest};

/// Status codes of the AMD secure processor (`sev_ret_code` in `include/uapi/linux/psp-sev.h`).
mod status {
    pub(super) const INVALID_GUEST_STATE: u64 = 0x02;
    pub(super) const POLICY_FAILURE: u64 = 0x07;
    pub(super) const BAD_SIGNATURE: u64 = 0x0a;
    pub(super) const BAD_MEASUREMENT: u64 = 0x0b;
    pub(super) const INVALID_PARAM: u64 = 0x16;
}
