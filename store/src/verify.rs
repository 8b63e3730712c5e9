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

fn verify_files(directory: &Path, files: Vec<Named<'_>>) -> Result<OpenArtifacts, VerifyError> {
    let open = open_all(directory, files.iter().map(|(name, _)| *name))?;
    compare_all(&open, directory, files, processors())?;
    Ok(open)
}

/// Opens every artifact without looking at its content.
pub fn open_unverified(directory: &Path, manifest: &Manifest) -> Result<OpenArtifacts, VerifyError> {
    open_all(directory, manifest.artifacts.keys())
}

/// Compares artifacts that are open with the manifest, those whose names are `wanted`, as often as that is: a file can be written to while
/// it is open. What lies in `directory` now, which only names them in errors, is not looked at. With `beside`, one processor is left
/// to what goes on meanwhile.
pub fn verify_open(
    artifacts: &OpenArtifacts,
    directory: &Path,
    manifest: &Manifest,
    wanted: impl Fn(&str) -> bool,
    beside: bool,
) -> Result<(), VerifyError> {
    let files = manifest.artifacts.iter().filter(|(name, _)| wanted(name)).collect();
    compare_all(artifacts, directory, files, processors() - usize::from(beside))
}

type Named<'a> = (&'a String, &'a Artifact);

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, NonZero::get)
}

fn open_all<'a>(directory: &Path, names: impl Iterator<Item = &'a String>) -> Result<OpenArtifacts, VerifyError> {
    names.map(|name| Ok((name.clone(), open(&directory.join(name))?))).collect()
}

/// Compares with at least one thread, and at most `workers`.
fn compare_all(
    artifacts: &OpenArtifacts,
    directory: &Path,
    mut files: Vec<Named<'_>>,
    workers: usize,
) -> Result<(), VerifyError> {
    // The largest first, so that the last one to finish is a small one.
    files.sort_by_key(|(_, artifact)| std::cmp::Reverse(artifact.size));
    let workers = workers.min(files.len()).max(1);
    let queue = Mutex::new(VecDeque::from(files));
    std::thread::scope(|scope| {
        let compare = || compare_from(artifacts, directory, &queue);
        let others: Vec<_> = (1..workers).map(|_| scope.spawn(compare)).collect();
        let mut done = compare();
        for other in others {
            done = done.and(other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
        done
    })
}

fn compare_from(
    artifacts: &OpenArtifacts,
    directory: &Path,
    queue: &Mutex<VecDeque<Named<'_>>>,
) -> Result<(), VerifyError> {
    let next = || queue.lock().unwrap_or_else(std::sync::PoisonError::into_inner).pop_front();
    while let Some((name, artifact)) = next() {
        let path = directory.join(name);
        let unreadable = |source| VerifyError::Unreadable { path: path.clone(), source };
        let mut file = artifacts.get(name).ok_or_else(|| unreadable(io::ErrorKind::NotFound.into()))?;
        file.rewind().map_err(unreadable)?;
        compare(file, &path, artifact)?;
    }
    Ok(())
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
