//! The kernel's side of the conversation: request numbers and structures of Linux 7.3, `include/uapi/linux/kvm.h`,
//! `arch/x86/include/uapi/asm/kvm.h` and `include/uapi/linux/psp-sev.h`.
//!
//! Only what `kvm-bindings` lacks or cannot copy safely is declared here. Every field is an integer or an array of them, so
//! that any bytes are a value; sizes are asserted at compile time.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Declares a structure that is copied to and from QEMU's memory byte by byte.
macro_rules! wire {
    ($(#[$meta:meta])* $name:ident ($size:literal) { $($field:ident: $type:ty,)* }) => {
        $(#[$meta])*
        #[repr(C)]
        #[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
        pub(crate) struct $name { $(pub(crate) $field: $type,)* }
        const _: () = assert!(size_of::<$name>() == $size);
    };
}

/// The direction bits of an ioctl request number (`asm-generic/ioctl.h`).
const WRITE: u32 = 1;
const READ: u32 = 2;

const fn request(direction: u32, kind: u8, number: u8, size: u32) -> u32 {
    direction << 30 | size << 16 | (kind as u32) << 8 | number as u32
}

/// The type byte of all KVM requests.
pub(crate) const KVM: u8 = 0xae;

/// A KVM request that fills a structure of `size` bytes.
pub(crate) const fn kvm_read(number: u8, size: u32) -> u32 {
    request(READ, KVM, number, size)
}

pub(crate) const KVM_CREATE_VM: u32 = request(0, KVM, 0x01, 0);
pub(crate) const KVM_CHECK_EXTENSION: u32 = request(0, KVM, 0x03, 0);
pub(crate) const KVM_GET_SUPPORTED_CPUID: u32 = request(READ | WRITE, KVM, 0x05, 8);
pub(crate) const KVM_CREATE_VCPU: u32 = request(0, KVM, 0x41, 0);
pub(crate) const KVM_SET_USER_MEMORY_REGION: u32 = request(WRITE, KVM, 0x46, 32);
pub(crate) const KVM_SET_USER_MEMORY_REGION2: u32 = request(WRITE, KVM, 0x49, 160);
pub(crate) const KVM_RUN: u32 = request(0, KVM, 0x80, 0);
pub(crate) const KVM_GET_MSRS: u32 = request(READ | WRITE, KVM, 0x88, 8);
pub(crate) const KVM_ENABLE_CAP: u32 = request(WRITE, KVM, 0xa3, 104);
pub(crate) const KVM_MEMORY_ENCRYPT_OP: u32 = request(READ | WRITE, KVM, 0xba, 8);
pub(crate) const KVM_MEMORY_ENCRYPT_REG_REGION: u32 = request(READ, KVM, 0xbb, 16);
pub(crate) const KVM_MEMORY_ENCRYPT_UNREG_REGION: u32 = request(READ, KVM, 0xbc, 16);
pub(crate) const KVM_SET_MEMORY_ATTRIBUTES: u32 = request(WRITE, KVM, 0xd2, 32);
pub(crate) const KVM_CREATE_GUEST_MEMFD: u32 = request(READ | WRITE, KVM, 0xd4, 64);
pub(crate) const KVM_GET_DEVICE_ATTR: u32 = request(WRITE, KVM, 0xe2, 24);
pub(crate) const KVM_HAS_DEVICE_ATTR: u32 = request(WRITE, KVM, 0xe3, 24);
pub(crate) const SEV_ISSUE_CMD: u32 = request(READ | WRITE, b'S', 0, 16);

wire!(
    /// `struct kvm_userspace_memory_region2`.
    MemoryRegion2 (160) {
        slot: u32, flags: u32, guest_phys_addr: u64, memory_size: u64, userspace_addr: u64, guest_memfd_offset: u64,
        guest_memfd: u32, pad1: u32, pad2: [u64; 14],
    }
);
wire!(
    /// `struct kvm_userspace_memory_region`.
    MemoryRegion (32) { slot: u32, flags: u32, guest_phys_addr: u64, memory_size: u64, userspace_addr: u64, }
);
wire!(
    /// `struct kvm_memory_attributes`.
    MemoryAttributes (32) { address: u64, size: u64, attributes: u64, flags: u64, }
);
wire!(
    /// `struct kvm_create_guest_memfd`.
    CreateGuestMemfd (64) { size: u64, flags: u64, reserved: [u64; 6], }
);
wire!(
    /// `struct kvm_device_attr`.
    DeviceAttr (24) { flags: u32, group: u32, attr: u64, addr: u64, }
);
wire!(
    /// `struct kvm_sev_cmd`.
    SevCmd (24) { id: u32, pad0: u32, data: u64, error: u32, sev_fd: i32, }
);
wire!(
    /// `struct kvm_sev_init`.
    SevInit (48) { vmsa_features: u64, flags: u32, ghcb_version: u16, pad1: u16, pad2: [u32; 8], }
);
wire!(
    /// `struct kvm_sev_snp_launch_start`.
    SnpLaunchStart (64) { policy: u64, gosvw: [u8; 16], flags: u16, pad0: [u8; 6], pad1: [u64; 4], }
);
wire!(
    /// `struct kvm_sev_snp_launch_update`.
    SnpLaunchUpdate (64) {
        gfn_start: u64, uaddr: u64, len: u64, page_type: u8, pad0: u8, flags: u16, pad1: u32, pad2: [u64; 4],
    }
);
wire!(
    /// `struct kvm_sev_snp_launch_finish`.
    SnpLaunchFinish (88) {
        id_block_uaddr: u64, id_auth_uaddr: u64, id_block_en: u8, auth_key_en: u8, vcek_disabled: u8,
        host_data: [u8; 32], pad0: [u8; 3], flags: u16, pad1: [u64; 4],
    }
);
wire!(
    /// `struct sev_issue_cmd`, which is packed.
    SevIssueCmd (16) { cmd: u32, data: [u8; 8], error: u32, }
);
wire!(
    /// `struct kvm_tdx_cmd`.
    TdxCmd (24) { id: u32, flags: u32, data: u64, hw_error: u64, }
);
wire!(
    /// `struct kvm_tdx_capabilities` without its CPUID entries.
    TdxCapabilities (2056) {
        supported_attrs: u64, supported_xfam: u64, kernel_tdvmcallinfo_1_r11: u64, user_tdvmcallinfo_1_r11: u64,
        kernel_tdvmcallinfo_1_r12: u64, user_tdvmcallinfo_1_r12: u64, reserved: [u64; 250], nent: u32, padding: u32,
    }
);
wire!(
    /// `struct kvm_tdx_init_vm` without its CPUID entries.
    TdxInitVm (264) {
        attributes: u64, xfam: u64, mrconfigid: [u8; 48], mrowner: [u8; 48], mrownerconfig: [u8; 48], reserved: [u64; 12],
        nent: u32, padding: u32,
    }
);
wire!(
    /// `struct kvm_tdx_init_mem_region`.
    TdxInitMemRegion (24) { source_addr: u64, gpa: u64, nr_pages: u64, }
);
wire!(
    /// The head of `struct kvm_cpuid2`.
    CpuidHeader (8) { nent: u32, padding: u32, }
);
