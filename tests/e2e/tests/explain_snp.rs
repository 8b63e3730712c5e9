//! `bullion explain` on SEV-SNP launch digests and reports: one value, no log, and still a reason.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]

use std::path::Path;

use e2e::vectors::unhex;
use e2e::{bench, judge, run, skipped, vector};
use serde_json::{Value, json};

#[test]
fn an_unexpected_digest_is_explained_by_the_input_behind_it() {
    let Some(bench) = bench() else { return };
    let image = bench.image();
    let firmware = image.join("firmware-snp.fd");
    let path = |name: &str| image.join(name).display().to_string();
    let (kernel, initrd) = (path("vmlinuz"), path("initrd"));
    let line = std::fs::read_to_string(image.join("cmdline")).unwrap();
    let launched = |line: &str, words: &[&str]| {
        let files = ["--kernel", &kernel, "--initrd", &initrd, "--cmdline", line];
        let mut arguments = vec!["measure", "snp", "--json", "--firmware", firmware.to_str().unwrap()];
        arguments.extend(files.iter().chain(words));
        let answer = bench.run(arguments).expect(0, &[]).json();
        answer["snp"][0]["launch_digest"].as_str().unwrap().to_owned()
    };
    let explain = |digest: &str, words: &[&str]| {
        let all = ["explain", "--digest", digest, "--against", image.to_str().unwrap(), "--vcpus", "2", "--json"];
        bench.run(all.iter().chain(words))
    };
    let with = |digest: &str, words: &[&str]| {
        let run = explain(digest, words);
        let answer = run.json();
        let differences = answer["differences"].as_array().unwrap().clone();
        run.expect(if differences.is_empty() { 0 } else { 6 }, &[]);
        assert_eq!(answer["verdict"], if differences.is_empty() { "equal" } else { "differs" });
        let pair = |difference: &Value| (difference["input"].clone(), difference["value"].clone());
        differences.iter().map(pair).collect::<Vec<_>>()
    };
    let inputs = |digest: &str| with(digest, &[]);
    assert_eq!(inputs(&launched(&line, &["--vcpus", "2"])), []);
    assert_eq!(inputs(&launched(&line, &["--vcpus", "4"])), [(json!("vcpus"), json!(4))]);
    let newline = format!("{line}\n");
    assert_eq!(inputs(&launched(&newline, &["--vcpus", "2"])), [(json!("cmdline"), json!(newline))]);
    let genoa = launched(&line, &["--vcpus", "2", "--cpu", "EPYC-Genoa"]);
    assert_eq!(inputs(&genoa), [(json!("cpu_signature"), json!(0xa1_0f10))]);
    let debug_swap = launched(&line, &["--vcpus", "2", "--sev-features", "0x21"]);
    assert_eq!(inputs(&debug_swap), [(json!("sev_features"), json!(0x21))]);
    // What no slip explains is found among what is named.
    let other = launched("root=/dev/sda quiet", &["--vcpus", "2"]);
    explain(&other, &[]).expect(6, &["no neighbour matches"]);
    let line = json!("root=/dev/sda quiet");
    assert_eq!(with(&other, &["--cmdline", "root=/dev/sda quiet"]), [(json!("cmdline"), line.clone())]);
    let no_hashes = bench.run(["measure", "snp", "--firmware", firmware.to_str().unwrap(), "--vcpus", "2", "--json"]);
    let no_hashes = no_hashes.json()["snp"][0]["launch_digest"].as_str().unwrap().to_owned();
    assert_eq!(inputs(&no_hashes), [(json!("kernel_hashes"), json!(false))]);
    let files = ["--kernel", &initrd, "--initrd", &kernel, "--cmdline", "root=/dev/sda quiet"];
    let words = [&["measure", "snp", "--firmware", firmware.to_str().unwrap(), "--vcpus", "2", "--json"], &files[..]];
    let swapped = bench.run(words.concat()).json()["snp"][0]["launch_digest"].as_str().unwrap().to_owned();
    let expected = [(json!("kernel"), json!(initrd)), (json!("initrd"), json!(kernel)), (json!("cmdline"), line)];
    assert_eq!(with(&swapped, &files), expected);
    explain(&"0".repeat(96), &[]).expect(6, &["no neighbour matches"]);
}

/// A report of a shape with an ID block has its key's digest, its security version and its names; another of these is of another block.
#[test]
fn the_id_block_of_a_report_is_compared_with_the_manifests() {
    let Some(bench) = bench() else { return };
    let Some(real) = vector("snp/reports/attestation.bin") else { return };
    let scratch = tempfile::tempdir().unwrap();
    let image = bench.copy_image(scratch.path());
    let path = |path: &Path| path.to_str().unwrap().to_owned();
    let key = path(&scratch.path().join("key"));
    bench.run(["keygen", "--algorithm", "ecdsa-p384", "--output", &key]).expect(0, &[]);
    let words = ["idblock", "create", &path(&image), "--key", &key, "--guest-svn", "7", "--json"];
    let created = bench.run(words).expect(0, &[]).json()["id_blocks"][0].clone();
    let mut bytes = std::fs::read(&real).unwrap();
    let hex = |key: &str| unhex(created[key].as_str().unwrap());
    bytes[4..8].copy_from_slice(&7_u32.to_le_bytes());
    bytes[8..16].copy_from_slice(&0x3_0000_u64.to_le_bytes());
    bytes[0x10..0x20].copy_from_slice(&hex("family_id"));
    bytes[0x20..0x30].copy_from_slice(&hex("image_id"));
    bytes[0x90..0xc0].copy_from_slice(&hex("launch_digest"));
    bytes[0xe0..0x110].copy_from_slice(&hex("id_key_digest"));
    let report = scratch.path().join("report.bin");
    let explain = |bytes: &[u8]| {
        std::fs::write(&report, bytes).unwrap();
        bench.run(["explain", &path(&report), "--against", &path(&image), "--json"])
    };
    let answer = explain(&bytes).expect(0, &[]).json();
    assert_eq!((&answer["verdict"], &answer["not_compared"]), (&json!("equal"), &json!(["POLICY"])));
    assert_eq!(answer["registers"].as_array().unwrap().len(), 6, "{answer}");
    let fields = [(4, "GUEST_SVN"), (0x10, "FAMILY_ID"), (0x20, "IMAGE_ID"), (0xe0, "ID_KEY_DIGEST")];
    for (at, register) in fields.into_iter().chain([(0x110, "AUTHOR_KEY_DIGEST")]) {
        let mut other = bytes.clone();
        other[at] ^= 1;
        let answer = explain(&other).expect(6, &[]).json();
        let rows = answer["differences"].as_array().unwrap();
        assert_eq!(rows.len(), 1, "{answer}");
        assert_eq!((&rows[0]["input"], &rows[0]["register"]), (&json!("id_block"), &json!(register)));
    }
    // Of a shape that nobody signed, an equal digest is no yes.
    let measured =
        bench.run(["measure", &path(&image), "--tee", "snp", "--vcpus", "77", "--json"]).expect(0, &[]).json();
    bytes[0x90..0xc0].copy_from_slice(&unhex(measured["snp"][0]["launch_digest"].as_str().unwrap()));
    std::fs::write(&report, &bytes).unwrap();
    let unsigned = ["explain", &path(&report), "--against", &path(&image), "--vcpus", "77", "--json"];
    let answer = bench.run(unsigned).expect(4, &[]).json();
    assert_eq!((&answer["verdict"], &answer["registers"][0]["verdict"]), (&json!("cannot-tell"), &json!("equal")));
    assert!(answer["reasons"].to_string().contains("none of this shape: nobody signed it"), "{answer}");
}

/// The generic build was launched instead of the AmdSev one: by the digest that another program computes of it. Neither explaining from a
/// manifest alone nor naming the other firmware needs either file.
#[test]
fn other_pinned_firmware_is_named_without_its_file() {
    let Some(bench) = bench() else { return };
    let Some(tree) = std::env::var_os("BULLION_TEST_TPM_TREE") else {
        return skipped("BULLION_TEST_TPM_TREE is set by scripts/test only");
    };
    let image = bench.image();
    let generic = Path::new(&tree).join("usr/share/ovmf/OVMF.fd");
    let line = std::fs::read_to_string(image.join("cmdline")).unwrap();
    let launched = |vcpus: &str, more: &[&str]| {
        let mut judge = judge("sev-snp-measure")?;
        judge.args(["--mode", "snp", "--vmm-type", "QEMU", "--guest-features", "0x1", "--vcpu-type", "EPYC-v4"]);
        judge.args(["--vcpus", vcpus, "--ovmf"]).arg(&generic).args(more);
        Some(run(&mut judge).expect(0, &[]).stdout.trim().to_owned())
    };
    let path = |name: &str| image.join(name).display().to_string();
    let boot = ["--kernel", &path("vmlinuz"), "--initrd", &path("initrd"), "--append", &line];
    let (Some(same), Some(four), Some(no_hashes)) = (launched("2", &boot), launched("4", &boot), launched("2", &[]))
    else {
        return;
    };
    let scratch = tempfile::tempdir().unwrap();
    let manifest = scratch.path().join("manifest.json");
    std::fs::copy(image.join("manifest.json"), &manifest).unwrap();
    let firmware = (json!("firmware"), json!("debian-generic-2026.08"));
    for against in [image, &manifest] {
        for (digest, more) in [
            (&same, None),
            (&four, Some((json!("vcpus"), json!(4)))),
            (&no_hashes, Some((json!("kernel_hashes"), json!(false)))),
        ] {
            let words =
                ["explain", "--digest", digest, "--against", against.to_str().unwrap(), "--vcpus", "2", "--json"];
            let answer = bench.run(words).expect(6, &[]).json();
            let rows = answer["differences"].as_array().unwrap().iter();
            let found: Vec<_> = rows.map(|row| (row["input"].clone(), row["value"].clone())).collect();
            assert_eq!(found, std::iter::once(firmware.clone()).chain(more).collect::<Vec<_>>(), "{answer}");
        }
    }
    // As the image's own, it gives the digest that the other program gives, and does not say which kernel ran.
    let own = bench.image_with_firmware(scratch.path(), "firmware-snp.fd", &std::fs::read(&generic).unwrap());
    let words = ["explain", "--digest", &same, "--against", own.to_str().unwrap(), "--vcpus", "2", "--json"];
    let answer = bench.run(words).expect(4, &[]).json();
    assert_eq!((&answer["verdict"], &answer["registers"][0]["verdict"]), (&json!("cannot-tell"), &json!("equal")));
    assert!(answer["unknown"][0]["text"].to_string().contains("from booting another kernel"), "{answer}");
    // What the pinned firmware of a manifest leads to is known without it.
    let digest =
        bench.run(["measure", image.to_str().unwrap(), "--tee", "snp", "--vcpus", "3", "--json"]).expect(0, &[]);
    let digest = digest.json()["snp"][0]["launch_digest"].as_str().unwrap().to_owned();
    let words = ["explain", "--digest", &digest, "--against", manifest.to_str().unwrap(), "--vcpus", "3"];
    bench.run(words).expect(0, &[]);
}

#[test]
fn a_report_is_read_and_never_called_authentic() {
    let Some(bench) = bench() else { return };
    let image = bench.image();
    let Some(real) = vector("snp/reports/attestation.bin") else { return };
    let explain = |report: &Path| {
        let words = ["explain", report.to_str().unwrap(), "--against", image.to_str().unwrap(), "--json"];
        bench.run(words)
    };
    explain(&real).expect(6, &["NOT verified", "no neighbour matches"]);
    // Anyone can write a report with the digest that is hoped for.
    let words = ["measure", image.to_str().unwrap(), "--tee", "snp", "--vcpus", "1", "--json"];
    let wanted = bench.run(words).expect(0, &[]).json()["snp"][0]["launch_digest"].as_str().unwrap().to_owned();
    let mut bytes = std::fs::read(&real).unwrap();
    for (slot, pair) in bytes[0x90..0xc0].iter_mut().zip(wanted.as_bytes().chunks_exact(2)) {
        *slot = u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    }
    let scratch = tempfile::tempdir().unwrap();
    let forged = scratch.path().join("report.bin");
    std::fs::write(&forged, &bytes).unwrap();
    // The POLICY of that guest let the host debug it.
    let answer = explain(&forged).expect(6, &["NOT verified"]).json();
    assert_eq!(
        (&answer["registers"][0]["verdict"], &answer["differences"][0]["input"]),
        (&json!("equal"), &json!("policy"))
    );
    bytes[8..16].copy_from_slice(&0x3_0000_u64.to_le_bytes());
    std::fs::write(&forged, &bytes).unwrap();
    let answer = explain(&forged).expect(0, &["NOT verified"]).json();
    assert_eq!((&answer["verdict"], &answer["authenticity_verified"]), (&json!("equal"), &json!(false)));
    assert_eq!(answer["not_compared"], json!(["POLICY"]));
    // An image does not say which configuration its guests are given (HOST_DATA): another is not "as expected".
    bytes[0xc0] = 1;
    std::fs::write(&forged, &bytes).unwrap();
    let answer = explain(&forged).expect(4, &["told against a vm.toml"]).json();
    assert_eq!((&answer["verdict"], &answer["registers"][1]["name"]), (&json!("cannot-tell"), &json!("HOST_DATA")));
    bytes[0xc0] = 0;
    std::fs::write(&forged, &bytes).unwrap();
    // With a VM description, HOST_DATA counts too.
    let vm = bench.vm(scratch.path(), "explained", "snp", 1, image);
    let words = ["explain", forged.to_str().unwrap(), "--against", vm.to_str().unwrap(), "--json"];
    let answer = bench.run(words).expect(6, &[]).json();
    assert_eq!(answer["differences"][0]["input"], "guest_configuration");
    let policy = json!({"name": "POLICY", "found": "0x30000", "expected": "0x30000", "verdict": "equal"});
    assert_eq!(answer["registers"][2], policy);
    std::fs::write(&forged, &bytes[1..]).unwrap();
    explain(&forged).expect(4, &["1184 bytes"]);
}
