//! `manifest.json`: what an image directory holds, where every byte came from, and what it will measure.
//!
//! Written as canonical JSON with one trailing newline, so that the file itself can be hashed and signed. `image` writes
//! it, `launcher` reads it; they meet nowhere else.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::canonical::{CanonicalError, to_canonical_bytes};
use crate::component::Component;
use crate::digest::{Sha256Digest, Sha384Digest};
use crate::lock::{Package, Standing};
use crate::recipe::{GUEST_OUTPUT, Recipe, kernel_output};
use crate::text::SyntaxError;

/// The name of the manifest in an image directory.
pub const FILE_NAME: &str = "manifest.json";

/// File names of the artifacts in an image directory; keys of `Manifest::artifacts`.
pub mod artifact {
    /// The kernel, a bzImage.
    pub const KERNEL: &str = "vmlinuz";
    /// The initial RAM disk.
    pub const INITRD: &str = "initrd";
    /// EROFS followed by its dm-verity superblock and tree.
    pub const ROOTFS: &str = "rootfs";
    /// The kernel command line, without a trailing newline.
    pub const COMMAND_LINE: &str = "cmdline";
    /// The unified kernel image: kernel, initrd and command line in one PE file.
    pub const UKI: &str = "uki.efi";
    /// A disk with a GUID partition table, which UEFI firmware starts.
    pub const DISK: &str = "disk.raw";
    /// Firmware for SEV-SNP.
    pub const FIRMWARE_SNP: &str = "firmware-snp.fd";
    /// Firmware for TDX.
    pub const FIRMWARE_TDX: &str = "firmware-tdx.fd";
}

/// `GuestBinary::origin` of a binary that a component made.
pub const GUEST_FROM_COMPONENT: &str = "component";

/// How far an image may be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// Some byte has no locked origin, such as a guest binary that was compiled on the building host.
    Dev,
    /// Every byte has a locked origin.
    Release,
}

impl std::fmt::Display for Class {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Dev => "dev",
            Self::Release => "release",
        })
    }
}

/// The manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The version of this format: 1.
    pub schema: u32,
    /// The image's name.
    pub name: String,
    /// How far the image may be trusted.
    pub class: Class,
    /// Whether the lock it was built from is the committed one.
    pub standing: Standing,
    /// The version of Bullion's file-system, verity and cpio writers. Other numbers may give other bits.
    pub format_epoch: u32,
    /// Artifacts by file name.
    pub artifacts: BTreeMap<String, Artifact>,
    /// Files that tell about the image and are no part of it, by name: nothing of them is measured.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub documents: BTreeMap<String, Artifact>,
    /// The root file system's dm-verity parameters.
    pub verity: Verity,
    /// The kernel's version, as its modules directory names it.
    pub kernel_version: String,
    /// The kernel command line: the content of the artifact `cmdline`.
    pub command_line: String,
    /// The flattened recipe.
    pub recipe: Recipe,
    /// SHA-256 of the lock file.
    pub lock_sha256: Sha256Digest,
    /// Every locked package that was used.
    pub inputs: Vec<Package>,
    /// The guest binary.
    pub guest: GuestBinary,
    /// What was compiled in a sandbox for this image, and from what.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub components: Vec<Component>,
    /// The machines that a compiled kernel takes; absent where it takes any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acpi: Option<AcpiAdmission>,
    /// What the image will measure, for the shapes that the recipe names.
    pub references: ReferenceValues,
}

/// How the word begins that names them on the command line.
const ACPI_WORD: &str = "bullion.acpi=";
/// The word by which the guest of a release knows that it is one.
pub const RELEASE_WORD: &str = "bullion.class=release";

/// The sets of ACPI tables that a compiled kernel admits, and the QEMU that was asked for them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct AcpiAdmission {
    /// The version of the QEMU that makes the tables.
    pub qemu_version: String,
    /// SHA-256 of the lock of its tree.
    pub qemu_lock_sha256: Sha256Digest,
    /// The digests of the sets (`measure::acpi`), in ascending order: the value of `bullion.acpi=` on the command line.
    pub digests: Vec<Sha256Digest>,
}

impl AcpiAdmission {
    /// The word of the command line.
    pub fn word(&self) -> String {
        let digests: Vec<String> = self.digests.iter().map(ToString::to_string).collect();
        format!("{ACPI_WORD}{}", digests.join(","))
    }
}

/// One file of an image directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Artifact {
    /// Size in bytes.
    pub size: u64,
    /// SHA-256 of the whole file.
    pub sha256: Sha256Digest,
}

/// dm-verity parameters, with the names `veritysetup` uses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Verity {
    /// The hash algorithm: always `sha256`.
    pub algorithm: String,
    /// Size of data and hash blocks in bytes: always 4096.
    pub block_size: u32,
    /// How many data blocks the tree covers.
    pub data_blocks: u64,
    /// Where the verity superblock starts in `rootfs`, in bytes; the tree follows one block later.
    pub hash_offset: u64,
    /// The salt, in hex.
    pub salt: String,
    /// The root hash.
    pub root_hash: Sha256Digest,
}

/// The guest binary: compiled as a component, or an input without a locked origin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct GuestBinary {
    /// SHA-256 of the binary.
    pub sha256: Sha256Digest,
    /// Size in bytes.
    pub size: u64,
    /// Where it came from: `component`, which is then made by one of `components`; `host` means that it was built
    /// outside any lock.
    pub origin: String,
}

/// Expected measurements.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ReferenceValues {
    /// SEV-SNP launch digests by shape.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub snp: Vec<SnpReference>,
    /// TDX registers by firmware.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tdx: Vec<TdxReference>,
}

/// A SEV-SNP launch digest and the shape it belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct SnpReference {
    /// How many vCPUs.
    pub vcpus: u32,
    /// The CPU model as QEMU names it.
    pub cpu: String,
    /// The CPU signature (CPUID Fn0000_0001 EAX) that is measured.
    pub cpu_signature: u32,
    /// SEV_FEATURES of the VMSA.
    pub sev_features: u64,
    /// The launch digest.
    pub launch_digest: Sha384Digest,
    /// The ID block for this shape, where the image has one: then nothing else is launched in this shape.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id_block: Option<SnpIdBlock>,
}

/// An ID block for a launch digest, signed where the image was built (AMD 56860, "ID Block" and "ID Authentication
/// Information Structure"): the fields that are not in the reference that it belongs to. Numbers are in hex.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct SnpIdBlock {
    /// POLICY, which must be that of the launch.
    pub policy: u64,
    /// GUEST_SVN, the security version of the image.
    pub guest_svn: u32,
    /// FAMILY_ID: 16 bytes.
    pub family_id: String,
    /// IMAGE_ID: 16 bytes.
    pub image_id: String,
    /// The ID key, a point of P-384: x and y, 48 bytes each, most significant byte first.
    pub id_key: String,
    /// The ECDSA signature of the block, with SHA-384: r and s, 48 bytes each, most significant byte first.
    pub signature: String,
}

/// TDX registers: MRTD by firmware, RTMR0 by platform, RTMR1 and RTMR2 by image. RTMR3 is zero before the guest's own software
/// extends it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct TdxReference {
    /// SHA-256 of the firmware.
    pub firmware_sha256: Sha256Digest,
    /// MRTD, with each page added and extended in one pass (KVM since 6.16).
    pub mrtd: Sha384Digest,
    /// The name that the firmware is pinned under.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub firmware_pin: Option<String>,
    /// What depends on the machine; absent where it was not asked for, or not predicted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<TdxPlatform>,
    /// What depends on the image; absent where it is not predicted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<TdxImage>,
    /// What a guest measures that firmware starts from the image's disk; absent where it has none, or it is not predicted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<TdxDisk>,
}

/// RTMR0, and the QEMU that it is of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct TdxPlatform {
    /// The QEMU that was asked which tables it gives to firmware.
    pub qemu_version: String,
    /// SHA-256 of the lock of its tree; absent where it came from no lock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub qemu_lock_sha256: Option<Sha256Digest>,
    /// QEMU releases that were seen to give the same tables, this one included.
    pub same_with: Vec<String>,
    /// RTMR0 by shape.
    pub rtmr0: Vec<TdxRtmr0>,
}

/// RTMR0 of one shape.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct TdxRtmr0 {
    /// How many vCPUs.
    pub vcpus: u32,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// RTMR0.
    pub rtmr0: Sha384Digest,
}

/// RTMR1 and RTMR2 of kernel, command line and initrd.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct TdxImage {
    /// RTMR1.
    pub rtmr1: Sha384Digest,
    /// RTMR2.
    pub rtmr2: Sha384Digest,
}

/// The registers of a guest that firmware starts from the image's disk. Its MRTD is the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct TdxDisk {
    /// What depends on the machine; absent where it was not asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<TdxPlatform>,
    /// RTMR1; two values where it was never seen whether such firmware lets the kernel go at the first attempt.
    pub rtmr1_one_of: Vec<Sha384Digest>,
    /// RTMR2.
    pub rtmr2: Sha384Digest,
}

impl Manifest {
    /// Reads a manifest; `file` is used in messages.
    pub fn parse(file: &str, bytes: &[u8]) -> Result<Self, SyntaxError> {
        let manifest: Self = serde_json::from_slice(bytes).map_err(|error| SyntaxError {
            line: Some(error.line()).filter(|line| *line > 1),
            ..SyntaxError::whole(file, error.to_string())
        })?;
        if manifest.schema != 1 {
            return Err(SyntaxError::whole(file, format!("schema {} is not known", manifest.schema)));
        }
        if let Some((name, _)) = manifest.files().find(|(name, _)| {
            name.is_empty() || name.contains('/') || name.contains(char::is_control) || name.starts_with('.')
        }) {
            return Err(SyntaxError::whole(file, format!("{name:?} is not the name of an artifact")));
        }
        let taken = |name: &&String| {
            manifest.artifacts.contains_key(*name) || [FILE_NAME, crate::release::FILE_NAME].contains(&name.as_str())
        };
        if let Some(name) = manifest.documents.keys().find(taken) {
            return Err(SyntaxError::whole(
                file,
                format!("the name {name:?} is given to a document and to something else"),
            ));
        }
        manifest.refuse_control_characters(file)?;
        manifest.check_components().map_err(|message| SyntaxError::whole(file, message))?;
        // The line stands here twice, as text and as a file's digest. Two lines would be two guests.
        let found = Sha256Digest::of(manifest.command_line.as_bytes());
        if let Some(expected) = manifest.artifacts.get(artifact::COMMAND_LINE).filter(|file| file.sha256 != found) {
            let message = format!("command_line has SHA-256 {found}, the artifact \"cmdline\" {}", expected.sha256);
            return Err(SyntaxError::whole(file, message));
        }
        Ok(manifest)
    }

    /// Components are what their inputs say, and a release image has no guest binary and no kernel but a component's, which takes
    /// no machine but those that the manifest lists.
    fn check_components(&self) -> Result<(), String> {
        if let Some(contradiction) = self.components.iter().find_map(Component::contradiction) {
            return Err(contradiction);
        }
        if self.guest.origin == GUEST_FROM_COMPONENT {
            let outputs = self.components.iter().filter_map(|component| component.outputs.get(GUEST_OUTPUT));
            let (size, sha256) = (self.guest.size, self.guest.sha256);
            if !outputs.into_iter().any(|output| (output.size, output.sha256) == (size, sha256)) {
                return Err(format!("no component made the guest binary with SHA-256 {sha256}"));
            }
        } else if self.class == Class::Release {
            return Err("it says class release, but no component made its guest binary".to_owned());
        }
        let kernels = self.components.iter().filter_map(|component| component.outputs.get(kernel_output::KERNEL));
        let kernels: Vec<&Artifact> = kernels.collect();
        let own = self.artifacts.get(artifact::KERNEL);
        if kernels.iter().any(|kernel| own != Some(*kernel)) {
            return Err("the component that made a kernel did not make the artifact \"vmlinuz\"".to_owned());
        }
        let admitted = self.acpi.as_ref().filter(|admitted| !admitted.digests.is_empty());
        if self.class == Class::Release && (kernels.is_empty() || admitted.is_none()) {
            let what = if kernels.is_empty() { "no component made its kernel" } else { "it lists no ACPI tables" };
            return Err(format!("it says class release, but {what}"));
        }
        if let Some(word) = self.acpi.as_ref().map(AcpiAdmission::word)
            && !self.command_line.split_ascii_whitespace().any(|found| found == word)
        {
            return Err(format!("its command line does not have {word}"));
        }
        // The kernel splits words where this does not (quotation marks; 0xa0 of a longer character), and might find another one.
        let words = self.command_line.matches(ACPI_WORD).count();
        if self.acpi.is_some() && (words != 1 || self.command_line.contains('"')) {
            return Err(format!("its command line must have {ACPI_WORD} once and no quotation mark"));
        }
        let says_release = self.command_line.split_ascii_whitespace().filter(|word| *word == RELEASE_WORD).count();
        // The other way round the guest is stricter than it needs to be, as that of the second build of `build --verify`.
        if self.class == Class::Release && says_release != 1 {
            return Err(format!("it says class release, and its command line not {RELEASE_WORD} once"));
        }
        Ok(())
    }

    /// Every file of the image directory but the manifest: artifacts, then documents.
    pub fn files(&self) -> impl Iterator<Item = (&String, &Artifact)> {
        self.artifacts.iter().chain(&self.documents)
    }

    /// What reaches terminals and other programs' arguments must not steer them.
    fn refuse_control_characters(&self, file: &str) -> Result<(), SyntaxError> {
        let texts =
            [("name", &self.name), ("kernel_version", &self.kernel_version), ("command_line", &self.command_line)];
        match texts.into_iter().find(|(_, text)| text.contains(char::is_control)) {
            None => Ok(()),
            Some((field, text)) => Err(SyntaxError::whole(file, format!("{field} has a control character: {text:?}"))),
        }
    }

    /// The bytes of the file: canonical JSON and a newline.
    pub fn to_bytes(&self) -> Result<Vec<u8>, CanonicalError> {
        let mut bytes = to_canonical_bytes(self)?;
        bytes.push(b'\n');
        Ok(bytes)
    }
}
