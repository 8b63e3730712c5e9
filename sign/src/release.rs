//! Signing a release of an image, and deciding whether a signed one is accepted: signature, what it covers, expiry, class,
//! and that no later one was accepted before, in this order.

use std::io::{self, Read as _};
use std::path::PathBuf;

use spec::manifest::{Class, Manifest};
use spec::release::{FILE_NAME, PAYLOAD_TYPE, Release, Statement};
use spec::time::Timestamp;
use spec::{Diagnostic, Outcome, Sha256Digest, SyntaxError};
use store::{Image, open_regular};

use crate::dsse::{Envelope, EnvelopeError};
use crate::error::KeyError;
use crate::key::PrivateKey;
use crate::seen::{Seen, SeenError};
use crate::trust::Trust;

/// A statement has some hundred bytes a file.
const MAX_BYTES: u64 = 1 << 20;

/// Under which conditions a release is accepted.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// Who may release.
    pub trust: &'a Trust,
    /// What time it is.
    pub now: Timestamp,
    /// Accept an image of class `dev`.
    pub allow_dev: bool,
    /// What was accepted before.
    pub seen: &'a Seen,
}

/// A release that was accepted. There is no way to one but `verify_release`.
#[derive(Clone, Debug)]
pub struct VerifiedRelease {
    release: Release,
    manifest_sha256: Sha256Digest,
    key: Sha256Digest,
}

impl VerifiedRelease {
    /// What was signed.
    pub fn release(&self) -> &Release {
        &self.release
    }

    /// Refuses it from its last second on: what was accepted once is not accepted for ever.
    pub fn check_expiry(&self, now: Timestamp) -> Result<(), Rejection> {
        check_expiry(&self.release, now)
    }

    /// SHA-256 of the `manifest.json` that was released.
    pub fn manifest_sha256(&self) -> &Sha256Digest {
        &self.manifest_sha256
    }

    /// The identifier of the key that signed.
    pub fn key(&self) -> &Sha256Digest {
        &self.key
    }
}

/// Why a release is not accepted.
#[derive(Debug, thiserror::Error)]
pub enum Rejection {
    /// There is no signed statement.
    #[error("the image is not signed: there is no {}", path.display())]
    Unsigned {
        /// Where it would be.
        path: PathBuf,
    },
    /// The statement cannot be read.
    #[error("reading {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// No key may release anything.
    #[error("no key is trusted to release images")]
    NoTrust,
    /// The signature is not good.
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
    /// What was signed is no release.
    #[error("what was signed is not a release")]
    Statement(#[source] SyntaxError),
    /// What was signed is about something else.
    #[error("{} is not about this image: {what}", path.display())]
    OtherImage {
        /// The signed statement.
        path: PathBuf,
        /// What differs.
        what: String,
    },
    /// Its time is over.
    #[error("the release expired at {expires}: it is {now} now")]
    Expired {
        /// When it expired.
        expires: Timestamp,
        /// What time it is.
        now: Timestamp,
    },
    /// It is of class `dev`.
    #[error("the image is of class dev: not every byte of it has a locked origin")]
    Dev,
    /// A later one was accepted before.
    #[error(transparent)]
    Seen(#[from] SeenError),
}

impl Diagnostic for Rejection {
    fn outcome(&self) -> Outcome {
        match self {
            Self::Io { .. } => Outcome::HostCannot,
            Self::Envelope(error) => error.outcome(),
            Self::Unsigned { .. }
            | Self::NoTrust
            | Self::Statement(_)
            | Self::OtherImage { .. }
            | Self::Expired { .. } => Outcome::SignatureInvalid,
            Self::Dev => Outcome::Refused,
            Self::Seen(error) => error.outcome(),
        }
    }
    fn hint(&self) -> Option<String> {
        match self {
            Self::Unsigned { .. } => {
                Some("sign it with: bullion publish IMAGE --key KEY -o BUNDLE, and use the bundle".to_owned())
            }
            Self::NoTrust => Some(
                "name the publisher's public key with --trust FILE, or put it into /etc/bullion/trust as NAME.pub"
                    .to_owned(),
            ),
            Self::Envelope(error) => error.hint(),
            Self::Statement(error) => error.hint(),
            Self::Expired { .. } => {
                Some("fetch the current release; the publisher signs again what is still good".to_owned())
            }
            Self::Dev => Some("--dangerously-allow-dev accepts it all the same".to_owned()),
            Self::Seen(error) => error.hint(),
            Self::Io { .. } | Self::OtherImage { .. } => None,
        }
    }
}

/// Signs the release of an image: the bytes of `release.dsse.json`.
pub fn sign_release(
    manifest: &Manifest,
    manifest_sha256: Sha256Digest,
    release: Release,
    key: &PrivateKey,
) -> Result<Vec<u8>, KeyError> {
    let unwritable = |error: spec::canonical::CanonicalError| KeyError::NotAKey {
        file: FILE_NAME.to_owned(),
        expected: "a release that can be written",
        reason: error.to_string(),
    };
    let payload = Statement::release(manifest, manifest_sha256, release).to_bytes().map_err(unwritable)?;
    Envelope::seal(PAYLOAD_TYPE, &payload, key)?.to_bytes().map_err(unwritable)
}

/// Decides whether the image is a release that is accepted, and records it as seen. The artifacts themselves are not looked
/// at: the manifest covers them.
pub fn verify_release(image: &Image, wanted: &Wanted<'_>) -> Result<VerifiedRelease, Rejection> {
    let path = image.directory.join(FILE_NAME);
    let file = path.display().to_string();
    let bytes = read(&path)?;
    if wanted.trust.keys().is_empty() {
        return Err(Rejection::NoTrust);
    }
    let (payload, key) = Envelope::parse(&file, &bytes)?.open(&file, PAYLOAD_TYPE, wanted.trust.keys())?;
    let key = key.id().map_err(EnvelopeError::from)?;
    let statement = Statement::parse(&file, &payload).map_err(Rejection::Statement)?;
    let manifest_sha256 = image.manifest_sha256;
    statement
        .covers(&image.manifest, manifest_sha256)
        .map_err(|what| Rejection::OtherImage { path: path.clone(), what })?;
    let release = statement.predicate;
    check_expiry(&release, wanted.now)?;
    if release.class != Class::Release && !wanted.allow_dev {
        return Err(Rejection::Dev);
    }
    // Last, so that only what is accepted counts as seen.
    wanted.seen.admit(&key, &release.name, release.sequence, manifest_sha256)?;
    Ok(VerifiedRelease { release, manifest_sha256, key })
}

fn check_expiry(release: &Release, now: Timestamp) -> Result<(), Rejection> {
    match release.expires <= now {
        true => Err(Rejection::Expired { expires: release.expires, now }),
        false => Ok(()),
    }
}

fn read(path: &std::path::Path) -> Result<Vec<u8>, Rejection> {
    let error = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => Rejection::Unsigned { path: path.to_owned() },
        _ => Rejection::Io { path: path.to_owned(), source },
    };
    let mut bytes = Vec::new();
    open_regular(path).and_then(|file| file.take(MAX_BYTES).read_to_end(&mut bytes)).map_err(error)?;
    Ok(bytes)
}
