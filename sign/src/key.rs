//! Key pairs of the two algorithms: ECDSA on P-384 with SHA-384 (which SNP ID blocks need too) and Ed25519.
//!
//! Encodings are those that `openssl` and other verifiers of DSSE expect: PKCS#8 and SubjectPublicKeyInfo in PEM (RFC 5958,
//! RFC 5280, RFC 7468), ECDSA signatures in DER (RFC 3279 section 2.2.3), Ed25519 ones raw (RFC 8032).

use std::fmt;

use ed25519_dalek::{Signer as _, Verifier as _};
use p384::ecdsa;
use p384::pkcs8::{
    self, DecodePrivateKey as _, DecodePublicKey as _, EncodePrivateKey as _, EncodePublicKey as _, LineEnding,
    PrivateKeyInfo, SecretDocument, der::pem::PemLabel as _,
};
use rand_core::{OsRng, RngCore as _};
use spec::Sha256Digest;
use zeroize::Zeroizing;

use crate::error::KeyError;

/// A signature algorithm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// ECDSA on NIST P-384 with SHA-384, with nonces of RFC 6979.
    EcdsaP384,
    /// Ed25519.
    Ed25519,
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::EcdsaP384 => "ECDSA P-384",
            Self::Ed25519 => "Ed25519",
        })
    }
}

/// A private key. `Debug` shows its identifier only; the number itself is zeroized on drop.
pub struct PrivateKey(Private);

// Both library types zeroize themselves when dropped.
enum Private {
    EcdsaP384(Box<ecdsa::SigningKey>),
    Ed25519(Box<ed25519_dalek::SigningKey>),
}

/// A public key.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey(Public);

#[derive(Clone, PartialEq, Eq)]
enum Public {
    EcdsaP384(Box<ecdsa::VerifyingKey>),
    Ed25519(Box<ed25519_dalek::VerifyingKey>),
}

/// An ECDSA signature as two numbers, big-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct P384Signature {
    /// The number r.
    pub r: [u8; 48],
    /// The number s.
    pub s: [u8; 48],
}

/// A point of P-384 as two numbers, big-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct P384Point {
    /// The x coordinate.
    pub x: [u8; 48],
    /// The y coordinate.
    pub y: [u8; 48],
}

impl P384Point {
    /// Whether `signature` is one of this key over `message`, with SHA-384. False for a point that is not on the curve.
    pub fn verifies(&self, message: &[u8], signature: &P384Signature) -> bool {
        let point = p384::EncodedPoint::from_affine_coordinates(&self.x.into(), &self.y.into(), false);
        let key = ecdsa::VerifyingKey::from_encoded_point(&point);
        let signature = ecdsa::Signature::from_scalars(signature.r, signature.s);
        key.is_ok_and(|key| signature.is_ok_and(|signature| key.verify(message, &signature).is_ok()))
    }
}

impl PrivateKey {
    /// A new key from the operating system's random numbers.
    pub fn generate(algorithm: Algorithm) -> Result<Self, KeyError> {
        // Asked for once with an error to catch, because the libraries' own way panics.
        let mut seed = Zeroizing::new([0; 48]);
        loop {
            OsRng.try_fill_bytes(seed.as_mut()).map_err(|_| KeyError::NoRandomness)?;
            match algorithm {
                Algorithm::Ed25519 => {
                    let (half, _) = seed.split_first_chunk::<32>().ok_or(KeyError::NoRandomness)?;
                    return Ok(Self(Private::Ed25519(Box::new(ed25519_dalek::SigningKey::from_bytes(half)))));
                }
                // A number that is zero or beyond the order is drawn again (FIPS 186-5, A.2.2).
                Algorithm::EcdsaP384 => {
                    if let Ok(key) = ecdsa::SigningKey::from_slice(seed.as_ref()) {
                        return Ok(Self(Private::EcdsaP384(Box::new(key))));
                    }
                }
            }
        }
    }

    /// Reads unencrypted PKCS#8 in PEM; `file` is used in messages.
    pub fn from_pem(file: &str, pem: &str) -> Result<Self, KeyError> {
        if let Ok(key) = ecdsa::SigningKey::from_pkcs8_pem(pem) {
            return Ok(Self(Private::EcdsaP384(Box::new(key))));
        }
        match ed25519_dalek::SigningKey::from_pkcs8_pem(pem) {
            Ok(key) => Ok(Self(Private::Ed25519(Box::new(key)))),
            Err(_) => Err(not_a_key(file, "a private key", pem)),
        }
    }

    /// PKCS#8 in PEM.
    pub fn to_pem(&self) -> Result<Zeroizing<String>, KeyError> {
        let pem = match &self.0 {
            Private::EcdsaP384(key) => key.to_pkcs8_pem(LineEnding::LF),
            Private::Ed25519(key) => ed25519_pem(key),
        };
        pem.map_err(|error| cannot_encode(&error))
    }

    /// The algorithm.
    pub fn algorithm(&self) -> Algorithm {
        match &self.0 {
            Private::EcdsaP384(_) => Algorithm::EcdsaP384,
            Private::Ed25519(_) => Algorithm::Ed25519,
        }
    }

    /// The public half.
    pub fn public(&self) -> PublicKey {
        PublicKey(match &self.0 {
            Private::EcdsaP384(key) => Public::EcdsaP384(Box::new(*key.verifying_key())),
            Private::Ed25519(key) => Public::Ed25519(Box::new(key.verifying_key())),
        })
    }

    /// Signs `message`. The same key and message always give the same signature.
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        match &self.0 {
            Private::EcdsaP384(key) => {
                let signature: ecdsa::DerSignature = key.sign(message);
                signature.as_bytes().to_vec()
            }
            Private::Ed25519(key) => key.sign(message).to_bytes().to_vec(),
        }
    }

    /// Signs `message` with SHA-384 for those who want the two numbers (SNP ID blocks); `None` for another algorithm.
    pub fn sign_p384(&self, message: &[u8]) -> Option<P384Signature> {
        let Private::EcdsaP384(key) = &self.0 else { return None };
        let signature: ecdsa::Signature = key.sign(message);
        let (r, s) = signature.split_bytes();
        Some(P384Signature { r: r.into(), s: s.into() })
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrivateKey({:?})", self.public())
    }
}

impl PublicKey {
    /// Reads SubjectPublicKeyInfo in PEM; `file` is used in messages.
    pub fn from_pem(file: &str, pem: &str) -> Result<Self, KeyError> {
        if let Ok(key) = ecdsa::VerifyingKey::from_public_key_pem(pem) {
            return Ok(Self(Public::EcdsaP384(Box::new(key))));
        }
        match ed25519_dalek::VerifyingKey::from_public_key_pem(pem) {
            // A point of small order makes signatures that anybody can forge.
            Ok(key) if !key.is_weak() => Ok(Self(Public::Ed25519(Box::new(key)))),
            _ => Err(not_a_key(file, "a public key", pem)),
        }
    }

    /// SubjectPublicKeyInfo in PEM.
    pub fn to_pem(&self) -> Result<String, KeyError> {
        let pem = match &self.0 {
            Public::EcdsaP384(key) => key.to_public_key_pem(LineEnding::LF),
            Public::Ed25519(key) => key.to_public_key_pem(LineEnding::LF),
        };
        pem.map_err(|error| cannot_encode(&error))
    }

    /// The algorithm.
    pub fn algorithm(&self) -> Algorithm {
        match &self.0 {
            Public::EcdsaP384(_) => Algorithm::EcdsaP384,
            Public::Ed25519(_) => Algorithm::Ed25519,
        }
    }

    /// The key's identifier: SHA-256 of its SubjectPublicKeyInfo in DER.
    pub fn id(&self) -> Result<Sha256Digest, KeyError> {
        let der = match &self.0 {
            Public::EcdsaP384(key) => key.to_public_key_der(),
            Public::Ed25519(key) => key.to_public_key_der(),
        };
        der.map(|der| Sha256Digest::of(der.as_bytes())).map_err(|error| cannot_encode(&error))
    }

    /// Whether `signature` is one of this key over `message`.
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        match &self.0 {
            Public::EcdsaP384(key) => ecdsa::DerSignature::from_bytes(signature)
                .is_ok_and(|signature| ecdsa::signature::Verifier::verify(&**key, message, &signature).is_ok()),
            Public::Ed25519(key) => ed25519_dalek::Signature::from_slice(signature)
                .is_ok_and(|signature| key.verify(message, &signature).is_ok()),
        }
    }

    /// The point (SNP ID blocks); `None` for another algorithm.
    pub fn p384_point(&self) -> Option<P384Point> {
        let Public::EcdsaP384(key) = &self.0 else { return None };
        let point = key.to_encoded_point(false);
        Some(P384Point { x: (*point.x()?).into(), y: (*point.y()?).into() })
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.algorithm(), self.id().map(|id| id.to_string()).unwrap_or_default())
    }
}

/// Without the public half, with which it would be version 2 of the format: OpenSSL 3.0 does not read that.
fn ed25519_pem(key: &ed25519_dalek::SigningKey) -> pkcs8::Result<Zeroizing<String>> {
    const OCTET_STRING_OF_32: [u8; 2] = [4, 32];
    let number = Zeroizing::new(key.to_bytes());
    let octets = Zeroizing::new([OCTET_STRING_OF_32.as_slice(), number.as_slice()].concat());
    let info = PrivateKeyInfo::new(ed25519_dalek::pkcs8::ALGORITHM_ID, &octets);
    Ok(SecretDocument::try_from(info)?.to_pem(PrivateKeyInfo::PEM_LABEL, LineEnding::LF)?)
}

fn not_a_key(file: &str, expected: &'static str, pem: &str) -> KeyError {
    let label = pem.lines().find_map(|line| line.strip_prefix("-----BEGIN ")?.strip_suffix("-----"));
    let reason = match label {
        Some(label) if matches!(label, "PRIVATE KEY" | "PUBLIC KEY") => {
            format!("it holds a {label} that is damaged, or of another algorithm or curve")
        }
        Some(label) => format!("it holds a PEM block \"{}\"", label.escape_default()),
        None => "it holds no PEM block".to_owned(),
    };
    KeyError::NotAKey { file: file.to_owned(), expected, reason }
}

fn cannot_encode(error: &impl fmt::Display) -> KeyError {
    KeyError::NotAKey { file: "the key".to_owned(), expected: "a key that can be written", reason: error.to_string() }
}
