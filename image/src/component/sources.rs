//! The directory that becomes `/build`: script, sources and crates, written once from what was hashed, so that nothing
//! that changes meanwhile gets in.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::path::{Component as Part, Path};

use flate2::read::GzDecoder;
use spec::Sha256Digest;
use spec::component::NamedInput;
use spec::recipe::{ComponentRecipe, SourceFile};
use store::Store;

use super::ComponentError;
use super::workspace;

/// More than any crate unpacks to.
const MAX_CRATE_BYTES: u64 = 256 << 20;

/// Tells Cargo that the crates are in `/build/vendor`, and that there is nowhere else.
const CARGO_CONFIG: &str = "\
[source.crates-io]
replace-with = \"vendored\"
[source.vendored]
directory = \"/build/vendor\"
[net]
offline = true
";

/// Sources in memory, by their path below `/build`, and the crates that go with them.
#[derive(Debug, Default)]
pub(super) struct Sources {
    pub(super) files: BTreeMap<String, Vec<u8>>,
    pub(super) crates: Vec<NamedInput>,
    published: Vec<SourceFile>,
}

impl Sources {
    /// Reads what a component names; `beside` is the directory of its recipe.
    pub(super) fn read(component: &ComponentRecipe, beside: &Path) -> Result<Self, ComponentError> {
        let mut sources = Self { published: component.sources.clone(), ..Self::default() };
        for path in &component.files {
            sources.add(&beside.join(path), path)?;
        }
        if let Some(cargo) = &component.cargo {
            let directory = beside.join(&cargo.workspace);
            let reduced = workspace::reduce(&directory, &cargo.package)?;
            for (path, text) in reduced.manifests {
                sources.files.insert(format!("src/{path}"), text.into_bytes());
            }
            for member in &reduced.members {
                sources.add(&directory.join(member).join("src"), &format!("src/{member}/src"))?;
                let script = directory.join(member).join("build.rs");
                if script.exists() {
                    sources.add(&script, &format!("src/{member}/build.rs"))?;
                }
            }
            sources.files.insert("cargo/config.toml".to_owned(), CARGO_CONFIG.as_bytes().to_vec());
            sources.crates = reduced.crates;
        }
        Ok(sources)
    }

    fn add(&mut self, path: &Path, name: &str) -> Result<(), ComponentError> {
        let found = fs::symlink_metadata(path).map_err(ComponentError::io("reading", path))?;
        if found.is_file() {
            let bytes = fs::read(path).map_err(ComponentError::io("reading", path))?;
            self.files.insert(name.to_owned(), bytes);
            return Ok(());
        }
        if !found.is_dir() {
            return Err(ComponentError::Odd(path.to_owned()));
        }
        for entry in fs::read_dir(path).map_err(ComponentError::io("listing", path))? {
            let entry = entry.map_err(ComponentError::io("listing", path))?;
            let child = entry.file_name();
            let plain = child.to_str().filter(|child| !child.contains(char::is_control));
            let child = plain.ok_or_else(|| ComponentError::Name(entry.path()))?;
            self.add(&entry.path(), &format!("{name}/{child}"))?;
        }
        Ok(())
    }

    pub(super) fn digests(&self) -> BTreeMap<String, Sha256Digest> {
        self.files.iter().map(|(path, bytes)| (path.clone(), Sha256Digest::of(bytes))).collect()
    }

    /// Writes everything below `directory`.
    pub(super) fn write(&self, directory: &Path, store: &Store) -> Result<(), ComponentError> {
        for (path, bytes) in &self.files {
            write(&directory.join(path), bytes)?;
        }
        for one in &self.published {
            copy_published(one, &directory.join(one.name()), store)?;
        }
        for one in &self.crates {
            let bytes = read_crate(one, store)?;
            unpack_crate(one, &bytes, &directory.join("vendor"))?;
        }
        Ok(())
    }
}

/// A crate's file from the cache, checked.
pub(super) fn read_crate(one: &NamedInput, store: &Store) -> Result<Vec<u8>, ComponentError> {
    let missing = || ComponentError::NoCrate { name: one.name.clone(), version: one.version.clone() };
    // `Cargo.lock` has no sizes: the digest alone decides.
    let size = fs::metadata(store.blob_path(&one.sha256)).map_err(|_| missing())?.len();
    Ok(store.read(&one.sha256, size)?)
}

/// Copies a published file out of the cache. It may be large: it is the copy that is held against the digest.
fn copy_published(one: &SourceFile, to: &Path, store: &Store) -> Result<(), ComponentError> {
    let from = store.blob_path(&one.sha256);
    fs::copy(&from, to).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => ComponentError::NoSource(Box::new(one.clone())),
        _ => ComponentError::io("copying", &from)(error),
    })?;
    match store::hash_file(to).map_err(ComponentError::io("reading", to))? {
        (size, sha256) if (size, sha256) == (one.size, one.sha256) => Ok(()),
        (size, sha256) => Err(ComponentError::BadSource { expected: Box::new(one.clone()), path: from, size, sha256 }),
    }
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), ComponentError> {
    let parent = path.parent().unwrap_or(path);
    fs::create_dir_all(parent).map_err(ComponentError::io("creating", parent))?;
    fs::write(path, bytes).map_err(ComponentError::io("writing", path))
}

/// Unpacks a `.crate` file as `cargo vendor` does: `NAME-VERSION/`, with the checksum that Cargo compares with `Cargo.lock`.
fn unpack_crate(one: &NamedInput, bytes: &[u8], vendor: &Path) -> Result<(), ComponentError> {
    let name = format!("{}-{}", one.name, one.version);
    let bad = |reason: &str| ComponentError::BadCrate { name: name.clone(), reason: reason.to_owned() };
    let unreadable = |error: std::io::Error| bad(&error.to_string());
    let mut archive = tar::Archive::new(GzDecoder::new(bytes).take(MAX_CRATE_BYTES));
    for entry in archive.entries().map_err(unreadable)? {
        let mut entry = entry.map_err(unreadable)?;
        let path = entry.path().map_err(unreadable)?.into_owned();
        let inside = path.starts_with(&name) && path.components().all(|part| matches!(part, Part::Normal(_)));
        if !inside {
            return Err(bad("a file of it would lie outside its directory"));
        }
        match entry.header().entry_type() {
            kind if kind.is_dir() => {}
            kind if kind.is_file() => {
                let mut content = Vec::new();
                entry.read_to_end(&mut content).map_err(unreadable)?;
                write(&vendor.join(&path), &content)?;
            }
            _ => return Err(bad("it holds something that is neither a file nor a directory")),
        }
    }
    let checksum = format!("{{\"files\":{{}},\"package\":\"{}\"}}", one.sha256);
    write(&vendor.join(&name).join(".cargo-checksum.json"), checksum.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(entries: &[(&str, tar::EntryType)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()));
        for (path, kind) in entries {
            let mut header = tar::Header::new_ustar();
            header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
            header.set_entry_type(*kind);
            header.set_size(0);
            header.set_mode(0o644);
            header.set_cksum();
            builder.append(&header, std::io::empty()).unwrap();
        }
        builder.into_inner().unwrap().finish().unwrap()
    }

    fn one() -> NamedInput {
        NamedInput { name: "x".to_owned(), version: "1.0.0".to_owned(), sha256: Sha256Digest([1; 32]) }
    }

    #[test]
    fn a_crate_stays_in_its_directory() {
        let vendor = tempfile::tempdir().unwrap();
        let regular = tar::EntryType::Regular;
        unpack_crate(&one(), &packed(&[("x-1.0.0/src/lib.rs", regular)]), vendor.path()).unwrap();
        assert!(vendor.path().join("x-1.0.0/src/lib.rs").is_file());
        let checksum = fs::read_to_string(vendor.path().join("x-1.0.0/.cargo-checksum.json")).unwrap();
        assert!(checksum.contains(&"01".repeat(32)));
        for (path, kind) in [
            ("../x", regular),
            ("/x", regular),
            ("x-1.0.0/../../x", regular),
            ("y-1.0.0/x", regular),
            ("x-1.0.0/link", tar::EntryType::Symlink),
        ] {
            assert!(unpack_crate(&one(), &packed(&[(path, kind)]), vendor.path()).is_err(), "{path}");
        }
        assert!(unpack_crate(&one(), b"not a crate", vendor.path()).is_err());
    }

    #[test]
    fn a_published_file_is_what_its_digest_says_or_refused() {
        let place = tempfile::tempdir().unwrap();
        let store = Store::open(&place.path().join("cache")).unwrap();
        let url = "https://example.org/a/driver.run".to_owned();
        let (size, sha256) = (6, Sha256Digest::of(b"driver"));
        let sources = |size| Sources {
            published: vec![SourceFile { url: url.clone(), size, sha256, licence: "MIT".to_owned() }],
            ..Sources::default()
        };
        let error = sources(size).write(place.path(), &store).unwrap_err();
        assert!(error.to_string().starts_with("driver.run of https://example.org/a/driver.run is not in the cache"));
        store.insert_bytes(b"driver").unwrap();
        sources(size).write(place.path(), &store).unwrap();
        assert_eq!(fs::read(place.path().join("driver.run")).unwrap(), b"driver");
        assert!(matches!(sources(7).write(place.path(), &store), Err(ComponentError::BadSource { size: 6, .. })));
        fs::write(store.blob_path(&sha256), b"drover").unwrap();
        assert!(matches!(sources(size).write(place.path(), &store), Err(ComponentError::BadSource { .. })));
    }

    #[test]
    fn links_among_the_sources_are_refused() {
        let beside = tempfile::tempdir().unwrap();
        fs::create_dir(beside.path().join("d")).unwrap();
        fs::write(beside.path().join("d/a"), "a").unwrap();
        let mut sources = Sources::default();
        sources.add(&beside.path().join("d"), "d").unwrap();
        assert_eq!(sources.files.keys().collect::<Vec<_>>(), ["d/a"]);
        std::os::unix::fs::symlink("/etc/passwd", beside.path().join("d/b")).unwrap();
        assert!(matches!(sources.add(&beside.path().join("d"), "d"), Err(ComponentError::Odd(_))));
    }
}
