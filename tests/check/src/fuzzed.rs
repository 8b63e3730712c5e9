//! Every crate that reads foreign bytes has fuzz targets, and says which.
//!
//! `[package.metadata.bullion]` of fuzz/Cargo.toml lists them: `targets` by crate, and `none` for crates that read nothing
//! foreign, with the reason. A crate that denies indexing anywhere says by that that it reads foreign bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Deserialize;

use crate::metadata::Metadata;
use crate::report::{Finding, Outcome};
use crate::sources::reads_foreign_bytes;

const FILE: &str = "fuzz/Cargo.toml";

#[derive(Debug, Deserialize)]
struct Manifest {
    package: PackageSection,
    #[serde(default)]
    bin: Vec<Binary>,
}

#[derive(Debug, Deserialize)]
struct PackageSection {
    metadata: MetadataSection,
}

#[derive(Debug, Deserialize)]
struct MetadataSection {
    bullion: Targets,
}

#[derive(Debug, Deserialize)]
struct Binary {
    name: String,
    path: String,
}

/// The lists, and the targets that are really built.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Targets {
    targets: BTreeMap<String, Vec<String>>,
    none: BTreeMap<String, String>,
    #[serde(skip)]
    built: BTreeMap<String, String>,
}

impl Targets {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let manifest: Manifest = toml::from_str(text).map_err(|error| format!("{FILE}: {error}"))?;
        let built = manifest.bin.into_iter().map(|bin| (bin.name, bin.path)).collect();
        Ok(Self { built, ..manifest.package.metadata.bullion })
    }

    /// The targets that are built.
    pub(crate) fn names(&self) -> BTreeSet<String> {
        self.built.keys().cloned().collect()
    }
}

pub(crate) fn check(root: &Path, metadata: &Metadata, targets: &Targets) -> Result<Outcome, String> {
    let mut outcome = Outcome::default();
    let listed: BTreeSet<&String> = targets.targets.values().flatten().collect();
    for name in targets.built.keys().filter(|name| !listed.contains(name)) {
        outcome.findings.push(Finding::new(FILE, format!("target {name} is listed for no crate")));
    }
    for package in metadata.members() {
        let folder = metadata.folder(package);
        if folder.starts_with("tests/") {
            continue;
        }
        outcome.looked_at += 1;
        let foreign = reads_foreign_bytes(root, folder)?;
        outcome
            .findings
            .extend(crate_findings(folder, foreign, targets, |path| crate::read(&root.join("fuzz").join(path))));
    }
    Ok(outcome)
}

/// What is wrong with the targets of one crate; `read` reads the source of a target.
fn crate_findings(
    folder: &str,
    foreign: bool,
    targets: &Targets,
    read: impl Fn(&str) -> Result<String, String>,
) -> Vec<Finding> {
    let finding = |message: String| vec![Finding::new(FILE, message)];
    match (targets.targets.get(folder), targets.none.get(folder)) {
        (None, None) => finding(format!("says nothing about {folder}: list its targets, or why it has none")),
        (Some(_), Some(_)) => finding(format!("{folder} has targets and a reason to have none")),
        (None, Some(_)) if foreign => finding(format!("{folder} denies indexing, so it reads foreign bytes: fuzz it")),
        (None, Some(reason)) if reason.trim().len() < 10 => finding(format!("{folder} has no targets and no reason")),
        (None, Some(_)) => Vec::new(),
        (Some(names), None) if names.is_empty() => finding(format!("{folder} has an empty list of targets")),
        (Some(names), None) => names
            .iter()
            .filter_map(|name| {
                let Some(path) = targets.built.get(name) else {
                    return Some(Finding::new(FILE, format!("{folder}: there is no target {name}")));
                };
                match read(path) {
                    // By its public name, or by the source of a private module.
                    Ok(text)
                        if [format!("{folder}::"), format!("/{folder}/src/")]
                            .iter()
                            .any(|use_| text.contains(use_)) =>
                    {
                        None
                    }
                    Ok(_) => Some(Finding::new(format!("fuzz/{path}"), format!("does not call {folder}"))),
                    Err(error) => Some(Finding::new(format!("fuzz/{path}"), error)),
                }
            })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANIFEST: &str = "[package]\nname = \"f\"\n[package.metadata.bullion.targets]\nspec = [\"lock\"]\nimage = [\"gone\"]\n\
        [package.metadata.bullion.none]\nstore = \"reads only what it wrote\"\n\
        [[bin]]\nname = \"lock\"\npath = \"lock.rs\"\n";

    fn messages(folder: &str, foreign: bool, text: &str) -> Vec<String> {
        let targets = Targets::parse(MANIFEST).expect("a manifest");
        let found = crate_findings(folder, foreign, &targets, |_| Ok(text.to_owned()));
        found.into_iter().map(|finding| finding.message).collect()
    }

    #[test]
    fn a_crate_with_a_target_that_calls_it_is_fine() {
        assert_eq!(messages("spec", true, "spec::lock::Lock::parse"), [""; 0]);
        assert_eq!(messages("spec", true, "#[path = \"../../spec/src/lock.rs\"]"), [""; 0]);
        assert_eq!(messages("store", false, ""), [""; 0]);
    }

    #[test]
    fn missing_targets_are_found() {
        assert_eq!(messages("archive", true, ""), ["says nothing about archive: list its targets, or why it has none"]);
        assert_eq!(messages("image", true, ""), ["image: there is no target gone"]);
        assert_eq!(messages("spec", true, "fn main() {}"), ["does not call spec"]);
        assert_eq!(messages("store", true, ""), ["store denies indexing, so it reads foreign bytes: fuzz it"]);
    }
}
