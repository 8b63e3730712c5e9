//! A small reader of the images that the writer makes, for comparing two of them file by file.
//!
//! It knows flat inodes and those with LZ4 extents of one block, extended attributes that no other inode shares, refuses everything else, and never panics or recurses
//! without bound.

use std::collections::BTreeMap;

use super::extents::Extents;
use super::format::{
    BLOCK, BLOCK_BITS, COMPACT_INODE, COMPRESSED_FULL, DIRENT, EXTENDED_INODE, FEATURE_INCOMPAT_LZ4,
    FEATURE_INCOMPAT_OFFSET, FLAT_INLINE, FLAT_PLAIN, MAGIC, MAP_ALIGN, S_IFCHR, S_IFDIR, S_IFMT, S_IFREG, SLOT,
    SUPERBLOCK_OFFSET,
};
use super::xattr;
use crate::little_endian::{u16_at, u32_at};
use crate::tree::Xattrs;

/// Bytes that are not an image of the writer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a readable EROFS image: {0}")]
pub struct ErofsReadError(pub &'static str);

/// A node of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadNode<'a> {
    /// Type and permissions.
    pub mode: u16,
    /// The owner's number.
    pub uid: u32,
    /// The group's number.
    pub gid: u32,
    /// How many names it has.
    pub links: u32,
    /// The encoded device number of a device; else 0.
    pub device: u32,
    /// The inode's number: two paths with the same one are hard links of one file.
    pub nid: u64,
    /// How many bytes of content there are: of a file, or a link's target.
    pub size: u64,
    xattrs: &'a [u8],
    data: Stored<'a>,
}

/// Where an inode's content is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stored<'a> {
    /// As it is, but for a tail behind the inode.
    Flat { head: &'a [u8], tail: &'a [u8] },
    /// Compressed.
    Lz4(Extents<'a>),
}

impl ReadNode<'_> {
    /// The content of a file, or the target of a link; of a directory, its entries as they are stored.
    pub fn content(&self) -> Result<Vec<u8>, ErofsReadError> {
        match self.data {
            Stored::Flat { head, tail } => Ok([head, tail].concat()),
            Stored::Lz4(extents) => extents.content(),
        }
    }

    /// The extended attributes by their full names.
    pub fn xattrs(&self) -> Result<Xattrs, ErofsReadError> {
        xattr::decode(self.xattrs).ok_or(ErofsReadError("extended attributes are damaged"))
    }
}

const MAX_DEPTH: usize = 2048;
const MAX_NODES: usize = 1 << 22;

/// Reads all nodes by path (the root is the empty path).
pub fn read(image: &[u8]) -> Result<BTreeMap<String, ReadNode<'_>>, ErofsReadError> {
    let superblock = image.get(SUPERBLOCK_OFFSET..).ok_or(ErofsReadError("it is too short"))?;
    if u32_at(superblock, 0) != Some(MAGIC) {
        return Err(ErofsReadError("it has no magic number"));
    }
    if superblock.get(12) != Some(&BLOCK_BITS) {
        return Err(ErofsReadError("its blocks are not of 4096 bytes"));
    }
    let features =
        u32_at(superblock, FEATURE_INCOMPAT_OFFSET).filter(|found| [0, FEATURE_INCOMPAT_LZ4].contains(found));
    if u32_at(superblock, 40) != Some(0) || features.is_none() {
        return Err(ErofsReadError("it uses a feature that is not known"));
    }
    let root = u16_at(superblock, 14).ok_or(ErofsReadError("it is too short"))?;
    let mut nodes = BTreeMap::new();
    let mut waiting = vec![(String::new(), u64::from(root), 0)];
    while let Some((path, nid, depth)) = waiting.pop() {
        let node = inode(image, nid)?;
        if depth > MAX_DEPTH || nodes.len() >= MAX_NODES {
            return Err(ErofsReadError("it is too deep or too large"));
        }
        if node.mode & S_IFMT == S_IFDIR {
            for (name, child) in entries(&node)? {
                let path = if path.is_empty() { name } else { format!("{path}/{name}") };
                waiting.push((path, child, depth + 1));
            }
        }
        if nodes.insert(path, node).is_some() {
            return Err(ErofsReadError("a name comes twice"));
        }
    }
    Ok(nodes)
}

fn inode(image: &[u8], nid: u64) -> Result<ReadNode<'_>, ErofsReadError> {
    let error = ErofsReadError("an inode is outside the image");
    let offset = usize::try_from(nid).ok().and_then(|nid| nid.checked_mul(SLOT)).ok_or_else(|| error.clone())?;
    let raw = image.get(offset..).ok_or_else(|| error.clone())?;
    let fields = fields(raw).ok_or_else(|| error.clone())?;
    let mut node = ReadNode { nid, size: fields.size, ..fields.node };
    let size = usize::try_from(fields.size).map_err(|_| error.clone())?;
    if node.mode & S_IFMT == S_IFCHR {
        node.device = fields.union;
        return Ok(node);
    }
    let inline = match fields.layout {
        FLAT_PLAIN => 0,
        FLAT_INLINE => size % BLOCK,
        COMPRESSED_FULL if node.mode & S_IFMT == S_IFREG => {
            let indexes = raw.get(fields.length.next_multiple_of(MAP_ALIGN)..).unwrap_or_default();
            node.data = Stored::Lz4(Extents::read(image, indexes, size)?);
            return Ok(node);
        }
        _ => return Err(ErofsReadError("an inode has a layout that is not known")),
    };
    let mut head: &[u8] = &[];
    if size > inline {
        let start = usize::try_from(fields.union).ok().and_then(|block| block.checked_mul(BLOCK));
        let range = start.and_then(|start| Some(start..start.checked_add(size - inline)?));
        head = range.and_then(|range| image.get(range)).ok_or(error.clone())?;
    }
    node.data = Stored::Flat { head, tail: raw.get(fields.length..fields.length + inline).ok_or(error)? };
    Ok(node)
}

const NOTHING: Stored<'_> = Stored::Flat { head: &[], tail: &[] };

struct Fields<'a> {
    node: ReadNode<'a>,
    size: u64,
    union: u32,
    layout: u16,
    /// Of the inode with its extended attributes.
    length: usize,
}

fn fields(raw: &[u8]) -> Option<Fields<'_>> {
    let format = u16_at(raw, 0)?;
    let inode = if format & 1 == 0 { COMPACT_INODE } else { EXTENDED_INODE };
    let length = inode + xattr::size(u16_at(raw, 2)?);
    let (mode, xattrs) = (u16_at(raw, 4)?, raw.get(inode..length)?);
    let node = ReadNode { mode, uid: 0, gid: 0, links: 0, device: 0, nid: 0, size: 0, xattrs, data: NOTHING };
    let (layout, union) = (format >> 1 & 7, u32_at(raw, 16)?);
    Some(if format & 1 == 0 {
        let node = ReadNode {
            links: u16_at(raw, 6)?.into(),
            uid: u16_at(raw, 24)?.into(),
            gid: u16_at(raw, 26)?.into(),
            ..node
        };
        Fields { node, size: u32_at(raw, 8)?.into(), union, layout, length }
    } else {
        let node = ReadNode { links: u32_at(raw, 44)?, uid: u32_at(raw, 24)?, gid: u32_at(raw, 28)?, ..node };
        let size = u64::from(u32_at(raw, 8)?) | u64::from(u32_at(raw, 12)?) << 32;
        Fields { node, size, union, layout, length }
    })
}

/// The names in a directory but for `.` and `..`, with their inodes.
fn entries(directory: &ReadNode<'_>) -> Result<Vec<(String, u64)>, ErofsReadError> {
    let Stored::Flat { head, tail } = directory.data else {
        return Err(ErofsReadError("a directory is compressed"));
    };
    let blocks = head.chunks(BLOCK).chain(Some(tail).filter(|tail| !tail.is_empty()));
    let mut found = Vec::new();
    for block in blocks {
        found.extend(entries_of(block).ok_or(ErofsReadError("a directory is damaged"))?);
    }
    Ok(found)
}

fn entries_of(block: &[u8]) -> Option<Vec<(String, u64)>> {
    let count = usize::from(u16_at(block, 8)?) / DIRENT;
    let name_offset = |index: usize| u16_at(block, index * DIRENT + 8).map(usize::from);
    let mut found = Vec::new();
    for index in 0..count {
        let nid = u64::from(u32_at(block, index * DIRENT)?) | u64::from(u32_at(block, index * DIRENT + 4)?) << 32;
        let end = if index + 1 < count { name_offset(index + 1)? } else { block.len() };
        let raw = block.get(name_offset(index)?..end)?;
        let raw = raw.split(|byte| *byte == 0).next()?;
        let name = std::str::from_utf8(raw).ok().filter(|name| !name.is_empty() && !name.contains('/'))?;
        if name != "." && name != ".." {
            found.push((name.to_owned(), nid));
        }
    }
    Some(found)
}
