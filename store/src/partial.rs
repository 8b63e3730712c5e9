//! Blobs that arrive piece by piece: a file `HEX.part` beside the blob's place, locked by whoever writes it, kept when the
//! writer stops so that the next one goes on from there, and renamed only when its size and SHA-256 are right.

use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use spec::Sha256Digest;

use crate::atomic::sync_directory_of;
use crate::blob::{check, create_parent, hash_into};
use crate::error::StoreError;
use crate::lock::is_named;
use crate::place::Store;

/// What the names of partial blobs end in.
pub(crate) const PARTIAL_SUFFIX: &str = ".part";

/// What `Store::begin` found.
#[derive(Debug)]
pub enum Begin {
    /// The blob is there already, perhaps by another process that wrote it while this one waited. Not verified.
    Present,
    /// The blob is to be written, from `PartialBlob::length` on.
    Write(PartialBlob),
}

/// A blob that is being written. Dropped before `commit`, it stays as a partial file for the next attempt.
#[derive(Debug)]
pub struct PartialBlob {
    file: File,
    partial: PathBuf,
    blob: PathBuf,
    sha256: Sha256Digest,
    hasher: Sha256,
    length: u64,
}

impl Store {
    /// Starts, or goes on with, writing a blob. Waits while another process writes the same one.
    pub fn begin(&self, sha256: &Sha256Digest) -> Result<Begin, StoreError> {
        let blob = self.blob_path(sha256);
        create_parent(&blob)?;
        let partial = partial_path(&blob);
        loop {
            if self.has(sha256) {
                return Ok(Begin::Present);
            }
            let mut file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .open(&partial)
                .map_err(StoreError::io("creating", &partial))?;
            file.lock().map_err(StoreError::io("locking", &partial))?;
            // Whoever held the lock may have renamed or removed the file; then the lock is on the wrong one.
            if !is_named(&file, &partial) {
                continue;
            }
            let mut hasher = Sha256::new();
            let length = file
                .metadata()
                .and_then(|data| hash_into(&mut (&mut file).take(data.len()), &mut hasher))
                .map_err(StoreError::io("reading", &partial))?;
            return Ok(Begin::Write(PartialBlob { file, partial, blob, sha256: *sha256, hasher, length }));
        }
    }
}

impl PartialBlob {
    /// How many bytes are there already.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Adds bytes at the end.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.file.write_all(bytes).map_err(StoreError::io("writing", &self.partial))?;
        self.hasher.update(bytes);
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// Forgets the bytes that are there: the source cannot go on in the middle, or has changed.
    pub fn restart(&mut self) -> Result<(), StoreError> {
        self.file
            .set_len(0)
            .and_then(|()| self.file.seek(SeekFrom::Start(0)))
            .map_err(StoreError::io("writing", &self.partial))?;
        self.hasher = Sha256::new();
        self.length = 0;
        Ok(())
    }

    /// Verifies size and SHA-256 and gives the blob its name. On a mismatch the bytes are thrown away.
    pub fn commit(self, size: u64) -> Result<PathBuf, StoreError> {
        let found = Sha256Digest(self.hasher.clone().finalize().into());
        if let Err(error) = check(&self.blob, self.length, size, found, &self.sha256) {
            let _ = fs::remove_file(&self.partial);
            return Err(error);
        }
        self.file.sync_all().map_err(StoreError::io("writing", &self.partial))?;
        fs::rename(&self.partial, &self.blob).map_err(StoreError::io("writing", &self.blob))?;
        sync_directory_of(&self.blob)?;
        Ok(self.blob.clone())
    }
}

impl Drop for PartialBlob {
    fn drop(&mut self) {
        // Still locked here. An empty partial would only be clutter.
        if self.length == 0 && is_named(&self.file, &self.partial) {
            let _ = fs::remove_file(&self.partial);
        }
    }
}

fn partial_path(blob: &Path) -> PathBuf {
    let mut name = blob.as_os_str().to_owned();
    name.push(PARTIAL_SUFFIX);
    name.into()
}
