//! Trees of tools in the cache, and how their programs are run: by the tree's own loader, so that the host's C library
//! does not matter.

use std::ffi::OsString;
use std::path::Path;

use image::UnpackedTree;
use launcher::QemuProgram;
use spec::Outcome;
use spec::Sha256Digest;
use spec::recipe::Recipe;
use store::{Store, TreeHold};

use crate::args::QemuChoice;
use crate::failure::Failure;
use crate::inputs::{self, LoadedLock};

/// The loader inside a tree (x86-64 ABI, PT_INTERP of Debian's programs).
pub(crate) const LOADER: &str = "usr/lib64/ld-linux-x86-64.so.2";

/// The tree of a lock, unpacked into the cache first where it is not there.
pub(crate) fn unpacked(recipe: &Recipe, lock: &LoadedLock, store: &Store) -> Result<UnpackedTree, Failure> {
    let jobs = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    Ok(image::unpack_tree(recipe, &lock.lock, &Sha256Digest::of(lock.text.as_bytes()), store, jobs)?)
}

/// Where the loader looks for libraries.
pub(crate) fn library_path(root: &Path) -> OsString {
    let mut path = root.join("usr/lib/x86_64-linux-gnu").into_os_string();
    for more in ["usr/lib/x86_64-linux-gnu/systemd", "usr/lib/x86_64-linux-gnu/swtpm", "usr/lib"] {
        path.push(":");
        path.push(root.join(more));
    }
    path
}

/// SHA-256 of the lock of the QEMU to run; `None` where it is named by its path.
pub(crate) fn qemu_lock(choice: &QemuChoice) -> Result<Option<Sha256Digest>, Failure> {
    if choice.qemu.is_some() {
        return Ok(None);
    }
    let (_, lock) = qemu_recipe(choice.vmm.as_deref())?;
    Ok(Some(Sha256Digest::of(lock.text.as_bytes())))
}

/// The recipe at `vmm` and its lock, else the pinned ones.
fn qemu_recipe(vmm: Option<&Path>) -> Result<(Recipe, LoadedLock), Failure> {
    let Some(path) = vmm else { return inputs::pinned_vmm() };
    let loaded = inputs::recipe(path)?;
    let lock = inputs::lock(&inputs::lock_path(path), path, &loaded.recipe)?;
    Ok((loaded.recipe, lock))
}

/// The QEMU that would be run, as it lies there, and what keeps it in the cache meanwhile: it is not compared with its index, so this
/// is for what is remembered of it, not for running it. `None` where nobody knows without looking closer.
pub(crate) fn qemu_as_it_lies(choice: &QemuChoice, store: &Store) -> Option<(Option<TreeHold>, QemuProgram)> {
    if let Some(path) = &choice.qemu {
        return Some((None, QemuProgram::at(path).ok()?));
    }
    if choice.vmm.is_some() {
        return None;
    }
    let hold = store.hold_tree(&inputs::pinned_vmm_lock_sha256()).ok()??;
    let program = QemuProgram::from_tree(&hold.path().join(image::unpack::ROOT)).ok()?;
    Some((Some(hold), program))
}

/// The QEMU to run, and what keeps it in the cache meanwhile.
pub(crate) fn qemu(choice: &QemuChoice, store: &Store) -> Result<(Option<UnpackedTree>, QemuProgram), Failure> {
    if let Some(path) = &choice.qemu {
        return Ok((None, QemuProgram::at(path)?));
    }
    // What is there already needs nothing of its lock but the digest.
    let there = if choice.vmm.is_none() { image::open_tree(&inputs::pinned_vmm_lock_sha256(), store)? } else { None };
    let tree = match there {
        Some(tree) => {
            tree.verify_quick()?;
            tree
        }
        None => unpacked_qemu(choice, store)?,
    };
    let program = QemuProgram::from_tree(&tree.root())?;
    Ok((Some(tree), program))
}

fn unpacked_qemu(choice: &QemuChoice, store: &Store) -> Result<UnpackedTree, Failure> {
    let (recipe, lock) = qemu_recipe(choice.vmm.as_deref())?;
    let missing = lock.lock.package.iter().any(|package| !store.has(&package.sha256));
    unpacked(&recipe, &lock, store).map_err(|failure| match failure.outcome {
        Outcome::InputMismatch if missing => {
            failure.with_hint("fetch the pinned QEMU with: bullion fetch --vmm, or name another with --qemu PATH")
        }
        _ => failure,
    })
}

/// The QEMUs of other trees in the cache, and what keeps them there meanwhile. Trees that were tampered with are passed over.
pub(crate) fn cached_qemus(store: &Store, but: &QemuProgram) -> Result<Vec<(UnpackedTree, QemuProgram)>, Failure> {
    let trees = store.entries()?.into_iter().filter(|entry| entry.kind == store::Kind::Tree);
    let mut found = Vec::new();
    for lock in trees.filter_map(|entry| entry.sha256) {
        let Ok(Some(tree)) = image::open_tree(&lock, store) else { continue };
        let Ok(program) = QemuProgram::from_tree(&tree.root()) else { continue };
        if program != *but && tree.verify_quick().is_ok() {
            found.push((tree, program));
        }
    }
    Ok(found)
}
