//! `firmware/pins.toml`: firmware images by SHA-256, and what each can enforce.
//!
//! A firmware that is not pinned can be measured, but never launched in a TEE: what it enforces is not known.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::digest::Sha256Digest;
use crate::tee::Tee;
use crate::text::{SyntaxError, from_toml};

/// The edk2 platform a firmware was built from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Platform {
    /// `OvmfPkg/AmdSev/AmdSevX64.dsc`: compares the kernel, initrd and command line with the measured hashes.
    AmdSevX64,
    /// `OvmfPkg/IntelTdx/IntelTdxX64.dsc`: the VMM is outside its trust boundary.
    IntelTdxX64,
    /// `OvmfPkg/OvmfPkgX64.dsc`: measures kernel hashes and ignores them. For tests and plain VMs.
    OvmfPkgX64,
}

/// What the firmware's variable store says about Secure Boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum SecureBoot {
    /// The firmware has no Secure Boot.
    Absent,
    /// Secure Boot is built in, no keys are enrolled: unsigned kernels start.
    Keyless,
    /// Keys are enrolled: only kernels signed by them start.
    Enrolled,
}

/// One pinned firmware image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Firmware {
    /// A short name for people.
    pub name: String,
    /// SHA-256 of the image file.
    pub sha256: Sha256Digest,
    /// The package and version it comes from.
    pub package: String,
    /// Its path in that package.
    pub path: String,
    /// The edk2 release it was built from.
    pub edk2: String,
    /// The platform build.
    pub platform: Platform,
    /// Whether it refuses a kernel, initrd or command line that does not match the measured hashes.
    pub enforces_kernel_hashes: bool,
    /// Secure Boot.
    pub secure_boot: SecureBoot,
    /// Whether it takes the VMM's word for what a TEE must not (OvmfPkgX64 does).
    pub vmm_in_trust_boundary: bool,
    /// TEEs it may be launched in.
    pub tees: Vec<Tee>,
}

/// The whole file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Pins {
    /// The version of this format: 1.
    pub schema: u32,
    /// The images.
    #[serde(default)]
    pub firmware: Vec<Firmware>,
}

impl Pins {
    /// Reads a pin file; `file` is used in messages.
    pub fn parse(file: &str, text: &str) -> Result<Self, SyntaxError> {
        let pins: Self = from_toml(file, text)?;
        if pins.schema != 1 {
            let message = format!("schema {} is not known: this program reads schema 1", pins.schema);
            return Err(SyntaxError::at(file, text, "schema", message));
        }
        let mut seen = BTreeSet::new();
        if let Some(double) = pins.firmware.iter().find(|firmware| !seen.insert(firmware.sha256)) {
            let message = format!("firmware \"{}\" has a digest that is pinned twice", double.name);
            return Err(SyntaxError::at(file, text, &format!("\"{}\"", double.name), message));
        }
        Ok(pins)
    }

    /// The pin of the image with this digest.
    pub fn find(&self, sha256: &Sha256Digest) -> Option<&Firmware> {
        self.firmware.iter().find(|firmware| firmware.sha256 == *sha256)
    }
}
