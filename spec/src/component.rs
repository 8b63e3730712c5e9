//! Compiled components: everything that goes into one, by SHA-256, and so its key; what came out.
//!
//! The description is canonical JSON. Whoever has it can compute the key again, and compare every digest in it with a lock,
//! a `Cargo.lock` and a source tree.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::canonical::{CanonicalError, to_canonical_bytes};
use crate::digest::Sha256Digest;
use crate::lock::Standing;
use crate::manifest::Artifact;
use crate::recipe::SourceFile;

/// All inputs of a component. Its key is the SHA-256 of this as canonical JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ComponentInputs {
    /// The component's name.
    pub name: String,
    /// The version of the sandbox: what it shows to the script. Another one may give other bits.
    pub sandbox: u32,
    /// The script.
    pub script: String,
    /// The files that it leaves.
    pub outputs: Vec<String>,
    /// The packages of the tree that it runs in.
    pub packages: Vec<NamedInput>,
    /// Crates, each the `.crate` file that `Cargo.lock` names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub crates: Vec<NamedInput>,
    /// Files that somebody else publishes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<SourceFile>,
    /// Source files by their path below `/build`.
    pub files: BTreeMap<String, Sha256Digest>,
}

/// An input that has a name and a version.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct NamedInput {
    /// The name.
    pub name: String,
    /// The version.
    pub version: String,
    /// SHA-256 of the file.
    pub sha256: Sha256Digest,
}

/// A component as an image's manifest has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Component {
    /// The digest of `inputs`.
    pub key: Sha256Digest,
    /// SHA-256 of the component's lock file.
    pub lock_sha256: Sha256Digest,
    /// Whether that lock is the committed one.
    pub standing: Standing,
    /// What went in.
    pub inputs: ComponentInputs,
    /// What came out, by name.
    pub outputs: BTreeMap<String, Artifact>,
}

impl ComponentInputs {
    /// The key: SHA-256 of the canonical JSON.
    pub fn key(&self) -> Result<Sha256Digest, CanonicalError> {
        Ok(Sha256Digest::of(&to_canonical_bytes(self)?))
    }
}

impl Component {
    /// Why this cannot be true; `None` where nothing contradicts itself.
    pub(crate) fn contradiction(&self) -> Option<String> {
        let name = &self.inputs.name;
        match self.inputs.key() {
            Ok(key) if key == self.key => {}
            Ok(key) => return Some(format!("the inputs of component \"{name}\" have key {key}, it says {}", self.key)),
            Err(error) => return Some(format!("component \"{name}\": {error}")),
        }
        if let Some(fault) = self.inputs.sources.iter().find_map(SourceFile::fault) {
            return Some(format!("component \"{name}\": {fault}"));
        }
        let named: std::collections::BTreeSet<&String> = self.inputs.outputs.iter().collect();
        (!self.outputs.keys().eq(named))
            .then(|| format!("component \"{name}\" does not have the outputs that it names"))
    }
}
