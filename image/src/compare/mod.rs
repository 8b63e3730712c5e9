//! What two image directories differ in, down to files and attributes: what `bullion diff` prints, and `build --verify` and the
//! reproducibility test where two builds are not the same.

mod cpio;
mod manifests;
mod nodes;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use spec::manifest::artifact;
use spec::{Diagnostic, Outcome};

use crate::{deb, erofs};
pub use cpio::CpioReadError;
pub use manifests::{
    Changed, ManifestDifference, PackageChange, Predicted, ValueChange, compare_manifests, compare_values, of_snp,
    of_tdx, predicted,
};
use nodes::Facts;
pub use nodes::initrd_paths;
use store::open_regular;

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Difference {
    /// The file of the image directory.
    pub artifact: String,
    /// The path inside a file system or archive.
    pub path: Option<String>,
    /// Whether it is there in one image only.
    pub change: Change,
    /// What is different.
    pub what: String,
}

/// What happened to a file from the first image to the second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// Only the second image has it.
    Added,
    /// Only the first image has it.
    Removed,
    /// Both have it, and it is not the same.
    Changed,
}

impl Change {
    fn words(self) -> &'static str {
        match self {
            Self::Added => "only in the second image",
            Self::Removed => "only in the first image",
            Self::Changed => "changed",
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.path {
            Some(path) => write!(f, "{}: /{path}: {}", self.artifact, self.what),
            None => write!(f, "{}: {}", self.artifact, self.what),
        }
    }
}

/// A directory or file that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("reading {}", path.display())]
pub struct CompareError {
    /// Which.
    pub path: PathBuf,
    /// Why.
    pub source: io::Error,
}

impl Diagnostic for CompareError {
    fn outcome(&self) -> Outcome {
        Outcome::HostCannot
    }
}

/// Every difference between two image directories, sorted. Empty where all files are the same byte for byte.
pub fn compare_images(a: &Path, b: &Path) -> Result<Vec<Difference>, CompareError> {
    let (files_a, files_b) = (names(a)?, names(b)?);
    let mut found = Vec::new();
    for name in files_a.union(&files_b) {
        let whole =
            |change: Change| Difference { artifact: name.clone(), path: None, change, what: change.words().to_owned() };
        if !files_b.contains(name) {
            found.push(whole(Change::Removed));
        } else if !files_a.contains(name) {
            found.push(whole(Change::Added));
        } else {
            found.extend(compare_files(name, &a.join(name), &b.join(name))?);
        }
    }
    Ok(found)
}

/// Only what has files inside is held in memory, and only where it differs.
fn compare_files(name: &str, a: &Path, b: &Path) -> Result<Vec<Difference>, CompareError> {
    let Some(bytes) = bytes_differ(a, b)? else {
        return Ok(Vec::new());
    };
    let inner = match name {
        artifact::ROOTFS => nodes::of_rootfs(&contents(a)?).zip(nodes::of_rootfs(&contents(b)?)),
        artifact::INITRD => nodes::of_initrd(&contents(a)?).zip(nodes::of_initrd(&contents(b)?)),
        _ => None,
    };
    let whole = |what| vec![Difference { artifact: name.to_owned(), path: None, change: Change::Changed, what }];
    let Some((nodes_a, nodes_b)) = inner else {
        return Ok(whole(bytes));
    };
    let found = compare_nodes(name, &nodes_a, &nodes_b);
    if found.is_empty() {
        return Ok(whole(format!("the same files, laid out differently: {bytes}")));
    }
    Ok(found)
}

fn compare_nodes(name: &str, a: &BTreeMap<String, Facts>, b: &BTreeMap<String, Facts>) -> Vec<Difference> {
    let paths: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
    let mut found = Vec::new();
    for path in paths {
        let (change, whats) = match (a.get(path), b.get(path)) {
            (Some(a), Some(b)) => (Change::Changed, a.differences(b)),
            (Some(_), None) => (Change::Removed, vec![Change::Removed.words().to_owned()]),
            _ => (Change::Added, vec![Change::Added.words().to_owned()]),
        };
        let difference = |what| Difference { artifact: name.to_owned(), path: Some(path.clone()), change, what };
        found.extend(whats.into_iter().map(difference));
    }
    found
}

/// How the bytes of two files differ; `None` where they are the same. Disks may be larger than the memory.
fn bytes_differ(a: &Path, b: &Path) -> Result<Option<String>, CompareError> {
    const PIECE: usize = 1 << 20;
    let mut files = [open(a)?, open(b)?];
    let mut pieces = [Vec::with_capacity(PIECE), Vec::with_capacity(PIECE)];
    let (mut sizes, mut first, mut count) = ([0_u64; 2], None, 0_u64);
    loop {
        for (((file, path), piece), size) in files.iter_mut().zip([a, b]).zip(&mut pieces).zip(&mut sizes) {
            piece.clear();
            let read = file.by_ref().take(PIECE as u64).read_to_end(piece);
            *size += read.map_err(|source| CompareError { path: path.to_owned(), source })? as u64;
        }
        let [a, b] = &pieces;
        if a.is_empty() && b.is_empty() {
            break;
        }
        if a != b {
            let start = sizes[0] - a.len() as u64;
            let mut differing = a.iter().zip(b).zip(start..).filter(|((a, b), _)| a != b).map(|(_, offset)| offset);
            first = first.or_else(|| differing.next().inspect(|_| count += 1));
            count += differing.count() as u64;
        }
    }
    Ok(match first {
        _ if sizes[0] != sizes[1] => Some(format!("{} bytes and {} bytes", sizes[0], sizes[1])),
        Some(first) => Some(format!("{count} bytes differ, the first at {first}")),
        None => None,
    })
}

fn names(directory: &Path) -> Result<BTreeSet<String>, CompareError> {
    let error = |source| CompareError { path: directory.to_owned(), source };
    let entries = std::fs::read_dir(directory).map_err(error)?;
    entries.map(|entry| Ok(entry.map_err(error)?.file_name().to_string_lossy().into_owned())).collect()
}

fn open(path: &Path) -> Result<File, CompareError> {
    open_regular(path).map_err(|source| CompareError { path: path.to_owned(), source })
}

fn contents(path: &Path) -> Result<Vec<u8>, CompareError> {
    let mut bytes = Vec::new();
    let read = open(path)?.read_to_end(&mut bytes);
    read.map_err(|source| CompareError { path: path.to_owned(), source })?;
    Ok(bytes)
}
