//! The TDX registers of an image in its manifest: a platform part for the shapes that are wanted, and an image part.

use std::path::Path;

use launcher::qemu::oracle;
use measure::Digest384;
use measure::tdx::registers;
use spec::manifest::{Manifest, TdxImage, TdxPlatform, TdxReference, TdxRtmr0, artifact};
use spec::size::Size;
use spec::{Outcome, Sha256Digest, Sha384Digest};

use super::machine::Machine;
use super::registers::{BootFiles, KnownFirmware};
use crate::failure::Failure;
use crate::{inputs, tree};

/// Every combination of vCPU counts and memory sizes, these in MiB.
pub(crate) fn shapes(vcpus: &[u32], memory: &[Size]) -> Result<Vec<(u32, u64)>, Failure> {
    super::check_vcpus(vcpus)?;
    let memory = memory.iter().copied().map(super::whole_mib).collect::<Result<Vec<_>, _>>()?;
    Ok(vcpus.iter().flat_map(|vcpus| memory.iter().map(|memory_mib| (*vcpus, *memory_mib))).collect())
}

/// MRTD, RTMR0 of `shapes`, RTMR1 and RTMR2. Firmware whose events are not known has MRTD alone; that is said, and an error
/// where shapes are wanted.
pub(crate) fn tdx(
    directory: &Path,
    manifest: &Manifest,
    shapes: &[(u32, u64)],
    machine: &Machine<'_>,
) -> Result<TdxReference, Failure> {
    let reference = super::tdx(directory, manifest)?;
    let file = super::image_firmware(directory, manifest, artifact::FIRMWARE_TDX)?;
    let pins = inputs::pins()?;
    let known = match KnownFirmware::find(&file, &pins) {
        Ok(known) => known,
        Err(failure) if shapes.is_empty() && failure.outcome == Outcome::Refused => {
            machine.printer.note(format_args!("RTMRs are not predicted: {}", failure.messages.join(": ")));
            return Ok(reference);
        }
        Err(failure) => return Err(failure),
    };
    let (platform, qemu) = match shapes.is_empty() {
        true => (None, None),
        false => platform(&known, &file.bytes, shapes, machine).map(|(platform, qemu)| (Some(platform), qemu))?,
    };
    let boot = boot_files(directory, manifest)?;
    let [_, rtmr1, rtmr2, _] = registers(&known.image(&boot, qemu)?);
    let sha384 = |digest: Digest384| Sha384Digest(digest.0);
    Ok(TdxReference {
        firmware_pin: pins.find(&file.sha256).map(|pin| pin.name.clone()),
        platform,
        image: Some(TdxImage { rtmr1: sha384(rtmr1), rtmr2: sha384(rtmr2) }),
        ..reference
    })
}

/// RTMR0 of each shape, and the version of the QEMU that was asked.
fn platform(
    known: &KnownFirmware<'_>,
    firmware: &[u8],
    shapes: &[(u32, u64)],
    machine: &Machine<'_>,
) -> Result<(TdxPlatform, Option<[u64; 3]>), Failure> {
    let asked = machine.oracle()?;
    let (mut rtmr0, mut version) = (Vec::new(), None);
    for (vcpus, memory_mib) in shapes.iter().copied() {
        let told = asked.ask(firmware, vcpus, memory_mib)?;
        let [digest, ..] = registers(&known.platform(&told.fw_cfg, memory_mib)?);
        rtmr0.push(TdxRtmr0 { vcpus, memory_mib, rtmr0: Sha384Digest(digest.0) });
        version = told.qemu_version;
    }
    let numbers = version.unwrap_or_default();
    let platform = TdxPlatform {
        qemu_version: numbers.map(|number| number.to_string()).join("."),
        qemu_lock_sha256: tree::qemu_lock(machine.qemu)?,
        same_with: oracle::releases_alike(numbers),
        rtmr0,
    };
    Ok((platform, version))
}

/// Kernel, initrd and command line, as the manifest names them and no others.
pub(crate) fn boot_files(directory: &Path, manifest: &Manifest) -> Result<BootFiles, Failure> {
    let path = |name: &str| directory.join(name);
    let boot = BootFiles::read(&path(artifact::KERNEL), Some(&path(artifact::INITRD)), &manifest.command_line)?;
    let same = |name: &str, found: &Sha256Digest| match manifest.artifacts.get(name) {
        Some(artifact) if artifact.sha256 == *found => Ok(()),
        _ => Err(Failure::new(
            Outcome::InputMismatch,
            format!("{} has SHA-256 {found}, which is not in the manifest", path(name).display()),
        )
        .with_hint("the image was changed after it was built: build it again")),
    };
    same(artifact::KERNEL, &boot.kernel.sha256)?;
    if let Some(initrd) = &boot.initrd {
        same(artifact::INITRD, &initrd.sha256)?;
    }
    Ok(boot)
}
