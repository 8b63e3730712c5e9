//! From paths to inodes: hard links share one, directories know their entries, link counts are right.

use std::collections::BTreeMap;
use std::sync::Arc;

use rayon::prelude::*;

use super::ErofsError;
use super::compress::Compressed;
use super::directory::{Directory, FileType};
use super::format::{COMPACT_INODE, EXTENDED_INODE, S_IFCHR, S_IFDIR, S_IFLNK, S_IFMT, S_IFREG};
use super::xattr;
use crate::tree::{Kind, Node, Tree, name, parent};

/// An inode before it has a place.
#[derive(Debug)]
pub(super) struct Inode<'a> {
    /// Type and permissions.
    pub(super) mode: u16,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) links: u32,
    /// The extended attributes as they follow the inode.
    pub(super) xattrs: Vec<u8>,
    pub(super) data: Data<'a>,
}

/// What an inode refers to.
#[derive(Debug)]
pub(super) enum Data<'a> {
    /// A file's content or a link's target.
    Borrowed(&'a [u8]),
    Directory(Directory<'a>),
    /// A file's content, compressed.
    Compressed(Compressed),
    /// The encoded device number.
    Device(u32),
}

/// The fields that a compact inode has room for.
pub(super) struct Compact {
    pub(super) links: u16,
    pub(super) size: u32,
    pub(super) uid: u16,
    pub(super) gid: u16,
}

impl Inode<'_> {
    /// How many bytes it takes with its extended attributes.
    pub(super) fn header(&self) -> usize {
        let inode = if self.compact().is_some() { COMPACT_INODE } else { EXTENDED_INODE };
        inode + self.xattrs.len()
    }

    /// The fields of a compact inode; `None` where one is too large and the inode must be an extended one.
    pub(super) fn compact(&self) -> Option<Compact> {
        Some(Compact {
            links: self.links.try_into().ok()?,
            size: self.data.size().try_into().ok()?,
            uid: self.uid.try_into().ok()?,
            gid: self.gid.try_into().ok()?,
        })
    }
}

/// The inodes of `tree` in the order of their first path; the root directory is the first.
pub(super) fn collect(tree: &Tree) -> Result<Vec<Inode<'_>>, ErofsError> {
    let mut inodes: Vec<Inode<'_>> = Vec::with_capacity(tree.len());
    let mut directories: BTreeMap<&str, usize> = BTreeMap::new();
    let mut shared: BTreeMap<&Arc<str>, usize> = BTreeMap::new();
    for (path, node) in tree.iter() {
        let known = match &node.kind {
            Kind::File { inode: Some(inode), .. } => shared.get(inode).copied(),
            _ => None,
        };
        let index = known.unwrap_or(inodes.len());
        if known.is_none() {
            inodes.push(inode_of(path, node)?);
        }
        match &node.kind {
            Kind::Directory => drop(directories.insert(path, index)),
            Kind::File { inode: Some(inode), .. } => drop(shared.insert(inode, index)),
            _ => {}
        }
        // The root directory is its own parent, and has no name there.
        let Some(above) = parent(path) else {
            continue;
        };
        let above = directories.get(above).copied().ok_or_else(|| ErofsError::NoParent(path.to_owned()))?;
        enter(&mut inodes, above, index, name(path), node);
    }
    if directories.get("") != Some(&0) {
        return Err(ErofsError::NoParent(String::new()));
    }
    for inode in &mut inodes {
        if let Data::Directory(directory) = &mut inode.data {
            directory.lay_out();
        }
    }
    Ok(inodes)
}

/// Compresses every regular file that becomes smaller by it.
pub(super) fn compress(inodes: &mut [Inode<'_>]) {
    // One by one, so that a thread which has finished a small file takes the next, wherever the large ones are.
    inodes.par_iter_mut().with_max_len(1).filter(|inode| inode.mode & S_IFMT == S_IFREG).for_each(|inode| {
        if let Data::Borrowed(content) = inode.data
            && let Some(compressed) = Compressed::of(content)
        {
            inode.data = Data::Compressed(compressed);
        }
    });
}

/// Puts the node `index` into the directory `above` and counts the links.
fn enter<'a>(inodes: &mut [Inode<'a>], above: usize, index: usize, name: &'a str, node: &Node) {
    if let Some(Inode { links, data: Data::Directory(directory), .. }) = inodes.get_mut(above) {
        directory.add(name, index, FileType::of(&node.kind));
        *links += u32::from(node.is_directory());
    }
    match inodes.get_mut(index) {
        Some(Inode { data: Data::Directory(directory), .. }) => directory.set_own(index, above),
        Some(inode) => inode.links += 1,
        None => {}
    }
}

fn inode_of<'a>(path: &str, node: &'a Node) -> Result<Inode<'a>, ErofsError> {
    let (kind, links, data) = match &node.kind {
        // "." and the entry in the parent directory; subdirectories and the other names of a file are added as they come.
        Kind::Directory => (S_IFDIR, 2, Data::Directory(Directory::default())),
        Kind::File { content, .. } => (S_IFREG, 0, Data::Borrowed(content.bytes())),
        Kind::Symlink(target) => (S_IFLNK, 0, Data::Borrowed(target.as_bytes())),
        Kind::CharDevice { major, minor } => (S_IFCHR, 0, Data::Device(encode_device(*major, *minor))),
    };
    let xattrs = xattr::encode(&node.xattrs).ok_or_else(|| ErofsError::Xattrs(path.to_owned()))?;
    Ok(Inode { mode: kind | node.mode, uid: node.uid, gid: node.gid, links, xattrs, data })
}

/// `new_encode_dev` of include/linux/kdev_t.h.
fn encode_device(major: u32, minor: u32) -> u32 {
    minor & 0xff | major << 8 | (minor & !0xff) << 12
}
