//! The machine of a TEE without the TEE: the same devices, slots and tables, on any host.
//!
//! What is replaced is what only the real host has: the object that makes the machine confidential, and the host's own
//! CPU. Neither reaches the tables that QEMU gives to firmware (teesim compares the two).

use super::arguments::{Arguments, Properties};
use super::{Accelerator, TeeArguments};
use crate::host::HostFacts;

/// The physical address bits of the CPU. OVMF places 64-bit BARs by them, and uses at most 46 of what servers with a
/// TEE have (edk2 `OvmfPkg/Library/PlatformInitLib/MemDetect.c`); QEMU's translator has 40 by default.
const PHYSICAL_BITS: &str = "46";

/// `inner` on a host without a TEE.
pub(super) struct StandIn<'a> {
    pub(super) inner: Box<dyn TeeArguments + 'a>,
    /// Whether its processor is Intel's. QEMU's translator is AMD's by default, and memory of a machine of AMD's lies above 1 TiB where it
    /// and the window for BARs reach 1012 GiB (QEMU `hw/i386/pc.c`, `enforce_amd_1tb_hole`).
    pub(super) is_intel: bool,
}

impl TeeArguments for StandIn<'_> {
    fn cpu(&self, _: Properties, _: Accelerator, _: &HostFacts) -> Properties {
        let cpu = Properties::of("max").with("phys-bits", PHYSICAL_BITS).with("pmu", "off");
        if self.is_intel { cpu.with("vendor", "GenuineIntel") } else { cpu }
    }

    fn machine(&self, machine: Properties) -> Properties {
        self.inner.machine(machine)
    }

    fn confidential_guest(&self, _: &HostFacts) -> Option<Properties> {
        None
    }

    fn options(&self, arguments: &mut Arguments) {
        self.inner.options(arguments);
    }

    fn virtio(&self, device: Properties) -> Properties {
        self.inner.virtio(device)
    }

    fn shared_memory(&self) -> bool {
        self.inner.shared_memory()
    }

    fn types(&self) -> &'static [&'static str] {
        &["memory-backend-memfd"]
    }
}
