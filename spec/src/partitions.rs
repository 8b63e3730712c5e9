//! The partitions of `disk.raw` that hold a root file system and its hash tree: by what they are found.
//!
//! The UAPI Discoverable Partitions Specification names both after the dm-verity root hash: the first 128 bits are the UUID of
//! the root partition, the last 128 bits that of its verity partition. The builder writes them, and the guest looks for
//! them, so that a measured root hash already says which partitions are meant.

use std::fmt;

use crate::digest::Sha256Digest;

/// A UUID as it is written: the most significant byte first (RFC 9562, section 4). A partition table stores it otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PartitionUuid(pub [u8; 16]);

impl fmt::Display for PartitionUuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = u128::from_be_bytes(self.0);
        let (low, mid, high) = (number >> 96, number >> 80 & 0xffff, number >> 64 & 0xffff);
        write!(f, "{low:08x}-{mid:04x}-{high:04x}-{:04x}-{:012x}", number >> 48 & 0xffff, number & 0xffff_ffff_ffff)
    }
}

/// The UUIDs of the root partition and of its verity partition.
pub fn of_root_hash(root_hash: &Sha256Digest) -> [PartitionUuid; 2] {
    let number = |half: &[u8]| half.iter().fold(0_u128, |number, byte| number << 8 | u128::from(*byte));
    let (first, last) = root_hash.as_bytes().split_at(16);
    [first, last].map(|half| PartitionUuid(number(half).to_be_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_halves_of_a_root_hash_name_its_partitions() {
        let hash = "600d2828a285510ad4a3fe033c67080dcbc2bb02c62f75bc2b0064a1f026ef75".parse().unwrap();
        let [root, verity] = of_root_hash(&hash);
        assert_eq!(root.to_string(), "600d2828-a285-510a-d4a3-fe033c67080d");
        assert_eq!(verity.to_string(), "cbc2bb02-c62f-75bc-2b00-64a1f026ef75");
    }
}
