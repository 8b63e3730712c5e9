//! Which entry of db lets firmware start an image: what EV_EFI_VARIABLE_AUTHORITY measures where Secure Boot is on (edk2
//! `SecurityPkg/Library/DxeImageVerificationLib`, `DxeImageVerificationHandler`; TCG PC Client Platform Firmware Profile 1.06,
//! 3.3.4.8).
//!
//! Signatures are verified, as firmware does it. Left to others: shim's MokList, which is measured by shim itself.

use alloc::vec::Vec;

use super::signature_list::{CERT_SHA256, CERT_X509, CERT_X509_SHA256, DamagedList, Signature as Entry, signatures};
use super::variable::{SECURITY, SecureBootVariables, variable_data};
use crate::authenticode::certificates::signed_messages;
use crate::authenticode::signed::{Signature, SignatureError, certificate_digest};
use crate::authenticode::{self, PeError};
use crate::digest::{Digest256, Digest384};
use crate::guid::Guid;

/// Why an image is not started, or why that cannot be told.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthorityError {
    /// The image cannot be read.
    #[error(transparent)]
    Pe(#[from] PeError),
    /// A signature of it cannot be checked.
    #[error(transparent)]
    Signature(#[from] SignatureError),
    /// A database cannot be read.
    #[error("{name}: {error}")]
    Database {
        /// Which one.
        name: &'static str,
        /// What is wrong with it.
        error: DamagedList,
    },
    /// dbx forbids something by a kind of entry that is not looked at here: whether it is the image is not known.
    #[error("dbx has an entry of a kind that is not known: {0}")]
    UnknownKind(Guid),
    /// It has no signature, and its digest is not in db.
    #[error("firmware does not start the image: it is not signed, and its digest is not in db")]
    NotSigned,
    /// No entry of db verifies it.
    #[error(
        "firmware does not start the image: no certificate in db leads to a signature of it, and its digest is not in db"
    )]
    NotAllowed,
    /// An entry of dbx forbids it.
    #[error("firmware does not start the image: {0} is in dbx")]
    Revoked(&'static str),
}

const DBX_KINDS: [Guid; 3] = [CERT_SHA256, CERT_X509, CERT_X509_SHA256];

/// What firmware measures when it has verified an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Authority(pub Digest384);

impl Authority {
    /// Of an image that firmware with these databases starts.
    pub fn of_image(image: &[u8], variables: &SecureBootVariables) -> Result<Self, AuthorityError> {
        let read = |name, database| signatures(database).map_err(|error| AuthorityError::Database { name, error });
        let (db, dbx) = (read("db", &variables.db)?, read("dbx", &variables.dbx)?);
        if let Some(entry) = dbx.iter().find(|entry| !DBX_KINDS.contains(&entry.kind)) {
            return Err(AuthorityError::UnknownKind(entry.kind));
        }
        let digest = authenticode::sha256(image)?;
        let messages = signed_messages(image)?;
        let checked = messages.iter().map(|message| Signature::check(message, &digest));
        let checked = checked.collect::<Result<Vec<_>, _>>()?;
        for signature in &checked {
            check_revoked(signature, &dbx)?;
        }
        if of_kind(&dbx, CERT_SHA256).any(|data| data == digest.0) {
            return Err(AuthorityError::Revoked("its digest"));
        }
        // One signature after the other: the first entry that leads to it, else, before the next is tried, the digest.
        let certificates = || db.iter().filter(|entry| entry.kind == CERT_X509);
        let verifying = |signature: &Signature| certificates().find(|entry| signature.leads_to(entry.data()));
        let by_digest = db.iter().find(|entry| entry.kind == CERT_SHA256 && entry.data() == digest.0);
        let entry = checked.iter().find_map(|signature| verifying(signature).or(by_digest)).or(by_digest);
        let Some(entry) = entry else {
            return Err(if checked.is_empty() { AuthorityError::NotSigned } else { AuthorityError::NotAllowed });
        };
        let is_revoked = |digest: Digest256| of_kind(&dbx, CERT_X509_SHA256).any(|data| data.starts_with(&digest.0));
        if entry.kind == CERT_X509 && certificate_digest(entry.data()).is_some_and(is_revoked) {
            return Err(AuthorityError::Revoked("the certificate that verifies it"));
        }
        Ok(Self::of_entry(entry.entry))
    }

    /// Of an entry of db: EFI_SIGNATURE_DATA, as the value of a variable of that name.
    pub fn of_entry(entry: &[u8]) -> Self {
        Self(Digest384::of(&variable_data(&SECURITY, &"db".into(), entry)))
    }
}

fn of_kind<'a>(entries: &[Entry<'a>], kind: Guid) -> impl Iterator<Item = &'a [u8]> {
    entries.iter().filter(move |entry| entry.kind == kind).map(Entry::data)
}

/// A certificate in dbx forbids what it leads to; a digest there, the certificate that has it. Times of revocation are not looked at:
/// what is revoked from some time on counts as revoked.
fn check_revoked(signature: &Signature, dbx: &[Entry<'_>]) -> Result<(), AuthorityError> {
    if of_kind(dbx, CERT_X509).any(|certificate| signature.may_lead_to(certificate)) {
        return Err(AuthorityError::Revoked("a certificate that leads to its signature"));
    }
    let carried = signature.carried_digests();
    let is_carried = |data: &[u8]| carried.iter().any(|digest| data.starts_with(&digest.0));
    match of_kind(dbx, CERT_X509_SHA256).any(is_carried) {
        true => Err(AuthorityError::Revoked("a certificate in its signature")),
        false => Ok(()),
    }
}
