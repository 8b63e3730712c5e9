//! The one description of a guest that measuring and launching both read.

use alloc::boxed::Box;
use alloc::string::String;

use crate::snp::id_block::{IdAuth, IdBlock};

/// What is the same for a guest on every host, and decides what is measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// The TEE and what belongs to it alone.
    pub tee: TeeShape,
    /// What it starts from.
    pub boot: Boot,
    /// How many vCPUs are created at launch.
    pub vcpus: u32,
    /// The CPU model as QEMU names it, such as `EPYC-v4`, `host` or `max`.
    pub cpu_model: String,
    /// Guest memory in MiB.
    pub memory_mib: u64,
}

/// What a guest starts from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Boot {
    /// A kernel and an initrd that QEMU gives to firmware.
    #[default]
    Kernel,
    /// A disk, which firmware starts.
    Disk,
}

/// The TEE part of a shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TeeShape {
    /// No TEE.
    None,
    /// AMD SEV-SNP.
    Snp(SnpShape),
    /// Intel TDX.
    Tdx(TdxShape),
}

/// SEV-SNP launch parameters (AMD 56860, SNP_LAUNCH_START and SNP_LAUNCH_FINISH).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnpShape {
    /// POLICY.
    pub policy: u64,
    /// SEV_FEATURES of every VMSA.
    pub sev_features: u64,
    /// Whether the hashes of kernel, initrd and command line are measured (QEMU `kernel-hashes=on`).
    pub kernel_hashes: bool,
    /// HOST_DATA.
    pub host_data: [u8; 32],
    /// The ID block and its authentication, where the launch has one. Neither is part of the launch digest.
    pub id_block: Option<Box<(IdBlock, IdAuth)>>,
}

/// TDX launch parameters (Intel 348549, TD_PARAMS).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TdxShape {
    /// ATTRIBUTES.
    pub attributes: u64,
    /// MRCONFIGID.
    pub mrconfigid: [u8; 48],
}

impl SnpShape {
    /// POLICY of a guest that allows SMT and denies migration and debugging: ABI 0.0, bit 16 SMT, bit 17 reserved as one.
    pub const DEFAULT_POLICY: u64 = 0x3_0000;
    /// SEV_FEATURES that QEMU up to 11.1 and KVM since 6.11 give every guest: SNPActive.
    pub const SNP_ACTIVE: u64 = 1;
}

impl TdxShape {
    /// ATTRIBUTES of a guest that cannot be debugged: SEPT_VE_DISABLE.
    pub const SEPT_VE_DISABLE: u64 = 1 << 28;
}
