//! The Authenticode digest of an image that is never in memory as a whole: kernels are large, and memory for them costs more time than
//! reading them.

use alloc::vec::Vec;
use core::ops::Range;

use sha2::{Digest as _, Sha384};

use super::{PeError, hashed_ranges};
use crate::digest::Digest384;

/// Takes an image piece by piece, from its start.
#[derive(Clone, Debug)]
pub struct Hasher {
    /// What is hashed, in the order of the file.
    parts: Vec<Range<usize>>,
    /// The first part that has not ended.
    next: usize,
    position: usize,
    length: usize,
    sha384: Sha384,
}

impl Hasher {
    /// For an image of `length` bytes that starts with `head`, in which its headers must be. `None` where what is hashed is not in the
    /// order of the file: such an image is hashed by [`super::sha384`].
    pub fn new(head: &[u8], length: usize) -> Result<Option<Self>, PeError> {
        let parts = hashed_ranges(head, length)?;
        let in_order = parts.windows(2).all(|pair| matches!(pair, [one, two] if one.end <= two.start));
        Ok(in_order.then(|| Self { parts, next: 0, position: 0, length, sha384: Sha384::new() }))
    }

    /// The next bytes of the file.
    pub fn update(&mut self, piece: &[u8]) {
        let start = self.position;
        let end = start.saturating_add(piece.len());
        while let Some(part) = self.parts.get(self.next) {
            let (from, to) = (part.start.max(start), part.end.min(end));
            let range = from.saturating_sub(start)..to.saturating_sub(start);
            self.sha384.update(piece.get(range).unwrap_or_default());
            if part.end > end {
                break;
            }
            self.next = self.next.saturating_add(1);
        }
        self.position = end;
    }

    /// The digest; `None` where the file was shorter or longer than it was to be.
    pub fn finish(self) -> Option<Digest384> {
        (self.position == self.length).then(|| Digest384(self.sha384.finalize().into()))
    }
}
