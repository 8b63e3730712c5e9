//! A firmware image from disk, by its bytes, its digest and its pin: for the verbs that take one without an image directory.

pub(crate) mod parts;

use std::path::{Path, PathBuf};

use measure::firmware::Firmware;
use measure::smbios::BiosInformation;
use measure::tdx::Profile;
use measure::tdx::platform::FirmwareFacts;
use measure::tdx::profile::UnknownProfile;
use serde::Serialize;
use spec::Sha256Digest;
use spec::pins::{self, Pins};

use crate::failure::Failure;
use crate::inputs;
use crate::weigh::unusable;

/// A firmware image.
pub(crate) struct FirmwareFile {
    /// Where it was read.
    pub(crate) path: PathBuf,
    /// The image.
    pub(crate) bytes: Vec<u8>,
    /// SHA-256 of the image.
    pub(crate) sha256: Sha256Digest,
}

/// Firmware ends at 4 GiB and starts above the memory that q35 puts below it; no build is near this.
const MAX_BYTES: u64 = 64 << 20;

/// How a firmware image is named in JSON.
#[derive(Serialize)]
pub(crate) struct FirmwareInput<'a> {
    file: &'a Path,
    size: usize,
    sha256: Sha256Digest,
    /// What is known about it; null where it is not pinned.
    pin: Option<&'a pins::Firmware>,
}

impl FirmwareFile {
    /// Reads an image: a regular file of a size that firmware can have.
    pub(crate) fn read(path: &Path) -> Result<Self, Failure> {
        let bytes = inputs::read_file(path, MAX_BYTES, "a firmware image")?;
        Ok(Self { path: path.to_owned(), sha256: Sha256Digest::of(&bytes), bytes })
    }

    /// Its OVMF table.
    pub(crate) fn parse(&self) -> Result<Firmware<'_>, Failure> {
        Firmware::parse(&self.bytes).map_err(|error| {
            unusable(&self.path, &error).with_hint("name an OVMF image; a file of variables alone is none")
        })
    }

    /// What JSON says about it.
    pub(crate) fn input<'a>(&'a self, pins: &'a Pins) -> FirmwareInput<'a> {
        FirmwareInput { file: &self.path, size: self.bytes.len(), sha256: self.sha256, pin: pins.find(&self.sha256) }
    }
}

/// What `measure` must be told of an image to predict the events of its firmware: from its pin alone.
pub(crate) fn facts(pin: &pins::Firmware) -> Result<FirmwareFacts<'_>, UnknownProfile> {
    let bios = pin.bios.as_ref().map(|bios| BiosInformation {
        vendor: &bios.vendor,
        version: &bios.version,
        release_date: &bios.release_date,
    });
    Ok(FirmwareFacts {
        profile: Profile::of_build(&pin.edk2, &format!("{:?}", pin.platform))?,
        has_secure_boot: pin.secure_boot != pins::SecureBoot::Absent,
        bios,
    })
}

impl FirmwareInput<'_> {
    /// The lines for people.
    pub(crate) fn lines(&self) -> Vec<String> {
        let pin = self.pin.map_or("not pinned: what it enforces is not known".to_owned(), pin_line);
        let file = format!("{}, {} bytes, sha256 {}", self.file.display(), self.size, self.sha256);
        vec![format!("firmware  {file}"), format!("pin       {pin}")]
    }
}

fn pin_line(pin: &pins::Firmware) -> String {
    let tees: Vec<String> = pin.tees.iter().map(ToString::to_string).collect();
    let hashes = if pin.enforces_kernel_hashes { "enforces kernel hashes" } else { "does not enforce kernel hashes" };
    let boundary = if pin.vmm_in_trust_boundary { ", TRUSTS THE VMM" } else { "" };
    let memory = match pin.memory_acceptance {
        Some(pins::MemoryAcceptance::Lazy) => ", accepts memory below 4 GiB",
        Some(pins::MemoryAcceptance::Eager) => ", accepts all memory before it starts anything",
        None => "",
    };
    let (name, platform, edk2) = (&pin.name, pin.platform, &pin.edk2);
    format!("{name} ({platform:?}, {edk2}), {hashes}{memory}{boundary}, for tee {}", tees.join(" and "))
}
