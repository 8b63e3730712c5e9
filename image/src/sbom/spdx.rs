//! The bill as SPDX 2.3 JSON (spdx.github.io/spdx-spec/v2.3, schema `spdx-schema.json` of that version).
//!
//! Artifacts are packages with a file name rather than SPDX files, because a file must have a SHA-1 there, and nobody should
//! rely on one.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use spec::canonical::CanonicalError;
use spec::lock::Package;
use spec::manifest::artifact;

use super::licence::Other;
use super::{Bill, named_by_content};

const DOCUMENT: &str = "SPDXRef-DOCUMENT";
const IMAGE: &str = "SPDXRef-Image";
const GUEST: &str = "SPDXRef-Guest";
const UNKNOWN: &str = "NOASSERTION";

pub(super) fn document(bill: &Bill<'_>) -> Result<Vec<u8>, CanonicalError> {
    let manifest = bill.manifest;
    let mut packages = vec![element(IMAGE, &manifest.name, "OPERATING-SYSTEM")];
    packages.extend(artifacts(bill));
    packages.push(guest(bill));
    packages.extend(manifest.inputs.iter().map(|package| deb(bill, package)));
    let relationships: Vec<Value> = relationships(bill)
        .into_iter()
        .map(|(from, kind, to)| json!({ "spdxElementId": from, "relationshipType": kind, "relatedSpdxElement": to }))
        .collect();
    let document = json!({
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": DOCUMENT,
        "name": manifest.name,
        "creationInfo": {
            "created": bill.created,
            "creators": [concat!("Tool: bullion-", env!("CARGO_PKG_VERSION"))],
            "comment": "The time is that of the newest release file behind the lock, not that of the build.",
        },
        "packages": packages,
        "relationships": relationships,
        "hasExtractedLicensingInfos": extracted(bill),
    });
    named_by_content(document, |document, uuid| {
        if let Some(fields) = document.as_object_mut() {
            fields.insert("documentNamespace".to_owned(), json!(format!("urn:uuid:{uuid}")));
        }
    })
}

/// A package with the fields that every package has.
fn element(id: &str, name: &str, purpose: &str) -> Map<String, Value> {
    let fields = json!({
        "SPDXID": id,
        "name": name,
        "downloadLocation": UNKNOWN,
        "filesAnalyzed": false,
        "licenseConcluded": UNKNOWN,
        "licenseDeclared": UNKNOWN,
        "copyrightText": UNKNOWN,
        "primaryPackagePurpose": purpose,
    });
    match fields {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}

fn with<const N: usize>(mut fields: Map<String, Value>, more: [(&str, Value); N]) -> Map<String, Value> {
    fields.extend(more.into_iter().map(|(name, value)| (name.to_owned(), value)));
    fields
}

fn sha256(digest: impl std::fmt::Display) -> Value {
    json!([{ "algorithm": "SHA256", "checksumValue": digest.to_string() }])
}

fn artifacts<'a>(bill: &'a Bill<'_>) -> impl Iterator<Item = Map<String, Value>> + 'a {
    bill.manifest.artifacts.iter().map(|(name, file)| {
        let firmware = [artifact::FIRMWARE_SNP, artifact::FIRMWARE_TDX].contains(&name.as_str());
        let purpose = if firmware { "FIRMWARE" } else { "FILE" };
        let mut fields = element(&artifact_id(name), name, purpose);
        if name == artifact::KERNEL {
            fields.insert("versionInfo".to_owned(), json!(bill.manifest.kernel_version));
        }
        with(fields, [("packageFileName", json!(format!("./{name}"))), ("checksums", sha256(file.sha256))])
    })
}

fn guest(bill: &Bill<'_>) -> Map<String, Value> {
    let fields = element(GUEST, "bullion-guest", "APPLICATION");
    with(
        fields,
        [
            ("checksums", sha256(bill.manifest.guest.sha256)),
            ("licenseDeclared", json!(env!("CARGO_PKG_LICENSE"))),
            ("comment", json!(format!("The first process of the guest; origin: {}", bill.manifest.guest.origin))),
        ],
    )
}

fn deb(bill: &Bill<'_>, package: &Package) -> Map<String, Value> {
    let facts = bill.facts.get(&package.name);
    let field = |name: &str| facts.and_then(|facts| facts.field(name));
    let purl = package.purl();
    let mut fields = with(
        element(&package_id(&package.name), &package.name, "INSTALL"),
        [
            ("versionInfo", json!(package.version)),
            ("packageFileName", json!(package.path.rsplit('/').next())),
            ("supplier", json!("Organization: Debian")),
            ("checksums", sha256(package.sha256)),
            (
                "externalRefs",
                json!([{ "referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": purl }]),
            ),
            ("sourceInfo", json!(format!("built from the source package {}", super::source(package, facts)))),
        ],
    );
    if let Some(summary) = field("Description") {
        fields.insert("summary".to_owned(), json!(summary));
    }
    if let Some(homepage) = field("Homepage").filter(|url| super::is_url(url)) {
        fields.insert("homepage".to_owned(), json!(homepage));
    }
    if let Some(declared) = bill.licences.get(package.name.as_str()) {
        fields.insert("licenseDeclared".to_owned(), json!(declared.expression));
    }
    fields
}

fn extracted(bill: &Bill<'_>) -> Vec<Value> {
    let others: BTreeMap<&String, &Other> = bill.licences.values().flat_map(|declared| &declared.others).collect();
    let info =
        |(id, other): (&String, &Other)| json!({ "licenseId": id, "name": other.name, "extractedText": other.text });
    others.into_iter().map(info).collect()
}

/// From, type and to of each relationship (SPDX 2.3, clause 11).
fn relationships(bill: &Bill<'_>) -> Vec<(String, &'static str, String)> {
    let mut found = vec![(DOCUMENT.to_owned(), "DESCRIBES", IMAGE.to_owned())];
    let artifacts = bill.manifest.artifacts.keys();
    found.extend(artifacts.map(|name| (IMAGE.to_owned(), "CONTAINS", artifact_id(name))));
    found.push((artifact_id(artifact::INITRD), "CONTAINS", GUEST.to_owned()));
    let relations = &bill.relations;
    let packages = [(&relations.contains, "CONTAINS"), (&relations.made_from, "GENERATED_FROM")];
    for (of, kind) in packages {
        for (artifact, names) in of {
            found.extend(names.iter().map(|name| (artifact_id(artifact), kind, package_id(name))));
        }
    }
    for (artifact, held) in &relations.holds {
        found.extend(held.iter().map(|name| (artifact_id(artifact), "CONTAINS", artifact_id(name))));
    }
    for (name, needed) in &relations.needs {
        found.extend(needed.iter().map(|other| (package_id(name), "DEPENDS_ON", package_id(other))));
    }
    found
}

fn artifact_id(name: &str) -> String {
    format!("SPDXRef-Artifact-{}", id_part(name))
}

fn package_id(name: &str) -> String {
    format!("SPDXRef-Package-{}", id_part(name))
}

/// Identifiers have letters, digits, points and hyphens only (SPDX 2.3, 3.2).
fn id_part(name: &str) -> String {
    let part = |c: char| match c {
        c if c.is_ascii_alphanumeric() || matches!(c, '.' | '-') => c.to_string(),
        c => format!(".{:02X}", u32::from(c)),
    };
    name.chars().map(part).collect()
}
