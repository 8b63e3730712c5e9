//! `bullion idblock`: what is signed where the image is built is what a secure processor lets through, and nothing else. The
//! simulator checks digest, signature and policy as AMD's firmware does, and QEMU passes what it is given.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use e2e::{Bench, bench, documented, skipped, vector};
use serde_json::{Value, json};

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn keygen(bench: &Bench, directory: &Path, algorithm: &str) -> PathBuf {
    let key = directory.join(algorithm);
    bench.run(["keygen", "-o", text(&key), "--algorithm", algorithm]).expect(0, &[]);
    key
}

fn manifest(image: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(image.join("manifest.json")).unwrap()).unwrap()
}

/// The reference for EPYC-v4 with so many vCPUs.
fn reference(manifest: &mut Value, vcpus: u32) -> &mut Value {
    let all = manifest["references"]["snp"].as_array_mut().unwrap();
    all.iter_mut().find(|known| known["vcpus"] == vcpus && known["cpu"] == "EPYC-v4").unwrap()
}

#[test]
fn the_secure_processor_lets_through_what_was_signed_and_nothing_else() {
    let Some(bench) = bench() else { return };
    if std::fs::OpenOptions::new().read(true).write(true).open("/dev/kvm").is_err() || bench.unpublished {
        return skipped("simulated launch: there is no /dev/kvm that this user may open, or an UNPUBLISHED lock");
    }
    let scratch = tempfile::tempdir().unwrap();
    let image = bench.copy_image(scratch.path());
    let key = keygen(&bench, scratch.path(), "ecdsa-p384");
    let words = ["idblock", "create", text(&image), "--key", text(&key), "--guest-svn", "7", "--json"];
    let created = bench.run(words).expect(0, &["signed again"]).json();
    assert_eq!(
        created["id_blocks"].as_array().unwrap().len(),
        manifest(&image)["references"]["snp"].as_array().unwrap().len()
    );
    let public = format!("{}.pub", text(&key));
    let verified = bench.run(["idblock", "verify", text(&image), "--key", &public, "--json"]).expect(0, &[]).json();
    assert_eq!(created, verified);
    documented("idblock", &created);

    let launch = |vcpus: u32| {
        let vm = bench.vm(scratch.path(), &format!("t-id-{vcpus}"), "snp", vcpus, &image);
        bench.launch(&vm, &["--simulate", "--json"])
    };
    documented("launch --simulate", &launch(2).expect(0, &["SIMULATED"]).json());
    // A shape that nobody has signed.
    launch(3).expect(6, &["none for 3 vCPUs", "hint:"]);

    let good = std::fs::read(image.join("manifest.json")).unwrap();
    let spoil = |change: &dyn Fn(&mut Value)| {
        let mut value: Value = serde_json::from_slice(&good).unwrap();
        change(&mut value);
        std::fs::write(image.join("manifest.json"), value.to_string()).unwrap();
        let run = launch(2);
        assert_ne!(run.code, 0, "{run:#?}");
        run
    };
    // The signature covers the security version and the digest.
    let run = spoil(&|value| reference(value, 2)["id_block"]["guest_svn"] = json!(8));
    assert!(run.stderr.contains("has not signed the ID block"), "{run:#?}");
    bench.run(["idblock", "verify", text(&image)]).expect(5, &["has not signed"]);
    // What was signed for four vCPUs does not start two.
    let run = spoil(&|value| {
        let four = reference(value, 4).clone();
        let two = reference(value, 2);
        (two["launch_digest"], two["id_block"]) = (four["launch_digest"].clone(), four["id_block"].clone());
    });
    assert!(run.stderr.contains("expects launch digest"), "{run:#?}");
    // Another policy than that of the launch is refused before.
    spoil(&|value| reference(value, 2)["id_block"]["policy"] = json!(0x2_0000)).expect(6, &["policy 0x20000"]);
    spoil(&|value| reference(value, 2)["id_block"]["id_key"] = json!("00")).expect(4, &["id_key is not 96 bytes"]);
}

/// Files that virtee/sev signed with OpenSSL, and their digests as its tests have them.
#[test]
fn blocks_that_others_signed_verify() {
    let Some(bench) = bench() else { return };
    let Some(block) = vector("snp/idblock/test_id_block.bin") else { return };
    let auth = vector("snp/idblock/test_auth_block.bin").unwrap();
    let verify = |block: &Path, auth: &Path| {
        bench.run(["idblock", "verify", "--block", text(block), "--auth", text(auth), "--json"])
    };
    let row = verify(&block, &auth).expect(0, &[]).json()["id_blocks"][0].clone();
    assert!(row["id_key_digest"].as_str().unwrap().starts_with("59fb2c686dfa4fef49f38339aa775c90"));
    assert!(row["author_key_digest"].as_str().unwrap().starts_with("eed81169fb0cb5e0ec34794f"));
    let scratch = tempfile::tempdir().unwrap();
    let changed = scratch.path().join("changed");
    for (file, offset, outcome) in
        [(&block, 0, 5), (&block, 0x50, 4), (&auth, 0x40, 5), (&auth, 0x680, 5), (&auth, 8, 4)]
    {
        let mut bytes = std::fs::read(file).unwrap();
        bytes[offset] ^= 1;
        std::fs::write(&changed, &bytes).unwrap();
        let (block, auth) = if file == &block { (&changed, &auth) } else { (&block, &changed) };
        verify(block, auth).expect(outcome, &[]);
    }
}

#[test]
fn keys_and_policies_that_will_not_do_are_refused() {
    let Some(bench) = bench() else { return };
    let scratch = tempfile::tempdir().unwrap();
    let output = scratch.path().join("out");
    std::fs::create_dir(&output).unwrap();
    let digest = "ab".repeat(48);
    let create = |key: &Path, words: &[&str]| {
        let all = ["idblock", "create", "--digest", &digest, "-o", text(&output), "--key", text(key)];
        bench.run(all.iter().chain(words))
    };
    let key = keygen(&bench, scratch.path(), "ecdsa-p384");
    for (policy, name) in [("0xb0000", "DEBUG"), ("0x70000", "MIGRATE_MA"), ("0x10000", "bit 17")] {
        create(&key, &["--policy", policy]).expect(6, &[name]);
    }
    create(&keygen(&bench, scratch.path(), "ed25519"), &[]).expect(2, &["ECDSA on P-384"]);
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let run = create(&key, &[]);
    assert!(run.code != 0 && run.stderr.contains("others may read the private key"), "{run:#?}");
    assert_eq!(e2e::names(&output), Vec::<String>::new());
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    let words = ["--family-id", "000102030405060708090a0b0c0d0e0f", "--guest-svn", "3", "--json"];
    let run = create(&key, &words).expect(0, &[]);
    assert_eq!(run.json()["id_blocks"][0]["family_id"], words[1]);
    let bytes = std::fs::read(output.join("id-block.bin")).unwrap();
    assert_eq!(
        (bytes.len(), &bytes[..48], bytes[0x30..0x34].to_vec(), bytes[0x54]),
        (96, &[0xab; 48][..], vec![0, 1, 2, 3], 3)
    );
    let secret = std::fs::read_to_string(&key).unwrap();
    let body = secret.lines().nth(1).unwrap();
    assert!(!run.stdout.contains(body) && !run.stderr.contains(body));
}
