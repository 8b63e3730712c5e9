//! Indexes that an earlier build made of the same modules: reading a whole kernel's modules takes longer than all else that a
//! build does when its packages were kept unpacked.
//!
//! As with those, what was kept is believed, so images of class release are made without it.

use std::io::Read as _;

use spec::Sha256Digest;
use store::Store;

use super::{BUILTIN, BUILTIN_MODINFO, Files, Inputs, ORDER};
use crate::kept;
use crate::tree::Tree;

/// The indexes that `cache` has for these inputs; otherwise those that `make` makes, which it then has.
pub(super) fn or_made<E>(
    cache: Option<&Store>,
    tree: &Tree,
    directory: &str,
    inputs: &Inputs<'_>,
    make: impl FnOnce() -> Result<Files, E>,
) -> Result<Files, E> {
    let Some(store) = cache else { return make() };
    let name = name(tree, directory, inputs);
    if let Some(files) = kept::find(store, &name).and_then(|bytes| unpack(&bytes)) {
        return Ok(files);
    }
    let files = make()?;
    if let Ok(bytes) = pack(&files) {
        kept::keep(store, &name, &bytes);
    }
    Ok(files)
}

/// Made of everything that decides about the indexes: the writers, what the kernel's build says, and every module.
fn name(tree: &Tree, directory: &str, inputs: &Inputs<'_>) -> String {
    let mut parts = format!("{}\n{directory}\n", env!("CARGO_PKG_VERSION"));
    for name in [ORDER, BUILTIN, BUILTIN_MODINFO] {
        let digest = tree.file(&format!("{directory}/{name}")).map(Sha256Digest::of);
        parts += &format!("{name} {digest:?}\n");
    }
    for (path, content) in inputs {
        parts += &format!("{} {path}\n", Sha256Digest::of(content.bytes()));
    }
    format!("modules-{}-{}", crate::FORMAT_EPOCH, Sha256Digest::of(parts.as_bytes()))
}

fn pack(files: &Files) -> std::io::Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, name, content.as_slice())?;
    }
    archive.into_inner()
}

fn unpack(bytes: &[u8]) -> Option<Files> {
    let mut files = Files::new();
    for entry in tar::Archive::new(bytes).entries().ok()? {
        let mut entry = entry.ok()?;
        let name = entry.path().ok()?.to_str()?.to_owned();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).ok()?;
        files.push((name, content));
    }
    Some(files)
}
