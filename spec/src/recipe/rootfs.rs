//! What a recipe says of the root file system: how it is stored, what is left out of its packages, and what is added to them.

use serde::{Deserialize, Serialize};

use super::{CapabilitiesEntry, Owner};
use crate::digest::Sha256Digest;

/// `[rootfs]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct RootfsFile {
    /// The dm-verity salt, 64 hex digits. Fixed, so that the root hash is.
    pub verity_salt: Option<String>,
    /// The file system's UUID. Fixed for the same reason.
    pub uuid: Option<String>,
    /// How files are stored; `none` where nothing in the chain says otherwise.
    pub compression: Option<Compression>,
    /// Paths to leave out: `/usr/share/doc/**` is a directory with all below it, `*` matches within one name.
    #[serde(default)]
    pub drop: Vec<String>,
    /// Paths that stay although `drop` names them or what is above them, written like those of `drop`.
    #[serde(default)]
    pub keep: Vec<String>,
    /// Files with their content in the recipe, or copied from beside it.
    #[serde(default)]
    pub file: Vec<FileEntry>,
    /// Directories to create.
    #[serde(default)]
    pub directory: Vec<DirectoryEntry>,
    /// Symbolic links to create.
    #[serde(default)]
    pub link: Vec<LinkEntry>,
    /// Files that components make.
    #[serde(default)]
    pub component: Vec<ComponentFile>,
    /// Capabilities of programs, which packages or the recipe bring.
    #[serde(default)]
    pub capabilities: Vec<CapabilitiesEntry>,
}

impl RootfsFile {
    /// The paths of all files, directories and links of this file.
    pub(crate) fn declared_paths(&self) -> impl Iterator<Item = &str> {
        let files = self.file.iter().map(|entry| entry.path.as_str());
        let files = files.chain(self.component.iter().map(|entry| entry.path.as_str()));
        let directories = self.directory.iter().map(|entry| entry.path.as_str());
        files.chain(directories).chain(self.link.iter().map(|entry| entry.path.as_str()))
    }
}

/// How the files of a root file system are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// As they are.
    #[default]
    None,
    /// LZ4, in blocks of 4096 bytes.
    Lz4,
}

impl Compression {
    /// Whether it is the default, which older recipes in manifests do not name.
    pub(super) fn is_none(&self) -> bool {
        *self == Self::None
    }
}

/// `[[rootfs.file]]`: exactly one of `content` and `source`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// Absolute path in the image.
    pub path: String,
    /// The file's text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    /// A file beside the recipe; `sha256` is then required.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// SHA-256 of the source file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<Sha256Digest>,
    /// Permissions in octal, as text: `"0644"`.
    #[serde(default = "mode_file")]
    pub mode: String,
    /// The owner: `"USER"` or `"USER:GROUP"`, by name or number; root where it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<Owner>,
}

/// `[[rootfs.component]]`: a file that a component makes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ComponentFile {
    /// The recipe of kind "component", relative to this recipe.
    pub recipe: String,
    /// Which of its outputs.
    pub output: String,
    /// Absolute path in the image.
    pub path: String,
    /// Permissions in octal, as text: `"0644"`.
    #[serde(default = "mode_file")]
    pub mode: String,
    /// The owner: `"USER"` or `"USER:GROUP"`, by name or number; root where it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<Owner>,
}

/// `[[rootfs.directory]]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct DirectoryEntry {
    /// Absolute path in the image.
    pub path: String,
    /// Permissions in octal, as text: `"0755"`.
    #[serde(default = "mode_directory")]
    pub mode: String,
    /// The owner: `"USER"` or `"USER:GROUP"`, by name or number; root where it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<Owner>,
}

/// `[[rootfs.link]]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct LinkEntry {
    /// Absolute path of the link in the image.
    pub path: String,
    /// What it points to.
    pub target: String,
}

fn mode_file() -> String {
    "0644".to_owned()
}
fn mode_directory() -> String {
    "0755".to_owned()
}
