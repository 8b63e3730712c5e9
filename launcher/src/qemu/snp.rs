//! SEV-SNP (QEMU documentation, "AMD Secure Encrypted Virtualization"; object `sev-snp-guest`).

use measure::shape::SnpShape;

use super::arguments::{Arguments, Properties, base64};
use super::{Accelerator, TeeArguments};
use crate::host::HostFacts;

/// How many physical address bits the page encryption takes from a guest. QEMU itself answers 1 for every CPU
/// (`query-sev-capabilities`), and the value is only seen in CPUID, which is not measured.
const REDUCED_PHYSICAL_BITS: &str = "1";
/// The most physical address bits shown to a guest: enough for eight GPUs with 128 GiB BARs, few enough for firmware that
/// sizes its page tables by them.
const MAX_PHYSICAL_BITS: u32 = 46;

pub(super) struct Snp<'a>(pub(super) &'a SnpShape);

impl TeeArguments for Snp<'_> {
    fn cpu(&self, model: Properties, _: Accelerator, facts: &HostFacts) -> Properties {
        // Named models have 40 bits by default, in which a single 128 GiB BAR fits.
        let bits = facts.physical_address_bits.min(MAX_PHYSICAL_BITS).to_string();
        model.with("phys-bits", &bits).with("pmu", "off")
    }

    fn machine(&self, machine: Properties) -> Properties {
        machine.with("kernel-irqchip", "split")
    }

    fn confidential_guest(&self, facts: &HostFacts) -> Option<Properties> {
        let guest = Properties::of("sev-snp-guest")
            .with("id", "tee")
            .with("policy", &format!("{:#x}", self.0.policy))
            .with("kernel-hashes", if self.0.kernel_hashes { "on" } else { "off" })
            .with("host-data", &base64(&self.0.host_data))
            .with("cbitpos", &facts.c_bit_position.to_string())
            .with("reduced-phys-bits", REDUCED_PHYSICAL_BITS);
        let Some((block, auth)) = self.0.id_block.as_deref() else { return Some(guest) };
        let guest = guest.with("id-block", &base64(&block.to_bytes())).with("id-auth", &base64(&auth.to_bytes()));
        Some(if auth.author.is_some() { guest.with("author-key-enabled", "on") } else { guest })
    }

    fn options(&self, _: &mut Arguments) {}

    fn virtio(&self, device: Properties) -> Properties {
        device.with("disable-legacy", "on").with("iommu_platform", "on")
    }

    fn shared_memory(&self) -> bool {
        true
    }

    fn types(&self) -> &'static [&'static str] {
        &["sev-snp-guest", "memory-backend-memfd"]
    }
}
