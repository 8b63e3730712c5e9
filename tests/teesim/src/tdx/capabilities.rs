//! What the simulated TDX module lets a VMM configure.
//!
//! A real module has a short list of CPUID leaves with masks of the bits that may be set; which ones depends on its version.
//! The simulated one lets every bit of every leaf be configured that KVM supports on the host, so that QEMU's `-cpu host`
//! passes on any CPU. What a real module would refuse there is not found out here.

use std::os::fd::AsRawFd;

use kvm_bindings::kvm_cpuid_entry2;
use nix::errno::Errno;

use crate::abi::{CpuidHeader, TdxCapabilities};
use crate::refusal::Refusal;
use crate::{real, user_memory};

/// ATTRIBUTES that KVM supports: SEPT_VE_DISABLE (`KVM_SUPPORTED_TD_ATTRS`).
pub(super) const SUPPORTED_ATTRIBUTES: u64 = 1 << 28;
/// TDVMCALLs that KVM leaves to the VMM: GetQuote and SetupEventNotifyInterrupt.
const USER_TDVMCALLS: u64 = 0b11;
/// The leaf whose EAX[23:16] is KVM's interface for the width of guest-physical addresses.
pub(super) const ADDRESS_SIZES_LEAF: u32 = 0x8000_0008;

/// The leaves that can be configured and the XFAM bits, both from what KVM supports on this host.
pub(super) struct Capabilities {
    pub(super) cpuid: Vec<kvm_cpuid_entry2>,
    pub(super) xfam: u64,
}

impl Capabilities {
    /// Asks the real KVM.
    pub(super) fn of_this_host() -> Result<Self, Refusal> {
        let device = std::fs::File::open("/dev/kvm").map_err(|_| Refusal::from(Errno::EIO))?;
        let mut cpuid = real::supported_cpuid(device.as_raw_fd())?;
        // The hypervisor's own leaves are no part of a TD's configuration.
        cpuid.retain(|entry| !(0x4000_0000..0x8000_0000).contains(&entry.function));
        let find = |function, index| cpuid.iter().find(|entry| entry.function == function && entry.index == index);
        let wide = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
        // XFAM_FIXED1: x87 and SSE.
        let xcr0 = find(0xd, 0).map_or(3, |entry| wide(entry.eax, entry.edx));
        let xss = find(0xd, 1).map_or(0, |entry| wide(entry.ecx, entry.edx));
        Ok(Self { cpuid, xfam: xcr0 | xss })
    }

    /// Whether an entry of KVM_TDX_INIT_VM has a place in the module's parameters.
    pub(super) fn can_configure(&self, entry: &kvm_cpuid_entry2) -> bool {
        self.cpuid.iter().any(|known| known.function == entry.function && known.index == entry.index)
    }

    /// KVM_TDX_CAPABILITIES: E2BIG, without a hint, until the caller's array is large enough.
    pub(super) fn give(&self, address: u64) -> Result<(), Refusal> {
        let room: TdxCapabilities = user_memory::read(address)?;
        let count = u32::try_from(self.cpuid.len()).map_err(|_| Errno::E2BIG)?;
        if room.nent < count {
            return Err(Refusal::new(Errno::E2BIG, "the array for the CPUID configuration is too small"));
        }
        let capabilities = TdxCapabilities {
            supported_attrs: SUPPORTED_ATTRIBUTES,
            supported_xfam: self.xfam,
            kernel_tdvmcallinfo_1_r11: 0,
            user_tdvmcallinfo_1_r11: USER_TDVMCALLS,
            kernel_tdvmcallinfo_1_r12: 0,
            user_tdvmcallinfo_1_r12: 0,
            reserved: [0; 250],
            nent: count,
            padding: 0,
        };
        user_memory::write(address, &capabilities)?;
        let masks: Vec<_> = self.cpuid.iter().map(all_bits).collect();
        Ok(write_entries(address + size_of::<TdxCapabilities>() as u64, &masks)?)
    }
}

/// Puts the width of guest-physical addresses into the leaf where a KVM with two-dimensional paging has it; false where
/// there is nothing to do.
pub(crate) fn announce_address_width(entry: &mut kvm_cpuid_entry2) -> bool {
    if entry.function != ADDRESS_SIZES_LEAF || entry.eax >> 16 & 0xff != 0 {
        return false;
    }
    let width = if entry.eax & 0xff > 48 { 52 } else { 48 };
    entry.eax |= width << 16;
    true
}

/// An entry that says that every bit may be configured.
fn all_bits(entry: &kvm_cpuid_entry2) -> kvm_cpuid_entry2 {
    kvm_cpuid_entry2 { eax: u32::MAX, ebx: u32::MAX, ecx: u32::MAX, edx: u32::MAX, ..*entry }
}

/// KVM_TDX_GET_CPUID: `entries` as `struct kvm_cpuid2`; where the caller's array is too small, E2BIG and the number needed.
pub(super) fn give_cpuid(address: u64, entries: &[kvm_cpuid_entry2]) -> Result<(), Refusal> {
    let room: CpuidHeader = user_memory::read(address)?;
    let count = u32::try_from(entries.len()).map_err(|_| Errno::E2BIG)?;
    user_memory::write(address, &CpuidHeader { nent: count, padding: 0 })?;
    if room.nent < count {
        return Err(Refusal::new(Errno::E2BIG, "the array for the CPUID values is too small"));
    }
    Ok(write_entries(address + size_of::<CpuidHeader>() as u64, entries)?)
}

fn write_entries(address: u64, entries: &[kvm_cpuid_entry2]) -> Result<(), Errno> {
    entries
        .iter()
        .zip((address..).step_by(size_of::<kvm_cpuid_entry2>()))
        .try_for_each(|(entry, place)| user_memory::write(place, entry))
}
