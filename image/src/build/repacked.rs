//! Packages that an earlier build packed anew, kept in the cache: unpacking xz is most of the work of a build.
//!
//! Which kept package stands for which locked one is a note that is believed, like that of a component's result, so images
//! of class release are never made of kept packages: `BuildRequest::believe_cache` is false for them. What a note names is held
//! against its digest, and read as strictly as any package; where anything is wrong with it, the locked package is unpacked.

use spec::lock::Package as Locked;
use store::Store;

use crate::deb::{self, Package};
use crate::kept;

/// Of packages that are smaller, little is gained.
const SMALLEST: u64 = 100_000;
/// Raised when what is kept changes its form.
const FORM: u32 = 1;

/// The package as an earlier build kept it.
pub(super) fn kept(locked: &Locked, store: &Store) -> Option<Package> {
    if locked.size < SMALLEST {
        return None;
    }
    deb::read(&kept::find(store, &name(locked))?).ok()
}

/// Decodes the locked package `bytes`, and keeps it for the next build.
pub(super) fn keep(bytes: &[u8], locked: &Locked, store: &Store) -> Result<Package, deb::DebError> {
    if locked.size < SMALLEST {
        return deb::read(bytes);
    }
    let (package, repacked) = deb::read_and_repack(bytes)?;
    kept::keep(store, &name(locked), &repacked);
    Ok(package)
}

fn name(locked: &Locked) -> String {
    format!("repacked-{FORM}-{}", locked.sha256)
}
