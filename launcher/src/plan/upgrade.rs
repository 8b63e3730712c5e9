//! An old manifest under a new QEMU, or with new firmware: its reference values are of a machine that this launch would not be.
//!
//! A guest that is launched all the same would be refused by everyone who compares, one by one and far away. So it is refused
//! here, with the values that have to be predicted again.

use spec::Tee;
use spec::manifest::{TdxReference, artifact};

use super::{Inputs, PlanError};

/// Refuses a TDX guest whose manifest has values that this QEMU, or the image's firmware, does not lead to. SNP measures neither
/// QEMU's tables nor its devices, and a firmware that is not the measured one is found by its hash.
pub(super) fn check(inputs: &Inputs<'_>) -> Result<(), PlanError> {
    let manifest = &inputs.image.manifest;
    let references = &manifest.references.tdx;
    let firmware = manifest.artifacts.get(artifact::FIRMWARE_TDX).map(|firmware| firmware.sha256);
    let (Some(firmware), Some(first), Tee::Tdx) = (firmware, references.first(), inputs.vm.tee) else { return Ok(()) };
    let moved = match references.iter().find(|reference| reference.firmware_sha256 == firmware) {
        Some(reference) => by_qemu(inputs, reference),
        None => {
            let (then, now) = (first.firmware_sha256.short(), firmware.short());
            Some(format!("MRTD and RTMR0 are of firmware {then}, and its firmware is {now}"))
        }
    };
    moved.map_or(Ok(()), |moved| Err(PlanError::Outdated { image: manifest.name.clone(), moved }))
}

fn by_qemu(inputs: &Inputs<'_>, reference: &TdxReference) -> Option<String> {
    let platform = reference.platform.as_ref().filter(|platform| !platform.rtmr0.is_empty())?;
    let [major, minor, _] = inputs.features.version;
    let release = format!("{major}.{minor}");
    let known = platform.same_with.contains(&release);
    let alike = platform.same_with.join(", ");
    (!known).then(|| {
        let (then, now) = (&platform.qemu_version, inputs.features.version_text());
        format!("RTMR0 is of QEMU {then} (the same with {alike}), and this is QEMU {now}")
    })
}
