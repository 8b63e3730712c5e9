//! Forgetting a VM that has ended: what is kept of it is removed, under the lock of its name, so that nobody launches one of
//! that name meanwhile.

use std::fs;

use super::{Directories, Lock, StateError, is_name, sweep};

/// Removes the logs and the last record of VM `name`, which must not run.
pub fn forget(directories: &Directories, name: &str) -> Result<(), StateError> {
    directories.check()?;
    let kept = directories.kept(name);
    let is_kept = || fs::symlink_metadata(&kept).is_ok_and(|found| found.is_dir());
    let is_known = is_name(name) && (is_kept() || directories.running(name).exists());
    if !is_known {
        return Err(StateError::NotKept { name: name.to_owned() });
    }
    directories.prepare()?;
    let Some(lock) = Lock::try_take(directories, name)? else {
        return Err(StateError::NotEnded { name: name.to_owned() });
    };
    sweep(directories, name);
    if is_kept() {
        fs::remove_dir_all(&kept).map_err(StateError::io("remove", &kept))?;
    }
    drop(lock);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_an_ended_vm_left_is_removed() {
        let root = tempfile::tempdir().unwrap();
        let directories = Directories { run: root.path().join("run"), state: root.path().join("state") };
        let not_kept = |name: &str| matches!(forget(&directories, name), Err(StateError::NotKept { .. }));
        assert!(not_kept("vm"), "nothing is there");
        directories.prepare().unwrap();
        for name in ["vm", "other"] {
            fs::create_dir(directories.kept(name)).unwrap();
            fs::write(directories.console_log(name), "log").unwrap();
        }
        let lock = Lock::take(&directories, "vm").unwrap();
        assert!(matches!(forget(&directories, "vm"), Err(StateError::NotEnded { .. })));
        assert!(directories.console_log("vm").exists());
        drop(lock);
        forget(&directories, "vm").unwrap();
        assert!(!directories.kept("vm").exists() && directories.console_log("other").exists());
        for name in ["vm", "..", ".", "", "../state/other", ".releases"] {
            assert!(not_kept(name), "{name}");
        }
        // A link is nothing that a supervisor left.
        std::os::unix::fs::symlink(directories.kept("other"), directories.kept("link")).unwrap();
        assert!(not_kept("link") && directories.console_log("other").exists());
    }
}
