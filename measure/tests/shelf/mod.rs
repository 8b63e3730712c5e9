//! Finds what tests are judged by: vectors that others produced, and other people's tools. Where they are absent a test
//! says so and passes.
#![allow(dead_code, reason = "each test program uses a part")]
#![allow(clippy::print_stderr, reason = "a skipped test says so")]

use std::io::Read as _;
use std::path::PathBuf;

/// A file or folder of the vectors.
pub(crate) fn vector(path: &str) -> Option<PathBuf> {
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/vectors");
    let root = std::env::var_os("BULLION_VECTORS").map_or_else(|| PathBuf::from(default), PathBuf::from);
    let found = root.join(path);
    if !found.exists() {
        eprintln!("skipped: no vectors at {}", found.display());
        return None;
    }
    Some(found)
}

/// The content of a vector; `.xz` and `.gz` are unpacked.
pub(crate) fn bytes(path: &str) -> Option<Vec<u8>> {
    let packed = std::fs::read(vector(path)?).unwrap();
    let mut out = Vec::new();
    if path.ends_with(".xz") {
        liblzma::read::XzDecoder::new(&*packed).read_to_end(&mut out).unwrap();
    } else if path.ends_with(".gz") {
        flate2::read::GzDecoder::new(&*packed).read_to_end(&mut out).unwrap();
    } else {
        out = packed;
    }
    Some(out)
}

/// A JSON vector.
pub(crate) fn json(path: &str) -> Option<serde_json::Value> {
    bytes(path).map(|bytes| serde_json::from_slice(&bytes).unwrap())
}

/// Another program to be judged by.
pub(crate) fn tool(name: &str) -> Option<PathBuf> {
    let cache = || {
        let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache"));
        let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or_else(home)?;
        Some(cache.join("bullion/tools/bin"))
    };
    let folder = std::env::var_os("BULLION_TOOLS").map(PathBuf::from).or_else(cache)?;
    let found = Some(folder.join(name)).filter(|program| program.exists());
    if found.is_none() {
        eprintln!("skipped: no {name} in {}", folder.display());
    }
    found
}

/// A folder of signed kernels. None are in the vectors.
pub(crate) fn kernels() -> Option<PathBuf> {
    let folder = std::env::var_os("BULLION_KERNELS").map(PathBuf::from);
    if folder.is_none() {
        eprintln!("skipped: BULLION_KERNELS names no folder of signed kernels");
    }
    folder
}

/// Firmware images of the vectors, by path.
pub(crate) const IMAGES: [&str; 9] = [
    "snp/launch-digest/debian_2026.08+ds-2_OVMF.amdsev.fd",
    "snp/launch-digest/ovmf_AmdSev_suffix.bin",
    "snp/launch-digest/ovmf_OvmfX64_suffix.bin",
    "snp/launch-digest/svsm_ovmf.fd",
    "tdx/firmware/debian-sid_ovmf-inteltdx_2026.08+ds-2_OVMF.inteltdx.ms.fd.xz",
    "tdx/firmware/ubuntu-24.04_ovmf_2024.02-2_OVMF.fd.xz",
    "tdx/firmware/ubuntu-25.04_ovmf_2025.02-3ubuntu2_OVMF.fd.xz",
    "tdx/firmware/ubuntu-25.10_ovmf-inteltdx_2025.02-8ubuntu3_OVMF.inteltdx.fd.xz",
    "tdx/firmware/ubuntu-26.04_ovmf-inteltdx_2025.11-3ubuntu7_OVMF.inteltdx.ms.fd.xz",
];
