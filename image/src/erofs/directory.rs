//! Directory data: blocks that each start with their entries and end with their names, sorted by bytes over the whole
//! directory, `.` and `..` among them, because the kernel looks names up by bisection.

use super::format::{BLOCK, DIRENT};
use super::inode::{Data, Inode};
use crate::little_endian::put;
use crate::tree::Kind;

/// A directory's entries and, once `lay_out` has run, its bytes.
#[derive(Debug, Default)]
pub(super) struct Directory<'a> {
    own: usize,
    above: usize,
    entries: Vec<Dirent<'a>>,
    bytes: Vec<u8>,
    /// Where in `bytes` the number of each entry's inode goes.
    slots: Vec<usize>,
}

#[derive(Clone, Copy, Debug)]
struct Dirent<'a> {
    name: &'a [u8],
    inode: usize,
    file_type: FileType,
}

/// `file_type` of a directory entry (include/linux/fs_types.h).
#[derive(Clone, Copy, Debug)]
#[repr(u8)]
pub(super) enum FileType {
    Regular = 1,
    Directory = 2,
    CharDevice = 3,
    Symlink = 7,
}

impl FileType {
    pub(super) fn of<C>(kind: &Kind<C>) -> Self {
        match kind {
            Kind::Directory => Self::Directory,
            Kind::File { .. } => Self::Regular,
            Kind::Symlink(_) => Self::Symlink,
            Kind::CharDevice { .. } => Self::CharDevice,
        }
    }
}

impl<'a> Directory<'a> {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn add(&mut self, name: &'a str, inode: usize, file_type: FileType) {
        self.entries.push(Dirent { name: name.as_bytes(), inode, file_type });
    }

    /// Says which inodes `.` and `..` are; the root directory is both, and is never told.
    pub(super) fn set_own(&mut self, own: usize, above: usize) {
        (self.own, self.above) = (own, above);
    }

    /// Makes the bytes, with zeros where the inode numbers go.
    pub(super) fn lay_out(&mut self) {
        let file_type = FileType::Directory;
        self.entries.push(Dirent { name: b".", inode: self.own, file_type });
        self.entries.push(Dirent { name: b"..", inode: self.above, file_type });
        self.entries.sort_by_key(|entry| entry.name);
        let mut rest = self.entries.as_slice();
        while !rest.is_empty() {
            let (block, after) = rest.split_at(fitting(rest));
            self.bytes.resize(self.bytes.len().next_multiple_of(BLOCK), 0);
            block_of(block, &mut self.bytes, &mut self.slots);
            rest = after;
        }
    }
}

/// Fills in the inode numbers of a directory.
pub(super) fn resolve(inode: &mut Inode<'_>, nids: &[u64]) {
    let Data::Directory(directory) = &mut inode.data else {
        return;
    };
    for (entry, slot) in directory.entries.iter().zip(&directory.slots) {
        let nid = nids.get(entry.inode).copied().unwrap_or_default();
        put(&mut directory.bytes, *slot, &nid.to_le_bytes());
    }
}

/// How many of `entries` fit into one block: at least one, as names have at most 255 bytes.
fn fitting(entries: &[Dirent<'_>]) -> usize {
    let mut used = 0;
    let over = entries.iter().position(|entry| {
        used += DIRENT + entry.name.len();
        used > BLOCK
    });
    over.unwrap_or(entries.len()).max(1)
}

fn block_of(entries: &[Dirent<'_>], bytes: &mut Vec<u8>, slots: &mut Vec<usize>) {
    let mut name_offset = entries.len() * DIRENT;
    for entry in entries {
        slots.push(bytes.len());
        bytes.extend([0; 8]); // nid
        bytes.extend(u16::try_from(name_offset).unwrap_or_default().to_le_bytes());
        bytes.extend([entry.file_type as u8, 0]);
        name_offset += entry.name.len();
    }
    for entry in entries {
        bytes.extend_from_slice(entry.name);
    }
}
