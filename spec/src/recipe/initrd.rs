//! `[initrd]`: what a recipe adds to the initial RAM disk, beside the first process and the modules that the builder puts there.

use serde::{Deserialize, Serialize};

use super::FileEntry;
use super::check::Origin;
use crate::text::SyntaxError;

/// `[initrd]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct InitrdFiles {
    /// Files with their content in the recipe, or copied from beside it, of root. They are there until the root is switched to.
    #[serde(default)]
    pub file: Vec<FileEntry>,
}

/// What the builder makes, or what the guest mounts something on.
const TAKEN: [&str; 8] = ["init", "etc/bullion", "modules", "dev", "proc", "run", "sys", "sysroot"];

/// Refuses files where the builder has its own, and owners: everything in an initial RAM disk is of root.
pub(super) fn check(files: &[FileEntry], origin: Origin<'_>) -> Result<(), SyntaxError> {
    for (index, entry) in files.iter().enumerate() {
        let path = entry.path.trim_start_matches('/');
        let is_in = |directory: &str| path == directory || path.starts_with(&format!("{directory}/"));
        let other = |other: &&FileEntry| {
            let other = other.path.trim_start_matches('/');
            path == other || path.starts_with(&format!("{other}/")) || other.starts_with(&format!("{path}/"))
        };
        let message = if TAKEN.into_iter().any(is_in) {
            format!("\"{}\" in the initrd is the builder's or the guest's own", entry.path)
        } else if entry.owner.is_some() {
            format!("\"{}\" has an owner: files of the initrd are of root", entry.path)
        } else if files.iter().take(index).any(|before| other(&before)) {
            format!("\"{}\" in the initrd is declared twice, or is below another file", entry.path)
        } else {
            continue;
        };
        return Err(origin.refuse(&entry.path, message));
    }
    Ok(())
}
