//! Where the journal is, and the lock that keeps two processes from changing the host at the same time.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use super::PrepareError;
use crate::state::directories::create_private_directory;
use crate::state::{Directories, open_lock};

/// Root's own: it must outlive logs that are cleared away.
const OF_ROOT: &str = "/var/lib/bullion";

fn directory(directories: &Directories) -> PathBuf {
    match directories.state == Path::new("/var/log/bullion") {
        true => PathBuf::from(OF_ROOT),
        // No VM has a name with a dot.
        false => directories.state.join(".host"),
    }
}

/// Where the journal of changes to the host is.
pub fn journal(directories: &Directories) -> PathBuf {
    directory(directories).join("host-changes.json")
}

/// Makes the journal's directory where it is missing, and takes the right to change the host for as long as what is returned
/// lives.
pub fn lock(directories: &Directories) -> Result<Flock<File>, PrepareError> {
    let directory = directory(directories);
    let made = directory.parent().map_or(Ok(()), fs::create_dir_all).map_err(PrepareError::Journal);
    made.and_then(|()| Ok(create_private_directory(&directory)?))?;
    let path = directory.join("lock");
    Flock::lock(open_lock(&path).map_err(PrepareError::Journal)?, FlockArg::LockExclusiveNonblock).map_err(
        |(_, error)| match error {
            Errno::EWOULDBLOCK => PrepareError::Taken,
            error => PrepareError::Journal(error.into()),
        },
    )
}
