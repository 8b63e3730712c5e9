//! Which keys may sign a release file: an OpenPGP keyring as Debian ships it, many keys with subkeys, binary or armored.
//!
//! The file itself is trusted; whether a key in it was valid when a signature was made is worked out here, because rPGP
//! leaves that to its users (self-signatures, expiry, revocation, key flags, back signatures).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use pgp::composed::{Deserializable as _, SignedPublicKey, SignedPublicSubKey};
use pgp::crypto::hash::HashAlgorithm;
use pgp::packet::{RevocationCode, Signature, SignatureType, SubpacketData};
use pgp::types::{KeyDetails as _, Tag};
use spec::{Diagnostic, Outcome};

/// Where Debian's package `debian-archive-keyring` puts the keys of its archive.
pub const DEFAULT_KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// The keys that may sign.
#[derive(Clone, Debug)]
pub struct Keyring {
    certificates: Vec<SignedPublicKey>,
}

/// A keyring that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyringError {
    /// The file cannot be read.
    #[error("reading the keyring {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file holds no OpenPGP key.
    #[error("the keyring {} holds no OpenPGP public key", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
}

impl Diagnostic for KeyringError {
    fn outcome(&self) -> Outcome {
        Outcome::HostCannot
    }

    fn hint(&self) -> Option<String> {
        Some("install the package debian-archive-keyring, or name a keyring with --keyring FILE".to_owned())
    }
}

/// Why a signature counts for nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// No key in the ring made it.
    #[error("made by {0}, which is not in the keyring")]
    UnknownKey(String),
    /// The text is not what was signed.
    #[error("made by {0}, but it does not fit the text")]
    Wrong(String),
    /// It rests on a hash function that is broken, or on one that is not known.
    #[error("uses the hash function {0}")]
    Hash(String),
    /// It is not a signature over a text, or says too little about itself.
    #[error("it is not a signature over a text with a date")]
    Kind,
    /// It was made later than now, or has run out.
    #[error("made by {0}, but it is not valid at this time")]
    Time(String),
    /// The key was not valid when the signature says it was made.
    #[error("made by {0}, which {1}")]
    Key(String, &'static str),
    /// The key was valid then, and is not any more.
    #[error("made by {0}, which by now {1}")]
    Lapsed(String, &'static str),
}

/// Keys that were valid when they signed, and are not any more.
///
/// The date of a signature is its maker's word: whoever has an old key can sign today and write a date of back then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LapsedKeys {
    /// Their signatures count for nothing.
    Refused,
    /// Their signatures count, for a snapshot of old; revocation for a reason other than good order is never accepted.
    Accepted,
}

/// A signature that counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GoodSignature {
    /// The fingerprint of the key that made it, upper-case hex.
    pub fingerprint: String,
    /// The key has run out, or was retired, since.
    pub lapsed: bool,
}

impl Keyring {
    /// Reads a keyring file.
    pub fn read(path: &Path) -> Result<Self, KeyringError> {
        let bytes = fs::read(path).map_err(|source| KeyringError::Unreadable { path: path.to_owned(), source })?;
        let keyring = Self::parse(&bytes);
        if keyring.certificates.is_empty() {
            return Err(KeyringError::Empty { path: path.to_owned() });
        }
        Ok(keyring)
    }

    /// Reads the keys in `bytes`; what is no key, or none that is understood, is passed over.
    pub fn parse(bytes: &[u8]) -> Self {
        const ARMOR: &str = "-----BEGIN PGP PUBLIC KEY BLOCK-----";
        let certificates = match std::str::from_utf8(bytes).ok().and_then(|text| text.find(ARMOR).map(|at| (text, at)))
        {
            // Armored files can be concatenated.
            Some((text, at)) => text
                .get(at..)
                .unwrap_or_default()
                .split(ARMOR)
                .skip(1)
                .filter_map(|block| SignedPublicKey::from_armor_many(io::Cursor::new(format!("{ARMOR}{block}"))).ok())
                .flat_map(|(keys, _)| keys.flatten().collect::<Vec<_>>())
                .collect(),
            None => SignedPublicKey::from_bytes_many(bytes).map(|keys| keys.flatten().collect()).unwrap_or_default(),
        };
        Self { certificates }
    }

    /// Checks one signature over `text` as of `now` (seconds since 1970).
    pub(crate) fn check(
        &self,
        signature: &Signature,
        text: &[u8],
        now: u64,
        lapsed_keys: LapsedKeys,
    ) -> Result<GoodSignature, Rejection> {
        let issuer = issuer_of(signature);
        let (Some(hash), Some(created)) = (signature.hash_alg(), signature.created()) else {
            return Err(Rejection::Kind);
        };
        if !matches!(signature.typ(), Some(SignatureType::Text | SignatureType::Binary)) {
            return Err(Rejection::Kind);
        }
        // What SHA-1 and older can be made to say is not worth checking.
        if !matches!(
            hash,
            HashAlgorithm::Sha256
                | HashAlgorithm::Sha384
                | HashAlgorithm::Sha512
                | HashAlgorithm::Sha3_256
                | HashAlgorithm::Sha3_512
        ) {
            return Err(Rejection::Hash(hash.to_string()));
        }
        let created = u64::from(created.as_secs());
        let mut rejection = None;
        for certificate in &self.certificates {
            let Some(signer) = signing_key(certificate, signature) else { continue };
            let (fits, fingerprint) = match signer {
                Signer::Primary => {
                    (signature.verify(&certificate.primary_key, text).is_ok(), certificate.fingerprint())
                }
                Signer::Subkey(subkey) => (signature.verify(&subkey.key, text).is_ok(), subkey.fingerprint()),
            };
            let fingerprint = format!("{fingerprint:X}");
            if !fits {
                rejection.get_or_insert(Rejection::Wrong(fingerprint));
                continue;
            }
            match judge(certificate, &signer, signature, created, now) {
                Verdict::Good => return Ok(GoodSignature { fingerprint, lapsed: false }),
                Verdict::Lapsed(_) if lapsed_keys == LapsedKeys::Accepted => {
                    return Ok(GoodSignature { fingerprint, lapsed: true });
                }
                Verdict::Lapsed(why) => rejection = Some(Rejection::Lapsed(fingerprint, why)),
                Verdict::Invalid(why) => rejection = Some(Rejection::Key(fingerprint, why)),
                Verdict::OutOfTime => rejection = Some(Rejection::Time(fingerprint)),
            }
        }
        Err(rejection.unwrap_or(Rejection::UnknownKey(issuer)))
    }
}

enum Signer<'a> {
    Primary,
    Subkey(&'a SignedPublicSubKey),
}

enum Verdict {
    Good,
    Lapsed(&'static str),
    Invalid(&'static str),
    OutOfTime,
}

/// Judges the time of a signature, and its key both then and now.
fn judge(certificate: &SignedPublicKey, signer: &Signer<'_>, signature: &Signature, created: u64, now: u64) -> Verdict {
    if !is_current(signature, created, now) {
        return Verdict::OutOfTime;
    }
    if let Err(why) = valid_at(certificate, signer, created) {
        return Verdict::Invalid(why);
    }
    // Where clocks differ, the key may be as new as the signature: never judged at a time before it.
    match valid_at(certificate, signer, now.max(created)) {
        Ok(()) => Verdict::Good,
        Err(why) => Verdict::Lapsed(why),
    }
}

fn valid_at(certificate: &SignedPublicKey, signer: &Signer<'_>, at: u64) -> Result<(), &'static str> {
    match signer {
        Signer::Primary => primary_valid_at(certificate, at, true),
        Signer::Subkey(subkey) => {
            primary_valid_at(certificate, at, false)?;
            subkey_valid_at(certificate, subkey, at)
        }
    }
}

/// The key of a certificate that a signature names as its maker.
fn signing_key<'a>(certificate: &'a SignedPublicKey, signature: &Signature) -> Option<Signer<'a>> {
    let named = |fingerprint: &pgp::types::Fingerprint, id: &pgp::types::KeyId| {
        let fingerprints = signature.issuer_fingerprint();
        if fingerprints.is_empty() {
            return signature.issuer_key_id().contains(&id);
        }
        fingerprints.contains(&fingerprint)
    };
    if named(&certificate.fingerprint(), &certificate.legacy_key_id()) {
        return Some(Signer::Primary);
    }
    let subkey = certificate.public_subkeys.iter().find(|key| named(&key.fingerprint(), &key.legacy_key_id()));
    subkey.map(Signer::Subkey)
}

fn issuer_of(signature: &Signature) -> String {
    let fingerprint = signature.issuer_fingerprint().first().map(|fingerprint| format!("{fingerprint:X}"));
    let id = || signature.issuer_key_id().first().map(|id| id.to_string().to_uppercase());
    fingerprint.or_else(id).unwrap_or_else(|| "a key that it does not name".to_owned())
}

/// Signatures from the future are refused, but clocks may differ by this much.
const CLOCK_SLACK_S: u64 = 24 * 3600;

fn is_current(signature: &Signature, created: u64, now: u64) -> bool {
    let lifetime = signature.signature_expiration_time().map_or(0, |duration| u64::from(duration.as_secs()));
    created <= now.saturating_add(CLOCK_SLACK_S) && (lifetime == 0 || now < created + lifetime)
}

/// Whether a primary key was valid at a time, and, if `signs`, whether it may sign data itself.
fn primary_valid_at(certificate: &SignedPublicKey, at: u64, signs: bool) -> Result<(), &'static str> {
    let key = &certificate.primary_key;
    let revocations = certificate.details.revocation_signatures.iter();
    if revocations.filter(|revocation| revocation.verify_key(key).is_ok()).any(|revocation| revokes(revocation, at)) {
        return Err("had been revoked");
    }
    let direct = certificate.details.direct_signatures.iter().filter(|signature| signature.verify_key(key).is_ok());
    let named = certificate.details.users.iter().flat_map(|user| {
        user.signatures.iter().filter(|signature| {
            signature.is_certification() && signature.verify_certification(key, Tag::UserId, &user.id).is_ok()
        })
    });
    let newest = direct.chain(named).max_by_key(|signature| signature.created().map(|time| time.as_secs()));
    let newest = newest.ok_or("does not vouch for itself")?;
    lives_at(u64::from(key.created_at().as_secs()), newest, at)?;
    if signs && !may_sign(newest, true) { Err("may not sign data") } else { Ok(()) }
}

fn subkey_valid_at(certificate: &SignedPublicKey, subkey: &SignedPublicSubKey, at: u64) -> Result<(), &'static str> {
    let primary = &certificate.primary_key;
    let valid =
        || subkey.signatures.iter().filter(|signature| signature.verify_subkey_binding(primary, &subkey.key).is_ok());
    let of_type = |wanted: SignatureType| valid().filter(move |signature| signature.typ() == Some(wanted));
    if of_type(SignatureType::SubkeyRevocation).any(|revocation| revokes(revocation, at)) {
        return Err("had been revoked");
    }
    let newest = of_type(SignatureType::SubkeyBinding)
        .max_by_key(|signature| signature.created().map(|time| time.as_secs()))
        .ok_or("does not belong to the key it is filed under")?;
    lives_at(u64::from(subkey.key.created_at().as_secs()), newest, at)?;
    // Without the back signature, anybody could file somebody else's signing subkey under a key of theirs.
    let back =
        newest.embedded_signature().is_some_and(|back| back.verify_primary_key_binding(&subkey.key, primary).is_ok());
    if !back || !may_sign(newest, false) { Err("may not sign data") } else { Ok(()) }
}

/// A key that was retired in good order was valid before; for any other reason it never was.
fn revokes(revocation: &Signature, at: u64) -> bool {
    let orderly =
        matches!(revocation.revocation_reason_code(), Some(RevocationCode::KeySuperseded | RevocationCode::KeyRetired));
    !orderly || revocation.created().is_none_or(|time| u64::from(time.as_secs()) <= at)
}

fn lives_at(created: u64, self_signature: &Signature, at: u64) -> Result<(), &'static str> {
    let lifetime = self_signature.key_expiration_time().map_or(0, |duration| u64::from(duration.as_secs()));
    if at < created {
        return Err("did not exist yet");
    }
    if lifetime > 0 && at >= created + lifetime { Err("had expired") } else { Ok(()) }
}

/// Whether the key flags allow signing data; `default` where there are none.
fn may_sign(self_signature: &Signature, default: bool) -> bool {
    let flags = self_signature.config().and_then(|config| {
        config.hashed_subpackets().find(|subpacket| matches!(subpacket.data, SubpacketData::KeyFlags(_)))
    });
    flags.map_or(default, |_| self_signature.key_flags().sign())
}
