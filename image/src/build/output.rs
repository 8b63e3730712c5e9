//! Writing artifacts into the staging directory: mode 0644 whatever the umask, synced, hashed on the way.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Seek as _, SeekFrom, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use spec::Sha256Digest;
use spec::manifest::Artifact;

use super::BuildError;
use crate::disk::Sink;

/// The staging directory as a place for artifacts.
pub(crate) struct Output {
    directory: PathBuf,
}

/// An artifact that is being written, from front to back.
pub(super) struct ArtifactFile {
    file: File,
    path: PathBuf,
    hasher: Sha256,
    size: u64,
}

impl Output {
    pub(crate) fn new(directory: &Path) -> Self {
        Self { directory: directory.to_owned() }
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    pub(super) fn create(&self, name: &str) -> Result<ArtifactFile, BuildError> {
        let path = self.path(name);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)
            .map_err(BuildError::io("creating", &path))?;
        file.set_permissions(Permissions::from_mode(0o644)).map_err(BuildError::io("creating", &path))?;
        Ok(ArtifactFile { file, path, hasher: Sha256::new(), size: 0 })
    }

    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> Result<Artifact, BuildError> {
        let mut file = self.create(name)?;
        file.write_all(bytes).map_err(BuildError::io("writing", &self.path(name)))?;
        file.finish()
    }
}

impl ArtifactFile {
    /// The open file, for reading back what was written.
    pub(super) fn file(&self) -> &File {
        &self.file
    }

    pub(super) fn finish(self) -> Result<Artifact, BuildError> {
        self.file.sync_all().map_err(BuildError::io("writing", &self.path))?;
        Ok(Artifact { size: self.size, sha256: Sha256Digest(self.hasher.finalize().into()) })
    }
}

impl Sink for ArtifactFile {
    fn write_zeros(&mut self, count: u64) -> io::Result<()> {
        static ZEROS: [u8; 1 << 16] = [0; 1 << 16];
        let mut left = count;
        while left > 0 {
            let some = usize::try_from(left).unwrap_or(usize::MAX).min(ZEROS.len());
            self.hasher.update(ZEROS.get(..some).unwrap_or_default());
            left -= some as u64;
        }
        // Beyond the end of the file this makes a hole, once something is written behind it.
        self.file.seek(SeekFrom::Current(i64::try_from(count).map_err(io::Error::other)?))?;
        self.size += count;
        Ok(())
    }
}

impl Write for ArtifactFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hasher.update(bytes.get(..written).unwrap_or_default());
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
