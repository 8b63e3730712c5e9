//! Which sets of ACPI tables a compiled kernel admits: those that QEMU and firmware make for the machines that the recipe names,
//! asked of the QEMU that launches them.

use std::collections::BTreeSet;

use image::firmware_images;
use launcher::qemu::oracle::Devices;
use measure::shape::{Boot, Shape, SnpShape, TdxShape, TeeShape};
use spec::lock::Lock;
use spec::manifest::artifact;
use spec::recipe::{AdmittedMachine, ImageRecipe};
use spec::{Outcome, Sha256Digest, Tee};
use store::Store;

use crate::args::QemuChoice;
use crate::failure::Failure;
use crate::weigh::machine::Oracle;

/// The digests, each once, in ascending order.
pub(super) fn digests(
    image: &ImageRecipe,
    lock: &Lock,
    qemu: &QemuChoice,
    store: &Store,
) -> Result<Vec<Sha256Digest>, Failure> {
    let machines: Vec<AdmittedMachine> = image.admit.iter().flat_map(spec::recipe::Admit::machines).collect();
    if machines.is_empty() {
        return Ok(Vec::new());
    }
    let firmware = firmware_images(image, lock, store)?;
    let oracle = Oracle::new(qemu, store, Devices::default());
    let mut digests = BTreeSet::new();
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
        let AdmittedMachine { nics, volumes, pci, .. } = machine;
        let told = oracle.ask_of(firmware, &shape(&machine), Devices { nics, pci, volumes, ..Devices::default() })?;
        let digest = told.fw_cfg.admission().map_err(|error| {
            Failure::new(Outcome::HostCannot, format!("{error} ({}, {} vCPUs)", machine.tee, machine.vcpus))
        })?;
        digests.insert(Sha256Digest(digest.0));
    }
    Ok(digests.into_iter().collect())
}

/// The shape of a machine. Nothing else of it reaches the tables.
fn shape(machine: &AdmittedMachine) -> Shape {
    let (tee, cpu_model) = match machine.tee {
        Tee::None => (TeeShape::None, "max"),
        Tee::Snp => {
            let snp = SnpShape {
                policy: SnpShape::DEFAULT_POLICY,
                sev_features: SnpShape::SNP_ACTIVE,
                kernel_hashes: true,
                host_data: [0; 32],
                id_block: None,
            };
            (TeeShape::Snp(snp), "EPYC-v4")
        }
        Tee::Tdx => {
            let tdx = TdxShape { attributes: TdxShape::SEPT_VE_DISABLE, mrconfigid: [0; 48] };
            (TeeShape::Tdx(tdx), "host")
        }
    };
    let AdmittedMachine { vcpus, memory_mib, .. } = *machine;
    Shape { tee, boot: Boot::Kernel, vcpus, cpu_model: cpu_model.to_owned(), memory_mib }
}
