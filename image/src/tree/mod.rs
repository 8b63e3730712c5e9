//! A file tree in memory, from which file systems are written.
//!
//! Paths have no leading `/`; the root directory is the empty path. There are no times: everything a tree becomes has
//! time 0. The tree is generic over what stands for a file's content, so that `unpack` can merge digests only.

mod glob;
mod merge;
mod overlay;
mod resolve;

use std::collections::BTreeMap;
use std::sync::Arc;

pub use glob::{Glob, GlobError};
pub use merge::{MergeError, NewEntry, USR_MERGED};
pub(crate) use overlay::OF_RECIPE;
pub use overlay::OverlayError;
pub(crate) use overlay::initrd_files;

use crate::content::Content;

/// A file tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tree<C = Content> {
    nodes: BTreeMap<String, Node<C>>,
}

/// A file, directory, link or device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node<C = Content> {
    /// What it is.
    pub kind: Kind<C>,
    /// Permission bits: at most 0o7777.
    pub mode: u16,
    /// The owner's number.
    pub uid: u32,
    /// The group's number.
    pub gid: u32,
    /// Extended attributes by their full names, such as `security.capability` (xattr(7)). Names of one inode have the same.
    pub xattrs: Xattrs,
    /// Who put it there, for messages: a package or a part of the recipe.
    pub origin: Arc<str>,
}

/// Extended attributes: values by full names.
pub type Xattrs = BTreeMap<String, Vec<u8>>;

/// What a node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind<C = Content> {
    /// A directory.
    Directory,
    /// A regular file.
    File {
        /// The content.
        content: C,
        /// Files of one tree with the same name here are one inode with several names.
        inode: Option<Arc<str>>,
    },
    /// A symbolic link.
    Symlink(String),
    /// A character device.
    CharDevice {
        /// The major number.
        major: u32,
        /// The minor number.
        minor: u32,
    },
}

impl<C> Node<C> {
    /// A directory of root.
    pub fn directory(mode: u16, origin: &str) -> Self {
        Self { kind: Kind::Directory, mode, uid: 0, gid: 0, xattrs: Xattrs::new(), origin: origin.into() }
    }

    /// A file of root.
    pub fn file(content: impl Into<C>, mode: u16, origin: &str) -> Self {
        let kind = Kind::File { content: content.into(), inode: None };
        Self { kind, mode, uid: 0, gid: 0, xattrs: Xattrs::new(), origin: origin.into() }
    }

    /// A symbolic link of root.
    pub fn symlink(target: &str, origin: &str) -> Self {
        Self {
            kind: Kind::Symlink(target.to_owned()),
            mode: 0o777,
            uid: 0,
            gid: 0,
            xattrs: Xattrs::new(),
            origin: origin.into(),
        }
    }

    /// A character device of root.
    pub fn char_device(major: u32, minor: u32, mode: u16, origin: &str) -> Self {
        Self {
            kind: Kind::CharDevice { major, minor },
            mode,
            uid: 0,
            gid: 0,
            xattrs: Xattrs::new(),
            origin: origin.into(),
        }
    }

    /// Whether it is a directory.
    pub fn is_directory(&self) -> bool {
        matches!(self.kind, Kind::Directory)
    }
}

impl<C> Default for Tree<C> {
    /// A tree of a root directory with mode 0755.
    fn default() -> Self {
        Self { nodes: BTreeMap::from([(String::new(), Node::directory(0o755, "the builder"))]) }
    }
}

impl<C> Tree<C> {
    /// The node at `path`.
    pub fn get(&self, path: &str) -> Option<&Node<C>> {
        self.nodes.get(path)
    }

    /// Puts a node at `path`, whatever was there. The caller answers for its parents (see `finish`).
    pub fn insert(&mut self, path: &str, node: Node<C>) {
        self.nodes.insert(path.to_owned(), node);
    }

    /// All nodes with their paths, sorted by the bytes of the path: the root first, every directory before its content.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Node<C>)> {
        self.nodes.iter().map(|(path, node)| (path.as_str(), node))
    }

    /// The nodes below the directory `path`, however deep.
    pub fn below<'a>(&'a self, path: &str) -> impl Iterator<Item = (&'a str, &'a Node<C>)> {
        let prefix = format!("{path}/");
        self.nodes
            .range(prefix.clone()..)
            .take_while(move |(path, _)| path.starts_with(&prefix))
            .map(|(path, node)| (path.as_str(), node))
    }

    /// How many nodes there are.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there is nothing, not even a root directory.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Leaves out what a glob matches. The root directory always stays.
    pub fn remove_matching(&mut self, globs: &[Glob]) {
        self.retain(|path| !globs.iter().any(|glob| glob.matches(path)));
    }

    /// Keeps only the paths for which this holds. The root directory always stays.
    pub fn retain(&mut self, keep: impl Fn(&str) -> bool) {
        self.nodes.retain(|path, _| path.is_empty() || keep(path));
    }
}

impl Tree<Content> {
    /// The bytes of the regular file at `path`.
    pub fn file(&self, path: &str) -> Option<&[u8]> {
        match &self.get(path)?.kind {
            Kind::File { content, .. } => Some(content.bytes()),
            _ => None,
        }
    }
}

/// The directory of `path`; `None` for the root.
pub(crate) fn parent(path: &str) -> Option<&str> {
    if path.is_empty() {
        return None;
    }
    Some(path.rsplit_once('/').map_or("", |(parent, _)| parent))
}

/// The last part of `path`.
pub(crate) fn name(path: &str) -> &str {
    path.rsplit_once('/').map_or(path, |(_, name)| name)
}
