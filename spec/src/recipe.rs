//! Recipes: what goes into an image, or into a tree of tools that runs on the host.
//!
//! `RecipeFile` is one TOML file as typed. `Recipe` is what was meant: a chain of files flattened along `extends`,
//! checked for contradictions. Only `flatten` turns the first into the second. The flattened recipe is part of the
//! manifest and its digest ties a lock to it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::digest::{Sha256Digest, decode_hex};
use crate::size::Size;
use crate::text::{SyntaxError, from_toml};

mod admit;
mod capabilities;
mod check;
mod component;
mod flatten;
mod initrd;
mod package;
mod rootfs;
mod user;

pub use admit::{Admit, AdmittedMachine};
pub use capabilities::{CapabilitiesEntry, FileCapabilities};
pub use component::{CargoSource, ComponentRecipe, GUEST_OUTPUT, GuestRecipe, SourceFile, kernel_output};
pub use flatten::{Link, MAX_CHAIN, flatten};
pub use initrd::InitrdFiles;
pub use package::PackageRequest;
pub use rootfs::{ComponentFile, Compression, DirectoryEntry, FileEntry, LinkEntry, RootfsFile};
pub use user::{NumberRange, Owner, UserEntry};

/// What a recipe makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A golden image: kernel, initrd, verity root file system.
    Image,
    /// A tree of unpacked packages that is run from the cache by its own loader (QEMU, test tools).
    Tree,
    /// Files that are compiled in a sandbox, from locked sources with locked compilers.
    Component,
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Image => "image",
            Self::Tree => "tree",
            Self::Component => "component",
        })
    }
}

/// One recipe file as typed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct RecipeFile {
    /// The version of this format: 1.
    pub schema: u32,
    /// The recipe's name, which is also the image's. Lower-case letters, digits and hyphens.
    pub name: Option<String>,
    /// What the recipe makes; `image` where nothing in the chain says otherwise.
    pub kind: Option<Kind>,
    /// Another recipe file, relative to this one, whose settings this one adds to and overrides.
    pub extends: Option<String>,
    /// Debian's name of the architecture: `amd64`.
    pub architecture: Option<String>,
    /// The Debian suites packages may come from, by name, in `[suites.NAME]`.
    #[serde(default)]
    pub suites: BTreeMap<String, Suite>,
    /// Which packages are unpacked into the root file system or tree.
    pub packages: Option<PackagesFile>,
    /// The kernel and its modules (images only).
    pub kernel: Option<KernelFile>,
    /// The root file system (images only).
    pub rootfs: Option<RootfsFile>,
    /// What is added to the initial RAM disk (images only).
    pub initrd: Option<InitrdFiles>,
    /// Firmware that the image ships with, by TEE (images only).
    pub firmware: Option<FirmwareFile>,
    /// A unified kernel image, made beside the other artifacts (images only).
    pub uki: Option<UkiRecipe>,
    /// A disk with the unified kernel image and the root file system, made beside the other artifacts (images only).
    pub disk: Option<DiskRecipe>,
    /// The guest's first process (images only).
    pub guest: Option<GuestRecipe>,
    /// The shapes whose measurements go into the manifest (images only).
    pub references: Option<References>,
    /// What is compiled, and how (components only).
    pub component: Option<ComponentRecipe>,
    /// Users of the image beside those of its packages (images only).
    #[serde(default)]
    pub user: Vec<UserEntry>,
    /// Why the maintainer scripts of a package may be ignored that the builder does not know, in `[scripts.PACKAGE]`.
    #[serde(default)]
    pub scripts: BTreeMap<String, ScriptAnswer>,
    /// Programs of a tree that may be run, by name, with their path inside it (trees only).
    #[serde(default)]
    pub programs: BTreeMap<String, String>,
}

/// A Debian suite.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Suite {
    /// The components used, such as `["main"]`.
    #[serde(default = "main_only")]
    pub components: Vec<String>,
    /// Order of preference: where several suites have a package, the one with the lowest number gives it.
    #[serde(default)]
    pub preference: u32,
}

fn main_only() -> Vec<String> {
    vec!["main".to_owned()]
}

/// `[packages]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct PackagesFile {
    /// Packages to add: `NAME`, `NAME/SUITE` or `NAME=VERSION`.
    #[serde(default)]
    pub add: Vec<PackageRequest>,
    /// Names of inherited packages to leave out again.
    #[serde(default)]
    pub drop: Vec<String>,
    /// Whether what the packages depend on is added too. Without it the list is the whole truth.
    pub dependencies: Option<bool>,
    /// Packages that dependency resolution must treat as already there (never unpacked).
    #[serde(default)]
    pub assume: Vec<String>,
    /// Which package to take where several provide a virtual one: `awk = "mawk"`.
    #[serde(default)]
    pub choose: BTreeMap<String, String>,
}

/// `[scripts.PACKAGE]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ScriptAnswer {
    /// Why nothing is missing when they do not run.
    pub ignore: String,
}

/// `[kernel]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct KernelFile {
    /// The kernel package, often a metapackage; the packages with the binary and the modules are found through it.
    pub package: Option<PackageRequest>,
    /// The recipe of kind "component" that the kernel of release images is compiled by, relative to this recipe. Without it
    /// they have that of the package.
    pub component: Option<String>,
    /// Recipes of kind "component", relative to this recipe, whose `.ko` files are modules of the package's kernel, beside its own.
    #[serde(default)]
    pub module_components: Vec<String>,
    /// The machines whose ACPI tables a compiled kernel admits. Without any it takes all tables, and the image is of class dev.
    #[serde(default)]
    pub admit: Vec<Admit>,
    /// Modules that are loaded, in this order and after what they depend on, before the root file system is opened.
    #[serde(default)]
    pub boot_modules: Vec<String>,
    /// Modules that are put into the initrd and loaded only when the device they drive is there.
    #[serde(default)]
    pub device_modules: Vec<String>,
    /// Modules that are put into the root file system, with what they depend on, and loaded from there, in this order,
    /// once it is verified. What need not be there to open it belongs here: it keeps the initrd small.
    #[serde(default)]
    pub root_modules: Vec<String>,
    /// Words of the kernel command line. The root file system's verity parameters are added by the builder.
    #[serde(default)]
    pub command_line: Vec<String>,
    /// Inherited words of the command line to leave out again.
    #[serde(default)]
    pub drop_command_line: Vec<String>,
}

/// `[firmware]`: by TEE, the package and the file in it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct FirmwareFile {
    /// Firmware for SEV-SNP guests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snp: Option<FirmwareSource>,
    /// Firmware for TDX guests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tdx: Option<FirmwareSource>,
}

/// Where a firmware image comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct FirmwareSource {
    /// The package.
    pub package: PackageRequest,
    /// Absolute path of the file inside the package.
    pub path: String,
    /// What is made of the file before it becomes a part of the image; without it, nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub derive: Option<Derivation>,
}

/// `[uki]`: kernel, initrd and command line in one PE file that firmware starts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct UkiRecipe {
    /// The package with the EFI stub that the sections are added to, such as `systemd-boot-efi`.
    pub package: PackageRequest,
    /// Absolute path of the stub inside the package.
    #[serde(default = "systemd_stub")]
    pub path: String,
}

/// `[disk]`: `disk.raw`, which UEFI firmware starts; it needs a unified kernel image. Each size is a whole number of MiB, and the
/// smallest that is enough where it is not given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct DiskRecipe {
    /// Of the EFI system partition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub esp_size: Option<Size>,
    /// Of the disk. What its partitions leave is free at its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<Size>,
}

fn systemd_stub() -> String {
    "/usr/lib/systemd/boot/efi/linuxx64.efi.stub".to_owned()
}

/// How an image's firmware is made from a package's, always with the same result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Derivation {
    /// PK, KEK, db and dbx are left out of the variable store, so that Secure Boot starts an unsigned kernel.
    WithoutKeys,
}

/// `[references]`: the shapes whose digests the builder writes into the manifest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct References {
    /// vCPU counts.
    #[serde(default)]
    pub vcpus: Vec<u32>,
    /// CPU models as QEMU names them, for SEV-SNP.
    #[serde(default)]
    pub snp_cpus: Vec<String>,
    /// vCPU counts of TDX guests, whose RTMR0 needs QEMU at build time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tdx_vcpus: Vec<u32>,
    /// Memory sizes of TDX guests.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub memory: Vec<Size>,
}

/// A recipe as meant: flattened and checked. Serialized into the manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// The name.
    pub name: String,
    /// What it makes.
    pub kind: Kind,
    /// Debian's name of the architecture.
    pub architecture: String,
    /// Suites by name.
    pub suites: BTreeMap<String, Suite>,
    /// Packages of the root file system or tree, sorted by name.
    pub packages: Vec<PackageRequest>,
    /// Whether dependencies are added.
    pub dependencies: bool,
    /// Packages treated as already there.
    pub assume: Vec<String>,
    /// The provider of each virtual package that has several.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub choose: BTreeMap<String, String>,
    /// Image settings; `None` for what is no image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageRecipe>,
    /// What a component is made of; `None` for what is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub component: Option<ComponentRecipe>,
    /// Answers to scripts that the builder does not know.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub scripts: BTreeMap<String, ScriptAnswer>,
    /// Programs of a tree; empty for an image.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub programs: BTreeMap<String, String>,
}

/// The image part of a flattened recipe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ImageRecipe {
    /// The kernel package.
    pub kernel: PackageRequest,
    /// The recipe of the component that release images have their kernel of, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel_component: Option<String>,
    /// The recipes of components that make modules of the package's kernel.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub module_components: Vec<String>,
    /// The machines whose ACPI tables a compiled kernel admits.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub admit: Vec<Admit>,
    /// Modules loaded at boot, in order.
    pub boot_modules: Vec<String>,
    /// Modules loaded when their device is there.
    pub device_modules: Vec<String>,
    /// Modules loaded from the verified root file system, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub root_modules: Vec<String>,
    /// Words of the kernel command line.
    pub command_line: Vec<String>,
    /// The verity salt: 64 hex digits.
    pub verity_salt: String,
    /// The file system UUID.
    pub uuid: String,
    /// How files are stored.
    #[serde(default, skip_serializing_if = "Compression::is_none")]
    pub compression: Compression,
    /// Paths left out.
    pub drop: Vec<String>,
    /// Paths that stay although they are among those left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keep: Vec<String>,
    /// Users added.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub users: Vec<UserEntry>,
    /// Files added.
    pub files: Vec<FileEntry>,
    /// Files added that components make.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub component_files: Vec<ComponentFile>,
    /// Directories added.
    pub directories: Vec<DirectoryEntry>,
    /// Links added.
    pub links: Vec<LinkEntry>,
    /// Capabilities of programs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub capabilities: Vec<CapabilitiesEntry>,
    /// Files added to the initial RAM disk.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub initrd_files: Vec<FileEntry>,
    /// Firmware by TEE.
    pub firmware: FirmwareFile,
    /// The unified kernel image, where one is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uki: Option<UkiRecipe>,
    /// The disk, where one is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<DiskRecipe>,
    /// The guest's first process, where it is compiled as a component.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guest: Option<GuestRecipe>,
    /// Shapes measured by the builder.
    pub references: References,
}

impl RecipeFile {
    /// Reads one recipe file; `file` is used in messages.
    pub fn parse(file: &str, text: &str) -> Result<Self, SyntaxError> {
        let recipe: Self = from_toml(file, text)?;
        if recipe.schema != 1 {
            return Err(SyntaxError::at(
                file,
                text,
                "schema",
                format!("schema {} is not known: this program reads schema 1", recipe.schema),
            ));
        }
        Ok(recipe)
    }
}

impl Recipe {
    /// The digest that ties a lock to this recipe: SHA-256 of the canonical JSON of the parts that decide which packages
    /// are locked (suites, packages, kernel, firmware, EFI stub). Changing a command line, a file or what is derived from a firmware
    /// needs no new lock.
    pub fn lock_digest(&self) -> Sha256Digest {
        #[derive(Serialize)]
        struct Part<'a> {
            architecture: &'a str,
            suites: &'a BTreeMap<String, Suite>,
            packages: &'a [PackageRequest],
            dependencies: bool,
            assume: &'a [String],
            #[serde(skip_serializing_if = "BTreeMap::is_empty")]
            choose: &'a BTreeMap<String, String>,
            kernel: Option<&'a PackageRequest>,
            firmware: Option<FirmwareFile>,
            #[serde(skip_serializing_if = "Option::is_none")]
            uki: Option<&'a PackageRequest>,
        }
        let as_packaged = |source: &FirmwareSource| FirmwareSource { derive: None, ..source.clone() };
        let part = Part {
            architecture: &self.architecture,
            suites: &self.suites,
            packages: &self.packages,
            dependencies: self.dependencies,
            assume: &self.assume,
            choose: &self.choose,
            kernel: self.image.as_ref().map(|image| &image.kernel),
            firmware: self.image.as_ref().map(|image| FirmwareFile {
                snp: image.firmware.snp.as_ref().map(as_packaged),
                tdx: image.firmware.tdx.as_ref().map(as_packaged),
            }),
            uki: self.image.as_ref().and_then(|image| image.uki.as_ref()).map(|uki| &uki.package),
        };
        // The types above hold strings, small integers and booleans only, which always have a canonical form.
        Sha256Digest::of(&crate::canonical::to_canonical_bytes(&part).unwrap_or_default())
    }
}

impl ImageRecipe {
    /// The salt's bytes; `flatten` has checked that the text decodes.
    pub fn salt_bytes(&self) -> Vec<u8> {
        decode_hex(&self.verity_salt).unwrap_or_default()
    }
}
