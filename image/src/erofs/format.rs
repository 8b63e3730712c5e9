//! The on-disk structures: superblock, inodes and their constants (Linux 6.12 fs/erofs/erofs_fs.h).

use super::compress::Compressed;
use super::inode::{Data, Inode};
use super::place::Place;
use super::xattr;

/// The block size in bytes.
pub const BLOCK: usize = 4096;
pub(super) const BLOCK_BITS: u8 = 12;

/// Where the superblock is (EROFS_SUPER_OFFSET) and how long it is.
pub(super) const SUPERBLOCK_OFFSET: usize = 1024;
pub(super) const SUPERBLOCK: usize = 128;
/// `feature_incompat` in the superblock.
pub(super) const FEATURE_INCOMPAT_OFFSET: usize = 80;
/// `checksum` in the superblock.
pub(super) const CHECKSUM_OFFSET: usize = 4;
/// EROFS_SUPER_MAGIC_V1.
pub(super) const MAGIC: u32 = 0xe0f5_e1e2;
/// EROFS_FEATURE_COMPAT_SB_CHKSUM and EROFS_FEATURE_COMPAT_MTIME.
const FEATURE_COMPAT: u32 = 0x1 | 0x2;

/// Inodes are addressed in units of this many bytes from the first block (`nid`).
pub(super) const SLOT: usize = 32;
pub(super) const COMPACT_INODE: usize = 32;
pub(super) const EXTENDED_INODE: usize = 64;
/// EROFS_INODE_FLAT_PLAIN, EROFS_INODE_COMPRESSED_FULL and EROFS_INODE_FLAT_INLINE, in bits 1 to 3 of `i_format`; bit 0 says
/// that it is extended.
pub(super) const FLAT_PLAIN: u16 = 0;
pub(super) const COMPRESSED_FULL: u16 = 1;
pub(super) const FLAT_INLINE: u16 = 2;

/// EROFS_FEATURE_INCOMPAT_ZERO_PADDING (compressed blocks have their zeros in front) and _ZTAILPACKING.
pub(super) const FEATURE_INCOMPAT_LZ4: u32 = 0x1 | 0x10;
/// `struct z_erofs_map_header` and as many bytes of padding, then a `struct z_erofs_lcluster_index` for each block of a file.
pub(super) const MAP_HEADER: usize = 16;
pub(super) const INDEX: usize = 8;
/// The map header's alignment, behind the inode and its extended attributes.
pub(super) const MAP_ALIGN: usize = 8;
/// Z_EROFS_ADVISE_INLINE_PCLUSTER.
pub(super) const ADVISE_INLINE: u16 = 0x8;
/// Z_EROFS_LCLUSTER_TYPE_PLAIN, _HEAD1 and _NONHEAD.
pub(super) const PLAIN: u16 = 0;
pub(super) const HEAD: u16 = 1;
pub(super) const NONHEAD: u16 = 2;

pub(super) const DIRENT: usize = 12;

pub(super) const S_IFMT: u16 = 0o170_000;
pub(super) const S_IFREG: u16 = 0o100_000;
pub(super) const S_IFDIR: u16 = 0o040_000;
pub(super) const S_IFLNK: u16 = 0o120_000;
pub(super) const S_IFCHR: u16 = 0o020_000;

/// `struct erofs_super_block` with the checksum still 0.
pub(super) fn superblock(uuid: &[u8; 16], blocks: u32, inodes: usize, root_nid: u16, incompatible: u32) -> Vec<u8> {
    let mut out = Vec::with_capacity(SUPERBLOCK);
    out.extend(MAGIC.to_le_bytes());
    out.extend(0u32.to_le_bytes()); // checksum
    out.extend(FEATURE_COMPAT.to_le_bytes());
    out.extend([BLOCK_BITS, 0]); // blkszbits, sb_extslots
    out.extend(root_nid.to_le_bytes());
    out.extend((inodes as u64).to_le_bytes()); // inos
    out.extend(0u64.to_le_bytes()); // build_time
    out.extend(0u32.to_le_bytes()); // build_time_nsec
    out.extend(blocks.to_le_bytes());
    out.extend(0u32.to_le_bytes()); // meta_blkaddr: nids count from block 0
    out.extend(0u32.to_le_bytes()); // xattr_blkaddr
    out.extend(uuid);
    out.resize(FEATURE_INCOMPAT_OFFSET, 0); // no volume name
    out.extend(incompatible.to_le_bytes());
    out.resize(SUPERBLOCK, 0); // the default distance of LZ4, no extra device, no xattr prefix
    out
}

/// How many bytes behind the inode say where a compressed file of `size` bytes is.
pub(super) fn indexes_size(size: usize) -> usize {
    MAP_HEADER + size.div_ceil(BLOCK) * INDEX
}

/// The map header and the indexes of a file whose blocks start at `block`: one index for each block of the file, which says
/// where an extent starts in it, or how far it is to the starts around it.
pub(super) fn indexes(file: &Compressed, block: u32) -> Vec<u8> {
    let mut out = Vec::with_capacity(indexes_size(file.size));
    let inline = u16::try_from(file.tail.len()).unwrap_or_default();
    out.extend(0u16.to_le_bytes());
    out.extend(inline.to_le_bytes()); // h_idata_size
    out.extend(if inline > 0 { ADVISE_INLINE } else { 0 }.to_le_bytes());
    out.resize(MAP_HEADER, 0); // LZ4, clusters of one block, padding
    let mut index = |kind: u16, offset: usize, place: [u8; 4]| {
        out.extend(kind.to_le_bytes());
        out.extend(u16::try_from(offset).unwrap_or_default().to_le_bytes());
        out.extend(place);
    };
    let mut start = 0;
    for (number, extent) in (0u32..).zip(&file.extents) {
        let (head, next) = (start / BLOCK, (start + extent.length).min(file.size));
        // The extent's last block belongs to the one that starts in it, if the file goes on there.
        let next_head = if next == file.size { file.size.div_ceil(BLOCK) } else { next / BLOCK };
        index(if extent.lz4 { HEAD } else { PLAIN }, start % BLOCK, block.wrapping_add(number).to_le_bytes());
        for between in head + 1..next_head {
            let distance = |blocks: usize| u16::try_from(blocks).unwrap_or(u16::MAX).to_le_bytes();
            let ([a, b], [c, d]) = (distance(between - head), distance(next_head - between));
            index(NONHEAD, 0, [a, b, c, d]);
        }
        start = next;
    }
    out
}

/// The inode of `inode` at its place, with its extended attributes; `index` gives the inode number for 32-bit `stat`, from 1.
pub(super) fn inode(inode: &Inode<'_>, place: &Place, index: usize) -> Vec<u8> {
    let layout = match (&inode.data, place.inline) {
        (Data::Compressed(_), _) => COMPRESSED_FULL,
        (_, 0) => FLAT_PLAIN,
        _ => FLAT_INLINE,
    };
    let union = match &inode.data {
        Data::Device(device) => *device,
        // `place` has made sure that the number of blocks fits.
        Data::Compressed(file) => u32::try_from(file.stored() / BLOCK).unwrap_or(u32::MAX),
        _ => place.block,
    };
    // `place` has made sure that the number of inodes fits.
    let number = u32::try_from(index + 1).unwrap_or(u32::MAX);
    let size = inode.data.size() as u64;
    let xattrs = xattr::count(inode.xattrs.len()).to_le_bytes(); // i_xattr_icount
    let mut out = Vec::with_capacity(EXTENDED_INODE + inode.xattrs.len() + place.inline);
    match inode.compact() {
        Some(compact) => {
            out.extend((layout << 1).to_le_bytes());
            out.extend(xattrs);
            out.extend(inode.mode.to_le_bytes());
            out.extend(compact.links.to_le_bytes());
            out.extend(compact.size.to_le_bytes());
            out.extend(0u32.to_le_bytes());
            out.extend(union.to_le_bytes());
            out.extend(number.to_le_bytes());
            out.extend(compact.uid.to_le_bytes());
            out.extend(compact.gid.to_le_bytes());
            out.extend(0u32.to_le_bytes());
        }
        None => {
            out.extend((layout << 1 | 1).to_le_bytes());
            out.extend(xattrs);
            out.extend(inode.mode.to_le_bytes());
            out.extend(0u16.to_le_bytes());
            out.extend(size.to_le_bytes());
            out.extend(union.to_le_bytes());
            out.extend(number.to_le_bytes());
            out.extend(inode.uid.to_le_bytes());
            out.extend(inode.gid.to_le_bytes());
            out.extend(0u64.to_le_bytes()); // i_mtime
            out.extend(0u32.to_le_bytes()); // i_mtime_nsec
            out.extend(inode.links.to_le_bytes());
            out.resize(EXTENDED_INODE, 0);
        }
    }
    out.extend_from_slice(&inode.xattrs);
    out
}

/// CRC-32C without the final inversion, over the rest of block 0 from the superblock on, its checksum field being 0.
pub(super) fn checksum(bytes: &[u8]) -> u32 {
    const CASTAGNOLI: u32 = 0x82f6_3b78;
    bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| crc >> 1 ^ if crc & 1 == 1 { CASTAGNOLI } else { 0 })
    })
}
