//! The order in which depmod walks its hash tables, which is the order of symbols in `modules.symbols` and of modules that
//! `modules.order` does not name (kmod 34, shared/hash.c): by bucket, and by name within one.

/// Buckets of the table of module names (depmod_init in tools/depmod.c).
pub(super) const MODULES: u32 = 512;
/// Buckets of the table of symbols.
pub(super) const SYMBOLS: u32 = 2048;

/// The bucket of `key` among `buckets`, a power of two.
pub(super) fn bucket(key: &str, buckets: u32) -> u32 {
    superfast(key.as_bytes()) & (buckets - 1)
}

/// Paul Hsieh's SuperFastHash as kmod has it; lengths and names are those of symbols, far below 4 GiB.
fn superfast(key: &[u8]) -> u32 {
    let half = |bytes: &[u8]| u32::from(bytes.first_chunk().map_or(0, |bytes| u16::from_le_bytes(*bytes)));
    let mut hash = u32::try_from(key.len()).unwrap_or(u32::MAX);
    let (words, rest) = key.as_chunks::<4>();
    for [a, b, c, d] in words {
        hash = hash.wrapping_add(half(&[*a, *b]));
        let mixed = (half(&[*c, *d]) << 11) ^ hash;
        hash = (hash << 16) ^ mixed;
        hash = hash.wrapping_add(hash >> 11);
    }
    match rest {
        [a, b, c] => {
            hash = hash.wrapping_add(half(&[*a, *b]));
            hash ^= hash << 16;
            hash ^= u32::from(*c) << 18;
            hash = hash.wrapping_add(hash >> 11);
        }
        [a, b] => {
            hash = hash.wrapping_add(half(&[*a, *b]));
            hash ^= hash << 11;
            hash = hash.wrapping_add(hash >> 17);
        }
        [a] => {
            hash = hash.wrapping_add(u32::from(*a));
            hash ^= hash << 10;
            hash = hash.wrapping_add(hash >> 1);
        }
        _ => {}
    }
    hash ^= hash << 3;
    hash = hash.wrapping_add(hash >> 5);
    hash ^= hash << 4;
    hash = hash.wrapping_add(hash >> 17);
    hash ^= hash << 25;
    hash.wrapping_add(hash >> 6)
}
