//! Which sets of ACPI tables a compiled kernel admits: those that QEMU and firmware make for the machines that the recipe names,
//! asked of the QEMU that launches them. That is the pinned one: what another says is of no use to whoever launches a release.

use std::collections::BTreeSet;

use image::firmware_images;
use launcher::qemu::oracle::Devices;
use spec::lock::Lock;
use spec::manifest::{AcpiAdmission, artifact};
use spec::recipe::{AdmittedMachine, ImageRecipe};
use spec::{Outcome, Tee};
use store::Store;

use crate::args::QemuChoice;
use crate::failure::Failure;
use crate::tree;
use crate::weigh::admission;
use crate::weigh::machine::Oracle;

/// The digests, each once, in ascending order; `None` where the recipe names no machine. With `believe_cache`, what QEMU
/// answered before is taken from the cache.
pub(super) fn of(
    image: &ImageRecipe,
    lock: &Lock,
    qemu: &QemuChoice,
    store: &Store,
    believe_cache: bool,
) -> Result<Option<AcpiAdmission>, Failure> {
    let machines: Vec<AdmittedMachine> = image.admit.iter().flat_map(spec::recipe::Admit::machines).collect();
    if machines.is_empty() {
        return Ok(None);
    }
    let lock_sha256 = tree::qemu_lock(qemu)?.filter(|_| qemu.is_default()).ok_or_else(|| {
        Failure::new(Outcome::Refused, "a release admits the ACPI tables of the pinned QEMU, and another was named")
            .with_hint("leave out --qemu and --vmm, or make an image of class dev without --release")
    })?;
    let firmware = firmware_images(image, lock, store)?;
    // Dropped, it leaves nothing.
    let apart = store.new_tree(&lock_sha256)?;
    let answers = if believe_cache { store.root() } else { apart.path() };
    let oracle = Oracle::looked_through(qemu, store, answers);
    let (mut digests, mut version) = (BTreeSet::new(), [0; 3]);
    for machine in machines {
        let of = |name: &str| {
            firmware.get(name).map(Vec::as_slice).ok_or_else(|| {
                let message = format!("kernel.admit names {}, and the recipe has no firmware for it", machine.tee);
                Failure::new(Outcome::Usage, message)
            })
        };
        let firmware = match machine.tee {
            // QEMU's own.
            Tee::None => &[][..],
            Tee::Snp => of(artifact::FIRMWARE_SNP)?,
            Tee::Tdx => of(artifact::FIRMWARE_TDX)?,
        };
        let AdmittedMachine { tee, vcpus, memory_mib, nics, volumes, pci, large_bars, watchdog, pvpanic } = machine;
        let devices = Devices { nics, pci, large_bars, volumes, watchdog, pvpanic, ..Devices::default() };
        let (digest, qemu_version) = admission::digest(&oracle, firmware, (tee, vcpus, memory_mib), devices)?;
        digests.insert(digest);
        version = qemu_version;
    }
    Ok(Some(AcpiAdmission {
        qemu_version: version.map(|number| number.to_string()).join("."),
        qemu_lock_sha256: lock_sha256,
        digests: digests.into_iter().collect(),
    }))
}
