//! Locked packages: taken from the store by digest, decoded in parallel, checked against what the lock calls them.

use rayon::prelude::*;
use spec::lock::{Lock, Package as Locked, Use};
use store::Store;

use super::BuildError;
use crate::content::Content;
use crate::deb::{self, EntryKind, Package};

/// The packages for `wanted`, in the order of the lock.
pub(super) fn all(lock: &Lock, wanted: Use, store: &Store) -> Result<Vec<Package>, BuildError> {
    let mut locked: Vec<(usize, &Locked)> = lock.packages_for(wanted).enumerate().collect();
    // The largest first, so that the last thread to finish is not left with the longest work.
    locked.sort_by_key(|(index, package)| (std::cmp::Reverse(package.size), *index));
    let mut packages: Vec<(usize, Package)> = locked
        .into_par_iter()
        .with_max_len(1)
        .map(|(index, locked)| Ok((index, read(locked, store)?)))
        .collect::<Result<_, BuildError>>()?;
    packages.sort_by_key(|(index, _)| *index);
    Ok(packages.into_iter().map(|(_, package)| package).collect())
}

/// The package `name`, which the lock must have for `wanted`.
pub(super) fn one(lock: &Lock, wanted: Use, name: &str, store: &Store) -> Result<Package, BuildError> {
    let purpose = match wanted {
        Use::Tree => "the root file system",
        Use::Kernel => "the kernel",
        Use::Firmware => "firmware",
        Use::Stub => "the EFI stub",
    };
    let missing = || BuildError::NotLocked { package: name.to_owned(), purpose };
    read(lock.packages_for(wanted).find(|package| package.name == name).ok_or_else(missing)?, store)
}

/// Reads and decodes one package.
pub(crate) fn read(locked: &Locked, store: &Store) -> Result<Package, BuildError> {
    let named = format!("{} {}", locked.name, locked.version);
    let bytes = store
        .read(&locked.sha256, locked.size)
        .map_err(|source| BuildError::Store { package: named.clone(), source })?;
    let package = deb::read(&bytes).map_err(|source| BuildError::Package { package: named, source })?;
    let expected = (&locked.name, &locked.version, &locked.architecture);
    let found = (&package.name, &package.version, &package.architecture);
    if expected != found {
        let show = |(name, version, architecture)| format!("{name} {version} for {architecture}");
        return Err(BuildError::OtherPackage { expected: show(expected), found: show(found) });
    }
    Ok(package)
}

/// The regular file at the absolute path `path` of a package.
pub(super) fn file<'a>(package: &'a Package, path: &str) -> Result<&'a Content, BuildError> {
    let wanted = path.trim_start_matches('/');
    let content = package.entries.iter().find(|entry| entry.path == wanted).and_then(|entry| match &entry.kind {
        EntryKind::File(content) => Some(content),
        _ => None,
    });
    content.ok_or_else(|| BuildError::NoFile {
        package: format!("{} {}", package.name, package.version),
        path: path.to_owned(),
    })
}
