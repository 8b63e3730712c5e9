//! What a TD should measure when an image is launched: as much as can be told from what is there. What cannot be told is
//! named with its reason, and never guessed. The events themselves come from `registers`, as all predictions do.

use std::path::Path;

use launcher::qemu::oracle::Answer as Told;
use measure::Digest384;
use measure::firmware::TdxLayout;
use measure::shape::Boot;
use measure::tdx::mrtd::{PageOrder, mrtd};
use measure::tdx::{Input, PredictedEvent, Rtmr};
use spec::Outcome;
use spec::manifest::{Manifest, artifact};
use spec::pins::Pins;

use super::disk::DiskFile;
use super::machine::Machine;
use super::reference::boot_files;
use super::registers::KnownFirmware;
use crate::failure::Failure;
use crate::firmware::FirmwareFile;
use crate::inputs;

/// The machine that is expected, as far as anybody said.
pub(crate) struct WantedMachine<'a> {
    /// What firmware starts.
    pub(crate) boot: Boot,
    pub(crate) vcpus: Option<u32>,
    pub(crate) memory_mib: Option<u64>,
    /// Captured tables, instead of asking QEMU.
    pub(crate) captured: Option<&'a Path>,
    /// Who is asked otherwise.
    pub(crate) machine: Machine<'a>,
}

/// What a TD should measure.
#[derive(Default)]
pub(crate) struct TdxPrediction {
    /// MRTD as each page is added and measured, and as all pages of a section are added first.
    pub(crate) mrtd: Option<(Digest384, Digest384)>,
    /// The firmware's sections.
    pub(crate) layout: Option<TdxLayout>,
    /// The events of the registers that are predicted.
    pub(crate) events: Vec<PredictedEvent>,
    /// Those of RTMR1 as they may be as well (`measure::tdx::profile::DiskBoot`).
    other_rtmr1: Option<Vec<PredictedEvent>>,
    /// Inputs of which nothing is known; the digests of their events mean nothing.
    pub(crate) unknown: Vec<Input>,
    /// The registers whose events are predicted.
    pub(crate) registers: Vec<Rtmr>,
    /// Why something is not predicted.
    pub(crate) reasons: Vec<String>,
}

/// The firmware of an image, starting what the image has: where keys are enrolled, that is verified.
pub(crate) fn expected_firmware<'a>(
    boot: Boot,
    directory: &Path,
    firmware: &'a FirmwareFile,
    pins: &'a Pins,
) -> Result<KnownFirmware<'a>, Failure> {
    let known = KnownFirmware::find(firmware, pins)?;
    match boot {
        Boot::Kernel => known.starting(&directory.join(artifact::KERNEL)),
        Boot::Disk if known.has_keys() => {
            let path = directory.join(artifact::DISK);
            known.starting_disk(&path, &DiskFile::read(&path)?)
        }
        Boot::Disk => Ok(known),
    }
}

/// MRTD in both orders without the image: by the firmware's pin; else what the manifest has, for the order of today.
fn mrtd_alone(manifest: &Manifest, pins: &Pins) -> Option<(Digest384, Digest384)> {
    let artifact = manifest.artifacts.get(artifact::FIRMWARE_TDX);
    let part = artifact.and_then(|artifact| pins.find(&artifact.sha256)?.tdx);
    let reference = || manifest.references.tdx.first().map(|tdx| (tdx.mrtd, tdx.mrtd));
    let both = part.map(|part| (part.mrtd, part.mrtd_two_pass)).or_else(reference);
    both.map(|(single, two)| (Digest384(single.0), Digest384(two.0)))
}

impl TdxPrediction {
    /// For an image whose artifacts are in `directory`.
    pub(crate) fn new(directory: &Path, manifest: &Manifest, wanted: &WantedMachine<'_>) -> Result<Self, Failure> {
        let mut prediction = Self::default();
        let path = directory.join(artifact::FIRMWARE_TDX);
        let pins = inputs::pins()?;
        if !path.exists() || !manifest.artifacts.contains_key(artifact::FIRMWARE_TDX) {
            prediction.mrtd = mrtd_alone(manifest, &pins);
            prediction.reasons.push(format!("the registers need the firmware, which is not at {}", path.display()));
            return Ok(prediction);
        }
        let firmware = super::image_firmware(directory, manifest, artifact::FIRMWARE_TDX)?;
        let parsed = firmware.parse()?;
        let of = |order| mrtd(&parsed, order).map_err(|error| super::unusable(&path, &error));
        prediction.mrtd = Some((of(PageOrder::SinglePass)?, of(PageOrder::TwoPass)?));
        prediction.layout = parsed.tdx_layout().ok();
        let known = expected_firmware(wanted.boot, directory, &firmware, &pins);
        let Some(known) = prediction.or_reason("RTMRs are", known)? else {
            return Ok(prediction);
        };
        let qemu_version = prediction.platform(&firmware, &known, wanted)?;
        match wanted.boot {
            Boot::Kernel => prediction.image(directory, manifest, &known, qemu_version)?,
            Boot::Disk => prediction.disk(directory, &known)?,
        }
        Ok(prediction)
    }

    /// RTMR0; the version of the QEMU that was asked.
    fn platform(
        &mut self,
        firmware: &FirmwareFile,
        known: &KnownFirmware<'_>,
        wanted: &WantedMachine<'_>,
    ) -> Result<Option<[u64; 3]>, Failure> {
        /// Any machine, to see which events there are.
        const ANY: (u32, u64) = (1, 4096);
        let (vcpus, memory_mib) = (wanted.vcpus.unwrap_or(ANY.0), wanted.memory_mib.unwrap_or(ANY.1));
        let told = match wanted.captured {
            Some(directory) => Told::import(directory)?,
            None => {
                let told = wanted.machine.oracle().ask(&firmware.bytes, wanted.boot, vcpus, memory_mib);
                match told {
                    Ok(told) => told,
                    // Nobody said which QEMU: that there is none is a reason, not a fault.
                    Err(failure) if wanted.machine.qemu.is_default() => {
                        self.reasons.push(format!("RTMR0 is not predicted: {}", failure.messages.join(": ")));
                        self.reasons.extend(failure.hint);
                        return Ok(None);
                    }
                    Err(failure) => return Err(failure),
                }
            }
        };
        let events = match wanted.boot {
            Boot::Kernel => known.platform(&told.fw_cfg, memory_mib),
            Boot::Disk => known.platform_of_disk(&told.fw_cfg, memory_mib),
        };
        let Some(events) = self.or_reason("RTMR0 is", events)? else {
            return Ok(told.qemu_version);
        };
        self.events.extend(events);
        self.registers.push(Rtmr::Rtmr0);
        if wanted.captured.is_none() && (wanted.vcpus, wanted.memory_mib) != (Some(vcpus), Some(memory_mib)) {
            self.unknown.extend([Input::AcpiLoader, Input::AcpiRsdp, Input::AcpiTables, Input::Smbios]);
        }
        if wanted.vcpus.is_none() && wanted.captured.is_none() {
            self.reasons.push("the number of vCPUs is not known: name it with --vcpus, or a vm.toml".into());
        }
        if wanted.memory_mib.is_none() {
            self.unknown.push(Input::TdHob);
            self.reasons.push("the memory size is not known: name it with --memory, or a vm.toml".into());
        }
        Ok(told.qemu_version)
    }

    /// RTMR1 and RTMR2.
    fn image(
        &mut self,
        directory: &Path,
        manifest: &Manifest,
        known: &KnownFirmware<'_>,
        qemu_version: Option<[u64; 3]>,
    ) -> Result<(), Failure> {
        let names = [artifact::KERNEL, artifact::INITRD];
        if names.iter().any(|name| !directory.join(name).exists() || !manifest.artifacts.contains_key(*name)) {
            self.reasons.push("RTMR1 and RTMR2 need kernel and initrd, which are not beside the manifest".into());
            return Ok(());
        }
        let boot = boot_files(directory, manifest)?;
        if let Some(events) = self.or_reason("RTMR1 and RTMR2 are", known.image(&boot, qemu_version))? {
            self.events.extend(events);
            self.registers.extend([Rtmr::Rtmr1, Rtmr::Rtmr2]);
        }
        Ok(())
    }

    /// RTMR1 and RTMR2 where firmware starts the disk.
    fn disk(&mut self, directory: &Path, known: &KnownFirmware<'_>) -> Result<(), Failure> {
        let path = directory.join(artifact::DISK);
        let Some(disk) = self.or_reason("RTMR1 and RTMR2 are", DiskFile::read(&path))? else { return Ok(()) };
        let mut may_be = known.disk(&disk).into_iter();
        self.events.extend(may_be.next().unwrap_or_default());
        let is_of_rtmr1 = |event: &PredictedEvent| event.register == Rtmr::Rtmr1;
        self.other_rtmr1 = may_be.next().map(|events| events.into_iter().filter(is_of_rtmr1).collect());
        self.registers.extend([Rtmr::Rtmr1, Rtmr::Rtmr2]);
        Ok(())
    }

    /// Where RTMR1 may have two values, takes the one that is nearer to what was found: both are right.
    pub(crate) fn choose(&mut self, distance: impl Fn(&[PredictedEvent]) -> usize) {
        let Some(other) = self.other_rtmr1.take() else { return };
        let (rtmr1, rest): (Vec<_>, Vec<_>) =
            self.events.iter().copied().partition(|event| event.register == Rtmr::Rtmr1);
        let nearest = if distance(&other) < distance(&rtmr1) { other } else { rtmr1 };
        self.events = rest.into_iter().chain(nearest).collect();
    }

    /// What was found; where it is refused because it is not known, that is a reason.
    fn or_reason<T>(&mut self, what: &str, found: Result<T, Failure>) -> Result<Option<T>, Failure> {
        match found {
            Ok(found) => Ok(Some(found)),
            Err(failure) if failure.outcome == Outcome::Refused => {
                self.reasons.push(format!("{what} not predicted: {}", failure.messages.join(": ")));
                Ok(None)
            }
            Err(failure) => Err(failure),
        }
    }

    /// The predicted value of a register; `None` where it is not, or not all of it.
    pub(crate) fn register(&self, register: Rtmr) -> Option<Digest384> {
        let events = || self.events.iter().filter(|event| event.register == register);
        let is_known = self.registers.contains(&register) && events().all(|event| !self.unknown.contains(&event.input));
        is_known.then(|| events().fold(Digest384::ZERO, |value, event| value.extended(&event.digest)))
    }
}
