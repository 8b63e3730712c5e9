//! The last release that was accepted of each name from each key, kept so that an older one is refused afterwards: a
//! signature alone does not tell a release from the one that replaced it.
//!
//! One file for each name and key, called after the SHA-256 of the name, because names are foreign text.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use spec::{Diagnostic, Outcome, Sha256Digest};
use store::{AtomicFile, StoreError};

/// Such a file is a few hundred bytes.
const MAX_BYTES: u64 = 64 << 10;

/// The directory of these files.
#[derive(Clone, Debug)]
pub struct Seen {
    directory: PathBuf,
}

/// What a file says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Last {
    schema: u32,
    name: String,
    sequence: u64,
    manifest_sha256: Sha256Digest,
}

/// A release that is older than one that was accepted, or a record that cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum SeenError {
    /// A later release was accepted before.
    #[error("release {found} of {name:?} is older than release {last}, which was accepted here before")]
    Older {
        /// The image.
        name: String,
        /// The release's sequence.
        found: u64,
        /// The last accepted one.
        last: u64,
    },
    /// Two releases have one number.
    #[error("release {sequence} of {name:?} was accepted here before with manifest {last}, this one has {found}")]
    Other {
        /// The image.
        name: String,
        /// The sequence of both.
        sequence: u64,
        /// The manifest's SHA-256 then.
        last: Sha256Digest,
        /// The manifest's SHA-256 now.
        found: Sha256Digest,
    },
    /// The record is damaged: what was accepted before is not known.
    #[error("{} does not say which release was accepted last: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The record cannot be read.
    #[error("reading {}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The record cannot be written.
    #[error(transparent)]
    Write(#[from] StoreError),
}

impl Diagnostic for SeenError {
    fn outcome(&self) -> Outcome {
        match self {
            Self::Older { .. } | Self::Other { .. } | Self::Damaged { .. } => Outcome::Refused,
            Self::Io { .. } => Outcome::HostCannot,
            Self::Write(error) => error.outcome(),
        }
    }
    fn hint(&self) -> Option<String> {
        match self {
            Self::Older { .. } => Some("fetch the current release; an older one may have a known hole".to_owned()),
            Self::Other { .. } => {
                Some("the publisher signed two images with one number: ask which is meant".to_owned())
            }
            Self::Damaged { path, .. } => Some(format!(
                "if you know which release is current, remove {} and verify that one first",
                path.display()
            )),
            Self::Io { .. } => Some("BULLION_STATE_DIR names another state directory".to_owned()),
            Self::Write(error) => error.hint(),
        }
    }
}

impl Seen {
    /// What is recorded in `directory`, which is made when it is needed.
    pub fn in_directory(directory: &Path) -> Self {
        Self { directory: directory.to_owned() }
    }

    /// Refuses a release older than the last accepted one, and records this one. Two processes take turns.
    pub(crate) fn admit(
        &self,
        key: &Sha256Digest,
        name: &str,
        sequence: u64,
        manifest_sha256: Sha256Digest,
    ) -> Result<(), SeenError> {
        let directory = self.directory.join(key.to_string());
        DirBuilder::new().recursive(true).mode(0o700).create(&directory).map_err(error(&directory))?;
        let path = directory.join(format!("{}.json", Sha256Digest::of(name.as_bytes())));
        let lock_path = path.with_extension("lock");
        let lock = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&lock_path);
        let lock = lock.map_err(error(&lock_path))?;
        lock.lock().map_err(error(&lock_path))?;
        match read(&path)? {
            Some(last) if last.sequence > sequence => {
                return Err(SeenError::Older { name: name.to_owned(), found: sequence, last: last.sequence });
            }
            Some(last) if last.sequence == sequence => {
                return match last.manifest_sha256 == manifest_sha256 {
                    true => Ok(()),
                    false => Err(SeenError::Other {
                        name: name.to_owned(),
                        sequence,
                        last: last.manifest_sha256,
                        found: manifest_sha256,
                    }),
                };
            }
            _ => {}
        }
        let damaged = |reason: String| SeenError::Damaged { path: path.clone(), reason };
        let record = Last { schema: 1, name: name.to_owned(), sequence, manifest_sha256 };
        let text = serde_json::to_vec(&record).map_err(|error| damaged(error.to_string()))?;
        let mut file = AtomicFile::create(&path)?;
        file.write_all(&text).map_err(error(&path))?;
        Ok(file.commit()?)
    }
}

fn read(path: &Path) -> Result<Option<Last>, SeenError> {
    let mut bytes = Vec::new();
    let file = match fs::File::open(path) {
        Err(found) if found.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file.map_err(error(path))?,
    };
    file.take(MAX_BYTES).read_to_end(&mut bytes).map_err(error(path))?;
    let damaged = |reason: String| SeenError::Damaged { path: path.to_owned(), reason };
    let last: Last = serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
    if last.schema == 1 { Ok(Some(last)) } else { Err(damaged(format!("schema {} is not known", last.schema))) }
}

fn error(path: &Path) -> impl FnOnce(io::Error) -> SeenError {
    move |source| SeenError::Io { path: path.to_owned(), source }
}
