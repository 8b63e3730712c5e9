//! LZ4 blocks that fill a given room: as much input as its compressed form fits into (lz4 `doc/lz4_Block_format.md`).
//!
//! Fixed output is what EROFS stores, and no LZ4 crate in Rust offers it. The encoder is our own, in safe code, so that no
//! version of a codec is a measured input: what it makes is covered by the format epoch. It is greedy, like LZ4's fast mode,
//! with a table of hashes of five bytes. Decoding is left to `lz4_flex`.

/// log2 of how many positions are remembered.
const HASH_BITS: u32 = 13;
/// The longest distance of a match.
const MAX_DISTANCE: usize = 65_535;
const MIN_MATCH: usize = 4;
/// A block's last match starts at least this far from its end, and its last bytes are literals ("End of block conditions").
const LAST_MATCH: usize = 12;
const LAST_LITERALS: usize = 5;
/// What is kept free behind a match: a token and literals that satisfy both conditions.
const RESERVE: usize = 1 + LAST_MATCH - MIN_MATCH;
/// After so many misses the search takes longer steps (a power of two).
const MISSES: u32 = 6;

/// An encoder with its memory, to be used for many blocks. What it makes depends on the block alone.
pub(super) struct Encoder {
    /// Positions by hash, plus `base`; less than `base` is of an earlier block.
    table: Vec<u32>,
    base: u32,
}

impl Encoder {
    pub(super) fn new() -> Self {
        Self { table: vec![0; 1 << HASH_BITS], base: 1 }
    }

    /// Appends to `out` one block of at most `room` bytes; returns how many bytes of `input`, from its start, are in it.
    /// `input` has less than 2^30 bytes.
    pub(super) fn encode(&mut self, input: &[u8], room: usize, out: &mut Vec<u8>) -> usize {
        let mut block = Block { input, room: out.len() + room, out, anchor: 0 };
        let mut position = 0;
        let (last_start, last_end) =
            (input.len().saturating_sub(LAST_MATCH), input.len().saturating_sub(LAST_LITERALS));
        let mut misses = 1 << MISSES;
        while position < last_start && position - block.anchor < block.left() {
            let Some(mut from) = self.candidate(input, position) else {
                position += misses >> MISSES;
                misses += 1;
                continue;
            };
            misses = 1 << MISSES;
            while position > block.anchor && from > 0 && input.get(position - 1) == input.get(from - 1) {
                (position, from) = (position - 1, from - 1);
            }
            let length = MIN_MATCH + common(input, from + MIN_MATCH, position + MIN_MATCH, last_end);
            let Some(end) = block.sequence(position, position - from, length) else {
                break;
            };
            // The table learns one position inside the match, which is cheap and finds most repetitions.
            self.candidate(input, end - 2);
            position = end;
        }
        let consumed = block.last_literals();
        self.forget(input.len());
        consumed
    }

    /// An earlier position with the same four bytes as `position`, which takes its place in the table.
    fn candidate(&mut self, input: &[u8], position: usize) -> Option<usize> {
        let here = word(input, position)?;
        let hash = (here << 24).wrapping_mul(889_523_592_379) >> (64 - HASH_BITS);
        let slot = self.table.get_mut(usize::try_from(hash).ok()?)?;
        let known = slot.checked_sub(self.base);
        *slot = self.base + u32::try_from(position).ok()?;
        let from = usize::try_from(known?).ok()?;
        let near = from < position && position - from <= MAX_DISTANCE;
        #[expect(clippy::cast_possible_truncation, reason = "the low four bytes are compared")]
        let same = || word(input, from).is_some_and(|there| there as u32 == here as u32);
        (near && same()).then_some(from)
    }

    /// Makes all positions in the table old.
    fn forget(&mut self, length: usize) {
        let next =
            u32::try_from(length).ok().and_then(|length| self.base.checked_add(length)).filter(|next| *next < 1 << 31);
        self.base = next.unwrap_or_else(|| {
            self.table.fill(0);
            1
        });
    }
}

/// A block in the making.
struct Block<'a> {
    input: &'a [u8],
    /// How long `out` may become.
    room: usize,
    out: &'a mut Vec<u8>,
    /// The first byte of the input that is not in the block yet.
    anchor: usize,
}

impl Block<'_> {
    fn left(&self) -> usize {
        self.room - self.out.len()
    }

    /// Appends the literals before `position` and a match there, as long as there is room for; returns the match's end, or
    /// `None` where there is no room for any.
    fn sequence(&mut self, position: usize, distance: usize, length: usize) -> Option<usize> {
        let literals = position - self.anchor;
        let fixed = 1 + extension(literals) + literals + 2 + RESERVE;
        // Each byte of the extension stands for 255 bytes of the match, after the first 15 that the token counts.
        let more = self.left().checked_sub(fixed)?;
        let longest = if more == 0 { MIN_MATCH + 14 } else { MIN_MATCH + 15 + (more - 1) * 255 };
        let length = length.min(longest);
        self.token(literals, length - MIN_MATCH);
        self.out.extend_from_slice(self.input.get(self.anchor..position)?);
        self.out.extend(u16::try_from(distance).ok()?.to_le_bytes());
        self.extend(length - MIN_MATCH);
        self.anchor = position + length;
        Some(self.anchor)
    }

    /// Ends the block with as many literals as there is room for; returns how much of the input it holds.
    fn last_literals(self) -> usize {
        let mut block = self;
        let waiting = block.input.len() - block.anchor;
        let mut literals = waiting.min(block.left().saturating_sub(1));
        while 1 + extension(literals) + literals > block.left() && literals > 0 {
            literals -= 1;
        }
        if block.left() > 0 {
            block.token(literals, 0);
            let end = block.anchor + literals;
            block.out.extend_from_slice(block.input.get(block.anchor..end).unwrap_or_default());
            block.anchor = end;
        }
        block.anchor
    }

    /// A token with the rest of the literals' length.
    fn token(&mut self, literals: usize, length: usize) {
        let nibble = |value: usize| u8::try_from(value.min(15)).unwrap_or(15);
        self.out.push(nibble(literals) << 4 | nibble(length));
        self.extend(literals);
    }

    /// What a length has beyond the 15 of its nibble.
    fn extend(&mut self, length: usize) {
        if let Some(rest) = length.checked_sub(15) {
            self.out.resize(self.out.len() + rest / 255, 255);
            self.out.push(u8::try_from(rest % 255).unwrap_or_default());
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
