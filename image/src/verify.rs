//! Checking an image directory against its manifest: every artifact by size and SHA-256, in parallel.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use rayon::prelude::*;
use sha2::{Digest as _, Sha256};
use spec::manifest::{Artifact, Manifest};
use spec::{Diagnostic, Outcome, Sha256Digest};

/// An image directory that is not what its manifest says.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// An artifact cannot be read.
    #[error("reading {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// An artifact has another size.
    #[error("{} has {found} bytes, the manifest expects {expected}", path.display())]
    Size {
        /// The file.
        path: PathBuf,
        /// What the manifest says.
        expected: u64,
        /// What the file has.
        found: u64,
    },
    /// An artifact has other content.
    #[error("{} has SHA-256 {found}, the manifest expects {expected}", path.display())]
    Digest {
        /// The file.
        path: PathBuf,
        /// What the manifest says.
        expected: Sha256Digest,
        /// What the file has.
        found: Sha256Digest,
    },
}

impl Diagnostic for VerifyError {
    fn outcome(&self) -> Outcome {
        Outcome::InputMismatch
    }
    fn hint(&self) -> Option<String> {
        Some("the image was changed after it was built: build it again".to_owned())
    }
}

/// Hashes every artifact that the manifest names. Of several mismatches, the first by name is reported.
pub fn verify_image(directory: &Path, manifest: &Manifest) -> Result<(), VerifyError> {
    let checks: Vec<Result<(), VerifyError>> = manifest
        .artifacts
        .par_iter()
        .map(|(name, artifact)| verify_artifact(&directory.join(name), artifact))
        .collect();
    checks.into_iter().collect()
}

fn verify_artifact(path: &Path, artifact: &Artifact) -> Result<(), VerifyError> {
    let error = |source| VerifyError::Io { path: path.to_owned(), source };
    let expect_size = |found| match found == artifact.size {
        true => Ok(()),
        false => Err(VerifyError::Size { path: path.to_owned(), expected: artifact.size, found }),
    };
    let file = open_regular(path).map_err(error)?;
    expect_size(file.metadata().map_err(error)?.len())?;
    // A file that grows meanwhile is read no further than to see that it does.
    let (size, found) = hash(file.take(artifact.size.saturating_add(1))).map_err(error)?;
    expect_size(size)?;
    if found != artifact.sha256 {
        return Err(VerifyError::Digest { path: path.to_owned(), expected: artifact.sha256, found });
    }
    Ok(())
}

/// The size and SHA-256 of a regular file, read piece by piece: however large it is, 1 MiB of memory is enough. Anything
/// else, such as a pipe or a device, is an error.
pub fn hash_file(path: &Path) -> io::Result<(u64, Sha256Digest)> {
    let file = open_regular(path)?;
    // As long as it is now, so that a file that grows for ever has an end.
    let length = file.metadata()?.len();
    hash(file.take(length))
}

/// Opens a regular file for reading, and refuses anything else without waiting: open(2) of a pipe would block until
/// somebody writes to it.
pub(crate) fn open_regular(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file")),
    }
}

fn hash(mut file: impl io::Read) -> io::Result<(u64, Sha256Digest)> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    let mut size = 0;
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok((size, Sha256Digest(hasher.finalize().into()))),
            Ok(read) => {
                hasher.update(buffer.get(..read).unwrap_or_default());
                size += read as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
