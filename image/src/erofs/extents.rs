//! Reading compressed files back: from the indexes behind an inode to the content.

use super::compress::MAX_EXTENT;
use super::format::{ADVISE_INLINE, BLOCK, HEAD, INDEX, MAP_HEADER, NONHEAD, PLAIN};
use super::read::ErofsReadError;
use crate::little_endian::{u16_at, u32_at};

/// Where the content of a compressed file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extents<'a> {
    image: &'a [u8],
    size: usize,
    /// One index for each block of the file.
    indexes: &'a [u8],
    /// What the last extent is stored as, where it follows the indexes.
    tail: Option<&'a [u8]>,
}

impl<'a> Extents<'a> {
    /// Takes apart what follows an inode. The file's size is bounded by the indexes, which are in the image.
    pub(super) fn read(image: &'a [u8], after_inode: &'a [u8], size: usize) -> Result<Self, ErofsReadError> {
        let header = || {
            let (tail, advise) = (usize::from(u16_at(after_inode, 2)?), u16_at(after_inode, 4)?);
            let end = size.div_ceil(BLOCK).checked_mul(INDEX)?.checked_add(MAP_HEADER)?;
            let plain_header = advise & !ADVISE_INLINE == 0 && u16_at(after_inode, 6)? == 0;
            let indexes = after_inode.get(MAP_HEADER..end)?;
            let tail = if advise == ADVISE_INLINE { Some(after_inode.get(end..end.checked_add(tail)?)?) } else { None };
            plain_header.then_some(Self { image, size, indexes, tail })
        };
        header().ok_or(ErofsReadError("the indexes of a compressed file are damaged"))
    }

    /// The content.
    pub(super) fn content(&self) -> Result<Vec<u8>, ErofsReadError> {
        let heads = self.heads().ok_or(ErofsReadError("the indexes of a compressed file are damaged"))?;
        let mut content = vec![0; self.size];
        for (index, head) in heads.iter().enumerate() {
            let next = heads.get(index + 1);
            let end = next.map_or(self.size, |next| next.start);
            let stored = match (self.tail, next) {
                (Some(tail), None) => Some(tail),
                _ => head.block.checked_mul(BLOCK).and_then(|start| self.image.get(start..start.checked_add(BLOCK)?)),
            };
            let into = content.get_mut(head.start..end).filter(|into| into.len() <= MAX_EXTENT);
            let done = stored.zip(into).and_then(|(stored, into)| decode(head.lz4, stored, into));
            done.ok_or(ErofsReadError("a compressed file is damaged"))?;
        }
        Ok(content)
    }

    /// Where extents start; the first one at the start of the file.
    fn heads(&self) -> Option<Vec<Head>> {
        let mut heads: Vec<Head> = Vec::new();
        for (number, index) in self.indexes.chunks_exact(INDEX).enumerate() {
            let offset = usize::from(u16_at(index, 2)?);
            let lz4 = match u16_at(index, 0)? {
                NONHEAD => continue,
                HEAD => true,
                PLAIN => false,
                _ => return None,
            };
            let start = (number * BLOCK).checked_add(offset).filter(|start| offset < BLOCK && *start < self.size)?;
            heads.push(Head { start, lz4, block: usize::try_from(u32_at(index, 4)?).ok()? });
        }
        (self.size == 0 || heads.first().is_some_and(|head| head.start == 0)).then_some(heads)
    }
}

/// The start of an extent.
struct Head {
    /// Where in the file.
    start: usize,
    lz4: bool,
    block: usize,
}

fn decode(lz4: bool, stored: &[u8], into: &mut [u8]) -> Option<()> {
    if !lz4 {
        into.copy_from_slice(stored.get(..into.len())?);
        return Some(());
    }
    // The zeros in front fill the block: no LZ4 block starts with one.
    let start = stored.iter().position(|byte| *byte != 0)?;
    let written = lz4_flex::block::decompress_into(stored.get(start..)?, into).ok()?;
    (written == into.len()).then_some(())
}
