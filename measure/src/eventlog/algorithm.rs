//! Hash algorithms of logs and PCR banks, by TPM_ALG_ID (TPM 2.0 Library, part 2, "TPM_ALG_ID"). SHA-1 is here because TPMs of
//! version 1.2 have nothing else: what it says is shown, and proves little.

use alloc::vec::Vec;

use sha1::Sha1;
use sha2::{Sha256, Sha384, Sha512};

/// A hash algorithm by its TPM_ALG_ID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AlgorithmId(pub u16);

impl AlgorithmId {
    /// SHA-1.
    pub const SHA1: Self = Self(0x4);
    /// SHA-256.
    pub const SHA256: Self = Self(0xb);
    /// SHA-384.
    pub const SHA384: Self = Self(0xc);
    /// SHA-512.
    pub const SHA512: Self = Self(0xd);

    /// Its name as TPM tools write it; `None` for others.
    pub fn name(self) -> Option<&'static str> {
        Some(match self {
            Self::SHA1 => "sha1",
            Self::SHA256 => "sha256",
            Self::SHA384 => "sha384",
            Self::SHA512 => "sha512",
            _ => return None,
        })
    }

    /// How many bytes its digests have; `None` for others.
    pub(super) fn digest_size(self) -> Option<usize> {
        Some(match self {
            Self::SHA1 => 20,
            Self::SHA256 => 32,
            Self::SHA384 => 48,
            Self::SHA512 => 64,
            _ => return None,
        })
    }

    /// The digest of the parts, one after the other; `None` for others.
    pub(super) fn digest(self, parts: &[&[u8]]) -> Option<Vec<u8>> {
        fn of<D: sha2::Digest>(parts: &[&[u8]]) -> Vec<u8> {
            parts.iter().fold(D::new(), |hasher, part| hasher.chain_update(part)).finalize().to_vec()
        }
        Some(match self {
            Self::SHA1 => of::<Sha1>(parts),
            Self::SHA256 => of::<Sha256>(parts),
            Self::SHA384 => of::<Sha384>(parts),
            Self::SHA512 => of::<Sha512>(parts),
            _ => return None,
        })
    }
}
