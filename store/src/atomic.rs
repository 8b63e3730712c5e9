//! Writing a file so that it is there whole or not at all, whatever stops the program: a temporary name in the same
//! directory, synced, then renamed, then the directory synced. Modes do not depend on the umask.

use std::fs::{File, Permissions};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crate::error::StoreError;

/// What the names of unfinished files end in.
pub(crate) const TEMPORARY_SUFFIX: &str = ".tmp";

/// A file that appears under its name when it is committed. Dropped before that, it leaves nothing.
#[derive(Debug)]
pub struct AtomicFile {
    temporary: tempfile::NamedTempFile,
    path: PathBuf,
}

impl AtomicFile {
    /// Starts a file that will be called `path` and have mode 0644. Its directory must exist.
    pub fn create(path: &Path) -> Result<Self, StoreError> {
        Self::create_with(path, 0o644)
    }

    fn create_with(path: &Path, mode: u32) -> Result<Self, StoreError> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let temporary = tempfile::Builder::new()
            .prefix(&format!(".{name}."))
            .suffix(TEMPORARY_SUFFIX)
            .tempfile_in(directory_of(path))
            .map_err(StoreError::io("creating", path))?;
        temporary.as_file().set_permissions(Permissions::from_mode(mode)).map_err(StoreError::io("creating", path))?;
        Ok(Self { temporary, path: path.to_owned() })
    }

    /// The name that the file will have.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The open file.
    pub fn file(&mut self) -> &mut File {
        self.temporary.as_file_mut()
    }

    /// Syncs the file and gives it its name, replacing what had that name.
    pub fn commit(self) -> Result<(), StoreError> {
        let Self { temporary, path } = self;
        temporary.as_file().sync_all().map_err(StoreError::io("writing", &path))?;
        temporary.persist(&path).map_err(|error| StoreError::io("writing", &path)(error.error))?;
        sync_directory_of(&path)
    }

    fn commit_new(self) -> Result<(), StoreError> {
        let Self { temporary, path } = self;
        temporary.as_file().sync_all().map_err(StoreError::io("writing", &path))?;
        temporary.persist_noclobber(&path).map_err(|error| StoreError::io("writing", &path)(error.error))?;
        sync_directory_of(&path)
    }
}

impl Write for AtomicFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.temporary.as_file_mut().write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.temporary.as_file_mut().flush()
    }
}

impl Seek for AtomicFile {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.temporary.as_file_mut().seek(to)
    }
}

/// Writes `bytes` to `path` with mode 0644, whole or not at all.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let mut file = AtomicFile::create(path)?;
    file.write_all(bytes).map_err(StoreError::io("writing", path))?;
    file.commit()
}

/// Writes `bytes` to `path` with `mode`, whole or not at all. What is there already is left alone: the error is an I/O error
/// of kind `AlreadyExists`.
pub fn write_new(path: &Path, bytes: &[u8], mode: u32) -> Result<(), StoreError> {
    let mut file = AtomicFile::create_with(path, mode)?;
    file.write_all(bytes).map_err(StoreError::io("writing", path))?;
    file.commit_new()
}

/// The directory that holds `path`; `.` for a bare name.
fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Makes a rename in the directory of `path` last over a power cut.
pub(crate) fn sync_directory_of(path: &Path) -> Result<(), StoreError> {
    File::open(directory_of(path)).and_then(|directory| directory.sync_all()).map_err(StoreError::io("syncing", path))
}
