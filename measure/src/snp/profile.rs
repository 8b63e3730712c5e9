//! What VMMs do differently, as data: the first state of a vCPU, and how the sections of the firmware are launched.

use super::chain::PageType;

/// One generation of one VMM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Profile {
    /// A short name for people.
    pub name: &'static str,
    /// CS attributes of the boot processor.
    pub bsp_cs_attributes: u16,
    /// CS attributes of application processors.
    pub ap_cs_attributes: u16,
    /// SS attributes.
    pub ss_attributes: u16,
    /// TR attributes.
    pub tr_attributes: u16,
    /// RDX at reset; `None` for the CPU signature, as hardware has it.
    pub rdx: Option<u64>,
    /// The PAT.
    pub g_pat: u64,
    /// MXCSR.
    pub mxcsr: u32,
    /// The x87 control word.
    pub x87_fcw: u16,
    /// How sections of type SNP_SEC_MEM are launched.
    pub sec_mem: PageType,
    /// Whether the CPUID page comes after all other sections instead of in its place.
    pub cpuid_last: bool,
    /// The guest physical address of every VMSA in its PAGE_INFO.
    pub vmsa_gpa: u64,
}

/// The PAT after reset (AMD 24593, PAT register).
const RESET_PAT: u64 = 0x0007_0406_0007_0406;
/// KVM's INITIAL_VMSA_GPA: the last page of a 48-bit address space.
const VMSA_GPA_48_BIT: u64 = 0xffff_ffff_f000;

/// QEMU 9.1 and later on KVM 6.11 and later: the FPU's reset state reaches the VMSA.
pub const QEMU_KVM: Profile = Profile {
    name: "qemu-kvm",
    bsp_cs_attributes: 0x9b,
    ap_cs_attributes: 0x9b,
    ss_attributes: 0x93,
    tr_attributes: 0x8b,
    rdx: None,
    g_pat: RESET_PAT,
    mxcsr: 0x1f80,
    x87_fcw: 0x37f,
    sec_mem: PageType::ZERO,
    cpuid_last: false,
    vmsa_gpa: VMSA_GPA_48_BIT,
};

/// QEMU on AMD's own kernels before 6.8-rc5, and SEV-ES guests whose VM type is the legacy one (QEMU's default since 9.1):
/// KVM does not copy the FPU's state into the VMSA.
pub const QEMU_KVM_NO_FPU_SYNC: Profile = Profile { name: "qemu-kvm-no-fpu-sync", mxcsr: 0, x87_fcw: 0, ..QEMU_KVM };

/// Amazon EC2 since 2026-04 at the latest.
pub const EC2: Profile = Profile {
    name: "ec2",
    bsp_cs_attributes: 0x9a,
    ap_cs_attributes: 0x9b,
    ss_attributes: 0x92,
    tr_attributes: 0x83,
    rdx: Some(0x600),
    g_pat: RESET_PAT,
    mxcsr: 0,
    x87_fcw: 0,
    sec_mem: PageType::ZERO,
    cpuid_last: true,
    vmsa_gpa: VMSA_GPA_48_BIT,
};

/// Amazon EC2 as it was in 2023.
pub const EC2_2023: Profile = Profile { name: "ec2-2023", rdx: Some(0), ..EC2 };

/// Google Compute Engine on Milan.
pub const GCE_MILAN: Profile = Profile {
    name: "gce-milan",
    bsp_cs_attributes: 0x9b,
    ap_cs_attributes: 0x9b,
    ss_attributes: 0x93,
    tr_attributes: 0x8b,
    rdx: Some(0x600),
    g_pat: 0x0007_0106,
    mxcsr: 0,
    x87_fcw: 0,
    sec_mem: PageType::UNMEASURED,
    cpuid_last: false,
    vmsa_gpa: VMSA_GPA_48_BIT,
};

/// Google Compute Engine on Genoa, whose guest physical addresses have 52 bits (google/gce-tcb-verifier,
/// `ProductHighAddress`).
pub const GCE_GENOA: Profile = Profile { name: "gce-genoa", vmsa_gpa: 0xf_ffff_ffff_f000, ..GCE_MILAN };

/// All profiles.
pub const ALL: [&Profile; 6] = [&QEMU_KVM, &QEMU_KVM_NO_FPU_SYNC, &EC2, &EC2_2023, &GCE_MILAN, &GCE_GENOA];

impl Profile {
    /// The profile of this name.
    pub fn named(name: &str) -> Option<&'static Self> {
        ALL.into_iter().find(|profile| profile.name == name)
    }
}
