//! `InRelease`: what a suite holds, by SHA-256, and who vouches for it.
//!
//! Only what lies inside the signature is read. Whether the file is the newest one cannot be known from it alone: until
//! `Valid-Until`, a mirror can serve an older one. The lock records the date so that a step back can be seen.

use std::collections::BTreeMap;

use pgp::composed::CleartextSignedMessage;
use spec::lock::Release;
use spec::release_date;
use spec::{Diagnostic, Outcome, Sha256Digest};

use crate::apt_sources::is_security;
use crate::control::{Paragraph, paragraphs};
use crate::keyring::{Keyring, LapsedKeys, Rejection};
use crate::mirror::Mirror;
use crate::transport::TransportError;

/// The largest release file that is read. Debian's have 0.2 MB.
const MAX_BYTES: u64 = 16 << 20;

/// A release file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ReleaseError {
    /// It cannot be had.
    #[error("the mirror has no release file of suite {suite} that can be read")]
    Unavailable {
        /// The suite.
        suite: String,
        /// Why.
        source: TransportError,
    },
    /// It is not a clearsigned text, or there is text outside the signature.
    #[error("the release file of suite {suite} is not one signed text and nothing else: {reason}")]
    NotSigned {
        /// The suite.
        suite: String,
        /// What was found.
        reason: String,
    },
    /// No signature counts.
    #[error(
        "the release file of suite {suite} has no good signature by a key in the keyring: {}",
        rejections.iter().map(|rejection| format!("one {rejection}")).collect::<Vec<_>>().join("; ")
    )]
    Signature {
        /// The suite.
        suite: String,
        /// Why each one does not count.
        rejections: Vec<Rejection>,
    },
    /// It is past its own `Valid-Until`.
    #[error(
        "the release file of suite {suite} was valid until {valid_until}: the mirror is out of date, or somebody holds updates back"
    )]
    Expired {
        /// The suite.
        suite: String,
        /// The date as written.
        valid_until: String,
    },
    /// It is another suite's.
    #[error(
        "the release file served for suite {suite} is that of suite \"{found_suite}\", code name \"{found_codename}\""
    )]
    WrongSuite {
        /// The suite asked for.
        suite: String,
        /// Its `Suite` field.
        found_suite: String,
        /// Its `Codename` field.
        found_codename: String,
    },
    /// Something that must be there is missing or unreadable.
    #[error("the release file of suite {suite} is not understood: {what}")]
    Malformed {
        /// The suite.
        suite: String,
        /// What is wrong.
        what: &'static str,
    },
}

impl Diagnostic for ReleaseError {
    fn outcome(&self) -> Outcome {
        match self {
            Self::Unavailable { source, .. } => source.outcome(),
            Self::Malformed { .. } => Outcome::InputMismatch,
            Self::NotSigned { .. } | Self::Signature { .. } | Self::Expired { .. } | Self::WrongSuite { .. } => {
                Outcome::SignatureInvalid
            }
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Unavailable { source: TransportError::Gone { .. }, suite } if is_security(suite) => Some(format!(
                "check that \"{suite}\" is a suite of Debian, and name a mirror of its security archive with BULLION_SECURITY_MIRROR=URL"
            )),
            Self::Unavailable { source: TransportError::Gone { .. }, suite } => Some(format!(
                "check that \"{suite}\" is a suite of Debian and that the mirror is one of Debian's main archive (--mirror URL)"
            )),
            Self::Unavailable { source, .. } => source.hint(),
            Self::Signature { suite, rejections }
                if rejections.iter().any(|rejection| matches!(rejection, Rejection::Lapsed(..))) =>
            {
                Some(format!(
                    "update the package debian-archive-keyring; if the mirror is a snapshot of old, say --accept-expired {suite}: the lock will record it"
                ))
            }
            Self::Signature { .. } => Some(
                "if the mirror is Debian's and the keys are new, update the package debian-archive-keyring or name a keyring with --keyring FILE".to_owned(),
            ),
            Self::Expired { suite, .. } => Some(format!(
                "try another mirror; to use what this one has nevertheless, say --accept-expired {suite}: the lock will record it"
            )),
            Self::NotSigned { .. } | Self::WrongSuite { .. } | Self::Malformed { .. } => {
                Some("name another mirror with --mirror URL".to_owned())
            }
        }
    }
}

/// A verified release file.
#[derive(Clone, Debug)]
pub(crate) struct VerifiedRelease {
    /// What the lock says about it.
    pub record: Release,
    /// Whether indexes can be fetched by their hash, which is proof against a mirror that is being updated.
    pub by_hash: bool,
    /// Size and SHA-256 of the suite's files, by path below `dists/SUITE/`.
    pub files: BTreeMap<String, (u64, Sha256Digest)>,
}

/// Fetches and verifies the release file of a suite, as of `now` (seconds since 1970).
pub(crate) fn fetch(
    mirror: &Mirror,
    suite: &str,
    keyring: &Keyring,
    now: u64,
    accept_expired: bool,
) -> Result<VerifiedRelease, ReleaseError> {
    let bytes = mirror
        .get(&format!("dists/{suite}/InRelease"), MAX_BYTES)
        .map_err(|source| ReleaseError::Unavailable { suite: suite.to_owned(), source })?;
    verify(&bytes, suite, keyring, now, accept_expired)
}

/// Verifies a release file: signature, suite, date.
pub(crate) fn verify(
    bytes: &[u8],
    suite: &str,
    keyring: &Keyring,
    now: u64,
    accept_expired: bool,
) -> Result<VerifiedRelease, ReleaseError> {
    let lapsed_keys = if accept_expired { LapsedKeys::Accepted } else { LapsedKeys::Refused };
    let Signed { text, signed_by, lapsed } = signed_text(bytes, suite, keyring, now, lapsed_keys)?;
    let malformed = |what| ReleaseError::Malformed { suite: suite.to_owned(), what };
    let mut all = paragraphs(&text);
    let (Some(fields), None) = (all.next(), all.next()) else {
        return Err(malformed("it is not one paragraph"));
    };
    let field = |name| fields.get(name).unwrap_or_default();
    if ![field("Suite"), field("Codename")].contains(&suite) {
        return Err(ReleaseError::WrongSuite {
            suite: suite.to_owned(),
            found_suite: field("Suite").to_owned(),
            found_codename: field("Codename").to_owned(),
        });
    }
    let expired = match fields.get("Valid-Until") {
        None => false,
        Some(text) => release_date::parse(text).ok_or_else(|| malformed("its Valid-Until is no date"))? < now,
    };
    if expired && !accept_expired {
        return Err(ReleaseError::Expired { suite: suite.to_owned(), valid_until: field("Valid-Until").to_owned() });
    }
    release_date::parse(field("Date")).ok_or_else(|| malformed("its Date is no date"))?;
    let record = Release {
        suite: suite.to_owned(),
        date: field("Date").to_owned(),
        sha256: Sha256Digest::of(bytes),
        signed_by,
        expired: expired || lapsed,
    };
    let files = files_of(fields).ok_or_else(|| malformed("its SHA256 field does not list files"))?;
    Ok(VerifiedRelease { record, by_hash: field("Acquire-By-Hash").eq_ignore_ascii_case("yes"), files })
}

struct Signed {
    /// The text inside the signature, with plain newlines.
    text: String,
    /// The fingerprints of the keys whose signatures are good.
    signed_by: Vec<String>,
    /// None of these keys is valid any more.
    lapsed: bool,
}

fn signed_text(
    bytes: &[u8],
    suite: &str,
    keyring: &Keyring,
    now: u64,
    lapsed_keys: LapsedKeys,
) -> Result<Signed, ReleaseError> {
    let not_signed = |reason: String| ReleaseError::NotSigned { suite: suite.to_owned(), reason };
    let text = std::str::from_utf8(bytes).map_err(|error| not_signed(error.to_string()))?;
    // rPGP refuses text before and after the signed part; so that this does not rest on it alone, it is checked here too.
    let framed = text.starts_with("-----BEGIN PGP SIGNED MESSAGE-----\n")
        && text.trim_end().ends_with("\n-----END PGP SIGNATURE-----")
        && text.matches("\n-----BEGIN PGP SIGNATURE-----\n").count() == 1;
    if !framed {
        return Err(not_signed("text stands before or after the signed part, or there is none".to_owned()));
    }
    let (message, _) = CleartextSignedMessage::from_string(text).map_err(|error| not_signed(error.to_string()))?;
    let signed = message.signed_text();
    let (mut good, mut rejections) = (Vec::new(), Vec::new());
    for signature in message.signatures() {
        match keyring.check(signature, signed.as_bytes(), now, lapsed_keys) {
            Ok(signature) => good.push(signature),
            Err(rejection) => rejections.push(rejection),
        }
    }
    if good.is_empty() {
        return Err(ReleaseError::Signature { suite: suite.to_owned(), rejections });
    }
    // Where a key of today vouches for the text, those of yesterday add nothing.
    let lapsed = good.iter().all(|signature| signature.lapsed);
    let counted = good.into_iter().filter(|signature| signature.lapsed == lapsed);
    let mut signed_by: Vec<String> = counted.map(|signature| signature.fingerprint).collect();
    signed_by.sort();
    signed_by.dedup();
    Ok(Signed { text: signed.replace("\r\n", "\n"), signed_by, lapsed })
}

/// The `SHA256` field: a line for each file with its digest, its size and its path.
fn files_of(fields: Paragraph<'_>) -> Option<BTreeMap<String, (u64, Sha256Digest)>> {
    let lines = fields.get("SHA256")?.lines().filter(|line| !line.trim().is_empty());
    lines
        .map(|line| {
            let mut words = line.split_ascii_whitespace();
            let (digest, size, path) = (words.next()?, words.next()?, words.next()?);
            Some((path.to_owned(), (size.parse().ok()?, digest.parse().ok()?)))
        })
        .collect()
}
