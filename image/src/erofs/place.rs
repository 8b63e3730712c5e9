//! Where everything goes: inodes with their inline tails into the first blocks, all other data behind them.
//!
//! Neither an inode nor its tail may cross a block boundary; indexes and many extended attributes may. An inode goes into the first of the last few blocks that has
//! room for it, so that the gaps which large tails leave are filled by small inodes.

use super::ErofsError;
use super::format::{BLOCK, MAP_ALIGN, SLOT, SUPERBLOCK, SUPERBLOCK_OFFSET, indexes_size};
use super::inode::{Data, Inode};

/// How many blocks with a gap are kept in mind.
const OPEN_BLOCKS: usize = 64;
/// EROFS_NULL_ADDR: the inode has no block.
const NO_BLOCK: u32 = u32::MAX;

/// Where an inode and its data are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// The inode's offset in bytes.
    pub(super) offset: usize,
    /// How many bytes at the end of its data follow the inode.
    pub(super) inline: usize,
    /// The first block of the other data; `NO_BLOCK` where there is none.
    pub(super) block: u32,
}

/// The whole layout.
#[derive(Debug)]
pub(super) struct Placed {
    pub(super) places: Vec<Place>,
    /// The number by which directories refer to each inode.
    pub(super) nids: Vec<u64>,
    pub(super) metadata_bytes: usize,
    /// Blocks of the whole image.
    pub(super) blocks: u32,
}

impl Placed {
    /// The root directory is placed first, right behind the superblock, so its number always fits.
    pub(super) fn root_nid(&self) -> u16 {
        self.nids.first().and_then(|nid| u16::try_from(*nid).ok()).unwrap_or_default()
    }
}

pub(super) fn place(inodes: &[Inode<'_>]) -> Result<Placed, ErofsError> {
    let mut room = Room { open: vec![(0, SUPERBLOCK_OFFSET + SUPERBLOCK)], blocks: 1 };
    let mut places: Vec<Place> = inodes
        .iter()
        .map(|inode| {
            let header = inode.header();
            if let Data::Compressed(file) = &inode.data {
                let header = header.next_multiple_of(MAP_ALIGN) + indexes_size(file.size);
                return Place { offset: room.take_run(header, file.tail.len()), inline: 0, block: NO_BLOCK };
            }
            let tail = inode.data.stored() % BLOCK;
            let inline = if header + tail <= BLOCK { tail } else { 0 };
            Place { offset: room.take_run(header, inline), inline, block: NO_BLOCK }
        })
        .collect();
    let metadata_blocks = u32::try_from(room.blocks).map_err(|_| ErofsError::TooLarge("too many inodes"))?;
    let mut next = metadata_blocks;
    for (inode, place) in inodes.iter().zip(&mut places) {
        let stored = (inode.data.stored() - place.inline).div_ceil(BLOCK);
        if stored > 0 && !matches!(inode.data, Data::Device(_)) {
            place.block = next;
            let end = u32::try_from(stored).ok().and_then(|stored| next.checked_add(stored));
            next = end.filter(|end| *end < NO_BLOCK).ok_or(ErofsError::TooLarge("16 TiB is the limit"))?;
        }
    }
    let nids = places.iter().map(|place| (place.offset / SLOT) as u64).collect();
    Ok(Placed { places, nids, metadata_bytes: room.blocks * BLOCK, blocks: next })
}

/// Blocks with free bytes at their end.
struct Room {
    /// Number of the block and how many of its bytes are taken.
    open: Vec<(usize, usize)>,
    blocks: usize,
}

impl Room {
    /// Takes room for an inode with extended attributes and indexes, of `header` bytes together, and a tail: in one block if they
    /// fit, else in blocks of their own, where the header may cross from one to the next and neither inode nor tail does.
    fn take_run(&mut self, header: usize, tail: usize) -> usize {
        if header + tail <= BLOCK {
            return self.take(header + tail);
        }
        // Where the tail would cross a boundary, everything moves on until the boundary is before it.
        let end = header % BLOCK;
        let shift = if tail > 0 && end + tail > BLOCK { (BLOCK - end).next_multiple_of(SLOT) } else { 0 };
        let offset = self.blocks * BLOCK + shift;
        let end = offset + header + tail;
        self.blocks = end.div_ceil(BLOCK);
        if self.open.len() == OPEN_BLOCKS {
            self.open.remove(0);
        }
        let used = end - (self.blocks - 1) * BLOCK;
        self.open.push((self.blocks - 1, used.next_multiple_of(SLOT)));
        offset
    }

    /// Takes `bytes` in one block, aligned to a slot; returns their offset.
    fn take(&mut self, bytes: usize) -> usize {
        if let Some((block, used)) = self.open.iter_mut().find(|(_, used)| *used + bytes <= BLOCK) {
            let offset = *block * BLOCK + *used;
            *used = (*used + bytes).next_multiple_of(SLOT);
            return offset;
        }
        if self.open.len() == OPEN_BLOCKS {
            self.open.remove(0);
        }
        let block = self.blocks;
        self.blocks += 1;
        self.open.push((block, bytes.next_multiple_of(SLOT)));
        block * BLOCK
    }
}
