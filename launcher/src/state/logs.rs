//! Reading a VM's logs, also while they grow and go from file to file (`log`).

use std::fs::{File, Metadata};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::thread;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

use super::{Directories, Lock, StateError, is_name};
use crate::log::{previous, rotated};

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
    let mut reader = match Reader::open(&path) {
        Ok(reader) => reader,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(no_log()),
        Err(error) => return Err(reading(error)),
    };
    let inotify =
        Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK).map_err(|error| reading(error.into()))?;
    let changes = AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO;
    inotify.add_watch(&directories.kept(name), changes).map_err(|error| reading(error.into()))?;
    loop {
        // Whether it runs is asked before the rest is read: what is written in between is then not missed.
        let running = follow && is_running(directories, name)?;
        if reader.copy_all(sink).map_err(&reading)? == Rest::Nobody || !running {
            return Ok(());
        }
        // The end of a VM changes no log: it is looked for once a second.
        let _ = poll(&mut [PollFd::new(inotify.as_fd(), PollFlags::POLLIN)], PollTimeout::from(1000_u16));
        let _ = inotify.read_events();
    }
}

/// What is said where a reader was too slow: it is no part of the log.
const GAP: &[u8] = b"\n[bullion: what came here is no longer kept]\n";
/// How often a file is looked for that must appear in a moment: between two of its files a log has no current one.
const ATTEMPTS: u32 = 50;
const PAUSE: Duration = Duration::from_millis(2);

/// Reads a log from its oldest file on.
struct Reader<'a> {
    path: &'a Path,
    file: File,
}

/// What is left to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rest {
    /// Nothing yet.
    Later,
    /// Nothing any more, or nobody who reads it.
    Nobody,
}

impl<'a> Reader<'a> {
    fn open(path: &'a Path) -> io::Result<Self> {
        // The oldest may be removed before it is opened.
        for _ in 0..ATTEMPTS {
            let oldest = rotated(path)?.into_iter().next();
            match File::open(oldest.as_ref().map_or(path, |(_, path)| path)) {
                Ok(file) => return Ok(Self { path, file }),
                Err(error) if error.kind() == io::ErrorKind::NotFound && oldest.is_some() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Self { path, file: File::open(path)? })
    }

    /// Copies all there is, from file to file.
    fn copy_all(&mut self, sink: &mut dyn Write) -> io::Result<Rest> {
        loop {
            if !copy(&mut self.file, sink)? {
                return Ok(Rest::Nobody);
            }
            let Some(next) = self.next()? else { return Ok(Rest::Later) };
            // It was full only then: between our reading and the change there may have been more.
            if !copy(&mut self.file, sink)? {
                return Ok(Rest::Nobody);
            }
            match next {
                Next::File(file) => self.file = file,
                Next::AfterGap(file) => {
                    sink.write_all(GAP)?;
                    self.file = file;
                }
                Next::AnotherLaunch => return Ok(Rest::Nobody),
            }
        }
    }

    /// What follows the file that is being read; none while it is the current one.
    fn next(&self) -> io::Result<Option<Next>> {
        let ours = inode(&self.file.metadata()?);
        for _ in 0..ATTEMPTS {
            if at(self.path)? == Some(ours) {
                return Ok(None);
            }
            if at(&previous(self.path))? == Some(ours) {
                return Ok(Some(Next::AnotherLaunch));
            }
            let all = rotated(self.path)?;
            let mut number = None;
            for (candidate, path) in &all {
                if at(path)? == Some(ours) {
                    number = Some(*candidate);
                }
            }
            let successor = all.iter().find(|(candidate, _)| number.is_none_or(|number| *candidate > number));
            let file = match File::open(successor.map_or(self.path, |(_, path)| path)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                file => Some(file?),
            };
            // The current file may have become a full one, and another the current one, since the list was made.
            let unchanged =
                rotated(self.path)?.last().map(|(number, _)| *number) == all.last().map(|(number, _)| *number);
            match file {
                Some(file) if unchanged && number.is_some() => return Ok(Some(Next::File(file))),
                Some(file) if unchanged => return Ok(Some(Next::AfterGap(file))),
                _ => thread::sleep(PAUSE),
            }
        }
        // A log that is gone has no next file.
        Ok(None)
    }
}

enum Next {
    File(File),
    AfterGap(File),
    AnotherLaunch,
}

fn inode(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

fn at(path: &Path) -> io::Result<Option<(u64, u64)>> {
    match std::fs::symlink_metadata(path) {
        Ok(metadata) => Ok(Some(inode(&metadata))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
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

#[cfg(test)]
mod tests {
    use spec::size::Size;
    use spec::vm::LogTerms;

    use super::*;
    use crate::log::Log;

    fn text(length: usize) -> Vec<u8> {
        (0..length).flat_map(|index| format!("line {index}\n").into_bytes()).collect()
    }

    #[test]
    fn a_reader_that_follows_loses_nothing_between_two_files() {
        let root = tempfile::tempdir().unwrap();
        let directories = Directories { run: root.path().join("run"), state: root.path().join("state") };
        directories.prepare().unwrap();
        std::fs::create_dir(directories.kept("vm")).unwrap();
        let path = directories.console_log("vm");
        // As many files as are written: a reader that is kept waiting loses nothing either.
        let terms = LogTerms { size: Size { bytes: 1000 }, files: 1000 };
        let lock = Lock::take(&directories, "vm").unwrap();
        let mut log = Log::begin(&path, terms).unwrap();
        let expected = text(40_000);
        let followed = thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let mut seen = Vec::new();
                logs(&directories, "vm", Which::Console, true, &mut seen).unwrap();
                seen
            });
            expected.chunks(777).for_each(|chunk| log.write(chunk).unwrap());
            drop(lock);
            reader.join().unwrap()
        });
        assert!(rotated(&path).unwrap().len() > 400);
        assert!(followed == expected, "{} bytes of {}", followed.len(), expected.len());
        let mut all = Vec::new();
        logs(&directories, "vm", Which::Console, false, &mut all).unwrap();
        assert!(all == expected);
    }

    #[test]
    fn what_is_no_longer_kept_is_not_passed_over_in_silence() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("console.log");
        let terms = LogTerms { size: Size { bytes: 10 }, files: 2 };
        let mut log = Log::begin(&path, terms).unwrap();
        log.write(b"0123456789").unwrap();
        let mut reader = Reader::open(&path).unwrap();
        let mut seen = Vec::new();
        assert_eq!(reader.copy_all(&mut seen).unwrap(), Rest::Later);
        log.write(b"abcdefghijABCDEFGHIJ").unwrap();
        log.write(b"xyz").unwrap();
        assert_eq!(reader.copy_all(&mut seen).unwrap(), Rest::Later);
        assert_eq!(seen, [b"0123456789".as_slice(), GAP, b"ABCDEFGHIJxyz"].concat());
        let log = Log::begin(&path, terms).unwrap();
        assert_eq!(reader.copy_all(&mut seen).unwrap(), Rest::Nobody, "another launch has another log");
        drop(log);
    }
}
