//! RTMR0 to RTMR2 of direct kernel boots: which files and which answers of QEMU they are made of. The events are `measure`'s.

use std::os::unix::fs::FileExt as _;
use std::path::Path;

use measure::Digest384;
use measure::authenticode::streamed::Hasher;
use measure::firmware::{Firmware, TdxSectionType};
use measure::fw_cfg::FwCfg;
use measure::linux::{self, QemuVersion};
use measure::tdx::PredictedEvent;
use measure::tdx::image::{Image, StubInputs, load_options};
use measure::tdx::platform::{FirmwareFacts, Platform, PlatformError};
use measure::uefi::load_option::PciSlot;
use measure::uefi::{Authority, AuthorityError, SecureBootVariables, VariableStore};
use serde::Serialize;
use spec::pins::Pins;
use spec::{Outcome, Sha256Digest, Sha384Digest};

use super::disk::DiskFile;
use super::unusable;
use crate::failure::Failure;
use crate::firmware::{self, FirmwareFile};
use crate::inputs;

/// The headers of a kernel, and the text of its version, are in this.
const HEAD_BYTES: usize = 128 << 10;
/// No kernel is near this.
const MAX_KERNEL_BYTES: u64 = 1 << 30;

/// A firmware whose events are known.
#[derive(Clone)]
pub(crate) struct KnownFirmware<'a> {
    path: &'a Path,
    firmware: Firmware<'a>,
    facts: FirmwareFacts<'a>,
    /// The variables by which it verifies what it starts, where keys are enrolled.
    enrolled: Option<SecureBootVariables>,
    authority: Option<Authority>,
}

impl<'a> KnownFirmware<'a> {
    /// By its pin; firmware that nobody described is refused.
    pub(crate) fn find(file: &'a FirmwareFile, pins: &'a Pins) -> Result<Self, Failure> {
        let unknown = |reason: String| {
            Failure::new(Outcome::Refused, reason)
                .with_hint("its MRTD is predicted; RTMRs are for firmware that is pinned and whose events are known")
        };
        let pin = pins.find(&file.sha256).ok_or_else(|| {
            unknown(format!("firmware {} is not pinned: which events it measures is not known", file.sha256.short()))
        })?;
        let facts = firmware::facts(pin).map_err(|error| unknown(error.to_string()))?;
        let firmware = file.parse()?;
        let enrolled = match variable_store(&firmware).filter(|_| facts.has_secure_boot) {
            Some(store) => {
                let store = VariableStore::parse(store).map_err(|error| unusable(&file.path, &error))?;
                facts.verifies_by(&store).map_err(|error| unknown(error.to_string()))?
            }
            None => None,
        };
        Ok(Self { path: &file.path, firmware, facts, enrolled, authority: None })
    }

    /// The same where it starts this image; looked at only where the firmware has keys enrolled, and verifies it.
    pub(crate) fn starting(self, path: &Path) -> Result<Self, Failure> {
        let Some(enrolled) = &self.enrolled else { return Ok(self) };
        let image = inputs::read_file(path, MAX_KERNEL_BYTES, "a kernel")?;
        Ok(Self { authority: Some(verified(path, &image, enrolled)?), ..self })
    }

    /// The same where it starts this disk.
    pub(crate) fn starting_disk(self, path: &Path, disk: &DiskFile) -> Result<Self, Failure> {
        let authority = self.enrolled.as_ref().map(|enrolled| verified(path, &disk.program, enrolled)).transpose()?;
        Ok(Self { authority, ..self })
    }

    /// Whether keys are enrolled.
    pub(crate) fn has_keys(&self) -> bool {
        self.enrolled.is_some()
    }

    /// The events of RTMR0, where QEMU gives firmware a kernel.
    pub(crate) fn platform(&self, fw_cfg: &FwCfg, memory_mib: u64) -> Result<Vec<PredictedEvent>, Failure> {
        self.platform_starting(fw_cfg, memory_mib, None)
    }

    /// The events of RTMR0, where firmware starts the disk that QEMU's boot order names.
    pub(crate) fn platform_of_disk(&self, fw_cfg: &FwCfg, memory_mib: u64) -> Result<Vec<PredictedEvent>, Failure> {
        let refused = |message: String| Failure::new(Outcome::Refused, message);
        let slot = fw_cfg.boot_disk().map_err(|error| refused(error.to_string()))?;
        let slot = slot.ok_or_else(|| {
            refused("QEMU names no disk for firmware to start: the tables are not those of a disk boot".to_owned())
                .with_hint("say where the disk is with --disk-at")
        })?;
        self.platform_starting(fw_cfg, memory_mib, Some(slot))
    }

    /// The events of RTMR0, where firmware starts the disk in a slot, or else a kernel that QEMU gives it.
    pub(crate) fn platform_starting(
        &self,
        fw_cfg: &FwCfg,
        memory_mib: u64,
        disk: Option<PciSlot>,
    ) -> Result<Vec<PredictedEvent>, Failure> {
        let platform = Platform::of_fw_cfg(&self.firmware, &self.facts, memory_mib, fw_cfg, self.authority);
        let platform = platform.and_then(|platform| match disk {
            Some(slot) => Ok(Platform { common: platform.common.starting_disk(slot, fw_cfg)?, ..platform }),
            None => Ok(platform),
        });
        let platform = platform.map_err(|error| match error {
            PlatformError::KeysEnrolled
            | PlatformError::SwitchedOff
            | PlatformError::Profile(_)
            | PlatformError::NoBiosInformation
            | PlatformError::OtherDisk
            | PlatformError::DiskBoot(_) => Failure::new(Outcome::Refused, format!("{}: {error}", self.path.display())),
            PlatformError::TdHob(_) => Failure::new(Outcome::Usage, error.to_string()),
            PlatformError::FwCfg(_) | PlatformError::Smbios(_) => {
                Failure::new(Outcome::InputMismatch, error.to_string())
            }
            _ => unusable(self.path, &error),
        })?;
        Ok(platform.events())
    }

    /// The events of RTMR1 and RTMR2 where firmware starts a disk: what is known to happen, or both that may, first the one in which
    /// the kernel leaves firmware at the first attempt.
    pub(crate) fn disk(&self, disk: &DiskFile) -> Vec<Vec<PredictedEvent>> {
        let seen = self.facts.profile.disk_boot.and_then(|boot| boot.first_exit_fails);
        let may_be = seen.map_or(vec![false, true], |fails| vec![fails]);
        let has_keys = self.has_keys();
        let events = |fails| disk.image.boot_events(disk.start(fails), has_keys).for_tdx(self.facts.profile);
        may_be.into_iter().map(events).collect()
    }

    /// The events of RTMR1 and RTMR2, with a QEMU of this version, or with any that is launched.
    pub(crate) fn image(&self, boot: &BootFiles, qemu: Option<[u64; 3]>) -> Result<Vec<PredictedEvent>, Failure> {
        let [major, minor, _] = qemu.unwrap_or(launcher::qemu::features::FLOOR);
        let number = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
        if !linux::is_measured_raw(QemuVersion(number(major), number(minor)), self.facts.profile.takes_raw_kernel()) {
            let message = format!(
                "QEMU {major}.{minor} changes the kernel's header before this firmware measures it: RTMR1 is not predicted"
            );
            return Err(Failure::new(Outcome::Refused, message).with_hint(
                "ask QEMU 10.2 or later for its tables, or use firmware built from edk2-stable202502 or later",
            ));
        }
        let stub = boot.kernel.stub_measures.then(|| StubInputs {
            load_options: load_options(self.facts.profile, &boot.command_line, boot.initrd.is_some()),
            initrd: boot.initrd.as_ref().map(|initrd| Digest384(initrd.sha384.0)),
        });
        Ok(Image { profile: *self.facts.profile, kernel: boot.kernel.authenticode(), stub }.events())
    }
}

/// The variables that a TDX guest's firmware starts from.
fn variable_store<'a>(firmware: &Firmware<'a>) -> Option<&'a [u8]> {
    let layout = firmware.tdx_layout().ok()?;
    Some(layout.section(TdxSectionType::CFV)?.content(firmware.bytes()))
}

/// What firmware with these variables verifies an image by.
pub(crate) fn verified(path: &Path, image: &[u8], variables: &SecureBootVariables) -> Result<Authority, Failure> {
    Authority::of_image(image, variables).map_err(|error| match error {
        AuthorityError::Pe(_) => unusable(path, &error),
        AuthorityError::NotSigned | AuthorityError::NotAllowed => {
            Failure::new(Outcome::Refused, format!("{}: {error}", path.display()))
                .with_hint("sign it with a key whose certificate is in the firmware's db, or use firmware without keys")
        }
        _ => Failure::new(Outcome::Refused, format!("{}: {error}", path.display())),
    })
}

/// What QEMU boots with `-kernel`.
pub(crate) struct BootFiles {
    pub(crate) kernel: Kernel,
    pub(crate) initrd: Option<Initrd>,
    pub(crate) command_line: String,
}

/// A kernel file.
#[derive(Serialize)]
pub(crate) struct Kernel {
    size: u64,
    pub(crate) sha256: Sha256Digest,
    /// As firmware hashes a PE image.
    pub(crate) authenticode_sha384: Sha384Digest,
    /// The version that it says it has.
    pub(crate) version: String,
    /// Whether its EFI stub measures command line and initrd.
    pub(crate) stub_measures: bool,
}

/// An initrd.
#[derive(Serialize)]
pub(crate) struct Initrd {
    size: u64,
    pub(crate) sha256: Sha256Digest,
    pub(crate) sha384: Sha384Digest,
}

impl Kernel {
    /// Reads and hashes a bzImage.
    pub(crate) fn read(path: &Path) -> Result<Self, Failure> {
        let unreadable = |error: std::io::Error| Failure::file("reading", path, &error);
        let file = store::open_regular(path).map_err(unreadable)?;
        let mut head = vec![0; HEAD_BYTES];
        let read = file.read_at(&mut head, 0).map_err(unreadable)?;
        head.truncate(read);
        let version = linux::version(&head).map_err(|error| unusable(path, &error))?;
        let stub_measures = linux::stub_measures(version).ok_or_else(|| {
            let message = format!("{}: its version is \"{version}\", which says nothing", path.display());
            Failure::new(Outcome::InputMismatch, message)
        })?;
        let length = file.metadata().map_err(unreadable)?.len();
        let mut hasher = usize::try_from(length).ok().and_then(|length| Hasher::new(&head, length).ok()?);
        let also = |piece: &[u8]| hasher.iter_mut().for_each(|hasher| hasher.update(piece));
        let (size, sha256) = store::hash_with(&file, also).map_err(unreadable)?;
        let digest = match hasher.and_then(Hasher::finish) {
            Some(digest) => digest,
            // Not as kernels are: all of it at once, or the reason why not.
            None => {
                let bytes = inputs::read_file(path, MAX_KERNEL_BYTES, "a kernel")?;
                measure::authenticode::sha384(&bytes).map_err(|error| unusable(path, &error))?
            }
        };
        Ok(Self {
            size,
            sha256,
            authenticode_sha384: Sha384Digest(digest.0),
            version: version.to_owned(),
            stub_measures,
        })
    }

    fn authenticode(&self) -> Digest384 {
        Digest384(self.authenticode_sha384.0)
    }
}

impl Initrd {
    /// Hashes an initrd.
    pub(crate) fn read(path: &Path) -> Result<Self, Failure> {
        let (size, sha256, sha384) =
            store::hash_file_384(path).map_err(|error| Failure::file("reading", path, &error))?;
        Ok(Self { size, sha256, sha384 })
    }
}

impl BootFiles {
    /// Reads kernel and initrd at the same time.
    pub(crate) fn read(kernel: &Path, initrd: Option<&Path>, command_line: &str) -> Result<Self, Failure> {
        std::thread::scope(|scope| {
            let initrd = scope.spawn(|| initrd.map(Initrd::read).transpose());
            let kernel = Kernel::read(kernel);
            let failed = |_| Err(Failure::new(Outcome::Internal, "a thread that hashes files failed"));
            let initrd = initrd.join().unwrap_or_else(failed);
            Ok(Self { kernel: kernel?, initrd: initrd?, command_line: command_line.to_owned() })
        })
    }
}
