//! Reading a VM's logs, also while they grow.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

use super::{Directories, Lock, StateError, is_name};

/// One of a VM's logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// What its serial console said.
    Console,
    /// What its workload printed.
    Workload,
}

/// Writes a log of VM `name` to `sink`, as it is: a caller that writes to a terminal puts a
/// `screen::TerminalGuard` before it. With `follow`, goes on until the VM has ended. Returns when the sink is closed.
pub fn logs(
    directories: &Directories,
    name: &str,
    which: Which,
    follow: bool,
    sink: &mut dyn Write,
) -> Result<(), StateError> {
    let no_log = || StateError::NoLog { name: name.to_owned() };
    let path = directories.log(name, which);
    if !is_name(name) {
        return Err(no_log());
    }
    directories.check()?;
    let reading = StateError::io("read", &path);
    let mut file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(no_log()),
        Err(error) => return Err(reading(error)),
    };
    let inotify =
        Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK).map_err(|error| reading(error.into()))?;
    inotify.add_watch(&path, AddWatchFlags::IN_MODIFY).map_err(|error| reading(error.into()))?;
    loop {
        // Whether it runs is asked before the rest is read: what is written in between is then not missed.
        let running = follow && is_running(directories, name)?;
        if !copy(&mut file, sink).map_err(&reading)? || !running || is_replaced(&file, &path) {
            return Ok(());
        }
        // The end of a VM changes no log: it is looked for once a second.
        let _ = poll(&mut [PollFd::new(inotify.as_fd(), PollFlags::POLLIN)], PollTimeout::from(1000_u16));
        let _ = inotify.read_events();
    }
}

/// Copies what there is. `false` when nobody reads any more.
fn copy(file: &mut File, sink: &mut dyn Write) -> io::Result<bool> {
    let mut buffer = [0; 16 << 10];
    loop {
        let length = file.read(&mut buffer)?;
        let written = sink.write_all(buffer.get(..length).unwrap_or_default()).and_then(|()| sink.flush());
        match written {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(false),
            Err(error) => return Err(error),
            Ok(()) if length == 0 => return Ok(true),
            Ok(()) => {}
        }
    }
}

fn is_running(directories: &Directories, name: &str) -> Result<bool, StateError> {
    // Looking must not create the lock file of a VM that is gone.
    if !directories.lock(name).exists() {
        return Ok(false);
    }
    match Lock::try_take(directories, name)? {
        None => Ok(true),
        Some(lock) => {
            super::list::clear(directories, name, lock);
            Ok(false)
        }
    }
}

/// Whether the VM has been launched again, with a new log.
fn is_replaced(file: &File, path: &Path) -> bool {
    let inode = |metadata: std::fs::Metadata| (metadata.dev(), metadata.ino());
    let now = std::fs::metadata(path).map(inode).ok();
    file.metadata().map(inode).ok() != now
}
