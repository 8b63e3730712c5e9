//! What is in the cache and how it is emptied: for `bullion cache`.

use std::collections::BTreeSet;
use std::fs::{self, File, Metadata};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use spec::Sha256Digest;

use crate::atomic::TEMPORARY_SUFFIX;
use crate::error::StoreError;
use crate::lock::is_named;
use crate::partial::PARTIAL_SUFFIX;
use crate::place::{BLOBS, Store, TREES};

/// What the names of trees end in while they are removed. A removal holds the tree's lock: without one, it was cut short.
const DOOMED_SUFFIX: &str = ".doomed";

/// An unfinished file older than this has no living writer.
const ABANDONED_AFTER: Duration = Duration::from_secs(3600);

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A complete blob.
    Blob,
    /// A tree of unpacked packages.
    Tree,
    /// A blob that is being fetched, or whose fetching was cut short.
    Partial,
    /// Anything else: findings about the host, remains of a killed process.
    Other,
}

/// One entry of the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What it is.
    pub kind: Kind,
    /// Where it is.
    pub path: PathBuf,
    /// The digest it is named by; `None` for `Kind::Other`.
    pub sha256: Option<Sha256Digest>,
    /// How many bytes its files hold.
    pub bytes: u64,
    /// When it was last used.
    pub last_used: SystemTime,
}

/// What pruning leaves.
#[derive(Clone, Copy, Debug)]
pub enum Keep<'a> {
    /// Nothing but what is in use now.
    Nothing,
    /// Blobs and trees named here, and findings about the host.
    Only(&'a BTreeSet<Sha256Digest>),
}

/// What pruning did.
#[derive(Clone, Debug, Default)]
pub struct Pruned {
    /// What was removed.
    pub removed: Vec<Entry>,
    /// What would have been removed, but is in use by another process.
    pub in_use: Vec<Entry>,
}

impl Pruned {
    /// How many bytes were freed.
    pub fn bytes(&self) -> u64 {
        self.removed.iter().map(|entry| entry.bytes).sum()
    }
}

impl Store {
    /// Everything in the cache, sorted by kind and path.
    pub fn entries(&self) -> Result<Vec<Entry>, StoreError> {
        let mut entries = Vec::new();
        for shelf in children(&self.root().join(BLOBS))? {
            for path in children(&shelf)? {
                entries.extend(blob_entry(path));
            }
        }
        for path in children(&self.root().join(TREES))? {
            let sha256 = name_of(&path).parse().ok();
            entries.extend(entry(if sha256.is_some() { Kind::Tree } else { Kind::Other }, path, sha256));
        }
        for path in children(&self.verdicts_dir())? {
            entries.extend(entry(Kind::Other, path, None));
        }
        entries.sort_by(|a, b| (a.kind, &a.path).cmp(&(b.kind, &b.path)));
        Ok(entries)
    }

    /// Removes what is not kept. What another process is writing or running from stays.
    pub fn prune(&self, keep: Keep<'_>) -> Result<Pruned, StoreError> {
        let mut pruned = Pruned::default();
        for entry in self.entries()? {
            if is_kept(&entry, keep) {
                continue;
            }
            match remove(&entry) {
                Ok(true) => pruned.removed.push(entry),
                Ok(false) => pruned.in_use.push(entry),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(StoreError::io("removing", &entry.path)(error)),
            }
        }
        Ok(pruned)
    }
}

fn is_kept(entry: &Entry, keep: Keep<'_>) -> bool {
    match (keep, entry.kind) {
        _ if is_doomed(entry) => false,
        (_, Kind::Other) if name_of(&entry.path).ends_with(TEMPORARY_SUFFIX) => {
            entry.last_used.elapsed().unwrap_or_default() < ABANDONED_AFTER
        }
        (Keep::Nothing, _) => false,
        (Keep::Only(_), Kind::Other) => true,
        (Keep::Only(named), _) => entry.sha256.is_some_and(|sha256| named.contains(&sha256)),
    }
}

fn is_doomed(entry: &Entry) -> bool {
    entry.kind == Kind::Other && name_of(&entry.path).ends_with(DOOMED_SUFFIX)
}

/// Removes an entry unless another process holds it; whether it was removed.
fn remove(entry: &Entry) -> io::Result<bool> {
    let locked = matches!(entry.kind, Kind::Tree | Kind::Partial) || is_doomed(entry);
    let _lock = match locked {
        true => {
            let lock = File::open(&entry.path)?;
            match lock.try_lock() {
                Ok(()) if is_named(&lock, &entry.path) => Some(lock),
                Ok(()) => return Ok(false),
                Err(fs::TryLockError::WouldBlock) => return Ok(false),
                Err(fs::TryLockError::Error(error)) => return Err(error),
            }
        }
        false => None,
    };
    match entry.kind {
        Kind::Tree => {
            // Renamed first, so that a removal that is cut short leaves no half tree under the tree's name; to a name
            // of its own, so that what was left then is not in the way of a later tree of the same digest.
            let doomed = tempfile::Builder::new()
                .prefix(&format!(".{}.", name_of(&entry.path)))
                .suffix(DOOMED_SUFFIX)
                .tempdir_in(entry.path.parent().unwrap_or(Path::new(".")))?;
            // rename(2): an empty directory is replaced.
            fs::rename(&entry.path, doomed.path())?;
            doomed.close()?;
        }
        _ if entry.path.is_dir() => fs::remove_dir_all(&entry.path)?,
        _ => fs::remove_file(&entry.path)?,
    }
    Ok(true)
}

fn blob_entry(path: PathBuf) -> Option<Entry> {
    let name = name_of(&path);
    let (kind, hex) = match name.strip_suffix(PARTIAL_SUFFIX) {
        Some(hex) => (Kind::Partial, hex),
        None => (Kind::Blob, name.as_str()),
    };
    match hex.parse() {
        Ok(sha256) => entry(kind, path, Some(sha256)),
        Err(_) => entry(Kind::Other, path, None),
    }
}

/// Describes what is at `path`; `None` if it has gone meanwhile.
fn entry(kind: Kind, path: PathBuf, sha256: Option<Sha256Digest>) -> Option<Entry> {
    let metadata = fs::symlink_metadata(&path).ok()?;
    let last_used = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
    Some(Entry { kind, bytes: bytes_below(&path, &metadata), path, sha256, last_used })
}

fn bytes_below(path: &Path, metadata: &Metadata) -> u64 {
    if !metadata.is_dir() {
        return metadata.len();
    }
    let children = children(path).unwrap_or_default();
    children.iter().filter_map(|child| Some(bytes_below(child, &fs::symlink_metadata(child).ok()?))).sum()
}

fn children(directory: &Path) -> Result<Vec<PathBuf>, StoreError> {
    // A cache that another process is emptying, or a stray file among directories, is not an error.
    let entries = match fs::read_dir(directory) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        other => other.map_err(StoreError::io("listing", directory))?,
    };
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.sort();
    Ok(paths)
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
