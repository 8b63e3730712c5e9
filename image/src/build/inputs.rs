//! Locked packages: taken from the store by digest, decoded in parallel, checked against what the lock calls them.

use rayon::prelude::*;
use spec::lock::{Package as Locked, Use};
use store::Store;

use super::{BuildError, BuildRequest, repacked};
use crate::content::Content;
use crate::deb::{self, EntryKind, Package};

/// The packages for each of `wanted`, in the order of the lock. One with several uses is decoded once.
pub(super) fn all<const N: usize>(
    request: &BuildRequest<'_>,
    wanted: [Use; N],
    store: &Store,
) -> Result<[Vec<Package>; N], BuildError> {
    let is_wanted = |locked: &&Locked| wanted.iter().any(|wanted| locked.uses.contains(wanted));
    let mut locked: Vec<(usize, &Locked)> = request.lock.package.iter().filter(is_wanted).enumerate().collect();
    // The largest first, so that the last thread to finish is not left with the longest work.
    locked.sort_by_key(|(index, package)| (std::cmp::Reverse(package.size), *index));
    let mut packages: Vec<(usize, &Locked, Package)> = locked
        .into_par_iter()
        .with_max_len(1)
        .map(|(index, locked)| Ok((index, locked, read_or_keep(request, locked, store)?)))
        .collect::<Result<_, BuildError>>()?;
    packages.sort_by_key(|(index, ..)| *index);
    Ok(wanted.map(|wanted| {
        let of_use = packages.iter().filter(|(_, locked, _)| locked.uses.contains(&wanted));
        // Clones share the content of files.
        of_use.map(|(.., package)| package.clone()).collect()
    }))
}

/// The package `name`, which the lock must have for `wanted`.
pub(super) fn one(request: &BuildRequest<'_>, wanted: Use, name: &str, store: &Store) -> Result<Package, BuildError> {
    let purpose = match wanted {
        Use::Tree => "the root file system",
        Use::Kernel => "the kernel",
        Use::Firmware => "firmware",
        Use::Stub => "the EFI stub",
    };
    let missing = || BuildError::NotLocked { package: name.to_owned(), purpose };
    let locked = request.lock.packages_for(wanted).find(|package| package.name == name).ok_or_else(missing)?;
    read_or_keep(request, locked, store)
}

/// Reads and decodes one package.
pub(crate) fn read(locked: &Locked, store: &Store) -> Result<Package, BuildError> {
    decoded(locked, store, deb::read)
}

/// The same, where the request allows it from what earlier builds kept, or for later ones.
fn read_or_keep(request: &BuildRequest<'_>, locked: &Locked, store: &Store) -> Result<Package, BuildError> {
    if !request.believe_cache {
        return read(locked, store);
    }
    let kept = repacked::kept(locked, store).map(|package| is_locked(package, locked));
    kept.and_then(Result::ok).map_or_else(|| decoded(locked, store, |deb| repacked::keep(deb, locked, store)), Ok)
}

fn decoded(
    locked: &Locked,
    store: &Store,
    decode: impl FnOnce(&[u8]) -> Result<Package, deb::DebError>,
) -> Result<Package, BuildError> {
    let named = || format!("{} {}", locked.name, locked.version);
    let bytes =
        store.read(&locked.sha256, locked.size).map_err(|source| BuildError::Store { package: named(), source })?;
    let package = decode(&bytes).map_err(|source| BuildError::Package { package: named(), source })?;
    is_locked(package, locked)
}

/// The package, if it is what the lock calls it.
fn is_locked(package: Package, locked: &Locked) -> Result<Package, BuildError> {
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
