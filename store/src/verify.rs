//! Holding an image's files against its manifest, just before they are used.
//!
//! Every artifact is hashed, not only those the launch needs: a directory that does not match its manifest is not the
//! image it says it is. The files that were hashed stay open, so that what is renamed into place afterwards is not what is used.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{self, Read as _, Seek as _};
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use spec::manifest::{Artifact, Manifest};
use spec::{Diagnostic, Outcome, Sha256Digest};

use crate::regular::{hash, open_regular};

/// An artifact that is not what the manifest says.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The file is not there or cannot be read.
    #[error("cannot read {path}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The path is not a regular file.
    #[error("{path} is not a regular file")]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// The file has another size.
    #[error("{path} does not match the manifest: expected {expected} bytes, found {found}")]
    Size {
        /// The file.
        path: PathBuf,
        /// The manifest's size.
        expected: u64,
        /// The file's size.
        found: u64,
    },
    /// The file has another content.
    #[error("{path} does not match the manifest: expected SHA-256 {expected}, found {found}")]
    Digest {
        /// The file.
        path: PathBuf,
        /// The manifest's digest.
        expected: Sha256Digest,
        /// The file's digest.
        found: Sha256Digest,
    },
}

impl Diagnostic for VerifyError {
    fn outcome(&self) -> Outcome {
        Outcome::InputMismatch
    }
    fn hint(&self) -> Option<String> {
        Some("the image was changed or damaged after it was built: build it again or fetch it again".to_owned())
    }
}

/// The artifacts of an image, open for reading, by name.
pub type OpenArtifacts = BTreeMap<String, File>;

/// Opens every artifact of `manifest` in `directory` and compares size and SHA-256 with the manifest.
/// What is reported of several mismatches is one of them.
pub fn verify(directory: &Path, manifest: &Manifest) -> Result<OpenArtifacts, VerifyError> {
    verify_files(directory, manifest.artifacts.iter().collect())
}

/// The same for the manifest's documents too.
pub fn verify_all(directory: &Path, manifest: &Manifest) -> Result<OpenArtifacts, VerifyError> {
    verify_files(directory, manifest.files().collect())
}

fn verify_files(directory: &Path, mut queue: Vec<(&String, &Artifact)>) -> Result<OpenArtifacts, VerifyError> {
    // The largest first, so that the last one to finish is a small one.
    queue.sort_by_key(|(_, artifact)| std::cmp::Reverse(artifact.size));
    let workers = std::thread::available_parallelism().map_or(1, NonZero::get).min(queue.len());
    let queue = Mutex::new(VecDeque::from(queue));
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(|| verify_from(directory, &queue))).collect();
        let mut all = OpenArtifacts::new();
        for worker in workers {
            match worker.join() {
                Ok(done) => all.extend(done?),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        Ok(all)
    })
}

/// Compares artifacts that have been open since `verify` with the manifest once more: a file can be written to while it is open.
/// What lies in `directory` now, which only names them in errors, is not looked at.
pub fn verify_again(artifacts: &OpenArtifacts, directory: &Path, manifest: &Manifest) -> Result<(), VerifyError> {
    for (name, artifact) in &manifest.artifacts {
        let path = directory.join(name);
        let unreadable = |source| VerifyError::Unreadable { path: path.clone(), source };
        let mut file = artifacts.get(name).ok_or_else(|| unreadable(io::ErrorKind::NotFound.into()))?;
        file.rewind().map_err(unreadable)?;
        compare(file, &path, artifact)?;
    }
    Ok(())
}

/// Opens every artifact without looking at its content.
pub fn open_unverified(directory: &Path, manifest: &Manifest) -> Result<OpenArtifacts, VerifyError> {
    manifest.artifacts.keys().map(|name| Ok((name.clone(), open(&directory.join(name))?))).collect()
}

type Queue<'a> = Mutex<VecDeque<(&'a String, &'a Artifact)>>;

fn verify_from(directory: &Path, queue: &Queue<'_>) -> Result<OpenArtifacts, VerifyError> {
    let next = || queue.lock().unwrap_or_else(std::sync::PoisonError::into_inner).pop_front();
    let mut done = OpenArtifacts::new();
    while let Some((name, artifact)) = next() {
        done.insert(name.clone(), verify_one(&directory.join(name), artifact)?);
    }
    Ok(done)
}

fn verify_one(path: &Path, artifact: &Artifact) -> Result<File, VerifyError> {
    let file = open(path)?;
    compare(&file, path, artifact)?;
    Ok(file)
}

fn compare(file: &File, path: &Path, artifact: &Artifact) -> Result<(), VerifyError> {
    let unreadable = |source| VerifyError::Unreadable { path: path.to_owned(), source };
    let expect_size = |found| match found == artifact.size {
        true => Ok(()),
        false => Err(VerifyError::Size { path: path.to_owned(), expected: artifact.size, found }),
    };
    expect_size(file.metadata().map_err(unreadable)?.len())?;
    // A file that grows meanwhile is read no further than to see that it does.
    let (size, found) = hash(file.take(artifact.size.saturating_add(1))).map_err(unreadable)?;
    expect_size(size)?;
    if found != artifact.sha256 {
        return Err(VerifyError::Digest { path: path.to_owned(), expected: artifact.sha256, found });
    }
    Ok(())
}

fn open(path: &Path) -> Result<File, VerifyError> {
    open_regular(path).map_err(|source| match source.kind() {
        io::ErrorKind::InvalidInput => VerifyError::NotAFile { path: path.to_owned() },
        _ => VerifyError::Unreadable { path: path.to_owned(), source },
    })
}
