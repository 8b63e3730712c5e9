//! LZ4 blocks that fill a given room: as much input as its compressed form fits into (lz4 `doc/lz4_Block_format.md`).
//!
//! Fixed output is what EROFS stores, and no LZ4 crate in Rust offers it. The encoder is our own, in safe code, so that no
//! version of a codec is a measured input: what it makes is covered by the format epoch. It is greedy, like LZ4's fast mode,
//! with a table of hashes of five bytes. Decoding is left to `lz4_flex`.

/// log2 of how many positions are remembered.
const HASH_BITS: u32 = 15;
/// The longest distance of a match.
const MAX_DISTANCE: usize = 65_535;
const MIN_MATCH: usize = 4;
/// A block's last match starts at least this far from its end, and its last bytes are literals ("End of block conditions").
const LAST_MATCH: usize = 12;
const LAST_LITERALS: usize = 5;
/// What is kept free behind a match: a token and literals that satisfy both conditions.
const RESERVE: usize = 1 + LAST_MATCH - MIN_MATCH;
/// How many literals are copied at once.
const CHUNK: usize = 16;
/// Where the table is cleared after all: an input's positions fit behind any origin before.
const LAST_ORIGIN: u32 = 1 << 31;
/// So far behind what an empty table holds that no distance is short enough.
const FIRST_ORIGIN: u32 = 1 << 16;
const _: () = assert!(FIRST_ORIGIN as usize > MAX_DISTANCE);
/// After so many misses the search takes longer steps (a power of two).
const MISSES: u32 = 6;

/// An encoder with its memory, to be used for many blocks. What it makes depends on the block alone.
pub(super) struct Encoder {
    table: Box<Table>,
    /// What is added to a block's positions in the table. It grows by more than the longest distance from block to block, so
    /// that the table need not be cleared for each.
    origin: u32,
    /// The block in the making, with room behind it for copies of whole chunks.
    buffer: Vec<u8>,
}

/// By hash, four bytes of the input and the position where they were: one subtraction from an entry for the same bytes elsewhere
/// gives the distance, and a greater number where the bytes differ or the position is of an earlier block. That no byte of the
/// input has to be read for it makes the encoder a fifth faster.
type Table = [u64; 1 << HASH_BITS];

impl Encoder {
    pub(super) fn new() -> Self {
        Self { table: Box::new([0; 1 << HASH_BITS]), origin: FIRST_ORIGIN, buffer: Vec::new() }
    }

    /// Appends to `out` one block of at most `room` bytes; returns how many bytes of `input`, from its start, are in it.
    /// `input` has less than 2^30 bytes.
    pub(super) fn encode(&mut self, input: &[u8], room: usize, out: &mut Vec<u8>) -> usize {
        self.buffer.resize(room + SHORT, 0);
        let mut known = Known { table: &mut self.table, origin: self.origin };
        let mut block = Block { input, room, out: &mut self.buffer, length: 0, anchor: 0 };
        let (last_start, last_end) =
            (input.len().saturating_sub(LAST_MATCH), input.len().saturating_sub(LAST_LITERALS));
        let mut start = 0;
        loop {
            let limit = last_start.min(block.anchor + block.left());
            let Some((mut position, mut from)) = known.find(input, start, limit) else {
                break;
            };
            while position > block.anchor && from > 0 && input.get(position - 1) == input.get(from - 1) {
                (position, from) = (position - 1, from - 1);
            }
            let length = MIN_MATCH + common(input, from + MIN_MATCH, position + MIN_MATCH, last_end);
            let Some(end) = block.sequence(position, position - from, length) else {
                break;
            };
            // The table learns one position inside the match, which is cheap and finds most repetitions.
            if let Some(here) = word(input, end - 2) {
                known.distance(here, end - 2);
            }
            start = end;
        }
        let (consumed, length) = block.last_literals();
        self.forget(consumed + room);
        out.extend_from_slice(self.buffer.get(..length).unwrap_or_default());
        consumed
    }

    /// Makes what the table holds too far from any position of the next block; none of it was as far as `end`.
    fn forget(&mut self, end: usize) {
        let next = u32::try_from(end).ok().and_then(|end| self.origin.checked_add(end)?.checked_add(FIRST_ORIGIN));
        self.origin = next.filter(|next| *next < LAST_ORIGIN).unwrap_or_else(|| {
            self.table.fill(0);
            FIRST_ORIGIN
        });
    }
}

/// Where the table keeps a position with these bytes: of the first five.
fn hash(here: u64) -> usize {
    ((here << 24).wrapping_mul(889_523_592_379) >> (64 - HASH_BITS)) as usize & ((1 << HASH_BITS) - 1)
}

/// The positions of one block.
struct Known<'a> {
    table: &'a mut Table,
    origin: u32,
}

impl Known<'_> {
    /// Remembers that `here` is at `position`; returns how far before it the same four bytes were, if they were remembered.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "the input has less than 2^30 bytes")]
    fn distance(&mut self, here: u64, position: usize) -> Option<usize> {
        let entry = here << 32 | u64::from(self.origin + position as u32);
        let known = std::mem::replace(self.table.get_mut(hash(here))?, entry);
        Some(entry.wrapping_sub(known) as usize).filter(|distance| *distance <= MAX_DISTANCE)
    }

    /// The first position from `start` on, before `limit`, that has an earlier one with the same four bytes, and that one.
    /// Steps get longer the longer nothing is found.
    ///
    /// Most of the time goes here, for the one condition of a step cannot be foreseen.
    #[inline]
    fn find(&mut self, input: &[u8], start: usize, limit: usize) -> Option<(usize, usize)> {
        let mut position = start;
        let mut misses = 1 << MISSES;
        while position < limit {
            let here = word(input, position)?;
            if let Some(distance) = self.distance(here, position) {
                return Some((position, position - distance));
            }
            position += misses >> MISSES;
            misses += 1;
        }
        None
    }
}

/// A block in the making.
struct Block<'a> {
    input: &'a [u8],
    /// How long the block may become.
    room: usize,
    /// `room` bytes and `SHORT` more.
    out: &'a mut [u8],
    length: usize,
    /// The first byte of the input that is not in the block yet.
    anchor: usize,
}

/// The longest sequence whose lengths fit into its token, as it is written: with a whole chunk.
const SHORT: usize = 1 + CHUNK + 2;

impl Block<'_> {
    fn left(&self) -> usize {
        self.room - self.length
    }

    /// Appends the literals before `position` and a match there, as long as there is room for; returns the match's end, or
    /// `None` where there is no room for any.
    #[inline]
    fn sequence(&mut self, position: usize, distance: usize, length: usize) -> Option<usize> {
        let literals = position - self.anchor;
        if let Some(end) = self.short_sequence(literals, distance, length) {
            return Some(end);
        }
        let fixed = 1 + extension(literals) + literals + 2 + RESERVE;
        // Each byte of the extension stands for 255 bytes of the match, after the first 15 that the token counts.
        let more = self.left().checked_sub(fixed)?;
        let longest = if more == 0 { MIN_MATCH + 14 } else { MIN_MATCH + 15 + (more - 1) * 255 };
        let length = length.min(longest);
        self.token(literals, length - MIN_MATCH);
        self.literals(literals);
        let distance = u16::try_from(distance).ok()?.to_le_bytes();
        self.out.get_mut(self.length..)?.first_chunk_mut().map(|place: &mut [u8; 2]| *place = distance)?;
        self.length += 2;
        self.extend(length - MIN_MATCH);
        self.anchor = position + length;
        Some(self.anchor)
    }

    /// The same for most sequences, whose lengths fit into the token: copies of a fixed size take one instruction, and what is
    /// too much is written over.
    #[inline]
    fn short_sequence(&mut self, literals: usize, distance: usize, length: usize) -> Option<usize> {
        let nibble = length - MIN_MATCH;
        if literals >= 15 || nibble >= 15 || self.left() < 1 + literals + 2 + RESERVE {
            return None;
        }
        let chunk: &[u8; CHUNK] = self.input.get(self.anchor..)?.first_chunk()?;
        let place: &mut [u8; SHORT] = self.out.get_mut(self.length..)?.first_chunk_mut()?;
        *place.first_mut()? = u8::try_from(literals << 4 | nibble).ok()?;
        place.get_mut(1..=CHUNK)?.copy_from_slice(chunk);
        place.get_mut(1 + literals..3 + literals)?.copy_from_slice(&u16::try_from(distance).ok()?.to_le_bytes());
        self.length += 3 + literals;
        self.anchor += literals + length;
        Some(self.anchor)
    }

    /// Ends the block with as many literals as there is room for; returns how much of the input it holds, and its length.
    fn last_literals(mut self) -> (usize, usize) {
        let waiting = self.input.len() - self.anchor;
        let mut literals = waiting.min(self.left().saturating_sub(1));
        while 1 + extension(literals) + literals > self.left() && literals > 0 {
            literals -= 1;
        }
        if self.left() > 0 {
            self.token(literals, 0);
            self.literals(literals);
            self.anchor += literals;
        }
        (self.anchor, self.length)
    }

    /// Appends so many bytes of the input.
    fn literals(&mut self, count: usize) {
        let (from, to) = (self.anchor, self.length);
        if let (Some(literals), Some(place)) = (self.input.get(from..from + count), self.out.get_mut(to..to + count)) {
            place.copy_from_slice(literals);
        }
        self.length += count;
    }

    fn push(&mut self, byte: u8) {
        if let Some(place) = self.out.get_mut(self.length) {
            *place = byte;
        }
        self.length += 1;
    }

    /// A token with the rest of the literals' length.
    fn token(&mut self, literals: usize, length: usize) {
        let nibble = |value: usize| u8::try_from(value.min(15)).unwrap_or(15);
        self.push(nibble(literals) << 4 | nibble(length));
        self.extend(literals);
    }

    /// What a length has beyond the 15 of its nibble.
    fn extend(&mut self, length: usize) {
        if let Some(mut rest) = length.checked_sub(15) {
            while let Some(less) = rest.checked_sub(255) {
                self.push(255);
                rest = less;
            }
            self.push(u8::try_from(rest).unwrap_or_default());
        }
    }
}

/// How many bytes a length takes beyond its nibble.
fn extension(length: usize) -> usize {
    length.checked_sub(15).map_or(0, |rest| 1 + rest / 255)
}

/// Eight bytes from `position`, if there are so many.
fn word(input: &[u8], position: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*input.get(position..)?.first_chunk()?))
}

/// How many bytes from `from` on are the same as from `position` on, before `end`.
fn common(input: &[u8], from: usize, position: usize, end: usize) -> usize {
    let mut length = 0;
    while position + length + 8 <= end {
        let (Some(a), Some(b)) = (word(input, from + length), word(input, position + length)) else {
            break;
        };
        if a != b {
            return length + usize::try_from((a ^ b).trailing_zeros() / 8).unwrap_or_default();
        }
        length += 8;
    }
    while position + length < end && input.get(from + length) == input.get(position + length) {
        length += 1;
    }
    length
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_encoded_before_does_not_show() {
        let text: Vec<u8> = (0..40_000_u32)
            .flat_map(|number| format!("{} ", number.wrapping_mul(2_654_435_761) >> 20).into_bytes())
            .collect();
        let mut fresh = Vec::new();
        let consumed = Encoder::new().encode(&text, 4096, &mut fresh);
        assert_eq!(lz4_flex::block::decompress(&fresh, consumed).unwrap(), &text[..consumed]);
        // The same bytes at other positions each time, over the point where the table is cleared.
        let mut used = Encoder::new();
        used.origin = LAST_ORIGIN - 10 * FIRST_ORIGIN;
        for number in 0..20 {
            used.encode(&text[number * 37..], 4096, &mut Vec::new());
            let mut again = Vec::new();
            assert_eq!((used.encode(&text, 4096, &mut again), &again), (consumed, &fresh), "after {number}");
        }
        assert!(used.origin < LAST_ORIGIN - 10 * FIRST_ORIGIN, "the table was not cleared");
    }
}
