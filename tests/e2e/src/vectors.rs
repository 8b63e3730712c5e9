//! What others made and tests compare with: files of the vectors, and digests by coreutils.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::skipped;

/// A file of the vectors; `None` (and a word why) where it is not there.
pub fn vector(path: &str) -> Option<PathBuf> {
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/vectors");
    let found = std::env::var_os("BULLION_VECTORS").map_or(default, PathBuf::from).join(path);
    if found.exists() {
        return Some(found);
    }
    skipped(&format!("no vectors at {}", found.display()));
    None
}

/// What a file of the vectors that ends in `.xz` holds.
pub fn unpacked(path: &str) -> Option<Vec<u8>> {
    piped("xz", &["-dc"], &std::fs::read(vector(path)?).unwrap())
}

/// The same as a file in `directory`.
pub fn unpacked_to(path: &str, directory: &Path) -> Option<PathBuf> {
    let file = directory.join(Path::new(path).file_stem()?);
    std::fs::write(&file, unpacked(path)?).unwrap();
    Some(file)
}

/// The bytes that a tool writes when it is given these.
pub fn piped(program: &str, arguments: &[&str], input: &[u8]) -> Option<Vec<u8>> {
    let child = Command::new(program).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let Ok(mut child) = child else {
        skipped(&format!("there is no {program}"));
        return None;
    };
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.status.success(), "{program}");
    Some(output.stdout)
}

/// The digest of the SHA-2 family that coreutils compute.
pub fn sha(bits: u32, bytes: &[u8]) -> Vec<u8> {
    let text = piped(&format!("sha{bits}sum"), &[], bytes).unwrap();
    unhex(std::str::from_utf8(&text).unwrap().split(' ').next().unwrap())
}

/// Bytes in hex, read.
pub fn unhex(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}
