//! The image, judged by programs that Bullion did not write.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]

use e2e::{bench, judge, run};

fn manifest(image: &std::path::Path) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(image.join("manifest.json")).unwrap()).unwrap()
}

#[test]
fn fsck_erofs_accepts_the_root_file_system() {
    let (Some(bench), Some(mut fsck)) = (bench(), judge("fsck.erofs")) else { return };
    run(fsck.arg(bench.image().join("rootfs"))).expect(0, &[]);
}

#[test]
fn veritysetup_verifies_the_root_hash_and_sees_a_flipped_bit() {
    let Some(bench) = bench() else { return };
    let manifest = manifest(bench.image());
    let verity = &manifest["verity"];
    let root_hash = verity["root_hash"].as_str().unwrap();
    let verify = |file: &std::path::Path| {
        let mut veritysetup = judge("veritysetup")?;
        let offset = format!("--hash-offset={}", verity["hash_offset"]);
        Some(run(veritysetup.arg("verify").arg(file).arg(file).arg(root_hash).arg(offset)))
    };
    let Some(good) = verify(&bench.image().join("rootfs")) else { return };
    good.expect(0, &[]);

    let scratch = tempfile::tempdir().unwrap();
    let copy = bench.copy_image(scratch.path()).join("rootfs");
    let mut bytes = std::fs::read(&copy).unwrap();
    bytes[8192] ^= 1;
    std::fs::write(&copy, bytes).unwrap();
    let bad = verify(&copy).unwrap();
    assert_ne!(bad.code, 0, "a flipped bit went unseen: {bad:?}");
}

#[test]
fn the_command_line_carries_the_root_hash_and_nothing_unexpected() {
    let Some(bench) = bench() else { return };
    let manifest = manifest(bench.image());
    let command_line = std::fs::read_to_string(bench.image().join("cmdline")).unwrap();
    assert_eq!(command_line, manifest["command_line"].as_str().unwrap());
    let root_hash = manifest["verity"]["root_hash"].as_str().unwrap();
    assert!(command_line.split(' ').any(|word| word == format!("bullion.root={root_hash}")), "{command_line}");
}

#[test]
fn the_initrd_is_one_zstd_frame_around_a_cpio_archive_that_cpio_reads() {
    let (Some(bench), Some(_)) = (bench(), judge("cpio")) else { return };
    let cpio = std::env::var("BULLION_TOOLS").unwrap() + "/cpio";
    let initrd = bench.image().join("initrd");
    let listing = run(std::process::Command::new("sh")
        .arg("-c")
        .arg(format!("zstd -dcq '{}' | '{cpio}' -t --quiet", initrd.display())));
    if listing.stderr.contains("not found") {
        return e2e::skipped("the host has no zstd to unpack the initrd with");
    }
    let names: Vec<&str> = listing.stdout.lines().collect();
    for wanted in ["init", "dev/console", "etc/bullion/modules"] {
        assert!(names.contains(&wanted), "{wanted} is not in the initrd: {names:?}");
    }
    assert!(names.iter().any(|name| name.starts_with("modules/")), "{names:?}");
}

#[test]
fn sev_snp_measure_computes_the_same_launch_digests() {
    let Some(bench) = bench() else { return };
    let image = bench.image();
    for vcpus in [1, 2, 4, 8, 64] {
        for cpu in ["EPYC-v4", "EPYC-Milan", "EPYC-Genoa"] {
            let Some(mut judge) = judge("sev-snp-measure") else { return };
            let theirs = run(judge
                .args(["--mode", "snp", "--vmm-type", "QEMU", "--guest-features", "0x1", "--output-format", "hex"])
                .args([format!("--vcpus={vcpus}"), format!("--vcpu-type={cpu}")])
                .arg(format!("--append={}", std::fs::read_to_string(image.join("cmdline")).unwrap()))
                .arg("--ovmf")
                .arg(image.join("firmware-snp.fd"))
                .arg("--kernel")
                .arg(image.join("vmlinuz"))
                .arg("--initrd")
                .arg(image.join("initrd")))
            .expect(0, &[]);
            let words = [
                "measure",
                image.to_str().unwrap(),
                "--tee",
                "snp",
                "--vcpus",
                &vcpus.to_string(),
                "--cpu",
                cpu,
                "--json",
            ];
            let ours = bench.run(words).expect(0, &[]).json();
            assert_eq!(ours["snp"][0]["launch_digest"].as_str().unwrap(), theirs.stdout.trim(), "{vcpus} vCPUs, {cpu}");
        }
    }
}
