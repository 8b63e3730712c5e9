//! What two manifests differ in: packages and artifacts; and what is predicted of two images, with the artifacts that move it.

use std::collections::{BTreeMap, BTreeSet};

use spec::lock::{Package, Use};
use spec::manifest::{Artifact, Manifest, SnpReference, TdxPlatform, TdxReference, TdxRtmr0};

use crate::measured::{MEASURED, MRTD, ROOT_HASH, RTMR, RTMR_OF_DISK, SNP, is_measured_of};

/// What differs between two manifests. Only what differs is listed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ManifestDifference {
    /// Packages by name.
    pub packages: BTreeMap<String, PackageChange>,
    /// Artifacts by name, as they were and as they are.
    pub artifacts: Changed,
}

/// Artifacts that differ, as they were and as they are.
pub type Changed = BTreeMap<String, (Option<Artifact>, Option<Artifact>)>;

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
    /// What kind of value it is, as in `MEASURED`, or a PCR.
    pub name: &'static str,
    /// The machine or the boot that it is of, where it is of one.
    pub shape: Option<String>,
    /// The value in the first image, where it is predicted.
    pub before: Option<String>,
    /// The value in the second.
    pub after: Option<String>,
    /// The artifacts it covers that differ. Empty where the value is the same.
    pub moved_by: Vec<String>,
    /// What is measured otherwise in it, event by event, in words; empty where that was not looked at.
    pub inputs: Vec<String>,
}

/// Compares two manifests.
pub fn compare_manifests(a: &Manifest, b: &Manifest) -> ManifestDifference {
    ManifestDifference { packages: packages(a, b), artifacts: changed(&a.artifacts, &b.artifacts) }
}

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

/// A measured value of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Predicted {
    /// What kind of value it is, as in `MEASURED`.
    pub name: &'static str,
    /// The machine that it is of, where it is of one.
    pub shape: Option<String>,
    /// The value; of a register that may have several, all of them, with " or " between.
    pub value: String,
}

/// Compares what is predicted of two images, of which these artifacts differ; `has` says which artifacts one of them has.
pub fn compare_values(
    a: &[Predicted],
    b: &[Predicted],
    artifacts: &Changed,
    has: impl Fn(&str) -> bool,
) -> Vec<ValueChange> {
    let by_key = |all: &[Predicted]| -> BTreeMap<(Option<usize>, Option<String>), String> {
        let place = |name: &str| MEASURED.iter().position(|measured| measured.name == name);
        all.iter().map(|of| ((place(of.name), of.shape.clone()), of.value.clone())).collect()
    };
    let (before, after) = (by_key(a), by_key(b));
    let mut keys: BTreeSet<_> = before.keys().chain(after.keys()).cloned().collect();
    for (index, measured) in MEASURED.iter().enumerate() {
        if is_measured_of(measured.name, &has) && !keys.iter().any(|(known, _)| *known == Some(index)) {
            keys.insert((Some(index), None));
        }
    }
    let change = |key: (Option<usize>, Option<String>)| {
        let measured = MEASURED.get(key.0?)?;
        let (before, after) = (before.get(&key).cloned(), after.get(&key).cloned());
        let same = before.is_some() && before == after;
        let covered = measured.of.iter().filter(|name| !same && artifacts.contains_key(**name));
        let moved_by: Vec<String> = covered.map(|name| (*name).to_owned()).collect();
        let known = before.is_some() || after.is_some() || !moved_by.is_empty();
        let inputs = Vec::new();
        known.then_some(ValueChange { name: measured.name, shape: key.1, before, after, moved_by, inputs })
    };
    keys.into_iter().filter_map(change).collect()
}

/// Everything that a manifest predicts.
pub fn predicted(manifest: &Manifest) -> Vec<Predicted> {
    let mut found = vec![Predicted { name: ROOT_HASH, shape: None, value: manifest.verity.root_hash.to_string() }];
    found.extend(manifest.references.snp.iter().map(of_snp));
    found.extend(manifest.references.tdx.iter().flat_map(of_tdx));
    found
}

/// The launch digest of a reference. A CPU model can stand there with several signatures.
pub fn of_snp(of: &SnpReference) -> Predicted {
    let plural = if of.vcpus == 1 { "" } else { "s" };
    let features = if of.sev_features == 1 { String::new() } else { format!(", SEV_FEATURES {:#x}", of.sev_features) };
    let shape = format!("{} ({:#010x}), {} vCPU{plural}{features}", of.cpu, of.cpu_signature, of.vcpus);
    Predicted { name: SNP, shape: Some(shape), value: of.launch_digest.to_string() }
}

/// MRTD and the registers of a reference, of a kernel that is started directly and of the disk.
pub fn of_tdx(of: &TdxReference) -> Vec<Predicted> {
    let value = |name, value: String| Predicted { name, shape: None, value };
    let of_shapes = |name, platform: &Option<TdxPlatform>| {
        let shapes = platform.iter().flat_map(|platform| &platform.rtmr0);
        let of = |shape: &TdxRtmr0| {
            let words = format!("{} vCPUs, {} MiB", shape.vcpus, shape.memory_mib);
            Predicted { name, shape: Some(words), value: shape.rtmr0.to_string() }
        };
        shapes.map(of).collect::<Vec<_>>()
    };
    let mut found = vec![value(MRTD, of.mrtd.to_string())];
    found.extend(of_shapes(RTMR[0], &of.platform));
    if let Some(image) = &of.image {
        found.push(value(RTMR[1], image.rtmr1.to_string()));
        found.push(value(RTMR[2], image.rtmr2.to_string()));
    }
    if let Some(disk) = &of.disk {
        found.extend(of_shapes(RTMR_OF_DISK[0], &disk.platform));
        let one_of: Vec<String> = disk.rtmr1_one_of.iter().map(ToString::to_string).collect();
        found.push(value(RTMR_OF_DISK[1], one_of.join(" or ")));
        found.push(value(RTMR_OF_DISK[2], disk.rtmr2.to_string()));
    }
    found
}

#[cfg(test)]
mod tests {
    use spec::Sha384Digest;

    use super::*;

    #[test]
    fn a_digest_of_another_stepping_hides_no_digest_that_moved() {
        let reference = |cpu_signature, byte| SnpReference {
            vcpus: 1,
            cpu: "EPYC-Milan".to_owned(),
            cpu_signature,
            sev_features: 1,
            launch_digest: Sha384Digest([byte; 48]),
            id_block: None,
        };
        let all = |bytes: [u8; 2]| -> Vec<Predicted> {
            [0x00a0_0f11, 0x00a0_0f12]
                .into_iter()
                .zip(bytes)
                .map(|(signature, byte)| of_snp(&reference(signature, byte)))
                .collect()
        };
        let found = compare_values(&all([1, 9]), &all([2, 9]), &Changed::default(), |_| false);
        let moved: Vec<bool> = found.iter().map(|value| value.before != value.after).collect();
        assert_eq!(moved, [true, false], "{found:?}");
    }
}
