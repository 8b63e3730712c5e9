//! What is in the root file system of an image, for people: how much, which accounts, and what the guest can do with it.

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use spec::manifest::artifact;
use spec::{Diagnostic, Outcome};
use store::open_regular;

use crate::erofs::{self, ErofsReadError};

/// A root file system that cannot be looked into.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// The file cannot be read.
    #[error("reading {}", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is no file system of ours.
    #[error("looking into {}", path.display())]
    Foreign {
        /// Which.
        path: PathBuf,
        /// Why.
        source: ErofsReadError,
    },
}

impl Diagnostic for InspectError {
    fn outcome(&self) -> Outcome {
        match self {
            Self::Unreadable { .. } => Outcome::HostCannot,
            Self::Foreign { .. } => Outcome::InputMismatch,
        }
    }
}

/// The file by which a root file system asks the guest for a shell on its serial line (`guest/src/shell.rs`).
pub(crate) const SHELL: &str = "usr/lib/bullion/shell";

/// What is in a root file system.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RootContent {
    /// How many regular files there are, by path.
    pub files: usize,
    /// How many directories.
    pub directories: usize,
    /// How many symbolic links.
    pub links: usize,
    /// The bytes of all regular files, each inode once.
    pub content_bytes: u64,
    /// The accounts of `/etc/passwd`.
    pub users: Vec<User>,
    /// Whether podman is there, which the guest needs to run a workload.
    pub runs_workloads: bool,
    /// Whether podman-compose is there, which it needs for compose files.
    pub runs_compose: bool,
    /// Whether mke2fs is there, which the guest needs for scratch volumes.
    pub makes_scratch: bool,
    /// The shell that the guest starts on its serial line, with its arguments. No release has one.
    pub shell: Option<String>,
}

/// A line of `/etc/passwd`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The name.
    pub name: String,
    /// The number.
    pub uid: u32,
    /// The shell.
    pub shell: String,
}

/// Looks into the `rootfs` of an image directory.
pub fn root_content(directory: &Path) -> Result<RootContent, InspectError> {
    let path = directory.join(artifact::ROOTFS);
    let mut image = Vec::new();
    open_regular(&path)
        .and_then(|mut file| file.read_to_end(&mut image))
        .map_err(|source| InspectError::Unreadable { path: path.clone(), source })?;
    content(&image).map_err(|source| InspectError::Foreign { path, source })
}

fn content(image: &[u8]) -> Result<RootContent, ErofsReadError> {
    let nodes = erofs::read(image)?;
    let mut found = RootContent {
        runs_workloads: nodes.contains_key("usr/bin/podman"),
        runs_compose: nodes.contains_key("usr/bin/podman-compose"),
        makes_scratch: nodes.contains_key("usr/sbin/mke2fs"),
        ..RootContent::default()
    };
    let mut seen = std::collections::BTreeSet::new();
    for node in nodes.values() {
        match u32::from(node.mode) & 0o170_000 {
            0o100_000 => {
                found.files += 1;
                found.content_bytes += if seen.insert(node.nid) { node.size } else { 0 };
            }
            0o040_000 => found.directories += 1,
            0o120_000 => found.links += 1,
            _ => {}
        }
    }
    if let Some(node) = nodes.get(SHELL) {
        found.shell = Some(shell(&node.content()?));
    }
    if let Some(node) = nodes.get("etc/passwd") {
        found.users = users(&String::from_utf8_lossy(&node.content()?));
    }
    Ok(found)
}

/// The words of the file at `SHELL`, as a person would type them.
pub(crate) fn shell(file: &[u8]) -> String {
    String::from_utf8_lossy(file).lines().collect::<Vec<_>>().join(" ")
}

/// passwd(5); lines that are none are left out.
fn users(text: &str) -> Vec<User> {
    let user = |line: &str| {
        let fields: Vec<&str> = line.split(':').collect();
        let [name, _, uid, _, _, _, shell] = fields.as_slice() else { return None };
        Some(User { name: (*name).to_owned(), uid: uid.parse().ok()?, shell: (*shell).to_owned() })
    };
    text.lines().filter_map(user).collect()
}
