//! The manifest: canonical round trip, and what a corrupt one is told.

use std::collections::BTreeMap;

use proptest::prelude::*;
use spec::component::{Component, ComponentInputs};
use spec::lock::{Package, Standing, Use};
use spec::manifest::{
    AcpiAdmission, Artifact, Class, GUEST_FROM_COMPONENT, GuestBinary, Manifest, RELEASE_WORD, ReferenceValues,
    SnpReference, TdxReference, Verity, artifact,
};
use spec::recipe::{GUEST_OUTPUT, kernel_output};
use spec::{Sha256Digest, Sha384Digest};

use crate::shipped::flattened;

fn manifest() -> Manifest {
    let recipe = flattened("minimal.toml");
    let names = [artifact::KERNEL, artifact::INITRD, artifact::ROOTFS, artifact::COMMAND_LINE];
    let artifacts =
        names.map(|name| (name.to_owned(), Artifact { size: 4096, sha256: Sha256Digest::of(name.as_bytes()) }));
    Manifest {
        schema: 1,
        name: recipe.name.clone(),
        class: Class::Dev,
        standing: Standing::Published,
        format_epoch: 1,
        artifacts: artifacts.into_iter().collect(),
        documents: BTreeMap::new(),
        verity: Verity {
            algorithm: "sha256".to_owned(),
            block_size: 4096,
            data_blocks: 1,
            hash_offset: 4096,
            salt: "00".repeat(32),
            root_hash: Sha256Digest([7; 32]),
        },
        kernel_version: "7.0.1+deb14-cloud-amd64".to_owned(),
        // The digests above are those of the names, and this line must have its artifact's.
        command_line: artifact::COMMAND_LINE.to_owned(),
        recipe,
        lock_sha256: Sha256Digest([1; 32]),
        inputs: vec![Package {
            name: "libc6".to_owned(),
            version: "2.41-12".to_owned(),
            architecture: "amd64".to_owned(),
            suite: "trixie".to_owned(),
            uses: vec![Use::Tree],
            path: "pool/main/g/glibc/libc6_2.41-12_amd64.deb".to_owned(),
            size: 3,
            sha256: Sha256Digest([2; 32]),
            scripts: Vec::new(),
        }],
        guest: GuestBinary { sha256: Sha256Digest([3; 32]), size: 5, origin: "host".to_owned() },
        components: Vec::new(),
        acpi: None,
        references: ReferenceValues {
            snp: vec![SnpReference {
                vcpus: 2,
                cpu: "EPYC-v4".to_owned(),
                cpu_signature: 0x0080_0f12,
                sev_features: 1,
                launch_digest: Sha384Digest([4; 48]),
                id_block: None,
            }],
            tdx: vec![TdxReference {
                firmware_sha256: Sha256Digest([5; 32]),
                mrtd: Sha384Digest([6; 48]),
                firmware_pin: None,
                platform: None,
                image: None,
                disk: None,
            }],
        },
    }
}

fn refused(bytes: &[u8]) -> String {
    Manifest::parse("manifest.json", bytes).expect_err("a bad manifest").to_string()
}

/// The manifest as JSON text after `edit`.
fn edited(edit: impl FnOnce(&mut serde_json::Value)) -> Vec<u8> {
    let mut value = serde_json::to_value(manifest()).unwrap();
    edit(&mut value);
    serde_json::to_vec(&value).unwrap()
}

#[test]
fn a_manifest_comes_back_and_has_one_form() {
    let bytes = manifest().to_bytes().unwrap();
    let again = Manifest::parse("manifest.json", &bytes).unwrap();
    assert_eq!(again, manifest());
    assert_eq!(again.to_bytes().unwrap(), bytes);
    assert_eq!(bytes.iter().filter(|byte| **byte == b'\n').count(), 1, "one line");
    // Key order and white space of a copy do not matter to what it means, nor to its canonical form.
    let pretty = serde_json::to_vec_pretty(&manifest()).unwrap();
    assert_eq!(Manifest::parse("manifest.json", &pretty).unwrap().to_bytes().unwrap(), bytes);
}

#[test]
fn a_corrupt_manifest_is_told_what_is_wrong() {
    let whole = manifest().to_bytes().unwrap();
    assert!(refused(&whole[..whole.len() / 2]).starts_with("manifest.json: EOF while parsing"));
    assert!(refused(b"").starts_with("manifest.json: EOF while parsing"));
    assert!(refused(&edited(|m| m["extra"] = 1.into())).contains("unknown field `extra`"));
    assert!(refused(&edited(|m| m["schema"] = 2.into())).contains("schema 2 is not known"));
    assert!(refused(&edited(|m| m["verity"]["root_hash"] = "00".into())).contains("expected 64 lower-case hex digits"));
    assert!(refused(&edited(|m| drop(m.as_object_mut().unwrap().remove("class")))).contains("missing field `class`"));
}

/// A manifest of class release, with components that made its guest binary and its kernel.
fn release() -> Manifest {
    let mut manifest = manifest();
    let kernel = manifest.artifacts[artifact::KERNEL].clone();
    let guest = Artifact { size: manifest.guest.size, sha256: manifest.guest.sha256 };
    for (name, output, made) in [("guest", GUEST_OUTPUT, guest), ("kernel", kernel_output::KERNEL, kernel)] {
        let inputs = ComponentInputs {
            name: name.to_owned(),
            sandbox: 1,
            script: "true".to_owned(),
            outputs: vec![output.to_owned()],
            packages: Vec::new(),
            crates: Vec::new(),
            sources: Vec::new(),
            files: BTreeMap::new(),
        };
        manifest.components.push(Component {
            key: inputs.key().unwrap(),
            lock_sha256: manifest.lock_sha256,
            standing: manifest.standing,
            inputs,
            outputs: BTreeMap::from([(output.to_owned(), made)]),
        });
    }
    let (qemu_version, qemu_lock_sha256) = ("11.1.0".to_owned(), Sha256Digest([8; 32]));
    let digests = vec![Sha256Digest([0xaa; 32]), Sha256Digest([0xbb; 32])];
    manifest.acpi = Some(AcpiAdmission { qemu_version, qemu_lock_sha256, digests });
    manifest.command_line = format!("quiet bullion.acpi={},{} {RELEASE_WORD}", "aa".repeat(32), "bb".repeat(32));
    manifest.artifacts.remove(artifact::COMMAND_LINE);
    manifest.guest.origin = GUEST_FROM_COMPONENT.to_owned();
    manifest.class = Class::Release;
    manifest
}

#[test]
fn a_release_has_a_kernel_of_a_component_that_takes_listed_machines() {
    let told = |edit: fn(&mut Manifest)| {
        let mut manifest = release();
        edit(&mut manifest);
        refused(&serde_json::to_vec(&manifest).unwrap())
    };
    Manifest::parse("manifest.json", &release().to_bytes().unwrap()).unwrap();
    let error = told(|manifest| drop(manifest.components.pop()));
    assert!(error.contains("class release, but no component made its kernel"), "{error}");
    let error = told(|manifest| drop(manifest.components.remove(0)));
    assert!(error.contains("no component made the guest binary"), "{error}");
    for edit in [(|manifest: &mut Manifest| manifest.acpi = None) as fn(&mut Manifest), |manifest| {
        manifest.acpi.as_mut().unwrap().digests.clear();
    }] {
        let error = told(edit);
        assert!(error.contains("class release, but it lists no ACPI tables"), "{error}");
    }
    let error = told(|manifest| manifest.command_line = "quiet bullion.acpi=unchecked".to_owned());
    assert!(error.contains("its command line does not have bullion.acpi=aa"), "{error}");
    for more in
        [" bullion.acpi=unchecked", " quiet\u{e0}bullion.acpi=unchecked", " \"x bullion.acpi=unchecked\"", " x=\"y\""]
    {
        let mut manifest = release();
        manifest.command_line.push_str(more);
        let error = refused(&serde_json::to_vec(&manifest).unwrap());
        assert!(error.contains("must have bullion.acpi= once and no quotation mark"), "{more}: {error}");
    }
    let error = told(|manifest| manifest.acpi.as_mut().unwrap().digests.reverse());
    assert!(error.contains("its command line does not have bullion.acpi=bb"), "{error}");
    // Its guest would go by the word, and write on the host's console.
    let error = told(|manifest| manifest.command_line = manifest.command_line.replace(RELEASE_WORD, ""));
    assert!(error.contains("its command line not bullion.class=release once"), "{error}");
    let error = told(|manifest| manifest.artifacts.get_mut(artifact::KERNEL).unwrap().size += 1);
    assert!(error.contains("did not make the artifact \"vmlinuz\""), "{error}");
}

#[test]
fn an_artifact_cannot_lie_outside_the_image_directory() {
    for name in ["../vmlinuz", "/etc/passwd", "", "..", ".hidden", "a\0b", "a\nb", "a\u{1b}]0;b"] {
        let bytes = edited(|m| m["artifacts"][name] = m["artifacts"][artifact::KERNEL].clone());
        let text = refused(&bytes);
        assert!(text.contains("is not the name of an artifact") && !text.contains(char::is_control), "{text:?}");
    }
}

#[test]
fn control_characters_are_refused_and_shown_escaped() {
    // ESC, C1's CSI (one character in UTF-8 terminals), line feed, zero, delete.
    for character in ['\u{1b}', '\u{9b}', '\n', '\0', '\u{7f}'] {
        for field in ["name", "kernel_version", "command_line"] {
            let text = format!("a{character}[2Jb");
            let bytes = edited(|m| {
                m[field] = text.clone().into();
                m["artifacts"].as_object_mut().unwrap().remove(artifact::COMMAND_LINE);
            });
            let error = refused(&bytes);
            let expected = format!("manifest.json: {field} has a control character: {text:?}");
            assert_eq!(error, expected);
            assert!(!error.contains(char::is_control));
        }
    }
}

#[test]
fn a_line_is_named_where_there_is_more_than_one() {
    let mut pretty = serde_json::to_string_pretty(&manifest()).unwrap();
    pretty = pretty.replacen("\"dev\"", "\"golden\"", 1);
    let line = 1 + pretty.lines().position(|line| line.contains("golden")).unwrap();
    assert!(refused(pretty.as_bytes()).starts_with(&format!("manifest.json:{line}: unknown variant `golden`")));
}

proptest! {
    #[test]
    fn any_values_come_back(
        sizes in proptest::collection::btree_map("[a-z][a-z.-]{0,12}", 0..=(1_u64 << 53), 0..6),
        command_line in any::<String>(),
        sev_features in 0..=(1_u64 << 53),
        vcpus in any::<u32>(),
    ) {
        let artifacts: BTreeMap<String, Artifact> = sizes
            .into_iter()
            .map(|(name, size)| { let sha256 = Sha256Digest::of(name.as_bytes()); (name, Artifact { size, sha256 }) })
            .collect();
        let mut given = Manifest { artifacts, command_line, ..manifest() };
        given.references.snp[0].sev_features = sev_features;
        given.references.snp[0].vcpus = vcpus;
        let bytes = given.to_bytes().unwrap();
        prop_assert_eq!(Manifest::parse("manifest.json", &bytes).unwrap(), given);
    }
}

#[test]
fn a_manifest_with_two_command_lines_is_refused() {
    let bytes = edited(|m| m["command_line"] = "init=/bin/sh".into());
    let error = Manifest::parse("manifest.json", &bytes).unwrap_err();
    assert!(error.message.contains("command_line has SHA-256"), "{error}");
}
