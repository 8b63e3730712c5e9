//! A TD that has been launched reads what QEMU offers to firmware, and reads what QEMU was given.
#![allow(clippy::print_stderr, reason = "says what was skipped and how long runs took")]

mod simulated;

use std::collections::BTreeMap;
use std::io::Read as _;

use serde_json::Value;
use sha2::{Digest as _, Sha384};
use simulated::{Laboratory, Outcome, vector};

const FIRMWARE: &str = "tdx/firmware/debian-sid_ovmf-inteltdx_2026.08+ds-2_OVMF.inteltdx.ms.fd.xz";

fn digests(outcome: &Outcome) -> BTreeMap<String, String> {
    let files = outcome.report["fw_cfg"].as_array().unwrap_or_else(|| panic!("{} {}", outcome.stderr, outcome.report));
    let text = |file: &Value, key: &str| file[key].as_str().unwrap().to_owned();
    files.iter().map(|file| (text(file, "name"), text(file, "sha384"))).collect()
}

#[test]
fn a_launched_td_reads_what_qemu_was_given() {
    let Some(laboratory) = Laboratory::open_with_qemu(10, 1, "TDX") else { return };
    let Some(packed) = vector(FIRMWARE) else { return };
    let mut image = Vec::new();
    liblzma::read::XzDecoder::new(std::fs::File::open(packed).unwrap()).read_to_end(&mut image).unwrap();
    let firmware = laboratory.write("firmware.fd", &image);
    // Larger than what is read at once.
    let mut kernel: Vec<u8> = (0..0x24_3210_u32).map(|index| (index.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    kernel[0x1f1] = 4;
    kernel[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
    kernel[0x202..0x206].copy_from_slice(b"HdrS");
    kernel[0x206..0x208].copy_from_slice(&0x20f_u16.to_le_bytes());
    kernel[0x22c..0x230].copy_from_slice(&0x7fff_ffff_u32.to_le_bytes());
    kernel[0x236..0x238].fill(0);
    let (kernel_file, initrd_file) = (laboratory.write("vmlinuz", &kernel), laboratory.write("initrd", &[0x5a; 5000]));
    let run = |placement: &str| {
        let mut command = laboratory.tdx(&firmware, 2, "2G", "");
        command.arg("-kernel").arg(&kernel_file).arg("-initrd").arg(&initrd_file).args(["-append", "quiet  panic=-1"]);
        command.args(["-fw_cfg", "name=opt/org.bullion/test,string=abc"]);
        let directory = laboratory.path("fw_cfg");
        let outcome = laboratory.run(command.env("TEESIM_FW_CFG", &directory).env("TEESIM_PCI", placement));
        assert!(outcome.status.success(), "{} {}", outcome.stderr, outcome.report["failed"]);
        eprintln!("{:?}", outcome.elapsed);
        (digests(&outcome), directory)
    };
    let (read, directory) = run("");
    let sha384 = |bytes: &[u8]| hex::encode(Sha384::digest(bytes));
    for (name, content) in [
        ("etc/boot/kernel", &kernel[..]),
        ("initrd_data", &[0x5a; 5000]),
        ("cmdline_data", b"quiet  panic=-1\0"),
        ("opt/org.bullion/test", b"abc"),
        ("BootMenu", &[0, 0]),
    ] {
        assert_eq!(read[name], sha384(content), "{name}");
        assert!(std::fs::read(directory.join(name)).unwrap() == content, "{name}");
    }
    let tables = std::fs::read(directory.join("etc/acpi/tables")).unwrap();
    assert_eq!(read["etc/acpi/tables"], sha384(&tables));
    // FACS comes first; the DSDT, and the MADT with one entry for each vCPU, follow.
    assert!(tables.starts_with(b"FACS") && tables.windows(4).any(|word| word == b"DSDT"));
    // The base of the power management registers is in the FADT: another one is another table, and nothing else.
    let (placed, _) = run("00:1f.0/40=601 00:1f.0/44=80");
    let moved: Vec<_> = read.iter().filter(|(name, digest)| placed[*name] != **digest).map(|(name, _)| name).collect();
    assert!(moved.contains(&&"etc/acpi/tables".to_owned()), "{moved:?}");
    assert!(moved.iter().all(|name| name.starts_with("etc/acpi") || *name == "etc/table-loader"), "{moved:?}");
}

#[test]
fn placement_that_cannot_be_read_fails_the_launch() {
    let Some(laboratory) = Laboratory::open_with_qemu(10, 1, "TDX") else { return };
    let Some(packed) = vector(FIRMWARE) else { return };
    let mut image = Vec::new();
    liblzma::read::XzDecoder::new(std::fs::File::open(packed).unwrap()).read_to_end(&mut image).unwrap();
    let firmware = laboratory.write("firmware.fd", &image);
    let mut command = laboratory.tdx(&firmware, 1, "2G", "");
    let outcome = laboratory.run(command.env("TEESIM_FW_CFG", "1").env("TEESIM_PCI", "00:1f.0"));
    assert!(!outcome.status.success());
    assert!(outcome.report["failed"].as_str().unwrap().contains("TEESIM_PCI"), "{}", outcome.report);
}
