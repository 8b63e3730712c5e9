//! Where state lives: `/run` and `/var/log` for root, the user's own directories otherwise.

use std::env;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::unistd::geteuid;

use super::{StateError, Which, is_name};

/// Where state is kept that has no other place. No VM has a name with a dot, so no VM's own directory is this one.
const KEPT: &str = ".kept";

/// The directory of accepted releases, whose name no VM has either.
const RELEASES: &str = ".releases";

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
            of("XDG_STATE_HOME").or_else(home).map_or_else(|| run.join(KEPT), below)
        });
        Self { run, state }
    }

    /// Creates them where they are missing and makes sure that they are this user's alone.
    pub(crate) fn prepare(&self) -> Result<(), StateError> {
        self.check()?;
        for directory in [&self.run, &self.state] {
            if let Some(parent) = directory.parent() {
                fs::create_dir_all(parent).map_err(StateError::io("create", parent))?;
            }
            create_private_directory(directory)?;
        }
        // Two paths can lead to one directory that was not there before.
        self.check()
    }

    /// Makes sure of the same where they are there already: nothing in a directory is believed or removed before.
    pub(super) fn check(&self) -> Result<(), StateError> {
        let overlap = || StateError::Overlap { run: self.run.clone(), state: self.state.clone() };
        let within = self.state.strip_prefix(&self.run).ok().and_then(|rest| rest.iter().next());
        if within.is_some_and(|first| first.to_str().is_some_and(is_name)) {
            return Err(overlap());
        }
        let (run, state) = (check_private(&self.run)?, check_private(&self.state)?);
        if self.run == self.state || (run.is_some() && run == state) { Err(overlap()) } else { Ok(()) }
    }

    /// Where it is kept which releases of images were accepted. Created where it is missing.
    pub fn releases(&self) -> Result<PathBuf, StateError> {
        self.prepare()?;
        let directory = self.state.join(RELEASES);
        create_private_directory(&directory)?;
        Ok(directory)
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

    /// What the workload of VM `name` printed, where the guest passes it on.
    pub fn workload_log(&self, name: &str) -> PathBuf {
        self.kept(name).join("workload.log")
    }

    pub(super) fn log(&self, name: &str, which: Which) -> PathBuf {
        match which {
            Which::Console => self.console_log(name),
            Which::Workload => self.workload_log(name),
        }
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
    check_private(path).map(drop)
}

/// Accepts a private directory of this user, or nothing at all. Says which directory it is.
fn check_private(path: &Path) -> Result<Option<(u64, u64)>, StateError> {
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(StateError::io("look at", path)(error)),
    };
    let wrong = if !found.is_dir() {
        "it is not a directory".to_owned()
    } else if found.uid() != geteuid().as_raw() {
        format!("it belongs to user {}", found.uid())
    } else if found.mode() & 0o022 != 0 {
        format!("others may write to it (mode {:o})", found.mode() & 0o7777)
    } else if found.mode() & 0o077 != 0 {
        format!("others may look into it (mode {:o})", found.mode() & 0o7777)
    } else {
        return Ok(Some((found.dev(), found.ino())));
    };
    Err(StateError::NotPrivate { path: path.to_owned(), found: wrong })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::super::{list, logs, stop};
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

    #[test]
    fn a_directory_that_others_could_have_prepared_is_not_read() {
        type Verb = fn(&Directories) -> Result<(), StateError>;
        let verbs: [Verb; 3] = [
            |directories| list(directories, true).map(drop),
            |directories| stop(directories, "vm", None).map(drop),
            |directories| logs(directories, "vm", Which::Console, false, &mut Vec::new()),
        ];
        for verb in verbs {
            for which in 0..2 {
                let root = tempfile::tempdir().unwrap();
                let directories = Directories { run: root.path().join("run"), state: root.path().join("state") };
                let refused = || matches!(verb(&directories), Err(StateError::NotPrivate { .. }));
                assert!(!refused(), "what is not there holds nothing");
                directories.prepare().unwrap();
                fs::create_dir(directories.kept("vm")).unwrap();
                fs::write(directories.console_log("vm"), "log").unwrap();
                assert!(!refused());
                let directory = [&directories.run, &directories.state][which];
                for mode in [0o777, 0o720, 0o705] {
                    fs::set_permissions(directory, fs::Permissions::from_mode(mode)).unwrap();
                    assert!(refused(), "{mode:o}");
                }
                fs::set_permissions(directory, fs::Permissions::from_mode(0o700)).unwrap();
                fs::rename(directory, root.path().join("elsewhere")).unwrap();
                std::os::unix::fs::symlink(root.path().join("elsewhere"), directory).unwrap();
                assert!(refused(), "a link");
            }
        }
    }

    #[test]
    fn what_is_kept_is_not_where_a_vm_runs() {
        let root = tempfile::tempdir().unwrap();
        let run = root.path().join("run");
        let with = |state: PathBuf| Directories { run: run.clone(), state };
        let overlap = |directories: &Directories| matches!(directories.prepare(), Err(StateError::Overlap { .. }));
        assert!(overlap(&with(run.clone())));
        // The same place by another path.
        std::os::unix::fs::symlink(root.path(), root.path().join("link")).unwrap();
        assert!(overlap(&with(root.path().join("link/run"))));
        assert!(overlap(&with(run.join("kept"))) && overlap(&with(run.join("vm/state"))));
        assert!(!run.join("kept").exists() && !run.join("vm").exists());
        let directories = with(run.join(KEPT));
        directories.prepare().unwrap();
        assert_ne!(directories.running("kept"), directories.state);
        assert!(!is_name(KEPT));
    }
}
