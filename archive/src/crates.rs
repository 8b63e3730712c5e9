//! Crates that components are compiled from: the `.crate` files that `Cargo.lock` names by SHA-256.
//!
//! They are taken from where Cargo on this host keeps those that it has downloaded, or from a registry's download address
//! that the caller names. Either way the digest decides, so neither is trusted.

use std::fs;
use std::path::{Path, PathBuf};

use spec::component::NamedInput;
use spec::{Diagnostic, Outcome, Sha256Digest};
use store::{Store, StoreError};

use crate::mirror::{Mirror, MirrorError};
use crate::transport::TransportError;

/// The environment variable that names a registry's download address.
pub const CRATES_VARIABLE: &str = "BULLION_CRATES";

/// More than any registry accepts for one crate.
const MAX_BYTES: u64 = 64 << 20;

/// Crates that cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum CratesError {
    /// Neither Cargo nor the registry has them.
    #[error("{} crates are not among those that Cargo has downloaded: {}", .0.len(), .0.join(", "))]
    Absent(Vec<String>),
    /// The registry serves something else.
    #[error("the registry's copy of the crate {name} has SHA-256 {found}, Cargo.lock says {expected}")]
    Mismatch {
        /// Name and version.
        name: String,
        /// The digest in `Cargo.lock`.
        expected: Sha256Digest,
        /// The digest of what was served.
        found: Sha256Digest,
    },
    /// The registry's address.
    #[error("{CRATES_VARIABLE} names no registry that can be asked")]
    Address(#[from] MirrorError),
    /// The registry cannot be read.
    #[error("fetching the crate {name}")]
    Transport {
        /// Name and version.
        name: String,
        /// Why.
        source: TransportError,
    },
    /// The cache.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Diagnostic for CratesError {
    fn outcome(&self) -> Outcome {
        match self {
            Self::Absent(_) | Self::Mismatch { .. } => Outcome::InputMismatch,
            Self::Address(error) => error.outcome(),
            Self::Transport { source, .. } => source.outcome(),
            Self::Store(error) => error.outcome(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Absent(_) | Self::Address(_) | Self::Transport { .. } => Some(format!(
                "run `cargo fetch --locked` in the workspace, or name the download address of a registry with {CRATES_VARIABLE}=URL (crates are below it as NAME/NAME-VERSION.crate)"
            )),
            Self::Store(error) => error.hint(),
            Self::Mismatch { .. } => None,
        }
    }
}

/// Brings crates into the cache; returns how many were not there, and their bytes.
pub fn fetch_crates(wanted: &[NamedInput], store: &Store) -> Result<(usize, u64), CratesError> {
    let registry = std::env::var(CRATES_VARIABLE).ok().filter(|address| !address.is_empty());
    let registry = registry.map(|address| Mirror::new(&address)).transpose()?;
    fetch_from(wanted, &downloads(cargo_home().as_deref()), registry.as_ref(), store)
}

fn fetch_from(
    wanted: &[NamedInput],
    downloads: &[PathBuf],
    registry: Option<&Mirror>,
    store: &Store,
) -> Result<(usize, u64), CratesError> {
    let (mut fetched, mut bytes) = (0, 0);
    let mut absent = Vec::new();
    for one in wanted.iter().filter(|one| !has_crate(one, store)) {
        let content = match downloaded(one, downloads) {
            Some(content) => content,
            None => match registry {
                Some(registry) => from_registry(one, registry)?,
                None => {
                    absent.push(format!("{} {}", one.name, one.version));
                    continue;
                }
            },
        };
        bytes += content.len() as u64;
        fetched += 1;
        store.insert_bytes(&content)?;
    }
    if absent.is_empty() { Ok((fetched, bytes)) } else { Err(CratesError::Absent(absent)) }
}

/// Whether a store has a crate, whole.
pub fn has_crate(one: &NamedInput, store: &Store) -> bool {
    let size = fs::metadata(store.blob_path(&one.sha256)).map(|found| found.len());
    size.is_ok_and(|size| store.verify(&one.sha256, size).is_ok())
}

fn cargo_home() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("CARGO_HOME").or_else(|| Some(set("HOME")?.join(".cargo")))
}

/// The directories that Cargo keeps downloads in, one for each registry.
fn downloads(cargo_home: Option<&Path>) -> Vec<PathBuf> {
    let Some(listed) = cargo_home.and_then(|home| fs::read_dir(home.join("registry/cache")).ok()) else {
        return Vec::new();
    };
    let mut directories: Vec<PathBuf> = listed.filter_map(|entry| Some(entry.ok()?.path())).collect();
    directories.sort();
    directories
}

/// A crate that Cargo has, if its digest is the wanted one.
fn downloaded(one: &NamedInput, downloads: &[PathBuf]) -> Option<Vec<u8>> {
    let name = format!("{}-{}.crate", one.name, one.version);
    let files = downloads.iter().filter_map(|directory| fs::read(directory.join(&name)).ok());
    files.into_iter().find(|content| Sha256Digest::of(content) == one.sha256)
}

fn from_registry(one: &NamedInput, registry: &Mirror) -> Result<Vec<u8>, CratesError> {
    let NamedInput { name, version, sha256 } = one;
    let named = || format!("{name} {version}");
    let content = registry
        .get(&format!("{name}/{name}-{version}.crate"), MAX_BYTES)
        .map_err(|source| CratesError::Transport { name: named(), source })?;
    let found = Sha256Digest::of(&content);
    if found != *sha256 {
        return Err(CratesError::Mismatch { name: named(), expected: *sha256, found });
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(content: &[u8]) -> NamedInput {
        NamedInput { name: "x".to_owned(), version: "1.0.0".to_owned(), sha256: Sha256Digest::of(content) }
    }

    #[test]
    fn a_crate_comes_from_cargo_or_the_registry_and_only_as_it_is_locked() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let store = Store::open(&path("cache")).unwrap();
        for (name, content) in [("home/registry/cache/a/x-1.0.0.crate", "wrong"), ("crates/x/x-1.0.0.crate", "right")] {
            fs::create_dir_all(path(name).parent().unwrap()).unwrap();
            fs::write(path(name), content).unwrap();
        }
        let here = downloads(Some(&path("home")));
        let wanted = [one(b"right")];
        let absent = fetch_from(&wanted, &here, None, &store).unwrap_err();
        assert!(absent.to_string().contains("x 1.0.0"), "{absent}");
        let registry = Mirror::new(&format!("file://{}", path("crates").display())).unwrap();
        assert_eq!(fetch_from(&wanted, &here, Some(&registry), &store).unwrap(), (1, 5));
        assert_eq!(fetch_from(&wanted, &here, None, &store).unwrap(), (0, 0), "it is in the cache now");
        let other = fetch_from(&[one(b"other")], &here, Some(&registry), &store).unwrap_err();
        assert!(matches!(other, CratesError::Mismatch { .. }), "{other}");
        fs::write(path("home/registry/cache/a/x-1.0.0.crate"), "other").unwrap();
        assert_eq!(fetch_from(&[one(b"other")], &here, None, &store).unwrap(), (1, 5));
    }
}
