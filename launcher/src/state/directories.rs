//! Where state lives: `/run` and `/var/log` for root, the user's own directories otherwise.

use std::env;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::unistd::geteuid;

use super::StateError;

/// The two directories of one user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directories {
    /// What must not survive a boot: locks and the records of running VMs.
    pub run: PathBuf,
    /// What is kept: console logs and last records.
    pub state: PathBuf,
}

impl Directories {
    /// The directories of the current user, as the environment says. `BULLION_RUN_DIR` and `BULLION_STATE_DIR` override.
    pub fn from_environment() -> Self {
        let of = |key: &str| env::var_os(key).filter(|value| !value.is_empty()).map(PathBuf::from);
        let user = geteuid();
        let below = |directory: PathBuf| directory.join("bullion");
        let run = of("BULLION_RUN_DIR").unwrap_or_else(|| {
            if user.is_root() {
                return PathBuf::from("/run/bullion");
            }
            // Nobody else can make a directory of this name that passes `prepare`.
            of("XDG_RUNTIME_DIR").map_or_else(|| env::temp_dir().join(format!("bullion-{user}")), below)
        });
        let state = of("BULLION_STATE_DIR").unwrap_or_else(|| {
            if user.is_root() {
                return PathBuf::from("/var/log/bullion");
            }
            let home = || of("HOME").map(|home| home.join(".local/state"));
            of("XDG_STATE_HOME").or_else(home).map_or_else(|| run.join("kept"), below)
        });
        Self { run, state }
    }

    /// Creates them where they are missing and makes sure that they are this user's alone.
    pub(crate) fn prepare(&self) -> Result<(), StateError> {
        for directory in [&self.run, &self.state] {
            if let Some(parent) = directory.parent() {
                fs::create_dir_all(parent).map_err(StateError::io("create", parent))?;
            }
            create_private_directory(directory)?;
        }
        Ok(())
    }

    pub(super) fn lock(&self, name: &str) -> PathBuf {
        self.run.join(format!("{name}.lock"))
    }

    /// The directory that exists while VM `name` runs.
    pub(crate) fn running(&self, name: &str) -> PathBuf {
        self.run.join(name)
    }

    /// The directory that is kept of VM `name`.
    pub(crate) fn kept(&self, name: &str) -> PathBuf {
        self.state.join(name)
    }

    /// The console log of VM `name`.
    pub fn console_log(&self, name: &str) -> PathBuf {
        self.kept(name).join("console.log")
    }
}

/// Creates a directory of mode 0700, or accepts one that is there if it is a private one of this user.
pub(crate) fn create_private_directory(path: &Path) -> Result<(), StateError> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(StateError::io("create", path)(error));
        }
        _ => {}
    }
    let found = fs::symlink_metadata(path).map_err(StateError::io("look at", path))?;
    let wrong = if !found.is_dir() {
        "it is not a directory".to_owned()
    } else if found.uid() != geteuid().as_raw() {
        format!("it belongs to user {}", found.uid())
    } else if found.mode() & 0o022 != 0 {
        format!("others may write to it (mode {:o})", found.mode() & 0o7777)
    } else {
        return Ok(());
    };
    Err(StateError::NotPrivate { path: path.to_owned(), found: wrong })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn only_a_private_directory_is_used() {
        let root = tempfile::tempdir().unwrap();
        let directories = Directories { run: root.path().join("a/run"), state: root.path().join("b/state") };
        directories.prepare().unwrap();
        directories.prepare().unwrap();
        assert_eq!(fs::metadata(&directories.run).unwrap().mode() & 0o777, 0o700);

        fs::set_permissions(&directories.run, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(directories.prepare(), Err(StateError::NotPrivate { .. })));
        fs::remove_dir(&directories.run).unwrap();
        std::os::unix::fs::symlink("/tmp", &directories.run).unwrap();
        assert!(matches!(directories.prepare(), Err(StateError::NotPrivate { .. })));
    }
}
