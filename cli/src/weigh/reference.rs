//! The TDX registers of an image in its manifest: a platform part for the shapes that are wanted, and an image part.

use std::path::Path;

use launcher::qemu::oracle;
use measure::Digest384;
use measure::shape::Boot;
use measure::tdx::registers;
use spec::manifest::{Manifest, TdxDisk, TdxImage, TdxPlatform, TdxReference, TdxRtmr0, artifact};
use spec::size::Size;
use spec::{Outcome, Sha256Digest, Sha384Digest};

use super::disk::DiskFile;
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
    let mut known = match KnownFirmware::find(&file, &pins) {
        Ok(known) => known,
        Err(failure) if shapes.is_empty() && failure.outcome == Outcome::Refused => {
            machine.printer.note(format_args!("RTMRs are not predicted: {}", failure.messages.join(": ")));
            return Ok(reference);
        }
        Err(failure) => return Err(failure),
    };
    let (platform, qemu) = match shapes.is_empty() {
        true => (None, None),
        false => {
            known = known.starting(&directory.join(artifact::KERNEL))?;
            platform((&known, &file.bytes), Boot::Kernel, shapes, machine)
                .map(|(platform, qemu)| (Some(platform), qemu))?
        }
    };
    let disk = match manifest.artifacts.contains_key(artifact::DISK) {
        true => disk(&directory.join(artifact::DISK), (&known, &file.bytes), shapes, machine)?,
        false => None,
    };
    let boot = boot_files(directory, manifest)?;
    let [_, rtmr1, rtmr2, _] = registers(&known.image(&boot, qemu)?);
    let sha384 = |digest: Digest384| Sha384Digest(digest.0);
    Ok(TdxReference {
        firmware_pin: pins.find(&file.sha256).map(|pin| pin.name.clone()),
        platform,
        disk,
        image: Some(TdxImage { rtmr1: sha384(rtmr1), rtmr2: sha384(rtmr2) }),
        ..reference
    })
}

/// RTMR0 of each shape, and the version of the QEMU that was asked.
fn platform(
    (known, firmware): (&KnownFirmware<'_>, &[u8]),
    boot: Boot,
    shapes: &[(u32, u64)],
    machine: &Machine<'_>,
) -> Result<(TdxPlatform, Option<[u64; 3]>), Failure> {
    let asked = machine.oracle();
    let (mut rtmr0, mut version) = (Vec::new(), None);
    for (vcpus, memory_mib) in shapes.iter().copied() {
        let told = asked.ask(firmware, boot, vcpus, memory_mib)?;
        let [digest, ..] = registers(&match boot {
            Boot::Kernel => known.platform(&told.fw_cfg, memory_mib)?,
            Boot::Disk => known.platform_of_disk(&told.fw_cfg, memory_mib)?,
        });
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

/// The registers where firmware starts the disk at `path`. What is refused because nobody saw it is said, and left out.
fn disk(
    path: &Path,
    (known, firmware): (&KnownFirmware<'_>, &[u8]),
    shapes: &[(u32, u64)],
    machine: &Machine<'_>,
) -> Result<Option<TdxDisk>, Failure> {
    let predicted = || -> Result<Option<TdxDisk>, Failure> {
        let disk = DiskFile::read(path)?;
        let may_be: Vec<_> = known.disk(&disk).iter().map(registers).collect();
        let platform = match shapes.is_empty() {
            true => None,
            false => {
                let known = known.clone().starting_disk(path, &disk)?;
                Some(platform((&known, firmware), Boot::Disk, shapes, machine)?.0)
            }
        };
        let sha384 = |digest: &Digest384| Sha384Digest(digest.0);
        Ok(may_be.first().map(|[_, _, rtmr2, _]| TdxDisk {
            platform,
            rtmr1_one_of: may_be.iter().map(|[_, rtmr1, ..]| sha384(rtmr1)).collect(),
            rtmr2: sha384(rtmr2),
        }))
    };
    predicted().or_else(|failure: Failure| match failure.outcome {
        Outcome::Refused => {
            let reason = failure.messages.join(": ");
            machine.printer.note(format_args!("RTMRs of {} are not predicted: {reason}", path.display()));
            Ok(None)
        }
        _ => Err(failure),
    })
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
