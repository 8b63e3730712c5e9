//! Boots without Secure Boot: a kernel, a unified kernel image, a disk, and what a TPM of version 1.2 is told.

use std::path::Path;

use e2e::bench;
use e2e::emulator::{Firmware, Stopped, Trees};
use measure::eventlog::{AlgorithmId, EventLog, EventType};

use crate::memory::{bios_log, log};
use crate::predicted::*;

#[test]
fn a_direct_boot_is_measured_as_predicted() {
    let (Some(bench), Some(trees)) = (bench(), Trees::find()) else { return };
    let (words, cmdline) = direct_words(bench.image());
    let (code, variables) = (trees.ovmf("OVMF_CODE_4M.fd"), trees.ovmf("OVMF_VARS_4M.fd"));
    let (kernel, initrd) = (bench.image().join("vmlinuz"), bench.image().join("initrd"));
    let stopped = trees.boot(Firmware::Split(&code, &variables), &words, |memory| log(memory).is_some());
    let files =
        Files { code: &code, variables: &variables, kernel: &kernel, initrd: Some(&initrd), cmdline: Some(&cmdline) };
    assert_as_predicted(&stopped, &prediction(&bench, &files, &stopped));
}

#[test]
fn a_unified_kernel_image_is_measured_as_predicted() {
    let (Some(bench), Some(trees)) = (bench(), Trees::find()) else { return };
    let directory = tempfile::tempdir().unwrap();
    let Some(uki) = unified_image(&bench, directory.path()) else { return };
    let (code, variables) = (trees.ovmf("OVMF_CODE_4M.fd"), trees.ovmf("OVMF_VARS_4M.fd"));
    let words = ["-kernel".to_owned(), uki.display().to_string()];
    let stopped = trees.boot(Firmware::Split(&code, &variables), &words, |memory| log(memory).is_some());
    let files = Files { code: &code, variables: &variables, kernel: &uki, initrd: None, cmdline: None };
    assert_as_predicted(&stopped, &prediction(&bench, &files, &stopped));
}

/// Partition table, boot entries with the place of the disk, and the unified kernel image from the disk.
#[test]
fn a_disk_is_measured_as_predicted() {
    let (Some(bench), Some(trees)) = (bench(), Trees::find()) else { return };
    let directory = tempfile::tempdir().unwrap();
    let Some(uki) = unified_image(&bench, directory.path()) else { return };
    let image = uki.with_file_name("");
    let (code, variables) = (trees.ovmf("OVMF_CODE_4M.fd"), trees.ovmf("OVMF_VARS_4M.fd"));
    let path = |path: &Path| path.display().to_string();
    let predicted = |stopped: &Stopped| {
        let words = ["measure", "tpm", "--json", "--disk-at", SLOT, "--firmware", &path(&code), "--variables"];
        let files = [path(&variables), "--fw-cfg".into(), path(&stopped.fw_cfg), "--disk".into()];
        let words = words.map(str::to_owned).into_iter().chain(files).chain([path(&image.join("disk.raw"))]);
        bench.run(words).expect(0, &[]).json()
    };
    let boot = |words: &[String]| trees.boot(Firmware::Split(&code, &variables), words, |memory| log(memory).is_some());
    let ordered = boot(&ordered_disk_words(&image));
    assert_as_predicted(&ordered, &predicted(&ordered));
    let stopped = boot(&disk_words(&image));
    assert_as_predicted(&stopped, &predicted(&stopped));
    assert_ne!(ordered.pcrs[&1], stopped.pcrs[&1]);
    let firmware = image.join("firmware-tdx.fd");
    let tdx = bench.run([
        "measure",
        "tdx",
        "--json",
        "--firmware",
        &path(&firmware),
        "--disk",
        &path(&image.join("disk.raw")),
    ]);
    if !bench.unpublished {
        let tdx = tdx.expect(0, &[]).json();
        // Of this firmware it was not seen whether the kernel has to try twice, as it has to here.
        assert_eq!(tdx["rtmr1_one_of"][1], as_rtmr(&stopped, 2..=6));
        assert_ne!(tdx["rtmr1_one_of"][0], tdx["rtmr1_one_of"][1]);
        assert_eq!(tdx["rtmr2"], as_rtmr(&stopped, 8..=15));
    }
}

/// The PCRs of two images in the machine that was booted: of the one that was, what its TPM held.
#[test]
fn diff_compares_pcrs_and_says_what_moved_them() {
    let (Some(bench), Some(trees)) = (bench(), Trees::find()) else { return };
    let directory = tempfile::tempdir().unwrap();
    let Some([image, other]) = bench.disk_images(directory.path()) else { return };
    let (code, variables) = (trees.ovmf("OVMF_CODE_4M.fd"), trees.ovmf("OVMF_VARS_4M.fd"));
    let words = disk_words(&image);
    let stopped = trees.boot(Firmware::Split(&code, &variables), &words, |memory| log(memory).is_some());
    let path = |path: &Path| path.display().to_string();
    let machine = ["--tpm-firmware", &path(&code), "--tpm-variables", &path(&variables), "--tpm-fw-cfg"];
    let machine =
        machine.map(str::to_owned).into_iter().chain([path(&stopped.fw_cfg), "--tpm-disk-at".into(), SLOT.into()]);
    let words = ["diff".to_owned(), path(&image), path(&other), "--json".to_owned()];
    let told = bench.run(words.into_iter().chain(machine)).expect(6, &[]).json();
    let words =
        ["measure", "tpm", "--json", "--disk-at", SLOT, "--firmware", &path(&code), "--variables", &path(&variables)];
    let files = ["--fw-cfg".to_owned(), path(&stopped.fw_cfg), "--disk".into(), path(&other.join("disk.raw"))];
    let predicted = bench.run(words.map(str::to_owned).into_iter().chain(files)).expect(0, &[]).json();
    let mut moved = Vec::new();
    for number in (0..16).filter(|number| *number != 10) {
        let is_it = |value: &&serde_json::Value| value["value"] == format!("PCR {number}");
        let value = told["measured"].as_array().unwrap().iter().find(is_it).unwrap();
        assert_eq!(value["before"], stopped.pcrs[&number], "PCR {number}");
        assert_eq!(value["after"], predicted[format!("pcr{number}")], "PCR {number}");
        if value["before"] != value["after"] {
            moved.push((number, value["moved_by"].to_string(), value["inputs"].to_string()));
        }
    }
    let expected = [
        (4, r#"["uki.efi"]"#, r#"["unified kernel image"]"#),
        (5, r#"["disk.raw"]"#, r#"["partition table"]"#),
        (9, r#"["cmdline"]"#, r#"["kernel command line"]"#),
        (11, r#"["cmdline"]"#, r#"["section .cmdline of the unified kernel image"]"#),
    ];
    assert_eq!(moved, expected.map(|(number, by, inputs)| (number, by.to_owned(), inputs.to_owned())));
}

/// What firmware measured into these PCRs, as the one register that TDX has for them: in the order of the log, and with one separator.
fn as_rtmr(stopped: &Stopped, pcrs: std::ops::RangeInclusive<u32>) -> String {
    let log = log(&stopped.memory).unwrap();
    let mut separated = false;
    let mut register = measure::Digest384::ZERO;
    for event in log.events.iter().filter(|event| pcrs.contains(&event.index)) {
        if event.event_type == EventType::EV_SEPARATOR && std::mem::replace(&mut separated, true) {
            continue;
        }
        register = register.extended(&event.sha384().unwrap());
    }
    register.to_string()
}

#[test]
fn a_log_of_a_tpm_of_version_1_2_replays_to_its_pcrs() {
    let (Some(bench), Some(trees)) = (bench(), Trees::find()) else { return };
    let stopped = trees.boot(Firmware::Bios, &[], |memory| bios_log(memory).is_some());
    let area = bios_log(&stopped.memory).unwrap();
    let log = EventLog::parse(area).unwrap();
    let pcrs = log.replay_pcrs(AlgorithmId::SHA1).unwrap();
    assert!(pcrs.len() >= 8 && log.events.len() > 8, "{log:?}");
    for (number, value) in pcrs {
        assert_eq!(stopped.pcrs[&number], measure::digest::encode_hex(&value), "PCR {number}: {log:?}");
    }
    assert!(log.events.iter().all(|event| event.data_matches() != Some(false)), "{log:?}");
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("binary_bios_measurements");
    std::fs::write(&file, area).unwrap();
    let answer = bench.run(["eventlog", "replay", file.to_str().unwrap(), "--strict", "--json"]).expect(0, &[]).json();
    assert_eq!(answer["pcrs"]["sha1"]["7"], stopped.pcrs[&7]);
}
