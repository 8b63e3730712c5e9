//! The binary index of kmod: a trie with path compression, big-endian, version 2.1 (kmod 34, libkmod/libkmod-index.c, and
//! index_insert and index_write in tools/depmod.c).

use std::collections::BTreeMap;

use super::MAX_KEY;

const MAGIC: u32 = 0xb007_f457;
const VERSION: u32 = 0x0002_0001;
/// The flags of a node, in the high nibble of its offset.
const HAS_PREFIX: u32 = 0x8000_0000;
const HAS_VALUES: u32 = 0x4000_0000;
const HAS_CHILDREN: u32 = 0x2000_0000;
/// The largest offset that leaves room for the flags.
const MAX_BYTES: usize = 0x0fff_ffff;
const HEADER: usize = 12;

/// Keys with their values.
#[derive(Debug, Default)]
pub(super) struct Trie {
    root: Node,
}

#[derive(Debug, Default)]
struct Node {
    prefix: Vec<u8>,
    /// By rising priority; of equal ones, the later comes first.
    values: Vec<(u32, String)>,
    children: BTreeMap<u8, Node>,
}

impl Trie {
    /// Adds a value. Keys are ASCII, because a node has room for 128 children.
    pub(super) fn insert(&mut self, key: &str, value: &str, priority: u32) -> Result<(), String> {
        let plain = |text: &str| text.bytes().all(|byte| byte.is_ascii() && byte != 0);
        if !plain(key) || !plain(value) || key.len() > MAX_KEY {
            return Err(format!(
                "\"{}\" cannot be indexed: it is longer than {MAX_KEY} bytes or not ASCII",
                key.escape_debug()
            ));
        }
        let mut node = &mut self.root;
        let mut key = key.as_bytes();
        loop {
            let common = node.prefix.iter().zip(key).take_while(|(a, b)| a == b).count();
            if common < node.prefix.len() {
                node.split(common);
            }
            key = key.get(common..).unwrap_or_default();
            let Some((first, rest)) = key.split_first() else {
                break;
            };
            if !node.children.contains_key(first) {
                let child =
                    Node { prefix: rest.to_vec(), values: vec![(priority, value.to_owned())], ..Node::default() };
                node.children.insert(*first, child);
                return Ok(());
            }
            key = rest;
            node = node.children.entry(*first).or_default();
        }
        let place = node.values.partition_point(|(known, _)| *known < priority);
        node.values.insert(place, (priority, value.to_owned()));
        Ok(())
    }

    /// The file.
    pub(super) fn to_bytes(&self) -> Result<Vec<u8>, String> {
        let mut out = Vec::new();
        for word in [MAGIC, VERSION, 0] {
            out.extend(word.to_be_bytes());
        }
        self.root.write(&mut out);
        if out.len() > MAX_BYTES {
            return Err(format!("the index has {} bytes, at most {MAX_BYTES} are possible", out.len()));
        }
        set(&mut out, HEADER - 4, self.root.reference(HEADER));
        Ok(out)
    }
}

impl Node {
    /// Moves what follows the first `length` bytes of the prefix into a child.
    fn split(&mut self, length: usize) {
        let mut below = std::mem::take(self);
        let rest = below.prefix.split_off(length);
        self.prefix = std::mem::replace(&mut below.prefix, rest.get(1..).unwrap_or_default().to_vec());
        if let Some(first) = rest.first() {
            self.children.insert(*first, below);
        }
    }

    /// The offset with the flags.
    fn reference(&self, offset: usize) -> u32 {
        let flag = |is_there: bool, flag: u32| if is_there { flag } else { 0 };
        // Offsets beyond `MAX_BYTES` are refused when the file is complete.
        u32::try_from(offset).unwrap_or_default()
            | flag(!self.prefix.is_empty(), HAS_PREFIX)
            | flag(!self.values.is_empty(), HAS_VALUES)
            | flag(!self.children.is_empty(), HAS_CHILDREN)
    }

    /// A node comes before its children, which come in the order of their first bytes; each child's offset is put into its
    /// place when it is known.
    fn write(&self, out: &mut Vec<u8>) {
        if !self.prefix.is_empty() {
            out.extend_from_slice(&self.prefix);
            out.push(0);
        }
        let range = self.children.first_key_value().zip(self.children.last_key_value());
        let table = range.map(|((first, _), (last, _))| {
            out.extend([*first, *last]);
            let table = out.len();
            out.resize(table + 4 * (usize::from(last - first) + 1), 0);
            (table, *first)
        });
        if !self.values.is_empty() {
            out.extend(u32::try_from(self.values.len()).unwrap_or(u32::MAX).to_be_bytes());
            for (priority, value) in &self.values {
                out.extend(priority.to_be_bytes());
                out.extend_from_slice(value.as_bytes());
                out.push(0);
            }
        }
        for (byte, child) in &self.children {
            if let Some((table, first)) = table {
                let reference = child.reference(out.len());
                set(out, table + 4 * usize::from(byte - first), reference);
            }
            child.write(out);
        }
    }
}

fn set(out: &mut [u8], offset: usize, word: u32) {
    crate::little_endian::put(out, offset, &word.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_a_key_is_refused() {
        let mut trie = Trie::default();
        assert!(trie.insert("a\u{e4}", "v", 0).is_err());
        assert!(trie.insert(&"a".repeat(MAX_KEY + 1), "v", 0).is_err());
        assert!(trie.insert("a", "v\0", 0).is_err());
    }
}
