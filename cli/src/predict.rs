//! What a TD should measure when an image is launched: as much as can be told from what is there. What cannot be told is
//! named with its reason, and never guessed.

use std::path::Path;

use measure::Digest384;
use measure::firmware::TdxLayout;
use measure::linux::{self, QemuVersion};
use measure::tdx::image::{Image, StubInputs, load_options};
use measure::tdx::mrtd::{PageOrder, mrtd};
use measure::tdx::platform::{AcpiDigests, Platform};
use measure::tdx::{Input, PredictedEvent, Profile, Rtmr};
use spec::manifest::{Manifest, artifact};

use crate::failure::Failure;
use crate::firmware::{FirmwareFile, facts};
use crate::inputs;

/// The oldest QEMU that starts TDs as `launch` does; the pinned one is later. All since 10.2 leave the kernel as it is.
const QEMU: QemuVersion = QemuVersion(10, 2);

/// What a TD should measure.
#[derive(Default)]
pub(crate) struct TdxPrediction {
    /// MRTD as each page is added and measured, and as all pages of a section are added first.
    pub(crate) mrtd: Option<(Digest384, Digest384)>,
    /// The firmware's sections.
    pub(crate) layout: Option<TdxLayout>,
    /// What is known of its version.
    pub(crate) profile: Option<&'static Profile>,
    /// The events of the registers that are predicted.
    pub(crate) events: Vec<PredictedEvent>,
    /// Inputs of which nothing is known; the digests of their events mean nothing.
    pub(crate) unknown: Vec<Input>,
    /// The registers whose events are predicted.
    pub(crate) registers: Vec<Rtmr>,
    /// Why something is not predicted.
    pub(crate) reasons: Vec<String>,
}

impl TdxPrediction {
    /// For an image whose artifacts are in `directory`.
    pub(crate) fn new(directory: &Path, manifest: &Manifest, memory_mib: Option<u64>) -> Result<Self, Failure> {
        let mut prediction = Self::default();
        let path = directory.join(artifact::FIRMWARE_TDX);
        let Some(firmware) = verified(&path, manifest, artifact::FIRMWARE_TDX)? else {
            prediction.mrtd = manifest.references.tdx.first().map(|tdx| (Digest384(tdx.mrtd.0), Digest384(tdx.mrtd.0)));
            prediction.reasons.push(format!("the registers need the firmware, which is not at {}", path.display()));
            return Ok(prediction);
        };
        let parsed = firmware.parse()?;
        let of = |order| mrtd(&parsed, order).map_err(|error| crate::weigh::unusable(&path, &error));
        prediction.mrtd = Some((of(PageOrder::SinglePass)?, of(PageOrder::TwoPass)?));
        prediction.layout = parsed.tdx_layout().ok();
        let pins = inputs::pins()?;
        let profile = pins.find(&firmware.sha256).map(|pin| facts(pin).map(|facts| facts.profile));
        match profile {
            Some(Ok(profile)) => prediction.profile = Some(profile),
            Some(Err(error)) => prediction.reasons.push(error.to_string()),
            None => prediction.reasons.push("the firmware is not pinned: which events it measures is not known".into()),
        }
        if let Some(profile) = prediction.profile {
            prediction.platform(&firmware, profile, memory_mib);
            prediction.image(directory, manifest, profile)?;
        }
        Ok(prediction)
    }

    /// RTMR0, but for the ACPI tables.
    fn platform(&mut self, firmware: &FirmwareFile, profile: &'static Profile, memory_mib: Option<u64>) {
        /// Any size at which the TD HOB can be made.
        const PLACEHOLDER_MIB: u64 = 4096;
        let acpi = AcpiDigests::of(b"", b"", b"");
        let memory = memory_mib.unwrap_or(PLACEHOLDER_MIB);
        let platform = firmware
            .parse()
            .map_err(|failure| failure.messages.join(": "))
            .and_then(|firmware| Platform::new(&firmware, profile, memory, acpi).map_err(|error| error.to_string()));
        let platform = match platform {
            Ok(platform) => platform,
            Err(reason) => return self.reasons.push(format!("RTMR0 is not predicted: {reason}")),
        };
        self.events.extend(platform.events());
        self.registers.push(Rtmr::Rtmr0);
        self.unknown.extend([Input::AcpiLoader, Input::AcpiRsdp, Input::AcpiTables]);
        self.reasons.push("the ACPI tables are not known: vCPUs, devices and QEMU's version are not compared".into());
        if memory_mib.is_none() {
            self.unknown.push(Input::TdHob);
            self.reasons.push("the memory size is not known: name it with --memory, or a vm.toml".into());
        }
    }

    /// RTMR1 and RTMR2.
    fn image(&mut self, directory: &Path, manifest: &Manifest, profile: &'static Profile) -> Result<(), Failure> {
        if !linux::is_measured_raw(QEMU, profile.takes_raw_kernel()) {
            self.reasons.push("RTMR1 is not predicted: QEMU changes the kernel".into());
            return Ok(());
        }
        let read = |name: &str| read_verified(&directory.join(name), manifest, name);
        let (Some(kernel), Some(initrd)) = (read(artifact::KERNEL)?, read(artifact::INITRD)?) else {
            self.reasons.push("RTMR1 and RTMR2 need kernel and initrd, which are not beside the manifest".into());
            return Ok(());
        };
        let digest = measure::authenticode::sha384(&kernel);
        let measures = linux::version(&kernel).ok().and_then(linux::stub_measures);
        let (Ok(kernel), Some(measures)) = (digest, measures) else {
            self.reasons.push("RTMR1 and RTMR2 are not predicted: the kernel is not understood".into());
            return Ok(());
        };
        let stub = measures.then(|| StubInputs {
            load_options: load_options(profile, &manifest.command_line, true),
            initrd: Some(Digest384::of(&initrd)),
        });
        self.events.extend(Image { profile: *profile, kernel, stub }.events());
        self.registers.extend([Rtmr::Rtmr1, Rtmr::Rtmr2]);
        Ok(())
    }

    /// The predicted value of a register; `None` where it is not, or not all of it.
    pub(crate) fn register(&self, register: Rtmr) -> Option<Digest384> {
        let events = || self.events.iter().filter(|event| event.register == register);
        let is_known = self.registers.contains(&register) && events().all(|event| !self.unknown.contains(&event.input));
        is_known.then(|| events().fold(Digest384::ZERO, |value, event| value.extended(&event.digest)))
    }
}

/// An artifact that is there and is what the manifest says; `None` where it is not there.
fn verified(path: &Path, manifest: &Manifest, name: &str) -> Result<Option<FirmwareFile>, Failure> {
    if !path.exists() || !manifest.artifacts.contains_key(name) {
        return Ok(None);
    }
    let directory = path.parent().unwrap_or(Path::new(""));
    crate::weigh::image_firmware(directory, manifest, name).map(Some)
}

fn read_verified(path: &Path, manifest: &Manifest, name: &str) -> Result<Option<Vec<u8>>, Failure> {
    let (true, Some(artifact)) = (path.exists(), manifest.artifacts.get(name)) else { return Ok(None) };
    let bytes = inputs::read_file(path, artifact.size, "the manifest says it")?;
    if spec::Sha256Digest::of(&bytes) != artifact.sha256 {
        let message = format!("{} is not the {name} of the manifest", path.display());
        return Err(Failure::new(spec::Outcome::InputMismatch, message));
    }
    Ok(Some(bytes))
}
