//! Files as runs of LZ4 blocks: how a file is cut, and what is better left as it is.
//!
//! A file is cut into extents whose compressed form fills one block (Documentation/filesystems/erofs.rst, "variable-length
//! extents, fixed-sized output"). Long files are cut at fixed places first, so that several threads can work on one file and
//! the result does not depend on how many there are.

use std::cell::RefCell;

use rayon::prelude::*;

use super::format::BLOCK;
use super::lz4::Encoder;

/// Where long files are cut. A cut costs half a block.
const SEGMENT: usize = 4 << 20;
/// The longest extent: short enough for the 11 bits that an index has for a distance in blocks.
pub(super) const MAX_EXTENT: usize = 1 << 20;
/// The longest tail that is kept with the inode: with an inode and its indexes it still fits into a block.
const MAX_TAIL: usize = 3 << 10;
/// Shorter files gain nothing.
const SHORTEST: usize = 64;

thread_local! {
    /// Most files are so short that a new table for each would take longer than to compress it.
    static ENCODER: RefCell<Encoder> = RefCell::new(Encoder::new());
}

/// A compressed file.
#[derive(Debug, Default)]
pub(super) struct Compressed {
    /// The file's size in bytes.
    pub(super) size: usize,
    /// The extents in order.
    pub(super) extents: Vec<Extent>,
    /// The blocks of all extents but the one in `tail`, in runs that follow each other.
    pub(super) runs: Vec<Vec<u8>>,
    /// What the last extent is stored as, where it goes with the inode.
    pub(super) tail: Vec<u8>,
}

/// A part of a file that is stored in one block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    /// How many bytes of the file it is.
    pub(super) length: usize,
    /// Whether it is compressed.
    pub(super) lz4: bool,
}

impl Compressed {
    /// Compresses a file; `None` where it takes less room as it is.
    pub(super) fn of(content: &[u8]) -> Option<Self> {
        if content.len() < SHORTEST {
            return None;
        }
        let parts: Vec<Self> = content.par_chunks(SEGMENT).map(segment).collect();
        let mut whole = Self::default();
        for part in parts {
            // Only the last tail can be the file's.
            whole.end_tail();
            whole.extents.extend(part.extents);
            whole.runs.extend(part.runs);
            whole.tail = part.tail;
        }
        whole.size = content.len();
        if whole.tail.len() > MAX_TAIL {
            whole.end_tail();
        }
        (whole.stored() + whole.tail.len() + super::format::indexes_size(whole.size) < content.len()).then_some(whole)
    }

    /// How many bytes the blocks have.
    pub(super) fn stored(&self) -> usize {
        self.runs.iter().map(Vec::len).sum()
    }

    /// Puts the tail into a block of its own.
    fn end_tail(&mut self) {
        let (Some(last), Some(run)) = (self.extents.last(), self.runs.last_mut()) else {
            return;
        };
        if self.tail.is_empty() {
            return;
        }
        let padding = BLOCK - self.tail.len();
        let (before, after) = if last.lz4 { (padding, 0) } else { (0, padding) };
        run.resize(run.len() + before, 0);
        run.append(&mut self.tail);
        run.resize(run.len() + after, 0);
    }
}

/// Compresses one segment. The last extent's bytes are the tail.
fn segment(content: &[u8]) -> Compressed {
    ENCODER.with_borrow_mut(|encoder| extents(encoder, content))
}

/// The same with this encoder.
fn extents(encoder: &mut Encoder, content: &[u8]) -> Compressed {
    let mut made = Compressed { size: content.len(), runs: vec![Vec::new()], ..Compressed::default() };
    let mut rest = content;
    while !rest.is_empty() {
        made.end_tail();
        let input = rest.get(..MAX_EXTENT).unwrap_or(rest);
        let mut length = encoder.encode(input, BLOCK, &mut made.tail);
        let plain = rest.len().min(BLOCK);
        // What holds no more than the plain bytes would, or is no shorter than the plain rest, is not worth decoding.
        let lz4 = length > plain || (length == rest.len() && made.tail.len() < plain);
        if !lz4 {
            length = plain;
            made.tail.clear();
            made.tail.extend_from_slice(rest.get(..plain).unwrap_or_default());
        }
        made.extents.push(Extent { length, lz4 });
        rest = rest.get(length..).unwrap_or_default();
    }
    made
}
