//! The geometry of the dm-verity image, and a look at its top before the kernel is asked to open it.
//!
//! The kernel verifies every block when it is read and panics over a bad one; that says nothing a user can act on when the
//! root hash, the salt or the whole disk is simply another image's. So the superblock and the hash block at the top of the
//! tree are checked here first. This look decides nothing about trust: the kernel repeats all of it.
//!
//! Layout: `veritysetup format` version 1 (cryptsetup `docs/on-disk-format-verity`), 4096-byte blocks, SHA-256; superblock
//! behind the data or at the start of a partition of its own, tree one block later, its top level first (Linux
//! Documentation/admin-guide/device-mapper/verity.rst).

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use spec::Sha256Digest;
use spec::digest::encode_hex;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use crate::command_line::RootParameters;
use crate::disks::Disk;
use crate::root_device::RootDevice;

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
    #[error("{disk} has {found} bytes, expected at least {expected} for {part} of {blocks} data blocks")]
    Short {
        /// The disk or partition.
        disk: String,
        /// Its size.
        found: u64,
        /// The size of what it must hold.
        expected: u64,
        /// What it must hold.
        part: &'static str,
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

/// Where the parts are: the device with the data, the device with the superblock, and the superblock's block on it.
fn places<'a>(device: &'a RootDevice, root: &RootParameters) -> (&'a Disk, &'a Disk, u64) {
    match device {
        RootDevice::Disk(disk) => (disk, disk, root.data_blocks),
        RootDevice::Partitions { data, tree } => (data, tree, 0),
    }
}

/// Checks that the device is large enough, and that its superblock and the top of its tree are what the command line says.
pub(crate) fn check_top(device: &RootDevice, root: &RootParameters) -> Result<(), VerityError> {
    check_size(device, root)?;
    let (data, tree, superblock) = places(device, root);
    // `RootParameters` bounds the count, so nothing here can overflow.
    let offset = superblock * u64::from(BLOCK);
    check_superblock(&read(tree, offset)?, root).map_err(|(field, found, expected)| VerityError::Superblock {
        disk: shown(tree),
        offset,
        field,
        found,
        expected,
    })?;
    let (disk, top) = if tree_blocks(root.data_blocks) == 0 { (data, 0) } else { (tree, offset + u64::from(BLOCK)) };
    let found = Sha256Digest::of(&[root.salt.as_slice(), &read(disk, top)?].concat());
    let (disk, expected) = (shown(disk), root.root_hash);
    if found == expected { Ok(()) } else { Err(VerityError::RootHash { disk, found, expected }) }
}

fn check_size(device: &RootDevice, root: &RootParameters) -> Result<(), VerityError> {
    let (data_blocks, behind) = (root.data_blocks, 1 + tree_blocks(root.data_blocks));
    let check = |disk: &Disk, needed: u64, part| {
        let (found, expected) = (disk.bytes, needed * u64::from(BLOCK));
        let short = || VerityError::Short { disk: shown(disk), found, expected, part, blocks: data_blocks };
        if found < expected { Err(short()) } else { Ok(()) }
    };
    match device {
        RootDevice::Disk(disk) => check(disk, data_blocks + behind, "the data, superblock and tree"),
        RootDevice::Partitions { data, tree } => {
            check(data, data_blocks, "the data")?;
            check(tree, behind, "the superblock and tree")
        }
    }
}

fn shown(disk: &Disk) -> String {
    disk.node().display().to_string()
}

fn read(disk: &Disk, offset: u64) -> Result<Vec<u8>, VerityError> {
    let mut block = vec![0; BLOCK as usize];
    File::open(disk.node())
        .and_then(|file| file.read_exact_at(&mut block, offset))
        .map(|()| block)
        .map_err(|error| VerityError::Read { disk: shown(disk), offset, error: error.to_string() })
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
pub(crate) fn table(device: &RootDevice, root: &RootParameters) -> (u64, String) {
    let (data, tree, superblock) = places(device, root);
    // The tree starts behind the superblock. Corruption panics the kernel, at boot and ever
    // after, and so does a read that fails (`panic_on_error`, Linux since 6.13 and 6.12's stable releases): a guest that goes on with a file it could
    // not read is a guest the host can steer.
    let parameters = format!(
        "1 {} {} {BLOCK} {BLOCK} {} {} sha256 {} {} 2 panic_on_corruption panic_on_error",
        shown(data),
        shown(tree),
        root.data_blocks,
        superblock + 1,
        root.root_hash,
        encode_hex(&root.salt)
    );
    (root.data_blocks * SECTORS_PER_BLOCK, parameters)
}

#[cfg(test)]
mod tests;
