//! NVIDIA's installer is taken apart by `gpu/unpack` of the component, which runs nothing of it, and refuses what is not the driver that the recipe
//! names. A file of the test stands in for NVIDIA's, with a toy in it.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "../../../image/tests/support/elf.rs"]
mod elf;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use e2e::{Run, names, run, skipped};
use elf::elf;

const VERSION: &str = "580.95.05";
const OUTPUTS: [&str; 2] = ["firmware/gsp_ga10x.bin", "libcuda.so.580.95.05"];

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../image-recipes/components/gpu/unpack")
}

/// Whether this host has what the component's tree has.
fn has_tools() -> bool {
    let missing =
        ["zstd", "tar", "readelf"].into_iter().find(|tool| Command::new(tool).arg("--version").output().is_err());
    if let Some(tool) = missing {
        skipped(&format!("this host has no {tool}"));
    }
    missing.is_none()
}

/// Makes an installer of files with this firmware, whose script is `head`, in a directory of its own.
fn installer(head: &str, firmware: &[u8], compressor: &[&str]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    for folder in ["driver/kernel-open", "driver/firmware", "out"] {
        fs::create_dir_all(at(folder)).unwrap();
    }
    fs::write(at("driver/kernel-open/Kbuild"), "obj-m := nvidia.o\n").unwrap();
    fs::write(at("driver/firmware/gsp_ga10x.bin"), firmware).unwrap();
    fs::write(at("driver/libcuda.so.580.95.05"), "a library").unwrap();
    fs::write(at("driver/others"), "what nobody wants").unwrap();
    let mut tar = Command::new("tar");
    tar.args(["-cf", "archive", "-C", "driver", "kernel-open", "firmware", "libcuda.so.580.95.05", "others"]);
    run(tar.current_dir(directory.path())).expect(0, &[]);
    let [program, words @ ..] = compressor else { panic!("no compressor") };
    let packed = Command::new(program).args(words).arg("archive").current_dir(directory.path()).output().unwrap();
    assert!(packed.status.success());
    fs::write(at(&format!("NVIDIA-Linux-x86_64-{VERSION}.run")), [head.as_bytes(), &packed.stdout].concat()).unwrap();
    fs::remove_dir_all(at("driver")).unwrap();
    directory
}

fn unpack(directory: &Path, version: &str, outputs: &[&str]) -> Run {
    run(Command::new("sh").arg(script()).args([version, "driver"]).args(outputs).current_dir(directory))
}

/// As NVIDIA's begins, and with a command that must never run.
const HEAD: &str = "#! /bin/sh\ntouch ran\nskip=5\nexit 0\n";

fn said(run: &Run) -> String {
    format!("{}{}", run.stdout, run.stderr)
}

#[test]
fn an_installer_is_taken_apart_and_never_run() {
    if !has_tools() {
        return;
    }
    let made = installer(HEAD, &elf(".fwversion", b"580.95.05\0"), &["zstd", "-q", "-c"]);
    unpack(made.path(), VERSION, &OUTPUTS).expect(0, &[]);
    assert_eq!(names(&made.path().join("out")), ["gsp_ga10x.bin", "libcuda.so.580.95.05"]);
    assert_eq!(fs::read(made.path().join("out/libcuda.so.580.95.05")).unwrap(), b"a library");
    assert!(made.path().join("driver/kernel-open/Kbuild").exists());
    assert!(!made.path().join("driver/others").exists() && !made.path().join("ran").exists());
}

#[test]
fn what_is_not_the_driver_is_told() {
    if !has_tools() {
        return;
    }
    let zstd = ["zstd", "-q", "-c"];
    let right = elf(".fwversion", b"580.95.05\0");
    let refused = |made: &tempfile::TempDir, version: &str, outputs: &[&str], words: &str| {
        let run = unpack(made.path(), version, outputs);
        assert_ne!(run.code, 0);
        assert!(said(&run).contains(words), "{words:?} is not in {run:?}");
    };
    let made = || installer(HEAD, &right, &zstd);
    refused(
        &made(),
        "580.105.08",
        &OUTPUTS,
        "NVIDIA-Linux-x86_64-580.105.08.run: the recipe's [[component.source]] names no such file",
    );
    refused(&made(), VERSION, &["libcuda.so.580.105.08"], "its archive lacks what is named above");
    refused(&installer("#! /bin/sh\n", &right, &zstd), VERSION, &OUTPUTS, "this is no installer of NVIDIA's");
    refused(&installer("skip=two\n", &right, &zstd), VERSION, &OUTPUTS, "this is no installer of NVIDIA's");
    refused(&installer(HEAD, &right, &["cat"]), VERSION, &OUTPUTS, "from line 5 on is not compressed by zstd");
    let other = installer(HEAD, &elf(".fwversion", b"580.105.08\0"), &zstd);
    refused(&other, VERSION, &OUTPUTS, "firmware of the version \"580.105.08\", not of 580.95.05");
    refused(&installer(HEAD, b"GSP", &zstd), VERSION, &OUTPUTS, "firmware of the version \"\", not of 580.95.05");

    let damaged = made();
    let path = damaged.path().join(format!("NVIDIA-Linux-x86_64-{VERSION}.run"));
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, bytes.split_at(bytes.len() - 8).0).unwrap();
    refused(&damaged, VERSION, &OUTPUTS, "its archive is damaged");
}
