//! Bills of materials and provenance, read by the programs of those who defined them.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use e2e::{bench, judge, run};
use serde_json::Value;

/// Validates a CycloneDX document with the strict schema of its version, its references, and its package URLs.
const CYCLONEDX: &str = r#"
import json, sys
from cyclonedx.model.bom import Bom
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL
text = open(sys.argv[1]).read()
error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
assert error is None, error
value = json.loads(text)
assert Bom.from_json(value).validate()
refs = [c["bom-ref"] for c in value["components"]] + [value["metadata"]["component"]["bom-ref"]]
assert len(refs) == len(set(refs))
for dependency in value["dependencies"]:
    assert set([dependency["ref"], *dependency["dependsOn"]]) <= set(refs), dependency
urls = [c["purl"] for c in value["components"] if "purl" in c]
assert urls and all(PackageURL.from_string(url).to_string() == url for url in urls)
"#;

/// Reads a statement and its predicate with the message types of the in-toto project: unknown fields and wrong types fail.
const PROVENANCE: &str = r#"
import json, sys
from google.protobuf.json_format import ParseDict
from in_toto_attestation.predicates.provenance.v1.provenance_pb2 import Provenance
from in_toto_attestation.v1.resource_descriptor import ResourceDescriptor
from in_toto_attestation.v1.statement import Statement
import in_toto_attestation.v1.statement_pb2 as statement_pb2
value = json.load(open(sys.argv[1]))
Statement.copy_from_pb(ParseDict(value, statement_pb2.Statement())).validate()
assert value["predicateType"] == "https://slsa.dev/provenance/v1"
provenance = ParseDict(value["predicate"], Provenance())
assert provenance.build_definition.build_type and provenance.run_details.builder.id
assert provenance.build_definition.external_parameters
for resource in [*provenance.build_definition.resolved_dependencies, *provenance.run_details.byproducts]:
    ResourceDescriptor.copy_from_pb(resource).validate()
"#;

/// The packages that are installed as dpkg's status says, as `NAME VERSION ARCHITECTURE`.
const STATUS: &str = r#"
import sys
for paragraph in open(sys.argv[1]).read().strip().split("\n\n"):
    fields = dict(line.split(": ", 1) for line in paragraph.splitlines() if line[0] not in " \t" and ": " in line)
    assert fields["Status"] == "install ok installed"
    print(fields["Package"], fields["Version"], fields["Architecture"])
"#;

/// The packages that an SPDX document says are in `rootfs`, as its own parser reads it, by their package URLs.
const IN_ROOT: &str = r#"
import sys
from packageurl import PackageURL
from spdx_tools.spdx.model import RelationshipType
from spdx_tools.spdx.parser.parse_anything import parse_file
document = parse_file(sys.argv[1])
contained = {r.related_spdx_element_id for r in document.relationships
             if r.relationship_type == RelationshipType.CONTAINS and r.spdx_element_id == "SPDXRef-Artifact-rootfs"}
for package in document.packages:
    if package.spdx_id in contained:
        url = PackageURL.from_string(package.external_references[0].locator)
        print(url.name, url.version, url.qualifiers["arch"])
"#;

fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

#[test]
fn others_accept_the_bills_of_materials() {
    let (Some(bench), Some(_), Some(_)) = (bench(), judge("pyspdxtools"), judge("judge-python")) else { return };
    let spdx = |file: &Path| run(judge("pyspdxtools").unwrap().arg("-i").arg(file).args(["--version", "SPDX-2.3"]));
    let cyclonedx = |file: &Path| run(judge("judge-python").unwrap().args(["-c", CYCLONEDX]).arg(file));
    for image in [Some(bench.image()), bench.container()].into_iter().flatten() {
        spdx(&image.join("sbom.spdx.json")).expect(0, &[]);
        cyclonedx(&image.join("sbom.cdx.json")).expect(0, &[]);
    }
    // They do look: a licence, a reference and a relation to nothing that exists are noticed.
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("changed.spdx.json");
    let text = fs::read_to_string(bench.image().join("sbom.spdx.json")).unwrap();
    for (from, to) in
        [("GPL-2.0-or-later", "GPL-2-whatever"), ("Element\":\"SPDXRef-Guest\"", "Element\":\"SPDXRef-None\"")]
    {
        assert!(text.contains(from), "{from}");
        fs::write(&file, text.replace(from, to)).unwrap();
        assert_ne!(spdx(&file).code, 0, "{to} went unseen");
    }
    let text = fs::read_to_string(bench.image().join("sbom.cdx.json")).unwrap();
    fs::write(&file, text.replace("\"serialNumber\":\"urn:uuid:", "\"serialNumber\":\"urn:")).unwrap();
    assert_ne!(cyclonedx(&file).code, 0);
}

#[test]
fn the_bill_has_the_packages_that_dpkg_has_in_the_root() {
    let (Some(bench), Some(mut fsck), Some(_)) = (bench(), judge("fsck.erofs"), judge("judge-python")) else { return };
    let Some(container) = std::env::var_os("BULLION_TEST_CONTAINER") else {
        return e2e::skipped("BULLION_TEST_CONTAINER is not set");
    };
    // The recipe leaves the status out; a recipe that keeps it has the same lock.
    let scratch = tempfile::tempdir().unwrap();
    let at = |name: &str| scratch.path().join(name);
    let recipes = Path::new(&container).parent().unwrap();
    for file in ["base.toml", "container.toml"] {
        fs::copy(recipes.join(file), at(file)).unwrap();
    }
    let text =
        "schema = 1\nname = \"scanned\"\nextends = \"container.toml\"\n[rootfs]\nkeep = [\"/var/lib/dpkg/status\"]\n";
    fs::write(at("scanned.toml"), text).unwrap();
    let lock = Path::new(&container).with_extension("lock");
    let (recipe, image) = (at("scanned.toml"), at("image"));
    let words = ["build", recipe.to_str().unwrap(), "-o", image.to_str().unwrap(), "--lock", lock.to_str().unwrap()];
    bench.run(words).expect(0, &[]);

    let rootfs = image.join("rootfs");
    run(fsck.arg(format!("--extract={}", at("root").display())).arg(&rootfs)).expect(0, &[]);
    let lines = |script: &str, file: &Path| -> BTreeSet<String> {
        let output = run(judge("judge-python").unwrap().args(["-c", script]).arg(file)).expect(0, &[]).stdout;
        output.lines().map(str::to_owned).collect()
    };
    let installed = lines(STATUS, &at("root/var/lib/dpkg/status"));
    assert!(installed.len() > 50, "{installed:?}");
    assert_eq!(lines(IN_ROOT, &image.join("sbom.spdx.json")), installed);
}

#[test]
fn others_accept_the_provenance_and_it_names_every_input() {
    let (Some(bench), Some(mut python)) = (bench(), judge("judge-python")) else { return };
    let image = bench.image();
    run(python.args(["-c", PROVENANCE]).arg(image.join("provenance.json"))).expect(0, &[]);
    let value = json(&image.join("provenance.json"));
    let line = |file: &Value, directory: &str| {
        format!("{}  {directory}{}\n", file["digest"]["sha256"].as_str().unwrap(), file["name"].as_str().unwrap())
    };
    let subjects = value["subject"].as_array().unwrap().iter();
    let byproducts = value["predicate"]["runDetails"]["byproducts"].as_array().unwrap().iter();
    let sums: String = subjects.chain(byproducts).map(|file| line(file, "")).collect();
    let scratch = tempfile::tempdir().unwrap();
    let sums_file = scratch.path().join("sums");
    fs::write(&sums_file, &sums).unwrap();
    run(std::process::Command::new("sha256sum").arg("-c").arg(&sums_file).current_dir(image)).expect(0, &[]);
    // All files but the two that come after it: itself, and the manifest, which has its digest.
    assert_eq!(sums.lines().count() + 2, e2e::names(image).len());
    // Every package that the lock names, and what no lock names.
    let lock = fs::read_to_string(image.join("recipe.lock")).unwrap();
    let inputs = value["predicate"]["buildDefinition"]["resolvedDependencies"].as_array().unwrap();
    let digests: BTreeSet<&str> = inputs.iter().map(|input| input["digest"]["sha256"].as_str().unwrap()).collect();
    let locked = lock
        .split("[[package]]")
        .skip(1)
        .map(|package| package.lines().find_map(|line| line.strip_prefix("sha256 = ")).unwrap().trim_matches('"'));
    let locked: BTreeSet<&str> = locked.collect();
    assert!(locked.len() >= 9 && locked.is_subset(&digests));
    let guest = run(std::process::Command::new("sha256sum").arg(std::env::var("BULLION_GUEST").unwrap())).stdout;
    assert!(digests.contains(&guest[..64]));
    let lock_sha256 = run(std::process::Command::new("sha256sum").arg(image.join("recipe.lock"))).stdout;
    assert_eq!(value["predicate"]["buildDefinition"]["externalParameters"]["lock_sha256"], lock_sha256[..64]);
}
