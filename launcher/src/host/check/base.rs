//! What every guest needs: a processor, KVM, QEMU, memory, a clock.

use spec::Tee;

use super::{Line, Qemu, Scope};
use crate::host::KvmAccess;
use crate::qemu::features::FLOOR;

pub(super) fn lines(scope: &Scope<'_>, qemu: Qemu<'_>) -> Vec<Line> {
    let mut lines = vec![processor(scope), kernel(scope), kvm(scope)];
    if scope.facts.cpu.is_virtual {
        let needed = scope.needs.is_some_and(|needs| needs.tee != Tee::None);
        lines.push(
            Line::missing("bare metal", needed, "this host is a virtual machine itself (CPUID Fn0000_0001 ECX[31])")
                .because("SEV-SNP and TDX guests are started on bare metal only")
                .remedy("run Bullion on the server itself; `bullion launch --simulate` works here"),
        );
    }
    lines.extend([self::qemu(scope, qemu), memory(scope), clock(scope)]);
    lines
}

fn processor(scope: &Scope<'_>) -> Line {
    let cpu = &scope.facts.cpu;
    let found = format!(
        "{}, {} CPUs, family {} model {} stepping {} (signature {:#x}), microcode {}, {} address bits",
        if cpu.name.is_empty() { &cpu.vendor } else { &cpu.name },
        cpu.count,
        cpu.family,
        cpu.model,
        cpu.stepping,
        cpu.signature,
        if cpu.microcode.is_empty() { "unknown" } else { &cpu.microcode },
        cpu.physical_address_bits
    );
    match scope.needs {
        Some(needs) if needs.vcpus as usize > cpu.count => Line::missing("processor", false, found)
            .because(format!("the VM has {} vCPUs, more than there are CPUs", needs.vcpus))
            .remedy("lower `vcpus`, which is part of an SNP guest's measurement"),
        _ => Line::ok("processor", found),
    }
}

fn kernel(scope: &Scope<'_>) -> Line {
    let told: Vec<_> = scope.facts.kernel.command_line.iter().map(String::as_str).collect();
    let relevant =
        ["iommu", "kvm", "mem_encrypt", "hugepages", "default_hugepagesz", "vfio", "modprobe", "nosmp", "tsx"];
    let shown: Vec<_> = told.into_iter().filter(|word| relevant.iter().any(|part| word.contains(part))).collect();
    let with = if shown.is_empty() { String::new() } else { format!(", booted with {}", shown.join(" ")) };
    Line::ok("kernel", format!("{}{with}", scope.facts.kernel_release))
}

fn kvm(scope: &Scope<'_>) -> Line {
    let answers = &scope.facts.answers.kvm;
    match &scope.facts.kvm {
        KvmAccess::Usable { vm_types } => {
            let private = if answers.guest_memfd { ", private memory (guest_memfd)" } else { "" };
            Line::ok("kvm", format!("creates VMs of types {vm_types:#x}{private}"))
        }
        KvmAccess::Unusable { reason } => {
            // Without a VM in mind a host without KVM is one that launches nothing worth launching.
            let needed = scope.needs.is_none_or(|needs| needs.kvm);
            let line = Line::missing("kvm", needed, reason.clone());
            if reason.contains("no permission") {
                line.because("guests run under this user").remedy("add the user to the group kvm, then log in again")
            } else {
                let module = if scope.facts.cpu.is_amd() { "kvm_amd" } else { "kvm_intel" };
                line.because("the CPU's virtualisation is off in the BIOS, or the module is not loaded")
                    .remedy(format!("enable SVM or VT-x in the BIOS, then: modprobe {module}"))
            }
            .see("Linux Documentation/virt/kvm/api.rst")
        }
    }
}

fn qemu(scope: &Scope<'_>, qemu: Qemu<'_>) -> Line {
    let floor = FLOOR.map(|number| number.to_string()).join(".");
    match qemu {
        Qemu::Known(features) if features.version < FLOOR => {
            Line::missing("qemu", true, format!("QEMU {}", features.version_text()))
                .because(format!("QEMU {floor} is the first with TDX and with devices for guests that share memory"))
                .remedy("leave `--qemu` out: the pinned QEMU has all that is needed")
        }
        Qemu::Known(features) => {
            let object = match scope.needs.map(|needs| needs.tee) {
                Some(Tee::Snp) => Some("sev-snp-guest"),
                Some(Tee::Tdx) => Some("tdx-guest"),
                _ => None,
            };
            match object.filter(|object| !features.types.contains(*object)) {
                Some(object) => {
                    Line::missing("qemu", true, format!("QEMU {} has no {object}", features.version_text()))
                        .remedy("leave `--qemu` out: the pinned QEMU has all that is needed")
                }
                None if !features.sandbox => {
                    Line::missing("qemu", false, format!("QEMU {} without -sandbox", features.version_text()))
                        .because("it was built without seccomp, and runs unconfined")
                }
                None => Line::ok("qemu", format!("QEMU {}, with -sandbox", features.version_text())),
            }
        }
        Qemu::NotFetched => Line::missing("qemu", scope.needs.is_some(), "the pinned QEMU is not in the cache")
            .remedy("bullion fetch --vmm, or name another with --qemu PATH"),
        Qemu::Unusable(reason) => Line::missing("qemu", true, reason),
    }
}

fn memory(scope: &Scope<'_>) -> Line {
    let memory = &scope.facts.memory;
    let nodes = memory.nodes.iter().map(|(number, node)| {
        let pages = node.huge_pages.iter().filter(|(_, (all, _))| *all > 0);
        let pages: Vec<_> =
            pages.map(|(size, (all, free))| format!(", {free} of {all} huge pages of {} MiB", size >> 10)).collect();
        format!("; node {number}: {} of {} MiB available{}", node.available_mib, node.total_mib, pages.concat())
    });
    let found = format!("{} MiB available{}", memory.available_mib, nodes.collect::<String>());
    match scope.needs {
        Some(needs) if needs.memory_mib > memory.available_mib => Line::missing("memory", true, found)
            .because(format!("the VM has {} MiB, and a TEE's memory is never swapped", needs.memory_mib))
            .remedy("stop other VMs, free huge pages that nobody uses, or lower `memory`"),
        _ => Line::ok("memory", found),
    }
}

fn clock(scope: &Scope<'_>) -> Line {
    let source = &scope.facts.kernel.clock_source;
    let source = if source.is_empty() { "unknown" } else { source };
    match scope.facts.answers.clock_synchronised {
        Some(false) => Line::missing("clock", false, format!("source {source}, not synchronised"))
            .because("certificates and collateral are judged by this clock")
            .remedy("run a time service, such as systemd-timesyncd or chrony")
            .see("adjtimex(2), STA_UNSYNC"),
        Some(true) => Line::ok("clock", format!("source {source}, synchronised")),
        None => Line::ok("clock", format!("source {source}")),
    }
}
