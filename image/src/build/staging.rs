//! The directory that an image is built in, beside the place where it will be: `.NAME.bullion-build`.
//!
//! The directory is locked by the build that uses it, so that a second build of the same output is refused, and what a
//! killed build left is told from the work of a living one and cleared away.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use spec::manifest;

use super::BuildError;
use store::Image;

const SUFFIX: &str = ".bullion-build";

/// A locked staging directory. Dropped before `commit`, it is removed.
#[derive(Debug)]
pub(crate) struct Staging {
    directory: PathBuf,
    output: PathBuf,
    replace: bool,
    lock: File,
    replaced: Option<File>,
    /// The directory that holds the output was made for it.
    made_parent: bool,
    committed: bool,
}

impl Staging {
    pub(crate) fn begin(output: &Path, replace: bool) -> Result<Self, BuildError> {
        let output = std::path::absolute(output).map_err(BuildError::io("finding", output))?;
        let (Some(parent), Some(name)) = (output.parent(), output.file_name()) else {
            return Err(BuildError::OutputName(output));
        };
        check_output(&output, replace)?;
        let made_parent = !parent.exists();
        fs::create_dir_all(parent).map_err(BuildError::io("creating", parent))?;
        let mut staging_name = std::ffi::OsString::from(".");
        staging_name.push(name);
        staging_name.push(SUFFIX);
        let directory = parent.join(staging_name);
        let lock = lock(&directory, &output)?;
        let staging = Self { directory, output, replace, lock, replaced: None, made_parent, committed: false };
        staging.clear()?;
        let mode = Permissions::from_mode(0o755);
        fs::set_permissions(&staging.directory, mode).map_err(BuildError::io("preparing", &staging.directory))?;
        Ok(staging)
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Removes what a killed build left.
    fn clear(&self) -> Result<(), BuildError> {
        let error = || BuildError::io("clearing", &self.directory);
        for entry in fs::read_dir(&self.directory).map_err(error())? {
            let path = entry.map_err(error())?.path();
            let is_directory = fs::symlink_metadata(&path).map_err(error())?.is_dir();
            if is_directory { fs::remove_dir_all(&path) } else { fs::remove_file(&path) }.map_err(error())?;
        }
        Ok(())
    }

    /// Gives the directory its name. An image that is replaced is exchanged in one step, then removed.
    pub(crate) fn commit(mut self) -> Result<(), BuildError> {
        self.lock.sync_all().map_err(BuildError::io("writing", &self.directory))?;
        check_output(&self.output, self.replace)?;
        let exchanged = self.output.symlink_metadata().is_ok();
        // The old image gets the staging directory's name for a moment: locked, so that no other build takes it over.
        let old =
            exchanged.then(|| File::open(&self.output)).transpose().map_err(BuildError::io("opening", &self.output))?;
        if old.as_ref().is_some_and(|old| old.try_lock().is_err()) {
            return Err(BuildError::OutputBusy(self.output.clone()));
        }
        let flags = if exchanged { RenameFlags::RENAME_EXCHANGE } else { RenameFlags::RENAME_NOREPLACE };
        match renameat2(AT_FDCWD, &self.directory, AT_FDCWD, &self.output, flags) {
            Ok(()) => {}
            Err(nix::Error::EEXIST) => {
                check_output(&self.output, false)?;
                return Err(BuildError::OutputExists(self.output.clone()));
            }
            // A file system without these flags (renameat2(2), EINVAL): the old image goes first.
            Err(nix::Error::EINVAL) => self.rename_in_two_steps(exchanged)?,
            Err(error) => return Err(BuildError::io("creating", &self.output)(error.into())),
        }
        // With an exchange, the old image now has the staging directory's name and `drop` removes it.
        self.committed = !exchanged;
        self.replaced = old;
        let parent = self.output.parent().unwrap_or(Path::new("/"));
        File::open(parent).and_then(|parent| parent.sync_all()).map_err(BuildError::io("syncing", parent))
    }

    fn rename_in_two_steps(&self, exchanged: bool) -> Result<(), BuildError> {
        let error = || BuildError::io("creating", &self.output);
        if !exchanged {
            return fs::rename(&self.directory, &self.output).map_err(error());
        }
        let old = self.directory.join("old");
        fs::create_dir(&old).map_err(error())?;
        let new = self.directory.with_extension("new");
        fs::rename(&self.output, old.join("image")).map_err(error())?;
        fs::rename(&self.directory, &new).map_err(error())?;
        fs::rename(&new, &self.output).map_err(error())?;
        fs::remove_dir_all(self.output.join("old")).map_err(error())
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if !self.committed {
            let _ = fs::remove_dir_all(&self.directory);
            if let Some(parent) = self.output.parent().filter(|_| self.made_parent) {
                // Not if something else is in it by now.
                let _ = fs::remove_dir(parent);
            }
        }
    }
}

/// Refuses an output that is there and is no image, and an image unless it is to be replaced.
///
/// An image is what has a manifest of this program. Its artifacts may be damaged: that is a reason to build it again.
fn check_output(output: &Path, replace: bool) -> Result<(), BuildError> {
    let found = match output.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        found => found.map_err(BuildError::io("finding", output))?,
    };
    if !found.is_dir() || output.join(manifest::FILE_NAME).symlink_metadata().is_err() {
        return Err(BuildError::NotReplaceable(output.to_owned()));
    }
    match Image::open(output) {
        Err(source) => Err(BuildError::OutputDamaged { path: output.to_owned(), source }),
        Ok(_) if replace => Ok(()),
        Ok(_) => Err(BuildError::OutputExists(output.to_owned())),
    }
}

/// Creates the staging directory, or takes over the one of a build that is dead.
fn lock(directory: &Path, output: &Path) -> Result<File, BuildError> {
    let error = || BuildError::io("creating", directory);
    loop {
        match fs::create_dir(directory) {
            Err(found) if found.kind() != io::ErrorKind::AlreadyExists => return Err(error()(found)),
            _ => {}
        }
        let file = match File::open(directory) {
            Err(gone) if gone.kind() == io::ErrorKind::NotFound => continue,
            opened => opened.map_err(error())?,
        };
        match file.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Err(BuildError::OutputBusy(output.to_owned())),
            Err(fs::TryLockError::Error(found)) => return Err(error()(found)),
        }
        // The build that held the lock may have renamed or removed the directory.
        let same = |path: io::Result<fs::Metadata>| path.map(|data| (data.dev(), data.ino())).ok();
        if same(file.metadata()).is_some() && same(file.metadata()) == same(directory.symlink_metadata()) {
            return Ok(file);
        }
    }
}
