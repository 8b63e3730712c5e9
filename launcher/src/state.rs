//! What other processes can see of a VM: that it runs, what it is, where its console goes, how it ended.
//!
//! `RUN/NAME.lock` is held by the supervisor for as long as it lives: the kernel lets go of it however the supervisor
//! ends, so it alone decides whether a VM runs. `RUN/NAME/state.json` says the rest. Both are gone when the VM is.
//! `STATE/NAME/` survives: the console log, what QEMU said, and the last record with the exit code.

pub mod directories;
mod forget;
mod list;
mod lock;
mod logs;
mod record;
mod stop;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use spec::{Diagnostic, Outcome};

pub use directories::Directories;
pub use forget::forget;
pub use list::{Listed, list};
pub(crate) use list::{last, running, sweep};
pub(crate) use lock::Lock;
pub use logs::{Which, logs};
pub(crate) use record::now;
pub use record::{Exit, Phase, ProcessId, Record};
pub use stop::{Stopped, stop};

/// State that cannot be read, written or trusted.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// A file or directory cannot be used.
    #[error("cannot {what} {path}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A directory that others could have prepared.
    #[error("{path} is not a private directory of this user: {found}")]
    NotPrivate {
        /// The directory.
        path: PathBuf,
        /// What it is instead.
        found: String,
    },
    /// What a VM leaves would be removed with it.
    #[error("{state} cannot be kept apart from what runs in {run}")]
    Overlap {
        /// The run directory.
        run: PathBuf,
        /// The state directory.
        state: PathBuf,
    },
    /// A VM of that name runs already.
    #[error("a VM named \"{name}\" runs already{}", .pid.map(|pid| format!(", supervised by process {pid}")).unwrap_or_default())]
    Running {
        /// The name.
        name: String,
        /// The supervisor, where it has said so.
        pid: Option<i32>,
    },
    /// No VM of that name runs.
    #[error("no VM named \"{name}\" is running")]
    NotRunning {
        /// The name.
        name: String,
    },
    /// Nothing is known about a VM of that name.
    #[error("there is no log of a VM named \"{name}\"")]
    NoLog {
        /// The name.
        name: String,
    },
    /// Nothing is kept of a VM of that name.
    #[error("nothing is kept of a VM named \"{name}\"")]
    NotKept {
        /// The name.
        name: String,
    },
    /// The VM is there, and what is kept of it is in use.
    #[error("the VM \"{name}\" has not ended")]
    NotEnded {
        /// The name.
        name: String,
    },
    /// The supervisor did not end in time.
    #[error("the supervisor of \"{name}\" (process {pid}) did not end, not even when killed")]
    Stuck {
        /// The VM's name.
        name: String,
        /// The supervisor.
        pid: i32,
    },
}

impl StateError {
    pub(crate) fn io<'a>(what: &'static str, path: &'a Path) -> impl Fn(io::Error) -> Self + 'a {
        move |source| Self::Io { what, path: path.to_owned(), source }
    }
}

impl Diagnostic for StateError {
    fn outcome(&self) -> Outcome {
        match self {
            Self::NotRunning { .. } | Self::NoLog { .. } | Self::NotKept { .. } | Self::Overlap { .. } => {
                Outcome::Usage
            }
            Self::Io { .. }
            | Self::NotPrivate { .. }
            | Self::Running { .. }
            | Self::NotEnded { .. }
            | Self::Stuck { .. } => Outcome::HostCannot,
        }
    }
    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Running { name, .. } => {
                format!("stop it with `bullion stop {name}`, or give this one another `name`")
            }
            Self::NotRunning { .. } | Self::NoLog { .. } | Self::NotKept { .. } => {
                "`bullion ps` lists the VMs".to_owned()
            }
            Self::NotEnded { name } => format!("stop it with `bullion stop {name}` before"),
            Self::NotPrivate { path, .. } => {
                format!("remove {0}; or, if you trust all that is in it, `chmod 700 {0}`", path.display())
            }
            Self::Overlap { .. } => {
                "give BULLION_RUN_DIR and BULLION_STATE_DIR directories that do not lie in each other".to_owned()
            }
            Self::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                "make room on the disk".to_owned()
            }
            Self::Io { .. } | Self::Stuck { .. } => return None,
        })
    }
}

/// Whether `name` can be the name of a VM, and so of a file. What does not pass names no VM.
fn is_name(name: &str) -> bool {
    let clean = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    !name.is_empty() && name.len() <= 48 && !name.starts_with('-') && name.bytes().all(clean)
}

/// Writes a file so that it is there whole or not at all, readable by its owner only.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    write_whole(path, bytes, File::sync_data)
}

/// The same of what does not outlive the host's power, as the run directory does not. Nobody waits for a disk.
pub(crate) fn write_for_now(path: &Path, bytes: &[u8]) -> io::Result<()> {
    write_whole(path, bytes, |_| Ok(()))
}

fn write_whole(path: &Path, bytes: &[u8], sync: fn(&File) -> io::Result<()>) -> io::Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = path.with_file_name(format!(".{name}.{}.new", std::process::id()));
    let written = create_private(&temporary).and_then(|mut file| {
        file.write_all(bytes)?;
        sync(&file)?;
        fs::rename(&temporary, path)
    });
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written
}

/// Creates or empties a file that only its owner can read, without following a link.
pub(crate) fn create_private(path: &Path) -> io::Result<File> {
    let no_follow = nix::fcntl::OFlag::O_NOFOLLOW.bits();
    OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).custom_flags(no_follow).open(path)
}

/// Opens the file of a lock, and makes it where it is missing, for its owner alone and without following a link.
pub(crate) fn open_lock(path: &Path) -> io::Result<File> {
    let no_follow = nix::fcntl::OFlag::O_NOFOLLOW.bits();
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(no_follow)
        .open(path)
}
