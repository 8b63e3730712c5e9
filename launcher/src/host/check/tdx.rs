//! TDX, from the silicon up: processor, kernel, module, KVM, and who makes quotes.

use spec::Tee;

use super::snp::private_memory;
use super::{Line, Scope};
use crate::host::TDX_VM;
use crate::host::answers::{QGS_PORT, QGS_SOCKET};

const KERNEL: &str = "Linux Documentation/arch/x86/tdx.rst";

pub(super) fn lines(scope: &Scope<'_>) -> Vec<Line> {
    let needed = scope.wants(Tee::Tdx);
    let cpu = &scope.facts.cpu;
    if !cpu.may_have_tdx() {
        return vec![
            Line::missing(
                "tdx processor",
                needed,
                format!("family {} model {} of {} has no TDX", cpu.family, cpu.model, cpu.vendor),
            )
            .because("Intel has it since Emerald Rapids, and on some Sapphire Rapids")
            .remedy("run this VM on such a server, or go through its launch with `bullion launch --simulate`"),
        ];
    }
    vec![kernel(scope, needed), module(scope, needed), kvm(scope, needed), quotes(scope)]
}

fn kernel(scope: &Scope<'_>, needed: bool) -> Line {
    let kernel = &scope.facts.kernel;
    if !scope.kernel_is((6, 16)) {
        return Line::missing("tdx kernel", needed, format!("kernel {}", kernel.release))
            .because("Linux runs TDX guests since 6.16")
            .remedy("boot a kernel of 6.16 or later that was built with CONFIG_INTEL_TDX_HOST and CONFIG_KVM_INTEL_TDX")
            .see(KERNEL);
    }
    let lacks = ["CONFIG_INTEL_TDX_HOST", "CONFIG_KVM_INTEL_TDX"];
    if let Some(option) = lacks.into_iter().find(|option| kernel.option(option) == Some(false)) {
        return Line::missing("tdx kernel", needed, format!("kernel {} lacks {option}", kernel.release))
            .because("no Debian kernel up to 7.3 was built as a TDX host")
            .remedy("boot a kernel that was: Ubuntu 25.10 and later have one")
            .see(KERNEL);
    }
    Line::ok("tdx kernel", format!("kernel {} can be a TDX host", kernel.release))
}

fn module(scope: &Scope<'_>, needed: bool) -> Line {
    let kernel = &scope.facts.kernel;
    if !scope.facts.cpu.shows("tdx_host_platform") {
        return Line::missing("tdx bios", needed, "the kernel does not see a TDX platform (tdx_host_platform)")
            .because("the BIOS left TDX off, or gave it no key identifiers")
            .remedy("enable TME, TME-MT, TDX, SEAM loader and at least 32 TDX private key IDs in the BIOS")
            .see(KERNEL);
    }
    match kernel.parameter_is_on("kvm_intel.tdx") {
        Some(true) => Line::ok("tdx bios", "the TDX module is initialised (kvm_intel has tdx=Y)"),
        Some(false) => Line::missing("tdx bios", needed, "kvm_intel has tdx=N")
            .because("it is off unless asked for, or the TDX module did not initialise: see dmesg for virt/tdx")
            .remedy("modprobe -r kvm_intel && modprobe kvm_intel tdx=1")
            .see(KERNEL),
        None => Line::missing("tdx bios", needed, "the module kvm_intel is not loaded")
            .remedy("modprobe kvm_intel tdx=1")
            .see(KERNEL),
    }
}

fn kvm(scope: &Scope<'_>, needed: bool) -> Line {
    let reference = "Linux Documentation/virt/kvm/x86/intel-tdx.rst";
    if let Err(reason) = scope.facts.supports(Tee::Tdx) {
        return Line::missing("tdx kvm", needed, reason).see(reference);
    }
    let Some(capabilities) = &scope.facts.answers.tdx else {
        return Line::missing("tdx kvm", needed, "KVM_TDX_CAPABILITIES failed on a throw-away TD").see(reference);
    };
    let line = private_memory(scope, needed, "tdx kvm", TDX_VM);
    let found = format!(
        "{}; ATTRIBUTES {:#x} and XFAM {:#x} are allowed",
        line.found, capabilities.attributes, capabilities.xfam
    );
    Line { found, ..line }
}

/// Guests start without a quote generation service; they cannot be attested.
fn quotes(scope: &Scope<'_>) -> Line {
    let answers = &scope.facts.answers;
    match (answers.qgs_socket, answers.qgs_vsock) {
        (true, _) => Line::ok("tdx quotes", format!("a quote generation service answers at {QGS_SOCKET}")),
        (false, true) => Line::ok("tdx quotes", format!("a quote generation service listens on vsock port {QGS_PORT}")),
        (false, false) => {
            Line::missing("tdx quotes", false, format!("nothing answers at {QGS_SOCKET} or on vsock port {QGS_PORT}"))
                .because("a guest's GetQuote fails, so that nobody can verify it from afar")
                .remedy("install tdx-qgs, and register the platform with Intel (PCKIDRetrievalTool or MPA)")
                .see("Intel DCAP, QuoteGeneration/quote_wrapper/qgs")
        }
    }
}
