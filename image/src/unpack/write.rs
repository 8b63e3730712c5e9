//! Writing a tree to disk. Links are written last and nothing is written below something that is not a directory of the
//! tree, so no package can make the writer follow a link.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rayon::prelude::*;
use spec::Sha256Digest;

use super::UnpackError;
use super::index::{Index, Item, What};
use crate::deb::{EntryKind, Package};
use crate::tree::{Kind, MergeError, NewEntry, Tree, parent};

/// What stands for a file's content while packages are merged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stored {
    sha256: Sha256Digest,
    size: u64,
}

/// The digest of each entry of a package that is a file.
pub(super) fn digests(package: &Package) -> Vec<Option<Sha256Digest>> {
    let digest = |kind: &EntryKind| match kind {
        EntryKind::File(content) => Some(Sha256Digest::of(content.bytes())),
        _ => None,
    };
    package.entries.iter().map(|entry| digest(&entry.kind)).collect()
}

pub(super) struct Writer {
    root: PathBuf,
    tree: Tree<Stored>,
}

impl Writer {
    pub(super) fn begin(root: &Path) -> Result<Self, UnpackError> {
        create_directory(root)?;
        Ok(Self { root: root.to_owned(), tree: Tree::default() })
    }

    /// Merges a package and writes its directories and files.
    pub(super) fn add(&mut self, package: &Package, digests: &[Option<Sha256Digest>]) -> Result<(), UnpackError> {
        let new = self.tree.merge(package, |index, content| Stored {
            sha256: digests.get(index).copied().flatten().unwrap_or_else(|| Sha256Digest::of(content.bytes())),
            size: content.len() as u64,
        })?;
        self.complete_parents(&new)?;
        for (entry, place) in pairs(package, &new) {
            if entry == &EntryKind::Directory {
                create_directory(&self.root.join(place))?;
            }
        }
        let files: Vec<_> = pairs(package, &new).collect();
        files.par_iter().try_for_each(|(entry, place)| match entry {
            EntryKind::File(content) => file(&self.root.join(place), content.bytes(), self.mode_of(place)),
            _ => Ok(()),
        })?;
        for (entry, place) in pairs(package, &new) {
            if let EntryKind::HardLink(_) = entry {
                self.hard_link(place)?;
            }
        }
        Ok(())
    }

    /// Makes sure that every new entry is below directories of the tree, and that those are on disk.
    fn complete_parents(&mut self, new: &[NewEntry]) -> Result<(), UnpackError> {
        for entry in new {
            let Some(above) = parent(&entry.path) else {
                continue;
            };
            match self.tree.get(above) {
                Some(node) if node.is_directory() => {}
                Some(node) => {
                    return Err(UnpackError::Merge(MergeError::NotBelowDirectory {
                        path: entry.path.clone(),
                        origin: self.tree.get(&entry.path).map(|node| node.origin.to_string()).unwrap_or_default(),
                        ancestor: above.to_owned(),
                        ancestor_origin: node.origin.to_string(),
                    }));
                }
                None => {
                    self.tree.finish()?;
                    let missing: Vec<&str> =
                        self.tree.iter().filter(|(_, node)| node.is_directory()).map(|(path, _)| path).collect();
                    missing.into_iter().try_for_each(|path| create_directory(&self.root.join(path)))?;
                }
            }
        }
        Ok(())
    }

    fn mode_of(&self, path: &str) -> u32 {
        self.tree.get(path).map_or(0o644, |node| kept_mode(node.mode))
    }

    /// Gives the file that is one inode with `path` that name too; it was written already.
    fn hard_link(&self, path: &str) -> Result<(), UnpackError> {
        let Some(Kind::File { inode: Some(inode), .. }) = self.tree.get(path).map(|node| &node.kind) else {
            return Ok(());
        };
        // The name of an inode is the package and the path that it was first seen at.
        let Some((_, first)) = inode.split_once(':') else {
            return Ok(());
        };
        let to = self.root.join(path);
        fs::hard_link(self.root.join(first), &to).map_err(UnpackError::io("creating", &to))
    }

    /// Writes the links, sets the times and returns the index.
    pub(super) fn finish(mut self) -> Result<Index, UnpackError> {
        self.tree.finish()?;
        let mut items = Vec::with_capacity(self.tree.len());
        for (path, node) in self.tree.iter() {
            let what = match &node.kind {
                Kind::Directory => What::Directory,
                Kind::File { content, .. } => {
                    What::File { mode: kept_mode(node.mode), size: content.size, sha256: content.sha256 }
                }
                Kind::Symlink(target) => {
                    let target = inside(path, target);
                    let link = self.root.join(path);
                    std::os::unix::fs::symlink(&target, &link).map_err(UnpackError::io("creating", &link))?;
                    What::Link { target }
                }
                Kind::CharDevice { .. } => continue,
            };
            items.push(Item { path: path.to_owned(), what });
        }
        // From the deepest up: setting the time of a directory must come after the last change in it.
        for item in items.iter().rev().filter(|item| item.what == What::Directory) {
            let path = self.root.join(&item.path);
            File::open(&path)
                .and_then(|directory| directory.set_modified(SystemTime::UNIX_EPOCH))
                .map_err(UnpackError::io("finishing", &path))?;
        }
        Ok(Index { items })
    }
}

fn pairs<'a>(package: &'a Package, new: &'a [NewEntry]) -> impl Iterator<Item = (&'a EntryKind, &'a str)> {
    new.iter().filter_map(|new| Some((&package.entries.get(new.index)?.kind, new.path.as_str())))
}

/// Permissions without set-uid, set-gid and sticky; the owner can always read.
fn kept_mode(mode: u16) -> u32 {
    u32::from(mode) & 0o755 | 0o400
}

/// An absolute target as a relative one from the directory of `path`.
fn inside(path: &str, target: &str) -> String {
    match target.strip_prefix('/') {
        None => target.to_owned(),
        Some(rest) => {
            let up = "../".repeat(path.matches('/').count());
            let relative = format!("{up}{}", rest.trim_start_matches('/'));
            if relative.is_empty() { ".".to_owned() } else { relative }
        }
    }
}

/// Creates a directory that its owner can write to, whatever the umask. It is no error if it is there.
fn create_directory(path: &Path) -> Result<(), UnpackError> {
    DirBuilder::new()
        .recursive(true)
        .create(path)
        .and_then(|()| fs::set_permissions(path, Permissions::from_mode(0o755)))
        .map_err(UnpackError::io("creating", path))
}

/// Writes a new file with time 0.
pub(super) fn file(path: &Path, bytes: &[u8], mode: u32) -> Result<(), UnpackError> {
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(bytes)?;
        file.set_permissions(Permissions::from_mode(mode))?;
        file.set_modified(SystemTime::UNIX_EPOCH)
    };
    write().map_err(UnpackError::io("writing", path))
}

#[cfg(test)]
mod tests {
    use super::inside;

    #[test]
    fn absolute_links_stay_inside() {
        assert_eq!(inside("usr/lib/ssl/certs", "/etc/ssl/certs"), "../../../etc/ssl/certs");
        assert_eq!(inside("lib64", "usr/lib64"), "usr/lib64");
        assert_eq!(inside("x", "/"), ".");
    }
}
