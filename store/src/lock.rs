//! The one trap of locking files by flock(2): the lock is on the open file, not on its name, and the holder before may have
//! renamed or removed it while this process waited.

use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// Whether `path` still names the open `file`. Ask after locking, before trusting the lock.
pub(crate) fn is_named(file: &File, path: &Path) -> bool {
    let identity = |metadata: io::Result<Metadata>| metadata.map(|data| (data.dev(), data.ino())).ok();
    let open = identity(file.metadata());
    open.is_some() && open == identity(fs::metadata(path))
}
