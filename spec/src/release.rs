//! Signed releases of images: the in-toto Statement (in-toto attestation framework, Statement v1) that says who released
//! which artifacts, as the how-manieth, and until when. It is signed in a DSSE envelope (crate `sign`).
//!
//! Only what is here is signed; the manifest is covered by its SHA-256 among the subjects, and covers all else.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::canonical::{CanonicalError, to_canonical_bytes};
use crate::digest::Sha256Digest;
use crate::manifest::{self, Class, Manifest};
use crate::text::SyntaxError;
use crate::time::Timestamp;

/// The name of the signed statement in a bundle.
pub const FILE_NAME: &str = "release.dsse.json";
/// `_type` of an in-toto Statement.
pub const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";
/// The DSSE payload type of an in-toto Statement.
pub const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";
/// `predicateType` of a release.
pub const PREDICATE_TYPE: &str = "urn:bullion:release:v1";
/// The largest sequence: what canonical JSON can write.
pub const MAX_SEQUENCE: u64 = 1 << 53;

/// An in-toto Statement about files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Statement<P> {
    /// `STATEMENT_TYPE`.
    #[serde(rename = "_type")]
    pub statement_type: String,
    /// The files, by name.
    pub subject: Vec<Subject>,
    /// What `predicate` is.
    #[serde(rename = "predicateType")]
    pub predicate_type: String,
    /// What is said about them.
    pub predicate: P,
}

/// A file that a statement is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subject {
    /// Its name.
    pub name: String,
    /// Its digest.
    pub digest: Digest,
}

/// A digest set with the one algorithm of ours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Digest {
    /// SHA-256.
    pub sha256: Sha256Digest,
}

/// What a release says beside the digests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Release {
    /// The image's name.
    pub name: String,
    /// How far its origin is known.
    pub class: Class,
    /// Releases of one name by one key have rising numbers, so that an older one is noticed.
    pub sequence: u64,
    /// When the release stops being one. Its signer has to say again that it is good.
    pub expires: Timestamp,
    /// The security version of the guest, as in an SNP ID block's GUEST_SVN.
    pub guest_svn: u32,
}

impl<P> Statement<P> {
    /// A statement about these files.
    pub fn about(files: &BTreeMap<String, Sha256Digest>, predicate_type: &str, predicate: P) -> Self {
        let subject = |(name, sha256): (&String, &Sha256Digest)| Subject {
            name: name.clone(),
            digest: Digest { sha256: *sha256 },
        };
        Self {
            statement_type: STATEMENT_TYPE.to_owned(),
            subject: files.iter().map(subject).collect(),
            predicate_type: predicate_type.to_owned(),
            predicate,
        }
    }
}

impl Statement<Release> {
    /// The release of an image whose `manifest.json` has this SHA-256.
    pub fn release(manifest: &Manifest, manifest_sha256: Sha256Digest, release: Release) -> Self {
        Self::about(&covered(manifest, manifest_sha256), PREDICATE_TYPE, release)
    }

    /// Reads the statement of a release; `file` is used in messages.
    pub fn parse(file: &str, bytes: &[u8]) -> Result<Self, SyntaxError> {
        let wrong = |message: String| Err(SyntaxError::whole(file, message));
        let statement: Self =
            serde_json::from_slice(bytes).map_err(|error| SyntaxError::whole(file, error.to_string()))?;
        if statement.statement_type != STATEMENT_TYPE {
            return wrong(format!("_type is {:?}, expected {STATEMENT_TYPE:?}", statement.statement_type));
        }
        if statement.predicate_type != PREDICATE_TYPE {
            return wrong(format!("predicateType is {:?}, expected {PREDICATE_TYPE:?}", statement.predicate_type));
        }
        if statement.predicate.sequence > MAX_SEQUENCE {
            return wrong(format!("sequence {} is larger than {MAX_SEQUENCE}", statement.predicate.sequence));
        }
        Ok(statement)
    }

    /// The bytes that are signed.
    pub fn to_bytes(&self) -> Result<Vec<u8>, CanonicalError> {
        to_canonical_bytes(self)
    }

    /// Whether this is about exactly the files of `manifest`, whose own file has this SHA-256. The answer names what is not
    /// as it should be.
    pub fn covers(&self, manifest: &Manifest, manifest_sha256: Sha256Digest) -> Result<(), String> {
        let found: BTreeMap<&String, &Sha256Digest> =
            self.subject.iter().map(|subject| (&subject.name, &subject.digest.sha256)).collect();
        if found.len() != self.subject.len() {
            return Err("a subject is named twice".to_owned());
        }
        let expected = covered(manifest, manifest_sha256);
        for (name, sha256) in &expected {
            match found.get(name) {
                None => return Err(format!("it is not about {name}")),
                Some(found) if *found != sha256 => {
                    return Err(format!("it is about {name} with SHA-256 {found}, found {sha256}"));
                }
                Some(_) => {}
            }
        }
        if let Some(more) = found.keys().find(|name| !expected.contains_key(**name)) {
            return Err(format!("it is about {more:?}, which the manifest does not have"));
        }
        let release = &self.predicate;
        if release.name != manifest.name {
            return Err(format!(
                "it is about an image called {:?}, the manifest's is {:?}",
                release.name, manifest.name
            ));
        }
        if release.class != manifest.class {
            return Err(format!("it says class {}, the manifest {}", release.class, manifest.class));
        }
        let blocks = manifest.references.snp.iter().filter_map(|reference| reference.id_block.as_ref());
        if let Some(block) = blocks.into_iter().find(|block| block.guest_svn != release.guest_svn) {
            return Err(format!(
                "it says guest SVN {}, an ID block of the manifest {}",
                release.guest_svn, block.guest_svn
            ));
        }
        Ok(())
    }
}

/// The files that a release is about, with their SHA-256.
fn covered(manifest: &Manifest, manifest_sha256: Sha256Digest) -> BTreeMap<String, Sha256Digest> {
    let files = manifest.files().map(|(name, file)| (name.clone(), file.sha256));
    files.chain([(manifest::FILE_NAME.to_owned(), manifest_sha256)]).collect()
}
