//! The bytes of `ld.so.cache`, format "glibc-ld.so.cache1.1" (glibc 2.41, sysdeps/generic/dl-cache.h, elf/stringtable.c).

use std::collections::{BTreeMap, BTreeSet};

use super::Library;

const MAGIC: &[u8; 20] = b"glibc-ld.so.cache1.1";
/// FLAG_ELF_LIBC6 | FLAG_X8664_LIB64.
const FLAGS: u32 = 0x0303;
/// cache_file_new_flags_endian_little.
const LITTLE_ENDIAN: u32 = 2;
const HEADER: usize = 48;
const ENTRY: usize = 24;
const EXTENSION_MAGIC: u32 = 0xeaa4_2174;
/// cache_extension_tag_generator; readers only print what it says.
const GENERATOR_TAG: u32 = 0;
/// cache_extension_tag_glibc_hwcaps: the names that libraries refer to by number.
const HWCAPS_TAG: u32 = 1;
/// The upper half of DL_CACHE_HWCAP_EXTENSION: the lower half is such a number.
const HWCAP_EXTENSION: u32 = 1 << 30;
const GENERATOR: &[u8] = b"bullion";

/// The cache of these libraries, which are sorted as the loader's binary search expects. `directories` are the names below
/// `glibc-hwcaps`: ldconfig keeps those without a library as text.
pub(super) fn cache(libraries: &[Library], directories: &[String]) -> Vec<u8> {
    let (strings, offsets) = strings(libraries, directories);
    let hwcaps: BTreeSet<&str> = libraries.iter().filter_map(|library| library.hwcaps.as_deref()).collect();
    let base = HEADER + libraries.len() * ENTRY;
    let extension = (base + strings.len()).next_multiple_of(4);
    let mut out = Vec::with_capacity(extension + 64);
    out.extend_from_slice(MAGIC);
    for word in [number(libraries.len()), number(strings.len()), LITTLE_ENDIAN, number(extension), 0, 0, 0] {
        out.extend(word.to_le_bytes());
    }
    let place = |text: &str| number(base + offsets.get(text).copied().unwrap_or_default());
    for library in libraries {
        let index = library.hwcaps.as_deref().and_then(|name| hwcaps.iter().position(|known| *known == name));
        let (low, high) = index.map_or((0, 0), |index| (number(index), HWCAP_EXTENSION));
        // Then osversion, and the two halves of hwcap.
        for word in [FLAGS, place(&library.soname), place(&library.path), 0, low, high] {
            out.extend(word.to_le_bytes());
        }
    }
    out.extend_from_slice(&strings);
    out.resize(extension, 0);
    let sections = if hwcaps.is_empty() { 1 } else { 2 };
    let names = extension + 8 + sections * 16;
    let generator = names + hwcaps.len() * 4;
    let mut words = vec![EXTENSION_MAGIC, number(sections)];
    words.extend([GENERATOR_TAG, 0, number(generator), number(GENERATOR.len())]);
    if !hwcaps.is_empty() {
        words.extend([HWCAPS_TAG, 0, number(names), number(hwcaps.len() * 4)]);
    }
    words.extend(hwcaps.iter().map(|name| place(name)));
    words.iter().for_each(|word| out.extend(word.to_le_bytes()));
    out.extend_from_slice(GENERATOR);
    out
}

/// All texts with a zero byte after each, where one that ends another shares its bytes; and the offset of each text.
fn strings<'a>(libraries: &'a [Library], directories: &'a [String]) -> (Vec<u8>, BTreeMap<&'a str, usize>) {
    let mut texts: Vec<&str> =
        libraries.iter().flat_map(|library| [library.soname.as_str(), library.path.as_str()]).collect();
    texts.extend(directories.iter().map(String::as_str));
    // From the last byte on, the greater byte first; of two where one ends the other, the longer comes first.
    texts.sort_by(|a, b| {
        let both = a.bytes().rev().zip(b.bytes().rev());
        let differ = both.map(|(a, b)| b.cmp(&a)).find(|order| order.is_ne());
        differ.unwrap_or_else(|| b.len().cmp(&a.len()))
    });
    texts.dedup();
    let mut bytes = Vec::new();
    let mut offsets = BTreeMap::new();
    let mut previous: Option<(&str, usize)> = None;
    for text in texts {
        let offset = match previous {
            Some((longer, at)) if longer.ends_with(text) => at + longer.len() - text.len(),
            _ => {
                let at = bytes.len();
                bytes.extend_from_slice(text.as_bytes());
                bytes.push(0);
                at
            }
        };
        offsets.insert(text, offset);
        previous = Some((text, offset));
    }
    (bytes, offsets)
}

/// Sizes here are those of paths in memory, far below 4 GiB.
fn number(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}
