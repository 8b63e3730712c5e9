//! The ID block and its authentication information (AMD 56860, SNP_LAUNCH_FINISH, "ID Block" and "ID Authentication
//! Information Structure"): layouts and the checks that need no key. Signing is done where the image is built; a key on the
//! launching host would prove nothing.

use alloc::vec::Vec;

use crate::digest::Digest384;
use crate::firmware::{PAGE_BYTES, Page};
use crate::read::Reader;

/// The size of an ID block.
pub const ID_BLOCK_SIZE: usize = 96;
/// The size of a public key.
pub const PUBLIC_KEY_SIZE: usize = 0x404;
/// The size of a signature.
pub const SIGNATURE_SIZE: usize = 512;
/// ECDSA P-384 with SHA-384, the only algorithm.
const ECDSA_P384_SHA384: u32 = 1;
/// P-384 as a curve.
const CURVE_P384: u32 = 2;
/// Numbers are 576 bits wide, of which P-384 uses 384.
const NUMBER_SIZE: usize = 72;
const USED_SIZE: usize = 48;

/// Bytes that are not what they should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdBlockError {
    /// The wrong number of bytes.
    #[error("{what} has {found} bytes: expected {expected}")]
    Size {
        /// Which structure.
        what: &'static str,
        /// How many bytes there are.
        found: usize,
        /// How many there should be.
        expected: usize,
    },
    /// A field has a value that the secure processor refuses.
    #[error("{field} of the {what} is not {expected}")]
    Field {
        /// Which structure.
        what: &'static str,
        /// Which field.
        field: &'static str,
        /// What it should be.
        expected: &'static str,
    },
}

/// An ID block that does not fit a launch.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdBlockMismatch {
    /// SNP_LAUNCH_FINISH would fail with BAD_MEASUREMENT.
    #[error("the ID block is for launch digest {expected}, the launch has {found}")]
    LaunchDigest {
        /// What the block says.
        expected: Digest384,
        /// What is launched.
        found: Digest384,
    },
    /// SNP_LAUNCH_FINISH would fail with POLICY_FAILURE.
    #[error("the ID block is for policy {expected:#x}, the launch has {found:#x}")]
    Policy {
        /// What the block says.
        expected: u64,
        /// What is launched.
        found: u64,
    },
}

/// An ID block: what its signer allows to be launched, and as what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdBlock {
    /// The launch digest.
    pub launch_digest: Digest384,
    /// FAMILY_ID, the signer's to choose.
    pub family_id: [u8; 16],
    /// IMAGE_ID, the signer's to choose.
    pub image_id: [u8; 16],
    /// GUEST_SVN, the security version of the image.
    pub guest_svn: u32,
    /// POLICY, which must be that of the launch.
    pub policy: u64,
}

impl IdBlock {
    /// VERSION.
    const VERSION: u32 = 1;

    /// The block as it is signed and given to the secure processor.
    pub fn to_bytes(&self) -> [u8; ID_BLOCK_SIZE] {
        let mut bytes = [0; ID_BLOCK_SIZE];
        let parts: [&[u8]; 6] = [
            &self.launch_digest.0,
            &self.family_id,
            &self.image_id,
            &Self::VERSION.to_le_bytes(),
            &self.guest_svn.to_le_bytes(),
            &self.policy.to_le_bytes(),
        ];
        fill(&mut bytes, &parts);
        bytes
    }

    /// Reads a block.
    pub fn parse(bytes: &[u8]) -> Result<Self, IdBlockError> {
        let mut reader = Reader::new(bytes);
        let fields = (|| {
            let digest = Digest384(reader.array()?);
            Some((digest, reader.array()?, reader.array()?, reader.u32()?, reader.u32()?, reader.u64()?))
        })();
        let fields = fields.filter(|_| reader.rest().is_empty());
        let (launch_digest, family_id, image_id, version, guest_svn, policy) =
            fields.ok_or(IdBlockError::Size { what: "ID block", found: bytes.len(), expected: ID_BLOCK_SIZE })?;
        if version != Self::VERSION {
            return Err(IdBlockError::Field { what: "ID block", field: "VERSION", expected: "1" });
        }
        Ok(Self { launch_digest, family_id, image_id, guest_svn, policy })
    }

    /// What the secure processor checks beside the signatures.
    pub fn check(&self, launch_digest: Digest384, policy: u64) -> Result<(), IdBlockMismatch> {
        if self.policy != policy {
            return Err(IdBlockMismatch::Policy { expected: self.policy, found: policy });
        }
        if self.launch_digest != launch_digest {
            return Err(IdBlockMismatch::LaunchDigest { expected: self.launch_digest, found: launch_digest });
        }
        Ok(())
    }
}

/// A P-384 public key: the coordinates, most significant byte first, as certificates and PEM files have them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublicKey {
    /// X.
    pub x: [u8; USED_SIZE],
    /// Y.
    pub y: [u8; USED_SIZE],
}

impl PublicKey {
    /// The key as it is signed and hashed.
    pub fn to_bytes(&self) -> [u8; PUBLIC_KEY_SIZE] {
        let mut bytes = [0; PUBLIC_KEY_SIZE];
        fill(&mut bytes, &[&CURVE_P384.to_le_bytes(), &number(&self.x), &number(&self.y)]);
        bytes
    }

    /// ID_KEY_DIGEST or AUTHOR_KEY_DIGEST of an attestation report.
    pub fn digest(&self) -> Digest384 {
        Digest384::of(&self.to_bytes())
    }

    fn parse(bytes: &[u8], what: &'static str) -> Result<Self, IdBlockError> {
        let size = IdBlockError::Size { what, found: bytes.len(), expected: PUBLIC_KEY_SIZE };
        let mut reader = Reader::new(bytes);
        if reader.u32().ok_or(size.clone())? != CURVE_P384 {
            return Err(IdBlockError::Field { what, field: "CURVE", expected: "P-384 (2)" });
        }
        let wide = IdBlockError::Field { what, field: "a coordinate", expected: "a number of 384 bits" };
        let numbers = reader.array().zip(reader.array()).ok_or(size)?;
        zeroes(reader.rest(), what)?;
        Ok(Self { x: parse_number(&numbers.0).ok_or(wide.clone())?, y: parse_number(&numbers.1).ok_or(wide)? })
    }
}

/// An ECDSA signature: r and s, most significant byte first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signature {
    /// R.
    pub r: [u8; USED_SIZE],
    /// S.
    pub s: [u8; USED_SIZE],
}

impl Signature {
    /// The signature as the secure processor reads it.
    pub fn to_bytes(&self) -> [u8; SIGNATURE_SIZE] {
        let mut bytes = [0; SIGNATURE_SIZE];
        fill(&mut bytes, &[&number(&self.r), &number(&self.s)]);
        bytes
    }

    fn parse(bytes: &[u8], what: &'static str) -> Result<Self, IdBlockError> {
        let mut reader = Reader::new(bytes);
        let size = IdBlockError::Size { what, found: bytes.len(), expected: SIGNATURE_SIZE };
        let wide = IdBlockError::Field { what, field: "a component", expected: "a number of 384 bits" };
        let numbers = reader.array().zip(reader.array()).ok_or(size)?;
        zeroes(reader.rest(), what)?;
        Ok(Self { r: parse_number(&numbers.0).ok_or(wide.clone())?, s: parse_number(&numbers.1).ok_or(wide)? })
    }
}

/// The ID authentication information: who signed an ID block, and who vouches for the signer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdAuth {
    /// The signature of the ID block by the ID key.
    pub block_signature: Signature,
    /// The ID key.
    pub id_key: PublicKey,
    /// The author key and its signature of the ID key, where there is one.
    pub author: Option<(PublicKey, Signature)>,
}

impl IdAuth {
    /// The page that is given to the secure processor.
    pub fn to_bytes(&self) -> Page {
        let mut page = [0; PAGE_BYTES];
        let (author_key, author_signature) = match &self.author {
            Some((key, signature)) => (key.to_bytes(), signature.to_bytes()),
            None => ([0; PUBLIC_KEY_SIZE], [0; SIGNATURE_SIZE]),
        };
        let author_algorithm = if self.author.is_some() { ECDSA_P384_SHA384 } else { 0 };
        let parts: [&[u8]; 8] = [
            &ECDSA_P384_SHA384.to_le_bytes(),
            &author_algorithm.to_le_bytes(),
            &[0; 0x38],
            &self.block_signature.to_bytes(),
            &[&self.id_key.to_bytes()[..], &[0; 0x3c]].concat(),
            &author_signature,
            &author_key,
            &[],
        ];
        fill(&mut page, &parts);
        page
    }

    /// Reads a page.
    pub fn parse(bytes: &[u8]) -> Result<Self, IdBlockError> {
        const WHAT: &str = "ID authentication information";
        let size = || IdBlockError::Size { what: WHAT, found: bytes.len(), expected: PAGE_BYTES };
        let mut reader = Reader::new(bytes);
        let (id_algorithm, author_algorithm) = reader.u32().zip(reader.u32()).ok_or_else(size)?;
        let mut part = |length| reader.bytes(length).ok_or_else(size);
        zeroes(part(0x38)?, WHAT)?;
        let block_signature = Signature::parse(part(SIGNATURE_SIZE)?, "ID block signature")?;
        let id_key = PublicKey::parse(part(PUBLIC_KEY_SIZE)?, "ID key")?;
        zeroes(part(0x3c)?, WHAT)?;
        let (key_signature, author_key) = (part(SIGNATURE_SIZE)?, part(PUBLIC_KEY_SIZE)?);
        if bytes.len() != PAGE_BYTES {
            return Err(size());
        }
        zeroes(reader.rest(), WHAT)?;
        if id_algorithm != ECDSA_P384_SHA384 {
            let expected = "ECDSA P-384 with SHA-384 (1)";
            return Err(IdBlockError::Field { what: WHAT, field: "ID_KEY_ALGO", expected });
        }
        let author = match author_algorithm {
            0 => None,
            ECDSA_P384_SHA384 => Some((
                PublicKey::parse(author_key, "author key")?,
                Signature::parse(key_signature, "ID key signature")?,
            )),
            _ => {
                let expected = "ECDSA P-384 with SHA-384 (1)";
                return Err(IdBlockError::Field { what: WHAT, field: "AUTH_KEY_ALGO", expected });
            }
        };
        Ok(Self { block_signature, id_key, author })
    }
}

fn fill(out: &mut [u8], parts: &[&[u8]]) {
    out.iter_mut().zip(parts.iter().copied().flatten()).for_each(|(slot, byte)| *slot = *byte);
}

/// A number as the secure processor has it: least significant byte first, filled up with zeroes.
fn number(big_endian: &[u8; USED_SIZE]) -> [u8; NUMBER_SIZE] {
    let mut out = [0; NUMBER_SIZE];
    out.iter_mut().zip(big_endian.iter().rev()).for_each(|(slot, byte)| *slot = *byte);
    out
}

/// `None` for a number that does not fit.
fn parse_number(bytes: &[u8; NUMBER_SIZE]) -> Option<[u8; USED_SIZE]> {
    let (used, rest) = bytes.split_at_checked(USED_SIZE)?;
    let reversed: Vec<u8> = used.iter().rev().copied().collect();
    rest.iter().all(|byte| *byte == 0).then_some(())?;
    reversed.try_into().ok()
}

fn zeroes(bytes: &[u8], what: &'static str) -> Result<(), IdBlockError> {
    let all = bytes.iter().all(|byte| *byte == 0);
    all.then_some(()).ok_or(IdBlockError::Field { what, field: "a reserved part", expected: "zero" })
}
