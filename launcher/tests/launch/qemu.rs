//! The real QEMU and a real kernel, where they are: `qemu-system-x86_64` in `BULLION_TOOLS`, a bzImage that
//! `BULLION_TEST_KERNEL` names.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use launcher::qemu::Features;
use launcher::{Ending, QemuProgram};

use crate::fixture::{Fixture, artifacts, write_image};

fn tool() -> Option<QemuProgram> {
    let cache = || std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = || Some(Path::new(&std::env::var_os("HOME")?).join(".cache"));
    let tools = std::env::var_os("BULLION_TOOLS").map(PathBuf::from);
    let tools = tools.or_else(|| Some(cache().or_else(home)?.join("bullion/tools/bin")))?;
    let found = QemuProgram::at(&tools.join("qemu-system-x86_64")).ok();
    if found.is_none() {
        eprintln!("skipped: there is no qemu-system-x86_64 in {}", tools.display());
    }
    found
}

fn kernel() -> Option<Vec<u8>> {
    let path = std::env::var_os("BULLION_TEST_KERNEL").map(PathBuf::from);
    let kernel = path.and_then(|path| fs::read(path).ok());
    if kernel.is_none() {
        eprintln!("skipped: BULLION_TEST_KERNEL names no kernel");
    }
    kernel
}

/// A fixture that boots `kernel` with `command_line`.
fn bootable(kernel: Vec<u8>, command_line: &'static str, more: &str) -> Fixture {
    let fixture = Fixture::new("none", more);
    let mut files: BTreeMap<_, _> = artifacts();
    files.insert("vmlinuz", kernel);
    files.insert("cmdline", command_line.as_bytes().to_vec());
    write_image(&fixture.path("image"), &files, command_line);
    fixture
}

#[test]
fn qemu_says_what_it_can_do() {
    let Some(qemu) = tool() else { return };
    let cache = tempfile::tempdir().unwrap();
    let features = Features::of(&qemu, cache.path()).unwrap();
    assert!(features.version >= launcher::qemu::features::FLOOR, "{features:?}");
    for needed in [
        "tcg-accel",
        "kvm-accel",
        "sev-snp-guest",
        "tdx-guest",
        "pc-q35-10.1-machine",
        "EPYC-v4-x86_64-cpu",
        "max-x86_64-cpu",
    ] {
        assert!(features.types.contains(needed), "{needed}");
    }
    assert!(features.sandbox);
    assert_eq!(Features::of(&qemu, cache.path()).unwrap(), features, "remembered");
}

#[test]
fn a_kernel_without_a_root_panics() {
    let (Some(qemu), Some(kernel)) = (tool(), kernel()) else { return };
    let fixture = bootable(kernel, "console=ttyS0 quiet panic=-1", "ready_timeout_s = 300\naccelerator = \"tcg\"");
    let (report, told) = fixture.launch(&qemu);
    let report = report.unwrap();
    assert!(
        matches!(&report.ending, Ending::GuestPanicked { panic } if panic.contains("VFS: Unable to mount root")),
        "{:?}",
        report.ending
    );
    assert!(fs::read(&report.console_log).unwrap().windows(12).any(|window| window == b"Kernel panic"));
    eprintln!("{told:#?}");
}

#[test]
fn a_kernel_that_kvm_cannot_run_is_run_by_tcg() {
    let (Some(qemu), Some(kernel)) = (tool(), kernel()) else { return };
    let fixture = bootable(kernel, "console=ttyS0 quiet panic=-1", "ready_timeout_s = 300");
    let (report, told) = fixture.launch(&qemu);
    eprintln!("{told:#?}");
    // Whatever this host's KVM can do, the kernel comes to its end under one accelerator or the other.
    assert!(matches!(report.unwrap().ending, Ending::GuestPanicked { .. }));
}
