//! The default TDX firmware, which measures nothing without a TEE: what it would measure is what it leaves in memory.

use std::path::Path;

use e2e::bench;
use e2e::emulator::{Firmware, Stopped, Trees};
use measure::smbios::{self, BiosInformation};
use measure::tdx::Profile;
use measure::uefi::load_option::{PciSlot, firmware_application, virtio_disk};
use serde_json::Value;
use spec::pins::Pins;

use crate::memory::{smbios_table, variable};
use crate::predicted::*;

/// The default TDX firmware without a TEE measures nothing; what it would measure is what it leaves in memory.
#[test]
fn the_default_tdx_firmware_makes_what_is_predicted_for_it() {
    let (Some(bench), Some(trees)) = (bench(), Trees::find()) else { return };
    let firmware = bench.image().join("firmware-tdx.fd");
    let pins = Pins::parse("pins.toml", include_str!("../../../../firmware/pins.toml")).unwrap();
    let Some(pin) = pins.find(&spec::Sha256Digest::of(&std::fs::read(&firmware).unwrap())) else {
        return e2e::skipped("the TDX firmware of the image is not pinned");
    };
    let profile = Profile::of_build(&pin.edk2, &format!("{:?}", pin.platform)).unwrap();
    let order: Vec<u8> = (0_u16..).zip(profile.boot_entries).flat_map(|(number, _)| number.to_le_bytes()).collect();
    let entries = profile.boot_entries.iter().map(firmware_application).zip(["Boot0000", "Boot0001"]);
    let mut expected: Vec<_> = entries.map(|(value, name)| (name, value)).collect();
    expected.extend([("BootOrder", order), ("SecureBoot", vec![0])]);
    let (words, _) = direct_words(bench.image());
    // The kernel runs: the console is the first thing that it unpacks itself for.
    let stopped = trees.boot(Firmware::Whole(&firmware), &words, |memory| {
        expected.iter().all(|(name, _)| variable(memory, name).is_some()) && smbios_table(memory).is_some()
    });
    for (name, value) in &expected {
        assert_eq!(variable(&stopped.memory, name).as_ref(), Some(value), "{name}");
    }
    assert_eq!(variable(&stopped.memory, "Boot0001").is_some(), profile.boot_entries.len() > 1);
    let bios = pin.bios.as_ref().unwrap();
    let bios = BiosInformation { vendor: &bios.vendor, version: &bios.version, release_date: &bios.release_date };
    let qemu = std::fs::read(stopped.fw_cfg.join("etc/smbios/smbios-tables")).unwrap();
    assert_eq!(smbios_table(&stopped.memory), smbios::completed(&qemu, &bios).ok());
}

/// The same where it starts a disk: an entry for the disk's place, and none of the program that a TDX guest lacks.
#[test]
fn the_default_tdx_firmware_makes_the_boot_entries_of_a_disk() {
    let (Some(bench), Some(trees)) = (bench(), Trees::find()) else { return };
    let directory = tempfile::tempdir().unwrap();
    let Some(uki) = unified_image(&bench, directory.path()) else { return };
    let (image, firmware) = (uki.with_file_name(""), uki.with_file_name("firmware-tdx.fd"));
    let pins = Pins::parse("pins.toml", include_str!("../../../../firmware/pins.toml")).unwrap();
    let Some(pin) = pins.find(&spec::Sha256Digest::of(&std::fs::read(&firmware).unwrap())) else {
        return e2e::skipped("the TDX firmware of the image is not pinned");
    };
    let profile = Profile::of_build(&pin.edk2, &format!("{:?}", pin.platform)).unwrap();
    let own = profile.boot_entries.iter().map(firmware_application);
    let disk = virtio_disk(PciSlot { device: 5, function: 0 });
    let later = profile.disk_boot.unwrap().later_entries.iter().map(firmware_application);
    let entries: Vec<_> = own.chain([disk]).chain(later).collect();
    let order: Vec<u8> = (0_u16..).zip(&entries).flat_map(|(number, _)| number.to_le_bytes()).collect();
    let stopped =
        trees.boot(Firmware::Whole(&firmware), &disk_words(&image), |memory| variable(memory, "BootCurrent").is_some());
    assert_eq!(variable(&stopped.memory, "BootOrder"), Some(order));
    for (number, entry) in entries.iter().enumerate() {
        assert_eq!(variable(&stopped.memory, &format!("Boot000{number}")).as_ref(), Some(entry), "{number}");
    }
    // What is measured of them, in a TDX guest.
    let measured = |stopped: &Stopped, more: &[&str]| -> Vec<_> {
        std::fs::write(stopped.fw_cfg.join("BootMenu"), [0; 2]).unwrap();
        let path = |path: &Path| path.display().to_string();
        let words = ["measure", "tdx", "--json", "--firmware", &path(&firmware), "--memory", "512MiB", "--acpi"];
        let files = [path(&stopped.fw_cfg), "--disk".to_owned(), path(&image.join("disk.raw"))];
        let more = more.iter().map(|word| (*word).to_owned());
        let tdx = bench.run(words.map(str::to_owned).into_iter().chain(files).chain(more)).expect(0, &[]).json();
        let steps = tdx["steps"].as_array().unwrap().iter().filter(|step| step["kind"] == "EV_EFI_VARIABLE_BOOT");
        steps.map(|step| (step["name"].clone(), step["digest"].clone())).collect()
    };
    let expected = |stopped: &Stopped, names: [&str; 3]| {
        let digest = |name: &str| measure::Digest384::of(&variable(&stopped.memory, name).unwrap()).to_string();
        names.map(|name| (Value::from(name), Value::from(digest(name))))
    };
    assert_eq!(measured(&stopped, &["--disk-at", SLOT]), expected(&stopped, ["BootOrder", "Boot0000", "Boot0001"]));
    // QEMU's boot order puts the disk first, and leaves a later disk without an entry.
    let later =
        ["-blockdev", "driver=null-co,node-name=later,size=1048576", "-device", "virtio-blk-pci,drive=later,addr=0x6"];
    let words = [ordered_disk_words(&image), later.map(str::to_owned).to_vec()].concat();
    let ordered = trees.boot(Firmware::Whole(&firmware), &words, |memory| variable(memory, "BootCurrent").is_some());
    assert_eq!(variable(&ordered.memory, "BootOrder"), Some(vec![1, 0, 0, 0]));
    assert_eq!(measured(&ordered, &[]), expected(&ordered, ["BootOrder", "Boot0001", "Boot0000"]));
}
