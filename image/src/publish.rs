//! A signed release as a bundle: a copy of an image directory with the signed statement in it, there whole or not at all.
//!
//! Only what the manifest names is copied, and what was copied is what was verified.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use sign::{KeyError, PrivateKey, sign_release};
use spec::canonical::CanonicalError;
use spec::manifest;
use spec::release::{self, Release};
use spec::{Diagnostic, Outcome};
use store::{Image, VerifyError, verify_all};

use crate::build::{BuildError, Output, Staging};

/// What is published.
#[derive(Clone, Copy, Debug)]
pub struct PublishRequest<'a> {
    /// The image.
    pub image: &'a Image,
    /// What is said about it; name and class are the manifest's.
    pub release: &'a Release,
    /// The key that signs.
    pub key: &'a PrivateKey,
    /// The bundle directory to make.
    pub output: &'a Path,
    /// Whether a bundle that is there already is replaced.
    pub replace: bool,
}

/// A release that was not published. Nothing of it is left on disk.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// A file is not what the manifest says.
    #[error(transparent)]
    Verify(#[from] VerifyError),
    /// The bundle cannot be written.
    #[error(transparent)]
    Write(#[from] BuildError),
    /// The key cannot sign.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The manifest has no canonical form.
    #[error("the manifest cannot be written")]
    Manifest(#[source] CanonicalError),
    /// The manifest's file is not the one that Bullion writes, so its digest would not be that of what it says.
    #[error("{0}/{FILE} is not as `bullion build` wrote it", FILE = manifest::FILE_NAME)]
    NotCanonical(String),
}

impl Diagnostic for PublishError {
    fn outcome(&self) -> Outcome {
        match self {
            Self::Verify(error) => error.outcome(),
            Self::Write(error) => error.outcome(),
            Self::Key(error) => error.outcome(),
            Self::Manifest(_) => Outcome::Internal,
            Self::NotCanonical(_) => Outcome::InputMismatch,
        }
    }
    fn hint(&self) -> Option<String> {
        match self {
            Self::Verify(error) => error.hint(),
            Self::Write(error) => error.hint(),
            Self::Key(error) => error.hint(),
            Self::Manifest(_) => None,
            Self::NotCanonical(_) => Some("build the image again with `bullion build`".to_owned()),
        }
    }
}

/// Makes a bundle.
pub fn publish(request: &PublishRequest<'_>) -> Result<(), PublishError> {
    let (image, manifest) = (request.image, &request.image.manifest);
    let bytes = manifest.to_bytes().map_err(PublishError::Manifest)?;
    if spec::Sha256Digest::of(&bytes) != image.manifest_sha256 {
        return Err(PublishError::NotCanonical(image.directory.display().to_string()));
    }
    let statement = sign_release(manifest, image.manifest_sha256, request.release.clone(), request.key)?;
    let staging = Staging::begin(request.output, request.replace)?;
    for (name, _) in manifest.files() {
        copy(&image.directory.join(name), &staging.directory().join(name))?;
    }
    verify_all(staging.directory(), manifest)?;
    let output = Output::new(staging.directory());
    output.write(manifest::FILE_NAME, &bytes)?;
    output.write(release::FILE_NAME, &statement)?;
    Ok(staging.commit()?)
}

fn copy(from: &Path, to: &Path) -> Result<(), BuildError> {
    // `io::copy` shares blocks where the file system can; what it copied is verified afterwards.
    let mut source = store::open_regular(from).map_err(BuildError::io("reading", from))?;
    let mut copy = File::create_new(to).map_err(BuildError::io("creating", to))?;
    std::io::copy(&mut source, &mut copy).map_err(BuildError::io("writing", to))?;
    fs::set_permissions(to, Permissions::from_mode(0o644)).map_err(BuildError::io("writing", to))?;
    copy.sync_all().map_err(BuildError::io("writing", to))
}
