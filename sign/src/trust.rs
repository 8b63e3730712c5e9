//! Which public keys may release images: files that the caller names, or every `*.pub` file of a directory.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use spec::{Diagnostic, Outcome};

use crate::error::KeyError;
use crate::key::PublicKey;
use crate::key_file::PUBLIC_SUFFIX;

/// The trusted keys. Empty means that nothing is trusted.
#[derive(Clone, Debug, Default)]
pub struct Trust {
    keys: Vec<PublicKey>,
}

/// A place of trusted keys that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// The directory cannot be read.
    #[error("reading the trusted keys in {}", path.display())]
    Io {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Anybody could add a key.
    #[error("everybody may write to {} (mode {mode:o}): what is in it is not trusted", path.display())]
    Writable {
        /// The directory or file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A file in it is not a public key.
    #[error("a trusted key cannot be used")]
    Key(#[from] KeyError),
}

impl Diagnostic for TrustError {
    fn outcome(&self) -> Outcome {
        match self {
            Self::Io { .. } => Outcome::HostCannot,
            Self::Writable { .. } => Outcome::Refused,
            Self::Key(error) => error.outcome(),
        }
    }
    fn hint(&self) -> Option<String> {
        match self {
            Self::Io { .. } => None,
            Self::Writable { path, .. } => Some(format!("chmod o-w {}, then look at what is in it", path.display())),
            Self::Key(KeyError::Io { .. }) => Some("name a public key file, or a directory of *.pub files".to_owned()),
            Self::Key(error) => error.hint(),
        }
    }
}

impl Trust {
    /// Adds the key in the file `path`, or those in its `*.pub` files where it is a directory.
    pub fn add(&mut self, path: &Path) -> Result<(), TrustError> {
        if !path.is_dir() {
            self.keys.push(PublicKey::read(path)?);
            return Ok(());
        }
        let error = |source| TrustError::Io { path: path.to_owned(), source };
        not_everybodys(path)?;
        let mut files = Vec::new();
        for entry in fs::read_dir(path).map_err(error)? {
            let file = entry.map_err(error)?.path();
            if file.as_os_str().as_encoded_bytes().ends_with(PUBLIC_SUFFIX.as_bytes()) {
                files.push(file);
            }
        }
        files.sort();
        for file in files {
            not_everybodys(&file)?;
            self.keys.push(PublicKey::read(&file)?);
        }
        Ok(())
    }

    /// Adds what is in the directory `path`, where there is one.
    pub fn add_if_there(&mut self, path: &Path) -> Result<(), TrustError> {
        if path.symlink_metadata().is_ok() { self.add(path) } else { Ok(()) }
    }

    /// The keys.
    pub fn keys(&self) -> &[PublicKey] {
        &self.keys
    }
}

fn not_everybodys(path: &Path) -> Result<(), TrustError> {
    let found = fs::metadata(path).map_err(|source| TrustError::Io { path: path.to_owned(), source })?;
    match found.mode() & 0o002 {
        0 => Ok(()),
        _ => Err(TrustError::Writable { path: path.to_owned(), mode: found.mode() & 0o7777 }),
    }
}
