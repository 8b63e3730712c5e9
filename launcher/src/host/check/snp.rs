//! SEV-SNP, from the silicon up: processor, BIOS, kernel, IOMMU, secure processor. The first that is missing explains the rest.

use spec::Tee;

use super::{Line, Scope};
use crate::host::SNP_VM;

const KERNEL: &str = "Linux Documentation/virt/kvm/x86/amd-memory-encryption.rst";
/// SYSCFG (AMD APM volume 2, section 15.34.1 and 15.36.2).
const SYSCFG: &str = "0xc0010010";
const RMP_BASE: &str = "0xc0010132";
const RMP_END: &str = "0xc0010133";
/// The first firmware API that Linux uses for SNP (drivers/crypto/ccp/sev-dev.c, SNP_MIN_API_MAJOR and _MINOR).
const FIRMWARE_FLOOR: (u8, u8) = (1, 51);

pub(super) fn lines(scope: &Scope<'_>) -> Vec<Line> {
    let needed = scope.wants(Tee::Snp);
    let cpu = &scope.facts.cpu;
    if !cpu.has_snp {
        let found = format!("{} has no SEV-SNP (CPUID Fn8000_001F EAX[4] is not set)", named(&cpu.name, &cpu.vendor));
        return vec![
            Line::missing("snp processor", needed, found)
                .because(if cpu.is_virtual {
                    "a hypervisor hides it, or the processor lacks it"
                } else {
                    "AMD has it since EPYC 7003"
                })
                .remedy(
                    "run this VM on an EPYC 7003 or later, or go through its launch with `bullion launch --simulate`",
                )
                .see("AMD APM volume 3, appendix E.4.17"),
        ];
    }
    let found = format!(
        "C-bit {}, {} reduced address bits, {} ASIDs for SEV-ES and SEV-SNP guests",
        cpu.c_bit_position, cpu.reduced_address_bits, cpu.snp_asids
    );
    let processor = if cpu.snp_asids == 0 {
        Line::missing("snp processor", needed, found)
            .because("all ASIDs are for SEV guests without encrypted state: no SNP guest gets one")
            .remedy("set \"SEV-ES ASID space limit\" in the BIOS to more than 1")
            .see("AMD APM volume 3, appendix E.4.17 (Fn8000_001F EDX)")
    } else {
        Line::ok("snp processor", found)
    };
    let mut lines = vec![processor];
    lines.extend(bios(scope, needed));
    lines.extend([iommu(scope, needed), kernel(scope, needed), kvm(scope, needed), firmware(scope, needed)]);
    lines
}

fn named<'a>(name: &'a str, vendor: &'a str) -> &'a str {
    if name.is_empty() { vendor } else { name }
}

/// What only the BIOS can change, by the registers where they can be read, else by what the kernel hides.
fn bios(scope: &Scope<'_>, needed: bool) -> Vec<Line> {
    let register = |number: &str| scope.facts.answers.msr.get(number).copied();
    let mut lines = Vec::new();
    if register(SYSCFG).is_some_and(|syscfg| syscfg >> 23 & 1 == 0) {
        lines.push(
            Line::missing("snp bios", needed, "memory encryption is off (SYSCFG[23] MemEncryptionModEn is 0)")
                .remedy("set SMEE (Secure Memory Encryption Enable) to Enabled in the BIOS")
                .see("AMD APM volume 2, section 7.10.2"),
        );
    }
    if let (Some(base), Some(end)) = (register(RMP_BASE), register(RMP_END)) {
        lines.push(reverse_map(scope, needed, base, end));
    } else if !scope.facts.cpu.shows("sev_snp") {
        lines.push(
            Line::missing("snp bios", needed, "the processor has SEV-SNP, and the kernel does not show it (sev_snp)")
                .because("the BIOS reserved no reverse map table or left SMEE off, or the kernel was built without it")
                .remedy("enable SMEE, SEV-SNP support and \"SNP memory (RMP table) coverage\" in the BIOS")
                .see(KERNEL),
        );
    }
    if lines.is_empty() {
        lines.push(Line::ok("snp bios", "memory encryption and SEV-SNP are on"));
    }
    lines
}

/// The RMP has 16 KiB for the processor, then 16 bytes for each 4 KiB page from address 0 (APM volume 2, 15.36.4).
fn reverse_map(scope: &Scope<'_>, needed: bool, base: u64, end: u64) -> Line {
    let reference = "AMD APM volume 2, section 15.36.4";
    if base == 0 || end <= base {
        return Line::missing("snp bios", needed, "no reverse map table is reserved (RMP_BASE and RMP_END)")
            .remedy("enable SEV-SNP support and \"SNP memory (RMP table) coverage\" in the BIOS")
            .see(reference);
    }
    let covered = ((end - base + 1).saturating_sub(16 << 10) / 16).saturating_mul(4096);
    let needed_end = scope.facts.kernel.end_of_memory;
    if needed_end > 0 && covered <= needed_end {
        return Line::missing(
            "snp bios",
            needed,
            format!("the reverse map table covers {} GiB, and memory ends at {} GiB", covered >> 30, needed_end >> 30),
        )
        .because("the kernel turns SNP off where some memory is not covered")
        .remedy("set \"SNP memory (RMP table) coverage\" in the BIOS to Enabled, for all memory")
        .see(reference);
    }
    Line::ok("snp bios", format!("the reverse map table covers {} GiB", covered >> 30))
}

fn iommu(scope: &Scope<'_>, needed: bool) -> Line {
    let kernel = &scope.facts.kernel;
    let bad = ["iommu=off", "amd_iommu=off", "iommu=pt", "iommu.passthrough=1", "amd_iommu=pgtbl_v2"];
    match bad.into_iter().find(|word| kernel.was_told(word)) {
        Some(word) => Line::missing("snp iommu", needed, format!("the kernel was booted with {word}"))
            .because("the kernel turns SNP off without an IOMMU that translates with version 1 tables")
            .remedy(format!("remove {word} from the kernel's command line and boot again"))
            .see("Linux drivers/iommu/amd/init.c, iommu_snp_enable"),
        None if kernel.option("CONFIG_AMD_IOMMU") == Some(false) => {
            Line::missing("snp iommu", needed, format!("kernel {} has no driver for AMD's IOMMU", kernel.release))
                .because("it was built without CONFIG_AMD_IOMMU, which SNP needs: Debian's cloud kernels are")
                .remedy("install linux-image-amd64")
        }
        None => Line::ok("snp iommu", "the kernel's command line leaves it as SNP needs it"),
    }
}

fn kernel(scope: &Scope<'_>, needed: bool) -> Line {
    let kernel = &scope.facts.kernel;
    if !scope.kernel_is((6, 11)) {
        return Line::missing("snp kernel", needed, format!("kernel {}", kernel.release))
            .because("Linux runs SNP guests since 6.11")
            .remedy("boot a kernel of 6.11 or later")
            .see(KERNEL);
    }
    if kernel.option("CONFIG_KVM_AMD_SEV") == Some(false) {
        return Line::missing("snp kernel", needed, format!("kernel {} lacks CONFIG_KVM_AMD_SEV", kernel.release))
            .remedy("boot a kernel that was built with it");
    }
    match kernel.parameter_is_on("kvm_amd.sev_snp") {
        Some(true) => Line::ok("snp kernel", "kvm_amd has sev_snp=Y"),
        Some(false) => Line::missing("snp kernel", needed, "kvm_amd has sev_snp=N")
            .because("it was loaded so, or the BIOS, the IOMMU or the secure processor stood in the way: see the other lines")
            .remedy("then: modprobe -r kvm_amd && modprobe kvm_amd sev=1 sev_es=1 sev_snp=1")
            .see(KERNEL),
        None => Line::missing("snp kernel", needed, "the module kvm_amd is not loaded")
            .remedy("modprobe kvm_amd")
            .see(KERNEL),
    }
}

fn kvm(scope: &Scope<'_>, needed: bool) -> Line {
    match scope.facts.supports(Tee::Snp) {
        Err(reason) => Line::missing("snp kvm", needed, reason).see("Linux Documentation/virt/kvm/api.rst, 8.20"),
        Ok(()) => private_memory(scope, needed, "snp kvm", SNP_VM),
    }
}

/// A VM of the type was created; it needs private memory, too.
pub(super) fn private_memory(scope: &Scope<'_>, needed: bool, topic: &'static str, vm_type: u32) -> Line {
    let kvm = &scope.facts.answers.kvm;
    if !kvm.guest_memfd || kvm.memory_attributes >> 3 & 1 == 0 {
        return Line::missing(topic, needed, "KVM has no private memory (guest_memfd and memory attributes)")
            .remedy("boot a kernel with CONFIG_KVM_PRIVATE_MEM or CONFIG_KVM_GUEST_MEMFD")
            .see("Linux Documentation/virt/kvm/api.rst, KVM_CREATE_GUEST_MEMFD");
    }
    Line::ok(topic, format!("a VM of type {vm_type} was created, with private memory"))
}

fn firmware(scope: &Scope<'_>, needed: bool) -> Line {
    let answers = &scope.facts.answers;
    let reference = "AMD 56860, SNP_PLATFORM_STATUS";
    let Some(status) = &answers.sev else {
        let found = answers.sev_error.clone().unwrap_or_else(|| "/dev/sev was not asked".to_owned());
        let line = Line::missing("snp firmware", needed, found.clone()).see(reference);
        return if found.contains("denied") {
            line.remedy("run it as root, or give your group access to /dev/sev by a udev rule")
        } else {
            line.because("the module ccp did not initialise the secure processor").remedy("modprobe ccp; see dmesg")
        };
    };
    let found = format!(
        "API {}.{} build {}, TCB {:#018x} (reported {:#018x}), {} guests",
        status.api.0, status.api.1, status.build, status.current_tcb, status.reported_tcb, status.guests
    );
    if status.api < FIRMWARE_FLOOR {
        return Line::missing("snp firmware", needed, found)
            .because(format!("SNP needs API {}.{} or later", FIRMWARE_FLOOR.0, FIRMWARE_FLOOR.1))
            .remedy("update the BIOS, or put a newer SEV firmware into /lib/firmware/amd and reload ccp")
            .see(reference);
    }
    if !status.rmp_initialised || status.state != 1 {
        return Line::missing("snp firmware", needed, found)
            .because("SNP is not initialised")
            .remedy("see dmesg for SEV-SNP; it is initialised when kvm_amd is loaded")
            .see(reference);
    }
    if status.reported_tcb != status.current_tcb {
        return Line::missing("snp firmware", false, found)
            .because("reports show an older TCB than what runs, until it is committed")
            .remedy("commit it with `snphost commit` once you do not want to go back");
    }
    Line::ok("snp firmware", found)
}
