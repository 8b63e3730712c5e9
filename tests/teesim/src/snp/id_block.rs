//! The ID block: what the secure processor checks at SNP_LAUNCH_FINISH (AMD 56860, "ID Block" and "ID Authentication").

use nix::errno::Errno;

use super::id_key::{KEY_SIZE, Key, SIGNATURE_SIZE};
use super::status;
use crate::refusal::Refusal;

/// The bytes of ID_BLOCK.
pub(super) const ID_BLOCK_SIZE: usize = 96;
/// The bytes of ID_AUTH.
pub(super) const ID_AUTH_SIZE: usize = 4096;
/// ID_KEY_ALGO and AUTH_KEY_ALGO: ECDSA P-384 with SHA-384, the only one.
const ECDSA_P384_SHA384: u32 = 1;

/// An ID block and what authenticates it.
#[derive(Clone)]
pub(super) struct IdBlock {
    bytes: [u8; ID_BLOCK_SIZE],
    auth: [u8; ID_AUTH_SIZE],
    author_key_enabled: bool,
}

fn field<const N: usize>(bytes: &[u8], offset: usize) -> [u8; N] {
    bytes.get(offset..offset + N).and_then(|field| field.try_into().ok()).unwrap_or([0; N])
}

impl IdBlock {
    pub(super) fn new(bytes: [u8; ID_BLOCK_SIZE], auth: [u8; ID_AUTH_SIZE], author_key_enabled: bool) -> Self {
        Self { bytes, auth, author_key_enabled }
    }

    /// The launch digest that the image's owner expects.
    pub(super) fn launch_digest(&self) -> [u8; 48] {
        field(&self.bytes, 0x00)
    }

    /// FAMILY_ID.
    pub(super) fn family_id(&self) -> [u8; 16] {
        field(&self.bytes, 0x30)
    }

    /// IMAGE_ID.
    pub(super) fn image_id(&self) -> [u8; 16] {
        field(&self.bytes, 0x40)
    }

    fn version(&self) -> u32 {
        u32::from_le_bytes(field(&self.bytes, 0x50))
    }

    /// GUEST_SVN.
    pub(super) fn guest_svn(&self) -> u32 {
        u32::from_le_bytes(field(&self.bytes, 0x54))
    }

    /// The policy that the image's owner expects.
    pub(super) fn policy(&self) -> u64 {
        u64::from_le_bytes(field(&self.bytes, 0x58))
    }

    /// ID_KEY.
    pub(super) fn id_key(&self) -> Key {
        Key::new(field::<KEY_SIZE>(&self.auth, 0x240))
    }

    /// AUTHOR_KEY, where it takes part.
    pub(super) fn author_key(&self) -> Option<Key> {
        self.author_key_enabled.then(|| Key::new(field::<KEY_SIZE>(&self.auth, 0x880)))
    }

    /// What the secure processor checks against the guest.
    pub(super) fn check(&self, digest: &[u8; 48], policy: u64) -> Result<(), Refusal> {
        let refuse = |status, reason: String| Err(Refusal::by_firmware(Errno::EIO, status, reason));
        if self.version() != 1 {
            return refuse(status::INVALID_PARAM, format!("the ID block has version {}, expected 1", self.version()));
        }
        self.check_signatures()?;
        if self.policy() != policy {
            let reason = format!("the ID block expects policy {:#x}, the guest has {policy:#x}", self.policy());
            return refuse(status::POLICY_FAILURE, reason);
        }
        if &self.launch_digest() != digest {
            let (expected, found) = (hex::encode(self.launch_digest()), hex::encode(digest));
            return refuse(
                status::BAD_MEASUREMENT,
                format!("the ID block expects launch digest {expected}, found {found}"),
            );
        }
        Ok(())
    }

    fn check_signatures(&self) -> Result<(), Refusal> {
        let refuse = |reason: &str| Err(Refusal::by_firmware(Errno::EIO, status::BAD_SIGNATURE, reason));
        let algorithm = |offset| u32::from_le_bytes(field(&self.auth, offset));
        let signature = |offset| field::<SIGNATURE_SIZE>(&self.auth, offset);
        if algorithm(0) != ECDSA_P384_SHA384 || self.author_key_enabled && algorithm(4) != ECDSA_P384_SHA384 {
            return refuse("the ID authentication names an unknown key algorithm");
        }
        if !self.id_key().verifies(&self.bytes, &signature(0x40)) {
            return refuse("the ID key has not signed the ID block");
        }
        if self.author_key().is_some_and(|author| !author.verifies(self.id_key().bytes(), &signature(0x680))) {
            return refuse("the author key has not signed the ID key");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// virtee/sev at 9cf2adb, tests/id-block.rs: a block and the authentication that belongs to it.
    fn vector() -> Option<IdBlock> {
        let block = crate::test_vectors::read("snp/idblock/test_id_block.bin")?;
        let auth = crate::test_vectors::read("snp/idblock/test_auth_block.bin")?;
        Some(IdBlock::new(block.try_into().unwrap(), auth.try_into().unwrap(), true))
    }

    fn status(block: &IdBlock, digest: &[u8; 48], policy: u64) -> Option<u64> {
        block.check(digest, policy).err().and_then(|refusal| refusal.firmware)
    }

    #[test]
    fn a_signed_block_admits_its_own_digest_and_policy_only() {
        let Some(block) = vector() else { return };
        let digest = block.launch_digest();
        assert!(hex::encode(digest).starts_with("a14d6383"));
        assert_eq!(status(&block, &digest, 0x3_0000), None);
        assert_eq!(status(&block, &[0; 48], 0x3_0000), Some(status::BAD_MEASUREMENT));
        assert_eq!(status(&block, &digest, 0xb_0000), Some(status::POLICY_FAILURE));
        // The ID_KEY_DIGEST and AUTHOR_KEY_DIGEST that the same test of virtee/sev expects.
        assert!(hex::encode(block.id_key().digest()).starts_with("59fb2c686dfa4fef49f38339"));
        assert!(hex::encode(block.author_key().unwrap().digest()).starts_with("eed81169fb0cb5e0ec34794f"));
    }

    proptest! {
        #[test]
        fn foreign_bytes_are_refused(bytes in proptest::collection::vec(any::<u8>(), ID_BLOCK_SIZE + ID_AUTH_SIZE), author: bool) {
            let (block, auth) = bytes.split_first_chunk::<ID_BLOCK_SIZE>().unwrap();
            let mut auth: [u8; ID_AUTH_SIZE] = auth.try_into().unwrap();
            // As far as the signature, which random bytes do not have.
            auth[0..4].copy_from_slice(&[1, 0, 0, 0]);
            auth[0x240..0x244].copy_from_slice(&[2, 0, 0, 0]);
            let mut block = *block;
            block[0x50..0x54].copy_from_slice(&[1, 0, 0, 0]);
            let block = IdBlock::new(block, auth, author);
            prop_assert_eq!(status(&block, &block.launch_digest(), block.policy()), Some(status::BAD_SIGNATURE));
        }
    }

    #[test]
    fn a_changed_bit_anywhere_breaks_a_signature() {
        let Some(block) = vector() else { return };
        let digest = block.launch_digest();
        for offset in [0x30, 0x54, 0x5f] {
            let mut changed = block.clone();
            changed.bytes[offset] ^= 1;
            assert_eq!(status(&changed, &digest, 0x3_0000), Some(status::BAD_SIGNATURE), "block {offset:#x}");
        }
        for offset in [0x00, 0x04, 0x40, 0x88, 0x240, 0x250, 0x300, 0x680, 0x880, 0x890] {
            let mut changed = block.clone();
            changed.auth[offset] ^= 1;
            assert_eq!(status(&changed, &digest, 0x3_0000), Some(status::BAD_SIGNATURE), "auth {offset:#x}");
        }
        let mut no_author = block.clone();
        no_author.author_key_enabled = false;
        no_author.auth[0x680] ^= 1;
        assert_eq!(status(&no_author, &digest, 0x3_0000), None);
    }
}
