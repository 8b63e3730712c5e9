//! Locks: every input of a recipe by SHA-256, with the path it has in Debian's pool and no host name.

use serde::{Deserialize, Serialize};

use crate::digest::Sha256Digest;
use crate::text::{SyntaxError, from_toml};

/// What a locked package is for. A package can have several uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Use {
    /// Unpacked into the root file system, or into the tree.
    Tree,
    /// Holds the kernel or its modules.
    Kernel,
    /// Holds firmware.
    Firmware,
    /// Holds the EFI stub of the unified kernel image.
    Stub,
}

/// Whether a lock is what its recipe's owner committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Standing {
    /// Meant to be committed beside the recipe.
    Published,
    /// Made on the spot because the committed lock's inputs are gone. What comes of it is never called golden.
    Unpublished,
}

/// A lock file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Lock {
    /// The version of this format: 1.
    pub schema: u32,
    /// The recipe's name.
    pub recipe: String,
    /// `Recipe::lock_digest` of the recipe this was made for.
    pub recipe_sha256: Sha256Digest,
    /// Whether the lock is the committed one.
    pub standing: Standing,
    /// The release files the packages were found through.
    pub release: Vec<Release>,
    /// The packages, sorted by name.
    pub package: Vec<Package>,
}

/// A signed release file that was verified when the lock was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Release {
    /// The suite as the recipe names it.
    pub suite: String,
    /// The release file's own date, as it is written there.
    pub date: String,
    /// SHA-256 of the `InRelease` file.
    pub sha256: Sha256Digest,
    /// Fingerprints of the keys whose signatures were good, upper-case hex.
    pub signed_by: Vec<String>,
    /// The release file was past its own `Valid-Until` when the lock was made, or signed by keys that had run out since, and
    /// the caller accepted that.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub expired: bool,
}

/// One locked package.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Package {
    /// The package's name.
    pub name: String,
    /// Its version, as Debian writes it.
    pub version: String,
    /// Its architecture: `amd64` or `all`.
    pub architecture: String,
    /// The suite it was found in.
    pub suite: String,
    /// What it is for.
    pub uses: Vec<Use>,
    /// Its path below the mirror's root: `pool/main/...`.
    pub path: String,
    /// Its size in bytes.
    pub size: u64,
    /// SHA-256 of the .deb file.
    pub sha256: Sha256Digest,
    /// The package's maintainer scripts and how they are answered, in images; none of them ever runs.
    #[serde(default, rename = "script", skip_serializing_if = "Vec::is_empty")]
    pub scripts: Vec<Script>,
}

/// A maintainer script and what stands for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Script {
    /// `preinst`, `postinst`, `prerm`, `postrm`, `config` or `triggers`.
    pub name: String,
    /// SHA-256 of its text.
    pub sha256: Sha256Digest,
    /// The builder's effects that do what it would have done.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub effects: Vec<String>,
    /// Why it, or the rest of it, is left undone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ignored: Option<String>,
}

impl Package {
    /// The package URL (purl specification, type `deb`). The suite says which Debian it is of.
    pub fn purl(&self) -> String {
        let (name, version) = (percent(&self.name), percent(&self.version));
        format!("pkg:deb/debian/{name}@{version}?arch={}&distro={}", percent(&self.architecture), percent(&self.suite))
    }
}

/// What a package URL takes as it is: letters, digits, `.`, `-`, `_`, `~`, and `:`.
pub(crate) fn percent(text: &str) -> String {
    let part = |byte: u8| match byte {
        b'.' | b'-' | b'_' | b'~' | b':' => char::from(byte).to_string(),
        byte if byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    text.bytes().map(part).collect()
}

impl Script {
    /// Whether somebody has said what stands for it.
    pub fn is_answered(&self) -> bool {
        !self.effects.is_empty() || self.ignored.is_some()
    }
}

impl Lock {
    /// Reads a lock; `file` is used in messages.
    pub fn parse(file: &str, text: &str) -> Result<Self, SyntaxError> {
        let lock: Self = from_toml(file, text)?;
        if lock.schema != 1 {
            return Err(SyntaxError::at(file, text, "schema", format!("schema {} is not known", lock.schema)));
        }
        for package in &lock.package {
            let clean = package.path.split('/').all(|part| !matches!(part, "" | "." | ".."));
            if !clean {
                let message = format!("\"{}\" is not a path below a mirror's root", package.path);
                return Err(SyntaxError::at(file, text, &package.path, message));
            }
        }
        let mut seen = std::collections::BTreeSet::new();
        if let Some(double) = lock.package.iter().find(|package| !seen.insert(&package.name)) {
            let message = format!("package {} is locked twice", double.name);
            return Err(SyntaxError::at(file, text, &format!("name = \"{}\"", double.name), message));
        }
        Ok(lock)
    }

    /// The lock as text, always the same for the same content.
    pub fn to_text(&self) -> Result<String, toml::ser::Error> {
        Ok(format!("# Made by `bullion lock`. Do not edit.\n{}", toml::to_string(self)?))
    }

    /// The packages that have `wanted` among their uses.
    pub fn packages_for(&self, wanted: Use) -> impl Iterator<Item = &Package> {
        self.package.iter().filter(move |package| package.uses.contains(&wanted))
    }
}
