//! The geometry of the dm-verity image, and a look at its top before the kernel is asked to open it.
//!
//! The kernel verifies every block when it is read and panics over a bad one; that says nothing a user can act on when the
//! root hash, the salt or the whole disk is simply another image's. So the superblock and the hash block at the top of the
//! tree are checked here first. This look decides nothing about trust: the kernel repeats all of it.
//!
//! Layout: `veritysetup format` version 1 (cryptsetup `docs/on-disk-format-verity`), 4096-byte blocks, SHA-256; superblock
//! behind the data, tree one block later, its top level first (Linux Documentation/admin-guide/device-mapper/verity.rst).

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use spec::Sha256Digest;
use spec::digest::encode_hex;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use crate::command_line::RootParameters;

/// Size of data and hash blocks.
pub(crate) const BLOCK: u32 = 4096;
/// How many SHA-256 values a hash block holds: 2^7.
const HASHES_PER_BLOCK: u64 = 128;
/// Sectors in the device mapper's count are 512 bytes.
const SECTORS_PER_BLOCK: u64 = 8;

/// An image whose top is not what the command line says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum VerityError {
    /// The disk cannot hold the image.
    #[error(
        "{disk} has {found} bytes, expected at least {expected} for {blocks} data blocks, a superblock and the tree"
    )]
    Short {
        /// The disk.
        disk: String,
        /// Its size.
        found: u64,
        /// The size of data, superblock and tree.
        expected: u64,
        /// Data blocks by the command line.
        blocks: u64,
    },
    /// A field of the superblock.
    #[error("the verity superblock at byte {offset} of {disk} has {field} {found}, expected {expected}")]
    Superblock {
        /// The disk.
        disk: String,
        /// Where the superblock is.
        offset: u64,
        /// The field.
        field: &'static str,
        /// Its value.
        found: String,
        /// The value by the command line.
        expected: String,
    },
    /// The top of the tree.
    #[error("the top of the verity tree on {disk} hashes to {found}, expected {expected} by the command line")]
    RootHash {
        /// The disk.
        disk: String,
        /// What was found.
        found: Sha256Digest,
        /// The root hash by the command line.
        expected: Sha256Digest,
    },
    /// Reading failed.
    #[error("reading {disk} at byte {offset}: {error}")]
    Read {
        /// The disk.
        disk: String,
        /// Where.
        offset: u64,
        /// Why.
        error: String,
    },
}

/// The superblock's fields (`struct verity_sb`), as far as they mean something.
#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Superblock {
    signature: [u8; 8],
    version: U32,
    hash_type: U32,
    uuid: [u8; 16],
    algorithm: [u8; 32],
    data_block_size: U32,
    hash_block_size: U32,
    data_blocks: U64,
    salt_size: U16,
    padding: [u8; 6],
    salt: [u8; 256],
}

const _: () = assert!(size_of::<Superblock>() == 344);

/// How many hash blocks a tree over `data_blocks` has, all levels together. A single data block has none: its own hash is
/// the root hash.
fn tree_blocks(data_blocks: u64) -> u64 {
    let (mut level, mut total) = (data_blocks, 0);
    while level > 1 {
        level = level.div_ceil(HASHES_PER_BLOCK);
        total += level;
    }
    total
}

/// Where the superblock is, in bytes. `RootParameters` bounds the count, so nothing here can overflow.
fn superblock_offset(root: &RootParameters) -> u64 {
    root.data_blocks * u64::from(BLOCK)
}

/// Checks that `disk`, of `size` bytes, is large enough, and that its superblock and the top of its tree are what the
/// command line says.
pub(crate) fn check_top(node: &Path, size: u64, root: &RootParameters) -> Result<(), VerityError> {
    let disk = node.display().to_string();
    let expected = (root.data_blocks + 1 + tree_blocks(root.data_blocks)) * u64::from(BLOCK);
    if size < expected {
        return Err(VerityError::Short { disk, found: size, expected, blocks: root.data_blocks });
    }
    let read = |offset: u64| {
        let mut block = vec![0; BLOCK as usize];
        File::open(node)
            .and_then(|file| file.read_exact_at(&mut block, offset))
            .map(|()| block)
            .map_err(|error| VerityError::Read { disk: disk.clone(), offset, error: error.to_string() })
    };
    let offset = superblock_offset(root);
    check_superblock(&read(offset)?, root).map_err(|(field, found, expected)| VerityError::Superblock {
        disk: disk.clone(),
        offset,
        field,
        found,
        expected,
    })?;
    let top = if tree_blocks(root.data_blocks) == 0 { 0 } else { offset + u64::from(BLOCK) };
    let found = Sha256Digest::of(&[root.salt.as_slice(), &read(top)?].concat());
    if found == root.root_hash { Ok(()) } else { Err(VerityError::RootHash { disk, found, expected: root.root_hash }) }
}

/// The first field that differs: its name, what was found, what was expected.
fn check_superblock(block: &[u8], root: &RootParameters) -> Result<(), (&'static str, String, String)> {
    let expect = |field: &'static str, found: String, expected: String| {
        if found == expected { Ok(()) } else { Err((field, found, expected)) }
    };
    let text = |bytes: &[u8]| {
        let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
        format!("\"{}\"", bytes.get(..end).unwrap_or_default().escape_ascii())
    };
    let Ok((superblock, _)) = Superblock::ref_from_prefix(block) else {
        return Err(("a size of", block.len().to_string(), BLOCK.to_string()));
    };
    expect("the signature", text(&superblock.signature), text(b"verity"))?;
    expect("version", superblock.version.to_string(), "1".to_owned())?;
    expect("hash type", superblock.hash_type.to_string(), "1".to_owned())?;
    expect("the algorithm", text(&superblock.algorithm), text(b"sha256"))?;
    expect("data block size", superblock.data_block_size.to_string(), BLOCK.to_string())?;
    expect("hash block size", superblock.hash_block_size.to_string(), BLOCK.to_string())?;
    expect("data blocks", superblock.data_blocks.to_string(), root.data_blocks.to_string())?;
    let salt = superblock.salt.get(..usize::from(superblock.salt_size.get())).unwrap_or_default();
    expect("the salt", encode_hex(salt), encode_hex(&root.salt))
}

/// The target that the device mapper is given: length in sectors, and parameters.
pub(crate) fn table(node: &Path, root: &RootParameters) -> (u64, String) {
    let device = node.display();
    // Data and tree are on one device; the tree starts behind the superblock. Corruption panics the kernel, at boot and ever
    // after, and so does a read that fails (`panic_on_error`, Linux since 6.13 and 6.12's stable releases): a guest that goes on with a file it could
    // not read is a guest the host can steer.
    let parameters = format!(
        "1 {device} {device} {BLOCK} {BLOCK} {} {} sha256 {} {} 2 panic_on_corruption panic_on_error",
        root.data_blocks,
        root.data_blocks + 1,
        root.root_hash,
        encode_hex(&root.salt)
    );
    (root.data_blocks * SECTORS_PER_BLOCK, parameters)
}

#[cfg(test)]
mod tests;
