//! What this host can do, found out by asking it: system calls, CPUID and the kernel's own tables, never file names alone.
//!
//! The facts are plain data, so that a plan can be made, and a check run, for a host that is not this one. They come from two
//! sources: `answers` holds what system calls said, `kernel`, `pci` and `memory` read the files below a root directory. A
//! directory with both (`HostFacts::of_tree`) stands for a known host in tests.

pub mod answers;
pub mod check;
pub mod choose;
mod clock;
pub mod cpu;
pub mod kernel;
mod kvm;
pub mod memory;
pub mod pci;
pub mod prepare;
mod sev;
mod usage;

use std::io;
use std::path::Path;

use serde::Serialize;
use spec::Tee;

pub use answers::Answers;
pub use cpu::Cpu;
pub use kernel::Kernel;
pub use kvm::TdxCapabilities;
pub use memory::Memory;
pub use pci::PciFunction;
pub use sev::PlatformStatus;

/// KVM_X86_SNP_VM (arch/x86/include/uapi/asm/kvm.h).
pub(crate) const SNP_VM: u32 = 4;
/// KVM_X86_TDX_VM.
pub(crate) const TDX_VM: u32 = 5;

/// Facts about a host that decide whether and how a guest runs there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
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
    /// The processor.
    pub cpu: Cpu,
    /// The kernel: its command line, configuration, modules and their parameters.
    pub kernel: Kernel,
    /// Memory and huge pages, by NUMA node.
    pub memory: Memory,
    /// Every PCI function, by address.
    pub devices: Vec<PciFunction>,
    /// What system calls said.
    pub answers: Answers,
}

/// What `/dev/kvm` can do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
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

impl Default for KvmAccess {
    fn default() -> Self {
        Self::Unusable { reason: "KVM was not asked".to_owned() }
    }
}

impl HostFacts {
    /// Asks the host that this runs on. Takes some milliseconds.
    pub fn probe() -> Self {
        Self::read(Path::new("/"), Answers::ask())
    }

    /// The host whose files lie below `root`, and whose system calls gave the answers of `root/answers.json`.
    pub fn of_tree(root: &Path) -> io::Result<Self> {
        let answers = serde_json::from_slice(&std::fs::read(root.join("answers.json"))?)?;
        Ok(Self::read(root, answers))
    }

    fn read(root: &Path, answers: Answers) -> Self {
        let kernel = Kernel::read(root);
        let cpu = Cpu::of(&answers.cpuid, root);
        let read = |path: &str| read_trimmed(&root.join(path)).unwrap_or_default();
        Self {
            kvm: match &answers.kvm.error {
                Some(reason) => KvmAccess::Unusable { reason: reason.clone() },
                None => KvmAccess::Usable { vm_types: answers.kvm.vm_types },
            },
            c_bit_position: cpu.c_bit_position,
            physical_address_bits: cpu.physical_address_bits,
            kernel_release: kernel.release.clone(),
            boot_id: read("proc/sys/kernel/random/boot_id"),
            memory: Memory::read(root),
            devices: pci::read(root),
            cpu,
            kernel,
            answers,
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
        match self.answers.kvm.refused_types.get(&number) {
            Some(error) => Err(format!("KVM offers {name} VMs but did not create one: {error}")),
            None => Ok(()),
        }
    }

    /// The PCI function at `address`, where there is one.
    pub fn device(&self, address: &str) -> Option<&PciFunction> {
        self.devices.iter().find(|device| device.address == address)
    }
}

/// A file's text without the white space around it; none where it cannot be read. Files of the kernel are small: what is
/// longer than 1 MiB is cut.
fn read_trimmed(path: &Path) -> Option<String> {
    use std::io::Read;
    // Most are shorter: one call reads them, and the next finds their end.
    let mut bytes = Vec::with_capacity(4096);
    std::fs::File::open(path).ok()?.take(1 << 20).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).trim().to_owned())
}

/// The names in a directory, sorted; none where it cannot be read.
fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let mut names: Vec<_> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_agree_with_what_the_kernel_says() {
        let facts = HostFacts::probe();
        let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap();
        let field = |key: &str| {
            let line = cpuinfo.lines().find(|line| line.split(':').next().is_some_and(|name| name.trim() == key));
            line.and_then(|line| line.split_once(':')).map(|(_, value)| value.trim().to_owned()).unwrap()
        };
        let sizes = format!("{} bits physical", facts.physical_address_bits);
        assert!(field("address sizes").starts_with(&sizes), "{sizes}");
        assert_eq!(field("vendor_id"), facts.cpu.vendor);
        assert_eq!(field("cpu family"), facts.cpu.family.to_string());
        assert_eq!(field("model"), facts.cpu.model.to_string());
        assert_eq!(field("stepping"), facts.cpu.stepping.to_string());
        assert_eq!(field("microcode"), facts.cpu.microcode);
        assert_eq!(facts.boot_id.len(), 36);
        assert_eq!(matches!(facts.kvm, KvmAccess::Usable { .. }), facts.supports(Tee::None).is_ok());
        // The calls of a host and its files can be kept and read again.
        let json = serde_json::to_string(&facts.answers).unwrap();
        assert_eq!(serde_json::from_str::<Answers>(&json).unwrap(), facts.answers);
    }

    #[test]
    fn a_tee_needs_its_bit() {
        let facts = |vm_types| HostFacts { kvm: KvmAccess::Usable { vm_types }, ..HostFacts::default() };
        assert!(facts(0x11).supports(Tee::Snp).is_ok());
        assert!(facts(0x21).supports(Tee::Tdx).is_ok());
        assert!(facts(0x0f).supports(Tee::Snp).unwrap_err().contains("bit 4"));
        assert!(facts(0x1f).supports(Tee::Tdx).unwrap_err().contains("bit 5"));
        assert!(facts(0).supports(Tee::None).is_ok());
        let mut refused = facts(0x11);
        refused.answers.kvm.refused_types.insert(SNP_VM, "Invalid argument".to_owned());
        assert!(refused.supports(Tee::Snp).unwrap_err().contains("did not create one"));
    }
}
