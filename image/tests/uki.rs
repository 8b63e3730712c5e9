//! Unified kernel images against `ukify`, byte by byte, and `pesign`.

#![allow(clippy::cast_possible_truncation, reason = "test data is made of the low bytes of counters")]

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;

use image::uki::{Parts, UkiError, build};
use proptest::prelude::*;
use support::{run, shared_file, tool};

const COMMAND_LINE: &str = "console=ttyS0 quiet bullion.root=0123";
const VERSION: &str = "7.3.4-test";
const OS_RELEASE: &[u8] = b"ID=debian\nVERSION_ID=13\n";

/// A PE32+ image with one section, and room in the headers for `room` more.
fn small_pe(room: usize) -> Vec<u8> {
    const START: usize = 0x80;
    const TABLE: usize = START + 24 + 240;
    let mut image = vec![0; 2048];
    let mut put = |offset: usize, bytes: &[u8]| image[offset..offset + bytes.len()].copy_from_slice(bytes);
    put(0, b"MZ");
    put(0x3c, &(START as u32).to_le_bytes());
    put(START, b"PE\0\0");
    put(START + 6, &1u16.to_le_bytes());
    put(START + 20, &240u16.to_le_bytes());
    let optional = START + 24;
    put(optional, &0x20bu16.to_le_bytes());
    for (offset, value) in [(32, 4096), (36, 512), (56, 8192), (60, 1024), (108, 16)] {
        put(optional + offset, &u32::to_le_bytes(value));
    }
    put(TABLE, b".text\0\0\0");
    // The first content starts where the table must end.
    let content = if room == 0 { 512 } else { 1024 };
    for (offset, value) in [(8, 512), (12, 4096), (16, 512), (20, content)] {
        put(TABLE + offset, &u32::to_le_bytes(value));
    }
    image
}

fn parts<'a>(stub: &'a [u8], kernel: &'a [u8], initrd: &'a [u8]) -> Parts<'a> {
    Parts { stub, os_release: Some(OS_RELEASE), command_line: COMMAND_LINE, kernel_version: VERSION, kernel, initrd }
}

/// What ukify makes of the same parts; `None` where there is no ukify.
fn theirs(directory: &Path, stub: &Path, kernel: &Path, initrd: &[u8], os_release: bool) -> Option<Vec<u8>> {
    let (initrd_file, release_file) = (directory.join("initrd"), directory.join("os-release"));
    std::fs::write(&initrd_file, initrd).unwrap();
    std::fs::write(&release_file, OS_RELEASE).unwrap();
    let output = directory.join("theirs.efi");
    let mut ukify = Command::new(tool("ukify")?);
    ukify.arg("build").args(["--cmdline", COMMAND_LINE, "--uname", VERSION]);
    ukify.arg("--os-release").arg(if os_release { format!("@{}", release_file.display()) } else { String::new() });
    ukify.arg("--linux").arg(kernel).arg("--initrd").arg(&initrd_file).arg("--stub").arg(stub);
    run(ukify.arg("--output").arg(&output));
    Some(std::fs::read(output).unwrap())
}

fn kernel() -> Option<PathBuf> {
    let kernel = std::env::var_os("BULLION_TEST_KERNEL").map(PathBuf::from).filter(|path| path.is_file());
    if kernel.is_none() {
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), "skipped: BULLION_TEST_KERNEL names no kernel");
    }
    kernel
}

#[test]
fn the_image_is_the_one_that_ukify_makes() {
    let (Some(stub), Some(kernel)) = (shared_file("linuxx64.efi.stub"), kernel()) else { return };
    let directory = tempfile::tempdir().unwrap();
    let (stub_bytes, kernel_bytes) = (std::fs::read(&stub).unwrap(), std::fs::read(&kernel).unwrap());
    // On both sides of the alignments in the file and in memory.
    for size in [1, 511, 512, 513, 4096, 100_001] {
        let initrd: Vec<u8> = (0..size).map(|index: usize| (index * 31) as u8 | 1).collect();
        let Some(theirs) = theirs(directory.path(), &stub, &kernel, &initrd, size != 512) else { return };
        let mut parts = parts(&stub_bytes, &kernel_bytes, &initrd);
        parts.os_release = parts.os_release.filter(|_| size != 512);
        assert!(build(&parts).unwrap() == theirs, "an initrd of {size} bytes");
    }
}

#[test]
fn a_kernel_that_is_not_nx_compatible_and_one_with_an_sbat_are_treated_as_ukify_does() {
    let Some(stub) = shared_file("linuxx64.efi.stub") else { return };
    let directory = tempfile::tempdir().unwrap();
    let stub_bytes = std::fs::read(&stub).unwrap();
    let kernel = directory.path().join("kernel");
    let mut old = small_pe(8);
    // A section .sbat instead of .text.
    let table = old.windows(6).position(|window| window == b".text\0").unwrap();
    old[table..table + 6].copy_from_slice(b".sbat\0");
    let text = b"sbat,1,SBAT Version,sbat,1,https://example.org\nlinux,1,Test,linux,7.3,https://example.org\n";
    old[1024..1024 + text.len()].copy_from_slice(text);
    std::fs::write(&kernel, &old).unwrap();
    let Some(theirs) = theirs(directory.path(), &stub, &kernel, b"initrd", true) else { return };
    let ours = build(&parts(&stub_bytes, &old, b"initrd")).unwrap();
    assert!(ours == theirs);
    assert!(ours.windows(9).any(|window| window == b"\nlinux,1,"), "the kernel's SBAT is not in the image");
}

#[test]
fn pesign_takes_the_same_authenticode_digest() {
    let (Some(stub), Some(pesign)) = (shared_file("linuxx64.efi.stub"), tool("pesign")) else { return };
    let directory = tempfile::tempdir().unwrap();
    let stub = std::fs::read(stub).unwrap();
    for size in [7, 5000] {
        let image = build(&parts(&stub, &small_pe(8), &vec![3; size])).unwrap();
        let path = directory.path().join("uki.efi");
        std::fs::write(&path, &image).unwrap();
        let output = run(Command::new(&pesign).arg("-h").arg("-i").arg(&path));
        let ours = measure::authenticode::sha256(&image).unwrap().to_string();
        let theirs = String::from_utf8(output.stdout).unwrap();
        assert!(theirs.contains(&ours), "{ours} and {theirs}");
    }
}

#[test]
fn stubs_that_sections_cannot_be_added_to_are_refused() {
    let kernel = small_pe(8);
    let refused = |stub: &[u8]| build(&parts(stub, &kernel, b"x")).unwrap_err();
    let stub = small_pe(8);
    build(&parts(&stub, &kernel, b"x")).unwrap();
    assert_eq!(refused(b""), UkiError::Stub("it is not a PE image"));
    assert_eq!(refused(&small_pe(0)), UkiError::NoRoom(".uname"));
    let with = |offset: usize, value: u32| {
        let mut stub = stub.clone();
        stub[offset..offset + 4].copy_from_slice(&value.to_le_bytes());
        stub
    };
    assert_eq!(refused(&with(0x80 + 12, 1)), UkiError::Stub("it has a symbol table"));
    assert_eq!(refused(&with(0x80 + 24 + 144, 1)), UkiError::Stub("it is signed"));
    assert_eq!(refused(&with(0x80 + 24 + 36, 3)), UkiError::Stub("it has an alignment that is not supported"));
    assert_eq!(refused(&with(0x80 + 24 + 240 + 20, 1000)), UkiError::Stub("its sections are not aligned in the file"));
    assert_eq!(refused(&with(0x80 + 24 + 240 + 12, u32::MAX)), UkiError::TooLarge);
    assert_eq!(build(&parts(&stub, b"MZ", b"x")).unwrap_err(), UkiError::Kernel("it is not a PE image"));
}

proptest! {
    #[test]
    fn any_stub_and_kernel_give_an_image_or_an_error(
        stub in proptest::collection::vec(any::<u8>(), 0..300),
        changes in proptest::collection::vec((0usize..2048, any::<u8>()), 0..8),
    ) {
        let mut changed = small_pe(8);
        for (at, byte) in changes {
            changed[at] = byte;
        }
        let good = small_pe(8);
        for (stub, kernel) in [(&stub, &good), (&good, &stub), (&changed, &good), (&good, &changed)] {
            let _ = build(&parts(stub, kernel, b"x"));
        }
    }
}
