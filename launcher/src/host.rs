//! What this host can do, found out by asking it: system calls and CPUID, never file names alone.
//!
//! The answers are plain data, so that a plan can be made (and tested) for a host that is not this one.

use std::io;

use kvm_ioctls::Kvm;
use nix::errno::Errno;
use spec::Tee;

/// KVM_CAP_VM_TYPES (include/uapi/linux/kvm.h): a bit mask of the types KVM_CREATE_VM takes.
const CAP_VM_TYPES: u64 = 235;
/// KVM_X86_SNP_VM (arch/x86/include/uapi/asm/kvm.h).
const SNP_VM: u32 = 4;
/// KVM_X86_TDX_VM.
const TDX_VM: u32 = 5;

/// Facts about a host that decide whether and how a guest runs there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostFacts {
    /// What `/dev/kvm` can do.
    pub kvm: KvmAccess,
    /// The position of the C-bit (CPUID Fn8000_001F EBX[5:0]); 0 where the CPU has no memory encryption.
    pub c_bit_position: u32,
    /// How many bits a physical address has (CPUID Fn8000_0008 EAX[7:0]).
    pub physical_address_bits: u32,
    /// The kernel's release.
    pub kernel_release: String,
    /// Identifies this boot of the host.
    pub boot_id: String,
}

/// What `/dev/kvm` can do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KvmAccess {
    /// There is no usable `/dev/kvm`.
    Unusable {
        /// Why: missing, no permission, or not KVM.
        reason: String,
    },
    /// Virtual machines can be created.
    Usable {
        /// KVM_CAP_VM_TYPES: bit n is set where type n can be created.
        vm_types: u32,
    },
}

impl HostFacts {
    /// Asks the host that this runs on. Takes well under a millisecond.
    pub fn probe() -> Self {
        let read = |path: &str| std::fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default();
        Self {
            kvm: probe_kvm(),
            c_bit_position: cpuid(0x8000_001f).map_or(0, |leaf| leaf.ebx & 0x3f),
            physical_address_bits: cpuid(0x8000_0008).map_or(36, |leaf| leaf.eax & 0xff),
            kernel_release: read("/proc/sys/kernel/osrelease"),
            boot_id: read("/proc/sys/kernel/random/boot_id"),
        }
    }

    /// Whether a VM of the TEE's type can be created; the error says what is missing.
    pub fn supports(&self, tee: Tee) -> Result<(), String> {
        let vm_types = match &self.kvm {
            KvmAccess::Unusable { reason } => return Err(reason.clone()),
            KvmAccess::Usable { vm_types } => *vm_types,
        };
        let (number, name) = match tee {
            Tee::None => return Ok(()),
            Tee::Snp => (SNP_VM, "SEV-SNP"),
            Tee::Tdx => (TDX_VM, "TDX"),
        };
        if vm_types & (1 << number) == 0 {
            return Err(format!(
                "KVM of kernel {} offers no {name} VMs (VM types {vm_types:#x}, bit {number} is not set)",
                self.kernel_release
            ));
        }
        Ok(())
    }
}

fn probe_kvm() -> KvmAccess {
    // By mask and ioctl alone KVM may say yes where it cannot: a VM is created and thrown away.
    let usable = Kvm::new().and_then(|kvm| {
        kvm.create_vm()?;
        Ok(u32::try_from(kvm.check_extension_raw(CAP_VM_TYPES)).unwrap_or(0))
    });
    match usable {
        Ok(vm_types) => KvmAccess::Usable { vm_types },
        Err(error) => KvmAccess::Unusable {
            reason: match Errno::from_raw(error.errno()) {
                Errno::ENOENT => "there is no /dev/kvm".to_owned(),
                Errno::EACCES | Errno::EPERM => "no permission to open /dev/kvm".to_owned(),
                _ => format!("/dev/kvm cannot create VMs: {}", io::Error::from_raw_os_error(error.errno())),
            },
        },
    }
}

/// One leaf of CPUID, where the CPU has it.
fn cpuid(leaf: u32) -> Option<core::arch::x86_64::CpuidResult> {
    use core::arch::x86_64::__cpuid;
    let highest = __cpuid(leaf & 0x8000_0000).eax;
    (leaf <= highest).then(|| __cpuid(leaf))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_agree_with_what_the_kernel_says() {
        let facts = HostFacts::probe();
        let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap();
        let sizes = format!("address sizes\t: {} bits physical", facts.physical_address_bits);
        assert!(cpuinfo.contains(&sizes), "{sizes}");
        assert_eq!(facts.boot_id.len(), 36);
        assert_eq!(matches!(facts.kvm, KvmAccess::Usable { .. }), facts.supports(Tee::None).is_ok());
    }

    #[test]
    fn a_tee_needs_its_bit() {
        let facts = |vm_types| HostFacts {
            kvm: KvmAccess::Usable { vm_types },
            c_bit_position: 51,
            physical_address_bits: 52,
            kernel_release: "7.3.4".to_owned(),
            boot_id: String::new(),
        };
        assert!(facts(0x11).supports(Tee::Snp).is_ok());
        assert!(facts(0x21).supports(Tee::Tdx).is_ok());
        assert!(facts(0x0f).supports(Tee::Snp).unwrap_err().contains("bit 4"));
        assert!(facts(0x1f).supports(Tee::Tdx).unwrap_err().contains("bit 5"));
        assert!(facts(0).supports(Tee::None).is_ok());
    }
}
