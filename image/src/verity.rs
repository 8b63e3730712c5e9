//! dm-verity: the superblock and hash tree that `veritysetup format` would write, made in parallel.
//!
//! The format is that of cryptsetup's "DMVerity" specification, version 1: hash type 1 (the salt goes before the block),
//! SHA-256, data and hash blocks of 4096 bytes. The area is one block with the superblock, then the levels of the tree
//! from the root block down to the hashes of the data blocks, each level padded to whole blocks.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt as _;

use rayon::prelude::*;
use sha2::{Digest as _, Sha256};
use spec::Sha256Digest;

/// The size of data and hash blocks in bytes.
pub const BLOCK: usize = 4096;
/// The most bytes of salt that the superblock has room for.
pub const MAX_SALT: usize = 256;

const DIGEST: usize = 32;
/// Blocks read and hashed by one thread at a time.
const BATCH: usize = 256;

/// A hash tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tree {
    /// What the kernel must be told to trust the data.
    pub root_hash: Sha256Digest,
    /// How many blocks the tree covers.
    pub data_blocks: u64,
    salt: Vec<u8>,
    /// The levels from the one nearest to the root, in whole blocks.
    levels: Vec<Vec<u8>>,
}

impl Tree {
    /// Hashes data in memory: whole blocks, at least one.
    pub fn of_bytes(data: &[u8], salt: &[u8]) -> io::Result<Self> {
        if data.is_empty() || !data.len().is_multiple_of(BLOCK) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the data is not a number of whole blocks"));
        }
        let seed = Sha256::new_with_prefix(salt);
        let hashes = data.par_chunks(BATCH * BLOCK).flat_map_iter(|batch| hash_blocks(&seed, batch)).collect();
        Ok(Self::of_hashes(hashes, salt, &seed))
    }

    /// Hashes the first `blocks` blocks of a file, without holding them in memory.
    pub fn of_file(file: &File, blocks: u64, salt: &[u8]) -> io::Result<Self> {
        if blocks == 0 {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "there is no data"));
        }
        let seed = Sha256::new_with_prefix(salt);
        let batches: Vec<Vec<[u8; DIGEST]>> = (0..blocks.div_ceil(BATCH as u64))
            .into_par_iter()
            .map_init(Vec::new, |buffer, batch| {
                let first = batch * BATCH as u64;
                let count = usize::try_from((blocks - first).min(BATCH as u64)).map_err(io::Error::other)?;
                buffer.resize(count * BLOCK, 0);
                file.read_exact_at(buffer, first * BLOCK as u64)?;
                Ok(hash_blocks(&seed, buffer).collect())
            })
            .collect::<io::Result<_>>()?;
        Ok(Self::of_hashes(batches.concat(), salt, &seed))
    }

    fn of_hashes(mut hashes: Vec<[u8; DIGEST]>, salt: &[u8], seed: &Sha256) -> Self {
        let data_blocks = hashes.len() as u64;
        let mut levels = Vec::new();
        while hashes.len() > 1 {
            let mut level = hashes.concat();
            level.resize(level.len().next_multiple_of(BLOCK), 0);
            hashes = level.par_chunks(BATCH * BLOCK).flat_map_iter(|batch| hash_blocks(seed, batch)).collect();
            levels.push(level);
        }
        levels.reverse();
        let root_hash = Sha256Digest(hashes.first().copied().unwrap_or_default());
        Self { root_hash, data_blocks, salt: salt.to_vec(), levels }
    }

    /// Writes superblock and tree, as they follow the data. `uuid` is the one of the verity device.
    pub fn write_to(&self, out: &mut impl Write, uuid: &[u8; 16]) -> io::Result<()> {
        out.write_all(&self.superblock(uuid)?)?;
        self.levels.iter().try_for_each(|level| out.write_all(level))
    }

    /// The superblock in a block of its own.
    fn superblock(&self, uuid: &[u8; 16]) -> io::Result<Vec<u8>> {
        let salt_length = u16::try_from(self.salt.len()).ok().filter(|length| usize::from(*length) <= MAX_SALT);
        let salt_length =
            salt_length.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the salt is too long"))?;
        let mut out = Vec::with_capacity(BLOCK);
        out.extend(b"verity\0\0");
        out.extend(1u32.to_le_bytes()); // version
        out.extend(1u32.to_le_bytes()); // hash type
        out.extend(uuid);
        out.extend(b"sha256");
        out.resize(64, 0);
        out.extend(4096u32.to_le_bytes()); // data block size
        out.extend(4096u32.to_le_bytes()); // hash block size
        out.extend(self.data_blocks.to_le_bytes());
        out.extend(salt_length.to_le_bytes());
        out.resize(88, 0);
        out.extend(&self.salt);
        out.resize(BLOCK, 0);
        Ok(out)
    }
}

fn hash_blocks<'a>(seed: &'a Sha256, data: &'a [u8]) -> impl Iterator<Item = [u8; DIGEST]> + 'a {
    data.chunks(BLOCK).map(|block| seed.clone().chain_update(block).finalize().into())
}
