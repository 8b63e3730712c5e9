//! Merging packages into one tree, with the rules that dpkg would apply and without its last-one-wins.

use std::sync::Arc;

use spec::{Diagnostic, Outcome};

use super::{Kind, Node, Tree, parent};
use crate::content::Content;
use crate::deb::{Entry, EntryKind, Package};

/// The top-level directories that are links into `/usr` (Debian Policy 10.1, `usr-is-merged`).
pub const USR_MERGED: [&str; 6] = ["bin", "sbin", "lib", "lib32", "lib64", "libx32"];

/// An entry of a package that the tree did not have yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewEntry {
    /// Its index in the package.
    pub index: usize,
    /// Where it went.
    pub path: String,
}

/// Packages that cannot be in one tree.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MergeError {
    /// Two packages disagree about a path.
    #[error("/{path} is {difference} in {first} and in {second}")]
    Collision {
        /// The path.
        path: String,
        /// The package that was merged first.
        first: String,
        /// The other package.
        second: String,
        /// What differs.
        difference: &'static str,
    },
    /// A path leads through something that is not a directory.
    #[error("/{path} of {origin} is below /{ancestor}, which is no directory in {ancestor_origin}")]
    NotBelowDirectory {
        /// The path.
        path: String,
        /// Who brings it.
        origin: String,
        /// What should be a directory.
        ancestor: String,
        /// Who brings that.
        ancestor_origin: String,
    },
    /// A hard link to a file that the tree does not have.
    #[error("/{path} of {origin} is a hard link to /{target}, which is not there")]
    HardLink {
        /// The path.
        path: String,
        /// The package.
        origin: String,
        /// The other name.
        target: String,
    },
    /// A package turns one of the links of a merged `/usr` into something else.
    #[error("/{path} of {origin} should be a link to usr/{path}")]
    UsrMerge {
        /// The path.
        path: String,
        /// The package.
        origin: String,
    },
}

impl Diagnostic for MergeError {
    fn outcome(&self) -> Outcome {
        Outcome::Usage
    }
    fn hint(&self) -> Option<String> {
        Some("these packages cannot be in one image: take one out of the recipe with packages.drop".to_owned())
    }
}

impl<C: Clone + Eq> Tree<C> {
    /// Adds a package; `content` turns the content of the entry with an index into what the tree holds. Returns which
    /// entries were not there yet. A directory keeps the attributes of the package that brought it first, as with dpkg.
    pub fn merge(
        &mut self,
        package: &Package,
        content: impl Fn(usize, &Content) -> C,
    ) -> Result<Vec<NewEntry>, MergeError> {
        let origin: Arc<str> = package.name.as_str().into();
        let mut new = Vec::new();
        for (index, entry) in package.entries.iter().enumerate() {
            let (path, node) = self.node_of(entry, index, &origin, &content)?;
            let Some(old) = self.nodes.get(&path) else {
                self.nodes.insert(path.clone(), node);
                new.push(NewEntry { index, path });
                continue;
            };
            if let Some(difference) = difference(old, &node) {
                let (first, second) = (old.origin.to_string(), origin.to_string());
                return Err(MergeError::Collision { path, first, second, difference });
            }
        }
        Ok(new)
    }

    fn node_of(
        &self,
        entry: &Entry,
        index: usize,
        origin: &Arc<str>,
        content: &impl Fn(usize, &Content) -> C,
    ) -> Result<(String, Node<C>), MergeError> {
        let path = merged_path(entry, origin)?;
        let origin = Arc::clone(origin);
        let kind = match &entry.kind {
            EntryKind::Directory => Kind::Directory,
            EntryKind::File(bytes) => {
                Kind::File { content: content(index, bytes), inode: Some(format!("{origin}:{path}").into()) }
            }
            EntryKind::Symlink(target) => Kind::Symlink(target.clone()),
            // One inode has one mode and one owner, whatever the archive says about its other names.
            EntryKind::HardLink(target) => {
                return match self.nodes.get(&below_usr(target)) {
                    Some(node) => Ok((path, Node { origin, ..node.clone() })),
                    None => Err(MergeError::HardLink { path, origin: origin.to_string(), target: target.clone() }),
                };
            }
        };
        let xattrs = entry.xattrs.clone();
        Ok((path, Node { kind, mode: entry.mode, uid: entry.uid, gid: entry.gid, xattrs, origin }))
    }

    /// Completes the tree: parents that nobody brought (0755, root), and the links of a merged `/usr`. Fails where a
    /// path leads through something that is not a directory.
    pub fn finish(&mut self) -> Result<(), MergeError> {
        let mut missing = Vec::new();
        for (path, node) in &self.nodes {
            let mut below = path.as_str();
            while let Some(ancestor) = parent(below) {
                match self.nodes.get(ancestor) {
                    None => missing.push(ancestor.to_owned()),
                    Some(found) if found.is_directory() => break,
                    Some(found) => {
                        return Err(MergeError::NotBelowDirectory {
                            path: path.clone(),
                            origin: node.origin.to_string(),
                            ancestor: ancestor.to_owned(),
                            ancestor_origin: found.origin.to_string(),
                        });
                    }
                }
                below = ancestor;
            }
        }
        self.nodes.extend(missing.into_iter().map(|path| (path, Node::directory(0o755, "the builder"))));
        for alias in USR_MERGED {
            if self.nodes.get(&format!("usr/{alias}")).is_some_and(Node::is_directory)
                && !self.nodes.contains_key(alias)
            {
                self.nodes.insert(alias.to_owned(), Node::symlink(&format!("usr/{alias}"), "the builder"));
            }
        }
        Ok(())
    }
}

/// What two nodes for one path disagree about; `None` where both can be had.
fn difference<C: Eq>(a: &Node<C>, b: &Node<C>) -> Option<&'static str> {
    match (&a.kind, &b.kind) {
        (Kind::Directory, Kind::Directory) => return None,
        (Kind::File { content: a, .. }, Kind::File { content: b, .. }) if a != b => return Some("a different file"),
        (Kind::Symlink(a), Kind::Symlink(b)) if a != b => return Some("a link to different targets"),
        (Kind::CharDevice { .. }, Kind::CharDevice { .. }) if a.kind != b.kind => return Some("a different device"),
        (a, b) if std::mem::discriminant(a) != std::mem::discriminant(b) => return Some("of a different kind"),
        _ => {}
    }
    if (a.mode, a.uid, a.gid) != (b.mode, b.uid, b.gid) {
        return Some("of a different mode or owner");
    }
    (a.xattrs != b.xattrs).then_some("of different extended attributes")
}

/// Where an entry goes when `/bin`, `/lib` and their like are links into `/usr`.
fn merged_path(entry: &Entry, origin: &str) -> Result<String, MergeError> {
    let path = &entry.path;
    if !USR_MERGED.contains(&path.as_str()) {
        return Ok(below_usr(path));
    }
    match &entry.kind {
        EntryKind::Directory => Ok(format!("usr/{path}")),
        EntryKind::Symlink(target) if target.trim_start_matches('/') == format!("usr/{path}") => Ok(path.clone()),
        _ => Err(MergeError::UsrMerge { path: path.clone(), origin: origin.to_owned() }),
    }
}

/// `lib/x` to `usr/lib/x`, and so for all of `USR_MERGED`.
fn below_usr(path: &str) -> String {
    match path.split_once('/') {
        Some((top, _)) if USR_MERGED.contains(&top) => format!("usr/{path}"),
        _ => path.to_owned(),
    }
}
