//! Variable stores of real firmware: what is enrolled, what firmware measures of it, and the store without keys, judged by
//! `virt-fw-vars` of virt-firmware and by digests that live guests logged.

mod shelf;

use std::process::Command;

use measure::firmware::{Firmware, TdxSectionType};
use measure::tdx::platform::{FirmwareFacts, PlatformError};
use measure::tdx::profile;
use measure::uefi::variable::{GLOBAL, SECURITY};
use measure::uefi::{SecureBootVariables, VariableStore};
use measure::{Digest256, Digest384};
use proptest::prelude::*;

const ENROLLED: &str = "tdx/firmware/debian-sid_ovmf-inteltdx_2026.08+ds-2_OVMF.inteltdx.ms.fd.xz";
const EMPTY: &str = "tdx/firmware/ubuntu-25.04_ovmf_2025.02-3ubuntu2_OVMF.fd.xz";

#[test]
fn debian_inteltdx_has_keys() {
    let Some(image) = shelf::bytes(ENROLLED) else { return };
    let store = VariableStore::parse(&image).unwrap();
    let listed: Vec<_> = store.variables().iter().map(|v| (v.name.to_string(), v.vendor, v.data.len())).collect();
    let expected = [("KEK", GLOBAL, 4071), ("PK", GLOBAL, 1005), ("db", SECURITY, 7636), ("dbx", SECURITY, 21292)];
    assert_eq!(listed, expected.map(|(name, vendor, size)| (name.to_owned(), vendor, size)));
    assert!(store.has_keys());
}

#[test]
fn stores_of_all_images() {
    let Some(expected) = shelf::json("tdx/firmware/mrtd.json") else { return };
    for path in shelf::IMAGES.iter().filter(|path| path.starts_with("tdx/")) {
        let image = shelf::bytes(path).unwrap();
        let sha256 = Digest256::of(&image).to_string();
        let entry = expected.as_object().unwrap().values().find(|entry| entry["sha256"] == sha256.as_str()).unwrap();
        let cfv = *Firmware::parse(&image).unwrap().tdx_layout().unwrap().section(TdxSectionType::CFV).unwrap();
        assert_eq!(Digest384::of(cfv.content(&image)).to_string(), entry["cfv_sha384"][0].as_str().unwrap());
        assert_eq!(VariableStore::parse(&image).unwrap().has_keys(), path.contains(".ms."), "{path}");
    }
}

/// Digests of absent variables, as every log of firmware without Secure Boot has them (reference log: direct boot, 2 GiB).
#[test]
fn absent_variables_are_measured() {
    let prefixes = ["9dc3a1f80bcec915", "6f2e3cbc14f9def8", "d607c0efb41c0d75", "08a74f8963b337ac", "18cc6e01f0c6ea99"];
    let events = SecureBootVariables::default().events();
    assert_eq!(events.len(), prefixes.len());
    for ((name, digest), prefix) in events.iter().zip(prefixes) {
        assert!(digest.to_string().starts_with(prefix), "{name} {digest}");
    }
}

#[test]
fn keyless_debian_inteltdx() {
    let Some(image) = shelf::bytes(ENROLLED) else { return };
    let keyless = VariableStore::parse(&image).unwrap().without_keys();
    assert_eq!(keyless.len(), image.len());
    // The store's part of the volume; the spare area behind it is the same.
    let differs: Vec<_> = (0..image.len()).filter(|offset| image[*offset] != keyless[*offset]).collect();
    assert!(differs.last().unwrap() < &0x1_0000);
    assert!(Digest256::of(&keyless).to_string().starts_with("424e12de"));
    let store = VariableStore::parse(&keyless).unwrap();
    assert!(!store.has_keys() && store.variables().is_empty());
    let measured = SecureBootVariables::of_store(&store);
    assert_eq!(measured, SecureBootVariables { secure_boot: Some(false), ..SecureBootVariables::default() });
}

/// Keys in a store do not tell that anything is verified by them.
#[test]
fn secure_boot_that_was_switched_off_is_told_from_one_that_is_on() {
    let (Some(program), Some(image)) = (shelf::tool("virt-fw-vars"), shelf::bytes(ENROLLED)) else { return };
    let facts = FirmwareFacts { profile: &profile::UP_TO_202502, has_secure_boot: true, bios: None };
    let folder = tempfile::tempdir().unwrap();
    let (input, output) = (folder.path().join("input.fd"), folder.path().join("output.fd"));
    std::fs::write(&input, &image).unwrap();
    let verifies_by = |setting: &str| {
        let mut command = Command::new(&program);
        command.arg("--input").arg(&input).arg("--output").arg(&output).args([setting, "SecureBootEnable"]);
        assert!(command.output().unwrap().status.success(), "{command:?}");
        facts.verifies_by(&VariableStore::parse(&std::fs::read(&output).unwrap()).unwrap())
    };
    assert!(verifies_by("--set-true").unwrap().is_some_and(|variables| !variables.db.is_empty()));
    assert_eq!(verifies_by("--set-false"), Err(PlatformError::SwitchedOff));
    let keyless = VariableStore::parse(&image).unwrap().without_keys();
    assert_eq!(facts.verifies_by(&VariableStore::parse(&keyless).unwrap()), Ok(None));
}

#[test]
fn agrees_with_virt_fw_vars() {
    let Some(program) = shelf::tool("virt-fw-vars") else { return };
    let folder = tempfile::tempdir().unwrap();
    let (input, output) = (folder.path().join("input.fd"), folder.path().join("output.fd"));
    for (path, deletions) in
        [(ENROLLED, &[&["PK", "KEK", "db", "dbx"][..], &["PK"], &["KEK", "dbx"]][..]), (EMPTY, &[&["PK"]])]
    {
        let Some(image) = shelf::bytes(path) else { return };
        std::fs::write(&input, &image).unwrap();
        for deleted in deletions {
            let mut command = Command::new(&program);
            command.arg("--input").arg(&input).arg("--output").arg(&output);
            // It refuses to delete what is not there.
            let store = VariableStore::parse(&image).unwrap();
            for name in deleted.iter().copied().filter(|_| store.has_keys()) {
                command.args(["--delete", name]);
            }
            let status = command.output().unwrap();
            assert!(status.status.success(), "{}", String::from_utf8_lossy(&status.stderr));
            let ours = store.retain(|variable| !deleted.iter().any(|name| variable.name == **name));
            assert!(ours == std::fs::read(&output).unwrap(), "{path} {deleted:?}");
        }
    }
}

/// The first 256 KiB of an image, with a volume header that says so.
fn shortened(image: &[u8]) -> Vec<u8> {
    let mut head = image[..0x4_0000].to_vec();
    head[0x20..0x28].copy_from_slice(&0x4_0000_u64.to_le_bytes());
    head[0x32..0x34].fill(0);
    let words = head[..0x48].chunks(2).map(|word| u16::from_le_bytes([word[0], word[1]]));
    let sum = words.fold(0_u16, u16::wrapping_add);
    head[0x32..0x34].copy_from_slice(&sum.wrapping_neg().to_le_bytes());
    head
}

#[test]
fn damaged_stores_never_panic() {
    let Some(image) = shelf::bytes(ENROLLED) else { return };
    let head = shortened(&image);
    assert!(VariableStore::parse(&head).unwrap().has_keys());
    let place = prop_oneof![1 => 0..0x70_usize, 4 => 0x64..0x9000_usize, 1 => 0x10c0..0x1100_usize];
    let damage = proptest::collection::vec((place, any::<u8>()), 1..4);
    let config = ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() };
    let read = std::cell::Cell::new(0);
    proptest::test_runner::TestRunner::new(config)
        .run(&(damage, prop_oneof![9 => Just(head.len()), 1 => 0..head.len()]), |(damage, length)| {
            let mut bad = head.clone();
            for (offset, byte) in damage {
                bad[offset] = byte;
            }
            if let Ok(store) = VariableStore::parse(&bad[..length]) {
                read.set(read.get() + 1);
                let rewritten = store.retain(|_| true);
                assert_eq!(rewritten.len(), length);
                let listed = |store: &VariableStore<'_>| {
                    store.variables().iter().map(|v| (v.vendor, v.name.clone(), v.data.to_vec())).collect::<Vec<_>>()
                };
                assert_eq!(listed(&VariableStore::parse(&rewritten).unwrap()), listed(&store));
            }
            Ok(())
        })
        .unwrap();
    assert!(read.get() > 200, "too few of the damaged stores were readable to show anything: {}", read.get());
}
