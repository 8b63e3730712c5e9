//! The lock of a VM's name: whoever holds it supervises the VM, and nobody else does.
//!
//! The file is removed while the lock is held. Someone who opened it before and gets the lock afterwards holds a file
//! that no longer has the name; the check for that is what makes two holders of one name impossible.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use super::{Directories, ProcessId, StateError, open_lock};

/// A lock that is only being looked at is free again within milliseconds: this often it is tried once more.
const ATTEMPTS: u32 = 10;
const PAUSE: Duration = Duration::from_millis(15);

/// The held lock. Dropping it removes the file and lets go.
#[derive(Debug)]
pub(crate) struct Lock {
    path: PathBuf,
    file: Flock<File>,
}

impl Lock {
    /// Takes the lock for a launch.
    pub(crate) fn take(directories: &Directories, name: &str) -> Result<Self, StateError> {
        for attempt in 0..ATTEMPTS {
            if attempt > 0 {
                thread::sleep(PAUSE);
            }
            if let Some(mut lock) = Self::try_take(directories, name)? {
                lock.sign().map_err(StateError::io("write", &lock.path))?;
                return Ok(lock);
            }
            // A living holder that has signed is a supervisor, and will not be gone in a moment.
            if holder(directories, name).is_some_and(|pid| ProcessId::of(pid).is_some()) {
                break;
            }
        }
        Err(StateError::Running { name: name.to_owned(), pid: holder(directories, name) })
    }

    /// Takes the lock if nobody holds it.
    pub(crate) fn try_take(directories: &Directories, name: &str) -> Result<Option<Self>, StateError> {
        let path = directories.lock(name);
        loop {
            let file = open_lock(&path).map_err(StateError::io("open", &path))?;
            let file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(file) => file,
                Err((_, Errno::EWOULDBLOCK)) => return Ok(None),
                Err((_, error)) => return Err(StateError::io("lock", &path)(error.into())),
            };
            let same =
                |found: &fs::Metadata, held: &fs::Metadata| (found.dev(), found.ino()) == (held.dev(), held.ino());
            match (fs::metadata(&path), file.metadata()) {
                (Ok(found), Ok(held)) if same(&found, &held) => return Ok(Some(Self { path, file })),
                // Removed by its last holder between our open and our lock.
                _ => {}
            }
        }
    }

    /// Writes this process's id into the file, for the message that another launch of the name prints.
    fn sign(&mut self) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.seek(SeekFrom::Start(0))?;
        self.file.write_all(std::process::id().to_string().as_bytes())
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// The process that has signed the lock file.
fn holder(directories: &Directories, name: &str) -> Option<i32> {
    let mut text = String::new();
    File::open(directories.lock(name)).ok()?.take(20).read_to_string(&mut text).ok()?;
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn one_name_has_one_holder_at_a_time() {
        let root = tempfile::tempdir().unwrap();
        let directories = Directories { run: root.path().to_owned(), state: root.path().to_owned() };
        let inside = AtomicUsize::new(0);
        let won = AtomicUsize::new(0);
        let barrier = Barrier::new(8);
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    barrier.wait();
                    for _ in 0..400 {
                        if let Some(lock) = Lock::try_take(&directories, "vm").unwrap() {
                            assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "two holders");
                            won.fetch_add(1, Ordering::SeqCst);
                            inside.fetch_sub(1, Ordering::SeqCst);
                            drop(lock);
                        }
                    }
                });
            }
        });
        assert!(won.load(Ordering::SeqCst) > 8);
        assert!(!directories.lock("vm").exists());
    }

    #[test]
    fn a_second_launch_is_told_who_holds_the_name() {
        let root = tempfile::tempdir().unwrap();
        let directories = Directories { run: root.path().to_owned(), state: root.path().to_owned() };
        let lock = Lock::take(&directories, "vm").unwrap();
        let me = i32::try_from(std::process::id()).unwrap();
        assert!(matches!(Lock::take(&directories, "vm"), Err(StateError::Running { pid: Some(pid), .. }) if pid == me));
        drop(lock);
        Lock::take(&directories, "vm").unwrap();
    }
}
