//! EROFS images, plain or with LZ4: a writer of our own, so that no version of a host tool is a measured input.
//!
//! The layout follows Linux 6.12 `fs/erofs/erofs_fs.h` and Documentation/filesystems/erofs.rst: 4096-byte blocks; inodes
//! from block 0 on, with their extended attributes and the last partial block of their data inline where it fits; then the other data, in the order of
//! the inodes. Every field is a function of the tree and the UUID.

mod compress;
mod directory;
mod extents;
mod format;
mod inode;
mod lz4;
mod place;
mod read;
mod xattr;

use std::io::{self, Write};

pub use format::BLOCK;
pub use read::{ErofsReadError, ReadNode, read};
pub(crate) use xattr::is_known;

use crate::little_endian::put;
use crate::tree::Tree;
use inode::{Data, Inode};
use place::Placed;
use spec::recipe::Compression;

/// A tree that cannot be an EROFS image.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ErofsError {
    /// There is no root directory, or a node has no parent directory: the tree was not finished.
    #[error("/{0} has no directory to be in")]
    NoParent(String),
    /// An extended attribute of a kind that Linux does not know, or longer than the format allows.
    #[error("the extended attributes of /{0} cannot be stored")]
    Xattrs(String),
    /// More than the format can address.
    #[error("the tree is too large for an EROFS image: {0}")]
    TooLarge(&'static str),
}

impl spec::Diagnostic for ErofsError {
    fn outcome(&self) -> spec::Outcome {
        match self {
            Self::NoParent(_) => spec::Outcome::Internal,
            Self::Xattrs(_) | Self::TooLarge(_) => spec::Outcome::Usage,
        }
    }
}

/// An image whose layout is decided and whose bytes are not written yet.
#[derive(Debug)]
pub struct Image<'a> {
    inodes: Vec<Inode<'a>>,
    placed: Placed,
    uuid: [u8; 16],
    compression: Compression,
}

impl<'a> Image<'a> {
    /// Lays out `tree`, which must be finished. Compressed content is held in memory until the image is dropped.
    pub fn plan(tree: &'a Tree, uuid: [u8; 16], compression: Compression) -> Result<Self, ErofsError> {
        let mut inodes = inode::collect(tree)?;
        if compression == Compression::Lz4 {
            inode::compress(&mut inodes);
        }
        let placed = place::place(&inodes)?;
        for inode in &mut inodes {
            directory::resolve(inode, &placed.nids);
        }
        Ok(Self { inodes, placed, uuid, compression })
    }

    /// The image's size in blocks.
    pub fn blocks(&self) -> u64 {
        u64::from(self.placed.blocks)
    }

    /// Writes the image: `blocks()` whole blocks.
    pub fn write_to(&self, out: &mut impl Write) -> io::Result<()> {
        out.write_all(&self.metadata())?;
        for (inode, place) in self.inodes.iter().zip(&self.placed.places) {
            if let Data::Compressed(file) = &inode.data {
                file.runs.iter().try_for_each(|run| out.write_all(run))?;
                continue;
            }
            let data = inode.data.plain();
            let stored = data.get(..data.len() - place.inline).unwrap_or_default();
            out.write_all(stored)?;
            let padding = stored.len().next_multiple_of(BLOCK) - stored.len();
            out.write_all(ZEROS.get(..padding).unwrap_or_default())?;
        }
        Ok(())
    }

    /// The blocks with the superblock, the inodes and what is inline.
    fn metadata(&self) -> Vec<u8> {
        let mut blocks = vec![0; self.placed.metadata_bytes];
        for (index, (inode, place)) in self.inodes.iter().zip(&self.placed.places).enumerate() {
            let mut bytes = format::inode(inode, place, index);
            match &inode.data {
                Data::Compressed(file) => {
                    bytes.resize(bytes.len().next_multiple_of(format::MAP_ALIGN), 0);
                    bytes.extend(format::indexes(file, place.block));
                    bytes.extend_from_slice(&file.tail);
                }
                data => {
                    let data = data.plain();
                    bytes.extend_from_slice(data.get(data.len() - place.inline..).unwrap_or_default());
                }
            }
            put(&mut blocks, place.offset, &bytes);
        }
        let features = match self.compression {
            Compression::None => 0,
            Compression::Lz4 => format::FEATURE_INCOMPAT_LZ4,
        };
        let root = self.placed.root_nid();
        let superblock = format::superblock(&self.uuid, self.placed.blocks, self.inodes.len(), root, features);
        put(&mut blocks, format::SUPERBLOCK_OFFSET, &superblock);
        let checksum = format::checksum(blocks.get(format::SUPERBLOCK_OFFSET..BLOCK).unwrap_or_default());
        put(&mut blocks, format::SUPERBLOCK_OFFSET + format::CHECKSUM_OFFSET, &checksum.to_le_bytes());
        blocks
    }
}

const ZEROS: [u8; BLOCK] = [0; BLOCK];

impl Data<'_> {
    /// The bytes that go into blocks, or behind the inode, of what is not compressed.
    fn plain(&self) -> &[u8] {
        match self {
            Data::Borrowed(bytes) => bytes,
            Data::Directory(directory) => directory.bytes(),
            Data::Compressed(_) | Data::Device(_) => &[],
        }
    }

    /// How many bytes go into blocks, or behind the inode; of a compressed file, whole blocks.
    fn stored(&self) -> usize {
        match self {
            Data::Compressed(file) => file.stored(),
            other => other.plain().len(),
        }
    }

    /// The size that `stat` gives.
    fn size(&self) -> usize {
        match self {
            Data::Compressed(file) => file.size,
            other => other.stored(),
        }
    }
}
