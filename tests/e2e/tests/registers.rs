//! RTMRs of files, and where they are refused: against registers that hardware signed and values that others computed.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]

use std::path::Path;

use e2e::vectors::{unpacked_to, vector};
use e2e::{Bench, Run, bench, skipped};

const LIVE_FIRMWARE: &str = "tdx/firmware/ubuntu-25.04_ovmf_2025.02-3ubuntu2_OVMF.fd.xz";
const INTEL_TDX: &str = "tdx/firmware/ubuntu-25.10_ovmf-inteltdx_2025.02-8ubuntu3_OVMF.inteltdx.fd.xz";
const ENROLLED: &str = "tdx/firmware/debian-sid_ovmf-inteltdx_2026.08+ds-2_OVMF.inteltdx.ms.fd.xz";

fn measure(bench: &Bench, firmware: &Path, words: &[&str]) -> Run {
    let mut arguments = vec!["measure", "tdx", "--json", "--firmware", firmware.to_str().unwrap()];
    arguments.extend(words);
    bench.run(arguments)
}

/// The registers of a production guest, one of whose quotes was seen: 8 vCPUs, 16 GiB, tables captured inside it.
#[test]
fn rtmr0_of_captured_tables_is_that_of_a_live_quote() {
    let Some(bench) = bench() else { return };
    let scratch = tempfile::tempdir().unwrap();
    let read = |path: &str| vector(path).map(|path| std::fs::read(path).unwrap());
    let Some(firmware) = unpacked_to(LIVE_FIRMWARE, scratch.path()) else { return };
    let captured = scratch.path().join("by_name");
    for (name, path) in [
        ("etc/acpi/tables", "tdx/platform/tdx-measure/runtime-capture/acpi_tables.bin"),
        ("etc/acpi/rsdp", "tdx/platform/tcg-dumps/runtime-capture/etc_acpi_rsdp"),
        ("etc/table-loader", "tdx/platform/tcg-dumps/runtime-capture/etc_table-loader"),
    ] {
        std::fs::create_dir_all(captured.join(name)).unwrap();
        std::fs::write(captured.join(name).join("raw"), read(path).unwrap()).unwrap();
    }
    let expected = read("tdx/platform/tdx-measure/runtime-capture/expected.json").unwrap();
    let expected: serde_json::Value = serde_json::from_slice(&expected).unwrap();
    let captured = captured.to_str().unwrap();
    let answer = measure(&bench, &firmware, &["--memory", "16GiB", "--acpi", captured]).expect(0, &[]).json();
    assert_eq!((&answer["mrtd"], &answer["rtmr0"]), (&expected["mrtd"], &expected["rtmr0"]));
    assert!(answer["rtmr1"].is_null() && answer["rtmr2"].is_null(), "there is no kernel: {answer}");
    let extended = answer["steps"].as_array().unwrap().iter().filter(|step| step["register"] == "rtmr0").count();
    assert_eq!(extended, 13);
    measure(&bench, &firmware, &["--memory", "16GiB", "--acpi", scratch.path().to_str().unwrap()])
        .expect(4, &["etc/table-loader", "hint:"]);
}

/// Root ports of networks and of passed functions, and disks of volumes, are in the ACPI tables: each has its own RTMR0.
/// That these are right is seen beside QEMU's own words in `launcher`, and in simulated launches.
#[test]
fn rtmr0_of_a_vm_is_of_the_devices_that_it_has() {
    let Some(bench) = bench() else { return };
    if bench.unpublished {
        return skipped("the pinned QEMU is gone from the mirror");
    }
    let scratch = tempfile::tempdir().unwrap();
    let plain = std::fs::read_to_string(bench.vm(scratch.path(), "t-tables", "tdx", 1, bench.image())).unwrap();
    let rtmr0 = |more: &str| {
        let vm = scratch.path().join("t.vm.toml");
        std::fs::write(&vm, plain.clone() + more).unwrap();
        let answer = bench.run(["measure", vm.to_str().unwrap(), "--json"]).expect(0, &[]).json();
        answer["tdx"][0]["platform"]["rtmr0"][0]["rtmr0"].as_str().unwrap().to_owned()
    };
    let alone = rtmr0("");
    let network = rtmr0("\n[[host.nic]]\n");
    assert_ne!(network, alone);
    assert_eq!(network, rtmr0("\n[[host.nic]]\nforward = [{ host = 8443, guest = 443 }]\n"), "ports are not measured");
    let passed = rtmr0("\n[[host.pci]]\naddress = \"0000:c1:00.0\"\n");
    assert!(passed != alone && passed != network);
    assert_eq!(passed, rtmr0("\n[[host.pci]]\naddress = \"0000:03:00.0\"\n"), "the same service on another host");
}

/// Kata Containers' command line, and the RTMR2 that confidential-dot-ai/confidential-os-builder publishes for it.
#[test]
fn rtmr2_of_a_command_line_is_the_published_one() {
    let Some(bench) = bench() else { return };
    let scratch = tempfile::tempdir().unwrap();
    let (Some(firmware), Some(golden)) =
        (unpacked_to(INTEL_TDX, scratch.path()), vector("tdx/constants/rtmr2-cmdline-golden.json"))
    else {
        return;
    };
    let golden: serde_json::Value = serde_json::from_slice(&std::fs::read(golden).unwrap()).unwrap();
    let (image, line) = (bench.image(), golden["cmdline"].as_str().unwrap());
    let (kernel, initrd) = (image.join("vmlinuz"), image.join("initrd"));
    let boot = ["--kernel", kernel.to_str().unwrap(), "--cmdline", line];
    let answer = measure(&bench, &firmware, &boot).expect(0, &[]).json();
    assert_eq!(answer["rtmr2"], golden["rtmr2"]);
    let with_initrd = measure(&bench, &firmware, &[&boot[..], &["--initrd", initrd.to_str().unwrap()]].concat());
    let with_initrd = with_initrd.expect(0, &[]).json();
    assert_eq!(with_initrd["rtmr1"], answer["rtmr1"], "the initrd is not in RTMR1");
    assert_ne!(with_initrd["rtmr2"], answer["rtmr2"]);
    assert_eq!(answer["rtmr3"], "0".repeat(96));
}

#[test]
fn what_is_not_known_is_not_guessed() {
    let Some(bench) = bench() else { return };
    let scratch = tempfile::tempdir().unwrap();
    let Some(enrolled) = unpacked_to(ENROLLED, scratch.path()) else { return };
    let mut changed = std::fs::read(&enrolled).unwrap();
    let at = changed.len() / 2;
    changed[at] ^= 1;
    let unknown = scratch.path().join("unknown.fd");
    std::fs::write(&unknown, changed).unwrap();
    let kernel = bench.image().join("vmlinuz");
    let boot = ["--kernel", kernel.to_str().unwrap()];
    let refused = measure(&bench, &unknown, &boot).expect(6, &["is not pinned", "hint:"]).json();
    assert_eq!(refused["mrtd"].as_str().unwrap().len(), 96, "MRTD is predicted for any firmware");
    assert!(refused["rtmr1"].is_null() && refused["refused"].as_str().unwrap().contains("is not pinned"), "{refused}");
    measure(&bench, &unknown, &[]).expect(0, &[]);

    let root = bench.image().join("rootfs");
    measure(&bench, &enrolled, &["--kernel", root.to_str().unwrap()]).expect(4, &["rootfs", "not a PE image"]);
    measure(&bench, &enrolled, &["--vcpus", "2"]).expect(2, &["--memory"]);
    measure(&bench, &enrolled, &["--memory", "2GB"]).expect(2, &["GiB"]);
    measure(&bench, &enrolled, &["--memory", "2GiB", "--qemu", "/bin/true"]).expect(3, &["did not answer", "hint:"]);
}

#[test]
fn rtmr0_depends_on_the_machine_and_not_on_the_kernel() {
    let Some(bench) = bench() else { return };
    if bench.unpublished {
        return skipped("the pinned QEMU is gone from the mirror");
    }
    let image = bench.image();
    let (firmware, kernel) = (image.join("firmware-tdx.fd"), image.join("vmlinuz"));
    let rtmrs = |vcpus: &str, memory: &str, line: &str| {
        let words = ["--vcpus", vcpus, "--memory", memory, "--kernel", kernel.to_str().unwrap(), "--cmdline", line];
        let answer = measure(&bench, &firmware, &words).expect(0, &[]).json();
        ["rtmr0", "rtmr1", "rtmr2"].map(|name| answer[name].as_str().unwrap().to_owned())
    };
    let one = rtmrs("1", "2GiB", "quiet");
    let two = rtmrs("2", "2GiB", "quiet");
    let large = rtmrs("2", "4GiB", "loud");
    assert_ne!(one[0], two[0]);
    assert_ne!(two[0], large[0]);
    assert_eq!(one[1..], two[1..]);
    assert_eq!((&two[1], two[2] == large[2]), (&large[1], false));
}

/// Whatever the manifest says of TDX is what the same files give by themselves, and an older value is found and replaced.
#[test]
fn the_manifest_has_registers_by_shape_and_measure_write_renews_them() {
    let Some(bench) = bench() else { return };
    if bench.unpublished {
        return skipped("the pinned QEMU is gone from the mirror");
    }
    let scratch = tempfile::tempdir().unwrap();
    let recipe = scratch.path().join("shapes.toml");
    let text = format!(
        "schema = 1\nname = \"minimal\"\nextends = {:?}\n[references]\nvcpus = [1]\nsnp_cpus = [\"EPYC-v4\"]\n\
         tdx_vcpus = [1, 2]\nmemory = [\"2GiB\", \"64GiB\"]\n",
        bench.recipe
    );
    std::fs::write(&recipe, text).unwrap();
    let lock = bench.recipe.with_extension("lock");
    let image = scratch.path().join("image");
    let (recipe, image_text) = (recipe.to_str().unwrap(), image.to_str().unwrap());
    bench.run(["build", recipe, "--lock", lock.to_str().unwrap(), "-o", image_text]).expect(0, &[]);
    let path = image.join("manifest.json");
    let read = || serde_json::from_slice::<serde_json::Value>(&std::fs::read(&path).unwrap()).unwrap();
    let manifest = read();
    let tdx = &manifest["references"]["tdx"][0];
    let shapes = tdx["platform"]["rtmr0"].as_array().unwrap();
    assert_eq!(shapes.len(), 4);
    assert_eq!(tdx["platform"]["qemu_lock_sha256"].as_str().unwrap().len(), 64);
    assert_eq!(tdx["firmware_pin"], "debian-inteltdx-keyless-2026.08");

    let of = |name: &str| image.join(name).to_str().unwrap().to_owned();
    let (firmware, kernel, initrd) = (of("firmware-tdx.fd"), of("vmlinuz"), of("initrd"));
    let line = manifest["command_line"].as_str().unwrap();
    for shape in shapes {
        let (vcpus, memory) = (shape["vcpus"].to_string(), format!("{}MiB", shape["memory_mib"]));
        let files =
            ["--kernel", &kernel, "--initrd", &initrd, "--cmdline", line, "--vcpus", &vcpus, "--memory", &memory];
        let alone = measure(&bench, Path::new(&firmware), &files).expect(0, &[]).json();
        let image_part = [&tdx["image"]["rtmr1"], &tdx["image"]["rtmr2"]];
        assert_eq!(
            [&alone["rtmr0"], &alone["rtmr1"], &alone["rtmr2"]],
            [&shape["rtmr0"], image_part[0], image_part[1]]
        );
    }
    let asked = bench.run(["measure", image_text, "--tee", "tdx", "--vcpus", "2", "--memory", "2GiB", "--json"]);
    let asked = asked.expect(0, &[]).json();
    let plain = bench.image().to_str().unwrap();
    bench.run(["measure", plain, "--tee", "tdx", "--vcpus", "2"]).expect(0, &["name sizes with --memory"]);
    let two = shapes.iter().find(|shape| shape["vcpus"] == 2 && shape["memory_mib"] == 2048).unwrap();
    assert_eq!(asked["tdx"][0]["platform"]["rtmr0"][0], *two);

    let write = || bench.run(["measure", image_text, "--write", "--json"]).expect(0, &[]).json();
    assert_eq!(write()["moved"], serde_json::json!([]));
    let known = two["rtmr0"].as_str().unwrap();
    let stale = std::fs::read_to_string(&path).unwrap().replace(known, &"ab".repeat(48));
    std::fs::write(&path, stale).unwrap();
    let moved = write();
    assert_eq!(moved["moved"][0]["value"], "RTMR0, 2 vCPUs, 2GiB");
    assert_eq!((&moved["moved"][0]["now"], moved["moved"].as_array().unwrap().len()), (&two["rtmr0"], 1));
    assert_eq!(read(), manifest);
    // A shape that the recipe does not name is added, and stays.
    let add = ["measure", image_text, "--write", "--vcpus", "4", "--memory", "2GiB", "--json"];
    let added = bench.run(add).expect(0, &[]).json();
    assert_eq!(added["moved"][0]["value"], "RTMR0, 4 vCPUs, 2GiB");
    assert_eq!((&added["moved"][0]["was"], added["moved"].as_array().unwrap().len()), (&serde_json::Value::Null, 1));
    assert_eq!(write()["moved"], serde_json::json!([]));
    assert_eq!(read()["references"]["tdx"][0]["platform"]["rtmr0"].as_array().unwrap().len(), 5);
    bench.run(&add[..5]).expect(2, &["--memory"]);
}

/// Two live TDs: one log ends where the quote was taken, the other before the kernel's IMA extended RTMR2.
#[test]
fn a_log_is_held_against_the_registers_of_its_quote() {
    let Some(bench) = bench() else { return };
    let find = |path: &str| vector(path).map(|path| path.display().to_string());
    let replay = |log: &str, quote: &str| bench.run(["eventlog", "replay", log, "--quote", quote, "--json"]);
    let Some(log) = find("tdx/pairs/gce-cos113/ccel.bin") else { return };
    let quote = find("tdx/pairs/gce-cos113/quote.bin").unwrap();
    let answer = replay(&log, &quote).expect(0, &["no signature was looked at"]).json();
    assert_eq!((&answer["quote"]["matches"], &answer["quote"]["kind"]), (&true.into(), &"TDX quote".into()));
    assert_eq!(answer["quote"]["registers"][0]["quote"], answer["rtmr0"]);

    let early = find("tdx/pairs/cc-trusted-grub/ccel.bin").unwrap();
    let later = find("tdx/pairs/cc-trusted-grub/quote.bin").unwrap();
    let answer = replay(&early, &later).expect(6, &["after the log ended"]).json();
    let registers = answer["quote"]["registers"].as_array().unwrap();
    let differing: Vec<_> = registers.iter().filter(|register| register["matches"] == false).collect();
    assert_eq!((differing.len(), &differing[0]["name"]), (1, &"RTMR2".into()));
    replay(&early, &quote).expect(6, &[]);
    replay(&log, &log).expect(2, &["not a TDX quote"]);
}
