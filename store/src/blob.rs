//! Whole blobs: reading them checked, adding them.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use sha2::{Digest as _, Sha256};
use spec::Sha256Digest;

use crate::atomic::write_atomically;
use crate::error::StoreError;
use crate::partial::Begin;
use crate::place::Store;
use crate::regular::{each_piece, hash_file, open_regular};

impl Store {
    /// Whether a blob is there. Its content is checked when it is read.
    pub fn has(&self, sha256: &Sha256Digest) -> bool {
        self.blob_path(sha256).is_file()
    }

    /// The content of a blob, after its size and its SHA-256 have been checked.
    pub fn read(&self, sha256: &Sha256Digest, size: u64) -> Result<Vec<u8>, StoreError> {
        let (path, mut file) = self.open_blob(sha256, size)?;
        let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
        file.read_to_end(&mut bytes).map_err(StoreError::io("reading", &path))?;
        check(&path, bytes.len() as u64, size, Sha256Digest::of(&bytes), sha256)?;
        Ok(bytes)
    }

    /// Checks the size and the SHA-256 of a blob without holding it in memory; returns its path.
    pub fn verify(&self, sha256: &Sha256Digest, size: u64) -> Result<PathBuf, StoreError> {
        let (path, mut file) = self.open_blob(sha256, size)?;
        let (found, length) = digest_of(&mut file).map_err(StoreError::io("reading", &path))?;
        check(&path, length, size, found, sha256)?;
        Ok(path)
    }

    /// Adds bytes to the cache; returns their digest.
    pub fn insert_bytes(&self, bytes: &[u8]) -> Result<Sha256Digest, StoreError> {
        let sha256 = Sha256Digest::of(bytes);
        // What is there already may be damaged, so it is not enough that it is there.
        if self.verify(&sha256, bytes.len() as u64).is_err() {
            let path = self.blob_path(&sha256);
            create_parent(&path)?;
            write_atomically(&path, bytes)?;
        }
        Ok(sha256)
    }

    /// Adds a file to the cache, piece by piece; returns its size and digest.
    pub fn insert_file(&self, path: &Path) -> Result<(u64, Sha256Digest), StoreError> {
        let (size, sha256) = hash_file(path).map_err(StoreError::io("reading", path))?;
        if self.verify(&sha256, size).is_ok() {
            return Ok((size, sha256));
        }
        self.discard(&sha256)?;
        if let Begin::Write(mut blob) = self.begin(&sha256)? {
            blob.restart()?;
            let file = open_regular(path).map_err(StoreError::io("opening", path))?;
            let mut kept = Ok(());
            // One byte more tells a file that has grown.
            each_piece(file.take(size.saturating_add(1)), |piece| {
                if kept.is_ok() {
                    kept = blob.append(piece);
                }
            })
            .map_err(StoreError::io("reading", path))?;
            kept?;
            // A file that changed meanwhile is another one.
            blob.commit(size)?;
        }
        Ok((size, sha256))
    }

    /// Removes a blob, such as one that turned out to be damaged. It is no error if it is not there.
    pub fn discard(&self, sha256: &Sha256Digest) -> Result<(), StoreError> {
        let path = self.blob_path(sha256);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(StoreError::io("removing", &path)(error)),
            _ => Ok(()),
        }
    }

    /// Opens a blob and compares its size, which costs nothing, before anyone hashes it.
    fn open_blob(&self, sha256: &Sha256Digest, size: u64) -> Result<(PathBuf, File), StoreError> {
        let path = self.blob_path(sha256);
        let file = File::open(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => StoreError::Missing { sha256: *sha256, path: path.clone() },
            _ => StoreError::io("opening", &path)(error),
        })?;
        let found = file.metadata().map_err(StoreError::io("reading", &path))?.len();
        if found != size {
            return Err(StoreError::Size { path, expected: size, found });
        }
        mark_used(&file);
        Ok((path, file))
    }
}

/// Compares what a file holds with what it should hold.
pub(crate) fn check(
    path: &Path,
    length: u64,
    size: u64,
    found: Sha256Digest,
    expected: &Sha256Digest,
) -> Result<(), StoreError> {
    if length != size {
        return Err(StoreError::Size { path: path.to_owned(), expected: size, found: length });
    }
    if found != *expected {
        return Err(StoreError::Digest { path: path.to_owned(), expected: *expected, found });
    }
    Ok(())
}

/// The digest and the length of what is left to read.
fn digest_of(file: &mut File) -> io::Result<(Sha256Digest, u64)> {
    let mut hasher = Sha256::new();
    let length = hash_into(file, &mut hasher)?;
    Ok((Sha256Digest(hasher.finalize().into()), length))
}

/// Feeds what is left to read into a hasher; returns its length.
pub(crate) fn hash_into(file: &mut impl Read, hasher: &mut Sha256) -> io::Result<u64> {
    let mut buffer = vec![0; 256 << 10];
    let mut length = 0;
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(length),
            read => {
                hasher.update(buffer.get(..read).unwrap_or_default());
                length += read as u64;
            }
        }
    }
}

/// Makes the modification time say when the entry was last used. A cache that cannot be written can still be read.
pub(crate) fn mark_used(file: &File) {
    let _ = file.set_modified(SystemTime::now());
}

/// Creates the directory that will hold `path`.
pub(crate) fn create_parent(path: &Path) -> Result<(), StoreError> {
    path.parent().map_or(Ok(()), |parent| fs::create_dir_all(parent).map_err(StoreError::io("creating", parent)))
}
