//! The Dead Simple Signing Envelope (DSSE v1, secure-systems-lab): a payload, its type, and signatures over both.
//!
//! The payload is handed out only by `open`, after a signature over it has verified, so that nothing is read unverified.

use base64ct::{Base64, Encoding as _};
use serde::{Deserialize, Serialize};
use spec::{Diagnostic, Outcome};

use crate::error::KeyError;
use crate::key::{PrivateKey, PublicKey};

/// Nobody signs more often; each signature costs a verification.
const MAX_SIGNATURES: usize = 16;

/// A signed payload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Envelope {
    /// The payload in base64.
    payload: String,
    /// What the payload is.
    #[serde(rename = "payloadType")]
    payload_type: String,
    /// Who signed it.
    signatures: Vec<Signature>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Signature {
    /// Which key signed; a hint that is not signed itself.
    #[serde(default)]
    keyid: String,
    /// The signature in base64.
    sig: String,
}

/// An envelope that gives no payload.
#[derive(Debug, thiserror::Error)]
pub enum EnvelopeError {
    /// It is none.
    #[error("{file} is not a DSSE envelope: {reason}")]
    Malformed {
        /// The file.
        file: String,
        /// What is wrong.
        reason: String,
    },
    /// No trusted key signed it.
    #[error("{file} has no good signature by a trusted key: {tried} trusted, signed by {signed_by}")]
    NotTrusted {
        /// The file.
        file: String,
        /// How many keys are trusted.
        tried: usize,
        /// The key identifiers that the envelope claims.
        signed_by: String,
    },
    /// A trusted key is said to have signed it, and has not.
    #[error("{file} has a bad signature by the trusted key {key}: it was changed after it was signed")]
    BadSignature {
        /// The file.
        file: String,
        /// The key's identifier.
        key: String,
    },
    /// A key cannot be used.
    #[error(transparent)]
    Key(#[from] KeyError),
}

impl Diagnostic for EnvelopeError {
    fn outcome(&self) -> Outcome {
        match self {
            Self::Key(error) => error.outcome(),
            _ => Outcome::SignatureInvalid,
        }
    }
    fn hint(&self) -> Option<String> {
        match self {
            Self::NotTrusted { .. } => {
                Some("name the publisher's public key with --trust FILE, if you know it to be theirs".to_owned())
            }
            Self::Key(error) => error.hint(),
            Self::Malformed { .. } | Self::BadSignature { .. } => Some("fetch the bundle again".to_owned()),
        }
    }
}

/// What is signed: PAE of the DSSE protocol, "DSSEv1" SP LEN(type) SP type SP LEN(body) SP body.
pub fn pre_authentication_encoding(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let head = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len());
    [head.as_bytes(), payload].concat()
}

impl Envelope {
    /// Signs `payload`.
    pub fn seal(payload_type: &str, payload: &[u8], key: &PrivateKey) -> Result<Self, KeyError> {
        let signature = key.sign(&pre_authentication_encoding(payload_type, payload));
        Ok(Self {
            payload: Base64::encode_string(payload),
            payload_type: payload_type.to_owned(),
            signatures: vec![Signature {
                keyid: key.public().id()?.to_string(),
                sig: Base64::encode_string(&signature),
            }],
        })
    }

    /// Reads an envelope; `file` is used in messages.
    pub fn parse(file: &str, bytes: &[u8]) -> Result<Self, EnvelopeError> {
        let malformed = |reason: String| EnvelopeError::Malformed { file: file.to_owned(), reason };
        let envelope: Self = serde_json::from_slice(bytes).map_err(|error| malformed(error.to_string()))?;
        match envelope.signatures.len() {
            0 => Err(malformed("it has no signature".to_owned())),
            count if count > MAX_SIGNATURES => Err(malformed(format!("it has {count} signatures"))),
            _ => Ok(envelope),
        }
    }

    /// The file's bytes.
    pub fn to_bytes(&self) -> Result<Vec<u8>, spec::canonical::CanonicalError> {
        let mut bytes = spec::canonical::to_canonical_bytes(self)?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// The payload, if it has this type and one of `keys` signed it; and the key that did.
    pub fn open<'a>(
        &self,
        file: &str,
        payload_type: &str,
        keys: &'a [PublicKey],
    ) -> Result<(Vec<u8>, &'a PublicKey), EnvelopeError> {
        let malformed = |reason: String| EnvelopeError::Malformed { file: file.to_owned(), reason };
        if self.payload_type != payload_type {
            return Err(malformed(format!("payloadType is {:?}, expected {payload_type:?}", self.payload_type)));
        }
        let payload = Base64::decode_vec(&self.payload).map_err(|_| malformed("payload is not base64".to_owned()))?;
        let message = pre_authentication_encoding(payload_type, &payload);
        let mut bad = None;
        for signature in &self.signatures {
            let bytes = Base64::decode_vec(&signature.sig).map_err(|_| malformed("sig is not base64".to_owned()))?;
            for key in keys {
                let id = key.id()?.to_string();
                if key.verifies(&message, &bytes) {
                    return Ok((payload, key));
                }
                if id == signature.keyid {
                    bad = Some(id);
                }
            }
        }
        Err(match bad {
            Some(key) => EnvelopeError::BadSignature { file: file.to_owned(), key },
            None => EnvelopeError::NotTrusted { file: file.to_owned(), tried: keys.len(), signed_by: self.claimed() },
        })
    }

    /// Who is said to have signed, for people.
    fn claimed(&self) -> String {
        let ids = self.signatures.iter().map(|signature| match signature.keyid.as_str() {
            "" => "a key that is not named".to_owned(),
            id => id.chars().take(64).collect(),
        });
        ids.collect::<Vec<_>>().join(", ")
    }
}
