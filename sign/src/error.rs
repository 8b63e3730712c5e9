//! Why a key cannot be made, read or used.

use std::io;
use std::path::{Path, PathBuf};

use spec::{Diagnostic, Outcome};
use store::StoreError;

/// A failed operation on a key or its file.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The operating system refused.
    #[error("reading {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The key file cannot be written.
    #[error(transparent)]
    Write(#[from] StoreError),
    /// A key is never overwritten.
    #[error("{} is there already: a key is never overwritten", .0.display())]
    Exists(PathBuf),
    /// Others can read a private key.
    #[error("others may read the private key {}: expected mode 600, found {mode:o}", path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file holds no key of the expected kind.
    #[error("{file} is not {expected}: {reason}")]
    NotAKey {
        /// The file.
        file: String,
        /// What was looked for.
        expected: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The operating system gave no random bytes.
    #[error("the operating system gives no random numbers")]
    NoRandomness,
}

impl KeyError {
    pub(crate) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { path: path.to_owned(), source }
    }
}

impl Diagnostic for KeyError {
    fn outcome(&self) -> Outcome {
        match self {
            Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => Outcome::Usage,
            Self::Io { .. } | Self::NoRandomness => Outcome::HostCannot,
            Self::Write(error) => error.outcome(),
            Self::Exists(_) | Self::Exposed { .. } | Self::NotAKey { .. } => Outcome::Usage,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                Some("make a key with: bullion keygen -o FILE".to_owned())
            }
            Self::Write(error) => error.hint(),
            Self::Exists(_) => Some("choose another name, or move the old key away".to_owned()),
            Self::Exposed { path, .. } => {
                Some(format!("chmod 600 {}; if somebody else could have read it, make a new key", path.display()))
            }
            Self::NotAKey { expected, .. } if expected.contains("private") => Some(
                "ECDSA P-384 and Ed25519 in unencrypted PKCS#8 PEM are read; openssl pkcs8 -topk8 -nocrypt converts others"
                    .to_owned(),
            ),
            Self::NotAKey { .. } => Some("bullion keygen writes the public key beside the private one, as FILE.pub".to_owned()),
            Self::Io { .. } | Self::NoRandomness => None,
        }
    }
}
