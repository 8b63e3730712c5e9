//! What a recipe itself adds to the tree: files, directories, links. The recipe has the last word over packages.

use std::path::{Path, PathBuf};

use spec::recipe::{CapabilitiesEntry, ComponentFile, FileEntry, ImageRecipe, Owner};
use spec::{Diagnostic, Outcome, Sha256Digest};

use super::{Kind, Node, Tree};
use crate::content::Content;
use crate::initrd::InitrdFile;

/// An entry of the recipe that cannot be put into the tree.
#[derive(Debug, thiserror::Error)]
pub enum OverlayError {
    /// The path is not usable.
    #[error("\"{path}\" in [rootfs] is not an absolute path without \".\", \"..\" and empty parts")]
    Path {
        /// The path.
        path: String,
    },
    /// The mode is not octal, or too large.
    #[error("the mode \"{mode}\" of {path} in [rootfs] is not an octal number up to 7777")]
    Mode {
        /// The path.
        path: String,
        /// The mode.
        mode: String,
    },
    /// The target of a link leads outside the tree.
    #[error("the link {path} in [rootfs] leads outside the image: \"{target}\"")]
    Target {
        /// The path.
        path: String,
        /// The target.
        target: String,
    },
    /// A file has neither content nor a source with its SHA-256.
    #[error("the file {path} in [rootfs] has neither content nor a source with its sha256")]
    NoContent {
        /// The path.
        path: String,
    },
    /// A component does not make the file, or was not compiled.
    #[error("the file {path} in [rootfs] is the output {output} of {recipe}, which makes no such file")]
    NoOutput {
        /// The path.
        path: String,
        /// The output.
        output: String,
        /// The component's recipe.
        recipe: String,
    },
    /// A source file cannot be read.
    #[error("reading {}, the source of {path}", file.display())]
    Source {
        /// The path in the image.
        path: String,
        /// The file.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A source file is not the one that the recipe names.
    #[error("{} has SHA-256 {found}, the recipe expects {expected}", file.display())]
    Digest {
        /// The file.
        file: PathBuf,
        /// What the recipe says.
        expected: Sha256Digest,
        /// What the file has.
        found: Sha256Digest,
    },
    /// An owner that the image does not have.
    #[error("{path} in [rootfs] belongs to {owner}, and the image has no such user or group")]
    Owner {
        /// The path.
        path: String,
        /// The owner.
        owner: String,
    },
    /// Capabilities for something that is no regular file of the image.
    #[error("{path} in [[rootfs.capabilities]] is no regular file of the image")]
    NoProgram {
        /// The path.
        path: String,
    },
    /// The recipe puts a file or link where packages have a directory with content.
    #[error("{path} in [rootfs] would replace a directory of {origin} that is not empty")]
    ReplacesDirectory {
        /// The path.
        path: String,
        /// Who brings the directory.
        origin: String,
    },
}

impl Diagnostic for OverlayError {
    fn outcome(&self) -> Outcome {
        match self {
            Self::Digest { .. } => Outcome::InputMismatch,
            _ => Outcome::Usage,
        }
    }
    fn hint(&self) -> Option<String> {
        match self {
            Self::Digest { .. } => Some("if the new content is meant, put its SHA-256 into the recipe".to_owned()),
            Self::ReplacesDirectory { path, .. } => {
                Some(format!("leave the directory out first: drop = [\"{path}/**\"]"))
            }
            _ => None,
        }
    }
}

/// Where nodes come from that a recipe adds.
pub(crate) const OF_RECIPE: &str = "the recipe";

impl Tree<Content> {
    /// Adds what the recipe (`image`) adds; `beside` is the directory of the recipe file, for `source`, and `made` gives what components made.
    pub fn overlay(
        &mut self,
        image: &ImageRecipe,
        beside: &Path,
        made: impl Fn(&ComponentFile) -> Option<Content>,
    ) -> Result<(), OverlayError> {
        for entry in &image.directories {
            let mode = mode(&entry.path, &entry.mode)?;
            let path = inside(&entry.path)?;
            let node = self.owned(&entry.path, Node::directory(mode, OF_RECIPE), entry.owner.as_ref())?;
            self.insert(&path, node);
        }
        for entry in &image.files {
            let mode = mode(&entry.path, &entry.mode)?;
            let content = content(entry, beside)?;
            let node = self.owned(&entry.path, Node::file(content, mode, OF_RECIPE), entry.owner.as_ref())?;
            self.replace(&entry.path, node)?;
        }
        for entry in &image.component_files {
            let ComponentFile { recipe, output, path, .. } = entry;
            let mode = mode(path, &entry.mode)?;
            let missing =
                || OverlayError::NoOutput { path: path.clone(), output: output.clone(), recipe: recipe.clone() };
            let origin = format!("{output} of {recipe}");
            let node = Node::file(made(entry).ok_or_else(missing)?, mode, &origin);
            let node = self.owned(path, node, entry.owner.as_ref())?;
            self.replace(path, node)?;
        }
        for entry in &image.links {
            let path = inside(&entry.path)?;
            if crate::deb::clean_target(&path, &entry.target).is_none() {
                return Err(OverlayError::Target { path: entry.path.clone(), target: entry.target.clone() });
            }
            self.replace(&entry.path, Node::symlink(&entry.target, OF_RECIPE))?;
        }
        image.capabilities.iter().try_for_each(|entry| self.give(entry))
    }

    /// Gives a program its capabilities, under all names that it has.
    fn give(&mut self, entry: &CapabilitiesEntry) -> Result<(), OverlayError> {
        let path = inside(&entry.path)?;
        let Some(Kind::File { inode, .. }) = self.get(&path).map(|node| node.kind.clone()) else {
            return Err(OverlayError::NoProgram { path: entry.path.clone() });
        };
        let is_name = |(name, node): &(&String, &mut Node)| {
            let other =
                |kind: &Kind| matches!(kind, Kind::File { inode: Some(other), .. } if inode.as_ref() == Some(other));
            **name == path || other(&node.kind)
        };
        for (_, node) in self.nodes.iter_mut().filter(is_name) {
            node.xattrs.insert("security.capability".to_owned(), entry.set.to_xattr());
        }
        Ok(())
    }

    /// Gives a node its owner, by the accounts of the tree.
    fn owned(&self, path: &str, node: Node, owner: Option<&Owner>) -> Result<Node, OverlayError> {
        let Some(owner) = owner else {
            return Ok(node);
        };
        let unknown = || OverlayError::Owner { path: path.to_owned(), owner: owner.to_string() };
        let (uid, gid) = crate::effects::numbers(self, &owner.user, &owner.group).ok_or_else(unknown)?;
        Ok(Node { uid, gid, ..node })
    }

    fn replace(&mut self, path: &str, node: Node) -> Result<(), OverlayError> {
        let key = inside(path)?;
        if let Some((_, below)) = self.below(&key).next() {
            return Err(OverlayError::ReplacesDirectory { path: path.to_owned(), origin: below.origin.to_string() });
        }
        self.insert(&key, node);
        Ok(())
    }
}

/// What the recipe adds to the initial RAM disk, sorted by path.
pub(crate) fn initrd_files(files: &[FileEntry], beside: &Path) -> Result<Vec<InitrdFile>, OverlayError> {
    let read = |entry: &FileEntry| {
        let (path, mode) = (inside(&entry.path)?, mode(&entry.path, &entry.mode)?);
        Ok(InitrdFile { path, mode, content: content(entry, beside)? })
    };
    let mut files = files.iter().map(read).collect::<Result<Vec<_>, OverlayError>>()?;
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

fn inside(path: &str) -> Result<String, OverlayError> {
    let error = || OverlayError::Path { path: path.to_owned() };
    let rest = path.strip_prefix('/').ok_or_else(error)?;
    let clean = rest.split('/').all(|part| !matches!(part, "" | "." | "..") && part.len() <= 255);
    if !clean || rest.bytes().any(|c| c.is_ascii_control()) || rest.len() > 4095 {
        return Err(error());
    }
    Ok(rest.to_owned())
}

fn mode(path: &str, mode: &str) -> Result<u16, OverlayError> {
    u16::from_str_radix(mode, 8)
        .ok()
        .filter(|value| *value <= 0o7777 && !mode.starts_with('+'))
        .ok_or_else(|| OverlayError::Mode { path: path.to_owned(), mode: mode.to_owned() })
}

fn content(entry: &FileEntry, beside: &Path) -> Result<Content, OverlayError> {
    match (&entry.content, &entry.source, &entry.sha256) {
        (Some(text), None, _) => Ok(text.clone().into_bytes().into()),
        (None, Some(source), Some(expected)) => {
            let file = beside.join(source);
            let bytes = std::fs::read(&file).map_err(|source| OverlayError::Source {
                path: entry.path.clone(),
                file: file.clone(),
                source,
            })?;
            let found = Sha256Digest::of(&bytes);
            if found != *expected {
                return Err(OverlayError::Digest { file, expected: *expected, found });
            }
            Ok(bytes.into())
        }
        _ => Err(OverlayError::NoContent { path: entry.path.clone() }),
    }
}
