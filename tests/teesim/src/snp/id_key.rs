//! Keys and signatures in the secure processor's own layout (AMD 56860, "ECDSA P-384 Public Key" and "Signature"): integers of
//! 72 bytes, least significant byte first.

use p384::EncodedPoint;
use p384::ecdsa::signature::hazmat::PrehashVerifier as _;
use p384::ecdsa::{Signature, VerifyingKey};
use sha2::{Digest as _, Sha384};

/// The bytes of a public key.
pub(super) const KEY_SIZE: usize = 0x404;
/// The bytes of a signature.
pub(super) const SIGNATURE_SIZE: usize = 0x200;
/// The bytes of one integer.
const INTEGER_SIZE: usize = 72;
/// CURVE: P-384.
const CURVE_P384: u32 = 2;

/// A public key.
#[derive(Clone)]
pub(super) struct Key([u8; KEY_SIZE]);

impl Key {
    pub(super) fn new(bytes: [u8; KEY_SIZE]) -> Self {
        Self(bytes)
    }

    /// ID_KEY_DIGEST or AUTHOR_KEY_DIGEST of an attestation report.
    pub(super) fn digest(&self) -> [u8; 48] {
        Sha384::digest(self.0).into()
    }

    /// The bytes that the author key signs.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether `signature` is this key's over `message`. A key or a signature that is none verifies nothing.
    pub(super) fn verifies(&self, message: &[u8], signature: &[u8; SIGNATURE_SIZE]) -> bool {
        self.verify(message, signature).is_some()
    }

    fn verify(&self, message: &[u8], signature: &[u8; SIGNATURE_SIZE]) -> Option<()> {
        let (curve, point) = self.0.split_first_chunk::<4>()?;
        if u32::from_le_bytes(*curve) != CURVE_P384 {
            return None;
        }
        let point = EncodedPoint::from_affine_coordinates(
            &integer(point, 0)?.into(),
            &integer(point, INTEGER_SIZE)?.into(),
            false,
        );
        let key = VerifyingKey::from_encoded_point(&point).ok()?;
        let signature = Signature::from_scalars(integer(signature, 0)?, integer(signature, INTEGER_SIZE)?).ok()?;
        key.verify_prehash(&Sha384::digest(message), &signature).ok()
    }
}

/// The integer at `offset`, most significant byte first; `None` where it has more than 384 bits.
fn integer(bytes: &[u8], offset: usize) -> Option<[u8; 48]> {
    let (low, high) = bytes.get(offset..offset + INTEGER_SIZE)?.split_first_chunk::<48>()?;
    if high.iter().any(|byte| *byte != 0) {
        return None;
    }
    let mut integer = *low;
    integer.reverse();
    Some(integer)
}
