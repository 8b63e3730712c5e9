//! The bill as CycloneDX 1.6 JSON (ECMA-424, schema `bom-1.6.schema.json`).
//!
//! Components are a flat list, because not every reader looks into nested ones; what is in what, and what needs what, stands
//! among the dependencies.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use spec::canonical::CanonicalError;
use spec::lock::Package;
use spec::manifest::artifact;

use super::{Bill, named_by_content};

const IMAGE: &str = "image";
const GUEST: &str = "guest";

pub(super) fn document(bill: &Bill<'_>) -> Result<Vec<u8>, CanonicalError> {
    let manifest = bill.manifest;
    let mut components: Vec<Value> = artifacts(bill).collect();
    components.push(guest(bill));
    components.extend(manifest.inputs.iter().map(|package| deb(bill, package)));
    let dependencies: Vec<Value> =
        dependencies(bill).into_iter().map(|(of, on)| json!({ "ref": of, "dependsOn": on })).collect();
    let document = json!({
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "timestamp": bill.created,
            "tools": { "components": [{ "type": "application", "name": "bullion", "version": env!("CARGO_PKG_VERSION") }] },
            "component": { "type": "operating-system", "bom-ref": IMAGE, "name": manifest.name },
        },
        "components": components,
        "dependencies": dependencies,
    });
    named_by_content(document, |document, uuid| {
        if let Some(fields) = document.as_object_mut() {
            fields.insert("serialNumber".to_owned(), json!(format!("urn:uuid:{uuid}")));
        }
    })
}

fn sha256(digest: impl std::fmt::Display) -> Value {
    json!([{ "alg": "SHA-256", "content": digest.to_string() }])
}

fn artifacts<'a>(bill: &'a Bill<'_>) -> impl Iterator<Item = Value> + 'a {
    bill.manifest.artifacts.iter().map(|(name, file)| {
        let firmware = [artifact::FIRMWARE_SNP, artifact::FIRMWARE_TDX].contains(&name.as_str());
        let mut component = json!({
            "type": if firmware { "firmware" } else { "file" },
            "bom-ref": artifact_ref(name),
            "name": name,
            "hashes": sha256(file.sha256),
        });
        if let Some(fields) = component.as_object_mut().filter(|_| name == artifact::KERNEL) {
            fields.insert("version".to_owned(), json!(bill.manifest.kernel_version));
        }
        component
    })
}

fn guest(bill: &Bill<'_>) -> Value {
    json!({
        "type": "application",
        "bom-ref": GUEST,
        "name": "bullion-guest",
        "hashes": sha256(bill.manifest.guest.sha256),
        "licenses": [{ "license": { "id": env!("CARGO_PKG_LICENSE") } }],
        "properties": [{ "name": "bullion:origin", "value": bill.manifest.guest.origin }],
    })
}

fn deb(bill: &Bill<'_>, package: &Package) -> Value {
    let facts = bill.facts.get(&package.name);
    let field = |name: &str| facts.and_then(|facts| facts.field(name));
    let mut component = json!({
        "type": "library",
        "bom-ref": package_ref(package),
        "name": package.name,
        "version": package.version,
        "purl": package.purl(),
        "hashes": sha256(package.sha256),
        "supplier": { "name": "Debian" },
        "properties": [
            { "name": "bullion:file", "value": package.path.rsplit('/').next() },
            { "name": "bullion:source", "value": super::source(package, facts) },
        ],
    });
    let Some(fields) = component.as_object_mut() else { return component };
    if let Some(summary) = field("Description") {
        fields.insert("description".to_owned(), json!(summary));
    }
    if let Some(homepage) = field("Homepage").filter(|url| super::is_url(url)) {
        fields.insert("externalReferences".to_owned(), json!([{ "type": "website", "url": homepage }]));
    }
    if let Some(declared) = bill.licences.get(package.name.as_str()) {
        let expression = json!([{ "expression": declared.expression, "acknowledgement": "declared" }]);
        fields.insert("licenses".to_owned(), expression);
    }
    component
}

/// What depends on what: the image on its artifacts, an artifact on what is in it or what it was made from, a package on
/// packages.
fn dependencies(bill: &Bill<'_>) -> BTreeMap<String, BTreeSet<String>> {
    let refs: BTreeMap<&str, String> =
        bill.manifest.inputs.iter().map(|package| (package.name.as_str(), package_ref(package))).collect();
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut add = |of: String, on: Option<&String>| found.entry(of).or_default().extend(on.cloned());
    for name in bill.manifest.artifacts.keys() {
        add(IMAGE.to_owned(), Some(&artifact_ref(name)));
        add(artifact_ref(name), None);
    }
    add(artifact_ref(artifact::INITRD), Some(&GUEST.to_owned()));
    add(GUEST.to_owned(), None);
    let relations = &bill.relations;
    for (artifact, names) in relations.contains.iter().chain(&relations.made_from) {
        names.iter().for_each(|name| add(artifact_ref(artifact), refs.get(name)));
    }
    for (artifact, held) in &relations.holds {
        held.iter().for_each(|name| add(artifact_ref(artifact), Some(&artifact_ref(name))));
    }
    for (name, of) in &refs {
        add(of.clone(), None);
        for needed in relations.needs.get(name).into_iter().flatten() {
            add(of.clone(), refs.get(needed));
        }
    }
    found
}

fn artifact_ref(name: &str) -> String {
    format!("artifact:{name}")
}

fn package_ref(package: &Package) -> String {
    package.purl()
}
