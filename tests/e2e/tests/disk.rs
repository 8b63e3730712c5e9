//! What firmware boots by itself, judged by OVMF under emulation and by programs that Bullion did not write.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use e2e::{Bench, bench, judge, run, skipped};

/// The image of `minimal-disk`, built once; `None` (and a word why) where `scripts/test` did not name the recipe.
fn image(bench: &Bench) -> Option<PathBuf> {
    static IMAGE: OnceLock<tempfile::TempDir> = OnceLock::new();
    let Some(recipe) = std::env::var_os("BULLION_TEST_DISK_RECIPE") else {
        skipped("BULLION_TEST_DISK_RECIPE is set by scripts/test only");
        return None;
    };
    let directory = IMAGE.get_or_init(|| {
        let directory = tempfile::tempdir().unwrap();
        let output = directory.path().join("image");
        bench.run(["build".as_ref(), recipe.as_os_str(), "-o".as_ref(), output.as_os_str()]).expect(0, &[]);
        directory
    });
    Some(directory.path().join("image"))
}

/// Starts QEMU with OVMF and `words` under emulation, and gives what the guest wrote on its console up to its word that it
/// is ready. Two minutes are enough on a busy machine.
fn boot(scratch: &Path, words: &[String]) -> Option<String> {
    let mut qemu = judge("qemu-system-x86_64")?;
    let firmware = Path::new(&std::env::var_os("BULLION_TOOLS")?).join("../share/OVMF.fd");
    if !firmware.exists() {
        skipped("there is no OVMF.fd beside BULLION_TOOLS");
        return None;
    }
    let console = scratch.join("console");
    qemu.args([
        "-machine",
        "q35,accel=tcg",
        "-cpu",
        "max",
        "-smp",
        "2",
        "-m",
        "512M",
        "-nodefaults",
        "-no-user-config",
    ]);
    qemu.args(["-display", "none", "-no-reboot", "-device", "virtio-serial-pci"]).arg("-bios").arg(&firmware);
    qemu.arg("-serial").arg(format!("file:{}", console.display())).args(words);
    let mut running = qemu.stdin(Stdio::null()).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        let text = String::from_utf8_lossy(&std::fs::read(&console).unwrap_or_default()).into_owned();
        let ended = running.try_wait().unwrap();
        if text.contains("bullion-guest: READY ") || ended.is_some() || Instant::now() > deadline {
            let _ = running.kill();
            running.wait().unwrap();
            return Some(text);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

#[test]
fn ovmf_starts_the_unified_kernel_image() {
    let Some(bench) = bench() else { return };
    let Some(image) = image(&bench) else { return };
    let scratch = tempfile::tempdir().unwrap();
    let root = format!("if=none,id=root,format=raw,readonly=on,file={}", image.join("rootfs").display());
    let device = "virtio-blk-pci,drive=root,serial=bullion-root";
    let kernel = image.join("uki.efi").display().to_string();
    let Some(console) = boot(scratch.path(), &words(&["-kernel", &kernel, "-drive", &root, "-device", device])) else {
        return;
    };
    assert!(console.contains("bullion-guest: READY "), "{console}");
}

/// QEMU's words for a disk that is `device`. Writes are forgotten: firmware finds nothing on an NVMe disk that refuses them.
fn disk_words(disk: &Path, id: &str, device: &str) -> Vec<String> {
    let drive = format!("if=none,id={id},format=raw,snapshot=on,file={}", disk.display());
    words(&["-drive", &drive, "-device", &format!("{device},drive={id}")])
}

/// A copy of the disk with one bit flipped, `offset` bytes into a partition.
fn flipped(disk: &Path, scratch: &Path, partition: usize, offset: u64) -> Option<PathBuf> {
    let table = run(judge("sfdisk")?.arg("--json").arg(disk)).expect(0, &[]).json();
    let start = table["partitiontable"]["partitions"][partition]["start"].as_u64().unwrap();
    let copy = scratch.join("disk.raw");
    std::fs::copy(disk, &copy).unwrap();
    let file = std::fs::File::options().read(true).write(true).open(&copy).unwrap();
    let (at, mut byte) = (start * 512 + offset, [0]);
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
    Some(copy)
}

#[test]
fn ovmf_starts_the_disk_and_the_guest_finds_its_root_on_it() {
    let Some(bench) = bench() else { return };
    let Some(image) = image(&bench) else { return };
    for device in ["virtio-blk-pci", "nvme,serial=0"] {
        let scratch = tempfile::tempdir().unwrap();
        let words = disk_words(&image.join("disk.raw"), "disk", device);
        let Some(console) = boot(scratch.path(), &words) else { return };
        assert!(console.contains("bullion-guest: READY "), "{device}: {console}");
    }
}

#[test]
fn a_vm_is_launched_from_the_disk() {
    let Some(bench) = bench() else { return };
    let Some(image) = image(&bench) else { return };
    let scratch = tempfile::tempdir().unwrap();
    let vm = bench.vm(scratch.path(), "t-from-disk", "none", 1, &image);
    let text = std::fs::read_to_string(&vm).unwrap().replace("[guest]", "boot = \"disk\"\n[guest]");
    std::fs::write(&vm, text + "[host]\naccelerator = \"tcg\"\nready_timeout_s = 600\n").unwrap();
    let answer = bench.launch(&vm, &["--until-ready", "--json"]).expect(0, &["the guest is ready"]).json();
    let manifest = std::fs::read_to_string(image.join("manifest.json")).unwrap();
    assert!(manifest.contains(answer["identity"]["root_hash"].as_str().unwrap()), "{answer}");
    // The image's kernel is not what is started: without it, the launch is the same.
    let plan = bench.launch(&vm, &["--plan"]).expect(0, &[]);
    assert!(!plan.stdout.contains("-kernel"), "{}", plan.stdout);
}

/// What must not start, and what the guest or its kernel says of it.
#[track_caller]
fn assert_refused(words: &[String], text: &str) {
    let scratch = tempfile::tempdir().unwrap();
    let Some(console) = boot(scratch.path(), words) else { return };
    assert!(!console.contains("bullion-guest: READY "), "{console}");
    assert!(console.contains(text), "{console}");
}

#[test]
fn a_flipped_bit_on_a_partition_of_the_disk_is_refused() {
    let Some(bench) = bench() else { return };
    let Some(image) = image(&bench) else { return };
    let cases = [
        // The file system's own superblock, and the top of the tree.
        (1, 1024, "dm-verity device corrupted"),
        (2, 4096, "the top of the verity tree on /dev/vda3 hashes to"),
    ];
    for (partition, offset, text) in cases {
        let scratch = tempfile::tempdir().unwrap();
        let Some(disk) = flipped(&image.join("disk.raw"), scratch.path(), partition, offset) else { return };
        assert_refused(&disk_words(&disk, "disk", "virtio-blk-pci"), text);
    }
}

#[test]
fn a_second_disk_with_the_same_partitions_is_refused() {
    let Some(bench) = bench() else { return };
    let Some(image) = image(&bench) else { return };
    let mut words = disk_words(&image.join("disk.raw"), "disk", "virtio-blk-pci");
    words.extend(disk_words(&image.join("disk.raw"), "twin", "virtio-blk-pci"));
    assert_refused(&words, "the partitions vda2, vdb2 all have the UUID");
}

/// It takes loop devices to look, which only root has.
#[test]
fn systemd_dissect_finds_the_root_that_the_hash_names() {
    let Some(bench) = bench() else { return };
    let Some(image) = image(&bench) else { return };
    let manifest: serde_json::Value =
        serde_json::from_slice(&std::fs::read(image.join("manifest.json")).unwrap()).unwrap();
    let root_hash = manifest["verity"]["root_hash"].as_str().unwrap();
    let dissect = |root_hash: &str| {
        let mut dissect = judge("systemd-dissect")?;
        let policy = "--image-policy=root=verity+read-only-on:esp=unprotected:=absent";
        Some(run(dissect.args(["--json=short", policy, "--root-hash", root_hash]).arg(image.join("disk.raw"))))
    };
    let Some(found) = dissect(root_hash) else { return };
    if found.stderr.contains("Permission denied") || found.stderr.contains("loop") {
        return skipped("systemd-dissect has no loop device");
    }
    let found = found.expect(0, &[]).json();
    let mounts = found["mounts"].as_array().unwrap().iter();
    let mounts: Vec<_> = mounts.map(|mount| (mount["designator"].as_str(), mount["fstype"].as_str())).collect();
    assert_eq!(
        mounts,
        [(Some("root"), Some("erofs")), (Some("esp"), Some("vfat")), (Some("root-verity"), Some("DM_verity_hash"))]
    );
    assert!(found["osRelease"].as_array().unwrap().iter().any(|line| line == "ID=debian"), "{found}");
    let other = root_hash.chars().rev().collect::<String>();
    assert_ne!(dissect(&other).unwrap().code, 0);
}

#[test]
fn the_disk_holds_the_unified_kernel_image() {
    let Some(bench) = bench() else { return };
    let Some(image) = image(&bench) else { return };
    let scratch = tempfile::tempdir().unwrap();
    let Some(mut mcopy) = judge("mcopy") else { return };
    let copy = scratch.path().join("copy");
    let disk = format!("{}@@1M", image.join("disk.raw").display());
    run(mcopy.args(["-n", "-i", &disk, "::/EFI/BOOT/BOOTX64.EFI"]).arg(&copy)).expect(0, &[]);
    assert!(std::fs::read(&copy).unwrap() == std::fs::read(image.join("uki.efi")).unwrap());
    let manifest = std::fs::read(image.join("manifest.json")).unwrap();
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
    let sha256 = spec::Sha256Digest::of(&std::fs::read(image.join("disk.raw")).unwrap()).to_string();
    assert_eq!(manifest["artifacts"]["disk.raw"]["sha256"], sha256);
}

#[test]
fn the_unified_kernel_image_holds_the_other_artifacts() {
    let Some(bench) = bench() else { return };
    let Some(image) = image(&bench) else { return };
    let scratch = tempfile::tempdir().unwrap();
    for (section, artifact) in [(".linux", "vmlinuz"), (".initrd", "initrd"), (".cmdline", "cmdline")] {
        let Some(mut objcopy) = judge("objcopy") else { return };
        let out = scratch.path().join("section");
        objcopy.arg("-O").arg("binary").arg(format!("--only-section={section}")).arg(image.join("uki.efi")).arg(&out);
        run(&mut objcopy).expect(0, &[]);
        assert!(std::fs::read(&out).unwrap() == std::fs::read(image.join(artifact)).unwrap(), "{section}");
    }
    let manifest = std::fs::read(image.join("manifest.json")).unwrap();
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
    let sha256 = spec::Sha256Digest::of(&std::fs::read(image.join("uki.efi")).unwrap()).to_string();
    assert_eq!(manifest["artifacts"]["uki.efi"]["sha256"], sha256);
}
