//! An image directory as its readers see it: the manifest and where its files are. The files themselves are only looked at
//! by `verify`.

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use spec::manifest::{self, Manifest};
use spec::{Diagnostic, Outcome, Sha256Digest, SyntaxError};

use crate::regular::open_regular;

/// A manifest larger than this is not one.
const MAX_MANIFEST_BYTES: u64 = 16 << 20;

/// An image directory with its manifest.
#[derive(Clone, Debug)]
pub struct Image {
    /// The directory.
    pub directory: PathBuf,
    /// The manifest.
    pub manifest: Manifest,
    /// SHA-256 of the file `manifest.json`.
    pub manifest_sha256: Sha256Digest,
}

/// An image directory that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The manifest is not there or cannot be read.
    #[error("cannot read {path}")]
    Unreadable {
        /// The manifest's path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The manifest is larger than any manifest.
    #[error("{path} is larger than {MAX_MANIFEST_BYTES} bytes: it is not a manifest")]
    TooLarge {
        /// The manifest's path.
        path: PathBuf,
    },
    /// The manifest is not one.
    #[error("the manifest is corrupt: {0}")]
    Corrupt(#[source] SyntaxError),
}

impl Diagnostic for ImageError {
    fn outcome(&self) -> Outcome {
        Outcome::InputMismatch
    }
    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Unreadable { .. } => {
                "build the image with `bullion build`, or name its directory in `image` or with `--image DIRECTORY`"
                    .to_owned()
            }
            Self::TooLarge { .. } | Self::Corrupt(_) => "build the image again with `bullion build`".to_owned(),
        })
    }
}

impl Image {
    /// Reads the manifest in `directory`.
    pub fn open(directory: &Path) -> Result<Self, ImageError> {
        // Absolute, because others who read the VM's record have another working directory.
        let directory = std::path::absolute(directory).unwrap_or_else(|_| directory.to_owned());
        let path = directory.join(manifest::FILE_NAME);
        let unreadable = |source| ImageError::Unreadable { path: path.clone(), source };
        let mut bytes = Vec::new();
        let file = open_regular(&path).map_err(unreadable)?;
        file.take(MAX_MANIFEST_BYTES + 1).read_to_end(&mut bytes).map_err(unreadable)?;
        if bytes.len() as u64 > MAX_MANIFEST_BYTES {
            return Err(ImageError::TooLarge { path });
        }
        let manifest = Manifest::parse(&path.to_string_lossy(), &bytes).map_err(ImageError::Corrupt)?;
        Ok(Self { directory, manifest, manifest_sha256: Sha256Digest::of(&bytes) })
    }
}
