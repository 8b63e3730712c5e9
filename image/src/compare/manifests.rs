//! What two manifests differ in: packages, artifacts and measured values, and which artifact moves which value.

use std::collections::{BTreeMap, BTreeSet};

use spec::lock::{Package, Use};
use spec::manifest::{Artifact, Manifest};

use crate::measured::{MEASURED, MRTD, ROOT_HASH, RTMR, SNP};

/// What differs between two manifests. Only what differs is listed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ManifestDifference {
    /// Packages by name.
    pub packages: BTreeMap<String, PackageChange>,
    /// Artifacts by name, as they were and as they are.
    pub artifacts: BTreeMap<String, (Option<Artifact>, Option<Artifact>)>,
    /// Measured values that one of the manifests has, or whose inputs differ.
    pub values: Vec<ValueChange>,
}

/// A package that is in one image only, or in both and not the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackageChange {
    /// Its version in the first image.
    pub before: Option<String>,
    /// Its version in the second.
    pub after: Option<String>,
    /// What it is for, in either.
    pub uses: BTreeSet<Use>,
}

/// A measured value in two images.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValueChange {
    /// What kind of value it is, as in `MEASURED`.
    pub name: &'static str,
    /// The machine that it is of, where it is of one.
    pub shape: Option<String>,
    /// The value in the first image, where it is predicted.
    pub before: Option<String>,
    /// The value in the second.
    pub after: Option<String>,
    /// The artifacts it covers that differ. Empty where the value is the same.
    pub moved_by: Vec<String>,
}

/// Compares two manifests.
pub fn compare_manifests(a: &Manifest, b: &Manifest) -> ManifestDifference {
    let artifacts = changed(&a.artifacts, &b.artifacts);
    ManifestDifference { packages: packages(a, b), values: values(a, b, &artifacts), artifacts }
}

type Changed = BTreeMap<String, (Option<Artifact>, Option<Artifact>)>;

fn changed(a: &BTreeMap<String, Artifact>, b: &BTreeMap<String, Artifact>) -> Changed {
    let names: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
    let pairs = names.into_iter().map(|name| (name.clone(), (a.get(name).cloned(), b.get(name).cloned())));
    pairs.filter(|(_, (a, b))| a != b).collect()
}

fn packages(a: &Manifest, b: &Manifest) -> BTreeMap<String, PackageChange> {
    let by_name = |manifest: &Manifest| -> BTreeMap<String, Package> {
        manifest.inputs.iter().map(|package| (package.name.clone(), package.clone())).collect()
    };
    let (before, after) = (by_name(a), by_name(b));
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let mut found = BTreeMap::new();
    for name in names {
        let (was, is) = (before.get(name), after.get(name));
        if was.map(|package| package.sha256) != is.map(|package| package.sha256) {
            let version = |package: Option<&Package>| package.map(|package| package.version.clone());
            let uses = was.iter().chain(is.iter()).flat_map(|package| package.uses.iter().copied()).collect();
            found.insert(name.clone(), PackageChange { before: version(was), after: version(is), uses });
        }
    }
    found
}

/// Values by kind and shape.
type Values = BTreeMap<(usize, Option<String>), String>;

fn values(a: &Manifest, b: &Manifest, artifacts: &Changed) -> Vec<ValueChange> {
    let (before, after) = (predicted(a), predicted(b));
    let mut keys: BTreeSet<(usize, Option<String>)> = before.keys().chain(after.keys()).cloned().collect();
    for (index, _) in MEASURED.iter().enumerate() {
        if !keys.iter().any(|(known, _)| *known == index) {
            keys.insert((index, None));
        }
    }
    let change = |key: (usize, Option<String>)| {
        let measured = MEASURED.get(key.0)?;
        let (before, after) = (before.get(&key).cloned(), after.get(&key).cloned());
        let same = before.is_some() && before == after;
        let inputs = measured.of.iter().filter(|name| !same && artifacts.contains_key(**name));
        let moved_by: Vec<String> = inputs.map(|name| (*name).to_owned()).collect();
        let known = before.is_some() || after.is_some() || !moved_by.is_empty();
        known.then_some(ValueChange { name: measured.name, shape: key.1, before, after, moved_by })
    };
    keys.into_iter().filter_map(change).collect()
}

/// Everything that a manifest predicts.
fn predicted(manifest: &Manifest) -> Values {
    let mut found = Values::new();
    let mut add = |name: &str, shape: Option<String>, value: String| {
        if let Some(index) = MEASURED.iter().position(|measured| measured.name == name) {
            found.insert((index, shape), value);
        }
    };
    add(ROOT_HASH, None, manifest.verity.root_hash.to_string());
    for of in &manifest.references.snp {
        let plural = if of.vcpus == 1 { "" } else { "s" };
        let features =
            if of.sev_features == 1 { String::new() } else { format!(", SEV_FEATURES {:#x}", of.sev_features) };
        let shape = format!("{}, {} vCPU{plural}{features}", of.cpu, of.vcpus);
        add(SNP, Some(shape), of.launch_digest.to_string());
    }
    for of in &manifest.references.tdx {
        add(MRTD, None, of.mrtd.to_string());
        let [rtmr0, rtmr1, rtmr2] = RTMR;
        for shape in of.platform.iter().flat_map(|platform| &platform.rtmr0) {
            let words = format!("{} vCPUs, {} MiB", shape.vcpus, shape.memory_mib);
            add(rtmr0, Some(words), shape.rtmr0.to_string());
        }
        if let Some(image) = &of.image {
            add(rtmr1, None, image.rtmr1.to_string());
            add(rtmr2, None, image.rtmr2.to_string());
        }
    }
    found
}
