//! `firmware/pins.toml`: firmware images by SHA-256, and what each can enforce.
//!
//! A firmware that is not pinned can be measured, but never launched in a TEE: what it enforces is not known.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::digest::{Sha256Digest, Sha384Digest};
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

/// How much of a TEE guest's memory firmware accepts before it starts anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum MemoryAcceptance {
    /// What is below 4 GiB; the kernel accepts the rest as it uses it (UEFI 2.9, table 7-5, EfiUnacceptedMemoryType).
    Lazy,
    /// All of it, page by page: minutes of nothing on the console, and more than any time limit with large memory.
    Eager,
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
    /// How it accepts memory; there where `tees` has a TEE.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_acceptance: Option<MemoryAcceptance>,
    /// What a SEV-SNP launch measures of it, where it can be launched so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snp: Option<SnpPart>,
    /// What a TDX launch measures of it, where it can be launched so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tdx: Option<TdxPart>,
    /// What it says of itself in SMBIOS tables, which firmware since edk2-stable202505 measures.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bios: Option<Bios>,
    /// What the events predicted for this image were compared with; empty where nothing was.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub events_judged_by: Vec<EventJudge>,
}

/// What a SEV-SNP launch digest depends on of a firmware image: with it the digest is predicted without the image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct SnpPart {
    /// The launch digest after the pages of the image.
    pub firmware_digest: Sha384Digest,
    /// Where application processors start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ap_reset_eip: Option<u32>,
    /// Where the hashes of kernel, initrd and command line go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash_table: Option<HashTable>,
    /// The sections of its SEV metadata, in their order.
    pub sections: Vec<SnpSection>,
}

/// An area for kernel hashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct HashTable {
    /// Its guest physical address.
    pub gpa: u32,
    /// Its size in bytes.
    pub size: u32,
}

/// A section of SEV metadata.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct SnpSection {
    /// The guest physical address of its first page.
    pub gpa: u32,
    /// Its size in bytes.
    pub size: u32,
    /// Its type, as the metadata has it.
    #[serde(rename = "type")]
    pub section_type: u32,
}

/// What a TDX launch measures of a firmware image alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct TdxPart {
    /// MRTD, where each page is added and measured before the next.
    pub mrtd: Sha384Digest,
    /// MRTD, where all pages of a section are added first, as QEMU trees around 8.2 do.
    pub mrtd_two_pass: Sha384Digest,
    /// SHA-384 of the variable store, which firmware measures into RTMR0.
    pub variable_store: Sha384Digest,
}

/// The texts of the SMBIOS structure of type 0, as the firmware was built.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Bios {
    /// The vendor.
    pub vendor: String,
    /// The version.
    pub version: String,
    /// The release date, MM/DD/YYYY.
    pub release_date: String,
}

/// What predicted events were compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum EventJudge {
    /// A quote of a TDX guest that ran this image.
    Quote,
    /// A log of a TDX guest with firmware of the same edk2 release.
    Log,
    /// The whole log that this image wrote for an emulated TPM.
    EmulatedLog,
    /// What this image left in memory when it ran without a TEE: boot entries, variables, SMBIOS tables. What it measures in a
    /// TDX guest only (the TD HOB, the variable store as a whole, settings from QEMU) is from its source.
    EmulatedBoot,
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
        let silent = |firmware: &&Firmware| {
            firmware.memory_acceptance.is_none() && firmware.tees.iter().any(|tee| *tee != Tee::None)
        };
        if let Some(silent) = pins.firmware.iter().find(silent) {
            let message = format!("firmware \"{}\" is for a TEE, and has no memory_acceptance", silent.name);
            return Err(SyntaxError::at(file, text, &format!("\"{}\"", silent.name), message));
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
